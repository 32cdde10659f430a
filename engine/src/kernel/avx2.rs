//! AVX2: eight output channels a register, four pixels and sixteen channels a tile.
//!
//! `vpmaddwd` multiplies pairs of i16 exactly (`vpmaddubsw` would saturate): of four inputs, stored as x + 128, the even
//! and the odd ones become two pairs. Equal to [`super::scalar`] bit for bit.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::grid::View;
use super::map::{Columns, Map, Roundings};
use super::packed::LANES;
use crate::requant::Output;
use core::arch::x86_64::*;

/// Proof that the CPU has AVX2; only [`detect`] makes it.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

/// The token, where the CPU has what it takes.
pub fn detect() -> Option<Avx2> {
    std::is_x86_feature_detected!("avx2").then_some(Avx2(()))
}

/// Pixels of a tile at most.
const PIXELS: usize = 4;

/// Sixteen channels.
type Block<T> = [T; 2];

/// How f32 values become bytes.
struct Rounding {
    low: __m256,
    high: __m256,
    /// The zero point + 128.
    zero: __m256i,
}

impl Rounding {
    #[target_feature(enable = "avx2")]
    fn new(out: Output) -> Self {
        let [low, high] = out.bounds().map(|v| _mm256_set1_ps(v));
        Self { low, high, zero: _mm256_set1_epi32(out.zero() + 128) }
    }

    /// The clamped and rounded values themselves, still less the zero point: `vroundps` rounds half to even.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn whole(&self, values: Block<__m256>) -> Block<__m256> {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        values.map(|v| _mm256_round_ps::<NEAREST>(_mm256_min_ps(_mm256_max_ps(v, self.low), self.high)))
    }

    /// Rounded values + 128 as bytes.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn bytes(&self, whole: Block<__m256>) -> __m128i {
        let [a, b] = whole.map(|v| _mm256_add_epi32(_mm256_cvttps_epi32(v), self.zero));
        // The values fit a byte, so packing saturates nothing; it mixes quarters of a and b.
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
    }
}

/// The map at every pixel, and what follows it.
///
/// # Safety
/// The CPU has the instructions, and [`Map::check`] has held for the bytes at `memory`.
#[target_feature(enable = "avx2")]
pub unsafe fn map(m: &Map, memory: *mut u8) {
    let roundings = m.roundings(|out| Rounding::new(out));
    for block in 0..m.packed.blocks() {
        for row in 0..m.extent[0] {
            // SAFETY: as this function's callers.
            unsafe {
                if let Some(columns) = &m.columns {
                    interleave(m, columns, [block, row], memory);
                    pixels::<true>(m, [block, row], &roundings, memory);
                } else {
                    pixels::<false>(m, [block, row], &roundings, memory);
                }
            }
        }
    }
}

/// A row's pixels of a block of channels.
#[target_feature(enable = "avx2")]
unsafe fn pixels<const OWN: bool>(
    m: &Map,
    [block, row]: [usize; 2],
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) {
    let columns = m.extent[1];
    let mut column = 0;
    while column < columns {
        let (rest, place) = (columns - column, [block, row, column]);
        // SAFETY: a tile of P pixels starts at most P before the end of the row.
        unsafe {
            match rest {
                1 => tile::<1, OWN>(m, place, roundings, memory),
                2 => tile::<2, OWN>(m, place, roundings, memory),
                3 => tile::<3, OWN>(m, place, roundings, memory),
                _ => tile::<PIXELS, OWN>(m, place, roundings, memory),
            }
        }
        column += rest.min(PIXELS);
    }
}

/// Lays a block's columns side by side for a row of pixels.
///
/// # Safety
/// [`Map::check`] has held for the bytes at `memory`.
#[target_feature(enable = "avx2")]
unsafe fn interleave(m: &Map, columns: &Columns, place: [usize; 2], memory: *mut u8) {
    for (rows, to) in columns.strips(m, place, memory) {
        for column in 0..columns.extent[0] {
            // SAFETY: this function's callers.
            unsafe {
                let [a, b, c, d] = rows.map(|row| _mm_loadu_si128(row.add(column * columns.channels).cast()));
                let (ab, cd) = (_mm_unpacklo_epi8(a, b), _mm_unpacklo_epi8(c, d));
                let (high_ab, high_cd) = (_mm_unpackhi_epi8(a, b), _mm_unpackhi_epi8(c, d));
                let quarters = [
                    _mm_unpacklo_epi16(ab, cd),
                    _mm_unpackhi_epi16(ab, cd),
                    _mm_unpacklo_epi16(high_ab, high_cd),
                    _mm_unpackhi_epi16(high_ab, high_cd),
                ];
                for (i, quarter) in quarters.into_iter().enumerate() {
                    _mm_storeu_si128(to.add(64 * column + 16 * i).cast(), quarter);
                }
            }
        }
    }
}

/// The sums of P neighbouring pixels over a block of channels; with `OWN`, each channel over inputs of its own.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sums<const P: usize, const OWN: bool>(
    m: &Map,
    place @ [block, ..]: [usize; 3],
    memory: *const u8,
) -> [Block<__m256i>; P] {
    let Map { step, packed, .. } = m;
    // SAFETY: `Map::check` proved that every step of every tile lies in the memory, and that there are lines and biases
    // for all blocks; the callers' tiles end with the row.
    unsafe {
        let (from, line) = m.tile(place, memory);
        let mut line = line.cast::<u8>();
        let bias = m.bias().add(block * LANES).cast::<__m256i>();
        let mut sums = [[_mm256_loadu_si256(bias), _mm256_loadu_si256(bias.add(1))]; P];
        let low_bytes = _mm256_set1_epi16(0xff);
        for tap in m.taps {
            let inputs = from.add(*tap);
            for k in 0..packed.steps {
                // `[even and odd][half][8 channels][2 inputs]`.
                let eight = |at: usize| _mm256_cvtepi8_epi16(_mm_load_si128(line.add(16 * at).cast()));
                let (even, odd) = ([eight(0), eight(1)], [eight(2), eight(3)]);
                for (p, sums) in sums.iter_mut().enumerate() {
                    let fours = if OWN {
                        let at = inputs.add(p * step[0] + 64 * k);
                        [0, 32].map(|half| _mm256_loadu_si256(at.add(half).cast()))
                    } else {
                        let at = inputs.add(p * step[0] + 4 * k).cast::<i32>();
                        [_mm256_set1_epi32(at.read_unaligned()); 2]
                    };
                    for (h, (sum, four)) in sums.iter_mut().zip(fours).enumerate() {
                        let pairs = [_mm256_and_si256(four, low_bytes), _mm256_srli_epi16::<8>(four)];
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs[0], even[h]));
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs[1], odd[h]));
                    }
                }
                line = line.add(64);
            }
        }
        sums
    }
}

/// `sum * scale` of a block, the scale's first channel given.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn scaled(sums: Block<__m256i>, scale: *const f32) -> Block<__m256> {
    // SAFETY: the callers' scales have whole blocks.
    unsafe {
        [
            _mm256_mul_ps(_mm256_cvtepi32_ps(sums[0]), _mm256_loadu_ps(scale)),
            _mm256_mul_ps(_mm256_cvtepi32_ps(sums[1]), _mm256_loadu_ps(scale.add(8))),
        ]
    }
}

#[target_feature(enable = "avx2")]
unsafe fn tile<const P: usize, const OWN: bool>(
    m: &Map,
    place: [usize; 3],
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) {
    let [block, row, column] = place;
    let (channels, first) = (m.packed.channels, block * LANES);
    let kept = LANES.min(channels - first);
    let pixel = |view: View, p: usize| view.at + row * view.pitch + (column + p) * m.pixel + first;
    // SAFETY: `Map::check` has held for pixels and whole blocks of every view; constants have whole blocks.
    unsafe {
        let sums = sums::<P, OWN>(m, place, memory);
        let store = |bytes: __m128i, at: usize| match kept {
            LANES => _mm_storeu_si128(memory.add(at).cast(), bytes),
            _ => {
                let mut whole = [0u8; LANES];
                _mm_storeu_si128(whole.as_mut_ptr().cast(), bytes);
                memory.add(at).copy_from_nonoverlapping(whole.as_ptr(), kept);
            }
        };
        for (p, sums) in sums.into_iter().enumerate() {
            let mut rounding = &roundings.own;
            let mut value = rounding.whole(scaled(sums, m.scale().add(first)));
            if let (Some(sum), Some(own)) = (&m.sum, &roundings.sum) {
                let bytes = _mm_loadu_si128(memory.add(pixel(sum.other, p)).cast());
                let zero = _mm256_set1_epi32(i32::from(sum.other_zero));
                let other = [_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes))]
                    .map(|b| _mm256_cvtepi32_ps(_mm256_sub_epi32(b, zero)));
                let [a, b] = sum.ratio.map(|r| _mm256_set1_ps(r));
                // Three roundings, as the definition has them: no FMA.
                let both = |h: usize| _mm256_add_ps(_mm256_mul_ps(value[h], a), _mm256_mul_ps(other[h], b));
                rounding = own;
                value = rounding.whole([both(0), both(1)]);
            }
            if let Some(y) = m.y {
                store(rounding.bytes(value), pixel(y, p));
            }
            if let (Some(affine), Some(own)) = (&m.affine, &roundings.affine) {
                let (mul, add) =
                    (m.line(affine.mul).cast::<f32>().add(first), m.line(affine.add).cast::<f32>().add(first));
                let mapped = |h: usize| {
                    let scaled = _mm256_mul_ps(value[h], _mm256_loadu_ps(mul.add(8 * h)));
                    _mm256_add_ps(scaled, _mm256_loadu_ps(add.add(8 * h)))
                };
                store(own.bytes(own.whole([mapped(0), mapped(1)])), pixel(affine.y, p));
            }
        }
    }
}

/// `f32(acc) * scale` of a map of one pixel, `[channels]`.
///
/// # Safety
/// As [`map`].
#[target_feature(enable = "avx2")]
pub unsafe fn real(m: &Map, memory: *const u8, y: &mut [f32]) {
    for (block, y) in y.chunks_mut(LANES).enumerate() {
        // SAFETY: as `tile`.
        unsafe {
            let [halves] = sums::<1, false>(m, [block, 0, 0], memory);
            let values = scaled(halves, m.scale().add(block * LANES));
            let mut all = [0.0f32; LANES];
            _mm256_storeu_ps(all.as_mut_ptr(), values[0]);
            _mm256_storeu_ps(all.as_mut_ptr().add(8), values[1]);
            y.copy_from_slice(&all[..y.len()]);
        }
    }
}

/// `rounds` times twelve products of sixteen pairs and their sums, which do not wait for each other; returns the number of
/// products.
#[target_feature(enable = "avx2")]
pub fn multiply_at_peak(rounds: u32) -> u64 {
    let (mut a, b) = (_mm256_set1_epi16(1), _mm256_set1_epi16(2));
    let mut sums = [_mm256_setzero_si256(); 12];
    for _ in 0..rounds {
        for sum in &mut sums {
            // SAFETY: no instruction. The compiler must believe that `a` changes, or it keeps the products.
            unsafe {
                core::arch::asm!("/* {0} */", inout(ymm_reg) a, options(pure, nomem, nostack, preserves_flags))
            };
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(a, b));
        }
    }
    core::hint::black_box(sums);
    u64::from(rounds) * 12 * 16
}

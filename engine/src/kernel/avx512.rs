//! AVX-512 VNNI: sixteen output channels a register, up to eight pixels and three registers of channels a tile.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes and saturates nowhere: inputs are stored as x + 128, and
//! `-128 sum w` stands in the bias. Sums wrap as i32 and end where the exact sum does, which fits. Equal to
//! [`super::scalar`] bit for bit.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::grid::View;
use super::map::{Map, Roundings};
use super::packed::LANES;
use crate::requant::Output;
use core::arch::x86_64::*;

/// Proof that the CPU has AVX-512 F, BW, VL and VNNI and that the system keeps their registers; only [`detect`] makes it.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

/// The token, where the CPU has what it takes.
pub fn detect() -> Option<Avx512> {
    let all = std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512vl")
        && std::is_x86_feature_detected!("avx512vnni");
    all.then_some(Avx512(()))
}

/// Pixels of a tile at most.
const PIXELS: usize = 8;

/// How f32 values become bytes.
#[derive(Clone, Copy)]
struct Rounding {
    low: __m512,
    high: __m512,
    /// The zero point + 128, as i16.
    zero: __m512i,
    /// The least byte.
    floor: __m512i,
}

impl Rounding {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn new(out: Output) -> Self {
        let [low, high] = out.bounds();
        let zero = out.zero() + 128;
        Self {
            low: _mm512_set1_ps(low),
            high: _mm512_set1_ps(high),
            zero: _mm512_set1_epi16(zero as i16),
            floor: _mm512_set1_epi8((low as i32 + zero) as i8),
        }
    }

    /// The clamped and rounded values themselves, still less the zero point.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn whole(&self, values: __m512) -> __m512 {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        _mm512_roundscale_ps::<NEAREST>(_mm512_min_ps(_mm512_max_ps(values, self.low), self.high))
    }

    /// [`Output::quantise`] of four times sixteen values, each + 128. The upper clamp stands before the conversion, which
    /// turns what is too small for an i32 into the least one; narrowing saturates to the lower clamp.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn bytes(&self, values: [__m512; 4]) -> __m512i {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        let [a, b, c, d] = values.map(|v| _mm512_cvt_roundps_epi32::<NEAREST>(_mm512_min_ps(v, self.high)));
        let ab = _mm512_adds_epi16(_mm512_packs_epi32(a, b), self.zero);
        let cd = _mm512_adds_epi16(_mm512_packs_epi32(c, d), self.zero);
        // Each quarter of the register holds four channels of a, b, c and d.
        let mixed = _mm512_max_epu8(_mm512_packus_epi16(ab, cd), self.floor);
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_permutexvar_epi32(order, mixed)
    }
}

/// The map at every pixel, and what follows it.
///
/// # Safety
/// The CPU has the instructions, and [`Map::check`] has held for the bytes at `memory`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn map(m: &Map, memory: *mut u8) {
    let roundings = m.roundings(|out| Rounding::new(out));
    // SAFETY: as this function's callers.
    unsafe {
        match (m.sum.is_some(), m.affine.is_some()) {
            (false, false) => blocks::<false, false>(m, &roundings, memory),
            (true, false) => blocks::<true, false>(m, &roundings, memory),
            (false, true) => blocks::<false, true>(m, &roundings, memory),
            (true, true) => blocks::<true, true>(m, &roundings, memory),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn blocks<const SUM: bool, const AFFINE: bool>(m: &Map, roundings: &Roundings<Rounding>, memory: *mut u8) {
    let blocks = m.packed.blocks();
    let mut block = 0;
    while block < blocks {
        // SAFETY: as this function's callers.
        block += unsafe {
            match blocks - block {
                1 => rows::<1, SUM, AFFINE>(m, block, roundings, memory),
                3 => rows::<3, SUM, AFFINE>(m, block, roundings, memory),
                _ => rows::<2, SUM, AFFINE>(m, block, roundings, memory),
            }
        };
    }
}

/// All pixels of `Q` blocks of channels; returns Q.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows<const Q: usize, const SUM: bool, const AFFINE: bool>(
    m: &Map,
    block: usize,
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) -> usize {
    let [rows, columns] = m.extent;
    for row in 0..rows {
        let mut column = 0;
        // SAFETY: a tile of P pixels starts at most P before the end of the row.
        unsafe {
            while column + PIXELS <= columns {
                tile::<PIXELS, Q, SUM, AFFINE>(m, [block, row, column], roundings, memory);
                column += PIXELS;
            }
            if columns - column >= 4 {
                tile::<4, Q, SUM, AFFINE>(m, [block, row, column], roundings, memory);
                column += 4;
            }
            if columns - column >= 2 {
                tile::<2, Q, SUM, AFFINE>(m, [block, row, column], roundings, memory);
                column += 2;
            }
            if column < columns {
                tile::<1, Q, SUM, AFFINE>(m, [block, row, column], roundings, memory);
            }
        }
    }
    Q
}

/// The sums of P neighbouring pixels, each over Q blocks of channels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn sums<const P: usize, const Q: usize>(
    m: &Map,
    [block, row, column]: [usize; 3],
    memory: *const u8,
) -> [[__m512i; Q]; P] {
    let Map { x, step, packed, .. } = m;
    let span = packed.span();
    // SAFETY: `Map::check` proved that every step of every tile lies in the memory, and that there are lines and biases
    // for all blocks; the callers' tiles end with the row and with the blocks.
    unsafe {
        let from = memory.add(x.at + row * step[1] + column * step[0]);
        let lines = m.line(packed.at + block * span).cast::<__m512i>();
        let mut biases = [_mm512_setzero_si512(); Q];
        for (q, bias) in biases.iter_mut().enumerate() {
            *bias = _mm512_loadu_si512(m.bias().add((block + q) * LANES).cast());
        }
        let mut sums = [biases; P];
        for run in 0..packed.runs {
            let inputs = from.add(run * x.pitch);
            let lines = lines.add(run * packed.steps);
            for k in 0..packed.steps {
                let mut weights = [_mm512_setzero_si512(); Q];
                for (q, weight) in weights.iter_mut().enumerate() {
                    *weight = _mm512_load_si512(lines.add(q * span + k));
                }
                for (p, sums) in sums.iter_mut().enumerate() {
                    let four = _mm512_set1_epi32(inputs.add(p * step[0] + 4 * k).cast::<i32>().read_unaligned());
                    for (sum, weight) in sums.iter_mut().zip(&weights) {
                        *sum = _mm512_dpbusd_epi32(*sum, four, *weight);
                    }
                }
            }
        }
        sums
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const P: usize, const Q: usize, const SUM: bool, const AFFINE: bool>(
    m: &Map,
    place: [usize; 3],
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) {
    let [block, row, column] = place;
    let channels = m.packed.channels;
    let pixel = |view: View, p: usize, q: usize| {
        // Blocks that do not exist hold nothing that is kept.
        let q = q.min(Q - 1);
        view.at + row * view.pitch + (column + p) * channels + (block + q) * LANES
    };
    // SAFETY: `Map::check` has held for pixels and whole blocks of every view; constants have whole blocks.
    unsafe {
        let sums = sums::<P, Q>(m, place, memory);
        for first in (0..P * Q).step_by(4) {
            let mut values = [_mm512_setzero_ps(); 4];
            let mut mapped = [_mm512_setzero_ps(); 4];
            for j in 0..4 {
                if first + j >= P * Q {
                    break;
                }
                let (p, q) = ((first + j) / Q, (first + j) % Q);
                let channel = (block + q) * LANES;
                let scale = _mm512_loadu_ps(m.scale().add(channel));
                let mut value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[p][q]), scale);
                let mut rounding = &roundings.own;
                if let (true, Some(sum), Some(own)) = (SUM, &m.sum, &roundings.sum) {
                    let bytes = _mm_loadu_si128(memory.add(pixel(sum.other, p, q)).cast());
                    let zero = _mm512_set1_epi32(i32::from(sum.other_zero));
                    let other = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(bytes), zero));
                    let [a, b] = sum.ratio.map(|r| _mm512_set1_ps(r));
                    // Three roundings, as the definition has them: no FMA.
                    value = _mm512_add_ps(_mm512_mul_ps(rounding.whole(value), a), _mm512_mul_ps(other, b));
                    rounding = own;
                }
                if let (true, Some(affine)) = (AFFINE, &m.affine) {
                    value = rounding.whole(value);
                    let mul = _mm512_loadu_ps(m.line(affine.mul).cast::<f32>().add(channel));
                    let add = _mm512_loadu_ps(m.line(affine.add).cast::<f32>().add(channel));
                    mapped[j] = _mm512_add_ps(_mm512_mul_ps(value, mul), add);
                }
                values[j] = value;
            }
            let at = |view: View| [0, 1, 2, 3].map(|j| pixel(view, (first + j) / Q, (first + j) % Q));
            let kept = [0, 1, 2, 3].map(|j| match first + j {
                i if i < P * Q => lanes(channels - (block + i % Q) * LANES),
                _ => 0,
            });
            if let Some(y) = m.y {
                let rounding = roundings.sum.as_ref().filter(|_| SUM).unwrap_or(&roundings.own);
                store(rounding.bytes(values), at(y), kept, memory);
            }
            if let (true, Some(affine), Some(own)) = (AFFINE, &m.affine, &roundings.affine) {
                store(own.bytes(mapped), at(affine.y), kept, memory);
            }
        }
    }
}

/// Stores the `kept` first bytes of each quarter.
///
/// # Safety
/// They lie in the memory.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn store(bytes: __m512i, at: [usize; 4], kept: [u16; 4], memory: *mut u8) {
    let quarters = [
        _mm512_castsi512_si128(bytes),
        _mm512_extracti32x4_epi32::<1>(bytes),
        _mm512_extracti32x4_epi32::<2>(bytes),
        _mm512_extracti32x4_epi32::<3>(bytes),
    ];
    for ((quarter, at), kept) in quarters.into_iter().zip(at).zip(kept) {
        // SAFETY: this function's callers.
        unsafe {
            match kept {
                // A masked store is slow even where it masks nothing.
                u16::MAX => _mm_storeu_si128(memory.add(at).cast(), quarter),
                0 => {}
                _ => _mm_mask_storeu_epi8(memory.add(at).cast(), kept, quarter),
            }
        }
    }
}

/// `f32(acc) * scale` of a map of one pixel, `[channels]`.
///
/// # Safety
/// As [`map`], and `y` has a value for each channel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn real(m: &Map, memory: *const u8, y: &mut [f32]) {
    for block in 0..m.packed.blocks() {
        // SAFETY: as `tile`.
        unsafe {
            let [[sum]] = sums::<1, 1>(m, [block, 0, 0], memory);
            let first = block * LANES;
            let scale = _mm512_loadu_ps(m.scale().add(first));
            let values = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
            _mm512_mask_storeu_ps(y.as_mut_ptr().add(first), lanes(y.len() - first), values);
        }
    }
}

/// The first `n` of sixteen lanes.
#[inline]
fn lanes(n: usize) -> u16 {
    if n >= LANES { u16::MAX } else { (1 << n) - 1 }
}

/// `rounds` times sixteen instructions that do not wait for each other; returns the number of products.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn multiply_at_peak(rounds: u32) -> u64 {
    let (mut a, b) = (_mm512_set1_epi8(1), _mm512_set1_epi8(2));
    let mut sums = [_mm512_setzero_si512(); 16];
    for _ in 0..rounds {
        // SAFETY: no instruction. The compiler must believe that `a` changes, or it multiplies instead of adding.
        unsafe { core::arch::asm!("/* {0} */", inout(zmm_reg) a, options(pure, nomem, nostack, preserves_flags)) };
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, b);
        }
    }
    core::hint::black_box(sums);
    u64::from(rounds) * 16 * 64
}

//! From sums to bytes: requantisation, the residual sum, the per-channel map, and the store, for sixteen channels a pixel.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use crate::kernel::grid::View;
use crate::kernel::map::{Map, Roundings, keep};
use crate::kernel::packed::LANES;
use crate::requant::Output;
use core::arch::x86_64::*;

/// Sixteen channels.
pub type Block<T> = [T; 2];

/// How f32 values become bytes.
#[derive(Clone, Copy)]
pub struct Rounding {
    low: __m256,
    high: __m256,
    /// The zero point + 128, as i16.
    zero: __m256i,
    /// The least byte.
    floor: __m256i,
}

impl Rounding {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn new(out: Output) -> Self {
        let [low, high] = out.bounds();
        let zero = out.zero() + 128;
        Self {
            low: _mm256_set1_ps(low),
            high: _mm256_set1_ps(high),
            zero: _mm256_set1_epi16(zero as i16),
            floor: _mm256_set1_epi8((low as i32 + zero) as i8),
        }
    }

    /// The clamped and rounded values themselves, still less the zero point: `vroundps` rounds half to even.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn whole(&self, v: __m256) -> __m256 {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        _mm256_round_ps::<NEAREST>(_mm256_min_ps(_mm256_max_ps(v, self.low), self.high))
    }

    /// Of a NaN `vminps` returns its second operand. Conversion rounds half to even, as Rust leaves the CPU's mode.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn converted(&self, v: __m256) -> __m256i {
        _mm256_cvtps_epi32(_mm256_min_ps(self.high, v))
    }

    /// [`Output::quantise`] of two pixels, each + 128. The upper clamp stands before the conversion, which turns NaN and what is
    /// too small for an i32 into the least one; narrowing saturates to the lower clamp.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn bytes(&self, values: [Block<__m256>; 2]) -> [__m128i; 2] {
        let [[a, b], [c, d]] = values;
        let ab = _mm256_packs_epi32(self.converted(a), self.converted(b));
        let cd = _mm256_packs_epi32(self.converted(c), self.converted(d));
        let (ab, cd) = (_mm256_adds_epi16(ab, self.zero), _mm256_adds_epi16(cd, self.zero));
        // Each half of the register holds four channels of each quarter.
        let mixed = _mm256_max_epu8(_mm256_packus_epi16(ab, cd), self.floor);
        let whole = _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        [_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole)]
    }
}

/// `sum * scale` of a block, the scale's first channel given.
///
/// # Safety
/// The scale has a whole block.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn scaled(sums: Block<__m256i>, scale: *const f32) -> Block<__m256> {
    // SAFETY: this function's callers.
    unsafe {
        [
            _mm256_mul_ps(_mm256_cvtepi32_ps(sums[0]), _mm256_loadu_ps(scale)),
            _mm256_mul_ps(_mm256_cvtepi32_ps(sums[1]), _mm256_loadu_ps(scale.add(8))),
        ]
    }
}

/// Rounds the sums of `N` neighbouring pixels, one or two, over a block of channels, does what follows, and stores.
///
/// # Safety
/// [`Map::check`] has held for the bytes at `memory`, and the pixels lie in a row.
#[inline(always)]
pub unsafe fn finish<const N: usize>(
    m: &Map,
    [block, row, column]: [usize; 3],
    sums: [Block<__m256i>; N],
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) {
    let (channels, first) = (m.packed.channels, block * LANES);
    let kept = LANES.min(channels - first);
    let pixel = |view: View, p: usize| view.at + row * view.pitch + (column + p) * m.pixel + first;
    // SAFETY: `Map::check` has held for pixels and whole blocks of every view; constants have whole blocks.
    unsafe {
        let store = |bytes: [__m128i; 2], view: View| {
            for (p, bytes) in bytes.into_iter().enumerate().take(N) {
                let to = memory.add(pixel(view, p));
                match kept {
                    LANES => _mm_storeu_si128(to.cast(), bytes),
                    _ => {
                        let mut whole = [0u8; LANES];
                        _mm_storeu_si128(whole.as_mut_ptr().cast(), bytes);
                        keep(&whole, core::slice::from_raw_parts_mut(to, kept));
                    }
                }
            }
        };
        let mut rounding = &roundings.own;
        let mut values = [[_mm256_setzero_ps(); 2]; 2];
        for (value, sums) in values.iter_mut().zip(sums) {
            *value = scaled(sums, m.scale().add(first));
        }
        if let (Some(sum), Some(own)) = (&m.sum, &roundings.sum) {
            let zero = _mm256_set1_epi32(i32::from(sum.other_zero));
            let (a, b) = (_mm256_set1_ps(sum.ratio[0]), _mm256_set1_ps(sum.ratio[1]));
            for (p, value) in values.iter_mut().enumerate().take(N) {
                let bytes = memory.add(pixel(sum.other, p));
                for (h, value) in value.iter_mut().enumerate() {
                    let other = _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.add(8 * h).cast()));
                    let other = _mm256_cvtepi32_ps(_mm256_sub_epi32(other, zero));
                    // Three roundings, as the definition has them: no FMA.
                    *value = _mm256_add_ps(_mm256_mul_ps(rounding.whole(*value), a), _mm256_mul_ps(other, b));
                }
            }
            rounding = own;
        }
        if let (Some(affine), Some(own)) = (&m.affine, &roundings.affine) {
            let mul = m.line(affine.mul).cast::<f32>().add(first);
            let add = m.line(affine.add).cast::<f32>().add(first);
            let mut mapped = values;
            for h in 0..2 {
                let (mul, add) = (_mm256_loadu_ps(mul.add(8 * h)), _mm256_loadu_ps(add.add(8 * h)));
                for (value, mapped) in values.iter_mut().zip(&mut mapped).take(N) {
                    value[h] = rounding.whole(value[h]);
                    mapped[h] = _mm256_add_ps(_mm256_mul_ps(value[h], mul), add);
                }
            }
            store(own.bytes(mapped), affine.y);
        }
        if let Some(y) = m.y {
            store(rounding.bytes(values), y);
        }
    }
}

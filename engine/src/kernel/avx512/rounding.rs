//! From f32 values to bytes in memory.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use crate::requant::Output;
use core::arch::x86_64::*;

/// How f32 values become bytes.
#[derive(Clone, Copy)]
pub struct Rounding {
    low: __m512,
    high: __m512,
    /// The zero point + 128, as i16.
    zero: __m512i,
    /// The least byte.
    floor: __m512i,
}

impl Rounding {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub fn new(out: Output) -> Self {
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
    pub fn whole(&self, values: __m512) -> __m512 {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        _mm512_roundscale_ps::<NEAREST>(_mm512_min_ps(_mm512_max_ps(values, self.low), self.high))
    }

    /// [`Output::quantise`] of four times sixteen values, each + 128. The upper clamp stands before the conversion, which
    /// turns what is too small for an i32 into the least one; narrowing saturates to the lower clamp.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub fn bytes(&self, values: [__m512; 4]) -> __m512i {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        let [a, b, c, d] = values.map(|v| _mm512_cvt_roundps_epi32::<NEAREST>(_mm512_min_ps(self.high, v)));
        let ab = _mm512_adds_epi16(_mm512_packs_epi32(a, b), self.zero);
        let cd = _mm512_adds_epi16(_mm512_packs_epi32(c, d), self.zero);
        // Each quarter of the register holds four channels of a, b, c and d.
        let mixed = _mm512_max_epu8(_mm512_packus_epi16(ab, cd), self.floor);
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_permutexvar_epi32(order, mixed)
    }
}

/// Stores the `kept` first bytes of each quarter.
///
/// # Safety
/// They lie in the memory.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn store(bytes: __m512i, at: [usize; 4], kept: [u16; 4], memory: *mut u8) {
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

//! Winograd's tiles: inputs in registers of sixteen channels as i16, sums in registers of sixteen as i32.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::finish::finish;
use super::rounding::Rounding;
use crate::kernel::map::{Map, Roundings};
use crate::kernel::packed::LANES;
use crate::kernel::winograd::{AHEAD, Factors, NINTH, Set, Sums};
use core::arch::x86_64::*;

impl Sums for __m512i {
    const N: usize = 16;

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn keep(self, to: *mut i32) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_si512(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_add_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_sub_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn fourfold(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_slli_epi32::<2>(self) }
    }

    #[inline(always)]
    unsafe fn ninth(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_mullo_epi32(self, _mm512_set1_epi32(NINTH)) }
    }

    #[inline(always)]
    unsafe fn halved(self, n: u32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm512_sra_epi32(self, _mm_cvtsi32_si128(n as i32)) }
    }
}

/// The set: inputs in the vectors of AVX2.
pub enum Zmm {}

/// `sum` and the products of i16 pairs, in the one instruction for both: for the intrinsic the compiler takes two.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn pairs(mut sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the instruction is there, and touches registers alone.
    unsafe {
        core::arch::asm!(
            "vpdpwssd {sum}, {a}, {b}", sum = inout(zmm_reg) sum, a = in(zmm_reg) a, b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

impl Set for Zmm {
    type Words = __m256i;
    type Sums = __m512i;
    const TILES: usize = 8;
    const BLOCKS: usize = 2;
    type Finish = Roundings<Rounding>;

    #[inline(always)]
    unsafe fn multiply<const P: usize, const Q: usize>(f: Factors, to: *mut i32) {
        // SAFETY: the trait's contract.
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); P]; Q];
            let mut k = 0;
            while k < f.steps {
                for i in 0..4 {
                    let mut weights = [_mm512_setzero_si512(); Q];
                    for (q, weights) in weights.iter_mut().enumerate() {
                        let at = q * f.span + k + i;
                        // A hint: no address faults.
                        _mm_prefetch::<_MM_HINT_T0>(f.lines.wrapping_add(at + AHEAD).cast());
                        *weights = _mm512_load_si512(f.lines.add(at).cast());
                    }
                    for p in 0..P {
                        let at = f.inputs.add(p * f.stride + 4 * (k + i)).cast::<i32>();
                        let pair = _mm512_set1_epi32(at.read_unaligned());
                        for (sums, weights) in sums.iter_mut().zip(weights) {
                            sums[p] = pairs(sums[p], weights, pair);
                        }
                    }
                }
                k += 4;
            }
            for (q, sums) in sums.into_iter().enumerate() {
                for (p, sum) in sums.into_iter().enumerate() {
                    _mm512_storeu_si512(to.add(p * f.apart + q * LANES).cast(), sum);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn finish(
        m: &Map,
        [block, row, column]: [usize; 3],
        pixels: usize,
        sums: *const i32,
        roundings: &Roundings<Rounding>,
        memory: *mut u8,
    ) {
        let places = [0, 1, 2, 3].map(|p| [block, row, column + p]);
        // SAFETY: the trait's contract; past the pixels, zeros.
        unsafe {
            let mut four = [_mm512_setzero_si512(); 4];
            for (p, sum) in four.iter_mut().enumerate().take(pixels) {
                *sum = _mm512_loadu_si512(sums.add(p * LANES).cast());
            }
            match (m.sum.is_some(), m.affine.is_some()) {
                (false, false) => finish::<false, false>(m, places, four, pixels, roundings, memory),
                (true, false) => finish::<true, false>(m, places, four, pixels, roundings, memory),
                (false, true) => finish::<false, true>(m, places, four, pixels, roundings, memory),
                (true, true) => finish::<true, true>(m, places, four, pixels, roundings, memory),
            }
        }
    }
}

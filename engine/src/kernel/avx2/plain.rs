//! Products without VNNI: pairs of i16.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::finish::Block;
use super::tiles::{self, Products};
use crate::kernel::map::Map;
use crate::kernel::packed::{CacheLine, LANES};
use crate::kernel::part::Part;
use core::arch::x86_64::*;

/// `vpmaddwd` and `vpaddd`.
enum Plain {}

#[inline]
#[target_feature(enable = "avx2")]
fn pairs(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
    let mut sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
    // SAFETY: no instruction. Without it the compiler adds up in another order, for which there are not enough registers.
    unsafe { core::arch::asm!("/* {0} */", inout(ymm_reg) sum, options(pure, nomem, nostack, preserves_flags)) };
    sum
}

impl Products for Plain {
    const PIXELS: usize = 4;
    const TILES: usize = 4;

    #[inline(always)]
    unsafe fn pairs(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { pairs(sum, a, b) }
    }

    #[inline(always)]
    unsafe fn own_sums<const P: usize>(
        m: &Map,
        place @ [block, ..]: [usize; 3],
        memory: *const u8,
    ) -> [Block<__m256i>; P] {
        // SAFETY: the trait's contract: every tap of whole blocks is there, and a line for two taps.
        unsafe {
            let (from, line) = m.tile(place, memory);
            let (from, mut line) = (from.add(block * LANES), line.cast::<__m256i>());
            let bias = m.bias().add(block * LANES).cast::<__m256i>();
            // As `vpunpck` leaves channels: 0 to 3 and 8 to 11, then the others.
            let apart = |[a, b]: Block<__m256i>| {
                [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)]
            };
            let mut sums = [apart([_mm256_loadu_si256(bias), _mm256_loadu_si256(bias.add(1))]); P];
            for taps in m.taps.chunks_exact(2) {
                let weights = [_mm256_load_si256(line), _mm256_load_si256(line.add(1))];
                for (p, sums) in sums.iter_mut().enumerate() {
                    let at = from.add(p * m.step[0]);
                    let a = _mm256_cvtepu8_epi16(_mm_loadu_si128(at.add(taps[0]).cast()));
                    let b = _mm256_cvtepu8_epi16(_mm_loadu_si128(at.add(taps[1]).cast()));
                    sums[0] = Self::pairs(sums[0], _mm256_unpacklo_epi16(a, b), weights[0]);
                    sums[1] = Self::pairs(sums[1], _mm256_unpackhi_epi16(a, b), weights[1]);
                }
                line = line.add(2);
            }
            for sums in &mut sums {
                *sums = apart(*sums);
            }
            sums
        }
    }

    /// Even inputs, odd ones, each for both halves of the channels.
    type Weights = [Block<__m256i>; 2];

    #[inline(always)]
    unsafe fn weights(line: *const CacheLine) -> Self::Weights {
        let line = line.cast::<__m256i>();
        // SAFETY: the trait's contract: a step has two lines.
        unsafe {
            [
                [_mm256_load_si256(line), _mm256_load_si256(line.add(1))],
                [_mm256_load_si256(line.add(2)), _mm256_load_si256(line.add(3))],
            ]
        }
    }

    #[inline(always)]
    unsafe fn add(sums: &mut Block<__m256i>, fours: __m256i, [even, odd]: Self::Weights) {
        // SAFETY: the trait's contract.
        unsafe {
            let pairs = [_mm256_and_si256(fours, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(fours)];
            for (h, sum) in sums.iter_mut().enumerate() {
                *sum = Self::pairs(Self::pairs(*sum, pairs[0], even[h]), pairs[1], odd[h]);
            }
        }
    }
}

/// A part of the map, and what follows it.
///
/// # Safety
/// The CPU has the instructions, and [`Map::check`] has held for the bytes at `memory`.
#[target_feature(enable = "avx2")]
pub unsafe fn map(m: &Map, part: Part, memory: *mut u8) {
    // SAFETY: this function's callers.
    unsafe { tiles::map::<Plain>(m, part, memory) }
}

/// `f32(acc) * scale` of a map of one pixel, `[channels]`.
///
/// # Safety
/// As [`map`].
#[target_feature(enable = "avx2")]
pub unsafe fn real(m: &Map, memory: *const u8, y: &mut [f32]) {
    // SAFETY: this function's callers.
    unsafe { tiles::real::<Plain>(m, memory, y) }
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

//! Products without VNNI: pairs of i16.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::finish::Block;
use super::tiles::{self, Products};
use crate::kernel::map::{Map, Wide};
use crate::kernel::packed::LANES;
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

/// Bytes as i16, sixteen at a time.
///
/// # Safety
/// So many are there, rounded up to sixteen, and room for them.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn widen(from: *const u8, len: usize, to: *mut u8) {
    for i in (0..len).step_by(Wide::STEP / 2) {
        // SAFETY: this function's callers.
        unsafe {
            let wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(from.add(i).cast()));
            _mm256_storeu_si256(to.add(2 * i).cast(), wide);
        }
    }
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
    unsafe fn ready<'a>(m: &Map<'a>, rows @ [_, last]: [usize; 2], memory: *mut u8) -> (Map<'a>, usize) {
        let Some(wide) = &m.wide else { return (*m, last) };
        let (ready, [from, len], end) = m.widened(wide, rows);
        // SAFETY: the trait's contract: so many inputs are there, half a step after them, and room for them widened.
        unsafe { widen(memory.add(from), len, memory.add(wide.at)) };
        (ready, end)
    }

    #[inline(always)]
    unsafe fn sums<const P: usize, const WIDE: bool>(
        m: &Map,
        place @ [block, row, column]: [usize; 3],
        memory: *const u8,
    ) -> [Block<__m256i>; P] {
        // SAFETY: the trait's contract: every step of every tile lies in the memory, and there are lines and biases for all blocks.
        unsafe {
            let (narrow, line) = m.tile(place, memory);
            let mut line = line.cast::<__m256i>();
            let from = match &m.wide {
                Some(wide) if WIDE => memory.add(wide.at + 2 * ((row - wide.first) * m.step[1] + column * m.step[0])),
                _ => narrow,
            };
            let bias = m.bias().add(block * LANES).cast::<__m256i>();
            let mut sums = [[_mm256_loadu_si256(bias), _mm256_loadu_si256(bias.add(1))]; P];
            for tap in m.taps {
                for k in 0..m.packed.steps {
                    // Two inputs for each half of the channels, and the next two.
                    let weights: [__m256i; 4] = core::array::from_fn(|i| _mm256_load_si256(line.add(i)));
                    for (p, sums) in sums.iter_mut().enumerate() {
                        let at = tap + p * m.step[0] + 4 * k;
                        let pairs = if WIDE {
                            let at = from.add(2 * at).cast::<i32>();
                            [_mm256_set1_epi32(at.read_unaligned()), _mm256_set1_epi32(at.add(1).read_unaligned())]
                        } else {
                            let fours = _mm_set1_epi32(from.add(at).cast::<i32>().read_unaligned());
                            let fours = _mm256_cvtepu8_epi16(fours);
                            [_mm256_shuffle_epi32::<0xa0>(fours), _mm256_shuffle_epi32::<0xf5>(fours)]
                        };
                        sums[0] = Self::pairs(Self::pairs(sums[0], pairs[0], weights[0]), pairs[1], weights[2]);
                        sums[1] = Self::pairs(Self::pairs(sums[1], pairs[0], weights[1]), pairs[1], weights[3]);
                    }
                    line = line.add(4);
                }
            }
            sums
        }
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

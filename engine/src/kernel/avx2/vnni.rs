//! Products with VNNI, unsigned by signed bytes: AVX-VNNI's instructions, and AVX-512's at the same width for the tests of
//! machines that have only those.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::finish::{Block, Rounding};
use super::tiles::{self, Products, finish_pairs, row_by_row};
use crate::kernel::map::{Map, Roundings};
use crate::kernel::packed::{CacheLine, LANES};
use crate::kernel::part::Part;
use core::arch::x86_64::*;

/// Proof that the CPU has AVX2 and AVX-VNNI; only [`detect`] makes it.
#[derive(Debug, Clone, Copy)]
pub struct AvxVnni(());

/// The token, where the CPU has what it takes.
pub fn detect() -> Option<AvxVnni> {
    (std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("avxvnni")).then_some(AvxVnni(()))
}

/// A line's weights, half of the channels each.
///
/// # Safety
/// The line is there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn weights(line: *const CacheLine) -> Block<__m256i> {
    let line = line.cast::<__m256i>();
    // SAFETY: this function's callers.
    unsafe { [_mm256_load_si256(line), _mm256_load_si256(line.add(1))] }
}

/// Lines of weights that a tile asks for before it takes them: a wide layer's block is larger than the nearest cache.
const AHEAD: usize = 64;

/// Fewest lines of weights of a block for which it pays to look for each pixel's inputs.
#[cfg(not(test))]
const LONG: usize = 64;

/// In tests, what small layers have.
#[cfg(test)]
const LONG: usize = 4;

/// Where the inputs of neighbouring pixels begin.
#[inline(always)]
fn neighbours<const P: usize>(m: &Map, place: [usize; 3], memory: *const u8) -> [*const u8; P] {
    let from = m.tile(place, memory).0;
    core::array::from_fn(|p| from.wrapping_add(p * m.step[0]))
}

/// The kernels over `$bytes`, which multiplies four bytes by four, and `$pairs`, two i16 by two, in the functions that enable
/// `$features`.
macro_rules! kernels {
    ($features:literal, $bytes:ident, $pairs:literal) => {
        enum Dot {}

        /// `sum` and the products of i16 pairs, in the one instruction for both: for the intrinsic the compiler takes two.
        #[inline]
        #[target_feature(enable = $features)]
        fn pairs(mut sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: the instruction is there, and touches registers alone.
            unsafe {
                core::arch::asm!(
                    $pairs, sum = inout(ymm_reg) sum, a = in(ymm_reg) a, b = in(ymm_reg) b,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            sum
        }

        impl Products for Dot {
            const PIXELS: usize = 6;
            const TILES: usize = 6;

            #[inline(always)]
            unsafe fn pairs(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: the trait's contract.
                unsafe { pairs(sum, a, b) }
            }

            #[inline(always)]
            unsafe fn own_sums<const P: usize>(
                m: &Map,
                place: [usize; 3],
                memory: *const u8,
            ) -> [Block<__m256i>; P] {
                // SAFETY: the trait's contract.
                unsafe { sums::<P, true>(m, place[0], neighbours(m, place, memory)) }
            }

            #[inline(always)]
            unsafe fn ready<'a>(m: &Map<'a>, [_, last]: [usize; 2], _: *mut u8) -> (Map<'a>, usize) {
                (*m, last)
            }

            #[inline(always)]
            unsafe fn sums<const P: usize, const WIDE: bool>(
                m: &Map,
                place: [usize; 3],
                memory: *const u8,
            ) -> [Block<__m256i>; P] {
                // SAFETY: the trait's contract.
                unsafe { sums::<P, false>(m, place[0], neighbours(m, place, memory)) }
            }

            #[inline(always)]
            unsafe fn rows(
                m: &Map,
                block: usize,
                rows: [usize; 2],
                roundings: &Roundings<Rounding>,
                memory: *mut u8,
            ) {
                // SAFETY: the trait's contract.
                unsafe {
                    if m.extent[1] % 2 == 0 && m.packed.span() >= LONG {
                        across(m, block, rows, roundings, memory);
                    } else {
                        row_by_row::<Dot>(m, block, rows, roundings, memory);
                    }
                }
            }
        }

        /// Rows of a block of channels, of an even number of pixels each: tiles of six go on from one row to the next, as fewer would
        /// leave the products waiting for each other.
        ///
        /// # Safety
        /// As [`Products`].
        #[inline(always)]
        unsafe fn across(
            m: &Map,
            block: usize,
            [first, last]: [usize; 2],
            roundings: &Roundings<Rounding>,
            memory: *mut u8,
        ) {
            let columns = m.extent[1];
            let (mut place, mut left) = ([block, first, 0], (last - first) * columns);
            while left > 0 {
                // Eight are two times four rather than six and two.
                let count = if left == 8 { 4 } else { left.min(6) };
                let mut pairs = [place; 3];
                for pair in &mut pairs[..count / 2] {
                    *pair = place;
                    let [_, row, column] = place;
                    place = if column + 2 < columns { [block, row, column + 2] } else { [block, row + 1, 0] };
                }
                // SAFETY: this function's callers; pairs lie in a row each.
                unsafe {
                    match count {
                        2 => pixels_of::<2>(m, pairs, roundings, memory),
                        4 => pixels_of::<4>(m, pairs, roundings, memory),
                        _ => pixels_of::<6>(m, pairs, roundings, memory),
                    }
                }
                left -= count;
            }
        }

        /// A tile of the first P pixels of these pairs.
        ///
        /// # Safety
        /// As [`Products`], and those pixels are there.
        #[inline(always)]
        unsafe fn pixels_of<const P: usize>(
            m: &Map,
            pairs: [[usize; 3]; 3],
            roundings: &Roundings<Rounding>,
            memory: *mut u8,
        ) {
            let from = core::array::from_fn(|p| {
                let [block, row, column] = pairs[p / 2];
                m.tile([block, row, column + p % 2], memory).0
            });
            // SAFETY: this function's callers.
            unsafe {
                finish_pairs::<P>(m, pairs, sums::<P, false>(m, pairs[0][0], from), roundings, memory);
            }
        }

        /// The sums of P pixels, whose inputs begin at `from`, over a block of channels; with `OWN`, each channel over its columns.
        ///
        /// # Safety
        /// As [`Products`], and the pixels are there.
        #[inline(always)]
        unsafe fn sums<const P: usize, const OWN: bool>(
            m: &Map,
            block: usize,
            from: [*const u8; P],
        ) -> [Block<__m256i>; P] {
            // SAFETY: this function's callers: every step of every tile lies in the memory, and there are lines and biases for all
            // blocks.
            unsafe {
                let mut line = m.line(m.packed.at + block * m.packed.span());
                let bias = m.bias().add(block * LANES).cast::<__m256i>();
                let mut sums = [[_mm256_loadu_si256(bias), _mm256_loadu_si256(bias.add(1))]; P];
                for tap in m.taps {
                    for k in 0..m.packed.steps {
                        let weights = weights(line);
                        // A hint: no address faults.
                        _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(AHEAD).cast());
                        for (from, sums) in from.iter().zip(&mut sums) {
                            let at = from.add(*tap);
                            let inputs = if OWN {
                                let at = at.add(64 * k).cast::<__m256i>();
                                [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))]
                            } else {
                                [_mm256_set1_epi32(at.add(4 * k).cast::<i32>().read_unaligned()); 2]
                            };
                            sums[0] = $bytes(sums[0], inputs[0], weights[0]);
                            sums[1] = $bytes(sums[1], inputs[1], weights[1]);
                        }
                        line = line.add(1);
                    }
                }
                sums
            }
        }

        /// A part of the map, and what follows it.
        ///
        /// # Safety
        /// The CPU has the instructions, and [`Map::check`] has held for the bytes at `memory`.
        #[target_feature(enable = $features)]
        pub unsafe fn map(m: &Map, part: Part, memory: *mut u8) {
            // SAFETY: this function's callers.
            unsafe { tiles::map::<Dot>(m, part, memory) }
        }

        /// `f32(acc) * scale` of a map of one pixel, `[channels]`.
        ///
        /// # Safety
        /// As [`map`].
        #[target_feature(enable = $features)]
        pub unsafe fn real(m: &Map, memory: *const u8, y: &mut [f32]) {
            // SAFETY: this function's callers.
            unsafe { tiles::real::<Dot>(m, memory, y) }
        }

        /// `rounds` times twelve instructions that do not wait for each other; returns the number of products.
        #[target_feature(enable = $features)]
        pub fn multiply_at_peak(rounds: u32) -> u64 {
            let (mut a, b) = (_mm256_set1_epi8(1), _mm256_set1_epi8(2));
            let mut sums = [_mm256_setzero_si256(); 12];
            for _ in 0..rounds {
                // SAFETY: no instruction. The compiler must believe that `a` changes, or it multiplies instead of adding.
                unsafe {
                    core::arch::asm!("/* {0} */", inout(ymm_reg) a, options(pure, nomem, nostack, preserves_flags))
                };
                for sum in &mut sums {
                    *sum = $bytes(*sum, a, b);
                }
            }
            core::hint::black_box(sums);
            u64::from(rounds) * 12 * 32
        }
    };
}

kernels!("avx2,avxvnni", _mm256_dpbusd_avx_epi32, "{{vex}} vpdpwssd {sum}, {a}, {b}");

/// The same instructions as AVX-512 encodes them.
#[cfg(test)]
pub mod wide {
    use super::*;

    /// Proof that the CPU has AVX-512's VNNI at 256 bits; only [`detect`] makes it.
    #[derive(Debug, Clone, Copy)]
    pub struct Avx512Ymm(());

    /// The token, where the CPU has what it takes.
    pub fn detect() -> Option<Avx512Ymm> {
        let all = std::is_x86_feature_detected!("avx512vl") && std::is_x86_feature_detected!("avx512vnni");
        all.then_some(Avx512Ymm(()))
    }

    kernels!("avx2,avx512f,avx512vl,avx512vnni", _mm256_dpbusd_epi32, "vpdpwssd {sum}, {a}, {b}");
}

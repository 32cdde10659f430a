//! Sums of products, and the columns that depthwise convolutions read.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::PIXELS;
use crate::kernel::map::{Columns, Map};
use crate::kernel::packed::{DEPTH, LANES};
use core::arch::x86_64::*;

/// How each quarter of a register spreads four of its bytes, row r's to every fourth byte from the r-th on; 0 elsewhere.
const ORDERS: [[u8; 64]; DEPTH] = {
    let mut orders = [[0x80; 64]; DEPTH];
    let mut i = 0;
    while i < 64 {
        orders[i % DEPTH][i] = (i / DEPTH) as u8;
        i += 1;
    }
    orders
};

/// Lays a block's columns side by side for a row of pixels.
///
/// # Safety
/// [`Map::check`] has held for the bytes at `memory`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn interleave(m: &Map, columns: &Columns, place: [usize; 2], memory: *mut u8) {
    // SAFETY: each has sixty-four bytes.
    let orders = [0, 1, 2, 3].map(|r| unsafe { _mm512_loadu_si512(ORDERS[r].as_ptr().cast()) });
    for (rows, to) in columns.strips(m, place, memory) {
        for column in 0..columns.extent[0] {
            let mut all = _mm512_setzero_si512();
            // SAFETY: this function's callers.
            unsafe {
                for (row, order) in rows.iter().zip(orders) {
                    let bytes = _mm_loadu_si128(row.add(column * columns.channels).cast());
                    all = _mm512_or_si512(all, _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), order));
                }
                _mm512_storeu_si512(to.add(64 * column).cast(), all);
            }
        }
    }
}

/// Fewest blocks of a tile that looks ahead.
const WIDE: usize = 3;

/// The weights that a tile of `Q` blocks asks for while it is summed, from which line on and how many lines with every four
/// steps: its share of the `Q` blocks after its own. A wide layer's lie beyond the second level of caches, and the first
/// tile of each group of blocks would wait for them.
#[inline]
fn ahead<const Q: usize>(m: &Map, [block, row, column]: [usize; 3]) -> (*const __m512i, usize) {
    let span = m.packed.span();
    let line = |at: usize| m.line(m.packed.at + at).cast::<__m512i>();
    let next = m.packed.blocks().saturating_sub(block + Q).min(Q) * span;
    let (groups, tiles) = (span / 4, m.extent[1].div_ceil(PIXELS));
    let pace = if groups * tiles * m.extent[0] >= next { 1 } else { 2 };
    let done = (row * tiles + column / PIXELS) * groups * pace;
    if done < next { (line((block + Q) * span + done), pace) } else { (line(block * span), 0) }
}

/// The sums of P neighbouring pixels, each over Q blocks of channels; with `OWN`, each channel over inputs of its own.
/// `STEP` is `m.step[0]`, or 0 where that is only known at run time: addresses known to the compiler leave registers and
/// ports to the products.
///
/// # Safety
/// [`Map::check`] has held for the bytes at `memory`, and the tile ends with the row and with the blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn sums<const P: usize, const Q: usize, const OWN: bool, const STEP: usize>(
    m: &Map,
    place @ [block, ..]: [usize; 3],
    memory: *const u8,
) -> [[__m512i; Q]; P] {
    let Map { step, packed, .. } = m;
    let span = packed.span();
    // SAFETY: `Map::check` proved that every step of every tile lies in the memory, and that there are lines and biases
    // for all blocks; the callers' tiles end with the row and with the blocks.
    unsafe {
        let (from, line) = m.tile(place, memory);
        let mut lines = line.cast::<__m512i>();
        let mut biases = [_mm512_setzero_si512(); Q];
        for (q, bias) in biases.iter_mut().enumerate() {
            *bias = _mm512_loadu_si512(m.bias().add((block + q) * LANES).cast());
        }
        let mut sums = [biases; P];
        let right = if STEP > 0 { STEP } else { step[0] };
        let (mut next, pace) = ahead::<Q>(m, place);
        for tap in m.taps {
            let inputs = from.add(*tap);
            let mut k = 0;
            // Steps in one go share their pixels' addresses.
            macro_rules! steps {
                ($n:literal) => {
                    while packed.steps - k >= $n {
                        if Q >= WIDE && $n == 4 {
                            // A hint: no address faults.
                            _mm_prefetch::<_MM_HINT_T1>(next.cast());
                            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(1).cast());
                            next = next.wrapping_add(pace);
                        }
                        let at: [_; P] =
                            core::array::from_fn(|p| inputs.add(p * right + if OWN { 64 * k } else { 4 * k }));
                        for i in 0..$n {
                            let mut weights = [_mm512_setzero_si512(); Q];
                            for (q, weight) in weights.iter_mut().enumerate() {
                                *weight = _mm512_load_si512(lines.add(q * span + k + i));
                            }
                            for (at, sums) in at.iter().zip(&mut sums) {
                                let four = if OWN {
                                    _mm512_loadu_si512(at.add(64 * i).cast())
                                } else {
                                    _mm512_set1_epi32(at.add(4 * i).cast::<i32>().read_unaligned())
                                };
                                for (sum, weight) in sums.iter_mut().zip(&weights) {
                                    *sum = _mm512_dpbusd_epi32(*sum, four, *weight);
                                }
                            }
                        }
                        k += $n;
                    }
                };
            }
            steps!(4);
            steps!(1);
            lines = lines.add(packed.steps);
        }
        sums
    }
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

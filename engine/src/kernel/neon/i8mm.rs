//! NEON with the matrix-multiply extension: two pixels by two channels an instruction, four pixels a tile.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::dotprod::own_sums;
use super::*;
use core::arch::asm;

/// Proof that the CPU has NEON with dot products and matrix multiplication; only [`detect`] makes it.
#[derive(Debug, Clone, Copy)]
pub struct I8mm(());

/// The token, where the CPU has what it takes.
pub fn detect() -> Option<I8mm> {
    let all = std::arch::is_aarch64_feature_detected!("i8mm") && std::arch::is_aarch64_feature_detected!("dotprod");
    all.then_some(I8mm(()))
}

over_sums!("neon,dotprod,i8mm", [4 2 1]);

/// Adds eight products each: two pixels' inputs, side by side, by two channels' weights, side by side.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn multiply(sum: &mut int32x4_t, inputs: int8x16_t, weights: int8x16_t) {
    // SAFETY: arithmetic on registers; the feature is enabled.
    unsafe {
        asm!(
            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) *sum, in(vreg) inputs, in(vreg) weights,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
}

/// The sums of N pairs of neighbouring pixels over a block of channels, two pixels by two channels a register; the last
/// pixel of an odd `pixels` stands for the one that is not there.
///
/// # Safety
/// [`Map::check`] has held for the bytes at `memory`, and the pixels end with the row.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn pairs<const N: usize>(m: &Map, place: [usize; 3], pixels: usize, memory: *const u8) -> [[int32x4_t; 8]; N] {
    let Map { step, packed, .. } = m;
    let mut biases = [vdupq_n_s32(0); 8];
    for (i, bias) in biases.iter_mut().enumerate() {
        // SAFETY: `Map::check` proved that there are biases of whole blocks. Both pixels have the same.
        *bias = unsafe { vreinterpretq_s32_s64(vld1q_dup_s64(m.bias().add(place[0] * LANES + 2 * i).cast())) };
    }
    let mut sums = [biases; N];
    // SAFETY: `Map::check` proved that every step of every tile lies in the memory, and that there are lines for all blocks.
    unsafe {
        let (from, line) = m.tile(place, memory);
        let (from, mut line) = (from.cast::<i8>(), line.cast::<i8>());
        for tap in m.taps {
            let inputs = from.add(*tap);
            // Where each pixel's inputs are: a pointer each, which its loads move on.
            let mut at: [[*const i8; 2]; N] =
                core::array::from_fn(|i| [2 * i, 2 * i + 1].map(|p| apart(inputs, p.min(pixels - 1) * step[0])));
            macro_rules! eight {
                ($x:expr) => {
                    for i in 0..8 {
                        let w = vld1q_s8(line.add(16 * i));
                        for (sums, x) in sums.iter_mut().zip($x) {
                            multiply(&mut sums[i], x, w);
                        }
                    }
                    line = line.add(128);
                };
            }
            // Sixteen inputs of two pixels become eight and eight of both.
            macro_rules! sixteen {
                () => {
                    let mut x = [[vdupq_n_s8(0); N]; 2];
                    for (i, at) in at.iter_mut().enumerate() {
                        let [a, b] = at.map(|at| vreinterpretq_s64_s8(vld1q_s8(at)));
                        *at = at.map(|at| at.add(16));
                        x[0][i] = vreinterpretq_s8_s64(vzip1q_s64(a, b));
                        x[1][i] = vreinterpretq_s8_s64(vzip2q_s64(a, b));
                    }
                    eight!(x[0]);
                    eight!(x[1]);
                };
            }
            let twice = line.wrapping_add(64 * (packed.steps & !7));
            let end = line.wrapping_add(64 * (packed.steps & !3));
            while line != twice {
                sixteen!();
                sixteen!();
            }
            if line != end {
                sixteen!();
            }
            if packed.steps % 4 != 0 {
                let mut x = [vdupq_n_s8(0); N];
                for (x, [a, b]) in x.iter_mut().zip(at) {
                    *x = vcombine_s8(vld1_s8(a), vld1_s8(b));
                }
                eight!(x);
            }
        }
    }
    sums
}

/// The sums of one pixel of a pair.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn of_pair(pair: &[int32x4_t; 8], second: bool) -> Block<int32x4_t> {
    core::array::from_fn(|i| {
        let (a, b) = (vreinterpretq_s64_s32(pair[2 * i]), vreinterpretq_s64_s32(pair[2 * i + 1]));
        vreinterpretq_s32_s64(if second { vzip2q_s64(a, b) } else { vzip1q_s64(a, b) })
    })
}

/// The sums of P neighbouring pixels over a block of channels.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn sums<const P: usize>(m: &Map, place: [usize; 3], memory: *const u8) -> [Block<int32x4_t>; P] {
    // SAFETY: this function's callers, whose tiles end with the row.
    unsafe {
        let mut all = [[vdupq_n_s32(0); 4]; P];
        macro_rules! of {
            ($pairs:literal) => {{
                let pairs = pairs::<$pairs>(m, place, P, memory);
                for (p, all) in all.iter_mut().enumerate() {
                    *all = of_pair(&pairs[p / 2], p % 2 == 1);
                }
            }};
        }
        match P {
            3.. => of!(2),
            _ => of!(1),
        }
        all
    }
}

/// `rounds` times sixteen instructions that do not wait for each other; returns the number of products.
#[target_feature(enable = "neon,i8mm")]
pub fn multiply_at_peak(rounds: u32) -> u64 {
    let (a, b) = (vdupq_n_s8(1), vdupq_n_s8(2));
    let mut sums = [vdupq_n_s32(0); 16];
    for _ in 0..rounds {
        for sum in &mut sums {
            multiply(sum, a, b);
        }
    }
    core::hint::black_box(sums);
    u64::from(rounds) * 16 * 32
}

//! NEON with the dot-product extension: four pixels a tile.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::*;
use core::arch::asm;

/// Proof that the CPU has NEON with dot products; only [`detect`] makes it.
#[derive(Debug, Clone, Copy)]
pub struct Dotprod(());

/// The token, where the CPU has what it takes.
pub fn detect() -> Option<Dotprod> {
    std::arch::is_aarch64_feature_detected!("dotprod").then_some(Dotprod(()))
}

over_sums!("neon,dotprod", [4 2 1]);

/// Adds the products of four channels' four weights with the four inputs in lane `LANE`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot<const LANE: usize>(sum: &mut int32x4_t, weights: int8x16_t, inputs: int8x16_t) {
    // SAFETY: arithmetic on registers; the feature is enabled.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]",
            inout(vreg) *sum, in(vreg) weights, in(vreg) inputs, const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
}

/// Adds the products of four channels' four weights with four inputs of each.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_each(sum: &mut int32x4_t, weights: int8x16_t, inputs: int8x16_t) {
    // SAFETY: arithmetic on registers; the feature is enabled.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) *sum, in(vreg) weights, in(vreg) inputs,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
}

/// The sums of P neighbouring pixels over a block of channels.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sums<const P: usize>(m: &Map, place @ [block, ..]: [usize; 3], memory: *const u8) -> [Block<int32x4_t>; P] {
    let Map { step, packed, .. } = m;
    // SAFETY: `Map::check` proved that every step of every tile lies in the memory, and that there are lines and
    // biases for all blocks; the callers' tiles end with the row.
    unsafe {
        let (from, line) = m.tile(place, memory);
        let mut line = line.cast::<i8>();
        let mut sums = [biases(m, block); P];
        for tap in m.taps {
            let inputs = from.add(*tap);
            // A pointer for each pixel, which its loads move on.
            let mut at: [*const i8; P] = core::array::from_fn(|p| apart(inputs.cast(), p * step[0]));
            // Four steps are sixteen inputs of each pixel, a lane a step.
            let mut x = [vdupq_n_s8(0); P];
            macro_rules! lane {
                ($lane:literal) => {
                    let w = weights(line.add(64 * $lane));
                    for (sums, x) in sums.iter_mut().zip(x) {
                        for (sum, w) in sums.iter_mut().zip(w) {
                            dot::<$lane>(sum, w, x);
                        }
                    }
                };
            }
            let end = line.wrapping_add(64 * (packed.steps & !3));
            while line != end {
                for (x, at) in x.iter_mut().zip(&mut at) {
                    *x = vld1q_s8(*at);
                    *at = at.add(16);
                }
                lane!(0);
                lane!(1);
                lane!(2);
                lane!(3);
                line = line.add(256);
            }
            let rest = packed.steps % 4;
            if rest > 0 {
                for (x, at) in x.iter_mut().zip(at) {
                    *x = vld1q_s8(at);
                }
                lane!(0);
                if rest > 1 {
                    lane!(1);
                }
                if rest > 2 {
                    lane!(2);
                }
                line = line.add(64 * rest);
            }
        }
        sums
    }
}

/// As [`sums`], each channel over inputs of its own.
///
/// # Safety
/// [`Map::check`] has held for the bytes at `memory`, and the tile ends with the row.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn own_sums<const P: usize>(
    m: &Map,
    place @ [block, ..]: [usize; 3],
    memory: *const u8,
) -> [Block<int32x4_t>; P] {
    let Map { step, packed, .. } = m;
    // SAFETY: as `sums`.
    unsafe {
        let (from, line) = m.tile(place, memory);
        let mut line = line.cast::<i8>();
        let mut sums = [biases(m, block); P];
        for tap in m.taps {
            for k in 0..packed.steps {
                let w = weights(line);
                for (p, sums) in sums.iter_mut().enumerate() {
                    let x = weights(from.add(tap + p * step[0] + 64 * k).cast());
                    for ((sum, w), x) in sums.iter_mut().zip(w).zip(x) {
                        dot_each(sum, w, x);
                    }
                }
                line = line.add(64);
            }
        }
        sums
    }
}

/// `rounds` times sixteen instructions that do not wait for each other; returns the number of products.
#[target_feature(enable = "neon,dotprod")]
pub fn multiply_at_peak(rounds: u32) -> u64 {
    let (a, b) = (vdupq_n_s8(1), vdupq_n_s8(2));
    let mut sums = [vdupq_n_s32(0); 16];
    for _ in 0..rounds {
        for sum in &mut sums {
            dot::<0>(sum, a, b);
        }
    }
    core::hint::black_box(sums);
    u64::from(rounds) * 16 * 16
}

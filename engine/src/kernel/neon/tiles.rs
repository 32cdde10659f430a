//! Winograd's tiles: inputs in registers of eight channels as i16, sums in registers of four as i32.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::{Rounding, finish};
use crate::kernel::map::{Map, Roundings};
use crate::kernel::packed::LANES;
use crate::kernel::winograd::{Factors, NINTH, Set, Sums, Words};
use core::arch::aarch64::*;

impl Words for int16x8_t {
    const N: usize = 8;

    #[inline(always)]
    unsafe fn widened(from: *const u8) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vmovl_s8(vld1_s8(from.cast())) }
    }

    #[inline(always)]
    unsafe fn keep(self, to: *mut u8) {
        // SAFETY: the trait's contract.
        unsafe { vst1q_s16(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vaddq_s16(self, other) }
    }

    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vsubq_s16(self, other) }
    }

    #[inline(always)]
    unsafe fn fourfold(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vshlq_n_s16::<2>(self) }
    }
}

impl Sums for int32x4_t {
    const N: usize = 4;

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vld1q_s32(from) }
    }

    #[inline(always)]
    unsafe fn keep(self, to: *mut i32) {
        // SAFETY: the trait's contract.
        unsafe { vst1q_s32(to, self) }
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vaddq_s32(self, other) }
    }

    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vsubq_s32(self, other) }
    }

    #[inline(always)]
    unsafe fn fourfold(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vshlq_n_s32::<2>(self) }
    }

    #[inline(always)]
    unsafe fn ninth(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vmulq_n_s32(self, NINTH) }
    }

    #[inline(always)]
    unsafe fn halved(self, n: u32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { vshlq_s32(self, vdupq_n_s32(-(n as i32))) }
    }
}

/// The set.
pub(super) enum Neon {}

impl Set for Neon {
    type Words = int16x8_t;
    type Sums = int32x4_t;
    const TILES: usize = 4;
    const BLOCKS: usize = 1;
    type Finish = Roundings<Rounding>;

    #[inline(always)]
    unsafe fn multiply<const P: usize, const Q: usize>(f: Factors, to: *mut i32) {
        // SAFETY: the trait's contract; `Q` is 1.
        unsafe {
            let mut sums = [[vdupq_n_s32(0); 4]; P];
            let mut inputs = f.inputs.cast::<i16>();
            let mut weights = f.lines.cast::<i16>();
            let mut k = 0;
            while k < f.steps {
                let mut x = [vdupq_n_s16(0); P];
                for (p, x) in x.iter_mut().enumerate() {
                    *x = vld1q_s16(inputs.add(p * f.stride / 2));
                }
                // The sixteen channels of one input.
                macro_rules! input {
                    ($($lane:literal)*) => {$(
                        let (a, b) = (vld1q_s16(weights.add($lane * LANES)), vld1q_s16(weights.add($lane * LANES + 8)));
                        for (x, sums) in x.iter().zip(&mut sums) {
                            sums[0] = vmlal_laneq_s16::<$lane>(sums[0], vget_low_s16(a), *x);
                            sums[1] = vmlal_high_laneq_s16::<$lane>(sums[1], a, *x);
                            sums[2] = vmlal_laneq_s16::<$lane>(sums[2], vget_low_s16(b), *x);
                            sums[3] = vmlal_high_laneq_s16::<$lane>(sums[3], b, *x);
                        }
                    )*};
                }
                input!(0 1 2 3 4 5 6 7);
                inputs = inputs.add(8);
                weights = weights.add(8 * LANES);
                k += 4;
            }
            for (p, sums) in sums.into_iter().enumerate() {
                for (i, sum) in sums.into_iter().enumerate() {
                    vst1q_s32(to.add(p * f.apart + 4 * i), sum);
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
        // SAFETY: the trait's contract.
        unsafe {
            let pixel = |p: usize| {
                let from = sums.add(p * LANES);
                [vld1q_s32(from), vld1q_s32(from.add(4)), vld1q_s32(from.add(8)), vld1q_s32(from.add(12))]
            };
            let place = [block, row, column];
            match pixels {
                4 => finish(m, place, [pixel(0), pixel(1), pixel(2), pixel(3)], roundings, memory),
                3 => finish(m, place, [pixel(0), pixel(1), pixel(2)], roundings, memory),
                2 => finish(m, place, [pixel(0), pixel(1)], roundings, memory),
                _ => finish(m, place, [pixel(0)], roundings, memory),
            }
        }
    }
}

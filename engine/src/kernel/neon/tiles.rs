//! Winograd's tiles: inputs in registers of eight channels as i16, sums in registers of four as i32.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::{Rounding, finish};
use crate::kernel::map::{Map, Roundings};
use crate::kernel::packed::LANES;
use crate::kernel::winograd::{Factors, NINTH, Set};
use core::arch::aarch64::*;

/// The set's vectors.
pub(super) enum Neon {}

impl Set for Neon {
    type Words = int16x8_t;
    const WORDS: usize = 8;
    type Sums = int32x4_t;
    const SUMS: usize = 4;
    const TILES: usize = 4;
    const BLOCKS: usize = 1;
    type Finish = Roundings<Rounding>;

    #[inline(always)]
    unsafe fn widened(from: *const u8) -> int16x8_t {
        // SAFETY: the trait's contract.
        unsafe { vmovl_s8(vld1_s8(from.cast())) }
    }

    #[inline(always)]
    unsafe fn keep_words(v: int16x8_t, to: *mut u8) {
        // SAFETY: the trait's contract.
        unsafe { vst1q_s16(to.cast(), v) }
    }

    #[inline(always)]
    unsafe fn plus(a: int16x8_t, b: int16x8_t) -> int16x8_t {
        // SAFETY: the trait's contract.
        unsafe { vaddq_s16(a, b) }
    }

    #[inline(always)]
    unsafe fn minus(a: int16x8_t, b: int16x8_t) -> int16x8_t {
        // SAFETY: the trait's contract.
        unsafe { vsubq_s16(a, b) }
    }

    #[inline(always)]
    unsafe fn fourfold(a: int16x8_t) -> int16x8_t {
        // SAFETY: the trait's contract.
        unsafe { vshlq_n_s16::<2>(a) }
    }

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vld1q_s32(from) }
    }

    #[inline(always)]
    unsafe fn keep_sums(v: int32x4_t, to: *mut i32) {
        // SAFETY: the trait's contract.
        unsafe { vst1q_s32(to, v) }
    }

    #[inline(always)]
    unsafe fn sum(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vaddq_s32(a, b) }
    }

    #[inline(always)]
    unsafe fn difference(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vsubq_s32(a, b) }
    }

    #[inline(always)]
    unsafe fn quadruple(a: int32x4_t) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vshlq_n_s32::<2>(a) }
    }

    #[inline(always)]
    unsafe fn ninth(a: int32x4_t) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vmulq_n_s32(a, NINTH) }
    }

    #[inline(always)]
    unsafe fn halved(a: int32x4_t, n: u32) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vshlq_s32(a, vdupq_n_s32(-(n as i32))) }
    }

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

//! NEON: four output channels a register, sixteen channels a tile; inputs stay signed. What all instruction sets do with
//! sums is here; [`plain`], [`dotprod`] and [`i8mm`] make them. Equal to [`super::scalar`] bit for bit.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::grid::View;
use super::map::{Columns, Map, Roundings, keep};
use super::packed::LANES;
use super::part::Part;
use super::winograd;
use crate::requant::Output;
use core::arch::aarch64::*;

/// Sixteen channels.
type Block<T> = [T; 4];

/// How f32 values become bytes.
pub(super) struct Rounding {
    low: float32x4_t,
    high: float32x4_t,
    zero: int16x8_t,
    /// The least byte.
    floor: int8x16_t,
}

impl Rounding {
    #[target_feature(enable = "neon")]
    fn new(out: Output) -> Self {
        let [low, high] = out.bounds();
        Self {
            low: vdupq_n_f32(low),
            high: vdupq_n_f32(high),
            zero: vdupq_n_s16(out.zero() as i16),
            floor: vdupq_n_s8((low as i32 + out.zero()) as i8),
        }
    }

    /// The clamped and rounded values themselves, still less the zero point: `frintn` rounds half to even.
    #[inline]
    #[target_feature(enable = "neon")]
    fn whole(&self, values: Block<float32x4_t>) -> Block<float32x4_t> {
        values.map(|v| vrndnq_f32(vminq_f32(vmaxq_f32(v, self.low), self.high)))
    }

    /// [`Output::quantise`] of a block: conversion rounds half to even and saturates, so does every narrowing, to the upper clamp,
    /// which is always a byte's; the lower one may be a ReLU's.
    #[inline]
    #[target_feature(enable = "neon")]
    fn bytes(&self, [a, b, c, d]: Block<float32x4_t>) -> int8x16_t {
        let ab = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(a)), vcvtnq_s32_f32(b));
        let cd = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(c)), vcvtnq_s32_f32(d));
        let (ab, cd) = (vqaddq_s16(ab, self.zero), vqaddq_s16(cd, self.zero));
        vmaxq_s8(vqmovn_high_s16(vqmovn_s16(ab), cd), self.floor)
    }
}

/// Sixteen bytes as f32, less their zero point.
#[inline]
#[target_feature(enable = "neon")]
fn centred(bytes: int8x16_t, zero: int8x16_t) -> Block<float32x4_t> {
    let (low, high) = (vsubl_s8(vget_low_s8(bytes), vget_low_s8(zero)), vsubl_high_s8(bytes, zero));
    [
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
        vcvtq_f32_s32(vmovl_high_s16(low)),
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
        vcvtq_f32_s32(vmovl_high_s16(high)),
    ]
}

/// The f32 of a block.
///
/// # Safety
/// They are there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn constants(from: *const f32) -> Block<float32x4_t> {
    // SAFETY: this function's callers.
    unsafe { [vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))] }
}

/// `f32(sum) * scale` of a block.
#[inline]
#[target_feature(enable = "neon")]
fn scaled(sums: Block<int32x4_t>, scale: Block<float32x4_t>) -> Block<float32x4_t> {
    core::array::from_fn(|i| vmulq_f32(vcvtq_f32_s32(sums[i]), scale[i]))
}

/// Rounds the sums of `P` neighbouring pixels, does what follows, and stores. All pixels go from step to step together, so that
/// each step's constants are in registers.
///
/// # Safety
/// [`Map::check`] has held for the bytes at `memory`, and the pixels lie in a row.
#[inline(always)]
unsafe fn finish<const P: usize>(
    m: &Map,
    [block, row, column]: [usize; 3],
    sums: [Block<int32x4_t>; P],
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) {
    let (channels, first) = (m.packed.channels, block * LANES);
    let kept = LANES.min(channels - first);
    // SAFETY: `Map::check` has held for pixels and whole blocks of every view; constants have whole blocks.
    unsafe {
        let pixels = |view: View| memory.add(view.at + row * view.pitch + column * m.pixel + first);
        let store = |bytes: [int8x16_t; P], view: View| {
            let to = pixels(view);
            for (p, bytes) in bytes.into_iter().enumerate() {
                let to = to.add(p * m.pixel).cast::<i8>();
                if kept == LANES {
                    vst1q_s8(to, bytes);
                } else {
                    let mut whole = [0u8; LANES];
                    vst1q_s8(whole.as_mut_ptr().cast(), bytes);
                    keep(&whole, core::slice::from_raw_parts_mut(to.cast(), kept));
                }
            }
        };
        let mut rounding = &roundings.own;
        let scale = constants(m.scale().add(first));
        let mut values = [scale; P];
        for (value, sums) in values.iter_mut().zip(sums) {
            *value = scaled(sums, scale);
        }
        if let (Some(sum), Some(own)) = (&m.sum, &roundings.sum) {
            let zero = vdupq_n_s8(sum.other_zero as i8);
            let from = pixels(sum.other);
            for (p, value) in values.iter_mut().enumerate() {
                let other = centred(vld1q_s8(from.add(p * m.pixel).cast()), zero);
                let whole = rounding.whole(*value);
                for ((value, whole), other) in value.iter_mut().zip(whole).zip(other) {
                    // Three roundings, as the definition has them: no FMA.
                    *value = vaddq_f32(vmulq_n_f32(whole, sum.ratio[0]), vmulq_n_f32(other, sum.ratio[1]));
                }
            }
            rounding = own;
        }
        if let Some(y) = m.y {
            let mut bytes = [vdupq_n_s8(0); P];
            for (bytes, value) in bytes.iter_mut().zip(values) {
                *bytes = rounding.bytes(value);
            }
            store(bytes, y);
        }
        if let (Some(affine), Some(own)) = (&m.affine, &roundings.affine) {
            let mul = constants(m.line(affine.mul).cast::<f32>().add(first));
            let add = constants(m.line(affine.add).cast::<f32>().add(first));
            let mut bytes = [vdupq_n_s8(0); P];
            for (bytes, value) in bytes.iter_mut().zip(values) {
                let mut mapped = rounding.whole(value);
                for ((mapped, mul), add) in mapped.iter_mut().zip(mul).zip(add) {
                    *mapped = vaddq_f32(vmulq_f32(*mapped, mul), add);
                }
                *bytes = own.bytes(mapped);
            }
            store(bytes, affine.y);
        }
    }
}

/// Lays a block's columns side by side for a row of pixels.
///
/// # Safety
/// [`Map::check`] has held for the bytes at `memory`.
#[inline(never)]
#[target_feature(enable = "neon")]
unsafe fn interleave(m: &Map, columns: &Columns, place: [usize; 2], memory: *mut u8) {
    for (rows, mut to) in columns.strips(m, place, memory) {
        let rows = rows.map(|row| apart(row.cast(), 0));
        let end = to.wrapping_add(64 * columns.extent[0]);
        let mut at = 0;
        while to != end {
            // SAFETY: this function's callers.
            unsafe {
                let [a, b, c, d] = rows.map(|row| vld1q_u8(row.add(at).cast()));
                vst4q_u8(to, uint8x16x4_t(a, b, c, d));
                to = to.add(64);
            }
            at += columns.channels;
        }
    }
}

/// `from + bytes`, which the compiler cannot express by another pointer: it would spend additions on that in the inner loop.
#[inline(always)]
fn apart(from: *const i8, bytes: usize) -> *const i8 {
    let mut at = from.wrapping_add(bytes);
    // SAFETY: no instruction.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) at, options(pure, nomem, nostack, preserves_flags)) };
    at
}

/// The biases of a block.
///
/// # Safety
/// [`Map::check`] has held.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn biases(m: &Map, block: usize) -> Block<int32x4_t> {
    // SAFETY: this function's callers.
    core::array::from_fn(|i| unsafe { vld1q_s32(m.bias().add(block * LANES + 4 * i)) })
}

/// A line's registers, each four channels by four inputs.
///
/// # Safety
/// The line is there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn weights(line: *const i8) -> Block<int8x16_t> {
    // SAFETY: this function's callers.
    core::array::from_fn(|i| unsafe { vld1q_s8(line.add(16 * i)) })
}

/// `map` and `real` of an instruction set over its own `sums`, for tiles of so many pixels, the last one; and Winograd's tiles over these vectors, if it has some.
macro_rules! over_sums {
    ($features:literal, [$($pixels:literal)*] $(, $tiles:ty)?) => {
        /// A part of the map, and what follows it.
        ///
        /// # Safety
        /// The CPU has the instructions, and [`Map::check`] has held for the bytes at `memory`.
        #[target_feature(enable = $features)]
        pub unsafe fn map(m: &Map, part: Part, memory: *mut u8) {
            let roundings = m.roundings(|out| Rounding::new(out));
            $(if let Some(w) = &m.winograd {
                // SAFETY: as this function's callers.
                return unsafe { winograd::sweep::<$tiles>(m, w, part, &roundings, memory) };
            })?
            for block in part.blocks[0]..part.blocks[1] {
                for row in part.rows[0]..part.rows[1] {
                    // SAFETY: as this function's callers.
                    unsafe {
                        if m.depthwise.is_some() {
                            if let Some(columns) = m.columns() {
                                interleave(m, columns, [block, row], memory);
                            }
                            pixels::<true>(m, [block, row], &roundings, memory);
                        } else {
                            pixels::<false>(m, [block, row], &roundings, memory);
                        }
                    }
                }
            }
        }

        /// A row's pixels of a block of channels.
        #[target_feature(enable = $features)]
        unsafe fn pixels<const OWN: bool>(
            m: &Map,
            [block, row]: [usize; 2],
            roundings: &Roundings<Rounding>,
            memory: *mut u8,
        ) {
            let columns = m.extent[1];
            let mut column = 0;
            $(while column + $pixels <= columns {
                // SAFETY: as this function's callers; the tile ends with the row.
                unsafe { tile::<$pixels, OWN>(m, [block, row, column], roundings, memory) };
                column += $pixels;
            })*
        }

        #[target_feature(enable = $features)]
        unsafe fn tile<const P: usize, const OWN: bool>(
            m: &Map,
            place: [usize; 3],
            roundings: &Roundings<Rounding>,
            memory: *mut u8,
        ) {
            let [block, row, column] = place;
            // SAFETY: this function's callers.
            unsafe {
                let sums = if OWN { own_sums::<P>(m, place, memory) } else { sums::<P>(m, place, memory) };
                // Two pixels at a time; written out, since a loop may stay one, its sums in memory.
                if P > 1 {
                    finish(m, place, [sums[0], sums[1]], roundings, memory);
                }
                if P > 3 {
                    finish(m, [block, row, column + 2], [sums[2], sums[3]], roundings, memory);
                }
                if P % 2 == 1 {
                    finish(m, [block, row, column + P - 1], [sums[P - 1]], roundings, memory);
                }
            }
        }

        /// `f32(acc) * scale` of a map of one pixel, `[channels]`.
        ///
        /// # Safety
        /// As [`map`].
        #[target_feature(enable = $features)]
        pub unsafe fn real(m: &Map, memory: *const u8, y: &mut [f32]) {
            for (block, y) in y.chunks_mut(LANES).enumerate() {
                let mut all = [0.0f32; LANES];
                // SAFETY: this function's callers.
                unsafe {
                    let [sums] = sums::<1>(m, [block, 0, 0], memory);
                    let values = scaled(sums, constants(m.scale().add(block * LANES)));
                    for (i, four) in values.into_iter().enumerate() {
                        vst1q_f32(all.as_mut_ptr().add(4 * i), four);
                    }
                }
                y.copy_from_slice(&all[..y.len()]);
            }
        }
    };
}

pub mod dotprod;
pub mod i8mm;
pub mod plain;
mod tiles;

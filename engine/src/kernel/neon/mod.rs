//! NEON: four output channels a register, sixteen channels a tile; inputs stay signed. What all instruction sets do with
//! sums is here; [`plain`], [`dotprod`] and [`i8mm`] make them. Equal to [`super::scalar`] bit for bit.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::grid::View;
use super::map::{Columns, Map, Roundings};
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
fn centred(bytes: int8x16_t, zero: i32) -> Block<float32x4_t> {
    let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
    let words =
        [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)];
    words.map(|w| vcvtq_f32_s32(vsubq_s32(w, vdupq_n_s32(zero))))
}

/// `f32(sum) * scale` of a block.
///
/// # Safety
/// The scale has a whole block.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn scaled(sums: Block<int32x4_t>, scale: *const f32) -> Block<float32x4_t> {
    // SAFETY: this function's callers.
    core::array::from_fn(|i| unsafe { vmulq_f32(vcvtq_f32_s32(sums[i]), vld1q_f32(scale.add(4 * i))) })
}

/// Rounds the sums of a pixel, does what follows, and stores.
///
/// # Safety
/// [`Map::check`] has held for the bytes at `memory`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn finish(
    m: &Map,
    [block, row, column]: [usize; 3],
    sums: Block<int32x4_t>,
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) {
    let (channels, first) = (m.packed.channels, block * LANES);
    let kept = LANES.min(channels - first);
    let pixel = |view: View| view.at + row * view.pitch + column * m.pixel + first;
    // SAFETY: `Map::check` has held for pixels and whole blocks of every view; constants have whole blocks.
    unsafe {
        let store = |bytes: int8x16_t, at: usize| match kept {
            LANES => vst1q_s8(memory.add(at).cast(), bytes),
            _ => {
                let mut whole = [0i8; LANES];
                vst1q_s8(whole.as_mut_ptr(), bytes);
                memory.add(at).cast::<i8>().copy_from_nonoverlapping(whole.as_ptr(), kept);
            }
        };
        let mut rounding = &roundings.own;
        let mut value = scaled(sums, m.scale().add(first));
        if let (Some(sum), Some(own)) = (&m.sum, &roundings.sum) {
            let bytes = vld1q_s8(memory.add(pixel(sum.other)).cast());
            let other = centred(bytes, i32::from(sum.other_zero as i8));
            // Three roundings, as the definition has them: no FMA.
            let whole = rounding.whole(value);
            let both = |i: usize| {
                let (a, b) = (vmulq_n_f32(whole[i], sum.ratio[0]), vmulq_n_f32(other[i], sum.ratio[1]));
                vaddq_f32(a, b)
            };
            rounding = own;
            value = [both(0), both(1), both(2), both(3)];
        }
        if let Some(y) = m.y {
            store(rounding.bytes(value), pixel(y));
        }
        if let (Some(affine), Some(own)) = (&m.affine, &roundings.affine) {
            let (mul, add) =
                (m.line(affine.mul).cast::<f32>().add(first), m.line(affine.add).cast::<f32>().add(first));
            let value = rounding.whole(value);
            let mapped =
                |i: usize| vaddq_f32(vmulq_f32(value[i], vld1q_f32(mul.add(4 * i))), vld1q_f32(add.add(4 * i)));
            store(own.bytes([mapped(0), mapped(1), mapped(2), mapped(3)]), pixel(affine.y));
        }
    }
}

/// Lays a block's columns side by side for a row of pixels.
///
/// # Safety
/// [`Map::check`] has held for the bytes at `memory`.
#[target_feature(enable = "neon")]
unsafe fn interleave(m: &Map, columns: &Columns, place: [usize; 2], memory: *mut u8) {
    for (rows, to) in columns.strips(m, place, memory) {
        for column in 0..columns.extent[0] {
            // SAFETY: this function's callers.
            unsafe {
                let [a, b, c, d] = rows.map(|row| vld1q_u8(row.add(column * columns.channels)));
                vst4q_u8(to.add(64 * column), uint8x16x4_t(a, b, c, d));
            }
        }
    }
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

/// `map` and `real` of an instruction set over its own `sums`, and Winograd's tiles over these vectors, if it has some.
macro_rules! over_sums {
    ($features:literal, $pixels:expr $(, $tiles:ty)?) => {
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
                        if let Some(columns) = &m.columns {
                            interleave(m, columns, [block, row], memory);
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
            // SAFETY: a tile of P pixels starts at most P before the end of the row.
            unsafe {
                while column + $pixels <= columns {
                    tile::<{ $pixels }, OWN>(m, [block, row, column], roundings, memory);
                    column += $pixels;
                }
                while column < columns {
                    tile::<1, OWN>(m, [block, row, column], roundings, memory);
                    column += 1;
                }
            }
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
                for (p, sums) in sums.into_iter().enumerate() {
                    finish(m, [block, row, column + p], sums, roundings, memory);
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
                    let values = scaled(sums, m.scale().add(block * LANES));
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

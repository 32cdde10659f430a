//! NEON, without and with the dot-product extension: four output channels a register, sixteen channels by up to four
//! pixels a tile. Inputs stay signed.
//!
//! Without the extension, products of two neighbouring steps are summed in i16, where two of them just fit
//! (2 x 127 x 128), before they widen. Equal to [`super::scalar`] bit for bit.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::grid::View;
use super::map::Map;
use super::packed::LANES;
use crate::requant::Output;
use core::arch::aarch64::*;

/// Sixteen channels.
type Block<T> = [T; 4];

/// How f32 values become bytes.
struct Rounding {
    low: float32x4_t,
    high: float32x4_t,
    zero: int32x4_t,
}

impl Rounding {
    #[target_feature(enable = "neon")]
    fn new(out: Output) -> Self {
        let [low, high] = out.bounds().map(|v| vdupq_n_f32(v));
        Self { low, high, zero: vdupq_n_s32(out.zero()) }
    }

    /// The clamped and rounded values themselves, still less the zero point: `frintn` rounds half to even.
    #[inline]
    #[target_feature(enable = "neon")]
    fn whole(&self, values: Block<float32x4_t>) -> Block<float32x4_t> {
        values.map(|v| vrndnq_f32(vminq_f32(vmaxq_f32(v, self.low), self.high)))
    }

    /// Rounded values as bytes: they fit, so narrowing saturates nothing.
    #[inline]
    #[target_feature(enable = "neon")]
    fn bytes(&self, whole: Block<float32x4_t>) -> int8x16_t {
        let [a, b, c, d] = whole.map(|v| vqmovn_s32(vaddq_s32(vcvtq_s32_f32(v), self.zero)));
        vcombine_s8(vqmovn_s16(vcombine_s16(a, b)), vqmovn_s16(vcombine_s16(c, d)))
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

/// The roundings of a map's own output, its sum and its affine map.
struct Roundings {
    own: Rounding,
    sum: Option<Rounding>,
    affine: Option<Rounding>,
}

impl Roundings {
    #[target_feature(enable = "neon")]
    fn new(m: &Map) -> Self {
        let sum = m.sum.map(|s| Rounding::new(s.out));
        Self { own: Rounding::new(m.out), sum, affine: m.affine.map(|a| Rounding::new(a.out)) }
    }
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
    roundings: &Roundings,
    memory: *mut u8,
) {
    let (channels, first) = (m.packed.channels, block * LANES);
    let kept = LANES.min(channels - first);
    let pixel = |view: View| view.at + row * view.pitch + column * channels + first;
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
        let mut value = rounding.whole(scaled(sums, m.scale().add(first)));
        if let (Some(sum), Some(own)) = (&m.sum, &roundings.sum) {
            let bytes = vld1q_s8(memory.add(pixel(sum.other)).cast());
            let other = centred(bytes, i32::from(sum.other_zero as i8));
            // Three roundings, as the definition has them: no FMA.
            let both = |i: usize| {
                let (a, b) = (vmulq_n_f32(value[i], sum.ratio[0]), vmulq_n_f32(other[i], sum.ratio[1]));
                vaddq_f32(a, b)
            };
            rounding = own;
            value = rounding.whole([both(0), both(1), both(2), both(3)]);
        }
        if let Some(y) = m.y {
            store(rounding.bytes(value), pixel(y));
        }
        if let (Some(affine), Some(own)) = (&m.affine, &roundings.affine) {
            let (mul, add) =
                (m.line(affine.mul).cast::<f32>().add(first), m.line(affine.add).cast::<f32>().add(first));
            let mapped =
                |i: usize| vaddq_f32(vmulq_f32(value[i], vld1q_f32(mul.add(4 * i))), vld1q_f32(add.add(4 * i)));
            store(own.bytes(own.whole([mapped(0), mapped(1), mapped(2), mapped(3)])), pixel(affine.y));
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

/// `map` and `real` of an instruction set over its own `sums`.
macro_rules! over_sums {
    ($features:literal, $pixels:literal) => {
        /// The map at every pixel, and what follows it.
        ///
        /// # Safety
        /// The CPU has the instructions, and [`Map::check`] has held for the bytes at `memory`.
        #[target_feature(enable = $features)]
        pub unsafe fn map(m: &Map, memory: *mut u8) {
            let roundings = Roundings::new(m);
            let [rows, columns] = m.extent;
            for block in 0..m.packed.blocks() {
                for row in 0..rows {
                    let mut column = 0;
                    // SAFETY: a tile of P pixels starts at most P before the end of the row.
                    unsafe {
                        while column + $pixels <= columns {
                            tile::<$pixels>(m, [block, row, column], &roundings, memory);
                            column += $pixels;
                        }
                        while column < columns {
                            tile::<1>(m, [block, row, column], &roundings, memory);
                            column += 1;
                        }
                    }
                }
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn tile<const P: usize>(m: &Map, place: [usize; 3], roundings: &Roundings, memory: *mut u8) {
            let [block, row, column] = place;
            // SAFETY: this function's callers.
            unsafe {
                let sums = sums::<P>(m, place, memory);
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

/// Without the dot-product extension.
pub mod plain {
    use super::*;

    /// Proof that the CPU has NEON; only [`detect`] makes it.
    #[derive(Debug, Clone, Copy)]
    pub struct Neon(());

    /// The token, where the CPU has what it takes.
    pub fn detect() -> Option<Neon> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }

    over_sums!("neon", 2);

    /// The sums of P neighbouring pixels over a block of channels.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn sums<const P: usize>(
        m: &Map,
        [block, row, column]: [usize; 3],
        memory: *const u8,
    ) -> [Block<int32x4_t>; P] {
        let Map { x, step, packed, .. } = m;
        // SAFETY: `Map::check` proved that every step of every tile lies in the memory, and that there are lines and
        // biases for all blocks; the callers' tiles end with the row.
        unsafe {
            let from = memory.add(x.at + row * step[1] + column * step[0]);
            let mut line = m.line(packed.at + block * packed.span()).cast::<i8>();
            // Two channels a register, the sums of their even and odd pairs of inputs side by side.
            let mut halves = [[vdupq_n_s32(0); 8]; P];
            // Four inputs, twice.
            let four = |at: *const u8| vreinterpret_s8_s32(vdup_n_s32(at.cast::<i32>().read_unaligned()));
            for run in 0..packed.runs {
                let inputs = from.add(run * x.pitch);
                let mut k = 0;
                while k + 2 <= packed.steps {
                    let x: [[int8x8_t; 2]; P] = core::array::from_fn(|p| {
                        let at = inputs.add(p * step[0] + 4 * k);
                        [four(at), four(at.add(4))]
                    });
                    for i in 0..8 {
                        // Two channels by four inputs, of both steps.
                        let (w, v) = (vld1_s8(line.add(8 * i)), vld1_s8(line.add(64 + 8 * i)));
                        for (halves, [a, b]) in halves.iter_mut().zip(x) {
                            halves[i] = vpadalq_s16(halves[i], vmlal_s8(vmull_s8(w, a), v, b));
                        }
                    }
                    line = line.add(128);
                    k += 2;
                }
                if k < packed.steps {
                    let x: [int8x8_t; P] = core::array::from_fn(|p| four(inputs.add(p * step[0] + 4 * k)));
                    for i in 0..8 {
                        let w = vld1_s8(line.add(8 * i));
                        for (halves, x) in halves.iter_mut().zip(x) {
                            halves[i] = vpadalq_s16(halves[i], vmull_s8(w, x));
                        }
                    }
                    line = line.add(64);
                }
            }
            let bias = biases(m, block);
            halves.map(|h| core::array::from_fn(|i| vaddq_s32(bias[i], vpaddq_s32(h[2 * i], h[2 * i + 1]))))
        }
    }

    /// `rounds` times eight products, sums and widenings that do not wait for each other; returns the number of products.
    #[target_feature(enable = "neon")]
    pub fn multiply_at_peak(rounds: u32) -> u64 {
        let (mut a, b) = (vdup_n_s8(1), vdup_n_s8(2));
        let mut sums = [vdupq_n_s32(0); 8];
        for _ in 0..rounds {
            for sum in &mut sums {
                // SAFETY: no instruction. The compiler must believe that `a` changes, or it keeps the products.
                unsafe {
                    core::arch::asm!("/* {0:d} */", inout(vreg) a, options(pure, nomem, nostack, preserves_flags))
                };
                *sum = vpadalq_s16(*sum, vmlal_s8(vmull_s8(a, b), a, b));
            }
        }
        core::hint::black_box(sums);
        u64::from(rounds) * 8 * 16
    }
}

/// With the dot-product extension.
pub mod dotprod {
    use super::*;
    use core::arch::asm;

    /// Proof that the CPU has NEON with dot products; only [`detect`] makes it.
    #[derive(Debug, Clone, Copy)]
    pub struct Dotprod(());

    /// The token, where the CPU has what it takes.
    pub fn detect() -> Option<Dotprod> {
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(Dotprod(()))
    }

    over_sums!("neon,dotprod", 4);

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

    /// The sums of P neighbouring pixels over a block of channels.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn sums<const P: usize>(
        m: &Map,
        [block, row, column]: [usize; 3],
        memory: *const u8,
    ) -> [Block<int32x4_t>; P] {
        let Map { x, step, packed, .. } = m;
        // SAFETY: `Map::check` proved that every step of every tile lies in the memory, and that there are lines and
        // biases for all blocks; the callers' tiles end with the row.
        unsafe {
            let from = memory.add(x.at + row * step[1] + column * step[0]);
            let mut line = m.line(packed.at + block * packed.span()).cast::<i8>();
            let mut sums = [biases(m, block); P];
            for run in 0..packed.runs {
                let inputs = from.add(run * x.pitch);
                let mut k = 0;
                while k + 4 <= packed.steps {
                    let sixteen: [int8x16_t; P] =
                        core::array::from_fn(|p| vld1q_s8(inputs.add(p * step[0] + 4 * k).cast()));
                    macro_rules! lane {
                        ($lane:literal) => {
                            let w = weights(line.add(64 * $lane));
                            for (sums, x) in sums.iter_mut().zip(sixteen) {
                                for (sum, w) in sums.iter_mut().zip(w) {
                                    dot::<$lane>(sum, w, x);
                                }
                            }
                        };
                    }
                    lane!(0);
                    lane!(1);
                    lane!(2);
                    lane!(3);
                    line = line.add(256);
                    k += 4;
                }
                while k < packed.steps {
                    let w = weights(line);
                    for (p, sums) in sums.iter_mut().enumerate() {
                        let four = inputs.add(p * step[0] + 4 * k).cast::<i32>().read_unaligned();
                        let x = vreinterpretq_s8_s32(vdupq_n_s32(four));
                        for (sum, w) in sums.iter_mut().zip(w) {
                            dot::<0>(sum, w, x);
                        }
                    }
                    line = line.add(64);
                    k += 1;
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
}

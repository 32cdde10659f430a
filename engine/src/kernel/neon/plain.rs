//! NEON without the dot-product extension: two pixels a tile. Products of two neighbouring steps are summed in i16, where
//! two of them just fit (2 x 127 x 128), before they widen.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::*;

/// Proof that the CPU has NEON; only [`detect`] makes it.
#[derive(Debug, Clone, Copy)]
pub struct Neon(());

/// The token, where the CPU has what it takes.
pub fn detect() -> Option<Neon> {
    std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(()))
}

over_sums!("neon", [2 1], super::tiles::Neon);

/// The sums of P neighbouring pixels over a block of channels.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn sums<const P: usize>(m: &Map, place @ [block, ..]: [usize; 3], memory: *const u8) -> [Block<int32x4_t>; P] {
    let Map { step, packed, .. } = m;
    // SAFETY: `Map::check` proved that every step of every tile lies in the memory, and that there are lines and
    // biases for all blocks; the callers' tiles end with the row.
    unsafe {
        let (from, line) = m.tile(place, memory);
        let mut line = line.cast::<i8>();
        // Two channels a register, the sums of their even and odd pairs of inputs side by side.
        let mut halves = [[vdupq_n_s32(0); 8]; P];
        for tap in m.taps {
            // A pointer for each pixel, which its loads move on.
            let mut at: [*const i8; P] = core::array::from_fn(|p| apart(from.add(*tap).cast(), p * step[0]));
            let twice = line.wrapping_add(64 * (packed.steps & !1));
            while line != twice {
                // Four inputs, twice, and the next four.
                let (mut x, mut y) = ([vdup_n_s8(0); P], [vdup_n_s8(0); P]);
                for (p, at) in at.iter_mut().enumerate() {
                    let eight = vreinterpret_s32_s8(vld1_s8(*at));
                    x[p] = vreinterpret_s8_s32(vdup_lane_s32::<0>(eight));
                    y[p] = vreinterpret_s8_s32(vdup_lane_s32::<1>(eight));
                    *at = at.add(8);
                }
                for i in 0..8 {
                    // Two channels by four inputs, of both steps.
                    let (w, v) = (vld1_s8(line.add(8 * i)), vld1_s8(line.add(64 + 8 * i)));
                    for (p, halves) in halves.iter_mut().enumerate() {
                        halves[i] = vpadalq_s16(halves[i], vmlal_s8(vmull_s8(w, x[p]), v, y[p]));
                    }
                }
                line = line.add(128);
            }
            if packed.steps % 2 != 0 {
                let fours = at.map(|at| vreinterpret_s8_s32(vdup_n_s32(at.cast::<i32>().read_unaligned())));
                for i in 0..8 {
                    let w = vld1_s8(line.add(8 * i));
                    for (halves, x) in halves.iter_mut().zip(fours) {
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

/// As [`sums`], each channel over inputs of its own.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn own_sums<const P: usize>(
    m: &Map,
    place @ [block, ..]: [usize; 3],
    memory: *const u8,
) -> [Block<int32x4_t>; P] {
    // SAFETY: as `sums`: every tap of whole blocks is there, and half a line for two taps.
    unsafe {
        let (from, line) = m.tile(place, memory);
        let (from, mut line) = (from.cast::<i8>().add(block * LANES), line.cast::<i8>());
        let mut sums = [biases(m, block); P];
        for taps in m.taps.chunks_exact(2) {
            let (w, v) = (vld1q_s8(line), vld1q_s8(line.add(LANES)));
            for (p, sums) in sums.iter_mut().enumerate() {
                let at = from.add(p * m.step[0]);
                let (x, y) = (vld1q_s8(at.add(taps[0])), vld1q_s8(at.add(taps[1])));
                let low = vmlal_s8(vmull_s8(vget_low_s8(w), vget_low_s8(x)), vget_low_s8(v), vget_low_s8(y));
                let high = vmlal_high_s8(vmull_high_s8(w, x), v, y);
                sums[0] = vaddw_s16(sums[0], vget_low_s16(low));
                sums[1] = vaddw_high_s16(sums[1], low);
                sums[2] = vaddw_s16(sums[2], vget_low_s16(high));
                sums[3] = vaddw_high_s16(sums[3], high);
            }
            line = line.add(64);
        }
        sums
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
            unsafe { core::arch::asm!("/* {0:d} */", inout(vreg) a, options(pure, nomem, nostack, preserves_flags)) };
            *sum = vpadalq_s16(*sum, vmlal_s8(vmull_s8(a, b), a, b));
        }
    }
    core::hint::black_box(sums);
    u64::from(rounds) * 8 * 16
}

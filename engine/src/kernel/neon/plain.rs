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

over_sums!("neon", 2, super::tiles::Neon);

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
        // Four inputs, twice.
        let four = |at: *const u8| vreinterpret_s8_s32(vdup_n_s32(at.cast::<i32>().read_unaligned()));
        for tap in m.taps {
            let inputs = from.add(*tap);
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

/// As [`sums`], each channel over inputs of its own.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn own_sums<const P: usize>(
    m: &Map,
    place @ [block, ..]: [usize; 3],
    memory: *const u8,
) -> [Block<int32x4_t>; P] {
    let Map { step, packed, .. } = m;
    // SAFETY: as `sums`.
    unsafe {
        let (from, line) = m.tile(place, memory);
        let (from, mut line) = (from.cast::<i8>(), line.cast::<i8>());
        let mut halves = [[vdupq_n_s32(0); 8]; P];
        for tap in m.taps {
            for k in 0..packed.steps {
                for i in 0..8 {
                    let w = vld1_s8(line.add(8 * i));
                    for (p, halves) in halves.iter_mut().enumerate() {
                        let x = vld1_s8(from.add(tap + p * step[0] + 64 * k + 8 * i));
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
            unsafe { core::arch::asm!("/* {0:d} */", inout(vreg) a, options(pure, nomem, nostack, preserves_flags)) };
            *sum = vpadalq_s16(*sum, vmlal_s8(vmull_s8(a, b), a, b));
        }
    }
    core::hint::black_box(sums);
    u64::from(rounds) * 8 * 16
}

//! AVX-512 VNNI: sixteen output channels a register, up to eight pixels and three registers of channels a tile.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes and saturates nowhere: inputs are stored as x + 128, and
//! `-128 sum w` stands in the bias. Sums wrap as i32 and end where the exact sum does, which fits. Equal to
//! [`super::scalar`] bit for bit.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

mod finish;
mod rounding;
mod sums;
mod tiles;

pub use sums::multiply_at_peak;

use super::map::{Map, Roundings};
use super::packed::LANES;
use super::part::Part;
use super::winograd;
use core::arch::x86_64::*;
use finish::{finish, lanes};
use rounding::Rounding;
use sums::{interleave, sums};
use tiles::Zmm;

/// Proof that the CPU has AVX-512 F, BW, VL and VNNI and that the system keeps their registers; only [`detect`] makes it.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

/// The token, where the CPU has what it takes.
pub fn detect() -> Option<Avx512> {
    let all = std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512vl")
        && std::is_x86_feature_detected!("avx512vnni");
    all.then_some(Avx512(()))
}

/// Pixels of a tile at most.
const PIXELS: usize = 8;

/// A part of the map, and what follows it.
///
/// # Safety
/// The CPU has the instructions, and [`Map::check`] has held for the bytes at `memory`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn map(m: &Map, part: Part, memory: *mut u8) {
    let roundings = m.roundings(|out| Rounding::new(out));
    // SAFETY: as this function's callers.
    unsafe {
        if let Some(w) = &m.winograd {
            return winograd::sweep::<Zmm>(m, w, part, &roundings, memory);
        }
        if let Some(columns) = m.columns() {
            for block in part.blocks[0]..part.blocks[1] {
                for row in part.rows[0]..part.rows[1] {
                    interleave(m, columns, [block, row], memory);
                    if m.step[0] == 64 {
                        pixels::<1, false, false, true, 64>(m, [block, row], &roundings, memory);
                    } else {
                        pixels::<1, false, false, true, 0>(m, [block, row], &roundings, memory);
                    }
                }
            }
            return;
        }
        match (m.sum.is_some(), m.affine.is_some()) {
            (false, false) => blocks::<false, false>(m, part, &roundings, memory),
            (true, false) => blocks::<true, false>(m, part, &roundings, memory),
            (false, true) => blocks::<false, true>(m, part, &roundings, memory),
            (true, true) => blocks::<true, true>(m, part, &roundings, memory),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn blocks<const SUM: bool, const AFFINE: bool>(
    m: &Map,
    part: Part,
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) {
    let [mut block, blocks] = part.blocks;
    while block < blocks {
        // SAFETY: as this function's callers.
        block += unsafe {
            match blocks - block {
                // Few pixels a tile leave registers for more channels.
                4.. if m.extent[1] <= 4 => narrow::<SUM, AFFINE>(m, block, part.rows, roundings, memory),
                1 => rows::<1, SUM, AFFINE>(m, block, part.rows, roundings, memory),
                2 | 4 => rows::<2, SUM, AFFINE>(m, block, part.rows, roundings, memory),
                _ => rows::<3, SUM, AFFINE>(m, block, part.rows, roundings, memory),
            }
        };
    }
}

/// All pixels of `Q` blocks of channels; returns Q.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows<const Q: usize, const SUM: bool, const AFFINE: bool>(
    m: &Map,
    block: usize,
    rows: [usize; 2],
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) -> usize {
    for row in rows[0]..rows[1] {
        // SAFETY: as this function's callers.
        unsafe {
            if Q == 1 && m.step[0] == LANES {
                pixels::<Q, SUM, AFFINE, false, LANES>(m, [block, row], roundings, memory);
            } else {
                pixels::<Q, SUM, AFFINE, false, 0>(m, [block, row], roundings, memory);
            }
        };
    }
    Q
}

/// All pixels of four blocks of channels, where a row has no more than four pixels; returns 4.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn narrow<const SUM: bool, const AFFINE: bool>(
    m: &Map,
    block: usize,
    rows: [usize; 2],
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) -> usize {
    for row in rows[0]..rows[1] {
        // SAFETY: a tile of P pixels starts at most P before the end of the row.
        unsafe {
            match m.extent[1] {
                4 => tile::<4, 4, SUM, AFFINE, false, 0>(m, [block, row, 0], roundings, memory),
                3 => tile::<3, 4, SUM, AFFINE, false, 0>(m, [block, row, 0], roundings, memory),
                2 => tile::<2, 4, SUM, AFFINE, false, 0>(m, [block, row, 0], roundings, memory),
                _ => tile::<1, 4, SUM, AFFINE, false, 0>(m, [block, row, 0], roundings, memory),
            }
        }
    }
    4
}

/// A row's pixels of `Q` blocks of channels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pixels<const Q: usize, const SUM: bool, const AFFINE: bool, const OWN: bool, const STEP: usize>(
    m: &Map,
    [block, row]: [usize; 2],
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) {
    let columns = m.extent[1];
    let mut column = 0;
    // SAFETY: a tile of P pixels starts at most P before the end of the row.
    unsafe {
        // One block needs more pixels, or it waits for its own sums.
        while STEP > 0 && column + 2 * PIXELS <= columns {
            tile::<{ 2 * PIXELS }, Q, SUM, AFFINE, OWN, STEP>(m, [block, row, column], roundings, memory);
            column += 2 * PIXELS;
        }
        while column + PIXELS <= columns {
            tile::<PIXELS, Q, SUM, AFFINE, OWN, STEP>(m, [block, row, column], roundings, memory);
            column += PIXELS;
        }
        if columns - column >= 4 {
            tile::<4, Q, SUM, AFFINE, OWN, STEP>(m, [block, row, column], roundings, memory);
            column += 4;
        }
        if columns - column >= 2 {
            tile::<2, Q, SUM, AFFINE, OWN, STEP>(m, [block, row, column], roundings, memory);
            column += 2;
        }
        if column < columns {
            tile::<1, Q, SUM, AFFINE, OWN, STEP>(m, [block, row, column], roundings, memory);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<
    const P: usize,
    const Q: usize,
    const SUM: bool,
    const AFFINE: bool,
    const OWN: bool,
    const STEP: usize,
>(
    m: &Map,
    place: [usize; 3],
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) {
    let [block, row, column] = place;
    // SAFETY: this function's callers.
    unsafe {
        let sums = sums::<P, Q, OWN, STEP>(m, place, memory);
        for first in (0..P * Q).step_by(4) {
            let mut four = [_mm512_setzero_si512(); 4];
            let mut places = [[block, row, column]; 4];
            for j in 0..4 {
                if first + j < P * Q {
                    let (p, q) = ((first + j) / Q, (first + j) % Q);
                    four[j] = sums[p][q];
                    places[j] = [block + q, row, column + p];
                }
            }
            finish::<SUM, AFFINE>(m, places, four, (P * Q - first).min(4), roundings, memory);
        }
    }
}

/// `f32(acc) * scale` of a map of one pixel, `[channels]`.
///
/// # Safety
/// As [`map`], and `y` has a value for each channel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn real(m: &Map, memory: *const u8, y: &mut [f32]) {
    for block in 0..m.packed.blocks() {
        // SAFETY: as `tile`.
        unsafe {
            let [[sum]] = sums::<1, 1, false, 0>(m, [block, 0, 0], memory);
            let first = block * LANES;
            let scale = _mm512_loadu_ps(m.scale().add(first));
            let values = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
            _mm512_mask_storeu_ps(y.as_mut_ptr().add(first), lanes(y.len() - first), values);
        }
    }
}

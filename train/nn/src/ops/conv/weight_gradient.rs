//! The gradient of a convolution's weights, one image at a time.
//!
//! `dw[tap][i][o] += sum_p x[tap offset + p][i] dy[p][o]`: a few input channels times a few vectors of output channels
//! in registers while pixels go by; rows in bands that stay in the first-level cache.

use super::grid::{Grid, SHALLOW};
use super::sweep::Sweep;
use crate::ops::lanes::{BLOCK, Lanes, per_isa};

/// f32 of image and gradient in a band of rows: half of a 48 KiB cache.
const BAND: usize = 6 * 1024;

/// Pixels of one band, and the steps between them.
#[derive(Clone, Copy)]
struct Band {
    rows: usize,
    columns: usize,
    x_row: usize,
    dy_row: usize,
    /// From one block of output channels to the next.
    dy_block: usize,
    /// From one input channel of the result to the next.
    out: usize,
}

/// A tap and an input channel: where it is from a window's start, and its row of the result.
#[derive(Clone, Copy)]
struct Pair {
    offset: usize,
    row: usize,
}

/// `J` rows of the result at once, which `pair` names; `V` is in vectors of `L`, `STEP` the channels of a grid's pixel.
#[inline(always)]
unsafe fn tile<L: Lanes, const J: usize, const V: usize, const STEP: usize>(
    x: *const f32,
    dy: *const f32,
    dw: *mut f32,
    band: Band,
    pair: impl Fn(usize) -> Pair,
) {
    let per_block = BLOCK / L::N;
    // SAFETY: `add_image` checked the last row and column of every pointer.
    unsafe {
        let place = |j: usize, v: usize| dw.add(pair(j).row * band.out + v * L::N);
        let mut acc = [[L::zero(); V]; J];
        for (j, row) in acc.iter_mut().enumerate() {
            for (v, a) in row.iter_mut().enumerate() {
                *a = L::load(place(j, v));
            }
        }
        for y in 0..band.rows {
            let (mut x, mut dy) = (x.add(y * band.x_row), dy.add(y * band.dy_row));
            for _ in 0..band.columns {
                let mut d = [L::zero(); V];
                for (v, d) in d.iter_mut().enumerate() {
                    *d = L::load(dy.add(v / per_block * band.dy_block + v % per_block * L::N));
                }
                for (j, row) in acc.iter_mut().enumerate() {
                    let value = L::splat(x.add(pair(j).offset));
                    for (a, d) in row.iter_mut().zip(d) {
                        *a = a.fma(value, d);
                    }
                }
                (x, dy) = (x.add(STEP), dy.add(BLOCK));
            }
        }
        for (j, row) in acc.iter().enumerate() {
            for (v, a) in row.iter().enumerate() {
                a.store(place(j, v));
            }
        }
    }
}

/// All input channels of one block against `blocks` blocks of output channels.
#[inline(always)]
unsafe fn all_channels<L: Lanes>(blocks: usize, x: *const f32, dy: *const f32, dw: *mut f32, band: Band) {
    macro_rules! channels {
        ($v:literal, $i:literal) => {
            // Constant after monomorphisation: the other tiles are not compiled.
            if $v * L::N % BLOCK == 0 && $v * L::N / BLOCK <= L::GROUP && ($i + 1) * $v < L::REGISTERS {
                if blocks * BLOCK == $v * L::N {
                    for i in (0..BLOCK).step_by($i) {
                        // SAFETY: the caller's contract.
                        unsafe {
                            tile::<L, $i, $v, BLOCK>(x, dy, dw, band, |j| Pair { offset: i + j, row: i + j });
                        }
                    }
                    return;
                }
            }
        };
    }
    // The widest that fits comes first.
    channels!(1, 16);
    channels!(2, 8);
    channels!(2, 4);
    channels!(3, 8);
    channels!(4, 2);
    unreachable!("{blocks} blocks of output channels");
}

/// All pairs of tap and channel of an image of few channels.
#[inline(always)]
unsafe fn all_pairs<L: Lanes>(
    blocks: usize,
    x: *const f32,
    pairs: &[Pair],
    dy: *const f32,
    dw: *mut f32,
    band: Band,
) {
    let mut left = pairs;
    macro_rules! pairs {
        ($v:literal: $($j:literal)*) => {
            // Constant after monomorphisation: the other tiles are not compiled.
            if $v * L::N % BLOCK == 0 && $v * L::N / BLOCK <= L::GROUP {
                $(while blocks * BLOCK == $v * L::N
                    && let Some((now, later)) = left.split_first_chunk::<$j>()
                {
                    // SAFETY: the caller's contract.
                    unsafe { tile::<L, $j, $v, SHALLOW>(x, dy, dw, band, |j| now[j]) };
                    left = later;
                })*
            }
        };
    }
    pairs!(1: 9 4 1);
    pairs!(2: 5 2 1);
    pairs!(3: 6 1);
    pairs!(4: 2 1);
    assert!(left.is_empty(), "{blocks} blocks of output channels");
}

#[inline(always)]
unsafe fn add_image<L: Lanes>(
    (grid, forward): (&Grid, &Sweep),
    dy_grid: &Grid,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let out = forward.out_blocks * BLOCK;
    let channels = grid.blocks() * grid.step;
    let (rows, columns) = (forward.pixels.rows, forward.pixels.columns);
    assert!(x.len() >= grid.len() && dy.len() >= dy_grid.len() && dy_grid.step == BLOCK && dy_grid.phases == 1);
    assert!(dw.len() >= forward.taps.len() * channels * out && dy_grid.blocks() == forward.out_blocks);
    let far = (rows - 1) * forward.row_step * grid.row_len() + columns * grid.step;
    assert!(far + forward.taps.iter().copied().max().unwrap_or(0) <= grid.block_len(), "taps leave the grid");
    assert!(dy_grid.top + rows <= dy_grid.rows && dy_grid.left + columns <= dy_grid.columns);
    let shallow = grid.step == SHALLOW;
    assert!(shallow || grid.step == BLOCK);
    let pair = |t: usize, i: usize| Pair { offset: forward.taps[t] + i, row: t * channels + i };
    let all = |t: usize| (0..grid.channels).map(move |i| (t, i));
    let taps = if shallow { forward.taps.len() } else { 0 };
    let pairs: Vec<Pair> = (0..taps).flat_map(all).map(|(t, i)| pair(t, i)).collect();
    let x_row = forward.row_step * grid.row_len();
    let band_rows = (BAND / (x_row + dy_grid.row_len()).max(1)).clamp(1, rows);
    for first in (0..rows).step_by(band_rows) {
        let band = Band {
            rows: band_rows.min(rows - first),
            columns,
            x_row,
            dy_row: dy_grid.row_len(),
            dy_block: dy_grid.block_len(),
            out,
        };
        let corner = dy_grid.at(dy_grid.top + first, dy_grid.left);
        let mut out_block = 0;
        while out_block < forward.out_blocks {
            let group = super::group::group::<L>(forward.out_blocks, out_block);
            // SAFETY: the assertions above bound every offset; a pair is a tap and a channel of the only block.
            unsafe {
                let x = x.as_ptr().add(first * x_row);
                let dy = dy.as_ptr().add(out_block * dy_grid.block_len() + corner);
                let dw = dw.as_mut_ptr().add(out_block * BLOCK);
                if shallow {
                    all_pairs::<L>(group, x, &pairs, dy, dw, band);
                } else {
                    for block in 0..grid.blocks() {
                        for (t, &tap) in forward.taps.iter().enumerate() {
                            let row = t * channels + block * BLOCK;
                            all_channels::<L>(
                                group,
                                x.add(block * grid.block_len() + tap),
                                dy,
                                dw.add(row * out),
                                band,
                            );
                        }
                    }
                }
            }
            out_block += group;
        }
    }
}

per_isa! {
    /// Adds one image's gradient to `dw`, f32 `[tap][in blocks][step][out blocks][16]`.
    ///
    /// # Safety
    /// None beyond an honest `isa`: extents are checked against the slices.
    pub(super) fn add(
        forward: (&Grid, &Sweep),
        dy_grid: &Grid,
        x: &[f32],
        dy: &[f32],
        dw: &mut [f32],
    ) = add_image
}

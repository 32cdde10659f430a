//! The inner loop of every convolution: a few output pixels of one row times a few vectors of output channels, held in
//! registers while taps and input channels go by.
//!
//! `y[p][o] = sum_{block, tap, i} x[block][tap offset + p][i] w[block][tap][i][o]`

use super::grid::{Grid, SHALLOW};
use super::group::group;
use super::sweep::{Epilogue, Sweep};
use crate::ops::lanes::{BLOCK, Lanes, get, per_isa, put};

/// The accumulators of one tile, and where its results go.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// First output value of the tile.
    y: *mut f32,
    /// The same place of the residual, or null.
    residual: *const f32,
    /// Output values from one pixel of the tile to the next.
    pitch: usize,
    /// First channel of the tile, for bias and sums.
    channel: usize,
    /// Channels that exist from there on.
    valid: usize,
    end: &'a Epilogue<'a>,
    sums: *mut f32,
    squares: *mut f32,
}

#[inline(always)]
unsafe fn accumulate<L: Lanes, const P: usize, const V: usize, const STEP: usize>(
    acc: &mut [[L; V]; P],
    x: *const f32,
    w: *const f32,
) {
    // SAFETY: the caller's pointers hold P pixels of STEP values and V vectors.
    unsafe {
        let mut weights = [L::zero(); V];
        for (v, weight) in weights.iter_mut().enumerate() {
            *weight = L::load(w.add(v * L::N));
        }
        for (p, row) in acc.iter_mut().enumerate() {
            let value = L::splat(x.add(p * STEP));
            for (a, weight) in row.iter_mut().zip(weights) {
                *a = a.fma(value, weight);
            }
        }
    }
}

/// `V` is in vectors of `L`.
#[inline(always)]
unsafe fn tile<L: Lanes, const P: usize, const V: usize, const STEP: usize>(
    grid: &Grid,
    taps: &[usize],
    x: *const f32,
    mut w: *const f32,
    place: Place,
) {
    // SAFETY: `run` checked that taps, pixels and blocks stay inside the grid, and the packed weights' length.
    unsafe {
        let mut acc = [[L::zero(); V]; P];
        if STEP != BLOCK {
            // Few channels: a loop over them would be all overhead, so `taps` lists each channel of each tap.
            for &tap in taps {
                accumulate::<L, P, V, STEP>(&mut acc, x.add(tap), w);
                w = w.add(V * L::N);
            }
            return finish::<L, P, V>(acc, place);
        }
        for block in 0..grid.blocks() {
            let depth = grid.depth(block);
            for &tap in taps {
                let mut x = x.add(block * grid.block_len() + tap);
                let mut left = depth;
                while left >= 4 {
                    for i in 0..4 {
                        accumulate::<L, P, V, STEP>(&mut acc, x.add(i), w.add(i * V * L::N));
                    }
                    (x, w) = (x.add(4), w.add(4 * V * L::N));
                    left -= 4;
                }
                for i in 0..left {
                    accumulate::<L, P, V, STEP>(&mut acc, x.add(i), w.add(i * V * L::N));
                }
                w = w.add(left * V * L::N);
            }
        }
        finish::<L, P, V>(acc, place);
    }
}

#[inline(always)]
unsafe fn finish<L: Lanes, const P: usize, const V: usize>(acc: [[L; V]; P], place: Place) {
    // SAFETY: as in `tile`; partial vectors touch `count` values only.
    unsafe {
        for v in 0..V {
            let at = v * L::N;
            if at >= place.valid {
                break;
            }
            let count = L::N.min(place.valid - at);
            let bias = match place.end.bias {
                Some(bias) => get(bias.as_ptr().add(place.channel + at), count),
                None => L::zero(),
            };
            let (mut sum, mut square) = (L::zero(), L::zero());
            for (p, row) in acc.iter().enumerate() {
                let y = place.y.add(p * place.pitch + at);
                let mut value = row[v].add(bias);
                if place.end.accumulate {
                    value = value.add(get(y, count));
                }
                if !place.residual.is_null() {
                    value = value.add(get(place.residual.add(p * place.pitch + at), count));
                }
                if place.end.relu {
                    value = value.relu();
                }
                put(value, y, count);
                sum = sum.add(value);
                square = square.fma(value, value);
            }
            if !place.sums.is_null() {
                let (s, q) = (place.sums.add(place.channel + at), place.squares.add(place.channel + at));
                put(get::<L>(s, count).add(sum), s, count);
                put(get::<L>(q, count).add(square), q, count);
            }
        }
    }
}

/// The widest tile, in pixels, for a group of output blocks: what fits the registers.
pub(super) const fn widest(registers: usize, vectors: usize) -> usize {
    // Weights and one broadcast value stay in registers beside the accumulators.
    let most = (registers - vectors - 1) / vectors;
    if most > 16 { 16 } else { most }
}

/// Calls the tile whose constants equal `vectors` and `pixels`.
#[inline(always)]
unsafe fn pick<L: Lanes, const STEP: usize>(
    [vectors, pixels]: [usize; 2],
    grid: &Grid,
    taps: &[usize],
    x: *const f32,
    w: *const f32,
    place: Place,
) {
    macro_rules! tiles {
        ($($v:literal: $($p:literal)*;)*) => {
            match [vectors, pixels] {
                $($(
                    // Constant after monomorphisation: the other tiles are not compiled.
                    [$v, $p]
                        if $v * L::N % BLOCK == 0
                            && $v * L::N / BLOCK <= L::GROUP
                            && $p <= widest(L::REGISTERS, $v) =>
                    {
                        // SAFETY: the caller's contract.
                        return unsafe { tile::<L, $p, $v, STEP>(grid, taps, x, w, place) };
                    }
                )*)*
                _ => (),
            }
        };
    }
    tiles! {
        1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16;
        2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
        3: 1 2 3 4 5 6 7 8 9;
        4: 1 2;
    }
    unreachable!("a tile of {vectors} vectors and {pixels} pixels");
}

/// One image through one sweep.
#[inline(always)]
unsafe fn run_sweep<L: Lanes>(
    grid: &Grid,
    sweep: &Sweep,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    end: &Epilogue,
    stats: Option<(&mut [f32], &mut [f32])>,
) {
    sweep.check(grid, x.len(), w.len(), y.len(), end);
    let (sums, squares) = match stats {
        Some((s, q)) => {
            assert!(s.len() >= end.channels && q.len() >= end.channels);
            (s.as_mut_ptr(), q.as_mut_ptr())
        }
        None => (std::ptr::null_mut(), std::ptr::null_mut()),
    };
    let shallow: Vec<usize> = if grid.step == BLOCK {
        Vec::new()
    } else {
        sweep.taps.iter().flat_map(|tap| (0..grid.channels).map(move |i| tap + i)).collect()
    };
    let per_block = BLOCK / L::N;
    let residual = end.residual.map_or(std::ptr::null(), <[f32]>::as_ptr);
    let mut weights = w.as_ptr();
    let mut block = 0;
    while block < sweep.out_blocks {
        let group = group::<L>(sweep.out_blocks, block);
        let vectors = group * per_block;
        let widest = widest(L::REGISTERS, vectors);
        let parts = sweep.pixels.columns.div_ceil(widest);
        let channel = block * BLOCK;
        for row in 0..sweep.pixels.rows {
            let mut column = 0;
            for part in 0..parts {
                let pixels = (sweep.pixels.columns - column).div_ceil(parts - part);
                let out = sweep.pixels.at(row, column) + channel;
                // SAFETY: `check` proved the last row and column of every tap and of the output inside their slices.
                unsafe {
                    let place = Place {
                        y: y.as_mut_ptr().add(out),
                        residual: if residual.is_null() { residual } else { residual.add(out) },
                        pitch: sweep.pixels.step[1] * end.pitch,
                        channel,
                        valid: end.channels - channel,
                        end,
                        sums,
                        squares,
                    };
                    let from = x.as_ptr().add(row * sweep.row_step * grid.row_len() + column * grid.step);
                    let size = [vectors, pixels];
                    if grid.step == BLOCK {
                        pick::<L, BLOCK>(size, grid, &sweep.taps, from, weights, place);
                    } else {
                        pick::<L, SHALLOW>(size, grid, &shallow, from, weights, place);
                    }
                }
                column += pixels;
            }
        }
        // SAFETY: `check` compared the packed length with the sum of these.
        weights = unsafe { weights.add(grid.channels * sweep.taps.len() * group * BLOCK) };
        block += group;
    }
}

per_isa! {
    /// Convolves one image: `x` is a filled grid, `w` packed by [`super::sweep::pack`], `y` the output image.
    ///
    /// # Safety
    /// None beyond an honest `isa`: extents are checked against the slices.
    pub(super) fn run(
        grid: &Grid,
        sweep: &Sweep,
        x: &[f32],
        w: &[f32],
        y: &mut [f32],
        end: &Epilogue<'_>,
        stats: Option<(&mut [f32], &mut [f32])>,
    ) = run_sweep
}

//! Dense layers: matrix products by the same tiles. The large operand, the weights, is only ever read along its rows.
//!
//! A product `c[m][n] = sum_k a[m][k] b[k][n]` is a 1 x 1 convolution of `m` pixels with `k` channels: `a` in a grid,
//! `b` packed. Sums run over k in order, so that results do not depend on how the work is shared out.

use super::grid::{self, Grid, Image};
use super::group::packed_group;
use super::load::Load;
use super::pixels::Pixels;
use super::sweep::{Epilogue, Sweep};
use super::tile;
use crate::ops::lanes::{BLOCK, Isa};
use rayon::prelude::*;

/// Rows of the result in one task.
const ROWS: usize = 64;

/// Blocks of 16 columns of the result in one task, where the tasks share the result's columns.
const PANEL: usize = 4;

/// Rows that are transposed in one task.
const TURN: usize = 16;

/// Images whose weight gradients are summed in one go.
const PART: usize = 64;

/// A fully connected layer, weights `[outputs][inputs]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dense {
    pub isa: Isa,
    pub inputs: usize,
    pub outputs: usize,
}

/// `b` as tiles read it, `[group of blocks][k][16 a block]`, and the sweep over it.
struct Right {
    sweep: Sweep,
    packed: Vec<f32>,
}

/// A grid of `m` pixels with `k` channels.
fn pixels(m: usize, k: usize) -> Grid {
    Grid::new(k, 1, [1, m], [0, 0])
}

/// Packs `k` rows of `n` columns; `row(k, first, to)` copies columns from `first` on.
fn right(isa: Isa, k: usize, n: usize, row: impl Fn(usize, usize, &mut [f32]) + Sync) -> Right {
    let out_blocks = n.div_ceil(BLOCK);
    let sweep = Sweep {
        pixels: Pixels { rows: 1, columns: 0, origin: [0, 0], step: [1, 1], width: 0, pitch: n },
        out_blocks,
        row_step: 1,
        taps: vec![0],
        tap_index: vec![0],
    };
    let mut packed = vec![0.0; k * out_blocks * BLOCK];
    let (mut left, mut first) = (&mut packed[..], 0);
    while first < out_blocks {
        let width = packed_group(isa, out_blocks, first) * BLOCK;
        let (now, later) = left.split_at_mut(k * width);
        let there = width.min(n - first * BLOCK);
        let fill = |(k, to): (usize, &mut [f32])| row(k, first * BLOCK, &mut to[..there]);
        now.par_chunks_exact_mut(width).enumerate().with_min_len(64).for_each(fill);
        (left, first) = (later, first + width / BLOCK);
    }
    Right { sweep, packed }
}

/// `c += a b` or `c = a b` for the `m` rows of a loaded grid.
fn multiply(isa: Isa, grid: &Grid, a: &[f32], b: &Right, c: &mut [f32], accumulate: bool) {
    let m = grid.columns;
    let pixels = Pixels { columns: m, width: m, ..b.sweep.pixels.clone() };
    let pitch = pixels.pitch;
    let sweep = Sweep { pixels, ..b.sweep.clone() };
    let end = Epilogue { bias: None, residual: None, accumulate, relu: false, channels: pitch, pitch };
    // SAFETY: `isa` came from detection; `run` checks the extents.
    unsafe { tile::run(isa, grid, &sweep, a, &b.packed, c, &end, None) }
}

/// Loads rows `[m][k]`.
fn load(isa: Isa, grid: &Grid, rows: &[f32], to: &mut [f32]) {
    let image = Image { h: 1, w: grid.columns, pitch: grid.channels, first: 0 };
    // SAFETY: `isa` came from detection.
    unsafe { grid::fill(isa, grid, image, rows, Load::Plain, to) }
}

/// Loads columns `first..first + m` of `[k][pitch]` as rows.
fn load_transposed(grid: &Grid, values: &[f32], pitch: usize, first: usize, to: &mut [f32]) {
    for (k, row) in values.chunks_exact(pitch).enumerate() {
        let block = &mut to[k / grid.step * grid.block_len()..];
        for (pixel, v) in row[first..first + grid.columns].iter().enumerate() {
            block[pixel * grid.step + k % grid.step] = *v;
        }
    }
}

impl Dense {
    /// `y[r][o] = b[o] + sum_i x[r][i] w[o][i]`, then a ReLU where asked.
    pub fn forward(&self, x: &[f32], w: &[f32], bias: &[f32], relu: bool, y: &mut [f32]) {
        let Self { isa, inputs, outputs } = *self;
        let n = x.len() / inputs;
        // The transposed result, so that the weights are the operand that is read row by row.
        let images = right(isa, inputs, n, |k, first, to| {
            to.iter_mut().enumerate().for_each(|(r, to)| *to = x[(first + r) * inputs + k]);
        });
        let mut turned = vec![0.0; outputs * n];
        let task = |a: &mut Vec<f32>, (c, w): (&mut [f32], &[f32])| {
            let grid = pixels(w.len() / inputs, inputs);
            a.resize(grid.len(), 0.0);
            load(isa, &grid, w, a);
            multiply(isa, &grid, a, &images, c, false);
        };
        // What a task leaves behind in its grid is written over by the next, or is where no tile reads.
        turned.par_chunks_mut(ROWS * n).zip(w.par_chunks(ROWS * inputs)).for_each_init(Vec::new, task);
        // As many rows as a line of the caches has numbers, so that each is read once.
        y.par_chunks_mut(TURN * outputs).enumerate().for_each(|(p, y)| {
            for (o, (turned, bias)) in turned.chunks_exact(n).zip(bias).enumerate() {
                for (y, v) in y.chunks_exact_mut(outputs).zip(&turned[p * TURN..]) {
                    let v = v + bias;
                    y[o] = if relu && v < 0.0 { 0.0 } else { v };
                }
            }
        });
    }

    /// `dx[r][i] = sum_o dy[r][o] w[o][i]`, or `dx += ...`.
    pub fn input_gradient(&self, dy: &[f32], w: &[f32], accumulate: bool, dx: &mut [f32]) {
        let Self { isa, inputs, outputs } = *self;
        let n = dy.len() / outputs;
        let grid = pixels(n, outputs);
        let mut a = vec![0.0; grid.len()];
        load(isa, &grid, dy, &mut a);
        let width = PANEL * BLOCK;
        let panels: Vec<Vec<f32>> = (0..inputs.div_ceil(width))
            .into_par_iter()
            .map(|p| {
                let own = width.min(inputs - p * width);
                let b = right(isa, outputs, own, |k, first, to| {
                    to.copy_from_slice(&w[k * inputs + p * width + first..][..to.len()]);
                });
                let mut c = vec![0.0; n * own];
                multiply(isa, &grid, &a, &b, &mut c, false);
                c
            })
            .collect();
        dx.par_chunks_exact_mut(inputs).enumerate().with_min_len(8).for_each(|(r, dx)| {
            for (to, panel) in dx.chunks_mut(width).zip(&panels) {
                for (to, v) in to.iter_mut().zip(&panel[r * (panel.len() / n)..]) {
                    *to = if accumulate { *to + v } else { *v };
                }
            }
        });
    }

    /// `dw[o][i] += sum_r dy[r][o] x[r][i]`.
    pub fn add_weight_gradient(&self, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        let Self { isa, inputs, outputs } = *self;
        for (x, dy) in x.chunks(PART * inputs).zip(dy.chunks(PART * outputs)) {
            let rows = x.len() / inputs;
            let images = right(isa, rows, inputs, |k, first, to| {
                to.copy_from_slice(&x[k * inputs + first..][..to.len()]);
            });
            dw.par_chunks_mut(ROWS * inputs).enumerate().for_each_init(Vec::new, |a, (p, dw)| {
                let grid = pixels(dw.len() / inputs, rows);
                a.resize(grid.len(), 0.0);
                load_transposed(&grid, dy, outputs, p * ROWS, a);
                multiply(isa, &grid, a, &images, dw, true);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::lanes::available;
    use paradise_support::random::{self, Purpose};
    use proptest::prelude::*;

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = random::stream(seed, Purpose::Noise, 0, 0, 0);
        (0..n).map(|_| random::normal(&mut rng)).collect()
    }

    fn close(got: &[f32], exact: impl Fn(usize) -> f64) -> std::result::Result<(), TestCaseError> {
        for (at, g) in got.iter().enumerate() {
            let e = exact(at);
            prop_assert!((f64::from(*g) - e).abs() <= 1e-4 * e.abs().max(1.0), "{at}: {g} {e}");
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn products_equal_f64(n in 1usize..140, inputs in 1usize..90, outputs in 1usize..150, relu: bool, seed: u64) {
            let (x, w, b) = (noise(n * inputs, seed), noise(outputs * inputs, seed ^ 1), noise(outputs, seed ^ 2));
            let (dy, before) = (noise(n * outputs, seed ^ 3), noise(n * inputs, seed ^ 4));
            let product = |terms: &mut dyn Iterator<Item = (f32, f32)>| -> f64 {
                terms.map(|(a, b)| f64::from(a) * f64::from(b)).sum()
            };
            for isa in available() {
                let dense = Dense { isa, inputs, outputs };
                let mut y = vec![f32::NAN; n * outputs];
                dense.forward(&x, &w, &b, relu, &mut y);
                close(&y, |at| {
                    let (r, o) = (at / outputs, at % outputs);
                    let v = f64::from(b[o]) + product(&mut (0..inputs).map(|i| (x[r * inputs + i], w[o * inputs + i])));
                    if relu { v.max(0.0) } else { v }
                })?;
                let dx_of = |at: usize| {
                    let (r, i) = (at / inputs, at % inputs);
                    product(&mut (0..outputs).map(|o| (dy[r * outputs + o], w[o * inputs + i])))
                };
                let mut dx = vec![f32::NAN; n * inputs];
                dense.input_gradient(&dy, &w, false, &mut dx);
                close(&dx, dx_of)?;
                let mut dx = before.clone();
                dense.input_gradient(&dy, &w, true, &mut dx);
                close(&dx, |at| f64::from(before[at]) + dx_of(at))?;
                let mut dw = w.clone();
                dense.add_weight_gradient(&x, &dy, &mut dw);
                close(&dw, |at| {
                    let (o, i) = (at / inputs, at % inputs);
                    f64::from(w[at]) + product(&mut (0..n).map(|r| (dy[r * outputs + o], x[r * inputs + i])))
                })?;
            }
        }
    }
}

//! Convolution on the CPU: direct NHWC kernels of one image, for every shape, forward and backward.
//!
//! `y[oy][ox][o] = b[o] + sum_{ky,kx,i} x[oy*sy-top+ky][ox*sx-left+kx][i] w[o][ky][kx][i]`
//!
//! No im2col: an image is copied once into a zero-bordered [`Grid`] (where a batch norm before it is applied on the
//! way) and register tiles walk over it. The gradient of the input is the same tiles over the output's gradient, one
//! [`Sweep`] for each phase of the stride; the gradient of the weights has tiles of its own.

mod grid;
mod matrix;
mod sweep;
mod tile;
mod weight_gradient;

use super::lanes::{BLOCK, Isa};
use anyhow::{Context, Result, ensure};
use grid::{Grid, Image};
use paradise_engine::Shape;
use paradise_engine::layer::Window;
use rayon::prelude::*;
use sweep::{Axis, Epilogue, Sweep};

pub(crate) use grid::Load;
pub(crate) use matrix::Dense;

/// A convolution of one shape, planned for one instruction set.
#[derive(Debug, Clone)]
pub(crate) struct Conv {
    isa: Isa,
    groups: usize,
    kernel: [usize; 2],
    input: Shape,
    output: Shape,
    x: Grid,
    forward: Sweep,
    dy: Grid,
    backward: Vec<Sweep>,
}

/// Weights in the order in which tiles read them, one group after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packed(Vec<f32>);

/// What happens to each output value: bias, residual, ReLU in this order.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct End<'a> {
    /// One an output channel.
    pub bias: Option<&'a [f32]>,
    /// An image of the output's shape that is added.
    pub residual: Option<&'a [f32]>,
    /// Whether negative values become 0.
    pub relu: bool,
    /// Whether the sum is added to what the output holds.
    pub accumulate: bool,
}

impl Conv {
    /// Plans `window` over `input` with weights `[out][kh][kw][in / groups]`.
    ///
    /// # Errors
    /// If the window does not fit, or `groups` does not divide the channels.
    pub fn new(isa: Isa, input: Shape, window: Window, groups: usize, out: usize) -> Result<Self> {
        let c = usize::from(input.c);
        ensure!(
            groups > 0 && c.is_multiple_of(groups) && out.is_multiple_of(groups),
            "{groups} groups do not divide {c} input and {out} output channels"
        );
        let [out_h, out_w] = window.output(input).with_context(|| format!("{window:?} does not fit {input:?}"))?;
        let output = Shape::new(out_h, out_w, u16::try_from(out).context("more than 65535 channels")?);
        let (c, out) = (c / groups, out / groups);
        let [kh, kw] = window.kernel.map(usize::from);
        let [sy, sx] = window.stride.map(usize::from);
        let [top, left] = [window.pad[0], window.pad[1]].map(usize::from);
        let [rows, columns] = [out_h, out_w].map(usize::from);
        let x = Grid::new(c, (rows - 1) * sy + kh, [sx, columns + (kw - 1) / sx], [top, left]);
        let forward = Sweep {
            rows,
            columns,
            origin: [0, 0],
            out_step: [1, 1],
            out_w: columns,
            pitch: out * groups,
            out_blocks: out.div_ceil(BLOCK),
            row_step: sy,
            taps: (0..kh * kw).map(|t| x.at(t / kw, t % kw)).collect(),
            tap_index: (0..kh * kw).collect(),
        };
        let (dy, backward) = Self::plan_backward(input, [rows, columns], window, [c * groups, c, out]);
        Ok(Self { isa, groups, kernel: [kh, kw], input, output, x, forward, dy, backward })
    }

    /// The grid of the output's gradient, and one sweep for each phase of the stride over the input's gradient.
    fn plan_backward(
        input: Shape,
        output: [usize; 2],
        window: Window,
        [pitch, c, out]: [usize; 3],
    ) -> (Grid, Vec<Sweep>) {
        let [vertical, horizontal] = [0, 1].map(|n| Axis::new([input.h, input.w][n], output[n], window, n));
        let [top, left] = [vertical.low, horizontal.low];
        let mut grid = Grid::new(out, top + vertical.high, [1, left + horizontal.high], [top, left]);
        // The weights' gradient reads whole blocks of the output's gradient.
        grid.step = BLOCK;
        let mut sweeps = Vec::new();
        for rows in &vertical.phases {
            for columns in &horizontal.phases {
                let taps = rows.taps.iter().flat_map(|r| columns.taps.iter().map(move |c| (r, c)));
                let place = |at: i64, margin: usize| (at + margin as i64) as usize;
                let kw = usize::from(window.kernel[1]);
                sweeps.push(Sweep {
                    rows: rows.count,
                    columns: columns.count,
                    origin: [rows.first, columns.first],
                    out_step: window.stride.map(usize::from),
                    out_w: usize::from(input.w),
                    pitch,
                    out_blocks: c.div_ceil(BLOCK),
                    row_step: 1,
                    taps: taps.clone().map(|(r, c)| grid.at(place(r.1, top), place(c.1, left))).collect(),
                    tap_index: taps.map(|(r, c)| r.0 * kw + c.0).collect(),
                });
            }
        }
        (grid, sweeps)
    }

    /// Output channels of a group.
    fn out(&self) -> usize {
        self.dy.channels
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// f32 that [`Conv::load`] fills; zero before the first.
    pub fn grid_len(&self) -> usize {
        self.groups * self.x.len()
    }

    /// f32 that [`Conv::load_gradient`] fills; zero before the first.
    pub fn gradient_grid_len(&self) -> usize {
        self.groups * self.dy.len()
    }

    /// f32 of the sums of [`Conv::add_weight_gradient`].
    pub fn weight_gradient_len(&self) -> usize {
        self.groups * self.taps() * self.x.blocks() * self.x.step * self.forward.out_blocks * BLOCK
    }

    /// Packs weights `[out][kh][kw][in / groups]` for [`Conv::forward`].
    pub fn pack(&self, weights: &[f32]) -> Packed {
        let (taps, depth) = (self.taps(), self.x.channels);
        let forward = std::slice::from_ref(&self.forward);
        self.pack_sweeps(&self.x, forward, self.out(), weights, |o, t, i| (o * taps + t) * depth + i)
    }

    /// Packs the same weights for [`Conv::input_gradient`].
    pub fn pack_transposed(&self, weights: &[f32]) -> Packed {
        let (taps, depth) = (self.taps(), self.x.channels);
        self.pack_sweeps(&self.dy, &self.backward, depth, weights, |i, t, o| (o * taps + t) * depth + i)
    }

    /// `at(output channel of the sweep, tap, its input channel)` is a weight's place in its group.
    fn pack_sweeps(
        &self,
        grid: &Grid,
        sweeps: &[Sweep],
        out: usize,
        weights: &[f32],
        at: impl Fn(usize, usize, usize) -> usize + Sync,
    ) -> Packed {
        let each: usize = sweeps.iter().map(|s| s.packed_len(grid)).sum();
        let mut packed = vec![0.0; self.groups * each];
        let mut left = &mut packed[..];
        for weights in weights.chunks_exact(self.out() * self.taps() * self.x.channels) {
            for sweep in sweeps {
                let (now, later) = left.split_at_mut(sweep.packed_len(grid));
                sweep.pack(self.isa, grid, out, |o, t, i| weights[at(o, t, i)], now);
                left = later;
            }
        }
        Packed(packed)
    }

    /// Copies one input image into a grid.
    pub fn load(&self, x: &[f32], how: Load, grid: &mut [f32]) {
        self.fill(&self.x, self.input, x, how, grid);
    }

    /// Fills a grid with what pads the image, one value a channel.
    pub fn fill_border(&self, value: &[f32], grid: &mut [f32]) {
        let g = &self.x;
        for (at, v) in grid.iter_mut().enumerate() {
            let (group, inside) = (at / g.len(), at % g.len());
            let channel = inside / g.block_len() * g.step + inside % g.step;
            *v = if channel < g.channels { value[group * g.channels + channel] } else { 0.0 };
        }
    }

    /// Copies the gradient of one output image into a grid.
    pub fn load_gradient(&self, dy: &[f32], how: Load, grid: &mut [f32]) {
        self.fill(&self.dy, self.output, dy, how, grid);
    }

    fn fill(&self, grid: &Grid, shape: Shape, from: &[f32], how: Load, to: &mut [f32]) {
        for (g, to) in to.chunks_exact_mut(grid.len()).take(self.groups).enumerate() {
            let [h, w, pitch] = [shape.h, shape.w, shape.c].map(usize::from);
            let image = Image { h, w, pitch, first: g * grid.channels };
            // SAFETY: `isa` came from detection.
            unsafe { grid::fill(self.isa, grid, image, from, how, to) }
        }
    }

    /// Convolves a loaded image. Where given, each channel's values and their squares are added to `sums`.
    pub fn forward(
        &self,
        grid: &[f32],
        weights: &Packed,
        end: End,
        y: &mut [f32],
        sums: Option<(&mut [f32], &mut [f32])>,
    ) {
        self.run(&self.x, std::slice::from_ref(&self.forward), grid, weights, end, y, sums);
    }

    /// The gradient of the input from a loaded gradient of the output: also a transposed convolution.
    pub fn input_gradient(
        &self,
        grid: &[f32],
        weights: &Packed,
        end: End,
        dx: &mut [f32],
        sums: Option<(&mut [f32], &mut [f32])>,
    ) {
        self.run(&self.dy, &self.backward, grid, weights, end, dx, sums);
    }

    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        grid: &Grid,
        sweeps: &[Sweep],
        x: &[f32],
        weights: &Packed,
        end: End,
        y: &mut [f32],
        mut sums: Option<(&mut [f32], &mut [f32])>,
    ) {
        let mut packed = &weights.0[..];
        for group in 0..self.groups {
            for sweep in sweeps {
                let channels = sweep.pitch / self.groups;
                let first = group * channels;
                let end = Epilogue {
                    bias: end.bias.map(|b| &b[first..]),
                    residual: end.residual.map(|r| &r[first..]),
                    accumulate: end.accumulate,
                    relu: end.relu,
                    channels,
                    pitch: sweep.pitch,
                };
                let stats = sums.as_mut().map(|(s, q)| (&mut s[first..], &mut q[first..]));
                let x = &x[group * grid.len()..];
                // SAFETY: `isa` came from detection.
                unsafe { tile::run(self.isa, grid, sweep, x, packed, &mut y[first..], &end, stats) }
                packed = &packed[sweep.packed_len(grid)..];
            }
        }
    }

    /// Adds the weights' gradient of one image, from its loaded input and loaded gradient, to `sums`.
    pub fn add_weight_gradient(&self, x: &[f32], dy: &[f32], sums: &mut [f32]) {
        let each = self.weight_gradient_len() / self.groups;
        for (group, sums) in sums.chunks_exact_mut(each).enumerate() {
            let (x, dy) = (&x[group * self.x.len()..], &dy[group * self.dy.len()..]);
            // SAFETY: `isa` came from detection.
            unsafe { weight_gradient::add(self.isa, (&self.x, &self.forward), &self.dy, x, dy, sums) }
        }
    }

    /// Brings finished sums into the weights' own order `[out][kh][kw][in / groups]`, adding to `dw`.
    pub fn unpack_weight_gradient(&self, sums: &[f32], dw: &mut [f32]) {
        let (taps, depth, out) = (self.taps(), self.x.channels, self.forward.out_blocks * BLOCK);
        let channels = self.x.blocks() * self.x.step;
        let each = self.weight_gradient_len() / self.groups;
        for (sums, dw) in sums.chunks_exact(each).zip(dw.chunks_exact_mut(self.out() * taps * depth)) {
            // Sixteen outputs of sixteen channels at a time: whole cache lines on both sides.
            dw.par_chunks_mut(BLOCK * taps * depth).enumerate().for_each(|(block, dw)| {
                for t in 0..taps {
                    for first in (0..depth).step_by(BLOCK) {
                        for (o, dw) in dw.chunks_exact_mut(taps * depth).enumerate() {
                            for i in first..depth.min(first + BLOCK) {
                                dw[t * depth + i] += sums[(t * channels + i) * out + block * BLOCK + o];
                            }
                        }
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;

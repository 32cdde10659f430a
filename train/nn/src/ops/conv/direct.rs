//! Convolution in f32: direct NHWC kernels of one image, for every shape, forward and backward.
//!
//! No im2col: an image is copied once into a zero-bordered [`Grid`] (where a batch norm before it is applied on the
//! way) and register tiles walk over it. The gradient of the input is the same tiles over the output's gradient, one
//! [`Sweep`] for each phase of the stride; the gradient of the weights has tiles of its own.

use super::grid::{self, Grid, Image};
use super::pixels::{Adjoint, Part, Pixels};
use super::sweep::{Epilogue, Sweep};
use super::{ChannelSums, End, Load, Packed, tile, weight_gradient};
use crate::ops::lanes::{BLOCK, Isa};
use paradise_engine::Shape;
use paradise_engine::layer::Window;
use rayon::prelude::*;

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

impl Conv {
    /// Plans `window`, which fits, over `input`, to `output`.
    pub fn new(isa: Isa, input: Shape, window: Window, groups: usize, output: Shape) -> Self {
        let (c, out) = (usize::from(input.c) / groups, usize::from(output.c) / groups);
        let [kh, kw] = window.kernel.map(usize::from);
        let [sy, sx] = window.stride.map(usize::from);
        let pad = [window.pad[0], window.pad[1]].map(usize::from);
        let pixels = Pixels::all(output);
        let side = [(pixels.rows - 1) * sy + kh, pixels.columns + (kw - 1) / sx];
        let x = Grid::new(c, side[0], [sx, side[1]], pad);
        let forward = Sweep {
            pixels,
            out_blocks: out.div_ceil(BLOCK),
            row_step: sy,
            taps: (0..kh * kw).map(|t| x.at(t / kw, t % kw)).collect(),
            tap_index: (0..kh * kw).collect(),
        };
        let adjoint = Adjoint::new(input, output, window);
        let mut dy = Grid::new(out, adjoint.side[0], [1, adjoint.side[1]], adjoint.margin);
        // The weights' gradient reads whole blocks of the output's gradient.
        dy.step = BLOCK;
        let sweep = |part: Part| Sweep {
            pixels: part.pixels,
            out_blocks: c.div_ceil(BLOCK),
            row_step: 1,
            taps: part.taps.iter().map(|[y, x]| dy.at(*y, *x)).collect(),
            tap_index: part.tap_index,
        };
        let backward = adjoint.parts.into_iter().map(sweep).collect();
        Self { isa, groups, kernel: [kh, kw], input, output, x, forward, dy, backward }
    }

    /// Output channels of a group.
    fn out(&self) -> usize {
        self.dy.channels
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    pub fn grid_len(&self) -> usize {
        self.groups * self.x.len()
    }

    pub fn gradient_grid_len(&self) -> usize {
        self.groups * self.dy.len()
    }

    pub fn weight_gradient_len(&self) -> usize {
        self.groups * self.taps() * self.x.blocks() * self.x.step * self.forward.out_blocks * BLOCK
    }

    pub fn pack(&self, weights: &[f32]) -> Packed {
        let (taps, depth) = (self.taps(), self.x.channels);
        let forward = std::slice::from_ref(&self.forward);
        self.pack_sweeps(&self.x, forward, self.out(), weights, |o, t, i| (o * taps + t) * depth + i)
    }

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

    pub fn load(&self, x: &[f32], how: Load, grid: &mut [f32]) {
        self.fill(&self.x, self.input, x, how, grid);
    }

    pub fn fill_border(&self, value: &[f32], grid: &mut [f32]) {
        let g = &self.x;
        for (at, v) in grid.iter_mut().enumerate() {
            let (group, inside) = (at / g.len(), at % g.len());
            let channel = inside / g.block_len() * g.step + inside % g.step;
            *v = if channel < g.channels { value[group * g.channels + channel] } else { 0.0 };
        }
    }

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

    pub fn forward(&self, grid: &[f32], weights: &Packed, end: End, y: &mut [f32], sums: ChannelSums) {
        self.run(&self.x, std::slice::from_ref(&self.forward), grid, weights, end, y, sums);
    }

    pub fn input_gradient(&self, grid: &[f32], weights: &Packed, end: End, dx: &mut [f32], sums: ChannelSums) {
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
        mut sums: ChannelSums,
    ) {
        let mut packed = &weights.0[..];
        for group in 0..self.groups {
            for sweep in sweeps {
                let pitch = sweep.pixels.pitch;
                let channels = pitch / self.groups;
                let first = group * channels;
                let end = Epilogue {
                    bias: end.bias.map(|b| &b[first..]),
                    residual: end.residual.map(|r| &r[first..]),
                    accumulate: end.accumulate,
                    relu: end.relu,
                    channels,
                    pitch,
                };
                let stats = sums.as_mut().map(|(s, q)| (&mut s[first..], &mut q[first..]));
                let x = &x[group * grid.len()..];
                // SAFETY: `isa` came from detection.
                unsafe { tile::run(self.isa, grid, sweep, x, packed, &mut y[first..], &end, stats) }
                packed = &packed[sweep.packed_len(grid)..];
            }
        }
    }

    pub fn add_weight_gradient(&self, x: &[f32], dy: &[f32], sums: &mut [f32]) {
        let each = self.weight_gradient_len() / self.groups;
        for (group, sums) in sums.chunks_exact_mut(each).enumerate() {
            let (x, dy) = (&x[group * self.x.len()..], &dy[group * self.dy.len()..]);
            // SAFETY: `isa` came from detection.
            unsafe { weight_gradient::add(self.isa, (&self.x, &self.forward), &self.dy, x, dy, sums) }
        }
    }

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

//! Convolution on the CPU with products in bf16 and sums in f32: the three passes of one image, each a row of products
//! of 32 x 32 blocks.
//!
//! - forward: 32 output pixels x 32 output channels, a step a tap and 32 input channels;
//! - the input's gradient: the same over the output's gradient, one [`Sweep`] for each phase of the stride;
//! - the weights' gradient: 32 input x 32 output channels, a step 32 pixels.

mod planes;
mod sweep;
mod tiles;
mod weight_gradient;

pub(crate) use tiles::{Tiles, detect};

#[cfg(test)]
pub(crate) use tiles::available;

use super::pixels::{Adjoint, Part, Pixels};
use super::{ChannelSums, End, Load, Packed};
use crate::ops::lanes::Isa;
use paradise_engine::Shape;
use paradise_engine::layer::Window;
use planes::{Planes, put_image};
use rayon::prelude::*;
use sweep::{Sweep, finish};
use tiles::{SIDE, STEP};

/// f32 of room for bf16 that start on a cache line.
const LINE: usize = 16;

/// A block of sums on cache lines of its own.
#[repr(align(64))]
struct Aligned([f32; STEP]);

/// A convolution of one shape; no groups.
#[derive(Debug, Clone)]
pub(crate) struct Conv {
    isa: Isa,
    tiles: Tiles,
    kernel: [usize; 2],
    input: Shape,
    output: Shape,
    x: Planes,
    forward: Sweep,
    dy: Planes,
    backward: Vec<Sweep>,
    /// Bytes to each step of 32 pixels of the weights' gradient.
    steps: Vec<usize>,
}

/// Room for `n` bf16 in f32, wherever its first cache line starts.
fn room(n: usize) -> usize {
    n.div_ceil(2) + LINE
}

/// The bf16 in such room, from a cache line on.
fn bf16(room: &[f32]) -> &[u16] {
    let all: &[u16] = bytemuck::cast_slice(room);
    &all[all.as_ptr().align_offset(64).min(2 * LINE)..]
}

fn bf16_mut(room: &mut [f32]) -> &mut [u16] {
    let all: &mut [u16] = bytemuck::cast_slice_mut(room);
    let first = all.as_ptr().align_offset(64).min(2 * LINE);
    &mut all[first..]
}

/// Weights of sweeps that read `depth` channels, one after the other.
fn pack_sweeps(sweeps: &[Sweep], depth: usize, weight: impl Fn(usize, usize, usize) -> f32 + Sync) -> Packed {
    let mut packed = vec![0.0; room(sweeps.iter().map(Sweep::packed_len).sum())];
    let mut left = bf16_mut(&mut packed);
    for sweep in sweeps {
        let (now, later) = left.split_at_mut(sweep.packed_len());
        sweep.pack(depth, &weight, now);
        left = later;
    }
    Packed(packed)
}

impl Conv {
    /// Whether products in bf16 are worth it: one group, and channels enough to fill half a block.
    pub fn suits(input: Shape, groups: usize, out: usize) -> bool {
        groups == 1 && usize::from(input.c) >= SIDE / 2 && out >= SIDE / 2
    }

    /// Plans `window`, which fits, over `input`, to `output`.
    pub fn new(isa: Isa, tiles: Tiles, input: Shape, window: Window, output: Shape) -> Self {
        let (kernel, stride) = (window.kernel.map(usize::from), window.stride.map(usize::from));
        let (pixels, adjoint) = (Pixels::all(output), Adjoint::new(input, output, window));
        // Input and gradient share a pitch: the weights' gradient walks over both at once.
        let pitch = (pixels.columns + (kernel[1] - 1) / stride[1]).max(adjoint.side[1]);
        let x = Planes {
            channels: input.c.into(),
            stride,
            planes: [0, 1].map(|n| stride[n].min(kernel[n])),
            rows: pixels.rows + (kernel[0] - 1) / stride[0],
            pitch,
            margin: [window.pad[0], window.pad[1]].map(usize::from),
        };
        let dy = Planes {
            channels: output.c.into(),
            stride: [1, 1],
            planes: [1, 1],
            rows: adjoint.side[0],
            pitch,
            margin: adjoint.margin,
        };
        let sweep = |planes: &Planes, part: Part| {
            let offset = |b: usize, [y, x]: [usize; 2]| {
                let (plane, place) = planes.at(y, x);
                2 * (b * planes.block_len() + (plane * planes.places() + place) * SIDE)
            };
            let taps = &part.taps;
            let offsets = (0..planes.blocks()).flat_map(|b| taps.iter().map(move |t| offset(b, *t))).collect();
            Sweep { pixels: part.pixels, offsets, tap_index: part.tap_index }
        };
        let taps = (0..kernel[0] * kernel[1]).map(|t| [t / kernel[1], t % kernel[1]]).collect::<Vec<_>>();
        let forward = sweep(&x, Part { pixels, tap_index: (0..taps.len()).collect(), taps });
        let backward = adjoint.parts.into_iter().map(|part| sweep(&dy, part)).collect();
        let steps = (0..forward.places(pitch).div_ceil(SIDE)).map(|k| 2 * k * SIDE).collect();
        Self { isa, tiles, kernel, input, output, x, forward, dy, backward, steps }
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    pub fn grid_len(&self) -> usize {
        room(self.x.len())
    }

    pub fn gradient_grid_len(&self) -> usize {
        room(self.dy.len())
    }

    pub fn pack(&self, weights: &[f32]) -> Packed {
        let (taps, depth) = (self.taps(), self.x.channels);
        let forward = std::slice::from_ref(&self.forward);
        pack_sweeps(forward, depth, |o, t, i| weights[(o * taps + t) * depth + i])
    }

    pub fn pack_transposed(&self, weights: &[f32]) -> Packed {
        let (taps, depth) = (self.taps(), self.x.channels);
        pack_sweeps(&self.backward, self.dy.channels, |i, t, o| weights[(o * taps + t) * depth + i])
    }

    pub fn load(&self, x: &[f32], how: Load, grid: &mut [f32]) {
        self.put(&self.x, self.input, x, how, grid);
    }

    pub fn fill_border(&self, value: &[f32], grid: &mut [f32]) {
        self.x.fill(value, bf16_mut(grid));
    }

    pub fn load_gradient(&self, dy: &[f32], how: Load, grid: &mut [f32]) {
        self.put(&self.dy, self.output, dy, how, grid);
    }

    fn put(&self, planes: &Planes, shape: Shape, from: &[f32], how: Load, to: &mut [f32]) {
        // SAFETY: `isa` came from detection.
        unsafe { put_image(self.isa, planes, [shape.h.into(), shape.w.into()], from, how, bf16_mut(to)) }
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
        planes: &Planes,
        sweeps: &[Sweep],
        grid: &[f32],
        weights: &Packed,
        end: End,
        y: &mut [f32],
        mut sums: ChannelSums,
    ) {
        let (grid, mut packed) = (&bf16(grid)[..planes.len()], bf16(&weights.0));
        let session = self.tiles.begin();
        let mut block = Aligned([0.0; STEP]);
        for sweep in sweeps {
            let places = sweep.places(planes.pitch);
            sweep.check(places, planes, packed.len(), y.len(), &end, &sums);
            let each = sweep.offsets.len() * STEP;
            for first in (0..sweep.pixels.pitch).step_by(SIDE) {
                let weights = &packed[first / SIDE * each..][..each];
                for place in (0..places).step_by(SIDE) {
                    let left = grid[place * SIDE..].as_ptr();
                    let sums = sums.as_mut().map(|(s, q)| (&mut **s, &mut **q));
                    // SAFETY: `check`; `isa` came from detection.
                    unsafe {
                        session.product(left, 2 * SIDE, &sweep.offsets, weights.as_ptr(), &mut block.0, false);
                        finish(self.isa, sweep, planes.pitch, place, first, &block.0, end, y, sums);
                    }
                }
            }
            packed = &packed[sweep.packed_len()..];
        }
    }

    pub fn weight_gradient_len(&self) -> usize {
        self.taps() * self.x.blocks() * self.dy.blocks() * STEP
    }

    pub fn add_weight_gradient(&self, x: &[f32], dy: &[f32], sums: &mut [f32]) {
        weight_gradient::add(self, bf16(x), bf16(dy), sums);
    }

    pub fn unpack_weight_gradient(&self, sums: &[f32], dw: &mut [f32]) {
        let (taps, depth, out) = (self.taps(), self.x.channels, self.dy.channels);
        let (ins, outs) = (self.x.blocks(), self.dy.blocks());
        assert!(sums.len() >= self.weight_gradient_len() && dw.len() == out * taps * depth);
        dw.par_chunks_exact_mut(taps * depth).enumerate().for_each(|(o, dw)| {
            for (at, dw) in dw.iter_mut().enumerate() {
                let (t, i) = (at / depth, at % depth);
                let block = (t * ins + i / SIDE) * outs + o / SIDE;
                *dw += sums[block * STEP + i % SIDE * SIDE + o % SIDE];
            }
        });
    }
}

//! What one pass of tiles covers: a regular grid of output pixels that share their taps, and the weights packed in the
//! order in which tiles read them.

use super::grid::Grid;
use super::tile;
#[cfg(target_arch = "x86_64")]
use crate::ops::lanes::{Avx2, Avx512};
use crate::ops::lanes::{BLOCK, Isa, Kind, Portable};
use paradise_engine::layer::Window;
use rayon::prelude::*;

/// Output pixels `(origin + step * k)` of one image, computed from the same taps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sweep {
    pub rows: usize,
    pub columns: usize,
    /// First output pixel.
    pub origin: [usize; 2],
    /// Output pixels from one to the next.
    pub out_step: [usize; 2],
    /// Width of the output image.
    pub out_w: usize,
    /// Output values of a pixel.
    pub pitch: usize,
    /// Blocks of output channels.
    pub out_blocks: usize,
    /// Grid rows from one output row to the next.
    pub row_step: usize,
    /// Offset of each tap in the grid, from where the output pixel's own window starts.
    pub taps: Vec<usize>,
    /// The tap's index in the weights, `ky * kw + kx`.
    pub tap_index: Vec<usize>,
}

/// What happens to a sum on its way to the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Epilogue<'a> {
    /// One a channel.
    pub bias: Option<&'a [f32]>,
    /// An image of the output's shape, from the same first channel.
    pub residual: Option<&'a [f32]>,
    /// Added to what the output holds.
    pub accumulate: bool,
    pub relu: bool,
    /// Output channels.
    pub channels: usize,
    /// Values of an output pixel (more than `channels` where groups share an image).
    pub pitch: usize,
}

impl Sweep {
    /// Offset of the output pixel at `row`, `column` of this sweep.
    pub fn output(&self, row: usize, column: usize) -> usize {
        let (y, x) = (self.origin[0] + row * self.out_step[0], self.origin[1] + column * self.out_step[1]);
        (y * self.out_w + x) * self.pitch
    }

    /// Panics unless every access of a run stays inside its slice.
    pub fn check(&self, grid: &Grid, x: usize, w: usize, y: usize, end: &Epilogue) {
        if self.rows == 0 || self.columns == 0 {
            return;
        }
        assert!(end.channels.div_ceil(BLOCK) == self.out_blocks && end.pitch == self.pitch);
        assert!(end.channels <= end.pitch && end.bias.is_none_or(|b| b.len() >= end.channels));
        let last = self.output(self.rows - 1, self.columns - 1) + end.channels;
        assert!(last <= y && end.residual.is_none_or(|r| last <= r.len()), "output of {y} values, {last} needed");
        let far = (self.rows - 1) * self.row_step * grid.row_len() + self.columns * grid.step;
        let tap = self.taps.iter().copied().max().unwrap_or(0);
        assert!(self.taps.is_empty() || far + tap <= grid.block_len(), "taps leave the grid");
        assert!(x >= grid.len() && w >= self.packed_len(grid), "grid or weights too short");
    }

    /// f32 of the packed weights.
    pub fn packed_len(&self, grid: &Grid) -> usize {
        grid.channels * self.taps.len() * self.out_blocks * BLOCK
    }

    /// Packs weights into zeros in the order `[group][block][tap][channel][out]`.
    ///
    /// `weight(out, tap, channel)` is a weight by its own indices.
    pub fn pack(
        &self,
        isa: Isa,
        grid: &Grid,
        out_channels: usize,
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
        to: &mut [f32],
    ) {
        let each = grid.channels * self.taps.len() * BLOCK;
        let (mut parts, mut left, mut first) = (Vec::new(), to, 0);
        while first < self.out_blocks {
            let group = group(isa, self.out_blocks, first);
            let (now, later) = left.split_at_mut(group * each);
            parts.push((first, group, now));
            (left, first) = (later, first + group);
        }
        parts.into_par_iter().for_each(|(first, group, to)| {
            let mut rows = to.chunks_exact_mut(group * BLOCK);
            for block in 0..grid.blocks() {
                for &tap in &self.tap_index {
                    for (i, row) in (0..grid.depth(block)).zip(&mut rows) {
                        let outs = first * BLOCK..out_channels.min((first + group) * BLOCK);
                        for (to, o) in row.iter_mut().zip(outs) {
                            *to = weight(o, tap, block * grid.step + i);
                        }
                    }
                }
            }
        });
    }
}

/// Input pixels `first + stride * i` along one axis, and the output pixels that they meet.
pub(super) struct Phase {
    pub first: usize,
    pub count: usize,
    /// Kernel index k, and how far from `i` the output pixel is that input pixel i meets at k.
    pub taps: Vec<(usize, i64)>,
}

/// One axis of a convolution seen from its input.
///
/// Input pixel `i * s + p` meets output pixel `i + (p + pad - k) / s` at every tap k that leaves no remainder.
pub(super) struct Axis {
    pub phases: Vec<Phase>,
    /// Zeros needed before the first output pixel.
    pub low: usize,
    /// Pixels needed from the first output pixel on.
    pub high: usize,
}

impl Axis {
    /// Axis `n` of `window` from `size` input pixels to `output` pixels.
    pub fn new(size: u16, output: usize, window: Window, n: usize) -> Self {
        let (size, stride) = (usize::from(size), usize::from(window.stride[n]));
        let (kernel, pad) = (usize::from(window.kernel[n]), i64::from(window.pad[n]));
        let phase = |p: usize| {
            let taps = (0..kernel)
                .map(|k| (k, p as i64 + pad - k as i64))
                .filter(|(_, at)| at.rem_euclid(stride as i64) == 0)
                .map(|(k, at)| (k, at.div_euclid(stride as i64)));
            Phase { first: p, count: (size - p).div_ceil(stride), taps: taps.collect() }
        };
        let phases: Vec<Phase> = (0..stride.min(size)).map(phase).collect();
        let low = phases.iter().flat_map(|p| &p.taps).map(|t| -t.1).max().unwrap_or(0).max(0);
        let reach = |p: &Phase| p.taps.iter().map(|t| p.count as i64 + t.1).max();
        let high = phases.iter().filter_map(reach).max().unwrap_or(0).max(output as i64);
        Self { phases, low: low as usize, high: high as usize }
    }
}

/// Blocks of output channels that are packed together from `block` of `blocks` on.
pub(super) fn group(isa: Isa, blocks: usize, block: usize) -> usize {
    match isa.kind() {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => tile::group::<Avx512>(blocks, block),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => tile::group::<Avx2>(blocks, block),
        Kind::Portable => tile::group::<Portable>(blocks, block),
    }
}

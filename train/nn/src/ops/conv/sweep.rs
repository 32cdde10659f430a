//! What one pass of tiles covers: output pixels that share their taps, and the weights packed in the order in which tiles
//! read them.

use super::grid::Grid;
use super::group::packed_group;
use super::pixels::Pixels;
use crate::ops::lanes::{BLOCK, Isa};
use rayon::prelude::*;

/// Output pixels of one image that are computed from the same taps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sweep {
    pub pixels: Pixels,
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
    /// Panics unless every access of a run stays inside its slice.
    pub fn check(&self, grid: &Grid, x: usize, w: usize, y: usize, end: &Epilogue) {
        let Pixels { rows, columns, pitch, .. } = self.pixels;
        if rows == 0 || columns == 0 {
            return;
        }
        assert!(end.channels.div_ceil(BLOCK) == self.out_blocks && end.pitch == pitch && end.channels <= pitch);
        self.pixels.check(end.channels, y, end.bias, end.residual);
        let far = (rows - 1) * self.row_step * grid.row_len() + columns * grid.step;
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
            let group = packed_group(isa, self.out_blocks, first);
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

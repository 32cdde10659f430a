//! One image as the tiles read it: channels in blocks, zeros around the pixels, columns split by stride.
//!
//! `[block][row][phase][column][step]`: a block is 16 channels (4 where the image has at most 4), and a pixel's
//! padded column `x` stands at phase `x % phases`, column `x / phases`, so that neighbouring output pixels always read
//! values `step` apart, whatever the stride.

use super::load::{Load, Phase, Run};
use crate::ops::lanes::{BLOCK, Lanes, per_isa};

/// Most channels of an image whose blocks are this narrow instead of [`BLOCK`].
pub(super) const SHALLOW: usize = 4;

/// The extents of a padded image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub channels: usize,
    pub step: usize,
    pub rows: usize,
    pub phases: usize,
    pub columns: usize,
    /// Where pixel (0, 0) stands.
    pub top: usize,
    pub left: usize,
}

impl Grid {
    pub fn new(channels: usize, rows: usize, [phases, columns]: [usize; 2], [top, left]: [usize; 2]) -> Self {
        let step = if channels <= SHALLOW { SHALLOW } else { BLOCK };
        Self { channels, step, rows, phases, columns, top, left }
    }

    pub fn blocks(&self) -> usize {
        self.channels.div_ceil(self.step)
    }

    /// Channels of block `b`.
    pub fn depth(&self, b: usize) -> usize {
        self.step.min(self.channels - b * self.step)
    }

    pub fn row_len(&self) -> usize {
        self.phases * self.columns * self.step
    }

    pub fn block_len(&self) -> usize {
        self.rows * self.row_len()
    }

    pub fn len(&self) -> usize {
        self.blocks() * self.block_len()
    }

    /// Where padded row `y` and padded column `x` of block 0 stand.
    pub fn at(&self, y: usize, x: usize) -> usize {
        y * self.row_len() + (x % self.phases * self.columns + x / self.phases) * self.step
    }
}

/// An image `[h][w][pitch]` of which channels `first..first + grid.channels` go into the grid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image {
    pub h: usize,
    pub w: usize,
    pub pitch: usize,
    pub first: usize,
}

#[inline(always)]
unsafe fn load<L: Lanes>(grid: &Grid, image: Image, from: &[f32], how: Load, to: &mut [f32]) {
    assert!(from.len() >= image.h * image.w * image.pitch && to.len() >= grid.len());
    assert!(image.first + grid.channels <= image.pitch);
    how.check(image.h * image.w, image.pitch);
    for block in 0..grid.blocks() {
        let c = image.first + block * grid.step;
        for y in 0..image.h.min(grid.rows.saturating_sub(grid.top)) {
            for phase in 0..grid.phases {
                let Phase { x, count, .. } = Phase::new([phase, grid.phases], grid.left, image.w, grid.columns);
                let run = Run {
                    from: (y * image.w + x) * image.pitch + c,
                    to: block * grid.block_len() + grid.at(y + grid.top, x + grid.left),
                    count,
                    stride: grid.phases * image.pitch,
                    step: grid.step,
                    depth: grid.depth(block),
                };
                // SAFETY: the runs stay inside image and grid by their counts, and the assertions above bound those.
                unsafe { run.copy::<L, f32>(c, from, how, to) }
            }
        }
    }
}

per_isa! {
    /// Puts an image into a grid whose other places hold zeros.
    ///
    /// # Safety
    /// None beyond an honest `isa`: slices are checked.
    pub(super) fn fill(grid: &Grid, image: Image, from: &[f32], how: Load, to: &mut [f32]) = load
}

//! One image as the tiles read it: channels in blocks, zeros around the pixels, columns split by stride.
//!
//! `[block][row][phase][column][step]`: a block is 16 channels (4 where the image has at most 4), and a pixel's
//! padded column `x` stands at phase `x % phases`, column `x / phases`, so that neighbouring output pixels always read
//! values `step` apart, whatever the stride.

use crate::ops::lanes::{BLOCK, Lanes, per_isa};

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
        let step = if channels <= 4 { 4 } else { BLOCK };
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

/// What happens to a value on its way into the grid.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load<'a> {
    /// Nothing.
    Plain,
    /// `v * scale[c] + shift[c]`, then a ReLU where asked: a batch norm that was never written out.
    Affine { scale: &'a [f32], shift: &'a [f32], relu: bool },
    /// `v` where the same place of `mask` is positive: the gradient through a ReLU.
    Masked { mask: &'a [f32] },
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
    match how {
        Load::Affine { scale, shift, .. } => assert!(scale.len() >= image.pitch && shift.len() >= image.pitch),
        Load::Masked { mask } => assert!(mask.len() >= image.h * image.w * image.pitch),
        Load::Plain => (),
    }
    for block in 0..grid.blocks() {
        let (depth, c) = (grid.depth(block), image.first + block * grid.step);
        for y in 0..image.h.min(grid.rows.saturating_sub(grid.top)) {
            for x in 0..image.w {
                let column = x + grid.left;
                if column / grid.phases >= grid.columns {
                    break;
                }
                let at = block * grid.block_len() + grid.at(y + grid.top, column);
                let pixel = (y * image.w + x) * image.pitch + c;
                let mut done = 0;
                // SAFETY: the assertions above; `at + step` is inside the grid because row, phase and column are, and
                // `pixel + depth` inside the image because the channels are.
                unsafe {
                    while done + L::N <= depth {
                        let v = L::load(from.as_ptr().add(pixel + done));
                        let v = match how {
                            Load::Plain => v,
                            Load::Affine { scale, shift, relu } => {
                                let (a, b) = (scale.as_ptr().add(c + done), shift.as_ptr().add(c + done));
                                let v = L::load(b).fma(v, L::load(a));
                                if relu { v.relu() } else { v }
                            }
                            Load::Masked { mask } => v.where_positive(L::load(mask.as_ptr().add(pixel + done))),
                        };
                        v.store(to.as_mut_ptr().add(at + done));
                        done += L::N;
                    }
                }
                for i in done..depth {
                    let v = from[pixel + i];
                    to[at + i] = match how {
                        Load::Plain => v,
                        Load::Affine { scale, shift, relu } => {
                            let v = v * scale[c + i] + shift[c + i];
                            if relu && v < 0.0 { 0.0 } else { v }
                        }
                        Load::Masked { mask } => {
                            if mask[pixel + i] > 0.0 {
                                v
                            } else {
                                0.0
                            }
                        }
                    };
                }
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

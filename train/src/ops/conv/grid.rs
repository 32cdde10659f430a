//! One image as the tiles read it: channels in blocks, zeros around the pixels, columns split by stride.
//!
//! `[block][row][phase][column][step]`: a block is 16 channels (4 where the image has at most 4), and a pixel's
//! padded column `x` stands at phase `x % phases`, column `x / phases`, so that neighbouring output pixels always read
//! values `step` apart, whatever the stride.

use crate::ops::lanes::{BLOCK, Lanes, get, per_isa, put};

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

/// Pixels of one image row and one phase, on their way to neighbouring places of a grid row.
#[derive(Clone, Copy)]
struct Run {
    /// First value in the image, first place in the grid.
    from: usize,
    to: usize,
    count: usize,
    /// Values from one pixel to the next in the image.
    stride: usize,
    step: usize,
    /// Channels.
    depth: usize,
}

impl Run {
    /// `to = f(value, place in the image)` for every vector of every pixel; `start` gives `f` for a vector's channels.
    #[inline(always)]
    unsafe fn each<L: Lanes, F: Fn(L, usize) -> L>(
        self,
        from: &[f32],
        to: &mut [f32],
        start: impl Fn(usize, usize) -> F,
    ) {
        let mut done = 0;
        while done < self.depth {
            let count = L::N.min(self.depth - done);
            let f = start(done, count);
            // SAFETY: `load` checked that the last pixel's last channel is inside the image and the grid.
            unsafe {
                let (mut x, mut at) = (self.from + done, to.as_mut_ptr().add(self.to + done));
                for _ in 0..self.count {
                    let v = get::<L>(from.as_ptr().add(x), count);
                    let v = f(v, x);
                    put(v, at, count);
                    x += self.stride;
                    at = at.add(self.step);
                }
            }
            done += count;
        }
    }
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
        let c = image.first + block * grid.step;
        for y in 0..image.h.min(grid.rows.saturating_sub(grid.top)) {
            for phase in 0..grid.phases {
                // The first pixel of this phase, and those after it that the grid has columns for.
                let x = (phase + grid.phases - grid.left % grid.phases) % grid.phases;
                let column = (x + grid.left) / grid.phases;
                let run = Run {
                    from: (y * image.w + x) * image.pitch + c,
                    to: block * grid.block_len() + grid.at(y + grid.top, x + grid.left),
                    count: image.w.saturating_sub(x).div_ceil(grid.phases).min(grid.columns.saturating_sub(column)),
                    stride: grid.phases * image.pitch,
                    step: grid.step,
                    depth: grid.depth(block),
                };
                // SAFETY: the runs stay inside image and grid by their counts, and the assertions above bound those.
                unsafe {
                    match how {
                        Load::Plain => run.each::<L, _>(from, to, |_, _| |v, _| v),
                        Load::Affine { scale, shift, relu } => run.each::<L, _>(from, to, |done, count| {
                            let at = |v: &[f32]| get::<L>(v.as_ptr().add(c + done), count);
                            let (a, b) = (at(scale), at(shift));
                            move |v: L, _| {
                                let v = b.fma(v, a);
                                if relu { v.relu() } else { v }
                            }
                        }),
                        Load::Masked { mask } => run.each::<L, _>(from, to, |_, count| {
                            move |v: L, x| v.where_positive(get::<L>(mask.as_ptr().add(x), count))
                        }),
                    }
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

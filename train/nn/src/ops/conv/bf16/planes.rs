//! One image in bf16 as blocks of tiles read it: 32 channels a pixel, zeros around the pixels, and every pixel of a
//! plane a fixed number of places from the next one, so that 32 neighbouring output pixels always read 32 neighbouring
//! places, over the ends of rows and whatever the stride.
//!
//! `[block of channels][plane][row][column][32]`: padded pixel (y, x) stands in the plane of (y, x) modulo the stride.

use super::tiles::SIDE;
use crate::ops::conv::load::{Load, Phase, Run};
use crate::ops::lanes::{Lanes, bf16, per_isa};

/// The extents of a padded image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planes {
    pub channels: usize,
    pub stride: [usize; 2],
    /// Planes that a tap reads, along each axis: none beyond the kernel.
    pub planes: [usize; 2],
    pub rows: usize,
    /// Columns, margins included.
    pub pitch: usize,
    /// Zeros above and left of the image.
    pub margin: [usize; 2],
}

impl Planes {
    pub fn blocks(&self) -> usize {
        self.channels.div_ceil(SIDE)
    }

    /// Pixels of a plane, and zeros for the last block of tiles to run into.
    pub fn places(&self) -> usize {
        self.rows * self.pitch + SIDE
    }

    pub fn block_len(&self) -> usize {
        self.planes[0] * self.planes[1] * self.places() * SIDE
    }

    /// bf16 of all.
    pub fn len(&self) -> usize {
        self.blocks() * self.block_len()
    }

    /// The plane of padded pixel (y, x), and its place there.
    pub fn at(&self, y: usize, x: usize) -> (usize, usize) {
        let [sy, sx] = self.stride;
        (y % sy * self.planes[1] + x % sx, y / sy * self.pitch + x / sx)
    }

    /// Fills every place with what pads the image, one value a channel.
    pub fn fill(&self, value: &[f32], to: &mut [u16]) {
        for (block, to) in to[..self.len()].chunks_exact_mut(self.block_len()).enumerate() {
            for (at, to) in to.iter_mut().enumerate() {
                *to = value[..self.channels].get(block * SIDE + at % SIDE).map_or(0, |v| bf16(*v));
            }
        }
    }
}

#[inline(always)]
unsafe fn load<L: Lanes>(planes: &Planes, [h, w]: [usize; 2], from: &[f32], how: Load, to: &mut [u16]) {
    let c = planes.channels;
    assert!(from.len() >= h * w * c && to.len() >= planes.len());
    how.check(h * w, c);
    let ([sy, sx], [top, left]) = (planes.stride, planes.margin);
    for y in 0..h {
        let (vertical, row) = ((y + top) % sy, (y + top) / sy);
        if vertical >= planes.planes[0] || row >= planes.rows {
            continue;
        }
        for phase in 0..planes.planes[1] {
            let Phase { x, column, count } = Phase::new([phase, sx], left, w, planes.pitch);
            let first = (vertical * planes.planes[1] + phase) * planes.places() + row * planes.pitch + column;
            for (block, channel) in (0..c).step_by(SIDE).enumerate() {
                let run = Run {
                    from: (y * w + x) * c + channel,
                    to: block * planes.block_len() + first * SIDE,
                    count,
                    stride: sx * c,
                    step: SIDE,
                    depth: SIDE.min(c - channel),
                };
                // SAFETY: the runs stay inside image and planes by their counts, and the assertions bound those.
                unsafe { run.copy::<L, u16>(channel, from, how, to) }
            }
        }
    }
}

per_isa! {
    /// Puts an image `[h][w][channels]` between the zeros.
    ///
    /// # Safety
    /// None beyond an honest `isa`: slices are checked.
    pub(super) fn put_image(planes: &Planes, side: [usize; 2], from: &[f32], how: Load, to: &mut [u16]) = load
}

//! A linear map at every pixel of a grid, and what follows in the same registers: residual sum and per-channel affine map.

use super::grid::View;
use super::packed::{LANES, Line, Packed};
use crate::requant::Output;

/// Bytes after the last grid that a tile may read: what lies there meets weights of 0 or is not stored.
pub const SLACK: usize = 64;

/// A residual sum, as [`super::scalar::add`] with the map's output as its operand `own`.
#[derive(Debug, Clone, Copy)]
pub struct Sum {
    /// The other operand's pixels.
    pub other: View,
    /// The byte that stands for 0 there, flipped as it is stored.
    pub other_zero: u8,
    /// What the map's output and the other operand are multiplied by.
    pub ratio: [f32; 2],
    /// Rounding of the sum.
    pub out: Output,
}

/// A per-channel affine map, as [`super::scalar::affine`].
#[derive(Debug, Clone, Copy)]
pub struct Affine {
    /// The first line of the factors.
    pub mul: usize,
    /// The first line of the summands.
    pub add: usize,
    /// Rounding.
    pub out: Output,
    /// Where it is written.
    pub y: View,
}

/// A linear map over a grid.
#[derive(Debug, Clone, Copy)]
pub struct Map<'a> {
    /// The block in which all numbers lie.
    pub lines: &'a [Line],
    /// The map.
    pub packed: Packed,
    /// The first tap of output pixel (0, 0), and bytes from one run of a pixel to its next.
    pub x: View,
    /// Bytes from one output pixel's taps to the next one's, along a row and from row to row.
    pub step: [usize; 2],
    /// Rows and columns of output pixels.
    pub extent: [usize; 2],
    /// Rounding of the map itself.
    pub out: Output,
    /// Where the map, or the sum if there is one, is written, if anyone reads it.
    pub y: Option<View>,
    /// The sum that follows.
    pub sum: Option<Sum>,
    /// The affine map that follows the map or the sum.
    pub affine: Option<Affine>,
}

/// What an instruction set makes of the roundings of a map's own output, its sum and its affine map.
pub struct Roundings<T> {
    /// The map's own.
    pub own: T,
    /// The sum's, if there is one.
    pub sum: Option<T>,
    /// The affine map's, if there is one.
    pub affine: Option<T>,
}

impl Map<'_> {
    /// Its roundings, each by `new`.
    #[inline(always)]
    pub fn roundings<T>(&self, new: impl Fn(Output) -> T) -> Roundings<T> {
        Roundings { own: new(self.out), sum: self.sum.map(|s| new(s.out)), affine: self.affine.map(|a| new(a.out)) }
    }

    /// Refuses a memory of `len` bytes that a tile would leave.
    ///
    /// # Panics
    /// If it would.
    pub fn check(&self, len: usize) {
        let Self { packed, extent: [rows, columns], .. } = *self;
        assert!(rows > 0 && columns > 0 && packed.runs > 0 && packed.channels > 0, "an empty map");
        let last = (rows - 1) * self.step[1] + (columns - 1) * self.step[0];
        let end = self.x.at + last + (packed.runs - 1) * self.x.pitch + 4 * packed.steps;
        assert!(end <= len, "a tile would read byte {end} of {len}");
        let blocks = packed.channels.div_ceil(LANES);
        // A whole block is read, and written where it is whole.
        let views = [self.y, self.sum.map(|s| s.other), self.affine.map(|a| a.y)];
        for view in views.into_iter().flatten() {
            let end = view.at + (rows - 1) * view.pitch + (columns - 1) * packed.channels + blocks * LANES;
            assert!(end <= len, "a tile would reach byte {end} of {len}");
        }
        let mut last = packed.end();
        if let Some(affine) = &self.affine {
            last = last.max(affine.mul.max(affine.add) + blocks);
        }
        assert!(last <= self.lines.len(), "a tile would read line {last} of {}", self.lines.len());
    }

    /// Line `at` of the block; only to be read where [`Map::check`] has held.
    #[inline(always)]
    pub fn line(&self, at: usize) -> *const Line {
        self.lines.as_ptr().wrapping_add(at)
    }

    /// The biases, i32, whole blocks.
    #[inline(always)]
    pub fn bias(&self) -> *const i32 {
        self.line(self.packed.bias()).cast()
    }

    /// The scales, f32, whole blocks.
    #[inline(always)]
    pub fn scale(&self) -> *const f32 {
        self.line(self.packed.scale()).cast()
    }
}

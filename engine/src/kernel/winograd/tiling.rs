//! The transformations of one dimension, for tiles of four outputs and of two.

// Vectors: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::sweep::{Sums, Words};

/// Registers of one row or column; a tiling uses the first [`Tiling::READ`] of them, or [`Tiling::SIDE`].
pub type Row<V> = [V; 6];

/// A size of tile: outputs, inputs, and the matrices, scaled until all is whole.
pub trait Tiling {
    /// Outputs in each direction.
    const SIDE: usize;
    /// Inputs in each direction.
    const READ: usize;
    /// The rows of G, scaled.
    const TAPS: &'static [[i32; 3]];
    /// Output i comes out `2^SHIFTS[i]` times too large, in each direction.
    const SHIFTS: &'static [u32];
    /// Whether it also comes out 3 times too large in each direction.
    const NINEFOLD: bool;

    /// `B' d`.
    ///
    /// # Safety
    /// The CPU has the set's instructions.
    unsafe fn input<W: Words>(d: Row<W>) -> Row<W>;

    /// `A' m`, output i times `2^SHIFTS[i]`, and times 3 where [`Tiling::NINEFOLD`].
    ///
    /// # Safety
    /// As [`Tiling::input`].
    unsafe fn output<S: Sums>(m: Row<S>) -> Row<S>;
}

/// F(4 x 4, 3 x 3), of the points 0, 1, -1, 2, -2 and infinity.
pub enum Four {}

impl Tiling for Four {
    const SIDE: usize = 4;
    const READ: usize = 6;
    // Of the rows `[1/4], [-1/6 ...], [-1/6 ...], [1/24 ...], [1/24 ...], [1]` in the literature: times 24, 6, 6, 24, 24, 6.
    const TAPS: &'static [[i32; 3]] = &[[6, 0, 0], [-1, -1, -1], [-1, 1, -1], [1, 2, 4], [1, -2, 4], [0, 0, 6]];
    const SHIFTS: &'static [u32] = &[3, 2, 1, 1];
    const NINEFOLD: bool = true;

    #[inline(always)]
    unsafe fn input<W: Words>(d: Row<W>) -> Row<W> {
        // SAFETY: this function's callers.
        unsafe {
            let even = d[4].minus(d[2].fourfold());
            let odd = d[3].minus(d[1].fourfold());
            let (far, near) = (d[4].minus(d[2]), d[3].minus(d[1]));
            let twice = near.plus(near);
            [
                d[0].minus(d[2]).fourfold().plus(far),
                odd.plus(even),
                even.minus(odd),
                far.plus(twice),
                far.minus(twice),
                d[5].minus(d[3]).minus(twice.plus(twice)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Sums>(m: Row<S>) -> Row<S> {
        // SAFETY: this function's callers.
        unsafe {
            let (s, d) = (m[1].plus(m[2]), m[1].minus(m[2]));
            let (t, e) = (m[3].plus(m[4]), m[3].minus(m[4]));
            let z = m[0].plus(s.fourfold()).plus(t);
            [z, d.plus(d).plus(e), s.plus(t), d.plus(e.plus(e)).plus(m[5]), z, z]
        }
    }
}

/// F(2 x 2, 3 x 3), of the points 0, 1, -1 and infinity: fewer weights, for wide layers of few pixels.
pub enum Two {}

impl Tiling for Two {
    const SIDE: usize = 2;
    const READ: usize = 4;
    const TAPS: &'static [[i32; 3]] = &[[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]];
    const SHIFTS: &'static [u32] = &[1, 1];
    const NINEFOLD: bool = false;

    #[inline(always)]
    unsafe fn input<W: Words>(d: Row<W>) -> Row<W> {
        // SAFETY: this function's callers.
        unsafe {
            let last = d[3].minus(d[1]);
            [d[0].minus(d[2]), d[1].plus(d[2]), d[2].minus(d[1]), last, last, last]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Sums>(m: Row<S>) -> Row<S> {
        // SAFETY: this function's callers.
        unsafe {
            let z = m[0].plus(m[1].plus(m[2]));
            [z, m[1].minus(m[2]).plus(m[3]), z, z, z, z]
        }
    }
}

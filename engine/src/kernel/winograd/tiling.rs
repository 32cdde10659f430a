//! The transformations of one dimension, for tiles of four outputs and of two.

// Vectors: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::sweep::Set;

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
    unsafe fn input<S: Set>(d: Row<S::Words>) -> Row<S::Words>;

    /// `A' m`, output i times `2^SHIFTS[i]`, and times 3 where [`Tiling::NINEFOLD`].
    ///
    /// # Safety
    /// As [`Tiling::input`].
    unsafe fn output<S: Set>(m: Row<S::Sums>) -> Row<S::Sums>;
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
    unsafe fn input<S: Set>(d: Row<S::Words>) -> Row<S::Words> {
        // SAFETY: this function's callers.
        unsafe {
            let even = S::minus(d[4], S::fourfold(d[2]));
            let odd = S::minus(d[3], S::fourfold(d[1]));
            let (far, near) = (S::minus(d[4], d[2]), S::minus(d[3], d[1]));
            let twice = S::plus(near, near);
            [
                S::plus(S::fourfold(S::minus(d[0], d[2])), far),
                S::plus(odd, even),
                S::minus(even, odd),
                S::plus(far, twice),
                S::minus(far, twice),
                S::minus(S::minus(d[5], d[3]), S::plus(twice, twice)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Set>(m: Row<S::Sums>) -> Row<S::Sums> {
        // SAFETY: this function's callers.
        unsafe {
            let (s, d) = (S::sum(m[1], m[2]), S::difference(m[1], m[2]));
            let (t, e) = (S::sum(m[3], m[4]), S::difference(m[3], m[4]));
            let z = S::sum(S::sum(m[0], S::quadruple(s)), t);
            let twice = S::sum(S::sum(d, d), e);
            [z, twice, S::sum(s, t), S::sum(S::sum(d, S::sum(e, e)), m[5]), z, z]
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
    unsafe fn input<S: Set>(d: Row<S::Words>) -> Row<S::Words> {
        // SAFETY: this function's callers.
        unsafe {
            let last = S::minus(d[3], d[1]);
            [S::minus(d[0], d[2]), S::plus(d[1], d[2]), S::minus(d[2], d[1]), last, last, last]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Set>(m: Row<S::Sums>) -> Row<S::Sums> {
        // SAFETY: this function's callers.
        unsafe {
            let z = S::sum(m[0], S::sum(m[1], m[2]));
            [z, S::sum(S::difference(m[1], m[2]), m[3]), z, z, z, z]
        }
    }
}

//! A convolution row by row, for cores with little memory: the input rows under the kernel lie in a ring of as many slots as the
//! kernel has rows, each prepared once for the kernels of a [layout](crate::lowered::Layout). A per-channel map before the
//! convolution is applied while a row is prepared, a residual sum while its output is written, so neither has a map of its
//! own in memory.

use crate::layer::Window;
use crate::requant::Output;
use crate::tensor::{Le, Shape};

/// Tallest kernel.
pub const MAX_ROWS: usize = 7;

/// A per-channel affine map that is applied to what is read, as [`super::scalar::affine`].
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// The zero point of what is stored.
    pub zero: i8,
    /// Factors, `[c]`.
    pub mul: Le<'a, f32>,
    /// Summands, `[c]`.
    pub add: Le<'a, f32>,
    /// Rounding.
    pub out: Output,
}

/// A residual sum with what is written, as [`super::scalar::add`].
#[derive(Debug, Clone, Copy)]
pub struct Sum {
    /// What the convolution's output and the other operand are multiplied by.
    pub ratio: [f32; 2],
    /// The other operand's zero point.
    pub zero: i8,
    /// Rounding.
    pub out: Output,
}

/// The other operand of a residual sum, int8 `[h][w][c]` or a part of it.
#[derive(Debug, Clone, Copy)]
pub enum Other<'a> {
    /// There is no sum.
    None,
    /// Elsewhere.
    At(&'a [i8]),
    /// Where the output goes.
    Place,
}

impl<'a> Other<'a> {
    /// The part of it that belongs to a part of the output.
    ///
    /// # Panics
    /// If it is elsewhere and shorter.
    pub fn part(self, from: usize, len: usize) -> Other<'a> {
        match self {
            Self::At(other) => Other::At(&other[from..from + len]),
            other => other,
        }
    }
}

/// Has `run` write whole groups where the output has only a part of one: to `tail`, which holds a whole one. A residual sum finds the
/// other operand where it writes.
///
/// # Panics
/// If `tail` is shorter than the output, or the other operand not as long.
pub fn in_part(tail: &mut [i8], other: Other, y: &mut [i8], run: impl FnOnce(Other, &mut [i8])) {
    let part = &mut tail[..y.len()];
    let other = match other {
        Other::At(other) => {
            part.copy_from_slice(other);
            Other::Place
        }
        Other::Place => {
            part.copy_from_slice(y);
            Other::Place
        }
        Other::None => Other::None,
    };
    run(other, tail);
    y.copy_from_slice(&tail[..y.len()]);
}

/// A convolution of one group, from what is stored to what is stored.
#[derive(Debug, Clone, Copy)]
pub struct Conv<'a> {
    /// The sliding window.
    pub window: Window,
    /// Extents of the input and the output.
    pub shapes: [Shape; 2],
    /// The input's zero point, after `before`.
    pub zero: i8,
    /// What is applied to the input.
    pub before: Option<Affine<'a>>,
    /// Weights, biases and scales in the order of the kernels.
    pub weight: &'a [u8],
    /// Rounding of the convolution, which has no ReLU if a sum follows.
    pub out: Output,
    /// What follows it.
    pub sum: Option<Sum>,
}

/// The kernels of a layout for one convolution.
pub trait Kernels {
    /// Words of a row slot.
    fn slot_words(&self) -> usize;

    /// Prepares an input row, int8 `[w][c]`, or one outside the input, in a slot.
    fn prepare(&mut self, row: Option<&[i8]>, slot: &mut [u32]);

    /// From the slots under the kernel, the topmost row's first, to an output row, int8 `[w][c]`.
    fn run(&mut self, under: &[&[u32]], other: Other, y: &mut [i8]);
}

/// Runs a convolution from `x` to `y`, both int8 NHWC; `slots` are as many as the kernel has rows.
///
/// # Panics
/// If a slice does not have the length that the shapes need, or the kernel has more than [`MAX_ROWS`].
pub fn conv(conv: &Conv, mut kernels: impl Kernels, x: &[i8], other: Other, y: &mut [i8], slots: &mut [u32]) {
    let Conv { window, shapes: [from, to], .. } = conv;
    let rows = usize::from(window.kernel[0]);
    let row = usize::from(from.w) * usize::from(from.c);
    let out_row = usize::from(to.w) * usize::from(to.c);
    let words = kernels.slot_words();
    let (top, down) = (usize::from(window.pad[0]), usize::from(window.stride[0]));
    // Rows that lie in slots, the first above the input at 0.
    let mut prepared = 0;
    for (oy, y) in y.chunks_exact_mut(out_row).enumerate() {
        let first = oy * down;
        for at in prepared.max(first)..first + rows {
            let slot = &mut slots[at % rows * words..][..words];
            let inside = at.checked_sub(top).filter(|at| *at < usize::from(from.h));
            kernels.prepare(inside.map(|at| &x[at * row..][..row]), slot);
        }
        prepared = first + rows;
        let mut under: [&[u32]; MAX_ROWS] = [&[]; MAX_ROWS];
        for (ky, under) in under.iter_mut().enumerate().take(rows) {
            *under = &slots[(first + ky) % rows * words..][..words];
        }
        kernels.run(&under[..rows], other.part(oy * out_row, out_row), y);
    }
}

//! The resize in two passes: columns of a source row first, then rows. Integer sums may be taken in any order, so every
//! output pixel equals the definition's.

use super::{Axis, ImagePolicy, Layout, Pixels, Polarity, luma, rounded, values};
use crate::tensor::Shape;
use alloc::{vec, vec::Vec};

/// The weights of every output pixel of an axis, one after the other.
struct Taps {
    /// First source index and weights of each output pixel.
    each: Vec<(usize, core::ops::Range<usize>)>,
    weights: Vec<u64>,
    /// Sum of each output pixel's weights.
    totals: Vec<u64>,
}

impl Taps {
    fn new(axis: Axis) -> Self {
        let mut this = Self { each: Vec::with_capacity(axis.out), weights: Vec::new(), totals: Vec::new() };
        for i in 0..axis.out {
            let (support, at) = (axis.support(i), this.weights.len());
            this.weights.extend(support.clone().map(|j| axis.weight(i, j)));
            this.each.push((support.start, at..this.weights.len()));
            this.totals.push(this.weights[at..].iter().sum());
        }
        this
    }
}

// All of it inlined: instruction sets compile it, each for itself.

/// [`super::resize`], in time that grows with the source's pixels and not with the product of both sizes.
#[inline(always)]
pub(crate) fn resize(
    picture: &Pixels,
    policy: &ImagePolicy,
    target: Shape,
    [rows, columns]: [Axis; 2],
    out: &mut [u8],
) {
    match target.c {
        1 => channels::<1>(picture, policy, target, [rows, columns], out),
        _ => channels::<3>(picture, policy, target, [rows, columns], out),
    }
}

#[inline(always)]
fn channels<const C: usize>(
    picture: &Pixels,
    policy: &ImagePolicy,
    target: Shape,
    [rows, columns]: [Axis; 2],
    out: &mut [u8],
) {
    let invert = policy.polarity == Polarity::Inverted;
    let source = Source::<C> { picture, invert, columns };
    if [rows, columns].iter().all(|axis| axis.size == axis.out) {
        // Nothing is resized: a support is one source pixel.
        for y in 0..rows.out {
            let to = &mut out[((rows.to + y) * target.w as usize + columns.to) * C..][..columns.out * C];
            source.row(rows.from + y, to);
        }
        return;
    }
    let (across, down) = (Taps::new(columns), Taps::new(rows));
    let place = |y: usize, x: usize| ((rows.to + y) * target.w as usize + columns.to + x) * C;
    // A column's sum is at most 255 of its weights: nearly always few enough for 32 bits, which are twice as many at a time.
    if down.totals.iter().all(|total| 255 * total <= u64::from(u32::MAX)) {
        passes::<C, u32>(&source, [rows, columns], [&across, &down], place, out);
    } else {
        passes::<C, u64>(&source, [rows, columns], [&across, &down], place, out);
    }
}

/// The rows of a picture as the model sees them.
struct Source<'p, const C: usize> {
    picture: &'p Pixels<'p>,
    invert: bool,
    columns: Axis,
}

impl<const C: usize> Source<'_, C> {
    /// The kept part of row `y`, `[size][C]`.
    #[inline(always)]
    fn row(&self, y: usize, to: &mut [u8]) {
        let each = self.picture.layout as usize;
        let from = &self.picture.bytes[each * (y * self.picture.width as usize + self.columns.from)..];
        let from = &from[..each * self.columns.size];
        match (self.picture.layout, C, self.invert) {
            (Layout::Luma, 1, false) | (Layout::Rgb, 3, false) => to.copy_from_slice(from),
            (Layout::Rgb, 1, false) => {
                for (to, pixel) in to.iter_mut().zip(from.as_chunks::<3>().0) {
                    *to = luma(*pixel);
                }
            }
            _ => {
                for (to, pixel) in to.chunks_exact_mut(C).zip(from.chunks_exact(each)) {
                    to.copy_from_slice(&values(pixel, self.invert, C == 1)[..C]);
                }
            }
        }
    }
}

/// What weighted values are summed in.
trait Sum: Copy + Default + core::ops::AddAssign + core::ops::Mul<Output = Self> + From<u8> {
    /// A weight, which is small enough.
    fn of(weight: u64) -> Self;
    /// The sum.
    fn wide(self) -> u64;
}

impl Sum for u32 {
    fn of(weight: u64) -> Self {
        weight as u32
    }

    fn wide(self) -> u64 {
        self.into()
    }
}

impl Sum for u64 {
    fn of(weight: u64) -> Self {
        weight
    }

    fn wide(self) -> u64 {
        self
    }
}

/// Columns first, each source row once, all of its values side by side; an output row's sums across as soon as its last source row
/// has come.
#[inline(always)]
fn passes<const C: usize, S: Sum>(
    source: &Source<C>,
    [rows, columns]: [Axis; 2],
    [across, down]: [&Taps; 2],
    place: impl Fn(usize, usize) -> usize,
    out: &mut [u8],
) {
    let width = columns.size * C;
    let end = |y: usize| down.each[y].0 + down.each[y].1.len();
    // Supports only move on from one output row to the next: those that a source row touches are neighbours.
    let (mut first, mut together) = (0, 1);
    for y in 0..rows.out {
        while end(first) <= down.each[y].0 {
            first += 1;
        }
        together = together.max(y + 1 - first);
    }
    let mut sums = vec![S::default(); together * width];
    let mut seen = vec![0u8; width];
    let (mut first, mut last) = (0, 0);
    for sy in 0..rows.size {
        while last < rows.out && down.each[last].0 <= sy {
            last += 1;
        }
        if first == last {
            continue;
        }
        source.row(rows.from + sy, &mut seen);
        for y in first..last {
            let (start, weights) = &down.each[y];
            let weight = S::of(down.weights[weights.start + sy - start]);
            add(&mut sums[y % together * width..][..width], weight, &seen);
        }
        while first < last && end(first) == sy + 1 {
            let sums = &mut sums[first % together * width..][..width];
            for (x, (start, weights)) in across.each.iter().enumerate() {
                let mut all = [0u64; C];
                for (sums, w) in sums.chunks_exact(C).skip(*start).zip(&across.weights[weights.clone()]) {
                    (0..C).for_each(|c| all[c] += w * sums[c].wide());
                }
                let (at, total) = (place(first, x), down.totals[first] * across.totals[x]);
                out[at..at + C].iter_mut().zip(all).for_each(|(to, sum)| *to = rounded(sum, total));
            }
            sums.fill(S::default());
            first += 1;
        }
    }
}

/// Adds a weighted row.
#[inline(always)]
fn add<S: Sum>(sums: &mut [S], weight: S, row: &[u8]) {
    for (sum, v) in sums.iter_mut().zip(row) {
        *sum += weight * S::from(*v);
    }
}

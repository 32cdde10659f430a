//! The resize in two passes: columns of a source row first, then rows. Integer sums may be taken in any order, so every
//! output pixel equals the definition's.

use super::{Axis, ImagePolicy, Pixels, Polarity, rounded, values};
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

/// [`super::resize`], in time that grows with the source's pixels and not with the product of both sizes.
pub(super) fn resize(
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

fn channels<const C: usize>(
    picture: &Pixels,
    policy: &ImagePolicy,
    target: Shape,
    [rows, columns]: [Axis; 2],
    out: &mut [u8],
) {
    let invert = policy.polarity == Polarity::Inverted;
    if [rows, columns].iter().all(|axis| axis.size == axis.out) {
        // Nothing is resized: a support is one source pixel.
        for y in 0..rows.out {
            let to = &mut out[((rows.to + y) * target.w as usize + columns.to) * C..][..columns.out * C];
            for (x, to) in to.chunks_exact_mut(C).enumerate() {
                to.copy_from_slice(&values(picture.pixel(columns.from + x, rows.from + y), invert, C == 1)[..C]);
            }
        }
        return;
    }
    let (across, down) = (Taps::new(columns), Taps::new(rows));
    let mut seen = vec![[0u8; C]; columns.size];
    let mut row = vec![[0u64; C]; columns.out];
    let mut sums = vec![[0u64; C]; columns.out * rows.out];
    // Supports only move on from one output pixel to the next, so those that a source row touches are neighbours.
    let mut first = 0;
    for sy in 0..rows.size {
        while first < rows.out && rows.support(first).end <= sy {
            first += 1;
        }
        let touched = (first..rows.out).take_while(|&y| down.each[y].0 <= sy);
        if touched.clone().next().is_none() {
            continue;
        }
        for (sx, to) in seen.iter_mut().enumerate() {
            let all = values(picture.pixel(columns.from + sx, rows.from + sy), invert, C == 1);
            to.copy_from_slice(&all[..C]);
        }
        for (to, (start, weights)) in row.iter_mut().zip(&across.each) {
            *to = [0; C];
            for (v, w) in seen[*start..].iter().zip(&across.weights[weights.clone()]) {
                (0..C).for_each(|c| to[c] += w * u64::from(v[c]));
            }
        }
        for y in touched {
            let (start, weights) = &down.each[y];
            let Some(weight) = down.weights[weights.clone()].get(sy - start) else { continue };
            for (sum, v) in sums[y * columns.out..][..columns.out].iter_mut().zip(&row) {
                (0..C).for_each(|c| sum[c] += weight * v[c]);
            }
        }
    }
    for y in 0..rows.out {
        for x in 0..columns.out {
            let at = ((rows.to + y) * target.w as usize + columns.to + x) * C;
            let total = down.totals[y] * across.totals[x];
            let sum = sums[y * columns.out + x];
            out[at..at + C].iter_mut().zip(sum).for_each(|(to, sum)| *to = rounded(sum, total));
        }
    }
}

//! Batch normalisation (and any per-channel affine map) over NHWC values: sums, backward sums, and the gradient's
//! second pass. The next operation applies the map to each value as it loads it ([`super::conv::Load`]).
//!
//! `z = scale x + shift`, `scale = gamma / sqrt(var + eps)`, `shift = beta - scale mean`, then a ReLU where asked
//! (Ioffe & Szegedy, 2015).

use super::lanes::{Isa, Lanes, get, per_isa, put};

/// The variance's floor, as PyTorch's default.
pub(crate) const EPS: f64 = 1e-5;

/// The per-channel numbers of one normalisation in one mini-batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Affine {
    pub mean: Vec<f32>,
    /// `1 / sqrt(var + eps)`.
    pub inverse: Vec<f32>,
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

impl Affine {
    /// From a mean and a variance a channel.
    pub fn new(mean: &[f64], variance: &[f64], gamma: &[f32], beta: &[f32]) -> Self {
        let inverse: Vec<f64> = variance.iter().map(|v| 1.0 / (v.max(0.0) + EPS).sqrt()).collect();
        let scale = gamma.iter().zip(&inverse).map(|(g, i)| f64::from(*g) * i);
        let shift = scale.clone().zip(mean).zip(beta).map(|((s, m), b)| f64::from(*b) - s * m);
        Self {
            shift: shift.map(|v| v as f32).collect(),
            scale: scale.map(|v| v as f32).collect(),
            mean: mean.iter().map(|v| *v as f32).collect(),
            inverse: inverse.iter().map(|v| *v as f32).collect(),
        }
    }

    /// A map that is given, with `x` itself in the place of the normalised value.
    pub fn fixed(scale: &[f32], shift: &[f32]) -> Self {
        let (mean, inverse) = (vec![0.0; scale.len()], vec![1.0; scale.len()]);
        Self { mean, inverse, scale: scale.to_vec(), shift: shift.to_vec() }
    }
}

/// Masks `dz` where the map's ReLU was shut and adds, a channel, `sum dz` and `sum dz (x - mean) inverse`.
#[inline(always)]
unsafe fn backward_sums<L: Lanes>(a: &Affine, relu: bool, x: &[f32], dz: &mut [f32], sums: &mut [f32]) {
    let c = a.scale.len();
    assert!(c > 0 && x.len() == dz.len() && dz.len().is_multiple_of(c) && sums.len() == 2 * c);
    assert!(a.shift.len() == c && a.mean.len() == c && a.inverse.len() == c);
    let (first, second) = sums.split_at_mut(c);
    for at in (0..c).step_by(L::N) {
        let count = L::N.min(c - at);
        // SAFETY: `at + count <= c`, so that every access is inside a pixel of its slice.
        unsafe {
            let own = |v: &[f32]| get::<L>(v.as_ptr().add(at), count);
            let (scale, shift, mean, inverse) = (own(&a.scale), own(&a.shift), own(&a.mean), own(&a.inverse));
            let (mut one, mut two) = (L::zero(), L::zero());
            for p in (at..dz.len()).step_by(c) {
                let v = get::<L>(x.as_ptr().add(p), count);
                let to = dz.as_mut_ptr().add(p);
                let mut d = get::<L>(to, count);
                if relu {
                    d = d.where_positive(shift.fma(v, scale));
                    put(d, to, count);
                }
                one = one.add(d);
                two = two.fma(d, v.sub(mean).mul(inverse));
            }
            put(own(first).add(one), first.as_mut_ptr().add(at), count);
            put(own(second).add(two), second.as_mut_ptr().add(at), count);
        }
    }
}

/// `to = k0 dz + k1 x + k2` a channel, or `to += ...`.
#[inline(always)]
unsafe fn combine<L: Lanes>(k: [&[f32]; 3], x: &[f32], dz: &[f32], to: &mut [f32], accumulate: bool) {
    let c = k[0].len();
    assert!(c > 0 && k[1].len() == c && k[2].len() == c && to.len().is_multiple_of(c));
    assert!(x.len() == to.len() && dz.len() == to.len());
    for p in (0..to.len()).step_by(c) {
        for at in (0..c).step_by(L::N) {
            let count = L::N.min(c - at);
            // SAFETY: `at + count <= c` and p is the start of a pixel in slices of equal length.
            unsafe {
                let own = |v: &[f32], at: usize| get::<L>(v.as_ptr().add(at), count);
                let mut v = own(k[2], at).fma(own(k[1], at), own(x, p + at)).fma(own(k[0], at), own(dz, p + at));
                if accumulate {
                    v = v.add(own(to, p + at));
                }
                put(v, to.as_mut_ptr().add(p + at), count);
            }
        }
    }
}

/// Adds each channel's values and squares to `sums`.
#[inline(always)]
unsafe fn forward_sums<L: Lanes>(c: usize, x: &[f32], sums: &mut [f32]) {
    assert!(c > 0 && x.len().is_multiple_of(c) && sums.len() == 2 * c);
    let (first, second) = sums.split_at_mut(c);
    for at in (0..c).step_by(L::N) {
        let count = L::N.min(c - at);
        // SAFETY: `at + count <= c`, so that every access is inside a pixel of its slice.
        unsafe {
            let (mut one, mut two) =
                (get::<L>(first.as_ptr().add(at), count), get::<L>(second.as_ptr().add(at), count));
            for p in (at..x.len()).step_by(c) {
                let v = get::<L>(x.as_ptr().add(p), count);
                one = one.add(v);
                two = two.fma(v, v);
            }
            put(one, first.as_mut_ptr().add(at), count);
            put(two, second.as_mut_ptr().add(at), count);
        }
    }
}

/// Adds each channel's values of `x`, only those where `mask` is positive if there is one, to `sums`.
#[inline(always)]
unsafe fn masked_sums<L: Lanes>(x: &[f32], mask: Option<&[f32]>, sums: &mut [f32]) {
    let c = sums.len();
    assert!(c > 0 && x.len().is_multiple_of(c) && mask.is_none_or(|m| m.len() == x.len()));
    for at in (0..c).step_by(L::N) {
        let count = L::N.min(c - at);
        // SAFETY: `at + count <= c`, so that every access is inside a pixel of its slice.
        unsafe {
            let mut sum = get::<L>(sums.as_ptr().add(at), count);
            for p in (at..x.len()).step_by(c) {
                let v = get::<L>(x.as_ptr().add(p), count);
                sum = sum.add(mask.map_or(v, |m| v.where_positive(get::<L>(m.as_ptr().add(p), count))));
            }
            put(sum, sums.as_mut_ptr().add(at), count);
        }
    }
}

per_isa! {
    fn backward_sums_on(a: &Affine, relu: bool, x: &[f32], dz: &mut [f32], sums: &mut [f32]) = backward_sums
}
per_isa! {
    fn combine_on(k: [&[f32]; 3], x: &[f32], dz: &[f32], to: &mut [f32], accumulate: bool) = combine
}
per_isa! {
    fn masked_sums_on(x: &[f32], mask: Option<&[f32]>, sums: &mut [f32]) = masked_sums
}
per_isa! {
    fn forward_sums_on(c: usize, x: &[f32], sums: &mut [f32]) = forward_sums
}

/// Adds each channel's values and their squares, `[c]` each, to `sums`; `x` is `[pixels][c]`.
pub(crate) fn add_sums(isa: Isa, c: usize, x: &[f32], sums: &mut [f32]) {
    // SAFETY: an `Isa` exists only where the CPU has it.
    unsafe { forward_sums_on(isa, c, x, sums) }
}

/// Adds each channel's values of `x` `[pixels][c]`, only those where `mask` is positive if there is one, to `sums` `[c]`.
pub(crate) fn add_masked_sums(isa: Isa, x: &[f32], mask: Option<&[f32]>, sums: &mut [f32]) {
    // SAFETY: an `Isa` exists only where the CPU has it.
    unsafe { masked_sums_on(isa, x, mask, sums) }
}

/// Zeroes `dz` where the map's ReLU was shut and adds, a channel, `sum dz` and `sum dz (x - mean) inverse` to `sums`.
pub(crate) fn mask_and_add_sums(isa: Isa, a: &Affine, relu: bool, x: &[f32], dz: &mut [f32], sums: &mut [f32]) {
    // SAFETY: an `Isa` exists only where the CPU has it.
    unsafe { backward_sums_on(isa, a, relu, x, dz, sums) }
}

/// The gradient of a batch norm's input from its masked output gradient: `dx = k0 dz + k1 x + k2` a channel.
#[derive(Debug, Clone)]
pub(crate) struct InputGradient([Vec<f32>; 3]);

impl InputGradient {
    /// With statistics that depend on the batch of `n` values a channel; `sums` as [`mask_and_add_sums`] leaves them.
    ///
    /// `dx = scale (dz - S1 / n - xhat S2 / n)`.
    pub fn through_statistics(a: &Affine, sums: &[f64], n: usize) -> Self {
        let c = a.scale.len();
        let n = n as f64;
        let k = |f: &dyn Fn(usize) -> f64| (0..c).map(|i| f(i) as f32).collect::<Vec<f32>>();
        let slope = |i: usize| -f64::from(a.scale[i]) * f64::from(a.inverse[i]) * sums[c + i] / n;
        Self([
            a.scale.clone(),
            k(&slope),
            k(&|i| -f64::from(a.scale[i]) * sums[i] / n - slope(i) * f64::from(a.mean[i])),
        ])
    }

    /// With a map that does not depend on the batch.
    pub fn fixed(a: &Affine) -> Self {
        let zeros = vec![0.0; a.scale.len()];
        Self([a.scale.clone(), zeros.clone(), zeros])
    }

    /// Writes the gradient to `dz` itself.
    pub fn in_place(&self, isa: Isa, x: &[f32], dz: &mut [f32], scratch: &mut Vec<f32>) {
        // One image at a time, so that the copy stays in the cache.
        scratch.clear();
        scratch.extend_from_slice(dz);
        self.run(isa, x, scratch, dz, false);
    }

    /// Adds the gradient to `to`.
    pub fn add_to(&self, isa: Isa, x: &[f32], dz: &[f32], to: &mut [f32]) {
        self.run(isa, x, dz, to, true);
    }

    fn run(&self, isa: Isa, x: &[f32], dz: &[f32], to: &mut [f32], accumulate: bool) {
        let k = [&self.0[0][..], &self.0[1], &self.0[2]];
        // SAFETY: an `Isa` exists only where the CPU has it.
        unsafe { combine_on(isa, k, x, dz, to, accumulate) }
    }
}

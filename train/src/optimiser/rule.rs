//! The arithmetic of one update, in place: each rule reads every number once.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

/// Numbers below which another thread costs more than it brings.
const GRAIN: usize = 1 << 15;

/// What makes a gradient of the loss the one that is followed: clipping, and weight decay where `mask` is 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decay<'a> {
    pub scale: f32,
    pub weight: f32,
    pub mask: &'a [f32],
}

impl Decay<'_> {
    #[inline(always)]
    fn apply(&self, mask: f32, gradient: f32, weight: f32) -> f32 {
        gradient * self.scale + self.weight * mask * weight
    }
}

fn range<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(v), Some((from, to))) => Ok(&v[from..to]),
        _ => bail!("an optimiser takes contiguous f32 tensors"),
    }
}

fn range_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(v), Some((from, to))) => Ok(&mut v[from..to]),
        _ => bail!("an optimiser takes contiguous f32 tensors"),
    }
}

/// `to[i] = f(mask[i], to[i], a[i], b[i])`.
fn each(
    to: &mut [f32],
    mask: &[f32],
    a: &[f32],
    b: &[f32],
    f: impl Fn(f32, f32, f32, f32) -> f32 + Sync,
) -> Result<()> {
    if [a.len(), b.len(), mask.len()] != [to.len(); 3] {
        bail!("{} numbers beside {}, {} and {}", to.len(), a.len(), b.len(), mask.len())
    }
    let slices = a.par_chunks(GRAIN).zip(b.par_chunks(GRAIN)).zip(mask.par_chunks(GRAIN));
    to.par_chunks_mut(GRAIN).zip(slices).for_each(|(to, ((a, b), mask))| {
        for (((to, a), b), mask) in to.iter_mut().zip(a).zip(b).zip(mask) {
            *to = f(*mask, *to, *a, *b);
        }
    });
    Ok(())
}

/// Sum of squares, in f64, added in order of fixed parts.
pub(super) fn square(tensor: &Tensor) -> Result<f64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("a gradient on the CPU was expected") };
    let part = |part: &[f32]| part.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
    Ok(range(storage, layout)?.par_chunks(GRAIN).map(part).collect::<Vec<_>>().iter().sum())
}

/// A moment: `to = keep * to + take * g`, or of `g^2`; the others are the gradient and the weights.
pub(super) struct Gather<'a> {
    pub keep: f32,
    pub take: f32,
    pub square: bool,
    pub decay: Decay<'a>,
}

impl InplaceOp3 for Gather<'_> {
    fn name(&self) -> &'static str {
        "moment"
    }

    fn cpu_fwd(
        &self,
        to: &mut CpuStorage,
        to_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
        weights: &CpuStorage,
        weights_layout: &Layout,
    ) -> Result<()> {
        let (g, w) = (range(gradient, gradient_layout)?, range(weights, weights_layout)?);
        let (to, decay) = (range_mut(to, to_layout)?, self.decay);
        if self.square {
            each(to, decay.mask, g, w, |mask, to, g, w| {
                let g = decay.apply(mask, g, w);
                self.keep * to + self.take * (g * g)
            })
        } else {
            each(to, decay.mask, g, w, |mask, to, g, w| self.keep * to + self.take * decay.apply(mask, g, w))
        }
    }
}

/// How weights move.
pub(super) enum Step<'a> {
    /// The others are the gradient and the momentum, already gathered.
    Nesterov { rate: f32, momentum: f32, decay: Decay<'a> },
    /// The others are the moments; `rate` holds the first one's bias correction, `correction` is the second's.
    Adam { rate: f32, correction: f32, shrink: f32, mask: &'a [f32] },
}

impl InplaceOp3 for Step<'_> {
    fn name(&self) -> &'static str {
        "step"
    }

    fn cpu_fwd(
        &self,
        to: &mut CpuStorage,
        to_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<()> {
        let (to, a, b) = (range_mut(to, to_layout)?, range(a, a_layout)?, range(b, b_layout)?);
        match *self {
            Self::Nesterov { rate, momentum, decay } => {
                each(to, decay.mask, a, b, |mask, w, g, v| w - rate * (decay.apply(mask, g, w) + momentum * v))
            }
            Self::Adam { rate, correction, shrink, mask } => each(to, mask, a, b, |mask, w, m, v| {
                w - rate * m / ((v * correction).sqrt() + 1e-8) - shrink * mask * w
            }),
        }
    }
}

/// `to = keep * to + (1 - keep) * other`.
pub(super) struct Average {
    pub keep: f32,
}

impl InplaceOp2 for Average {
    fn name(&self) -> &'static str {
        "average"
    }

    fn cpu_fwd(
        &self,
        to: &mut CpuStorage,
        to_layout: &Layout,
        other: &CpuStorage,
        other_layout: &Layout,
    ) -> Result<()> {
        let other = range(other, other_layout)?;
        each(range_mut(to, to_layout)?, other, other, other, |_, a, w, _| self.keep * a + (1.0 - self.keep) * w)
    }
}

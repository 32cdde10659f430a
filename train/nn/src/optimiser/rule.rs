//! The arithmetic of one update, in place: each rule reads every number once.

#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, count, floats, launch, on_device, spread};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

/// Numbers below which another thread costs more than it brings.
const GRAIN: usize = 1 << 15;

/// What makes a gradient of the loss the one that is followed: clipping, and weight decay where `mask` is 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decay<'a> {
    /// On a GPU the gradient was clipped before, and this is 1.
    pub scale: f32,
    pub weight: f32,
    pub mask: &'a Tensor,
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

/// `to[i] = f(to[i], others[i])`, with an `f` of its own, whose numbers no write to `to` can change: so the compiler takes several
/// `i` at once.
fn part<T>(to: &mut [f32], others: impl Iterator<Item = T>, f: impl Fn(f32, T) -> f32) {
    to.iter_mut().zip(others).for_each(|(to, others)| *to = f(*to, others));
}

/// `to[i] = f(to[i], a[i], b[i])`.
fn each(to: &mut [f32], a: &[f32], b: &[f32], f: impl Fn(f32, f32, f32) -> f32 + Copy + Send + Sync) -> Result<()> {
    if [a.len(), b.len()] != [to.len(); 2] {
        bail!("{} numbers beside {} and {}", to.len(), a.len(), b.len())
    }
    let slices = a.par_chunks(GRAIN).zip(b.par_chunks(GRAIN));
    to.par_chunks_mut(GRAIN).zip(slices).for_each(|(to, (a, b))| {
        part(to, a.iter().zip(b), move |to, (a, b)| f(to, *a, *b));
    });
    Ok(())
}

/// `to[i] = f(mask[i], to[i], a[i], b[i])`.
fn each_masked(
    to: &mut [f32],
    mask: &Tensor,
    a: &[f32],
    b: &[f32],
    f: impl Fn(f32, f32, f32, f32) -> f32 + Copy + Send + Sync,
) -> Result<()> {
    let (mask, layout) = mask.storage_and_layout();
    let Storage::Cpu(mask) = &*mask else { bail!("a mask on the CPU was expected") };
    let mask = range(mask, layout)?;
    if [a.len(), b.len(), mask.len()] != [to.len(); 3] {
        bail!("{} numbers beside {}, {} and {}", to.len(), a.len(), b.len(), mask.len())
    }
    let slices = a.par_chunks(GRAIN).zip(b.par_chunks(GRAIN)).zip(mask.par_chunks(GRAIN));
    to.par_chunks_mut(GRAIN).zip(slices).for_each(|(to, ((a, b), mask))| {
        part(to, a.iter().zip(b).zip(mask), move |to, ((a, b), mask)| f(*mask, to, *a, *b));
    });
    Ok(())
}

/// Sum of squares, in f64: eight sums side by side in each of the fixed parts, which are added in order. A scalar on the CPU.
pub(super) fn square(tensor: &Tensor) -> Result<f64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("a gradient on the CPU was expected") };
    let part = |part: &[f32]| {
        let mut sums = [0.0; 8];
        for eight in part.chunks(8) {
            for (sum, v) in sums.iter_mut().zip(eight) {
                *sum += f64::from(*v) * f64::from(*v);
            }
        }
        sums.iter().sum::<f64>()
    };
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
        let to = range_mut(to, to_layout)?;
        let Self { keep, take, square, decay: Decay { scale, weight, mask } } = *self;
        let next = move |to: f32, g: f32| keep * to + take * if square { g * g } else { g };
        if weight > 0.0 {
            each_masked(to, mask, g, w, move |mask, to, g, w| next(to, g * scale + weight * mask * w))
        } else {
            // The weights do not matter; the gradient stands in for them, so that memory is read once.
            each(to, g, g, move |to, g, _| next(to, g * scale))
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        to: &mut CudaStorage,
        to_layout: &Layout,
        gradient: &CudaStorage,
        gradient_layout: &Layout,
        weights: &CudaStorage,
        weights_layout: &Layout,
    ) -> Result<()> {
        let gpu = Gpu::plain(&gradient.device);
        let (mask, mask_layout) = self.decay.mask.storage_and_layout();
        let mask = floats(on_device(&mask)?, mask_layout)?;
        let (g, w) = (floats(gradient, gradient_layout)?, floats(weights, weights_layout)?);
        let n = same_length(to_layout, &[gradient_layout, weights_layout, mask_layout])?;
        let to = to.as_cuda_slice_mut::<f32>()?;
        launch!(gpu, "moment", spread(n); to, &g, &w, &mask;
            count(n)?, self.keep, self.take, self.decay.weight, i32::from(self.square));
        Ok(())
    }
}

/// How weights move.
pub(super) enum Step<'a> {
    /// The others are the gradient and the momentum, already gathered.
    Nesterov { rate: f32, momentum: f32, decay: Decay<'a> },
    /// The others are the moments; `rate` holds the first one's bias correction, `correction` is the second's.
    Adam { rate: f32, correction: f32, shrink: f32, mask: &'a Tensor },
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
            Self::Nesterov { rate, momentum, decay: Decay { scale, weight, mask } } if weight > 0.0 => {
                each_masked(to, mask, a, b, move |mask, w, g, v| {
                    w - rate * (g * scale + weight * mask * w + momentum * v)
                })
            }
            Self::Nesterov { rate, momentum, decay: Decay { scale, .. } } => {
                each(to, a, b, move |w, g, v| w - rate * (g * scale + momentum * v))
            }
            Self::Adam { rate, correction, shrink, mask } if shrink > 0.0 => {
                each_masked(to, mask, a, b, move |k, w, m, v| {
                    w - rate * m / ((v * correction).sqrt() + 1e-8) - shrink * k * w
                })
            }
            Self::Adam { rate, correction, .. } => {
                each(to, a, b, move |w, m, v| w - rate * m / ((v * correction).sqrt() + 1e-8))
            }
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        to: &mut CudaStorage,
        to_layout: &Layout,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<()> {
        let gpu = Gpu::plain(&a.device);
        let (Self::Nesterov { decay: Decay { mask, .. }, .. } | Self::Adam { mask, .. }) = self;
        let (mask, mask_layout) = mask.storage_and_layout();
        let mask = floats(on_device(&mask)?, mask_layout)?;
        let (a, b) = (floats(a, a_layout)?, floats(b, b_layout)?);
        let n = same_length(to_layout, &[a_layout, b_layout, mask_layout])?;
        let to = to.as_cuda_slice_mut::<f32>()?;
        match *self {
            Self::Nesterov { rate, momentum, decay } => {
                launch!(gpu, "nesterov", spread(n); to, &a, &b, &mask; count(n)?, rate, momentum, decay.weight);
            }
            Self::Adam { rate, correction, shrink, .. } => {
                launch!(gpu, "adam", spread(n); to, &a, &b, &mask; count(n)?, rate, correction, shrink);
            }
        }
        Ok(())
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
        let keep = self.keep;
        each(range_mut(to, to_layout)?, other, other, move |a, w, _| keep * a + (1.0 - keep) * w)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        to: &mut CudaStorage,
        to_layout: &Layout,
        other: &CudaStorage,
        other_layout: &Layout,
    ) -> Result<()> {
        let gpu = Gpu::plain(&other.device);
        let other = floats(other, other_layout)?;
        let n = same_length(to_layout, &[other_layout])?;
        let to = to.as_cuda_slice_mut::<f32>()?;
        launch!(gpu, "average", spread(n); to, &other; count(n)?, self.keep);
        Ok(())
    }
}

/// Length of whole tensors that stand side by side.
#[cfg(feature = "cuda")]
pub(super) fn same_length(to: &Layout, others: &[&Layout]) -> Result<usize> {
    let n = to.shape().elem_count();
    if to.start_offset() != 0 || others.iter().any(|o| o.shape().elem_count() != n) {
        bail!("{n} numbers beside others")
    }
    Ok(n)
}

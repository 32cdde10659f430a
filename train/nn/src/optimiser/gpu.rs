//! The rules on a GPU, where an update is a kernel for each of its steps.

use super::clip::same_length;
use super::{Numbers, Rule, State};
use crate::cuda::{Gpu, count, floats, launch, on_device, spread};
use candle_core::{CpuStorage, CudaStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, bail};

/// Moves a variable whose gradient was clipped before; `mask` is 1 where weight decay applies.
pub(super) fn update(numbers: &Numbers, state: &State, gradient: Option<&Tensor>, mask: &Tensor) -> Result<()> {
    let Numbers { rule, decay, keep, .. } = *numbers;
    let State { variable, first, second, average } = *state;
    if let Some(gradient) = gradient {
        match (rule, second) {
            (Rule::Nesterov { momentum, .. }, _) => {
                first.inplace_op3(
                    gradient,
                    variable,
                    &Gather { keep: momentum, take: 1.0, square: false, decay, mask },
                )?;
                variable.inplace_op3(gradient, first, &Step { rule, decay, mask })?;
            }
            (Rule::Adam { .. }, Some(second)) => {
                first.inplace_op3(
                    gradient,
                    variable,
                    &Gather { keep: 0.9, take: 0.1, square: false, decay, mask },
                )?;
                second.inplace_op3(
                    gradient,
                    variable,
                    &Gather { keep: 0.999, take: 0.001, square: true, decay, mask },
                )?;
                variable.inplace_op3(first, second, &Step { rule, decay, mask })?;
            }
            (Rule::Adam { .. }, None) => bail!("Adam without a second moment"),
        }
    }
    average.map_or(Ok(()), |average| average.inplace_op2(variable, &Average { keep }))
}

/// A moment: `to = keep * to + take * g`, or of `g^2`; the others are the gradient and the weights.
struct Gather<'a> {
    keep: f32,
    take: f32,
    square: bool,
    decay: f32,
    mask: &'a Tensor,
}

impl InplaceOp3 for Gather<'_> {
    fn name(&self) -> &'static str {
        "moment"
    }

    fn cpu_fwd(
        &self,
        _: &mut CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<()> {
        bail!("tensors on the GPU were expected")
    }

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
        let (mask, mask_layout) = self.mask.storage_and_layout();
        let mask = floats(on_device(&mask)?, mask_layout)?;
        let (g, w) = (floats(gradient, gradient_layout)?, floats(weights, weights_layout)?);
        let n = same_length(to_layout, &[gradient_layout, weights_layout, mask_layout])?;
        let to = to.as_cuda_slice_mut::<f32>()?;
        launch!(gpu, "moment", spread(n); to, &g, &w, &mask;
            count(n)?, self.keep, self.take, self.decay, i32::from(self.square));
        Ok(())
    }
}

/// How weights move. The others are the gradient and the momentum, already gathered, or Adam's moments.
struct Step<'a> {
    rule: Rule,
    decay: f32,
    mask: &'a Tensor,
}

impl InplaceOp3 for Step<'_> {
    fn name(&self) -> &'static str {
        "step"
    }

    fn cpu_fwd(
        &self,
        _: &mut CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<()> {
        bail!("tensors on the GPU were expected")
    }

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
        let (mask, mask_layout) = self.mask.storage_and_layout();
        let mask = floats(on_device(&mask)?, mask_layout)?;
        let (a, b) = (floats(a, a_layout)?, floats(b, b_layout)?);
        let n = same_length(to_layout, &[a_layout, b_layout, mask_layout])?;
        let to = to.as_cuda_slice_mut::<f32>()?;
        match self.rule {
            Rule::Nesterov { rate, momentum } => {
                launch!(gpu, "nesterov", spread(n); to, &a, &b, &mask; count(n)?, rate, momentum, self.decay);
            }
            Rule::Adam { rate, correction, shrink } => {
                launch!(gpu, "adam", spread(n); to, &a, &b, &mask; count(n)?, rate, correction, shrink);
            }
        }
        Ok(())
    }
}

/// `to = keep * to + (1 - keep) * other`.
struct Average {
    keep: f32,
}

impl InplaceOp2 for Average {
    fn name(&self) -> &'static str {
        "average"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<()> {
        bail!("tensors on the GPU were expected")
    }

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

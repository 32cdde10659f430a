//! The rules on a GPU, where an update is a kernel for each of its steps.

use super::{Numbers, Rule, State};
use crate::cuda::{Gpu, count, floats, launch, on_device, spread};
use candle_core::{CpuStorage, CudaStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, bail};

/// Moves a variable whose gradient was clipped before; `mask` is 1 where weight decay applies.
pub(super) fn update(numbers: &Numbers, state: &State, gradient: Option<&Tensor>, mask: &Tensor) -> Result<()> {
    let Numbers { rule, decay, keep, .. } = *numbers;
    let State { variable, first, second, average } = *state;
    if let Some(gradient) = gradient {
        let run = |to: &Tensor, [a, b]: [&Tensor; 2], kernel| to.inplace_op3(a, b, &Masked { kernel, decay, mask });
        let gather = |keep, take, square| Kernel::Gather { keep, take, square };
        match (rule, second) {
            (Rule::Nesterov { momentum, .. }, _) => {
                run(first, [gradient, variable], gather(momentum, 1.0, false))?;
                run(variable, [gradient, first], Kernel::Step(rule))?;
            }
            (Rule::Adam { .. }, Some(second)) => {
                run(first, [gradient, variable], gather(0.9, 0.1, false))?;
                run(second, [gradient, variable], gather(0.999, 0.001, true))?;
                run(variable, [first, second], Kernel::Step(rule))?;
            }
            (Rule::Adam { .. }, None) => bail!("Adam without a second moment"),
        }
    }
    average.map_or(Ok(()), |average| average.inplace_op2(variable, &Average { keep }))
}

/// What is done with a tensor and two others.
enum Kernel {
    /// A moment: `to = keep * to + take * g`, or of `g^2`; the others are the gradient and the weights.
    Gather { keep: f32, take: f32, square: bool },
    /// How weights move. The others are the gradient and the momentum, already gathered, or Adam's moments.
    Step(Rule),
}

/// A kernel, and the weight decay that it takes where `mask` is 1.
struct Masked<'a> {
    kernel: Kernel,
    decay: f32,
    mask: &'a Tensor,
}

impl InplaceOp3 for Masked<'_> {
    fn name(&self) -> &'static str {
        "update"
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
        match self.kernel {
            Kernel::Gather { keep, take, square } => {
                launch!(gpu, "moment", spread(n); to, &a, &b, &mask; count(n)?, keep, take, self.decay, i32::from(square));
            }
            Kernel::Step(Rule::Nesterov { rate, momentum }) => {
                launch!(gpu, "nesterov", spread(n); to, &a, &b, &mask; count(n)?, rate, momentum, self.decay);
            }
            Kernel::Step(Rule::Adam { rate, correction, shrink }) => {
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

/// Length of whole tensors that stand side by side.
pub(super) fn same_length(to: &Layout, others: &[&Layout]) -> Result<usize> {
    let n = to.shape().elem_count();
    if to.start_offset() != 0 || others.iter().any(|o| o.shape().elem_count() != n) {
        bail!("{n} numbers beside others")
    }
    Ok(n)
}

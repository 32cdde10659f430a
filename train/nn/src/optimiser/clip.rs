//! Squares of gradients on a GPU, and what a limit on their norm does to them.

use super::gpu::same_length;
use crate::cuda::{Gpu, count, floats, launch, spread};
use candle_core::cuda::cudarc::driver::LaunchConfig;
use candle_core::{CpuStorage, CudaStorage, DType, InplaceOp2, Layout, Result, Tensor, bail};

/// Values of a part of a sum.
const EACH: usize = 1 << 15;

/// Threads of a part, as `kernels.cu` has them.
const SQUARES: u32 = 128;

/// Adds the squares of the second to the first, f64 `[1]`.
struct AddSquares;

impl InplaceOp2 for AddSquares {
    fn name(&self) -> &'static str {
        "add-squares"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<()> {
        bail!("gradients on the GPU were expected")
    }

    fn cuda_fwd(&self, to: &mut CudaStorage, _: &Layout, from: &CudaStorage, layout: &Layout) -> Result<()> {
        let gpu = Gpu::plain(&from.device);
        let from = floats(from, layout)?;
        let n = layout.shape().elem_count();
        let parts = n.div_ceil(EACH).max(1);
        // SAFETY: `square_parts` writes all of it.
        let mut partial = unsafe { gpu.device.alloc::<f64>(parts) }?;
        let config =
            LaunchConfig { grid_dim: (count(parts)?, 1, 1), block_dim: (SQUARES, 1, 1), shared_mem_bytes: 0 };
        launch!(gpu, "square_parts", config; &mut partial, &from; count(n)?, count(EACH)?);
        let to = to.as_cuda_slice_mut::<f64>()?;
        launch!(gpu, "add_squares", spread(1); to, &partial; count(parts)?);
        Ok(())
    }
}

/// Scales the first down to the norm's limit, the second being the norm's square.
struct Clip(f64);

impl InplaceOp2 for Clip {
    fn name(&self) -> &'static str {
        "clip"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<()> {
        bail!("gradients on the GPU were expected")
    }

    fn cuda_fwd(&self, to: &mut CudaStorage, layout: &Layout, square: &CudaStorage, _: &Layout) -> Result<()> {
        let gpu = Gpu::plain(&square.device);
        let n = same_length(layout, &[])?;
        let square = square.as_cuda_slice::<f64>()?;
        let to = to.as_cuda_slice_mut::<f32>()?;
        launch!(gpu, "clip", spread(n); to, square; count(n)?, self.0);
        Ok(())
    }
}

/// The norm of all gradients together, f64 `[1]`, before those are clipped to `limit` (0 for none).
pub fn norm(gradients: &[&Tensor], limit: f64) -> Result<Tensor> {
    let Some(first) = gradients.first() else { bail!("no gradients") };
    let square = Tensor::zeros(1, DType::F64, first.device())?;
    for gradient in gradients {
        square.inplace_op2(gradient, &AddSquares)?;
    }
    if limit > 0.0 {
        for gradient in gradients {
            gradient.inplace_op2(&square, &Clip(limit))?;
        }
    }
    square.sqrt()
}

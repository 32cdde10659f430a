//! Training images that stay on the device: a batch is picked out, shifted and mirrored there.

use super::{Gpu, count, int, launch, spread};
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, bail};

/// Picks a batch out of u8 `[images, h w c]`: f32 `[n, h, w, c]` in [0, 1].
pub struct Pick {
    /// For each image of the batch: its index, its shift down and right, and 1 where it is mirrored.
    pub plan: Vec<i32>,
    /// Extents of an image.
    pub extents: [usize; 3],
}

impl CustomOp1 for Pick {
    fn name(&self) -> &'static str {
        "pick-batch"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("the CPU makes its batches ahead of the step")
    }

    fn cuda_fwd(&self, set: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let [h, w, c] = self.extents;
        let n = self.plan.len() / 4;
        let images = layout.dims()[0];
        if self.plan.chunks_exact(4).any(|p| usize::try_from(p[0]).map_or(true, |i| i >= images)) {
            bail!("an image outside the resident {images}")
        }
        let gpu = Gpu::plain(&set.device);
        let total = n * h * w * c;
        let plan = gpu.device.clone_htod(&self.plan)?;
        let mut out = gpu.floats(total)?;
        let set = set.as_cuda_slice::<u8>()?;
        launch!(gpu, "augment", spread(total); &mut out, set, &plan; count(total)?, int(h)?, int(w)?, int(c)?);
        Ok((CudaStorage::wrap_cuda_slice(out, gpu.device), Shape::from((n, h, w, c))))
    }
}

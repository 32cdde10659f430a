//! The mini-batch log density (supplement, equation 7) on the device.

use super::{Gpu, floats, int, launch};
use candle_core::cuda::cudarc::driver::LaunchConfig;
use candle_core::{CpuStorage, CudaStorage, CustomOp3, Layout, Result, Shape, bail};

/// Largest mini-batch: its log densities stand in a block's shared memory.
const LARGEST: usize = 6000;

/// `[m, 1 + d]` from `z`, `mu`, `log_sigma` `[m, d]`: the log density of each z under the others' mixture, and its
/// gradient in z; arithmetic in f64.
pub struct Density;

impl CustomOp3 for Density {
    fn name(&self) -> &'static str {
        "mini-batch-density"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("the CPU has the density in closed form")
    }

    fn cuda_fwd(
        &self,
        z: &CudaStorage,
        z_layout: &Layout,
        mu: &CudaStorage,
        mu_layout: &Layout,
        log_sigma: &CudaStorage,
        log_sigma_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (m, d) = z_layout.shape().dims2()?;
        if m > LARGEST {
            bail!("a mini-batch of {m}: the rate takes at most {LARGEST} images on the GPU")
        }
        let gpu = Gpu::plain(&z.device);
        let (z, mu) = (floats(z, z_layout)?, floats(mu, mu_layout)?);
        let log_sigma = floats(log_sigma, log_sigma_layout)?;
        let mut out = gpu.floats(m * (1 + d))?;
        let shared_mem_bytes = u32::try_from(m * 8).map_err(candle_core::Error::wrap)?;
        let config = LaunchConfig { grid_dim: (int(m)? as u32, 1, 1), block_dim: (128, 1, 1), shared_mem_bytes };
        launch!(gpu, "density", config; &mut out, &z, &mu, &log_sigma; int(m)?, int(d)?);
        Ok((CudaStorage::wrap_cuda_slice(out, gpu.device), Shape::from((m, 1 + d))))
    }
}

//! Where a run computes.

use crate::ops::conv;
use anyhow::Result;
use candle_core::Device;
use serde::{Deserialize, Serialize};

/// The `fit.device` key and `train evaluate --device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// A GPU where this program was built for one and it is there, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU: the first, or one for each of several processes of a machine.
    Cuda,
}

/// Whether this CPU multiplies in bf16: where it has AMX, and the system grants the registers.
pub fn cpu_multiplies_bf16() -> bool {
    conv::tiles().is_some()
}

impl Choice {
    /// The device.
    ///
    /// # Errors
    /// If a GPU is asked for, and this program was built without one or none is there.
    pub fn open(self) -> Result<Device> {
        self.open_for(0)
    }

    /// The device of one of several processes of this machine, `local` from 0: each has a GPU of its own, in turn where there are
    /// fewer.
    ///
    /// # Errors
    /// As [`Choice::open`].
    pub fn open_for(self, local: usize) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto => Ok(cuda(local).unwrap_or(Device::Cpu)),
            Self::Cuda => cuda(local),
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda(local: usize) -> Result<Device> {
    use anyhow::Context;
    use candle_core::cuda::cudarc::driver::CudaContext;
    let count = usize::try_from(CudaContext::device_count().context("device cuda: no usable GPU")?)?;
    let device = Device::new_cuda(local % count.max(1)).context("device cuda: no usable GPU")?;
    if let Device::Cuda(device) = &device {
        crate::cuda::prepare(device).context("preparing the GPU")?;
    }
    Ok(device)
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Device> {
    anyhow::bail!("device cuda: this program was built without the feature `cuda` (make cuda)")
}

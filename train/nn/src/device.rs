//! Where a run computes.

use crate::ops::conv;
use anyhow::Result;
use candle_core::Device;
use serde::{Deserialize, Serialize};

/// The `fit.device` key and `train evaluate --device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// The first GPU where this program was built for one and it is there, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The first GPU.
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
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto => Ok(cuda().unwrap_or(Device::Cpu)),
            Self::Cuda => cuda(),
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda() -> Result<Device> {
    use anyhow::Context;
    let device = Device::new_cuda(0).context("device cuda: no usable GPU")?;
    if let Device::Cuda(device) = &device {
        crate::cuda::prepare(device).context("preparing the GPU")?;
    }
    Ok(device)
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Result<Device> {
    anyhow::bail!("device cuda: this program was built without the feature `cuda` (make cuda)")
}

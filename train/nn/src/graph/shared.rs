//! What clones of a trunk, and the operations that they become, share: the plan, buffers, running statistics on either side.

use super::forward::Tape;
use super::plan::Plan;
use super::pool::Pool;
use crate::Precision;
#[cfg(feature = "cuda")]
use candle_core::cuda::{CudaDevice, cudarc::driver::CudaSlice};
use std::sync::{Mutex, MutexGuard};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// An outcome as candle's operations have it, with the whole of an error's words.
pub(super) fn told<T>(outcome: anyhow::Result<T>) -> candle_core::Result<T> {
    outcome.map_err(|e| candle_core::Error::Msg(format!("{e:#}")))
}

/// Running statistics, where they were last moved.
#[derive(Debug)]
pub(super) enum Running {
    Host(Vec<f32>),
    #[cfg(feature = "cuda")]
    Device(CudaSlice<f32>, CudaDevice),
}

impl Running {
    pub fn host(&mut self) -> candle_core::Result<&mut Vec<f32>> {
        #[cfg(feature = "cuda")]
        if let Self::Device(values, device) = self {
            *self = Self::Host(device.clone_dtoh(values)?);
        }
        match self {
            Self::Host(values) => Ok(values),
            #[cfg(feature = "cuda")]
            Self::Device(..) => candle_core::bail!("running statistics did not come back"),
        }
    }

    #[cfg(feature = "cuda")]
    pub fn device(&mut self, device: &CudaDevice) -> candle_core::Result<&mut CudaSlice<f32>> {
        if let Self::Host(values) = self {
            // An allocation of no bytes is refused, and a graph without batch norms has none.
            let there = if values.is_empty() { vec![0.0] } else { values.clone() };
            *self = Self::Device(device.clone_htod(&there)?, device.clone());
        }
        match self {
            Self::Device(values, _) => Ok(values),
            Self::Host(_) => candle_core::bail!("running statistics did not reach the device"),
        }
    }
}

/// What clones of a trunk share.
#[derive(Debug)]
pub(super) struct Inner {
    pub plan: Plan,
    pub pool: Pool,
    pub precision: Precision,
    pub running: Mutex<Running>,
}

impl Inner {
    /// Gives a tape's buffers back.
    pub fn recycle(&self, tape: Tape) {
        tape.activations.into_iter().for_each(|a| self.pool.put(a));
    }
}

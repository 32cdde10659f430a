//! Where the gradient of a trunk's parameters is left.

use super::shared::lock;
use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use std::sync::{Arc, Mutex};

/// Where the operations of one loss leave the gradient of a trunk's parameters.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// A variable that every operation depends on, so that candle visits it.
    pub(super) anchor: Var,
    sum: Arc<Mutex<Option<Tensor>>>,
}

impl Ledger {
    /// An empty one.
    ///
    /// # Errors
    /// If candle cannot allocate.
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self { anchor: Var::new(0.0f32, device)?, sum: Arc::default() })
    }

    /// The gradient that was left, after the loss's backward pass: f32 `[parameters]`; `None` if the loss does not
    /// depend on the trunk.
    pub fn take(&self) -> Option<Tensor> {
        lock(&self.sum).take()
    }

    pub(super) fn add(&self, gradient: Tensor) -> candle_core::Result<()> {
        let mut sum = lock(&self.sum);
        *sum = Some(match sum.take() {
            Some(there) => (there + gradient)?,
            None => gradient,
        });
        Ok(())
    }
}

//! Encoders: a trunk of stages to features, two linear heads (mu and s), and the softmax classifier on mu. One file an
//! architecture.

mod architecture;
mod classifier;
pub mod conv_celeba;
mod logit_model;
pub mod mlp;
pub mod mobilenet;
mod network;
pub mod resnet;
pub mod small_conv;
mod stochastic;
mod summary;
mod variable;
mod view;

pub use architecture::{Architecture, Bound};
pub use logit_model::{LogitModel, abstaining};
pub use network::Network;
pub use paradise_nn::graph::values;
pub use stochastic::Stochastic;
pub use variable::{Heads, Place};
pub use view::{Encoder, Encoding};

use anyhow::Result;
use candle_core::Tensor;
use paradise_data::Dataset;

/// Pixels of the images at `indices` in [0, 1]: f32 `[n, h, w, c]` on the CPU.
///
/// # Errors
/// If candle cannot allocate.
pub fn batch(set: &Dataset, indices: &[usize]) -> Result<Tensor> {
    let values = indices.iter().flat_map(|&i| set.image(i)).map(|&p| f32::from(p) / 255.0).collect();
    paradise_nn::images(values, indices.len(), set.shape)
}

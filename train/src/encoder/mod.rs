//! Encoders: a trunk of stages to features, two linear heads (mu and s), and the softmax classifier on mu. One file an
//! architecture.

mod architecture;
pub mod conv_celeba;
pub mod mlp;
pub mod mobilenet;
pub mod network;
pub mod resnet;
pub mod small_conv;
mod summary;

pub use architecture::{Architecture, Bound};
pub use network::{Encoder, Encoding, Network};

use candle_core::Tensor;

/// The numbers of a tensor, in index order.
pub(crate) fn values(tensor: &Tensor) -> anyhow::Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
}

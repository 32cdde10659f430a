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

pub(crate) use crate::graph::values;
pub use architecture::{Architecture, Bound};
pub use network::{Encoder, Encoding, Network};

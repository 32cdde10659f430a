//! Kernels of training: each operation's forward and backward over one image, and the vectors they are written in.

pub(crate) mod conv;
pub mod lanes;
pub(crate) mod norm;
pub(crate) mod pool;

//! Custom candle operations with their gradients; CPU kernels over NHWC.

pub mod conv;
mod gemm;

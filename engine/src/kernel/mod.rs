//! Kernels: the arithmetic of each operation over slices. [`scalar`] is the truth; faster ones equal it bit for bit.

pub mod scalar;

//! Kernels in registers of 256 bits, eight channels each: AVX2, and AVX-VNNI on top of it.
//!
//! Without VNNI, `vpmaddwd` multiplies pairs of i16 exactly (`vpmaddubsw` would saturate): of four inputs, stored as x + 128,
//! the even and the odd ones become two pairs. With it, `vpdpbusd` takes unsigned by signed bytes and saturates nowhere. Equal
//! to [`super::scalar`] bit for bit.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

mod finish;
mod plain;
mod tiles;
pub mod vnni;

pub use plain::{map, multiply_at_peak, real};

/// Proof that the CPU has AVX2; only [`detect`] makes it.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

/// The token, where the CPU has what it takes.
pub fn detect() -> Option<Avx2> {
    std::is_x86_feature_detected!("avx2").then_some(Avx2(()))
}

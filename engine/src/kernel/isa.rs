//! The instruction sets that have kernels, and which of them a CPU has.

// Kernels are called here: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::avx2::{self, Avx2};
use super::avx512::{self, Avx512};
use super::packed::{Map, Order};
use super::scalar::{Source, Target};
use crate::layer::Window;
use crate::requant::Output;
use crate::tensor::Le;

/// An instruction set that this CPU has: the tokens are proof.
#[derive(Debug, Clone, Copy)]
pub enum Isa {
    /// AVX-512 with VNNI.
    Avx512(Avx512),
    /// AVX2.
    Avx2(Avx2),
}

macro_rules! by_set {
    ($self:ident, $kernel:ident($($argument:expr),*)) => {
        match $self {
            Self::Avx512(token) => avx512::$kernel(token, $($argument),*),
            Self::Avx2(token) => avx2::$kernel(token, $($argument),*),
        }
    };
}

impl Isa {
    /// Every set of this CPU that has kernels, the fastest first.
    pub fn all() -> impl Iterator<Item = Self> {
        [avx512::detect().map(Self::Avx512), avx2::detect().map(Self::Avx2)].into_iter().flatten()
    }

    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512(_) => "avx512-vnni",
            Self::Avx2(_) => "avx2",
        }
    }

    /// How its kernels read weights and inputs.
    pub fn order(self) -> Order {
        match self {
            Self::Avx512(_) => Order::Quads,
            Self::Avx2(_) => Order::Pairs,
        }
    }

    /// Requantised outputs `[rows][columns][channels]` of a map.
    ///
    /// # Panics
    /// If the frame or the outputs do not fit the map.
    pub fn requantised(self, map: &Map, out: Output, y: &mut [i8]) {
        map.check(self.order().width(), y.len());
        // SAFETY: the token proves the instructions, the check that every tile stays in frame, lines and outputs.
        unsafe {
            match self {
                Self::Avx512(_) => avx512::requantised(map, out, y),
                Self::Avx2(_) => avx2::requantised(map, out, y),
            }
        }
    }

    /// A head: `f32(acc) * scale` of a map of one pixel, `[channels]`.
    ///
    /// # Panics
    /// If the frame or the outputs do not fit the map, or it has more than one pixel.
    pub fn real(self, map: &Map, y: &mut [f32]) {
        map.check(self.order().width(), y.len());
        assert_eq!(map.extent, [1, 1], "a head has one pixel");
        // SAFETY: as `requantised`.
        unsafe {
            match self {
                Self::Avx512(_) => avx512::real(map, y),
                Self::Avx2(_) => avx2::real(map, y),
            }
        }
    }

    /// [`scalar::affine`](super::scalar::affine).
    pub fn affine(self, x: &[i8], zero: i8, mul: Le<f32>, add: Le<f32>, out: Output, y: &mut [i8]) {
        by_set!(self, affine(x, zero, mul, add, out, y));
    }

    /// [`scalar::add`](super::scalar::add).
    pub fn add(self, a: &[i8], b: &[i8], zero: [i8; 2], ratio: [f32; 2], out: Output, y: &mut [i8]) {
        by_set!(self, add(a, b, zero, ratio, out, y));
    }

    /// [`scalar::avg_pool`](super::scalar::avg_pool).
    pub fn avg_pool(self, source: Source, window: &Window, scale: f32, target: Target) {
        by_set!(self, avg_pool(source, window, scale, target));
    }
}

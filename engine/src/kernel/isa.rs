//! The instruction sets that have kernels, and which of them a CPU has.

// Kernels are called here: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::avx2::{self, Avx2};
use super::avx512::{self, Avx512};
use super::grid::Grid;
use super::map::Map;
use super::packed::Order;
use super::rows;
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

    /// How its kernels read weights.
    pub fn order(self) -> Order {
        match self {
            Self::Avx512(_) => Order::Quads,
            Self::Avx2(_) => Order::Pairs,
        }
    }

    /// What is xored into stored int8 values: both multiply unsigned inputs.
    pub fn flip(self) -> u8 {
        0x80
    }

    /// A linear map at every pixel of a grid, and what follows it.
    ///
    /// # Panics
    /// If a tile would leave the memory or the lines.
    pub fn map(self, map: &Map, memory: &mut [u8]) {
        map.check(memory.len());
        // SAFETY: the token proves the instructions, the check that every tile stays in memory and lines.
        unsafe {
            match self {
                Self::Avx512(_) => avx512::map(map, memory.as_mut_ptr()),
                Self::Avx2(_) => avx2::map(map, memory.as_mut_ptr()),
            }
        }
    }

    /// A head: `f32(acc) * scale` of a map of one pixel, `[channels]`.
    ///
    /// # Panics
    /// If a tile would leave the memory or the lines, or the outputs do not fit the map.
    pub fn real(self, map: &Map, memory: &[u8], y: &mut [f32]) {
        map.check(memory.len());
        assert_eq!((map.extent, y.len()), ([1, 1], map.packed.channels), "outputs of a head");
        // SAFETY: as `map`.
        unsafe {
            match self {
                Self::Avx512(_) => avx512::real(map, memory.as_ptr(), y),
                Self::Avx2(_) => avx2::real(map, memory.as_ptr(), y),
            }
        }
    }

    /// `rounds` times a few hundred products and sums, all out of registers; returns their number.
    pub fn multiply_at_peak(self, rounds: u32) -> u64 {
        // SAFETY: the token proves the instructions.
        unsafe {
            match self {
                Self::Avx512(_) => avx512::multiply_at_peak(rounds),
                Self::Avx2(_) => avx2::multiply_at_peak(rounds),
            }
        }
    }
}

/// A method that is a function of [`rows`], compiled for each instruction set.
macro_rules! compiled {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*)) => {
        impl Isa {
            $(#[$doc])*
            #[allow(clippy::too_many_arguments)]
            pub fn $name(self, $($argument: $type),*) {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
                fn for_avx512($($argument: $type),*) {
                    rows::$name($($argument),*)
                }
                #[target_feature(enable = "avx2")]
                fn for_avx2($($argument: $type),*) {
                    rows::$name($($argument),*)
                }
                // SAFETY: the token proves the instructions.
                unsafe {
                    match self {
                        Self::Avx512(_) => for_avx512($($argument),*),
                        Self::Avx2(_) => for_avx2($($argument),*),
                    }
                }
            }
        }
    };
}

compiled!(
    /// [`rows::affine`].
    affine(x: (&Grid, &[u8]), flip: u8, constants: [Le<f32>; 2], out: Output, y: (&Grid, &mut [u8]))
);
compiled!(
    /// [`rows::add`].
    add(a: (&Grid, &[u8]), b: (&Grid, &[u8]), flip: u8, ratio: [f32; 2], out: Output, y: (&Grid, &mut [u8]))
);
compiled!(
    /// [`rows::avg_pool`].
    avg_pool(x: (&Grid, &[u8]), flip: u8, window: &Window, scale: f32, out: Output, y: (&Grid, &mut [u8]))
);

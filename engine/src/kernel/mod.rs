//! Kernels: the arithmetic of each operation over slices. [`scalar`] is the truth; faster ones equal it bit for bit.

#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod avx2;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod avx512;
pub mod dsp;
#[cfg(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) mod grid;
#[cfg(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) mod isa;
#[cfg(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) mod map;
pub mod mve;
#[cfg(all(feature = "std", target_arch = "aarch64"))]
mod neon;
#[cfg(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) mod packed;
#[cfg(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) mod part;
pub mod ring;
#[cfg(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod rows;
pub mod scalar;
#[cfg(feature = "std")]
pub(crate) mod team;
#[cfg(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) mod winograd;

/// [`scalar::affine`] by the chip's instructions, where it has some.
pub(crate) fn affine(x: &[i8], map: &ring::Affine, y: &mut [i8]) {
    #[cfg(all(feature = "mve", target_arch = "arm"))]
    mve::affine(x, map, y);
    #[cfg(all(feature = "dsp", not(feature = "mve"), target_arch = "arm"))]
    dsp::affine(x, map, y);
    #[cfg(not(all(any(feature = "dsp", feature = "mve"), target_arch = "arm")))]
    scalar::affine(x, map.zero, map.mul, map.add, map.out, y);
}

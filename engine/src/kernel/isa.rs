//! The instruction sets that have kernels, and which of them a CPU has.

// Kernels are called here: each block says which check above it makes it sound.
#![allow(unsafe_code)]

#[cfg(all(test, target_arch = "x86_64"))]
use super::avx2::vnni::wide;
use super::grid::Grid;
use super::map::Map;
#[cfg(target_arch = "aarch64")]
use super::neon::{dotprod, i8mm, plain};
use super::packed::Order;
use super::part::{Part, Parts, Shares};
use super::team::Team;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx2::vnni, avx512};
use super::{rows, winograd};
use crate::artifact::Model;
use crate::image::{Axis, ImagePolicy, Pixels, separable};
use crate::inference::{Evidence, Posterior};
use crate::layer::Window;
use crate::requant::Output;
use crate::tensor::{Le, Shape};

/// The memory of an inference, as members of a team share it.
#[derive(Clone, Copy)]
struct Shared(*mut u8);

// SAFETY: `Isa::map` says who writes what.
unsafe impl Sync for Shared {}

impl Shared {
    fn first(self) -> *mut u8 {
        self.0
    }
}

/// The sets of an architecture, the fastest first: token, module, name in reports, how its kernels read weights and those of
/// depthwise convolutions, what is xored into stored int8 values, and the features for which `rows` is compiled.
macro_rules! instruction_sets {
    ($($(#[doc = $doc:literal])* $(#[cfg($when:meta)])? $set:ident, $module:ident, $name:literal, [$order:expr, $depthwise:expr], $tiles:expr, $flip:literal, $features:literal;)*) => {
        /// An instruction set that this CPU has: the tokens are proof.
        #[derive(Debug, Clone, Copy)]
        pub enum Isa {
            $($(#[doc = $doc])* $(#[cfg($when)])? $set($module::$set),)*
        }

        impl Isa {
            /// Every set of this CPU that has kernels, the fastest first.
            pub fn all() -> impl Iterator<Item = Self> {
                [$($(#[cfg($when)])? $module::detect().map(Self::$set),)*].into_iter().flatten()
            }

            /// As reports name it.
            pub fn name(self) -> &'static str {
                match self {
                    $($(#[cfg($when)])? Self::$set(_) => $name,)*
                }
            }

            /// How its kernels read weights.
            pub fn order(self) -> Order {
                match self {
                    $($(#[cfg($when)])? Self::$set(_) => $order,)*
                }
            }

            /// How its kernels read the weights of depthwise convolutions.
            pub fn depthwise(self) -> Order {
                match self {
                    $($(#[cfg($when)])? Self::$set(_) => $depthwise,)*
                }
            }

            /// What it makes of Winograd's tiles, if it has kernels for them.
            pub fn winograd(self) -> Option<winograd::Uses> {
                match self {
                    $($(#[cfg($when)])? Self::$set(_) => $tiles,)*
                }
            }

            /// What is xored into stored int8 values: 0x80 where the kernels multiply unsigned inputs.
            pub fn flip(self) -> u8 {
                match self {
                    $($(#[cfg($when)])? Self::$set(_) => $flip,)*
                }
            }

            /// A linear map at every pixel of a grid, and what follows it, by all members of a team.
            ///
            /// # Panics
            /// If a tile would leave the memory or the lines.
            pub fn map(self, map: &Map, memory: &mut [u8], team: Option<&mut Team>) {
                let members = team.as_ref().map_or(1, |t| t.members());
                map.check(memory.len(), members);
                let map = &map.for_members(members);
                let parts = Parts::new(map, members);
                let memory = Shared(memory.as_mut_ptr());
                let run = |map: &Map, part: Part| {
                    // SAFETY: the token proves the instructions, the check that every tile stays in memory and lines. The
                    // memory is this function's alone until it returns; parts write pixels of their own, and no part
                    // reads what another writes.
                    unsafe {
                        match self {
                            $($(#[cfg($when)])? Self::$set(_) => $module::map(map, part, memory.first()),)*
                        }
                    }
                };
                match team {
                    Some(team) if parts.len() > 1 => {
                        let shares = Shares::new(&parts, members);
                        team.run(&|member| {
                            let own = map.of_member(member);
                            while let Some(n) = shares.next(member) {
                                run(&own, parts.nth(n));
                            }
                        });
                    }
                    _ => run(map, map.whole()),
                }
            }

            /// A head: `f32(acc) * scale` of a map of one pixel, `[channels]`.
            ///
            /// # Panics
            /// If a tile would leave the memory or the lines, or the outputs do not fit the map.
            pub fn real(self, map: &Map, memory: &[u8], y: &mut [f32]) {
                map.check(memory.len(), 1);
                assert_eq!((map.extent, y.len()), ([1, 1], map.packed.channels), "outputs of a head");
                // SAFETY: as `map`.
                unsafe {
                    match self {
                        $($(#[cfg($when)])? Self::$set(_) => $module::real(map, memory.as_ptr(), y),)*
                    }
                }
            }

            /// `rounds` times a few hundred products and sums, all out of registers; returns their number.
            pub fn multiply_at_peak(self, rounds: u32) -> u64 {
                // SAFETY: the token proves the instructions.
                unsafe {
                    match self {
                        $($(#[cfg($when)])? Self::$set(_) => $module::multiply_at_peak(rounds),)*
                    }
                }
            }

            /// [`rows::affine`].
            pub fn affine(self, x: (&Grid, &[u8]), constants: [Le<f32>; 2], out: Output, y: (&Grid, &mut [u8])) {
                // SAFETY: the token proves the instructions.
                unsafe {
                    match self {
                        $($(#[cfg($when)])? Self::$set(_) => {
                            #[target_feature(enable = $features)]
                            fn compiled(x: (&Grid, &[u8]), constants: [Le<f32>; 2], out: Output, y: (&Grid, &mut [u8])) {
                                rows::affine(x, $flip, constants, out, y);
                            }
                            compiled(x, constants, out, y);
                        })*
                    }
                }
            }

            /// [`rows::add`].
            pub fn add(self, operands: [(&Grid, &[u8]); 2], ratio: [f32; 2], out: Output, y: (&Grid, &mut [u8])) {
                // SAFETY: the token proves the instructions.
                unsafe {
                    match self {
                        $($(#[cfg($when)])? Self::$set(_) => {
                            #[target_feature(enable = $features)]
                            fn compiled(ab: [(&Grid, &[u8]); 2], ratio: [f32; 2], out: Output, y: (&Grid, &mut [u8])) {
                                rows::add(ab, $flip, ratio, out, y);
                            }
                            compiled(operands, ratio, out, y);
                        })*
                    }
                }
            }

            /// [`Evidence::of`].
            pub fn evidence(self, model: &Model, image: &[u8], posterior: &Posterior, scratch: &mut [f32]) -> Evidence {
                // SAFETY: the token proves the instructions.
                unsafe {
                    match self {
                        $($(#[cfg($when)])? Self::$set(_) => {
                            #[target_feature(enable = $features)]
                            fn compiled(m: &Model, image: &[u8], p: &Posterior, scratch: &mut [f32]) -> Evidence {
                                Evidence::side_by_side(m, image, p, scratch)
                            }
                            compiled(model, image, posterior, scratch)
                        })*
                    }
                }
            }

            /// [`separable::resize`].
            pub fn resize(self, picture: &Pixels, policy: &ImagePolicy, target: Shape, axes: [Axis; 2], out: &mut [u8]) {
                // SAFETY: the token proves the instructions.
                unsafe {
                    match self {
                        $($(#[cfg($when)])? Self::$set(_) => {
                            #[target_feature(enable = $features)]
                            fn compiled(p: &Pixels, policy: &ImagePolicy, to: Shape, axes: [Axis; 2], out: &mut [u8]) {
                                separable::resize(p, policy, to, axes, out);
                            }
                            compiled(picture, policy, target, axes, out);
                        })*
                    }
                }
            }

            /// [`rows::max_pool`].
            pub fn max_pool(self, x: (&Grid, &[u8]), window: &Window, y: (&Grid, &mut [u8])) {
                // SAFETY: the token proves the instructions.
                unsafe {
                    match self {
                        $($(#[cfg($when)])? Self::$set(_) => {
                            #[target_feature(enable = $features)]
                            fn compiled(x: (&Grid, &[u8]), window: &Window, y: (&Grid, &mut [u8])) {
                                rows::max_pool(x, $flip, window, y);
                            }
                            compiled(x, window, y);
                        })*
                    }
                }
            }

            /// [`rows::avg_pool`].
            pub fn avg_pool(self, x: (&Grid, &[u8]), window: &Window, scale: f32, out: Output, y: (&Grid, &mut [u8])) {
                // SAFETY: the token proves the instructions.
                unsafe {
                    match self {
                        $($(#[cfg($when)])? Self::$set(_) => {
                            #[target_feature(enable = $features)]
                            fn compiled(x: (&Grid, &[u8]), w: &Window, scale: f32, out: Output, y: (&Grid, &mut [u8])) {
                                rows::avg_pool(x, $flip, w, scale, out, y);
                            }
                            compiled(x, window, scale, out, y);
                        })*
                    }
                }
            }
        }
    };
}

/// Winograd's tiles from so many input channels on.
#[cfg(target_arch = "x86_64")]
fn by_pairs(least: u16, two: bool) -> Option<winograd::Uses> {
    Some(winograd::Uses { order: winograd::Order::Pairs, least, two })
}

#[cfg(target_arch = "x86_64")]
instruction_sets! {
    /// AVX-512 with VNNI.
    Avx512, avx512, "avx512-vnni", [Order::Quads, Order::Quads], by_pairs(32, false), 0x80, "avx512f,avx512bw,avx512vl";
    /// AVX-VNNI.
    AvxVnni, vnni, "avx-vnni", [Order::Quads, Order::Quads], by_pairs(32, false), 0x80, "avx2";
    /// AVX-VNNI's kernels as AVX-512 encodes them.
    #[cfg(test)]
    Avx512Ymm, wide, "avx512-vnni-ymm", [Order::Quads, Order::Quads], by_pairs(32, false), 0x80, "avx2";
    /// AVX2.
    Avx2, avx2, "avx2", [Order::Pairs, Order::WideTaps], by_pairs(8, true), 0x80, "avx2";
}

#[cfg(target_arch = "aarch64")]
instruction_sets! {
    /// NEON with matrix multiplication.
    I8mm, i8mm, "neon-i8mm", [Order::Eights, Order::Quads], None, 0, "neon";
    /// NEON with dot products.
    Dotprod, dotprod, "neon-dotprod", [Order::Quads, Order::Quads], None, 0, "neon";
    /// NEON.
    Neon, plain, "neon", [Order::Quads, Order::Taps], Some(winograd::Uses { order: winograd::Order::Apart, least: 8, two: true }), 0, "neon";
}

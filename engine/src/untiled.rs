//! Where no instruction set has kernels: what `tiled.rs` is elsewhere, and never there.

use crate::artifact::Model;
use crate::encoder::Heads;
use crate::inference::{Evidence, Posterior};
use crate::watch::Watch;

/// A model for tiles: none here.
#[derive(Debug, Clone)]
pub(crate) enum Tiled {}

/// What an inference would run over.
pub(crate) struct Memory<'a> {
    pub scratch: &'a mut [u8],
    pub arena: &'a mut [i8],
    pub team: Option<&'a mut Team>,
}

#[cfg(feature = "std")]
pub(crate) use crate::kernel::team::Team;

/// Threads: none here.
#[cfg(not(feature = "std"))]
pub(crate) enum Team {}

impl Tiled {
    pub fn nth(_: &Model, _: usize) -> Option<Self> {
        None
    }

    pub fn kernels(&self) -> &'static str {
        match *self {}
    }

    pub fn kernel_of(&self, _: usize) -> &'static str {
        match *self {}
    }

    pub fn is_intact(&self) -> bool {
        match *self {}
    }

    pub fn packed_len(&self) -> usize {
        match *self {}
    }

    pub fn flip(&mut self, _: usize) {
        match *self {}
    }

    #[cfg(feature = "std")]
    pub fn sum(&self, _: core::ops::Range<usize>) -> u32 {
        match *self {}
    }

    #[cfg(feature = "std")]
    pub fn layer_sum(&self, _: usize) -> u32 {
        match *self {}
    }

    #[cfg(feature = "std")]
    pub fn rest_sum(&self) -> u32 {
        match *self {}
    }

    pub fn scratch_len(&self, _: usize) -> usize {
        match *self {}
    }

    pub fn multiply_at_peak(&self, _: u32) -> u64 {
        match *self {}
    }

    pub fn evidence(&self, _: &Model, _: &[u8], _: &Posterior, _: &mut [f32]) -> Evidence {
        match *self {}
    }

    pub fn run(&self, _: &Model, _: &[u8], memory: Memory, _: Watch, _: Heads) {
        let _ = (memory.scratch, memory.arena, memory.team);
        match *self {}
    }
}

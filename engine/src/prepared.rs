//! A model made ready for the CPU at hand: kernels chosen once by what it can do, weights packed once in their order.
//!
//! The answers are those of [`classify`](crate::classify), bit for bit.

use crate::artifact::Model;
use crate::encoder::{self, Heads};
use crate::error::RunError;
use crate::inference::{self, Answer, Evidence, Posterior, Workspace};
use crate::kernel::scalar;
use crate::tiled::{Memory, Team, Tiled};
use crate::watch::Watch;

/// A model ready to run.
#[derive(Debug, Clone)]
pub struct Prepared<'m> {
    model: Model<'m>,
    tiled: Option<Tiled>,
}

impl<'m> Prepared<'m> {
    /// The model with the fastest kernels of this CPU.
    pub fn new(model: &Model<'m>) -> Self {
        Self::nth(model, 0)
    }

    /// The model with the `n`-th kernels of this CPU, the fastest first; past the last, the scalar ones, which define
    /// every bit.
    pub fn nth(model: &Model<'m>, n: usize) -> Self {
        Self { model: model.clone(), tiled: Tiled::nth(model, n) }
    }

    /// The model with every set of kernels of this CPU, the fastest first, the scalar ones last.
    ///
    /// ```
    /// use paradise_engine::{Model, Prepared};
    /// let bytes = include_bytes!("../../models/fashion-mnist-small/model.pmq");
    /// let model = Model::parse(bytes).unwrap();
    /// let sets: Vec<&str> = Prepared::every(&model).map(|prepared| prepared.kernels()).collect();
    /// assert_eq!(sets.last(), Some(&"scalar"));
    /// ```
    pub fn every(model: &Model<'m>) -> impl Iterator<Item = Self> {
        let mut ended = false;
        (0..).map_while(move |n| {
            if ended {
                return None;
            }
            let prepared = Self::nth(model, n);
            ended = prepared.tiled.is_none();
            Some(prepared)
        })
    }

    /// The model.
    pub fn model(&self) -> &Model<'m> {
        &self.model
    }

    /// The kernels in use, as reports name them.
    pub fn kernels(&self) -> &'static str {
        self.tiled.as_ref().map_or("scalar", Tiled::kernels)
    }

    /// Whether the model's bytes and their packed copy are as they were loaded.
    pub fn is_intact(&self) -> bool {
        self.model.is_intact() && self.tiled.as_ref().is_none_or(Tiled::is_intact)
    }

    /// The same model over other bytes of its length, unchecked, that differ in tensors alone, with the packed copy that was made of
    /// the right ones: a fault in memory after loading. `None` if the length or anything before the tensors differs.
    pub fn over_faulty_bytes<'b>(&self, bytes: &'b [u8]) -> Option<Prepared<'b>> {
        Some(Prepared { model: self.model.over_faulty_bytes(bytes)?, tiled: self.tiled.clone() })
    }

    /// Bytes of the packed copy.
    pub fn packed_len(&self) -> usize {
        self.tiled.as_ref().map_or(0, Tiled::packed_len)
    }

    /// The same with a bit of the packed copy flipped, to see a check fail; wraps past the last. As it was where there is none.
    #[must_use]
    pub fn with_flipped_packed_bit(&self, bit: usize) -> Self {
        let mut other = self.clone();
        if let Some(tiled) = &mut other.tiled {
            tiled.flip(bit);
        }
        other
    }

    /// CRC-32 of these bytes of the packed copy.
    #[cfg(feature = "std")]
    pub(crate) fn packed_sum(&self, bytes: core::ops::Range<usize>) -> u32 {
        self.tiled.as_ref().map_or(0, |tiled| tiled.sum(bytes))
    }

    /// CRC-32 of what else is kept of a layer.
    #[cfg(feature = "std")]
    pub(crate) fn packed_layer(&self, layer: usize) -> u32 {
        self.tiled.as_ref().map_or(0, |tiled| tiled.layer_sum(layer))
    }

    /// CRC-32 of what is kept of heads and groups.
    #[cfg(feature = "std")]
    pub(crate) fn packed_rest(&self) -> u32 {
        self.tiled.as_ref().map_or(0, Tiled::rest_sum)
    }

    /// Bytes of scratch memory that an inference needs beside its [`Workspace`].
    pub fn scratch_len(&self) -> usize {
        self.scratch_len_of(1)
    }

    /// [`Prepared::scratch_len`] of an inference that a team of so many members shares.
    pub fn scratch_len_of(&self, members: usize) -> usize {
        self.tiled.as_ref().map_or(0, |tiled| tiled.scratch_len(members))
    }

    /// The kernel of the set that computes a layer, as reports name it: `tiles`, `tiles by group`, `depthwise` or `rows`;
    /// `loops` among the scalar ones.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn kernel_of(&self, layer: usize) -> &'static str {
        self.tiled.as_ref().map_or("loops", |tiled| tiled.kernel_of(layer))
    }

    /// Multiplies and adds int8 values with the kernels' instructions, `rounds` times, out of registers where they have
    /// such instructions; returns how many products that were. Timing it tells the most that the CPU can do.
    pub fn multiply_at_peak(&self, rounds: u32) -> u64 {
        match &self.tiled {
            Some(tiled) => tiled.multiply_at_peak(rounds),
            None => scalar::multiply_at_peak(rounds),
        }
    }

    /// [`classify`](crate::classify) with these kernels.
    ///
    /// # Errors
    /// If the image, the arena, the float workspace or the scratch memory has the wrong size.
    pub fn classify<'w>(
        &self,
        image: &[u8],
        memory: &'w mut Workspace<'_>,
        scratch: &mut [u8],
        watch: Watch,
    ) -> Result<Answer<'w>, RunError> {
        self.run(image, memory.reborrow(), scratch, watch, None)
    }

    /// [`Prepared::classify`] by a team: the same bits. A small network, and the scalar kernels, stay on the caller's thread.
    ///
    /// # Errors
    /// As [`Prepared::classify`].
    #[cfg(feature = "std")]
    pub fn classify_together<'w>(
        &self,
        image: &[u8],
        memory: &'w mut Workspace<'_>,
        scratch: &mut [u8],
        watch: Watch,
        team: &mut Team,
    ) -> Result<Answer<'w>, RunError> {
        self.run(image, memory.reborrow(), scratch, watch, Some(team))
    }

    /// [`Prepared::classify`] in memory whose answer may outlive its [`Workspace`].
    pub(crate) fn run<'w>(
        &self,
        image: &[u8],
        memory: Workspace<'w>,
        scratch: &mut [u8],
        watch: Watch,
        team: Option<&mut Team>,
    ) -> Result<Answer<'w>, RunError> {
        #[cfg(feature = "std")]
        let members = team.as_ref().map_or(1, |team| team.members());
        #[cfg(not(feature = "std"))]
        let members = 1;
        let need = self.scratch_len_of(members);
        if scratch.len() < need {
            return Err(RunError::Scratch { need, got: scratch.len() });
        }
        let model = &self.model;
        let evidence = |posterior: &Posterior, scratch: &mut [f32]| match &self.tiled {
            Some(tiled) => tiled.evidence(model, image, posterior, scratch),
            None => Evidence::of(model, image, posterior, scratch),
        };
        let encode = |arena: &mut [i8], heads: Heads| {
            if let Some(tiled) = &self.tiled {
                return tiled.run(model, image, Memory { scratch, arena, team }, watch, heads);
            }
            let mut watch = watch;
            if let Watch::Groups(after) = &mut watch {
                after(0..0);
            }
            let mut observe = |layer, output: &[i8]| match &mut watch {
                Watch::Nobody => {}
                Watch::Layers(observe) => observe(layer, output),
                Watch::Groups(after) => after(layer..layer + 1),
                Watch::Memory(after) => after(layer..layer + 1, &mut []),
            };
            encoder::run(model, image, arena, &mut observe, heads);
        };
        inference::run(model, image, memory, encode, evidence)
    }
}

//! A model as a microcontroller runs it: lowered while its firmware is built.
//!
//! ```text
//! model.pmq --lower (host)--> lowered model, in flash --Lowered::parse (chip)--> steps --> the answers of model.pmq, bit for bit
//! ```
//! A lowered model is a sealed file like `model.pmq` and holds all that one holds, but the weights of its convolutions lie in the
//! order of a core's kernels ([`Layout`]), and its activations where these kernels need them: a per-channel map is applied while a
//! convolution reads its input, a residual sum while it writes its output, so neither has a map of its own in memory. What runs in
//! one go is written down as [`Step`]s. The file names the SHA-256 of the `model.pmq` that it came from.

mod format;
mod geometry;
#[cfg(feature = "alloc")]
mod lower;
#[cfg(feature = "alloc")]
mod plan;
mod run;
mod valid;

pub(crate) use format::ABOUT;
pub use format::{KNOWN, Layout, MAGIC, Step, VERSION, Work};
#[cfg(feature = "alloc")]
pub use lower::lower;

use crate::artifact::Model;
use crate::container;
use crate::encoder::Heads;
use crate::error::{FormatError, RunError};
use crate::header::Header;
use crate::inference::{self, Answer, Evidence, Posterior, Workspace};
use crate::record::Records;
use format::About;

/// A valid lowered model, borrowed from its bytes.
#[derive(Debug, Clone)]
pub struct Lowered<'a> {
    model: Model<'a>,
    about: About,
    steps: Records<'a, Step>,
}

impl<'a> Lowered<'a> {
    /// Parses and validates a lowered model.
    ///
    /// # Errors
    /// Any byte that is not as it should be; see [`FormatError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        // Kernels load words of what lies at multiples of four in the file.
        if cfg!(target_arch = "arm") && !bytes.as_ptr().addr().is_multiple_of(4) {
            return Err(FormatError::Invalid("a lowered model does not begin at a multiple of four bytes"));
        }
        let sealed = container::open(bytes, MAGIC, format::VERSION, format::KNOWN)?;
        let about: About = crate::artifact::record(&sealed, format::ABOUT)?;
        if Layout::HERE.is_some_and(|here| here != about.layout) {
            return Err(FormatError::Section { tag: format::ABOUT, why: "is of another core's layout" });
        }
        let steps = crate::artifact::records(&sealed, format::STEPS)?;
        let lowered = Self { model: Model::view(bytes, sealed)?, about, steps };
        valid::lowered(&lowered)?;
        Ok(lowered)
    }

    /// What it says of the model. The weights of convolutions that [`Step`]s run are not in their usual order.
    pub fn model(&self) -> &Model<'a> {
        &self.model
    }

    /// The order of its weights.
    pub fn layout(&self) -> Layout {
        // A constant on a chip, so that it carries no other layout's kernels.
        Layout::HERE.unwrap_or(self.about.layout)
    }

    /// SHA-256 of the `model.pmq` that it came from, as that file states it.
    pub fn source(&self) -> [u8; 32] {
        self.about.source
    }

    /// Hashes the resident bytes again and compares: false if memory changed since loading.
    pub fn is_intact(&self) -> bool {
        self.model.is_intact()
    }

    /// What runs, in order.
    pub fn steps(&self) -> Records<'a, Step> {
        self.steps
    }

    /// Words of scratch memory that an inference needs beside its [`Workspace`].
    pub fn scratch_len(&self) -> usize {
        self.about.scratch as usize
    }

    /// [`classify`](crate::classify); `observe(layer, output)` sees the output of each layer that is stored.
    ///
    /// # Errors
    /// If the image, the arena, the float workspace or the scratch memory has the wrong size.
    pub fn classify<'w>(
        &self,
        image: &[u8],
        memory: &'w mut Workspace<'_>,
        scratch: &mut [u32],
        observe: &mut dyn FnMut(usize, &[i8]),
    ) -> Result<Answer<'w>, RunError> {
        let (need, got) = (4 * self.scratch_len(), 4 * scratch.len());
        if got < need {
            return Err(RunError::Scratch { need, got });
        }
        let model = &self.model;
        let encode = |arena: &mut [i8], heads: Heads| run::run(self, image, arena, scratch, observe, heads);
        let evidence = |posterior: &Posterior, scratch: &mut [f32]| Evidence::of(model, image, posterior, scratch);
        inference::run(model, image, memory.reborrow(), encode, evidence)
    }
}

/// The activations that a step reads.
struct Reads {
    /// What a convolution reads, or a layer's first operand.
    source: u16,
    /// A sum's other operand.
    second: Option<u16>,
}

/// What a step reads, and the activation that it stores.
fn reads(header: &Header, step: &Step) -> (Reads, u16) {
    let layer = header.layers.at(step.layer.into());
    let source = step.affine.map_or(layer.inputs[0], |affine| header.layers.at(affine.into()).inputs[0]);
    let second = match step.sum.map(|sum| header.layers.at(sum.into()).inputs) {
        Some([a, b]) => Some(if a == step.layer + 1 { b } else { a }),
        None => (layer.op.arity() == 2).then_some(layer.inputs[1]),
    };
    (Reads { source, second }, step.stores() + 1)
}

#[cfg(test)]
mod tests;

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

use crate::appearance::Sums;
use crate::artifact::Model;
use crate::container;
use crate::encoder;
use crate::error::{FormatError, RunError};
use crate::header::Header;
use crate::inference::{self, Answer, Evidence, Posterior};
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
        let lowered = Self::open(bytes)?;
        valid::lowered(&lowered)?;
        Ok(lowered)
    }

    /// A lowered model that [`Lowered::parse`] has found valid on the machine that built the firmware: its SHA-256 says that it is
    /// the same. A chip saves the code of all other rules; a model that breaks one would panic.
    ///
    /// # Errors
    /// If the bytes are not those that were sealed, or for another core.
    pub fn open(bytes: &'a [u8]) -> Result<Self, FormatError> {
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
        Ok(Self { model: Model::view(bytes, sealed)?, about, steps })
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

    /// Words of memory that an inference needs beside its arena.
    pub fn scratch_len(&self) -> usize {
        self.about.scratch as usize
    }

    /// Where an image goes that [`Lowered::classify_placed`] will find: the first activation's place, u8 `[h][w][c]`.
    ///
    /// # Errors
    /// If the arena is too small.
    pub fn input<'m>(&self, arena: &'m mut [i8]) -> Result<&'m mut [u8], RunError> {
        let (need, got) = (self.model.header().arena_bytes as usize, arena.len());
        if got < need {
            return Err(RunError::Arena { need, got });
        }
        Ok(bytemuck::cast_slice_mut(&mut arena[self.model.header().activations.at(0).range()]))
    }

    /// [`classify`](crate::classify); `observe(layer, output)` sees the output of each layer that is stored.
    ///
    /// # Errors
    /// If the image, the arena or the scratch memory has the wrong size.
    pub fn classify<'m>(
        &self,
        image: &[u8],
        memory: &'m mut Memory<'_>,
        observe: &mut dyn FnMut(usize, &[i8]),
    ) -> Result<Answer<'m>, RunError> {
        let place = self.input(memory.arena)?;
        if image.len() != place.len() {
            return Err(RunError::Image { need: place.len(), got: image.len() });
        }
        place.copy_from_slice(image);
        self.classify_placed(memory, observe)
    }

    /// [`Lowered::classify`] of an image that was written where [`Lowered::input`] says; it is gone then. So a device needs no
    /// memory for a picture beside the arena.
    ///
    /// # Errors
    /// If the arena or the scratch memory has the wrong size.
    pub fn classify_placed<'m>(
        &self,
        memory: &'m mut Memory<'_>,
        observe: &mut dyn FnMut(usize, &[i8]),
    ) -> Result<Answer<'m>, RunError> {
        let (model, Memory { arena, scratch }) = (&self.model, memory);
        let (need, got) = (4 * self.scratch_len(), 4 * scratch.len());
        if got < need {
            return Err(RunError::Scratch { need, got });
        }
        let image = self.input(arena)?;
        let sums = Sums::of(image, model.header().input);
        // u8 - 128, exactly.
        image.iter_mut().for_each(|pixel| *pixel ^= 0x80);
        run::run(self, arena, scratch, observe);
        // The ring has done its work: what follows takes its place.
        let floats = bytemuck::cast_slice_mut(scratch);
        let evidence =
            |posterior: &Posterior, scratch: &mut [f32]| Evidence::from_sums(model, &sums, posterior, scratch);
        inference::conclude(model, floats, |heads| encoder::heads(model, arena, heads), evidence)
    }
}

/// What an inference left in its scratch memory: the vectors of the last answer.
#[derive(Debug, Clone, Copy)]
pub struct Vectors<'m> {
    /// Posterior means, `[d]`.
    pub mu: &'m [f32],
    /// Logarithms of the posterior's standard deviations, `[d]`.
    pub log_sigma: &'m [f32],
    /// `[classes]`.
    pub logits: &'m [f32],
}

impl Lowered<'_> {
    /// The vectors of the last answer, for a device that is asked for them later. Anything, if there was none.
    ///
    /// # Errors
    /// If the scratch memory is too small.
    pub fn last<'m>(&self, scratch: &'m [u32]) -> Result<Vectors<'m>, RunError> {
        let (need, got) = (4 * self.scratch_len(), 4 * scratch.len());
        if got < need {
            return Err(RunError::Scratch { need, got });
        }
        let (d, classes) = (usize::from(self.model.header().latent), usize::from(self.model.header().classes));
        // As `inference` cuts its float memory: mu, s, log sigma, sigma, logits.
        let floats: &[f32] = bytemuck::cast_slice(scratch);
        Ok(Vectors { mu: &floats[..d], log_sigma: &floats[2 * d..3 * d], logits: &floats[4 * d..4 * d + classes] })
    }
}

/// The memory of an inference of a lowered model.
#[derive(Debug)]
pub struct Memory<'m> {
    /// At least [`Header::arena_bytes`](crate::Header::arena_bytes).
    pub arena: &'m mut [i8],
    /// At least [`Lowered::scratch_len`] words.
    pub scratch: &'m mut [u32],
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

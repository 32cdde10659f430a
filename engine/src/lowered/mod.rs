//! A model as a microcontroller runs it: lowered while its firmware is built.
//!
//! ```text
//! model.pmq --lower (host)--> lowered model --Lowered::embedded (in a chip's program)--> steps --> the answers of model.pmq
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

pub use format::{KNOWN, Layout, MAGIC, Step, VERSION, Work};
#[cfg(feature = "alloc")]
pub use lower::lower;

use crate::appearance::Sums;
use crate::artifact::{self, Model};
use crate::container::{self, Sealed};
use crate::encoder;
use crate::error::{FormatError, RunError, attempt};
use crate::header::Header;
use crate::inference::{self, Answer, Evidence, Posterior};
use crate::layer::Layer;
use crate::part::{Part, Parts};
use crate::record::{Fields, Record, Records};
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
        let lowered = Self::view(container::open(bytes, MAGIC, format::VERSION, format::KNOWN)?)?;
        lowered.model.decode()?;
        artifact::decode(&lowered.steps, format::STEPS)?;
        valid::lowered(&lowered)?;
        Ok(lowered)
    }

    /// A lowered model that is part of a program, read while compiling, so that neither its description nor the code that reads
    /// one is in a chip's memory: a model that [`Lowered::parse`] has found valid on the machine that built the program. One
    /// that is not panics when it is run. [`Lowered::is_intact`] says whether the bytes are still those.
    ///
    /// # Panics
    /// If the bytes are none of this core's: where this is a constant, the program does not compile.
    pub const fn embedded(bytes: &'a [u8]) -> Self {
        let Ok(sealed) = container::embedded(bytes, MAGIC, format::VERSION, format::KNOWN) else {
            panic!("no lowered model of this version");
        };
        let Ok(lowered) = Self::view(sealed) else { panic!("a lowered model that lacks something") };
        match Layout::HERE {
            Some(here) if here as u8 != lowered.about.layout as u8 => panic!("a model of another core's layout"),
            _ if !lowered.parts().are_built() => panic!("a model that needs a part of the engine that is not built"),
            _ => lowered,
        }
    }

    const fn view(sealed: Sealed<'a>) -> Result<Self, FormatError> {
        let mut fields = attempt!(artifact::fields(&sealed, format::ABOUT));
        let about = About::read(&mut fields);
        attempt!(artifact::end(&fields, format::ABOUT));
        let steps = Records::new(attempt!(sealed.section(format::STEPS)));
        Ok(Self { model: attempt!(Model::view(sealed)), about, steps })
    }

    /// What it says of the model. The weights of convolutions that [`Step`]s run are not in their usual order.
    pub const fn model(&self) -> &Model<'a> {
        &self.model
    }

    /// The parts of the engine that it needs.
    pub const fn parts(&self) -> Parts {
        let header = self.model.header();
        let (mut parts, mut i) = (Parts::of_confidence(header), 0);
        while i < self.steps.bytes().len() / Step::SIZE {
            let step = Step::read(&mut Fields::nth(self.steps.bytes(), Step::SIZE, i));
            if matches!(step.work, Work::Layer) {
                let mut fields = Fields::nth(header.layers.bytes(), Layer::SIZE, step.layer as usize);
                parts = parts.with(Part::of_layer(&Layer::read(&mut fields)));
            }
            i += 1;
        }
        parts
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

    /// Hashes the resident bytes again and compares: false if memory changed since loading, or if they lie where the kernels of
    /// a core cannot load words, not at a multiple of four.
    pub fn is_intact(&self) -> bool {
        let aligned = self.model.file().as_ptr().addr().is_multiple_of(4);
        (aligned || !cfg!(target_arch = "arm")) && self.model.is_intact()
    }

    /// What runs, in order.
    pub fn steps(&self) -> Records<'a, Step> {
        self.steps
    }

    /// Words of memory that an inference needs beside its arena.
    pub const fn scratch_len(&self) -> usize {
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
        let (words, rest) = image.as_chunks_mut::<4>();
        words.iter_mut().for_each(|word| *word = (u32::from_ne_bytes(*word) ^ 0x8080_8080).to_ne_bytes());
        rest.iter_mut().for_each(|pixel| *pixel ^= 0x80);
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

//! `selftest.bin`: golden images with what every operation must answer, encoded pictures with what becomes of them, and
//! labelled robustness probes.

mod records;
#[cfg(feature = "alloc")]
mod written;

#[cfg(feature = "alloc")]
pub use written::{emit, reduced, with_trials};

use crate::artifact::{decode, end, fields};
use crate::container::{self, BLOB, Sealed, Tag, Tensors};
use crate::error::{FormatError, attempt};
use crate::layer::MAX_LAYERS;
use crate::record::{Record, Records};
use crate::selftest::trials::Trials;
use crate::tensor::{Le, Span};
use crate::typicality::Distances;
use serde::{Deserialize, Serialize};

/// First bytes of `selftest.bin`.
pub const MAGIC: &[u8; 8] = b"PMQSELFT";
/// The one readable version.
pub const VERSION: u32 = 4;
/// Most golden images.
pub const MAX_CASES: usize = 16;
/// Most encoded pictures.
pub const MAX_ENCODED: usize = 16;
/// Most probe sets.
pub const MAX_PROBES: usize = 8;

/// What the file is about: one [`About`].
pub const ABOUT: Tag = *b"ABOU";
/// One [`Case`] a golden image.
pub const CASES: Tag = *b"CASE";
/// One [`Probes`] a set.
pub const PROBES: Tag = *b"PROB";
/// One [`Encoded`] a picture; a device that decodes none leaves them aside.
pub const ENCODED: Tag = *b"pict";

/// What the maker found by attacking and disturbing the first probes: one [`Trials`]. A device that does neither leaves it aside.
pub const TRIALS: Tag = *b"tria";

/// Every section that this build understands.
pub const KNOWN: &[Tag] = &[ABOUT, CASES, PROBES, ENCODED, TRIALS, BLOB];

/// One golden image and its outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    /// u8 HWC image.
    pub image: Span,
    /// u32 `[layers]`: CRC-32 of each layer's int8 output in NHWC order.
    pub crc: Span,
    /// f32 of the int8 engine: mu `[d]`, log sigma `[d]`, logits `[classes]`; equal bit for bit.
    pub int8_outputs: Span,
    /// The same of the float encoder, which a float back end meets within [`Header::float_tolerance`].
    pub float_outputs: Span,
    /// Rate of the int8 engine, nats, equal bit for bit.
    pub rate_nats: f32,
    /// Squared distances of the int8 engine, equal bit for bit.
    pub distances: Distances,
    /// Class of the int8 engine.
    pub class: u16,
    /// Whether the int8 engine accepts.
    pub accept: bool,
}

/// Where the images of a self-test came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// They are test images of the model's data set: the probes' accuracies are samples of the model's.
    #[default]
    DataSet,
    /// They were synthesised from the network's own aggregate posterior: nothing of a data set is in them, and their
    /// accuracies are what this device must reach, not what it reaches on pictures of the world.
    #[serde(alias = "drawn")]
    Synthesised,
}

impl Origin {
    /// What the images are, in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DataSet => "test images",
            Self::Synthesised => "synthesised pictures",
        }
    }
}

/// What was done to the images of a probe set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// Nothing.
    Clean,
    /// Gaussian noise, rounded to 8 bits.
    Noisy,
    /// An attack on the float twin, rounded to 8 bits inside the ball.
    Adversarial,
}

impl ProbeKind {
    /// The kind's name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Noisy => "noisy",
            Self::Adversarial => "adversarial",
        }
    }
}

/// Labelled images with the accuracy they must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probes {
    /// What was done to them.
    pub kind: ProbeKind,
    /// Size of the perturbation in 1/255: radius of the ball (adversarial) or standard deviation (noisy).
    pub eps_pixels: f32,
    /// Number of images.
    pub n: u16,
    /// u8 `[n][h][w][c]`.
    pub images: Span,
    /// u32 `[n]`.
    pub labels: Span,
    /// Correct answers required of any back end.
    pub min_correct: u16,
}

/// One picture as a file, and what becomes of it on its way through decoder, orientation, transparency and resize.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Encoded {
    /// The bytes of a JPEG or PNG file.
    pub file: Span,
    /// CRC-32 of the u8 HWC input that they become.
    pub input_crc: u32,
    /// Rate of the int8 engine, nats, equal bit for bit.
    pub rate_nats: f32,
    /// Class of the int8 engine.
    pub class: u16,
    /// Whether the int8 engine accepts.
    pub accept: bool,
}

/// What a self-test file is about: section `ABOU`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct About {
    /// [`crate::Model::hash`] of the model that it tests.
    pub model: [u8; 32],
    /// Layers of that model.
    pub layers: u16,
    /// Values in an output vector: 2 d + classes.
    pub outputs: u16,
    /// Bytes of an image.
    pub image_bytes: u32,
    /// Largest difference of a float back end, absolute.
    pub float_tolerance: f32,
    /// Where the images came from.
    pub origin: Origin,
}

/// The description of a self-test file; `C`, `E` and `P` are tables, slices where a file is being written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Header<'a, C = Records<'a, Case>, E = Records<'a, Encoded>, P = Records<'a, Probes>> {
    /// [`crate::Model::hash`] of the model that it tests.
    pub model: [u8; 32],
    /// Layers of that model.
    pub layers: u16,
    /// Bytes of an image.
    pub image_bytes: u32,
    /// Values in an output vector: 2 d + classes.
    pub outputs: u16,
    /// Largest difference of a float back end, absolute.
    pub float_tolerance: f32,
    /// Where the images came from.
    pub origin: Origin,
    /// Golden images.
    pub cases: C,
    /// Encoded pictures.
    pub encoded: E,
    /// Probe sets.
    pub probes: P,
    file: core::marker::PhantomData<&'a [u8]>,
}

/// A description whose tables are still in memory of their own.
pub type Draft<'a> = Header<'a, &'a [Case], &'a [Encoded], &'a [Probes]>;

impl<'a, C, E, P> Header<'a, C, E, P> {
    /// A description of its parts.
    pub const fn new(about: About, cases: C, encoded: E, probes: P) -> Self {
        let About { model, layers, outputs, image_bytes, float_tolerance, origin } = about;
        let file = core::marker::PhantomData;
        Self { model, layers, image_bytes, outputs, float_tolerance, origin, cases, encoded, probes, file }
    }

    /// The part that is no table.
    pub fn about(&self) -> About {
        About {
            model: self.model,
            layers: self.layers,
            outputs: self.outputs,
            image_bytes: self.image_bytes,
            float_tolerance: self.float_tolerance,
            origin: self.origin,
        }
    }
}

/// A valid self-test file, borrowed from its bytes.
#[derive(Debug, Clone)]
pub struct Golden<'a> {
    sealed: Sealed<'a>,
    header: Header<'a>,
    tensors: Tensors<'a>,
}

impl<'a> Golden<'a> {
    /// Parses and validates `selftest.bin`.
    ///
    /// ```
    /// use paradise_engine::golden::Golden;
    /// let bytes = include_bytes!("../../models/fashion-mnist-small/selftest.bin");
    /// let golden = Golden::parse(bytes).unwrap();
    /// assert!(golden.header().probes.iter().all(|set| set.min_correct <= set.n));
    /// ```
    ///
    /// # Errors
    /// Any byte that is not as it should be; see [`FormatError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let golden = Self::view(container::open(bytes, MAGIC, VERSION, KNOWN)?)?;
        decode(&golden.header.cases, CASES)?;
        decode(&golden.header.encoded, ENCODED)?;
        decode(&golden.header.probes, PROBES)?;
        golden.validate()?;
        Ok(golden)
    }

    /// A self-test that is part of a program, read while compiling: one that [`Golden::parse`] has found valid on the machine
    /// that built the program. [`Golden::is_intact`] says whether the bytes are still those.
    ///
    /// # Panics
    /// If the bytes are none: where this is a constant, the program does not compile.
    pub const fn embedded(bytes: &'a [u8]) -> Self {
        let Ok(sealed) = container::embedded(bytes, MAGIC, VERSION, KNOWN) else {
            panic!("no self-test of this version");
        };
        let Ok(golden) = Self::view(sealed) else { panic!("a self-test that lacks something") };
        golden
    }

    const fn view(sealed: Sealed<'a>) -> Result<Self, FormatError> {
        let mut fields = attempt!(fields(&sealed, ABOUT));
        let about = About::read(&mut fields);
        attempt!(end(&fields, ABOUT));
        let encoded = match sealed.optional(ENCODED) {
            Some(encoded) => encoded,
            None => &[],
        };
        let [cases, probes] = [attempt!(sealed.section(CASES)), attempt!(sealed.section(PROBES))];
        let header = Header::new(about, Records::new(cases), Records::new(encoded), Records::new(probes));
        Ok(Self { sealed, header, tensors: Tensors::new(attempt!(sealed.section(BLOB))) })
    }

    /// Hashes the resident bytes again and compares: false if memory changed since loading.
    pub fn is_intact(&self) -> bool {
        self.sealed.is_intact()
    }

    fn validate(&self) -> Result<(), FormatError> {
        let h = &self.header;
        let sized = |span: Span, bytes: u64| self.tensors.sized(span, bytes);
        if h.layers as usize > MAX_LAYERS || h.image_bytes == 0 || h.cases.is_empty() {
            return Err(FormatError::Invalid("a self-test has golden images of a model"));
        }
        let counts = [
            ("golden images", h.cases.len(), MAX_CASES),
            ("encoded pictures", h.encoded.len(), MAX_ENCODED),
            ("sets of probes", h.probes.len(), MAX_PROBES),
        ];
        for (what, got, limit) in counts {
            if got > limit {
                return Err(FormatError::Limit { what, limit: limit as u64, got: got as u64 });
            }
        }
        if !(h.float_tolerance.is_finite() && h.float_tolerance > 0.0) {
            return Err(FormatError::Invalid("the float tolerance is not finite and positive"));
        }
        for case in h.cases.iter() {
            sized(case.image, u64::from(h.image_bytes))?;
            sized(case.crc, 4 * u64::from(h.layers))?;
            sized(case.int8_outputs, 4 * u64::from(h.outputs))?;
            sized(case.float_outputs, 4 * u64::from(h.outputs))?;
        }
        for picture in h.encoded.iter() {
            self.tensors.checked(picture.file)?;
        }
        if let Some(trials) = self.trials()? {
            trials.validate(h.probes.get(0).map_or(0, |set| set.n))?;
        }
        for probe in h.probes.iter() {
            sized(probe.images, u64::from(h.image_bytes) * u64::from(probe.n))?;
            sized(probe.labels, 4 * u64::from(probe.n))?;
            if probe.min_correct > probe.n || probe.n == 0 {
                return Err(FormatError::Invalid("a probe set asks for more than it has"));
            }
        }
        Ok(())
    }

    /// The description.
    pub fn header(&self) -> &Header<'a> {
        &self.header
    }

    /// What the maker found by attacking and disturbing the first set of probes, if that was done.
    ///
    /// # Errors
    /// Only before validation.
    pub fn trials(&self) -> Result<Option<Trials>, FormatError> {
        if self.sealed.optional(TRIALS).is_none() {
            return Ok(None);
        }
        let mut fields = fields(&self.sealed, TRIALS)?;
        let trials = Trials::read(&mut fields);
        end(&fields, TRIALS)?;
        Ok(Some(trials))
    }

    /// How far outputs (mu `[d]`, log sigma `[d]`, logits `[classes]`) are from a case's of the float encoder: the largest
    /// difference, relative where values exceed 1. Infinite if one is not a number or their number is another.
    pub fn float_gap(&self, case: &Case, outputs: impl Iterator<Item = f32> + Clone) -> f32 {
        let expected = self.f32s(case.float_outputs);
        if expected.len() != outputs.clone().count() {
            return f32::INFINITY;
        }
        let gaps = expected.iter().zip(outputs).map(|(a, b)| (a - b).abs() / a.abs().max(1.0));
        // A NaN is as far as can be.
        gaps.fold(0.0, |widest, gap| widest.max(if gap.is_nan() { f32::INFINITY } else { gap }))
    }

    /// The bytes of a span; empty if misplaced, which validation has excluded.
    pub fn bytes(&self, span: Span) -> &'a [u8] {
        self.tensors.bytes(span)
    }

    /// A span as f32.
    pub fn f32s(&self, span: Span) -> Le<'a, f32> {
        self.tensors.numbers(span)
    }

    /// A span as u32.
    pub fn u32s(&self, span: Span) -> Le<'a, u32> {
        self.tensors.numbers(span)
    }
}

/// CRC-32 (IEEE) of an int8 activation.
pub fn crc32(values: &[i8]) -> u32 {
    crc32_bytes(bytemuck::cast_slice(values))
}

/// CRC-32 (IEEE) of bytes, as of an input.
pub fn crc32_bytes(bytes: &[u8]) -> u32 {
    #[cfg(feature = "std")]
    return crc32fast::hash(bytes);
    // Bit by bit: a table would be a kibibyte of a chip's flash.
    #[cfg(not(feature = "std"))]
    crc::Crc::<u32, crc::NoTable>::new(&crc::CRC_32_ISO_HDLC).checksum(bytes)
}

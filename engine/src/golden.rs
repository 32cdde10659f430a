//! `selftest.bin`: golden images with what every operation must answer, and labelled robustness probes.

use crate::container::{self, Tensors};
use crate::error::FormatError;
use crate::layer::MAX_LAYERS;
use crate::tensor::{Le, Span};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// First bytes of `selftest.bin`.
pub const MAGIC: &[u8; 8] = b"PMQSELFT";
/// The one readable version.
pub const VERSION: u32 = 2;
/// Most golden images.
pub const MAX_CASES: usize = 16;
/// Most probe sets.
pub const MAX_PROBES: usize = 8;

/// One golden image and its outputs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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
    /// The network drew them from its aggregate posterior: nothing of a data set is in them, and their accuracies are
    /// what this device must reach, not what it reaches on pictures of the world.
    Drawn,
}

impl Origin {
    /// What the images are, in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DataSet => "test images",
            Self::Drawn => "drawn pictures",
        }
    }
}

/// What was done to the images of a probe set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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

/// The description of a self-test file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
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
    pub cases: Vec<Case, MAX_CASES>,
    /// Probe sets.
    pub probes: Vec<Probes, MAX_PROBES>,
}

/// A valid self-test file, borrowed from its bytes.
#[derive(Debug, Clone)]
pub struct Golden<'a> {
    header: Header,
    tensors: Tensors<'a>,
}

impl<'a> Golden<'a> {
    /// Parses and validates `selftest.bin`.
    ///
    /// # Errors
    /// Any byte that is not as it should be; see [`FormatError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let sealed = container::open(bytes, MAGIC, VERSION)?;
        let header: Header = postcard::from_bytes(sealed.header).map_err(|_| FormatError::Header)?;
        let golden = Self { header, tensors: Tensors::new(sealed.blob) };
        golden.validate()?;
        Ok(golden)
    }

    fn validate(&self) -> Result<(), FormatError> {
        let h = &self.header;
        let sized = |span: Span, bytes: u64| self.tensors.sized(span, bytes);
        if h.layers as usize > MAX_LAYERS || h.image_bytes == 0 || h.cases.is_empty() {
            return Err(FormatError::Invalid("a self-test has golden images of a model"));
        }
        if !(h.float_tolerance.is_finite() && h.float_tolerance > 0.0) {
            return Err(FormatError::Invalid("the float tolerance is not finite and positive"));
        }
        for case in &h.cases {
            sized(case.image, u64::from(h.image_bytes))?;
            sized(case.crc, 4 * u64::from(h.layers))?;
            sized(case.int8_outputs, 4 * u64::from(h.outputs))?;
            sized(case.float_outputs, 4 * u64::from(h.outputs))?;
        }
        for probe in &h.probes {
            sized(probe.images, u64::from(h.image_bytes) * u64::from(probe.n))?;
            sized(probe.labels, 4 * u64::from(probe.n))?;
            if probe.min_correct > probe.n || probe.n == 0 {
                return Err(FormatError::Invalid("a probe set asks for more than it has"));
            }
        }
        Ok(())
    }

    /// The description.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How far outputs (mu `[d]`, log sigma `[d]`, logits `[classes]`) are from a case's of the float encoder: the largest
    /// difference, relative where values exceed 1. Infinite if one is not a number or their number is another.
    pub fn float_gap(&self, case: &Case, outputs: &[f32]) -> f32 {
        let expected = self.f32s(case.float_outputs);
        if expected.len() != outputs.len() {
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
    crc32fast::hash(bytemuck::cast_slice(values))
}

/// The bytes of `selftest.bin`. Does not validate: parse the result.
///
/// # Errors
/// [`FormatError::Header`] if the header does not encode.
#[cfg(feature = "alloc")]
pub fn emit(header: &Header, blob: &container::Blob) -> Result<alloc::vec::Vec<u8>, FormatError> {
    let header = postcard::to_allocvec(header).map_err(|_| FormatError::Header)?;
    Ok(container::seal(MAGIC, VERSION, &header, blob))
}

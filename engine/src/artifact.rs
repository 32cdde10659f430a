//! `model.pmq`: the header that describes a model, and its bytes, read and written together.

use crate::container::{self, Sealed};
use crate::error::FormatError;
use crate::image::ImagePolicy;
use crate::layer::{Activation, Head, Layer, MAX_LAYERS};
use crate::tensor::{Le, Shape, Span};
use crate::validate;
use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

/// First bytes of `model.pmq`.
pub const MAGIC: &[u8; 8] = b"PMQMODEL";
/// The one version of the format that this build reads and writes.
pub const VERSION: u32 = 1;
/// Largest arena a model may declare, bytes.
pub const MAX_ARENA: u32 = 256 << 20;
/// Largest latent dimension d.
pub const MAX_LATENT: u16 = 4096;
/// Most classes.
pub const MAX_CLASSES: u16 = 4096;
/// Most stored calibration values per table.
pub const MAX_TABLE: usize = 1024;

/// The softmax classifier on mu: f32 weights `[classes][d]`, bias `[classes]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classifier {
    /// f32 weights.
    pub weight: Span,
    /// f32 biases.
    pub bias: Span,
}

/// The aggregate posterior `q(z) = sum_c pi_c N(m_c, diag s_c^2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mixture {
    /// Number of components.
    pub components: u16,
    /// f32 `[components]`: log pi.
    pub log_weight: Span,
    /// f32 `[components][d]`: m.
    pub mean: Span,
    /// f32 `[components][d]`: log s.
    pub log_std: Span,
    /// f32 `[components][d]`: 1 / (2 s^2).
    pub half_precision: Span,
}

/// Sorted calibration values: all of them up to [`MAX_TABLE`], else that many exact order statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Calibration images behind the table.
    pub n: u32,
    /// f32 values, ascending.
    pub values: Span,
    /// u32 zero-based rank of each value among all n; the first is 0 and the last n - 1.
    pub ranks: Span,
}

/// Everything about a model but its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Name of the bundle.
    pub name: String<64>,
    /// Input height, width and channels (1: luma, 3: RGB).
    pub input: Shape,
    /// How any picture becomes an input.
    pub policy: ImagePolicy,
    /// The encoder, in execution order.
    pub layers: Vec<Layer, MAX_LAYERS>,
    /// Activation 0 is the image, activation i + 1 the output of layer i.
    pub activations: Vec<Activation, { MAX_LAYERS + 1 }>,
    /// Bytes of the arena, planned at export.
    pub arena_bytes: u32,
    /// Latent dimension d.
    pub latent: u16,
    /// Head for mu.
    pub mu: Head,
    /// Head for s, with sigma = sigmoid(s).
    pub sigma: Head,
    /// Number of classes.
    pub classes: u16,
    /// Class names, UTF-8, one a line.
    pub labels: Span,
    /// Logits from mu.
    pub classifier: Classifier,
    /// What the rate is measured against.
    pub mixture: Mixture,
    /// Calibration rates, nats.
    pub rate_table: Table,
    /// Calibration posterior entropies, nats.
    pub entropy_table: Table,
    /// When to abstain.
    pub thresholds: crate::decision::Thresholds,
}

/// A valid model, borrowed from its bytes.
///
/// Parsing checks the hash, every span, shape, scale, the arena plan and the accumulator bound, so that inference
/// cannot fail, read out of bounds or overflow.
#[derive(Debug, Clone)]
pub struct Model<'a> {
    bytes: &'a [u8],
    header: Header,
    sealed: Sealed<'a>,
}

impl<'a> Model<'a> {
    /// Parses and validates `model.pmq`.
    ///
    /// # Errors
    /// Any byte that is not as it should be; see [`FormatError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let sealed = container::open(bytes, MAGIC, VERSION)?;
        let (header, rest): (Header, _) =
            postcard::take_from_bytes(sealed.header).map_err(|_| FormatError::Header)?;
        if !rest.is_empty() {
            return Err(FormatError::Header);
        }
        let model = Self { bytes, header, sealed };
        validate::model(&model)?;
        Ok(model)
    }

    /// The description.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file's stored SHA-256.
    pub fn hash(&self) -> [u8; 32] {
        self.sealed.hash
    }

    /// Hashes the resident bytes again and compares: false if memory changed since loading.
    pub fn is_intact(&self) -> bool {
        container::digest(self.bytes) == self.sealed.hash
    }

    /// The same model over other bytes of the same length, unchecked: how a self-test injects a fault into its own
    /// copy of the weights. `None` if the length differs.
    pub fn over_faulty_bytes<'b>(&self, bytes: &'b [u8]) -> Option<Model<'b>> {
        let blob = self.blob_offset();
        let sealed = Sealed { header: &[], blob: bytes.get(blob..)?, hash: self.sealed.hash };
        (bytes.len() == self.bytes.len()).then(|| Model { bytes, header: self.header.clone(), sealed })
    }

    /// First byte of the tensors in the file.
    pub fn blob_offset(&self) -> usize {
        self.bytes.len() - self.sealed.blob.len()
    }

    /// Size of the file, bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// f32 values an inference needs beside the arena: mu, s, log sigma, sigma, logits, probabilities.
    pub fn float_len(&self) -> usize {
        4 * self.header.latent as usize + 2 * self.header.classes as usize
    }

    /// The bytes of a span; empty if it is misplaced, which validation has excluded.
    pub(crate) fn raw(&self, span: Span) -> &'a [u8] {
        container::span(self.sealed.blob, span).unwrap_or(&[])
    }

    /// The checked bytes of a span.
    pub(crate) fn checked(&self, span: Span) -> Result<&'a [u8], FormatError> {
        container::span(self.sealed.blob, span)
    }

    /// A tensor of int8.
    pub fn i8s(&self, span: Span) -> &'a [i8] {
        bytemuck::cast_slice(self.raw(span))
    }

    /// A tensor of f32.
    pub fn f32s(&self, span: Span) -> Le<'a, f32> {
        Le::new(self.raw(span))
    }

    /// A tensor of i32.
    pub fn i32s(&self, span: Span) -> Le<'a, i32> {
        Le::new(self.raw(span))
    }

    /// A tensor of u32.
    pub fn u32s(&self, span: Span) -> Le<'a, u32> {
        Le::new(self.raw(span))
    }

    /// The name of class `index`, or an empty string past the last.
    pub fn label(&self, index: usize) -> &'a str {
        let text = core::str::from_utf8(self.raw(self.header.labels)).unwrap_or("");
        text.lines().nth(index).unwrap_or("")
    }

    /// The activation that feeds the heads.
    pub fn features(&self) -> &Activation {
        &self.header.activations[self.header.activations.len() - 1]
    }
}

/// The bytes of `model.pmq` for a header and its tensors. Does not validate: parse the result.
///
/// # Errors
/// [`FormatError::Header`] if the header does not encode.
#[cfg(feature = "alloc")]
pub fn emit(header: &Header, blob: &container::Blob) -> Result<alloc::vec::Vec<u8>, FormatError> {
    let header = postcard::to_allocvec(header).map_err(|_| FormatError::Header)?;
    Ok(container::seal(MAGIC, VERSION, &header, blob))
}

//! `model.pmq`: a model's bytes, read and written together.

use crate::container::{self, Tensors};
use crate::error::FormatError;
use crate::header::Header;
use crate::layer::Activation;
use crate::tensor::{Le, Span};
use crate::validate;

/// First bytes of `model.pmq`.
pub const MAGIC: &[u8; 8] = b"PMQMODEL";
/// The one version of the format that this build reads and writes.
pub const VERSION: u32 = 1;

/// A valid model, borrowed from its bytes.
///
/// Parsing checks the hash, every span, shape, scale, the arena plan and the accumulator bound, so that inference
/// cannot fail, read out of bounds or overflow.
#[derive(Debug, Clone)]
pub struct Model<'a> {
    bytes: &'a [u8],
    header: Header,
    tensors: Tensors<'a>,
    hash: [u8; 32],
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
        let tensors = Tensors::new(sealed.blob);
        validate::model(&header, tensors)?;
        Ok(Self { bytes, header, tensors, hash: sealed.hash })
    }

    /// The description.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file's stored SHA-256.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Hashes the resident bytes again and compares: false if memory changed since loading.
    pub fn is_intact(&self) -> bool {
        container::digest(self.bytes) == self.hash
    }

    /// The same model over other bytes of the same length, unchecked: how a self-test injects a fault into its own
    /// copy of the weights. `None` if the length differs.
    pub fn over_faulty_bytes<'b>(&self, bytes: &'b [u8]) -> Option<Model<'b>> {
        let tensors = Tensors::new(bytes.get(self.blob_offset()..)?);
        let model = Model { bytes, header: self.header.clone(), tensors, hash: self.hash };
        (bytes.len() == self.bytes.len()).then_some(model)
    }

    /// First byte of the tensors in the file.
    pub fn blob_offset(&self) -> usize {
        self.bytes.len() - self.tensors.len()
    }

    /// Size of the file, bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// f32 values an inference needs beside the arena: mu, s, log sigma, sigma, logits, probabilities.
    pub fn float_len(&self) -> usize {
        4 * self.header.latent as usize + 2 * self.header.classes as usize
    }

    /// The numbers.
    pub fn tensors(&self) -> Tensors<'a> {
        self.tensors
    }

    /// A tensor of int8.
    pub fn i8s(&self, span: Span) -> &'a [i8] {
        self.tensors.i8s(span)
    }

    /// A tensor of f32.
    pub fn f32s(&self, span: Span) -> Le<'a, f32> {
        self.tensors.numbers(span)
    }

    /// A tensor of i32.
    pub fn i32s(&self, span: Span) -> Le<'a, i32> {
        self.tensors.numbers(span)
    }

    /// A tensor of u32.
    pub fn u32s(&self, span: Span) -> Le<'a, u32> {
        self.tensors.numbers(span)
    }

    /// The name of class `index`, or an empty string past the last.
    pub fn label(&self, index: usize) -> &'a str {
        let text = core::str::from_utf8(self.tensors.bytes(self.header.labels)).unwrap_or("");
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

//! `model.pmq`: a model's bytes, read and written together.

use crate::container::{self, BLOB, Sealed, Tag, Tensors};
use crate::error::FormatError;
#[cfg(feature = "alloc")]
use crate::header::Draft;
use crate::header::{Calibrations, Confidence, Header, Heads, Input, TABLES, Table, Typicality, float_len};
use crate::layer::Activation;
use crate::record::{Fields, Record, Records};
use crate::tensor::{Le, Span};
use crate::validate;
use crate::whitening::Whitening;

/// First bytes of `model.pmq`.
pub const MAGIC: &[u8; 8] = b"PMQMODEL";
/// The one version of the format that this build reads and writes.
pub const VERSION: u32 = 4;

/// Name of the bundle, UTF-8.
pub const NAME: Tag = *b"NAME";
/// Input extents and image policy: one [`Input`].
pub const INPUT: Tag = *b"INPT";
/// One [`Layer`](crate::Layer) a step.
pub const LAYERS: Tag = *b"LAYR";
/// One [`Activation`] a layer, and one for the image.
pub const ACTIVATIONS: Tag = *b"ACTV";
/// Sizes and heads: one [`Heads`].
pub const HEADS: Tag = *b"HEAD";
/// Class names, UTF-8, one a line.
pub const LABELS: Tag = *b"LABL";
/// Mixture and thresholds: one [`Confidence`].
pub const CONFIDENCE: Tag = *b"CONF";
/// One [`Whitening`] for posteriors, one for pictures and, where the first is no triangle, one for spreads.
pub const WHITENINGS: Tag = *b"WHIT";
/// One [`Table`] a number that is calibrated, in the order of [`Calibrations`].
pub const CALIBRATIONS: Tag = *b"CALB";

/// 32 bytes: SHA-256 of what the maker says of how the model was made. A card is held to it.
pub const MADE: Tag = *b"made";

/// Every section that this build understands.
pub const KNOWN: &[Tag] =
    &[NAME, INPUT, LAYERS, ACTIVATIONS, HEADS, LABELS, CONFIDENCE, WHITENINGS, CALIBRATIONS, MADE, BLOB];

/// A valid model, borrowed from its bytes.
///
/// Parsing checks the hash, every span, shape, scale, the arena plan and the accumulator bound, so that inference
/// cannot fail, read out of bounds or overflow. Nothing is copied: a model is a few hundred bytes of views, and parsing
/// takes less than 2 KiB of stack.
#[derive(Debug, Clone)]
pub struct Model<'a> {
    bytes: &'a [u8],
    sealed: Sealed<'a>,
    header: Header<'a>,
    tensors: Tensors<'a>,
}

impl<'a> Model<'a> {
    /// Parses and validates `model.pmq`.
    ///
    /// ```
    /// use paradise_engine::Model;
    /// let bytes = include_bytes!("../../models/fashion-mnist-small/model.pmq");
    /// let model = Model::parse(bytes).unwrap();
    /// assert_eq!((model.header().name, model.label(1)), ("fashion-mnist-small", "trouser"));
    /// assert!(Model::parse(&bytes[..1000]).is_err());
    /// ```
    ///
    /// # Errors
    /// Any byte that is not as it should be; see [`FormatError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let sealed = container::open(bytes, MAGIC, VERSION, KNOWN)?;
        let model = Self::view(bytes, sealed)?;
        validate::model(&model.header, model.tensors)?;
        Ok(model)
    }

    /// The sections of a file as a model that is not validated.
    pub(crate) fn view(bytes: &'a [u8], sealed: Sealed<'a>) -> Result<Self, FormatError> {
        let Input { shape, policy } = record(&sealed, INPUT)?;
        let heads: Heads = record(&sealed, HEADS)?;
        let confidence: Confidence = record(&sealed, CONFIDENCE)?;
        let header = Header {
            name: text(&sealed, NAME)?,
            input: shape,
            policy,
            layers: records(&sealed, LAYERS)?,
            activations: records(&sealed, ACTIVATIONS)?,
            arena_bytes: heads.arena_bytes,
            latent: heads.latent,
            mu: heads.mu,
            sigma: heads.sigma,
            classes: heads.classes,
            labels: text(&sealed, LABELS)?,
            classifier: heads.classifier,
            mixture: confidence.mixture,
            typicality: typicality(&sealed)?,
            calibrations: calibrations(&sealed)?,
            thresholds: confidence.thresholds,
            made: match sealed.optional(MADE) {
                Some(bytes) => {
                    Some(bytes.try_into().map_err(|_| FormatError::Section { tag: MADE, why: "is not a SHA-256" })?)
                }
                None => None,
            },
        };
        Ok(Self { bytes, sealed, header, tensors: Tensors::new(sealed.section(BLOB)?) })
    }

    /// The description.
    pub fn header(&self) -> &Header<'a> {
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

    /// The same model over other bytes, unchecked, that differ in tensors alone: how a self-test injects a fault into its
    /// own copy of the weights. `None` if the length or anything before the tensors differs.
    pub fn over_faulty_bytes<'b>(&self, bytes: &'b [u8]) -> Option<Model<'b>> {
        Model::view(bytes, self.sealed.over(bytes, BLOB)?).ok()
    }

    /// First byte of the tensors in the file.
    pub fn blob_offset(&self) -> usize {
        self.sealed.offset(BLOB).unwrap_or(self.bytes.len())
    }

    /// Size of the file, bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// f32 values an inference needs beside the arena: posterior, logits, probabilities and scratch.
    pub fn float_len(&self) -> usize {
        float_len(self.header.latent as usize, self.header.classes as usize)
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
        self.header.labels.lines().nth(index).unwrap_or("")
    }

    /// The activation that feeds the heads.
    pub fn features(&self) -> Activation {
        self.header.activations.at(self.header.activations.len() - 1)
    }
}

/// A section that is one record.
pub(crate) fn record<R: Record>(sealed: &Sealed, tag: Tag) -> Result<R, FormatError> {
    let mut fields = Fields::new(sealed.section(tag)?);
    let found = fields.record().filter(|_| fields.rest() == 0);
    found.ok_or(FormatError::Section { tag, why: "does not decode" })
}

/// Whitenings of posterior, picture and, if it is there, spread.
fn typicality(sealed: &Sealed) -> Result<Typicality, FormatError> {
    let found: Records<Whitening> = records(sealed, WHITENINGS)?;
    match (found.get(0), found.get(1), found.len()) {
        (Some(posterior), Some(picture), 2 | 3) => Ok(Typicality { posterior, picture, spread: found.get(2) }),
        _ => Err(FormatError::Section { tag: WHITENINGS, why: "is of posterior, picture and perhaps spread" }),
    }
}

/// All tables.
fn calibrations(sealed: &Sealed) -> Result<Calibrations, FormatError> {
    let found: Records<Table> = records(sealed, CALIBRATIONS)?;
    if found.len() != TABLES {
        return Err(FormatError::Section { tag: CALIBRATIONS, why: "does not hold a table of each kind" });
    }
    Ok(core::array::from_fn(|i| found.at(i)).into())
}

/// A section that is a table.
pub(crate) fn records<'a, R: Record>(sealed: &Sealed<'a>, tag: Tag) -> Result<Records<'a, R>, FormatError> {
    Records::new(sealed.section(tag)?).ok_or(FormatError::Section { tag, why: "does not decode" })
}

fn text<'a>(sealed: &Sealed<'a>, tag: Tag) -> Result<&'a str, FormatError> {
    core::str::from_utf8(sealed.section(tag)?).map_err(|_| FormatError::Section { tag, why: "is not UTF-8" })
}

/// The bytes of `model.pmq` for a description and its tensors. Does not validate: parse the result.
#[cfg(feature = "alloc")]
pub fn emit(draft: &Draft, blob: &container::Blob) -> alloc::vec::Vec<u8> {
    emit_as((MAGIC, VERSION), &[], draft, blob)
}

/// The bytes of a file that holds all of a model's sections and others before them.
#[cfg(feature = "alloc")]
pub(crate) fn emit_as(
    (magic, version): (&[u8; 8], u32),
    others: &[(Tag, &[u8])],
    draft: &Draft,
    blob: &container::Blob,
) -> alloc::vec::Vec<u8> {
    use crate::record::table;
    let input = Input { shape: draft.input, policy: draft.policy };
    let Draft { arena_bytes, latent, classes, mu, sigma, classifier, .. } = *draft;
    let Draft { mixture, typicality, calibrations, thresholds, .. } = *draft;
    let made = draft.made.unwrap_or_default();
    let whitenings = [Some(typicality.posterior), Some(typicality.picture), typicality.spread];
    let whitenings: alloc::vec::Vec<Whitening> = whitenings.into_iter().flatten().collect();
    let sections: [(Tag, &[u8]); 11] = [
        (NAME, draft.name.as_bytes()),
        (INPUT, &table(&[input])),
        (LAYERS, &table(draft.layers)),
        (ACTIVATIONS, &table(draft.activations)),
        (HEADS, &table(&[Heads { arena_bytes, latent, classes, mu, sigma, classifier }])),
        (LABELS, draft.labels.as_bytes()),
        (CONFIDENCE, &table(&[Confidence { mixture, thresholds }])),
        (WHITENINGS, &table(&whitenings)),
        (CALIBRATIONS, &table(&calibrations.all())),
        (MADE, &made),
        (BLOB, blob.collected()),
    ];
    let wanted = |section: &&(Tag, &[u8])| draft.made.is_some() || section.0 != MADE;
    let sections: alloc::vec::Vec<(Tag, &[u8])> =
        others.iter().chain(sections.iter().filter(wanted)).copied().collect();
    container::seal(magic, version, &sections)
}

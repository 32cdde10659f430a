//! `model.pmq`: a model's bytes, read and written together.

use crate::container::{self, BLOB, Sealed, Tag, Tensors};
use crate::error::{FormatError, attempt};
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
        let model = Self::view(container::open(bytes, MAGIC, VERSION, KNOWN)?)?;
        model.decode()?;
        validate::model(&model.header, model.tensors)?;
        Ok(model)
    }

    /// The sections of a file as a model that is not validated: its layers and activations may not even decode.
    pub(crate) const fn view(sealed: Sealed<'a>) -> Result<Self, FormatError> {
        let mut fields = attempt!(fields(&sealed, INPUT));
        let Input { shape, policy } = Input::read(&mut fields);
        attempt!(end(&fields, INPUT));
        let mut fields = attempt!(self::fields(&sealed, HEADS));
        let Heads { arena_bytes, latent, classes, mu, sigma, classifier } = Heads::read(&mut fields);
        attempt!(end(&fields, HEADS));
        let mut fields = attempt!(self::fields(&sealed, CONFIDENCE));
        let Confidence { mixture, thresholds } = Confidence::read(&mut fields);
        attempt!(end(&fields, CONFIDENCE));
        let header = Header {
            name: attempt!(text(&sealed, NAME)),
            input: shape,
            policy,
            layers: Records::new(attempt!(sealed.section(LAYERS))),
            activations: Records::new(attempt!(sealed.section(ACTIVATIONS))),
            arena_bytes,
            latent,
            mu,
            sigma,
            classes,
            labels: attempt!(text(&sealed, LABELS)),
            classifier,
            mixture,
            typicality: attempt!(typicality(&sealed)),
            calibrations: attempt!(calibrations(&sealed)),
            thresholds,
            made: match sealed.optional(MADE) {
                Some(made) => match made.split_first_chunk() {
                    Some((made, [])) => Some(*made),
                    _ => return Err(FormatError::Section { tag: MADE, why: "is not a SHA-256" }),
                },
                None => None,
            },
        };
        Ok(Self { sealed, header, tensors: Tensors::new(attempt!(sealed.section(BLOB))) })
    }

    /// Every layer and activation has a meaning.
    pub(crate) fn decode(&self) -> Result<(), FormatError> {
        decode(&self.header.layers, LAYERS)?;
        decode(&self.header.activations, ACTIVATIONS)
    }

    /// The description.
    pub const fn header(&self) -> &Header<'a> {
        &self.header
    }

    /// The file's stored SHA-256.
    pub fn hash(&self) -> [u8; 32] {
        self.sealed.hash
    }

    /// Hashes the resident bytes again and compares: false if memory changed since loading.
    pub fn is_intact(&self) -> bool {
        self.sealed.is_intact()
    }

    /// The same model over other bytes, unchecked, that differ in tensors alone: how a self-test injects a fault into its
    /// own copy of the weights. `None` if the length or anything before the tensors differs.
    pub fn over_faulty_bytes<'b>(&self, bytes: &'b [u8]) -> Option<Model<'b>> {
        Model::view(self.sealed.over(bytes, BLOB)?).ok()
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &'a [u8] {
        self.sealed.bytes
    }

    /// First byte of the tensors in the file.
    pub fn blob_offset(&self) -> usize {
        self.sealed.offset(BLOB).unwrap_or(self.sealed.bytes.len())
    }

    /// The file.
    pub(crate) fn file(&self) -> &'a [u8] {
        self.sealed.bytes
    }

    /// Size of the file, bytes.
    pub fn size(&self) -> usize {
        self.sealed.bytes.len()
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

/// The fields of a section that is one record.
pub(crate) const fn fields<'a>(sealed: &Sealed<'a>, tag: Tag) -> Result<Fields<'a>, FormatError> {
    Ok(Fields::new(attempt!(sealed.section(tag))))
}

/// They were those of the record, each with a meaning.
pub(crate) const fn end(fields: &Fields, tag: Tag) -> Result<(), FormatError> {
    if fields.end() { Ok(()) } else { Err(FormatError::Section { tag, why: "does not decode" }) }
}

/// Every record of a section has a meaning.
pub(crate) fn decode<R: Record>(records: &Records<R>, tag: Tag) -> Result<(), FormatError> {
    if records.is_valid() { Ok(()) } else { Err(FormatError::Section { tag, why: "does not decode" }) }
}

/// Whitenings of posterior, picture and, if it is there, spread.
const fn typicality(sealed: &Sealed) -> Result<Typicality, FormatError> {
    let table = attempt!(sealed.section(WHITENINGS));
    let len = table.len() / Whitening::SIZE;
    if table.len() % Whitening::SIZE != 0 || len < 2 || len > 3 {
        return Err(FormatError::Section { tag: WHITENINGS, why: "is of posterior, picture and perhaps spread" });
    }
    let (mut found, mut i) = ([None; 3], 0);
    while i < len {
        let mut fields = Fields::nth(table, Whitening::SIZE, i);
        found[i] = Some(Whitening::read(&mut fields));
        attempt!(end(&fields, WHITENINGS));
        i += 1;
    }
    match found {
        [Some(posterior), Some(picture), spread] => Ok(Typicality { posterior, picture, spread }),
        _ => Err(FormatError::Section { tag: WHITENINGS, why: "does not decode" }),
    }
}

/// All tables.
const fn calibrations(sealed: &Sealed) -> Result<Calibrations, FormatError> {
    let table = attempt!(sealed.section(CALIBRATIONS));
    if table.len() != TABLES * Table::SIZE {
        return Err(FormatError::Section { tag: CALIBRATIONS, why: "does not hold a table of each kind" });
    }
    let mut fields = Fields::new(table);
    let mut found = [Table::read(&mut fields); TABLES];
    let mut i = 1;
    while i < TABLES {
        found[i] = Table::read(&mut fields);
        i += 1;
    }
    attempt!(end(&fields, CALIBRATIONS));
    Ok(Calibrations::new(found))
}

const fn text<'a>(sealed: &Sealed<'a>, tag: Tag) -> Result<&'a str, FormatError> {
    match core::str::from_utf8(attempt!(sealed.section(tag))) {
        Ok(text) => Ok(text),
        Err(_) => Err(FormatError::Section { tag, why: "is not UTF-8" }),
    }
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

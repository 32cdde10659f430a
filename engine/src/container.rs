//! The sealed file: magic, version, length, SHA-256, a table of tagged sections, and the sections.
//!
//! ```text
//!  0.. 8  magic                 8..12  version, u32        12..16  number of sections, u32
//! 16..24  file length, u64     24..32  zero                32..64  SHA-256 of all other bytes
//! 64..    16 bytes a section: tag (four letters), zero u32, first byte u32, length u32
//! then    the sections, in the table's order, each beginning at a multiple of 64 and padded with zeros to one
//! ```
//! A reader asks for sections by tag, so a later version may add some. A tag that begins with a capital letter names a
//! section without which the file means something else: a reader that does not know it refuses the file. One that begins
//! with a small letter may be left aside. The only place that decides whether a file is whole.

use crate::error::{FormatError, attempt};
use crate::record::Fields;
use crate::tensor::{FromLe, Le, Span};
use sha2::{Digest, Sha256};

/// Bytes before the table of sections.
pub const PREFIX: usize = 64;
/// Alignment of sections in the file and of each tensor in the blob, bytes.
pub const ALIGN: usize = 64;
/// Bytes of a section's entry in the table.
const ENTRY: usize = 16;
/// Most sections of a file.
pub const MAX_SECTIONS: usize = 32;

/// Four letters that name a section.
pub type Tag = [u8; 4];

/// The section of tensors.
pub const BLOB: Tag = *b"BLOB";

/// A file whose prefix, table and hash were checked.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    pub(crate) bytes: &'a [u8],
    sections: usize,
    /// SHA-256 of the file's other bytes, as stored.
    pub hash: [u8; 32],
}

/// SHA-256 of a sealed file without its hash field, the value that the field holds.
///
/// # Panics
/// If `bytes` is shorter than the prefix.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(&bytes[..32]);
    hash.update(&bytes[PREFIX..]);
    hash.finalize().into()
}

/// SHA-256 of any bytes, such as a firmware's own program.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Checks prefix, length, hash and table of `bytes`; `known` are the tags that the reader understands.
///
/// ```
/// use paradise_engine::container::{open, seal};
///
/// let file = seal(b"MYMAGIC.", 1, &[(*b"DATA", b"hello"), (*b"note", b"may be left aside")]);
/// let sealed = open(&file, b"MYMAGIC.", 1, &[*b"DATA"]).unwrap();
/// assert_eq!(sealed.section(*b"DATA").unwrap(), b"hello");
/// let mut damaged = file.clone();
/// damaged[200] ^= 1;
/// assert!(open(&damaged, b"MYMAGIC.", 1, &[*b"DATA"]).is_err());
/// ```
///
/// # Errors
/// The first check that fails, in the order: length of the prefix, magic, version, declared lengths, hash, table.
pub fn open<'a>(bytes: &'a [u8], magic: &[u8; 8], version: u32, known: &[Tag]) -> Result<Sealed<'a>, FormatError> {
    let sealed = prefix(bytes, magic, version)?;
    if !sealed.is_intact() {
        return Err(FormatError::Hash);
    }
    sealed.check(known)?;
    Ok(sealed)
}

/// [`open`] without the hash, for a file that is part of the program: constant.
pub(crate) const fn embedded<'a>(
    bytes: &'a [u8],
    magic: &[u8; 8],
    version: u32,
    known: &[Tag],
) -> Result<Sealed<'a>, FormatError> {
    let sealed = attempt!(prefix(bytes, magic, version));
    attempt!(sealed.check(known));
    Ok(sealed)
}

/// What the first bytes say.
const fn prefix<'a>(bytes: &'a [u8], magic: &[u8; 8], version: u32) -> Result<Sealed<'a>, FormatError> {
    let got = bytes.len() as u64;
    if bytes.len() < PREFIX {
        return Err(FormatError::Truncated { need: PREFIX as u64, got });
    }
    let mut fields = Fields::new(bytes);
    if u64::from_le_bytes(fields.bytes()) != u64::from_le_bytes(*magic) {
        return Err(FormatError::Magic);
    }
    let found = fields.u32();
    if found != version {
        return Err(FormatError::Version { need: version, got: found });
    }
    let sections = fields.u32() as usize;
    let declared = u64::from_le_bytes(fields.bytes());
    if declared > got {
        return Err(FormatError::Truncated { need: declared, got });
    }
    if declared != got {
        return Err(FormatError::Length { need: declared, got });
    }
    let _zero: [u8; 8] = fields.bytes();
    Ok(Sealed { bytes, sections, hash: fields.bytes() })
}

/// Whether two tags are the same.
const fn same(a: Tag, b: Tag) -> bool {
    u32::from_le_bytes(a) == u32::from_le_bytes(b)
}

/// Whether a tag is one of several.
const fn is_among(tag: Tag, tags: &[Tag]) -> bool {
    let mut i = 0;
    while i < tags.len() {
        if same(tag, tags[i]) {
            return true;
        }
        i += 1;
    }
    false
}

impl<'a> Sealed<'a> {
    /// Whether the bytes are, now, those of the hash that was found when they were read.
    pub fn is_intact(&self) -> bool {
        // A compiler that sees a constant file would not look at what a chip's flash has come to hold.
        let bytes = core::hint::black_box(self.bytes);
        bytes[32..PREFIX] == self.hash && digest(bytes) == self.hash
    }

    /// Tag, a word that is 0, first byte and length of section `i`.
    const fn entry(&self, i: usize) -> (Tag, u32, u64, u64) {
        let mut fields = Fields::nth(self.bytes.split_at(PREFIX).1, ENTRY, i);
        (fields.bytes(), fields.u32(), fields.u32() as u64, fields.u32() as u64)
    }

    /// Sections follow each other without overlap or gap, each tag stands once, and what must be known is.
    const fn check(&self, known: &[Tag]) -> Result<(), FormatError> {
        if self.sections > MAX_SECTIONS {
            let (limit, got) = (MAX_SECTIONS as u64, self.sections as u64);
            return Err(FormatError::Limit { what: "sections", limit, got });
        }
        let got = self.bytes.len() as u64;
        let mut end = (PREFIX + ENTRY * self.sections) as u64;
        if end > got {
            return Err(FormatError::Truncated { need: end, got });
        }
        let (mut i, mut before) = (0, [[0; 4]; MAX_SECTIONS]);
        while i < self.sections {
            let (tag, zero, from, len) = self.entry(i);
            let letters = [tag[0].is_ascii_alphabetic(), tag[1].is_ascii_alphabetic(), tag[2].is_ascii_alphabetic()];
            if !(letters[0] && letters[1] && letters[2] && tag[3].is_ascii_alphabetic()) {
                return Err(FormatError::Invalid("a section's tag is not four letters"));
            }
            let misplaced = zero != 0 || from != end.next_multiple_of(ALIGN as u64);
            end = from + len;
            let why = if misplaced {
                "is misplaced"
            } else if end > got {
                "leaves the file"
            } else if is_among(tag, before.split_at(i).0) {
                "stands twice"
            } else if tag[0].is_ascii_uppercase() && !is_among(tag, known) {
                "is not known to this build, and the file means something else without it"
            } else {
                before[i] = tag;
                i += 1;
                continue;
            };
            return Err(FormatError::Section { tag, why });
        }
        let need = end.next_multiple_of(ALIGN as u64);
        if need == got { Ok(()) } else { Err(FormatError::Length { need, got }) }
    }

    /// First byte and length of a section, if it is there.
    const fn place(&self, tag: Tag) -> Option<(usize, usize)> {
        let mut i = 0;
        while i < self.sections {
            let (name, _, from, len) = self.entry(i);
            if same(name, tag) {
                return Some((from as usize, len as usize));
            }
            i += 1;
        }
        None
    }

    /// The bytes of a section, if it is there.
    pub const fn optional(&self, tag: Tag) -> Option<&'a [u8]> {
        match self.place(tag) {
            Some((from, len)) => Some(self.bytes.split_at(from).1.split_at(len).0),
            None => None,
        }
    }

    /// The bytes of a section.
    ///
    /// # Errors
    /// [`FormatError::Section`] if it is missing.
    pub const fn section(&self, tag: Tag) -> Result<&'a [u8], FormatError> {
        match self.optional(tag) {
            Some(bytes) => Ok(bytes),
            None => Err(FormatError::Section { tag, why: "is missing" }),
        }
    }

    /// First byte of a section in the file.
    pub fn offset(&self, tag: Tag) -> Option<usize> {
        self.place(tag).map(|(from, _)| from)
    }

    /// Tags and bytes of all sections, in the file's order.
    pub fn sections(&self) -> impl Iterator<Item = (Tag, &'a [u8])> {
        let this = *self;
        (0..self.sections).map(move |i| {
            let (tag, _, from, len) = this.entry(i);
            (tag, &this.bytes[from as usize..(from + len) as usize])
        })
    }

    /// The same table over other bytes, unchecked; `None` if they differ in length or before section `tag`, which is the
    /// last.
    pub(crate) fn over<'b>(&self, bytes: &'b [u8], tag: Tag) -> Option<Sealed<'b>> {
        let (last, _, until, _) = self.entry(self.sections.checked_sub(1)?);
        let until = until as usize;
        let same = last == tag && bytes.len() == self.bytes.len() && bytes[..until] == self.bytes[..until];
        same.then_some(Sealed { bytes, sections: self.sections, hash: self.hash })
    }
}

/// The tensors of a sealed file, found by their spans.
#[derive(Debug, Clone, Copy)]
pub struct Tensors<'a>(&'a [u8]);

impl<'a> Tensors<'a> {
    /// The tensors in a file's blob.
    pub const fn new(blob: &'a [u8]) -> Self {
        Self(blob)
    }

    /// Bytes of the whole blob.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of `span`.
    ///
    /// # Errors
    /// [`FormatError::Span`] if it is misaligned or leaves the blob.
    pub fn checked(&self, span: Span) -> Result<&'a [u8], FormatError> {
        let bad = FormatError::Span { offset: span.offset, len: span.len };
        let start = span.offset as usize;
        let end = start.checked_add(span.len as usize).ok_or(bad)?;
        let aligned = start.is_multiple_of(ALIGN);
        self.0.get(start..end).filter(|_| aligned).ok_or(bad)
    }

    /// The same, if it is exactly `bytes` long.
    ///
    /// # Errors
    /// [`FormatError::Span`] if it is misplaced or of another length.
    pub fn sized(&self, span: Span, bytes: u64) -> Result<&'a [u8], FormatError> {
        let found = self.checked(span)?;
        if found.len() as u64 == bytes {
            return Ok(found);
        }
        Err(FormatError::Span { offset: span.offset, len: span.len })
    }

    /// The bytes of a span; empty if it is misplaced, which validation excludes.
    pub fn bytes(&self, span: Span) -> &'a [u8] {
        self.checked(span).unwrap_or(&[])
    }

    /// A span as int8.
    pub fn i8s(&self, span: Span) -> &'a [i8] {
        bytemuck::cast_slice(self.bytes(span))
    }

    /// A span as four-byte numbers.
    pub fn numbers<T: FromLe>(&self, span: Span) -> Le<'a, T> {
        Le::new(self.bytes(span))
    }
}

#[cfg(feature = "alloc")]
pub use write::{Blob, reseal, seal};

#[cfg(feature = "alloc")]
mod write {
    use super::{ALIGN, ENTRY, PREFIX, Tag, digest};
    use crate::tensor::Span;
    use alloc::vec::Vec;

    /// Collects the tensors of a file that is being written.
    #[derive(Debug, Clone, Default)]
    pub struct Blob(Vec<u8>);

    impl Blob {
        /// What was collected.
        pub fn collected(&self) -> &[u8] {
            &self.0
        }

        /// Appends raw bytes, aligned, and says where they lie.
        ///
        /// # Panics
        /// If the blob would pass 4 GiB.
        pub fn bytes(&mut self, bytes: &[u8]) -> Span {
            self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
            let offset = u32::try_from(self.0.len()).expect("a blob holds at most 4 GiB");
            self.0.extend_from_slice(bytes);
            Span { offset, len: u32::try_from(bytes.len()).expect("a tensor holds at most 4 GiB") }
        }

        /// Appends int8 values.
        pub fn i8s(&mut self, values: &[i8]) -> Span {
            self.bytes(bytemuck::cast_slice(values))
        }

        /// Appends f32 values, little-endian.
        pub fn f32s(&mut self, values: &[f32]) -> Span {
            self.bytes(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
        }

        /// Appends i32 values, little-endian.
        pub fn i32s(&mut self, values: &[i32]) -> Span {
            self.bytes(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
        }

        /// Appends u32 values, little-endian.
        pub fn u32s(&mut self, values: &[u32]) -> Span {
            self.bytes(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
        }
    }

    /// The whole file for its sections.
    ///
    /// # Panics
    /// If a section would begin past 4 GiB.
    pub fn seal(magic: &[u8; 8], version: u32, sections: &[(Tag, &[u8])]) -> Vec<u8> {
        let small = |n: usize| u32::try_from(n).expect("a file holds at most 4 GiB").to_le_bytes();
        let mut file = Vec::new();
        file.extend_from_slice(magic);
        file.extend_from_slice(&version.to_le_bytes());
        file.extend_from_slice(&small(sections.len()));
        file.resize(PREFIX, 0);
        let mut from = (PREFIX + ENTRY * sections.len()).next_multiple_of(ALIGN);
        for (tag, bytes) in sections {
            file.extend_from_slice(tag);
            file.extend_from_slice(&[0; 4]);
            file.extend_from_slice(&small(from));
            file.extend_from_slice(&small(bytes.len()));
            from = (from + bytes.len()).next_multiple_of(ALIGN);
        }
        for (_, bytes) in sections {
            file.resize(file.len().next_multiple_of(ALIGN), 0);
            file.extend_from_slice(bytes);
        }
        file.resize(file.len().next_multiple_of(ALIGN), 0);
        let length = file.len() as u64;
        file[16..24].copy_from_slice(&length.to_le_bytes());
        reseal(&mut file);
        file
    }

    /// Recomputes the hash field of a file that was edited in place.
    ///
    /// # Panics
    /// If `file` is shorter than the prefix.
    pub fn reseal(file: &mut [u8]) {
        let hash = digest(file);
        file[32..64].copy_from_slice(&hash);
    }
}

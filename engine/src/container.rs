//! The sealed file: magic, version, length, SHA-256, a `postcard` header and an aligned blob.
//!
//! ```text
//!  0.. 8  magic                 8..12  version, u32        12..16  header length, u32
//! 16..24  file length, u64     24..32  zero                32..64  SHA-256 of all other bytes
//! 64..    header (postcard), zero padding to 64, blob (tensors, each 64-byte aligned, little-endian)
//! ```
//! The only place that decides whether a file is whole.

use crate::error::FormatError;
use crate::tensor::{FromLe, Le, Span};
use sha2::{Digest, Sha256};

/// Bytes before the header.
pub const PREFIX: usize = 64;
/// Alignment of the blob in the file and of each tensor in the blob, bytes.
pub const ALIGN: usize = 64;

/// A file whose prefix and hash were checked.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    /// The postcard bytes.
    pub header: &'a [u8],
    /// The tensors.
    pub blob: &'a [u8],
    /// SHA-256 of the file's other bytes, as stored.
    pub hash: [u8; 32],
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
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

/// Checks prefix, length and hash of `bytes`.
///
/// # Errors
/// The first check that fails, in the order: length of the prefix, magic, version, declared lengths, hash.
pub fn open<'a>(bytes: &'a [u8], magic: &[u8; 8], version: u32) -> Result<Sealed<'a>, FormatError> {
    let got = bytes.len() as u64;
    if bytes.len() < PREFIX {
        return Err(FormatError::Truncated { need: PREFIX as u64, got });
    }
    if &bytes[..8] != magic {
        return Err(FormatError::Magic);
    }
    let found = u32_at(bytes, 8);
    if found != version {
        return Err(FormatError::Version { need: version, got: found });
    }
    let header_len = u32_at(bytes, 12) as usize;
    let declared = u64::from(u32_at(bytes, 16)) | u64::from(u32_at(bytes, 20)) << 32;
    if declared > got {
        return Err(FormatError::Truncated { need: declared, got });
    }
    if declared != got {
        return Err(FormatError::Length { need: declared, got });
    }
    let blob_at = (PREFIX as u64 + header_len as u64).next_multiple_of(ALIGN as u64);
    if blob_at > got {
        return Err(FormatError::Truncated { need: blob_at, got });
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[32..64]);
    if digest(bytes) != hash {
        return Err(FormatError::Hash);
    }
    Ok(Sealed { header: &bytes[PREFIX..PREFIX + header_len], blob: &bytes[blob_at as usize..], hash })
}

/// The tensors of a sealed file, found by their spans.
#[derive(Debug, Clone, Copy)]
pub struct Tensors<'a>(&'a [u8]);

impl<'a> Tensors<'a> {
    /// The tensors in a file's blob.
    pub fn new(blob: &'a [u8]) -> Self {
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
    use super::{ALIGN, PREFIX, digest};
    use crate::tensor::Span;
    use alloc::vec::Vec;

    /// Collects the tensors of a file that is being written.
    #[derive(Debug, Clone, Default)]
    pub struct Blob(Vec<u8>);

    impl Blob {
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

    /// The whole file for a header and its tensors.
    ///
    /// # Panics
    /// If the header passes 4 GiB.
    pub fn seal(magic: &[u8; 8], version: u32, header: &[u8], blob: &Blob) -> Vec<u8> {
        let mut file = Vec::with_capacity(PREFIX + header.len() + ALIGN + blob.0.len());
        file.extend_from_slice(magic);
        file.extend_from_slice(&version.to_le_bytes());
        file.extend_from_slice(&u32::try_from(header.len()).expect("a small header").to_le_bytes());
        file.resize(PREFIX, 0);
        file.extend_from_slice(header);
        file.resize(file.len().next_multiple_of(ALIGN), 0);
        file.extend_from_slice(&blob.0);
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

//! The errors of this crate: small, copyable, with the numbers in them.

use core::fmt;

/// `?` for constant functions.
macro_rules! attempt {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Err(error),
        }
    };
}
pub(crate) use attempt;

/// Why bytes are not a model or golden file of this project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatError {
    /// The file is shorter than its fixed part, or than what it declares.
    Truncated {
        /// Bytes needed.
        need: u64,
        /// Bytes present.
        got: u64,
    },
    /// The first eight bytes are not the expected magic.
    Magic,
    /// The format version is not the one this build reads.
    Version {
        /// The one readable version.
        need: u32,
        /// The version in the file.
        got: u32,
    },
    /// The declared length is not the file's length.
    Length {
        /// Declared bytes.
        need: u64,
        /// Bytes present.
        got: u64,
    },
    /// The SHA-256 over the file does not match the stored one.
    Hash,
    /// A section of a sealed file is missing, misplaced or cannot be read.
    Section {
        /// Its four letters.
        tag: [u8; 4],
        /// What is wrong with it.
        why: &'static str,
    },
    /// A tensor lies outside the file, is not 64-byte aligned, or has the wrong size.
    Span {
        /// Offset in the blob, bytes.
        offset: u32,
        /// Length, bytes.
        len: u32,
    },
    /// A limit is exceeded.
    Limit {
        /// Which limit.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// What the file asks for.
        got: u64,
    },
    /// A layer breaks a rule.
    Layer {
        /// Index of the layer.
        index: u16,
        /// The rule.
        rule: &'static str,
    },
    /// Something outside the layers breaks a rule.
    Invalid(&'static str),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { need, got } => write!(f, "truncated: needs {need} bytes, has {got}"),
            Self::Magic => f.write_str("not a file of this kind (wrong magic)"),
            Self::Version { need, got } => {
                let (who, what) = if got < need {
                    (
                        "an older version",
                        "export the model again (`train export`, or `train import-onnx`) with this one",
                    )
                } else {
                    ("a newer version", "install that version here, or export the model again with this one")
                };
                write!(f, "written by {who} of paradise: format {got}, this one reads format {need}; {what}")
            }
            Self::Length { need, got } => {
                write!(f, "declares {need} bytes but has {got}")
            }
            Self::Hash => f.write_str("corrupt: SHA-256 does not match"),
            Self::Section { tag, why } => {
                write!(f, "section {} {why}", core::str::from_utf8(tag).unwrap_or("????"))
            }
            Self::Span { offset, len } => {
                write!(f, "tensor of {len} bytes at offset {offset} is misplaced")
            }
            Self::Limit { what, limit, got } => {
                write!(f, "{what}: {got} exceeds the limit of {limit}")
            }
            Self::Layer { index, rule } => write!(f, "layer {index}: {rule}"),
            Self::Invalid(rule) => f.write_str(rule),
        }
    }
}

impl core::error::Error for FormatError {}

/// Why an inference was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunError {
    /// The image has the wrong number of bytes.
    Image {
        /// Bytes the model takes.
        need: usize,
        /// Bytes given.
        got: usize,
    },
    /// The arena is smaller than the model declares.
    Arena {
        /// Bytes needed.
        need: usize,
        /// Bytes given.
        got: usize,
    },
    /// The float workspace is smaller than the model declares.
    Floats {
        /// Values needed.
        need: usize,
        /// Values given.
        got: usize,
    },
    /// The scratch memory is smaller than the prepared model needs.
    Scratch {
        /// Bytes needed.
        need: usize,
        /// Bytes given.
        got: usize,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { need, got } => write!(f, "image has {got} bytes, the model takes {need}"),
            Self::Arena { need, got } => write!(f, "arena has {got} bytes, the model needs {need}"),
            Self::Floats { need, got } => {
                write!(f, "float workspace has {got} values, the model needs {need}")
            }
            Self::Scratch { need, got } => {
                write!(f, "scratch memory has {got} bytes, the prepared model needs {need}")
            }
        }
    }
}

impl core::error::Error for RunError {}

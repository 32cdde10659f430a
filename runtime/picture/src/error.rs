//! Why a picture was refused.

use crate::{MAX_DECODED, MAX_SIDE};

/// Why a picture was refused. Messages do not name the picture; callers that know its name add it.
#[derive(Debug)]
pub enum PictureError {
    /// The file cannot be read.
    Read(std::io::Error),
    /// The path is a folder.
    Folder,
    /// The file is larger than a limit.
    TooLarge {
        /// Bytes given; at least one more than the limit.
        got: u64,
        /// The limit, bytes.
        limit: u64,
    },
    /// There are no bytes.
    Empty,
    /// The bytes begin like no format that is read.
    Unknown,
    /// A part of the picture is missing.
    EndsEarly,
    /// The data are broken, or of a kind that is not read.
    Decode(String),
    /// The picture has too long a side, or too many pixels.
    Size {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
}

impl std::fmt::Display for PictureError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => write!(f, "{error}"),
            Self::Folder => f.write_str("is a folder, not a picture"),
            Self::TooLarge { got, limit } => write!(f, "{got} bytes exceed the limit of {limit} bytes"),
            Self::Empty => f.write_str("is empty (0 bytes)"),
            Self::Unknown => write!(f, "not a readable picture: none of {}", crate::PROMISED),
            Self::EndsEarly => f.write_str("not a readable picture: ends early"),
            Self::Decode(why) => write!(f, "not a readable picture: {why}"),
            Self::Size { width, height } => write!(
                f,
                "{width} x {height} pixels exceed the limit of {MAX_SIDE} a side and {} MiB decoded",
                MAX_DECODED >> 20
            ),
        }
    }
}

impl std::error::Error for PictureError {}

//! Why a picture was refused.

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
    /// The bytes begin like none of these formats.
    Unknown(&'static str),
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
        /// The longest side that is taken.
        side: u32,
        /// Mebibytes of pixels that are taken.
        mib: u64,
    },
}

impl std::fmt::Display for PictureError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => write!(f, "{error}"),
            Self::Folder => f.write_str("is a folder, not a picture"),
            Self::TooLarge { got, limit } => write!(f, "{got} bytes exceed the limit of {limit} bytes"),
            Self::Empty => f.write_str("is empty (0 bytes)"),
            Self::Unknown(promised) => write!(f, "not a readable picture: none of {promised}"),
            Self::EndsEarly => f.write_str("not a readable picture: ends early"),
            Self::Decode(why) => write!(f, "not a readable picture: {why}"),
            Self::Size { width, height, side, mib } => {
                write!(f, "{width} x {height} pixels exceed the limit of {side} a side and {mib} MiB decoded")
            }
        }
    }
}

impl std::error::Error for PictureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => error.source(),
            _ => None,
        }
    }
}

/// What is wrong with a picture's data.
pub(crate) fn broken(why: &str) -> PictureError {
    PictureError::Decode(why.into())
}

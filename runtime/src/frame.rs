//! Picture bytes of any usual format to the model's input: decoding with limits, orientation, then the engine's resize.

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use paradise_engine::artifact::Header;
use paradise_engine::image::{MAX_SIDE, Rgba, fit};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

/// Most memory that decoding one picture may take, bytes.
pub const MAX_DECODED: u64 = 512 << 20;
/// Largest picture file, bytes.
pub const MAX_FILE: u64 = 64 << 20;

/// Why a picture was refused. Messages do not name the picture; callers that know its name add it.
#[derive(Debug)]
pub enum FrameError {
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
    /// No known format, or broken data.
    Decode(String),
    /// The picture is too large.
    Size {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => write!(f, "{error}"),
            Self::Folder => f.write_str("is a folder, not a picture"),
            Self::TooLarge { got, limit } => write!(f, "{got} bytes exceed the limit of {limit} bytes"),
            Self::Empty => f.write_str("is empty (0 bytes)"),
            Self::Decode(why) => write!(f, "not a readable picture: {why}"),
            Self::Size { width, height } => {
                write!(f, "{width} x {height} pixels exceed the limit of {MAX_SIDE} a side")
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// Reads a picture file.
///
/// # Errors
/// If it is missing, a folder, or larger than [`MAX_FILE`].
pub fn read(path: &Path) -> Result<Vec<u8>, FrameError> {
    let file = File::open(path).map_err(FrameError::Read)?;
    let about = file.metadata().map_err(FrameError::Read)?;
    if about.is_dir() {
        return Err(FrameError::Folder);
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(FrameError::Read)?;
    match bytes.len() as u64 {
        got if got > MAX_FILE => Err(FrameError::TooLarge { got: about.len().max(got), limit: MAX_FILE }),
        _ => Ok(bytes),
    }
}

/// Decodes a picture; its size is checked before its pixels are.
fn decode(bytes: &[u8]) -> Result<DynamicImage, FrameError> {
    if bytes.is_empty() {
        return Err(FrameError::Empty);
    }
    let broken = |e: image::ImageError| FrameError::Decode(e.to_string());
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(FrameError::Read)?;
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(FrameError::Size { width, height });
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODED);
    decoder.set_limits(limits).map_err(broken)?;
    let orientation = decoder.orientation().map_err(broken)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// The model's input for a picture: u8 HWC.
///
/// # Errors
/// If the bytes are no picture, or too large a one.
pub fn input(header: &Header, bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
    let picture = decode(bytes)?.into_rgba8();
    let (width, height) = picture.dimensions();
    let size = |_| FrameError::Size { width, height };
    let rgba = Rgba::new(width, height, picture.as_raw()).map_err(size)?;
    let mut out = vec![0; header.input.len() as usize];
    fit(&rgba, &header.policy, header.input, &mut out).map_err(size)?;
    Ok(out)
}

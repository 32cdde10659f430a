//! The one way from the bytes of a picture to the input of a model, for trainer and device alike.
//!
//! ```text
//! bytes --format-----------> which decoder, by content and never by a file's name
//!       --jpeg | image-----> 8-bit pixels, within limits, whole or refused
//!       --orientation------> as the picture is meant to be seen
//!       --engine::image----> inverted where the policy says so, over black, luma or colour, integer resize
//!       -------------------> u8 tensor in HWC order
//! ```
//! The same bytes give the same tensor on every machine: decoders are pinned exactly, the JPEG decoder runs its portable
//! code, and the resize is integer arithmetic of `paradise-engine`. Whatever the bytes are, nothing panics.
//!
//! ```
//! use paradise_engine::Shape;
//! use paradise_engine::image::{Geometry, ImagePolicy, Polarity};
//!
//! let grey = b"P5 2 1 255\n\x00\xff";
//! let policy = ImagePolicy { geometry: Geometry::Stretch, polarity: Polarity::AsTaken };
//! let input = paradise_picture::input(grey, &policy, Shape::new(1, 2, 1))?;
//! assert_eq!(input, [0, 255]);
//! assert!(paradise_picture::input(&grey[..8], &policy, Shape::new(1, 2, 1)).is_err());
//! # Ok::<(), paradise_picture::PictureError>(())
//! ```
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod contain;
mod decode;
mod encode;
mod error;
mod format;
mod jpeg;
mod limits;
mod means;

pub use decode::Picture;
pub use encode::png;
pub use error::PictureError;
pub use format::{Format, PROMISED};
pub use limits::{MAX_DECODED, MAX_FILE, MAX_REFUSED, MAX_SIDE};

use paradise_engine::Shape;
use paradise_engine::image::ImagePolicy;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The model's input for the bytes of a picture: u8 in HWC order.
///
/// ```
/// use paradise_engine::{Shape, image::{Geometry, ImagePolicy, Polarity}};
/// let policy = ImagePolicy { geometry: Geometry::Stretch, polarity: Polarity::Inverted };
/// assert_eq!(paradise_picture::input(b"P5 1 1 255\n\x07", &policy, Shape::new(1, 1, 3))?, [248, 248, 248]);
/// # Ok::<(), paradise_picture::PictureError>(())
/// ```
///
/// # Errors
/// If the bytes are no picture, not all of one, or too large a one.
pub fn input(bytes: &[u8], policy: &ImagePolicy, shape: Shape) -> Result<Vec<u8>, PictureError> {
    Picture::decode(bytes)?.input(policy, shape)
}

/// Reads a picture file.
///
/// # Errors
/// If it is missing, a folder, or larger than [`MAX_FILE`].
pub fn read(path: &Path) -> Result<Vec<u8>, PictureError> {
    let file = File::open(path).map_err(PictureError::Read)?;
    let about = file.metadata().map_err(PictureError::Read)?;
    if about.is_dir() {
        return Err(PictureError::Folder);
    }
    read_from(file, about.len())
}

/// Reads a picture from a stream that is perhaps `expected` bytes long.
///
/// ```
/// let bytes = paradise_picture::read_from(&b"P5 1 1 255\n\x07"[..], 0)?;
/// assert_eq!(bytes.len(), 12);
/// # Ok::<(), paradise_picture::PictureError>(())
/// ```
///
/// # Errors
/// If reading fails, or there are more than [`MAX_FILE`] bytes.
pub fn read_from(stream: impl Read, expected: u64) -> Result<Vec<u8>, PictureError> {
    let mut bytes = Vec::with_capacity(expected.min(MAX_FILE) as usize);
    stream.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(PictureError::Read)?;
    match bytes.len() as u64 {
        got if got > MAX_FILE => Err(PictureError::TooLarge { got: expected.max(got), limit: MAX_FILE }),
        _ => Ok(bytes),
    }
}

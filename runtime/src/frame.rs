//! Picture bytes of any usual format to the model's input: decoding with limits, orientation, then the engine's resize.

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use paradise_engine::Header;
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

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, ImageFormat, Luma, Rgba};
    use paradise_engine::Model;

    const MODEL: &[u8] = include_bytes!("../../models/fashion-mnist-small/model.pmq");

    fn ramp(side: u32) -> DynamicImage {
        DynamicImage::ImageLuma8(ImageBuffer::from_fn(side, side, |x, y| Luma([(x * 5 + y * 3) as u8])))
    }

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn tensor(bytes: &[u8]) -> Vec<u8> {
        input(Model::parse(MODEL).unwrap().header(), bytes).unwrap()
    }

    #[test]
    fn every_lossless_format_and_colour_gives_the_same_input() {
        let expected = ramp(28).into_bytes();
        let rgb = [
            ImageFormat::Png,
            ImageFormat::Bmp,
            ImageFormat::Tiff,
            ImageFormat::Pnm,
            ImageFormat::Qoi,
            ImageFormat::WebP,
            ImageFormat::Ico,
        ];
        for format in rgb {
            let picture = match format {
                ImageFormat::Ico => DynamicImage::ImageRgba8(ramp(28).into_rgba8()),
                _ => DynamicImage::ImageRgb8(ramp(28).into_rgb8()),
            };
            assert_eq!(tensor(&encoded(&picture, format)), expected, "{format:?}");
        }
        let colours = [
            ramp(28),
            DynamicImage::ImageLumaA8(ramp(28).into_luma_alpha8()),
            DynamicImage::ImageLuma16(ramp(28).into_luma16()),
            DynamicImage::ImageRgb16(ramp(28).into_rgb16()),
            DynamicImage::ImageRgba8(ramp(28).into_rgba8()),
        ];
        for picture in colours {
            assert_eq!(tensor(&encoded(&picture, ImageFormat::Png)), expected, "{:?}", picture.color());
        }
    }

    #[test]
    fn lossy_formats_come_close_and_sizes_are_resized() {
        let expected = ramp(28).into_bytes();
        let gap = |got: &[u8]| got.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // The ramp wraps from 255 to 0 nowhere in 28 pixels, so JPEG stays near.
        assert!(gap(&tensor(&encoded(&ramp(28), ImageFormat::Jpeg))) <= 12);
        let big = ramp(28).resize_exact(280, 280, image::imageops::FilterType::Nearest);
        assert!(gap(&tensor(&encoded(&big, ImageFormat::Png))) <= 4);
        for (w, h) in [(1, 1), (3, 500), (640, 480)] {
            let picture = DynamicImage::ImageRgba8(ImageBuffer::from_pixel(w, h, Rgba([255, 255, 255, 255])));
            assert_eq!(tensor(&encoded(&picture, ImageFormat::Png)), vec![255; 784]);
        }
    }

    #[test]
    fn transparency_is_black() {
        let clear = DynamicImage::ImageRgba8(ImageBuffer::from_pixel(28, 28, Rgba([255, 255, 255, 0])));
        assert_eq!(tensor(&encoded(&clear, ImageFormat::Png)), vec![0; 784]);
    }
}

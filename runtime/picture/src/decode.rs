//! Picture bytes to 8-bit pixels as they are meant to be seen, within limits.

use crate::contain::contained;
use crate::error::{PictureError, broken};
use crate::format::{Format, PROMISED};
use crate::jpeg;
use crate::limits::{self, MAX_DECODED, MAX_SIDE};
use image::metadata::Orientation;
use image::{DynamicImage, GenericImageView, ImageDecoder, ImageFormat, ImageReader, Limits};
use paradise_engine::Shape;
use paradise_engine::image::{FitError, ImagePolicy, Layout, Pixels, fit};
use std::io::Cursor;

/// A decoded picture, upright.
///
/// ```
/// use paradise_picture::Picture;
/// let picture = Picture::decode(b"P5 3 2 255\n\x00\x01\x02\x03\x04\x05")?;
/// assert_eq!((picture.width(), picture.height()), (3, 2));
/// # Ok::<(), paradise_picture::PictureError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Picture(pub(crate) DynamicImage);

impl Picture {
    /// Decodes the bytes of a picture file. Its size is checked before its pixels are.
    ///
    /// # Errors
    /// If they are no picture, not all of one, or too large a one.
    pub fn decode(bytes: &[u8]) -> Result<Self, PictureError> {
        let decoded = contained(|| match Self::format(bytes)? {
            (bytes, Format::Jpeg) => jpeg::decode(bytes),
            (bytes, Format::Other(format)) => other(bytes, format),
        });
        let (mut picture, orientation) = decoded.unwrap_or_else(|| Err(broken("its decoder gave up")))?;
        // Turned on its side it is held twice, which the limit on decoded bytes allows for.
        picture.apply_orientation(orientation);
        Ok(Self(eight_bits(picture)))
    }

    /// Rows and columns of a picture as it is seen, from its headers alone.
    ///
    /// # Errors
    /// As [`Picture::decode`], for what headers tell.
    pub fn size(bytes: &[u8]) -> Result<[u32; 2], PictureError> {
        let read = contained(|| match Self::format(bytes)? {
            (bytes, Format::Jpeg) => jpeg::size(bytes),
            (bytes, Format::Other(format)) => {
                let mut decoder = decoder(bytes, format)?;
                let (width, height) = decoder.dimensions();
                Ok(([height, width], decoder.orientation().map_err(reason)?))
            }
        });
        let ([h, w], orientation) = read.unwrap_or_else(|| Err(broken("its decoder gave up")))?;
        Ok(if on_its_side(orientation) { [w, h] } else { [h, w] })
    }

    /// Most memory that decoding takes beside the file itself, bytes, from its headers alone: pixels, what their decoder keeps beside
    /// them, and what turning or rounding them takes.
    ///
    /// ```
    /// use paradise_picture::Picture;
    /// assert!(Picture::memory(b"P6 4000 3000 255\n...")? >= 4000 * 3000 * 3);
    /// # Ok::<(), paradise_picture::PictureError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Picture::decode`], for what headers tell.
    pub fn memory(bytes: &[u8]) -> Result<u64, PictureError> {
        // Tables, rows and the like, of every format.
        const SMALL: u64 = 1 << 20;
        let read = contained(|| match Self::format(bytes)? {
            (bytes, Format::Jpeg) => jpeg::memory(bytes),
            (bytes, Format::Other(format)) => {
                let mut decoder = decoder(bytes, format)?;
                let (width, height) = decoder.dimensions();
                let (pixels, colour) = (u64::from(width) * u64::from(height), decoder.color_type());
                let decoded = pixels * u64::from(colour.bytes_per_pixel());
                let beside = match format {
                    // The canvas of an animation and its indices; planes or a lossless canvas; strips and tiles.
                    ImageFormat::Gif => 5 * pixels,
                    ImageFormat::WebP => 8 * pixels,
                    ImageFormat::Tiff => decoded,
                    _ => 0,
                };
                let channels = u64::from(colour.channel_count());
                let rounded = if u64::from(colour.bytes_per_pixel()) > channels { channels * pixels } else { 0 };
                let turned = if on_its_side(decoder.orientation().map_err(reason)?) { decoded } else { 0 };
                Ok(decoded + beside + rounded.max(turned))
            }
        });
        let most = read.unwrap_or_else(|| Err(broken("its decoder gave up")))?;
        Ok(most + bytes.len() as u64 + SMALL)
    }

    /// The bytes that are decoded, and their format.
    fn format(bytes: &[u8]) -> Result<(&[u8], Format), PictureError> {
        if bytes.is_empty() {
            return Err(PictureError::Empty);
        }
        let format = Format::of(bytes).ok_or(PictureError::Unknown(PROMISED))?;
        Ok(match (format, png_of_icon(bytes)) {
            (Format::Other(ImageFormat::Ico), Some(png)) => (png, Format::Other(ImageFormat::Png)),
            _ => (bytes, format),
        })
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.0.width()
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.0.height()
    }

    /// The rectangle of `width` x `height` pixels whose left upper corner is at column `x`, row `y`; what reaches past the
    /// picture is cut off.
    pub fn part(&self, x: u32, y: u32, width: u32, height: u32) -> Self {
        Self(self.0.crop_imm(x, y, width, height))
    }

    /// The model's input for this picture: u8 in HWC order.
    ///
    /// # Errors
    /// If the input has neither one nor three channels.
    pub fn input(&self, policy: &ImagePolicy, shape: Shape) -> Result<Vec<u8>, PictureError> {
        let (width, height) = self.0.dimensions();
        let (layout, bytes) = match &self.0 {
            DynamicImage::ImageLuma8(pixels) => (Layout::Luma, pixels.as_raw()),
            DynamicImage::ImageLumaA8(pixels) => (Layout::LumaAlpha, pixels.as_raw()),
            DynamicImage::ImageRgba8(pixels) => (Layout::Rgba, pixels.as_raw()),
            DynamicImage::ImageRgb8(pixels) => (Layout::Rgb, pixels.as_raw()),
            other => return Err(broken(&format!("pixels of kind {:?}", other.color()))),
        };
        let refused = |error| match error {
            FitError::Side { width, height } => {
                PictureError::Size { width, height, side: MAX_SIDE, mib: MAX_DECODED >> 20 }
            }
            error => PictureError::Decode(error.to_string()),
        };
        let mut out = vec![0; shape.len() as usize];
        let pixels = Pixels::new(width, height, layout, bytes).map_err(refused)?;
        fit(&pixels, policy, shape, &mut out).map_err(refused)?;
        Ok(out)
    }
}

/// Whether an orientation exchanges rows and columns.
pub(crate) fn on_its_side(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
    )
}

fn reason(error: image::ImageError) -> PictureError {
    match error {
        image::ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => PictureError::EndsEarly,
        error => PictureError::Decode(error.to_string()),
    }
}

fn decoder(bytes: &[u8], format: ImageFormat) -> Result<impl ImageDecoder + '_, PictureError> {
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(reason)?;
    let (width, height) = decoder.dimensions();
    limits::within(width, height, decoder.color_type().bytes_per_pixel().into())?;
    let mut decoder_limits = Limits::default();
    decoder_limits.max_alloc = Some(MAX_DECODED);
    decoder.set_limits(decoder_limits).map_err(reason)?;
    Ok(decoder)
}

fn other(bytes: &[u8], format: ImageFormat) -> Result<(DynamicImage, Orientation), PictureError> {
    let mut decoder = decoder(bytes, format)?;
    let orientation = decoder.orientation().map_err(reason)?;
    Ok((DynamicImage::from_decoder(decoder).map_err(reason)?, orientation))
}

/// The largest picture of an icon, where it is a PNG: the `image` crate takes none but RGBA there.
fn png_of_icon(bytes: &[u8]) -> Option<&[u8]> {
    let count = usize::from(u16::from_le_bytes([*bytes.get(4)?, *bytes.get(5)?]));
    let entries = bytes.get(6..)?.chunks_exact(16).take(count);
    // A side of 256 is written as 0.
    let area = |entry: &&[u8]| {
        [entry[0], entry[1]].iter().map(|s| if *s == 0 { 256 } else { u32::from(*s) }).product::<u32>()
    };
    let largest = entries.max_by_key(|entry| (area(entry), u16::from_le_bytes([entry[6], entry[7]])))?;
    let number =
        |at: usize| u32::from_le_bytes([largest[at], largest[at + 1], largest[at + 2], largest[at + 3]]) as usize;
    let (length, from) = (number(8), number(12));
    let file = bytes.get(from..from.checked_add(length)?)?;
    file.starts_with(b"\x89PNG\r\n\x1a\n").then_some(file)
}

/// Deeper pixels rounded to 8 bits, their kind kept.
fn eight_bits(picture: DynamicImage) -> DynamicImage {
    match picture {
        DynamicImage::ImageLuma16(_) => DynamicImage::ImageLuma8(picture.into_luma8()),
        DynamicImage::ImageLumaA16(_) => DynamicImage::ImageLumaA8(picture.into_luma_alpha8()),
        DynamicImage::ImageRgb16(_) | DynamicImage::ImageRgb32F(_) => DynamicImage::ImageRgb8(picture.into_rgb8()),
        DynamicImage::ImageRgba16(_) | DynamicImage::ImageRgba32F(_) => {
            DynamicImage::ImageRgba8(picture.into_rgba8())
        }
        picture => picture,
    }
}

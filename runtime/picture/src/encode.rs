//! A model's input as a picture that people can look at.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use paradise_engine::Shape;

/// The bytes of a PNG file of u8 `[h][w][c]`, with 1 or 3 channels; `None` if that is no picture.
///
/// ```
/// use paradise_engine::Shape;
/// let png = paradise_picture::png(&[0, 255], Shape::new(1, 2, 1)).unwrap();
/// assert!(png.starts_with(b"\x89PNG"));
/// assert!(paradise_picture::png(&[0, 255], Shape::new(1, 3, 1)).is_none());
/// ```
pub fn png(pixels: &[u8], shape: Shape) -> Option<Vec<u8>> {
    let colour = match shape.c {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        _ => return None,
    };
    if pixels.len() as u64 != shape.len() || pixels.is_empty() {
        return None;
    }
    let mut file = Vec::new();
    PngEncoder::new(&mut file).write_image(pixels, shape.w.into(), shape.h.into(), colour).ok()?;
    Some(file)
}

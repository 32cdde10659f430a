//! JPEG: every block is seen to be there before anything is decoded, then zune-jpeg gets the picture and nothing else.
//!
//! Decoders fill in what is missing, as browsers must; a classifier must not answer to what was filled in. So
//! [`frame`] reads the file's structure, [`blocks`] walks its entropy-coded data, and what comes out is the same picture
//! without thumbnails, comments and whatever follows it: a stream of the few segments that a decoder needs.

mod blocks;
mod frame;
mod huffman;

use crate::PictureError;
use crate::decode::on_its_side;
use crate::error::broken;
use crate::limits;
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// Rows and columns as stored, and how they are meant to be seen, from the headers alone.
pub(crate) fn size(bytes: &[u8]) -> Result<([u32; 2], Orientation), PictureError> {
    let frame = frame::headers(bytes)?;
    Ok(([frame.height.into(), frame.width.into()], frame.orientation))
}

/// Most bytes that decoding takes, from the headers alone: pixels, coefficients of a progressive picture, and the pixels once more where
/// they are turned.
pub(crate) fn memory(bytes: &[u8]) -> Result<u64, PictureError> {
    let frame = frame::headers(bytes)?;
    let channels = if frame.components == 1 { 1 } else { 3 };
    let pixels = u64::from(frame.width) * u64::from(frame.height);
    // Coefficients come in whole blocks of at most 32 by 32 pixels.
    let blocks = u64::from(frame.width).next_multiple_of(32) * u64::from(frame.height).next_multiple_of(32);
    let coefficients = if frame.progressive { 2 * u64::from(frame.components) * blocks } else { 0 };
    let turned = if on_its_side(frame.orientation) { channels * pixels } else { 0 };
    // Coefficients are gone when pixels are turned.
    Ok(channels * pixels + coefficients.max(turned))
}

/// Decodes a JPEG file: one channel where it has one component, else three.
pub(crate) fn decode(bytes: &[u8]) -> Result<(DynamicImage, Orientation), PictureError> {
    let frame = frame::headers(bytes)?;
    let (width, height) = (u32::from(frame.width), u32::from(frame.height));
    let (layout, channels) = if frame.components == 1 { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
    limits::within(width, height, channels)?;
    // A progressive picture is held as 16-bit coefficients beside its pixels.
    let coefficients = if frame.progressive { 2 * u64::from(frame.components) } else { 0 };
    limits::within(width, height, coefficients)?;
    let whole = frame::whole(bytes)?;
    // The portable code, whatever the CPU: its rounding is part of the bits that every device has in common.
    let options = DecoderOptions::default()
        .set_use_unsafe(false)
        .set_strict_mode(false)
        .set_max_width(usize::from(frame.width))
        .set_max_height(usize::from(frame.height))
        .jpeg_set_max_scans(frame::MAX_SCANS + 1)
        .jpeg_set_out_colorspace(layout);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&whole[..]), options);
    let pixels = decoder.decode().map_err(|error| broken(&format!("{error:?}")))?;
    let picture = match channels {
        1 => GrayImage::from_raw(width, height, pixels).map(DynamicImage::ImageLuma8),
        _ => RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8),
    };
    Ok((picture.ok_or_else(|| broken("its decoder returned another number of pixels"))?, frame.orientation))
}

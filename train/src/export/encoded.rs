//! Golden pictures as files, so that a device proves its whole way: decoder, orientation, transparency, resize, answer.

use anyhow::{Context, Result};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};
use paradise_engine::container::Blob;
use paradise_engine::golden::{Encoded, crc32_bytes};
use paradise_engine::image::Polarity;
use paradise_engine::{Model, Workspace, classify};
use std::io::Cursor;

/// What a camera that was held upright notes: the first row of what is stored is seen at the right.
const TURNED: u8 = 6;

/// The golden pictures made of images of the model's extents, u8 `[h][w][channels]`: a PNG of that very size, a larger JPEG,
/// a JPEG stored on its side, a PNG with alpha and other pixels hidden below. With fewer images some are used again.
///
/// # Errors
/// If there is no image or one cannot be encoded.
pub fn encoded(model: &Model, images: &[&[u8]], blob: &mut Blob) -> Result<Vec<Encoded>> {
    let all = images.iter().map(|image| picture(model, image)).collect::<Result<Vec<_>>>()?;
    let of = |k: usize| all.get(k % all.len().max(1)).context("no image to make golden pictures of");
    let files = [
        png(of(0)?)?,
        jpeg(&larger(of(1)?, 5, 4))?,
        turned(&jpeg(&larger(of(2)?, 4, 3).rotate270())?),
        png(&veiled(&larger(of(3)?, 3, 4)))?,
    ];
    files.iter().map(|file| golden(model, file, blob)).collect()
}

/// An input as the picture that it is of.
fn picture(model: &Model, image: &[u8]) -> Result<DynamicImage> {
    let (shape, policy) = (model.header().input, model.header().policy);
    let invert = policy.polarity == Polarity::Inverted;
    let pixels: Vec<u8> = image.iter().map(|v| if invert { 255 - v } else { *v }).collect();
    let (w, h) = (u32::from(shape.w), u32::from(shape.h));
    let made = match shape.c {
        1 => GrayImage::from_raw(w, h, pixels).map(DynamicImage::ImageLuma8),
        _ => RgbImage::from_raw(w, h, pixels).map(DynamicImage::ImageRgb8),
    };
    made.context("an image of other extents than the model's")
}

/// Half as large again, its sides in another ratio.
fn larger(picture: &DynamicImage, across: u32, down: u32) -> DynamicImage {
    let side = |side: u32, quarters: u32| (side * quarters / 3).max(1);
    picture.resize_exact(side(picture.width(), across), side(picture.height(), down), FilterType::Triangle)
}

/// The same with a border that is transparent, half of it, over white.
fn veiled(picture: &DynamicImage) -> DynamicImage {
    let mut veiled = picture.to_rgba8();
    let (w, h) = veiled.dimensions();
    for (x, y, pixel) in veiled.enumerate_pixels_mut() {
        let edge = [x, y, w - 1 - x, h - 1 - y].into_iter().min().unwrap_or(0);
        if edge < w.min(h) / 8 {
            pixel.0 = [255, 255, 255, if edge % 2 == 0 { 0 } else { 128 }];
        }
    }
    DynamicImage::ImageRgba8(veiled)
}

fn png(picture: &DynamicImage) -> Result<Vec<u8>> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png)?;
    Ok(file.into_inner())
}

fn jpeg(picture: &DynamicImage) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, 90).encode_image(picture)?;
    Ok(file)
}

/// A JPEG with an EXIF segment that says how it is meant to be seen.
pub fn turned(jpeg: &[u8]) -> Vec<u8> {
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([TURNED, 0, 0, 0, 0, 0, 0, 0]);
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

/// A file and what the engine says of it.
fn golden(model: &Model, file: &[u8], blob: &mut Blob) -> Result<Encoded> {
    let header = model.header();
    let input = paradise_picture::input(file, &header.policy, header.input)?;
    let (mut arena, mut floats) = (vec![0; header.arena_bytes as usize], vec![0.0; model.float_len()]);
    let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
    let answer = classify(model, &input, &mut memory, &mut |_, _| {})?;
    Ok(Encoded {
        file: blob.bytes(file),
        input_crc: crc32_bytes(&input),
        rate_nats: answer.rate_nats,
        class: answer.class as u16,
        accept: answer.decision.is_accept(),
    })
}

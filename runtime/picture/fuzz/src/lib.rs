//! What hostile bytes may do where pictures enter: be refused. [`judge`] goes the whole way from bytes to inputs, and
//! [`seeds`] are pictures of every format to begin with.
#![deny(missing_docs)]

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};
use paradise_engine::Shape;
use paradise_engine::image::{Geometry, ImagePolicy, Polarity};
use paradise_picture::{Picture, PictureError};
use std::io::Cursor;

/// What became of the bytes.
#[derive(Debug)]
pub enum Verdict {
    /// Refused, with this error.
    Refused(PictureError),
    /// A picture.
    Seen,
}

/// Decodes bytes and makes inputs of what is a picture.
///
/// # Panics
/// If the same bytes give two sizes, or an input cannot be made of a picture.
pub fn judge(data: &[u8]) -> Verdict {
    let size = Picture::size(data);
    let picture = match Picture::decode(data) {
        Ok(picture) => picture,
        Err(error) => return Verdict::Refused(error),
    };
    let [h, w] = size.expect("what is decoded has a size");
    assert_eq!([h, w], [picture.height(), picture.width()]);
    let policies = [
        (Geometry::Stretch, Polarity::AsTaken, Shape::new(5, 7, 3)),
        (Geometry::Crop { parts: 4321 }, Polarity::Inverted, Shape::new(9, 4, 1)),
        (Geometry::Letterbox, Polarity::LightOnDark, Shape::new(6, 6, 3)),
    ];
    for (geometry, polarity, shape) in policies {
        let input = picture.input(&ImagePolicy { geometry, polarity }, shape).expect("a picture has an input");
        assert_eq!(input.len() as u64, shape.len());
    }
    Verdict::Seen
}

/// Small pictures of every format that is read.
///
/// # Panics
/// Never: the encoders know what they are given.
pub fn seeds() -> Vec<Vec<u8>> {
    let pixel = |x: u32, y: u32| Rgba([(x * 9) as u8, (y * 13) as u8, (x * y) as u8, if x > 9 { 255 } else { 90 }]);
    let rgba = DynamicImage::ImageRgba8(RgbaImage::from_fn(21, 14, pixel));
    let rgb = DynamicImage::ImageRgb8(rgba.to_rgb8());
    let grey = DynamicImage::ImageLuma8(rgba.to_luma8());
    let mut all = vec![include_bytes!("../../../../tests/golden/progressive-app14.jpg").to_vec()];
    for (picture, format) in [
        (&rgba, ImageFormat::Png),
        (&grey, ImageFormat::Png),
        (&rgba, ImageFormat::WebP),
        (&rgb, ImageFormat::Tiff),
        (&rgb, ImageFormat::Bmp),
        (&rgba, ImageFormat::Gif),
        (&rgb, ImageFormat::Pnm),
        (&rgba, ImageFormat::Qoi),
        (&rgb, ImageFormat::Tga),
        (&rgba, ImageFormat::Ico),
    ] {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("encodes");
        all.push(bytes.into_inner());
    }
    for (picture, quality) in [(&rgb, 90), (&rgb, 20), (&grey, 75)] {
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(picture).expect("encodes");
        all.push(bytes);
    }
    all
}

//! Picture files to pixels of one size, for data sets that are folders of pictures.

use crate::random;
use anyhow::{Context, Result, ensure};
use image::imageops::FilterType;
use image::{DynamicImage, ImageReader, Limits};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// Largest side of a picture, pixels.
const MAX_SIDE: u32 = 16_384;
/// Most memory that decoding one picture may take, bytes.
const MAX_DECODED: u64 = 512 << 20;

/// How pictures of any size become images of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// 1 for grey, 3 for colour.
    pub channels: u16,
    /// Rows and columns of the images.
    pub side: u16,
    /// The centred square that is kept first, as CelebA's 148; none for the usual resize and centre crop.
    pub square: Option<u32>,
}

fn decode(path: &Path) -> Result<DynamicImage> {
    let mut reader = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .with_context(|| format!("{}: cannot read", path.display()))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    reader.decode().with_context(|| format!("{}: not a readable picture", path.display()))
}

impl Policy {
    fn bytes(&self, picture: &DynamicImage) -> Vec<u8> {
        match self.channels {
            1 => picture.to_luma8().into_raw(),
            _ => picture.to_rgb8().into_raw(),
        }
    }

    /// Height and width of a picture file, without decoding it.
    ///
    /// # Errors
    /// With the path, if it is not a picture.
    pub fn size(path: &Path) -> Result<[u32; 2]> {
        let (w, h) =
            image::image_dimensions(path).with_context(|| format!("{}: not a readable picture", path.display()))?;
        Ok([h, w])
    }

    /// The middle of a picture: u8 `[side][side][channels]`.
    ///
    /// A picture of that size is taken as it is. Others are resized so that the short side is 8/7 of `side` (256 for
    /// 224, as is usual for ImageNet), or exactly `side` below 64, and cropped.
    ///
    /// # Errors
    /// With the path, if it is not a picture.
    pub fn centre(&self, path: &Path) -> Result<Vec<u8>> {
        let mut picture = decode(path)?;
        let side = u32::from(self.side);
        if let Some(square) = self.square {
            let (w, h) = (picture.width(), picture.height());
            ensure!(w >= square && h >= square, "{}: {w} x {h} is smaller than {square}", path.display());
            picture = picture.crop_imm((w - square) / 2, (h - square) / 2, square, square);
            picture = picture.resize_exact(side, side, FilterType::Triangle);
        } else if (picture.width(), picture.height()) != (side, side) {
            let short = if side < 64 { side } else { side * 8 / 7 };
            let least = picture.width().min(picture.height()).max(1);
            let scaled =
                |v: u32| ((u64::from(v) * u64::from(short) + u64::from(least) / 2) / u64::from(least)) as u32;
            let (w, h) = (scaled(picture.width()).max(side), scaled(picture.height()).max(side));
            ensure!(w <= MAX_SIDE && h <= MAX_SIDE, "{}: too long and narrow", path.display());
            picture =
                picture.resize_exact(w, h, FilterType::Triangle).crop_imm((w - side) / 2, (h - side) / 2, side, side);
        }
        Ok(self.bytes(&picture))
    }

    /// A random part of a picture, 8 to 100 % of its area and 3/4 to 4/3 in shape, resized: u8
    /// `[side][side][channels]` (Szegedy et al., 2015).
    ///
    /// # Errors
    /// With the path, if it is not a picture.
    pub fn random_part(&self, path: &Path, rng: &mut ChaCha8Rng) -> Result<Vec<u8>> {
        let picture = decode(path)?;
        let (w, h) = (picture.width(), picture.height());
        let area = f64::from(w) * f64::from(h);
        for _ in 0..10 {
            let share = 0.08 + 0.92 * f64::from(random::uniform(rng));
            let shape = ((4.0f64 / 3.0).ln() * (2.0 * f64::from(random::uniform(rng)) - 1.0)).exp();
            let part_w = (area * share * shape).sqrt().round() as u32;
            let part_h = (area * share / shape).sqrt().round() as u32;
            if (1..=w).contains(&part_w) && (1..=h).contains(&part_h) {
                let x = random::below(rng, (w - part_w) as usize + 1) as u32;
                let y = random::below(rng, (h - part_h) as usize + 1) as u32;
                let side = u32::from(self.side);
                let part = picture.crop_imm(x, y, part_w, part_h).resize_exact(side, side, FilterType::Triangle);
                return Ok(self.bytes(&part));
            }
        }
        self.centre(path)
    }
}

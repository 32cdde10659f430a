//! Picture files to images of one size, the device's way; and random parts of them, which only training sees.

use anyhow::{Context, Result};
use paradise_engine::Shape;
use paradise_engine::image::{Geometry, ImagePolicy};
use paradise_picture::Picture;
use paradise_support::random;
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// How pictures of any size become images of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Extents of the images.
    pub shape: Shape,
    /// The record that a bundle carries, too.
    pub image: ImagePolicy,
}

fn read(path: &Path) -> Result<Picture> {
    let picture = paradise_picture::read(path).and_then(|bytes| Picture::decode(&bytes));
    picture.with_context(|| path.display().to_string())
}

impl Policy {
    /// Height and width of a picture file as it is seen, without decoding it.
    ///
    /// # Errors
    /// With the path, if it is not a picture.
    pub fn size(path: &Path) -> Result<[u32; 2]> {
        let size = paradise_picture::read(path).and_then(|bytes| Picture::size(&bytes));
        size.with_context(|| path.display().to_string())
    }

    /// A picture as a device sees it: u8 `[h][w][channels]`.
    ///
    /// # Errors
    /// With the path, if it is not a picture.
    pub fn seen(&self, path: &Path) -> Result<Vec<u8>> {
        read(path)?.input(&self.image, self.shape).with_context(|| path.display().to_string())
    }

    /// A random part of a picture, 8 to 100 % of its area and 3/4 to 4/3 in shape, resized: u8 `[h][w][channels]`
    /// (Szegedy et al., 2015). Where ten tries find none, the picture as a device sees it.
    ///
    /// # Errors
    /// With the path, if it is not a picture.
    pub fn random_part(&self, path: &Path, rng: &mut ChaCha8Rng) -> Result<Vec<u8>> {
        let picture = read(path)?;
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
                let stretched = ImagePolicy { geometry: Geometry::Stretch, ..self.image };
                let part = picture.part(x, y, part_w, part_h).input(&stretched, self.shape);
                return part.with_context(|| path.display().to_string());
            }
        }
        picture.input(&self.image, self.shape).with_context(|| path.display().to_string())
    }
}

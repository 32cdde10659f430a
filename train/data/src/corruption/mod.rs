//! The fifteen usual corruptions at five levels (Hendrycks & Dietterich, 2019), for images of any size: their kinds and
//! the strengths published for 32 x 32 images, drawn by our own code. Frost and snow are textures made from noise.

mod picture;

use super::Dataset;
use anyhow::{Result, ensure};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use paradise_engine::Shape;
use paradise_support::random::{self, Purpose};
use picture::{Picture, disc, gaussian, line, poisson};
use rayon::prelude::*;

/// A corruption's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Corruption {
    GaussianNoise,
    ShotNoise,
    ImpulseNoise,
    DefocusBlur,
    GlassBlur,
    MotionBlur,
    ZoomBlur,
    Snow,
    Frost,
    Fog,
    Brightness,
    Contrast,
    Elastic,
    Pixelate,
    Jpeg,
}

use Corruption::*;

/// All of them, in the order of their paper.
pub const ALL: [Corruption; 15] = [
    GaussianNoise,
    ShotNoise,
    ImpulseNoise,
    DefocusBlur,
    GlassBlur,
    MotionBlur,
    ZoomBlur,
    Snow,
    Frost,
    Fog,
    Brightness,
    Contrast,
    Elastic,
    Pixelate,
    Jpeg,
];

/// Their names, in that order.
const NAMES: [&str; 15] = [
    "Gaussian noise",
    "shot noise",
    "impulse noise",
    "defocus blur",
    "glass blur",
    "motion blur",
    "zoom blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic",
    "pixelate",
    "JPEG",
];

/// Levels of each.
pub const LEVELS: usize = 5;

impl Corruption {
    /// As tables write it.
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// A set with every image corrupted at `level`, 1 to 5; the randomness is keyed by seed, kind, level and image.
    ///
    /// ```
    /// use paradise_data::{corruption::Corruption, embedded};
    /// let few = embedded::subset()?.test.head(3);
    /// let hazy = Corruption::Fog.apply(&few, 5, 0)?;
    /// assert_eq!((hazy.len(), hazy.labels == few.labels, hazy.images == few.images), (3, true, false));
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the level is another, or JPEG cannot hold the image.
    pub fn apply(self, set: &Dataset, level: usize, seed: u64) -> Result<Dataset> {
        ensure!((1..=LEVELS).contains(&level), "level {level} of a corruption is not in 1..={LEVELS}");
        let each = set.shape.len() as usize;
        let images: Vec<Vec<u8>> = set
            .images
            .par_chunks_exact(each)
            .enumerate()
            .map(|(i, image)| {
                let rng = random::stream(seed, Purpose::Corruption, self as u32, i as u64, level as u64);
                if self == Jpeg {
                    return jpeg(image, set.shape, [80, 65, 58, 50, 40][level - 1]);
                }
                let values = image.iter().map(|b| f32::from(*b) / 255.0).collect();
                let mut picture = Picture { values, shape: set.shape, rng };
                picture.corrupt(self, level - 1);
                Ok(picture.values.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect())
            })
            .collect::<Result<_>>()?;
        Ok(Dataset { shape: set.shape, images: images.concat(), labels: set.labels.clone() })
    }
}

/// Through a JPEG file and back.
fn jpeg(image: &[u8], shape: Shape, quality: u8) -> Result<Vec<u8>> {
    let (h, w) = (u32::from(shape.h), u32::from(shape.w));
    let colour = if shape.c == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    ensure!(matches!(shape.c, 1 | 3), "JPEG has no images of {} channels", shape.c);
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).write_image(image, w, h, colour)?;
    let back = image::load_from_memory(&bytes)?;
    Ok(if shape.c == 1 { back.to_luma8().into_raw() } else { back.to_rgb8().into_raw() })
}

impl Picture {
    fn corrupt(&mut self, kind: Corruption, level: usize) {
        let pick = |strengths: [f32; LEVELS]| strengths[level];
        let s = self.scale();
        match kind {
            GaussianNoise => {
                let deviation = pick([0.04, 0.06, 0.08, 0.09, 0.10]);
                self.each(|v, rng| v + deviation * random::normal(rng));
            }
            ShotNoise => {
                let photons = pick([500.0, 250.0, 100.0, 75.0, 50.0]);
                self.each(|v, rng| poisson(v * photons, rng) / photons);
            }
            ImpulseNoise => {
                let share = pick([0.01, 0.02, 0.03, 0.05, 0.07]);
                self.each(|v, rng| match random::uniform(rng) {
                    u if u < share / 2.0 => 0.0,
                    u if u < share => 1.0,
                    _ => v,
                });
            }
            DefocusBlur => self.convolve(&disc(pick([0.6, 0.8, 1.0, 1.3, 1.7]) * s)),
            GlassBlur => {
                let (share, rounds) = (pick([0.2, 0.4, 0.6, 0.8, 0.8]), [1, 1, 1, 1, 2][level]);
                self.convolve(&gaussian(0.3 * s));
                self.swap_neighbours(share, rounds);
                self.convolve(&gaussian(0.3 * s));
            }
            MotionBlur => {
                let angle = (random::uniform(&mut self.rng) - 0.5) * std::f32::consts::FRAC_PI_2;
                self.convolve(&line(pick([2.0, 3.0, 4.0, 5.0, 6.0]) * s, angle));
            }
            ZoomBlur => self.zoom(pick([0.06, 0.11, 0.16, 0.21, 0.26])),
            Snow => self.snow(pick([0.1, 0.2, 0.3, 0.4, 0.5]), pick([0.95, 0.9, 0.9, 0.85, 0.8])),
            Frost => {
                let (keep, ice) = (pick([1.0, 1.0, 0.9, 0.85, 0.75]), pick([0.2, 0.3, 0.4, 0.4, 0.45]));
                self.overlay(2.2, |v, ice_at| keep * v + ice * (ice_at * 2.0 - 0.6).max(0.0));
            }
            Fog => {
                let (thick, decay) = (pick([0.2, 0.5, 0.75, 1.0, 1.5]), pick([3.0, 3.0, 2.5, 2.0, 1.75]));
                let top = self.values.iter().copied().fold(0.0, f32::max);
                self.overlay(decay, |v, fog| (v + thick * fog) * top.max(0.1) / (top.max(0.1) + thick));
            }
            Brightness => {
                let more = pick([0.05, 0.1, 0.15, 0.2, 0.3]);
                self.values.iter_mut().for_each(|v| *v += more);
            }
            Contrast => {
                let share = pick([0.75, 0.5, 0.4, 0.3, 0.15]);
                let c = self.sides()[2];
                for k in 0..c {
                    let own = || (k..self.values.len()).step_by(c);
                    let mean = own().map(|at| self.values[at]).sum::<f32>() / own().count() as f32;
                    for at in (k..self.values.len()).step_by(c) {
                        self.values[at] = (self.values[at] - mean) * share + mean;
                    }
                }
            }
            Elastic => self.elastic(pick([1.0, 1.5, 2.0, 2.5, 3.0]) * s),
            Pixelate => self.pixelate(pick([0.95, 0.9, 0.85, 0.75, 0.65])),
            // Through a file: see `jpeg`.
            Jpeg => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded;

    fn change(a: &Dataset, b: &Dataset) -> f64 {
        let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
        (a.images.iter().zip(&b.images).map(square).sum::<f64>() / a.images.len() as f64).sqrt()
    }

    #[test]
    fn every_corruption_grows_with_its_level_and_repeats() {
        let set = embedded::subset().unwrap().test.head(60);
        let colour = Dataset {
            shape: Shape { c: 3, ..set.shape },
            images: set.images.iter().flat_map(|b| [*b, b / 2, 255 - b]).collect(),
            labels: set.labels.clone(),
        };
        for kind in ALL {
            for set in [&set, &colour] {
                let by_level: Vec<f64> =
                    (1..=LEVELS).map(|level| change(&kind.apply(set, level, 3).unwrap(), set)).collect();
                assert!(by_level[0] > 0.3 && by_level[4] < 150.0, "{kind:?} {by_level:?}");
                assert!(by_level[4] > 1.1 * by_level[0], "{kind:?} {by_level:?}");
            }
            assert_eq!(kind.apply(&set, 2, 3).unwrap(), kind.apply(&set, 2, 3).unwrap());
            assert_eq!(kind.apply(&set, 2, 3).unwrap().labels, set.labels);
        }
        assert!(ALL[0].apply(&set, 0, 0).is_err() && ALL[0].apply(&set, 6, 0).is_err());
    }
}

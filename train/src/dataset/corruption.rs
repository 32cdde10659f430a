//! The fifteen usual corruptions at five levels (Hendrycks & Dietterich, 2019), for images of any size: their kinds and
//! the strengths published for 32 x 32 images, drawn by our own code. Frost and snow are textures made from noise.

use super::Dataset;
use crate::random::{self, Purpose};
use anyhow::{Result, ensure};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use paradise_engine::Shape;
use rand_chacha::ChaCha8Rng;
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

/// Levels of each.
pub const LEVELS: usize = 5;

impl Corruption {
    /// As tables write it.
    pub fn name(self) -> &'static str {
        match self {
            GaussianNoise => "Gaussian noise",
            ShotNoise => "shot noise",
            ImpulseNoise => "impulse noise",
            DefocusBlur => "defocus blur",
            GlassBlur => "glass blur",
            MotionBlur => "motion blur",
            ZoomBlur => "zoom blur",
            Snow => "snow",
            Frost => "frost",
            Fog => "fog",
            Brightness => "brightness",
            Contrast => "contrast",
            Elastic => "elastic",
            Pixelate => "pixelate",
            Jpeg => "JPEG",
        }
    }

    /// A set with every image corrupted at `level`, 1 to 5; the randomness is keyed by seed, kind, level and image.
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

/// One image on its way, f32 `[h][w][c]`.
struct Picture {
    values: Vec<f32>,
    shape: Shape,
    rng: ChaCha8Rng,
}

impl Picture {
    fn sides(&self) -> [usize; 3] {
        [self.shape.h, self.shape.w, self.shape.c].map(usize::from)
    }

    /// Lengths published for 32 pixels a side, at this one.
    fn scale(&self) -> f32 {
        f32::from(self.shape.h.min(self.shape.w)) / 32.0
    }

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

    fn each(&mut self, mut f: impl FnMut(f32, &mut ChaCha8Rng) -> f32) {
        for v in &mut self.values {
            *v = f(*v, &mut self.rng);
        }
    }

    /// The value at a place between pixels, the border repeated.
    fn at(&self, y: f32, x: f32, k: usize) -> f32 {
        let [h, w, c] = self.sides();
        let inside = |v: f32, n: usize| v.clamp(0.0, (n - 1) as f32);
        let (y, x) = (inside(y, h), inside(x, w));
        let (y0, x0) = (y.floor() as usize, x.floor() as usize);
        let (y1, x1) = ((y0 + 1).min(h - 1), (x0 + 1).min(w - 1));
        let (fy, fx) = (y - y0 as f32, x - x0 as f32);
        let v = |y: usize, x: usize| self.values[(y * w + x) * c + k];
        (1.0 - fy) * ((1.0 - fx) * v(y0, x0) + fx * v(y0, x1)) + fy * ((1.0 - fx) * v(y1, x0) + fx * v(y1, x1))
    }

    /// Every pixel from a place that `from` gives.
    fn warp(&mut self, from: impl Fn(usize, usize) -> (f32, f32)) {
        let [h, w, c] = self.sides();
        let mut out = Vec::with_capacity(self.values.len());
        for y in 0..h {
            for x in 0..w {
                let (sy, sx) = from(y, x);
                out.extend((0..c).map(|k| self.at(sy, sx, k)));
            }
        }
        self.values = out;
    }

    fn convolve(&mut self, kernel: &Kernel) {
        let [h, w, c] = self.sides();
        let mut out = Vec::with_capacity(self.values.len());
        for y in 0..h {
            for x in 0..w {
                for k in 0..c {
                    let one = |(dy, dx, weight): &(f32, f32, f32)| weight * self.at(y as f32 + dy, x as f32 + dx, k);
                    out.push(kernel.0.iter().map(one).sum());
                }
            }
        }
        self.values = out;
    }

    fn swap_neighbours(&mut self, share: f32, rounds: usize) {
        let [h, w, c] = self.sides();
        for _ in 0..rounds {
            for y in 1..h.saturating_sub(1) {
                for x in 1..w.saturating_sub(1) {
                    if random::uniform(&mut self.rng) >= share {
                        continue;
                    }
                    let mut step = || random::below(&mut self.rng, 3);
                    let (oy, ox) = (y + step() - 1, x + step() - 1);
                    for k in 0..c {
                        self.values.swap((y * w + x) * c + k, (oy * w + ox) * c + k);
                    }
                }
            }
        }
    }

    fn zoom(&mut self, most: f32) {
        const STEPS: usize = 6;
        let [h, w, _] = self.sides();
        let (cy, cx) = ((h - 1) as f32 / 2.0, (w - 1) as f32 / 2.0);
        let original = self.values.clone();
        let mut sum = original.clone();
        for step in 1..=STEPS {
            self.values.clone_from(&original);
            let factor = 1.0 + most * step as f32 / STEPS as f32;
            self.warp(|y, x| (cy + (y as f32 - cy) / factor, cx + (x as f32 - cx) / factor));
            sum.iter_mut().zip(&self.values).for_each(|(s, v)| *s += v);
        }
        self.values = sum.into_iter().map(|v| v / (STEPS + 1) as f32).collect();
    }

    /// Flakes that fall at an angle, over an image that pales.
    fn snow(&mut self, amount: f32, keep: f32) {
        let [h, w, c] = self.sides();
        let shape = Shape { c: 1, ..self.shape };
        let flake = |rng: &mut ChaCha8Rng| if random::uniform(rng) < amount * 0.25 { 1.0 } else { 0.0 };
        let values = (0..h * w).map(|_| flake(&mut self.rng)).collect();
        let mut layer = Picture { values, shape, rng: self.rng.clone() };
        layer.convolve(&line(3.0 * self.scale(), 1.0));
        for at in 0..h * w {
            for k in 0..c {
                let v = &mut self.values[at * c + k];
                *v = keep * *v + (1.0 - keep) * v.max(0.75) + 1.5 * layer.values[at];
            }
        }
    }

    /// Mixes in a cloud in [0, 1], rougher for a smaller `decay`.
    fn overlay(&mut self, decay: f32, mix: impl Fn(f32, f32) -> f32) {
        let [h, w, c] = self.sides();
        let cloud = plasma(h.max(w), decay, &mut self.rng);
        let side = cloud.len().isqrt();
        for at in 0..h * w {
            for k in 0..c {
                let v = &mut self.values[at * c + k];
                *v = mix(*v, cloud[at / w * side + at % w]);
            }
        }
    }

    fn elastic(&mut self, strength: f32) {
        let [h, w, _] = self.sides();
        let mut field = || {
            let values = (0..h * w).map(|_| 2.0 * random::uniform(&mut self.rng) - 1.0).collect();
            let mut field = Picture { values, shape: Shape { c: 1, ..self.shape }, rng: self.rng.clone() };
            field.convolve(&gaussian(3.0 * self.shape.h as f32 / 32.0));
            let top = field.values.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
            field.values.into_iter().map(|v| v / top * strength).collect::<Vec<f32>>()
        };
        let (dy, dx) = (field(), field());
        self.warp(|y, x| (y as f32 + dy[y * w + x], x as f32 + dx[y * w + x]));
    }

    /// Fewer, larger pixels: area means, then nearest.
    fn pixelate(&mut self, share: f32) {
        let [h, w, c] = self.sides();
        let fewer = |n: usize| ((n as f32 * share) as usize).max(1);
        let (fh, fw) = (fewer(h), fewer(w));
        let bounds = |i: usize, few: usize, n: usize| (i * n / few, (((i + 1) * n).div_ceil(few)).min(n));
        let mut out = vec![0.0; self.values.len()];
        for y in 0..h {
            for x in 0..w {
                let ((y0, y1), (x0, x1)) = (bounds(y * fh / h, fh, h), bounds(x * fw / w, fw, w));
                for k in 0..c {
                    let block = (y0..y1).flat_map(|y| (x0..x1).map(move |x| (y * w + x) * c + k));
                    let sum: f32 = block.map(|at| self.values[at]).sum();
                    out[(y * w + x) * c + k] = sum / ((y1 - y0) * (x1 - x0)) as f32;
                }
            }
        }
        self.values = out;
    }
}

/// Offsets in rows and columns, and weights that sum to 1.
struct Kernel(Vec<(f32, f32, f32)>);

impl Kernel {
    fn of(points: impl Iterator<Item = (f32, f32, f32)>) -> Self {
        let points: Vec<_> = points.filter(|p| p.2 > 1e-6).collect();
        let total: f32 = points.iter().map(|p| p.2).sum();
        Self(points.into_iter().map(|(y, x, w)| (y, x, w / total)).collect())
    }

    fn square(reach: i32, weight: impl Fn(f32, f32) -> f32) -> Self {
        let all = (-reach..=reach).flat_map(|y| (-reach..=reach).map(move |x| (y as f32, x as f32)));
        Self::of(all.map(|(y, x)| (y, x, weight(y, x))))
    }
}

/// A disc whose edge pixels count by how much of them it covers, about.
fn disc(radius: f32) -> Kernel {
    Kernel::square(radius.ceil() as i32, |y, x| (radius + 0.5 - y.hypot(x)).clamp(0.0, 1.0))
}

fn gaussian(sigma: f32) -> Kernel {
    Kernel::square((3.0 * sigma).ceil() as i32, |y, x| (-(y * y + x * x) / (2.0 * sigma * sigma).max(1e-6)).exp())
}

/// Places along a line, the weights falling off on one side, as a moving camera has them.
fn line(length: f32, angle: f32) -> Kernel {
    let steps = (2.0 * length).ceil().max(1.0) as i32;
    let at = |i: i32| i as f32 * length / steps as f32;
    Kernel::of((0..=steps).map(|i| (at(i) * angle.sin(), at(i) * angle.cos(), (-at(i) / length.max(1e-3)).exp())))
}

/// A cloud by midpoint displacement, `[side][side]` in [0, 1], side a power of two that is at least `least`.
fn plasma(least: usize, decay: f32, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let side = least.next_power_of_two();
    let mut map = vec![0.0f32; side * side];
    let (mut step, mut wobble) = (side, 1.0f32);
    while step >= 2 {
        let half = step / 2;
        let mut noise = |mean: f32| mean + wobble * (2.0 * random::uniform(rng) - 1.0);
        let at = |y: usize, x: usize| (y % side) * side + x % side;
        for y in (0..side).step_by(step) {
            for x in (0..side).step_by(step) {
                let corners =
                    map[at(y, x)] + map[at(y + step, x)] + map[at(y, x + step)] + map[at(y + step, x + step)];
                map[at(y + half, x + half)] = noise(corners / 4.0);
            }
        }
        for y in (0..side).step_by(half) {
            for x in (0..side).step_by(half).filter(|x| (x + y) / half % 2 == 1) {
                let around = map[at(y + side - half, x)]
                    + map[at(y + half, x)]
                    + map[at(y, x + side - half)]
                    + map[at(y, x + half)];
                map[at(y, x)] = noise(around / 4.0);
            }
        }
        step = half;
        wobble /= decay;
    }
    let (low, high) = map.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    map.iter().map(|v| (v - low) / (high - low).max(1e-6)).collect()
}

/// A Poisson draw: by counting below 30, by a rounded normal above.
fn poisson(mean: f32, rng: &mut ChaCha8Rng) -> f32 {
    if mean > 30.0 {
        return (mean + mean.sqrt() * random::normal(rng)).round().max(0.0);
    }
    let (limit, mut product, mut count) = ((-mean).exp(), random::uniform(rng), 0.0);
    while product > limit {
        product *= random::uniform(rng);
        count += 1.0;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::embedded;

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

    #[test]
    fn blurs_keep_the_mean_and_counts_their_moments() {
        for kernel in [disc(1.5), gaussian(0.8), line(3.0, 0.4)] {
            assert!((kernel.0.iter().map(|p| p.2).sum::<f32>() - 1.0).abs() < 1e-5);
        }
        let mut rng = random::stream(1, Purpose::Noise, 0, 0, 0);
        for mean in [0.5f32, 12.0, 80.0] {
            let draws: Vec<f64> = (0..20_000).map(|_| f64::from(poisson(mean, &mut rng))).collect();
            let average = draws.iter().sum::<f64>() / 20_000.0;
            let spread = draws.iter().map(|d| (d - average).powi(2)).sum::<f64>() / 20_000.0;
            // Mean and variance of a Poisson draw are the same; five standard errors, and rounding's 1/12.
            let five = 5.0 * (f64::from(mean) / 20_000.0).sqrt();
            assert!((average - f64::from(mean)).abs() < five, "{mean} {average}");
            assert!((spread / f64::from(mean) - 1.0).abs() < 0.08, "{mean} {spread}");
        }
    }
}

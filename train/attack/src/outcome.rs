//! A whole data set under attack: its samples, and what became of each.

use crate::attack::{Attack, Attempt, Sample, Victim};
use crate::error::Result;
use crate::launch::launch;
use crate::threat::Ball;
use paradise_data::Dataset;
use paradise_support::statistics::Proportion;

/// Pixels of a set in [0, 1].
pub fn pixels(set: &Dataset) -> Vec<f32> {
    set.images.iter().map(|&p| f32::from(p) / 255.0).collect()
}

/// The images of a set, keyed by their place in it; `pixels` are [`pixels`] of the set.
pub fn samples<'a>(set: &Dataset, pixels: &'a [f32]) -> Vec<Sample<'a>> {
    let images = pixels.chunks_exact(set.shape.len() as usize);
    images
        .zip(&set.labels)
        .enumerate()
        .map(|(i, (clean, label))| Sample { clean, label: usize::from(*label), key: i as u64 })
        .collect()
}

/// What an attack did to each image of a set.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Where perturbed images may be.
    pub ball: Ball,
    /// Whether each image was misclassified at some point of the ball (or from the start).
    pub broken: Vec<bool>,
    /// f32 `[n][h][w][c]`: the misclassified point, or the last or best try where none was found.
    pub points: Vec<f32>,
}

impl Outcome {
    /// [`launch`] over a whole set.
    ///
    /// # Errors
    /// As [`launch`].
    pub fn of(attack: &dyn Attack, victim: Victim, ball: Ball, set: &Dataset, seed: u64) -> Result<Self> {
        let pixels = pixels(set);
        let attempts = launch(attack, victim, ball, &samples(set, &pixels), seed, &|_| ())?;
        Ok(Self::from_attempts(ball, attempts))
    }

    /// The attempts of a set, in order.
    pub fn from_attempts(ball: Ball, attempts: Vec<Attempt>) -> Self {
        let broken = attempts.iter().map(|a| a.broken).collect();
        Self { ball, broken, points: attempts.into_iter().flat_map(|a| a.point).collect() }
    }

    /// The share of images that kept their class.
    pub fn robust_share(&self) -> Proportion {
        Proportion::of(self.broken.iter().map(|b| !b))
    }

    /// The per-image worst case of two attacks on the same images.
    ///
    /// # Panics
    /// If they are not of the same images.
    pub fn worst(mut self, other: &Self) -> Self {
        assert_eq!(self.broken.len(), other.broken.len(), "outcomes of the same images");
        let each = self.points.len() / self.broken.len().max(1);
        for i in 0..self.broken.len() {
            if !self.broken[i] && other.broken[i] {
                self.broken[i] = true;
                let range = i * each..(i + 1) * each;
                self.points[range.clone()].copy_from_slice(&other.points[range]);
            }
        }
        self
    }

    /// The points on the 8-bit grid, inside the ball: what could be sent as an image file.
    pub fn on_grid(&self, clean: &Dataset) -> Dataset {
        let each = clean.shape.len() as usize;
        let images = self.points.chunks_exact(each).zip(clean.images.chunks_exact(each));
        let images = images.flat_map(|(x, pixels)| self.ball.on_grid(x, pixels)).collect();
        Dataset { shape: clean.shape, images, labels: clean.labels.clone() }
    }
}

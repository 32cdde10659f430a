//! Attacks: perturbations inside a threat ball that change the class. One file an attack family over one shared loop.

pub mod apgd;
pub mod gradient;
pub mod loss;
pub mod model;
pub mod square;
pub mod threat;

use crate::dataset::Dataset;
use crate::statistics::Proportion;

/// An image under attack.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// f32 `[h][w][c]` in [0, 1].
    pub clean: &'a [f32],
    /// Its class.
    pub label: usize,
    /// What its randomness is keyed by, whatever the batch.
    pub key: u64,
}

/// What an attack did to each image of a set.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Radius of the l_inf ball, in [0, 1] pixel units.
    pub eps: f32,
    /// Whether each image was misclassified at some point of the ball (or from the start).
    pub broken: Vec<bool>,
    /// f32 `[n][h][w][c]`: the misclassified point, or the last iterate where none was found.
    pub points: Vec<f32>,
}

impl Outcome {
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
        let images =
            self.points.iter().zip(&clean.images).map(|(x, &pixel)| threat::to_grid(*x, pixel, self.eps)).collect();
        Dataset { shape: clean.shape, images, labels: clean.labels.clone() }
    }
}

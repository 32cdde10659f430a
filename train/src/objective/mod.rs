//! What is minimised: `distortion + alpha * rate + gamma * matching`, by the terms that an objective keeps.

pub mod adversary;
pub mod matching;
mod rate_distortion;
mod reference;
mod terms;

pub use terms::{Pending, Terms};

use crate::encoder::Encoder;
use crate::encoder::batch;
use adversary::Adversary;
use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::loss::cross_entropy;
use paradise_data::Dataset;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Which terms are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Cross-entropy of mu alone.
    Standard,
    /// Sampled distortion, and the rate against a standard normal (Alemi et al., 2016).
    Dvib,
    /// The same with posterior matching.
    DvibPm,
    /// Sampled distortion and rate (supplement, algorithm 1).
    Paradise,
    /// With posterior matching (supplement, equation 8) under random perturbations.
    ParadisePm,
    /// The same under perturbations that an adversary finds; ours, not the supplement's.
    ParadiseAm,
    /// Cross-entropy of mu under perturbations that raise it (Madry et al., 2018).
    PgdAt,
    /// Cross-entropy of mu, and the divergence that an adversary causes (Zhang et al., 2019).
    Trades,
    /// Reconstruction and rate (supplement, algorithm 2).
    ParadiseUnsupervised,
}

impl Kind {
    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Dvib => "dvib",
            Self::DvibPm => "dvib-pm",
            Self::Paradise => "paradise",
            Self::ParadisePm => "paradise-pm",
            Self::ParadiseAm => "paradise-am",
            Self::PgdAt => "pgd-at",
            Self::Trades => "trades",
            Self::ParadiseUnsupervised => "paradise-unsupervised",
        }
    }

    /// Whether it samples the posterior and weighs its rate.
    pub fn has_rate(&self) -> bool {
        !matches!(self, Self::Standard | Self::PgdAt | Self::Trades)
    }

    /// Whether it matches the posteriors of perturbed images.
    pub fn has_matching(&self) -> bool {
        matches!(self, Self::DvibPm | Self::ParadisePm | Self::ParadiseAm)
    }

    /// Whether images are reconstructed instead of classified.
    pub fn is_unsupervised(&self) -> bool {
        *self == Self::ParadiseUnsupervised
    }
}

/// How far a reconstruction is from its image, summed over the pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reconstruction {
    /// Squared error (the supplement's choice for MNIST).
    Squared,
    /// Absolute error (its choice for CelebA).
    Absolute,
}

/// An objective and its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objective {
    /// Which terms are kept.
    pub kind: Kind,
    /// Weight of the rate.
    pub alpha: f64,
    /// Weight of posterior matching, or of the divergence of `trades`.
    pub gamma: f64,
    /// Posterior samples K of the distortion.
    pub samples: usize,
    /// Largest perturbation magnitude m of posterior matching, in 1/255.
    pub matching_max_pixels: f32,
    /// Whether x' is clipped to [0, 1].
    pub matching_clip: bool,
    /// Whether gradients flow through the weights a_j of equation 8.
    pub matching_weight_gradient: bool,
    /// How perturbations are found, for `paradise-am`, `pgd-at` and `trades`.
    pub adversary: Adversary,
    /// The distortion of `paradise-unsupervised`.
    pub reconstruction: Reconstruction,
}

impl Default for Objective {
    fn default() -> Self {
        Self {
            kind: Kind::ParadisePm,
            alpha: 1e-3,
            gamma: 8.0,
            samples: 12,
            matching_max_pixels: 16.0,
            matching_clip: false,
            matching_weight_gradient: false,
            adversary: Adversary::default(),
            reconstruction: Reconstruction::Squared,
        }
    }
}

impl Objective {
    /// Refuses weights that cannot be meant.
    ///
    /// # Errors
    /// With the value and its range.
    pub fn validate(&self) -> Result<()> {
        ensure!(self.alpha >= 0.0 && self.alpha.is_finite(), "objective.alpha = {} is not >= 0", self.alpha);
        ensure!(self.gamma >= 0.0 && self.gamma.is_finite(), "objective.gamma = {} is not >= 0", self.gamma);
        ensure!((1..=1024).contains(&self.samples), "objective.samples = {} is not in 1..=1024", self.samples);
        let m = self.matching_max_pixels;
        ensure!((0.0..=255.0).contains(&m), "objective.matching_max_pixels = {m} is not in 0..=255");
        self.adversary.validate()
    }
}

/// A mini-batch and the keys of its randomness.
#[derive(Debug)]
pub struct Batch<'a> {
    /// f32 `[own, h, w, c]` in [0, 1]: the images of this process.
    pub images: &'a Tensor,
    /// u32 `[m]`: of the whole batch.
    pub labels: &'a Tensor,
    /// Index of each image of the whole batch in the training set.
    pub ids: &'a [usize],
    /// Which of them are this process's: all of them, unless ranks share the batch.
    pub own: Range<usize>,
    /// Seed of the run.
    pub seed: u64,
    /// Epoch, counted from 0.
    pub epoch: u32,
    /// Share of the run that is done, in [0, 1].
    pub share: f64,
}

impl Batch<'_> {
    /// Indices of this process's images.
    pub fn own_ids(&self) -> &[usize] {
        &self.ids[self.own.clone()]
    }

    /// Classes of this process's images, u32 `[own]`.
    ///
    /// # Errors
    /// If candle fails.
    pub fn own_labels(&self) -> candle_core::Result<Tensor> {
        self.labels.narrow(0, self.own.start, self.own.len())
    }

    /// Mean of `f` over the whole batches of `size` images in a set, on `device`, drawn with the keys of a run's first
    /// epoch. Labels are 0.
    ///
    /// # Errors
    /// The first error of `f`, or a set without images.
    pub fn mean_over(
        set: &Dataset,
        size: usize,
        seed: u64,
        device: &Device,
        f: impl Fn(&Batch) -> Result<f64>,
    ) -> Result<f64> {
        ensure!(!set.is_empty(), "no images to take a mean over");
        let size = size.min(set.len());
        let all: Vec<usize> = (0..set.len()).collect();
        let labels = Tensor::zeros(size, DType::U32, device)?;
        let mut sum = 0.0;
        for ids in all.chunks_exact(size) {
            let images = batch(set, ids)?.to_device(device)?;
            sum += f(&Batch { images: &images, labels: &labels, ids, own: 0..size, seed, epoch: 0, share: 1.0 })?;
        }
        Ok(sum / (set.len() / size) as f64)
    }
}

/// Every term by name, as scalars that carry gradients; terms an objective does not keep are absent.
#[derive(Debug)]
pub struct Loss {
    /// Cross-entropy, nats; or the reconstruction's error.
    pub distortion: Tensor,
    /// `-mean H - MWS + log(M - 1)`, or the divergence from a standard normal, nats.
    pub rate: Option<Tensor>,
    /// Mean of equation 8 over the batch.
    pub matching: Option<Tensor>,
    /// Mean of `KL(p(y | x) || p(y | x'))` over the batch, nats.
    pub divergence: Option<Tensor>,
    /// What is minimised.
    pub total: Tensor,
}

impl Loss {
    fn of(distortion: Tensor) -> Self {
        Self { total: distortion.clone(), distortion, rate: None, matching: None, divergence: None }
    }

    fn weigh(&mut self, term: &Tensor, weight: f64) -> Result<()> {
        self.total = (&self.total + (term * weight)?)?;
        Ok(())
    }
}

impl Objective {
    /// How many copies of a batch go through the trunk side by side: the images, and their perturbations where they are compared.
    pub fn copies(&self) -> usize {
        if self.kind == Kind::Trades || self.is_matched() { 2 } else { 1 }
    }

    /// Whether perturbed images are encoded beside the images.
    fn is_matched(&self) -> bool {
        let share = if self.kind == Kind::ParadiseAm { self.adversary.distortion_share } else { 0.0 };
        self.kind.has_matching() && (self.gamma > 0.0 || share > 0.0)
    }

    /// All terms of a mini-batch.
    ///
    /// # Errors
    /// If the batch does not fit the encoder, or is a single image where a rate is asked for.
    pub fn loss(&self, encoder: &Encoder, batch: &Batch) -> Result<Loss> {
        match self.kind {
            Kind::Standard => Ok(Loss::of(cross_entropy(&encoder.logits(batch.images)?, batch.labels)?)),
            Kind::PgdAt => self.adversarial_training(encoder, batch),
            Kind::Trades => self.trades(encoder, batch),
            Kind::ParadiseUnsupervised => self.reconstruction(encoder, batch),
            _ => self.rate_distortion(encoder, batch),
        }
    }
}

#[cfg(test)]
mod tests;

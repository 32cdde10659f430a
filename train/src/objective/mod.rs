//! What is minimised: `distortion + alpha * rate + gamma * matching`, by the terms that an objective keeps.

pub mod matching;
mod terms;

pub use terms::Terms;

use crate::encoder::{Encoder, Encoding};
use crate::gaussian;
use crate::random::{self, Purpose};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use candle_nn::loss::cross_entropy;
use serde::{Deserialize, Serialize};

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
        }
    }

    /// Whether it samples the posterior and weighs its rate.
    pub fn has_rate(&self) -> bool {
        *self != Self::Standard
    }

    /// Whether it matches the posteriors of perturbed images.
    pub fn has_matching(&self) -> bool {
        matches!(self, Self::DvibPm | Self::ParadisePm)
    }
}

/// An objective and its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objective {
    /// Which terms are kept.
    pub kind: Kind,
    /// Weight of the rate.
    pub alpha: f64,
    /// Weight of posterior matching.
    pub gamma: f64,
    /// Posterior samples K of the distortion.
    pub samples: usize,
    /// Largest perturbation magnitude m of posterior matching, in 1/255.
    pub matching_max_pixels: f32,
    /// Whether x' is clipped to [0, 1].
    pub matching_clip: bool,
    /// Whether gradients flow through the weights a_j of equation 8.
    pub matching_weight_gradient: bool,
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
        Ok(())
    }
}

/// A mini-batch and the keys of its randomness.
#[derive(Debug)]
pub struct Batch<'a> {
    /// f32 `[m, h, w, c]` in [0, 1].
    pub images: &'a Tensor,
    /// u32 `[m]`.
    pub labels: &'a Tensor,
    /// Index of each image in the training set.
    pub ids: &'a [usize],
    /// Seed of the run.
    pub seed: u64,
    /// Epoch, counted from 0.
    pub epoch: u32,
}

/// Every term by name, as scalars that carry gradients; terms an objective does not keep are absent.
#[derive(Debug)]
pub struct Loss {
    /// Cross-entropy, nats.
    pub distortion: Tensor,
    /// `-mean H - MWS + log(M - 1)`, or the divergence from a standard normal, nats.
    pub rate: Option<Tensor>,
    /// Mean of equation 8 over the batch.
    pub matching: Option<Tensor>,
    /// What is minimised.
    pub total: Tensor,
}

impl Objective {
    /// All terms of a mini-batch.
    ///
    /// # Errors
    /// If the batch does not fit the encoder, or is a single image where a rate is asked for.
    pub fn loss(&self, encoder: &Encoder, batch: &Batch) -> Result<Loss> {
        if !self.kind.has_rate() {
            let distortion = cross_entropy(&encoder.logits(batch.images)?, batch.labels)?;
            return Ok(Loss { total: distortion.clone(), distortion, rate: None, matching: None });
        }
        let m = batch.ids.len();
        let matched = self.kind.has_matching() && self.gamma > 0.0;
        let encoding = if matched {
            let perturbed = matching::perturb(self, batch)?;
            encoder.encode(&Tensor::cat(&[batch.images, &perturbed], 0)?)?
        } else {
            encoder.encode(batch.images)?
        };
        let own = encoding.narrow(0, m)?;
        let z = self.sample(&own, batch)?;
        let distortion = self.distortion(encoder, &z, batch)?;
        let rate = self.rate(&own, &z)?;
        let mut total = (&distortion + (&rate * self.alpha)?)?;
        let matching = if matched {
            let other = encoding.narrow(m, m)?;
            let term = matching::discrepancy(&own, &other, self.matching_weight_gradient)?.mean_all()?;
            total = (total + (&term * self.gamma)?)?;
            Some(term)
        } else {
            None
        };
        Ok(Loss { distortion, rate: Some(rate), matching, total })
    }

    /// The rate that this objective weighs, nats; `z` is `[K, m, d]`, of which the first sample is used.
    fn rate(&self, encoding: &Encoding, z: &Tensor) -> Result<Tensor> {
        let Encoding { mu, log_sigma, .. } = encoding;
        if matches!(self.kind, Kind::Dvib | Kind::DvibPm) {
            return gaussian::divergence_from_standard_normal(mu, log_sigma);
        }
        let density = gaussian::mini_batch_log_density(&z.get(0)?, mu, log_sigma)?;
        let others = (mu.dim(0)? - 1) as f64;
        Ok(((gaussian::mean_entropy(log_sigma)? + density)?.neg()? + others.ln())?)
    }

    /// `z = mu + eps * sigma`: f32 `[K, m, d]`, the noise keyed by image and draw.
    fn sample(&self, encoding: &Encoding, batch: &Batch) -> Result<Tensor> {
        let Encoding { mu, sigma, .. } = encoding;
        let (m, d) = mu.dims2()?;
        let mut noise = vec![0.0f32; self.samples * m * d];
        for (i, id) in batch.ids.iter().enumerate() {
            let mut rng = random::stream(batch.seed, Purpose::Posterior, batch.epoch, *id as u64, 0);
            for k in 0..self.samples {
                for eps in &mut noise[(k * m + i) * d..][..d] {
                    *eps = random::normal(&mut rng);
                }
            }
        }
        let noise = Tensor::from_vec(noise, (self.samples, m, d), &Device::Cpu)?;
        Ok(noise.broadcast_mul(sigma)?.broadcast_add(mu)?)
    }

    /// Mean cross-entropy over K samples of z.
    fn distortion(&self, encoder: &Encoder, z: &Tensor, batch: &Batch) -> Result<Tensor> {
        let (k, m, d) = z.dims3()?;
        let labels = batch.labels.unsqueeze(0)?.expand((k, m))?.flatten_all()?;
        Ok(cross_entropy(&encoder.classify(&z.reshape((k * m, d))?)?, &labels)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::{Network, small_conv::SmallConv};
    use paradise_engine::Shape;

    const M: usize = 6;

    fn network() -> Network {
        let encoder = SmallConv { channels: [2, 3], hidden: 5, latent: 4 };
        Network::new(encoder.architecture(Shape::new(8, 8, 1), 3), 1).unwrap()
    }

    fn with_batch<T>(go: impl FnOnce(&Batch) -> T) -> T {
        let mut rng = random::stream(4, Purpose::Noise, 0, 0, 0);
        let pixels: Vec<f32> = (0..M * 64).map(|_| random::uniform(&mut rng)).collect();
        let images = Tensor::from_vec(pixels, (M, 8, 8, 1), &Device::Cpu).unwrap();
        let labels = Tensor::from_vec(vec![0u32, 1, 2, 0, 1, 2], M, &Device::Cpu).unwrap();
        let ids: Vec<usize> = (0..M).collect();
        go(&Batch { images: &images, labels: &labels, ids: &ids, seed: 9, epoch: 2 })
    }

    fn scalar(t: &Tensor) -> f64 {
        f64::from(t.to_scalar::<f32>().unwrap())
    }

    #[test]
    fn objectives_keep_their_terms_and_add_them_up() {
        let network = network();
        for kind in [Kind::Standard, Kind::Dvib, Kind::DvibPm, Kind::Paradise, Kind::ParadisePm] {
            let objective = Objective { kind, alpha: 0.3, gamma: 0.7, samples: 5, ..Objective::default() };
            let learning = network.learning().unwrap();
            let loss = with_batch(|b| objective.loss(&learning, b).unwrap());
            assert_eq!(loss.rate.is_some(), kind.has_rate(), "{kind:?}");
            assert_eq!(loss.matching.is_some(), [Kind::DvibPm, Kind::ParadisePm].contains(&kind), "{kind:?}");
            let term = |t: &Option<Tensor>| t.as_ref().map_or(0.0, scalar);
            let sum = scalar(&loss.distortion) + 0.3 * term(&loss.rate) + 0.7 * term(&loss.matching);
            assert!((scalar(&loss.total) - sum).abs() < 1e-5, "{kind:?}");
            // Every parameter that the objective uses gets a gradient; s is unused by `standard`.
            let grads = learning.gradients(&network.variables, &loss.total).unwrap();
            // The trunk, then weight and bias of mu, s and the classifier.
            for (i, g) in grads.iter().enumerate() {
                let expected = kind != Kind::Standard || ![3, 4].contains(&i);
                assert_eq!(g.is_some(), expected, "{kind:?} {i}");
            }
        }
    }

    #[test]
    fn noise_is_the_images_own_whatever_the_batch() {
        let objective = Objective { samples: 3, ..Objective::default() };
        with_batch(|batch| {
            let whole = matching::perturb(&objective, batch).unwrap();
            let picked = [4usize, 1];
            let index = Tensor::new(&[4u32, 1], &Device::Cpu).unwrap();
            let images = batch.images.index_select(&index, 0).unwrap();
            let part = Batch { images: &images, ids: &picked, ..*batch };
            let alone = matching::perturb(&objective, &part).unwrap();
            let flat = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(flat(whole.index_select(&index, 0).unwrap()), flat(alone));
            // And bounded in magnitude as section 1.5 says: s at most m, u rarely above 5.
            let change = flat((whole - batch.images).unwrap());
            assert!(change.iter().all(|c| c.abs() < 16.0 / 255.0 * 6.0) && change.iter().any(|c| *c != 0.0));
            let clipped = Objective { matching_clip: true, ..objective.clone() };
            assert!(flat(matching::perturb(&clipped, batch).unwrap()).iter().all(|v| (0.0..=1.0).contains(v)));
        });
    }

    #[test]
    fn one_image_has_no_rate() {
        let network = network();
        with_batch(|batch| {
            let images = batch.images.narrow(0, 0, 1).unwrap();
            let labels = batch.labels.narrow(0, 0, 1).unwrap();
            let one = Batch { images: &images, labels: &labels, ids: &[0], ..*batch };
            assert!(Objective::default().loss(&network.learning().unwrap(), &one).is_err());
        });
    }
}

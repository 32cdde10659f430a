//! What is minimised: `distortion + alpha * rate + gamma * matching`, by the terms that an objective keeps.

pub mod adversary;
pub mod matching;
mod terms;

pub use terms::Terms;

use crate::encoder::{Encoder, Encoding};
use crate::gaussian;
use crate::random::{self, Purpose};
use adversary::Adversary;
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use candle_nn::loss::cross_entropy;
use candle_nn::ops::log_softmax;
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

    /// Whether an adversary finds perturbations while training.
    pub fn has_adversary(&self) -> bool {
        matches!(self, Self::ParadiseAm | Self::PgdAt | Self::Trades)
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
    /// Share of the run that is done, in [0, 1].
    pub share: f64,
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

    /// Supplement, algorithm 1, and posterior matching where it is kept.
    fn rate_distortion(&self, encoder: &Encoder, batch: &Batch) -> Result<Loss> {
        let m = batch.ids.len();
        let matched = self.kind.has_matching() && self.gamma > 0.0;
        let encoding = if matched {
            let perturbed = self.perturbed(encoder, batch)?;
            encoder.encode(&Tensor::cat(&[batch.images, &perturbed], 0)?)?
        } else {
            encoder.encode(batch.images)?
        };
        let own = encoding.narrow(0, m)?;
        let z = self.sample(&own, batch, self.samples)?;
        let mut loss = Loss::of(self.distortion(encoder, &z, batch)?);
        let rate = self.rate(&own, &z)?;
        loss.weigh(&rate, self.alpha)?;
        loss.rate = Some(rate);
        if matched {
            let other = encoding.narrow(m, m)?;
            let term = matching::discrepancy(&own, &other, self.matching_weight_gradient)?.mean_all()?;
            loss.weigh(&term, self.gamma)?;
            loss.matching = Some(term);
        }
        Ok(loss)
    }

    /// The images that posterior matching compares with: random ones, or those that an adversary finds.
    fn perturbed(&self, encoder: &Encoder, batch: &Batch) -> Result<Tensor> {
        if self.kind != Kind::ParadiseAm {
            return matching::perturb(self, batch);
        }
        let frozen = encoder.frozen();
        let reference = frozen.encode(batch.images)?;
        self.adversary.ascend(&frozen, batch, |encoder, x| {
            Ok(matching::discrepancy(&reference, &encoder.encode(x)?, false)?.sum_all()?)
        })
    }

    /// Cross-entropy at the points that an adversary finds.
    fn adversarial_training(&self, encoder: &Encoder, batch: &Batch) -> Result<Loss> {
        let points = self.adversary.ascend(&encoder.frozen(), batch, |encoder, x| {
            // The sum, so that each image's gradient is its own whatever the batch.
            Ok((cross_entropy(&encoder.logits(x)?, batch.labels)? * batch.ids.len() as f64)?)
        })?;
        Ok(Loss::of(cross_entropy(&encoder.logits(&points)?, batch.labels)?))
    }

    /// Clean cross-entropy, and the divergence at the points where it is large.
    fn trades(&self, encoder: &Encoder, batch: &Batch) -> Result<Loss> {
        let m = batch.ids.len();
        let frozen = encoder.frozen();
        let reference = frozen.logits(batch.images)?;
        let points =
            self.adversary.ascend(&frozen, batch, |encoder, x| divergence(&reference, &encoder.logits(x)?))?;
        let logits = encoder.logits(&Tensor::cat(&[batch.images, &points], 0)?)?;
        let (clean, moved) = (logits.narrow(0, 0, m)?, logits.narrow(0, m, m)?);
        let mut loss = Loss::of(cross_entropy(&clean, batch.labels)?);
        let term = (divergence(&clean, &moved)? / m as f64)?;
        loss.weigh(&term, self.gamma)?;
        loss.divergence = Some(term);
        Ok(loss)
    }

    /// Supplement, algorithm 2: one sample, its reconstruction's error and the rate.
    fn reconstruction(&self, encoder: &Encoder, batch: &Batch) -> Result<Loss> {
        let own = encoder.encode(batch.images)?;
        let z = self.sample(&own, batch, 1)?;
        let image = encoder.decode(&z.get(0)?)?;
        let error = (image.flatten_from(1)? - batch.images.flatten_from(1)?)?;
        let error = match self.reconstruction {
            Reconstruction::Squared => error.sqr()?,
            Reconstruction::Absolute => error.abs()?,
        };
        let mut loss = Loss::of((error.sum_all()? / batch.ids.len() as f64)?);
        let rate = self.rate(&own, &z)?;
        loss.weigh(&rate, self.alpha)?;
        loss.rate = Some(rate);
        Ok(loss)
    }

    /// The rate of a mini-batch of posteriors, nats, with the noise that training would draw.
    ///
    /// # Errors
    /// As [`Objective::loss`].
    pub fn mean_rate(&self, encoder: &Encoder, batch: &Batch) -> Result<f64> {
        let own = encoder.encode(batch.images)?;
        let z = self.sample(&own, batch, 1)?;
        Ok(f64::from(self.rate(&own, &z)?.to_scalar::<f32>()?))
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
    fn sample(&self, encoding: &Encoding, batch: &Batch, samples: usize) -> Result<Tensor> {
        let Encoding { mu, sigma, .. } = encoding;
        let (m, d) = mu.dims2()?;
        let mut noise = vec![0.0f32; samples * m * d];
        for (i, id) in batch.ids.iter().enumerate() {
            let mut rng = random::stream(batch.seed, Purpose::Posterior, batch.epoch, *id as u64, 0);
            for k in 0..samples {
                for eps in &mut noise[(k * m + i) * d..][..d] {
                    *eps = random::normal(&mut rng);
                }
            }
        }
        let noise = Tensor::from_vec(noise, (samples, m, d), &Device::Cpu)?;
        Ok(noise.broadcast_mul(sigma)?.broadcast_add(mu)?)
    }

    /// Mean cross-entropy over K samples of z.
    fn distortion(&self, encoder: &Encoder, z: &Tensor, batch: &Batch) -> Result<Tensor> {
        let (k, m, d) = z.dims3()?;
        let labels = batch.labels.unsqueeze(0)?.expand((k, m))?.flatten_all()?;
        Ok(cross_entropy(&encoder.classify(&z.reshape((k * m, d))?)?, &labels)?)
    }
}

/// Sum of `KL(softmax a || softmax b)` over rows, nats.
fn divergence(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (log_softmax(a, 1)?, log_softmax(b, 1)?);
    Ok((a.exp()? * (&a - &b)?)?.sum_all()?)
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
        go(&Batch { images: &images, labels: &labels, ids: &ids, seed: 9, epoch: 2, share: 1.0 })
    }

    fn scalar(t: &Tensor) -> f64 {
        f64::from(t.to_scalar::<f32>().unwrap())
    }

    #[test]
    fn objectives_keep_their_terms_and_add_them_up() {
        let network = network();
        use Kind::*;
        for kind in [Standard, Dvib, DvibPm, Paradise, ParadisePm, ParadiseAm, PgdAt, Trades] {
            let objective = Objective { kind, alpha: 0.3, gamma: 0.7, samples: 5, ..Objective::default() };
            let learning = network.learning().unwrap();
            let loss = with_batch(|b| objective.loss(&learning, b).unwrap());
            assert_eq!(loss.rate.is_some(), kind.has_rate(), "{kind:?}");
            assert_eq!(loss.matching.is_some(), [DvibPm, ParadisePm, ParadiseAm].contains(&kind), "{kind:?}");
            assert_eq!(loss.divergence.is_some(), kind == Trades, "{kind:?}");
            let term = |t: &Option<Tensor>| t.as_ref().map_or(0.0, scalar);
            let sum = scalar(&loss.distortion)
                + 0.3 * term(&loss.rate)
                + 0.7 * (term(&loss.matching) + term(&loss.divergence));
            assert!((scalar(&loss.total) - sum).abs() < 1e-5, "{kind:?}");
            // Every parameter that the objective uses gets a gradient; s is unused by `standard`.
            let grads = learning.gradients(&network.variables, &loss.total).unwrap();
            // The trunk, then weight and bias of mu, s and the classifier.
            for (i, g) in grads.iter().enumerate() {
                let expected = ![Standard, PgdAt, Trades].contains(&kind) || ![3, 4].contains(&i);
                assert_eq!(g.is_some(), expected, "{kind:?} {i}");
            }
        }
    }

    #[test]
    fn an_adversary_stays_in_its_ball_and_raises_its_loss() {
        let network = network();
        let learning = network.learning().unwrap();
        for kind in [Kind::ParadiseAm, Kind::PgdAt, Kind::Trades] {
            let adversary = Adversary { eps_pixels: 20.0, steps: 6, ..Adversary::default() };
            let objective = Objective { kind, adversary, alpha: 0.0, gamma: 1.0, ..Objective::default() };
            let frozen = learning.frozen();
            with_batch(|batch| {
                let reference = frozen.encode(batch.images).unwrap();
                let discrepancy =
                    |e: &Encoder, x: &Tensor| Ok(matching::discrepancy(&reference, &e.encode(x)?, false)?.sum_all()?);
                let start = Adversary { steps: 1, step_share: 0.0, ..adversary };
                let before = start.ascend(&frozen, batch, discrepancy).unwrap();
                let after = adversary.ascend(&frozen, batch, discrepancy).unwrap();
                let flat = |t: &Tensor| crate::encoder::values(t).unwrap();
                for (a, x) in flat(&after).iter().zip(flat(batch.images)) {
                    assert!((a - x).abs() <= 20.0 / 255.0 + 1e-6 && (0.0..=1.0).contains(a), "{a} {x}");
                }
                let worth = |x: &Tensor| scalar(&discrepancy(&frozen, x).unwrap());
                assert!(worth(&after) > worth(&before), "{} {}", worth(&after), worth(&before));
                // Radius 0 leaves the clean loss.
                let none = Objective { adversary: Adversary { eps_pixels: 0.0, ..adversary }, ..objective.clone() };
                let clean = none.loss(&frozen, batch).unwrap();
                assert!(clean.matching.is_none_or(|m| scalar(&m) == 0.0));
                assert!(clean.divergence.is_none_or(|d| scalar(&d).abs() < 1e-6));
            });
        }
    }

    #[test]
    fn the_divergence_equals_f64() {
        let (a, b) = ([[1.0f32, -2.0, 0.5], [0.0, 3.0, 3.0]], [[0.0f32, 0.0, 0.0], [-1.0, 2.0, 9.0]]);
        let softmax = |l: &[f32; 3]| {
            let e = l.map(|v| f64::from(v).exp());
            e.map(|v| v / e.iter().sum::<f64>())
        };
        let pair = |(a, b): (&[f32; 3], &[f32; 3])| {
            softmax(a).iter().zip(softmax(b)).map(|(p, q)| p * (p / q).ln()).sum::<f64>()
        };
        let exact: f64 = a.iter().zip(&b).map(pair).sum();
        let tensor = |v: &[[f32; 3]; 2]| Tensor::new(v, &Device::Cpu).unwrap();
        assert!((scalar(&divergence(&tensor(&a), &tensor(&b)).unwrap()) - exact).abs() < 1e-5);
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

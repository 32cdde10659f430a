//! The supplement's objectives: algorithm 1 with posterior matching (section 1.5) and algorithm 2.

use super::adversary::Aim;
use super::{Batch, Kind, Loss, Objective, Reconstruction, matching};
use crate::encoder::{Encoder, Encoding};
use crate::gaussian;
use anyhow::Result;
use candle_core::Tensor;
use candle_nn::loss::cross_entropy;
use paradise_support::random::{self, Purpose};
use rayon::prelude::*;

impl Objective {
    /// Supplement, algorithm 1, and posterior matching where it is kept.
    pub(super) fn rate_distortion(&self, encoder: &Encoder, batch: &Batch) -> Result<Loss> {
        let m = batch.ids.len();
        let share = if self.kind == Kind::ParadiseAm { self.adversary.distortion_share } else { 0.0 };
        let matched = self.is_matched();
        let encoding = if matched {
            let perturbed = self.perturbed(encoder, batch)?;
            encoder.encode(&Tensor::cat(&[batch.images, &perturbed], 0)?)?
        } else {
            encoder.encode(batch.images)?
        };
        let own = encoding.narrow(0, m)?;
        let noise = self.noise(&own, batch, self.samples)?;
        let z = sampled(&own, &noise)?;
        let mut distortion = self.distortion(encoder, &z, batch)?;
        if share > 0.0 {
            let moved = sampled(&encoding.narrow(m, m)?, &noise)?;
            distortion = ((distortion * (1.0 - share))? + (self.distortion(encoder, &moved, batch)? * share)?)?;
        }
        let mut loss = Loss::of(distortion);
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
        if self.adversary.aim == Aim::Class {
            return self.misleading(&frozen, batch);
        }
        let reference = frozen.encode(batch.images)?;
        self.adversary.ascend(&frozen, batch, |encoder, x| {
            Ok(matching::discrepancy(&reference, &encoder.encode(x)?, false)?.sum_all()?)
        })
    }

    /// Supplement, algorithm 2: one sample, its reconstruction's error and the rate.
    pub(super) fn reconstruction(&self, encoder: &Encoder, batch: &Batch) -> Result<Loss> {
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

    /// Latents with noise of their own: f32 `[K, m, d]`.
    fn sample(&self, encoding: &Encoding, batch: &Batch, samples: usize) -> Result<Tensor> {
        sampled(encoding, &self.noise(encoding, batch, samples)?)
    }

    /// Standard normal noise f32 `[K, m, d]`, keyed by image and draw.
    fn noise(&self, encoding: &Encoding, batch: &Batch, samples: usize) -> Result<Tensor> {
        let mu = &encoding.mu;
        let (m, d) = mu.dims2()?;
        // Drawn on the host for every device, so that the same seed means the same noise.
        let draw = |id: &usize| -> Vec<f32> {
            let mut rng = random::stream(batch.seed, Purpose::Posterior, batch.epoch, *id as u64, 0);
            (0..samples * d).map(|_| random::normal(&mut rng)).collect()
        };
        let rows: Vec<Vec<f32>> = batch.ids.par_iter().map(draw).collect();
        let noise = (0..samples).flat_map(|k| rows.iter().flat_map(move |row| &row[k * d..][..d])).copied().collect();
        Ok(Tensor::from_vec(noise, (samples, m, d), mu.device())?)
    }

    /// Mean cross-entropy over K samples of z.
    fn distortion(&self, encoder: &Encoder, z: &Tensor, batch: &Batch) -> Result<Tensor> {
        let (k, m, d) = z.dims3()?;
        let labels = batch.labels.unsqueeze(0)?.expand((k, m))?.flatten_all()?;
        Ok(cross_entropy(&encoder.classify(&z.reshape((k * m, d))?)?, &labels)?)
    }
}

/// `z = mu + eps * sigma`: f32 `[K, m, d]`.
fn sampled(encoding: &Encoding, noise: &Tensor) -> Result<Tensor> {
    Ok(noise.broadcast_mul(&encoding.sigma)?.broadcast_add(&encoding.mu)?)
}

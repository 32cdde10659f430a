//! Perturbations found while training: projected ascent inside the l_inf ball, batch norms standing still.

use super::Batch;
use crate::encoder::{Encoder, values};
use anyhow::{Result, ensure};
use candle_core::{Tensor, Var};
use paradise_attack::threat;
use paradise_support::random::{self, Purpose};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// What the adversary of `paradise-am` raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aim {
    /// The discrepancy of the posterior (supplement, equation 8) from that of the image itself.
    Posterior,
    /// The cross-entropy of mu.
    Class,
}

/// The `[objective.adversary]` table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adversary {
    /// Radius of the ball, in 1/255.
    pub eps_pixels: f32,
    /// Signed steps.
    pub steps: usize,
    /// Length of a step, as a share of the radius.
    pub step_share: f32,
    /// Share of the run over which the radius grows to its full length; 0 for full from the start.
    pub ramp: f64,
    /// What `paradise-am`'s raises.
    pub aim: Aim,
    /// Share of `paradise-am`'s distortion that is taken at the points found, instead of at the images.
    pub distortion_share: f64,
}

impl Default for Adversary {
    fn default() -> Self {
        Self { eps_pixels: 8.0, steps: 4, step_share: 0.4, ramp: 0.5, aim: Aim::Posterior, distortion_share: 0.0 }
    }
}

impl Adversary {
    pub(super) fn validate(&self) -> Result<()> {
        let Self { eps_pixels, steps, step_share, ramp, distortion_share, .. } = *self;
        ensure!(
            (0.0..=255.0).contains(&eps_pixels),
            "objective.adversary.eps_pixels = {eps_pixels} is not in 0..=255"
        );
        ensure!((1..=1000).contains(&steps), "objective.adversary.steps = {steps} is not in 1..=1000");
        ensure!((0.0..=2.0).contains(&step_share), "objective.adversary.step_share = {step_share} is not in 0..=2");
        ensure!((0.0..=1.0).contains(&ramp), "objective.adversary.ramp = {ramp} is not in 0..=1");
        ensure!(
            (0.0..=1.0).contains(&distortion_share),
            "objective.adversary.distortion_share = {distortion_share} is not in 0..=1"
        );
        Ok(())
    }

    /// The radius after `share` of the run, in [0, 1] pixel units.
    pub fn eps(&self, share: f64) -> f32 {
        let grown = if self.ramp > 0.0 { (share / self.ramp).min(1.0) } else { 1.0 };
        (f64::from(self.eps_pixels) / 255.0 * grown) as f32
    }

    /// Points of the ball where `loss(encoder, points)`, summed over the images, is large: from a uniform start, keyed by
    /// epoch and image, by signed steps. `encoder` is the frozen view.
    ///
    /// # Errors
    /// If candle fails.
    pub fn ascend(
        &self,
        encoder: &Encoder,
        batch: &Batch,
        loss: impl Fn(&Encoder, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let eps = self.eps(batch.share);
        if !batch.images.device().is_cpu() {
            return self.ascend_on_device(encoder, batch, eps, loss);
        }
        let clean = values(batch.images)?;
        let each = clean.len() / batch.own.len();
        let mut points = vec![0.0f32; clean.len()];
        points.par_chunks_mut(each).zip(clean.par_chunks(each)).zip(batch.own_ids()).for_each(
            |((points, clean), id)| {
                let mut rng = random::stream(batch.seed, Purpose::AdversaryStart, batch.epoch, *id as u64, 0);
                for (point, clean) in points.iter_mut().zip(clean) {
                    *point = threat::project(clean + eps * (2.0 * random::uniform(&mut rng) - 1.0), *clean, eps);
                }
            },
        );
        let tensor = |points: Vec<f32>| Tensor::from_vec(points, batch.images.shape(), batch.images.device());
        for _ in 0..self.steps {
            let x = Var::from_tensor(&tensor(points.clone())?)?;
            let gradients = loss(encoder, &x)?.backward()?;
            let Some(gradient) = gradients.get(&x) else { break };
            let gradient = values(gradient)?;
            points.par_iter_mut().zip(&gradient).zip(&clean).for_each(|((point, g), clean)| {
                // f32::signum has no zero; a zero gradient moves nothing.
                let sign = f32::from(i8::from(*g > 0.0) - i8::from(*g < 0.0));
                *point = threat::project(*point + self.step_share * eps * sign, *clean, eps);
            });
        }
        Ok(tensor(points)?)
    }

    /// The same on a GPU, in candle's operations: no point comes to the host.
    fn ascend_on_device(
        &self,
        encoder: &Encoder,
        batch: &Batch,
        eps: f32,
        loss: impl Fn(&Encoder, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let each = batch.images.elem_count() / batch.own.len();
        let mut start = vec![0.0f32; batch.images.elem_count()];
        start.par_chunks_mut(each).zip(batch.own_ids()).for_each(|(start, id)| {
            let mut rng = random::stream(batch.seed, Purpose::AdversaryStart, batch.epoch, *id as u64, 0);
            start.iter_mut().for_each(|offset| *offset = eps * (2.0 * random::uniform(&mut rng) - 1.0));
        });
        let start = Tensor::from_vec(start, batch.images.shape(), batch.images.device())?;
        let low = (batch.images - f64::from(eps))?.maximum(0.0)?;
        let high = (batch.images + f64::from(eps))?.minimum(1.0)?;
        let inside = |points: Tensor| Ok::<_, candle_core::Error>(points.maximum(&low)?.minimum(&high)?.detach());
        let mut points = inside((batch.images + start)?)?;
        for _ in 0..self.steps {
            let x = Var::from_tensor(&points)?;
            let gradients = loss(encoder, &x)?.backward()?;
            let Some(gradient) = gradients.get(&x) else { break };
            points = inside((&points + (gradient.sign()? * f64::from(self.step_share * eps))?)?)?;
        }
        Ok(points)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_radius_grows_over_the_first_half() {
        let adversary = Adversary::default();
        let at = |share| adversary.eps(share) * 255.0;
        assert!(
            at(0.0) == 0.0 && (at(0.25) - 4.0).abs() < 1e-5 && (at(0.5) - 8.0).abs() < 1e-5 && at(1.0) == at(0.5)
        );
        assert_eq!(Adversary { ramp: 0.0, ..adversary }.eps(0.0), adversary.eps(1.0));
    }
}

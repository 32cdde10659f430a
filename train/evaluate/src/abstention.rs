//! What abstaining is worth against attacks, also against one that knows of it.

use crate::evaluation::ConfidentModel;
use crate::prediction::Prediction;
use anyhow::Result;
use paradise_attack::{Ball, Outcome, evasion, pixels, samples};
use paradise_data::Dataset;
use paradise_support::statistics::Proportion;
use serde::{Deserialize, Serialize};

/// Shares of all images whose class is wrong *and* accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Abstention {
    /// Images.
    pub n: usize,
    /// Radius in [0, 1] pixel units.
    pub eps: f32,
    /// Steps of each of the three walks of the adaptive attack.
    pub steps: usize,
    /// As they are.
    pub clean: Proportion,
    /// At the worst-case points of attacks that only want a wrong class, on the 8-bit grid.
    pub plain: Proportion,
    /// At the points of the adaptive attack, on the 8-bit grid.
    pub adaptive: Proportion,
    /// At any of them.
    pub worst: Proportion,
}

impl Abstention {
    /// Of `images`; `attacked` are the same under attacks that only want a wrong class. The adaptive attack takes three walks
    /// of `steps` steps.
    ///
    /// # Errors
    /// If the model has no gradients, or fails.
    pub fn measure(
        model: &dyn ConfidentModel,
        images: &Dataset,
        attacked: &Dataset,
        ball: Ball,
        steps: usize,
        seed: u64,
    ) -> Result<Self> {
        let fooled = |set: &Dataset| -> Result<Vec<bool>> {
            let predictions = model.predict(set)?;
            let one = |(p, l): (&Prediction, &u16)| p.accept && p.class != *l;
            Ok(predictions.iter().zip(&images.labels).map(one).collect())
        };
        let pixels = pixels(images);
        let attempts = evasion::evade(&model.abstaining()?, ball, &samples(images, &pixels), steps, seed)?;
        let adaptive = fooled(&Outcome::from_attempts(ball, attempts).on_grid(images))?;
        let (plain, clean) = (fooled(attacked)?, fooled(images)?);
        let any = (0..images.len()).map(|i| clean[i] || plain[i] || adaptive[i]);
        Ok(Self {
            n: images.len(),
            eps: ball.eps,
            steps,
            worst: Proportion::of(any),
            clean: Proportion::of(clean.iter().copied()),
            plain: Proportion::of(plain.iter().copied()),
            adaptive: Proportion::of(adaptive.iter().copied()),
        })
    }
}

//! How good a run is, on images that it does not learn from.

use crate::config::{Config, Select};
use crate::encoder::Network;
use crate::objective::Batch;
use anyhow::Result;
use paradise_attack::gradient::Pgd;
use paradise_attack::{Ball, Victim, launch, pixels, samples};
use paradise_data::Dataset;
use paradise_evaluate::prediction::classify;
use paradise_nn::exchange::{Exchange, all_well, total};
use paradise_support::statistics::Proportion;
use serde_json::json;

/// What the validation slice says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Validation {
    /// Accuracy, clean and, where checkpoints are chosen by it, under PGD-10; per cent.
    Classes { clean: f64, robust: Option<f64> },
    /// The loss of reconstructed images.
    Images { loss: f64 },
}

impl Validation {
    pub fn score(self) -> f64 {
        match self {
            Self::Classes { clean, robust } => robust.map_or(clean, |r| (clean + r) / 2.0),
            Self::Images { loss } => -loss,
        }
    }

    pub fn json(self) -> serde_json::Value {
        match self {
            Self::Classes { clean, robust } => json!({ "clean_percent": clean, "pgd10_percent": robust }),
            Self::Images { loss } => json!({ "loss": loss }),
        }
    }
}

impl std::fmt::Display for Validation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Classes { clean, robust: None } => write!(f, "{clean:.1} %"),
            Self::Classes { clean, robust: Some(robust) } => write!(f, "{clean:.1} %, PGD-10 {robust:.1} %"),
            Self::Images { loss } => write!(f, "loss {loss:.3}"),
        }
    }
}

/// What an epoch came to on the images that it did not learn from, of which each rank looks at a part.
///
/// # Errors
/// If a rank has one, or is gone.
pub(super) fn validate(
    config: &Config,
    network: &Network,
    validation: &Dataset,
    ranks: &dyn Exchange,
) -> Result<Validation> {
    let encoder = network.frozen();
    if config.objective.kind.is_unsupervised() {
        // The last, shorter batch is left out: the rate depends on the batch's size.
        let loss = Batch::mean_over(validation, config.fit.batch, config.seed, encoder.device(), |batch| {
            Ok(f64::from(config.objective.loss(&encoder, batch)?.total.to_scalar::<f32>()?))
        })?;
        return Ok(Validation::Images { loss });
    }
    let n = validation.len();
    let own = ranks.rank() * n / ranks.ranks()..(ranks.rank() + 1) * n / ranks.ranks();
    let percent = |correct: Result<usize>| -> Result<f64> {
        let correct = usize::try_from(total(ranks, all_well(ranks, correct)? as u64)?)?;
        Ok(Proportion { correct, n }.percent())
    };
    let images = validation.select(&own.clone().collect::<Vec<_>>());
    let clean = percent(classify(&encoder, &images).map(|found| found.correct_share().correct))?;
    let robust = match config.fit.select {
        Select::Clean => None,
        Select::Robust => {
            let ball = Ball::linf(config.fit.select_eps_pixels / 255.0);
            let pixels = pixels(validation);
            let own = &samples(validation, &pixels)[own];
            let attempts = launch(&Pgd::sign(10, 1), Victim::White(&encoder), ball, own, config.seed, &|_| ());
            let held = attempts.map(|all| all.iter().filter(|attempt| !attempt.broken).count());
            Some(percent(held.map_err(Into::into))?)
        }
    };
    Ok(Validation::Classes { clean, robust })
}

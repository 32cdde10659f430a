//! The int8 engine over a data set, in parallel: what a device would answer.

use crate::dataset::Dataset;
use crate::evaluate::Predictions;
use anyhow::Result;
use paradise_engine::{Answer, Model, Workspace, classify};
use rayon::prelude::*;

/// A device's answer to one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Class with the largest logit.
    pub class: u16,
    /// Its probability.
    pub probability: f32,
    /// Posterior means, `[d]`.
    pub mu: Vec<f32>,
    /// Posterior variances, `[d]`.
    pub variance: Vec<f32>,
    /// Rate, nats.
    pub rate_nats: f32,
    /// Posterior entropy, nats.
    pub posterior_entropy_nats: f32,
    /// Predictive entropy, nats.
    pub predictive_entropy_nats: f32,
    /// p-value of the rate.
    pub typicality: f32,
    /// p-value of the posterior entropy.
    pub entropy_p: f32,
    /// Whether the device accepts.
    pub accept: bool,
}

impl From<Answer<'_>> for Record {
    fn from(a: Answer) -> Self {
        Self {
            class: a.class as u16,
            probability: a.probabilities[a.class],
            mu: a.mu.to_vec(),
            variance: a.sigma.iter().map(|s| s * s).collect(),
            rate_nats: a.rate_nats,
            posterior_entropy_nats: a.posterior_entropy_nats,
            predictive_entropy_nats: a.predictive_entropy_nats,
            typicality: a.typicality,
            entropy_p: a.entropy_p,
            accept: a.decision.is_accept(),
        }
    }
}

/// The engine's answer to every image of `set`.
///
/// # Errors
/// If the images do not fit the model.
pub fn records(model: &Model, set: &Dataset) -> Result<Vec<Record>> {
    let memory = || (vec![0i8; model.header().arena_bytes as usize], vec![0.0f32; model.float_len()]);
    (0..set.len())
        .into_par_iter()
        .map_init(memory, |(arena, floats), i| {
            let mut workspace = Workspace { arena, floats };
            let a = classify(model, set.image(i), &mut workspace, &mut |_, _| {})?;
            Ok(Record::from(a))
        })
        .collect()
}

/// The classes of records of `set`, against its labels.
pub fn classes(records: &[Record], set: &Dataset) -> Predictions {
    Predictions::new(records.iter().map(|r| r.class).collect(), set.labels.clone())
}

/// The engine's classes on `set`.
///
/// # Errors
/// If the images do not fit the model.
pub fn predictions(model: &Model, set: &Dataset) -> Result<Predictions> {
    Ok(classes(&records(model, set)?, set))
}

//! The float network over a data set, judged by confidence that was fitted to its own posteriors: what int8 is compared
//! with, and what evaluations of runs measure.

use crate::encoder::{Encoder, batch, values};
use anyhow::{Context, Result};
use paradise_data::Dataset;
use paradise_engine::Model;
use paradise_engine::calibration::Tables;
use paradise_engine::inference::{Posterior, assess, scratch_len};
use paradise_evaluate::prediction::Prediction;
use paradise_runtime::onnx::FloatNetwork;
use rayon::prelude::*;

/// The exported float network's prediction for every image of `set` as a device's float back end gives it, under the mixture,
/// tables and thresholds of `model`.
///
/// # Errors
/// If tract refuses the network or an image.
pub fn by_tract(onnx: &[u8], model: &Model, set: &Dataset) -> Result<Vec<Prediction>> {
    let network = FloatNetwork::new(onnx, model)?;
    let tables = Tables::of(model);
    let one = |i: usize| -> Result<Prediction> {
        let mut prediction = None;
        network.answer(model, &tables, set.image(i), &mut |answer| prediction = Some((*answer).into()))?;
        prediction.context("no answer")
    };
    (0..set.len()).into_par_iter().map(one).collect()
}

/// Images run at once.
const BATCH: usize = 256;

/// The float network's prediction for every image of `set`, under the mixture, tables and thresholds of `model`.
///
/// # Errors
/// If the images do not fit the encoder.
pub fn predict(encoder: &Encoder, model: &Model, set: &Dataset) -> Result<Vec<Prediction>> {
    let tables = Tables::of(model);
    let all: Vec<usize> = (0..set.len()).collect();
    let mut predictions = Vec::with_capacity(set.len());
    for ids in all.chunks(BATCH) {
        let posterior = encoder.encode(&batch(set, ids)?)?;
        let logits = encoder.classify(&posterior.mu)?;
        let (d, classes) = (posterior.mu.dim(1)?, logits.dim(1)?);
        let (mu, sigma, log_sigma) =
            (values(&posterior.mu)?, values(&posterior.sigma)?, values(&posterior.log_sigma)?);
        let logits = values(&logits)?;
        let (mut probabilities, mut scratch) = (vec![0.0; classes], vec![0.0; scratch_len(d)]);
        for (i, id) in ids.iter().enumerate() {
            let row = i * d..(i + 1) * d;
            let posterior = Posterior {
                mu: &mu[row.clone()],
                sigma: &sigma[row.clone()],
                log_sigma: &log_sigma[row],
                logits: &logits[i * classes..(i + 1) * classes],
            };
            let answer = assess(model, &tables, set.image(*id), posterior, &mut probabilities, &mut scratch);
            predictions.push(answer.into());
        }
    }
    Ok(predictions)
}

//! What quantisation did to a network: accuracy, rate and entropy before and after, and what was tried.

use crate::encoder::Encoder;
use crate::prediction;
use crate::quantise::choose::{Choice, Tried};
use anyhow::Result;
use paradise_data::{Dataset, Splits};
use paradise_engine::Model;
use paradise_evaluate::prediction::{Prediction, int8};
use paradise_support::statistics::Proportion;
use serde::{Deserialize, Serialize};

/// One model on the test images and on the float network's adversarial images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `float`, or the method.
    pub model: String,
    /// Right on test images.
    pub clean: Proportion,
    /// Right on the card's adversarial images.
    pub robust_transferred: Proportion,
    /// The float network's class on test images.
    pub same_class: Proportion,
    /// Mean rate, nats.
    pub rate_nats: f64,
    /// Mean posterior entropy, nats.
    pub posterior_entropy_nats: f64,
    /// Mean distance of an image's rate from the float network's, nats.
    pub rate_gap_nats: f64,
    /// Mean distance of an image's posterior entropy from the float network's, nats.
    pub entropy_gap_nats: f64,
}

/// What quantisation did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quantisation {
    /// The method that was taken.
    pub method: String,
    /// The float network, the plain method, and the one that was taken; all under the mixture of the last.
    pub rows: Vec<Row>,
    /// Every method, in the order in which they were tried, on held-out training images, half of them attacked.
    pub tried: Vec<Tried>,
}

impl std::fmt::Display for Quantisation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "  {:<54}{:<26}{:<26}{:>10}{:>9}{:>9}{:>10}{:>10}",
            "", "clean", "on float's adversarial", "same class", "rate", "H", "rate gap", "H gap"
        )?;
        for r in &self.rows {
            let (clean, robust) = (r.clean.to_string(), r.robust_transferred.to_string());
            write!(f, "  {:<54}{clean:<26}{robust:<26}{:>8.2} %", r.model, r.same_class.percent())?;
            let (rate, entropy) = (r.rate_nats, r.posterior_entropy_nats);
            writeln!(f, "{rate:>9.2}{entropy:>9.2}{:>10.4}{:>10.4}", r.rate_gap_nats, r.entropy_gap_nats)?;
        }
        let least = self.tried.iter().map(|t| t.divergence_micronats).fold(f64::INFINITY, f64::min);
        let plain = self.tried.first().map_or(f64::NAN, |t| t.divergence_micronats);
        write!(f, "  {} methods tried; divergence from float {plain:.1} -> {least:.1} micronats", self.tried.len())
    }
}

fn row(
    model: String,
    records: &[Prediction],
    adversarial: &[Prediction],
    float: &[Prediction],
    sets: [&Dataset; 2],
) -> Row {
    let right = |records: &[Prediction], set: &Dataset| {
        Proportion::of(records.iter().zip(&set.labels).map(|(r, l)| r.class == *l))
    };
    let mean = |of: &dyn Fn(&Prediction, &Prediction) -> f32| {
        let sum: f64 = records.iter().zip(float).map(|(a, b)| f64::from(of(a, b))).sum();
        (1e4 * sum / records.len() as f64).round() / 1e4
    };
    Row {
        model,
        clean: right(records, sets[0]),
        robust_transferred: right(adversarial, sets[1]),
        same_class: Proportion::of(records.iter().zip(float).map(|(a, b)| a.class == b.class)),
        rate_nats: mean(&|a, _| a.rate_nats),
        posterior_entropy_nats: mean(&|a, _| a.posterior_entropy_nats),
        rate_gap_nats: mean(&|a, b| (a.rate_nats - b.rate_nats).abs()),
        entropy_gap_nats: mean(&|a, b| (a.posterior_entropy_nats - b.posterior_entropy_nats).abs()),
    }
}

/// The report of `models`, the plain one and the chosen one.
///
/// # Errors
/// If the images do not fit.
pub(super) fn report(
    encoder: &Encoder,
    models: [Vec<u8>; 2],
    choice: Choice,
    splits: &Splits,
    adversarial: &Dataset,
) -> Result<Quantisation> {
    let sets = [&splits.test, adversarial];
    let chosen = Model::parse(&models[1])?;
    let float = [prediction::predict(encoder, &chosen, sets[0])?, prediction::predict(encoder, &chosen, sets[1])?];
    let mut rows = vec![row("float".into(), &float[0], &float[1], &float[0], sets)];
    for (bytes, name) in models.iter().zip(["min-max".to_string(), choice.method.to_string()]) {
        let model = Model::parse(bytes)?;
        let records = [int8::predict(&model, sets[0])?, int8::predict(&model, sets[1])?];
        rows.push(row(format!("int8, {name}"), &records[0], &records[1], &float[0], sets));
    }
    Ok(Quantisation { method: choice.method.to_string(), rows, tried: choice.tried })
}

//! Which method of quantisation suits a network: the one whose int8 logits tell least of another story than the float ones,
//! on images that no range was observed on, half of them under attack.

use super::assemble::{Assembly, Identity};
use super::equalise::equalise;
use super::observe::{Ranges, observe};
use super::{Method, Rounding, dither, feed_back, quantise};
use crate::confidence::written::Confidence;
use crate::encoder::LogitModel;
use crate::encoder::Network;
use anyhow::{Context, Result};
use paradise_attack::Ball;
use paradise_attack::Classifier;
use paradise_attack::gradient::Pgd;
use paradise_attack::int8::Int8;
use paradise_attack::{Outcome, Victim};
use paradise_data::Dataset;
use paradise_engine::Model;
use paradise_engine::classifier::softmax;
use serde::{Deserialize, Serialize};

/// Attack that makes the harder half of the images: steps, radius in 1/255.
const ATTACK: (usize, f32) = (10, 8.0);

/// A method and how far its logits were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// The method.
    pub method: String,
    /// Mean divergence of the int8 class probabilities from the float ones, 1e-6 nats.
    pub divergence_micronats: f64,
}

/// What was tried, in order, and the best.
pub struct Choice {
    /// The best method.
    pub method: Method,
    /// Its int8 layers and heads.
    pub assembly: Assembly,
    /// Those of the plain method.
    pub plain: Assembly,
    /// Everything that was tried.
    pub tried: Vec<Tried>,
}

/// Every method that is tried, the plain one first; dithered ones where the network's features can be. What is not here was
/// never the best of any network that was measured: cruder ranges, and rounding to the nearest without a correction.
fn methods(dithered: bool) -> Vec<Method> {
    let method = |ranges, rounding, equalise| Method { ranges, rounding, equalise, dither: false };
    let mut all = vec![Method::PLAIN];
    for equalise in [false, true] {
        for rounding in [Rounding::Corrected, Rounding::Feedback] {
            all.extend([Ranges::Percentile(99.99), Ranges::SquaredError].map(|r| method(r, rounding, equalise)));
        }
    }
    let min_max = method(Ranges::MinMax, Rounding::Feedback, true);
    all.push(min_max);
    if dithered {
        // On top of what does best without.
        all.extend(
            [min_max, method(Ranges::SquaredError, Rounding::Feedback, true)].map(|m| Method { dither: true, ..m }),
        );
    }
    all
}

/// Tries every method: ranges are observed on `calibration`, logits compared on `held_out`.
///
/// # Errors
/// If the network has no int8 form, or the images do not fit.
pub fn choose(network: &Network, calibration: &Dataset, held_out: &Dataset, seed: u64) -> Result<Choice> {
    let served = LogitModel::new(network)?;
    let ball = Ball::linf(ATTACK.1 / 255.0);
    let half = held_out.head(held_out.len() / 2);
    let attacked = Outcome::of(&Pgd::sign(ATTACK.0, 1), Victim::White(&served), ball, &half, seed)?.on_grid(&half);
    let mut images = held_out.clone();
    let from = images.images.len() - attacked.images.len();
    images.images.splice(from.., attacked.images);
    let pixels = paradise_attack::pixels(&images);
    let truth = probabilities(&served, &pixels)?;
    let encoder = network.frozen();
    let seen = observe(&encoder, calibration, &[])?;
    let equalised = equalise(network, &seen)?;
    let scaled = equalised.network.frozen();
    let seen_scaled = observe(&scaled, calibration, &equalised.floors)?;
    let (fed, fed_scaled) = (feed_back(&encoder, calibration)?, feed_back(&scaled, calibration)?);
    let plain = quantise(&encoder, &seen, &[], Method::PLAIN)?;
    let mut best: Option<(f64, Method, Assembly)> = None;
    let mut tried = Vec::new();
    let labels = (0..served.classes()).map(|c| c.to_string()).collect();
    let identity = Identity { name: "candidate".into(), labels, policy: paradise_data::WHOLE, made: None };
    let graph = &network.architecture.graph;
    for method in methods(dither::fits(graph, &graph.shapes()?)) {
        let assembly = match method.equalise {
            true => quantise(&scaled, &seen_scaled, &fed_scaled, method)?,
            false => quantise(&encoder, &seen, &fed, method)?,
        };
        let bytes = assembly.finish(&identity, &Confidence::placeholder(assembly.latent())?)?;
        let int8 = probabilities(&Int8::new(&Model::parse(&bytes)?), &pixels)?;
        let far = divergence(&truth, &int8) / images.len() as f64;
        tried.push(Tried { method: method.to_string(), divergence_micronats: (1e8 * far).round() / 100.0 });
        if best.as_ref().is_none_or(|(least, ..)| far < *least) {
            best = Some((far, method, assembly));
        }
    }
    let (_, method, assembly) = best.context("no method was tried")?;
    Ok(Choice { method, assembly, plain, tried })
}

/// Class probabilities `[n][classes]`.
fn probabilities(model: &dyn Classifier, pixels: &[f32]) -> Result<Vec<f32>> {
    let each = model.shape().len() as usize;
    let mut all = Vec::new();
    for images in pixels.chunks(each * model.batch().0) {
        let logits = model.logits(images)?;
        let mut out = vec![0.0; logits.len()];
        for (p, z) in out.chunks_exact_mut(model.classes()).zip(logits.chunks_exact(model.classes())) {
            softmax(z, p);
        }
        all.extend(out);
    }
    Ok(all)
}

/// `sum p log(p / q)`, nats.
fn divergence(truth: &[f32], other: &[f32]) -> f64 {
    let term = |(p, q): (&f32, &f32)| {
        let (p, q) = (f64::from(*p), f64::from(*q).max(1e-30));
        if p > 0.0 { p * (p / q).ln() } else { 0.0 }
    };
    truth.iter().zip(other).map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::encoder::{Encoder, Kind};
    use paradise_data::embedded;

    #[test]
    fn the_best_method_is_closer_than_the_plain_one() {
        let splits = embedded::subset().unwrap();
        let images = splits.test.head(150);
        let [calibration, held_out] = [0..100, 100..150].map(|ids| images.select(&ids.collect::<Vec<_>>()));
        let architecture =
            Encoder { kind: Kind::ResNet8, ..Encoder::default() }.architecture(images.shape, 10).unwrap();
        let network = Network::new(architecture, 3).unwrap().folded().unwrap();
        let choice = choose(&network, &calibration, &held_out, 0).unwrap();
        let far: Vec<f64> = choice.tried.iter().map(|t| t.divergence_micronats).collect();
        assert_eq!((far.len(), &*choice.tried[0].method), (12, "min-max"));
        // Dithered features over the same ranges and rounding.
        let of = |method: &str| choice.tried.iter().find(|t| t.method == method).unwrap().divergence_micronats;
        for method in ["min-max, error feedback, equalisation", "squared error, error feedback, equalisation"] {
            let with = of(&format!("{method}, dithered features"));
            assert!(with < of(method), "{:?}", choice.tried);
        }
        let best = far.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(best < far[0] / 2.0, "{:?}", choice.tried);
        let kept = choice.tried.iter().find(|t| t.method == choice.method.to_string()).unwrap();
        assert_eq!(kept.divergence_micronats, best);
    }
}

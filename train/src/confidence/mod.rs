//! Fits what a device needs to know when not to trust itself, from the int8 engine's own outputs: the aggregate
//! posterior, class means and covariances (training images), calibration tables and thresholds (calibration images).

pub mod covariance;
pub mod mixture;
pub mod white;
pub mod written;

use crate::encoder::Network;
use crate::prediction;
use crate::quantise::assemble::{Assembly, Identity};
use crate::quantise::plain;
use anyhow::{Context, Result, ensure};
use mixture::Kind;
use paradise_data::{Dataset, Splits, foreign};
use paradise_engine::appearance::{self, Sums};
use paradise_engine::calibration::Tables;
use paradise_engine::inference::{Evidence, Posterior, scratch_len};
use paradise_engine::{Model, Thresholds};
use paradise_evaluate::prediction::Prediction;
use paradise_runtime::levels::{Judged, tune};
use paradise_runtime::tables::{OwnTables, Values};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use written::{Calibration, Confidence, Shape};

/// Training images on which activation ranges are observed.
pub const RANGE_IMAGES: usize = 2000;

/// Training images behind means and covariances, where they are not in memory.
const FITTED_IMAGES: usize = 50_000;

/// Calibration images that are made unlike themselves, to see which statistics tell.
const MADE_IMAGES: usize = 500;

/// Training images on which a float network is compared with the integer one.
const COMPARED_IMAGES: usize = 1000;

/// Who answers while confidence is fitted: each image's prediction under a model, whose confidence plays no part yet.
pub type Answers<'a> = &'a dyn Fn(&Model, &Dataset) -> Result<Vec<Prediction>>;

/// How the aggregate posterior was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// `diagonal`, `shared` or `per class`.
    pub covariance: String,
    /// `E[-log q(z)]` on held-out training images, nats (its upper bound, rate plus posterior entropy), of each covariance
    /// that fits a device.
    pub code_length_nats: BTreeMap<String, f64>,
    /// Whether rate and posterior entropy take part in the decision.
    pub rate_and_entropy_decide: bool,
}

/// The finished `model.pmq`, its confidence fitted to the records that `answers` gives: the int8 engine's for what is
/// exported.
///
/// # Errors
/// If a class has no training image or the model is not valid.
pub fn fit(
    assembly: &Assembly,
    identity: &Identity,
    splits: &Splits,
    false_abstain: f64,
    answers: Answers,
) -> Result<Vec<u8>> {
    assembly.finish(identity, &fitted(assembly, identity, splits, false_abstain, answers, None)?.confidence)
}

/// Confidence as it was fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// What `model.pmq` holds.
    pub confidence: Confidence,
    /// How its aggregate posterior was chosen.
    pub choice: Choice,
    /// What calibration images give by the twin, where there is one.
    pub twin: Option<Values>,
}

/// Confidence that [`fit`] writes down.
///
/// `twin` is another network that will answer under it, the float one of a bundle: directions in which the two differ count the
/// less, and it gets calibration tables of its own.
///
/// # Errors
/// As [`fit`].
pub fn fitted(
    assembly: &Assembly,
    identity: &Identity,
    splits: &Splits,
    false_abstain: f64,
    answers: Answers,
    twin: Option<Answers>,
) -> Result<Fitted> {
    ensure!((0.0..1.0).contains(&false_abstain), "false-abstain rate {false_abstain} is not in 0..1");
    let d = assembly.latent();
    let mut confidence = Confidence::placeholder(d)?;
    let bare = assembly.finish(identity, &confidence)?;
    let bare = Model::parse(&bare)?;
    let train = splits.train.sample(FITTED_IMAGES)?;
    let training = Seen { predictions: answers(&bare, &train)?, set: &train };
    ensure!(
        (0..splits.labels.len()).all(|class| train.labels.contains(&(class as u16))),
        "a class has no training image"
    );
    // The first ones as they stand: the same images in the same order as their predictions.
    let compared = train.select(&(0..COMPARED_IMAGES.min(train.len())).collect::<Vec<_>>());
    let tolerance = twin.map(|twin| tolerance(&training.predictions, &twin(&bare, &compared)?));
    typicality(&mut confidence, d, &training, tolerance.transpose()?.as_deref())?;
    let mut choice = aggregate(&mut confidence, d, &training, &|c| assembly.finish(identity, c))?;
    drop(training);

    let calibration = Seen { predictions: answers(&bare, &splits.calibration)?, set: &splits.calibration };
    let evidence = calibration.evidence(&Model::parse(&assembly.finish(identity, &confidence)?)?);
    confidence.calibration = calibration.calibrated(&evidence)?;
    let bytes = assembly.finish(identity, &confidence)?;
    let model = Model::parse(&bytes)?;
    let home = calibration.judged(&Tables::of(&model), &evidence);
    let made = foreign::made(&splits.calibration.head(MADE_IMAGES), 0)?;
    let made = made.iter().map(|(_, set)| {
        let seen = Seen { predictions: answers(&bare, set)?, set };
        Ok(seen.judged(&Tables::of(&model), &seen.evidence(&model)))
    });
    let (limits, both) = decide(&home, &made.collect::<Result<Vec<_>>>()?, false_abstain);
    (confidence.thresholds, choice.rate_and_entropy_decide) = (limits, both);
    let set = &splits.calibration;
    let twin = twin.map(|twin| -> Result<Values> {
        let seen = Seen { predictions: twin(&bare, set)?, set };
        Ok(seen.calibrated(&seen.evidence(&model))?.values())
    });
    Ok(Fitted { confidence, choice, twin: twin.transpose()? })
}

/// A `model.pmq` whose confidence is that of the folded network in float, for [`prediction::predict`].
///
/// # Errors
/// If the network has no int8 form, or a class no training image.
pub fn fit_float(network: &Network, splits: &Splits, false_abstain: f64) -> Result<Vec<u8>> {
    let assembly = plain(network, &splits.train.head(RANGE_IMAGES)?)?;
    let encoder = &network.frozen();
    let answers = |model: &Model, set: &Dataset| prediction::predict(encoder, model, set);
    let labels = splits.labels.clone();
    let identity = Identity { name: "float".into(), labels, policy: splits.policy, made: None };
    fit(&assembly, &identity, splits, false_abstain, &answers)
}

/// Images and what a network says of them.
struct Seen<'a> {
    predictions: Vec<Prediction>,
    set: &'a Dataset,
}

impl Seen<'_> {
    /// Predictions and labels.
    fn labelled(&self) -> impl Iterator<Item = (&Prediction, u16)> + Clone {
        self.predictions.iter().zip(self.set.labels.iter().copied())
    }

    /// What their posteriors say of themselves, by a model's confidence.
    fn evidence(&self, model: &Model) -> Vec<Evidence> {
        let each = |(i, p): (usize, &Prediction)| {
            let posterior = Posterior { mu: &p.mu, sigma: &p.sigma, log_sigma: &p.log_sigma, logits: &[] };
            Evidence::of(model, self.set.image(i), &posterior, &mut vec![0.0; scratch_len(p.mu.len())])
        };
        self.predictions.par_iter().enumerate().map(each).collect()
    }

    /// What they give, each statistic for itself, then all together by their p-values.
    fn calibrated(&self, evidence: &[Evidence]) -> Result<Calibration> {
        let all = |of: fn(&Evidence) -> f32| evidence.iter().map(of).collect();
        let mut found = Calibration {
            rate: all(|e| e.rate_nats),
            entropy: all(|e| e.posterior_entropy_nats),
            posterior: all(|e| e.distances.posterior),
            spread: all(|e| e.distances.spread),
            picture: all(|e| e.distances.picture),
            predictive: self.predictions.iter().map(|p| p.predictive_entropy_nats).collect(),
            combined: vec![0.0],
        };
        let apart = OwnTables::new(&found.values())?;
        found.combined = self.judged(apart.tables(), evidence).iter().map(|image| image.p.surprise()).collect();
        Ok(found)
    }

    /// What decides about them, by these tables.
    fn judged(&self, tables: &Tables, evidence: &[Evidence]) -> Vec<Judged> {
        let judged = |(e, p): (&Evidence, &Prediction)| {
            let predictive_entropy_nats = p.predictive_entropy_nats;
            Judged { p: e.p_values(tables, predictive_entropy_nats), predictive_entropy_nats }
        };
        evidence.iter().zip(&self.predictions).map(judged).collect()
    }
}

/// A posterior in the order that is whitened.
fn theta(p: &Prediction) -> Vec<f32> {
    [&p.log_sigma[..], &p.mu[..]].concat()
}

/// Times that the second moments of a difference between two networks count.
const TOLERANCE: f64 = 2.0;

/// The second moments of the difference between two networks' posteriors, `[2 d][2 d]`, several times over: what is left between
/// them is then much less than what images make.
fn tolerance(here: &[Prediction], there: &[Prediction]) -> Result<Vec<f64>> {
    let n = here.first().map_or(0, |p| 2 * p.mu.len());
    let mut moments = vec![0.0f64; n * n];
    for (a, b) in here.iter().zip(there) {
        let off: Vec<f64> = theta(a).iter().zip(theta(b)).map(|(a, b)| f64::from(*a) - f64::from(b)).collect();
        ensure!(off.iter().all(|v| v.is_finite()), "a posterior is not finite");
        for (row, by) in moments.chunks_exact_mut(n).zip(&off) {
            row.iter_mut().zip(&off).for_each(|(m, o)| *m += TOLERANCE * by * o / there.len() as f64);
        }
    }
    Ok(moments)
}

/// Class means and covariances of posteriors and pictures.
fn typicality(confidence: &mut Confidence, d: usize, training: &Seen, tolerance: Option<&[f64]>) -> Result<()> {
    let theta: Vec<Vec<f32>> = training.predictions.iter().map(theta).collect();
    let labels = &training.set.labels;
    confidence.posterior = white::fit(2 * d, theta.iter().map(Vec::as_slice).zip(labels.iter().copied()), tolerance)?;
    confidence.spread = match confidence.posterior.shape {
        Shape::Triangle(_) => None,
        Shape::Principal { .. } => {
            let leading =
                tolerance.map(|t| t.chunks_exact(2 * d).take(d).flat_map(|row| row[..d].to_vec()).collect());
            let leading: Option<Vec<f64>> = leading;
            Some(white::fit(d, theta.iter().map(|t| &t[..d]).zip(labels.iter().copied()), leading.as_deref())?)
        }
    };
    let pictures: Vec<[f32; appearance::LEN]> = (0..training.set.len())
        .into_par_iter()
        .map(|i| Sums::of(training.set.image(i), training.set.shape).appearance())
        .collect();
    confidence.picture = white::fit(appearance::LEN, pictures.iter().map(|p| (&p[..], 0)), None)?;
    Ok(())
}

/// The mixture of the shortest code on held-out training images, of those that fit a device, fitted to all.
fn aggregate(
    confidence: &mut Confidence,
    d: usize,
    training: &Seen,
    finish: &dyn Fn(&Confidence) -> Result<Vec<u8>>,
) -> Result<Choice> {
    let components = training.set.labels.iter().collect::<std::collections::BTreeSet<_>>().len();
    let part = |held: bool| {
        training
            .labelled()
            .enumerate()
            .filter(move |(i, _)| white::held_out(*i) == held)
            .map(|(_, labelled)| labelled)
    };
    let held: Vec<&Prediction> = part(true).map(|(p, _)| p).collect();
    let (mut code_length_nats, mut best) = (BTreeMap::new(), None::<(f64, Kind, &str)>);
    for kind in Kind::ALL.into_iter().filter(|kind| kind.fits(components, d)) {
        confidence.mixture = mixture::fit(kind, d, part(false))?;
        let bytes = finish(confidence)?;
        let model = Model::parse(&bytes)?;
        let length = |p: &&Prediction| {
            let mut scratch = vec![0.0; scratch_len(d)];
            let information =
                paradise_engine::information::rate_nats(&model, &p.mu, &p.sigma, &p.log_sigma, &mut scratch);
            f64::from(information) + f64::from(paradise_engine::posterior::entropy_nats(&p.log_sigma))
        };
        let mean = held.iter().map(length).sum::<f64>() / held.len().max(1) as f64;
        let name = model.header().mixture.covariance.name();
        code_length_nats.insert(name.to_string(), (mean * 1e3).round() / 1e3);
        if best.is_none_or(|(shortest, ..)| mean < shortest) {
            best = Some((mean, kind, name));
        }
    }
    let (_, kind, name) = best.context("no mixture fits a device")?;
    confidence.mixture = mixture::fit(kind, d, training.labelled())?;
    Ok(Choice { covariance: name.to_string(), code_length_nats, rate_and_entropy_decide: false })
}

/// Thresholds of the promised share, and whether rate and posterior entropy are among them: only if more of the images that
/// were made unlike the others are abstained from with them.
fn decide(home: &[Judged], made: &[Vec<Judged>], false_abstain: f64) -> (Thresholds, bool) {
    let told = |limits: &Thresholds| made.iter().flatten().filter(|image| image.abstains(limits)).count();
    let [without, with] = [false, true].map(|both| tune(home, false_abstain, both));
    if told(&with) > told(&without) { (with, true) } else { (without, false) }
}

//! `card.toml`: what was trained on what, and every figure with the attack, N and interval beside it.

use super::CardSettings;
use super::quantisation::Quantisation;
use crate::answer::{self, Record, int8};
use crate::attack::served::Served;
use crate::attack::threat::Ball;
use crate::attack::{Attack, Victim};
use crate::config::Config;
use crate::dataset::{Dataset, Splits, foreign};
use crate::encoder::Encoder;
use crate::evaluate::{self, masking};
use crate::objective::Objective;
use crate::statistics::{Proportion, Share, auroc};
use anyhow::Result;
use paradise_engine::Model;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Clean and robust figures of the float model and the int8 model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Float, clean.
    pub float_clean: Share,
    /// int8, clean.
    pub int8_clean: Share,
    /// Images on which both give the same class.
    pub agreement: Share,
    /// The attack, with steps and restarts; per-image worst case.
    pub attack: String,
    /// `l_inf`.
    pub norm: String,
    /// Radius in 1/255.
    pub eps_pixels: f64,
    /// Float under attack.
    pub float_robust: Share,
    /// int8 on the float twin's adversarial images, rounded to 8 bits (transferred, not attacked itself).
    pub int8_robust_transferred: Share,
    /// Verdict of the gradient-masking checks.
    pub masking_checks: String,
}

/// How well each score tells foreign images from test images: area under the ROC curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Auroc {
    /// By rate.
    pub rate: f64,
    /// By distance of the posterior entropy's p-value from typical.
    pub posterior_entropy: f64,
    /// By predictive entropy.
    pub predictive_entropy: f64,
    /// Share of the foreign images on which the device abstains, per cent.
    pub abstained_percent: f64,
}

/// A network that was not trained here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Imported {
    /// Name of the ONNX file.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
    /// What rate and posterior entropy are worth.
    pub confidence: String,
}

/// The card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Name of the bundle.
    pub name: String,
    /// Version of this program.
    pub paradise: String,
    /// Seed of the run.
    pub seed: u64,
    /// Where the images came from.
    pub data: String,
    /// SHA-256 of the training images and labels.
    pub train_sha256: String,
    /// SHA-256 of the test images and labels.
    pub test_sha256: String,
    /// Images behind the calibration tables.
    pub calibration_images: usize,
    /// Promised share of abstentions on images like the calibration ones, per cent.
    pub false_abstain_promised_percent: f64,
    /// The same, on the test images.
    pub false_abstain_test: Share,
    /// Accuracy of the test images that are accepted.
    pub accepted_accuracy: Share,
    /// Bytes of the arena of an inference.
    pub arena_bytes: u32,
    /// Size of each file, bytes.
    pub sizes: BTreeMap<String, usize>,
    /// Loss and its weights.
    pub objective: Objective,
    /// Accuracies.
    pub accuracy: Accuracy,
    /// By kind of foreign image.
    pub foreign: BTreeMap<String, Auroc>,
    /// Where the network came from, if it was not trained here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Imported>,
    /// What quantisation did, where several methods were compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantisation: Option<Quantisation>,
}

/// Figures that the card and the self-test share.
#[derive(Debug)]
pub struct Measured {
    accuracy: Accuracy,
    foreign: BTreeMap<String, Auroc>,
    false_abstain: Proportion,
    accepted: Proportion,
    /// The first test images under the card's attack, on the 8-bit grid.
    pub adversarial: Dataset,
    /// What quantisation did.
    pub quantisation: Option<Quantisation>,
}

/// Computes every figure of the card.
///
/// # Errors
/// If the images do not fit the model.
pub fn measure(
    encoder: &Encoder,
    served: &Served,
    bytes: &[u8],
    splits: &Splits,
    settings: &CardSettings,
    seed: u64,
) -> Result<Measured> {
    let model = Model::parse(bytes)?;
    let float = answer::predictions(encoder, &splits.test)?;
    let records = int8::records(&model, &splits.test)?;
    let int8 = int8::classes(&records, &splits.test);
    let attacked = splits.test.head(settings.n);
    let (attack, ball) = (settings.attack.strongest(), Ball::linf(settings.eps));
    let (report, outcome) = evaluate::robust::measure(Victim::White(encoder), &attacked, &[&attack], ball, seed)?;
    let adversarial = outcome.on_grid(&attacked);
    let transferred = int8::predictions(&model, &adversarial)?;
    let accepted: Vec<bool> =
        records.iter().zip(&splits.test.labels).filter(|(r, _)| r.accept).map(|(r, l)| r.class == *l).collect();
    let foreign = foreign::made(&splits.test, seed)
        .into_iter()
        .map(|(name, set)| Ok((name.to_string(), separation(&records, &int8::records(&model, &set)?))))
        .collect::<Result<_>>()?;
    Ok(Measured {
        accuracy: Accuracy {
            float_clean: float.correct_share().into(),
            int8_clean: int8.correct_share().into(),
            agreement: float.agreement(&int8).into(),
            attack: settings.attack.describe(),
            norm: report.norm.into(),
            eps_pixels: (f64::from(settings.eps) * 255.0 * 100.0).round() / 100.0,
            float_robust: report.worst.into(),
            int8_robust_transferred: transferred.correct_share().into(),
            masking_checks: masking_verdict(served, ball, &splits.test, settings.checked, seed)?,
        },
        foreign,
        false_abstain: Proportion::of(records.iter().map(|r| !r.accept)),
        accepted: Proportion::of(accepted),
        adversarial,
        quantisation: None,
    })
}

/// The verdict of the masking checks on the first `n` test images, in a line.
///
/// # Errors
/// If the model fails.
pub fn masking_verdict(served: &Served, ball: Ball, test: &Dataset, n: usize, seed: u64) -> Result<String> {
    if n == 0 {
        return Ok("not run".into());
    }
    let few = test.head(n);
    let checks = masking::checks(Victim::White(served), None, ball, &few, seed)?;
    Ok(format!("{}, {} images", checks.verdict(), few.len()))
}

fn separation(home: &[Record], foreign: &[Record]) -> Auroc {
    let score = |pick: fn(&Record) -> f32| {
        let of = |records: &[Record]| records.iter().map(pick).collect::<Vec<f32>>();
        (auroc(&of(home), &of(foreign)) * 1e4).round() / 1e4
    };
    Auroc {
        rate: score(|r| r.rate_nats),
        posterior_entropy: score(|r| -r.entropy_p),
        predictive_entropy: score(|r| r.predictive_entropy_nats),
        abstained_percent: Share::from(Proportion::of(foreign.iter().map(|r| !r.accept))).percent,
    }
}

/// The card of a bundle with these files.
///
/// # Errors
/// If a training picture is missing.
pub fn write(
    name: &str,
    config: &Config,
    splits: &Splits,
    settings: &CardSettings,
    measured: &Measured,
    model: &Model,
    files: &[(&str, Vec<u8>)],
) -> Result<Card> {
    Ok(Card {
        name: name.into(),
        paradise: env!("CARGO_PKG_VERSION").into(),
        seed: config.seed,
        data: splits.source.clone(),
        train_sha256: splits.train.digest()?,
        test_sha256: splits.test.digest(),
        calibration_images: splits.calibration.len(),
        false_abstain_promised_percent: 100.0 * settings.false_abstain,
        false_abstain_test: measured.false_abstain.into(),
        accepted_accuracy: measured.accepted.into(),
        arena_bytes: model.header().arena_bytes,
        sizes: files.iter().map(|(file, bytes)| ((*file).to_string(), bytes.len())).collect(),
        objective: config.objective.clone(),
        accuracy: measured.accuracy.clone(),
        foreign: measured.foreign.clone(),
        imported: settings.imported.clone(),
        quantisation: measured.quantisation.clone(),
    })
}

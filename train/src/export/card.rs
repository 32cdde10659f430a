//! `card.toml`: what was trained on what, and every figure with the attack, N and interval beside it.

use super::CardSettings;
use super::quantisation::Quantisation;
use crate::confidence::Choice;
use crate::config::Config;
use crate::objective::Objective;
use crate::remedy::Remedy;
use anyhow::{Context, Result};
use paradise_attack::Norm;
use paradise_data::settings::Data;
use paradise_data::{Dataset, Splits};
use paradise_engine::Model;
use paradise_engine::golden::Origin;
use paradise_evaluate::abstention::Abstention;
use paradise_evaluate::confidence::{Coverage, Foreign, Scores};
use paradise_evaluate::prediction::PredictedClasses;
use paradise_evaluate::selection::Trust;
use paradise_runtime::Bundle;
use paradise_runtime::bundle::{CARD, MODEL};
use paradise_support::statistics::Proportion;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Clean and robust figures of the float model and the int8 model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Float, clean.
    pub float_clean: Proportion,
    /// int8, clean.
    pub int8_clean: Proportion,
    /// Images on which both give the same class.
    pub agreement: Proportion,
    /// The attack, with steps and restarts; per-image worst case.
    pub attack: String,
    /// `l_inf`.
    pub norm: String,
    /// Radius in 1/255.
    pub eps_pixels: f64,
    /// Float under attack.
    pub float_robust: Proportion,
    /// int8 on the float twin's adversarial images, rounded to 8 bits (transferred, not attacked itself).
    pub int8_robust_transferred: Proportion,
    /// Verdict of the gradient-masking checks.
    pub masking_checks: String,
}

/// A robustness figure of a whole evaluation, as `train evaluate` made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Robust {
    /// The attacks, by the names that `train evaluate --attacks` reads; per-image worst case.
    pub attacks: String,
    /// `l_inf` or `l2`.
    pub norm: String,
    /// Radius in [0, 1] pixel units.
    pub eps: f32,
    /// Seed of every draw.
    pub seed: u64,
    /// Images of a unit of work.
    pub batch: usize,
    /// Float under attack.
    pub float: Proportion,
    /// int8 on the float twin's adversarial images, rounded to 8 bits (transferred, not attacked itself).
    pub int8_transferred: Proportion,
    /// Verdict of the gradient-masking checks at the evaluation's first radius.
    pub masking_checks: String,
}

/// What confidence is worth on the test images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Confidence {
    /// Expected calibration error over 15 bins, per cent.
    pub ece_percent: f64,
    /// Telling misclassified images from others: area under the ROC curve; none where all are of one kind.
    pub mistakes_auroc: Option<Scores>,
    /// Misclassified test images on which the device abstains.
    pub mistakes_abstained: Proportion,
    /// The score by which mistakes should be told: the best on calibration images.
    pub trust: Trust,
    /// Accuracy of the four fifths of the test images that this score trusts most, per cent.
    pub trusted_accuracy_percent: f64,
    /// Risk and coverage: accuracy of the share of images that a score trusts most.
    pub coverage: Vec<Coverage>,
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
    /// Calibration pictures on which the file itself, run by tract, gives the class of the float network that was read from
    /// it; none where tract does not run it and the import was forced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_class: Option<Proportion>,
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
    /// How they are read, for `train verify-card`; the folder is its user's.
    pub images: Data,
    /// SHA-256 of the training images and labels.
    pub train_sha256: String,
    /// SHA-256 of the test images and labels.
    pub test_sha256: String,
    /// Images behind the calibration tables.
    pub calibration_images: usize,
    /// Promised share of abstentions on images like the calibration ones, per cent.
    pub false_abstain_promised_percent: f64,
    /// The same, on the test images.
    pub false_abstain_test: Proportion,
    /// Accuracy of the test images that are accepted.
    pub accepted_accuracy: Proportion,
    /// Bytes of the arena of an inference.
    pub arena_bytes: u32,
    /// Where the self-test's images came from.
    #[serde(default)]
    pub probes: Origin,
    /// Size of each file, bytes.
    pub sizes: BTreeMap<String, usize>,
    /// Loss and its weights.
    pub objective: Objective,
    /// Accuracies.
    pub accuracy: Accuracy,
    /// Whole evaluations.
    #[serde(default)]
    pub robust: Vec<Robust>,
    /// How the aggregate posterior was chosen, against which the rate is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregate_posterior: Option<Choice>,
    /// What abstaining is worth under attack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abstention: Option<Abstention>,
    /// What confidence is worth.
    pub confidence: Confidence,
    /// By kind of foreign image, none of which thresholds were fitted on.
    pub foreign: Vec<Foreign>,
    /// Where the network came from, if it was not trained here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Imported>,
    /// What quantisation did, where several methods were compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantisation: Option<Quantisation>,
}

/// What nothing in a bundle can show, since it is about how the model was made. `model.pmq` holds its digest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statement {
    pub(super) seed: u64,
    pub(super) data: String,
    pub(super) train_sha256: String,
    pub(super) test_sha256: String,
    pub(super) calibration_images: usize,
    pub(super) images: Data,
    pub(super) objective: Objective,
}

impl Statement {
    /// Of a run that is exported.
    ///
    /// # Errors
    /// If a training picture is missing.
    pub fn of(config: &Config, splits: &Splits) -> Result<Self> {
        Ok(Self {
            seed: config.seed,
            data: splits.source.clone(),
            train_sha256: splits.train.digest()?,
            test_sha256: splits.test.digest(),
            calibration_images: splits.calibration.len(),
            images: Data { folder: PathBuf::new(), ..config.data.clone() },
            objective: config.objective.clone(),
        })
    }

    /// Of a card.
    pub fn on(card: &Card) -> Self {
        Self {
            seed: card.seed,
            data: card.data.clone(),
            train_sha256: card.train_sha256.clone(),
            test_sha256: card.test_sha256.clone(),
            calibration_images: card.calibration_images,
            images: card.images.clone(),
            objective: card.objective.clone(),
        }
    }

    /// SHA-256 of its TOML form.
    ///
    /// # Errors
    /// If a value has no TOML form.
    pub fn digest(&self) -> Result<[u8; 32]> {
        Ok(Sha256::digest(toml::to_string(self)?).into())
    }
}

impl Card {
    /// A bundle's.
    ///
    /// # Errors
    /// If it has none, or it is not one.
    pub fn of(bundle: &Bundle) -> Result<Self> {
        let at = || bundle.path(CARD).display().to_string();
        toml::from_str(std::str::from_utf8(bundle.file(CARD)?).with_context(at)?).with_context(at)
    }

    /// The images that it names, from the folder where they are here; none for the embedded ones.
    ///
    /// # Errors
    /// If they are not there.
    pub fn load(&self, folder: Option<&Path>) -> Result<Splits> {
        let folder = folder.map_or_else(|| Data::default().folder, Path::to_path_buf);
        let named = || format!("its images are \"{}\"", self.data);
        let read = Data { folder, ..self.images.clone() }.load().with_context(named);
        Remedy::for_images(read, self.images.source)
    }
}

impl Robust {
    /// Its norm.
    pub fn norm(&self) -> Norm {
        if self.norm == Norm::L2.name() { Norm::L2 } else { Norm::Linf }
    }
}

/// What a card says of masking checks that nobody ran.
pub const NOT_RUN: &str = "not run";

impl std::fmt::Display for Card {
    /// Its figures in a few lines.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let a = &self.accuracy;
        let mut row = |name: &str, share: &Proportion| writeln!(f, "  {name:<34}{share}");
        row("float, clean", &a.float_clean)?;
        row("int8, clean", &a.int8_clean)?;
        row("same class, float and int8", &a.agreement)?;
        row(&format!("float, {} at {:.0}/255", a.attack, a.eps_pixels), &a.float_robust)?;
        row("int8 on those images (transferred)", &a.int8_robust_transferred)?;
        row("abstained on test images", &self.false_abstain_test)?;
        if let Some(abstention) = &self.abstention {
            row("wrong and accepted, attacked for it", &abstention.adaptive)?;
        }
        let (model, all) = (self.sizes.get(MODEL).unwrap_or(&0) / 1024, self.sizes.values().sum::<usize>() / 1024);
        let name = format!("bundle {}", self.name);
        write!(f, "  {name:<34}model {model} KiB, {all} KiB in all, {} byte arena", self.arena_bytes)
    }
}

/// Figures that are measured for the card.
#[derive(Debug)]
pub struct Measured {
    /// Accuracies.
    pub accuracy: Accuracy,
    /// What follows from the int8 model alone.
    pub int8: Int8Figures,
    /// What abstaining is worth under attack.
    pub abstention: Option<Abstention>,
    /// The first test images under the card's attack, on the 8-bit grid.
    pub adversarial: Dataset,
    /// What quantisation did.
    pub quantisation: Option<Quantisation>,
    /// Whole evaluations.
    pub robust: Vec<Robust>,
    /// How the aggregate posterior was chosen.
    pub aggregate_posterior: Option<Choice>,
}

/// Figures of the int8 model alone: integers, the same on every machine.
#[derive(Debug)]
pub struct Int8Figures {
    /// Test images and the classes given them.
    pub classes: PredictedClasses,
    /// Proportion of the test images on which the device abstains.
    pub false_abstain_test: Proportion,
    /// Accuracy of those that it accepts.
    pub accepted_accuracy: Proportion,
    /// What confidence is worth.
    pub confidence: Confidence,
    /// By kind of foreign image.
    pub foreign: Vec<Foreign>,
}

/// The card of a bundle with these files.
pub fn write(
    name: &str,
    statement: Statement,
    settings: &CardSettings,
    measured: &Measured,
    model: &Model,
    files: &[(&str, Vec<u8>)],
) -> Card {
    Card {
        name: name.into(),
        paradise: env!("CARGO_PKG_VERSION").into(),
        seed: statement.seed,
        data: statement.data,
        images: statement.images,
        train_sha256: statement.train_sha256,
        test_sha256: statement.test_sha256,
        calibration_images: statement.calibration_images,
        false_abstain_promised_percent: 100.0 * settings.false_abstain,
        false_abstain_test: measured.int8.false_abstain_test,
        accepted_accuracy: measured.int8.accepted_accuracy,
        arena_bytes: model.header().arena_bytes,
        probes: settings.origin,
        sizes: files.iter().map(|(file, bytes)| ((*file).to_string(), bytes.len())).collect(),
        objective: statement.objective,
        accuracy: measured.accuracy.clone(),
        robust: measured.robust.clone(),
        aggregate_posterior: measured.aggregate_posterior.clone(),
        abstention: measured.abstention.clone(),
        confidence: measured.int8.confidence.clone(),
        foreign: measured.int8.foreign.clone(),
        imported: settings.imported.clone(),
        quantisation: measured.quantisation.clone(),
    }
}

//! The figures of a card, measured: by the int8 engine alone, by attacks on the float network, and from whole evaluations.

use super::CardSettings;
use super::card::{Accuracy, Confidence, Int8Figures, Measured, NOT_RUN, Robust};
use crate::confident::Int8Confidence;
use crate::encoder::{LogitModel, Network};
use anyhow::{Result, ensure};
use paradise_attack::int8::Int8;
use paradise_attack::{Attack, Ball, Classifier, Victim, suite};
use paradise_data::{Dataset, Splits};
use paradise_engine::Model;
use paradise_evaluate::abstention::Abstention;
use paradise_evaluate::confidence;
use paradise_evaluate::evaluation::EVASION_STEPS;
use paradise_evaluate::masking::{self, Checks};
use paradise_evaluate::plan::Plan;
use paradise_evaluate::prediction::{PredictedClasses, classify, int8};
use paradise_evaluate::radius::Radius;
use paradise_evaluate::robust;
use paradise_evaluate::selection::Selection;
use paradise_evaluate::work::Work;
use std::path::Path;

impl Int8Figures {
    /// Computes them; `others` are data sets that are not the model's business.
    ///
    /// # Errors
    /// If the images do not fit the model.
    pub fn of(model: &Model, splits: &Splits, others: &[(String, Dataset)], seed: u64) -> Result<Self> {
        let answers = |set: &Dataset| int8::predict(model, set);
        let (test, calibration) = (&splits.test, &splits.calibration);
        let (home, selection) = (answers(test)?, Selection::fit(&answers(calibration)?, calibration));
        let quality = confidence::measure(&answers, test, &home, &selection, others, 0, seed)?.rounded();
        Ok(Self {
            classes: PredictedClasses::of(&home, test),
            false_abstain_test: quality.abstained,
            accepted_accuracy: quality.accepted_accuracy,
            confidence: Confidence {
                ece_percent: quality.ece_percent,
                mistakes_auroc: quality.mistakes,
                mistakes_abstained: quality.mistakes_abstained,
                trust: quality.trust,
                trusted_accuracy_percent: quality.trusted_accuracy_percent,
                coverage: quality.coverage,
            },
            foreign: quality.foreign,
        })
    }
}

/// Computes every figure of the card; `others` are data sets that are not the model's business.
///
/// # Errors
/// If the images do not fit the model.
pub fn measure(
    network: &Network,
    served: &LogitModel,
    bytes: &[u8],
    splits: &Splits,
    others: &[(String, Dataset)],
    settings: &CardSettings,
    seed: u64,
) -> Result<Measured> {
    let model = Model::parse(bytes)?;
    let folded = network.folded()?;
    let encoder = &folded.frozen();
    let float = classify(encoder, &splits.test)?;
    let int8 = Int8Figures::of(&model, splits, others, seed)?;
    let attacked = splits.test.head(settings.n);
    let (attack, ball) = (settings.attack.strongest(), Ball::linf(settings.eps));
    let (report, outcome) = robust::measure(Victim::White(encoder), &attacked, &[&attack], ball, seed)?;
    let adversarial = outcome.on_grid(&attacked);
    let transferred = int8::classify(&model, &adversarial)?;
    let abstention = abstention(network, &model, splits, &adversarial, settings, seed)?;
    Ok(Measured {
        accuracy: Accuracy {
            float_clean: float.correct_share(),
            int8_clean: int8.classes.correct_share(),
            agreement: float.agreement(&int8.classes),
            attack: settings.attack.describe(),
            norm: report.norm.into(),
            eps_pixels: (f64::from(settings.eps) * 255.0 * 100.0).round() / 100.0,
            float_robust: report.worst,
            int8_robust_transferred: transferred.correct_share(),
            masking_checks: masking_verdict(served, ball, &splits.test, settings.checked, seed)?,
        },
        int8,
        abstention,
        adversarial,
        quantisation: None,
        robust: Vec::new(),
        aggregate_posterior: None,
    })
}

/// What abstaining is worth under attack, on the first [`CardSettings::checked`] test images; `adversarial` are at least those under
/// the card's attack. None where no image is asked for.
///
/// # Errors
/// If the network has no gradients there.
pub fn abstention(
    network: &Network,
    model: &Model,
    splits: &Splits,
    adversarial: &Dataset,
    settings: &CardSettings,
    seed: u64,
) -> Result<Option<Abstention>> {
    let n = settings.checked.min(adversarial.len());
    if n == 0 {
        return Ok(None);
    }
    tracing::info!("adaptive attack on abstention, {n} images");
    let confident = Int8Confidence { network, model: model.clone(), calibration: &splits.calibration };
    let attacked = adversarial.select(&(0..n).collect::<Vec<_>>());
    let (images, ball) = (splits.test.head(n), Ball::linf(settings.eps));
    Abstention::measure(&confident, &images, &attacked, ball, EVASION_STEPS, seed).map(Some)
}

/// The same where no image was attacked yet.
///
/// # Errors
/// As [`abstention`].
pub fn abstention_anew(
    network: &Network,
    model: &Model,
    splits: &Splits,
    settings: &CardSettings,
    seed: u64,
) -> Result<Option<Abstention>> {
    let folded = network.folded()?;
    let few = splits.test.head(settings.checked);
    let (attack, ball) = (settings.attack.strongest(), Ball::linf(settings.eps));
    let (_, outcome) = robust::measure(Victim::White(&folded.frozen()), &few, &[&attack], ball, seed)?;
    abstention(network, model, splits, &outcome.on_grid(&few), settings, seed)
}

impl Robust {
    /// The figures of radius `k` of finished work: of the float network, and of `model` on its adversarial images.
    ///
    /// # Errors
    /// If a unit is missing or damaged.
    pub fn of(work: &Work, k: usize, model: &Model, set: &Dataset, masking_checks: String) -> Result<Self> {
        let plan = work.plan;
        let (radius, _, int8) = Radius::of(work, k, &Int8::new(model), set)?;
        Ok(Self {
            attacks: plan.attacks.clone(),
            norm: plan.norm.name().into(),
            eps: radius.eps,
            seed: plan.seed,
            batch: plan.batch,
            float: radius.worst,
            int8_transferred: int8.correct_share(),
            masking_checks,
        })
    }
}

/// The figures of a finished evaluation of `served` in `folder`, a row a radius.
///
/// # Errors
/// If it is of another network or other images, needs a surrogate, or is not finished.
pub fn evaluated(folder: &Path, served: &LogitModel, model: &Model, test: &Dataset) -> Result<Vec<Robust>> {
    let plan = Plan::read(folder)?;
    let at = folder.display();
    ensure!(plan.model.sha256 == served.digest(), "{at}: is an evaluation of another network ({})", plan.model.name);
    let set = test.head(plan.images.n);
    ensure!(plan.images.sha256 == set.digest(), "{at}: is an evaluation on other images");
    // Points of other models cannot be found again from a bundle: a card's figures are of the named attacks alone.
    let entries = suite::make(&suite::read(&plan.attacks)?, served.classes(), None)?;
    let work = Work::open(folder, &plan, &entries)?;
    ensure!(work.missing() == 0, "{at}: {} units of its work are missing; finish it first", work.missing());
    let checks = Checks::kept(folder)?.map_or_else(|| NOT_RUN.to_string(), |c| c.verdict());
    (0..plan.eps.len()).map(|k| Robust::of(&work, k, model, &set, checks.clone())).collect()
}

/// The verdict of the masking checks on the first `n` test images, in a line.
///
/// # Errors
/// If the model fails.
pub fn masking_verdict(served: &LogitModel, ball: Ball, test: &Dataset, n: usize, seed: u64) -> Result<String> {
    if n == 0 {
        return Ok(NOT_RUN.into());
    }
    let few = test.head(n);
    let checks = masking::checks(Victim::White(served), None, ball, &few, seed)?;
    Ok(format!("{}, {} images", checks.verdict(), few.len()))
}

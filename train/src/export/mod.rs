//! Writes a bundle: the folder in which `train` and the edge meet.

pub mod card;
pub mod encoded;
pub mod figures;
pub mod float_onnx;
pub mod int8_onnx;
mod onnx;
pub mod quantisation;
pub(crate) mod selftest;
mod synthesised;

use crate::confidence;
use crate::config::Config;
use crate::encoder::LogitModel;
use crate::encoder::{Encoder, Network};
use crate::prediction;
use crate::quantise::assemble::Identity;
use crate::quantise::choose::choose;
use crate::quantise::plain;
use anyhow::{Context, Result, ensure};
use card::{Card, Imported, Statement};
use paradise_attack::Attack;
use paradise_attack::gradient::Pgd;
use paradise_data::{Dataset, Splits, foreign};
use paradise_engine::Model;
use paradise_engine::golden::Origin;
use paradise_evaluate::plan::Plan;
use paradise_evaluate::prediction::int8;
use paradise_runtime::bundle::{self, CARD, ENCODER, ENCODER_INT8, ENCODER_TABLES, MODEL, SELFTEST};
use paradise_support::statistics::Proportion;
use std::path::{Path, PathBuf};

/// The robustness figure of a card: PGD with signed steps.
#[derive(Debug, Clone)]
pub struct CardSettings {
    /// Test images under attack.
    pub n: usize,
    /// Radius in [0, 1] pixel units.
    pub eps: f32,
    /// The attack.
    pub attack: Pgd,
    /// Proportion of calibration images that may be abstained.
    pub false_abstain: f64,
    /// Test images of the masking checks; 0 for none.
    pub checked: usize,
    /// Whether several methods of quantisation are compared and the best is taken; else the plain one.
    pub choose: bool,
    /// Where the network came from, if it was not trained here.
    pub imported: Option<Imported>,
    /// Other data sets, on which confidence is measured: name and folder.
    pub foreign: Vec<(String, PathBuf)>,
    /// Folders of finished evaluations of the network, whose figures the card takes over.
    pub evaluations: Vec<PathBuf>,
    /// Whether the bundle holds the float network too, four times the size of the int8 one.
    pub float: bool,
    /// Where the self-test's images come from.
    pub origin: Origin,
}

impl Default for CardSettings {
    fn default() -> Self {
        Self {
            n: 2000,
            eps: 8.0 / 255.0,
            attack: Pgd::sign(40, 2),
            false_abstain: 0.05,
            checked: 200,
            choose: false,
            imported: None,
            foreign: Vec::new(),
            evaluations: Vec::new(),
            float: true,
            origin: Origin::DataSet,
        }
    }
}

impl CardSettings {
    /// As they were for a card's attack.
    ///
    /// # Errors
    /// If that attack is not this version's.
    pub fn of(card: &Card) -> Result<Self> {
        let settings = Self { eps: (card.accuracy.eps_pixels / 255.0) as f32, ..Self::default() };
        let (used, theirs) = (settings.attack.describe(), &card.accuracy.attack);
        ensure!(*theirs == used, "the card's attack is {theirs:?}, this version's is {used:?}");
        Ok(settings)
    }
}

/// A float encoder, folded and frozen, and the model that it became.
pub(crate) struct Bundled<'a> {
    pub encoder: &'a Encoder<'a>,
    pub model: &'a Model<'a>,
}

/// Training images on which methods of quantisation are compared.
const HELD_OUT_IMAGES: usize = 500;

/// The training images on which activations are observed.
fn calibration(splits: &Splits) -> Result<Dataset> {
    splits.train.head(confidence::RANGE_IMAGES)
}

/// Training images after those on which activations are observed.
fn held_out(splits: &Splits) -> Result<Dataset> {
    let all = splits.train.head(confidence::RANGE_IMAGES + HELD_OUT_IMAGES)?;
    // A set that has no more is compared where it was observed.
    let from = confidence::RANGE_IMAGES.min(all.len() / 2);
    Ok(all.select(&(from..all.len()).collect::<Vec<_>>()))
}

/// Quantises `network`, fits its confidence and writes the bundle to `out`.
///
/// The folder appears whole: it is written beside `out` and renamed. An existing bundle there is replaced, anything
/// else is left alone.
///
/// # Errors
/// If a figure cannot be computed or a file cannot be written.
pub fn export(
    network: &Network,
    config: &Config,
    splits: &Splits,
    out: &Path,
    settings: &CardSettings,
) -> Result<Card> {
    // The card says of its images what is true of them, whatever the configuration began with.
    let config = &Config { data: config.data.of(splits), ..config.clone() };
    let folded = network.folded()?;
    let encoder = folded.frozen();
    let name =
        out.file_name().with_context(|| format!("{}: no folder name", out.display()))?.to_string_lossy().into_owned();
    let statement = Statement::of(config, splits)?;
    let made = Some(statement.digest()?);
    let identity = Identity { name: name.clone(), labels: splits.labels.clone(), policy: splits.policy, made };
    // Read now, so that a wrong path is not found after minutes.
    let others = foreign::named(&settings.foreign, splits.seen())?;
    settings.evaluations.iter().try_for_each(|folder| Plan::read(folder).map(drop))?;
    let seen = calibration(splits)?;
    let (assembly, choice) = match settings.choose {
        true => {
            let choice = choose(&folded, &seen, &held_out(splits)?, config.seed)?;
            (choice.assembly.clone(), Some(choice))
        }
        false => (plain(&folded, &seen)?, None),
    };
    let float = float_onnx::encode(&encoder)?;
    let twin = |model: &Model, set: &Dataset| prediction::by_tract(&float, model, set);
    // A bundle without the float network has nobody else who answers.
    let twin: Option<confidence::Answers> = if settings.float { Some(&twin) } else { None };
    let promised = settings.false_abstain;
    let found = confidence::fitted(&assembly, &identity, splits, promised, &int8::predict, twin)?;
    let fitted = &found.confidence;
    let bytes = assembly.finish(&identity, fitted)?;
    let model = Model::parse(&bytes)?;
    let served = LogitModel::new(network)?;
    let robust = settings.evaluations.iter().map(|e| figures::evaluated(e, &served, &model, &splits.test));
    let robust = robust.collect::<Result<Vec<_>>>()?.concat();
    let mut measured = figures::measure(network, &served, &bytes, splits, &others, settings, config.seed)?;
    measured.robust = robust;
    measured.aggregate_posterior = Some(found.choice);
    warn_near_chance(&measured.accuracy.int8_clean, splits.labels.len());
    if let Some(choice) = choice {
        let models = [choice.plain.finish(&identity, fitted)?, bytes.clone()];
        measured.quantisation = Some(quantisation::report(&encoder, models, choice, splits, &measured.adversarial)?);
    }
    let bundled = Bundled { encoder: &encoder, model: &model };
    let test = (settings.origin == Origin::DataSet).then_some(&splits.test);
    let golden = selftest::build(&bundled, test, settings, config.seed)?;
    let mut contents = vec![(MODEL, bytes.clone()), (ENCODER_INT8, int8_onnx::encode(&model)?), (SELFTEST, golden)];
    if settings.float {
        contents.push((ENCODER, float));
    }
    if let Some(tables) = &found.twin {
        contents.push((ENCODER_TABLES, serde_json::to_vec(tables)?));
    }
    let card = card::write(&name, statement, settings, &measured, &model, &contents);
    contents.push((CARD, toml::to_string(&card)?.into_bytes()));
    bundle::write(out, &name, &contents)?;
    Ok(card)
}

/// Says on standard error if a model knows little more than the number of classes: a wrong folder, as a rule, or labels in
/// another order.
fn warn_near_chance(clean: &Proportion, classes: usize) {
    let chance = 100.0 / classes as f64;
    if clean.wilson_percent()[0] <= 1.5 * chance {
        tracing::warn!(
            "{:.1} % of {} test images are right, and chance is {chance:.1} %: are classes and images those of the \
             network?",
            clean.percent(),
            clean.n
        );
    }
}

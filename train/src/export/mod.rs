//! Writes a bundle: the folder in which `train` and the edge meet.

pub mod card;
pub mod confidence;
mod drawn;
pub mod encoded;
pub mod float_onnx;
pub mod int8_onnx;
mod onnx;
pub mod quantisation;
pub(crate) mod selftest;

use crate::answer::int8;
use crate::attack::Attack;
use crate::attack::gradient::Pgd;
use crate::attack::served::Served;
use crate::config::Config;
use crate::dataset::{Dataset, Splits, foreign};
use crate::encoder::{Encoder, Network};
use crate::evaluate::plan::Plan;
use crate::files;
use crate::quantise::assemble::Identity;
use crate::quantise::choose::choose;
use crate::quantise::plain;
use crate::statistics::Share;
use anyhow::{Context, Result, ensure};
use card::{Card, Imported, Statement};
use paradise_engine::Model;
use paradise_engine::golden::Origin;
use paradise_runtime::bundle;
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
    /// Share of calibration images that may be abstained.
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

/// The float network's file.
pub(crate) const FLOAT: &str = "encoder.onnx";

/// Training images on which activation ranges are observed.
const RANGE_IMAGES: usize = 2000;

/// Training images on which methods of quantisation are compared.
const HELD_OUT_IMAGES: usize = 500;

/// What a model says of itself.
fn identity(name: &str, config: &Config, splits: &Splits) -> Result<Identity> {
    let made = Some(Statement::of(config, splits)?.digest()?);
    Ok(Identity { name: name.into(), labels: splits.labels.clone(), policy: splits.policy, made })
}

/// The training images on which activations are observed.
fn calibration(splits: &Splits) -> Result<Dataset> {
    splits.train.head(RANGE_IMAGES)
}

/// Training images after those on which activations are observed.
fn held_out(splits: &Splits) -> Result<Dataset> {
    let all = splits.train.head(RANGE_IMAGES + HELD_OUT_IMAGES)?;
    // A set that has no more is compared where it was observed.
    let from = RANGE_IMAGES.min(all.len() / 2);
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
    let folded = network.folded()?;
    let encoder = folded.frozen();
    let name = out.file_name().context("--out has no folder name")?.to_string_lossy().into_owned();
    let identity = identity(&name, config, splits)?;
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
    let fitted = confidence::fitted(&assembly, &identity, splits, settings.false_abstain, &int8::records)?;
    let bytes = assembly.finish(&identity, &fitted)?;
    let model = Model::parse(&bytes)?;
    let served = Served::new(network)?;
    let robust = settings.evaluations.iter().map(|e| card::evaluated(e, &served, &model, &splits.test));
    let robust = robust.collect::<Result<Vec<_>>>()?.concat();
    let mut measured = card::measure(&encoder, &served, &bytes, splits, &others, settings, config.seed)?;
    measured.robust = robust;
    warn_near_chance(&measured.accuracy.int8_clean, splits.labels.len());
    if let Some(choice) = choice {
        let models = [choice.plain.finish(&identity, &fitted)?, bytes.clone()];
        measured.quantisation = Some(quantisation::report(&encoder, models, choice, splits, &measured.adversarial)?);
    }
    let bundled = Bundled { encoder: &encoder, model: &model };
    let test = (settings.origin == Origin::DataSet).then_some(&splits.test);
    let golden = selftest::build(&bundled, test, settings, config.seed)?;
    let mut contents = vec![
        ("model.pmq", bytes.clone()),
        ("encoder.int8.onnx", int8_onnx::encode(&model)?),
        (selftest::FILE, golden),
    ];
    if settings.float {
        contents.push((FLOAT, float_onnx::encode(&encoder)?));
    }
    let card = card::write(&name, config, splits, settings, &measured, &model, &contents)?;
    contents.push((card::FILE, toml::to_string(&card)?.into_bytes()));
    write(out, &name, &contents)?;
    Ok(card)
}

/// Says on standard error if a model knows little more than the number of classes: a wrong folder, as a rule, or labels in
/// another order.
fn warn_near_chance(clean: &Share, classes: usize) {
    let chance = 100.0 / classes as f64;
    if clean.wilson_95_percent[0] <= 1.5 * chance {
        eprintln!(
            "warning: {:.1} % of {} test images are right, and chance is {chance:.1} %: are classes and images those of the \
             network?",
            clean.percent, clean.n
        );
    }
}

pub(crate) fn write(out: &Path, name: &str, contents: &[(&str, Vec<u8>)]) -> Result<()> {
    let parent = match out.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    files::create_folder(parent)?;
    let building = parent.join(format!(".{name}.{}.building", std::process::id()));
    files::create_folder(&building)?;
    for (file, bytes) in contents {
        files::write(&building.join(file), bytes)?;
    }
    let manifest = bundle::manifest(name, contents.iter().map(|(file, bytes)| (*file, &bytes[..])));
    files::write(&building.join(bundle::MANIFEST), manifest.as_bytes())?;
    files::replace_folder(&building, out, |there| there.join(bundle::MANIFEST).exists() || is_empty(there))
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

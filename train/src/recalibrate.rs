//! `train recalibrate`: everything that a bundle knows of its own confidence fitted anew, its weights untouched. The int8 engine
//! answers; a float network, where the bundle has one, says in which directions it differs and gets calibration tables of its own.

use crate::confidence;
use crate::export::CardSettings;
use crate::export::card::{Card, Int8Figures};
use crate::export::figures;
use crate::export::selftest;
use crate::import;
use crate::prediction;
use crate::quantise::assemble::{Assembly, Identity};
use anyhow::{Context, Result, ensure};
use paradise_data::{Dataset, foreign};
use paradise_engine::Model;
use paradise_evaluate::prediction::int8;
use paradise_runtime::Bundle;
use paradise_runtime::bundle::{self, CARD, ENCODER, ENCODER_TABLES, MODEL, SELFTEST};
use std::path::{Path, PathBuf};

/// What is fitted anew, on what.
#[derive(Debug, Clone, Default)]
pub struct Recalibration {
    /// Bundle folder.
    pub bundle: PathBuf,
    /// Folder of the data set that the card names; none for the embedded images.
    pub data: Option<PathBuf>,
    /// Where the bundle is written; none for its own place.
    pub out: Option<PathBuf>,
    /// Other data sets, on which confidence is measured: name and folder.
    pub foreign: Vec<(String, PathBuf)>,
    /// Share of calibration images that may be abstained from; none for the card's.
    pub false_abstain: Option<f64>,
}

/// Writes the bundle with new means and covariances, tables, thresholds, self-test and card.
///
/// # Errors
/// If the bundle is damaged, the images are not those of its card, or the folder cannot be written.
pub fn recalibrate(what: &Recalibration) -> Result<Card> {
    let bundle = Bundle::open(&what.bundle)?;
    let mut card = Card::of(&bundle)?;
    let at = |file: &str| bundle.path(file).display().to_string();
    let model = Model::parse(bundle.file(MODEL)?).with_context(|| at(MODEL))?;
    let splits = card.load(what.data.as_deref())?;
    let theirs = [&card.train_sha256, &card.test_sha256];
    ensure!(
        theirs == [&splits.train.digest()?, &splits.test.digest()],
        "{}: these are not the card's images ({})",
        what.bundle.display(),
        card.data
    );
    let others = foreign::named(&what.foreign, splits.seen())?;
    let out = what.out.as_deref().unwrap_or(&what.bundle);
    let header = model.header();
    let name = what.out.as_deref().map_or_else(|| Ok(header.name.to_string()), name)?;
    let labels = (0..usize::from(header.classes)).map(|c| model.label(c).to_string()).collect();
    let identity = Identity { name: name.clone(), labels, policy: header.policy, made: header.made };
    let promised = what.false_abstain.unwrap_or(card.false_abstain_promised_percent / 100.0);
    tracing::info!("confidence of {name}, on {} calibration images", splits.calibration.len());
    let assembly = Assembly::of(&model);
    let float = bundle.file(ENCODER).ok();
    let network = float.map(|bytes| import::exported(bytes).with_context(|| at(ENCODER))).transpose()?;
    let twin = float.map(|bytes| move |model: &Model, set: &Dataset| prediction::by_tract(bytes, model, set));
    let twin: Option<confidence::Answers> = twin.as_ref().map(|twin| twin as confidence::Answers);
    let fitted = confidence::fitted(&assembly, &identity, &splits, promised, &int8::predict, twin)?;
    let bytes = assembly.finish(&identity, &fitted.confidence)?;
    let model = Model::parse(&bytes)?;
    let test = selftest::renewed(&model, bundle.file(SELFTEST)?).with_context(|| at(SELFTEST))?;
    let found = Int8Figures::of(&model, &splits, &others, card.seed)?;
    let settings = CardSettings::of(&card)?;
    let abstention = network.as_ref().map(|n| figures::abstention_anew(n, &model, &splits, &settings, card.seed));

    card.name = name.clone();
    card.paradise = env!("CARGO_PKG_VERSION").into();
    card.false_abstain_promised_percent = 100.0 * promised;
    card.false_abstain_test = found.false_abstain_test;
    card.accepted_accuracy = found.accepted_accuracy;
    card.aggregate_posterior = Some(fitted.choice);
    card.abstention = abstention.transpose()?.flatten();
    card.confidence = found.confidence;
    card.foreign = found.foreign;
    let mut contents = vec![(MODEL, bytes.clone()), (SELFTEST, test)];
    if let Some(tables) = &fitted.twin {
        contents.push((ENCODER_TABLES, serde_json::to_vec(tables)?));
    }
    card.sizes.extend(contents.iter().map(|(file, bytes)| ((*file).to_string(), bytes.len())));
    contents.push((CARD, toml::to_string(&card)?.into_bytes()));
    let made: Vec<&str> = contents.iter().map(|(file, _)| *file).collect();
    for (file, _) in bundle.files().filter(|(file, _)| !made.contains(file)) {
        contents.push((file, bundle.file(file)?.to_vec()));
    }
    bundle::write(out, &name, &contents)?;
    Ok(card)
}

/// The last part of a folder.
fn name(folder: &Path) -> Result<String> {
    let name = folder.file_name().with_context(|| format!("{}: no folder name", folder.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

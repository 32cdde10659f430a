//! Makes a bundle's self-test again: on pictures that the network draws, or on test images.

use crate::encoder::Network;
use crate::export::card::Card;
use crate::export::{Bundled, CardSettings, selftest};
use crate::import;
use crate::remedy::Remedy;
use crate::trained::Trained;
use anyhow::{Context, Result, ensure};
use paradise_data::Dataset;
use paradise_engine::Model;
use paradise_engine::golden::Origin;
use paradise_runtime::Bundle;
use paradise_runtime::bundle::{self, CARD, ENCODER, MODEL, SELFTEST};
use std::path::{Path, PathBuf};

/// What is made again.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// Bundle folder.
    pub bundle: PathBuf,
    /// Where the images shall come from.
    pub origin: Origin,
    /// Folder of the data set that the card names.
    pub data: Option<PathBuf>,
    /// The run that the bundle was exported from, for one without the float network.
    pub run: Option<PathBuf>,
}

/// Writes the bundle anew, with another `selftest.bin` and its size and origin on the card.
///
/// # Errors
/// If the bundle is damaged, is not of this run or these images, or the folder cannot be written.
pub fn replace(replacement: &Replacement) -> Result<()> {
    let folder = &replacement.bundle;
    let bundle = Bundle::open(folder)?;
    let mut card = Card::of(&bundle)?;
    let model = Model::parse(bundle.file(MODEL)?).with_context(|| bundle.path(MODEL).display().to_string())?;
    let network = network(&bundle, replacement.run.as_deref())?;
    let architecture = &network.architecture;
    ensure!(
        (architecture.graph.input, architecture.classes, architecture.latent)
            == (model.header().input, usize::from(model.header().classes), usize::from(model.header().latent)),
        "{}: model.pmq and the float network disagree on their extents",
        folder.display()
    );
    let test = match replacement.origin {
        Origin::DataSet => Some(test_images(&card, replacement.data.as_deref())?),
        Origin::Synthesised => None,
    };
    let settings = CardSettings::of(&card)?;
    let folded = network.folded()?;
    let bundled = Bundled { encoder: &folded.frozen(), model: &model };
    let gap = selftest::float_gap(bundled.encoder, bundle.file(SELFTEST)?)
        .with_context(|| bundle.path(SELFTEST).display().to_string())?;
    ensure!(
        gap <= selftest::FLOAT_TOLERANCE,
        "{}: was exported from another network (off by {gap:.1e})",
        folder.display()
    );
    let renewed = selftest::build(&bundled, test.as_ref(), &settings, card.seed)?;
    card.sizes.insert(SELFTEST.into(), renewed.len());
    card.probes = replacement.origin;
    write(folder, &bundle, &card, renewed)
}

/// Writes the bundle anew with the same images and what an attack and noise find by its model.
///
/// # Errors
/// If the bundle is damaged, or the folder cannot be written.
pub fn try_anew(folder: &Path) -> Result<()> {
    let bundle = Bundle::open(folder)?;
    let mut card = Card::of(&bundle)?;
    let model = Model::parse(bundle.file(MODEL)?).with_context(|| bundle.path(MODEL).display().to_string())?;
    let tried = selftest::tried(&model, bundle.file(SELFTEST)?)
        .with_context(|| bundle.path(SELFTEST).display().to_string())?;
    card.sizes.insert(SELFTEST.into(), tried.len());
    write(folder, &bundle, &card, tried)
}

/// Writes the bundle with another self-test and card.
fn write(folder: &Path, bundle: &Bundle, card: &Card, golden: Vec<u8>) -> Result<()> {
    let mut contents = vec![(SELFTEST, golden), (CARD, toml::to_string(card)?.into_bytes())];
    for (name, _) in bundle.files().filter(|(name, _)| ![SELFTEST, CARD].contains(name)) {
        contents.push((name, bundle.file(name)?.to_vec()));
    }
    Ok(bundle::write(folder, bundle.name(), &contents)?)
}

/// The float network, from the bundle or the run that it was exported from.
fn network(bundle: &Bundle, run: Option<&Path>) -> Result<Network> {
    match (bundle.file(ENCODER), run) {
        (_, Some(run)) => Ok(Trained::open(run, None)?.network),
        (Ok(bytes), None) => import::exported(bytes).with_context(|| bundle.path(ENCODER).display().to_string()),
        (Err(error), None) => Err(anyhow::Error::from(error).context(Remedy::Run)),
    }
}

/// The card's test images.
fn test_images(card: &Card, data: Option<&Path>) -> Result<Dataset> {
    let test = card.load(data)?.test;
    ensure!(card.test_sha256 == test.digest(), "these are not the card's test images ({})", card.data);
    Ok(test)
}

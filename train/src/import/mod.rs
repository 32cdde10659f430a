//! Float ONNX classifiers from elsewhere as bundles.
//!
//! Such a network has no sigma head. Its posterior is a narrow Gaussian of fixed width around the penultimate features,
//! so the rate says how far these lie from every class's features, and the posterior entropy says nothing; the card tells.

mod constants;
mod graph;
mod nodes;
mod original;
mod view;

use crate::config::Config;
use crate::encoder::{Architecture, Bound, Network};
use crate::export::card::{Card, Imported};
use crate::export::{self, CardSettings};
use crate::objective::Kind;
use crate::remedy::Remedy;
use anyhow::{Context, Result, anyhow, ensure};
use graph::Contract;
use paradise_data::settings::{Data, Source};
use paradise_engine::layer::Window;
use paradise_nn::graph::{Graph, Init, Op, Stage};
use prost::Message;
use sha2::{Digest, Sha256};
use std::path::Path;
use tract_onnx::pb::ModelProto;

/// Largest ONNX file, bytes.
pub(crate) const MAX_FILE: u64 = 1 << 30;

/// Share of the calibration pictures on which original and import must give the same class.
const ENOUGH_PERCENT: f64 = 99.5;

/// What sigma is the sigmoid of, in every dimension: sigma is about 0.0025.
const NARROW: f32 = -6.0;

/// Which values of pixels an imported network takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Range {
    /// By what the graph does first: 0..=255 where it takes u8, divides by a large number or takes off a mean far above 1.
    #[default]
    Auto,
    /// [0, 1].
    Unit,
    /// 0..=255.
    Bytes,
}

/// How an imported network's images are changed before they enter it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Normalisation {
    /// Which values its pixels have.
    pub range: Range,
    /// Mean a channel, of pixels in [0, 1]; empty for 0.
    pub mean: Vec<f32>,
    /// Standard deviation a channel; empty for 1.
    pub std: Vec<f32>,
}

/// The network in the bytes of a float ONNX classifier.
///
/// # Errors
/// With the node or constant that is not understood.
pub fn network(bytes: &[u8], normalisation: &Normalisation) -> Result<Network> {
    Ok(read(&decode(bytes)?, normalisation)?.0)
}

/// The network in a model, and what the model wants to be given.
fn read(onnx: &ModelProto, normalisation: &Normalisation) -> Result<(Network, Contract)> {
    let output = graph::answers(onnx.graph.as_ref().context("the file holds no graph")?)?;
    let graph::Read { graph, mut numbers, contract } = graph::read(onnx, output, normalisation)?;
    let shapes = graph.shapes()?;
    let mut stages = graph.stages;
    let last = stages.last().context("the graph is empty")?;
    let features = shapes[last.x];
    let is_classifier = matches!(last.op, Op::Dense { relu: false, .. }) && last.x + 1 == stages.len();
    let classifier = if is_classifier && last.x > 0 && features.h == 1 && features.w == 1 {
        stages.pop();
        numbers.pop().context("a stage has numbers")?
    } else {
        // The logits themselves are the features.
        let classes = shapes[stages.len()];
        ensure!(classes.h == 1 && classes.w == 1, "the output is {classes:?}, not one value a class");
        let c = usize::from(classes.c);
        vec![identity(c), vec![0.0; c]]
    };
    if stages.last().is_some_and(|s| s.op.is_map()) {
        let c = numbers.last().map_or(0, |n| n[1].len());
        let window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
        let op = Op::Conv { window, groups: c, out: c, bias: true, relu: false, residual: None };
        stages.push(Stage { x: stages.len(), op });
        numbers.push(vec![vec![1.0; c], vec![0.0; c]]);
    }
    let graph = Graph { input: graph.input, stages };
    let d = graph.shapes()?.last().map_or(0, |s| usize::from(s.c));
    ensure!(d <= 4096, "{d} features; a latent has at most 4096 dimensions");
    let classes = classifier[1].len();
    ensure!(classes > 1, "one output value; a classifier has one for each of at least two classes");
    let architecture =
        Architecture { graph, latent: d, classes, bound: Bound::Sigmoid, init: Init::He, decoder: None };
    let mut all: Vec<Vec<f32>> = numbers.into_iter().flatten().collect();
    all.extend([identity(d), vec![0.0; d], vec![0.0; d * d], vec![NARROW; d]]);
    all.extend(classifier);
    Ok((Network::from_numbers(architecture, all)?, contract))
}

/// The network in the bytes of an `encoder.onnx` that [`export`] wrote: the trunk and all its heads.
///
/// # Errors
/// If it is none.
pub fn exported(bytes: &[u8]) -> Result<Network> {
    let onnx = decode(bytes)?;
    let none = Normalisation { range: Range::Unit, ..Normalisation::default() };
    let [logits, s] = ["logits", "s"].map(|name| graph::read(&onnx, (0, name), &none));
    let (logits, s) = (logits?, s?);
    let (stages, other) = (&logits.graph.stages, &s.graph.stages);
    let trunk = other.len().saturating_sub(1);
    let is_head = |stage: &Stage| matches!(stage.op, Op::Dense { relu: false, .. }) && stage.x >= trunk;
    ensure!(
        trunk > 0
            && stages.len() == trunk + 2
            && stages[..trunk] == other[..trunk]
            && [&other[trunk], &stages[trunk], &stages[trunk + 1]].into_iter().all(is_head),
        "no trunk with heads mu and s and a classifier, as an export has them"
    );
    let mut numbers = logits.numbers;
    numbers.insert(trunk + 1, s.numbers[trunk].clone());
    let (latent, classes) = (numbers[trunk][1].len(), numbers[trunk + 2][1].len());
    let graph = Graph { input: logits.graph.input, stages: stages[..trunk].to_vec() };
    let architecture = Architecture { graph, latent, classes, bound: Bound::Sigmoid, init: Init::He, decoder: None };
    Network::from_numbers(architecture, numbers.into_iter().flatten().collect())
}

fn decode(bytes: &[u8]) -> Result<ModelProto> {
    ModelProto::decode(bytes).context("not an ONNX file")
}

fn identity(n: usize) -> Vec<f32> {
    (0..n * n).map(|i| if i % (n + 1) == 0 { 1.0 } else { 0.0 }).collect()
}

/// Imports a file: quantised, its confidence fitted to the pictures of `data`, as a bundle in `out`. Extents and channels are
/// the network's own, whatever `data` says. `force` takes a network that the original does not confirm.
///
/// # Errors
/// With the file, node or picture that is not as it should be.
pub fn import(
    file: &Path,
    normalisation: &Normalisation,
    data: &Data,
    out: &Path,
    settings: &CardSettings,
    force: bool,
) -> Result<Card> {
    let at = || file.display().to_string();
    let size = std::fs::metadata(file).with_context(at)?.len();
    ensure!(size <= MAX_FILE, "{}: {size} bytes exceed the limit of {MAX_FILE}", file.display());
    let bytes = std::fs::read(file).with_context(at)?;
    let mut onnx = decode(&bytes).with_context(at)?;
    if let Some(graph) = &mut onnx.graph {
        constants::gather(graph, file.parent().unwrap_or(Path::new("."))).with_context(at)?;
    }
    let (network, contract) =
        read(&onnx, normalisation).with_context(|| format!("{}: cannot be imported", file.display()))?;
    let input = network.architecture.graph.input;
    ensure!(input.h == input.w, "pictures become square images, the model takes {} x {}", input.w, input.h);
    let data = Data { source: Source::ImageFolder, side: input.h, channels: input.c, ..data.clone() }.resolved();
    data.validate()?;
    let splits = data.load()?;
    if data.labels.is_empty() && !splits.labels.iter().all(|l| l.parse::<u64>().is_ok()) {
        let few: Vec<String> =
            splits.labels.iter().take(3).enumerate().map(|(i, name)| format!("{i} is {name}")).collect();
        tracing::warn!(
            "classes are the folders in order of their names ({}, ...); if the network's outputs are in another \
             order, state theirs",
            few.join(", ")
        );
    }
    let (have, need) = (splits.labels.len(), network.architecture.classes);
    ensure!(have == need, "{}: {have} classes, the model has {need}", data.folder.display());
    // The file itself, by another tool, on pictures that neither has seen: what the reader misunderstood shows here.
    let same = original::same_classes(&onnx, contract, normalisation, &network, &splits.calibration);
    let agreement = match same {
        Ok(same) if same.percent() < ENOUGH_PERCENT && !force => {
            let why = anyhow!(
                "{}: the original, run by tract, gives the class of what was read from it on {} of {} calibration \
                 pictures; {ENOUGH_PERCENT} % are needed",
                file.display(),
                same.correct,
                same.n
            );
            return Err(why.context(Remedy::Force));
        }
        Ok(same) => Some(same),
        Err(why) if !force => {
            let told = format!(
                "{}: the original does not run in tract, so what was read from it cannot be checked",
                file.display()
            );
            return Err(why.context(told).context(Remedy::Force));
        }
        Err(_) => None,
    };
    let mut config = Config::demo(Kind::Standard);
    config.objective.alpha = 0.0;
    config.objective.gamma = 0.0;
    config.data = data;
    let imported = Imported {
        file: file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
        sha256: paradise_support::hex(&Sha256::digest(&bytes)),
        same_class: agreement,
        confidence: "no sigma head: the rate is that of the penultimate features, the posterior entropy is constant"
            .into(),
    };
    let settings = CardSettings { imported: Some(imported), ..settings.clone() };
    export::export(&network, &config, &splits, out, &settings)
}

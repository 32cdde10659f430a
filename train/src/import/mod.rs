//! Float ONNX classifiers from elsewhere as bundles.
//!
//! Such a network has no sigma head. Its posterior is a narrow Gaussian of fixed width around the penultimate features,
//! so the rate says how far these lie from every class's features, and the posterior entropy says nothing; the card tells.

mod constants;
mod graph;
mod nodes;

use crate::config::{Config, Data, Source};
use crate::dataset::{HELD_OUT, Splits, folder};
use crate::encoder::{Architecture, Bound, Network};
use crate::export::card::{Card, Imported};
use crate::export::{self, CardSettings};
use crate::graph::{Graph, Init, Op, Stage};
use crate::objective::Kind;
use anyhow::{Context, Result, ensure};
use paradise_engine::layer::Window;
use prost::Message;
use sha2::{Digest, Sha256};
use std::path::Path;
use tract_onnx::pb::{GraphProto, ModelProto};

/// Largest ONNX file, bytes.
const MAX_FILE: u64 = 1 << 30;

/// What sigma is the sigmoid of, in every dimension: sigma is about 0.0025.
const NARROW: f32 = -6.0;

/// How an imported network's images are normalised before its first layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Normalisation {
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
    let onnx = decode(bytes)?;
    let graph::Read { graph, mut numbers } = graph::read(&onnx, graph::logits(&onnx)?)?;
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
    if !(normalisation.mean.is_empty() && normalisation.std.is_empty()) {
        let c = usize::from(graph.input.c);
        let or = |given: &[f32], otherwise: f32| if given.is_empty() { vec![otherwise; c] } else { given.to_vec() };
        let (mean, std) = (or(&normalisation.mean, 0.0), or(&normalisation.std, 1.0));
        ensure!(
            mean.len() == c && std.len() == c,
            "{} means and {} deviations for {c} channels",
            mean.len(),
            std.len()
        );
        for stage in &mut stages {
            stage.x += 1;
            match &mut stage.op {
                Op::Add { other, .. } => *other += 1,
                Op::Conv { residual: Some(other), .. } => *other += 1,
                _ => {}
            }
        }
        stages.insert(0, Stage { x: 0, op: Op::Normalise { mean, std } });
        numbers.insert(0, Vec::new());
    }
    let graph = Graph { input: graph.input, stages };
    let d = graph.shapes()?.last().map_or(0, |s| usize::from(s.c));
    ensure!(d <= 4096, "{d} features; a latent has at most 4096 dimensions");
    let classes = classifier[1].len();
    ensure!(classes > 1, "{classes} classes");
    let architecture =
        Architecture { graph, latent: d, classes, bound: Bound::Sigmoid, init: Init::He, decoder: None };
    let mut all: Vec<Vec<f32>> = numbers.into_iter().flatten().collect();
    all.extend([identity(d), vec![0.0; d], vec![0.0; d * d], vec![NARROW; d]]);
    all.extend(classifier);
    Network::from_numbers(architecture, all)
}

/// The network in the bytes of an `encoder.onnx` that [`export`] wrote: the trunk and all its heads.
///
/// # Errors
/// If it is none.
pub fn exported(bytes: &[u8]) -> Result<Network> {
    let onnx = decode(bytes)?;
    let (logits, s) = (graph::read(&onnx, "logits")?, graph::read(&onnx, "s")?);
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

fn decode(bytes: &[u8]) -> Result<GraphProto> {
    let model = ModelProto::decode(bytes).context("not an ONNX file")?;
    model.graph.context("the file holds no graph")
}

fn identity(n: usize) -> Vec<f32> {
    (0..n * n).map(|i| if i % (n + 1) == 0 { 1.0 } else { 0.0 }).collect()
}

/// Imports a file: quantised, its confidence fitted to `pictures`, as a bundle in `out`.
///
/// # Errors
/// With the file, node or picture that is not as it should be.
pub fn import(
    file: &Path,
    normalisation: &Normalisation,
    pictures: &Path,
    out: &Path,
    settings: &CardSettings,
) -> Result<Card> {
    let at = || file.display().to_string();
    let size = std::fs::metadata(file).with_context(at)?.len();
    ensure!(size <= MAX_FILE, "{}: {size} bytes exceed the limit of {MAX_FILE}", file.display());
    let bytes = std::fs::read(file).with_context(at)?;
    let network = network(&bytes, normalisation).with_context(at)?;
    let splits = labelled(pictures, &network)?;
    let mut config = Config::demo(Kind::Standard);
    config.objective.alpha = 0.0;
    config.objective.gamma = 0.0;
    config.data = Data { source: Source::ImageFolder, side: network.architecture.graph.input.h, ..config.data };
    let imported = Imported {
        file: file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
        sha256: crate::dataset::hex(&Sha256::digest(&bytes)),
        confidence: "no sigma head: the rate is that of the penultimate features, the posterior entropy is constant"
            .into(),
    };
    let settings = CardSettings { imported: Some(imported), ..settings.clone() };
    export::export(&network, &config, &splits, out, &settings)
}

/// Pictures of the model's extents, with as many classes as it has.
fn labelled(pictures: &Path, network: &Network) -> Result<Splits> {
    let input = network.architecture.graph.input;
    ensure!(input.h == input.w, "pictures become square images, the model takes {} x {}", input.w, input.h);
    let settings = folder::Settings {
        side: Some(input.h),
        channels: input.c,
        random_parts: false,
        skip_corrupt: false,
        memory: 8 << 30,
        calibration: HELD_OUT,
        test_images: 10_000,
    };
    let splits = folder::splits(pictures, &settings)?;
    let (have, need) = (splits.labels.len(), network.architecture.classes);
    ensure!(have == need, "{}: {have} classes, the model has {need}", pictures.display());
    Ok(splits)
}

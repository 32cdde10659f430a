//! Sixty small graphs that a reader may misunderstand: each is refused, or answers as ONNX Runtime does.

use paradise_attack::Classifier;
use paradise_tests::{python, skipped};
use paradise_train::encoder::LogitModel;
use paradise_train::import::{Normalisation, network};
use serde::Deserialize;
use std::fs;

#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    may: String,
    classes: usize,
    shape: [usize; 3],
    mean: Vec<f32>,
    std: Vec<f32>,
}

fn probabilities(logits: &[f32]) -> Vec<f64> {
    let top = logits.iter().fold(f64::NEG_INFINITY, |m, v| m.max(f64::from(*v)));
    let e: Vec<f64> = logits.iter().map(|v| (f64::from(*v) - top).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|v| v / sum).collect()
}

#[test]
fn every_graph_is_refused_or_equals_onnx_runtime() {
    if skipped("python", "every_graph_is_refused_or_equals_onnx_runtime") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path().to_string_lossy().into_owned();
    // More graphs by path, for a hunt: PARADISE_GRAPHS="a.onnx b.onnx".
    let more = std::env::var("PARADISE_GRAPHS").unwrap_or_default();
    let arguments: Vec<&str> = [&*at].into_iter().chain(more.split_whitespace()).collect();
    python("graphs.py", &arguments);
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let listed: Vec<Listed> = serde_json::from_slice(&read("graphs.json")).expect("a list");
    let (mut equal, mut refused, mut wrong) = (0, 0, Vec::new());
    for Listed { name, may, classes, shape, mean, std } in &listed {
        let normalisation = Normalisation { mean: mean.clone(), std: std.clone(), ..Normalisation::default() };
        let network = match network(&read(&format!("{name}.onnx")), &normalisation) {
            Ok(network) => network,
            Err(why) => {
                println!("{name}: refused: {why:#}");
                assert_ne!(may, "read", "{name}: {why:#}");
                refused += 1;
                continue;
            }
        };
        if may == "refuse" {
            wrong.push(format!("{name} was taken"));
            continue;
        }
        let pixels: Vec<f32> = read(&format!("{name}.u8")).iter().map(|p| f32::from(*p) / 255.0).collect();
        assert_eq!(network.architecture.classes, *classes, "{name}");
        let logits = LogitModel::new(&network).expect("served").logits(&pixels).expect("runs");
        let ours: Vec<f64> = logits.chunks_exact(*classes).flat_map(probabilities).collect();
        let theirs = read(&format!("{name}.f32"));
        let theirs: Vec<f32> = theirs.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        assert_eq!(ours.len(), theirs.len(), "{name}, images of {shape:?}");
        let gap = ours.iter().zip(&theirs).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
        println!("{name}: equal within {gap:.1e}");
        if gap > 1e-4 {
            wrong.push(format!("{name} is off by {gap}"));
        }
        equal += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{equal} equal, {refused} refused");
    assert!(equal >= 30 && refused >= 15, "{equal} equal, {refused} refused");
}

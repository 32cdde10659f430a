//! Tables 2 and 3: test accuracy over seeds, top-1 and top-5.

use super::Model;
use anyhow::{Result, ensure};
use paradise_attack::Classifier;
use paradise_attack::{in_batches, pixels};
use paradise_data::Dataset;
use paradise_support::statistics::mean_and_deviation;
use serde::Serialize;
use std::collections::BTreeMap;

/// Accuracy of the runs that share an encoder and an objective.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// Network.
    pub encoder: String,
    /// Objective with its weights.
    pub objective: String,
    /// Seeds of the runs.
    pub seeds: Vec<u64>,
    /// Mean over the runs, per cent.
    pub top_1_percent: f64,
    /// The same, the right class among the five likeliest.
    pub top_5_percent: f64,
    /// Standard deviation of top-1 over the runs, per cent; 0 for one.
    pub deviation_percent: f64,
}

/// Shares of images, per cent, whose class is the likeliest, and among the five likeliest.
///
/// # Errors
/// If the model fails.
pub fn top(model: &dyn Classifier, set: &Dataset) -> Result<[f64; 2]> {
    let (each, classes) = (set.shape.len() as usize, model.classes());
    let rows = in_batches(model, &pixels(set), each, |images| {
        let logits = model.logits(images)?;
        Ok(logits.chunks_exact(classes).map(paradise_attack::loss::descending).collect())
    })?;
    let within = |k: usize| {
        let one = |(row, l): &(&Vec<usize>, &u16)| row.iter().take(k).any(|c| *c == usize::from(**l));
        100.0 * rows.iter().zip(&set.labels).filter(one).count() as f64 / set.len() as f64
    };
    Ok([within(1), within(5)])
}

/// A run's seed, and its top-1 and top-5 accuracy.
type Seeded = (u64, [f64; 2]);

/// A cell for each encoder and objective; `set` gives the images of a run.
///
/// # Errors
/// If a seed comes twice in a cell, or a model fails.
pub fn cells(models: &[Model], set: &Dataset) -> Result<Vec<Cell>> {
    let mut groups: BTreeMap<(String, String), Vec<Seeded>> = BTreeMap::new();
    for model in models {
        let config = &model.trained.config;
        let objective = &config.objective;
        let mut name = objective.kind.name().to_string();
        if objective.kind.has_rate() {
            name.push_str(&format!(", alpha {:e}", objective.alpha));
        }
        if objective.kind.has_matching() {
            name.push_str(&format!(", gamma {}", objective.gamma));
        }
        let encoder = serde_json::to_value(config.encoder.kind)?.as_str().unwrap_or_default().to_string();
        let group = groups.entry((encoder, name.clone())).or_default();
        ensure!(group.iter().all(|(s, _)| *s != config.seed), "seed {} of {name} comes twice", config.seed);
        group.push((config.seed, top(&model.served, set)?));
    }
    let cell = |((encoder, objective), runs): ((String, String), Vec<Seeded>)| {
        let of = |k: usize| mean_and_deviation(&runs.iter().map(|r| r.1[k]).collect::<Vec<f64>>());
        let ([top_1_percent, deviation_percent], [top_5_percent, _]) = (of(0), of(1));
        Cell {
            encoder,
            objective,
            seeds: runs.iter().map(|r| r.0).collect(),
            top_1_percent,
            top_5_percent,
            deviation_percent,
        }
    };
    Ok(groups.into_iter().map(cell).collect())
}

/// Table 2: objectives by encoders, mean top-1 over seeds.
pub fn table_2(cells: &[Cell], images: usize) -> String {
    let mut encoders: Vec<&str> = cells.iter().map(|c| &*c.encoder).collect();
    encoders.dedup();
    let mut objectives: Vec<&str> = cells.iter().map(|c| &*c.objective).collect();
    objectives.sort_unstable();
    objectives.dedup();
    let mut text = format!("Test accuracy, per cent, mean over seeds and its deviation; {images} test images\n\n");
    text.push_str(&format!("| | {} |\n|---|{}\n", encoders.join(" | "), "---|".repeat(encoders.len())));
    for objective in objectives {
        let one = |e: &&str| match cells.iter().find(|c| c.encoder == **e && c.objective == objective) {
            Some(c) if c.seeds.len() == 1 => format!("{:.2} (1 seed)", c.top_1_percent),
            Some(c) => format!("{:.2} ± {:.2} ({} seeds)", c.top_1_percent, c.deviation_percent, c.seeds.len()),
            None => "-".into(),
        };
        text.push_str(&format!("| {objective} | {} |\n", encoders.iter().map(one).collect::<Vec<_>>().join(" | ")));
    }
    text
}

/// Table 3: top-1 and top-5.
pub fn table_3(cells: &[Cell], images: usize) -> String {
    let mut text =
        format!("Test accuracy, per cent; {images} test images\n\n| | top-1 | top-5 | seeds |\n|---|---|---|---|\n");
    for c in cells {
        text.push_str(&format!(
            "| {}, {} | {:.2} | {:.2} | {} |\n",
            c.objective,
            c.encoder,
            c.top_1_percent,
            c.top_5_percent,
            c.seeds.len()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_attack::Function;
    use paradise_engine::Shape;

    #[test]
    fn top_k_equals_counting() {
        // The logit of class c is minus its distance from the pixel's value.
        let logits = |x: &[f32]| {
            Ok(x.iter().flat_map(|v| (0..10).map(move |c| -(v * 255.0 - c as f32).abs())).collect::<Vec<f32>>())
        };
        let model = Function { shape: Shape::new(1, 1, 1), classes: 10, logits };
        let set = Dataset::new(model.shape, vec![0, 1, 2, 3], vec![0, 2, 9, 3]).unwrap();
        assert_eq!(top(&model, &set).unwrap(), [50.0, 75.0]);
    }

    #[test]
    fn tables_hold_every_cell() {
        let cell = |encoder: &str, objective: &str, seeds: &[u64], top_1: f64| Cell {
            encoder: encoder.into(),
            objective: objective.into(),
            seeds: seeds.to_vec(),
            top_1_percent: top_1,
            top_5_percent: 99.0,
            deviation_percent: 0.1,
        };
        let cells = [
            cell("resnet-20", "paradise", &[0, 1], 91.5),
            cell("resnet-20", "standard", &[0, 1], 91.2),
            cell("resnet-32", "standard", &[3], 92.0),
        ];
        let table = table_2(&cells, 100);
        assert!(table.contains("| paradise | 91.50 ± 0.10 (2 seeds) | - |"), "{table}");
        assert!(table.contains("| standard | 91.20 ± 0.10 (2 seeds) | 92.00 (1 seed) |"), "{table}");
        assert_eq!(table_3(&cells, 100).lines().count(), 7);
    }
}

//! The supplement's search: alpha from 1e-3 down by tens until the rate shows no gap between training and validation
//! images, then a grid of gamma. Every run has a folder of its own, so that an interrupted search goes on.

use crate::config::Config;
use crate::fit::{self, RunFolder};
use crate::objective::Batch;
use anyhow::{Result, ensure};
use paradise_data::{Dataset, Splits};
use paradise_evaluate::figure::search::{self, Bar};
use paradise_support::files;
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// What is searched.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The first alpha.
    pub alpha: f64,
    /// Epochs of a run of the alpha search.
    pub epochs: u32,
    /// Largest share by which the rate of validation images may exceed that of training images.
    pub tolerance: f64,
    /// Values of gamma, each a whole run; none for objectives without matching.
    pub gammas: Vec<f64>,
}

/// Smallest alpha that is tried.
const ALPHA_FLOOR: f64 = 1e-7;

/// Images of each side whose rates are compared.
const RATE_IMAGES: usize = 2000;

/// One run of the search.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its folder inside the search's.
    pub run: String,
    /// Weight of the rate.
    pub alpha: f64,
    /// Weight of matching.
    pub gamma: f64,
    /// Epochs trained.
    pub epochs: u32,
    /// Mean mini-batch rate of training images, nats.
    pub train_rate_nats: f64,
    /// The same of validation images.
    pub validation_rate_nats: f64,
    /// Best selection score on validation images.
    pub score: f64,
}

impl Row {
    /// Share by which the validation images' rate exceeds the training images'.
    pub fn gap(&self) -> f64 {
        (self.validation_rate_nats - self.train_rate_nats) / self.train_rate_nats.abs().max(1.0)
    }
}

/// Runs the search in `out`; writes `search.json`, `search.md` and `search.png` there. Returns all rows and the index of
/// the best.
///
/// # Errors
/// If the objective has no rate, a run fails, or a file cannot be written.
pub fn sweep(
    config: &Config,
    splits: &Splits,
    out: &Path,
    plan: &Plan,
    stop: &AtomicBool,
    mut report: impl FnMut(&Row),
) -> Result<(Vec<Row>, usize)> {
    ensure!(
        config.objective.kind.has_rate(),
        "objective.kind = {} has no rate to search",
        config.objective.kind.name()
    );
    files::create_folder(out)?;
    let mut rows = Vec::new();
    let mut go = |name: String, config: &Config, rows: &mut Vec<Row>| -> Result<()> {
        let row = run(config, splits, out, name, stop)?;
        report(&row);
        rows.push(row);
        write(out, rows)
    };
    let mut alpha = plan.alpha;
    loop {
        let mut config = config.clone();
        config.objective.alpha = alpha;
        config.fit.epochs = plan.epochs;
        go(format!("alpha-{alpha:e}"), &config, &mut rows)?;
        if rows[rows.len() - 1].gap() <= plan.tolerance || alpha / 10.0 < ALPHA_FLOOR {
            break;
        }
        alpha /= 10.0;
    }
    let searched = rows.len();
    let gammas: &[f64] = if config.objective.kind.has_matching() { &plan.gammas } else { &[] };
    for gamma in gammas {
        let mut config = config.clone();
        (config.objective.alpha, config.objective.gamma) = (alpha, *gamma);
        go(format!("gamma-{gamma}"), &config, &mut rows)?;
    }
    let from = if gammas.is_empty() { searched - 1 } else { searched };
    let best = (from..rows.len()).max_by(|a, b| rows[*a].score.total_cmp(&rows[*b].score)).unwrap_or(from);
    Ok((rows, best))
}

fn run(config: &Config, splits: &Splits, out: &Path, name: String, stop: &AtomicBool) -> Result<Row> {
    let fitted = fit::fit(config, splits, &RunFolder::new(&out.join(&name)), true, stop)?;
    let (train, validation) = splits.train.hold_out(config.data.validation, config.seed)?;
    let encoder = fitted.network.frozen();
    let rate = |set: &Dataset| {
        Batch::mean_over(set, config.fit.batch, config.seed, encoder.device(), |batch| {
            config.objective.mean_rate(&encoder, batch)
        })
    };
    Ok(Row {
        run: name,
        alpha: config.objective.alpha,
        gamma: if config.objective.kind.has_matching() { config.objective.gamma } else { 0.0 },
        epochs: config.fit.epochs,
        train_rate_nats: rate(&train.head(RATE_IMAGES.min(validation.len()))?)?,
        validation_rate_nats: rate(&validation.head(RATE_IMAGES))?,
        score: fitted.progress.best,
    })
}

/// The table of a search.
pub fn table(rows: &[Row]) -> String {
    let mut text =
        String::from("| run | alpha | gamma | epochs | rate, training | rate, validation | gap | score |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for row in rows {
        text.push_str(&format!(
            "| {} | {:e} | {} | {} | {:.2} | {:.2} | {:+.1} % | {:.2} |\n",
            row.run,
            row.alpha,
            row.gamma,
            row.epochs,
            row.train_rate_nats,
            row.validation_rate_nats,
            100.0 * row.gap(),
            row.score
        ));
    }
    text
}

fn write(out: &Path, rows: &[Row]) -> Result<()> {
    files::write(&out.join("search.json"), serde_json::to_string_pretty(rows)?.as_bytes())?;
    files::write(&out.join("search.md"), table(rows).as_bytes())?;
    let bar =
        |r: &Row| Bar { name: r.run.clone(), rates: [r.train_rate_nats, r.validation_rate_nats], score: r.score };
    let bars: Vec<Bar> = rows.iter().map(bar).collect();
    files::write(&out.join("search.png"), &search::draw(&bars)?)
}

//! The supplement's search: alpha from 1e-3 down by tens until the rate shows no gap between training and validation
//! images, then a grid of gamma. Every run has a folder of its own, so that an interrupted search goes on, and several processes may
//! share one: a run is that process's which claims its folder.

use crate::config::Config;
use crate::fit::{self, Busy, Fitted, RunFolder};
use crate::interrupt::Interrupted;
use crate::objective::Batch;
use anyhow::{Result, ensure};
use paradise_data::{Dataset, Splits};
use paradise_evaluate::figure::search::{self, Bar};
use paradise_support::files;
use paradise_support::team::{Shard, Team};
use serde::Serialize;
use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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

/// How a search ended.
#[derive(Debug)]
pub enum Ended {
    /// All rows, and the index of the best.
    Done(Vec<Row>, usize),
    /// What others had not begun is done; so many of their runs go on.
    Waiting(usize),
    /// Another process of the team writes the table.
    Elsewhere,
}

/// Between two looks at a run that another process trains.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A search and what it searches on.
struct Search<'a> {
    config: &'a Config,
    splits: &'a Splits,
    out: &'a Path,
    plan: &'a Plan,
    stop: &'a AtomicBool,
    /// Whether no other process writes to `out`.
    whole: bool,
    /// Rows that were measured.
    known: RefCell<Vec<Row>>,
    /// Sees each row when it is measured.
    report: &'a dyn Fn(&Row),
}

/// Runs the search in `out`; once all its runs are there, `search.json`, `search.md` and `search.png` are written there. `report` sees
/// each row as it is measured. Processes of a team share the runs out.
///
/// # Errors
/// If the objective has no rate, a run fails, a file cannot be written, or `stop` was set.
pub fn sweep(
    config: &Config,
    splits: &Splits,
    out: &Path,
    plan: &Plan,
    team: &dyn Team,
    stop: &AtomicBool,
    report: &dyn Fn(&Row),
) -> Result<Ended> {
    ensure!(
        config.objective.kind.has_rate(),
        "objective.kind = {} has no rate to search",
        config.objective.kind.name()
    );
    files::create_folder(out)?;
    let (whole, known) = (team.shard() == Shard::WHOLE, RefCell::default());
    let search = Search { config, splits, out, plan, stop, whole, known, report };
    let trained = search.train(team);
    let interrupted = trained.as_ref().is_err_and(Interrupted::ended);
    // Others are not left waiting for one that was stopped; what else fails ends them all.
    if team.meet(interrupted)? && !interrupted {
        return Err(search.interrupted());
    }
    let busy = trained?;
    if !team.concludes() {
        return Ok(Ended::Elsewhere);
    }
    if busy > 0 && search.unfinished()? > 0 {
        return Ok(Ended::Waiting(busy));
    }
    let (rows, from) = search.rows()?;
    let best = (from..rows.len()).max_by(|a, b| rows[*a].score.total_cmp(&rows[*b].score)).unwrap_or(from);
    Ok(Ended::Done(rows, best))
}

/// A run of a search: its name in the search's folder, and what it is.
type Named = (String, Config);

impl Search<'_> {
    /// The run of an alpha.
    fn of_alpha(&self, alpha: f64) -> Named {
        let mut config = self.config.clone();
        config.objective.alpha = alpha;
        config.fit.epochs = self.plan.epochs;
        (format!("alpha-{alpha:e}"), config)
    }

    /// The runs of gamma once alpha is found.
    fn of_gammas(&self, alpha: f64) -> Vec<Named> {
        let gammas: &[f64] = if self.config.objective.kind.has_matching() { &self.plan.gammas } else { &[] };
        let run = |gamma: &f64| {
            let mut config = self.config.clone();
            (config.objective.alpha, config.objective.gamma) = (alpha, *gamma);
            (format!("gamma-{gamma}"), config)
        };
        gammas.iter().map(run).collect()
    }

    fn folder(&self, name: &str) -> RunFolder {
        RunFolder::new(&self.out.join(name))
    }

    fn interrupted(&self) -> anyhow::Error {
        Interrupted(format!("{} holds what was done", self.out.display())).into()
    }

    /// A run that is finished; none if it is not.
    fn finished(&self, (name, config): &Named) -> Result<Option<Fitted>> {
        let folder = self.folder(name);
        // The run says of its images what is true of them.
        let config = &Config { data: config.data.of(self.splits), ..config.clone() };
        if !folder.progress(config, self.splits)?.is_some_and(|progress| fit::is_finished(config, &progress)) {
            return Ok(None);
        }
        let (network, progress) = folder.best_network(config, self.splits)?;
        Ok(Some(Fitted { network, progress, seconds: 0.0 }))
    }

    /// Trains a run to its end unless it is there; none if another process is at it.
    fn attempt(&self, run: &Named) -> Result<Option<Fitted>> {
        if let Some(fitted) = self.finished(run)? {
            return Ok(Some(fitted));
        }
        match fit::fit(&run.1, self.splits, &self.folder(&run.0), true, self.stop) {
            Err(error) if error.is::<Busy>() => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    /// As [`Self::attempt`], waiting for another process.
    fn obtain(&self, run: &Named) -> Result<Fitted> {
        let mut told = false;
        loop {
            if let Some(fitted) = self.attempt(run)? {
                return Ok(fitted);
            }
            if !told {
                tracing::info!("{}: another process trains it; waiting", self.out.join(&run.0).display());
                told = true;
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(self.interrupted());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// The rows of the alphas that were needed; the last one has the alpha that was found.
    fn alphas(&self) -> Result<Vec<Row>> {
        let (mut rows, mut alpha) = (Vec::<Row>::new(), self.plan.alpha);
        loop {
            let run = self.of_alpha(alpha);
            rows.push(self.row(&run)?);
            if rows[rows.len() - 1].gap() <= self.plan.tolerance || alpha / 10.0 < ALPHA_FLOOR {
                return Ok(rows);
            }
            alpha /= 10.0;
        }
    }

    /// The alpha that was found.
    fn alpha(&self) -> Result<f64> {
        Ok(self.alphas()?.last().map_or(self.plan.alpha, |row| row.alpha))
    }

    /// Trains what no other process trains, beginning with its own part; how many runs others were at.
    fn train(&self, team: &dyn Team) -> Result<usize> {
        let gammas = self.of_gammas(self.alpha()?);
        let (own, others): (Vec<_>, Vec<_>) = (0..gammas.len()).partition(|i| team.shard().holds(*i));
        let mut busy = 0;
        for i in own.into_iter().chain(others) {
            match self.attempt(&gammas[i])? {
                // Rows of others are theirs to show.
                Some(fitted) if team.shard().holds(i) => drop(self.measure(&gammas[i], &fitted)?),
                Some(_) => (),
                None => busy += 1,
            }
        }
        Ok(busy)
    }

    /// Runs of gamma that are not at their end.
    fn unfinished(&self) -> Result<usize> {
        let there = self.of_gammas(self.alpha()?).iter().map(|run| self.finished(run)).collect::<Result<Vec<_>>>()?;
        Ok(there.iter().filter(|run| run.is_none()).count())
    }

    /// All rows, and where those begin among which the best is sought.
    fn rows(&self) -> Result<(Vec<Row>, usize)> {
        let mut rows = self.alphas()?;
        let (searched, alpha) = (rows.len(), rows[rows.len() - 1].alpha);
        for run in self.of_gammas(alpha) {
            rows.push(self.row(&run)?);
        }
        write(self.out, &rows)?;
        let from = if rows.len() == searched { searched - 1 } else { searched };
        Ok((rows, from))
    }

    /// The row of a run: measured before, or once the run is there.
    fn row(&self, run: &Named) -> Result<Row> {
        let known = self.known.borrow().iter().find(|row| row.run == run.0).cloned();
        known.map_or_else(|| self.measure(run, &self.obtain(run)?), Ok)
    }

    fn measure(&self, (name, config): &Named, fitted: &Fitted) -> Result<Row> {
        let (train, validation) = self.splits.train.hold_out(config.data.validation, config.seed)?;
        let encoder = fitted.network.frozen();
        let rate = |set: &Dataset| {
            Batch::mean_over(set, config.fit.batch, config.seed, encoder.device(), |batch| {
                config.objective.mean_rate(&encoder, batch)
            })
        };
        let row = Row {
            run: name.clone(),
            alpha: config.objective.alpha,
            gamma: if config.objective.kind.has_matching() { config.objective.gamma } else { 0.0 },
            epochs: config.fit.epochs,
            train_rate_nats: rate(&train.head(RATE_IMAGES.min(validation.len()))?)?,
            validation_rate_nats: rate(&validation.head(RATE_IMAGES))?,
            score: fitted.progress.best,
        };
        (self.report)(&row);
        self.known.borrow_mut().push(row.clone());
        if self.whole {
            write(self.out, &self.known.borrow())?;
        }
        Ok(row)
    }
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

//! The training loop.

mod augment;
mod events;
mod folder;
mod loader;

pub use folder::RunFolder;

use crate::attack::gradient::Pgd;
use crate::checkpoint::{self, Progress, State};
use crate::config::{Config, Select};
use crate::dataset::{Dataset, Splits, Training};
use crate::encoder::Network;
use crate::evaluate;
use crate::objective::Batch;
use crate::progress;
use crate::random::{self, Purpose};
use anyhow::{Result, bail, ensure};
use events::Events;
use indicatif::ProgressBar;
use loader::Loader;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest time between checkpoints.
const SAVE_EVERY: Duration = Duration::from_secs(600);

/// A finished run.
#[derive(Debug)]
pub struct Fitted {
    /// The network of the best epoch.
    pub network: Network,
    /// Which epoch that was, and its score.
    pub progress: Progress,
    /// Time of this call, seconds.
    pub seconds: f64,
}

/// Trains `config` on the training images of `splits`, in `folder`.
///
/// With `resume`, a run that was interrupted goes on from its last checkpoint and ends in the same bits as an
/// uninterrupted one with the same instruction set, whatever the number of threads.
///
/// # Errors
/// If the folder holds another run, a loss is not finite, a file cannot be written, or `stop` was set: then a
/// checkpoint holds what was done.
pub fn fit(config: &Config, splits: &Splits, folder: &RunFolder, resume: bool, stop: &AtomicBool) -> Result<Fitted> {
    let began = Instant::now();
    let (train, validation) = splits.train.hold_out(config.data.validation, config.seed)?;
    let steps = config.fit.steps(train.len())?;
    let state = folder.open(config, splits, resume)?;
    let bar = progress::bar(u64::from(config.fit.epochs) * steps, config.objective.kind.name());
    bar.set_position(state.optimiser.step);
    let events = Events::new(folder.path());
    let mut run = Run { config, train: &train, folder, steps, state, bar, stop, events, saved: Instant::now() };
    while run.state.progress.epoch < config.fit.epochs && !run.exhausted() {
        run.epoch(&validation)?;
    }
    run.bar.finish_and_clear();
    let (network, progress) = folder.best_network(config, splits)?;
    Ok(Fitted { network, progress, seconds: began.elapsed().as_secs_f64() })
}

/// A run that goes on.
struct Run<'a> {
    config: &'a Config,
    train: &'a Training,
    folder: &'a RunFolder,
    /// Steps of an epoch.
    steps: u64,
    state: State,
    bar: ProgressBar,
    stop: &'a AtomicBool,
    events: Events,
    saved: Instant,
}

impl Run<'_> {
    /// Whether no checkpoint was better for as long as `fit.patience` allows.
    fn exhausted(&self) -> bool {
        let Progress { epoch, best_epoch, .. } = self.state.progress;
        self.config.fit.patience > 0 && epoch.saturating_sub(best_epoch) >= self.config.fit.patience
    }

    fn save(&mut self) -> Result<()> {
        self.saved = Instant::now();
        checkpoint::save(&self.folder.last(), &self.state)
    }

    fn epoch(&mut self, validation: &Dataset) -> Result<()> {
        let began = Instant::now();
        self.learn()?;
        let terms = std::mem::take(&mut self.state.terms);
        self.state.progress.epoch += 1;
        let measured = self.state.measured()?;
        let found = validate(self.config, &measured, validation)?;
        let score = found.score();
        ensure!(score.is_finite(), "the validation score of epoch {} is {score}", self.state.progress.epoch);
        let progress = &mut self.state.progress;
        if score > progress.best {
            (progress.best, progress.best_epoch) = (score, progress.epoch);
            checkpoint::save(&self.folder.best(), &self.state)?;
        }
        self.bar.set_message(match found {
            Validation::Classes { clean, .. } => format!("validation {clean:.1} %"),
            Validation::Images { loss } => format!("validation loss {loss:.3}"),
        });
        let line = json!({
            "epoch": self.state.progress.epoch,
            "train": terms.json(),
            "validation": found.json(),
            "best_epoch": self.state.progress.best_epoch,
            "rate": self.config.fit.rate(self.state.optimiser.step.saturating_sub(1), self.steps),
            "seconds": began.elapsed().as_secs_f64(),
        });
        self.folder.append(&line)?;
        self.events.scalars(self.state.optimiser.step, &line)?;
        // Last, so that a checkpoint never lacks its metrics; a repeated line is dropped on resume.
        self.save()
    }

    /// The steps of the epoch that are left.
    fn learn(&mut self) -> Result<()> {
        let Config { seed, fit, .. } = self.config;
        let epoch = self.state.progress.epoch;
        let order = random::permutation(&mut random::stream(*seed, Purpose::Shuffle, epoch, 0, 0), self.train.len());
        let done = self.state.optimiser.step - u64::from(epoch) * self.steps;
        let batches: Vec<&[usize]> = order.chunks_exact(fit.batch).skip(usize::try_from(done)?).collect();
        let loader = Loader { data: &self.config.data, train: self.train, seed: *seed, epoch };
        loader.each(&batches, |ids, images, labels| {
            if self.stop.load(Ordering::Relaxed) {
                self.save()?;
                bail!("interrupted; {} holds a checkpoint: add --resume to go on", self.folder.path().display());
            }
            let State { network, optimiser, terms, .. } = &mut self.state;
            let share = optimiser.step as f64 / (u64::from(fit.epochs) * self.steps) as f64;
            let batch = Batch { images: &images, labels: &labels, ids, seed: *seed, epoch, share };
            let learning = network.learning()?;
            let loss = self.config.objective.loss(&learning, &batch)?;
            terms.add(&loss)?;
            let rate = fit.rate(optimiser.step, self.steps);
            let gradients = learning.gradients(&network.variables, &loss.total)?;
            terms.add_norm(optimiser.update(&network.variables, &gradients, rate)?)?;
            self.bar.inc(1);
            if self.saved.elapsed() > SAVE_EVERY {
                self.save()?;
            }
            Ok(())
        })
    }
}

/// What the validation slice says.
#[derive(Debug, Clone, Copy)]
enum Validation {
    /// Accuracy, clean and, where checkpoints are chosen by it, under PGD-10; per cent.
    Classes { clean: f64, robust: Option<f64> },
    /// The loss of reconstructed images.
    Images { loss: f64 },
}

impl Validation {
    fn score(self) -> f64 {
        match self {
            Self::Classes { clean, robust } => robust.map_or(clean, |r| (clean + r) / 2.0),
            Self::Images { loss } => -loss,
        }
    }

    fn json(self) -> serde_json::Value {
        match self {
            Self::Classes { clean, robust } => json!({ "clean_percent": clean, "pgd10_percent": robust }),
            Self::Images { loss } => json!({ "loss": loss }),
        }
    }
}

fn validate(config: &Config, network: &Network, validation: &Dataset) -> Result<Validation> {
    let encoder = network.frozen();
    if config.objective.kind.is_unsupervised() {
        // The last, shorter batch is left out: the rate depends on the batch's size.
        let loss = Batch::mean_over(validation, config.fit.batch, config.seed, |batch| {
            Ok(f64::from(config.objective.loss(&encoder, batch)?.total.to_scalar::<f32>()?))
        })?;
        return Ok(Validation::Images { loss });
    }
    let clean = evaluate::clean(&encoder, validation)?.correct_share().percent();
    let robust = match config.fit.select {
        Select::Clean => None,
        Select::Robust => {
            let eps = config.fit.select_eps_pixels / 255.0;
            let outcome = Pgd::sign(10, 1).run(&encoder, validation, eps, config.seed)?;
            Some(outcome.robust_share().percent())
        }
    };
    Ok(Validation::Classes { clean, robust })
}

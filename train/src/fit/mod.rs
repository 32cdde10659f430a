//! The training loop.

mod augment;
mod events;
mod folder;
mod loader;
mod quantisation_aware;
mod ranks;
#[cfg(feature = "cuda")]
mod resident;
mod validation;

pub use folder::{Busy, RunFolder};

use crate::checkpoint::{self, Progress, State};
use crate::config::Config;
use crate::encoder::Network;
use crate::interrupt::Interrupted;
use crate::objective::{Batch, Pending};
use crate::remedy::Remedy;
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use events::Events;
use indicatif::ProgressBar;
use loader::Loader;
use paradise_data::{Dataset, Splits, Training};
use paradise_nn::exchange::{Alone, Exchange, Metered, Share, all_well, any_says};
use paradise_nn::graph::Trunk;
use paradise_nn::ops::lanes;
use paradise_support::progress::{self, PeriodicLog};
use paradise_support::random::{self, Purpose};
use ranks::Exchanged;
#[cfg(feature = "cuda")]
use resident::Resident;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use validation::{Validation, validate};

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
    fit_among(&(Arc::new(Alone) as Arc<dyn Exchange>), config, splits, folder, resume, stop)
}

/// As [`fit`], each mini-batch shared among ranks, all of which call this with the same folder; only the first writes there. The
/// checkpoints are those of one process, to the bit, and any number of ranks resumes them.
///
/// # Errors
/// As [`fit`]; on every rank, if one of them has one, is gone, or has other code, instructions, settings or images.
pub fn fit_among(
    ranks: &Arc<dyn Exchange>,
    config: &Config,
    splits: &Splits,
    folder: &RunFolder,
    resume: bool,
    stop: &AtomicBool,
) -> Result<Fitted> {
    let began = Instant::now();
    let meter = Arc::new(Metered::new(ranks.clone()));
    let ranks = &(meter.clone() as Arc<dyn Exchange>);
    // The run says of its images what is true of them, whatever the configuration began with.
    let config = &Config { data: config.data.of(splits), ..config.clone() };
    let (train, validation) = splits.train.hold_out(config.data.validation, config.seed)?;
    let steps = config.fit.steps(train.len())?;
    let device = config.fit.device.open_for(ranks.local_rank())?;
    ensure!(
        ranks.ranks() == 1 || !config.objective.kind.is_unsupervised(),
        "paradise-unsupervised is not shared among ranks: its decoder needs the whole batch"
    );
    ranks::agree(&**ranks, config, splits)?;
    let (batch, copies) = (config.fit.batch, config.objective.copies());
    let trunk = config.architecture(train.shape(), splits.labels.len())?.graph;
    let grain = Trunk::on(trunk, lanes::detect(), config.fit.precision)?.grain(copies * batch);
    let share = Share::new(ranks.clone(), batch, grain)?;
    // The first rank's folder is open before others look into it.
    let begin = || Ok((folder.claim()?, folder.open(config, splits, resume, true)?));
    let (_claim, first) = all_well(&**ranks, (ranks.rank() == 0).then(begin).transpose())?.unzip();
    let opened = first.map_or_else(|| folder.open(config, splits, true, false), Ok);
    let state = all_well(&**ranks, opened)?.on(&device, config.fit.precision)?;
    let bar = match ranks.rank() {
        0 => progress::bar(u64::from(config.fit.epochs) * steps, config.objective.kind.name()),
        _ => ProgressBar::hidden(),
    };
    let first = state.optimiser.step;
    let begun = u64::from(state.progress.epoch) * steps;
    // An epoch's last step is saved before its metrics are.
    ensure!(
        (begun..=begun + steps).contains(&first),
        "{}: its checkpoint is at step {first}, which is not in epoch {} of {steps} steps each: the run had other images",
        folder.path().display(),
        state.progress.epoch
    );
    bar.set_position(first);
    let mut run = Run {
        config,
        train: &train,
        folder,
        steps,
        state,
        bar,
        lines: PeriodicLog::from_now(),
        began: (began, first),
        stop,
        ranks: &**ranks,
        meter: &meter,
        share,
        events: Events::new(folder.path()),
        saved: Instant::now(),
        pending: Pending::default(),
        #[cfg(feature = "cuda")]
        resident: Resident::new(&train, &device)?,
        device,
    };
    while !is_finished(config, &run.state.progress) {
        run.epoch(&validation)?;
    }
    run.bar.finish_and_clear();
    // The first rank has written its last file.
    all_well(&**ranks, Ok(()))?;
    let (network, progress) = folder.best_network(config, splits)?;
    Ok(Fitted { network, progress, seconds: began.elapsed().as_secs_f64() })
}

/// Whether a run is at its end: all epochs are done, or no checkpoint was better for as long as `fit.patience` allows.
pub fn is_finished(config: &Config, progress: &Progress) -> bool {
    let Progress { epoch, best_epoch, .. } = *progress;
    let patience = config.fit.patience;
    epoch >= config.fit.epochs || (patience > 0 && epoch.saturating_sub(best_epoch) >= patience)
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
    lines: PeriodicLog,
    /// When this call began, and at which step.
    began: (Instant, u64),
    stop: &'a AtomicBool,
    ranks: &'a dyn Exchange,
    /// What they tell each other, measured.
    meter: &'a Metered,
    /// This rank's part of each mini-batch.
    share: Share,
    events: Events,
    saved: Instant,
    /// Values of steps that have not arrived yet.
    pending: Pending,
    /// Where the network learns.
    device: Device,
    #[cfg(feature = "cuda")]
    resident: Option<Resident>,
}

impl Run<'_> {
    fn save(&mut self) -> Result<()> {
        // A value that is not finite stops the run here, and the checkpoint stays the last good one.
        self.pending.settle(&mut self.state.terms)?;
        self.saved = Instant::now();
        if self.writes() { checkpoint::save(&self.folder.last(), &self.state) } else { Ok(()) }
    }

    /// Whether the files of the run are this process's to write.
    fn writes(&self) -> bool {
        self.ranks.rank() == 0
    }

    fn epoch(&mut self, validation: &Dataset) -> Result<()> {
        let began = Instant::now();
        let (first, _) = (self.state.optimiser.step, self.meter.lap());
        self.learn()?;
        self.pending.settle(&mut self.state.terms)?;
        let exchanged = Exchanged {
            steps: self.state.optimiser.step - first,
            seconds: began.elapsed().as_secs_f64(),
            of: self.meter.lap(),
        };
        let terms = std::mem::take(&mut self.state.terms);
        self.state.progress.epoch += 1;
        let measured = self.state.measured()?;
        let found = validate(self.config, &measured, validation, self.ranks)?;
        let score = found.score();
        ensure!(score.is_finite(), "the validation score of epoch {} is {score}", self.state.progress.epoch);
        let writes = self.writes();
        let progress = &mut self.state.progress;
        if score > progress.best {
            (progress.best, progress.best_epoch) = (score, progress.epoch);
            if writes {
                checkpoint::save(&self.folder.best(), &self.state)?;
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        if !writes {
            return Ok(());
        }
        self.show(found, seconds, &exchanged);
        let line = json!({
            "epoch": self.state.progress.epoch,
            "train": terms.json(),
            "validation": found.json(),
            "best_epoch": self.state.progress.best_epoch,
            "rate": self.config.fit.rate(self.state.optimiser.step.saturating_sub(1), self.steps),
            "seconds": seconds,
        });
        self.folder.append(&line)?;
        if self.ranks.ranks() > 1 {
            self.folder.append_exchange(&exchanged.json(self.state.progress.epoch, self.ranks.ranks()))?;
        }
        self.events.scalars(self.state.optimiser.step, &line)?;
        // Last, so that a checkpoint never lacks its metrics; a repeated line is dropped on resume.
        self.save()
    }

    /// What an epoch came to: beside the bar, or as a line of a log.
    fn show(&mut self, found: Validation, seconds: f64, exchanged: &Exchanged) {
        let Progress { epoch, best_epoch, .. } = self.state.progress;
        let epochs = self.config.fit.epochs;
        let mut message = format!("validation {found}, best epoch {best_epoch}");
        if self.ranks.ranks() > 1 {
            message.push_str(&format!("; {exchanged}"));
        }
        let (began, first) = self.began;
        let step = began.elapsed().as_secs_f64() / (self.state.optimiser.step - first).max(1) as f64;
        let left = progress::spoken(step * (u64::from(epochs - epoch) * self.steps) as f64);
        self.lines
            .show(&self.bar, || format!("epoch {epoch} of {epochs}: {message}; {seconds:.0} s, about {left} left"));
        self.bar.set_message(message);
    }

    /// The steps of the epoch that are left.
    fn learn(&mut self) -> Result<()> {
        let Self { config: Config { seed, fit, data, .. }, train, .. } = *self;
        let epoch = self.state.progress.epoch;
        let order = random::permutation(&mut random::stream(*seed, Purpose::Shuffle, epoch, 0, 0), train.len());
        let done = self.state.optimiser.step - u64::from(epoch) * self.steps;
        let batches: Vec<&[usize]> = order.chunks_exact(fit.batch).skip(usize::try_from(done)?).collect();
        #[cfg(feature = "cuda")]
        if self.resident.is_some() {
            for ids in batches {
                let Some(resident) = &self.resident else { break };
                let images = resident.batch(data, *seed, epoch, &ids[self.share.own()])?;
                let labels = ids.iter().map(|id| u32::from(train.labels()[*id])).collect();
                self.step(ids, images, Tensor::from_vec(labels, ids.len(), &self.device)?)?;
            }
            return Ok(());
        }
        let loader = Loader { data, train, seed: *seed, epoch, own: self.share.own() };
        loader.each(&batches, |ids, images, labels| {
            let (images, labels) = (images.to_device(&self.device)?, labels.to_device(&self.device)?);
            self.step(ids, images, labels)
        })
    }

    fn step(&mut self, ids: &[usize], images: Tensor, labels: Tensor) -> Result<()> {
        // All ranks stop at the same step.
        if any_says(self.ranks, self.stop.load(Ordering::Relaxed))? {
            self.save()?;
            let there = self.folder.path().display();
            return Err(
                anyhow::Error::from(Interrupted(format!("{there} holds a checkpoint"))).context(Remedy::Resume)
            );
        }
        let Config { seed, fit, objective, .. } = self.config;
        let State { network, optimiser, terms, progress } = &mut self.state;
        let share = optimiser.step as f64 / (u64::from(fit.epochs) * self.steps) as f64;
        let (own, epoch) = (self.share.own(), progress.epoch);
        let batch = Batch { images: &images, labels: &labels, ids, own, seed: *seed, epoch, share };
        let learning = match fit.int8_weights {
            true => network.learning_at(quantisation_aware::rounded(network)?)?,
            false => network.learning()?,
        };
        let learning = learning.sharing(Some(self.share.clone()));
        let loss = objective.loss(&learning, &batch)?;
        self.pending.add(&loss, terms)?;
        let rate = fit.rate(optimiser.step, self.steps);
        let gradients = learning.gradients(&network.variables, &loss.total)?;
        self.pending.add_norm(optimiser.update(&network.variables, &gradients, rate)?, terms)?;
        self.bar.inc(1);
        if self.saved.elapsed() > SAVE_EVERY {
            self.save()?;
        }
        Ok(())
    }
}

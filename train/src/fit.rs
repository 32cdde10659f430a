//! The training loop and its run folder: resolved configuration, metrics, checkpoints that resume.

use crate::attack::gradient::Pgd;
use crate::checkpoint::{self, Progress};
use crate::config::{Config, Select};
use crate::dataset::{Dataset, Splits};
use crate::encoder::Network;
use crate::evaluate;
use crate::files;
use crate::objective::{Batch, Loss};
use crate::optimiser::{Adam, one_cycle};
use crate::progress;
use crate::random::{self, Purpose};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use indicatif::ProgressBar;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The files of a run.
#[derive(Debug, Clone)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// The folder at `path`, whether or not it exists.
    pub fn new(path: &Path) -> Self {
        Self(path.to_path_buf())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    fn last(&self) -> PathBuf {
        self.0.join("last.safetensors")
    }

    fn best(&self) -> PathBuf {
        self.0.join("best.safetensors")
    }

    /// The resolved configuration of a run.
    ///
    /// # Errors
    /// With the path, if there is no run or its configuration is not valid.
    pub fn read_config(&self) -> Result<Config> {
        ensure!(self.0.is_dir(), "{}: not a run folder (no such folder)", self.0.display());
        Config::read(&self.config(), &[])
    }

    /// The best network of a finished or interrupted run.
    ///
    /// # Errors
    /// With the path, if there is no checkpoint.
    pub fn best_network(&self, config: &Config, splits: &Splits) -> Result<(Network, Progress)> {
        let architecture = config.encoder.architecture(splits.train.shape, splits.labels.len());
        let (network, _, progress) = checkpoint::load(&self.best(), architecture)?;
        Ok((network, progress))
    }
}

/// Sums of each term over an epoch.
#[derive(Default)]
struct Terms {
    distortion: f64,
    rate: f64,
    matching: f64,
    total: f64,
    steps: u32,
}

impl Terms {
    fn add(&mut self, loss: &Loss) -> Result<()> {
        let scalar = |t: &Tensor| Ok::<_, candle_core::Error>(f64::from(t.to_scalar::<f32>()?));
        let optional = |t: &Option<Tensor>| t.as_ref().map_or(Ok(0.0), scalar);
        let total = scalar(&loss.total)?;
        ensure!(total.is_finite(), "the loss is {total}: lower fit.peak_rate or objective.alpha");
        self.total += total;
        self.distortion += scalar(&loss.distortion)?;
        self.rate += optional(&loss.rate)?;
        self.matching += optional(&loss.matching)?;
        self.steps += 1;
        Ok(())
    }

    fn json(&self, has: (bool, bool)) -> serde_json::Value {
        let mean = |v: f64| v / f64::from(self.steps);
        json!({
            "distortion_nats": mean(self.distortion),
            "rate_nats": has.0.then(|| mean(self.rate)),
            "matching": has.1.then(|| mean(self.matching)),
            "total": mean(self.total),
        })
    }
}

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
/// With `resume`, a run that was interrupted goes on from its last epoch and ends in the same bits as an
/// uninterrupted one with the same number of threads and instruction set.
///
/// # Errors
/// If the folder holds another run, a loss is not finite, or a file cannot be written.
pub fn fit(config: &Config, splits: &Splits, folder: &RunFolder, resume: bool) -> Result<Fitted> {
    let began = Instant::now();
    let (train, validation) = splits.train.hold_out(config.data.validation, config.seed)?;
    ensure!(
        train.len() >= config.fit.batch,
        "fit.batch = {} exceeds the {} training images",
        config.fit.batch,
        train.len()
    );
    let (network, mut adam, mut progress) = open(config, splits, folder, resume)?;
    let steps = train.len() / config.fit.batch;
    let bar = progress::bar(u64::from(config.fit.epochs) * steps as u64, config.objective.kind.name());
    bar.set_position(u64::from(progress.epoch) * steps as u64);
    while progress.epoch < config.fit.epochs {
        let epoch_began = Instant::now();
        let terms = epoch(config, &train, &network, &mut adam, progress.epoch, steps, &bar)?;
        progress.epoch += 1;
        let (clean, robust) = validate(config, &network, &validation)?;
        let score = robust.map_or(clean, |r| (clean + r) / 2.0);
        if score > progress.best {
            (progress.best, progress.best_epoch) = (score, progress.epoch);
            checkpoint::save(&folder.best(), &network, &adam, &progress)?;
        }
        bar.set_message(format!("validation {clean:.1} %"));
        let has = (config.objective.kind.has_rate(), config.objective.kind.has_matching());
        append(
            &folder.metrics(),
            &json!({
                "epoch": progress.epoch,
                "train": terms.json(has),
                "validation_clean_percent": clean,
                "validation_pgd10_percent": robust,
                "best_epoch": progress.best_epoch,
                "seconds": epoch_began.elapsed().as_secs_f64(),
            }),
        )?;
        // Last, so that a checkpoint never lacks its metrics; a repeated line is dropped on resume.
        checkpoint::save(&folder.last(), &network, &adam, &progress)?;
    }
    bar.finish_and_clear();
    let (network, progress) = folder.best_network(config, splits)?;
    Ok(Fitted { network, progress, seconds: began.elapsed().as_secs_f64() })
}

fn open(config: &Config, splits: &Splits, folder: &RunFolder, resume: bool) -> Result<(Network, Adam, Progress)> {
    let architecture = config.encoder.architecture(splits.train.shape, splits.labels.len());
    if folder.config().exists() {
        let there = folder.read_config()?;
        if !resume {
            bail!("{}: holds a run already; add --resume or choose another --out", folder.path().display());
        }
        ensure!(
            there == *config,
            "{}: holds a run of another configuration; choose another --out",
            folder.path().display()
        );
        if folder.last().exists() {
            let state = checkpoint::load(&folder.last(), architecture)?;
            trim(&folder.metrics(), state.2.epoch)?;
            return Ok(state);
        }
    }
    files::create_folder(folder.path())?;
    files::write(&folder.config(), config.to_toml()?.as_bytes())?;
    let about = json!({
        "paradise": env!("CARGO_PKG_VERSION"),
        "data": splits.source,
        "train_sha256": splits.train.digest(),
        "threads": rayon::current_num_threads(),
        "instruction_set": std::env::consts::ARCH,
    });
    files::write(&folder.path().join("run.json"), serde_json::to_string_pretty(&about)?.as_bytes())?;
    files::write(&folder.metrics(), b"")?;
    let network = Network::new(architecture, config.seed)?;
    let adam = Adam::new(&network.variables)?;
    Ok((network, adam, Progress { epoch: 0, best: -1.0, best_epoch: 0 }))
}

/// Keeps the first `lines` lines of the metrics.
fn trim(path: &Path, lines: u32) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let kept: String = text.lines().take(lines as usize).flat_map(|l| [l, "\n"]).collect();
    files::write(path, kept.as_bytes())
}

fn append(path: &Path, line: &serde_json::Value) -> Result<()> {
    let mut text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
    text.push_str(&format!("{line}\n"));
    files::write(path, text.as_bytes())
}

fn epoch(
    config: &Config,
    train: &Dataset,
    network: &Network,
    adam: &mut Adam,
    epoch: u32,
    steps: usize,
    bar: &ProgressBar,
) -> Result<Terms> {
    let mut rng = random::stream(config.seed, Purpose::Shuffle, epoch, 0, 0);
    let order = random::permutation(&mut rng, train.len());
    let all_steps = steps as u64 * u64::from(config.fit.epochs);
    let mut terms = Terms::default();
    for ids in order.chunks_exact(config.fit.batch) {
        let images = augmented(config, train, ids, epoch)?;
        let labels: Vec<u32> = ids.iter().map(|&i| u32::from(train.labels[i])).collect();
        let labels = Tensor::from_vec(labels, ids.len(), &Device::Cpu)?;
        let batch = Batch { images: &images, labels: &labels, ids, seed: config.seed, epoch };
        let loss = config.objective.loss(&network.learning(), &batch)?;
        terms.add(&loss)?;
        let rate = one_cycle(config.fit.peak_rate, adam.step, all_steps);
        adam.update(&network.variables, &loss.total.backward()?, rate)?;
        bar.inc(1);
    }
    Ok(terms)
}

/// The images at `ids` in [0, 1], shifted (black comes in) and mirrored at random.
fn augmented(config: &Config, train: &Dataset, ids: &[usize], epoch: u32) -> Result<Tensor> {
    let (h, w, c) = (train.shape.h as usize, train.shape.w as usize, train.shape.c as usize);
    let reach = config.data.shift;
    let mut values = vec![0.0f32; ids.len() * h * w * c];
    for (out, &id) in values.chunks_exact_mut(h * w * c).zip(ids) {
        let mut rng = random::stream(config.seed, Purpose::Augment, epoch, id as u64, 0);
        let mut shift = || random::below(&mut rng, 2 * reach + 1) as isize - reach as isize;
        let (dy, dx) = (shift(), shift());
        let flip = config.data.flip && random::below(&mut rng, 2) == 1;
        let image = train.image(id);
        for y in 0..h {
            for x in 0..w {
                let (sy, sx) = (y as isize + dy, (if flip { w - 1 - x } else { x }) as isize + dx);
                if (0..h as isize).contains(&sy) && (0..w as isize).contains(&sx) {
                    for k in 0..c {
                        let pixel = image[(sy as usize * w + sx as usize) * c + k];
                        out[(y * w + x) * c + k] = f32::from(pixel) / 255.0;
                    }
                }
            }
        }
    }
    crate::dataset::tensor(values, ids.len(), train.shape)
}

/// Clean accuracy on the validation slice and, where checkpoints are chosen by it, accuracy under PGD-10 at 8/255.
fn validate(config: &Config, network: &Network, validation: &Dataset) -> Result<(f64, Option<f64>)> {
    let encoder = network.frozen();
    let clean = evaluate::clean(&encoder, validation)?.correct_share().percent();
    let robust = match config.fit.select {
        Select::Clean => None,
        Select::Robust => {
            let outcome = Pgd::sign(10, 1).run(&encoder, validation, 8.0 / 255.0, config.seed)?;
            Some(outcome.robust_share().percent())
        }
    };
    Ok((clean, robust))
}

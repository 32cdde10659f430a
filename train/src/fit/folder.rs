//! The files of a run: resolved configuration, metrics, checkpoints.

use crate::checkpoint::{self, Progress, State};
use crate::config::Config;
use crate::encoder::Network;
use crate::remedy::Remedy;
use anyhow::{Context, Result, anyhow, bail, ensure};
use paradise_data::Splits;
use paradise_data::settings::Data;
use paradise_nn::Precision;
use paradise_nn::device::cpu_multiplies_bf16;
use paradise_nn::ops::lanes;
use paradise_support::claim::Claim;
use paradise_support::files;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Training images of each class.
fn counts(splits: &Splits) -> Vec<usize> {
    let mut counts = vec![0; splits.labels.len()];
    for label in splits.train.labels() {
        counts[usize::from(*label)] += 1;
    }
    counts
}

/// Another process is at work in a folder.
#[derive(Debug)]
pub struct Busy(PathBuf);

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: another process trains there now", self.0.display())
    }
}

impl std::error::Error for Busy {}

/// A folder with a run in it, or where one will be.
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

    pub(super) fn last(&self) -> PathBuf {
        self.0.join("last.safetensors")
    }

    pub(super) fn best(&self) -> PathBuf {
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

    /// Makes the folder this process's to write to, and creates it where it is not there.
    ///
    /// # Errors
    /// [`Busy`], if it is another's; if it cannot be created or locked.
    pub(super) fn claim(&self) -> Result<Claim> {
        files::create_folder(&self.0)?;
        Claim::on(&self.0)?.ok_or_else(|| Busy(self.0.clone()).into())
    }

    /// Where the run of this configuration stands, as its last checkpoint has it; none where there is no checkpoint of it.
    ///
    /// # Errors
    /// If the folder holds another run, or a file is damaged.
    pub fn progress(&self, config: &Config, splits: &Splits) -> Result<Option<Progress>> {
        if !self.last().exists() {
            return Ok(None);
        }
        self.check_config(&self.read_config()?, config)?;
        let architecture = config.architecture(splits.train.shape(), splits.labels.len())?;
        Ok(Some(checkpoint::load(&self.last(), architecture, config.fit.settings())?.progress))
    }

    /// Refuses a run of another configuration. Where the images lie may change; which they are may not.
    fn check_config(&self, there: &Config, config: &Config) -> Result<()> {
        let folder = config.data.folder.clone();
        let at_home = Config { data: Data { folder, ..there.data.clone() }, ..there.clone() };
        ensure!(
            at_home == *config,
            "{}: holds a run of another configuration; choose another folder",
            self.0.display()
        );
        Ok(())
    }

    /// The best network of a finished or interrupted run.
    ///
    /// # Errors
    /// With the path, if there is no checkpoint.
    pub fn best_network(&self, config: &Config, splits: &Splits) -> Result<(Network, Progress)> {
        let architecture = config.architecture(splits.train.shape(), splits.labels.len())?;
        let state = checkpoint::load(&self.best(), architecture, config.fit.settings())?;
        Ok((state.measured()?, state.progress))
    }

    /// Opens the run: goes on where it stood with `resume`, begins where there is none. Without `writes`, as another process has
    /// just opened it.
    ///
    /// # Errors
    /// If the folder holds another run, or one and no `resume`.
    pub(super) fn open(&self, config: &Config, splits: &Splits, resume: bool, writes: bool) -> Result<State> {
        let architecture = config.architecture(splits.train.shape(), splits.labels.len())?;
        let settings = config.fit.settings();
        if self.config().exists() {
            let there = self.read_config()?;
            if !resume {
                return Err(anyhow!("{}: holds a run already", self.0.display()).context(Remedy::Resume));
            }
            self.check_config(&there, config)?;
            self.check_images(splits)?;
            if self.last().exists() {
                let state = checkpoint::load(&self.last(), architecture, settings)?;
                if writes {
                    self.trim(state.progress.epoch)?;
                }
                return Ok(state);
            }
        }
        let begun = match &config.fit.from {
            Some(from) => {
                let other = Self::new(from);
                let (network, _) = other.best_network(&other.read_config()?, splits)?;
                ensure!(network.architecture == architecture, "fit.from = {}: another network", from.display());
                Some(network)
            }
            None => None,
        };
        if writes {
            self.begin(config, splits)?;
        }
        match begun {
            Some(network) => State::beginning(network, settings),
            None => State::new(architecture, settings, config.seed),
        }
    }

    /// Writes what a run is and what it learns from.
    fn begin(&self, config: &Config, splits: &Splits) -> Result<()> {
        files::create_folder(&self.0)?;
        files::write(&self.config(), config.to_toml()?.as_bytes())?;
        let about = json!({
            "paradise": env!("CARGO_PKG_VERSION"),
            "data": splits.source,
            "train_sha256": splits.train.digest()?,
            "labels": splits.labels,
            "train_images": counts(splits),
            "calibration_sha256": splits.calibration.digest(),
            "threads": rayon::current_num_threads(),
            "instruction_set": lanes::detect().name(),
            "amx_bf16": config.fit.precision == Precision::Bf16 && cpu_multiplies_bf16(),
        });
        files::write(&self.0.join("run.json"), serde_json::to_string_pretty(&about)?.as_bytes())?;
        files::write(&self.metrics(), b"")
    }

    /// Refuses images that are not those of the run.
    ///
    /// # Errors
    /// With what changed: classes, numbers of pictures, or the pictures themselves.
    pub fn check_images(&self, splits: &Splits) -> Result<()> {
        let path = self.0.join("run.json");
        let Some(about) = files::read_json::<serde_json::Value>(&path)? else { return Ok(()) };
        let at = path.display();
        let labels: Option<Vec<String>> = serde_json::from_value(about["labels"].clone()).ok();
        if let Some(then) = labels.filter(|then| *then != splits.labels) {
            bail!("{at}: the run's classes were {}; now they are {}", then.join(", "), splits.labels.join(", "));
        }
        let then: Option<Vec<usize>> = serde_json::from_value(about["train_images"].clone()).ok();
        let now = counts(splits);
        if let Some(then) = then.filter(|then| *then != now) {
            let changed = (0..now.len()).filter(|&c| then.get(c) != Some(&now[c]));
            let told =
                |c: usize| format!("{} ({} then, {} now)", splits.labels[c], then.get(c).unwrap_or(&0), now[c]);
            let told: Vec<String> = changed.map(told).collect();
            bail!(
                "{at}: training images were added or removed since the run began: {}; train into another folder",
                told.join(", ")
            );
        }
        let same = |key: &str, digest: &str| about[key].as_str().is_none_or(|then| then == digest);
        ensure!(
            same("train_sha256", &splits.train.digest()?),
            "{at}: the training images are not those that the run began with, though as many; train into another folder"
        );
        ensure!(
            same("calibration_sha256", &splits.calibration.digest()),
            "{at}: the calibration images are not those that the run began with; train into another folder"
        );
        Ok(())
    }

    fn exchange(&self) -> PathBuf {
        self.0.join("exchange.jsonl")
    }

    /// Keeps the first `lines` lines of the metrics.
    fn trim(&self, lines: u32) -> Result<()> {
        let text = read_lines(&self.metrics())?;
        let kept: String = text.lines().take(lines as usize).flat_map(|l| [l, "\n"]).collect();
        files::write(&self.metrics(), kept.as_bytes())
    }

    /// Adds a line to the metrics.
    pub(super) fn append(&self, line: &serde_json::Value) -> Result<()> {
        append(&self.metrics(), line)
    }

    /// Adds a line to what ranks told each other: another number of ranks writes other lines, so they are no part of the metrics.
    pub(super) fn append_exchange(&self, line: &serde_json::Value) -> Result<()> {
        let path = self.exchange();
        if path.exists() { append(&path, line) } else { files::write(&path, format!("{line}\n").as_bytes()) }
    }
}

fn append(path: &Path, line: &serde_json::Value) -> Result<()> {
    let mut text = read_lines(path)?;
    text.push_str(&format!("{line}\n"));
    files::write(path, text.as_bytes())
}

fn read_lines(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))
}

//! What a run is: the TOML file, `--set key=value`, and the checks that refuse what cannot be meant.

pub mod encoder;

use crate::encoder::Architecture;
use crate::objective::{Kind, Objective};
use anyhow::{Context, Result, bail, ensure};
use paradise_attack::threat::Norm;
use paradise_data::settings::{Data, in_range};
use paradise_engine::Shape;
use paradise_nn::Precision;
use paradise_nn::device;
use paradise_nn::optimiser::schedule::{Rates, Schedule};
use paradise_nn::optimiser::{self, Settings};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How the best checkpoint is chosen on the validation slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// Clean accuracy.
    Clean,
    /// Mean of clean accuracy and accuracy under PGD-10 of `select_eps_pixels`.
    Robust,
}

/// The `[fit]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fit {
    /// Passes over the training images.
    pub epochs: u32,
    /// Images a step.
    pub batch: usize,
    /// How weights move.
    pub optimiser: optimiser::Kind,
    /// How the learning rate goes.
    pub schedule: Schedule,
    /// Largest learning rate.
    pub peak_rate: f64,
    /// Epochs over which the rate rises to the peak; not for one-cycle.
    pub warmup_epochs: f64,
    /// Shares of the run after which the step schedule divides the rate.
    pub milestones: Vec<f64>,
    /// What the step schedule divides by.
    pub divisor: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Weight decay, on weights only.
    pub weight_decay: f64,
    /// Largest norm of all gradients together; 0 for no limit.
    pub clip: f64,
    /// Share that the averaged weights keep at each step; 0 for none. Where there are any, they are what is selected
    /// and exported.
    pub ema: f64,
    /// How the best checkpoint is chosen.
    pub select: Select,
    /// Radius of the attack that chooses it, in 1/255.
    pub select_eps_pixels: f32,
    /// Epochs without a better checkpoint after which the run stops; 0 for never.
    pub patience: u32,
    /// Where the network learns.
    pub device: device::Choice,
    /// How convolutions compute.
    pub precision: Precision,
    /// The run whose best network is where this one begins; fresh weights where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// Whether weights are rounded to int8 before every step, gradients passing straight through: quantisation-aware
    /// fine-tuning of `from`.
    pub int8_weights: bool,
}

impl Default for Fit {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch: 128,
            optimiser: optimiser::Kind::Adam,
            schedule: Schedule::OneCycle,
            peak_rate: 2e-3,
            warmup_epochs: 0.0,
            milestones: vec![0.5, 0.75],
            divisor: 10.0,
            momentum: 0.9,
            weight_decay: 0.0,
            clip: 0.0,
            ema: 0.0,
            select: Select::Robust,
            select_eps_pixels: 8.0,
            patience: 0,
            device: device::Choice::Auto,
            precision: Precision::Tf32,
            from: None,
            int8_weights: false,
        }
    }
}

impl Fit {
    /// The optimiser's numbers.
    pub fn settings(&self) -> Settings {
        let Self { optimiser, momentum, weight_decay, clip, ema, .. } = self;
        Settings { kind: *optimiser, momentum: *momentum, weight_decay: *weight_decay, clip: *clip, ema: *ema }
    }

    /// Whole batches of an epoch over `images`.
    ///
    /// # Errors
    /// If there is none.
    pub fn steps(&self, images: usize) -> Result<u64> {
        ensure!(images >= self.batch, "fit.batch = {} exceeds the {images} training images", self.batch);
        Ok((images / self.batch) as u64)
    }

    /// The learning rate of step `step`, with `each` steps an epoch.
    pub fn rate(&self, step: u64, each: u64) -> f64 {
        let warmup = (self.warmup_epochs * each as f64).round() as u64;
        let rates = Rates {
            schedule: self.schedule,
            peak: self.peak_rate,
            warmup,
            milestones: &self.milestones,
            divisor: self.divisor,
        };
        rates.at(step, each * u64::from(self.epochs))
    }

    fn validate(&self) -> Result<()> {
        let low = |name: &str, value: f64, high: f64| {
            ensure!((0.0..=high).contains(&value), "fit.{name} = {value} is not in 0..={high}");
            Ok(())
        };
        in_range("fit.epochs", self.epochs as usize, 1, 100_000)?;
        in_range("fit.batch", self.batch, 2, 65_536)?;
        ensure!(
            self.peak_rate > 0.0 && self.peak_rate <= 10.0,
            "fit.peak_rate = {} is not in (0, 10]",
            self.peak_rate
        );
        ensure!((1.0..=1e6).contains(&self.divisor), "fit.divisor = {} is not in 1..=1000000", self.divisor);
        low("warmup_epochs", self.warmup_epochs, f64::from(self.epochs))?;
        low("momentum", self.momentum, 0.9999)?;
        low("weight_decay", self.weight_decay, 1.0)?;
        low("clip", self.clip, 1e6)?;
        low("ema", self.ema, 0.999_999)?;
        low("select_eps_pixels", f64::from(self.select_eps_pixels), 255.0)?;
        for m in &self.milestones {
            low("milestones", *m, 1.0)?;
        }
        Ok(())
    }
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seed of every random stream.
    pub seed: u64,
    /// Images.
    pub data: Data,
    /// Network.
    pub encoder: encoder::Encoder,
    /// Loss.
    pub objective: Objective,
    /// Optimisation.
    pub fit: Fit,
}

impl Config {
    /// The configuration of the demo's run with this objective, also what a config file's missing keys get.
    ///
    /// ```
    /// use paradise_train::{config::Config, objective::Kind};
    /// let config = Config::demo(Kind::Standard);
    /// config.validate()?;
    /// assert!(config.to_toml()?.contains("kind = \"standard\""));
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    pub fn demo(kind: Kind) -> Self {
        let mut config = Self::default();
        config.objective.kind = kind;
        if !kind.has_matching() {
            config.fit.select = Select::Clean;
        }
        config.data = config.data.resolved();
        config
    }

    /// Reads a file and applies `key=value` overrides, dotted keys reaching into tables.
    ///
    /// # Errors
    /// With the file or override, and what is wrong with it.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
        let mut table: toml::Table = text.parse().with_context(|| format!("{}: not a TOML file", path.display()))?;
        for change in overrides {
            set(&mut table, change)?;
        }
        let sets: String = overrides.iter().map(|o| format!(" --set {o}")).collect();
        let origin = format!("{}{sets}", path.display());
        let config: Self = table.try_into().with_context(|| format!("{origin}: not a valid configuration"))?;
        config.validate().context(origin)?;
        Ok(Self { data: config.data.resolved(), ..config })
    }

    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// With the key, its value and its range.
    pub fn validate(&self) -> Result<()> {
        self.objective.validate()?;
        self.encoder.validate()?;
        self.fit.validate()?;
        self.data.validate()
    }

    /// The network over images of `input` and `classes` classes, with a decoder where the objective reconstructs.
    ///
    /// # Errors
    /// If the images do not suit the network.
    pub fn architecture(&self, input: Shape, classes: usize) -> Result<Architecture> {
        if !self.objective.kind.is_unsupervised() {
            return self.encoder.architecture(input, classes);
        }
        let decoder = Some(self.encoder.decoder(input)?);
        Ok(Architecture { decoder, ..self.encoder.architecture(input, 0)? })
    }

    /// The resolved configuration as TOML.
    ///
    /// # Errors
    /// If a value has no TOML form, such as a seed above 2^63 - 1.
    pub fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }
}

fn set(table: &mut toml::Table, change: &str) -> Result<()> {
    let (key, value) = change.split_once('=').with_context(|| format!("--set {change}: not key=value"))?;
    let value: toml::Value = match format!("v = {value}").parse::<toml::Table>() {
        Ok(mut parsed) => parsed.remove("v").context("no value")?,
        Err(_) => toml::Value::String(value.trim().to_string()),
    };
    let parts: Vec<&str> = key.trim().split('.').collect();
    let (last, path) = parts.split_last().context("empty key")?;
    let mut here = table;
    for part in path {
        let next = here.entry((*part).to_string()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let toml::Value::Table(inner) = next else { bail!("--set {change}: {part} is not a table") };
        here = inner;
    }
    here.insert((*last).to_string(), value);
    Ok(())
}

/// A radius given as `8/255` or as a decimal, in [0, 1].
///
/// ```
/// use paradise_train::config::parse_eps;
/// assert_eq!(parse_eps("8/255")?, 8.0 / 255.0);
/// assert!(parse_eps("8").is_err(), "pixels are in [0, 1]");
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// If it is neither, or out of range.
pub fn parse_eps(text: &str) -> Result<f32> {
    parse_radius(text, Norm::Linf)
}

/// A radius in a norm: as [`parse_eps`] in l_inf, any length in l2.
///
/// # Errors
/// If it is no number, or out of range.
pub fn parse_radius(text: &str, norm: Norm) -> Result<f32> {
    let number = |t: &str| t.trim().parse::<f32>().with_context(|| format!("eps {text:?} is not a number"));
    let eps = match text.split_once('/') {
        Some((a, b)) => number(a)? / number(b)?,
        None => number(text)?,
    };
    if norm == Norm::L2 {
        ensure!(eps >= 0.0 && eps.is_finite(), "eps {text} is not a length");
        return Ok(eps);
    }
    ensure!((0.0..=1.0).contains(&eps), "eps {text} is not in 0..=1 (pixels are in [0, 1]; 8/255 is meant as 8/255)");
    Ok(eps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, overrides: &[&str]) -> Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path, &overrides.iter().map(|s| s.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn overrides_beat_the_file_and_the_file_beats_defaults() {
        let c = read("seed = 3\n[objective]\nalpha = 0.5\n", &["objective.alpha=0.25", "objective.kind=paradise"]);
        let c = c.unwrap();
        assert_eq!((c.seed, c.objective.alpha, c.objective.kind), (3, 0.25, Kind::Paradise));
        assert_eq!(c.fit, Fit::default());
        let again: Config = toml::from_str(&c.to_toml().unwrap()).unwrap();
        assert_eq!(again, c);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str, set: &[&str]| format!("{:#}", read(text, set).unwrap_err());
        assert!(error("[objective]\nalhpa = 1\n", &[]).contains("alhpa"));
        assert!(error("", &["objective.alpha=-1"]).contains("objective.alpha = -1"));
        assert!(error("", &["fit.batch=1"]).contains("2..=65536"));
        assert!(error("", &["fit.epoch=3"]).contains("run.toml --set fit.epoch=3: not a valid configuration"));
        assert!(error("", &["alpha"]).contains("not key=value"));
        assert!(error("seed = [", &[]).contains("run.toml"));
        assert!(error("", &["objective.kind=magic"]).contains("magic"));
    }

    #[test]
    fn eps_reads_fractions() {
        assert_eq!(parse_eps("8/255").unwrap(), 8.0 / 255.0);
        assert_eq!(parse_eps("0.1").unwrap(), 0.1);
        for bad in ["8", "-0.1", "x", "1/0", "nan", "0/0", ""] {
            assert!(parse_eps(bad).is_err(), "{bad}");
        }
    }
}

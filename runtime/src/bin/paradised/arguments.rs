//! The command line.

mod serve;
pub mod tables;

pub use serve::{LogTo, Serve};

use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand};
use paradise_engine::{Model, Thresholds};
use paradise_runtime::site::{Site, SiteError};
use paradise_runtime::store::{Distrust, Keys};
use paradise_runtime::{Backend, BackendKind, Rule};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Runs robust image classifiers whose answers say when not to trust them.
///
/// Exit codes: 0 done, 1 a self-test failed, 2 bad command line or input, 3 a self-test check did not run, 4 standard output
/// was closed or is full.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Classify picture files of any usual format.
    Classify(Classify),
    /// Serve models over HTTP until SIGINT or SIGTERM: POST /v1/classify, and the Open Inference Protocol under /v2.
    Serve(Serve),
    /// Say what `serve` would do with these flags, this environment and this file of settings, and what is wrong with them.
    CheckConfig(Serve),
    /// Check that this device answers as the model's maker said.
    Selftest(Selftest),
    /// The faults that keep models out of service; --clear ends one. For a service that is stopped: a running one is asked at /v1/faults.
    Faults(FaultsArguments),
    /// Check a journal: every line follows from the one before.
    Journal(JournalArguments),
    /// Fetch a bundle from an OCI registry, by its digest, into the folder of models.
    #[cfg(feature = "oci")]
    Pull(Pull),
    /// Measure latency on the bundle's golden images.
    Bench(Bench),
    /// Describe a bundle: layers, arena, thresholds, files.
    Inspect(Inspect),
    /// Set thresholds from pictures of the place where the device stands, without labels.
    Calibrate(Calibrate),
    /// Ask a microcontroller over its serial port: what it is, what it sees, whether it is well.
    #[cfg(feature = "mcu")]
    Mcu(Mcu),
}

/// `paradised mcu`.
#[cfg(feature = "mcu")]
#[derive(Debug, Args)]
pub struct Mcu {
    /// Serial port of the chip, or tcp:HOST:PORT of an emulator or a serial server.
    #[arg(long, value_name = "PATH|tcp:ADDR")]
    pub port: String,
    #[command(subcommand)]
    pub command: McuCommand,
}

/// What to ask a microcontroller.
#[cfg(feature = "mcu")]
#[derive(Debug, Subcommand)]
pub enum McuCommand {
    /// What runs there, its memory, what it has counted.
    Info {
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Send pictures, made into inputs here by the model's own policy, and print the chip's verdicts.
    Classify(McuClassify),
    /// Run the chip's whole self-test. Exit code 1 if a check fails, 3 if one did not run.
    Selftest {
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Measure an inference in the board's ticks, and with its picture over the port.
    Bench {
        #[command(flatten)]
        model: McuModel,
        /// Inferences.
        #[arg(short, default_value = "10", value_name = "N")]
        n: u32,
    },
}

/// The bundle from which the firmware was built.
#[cfg(feature = "mcu")]
#[derive(Debug, Args)]
pub struct McuModel {
    /// Folder of the bundle from which the firmware was built.
    #[arg(long, value_name = "DIR", env = "PARADISE_MODEL")]
    pub model: PathBuf,
}

/// `paradised mcu classify`.
#[cfg(feature = "mcu")]
#[derive(Debug, Args)]
pub struct McuClassify {
    #[command(flatten)]
    pub model: McuModel,
    /// One JSON object a line instead of text.
    #[arg(long)]
    pub json: bool,
    /// Picture files.
    #[arg(required = true, value_name = "PICTURE")]
    pub images: Vec<PathBuf>,
}

/// Which model, how.
#[derive(Debug, Args)]
pub struct ModelArguments {
    /// Folder of the bundle.
    #[arg(long, value_name = "DIR", env = "PARADISE_MODEL")]
    pub model: PathBuf,
    /// int8 (the engine, the same bits everywhere) or tract (the float encoder).
    #[arg(long, default_value = "int8", value_name = "int8|tract")]
    pub backend: BackendKind,
}

/// The first line of a file that holds a secret.
///
/// # Errors
/// With its path, if it cannot be read.
pub fn secret(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.lines().next().unwrap_or_default().to_string())
}

/// The keys that were given, if any was.
///
/// # Errors
/// The first that is none.
pub fn keys(keys: &[String]) -> Result<Option<Arc<Keys>>, Distrust> {
    if keys.is_empty() { Ok(None) } else { Keys::read(keys).map(|keys| Some(Arc::new(keys))) }
}

/// Thresholds of a place.
#[derive(Debug, Clone, Args)]
pub struct SiteArguments {
    /// Thresholds of the place where the device stands, as `calibrate` wrote them, instead of the maker's.
    #[arg(long, value_name = "FILE", env = "PARADISE_SITE")]
    pub site: Option<PathBuf>,
}

impl SiteArguments {
    /// The site, where there is one.
    ///
    /// # Errors
    /// With the path, if the file is not one, or belongs to another model.
    pub fn read(&self, model: &Model) -> Result<Option<Site>, SiteError> {
        self.site.as_deref().map(|path| Site::read(path, model)).transpose()
    }

    /// The site's rule; the bundle's own without one.
    ///
    /// # Errors
    /// With the path, if the file is not one, or belongs to another model.
    pub fn rule(&self, backend: &dyn Backend) -> anyhow::Result<Rule> {
        let mut rule = Ok(Rule::from(Thresholds::NEVER));
        backend.with_model(&mut |model| {
            rule = self.read(model).map(|site| site.map_or_else(|| Rule::of(model), Rule::from));
        });
        Ok(rule?)
    }
}

/// Overrides of the thresholds in the bundle or the site.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThresholdArguments {
    /// Abstain when the picture's p-value is below P, 0..=1; 0 leaves the test out [default: the bundle's or the site's].
    #[arg(long, value_name = "P")]
    pub min_picture_p: Option<f32>,
    /// Abstain when the whole posterior's p-value is below P, 0..=1 [default: the bundle's or the site's].
    #[arg(long, value_name = "P")]
    pub min_posterior_p: Option<f32>,
    /// Abstain when the p-value of the posterior's spread is below P, 0..=1 [default: the bundle's or the site's].
    #[arg(long, value_name = "P")]
    pub min_spread_p: Option<f32>,
    /// Abstain when the rate's p-value is below P, 0..=1 [default: the bundle's or the site's].
    #[arg(long, value_name = "P")]
    pub min_rate_p: Option<f32>,
    /// Abstain when the posterior entropy's p-value is below P, 0..=1 [default: the bundle's or the site's].
    #[arg(long, value_name = "P")]
    pub min_entropy_p: Option<f32>,
    /// Abstain when the p-value of picture, posterior and class together is below P, 0..=1 [default: the bundle's or the site's].
    #[arg(long, value_name = "P")]
    pub min_combined_p: Option<f32>,
    /// Abstain when the predictive entropy exceeds this, nats, at least 0 [default: the bundle's or the site's].
    #[arg(long, value_name = "NATS")]
    pub max_predictive_entropy: Option<f32>,
}

impl ThresholdArguments {
    /// The rule with the overrides in their places.
    ///
    /// # Errors
    /// If a value is out of its range.
    pub fn over(&self, rule: Rule) -> anyhow::Result<Rule> {
        let own = *rule.thresholds();
        let resolved = Thresholds {
            picture_p_min: self.min_picture_p.unwrap_or(own.picture_p_min),
            posterior_p_min: self.min_posterior_p.unwrap_or(own.posterior_p_min),
            spread_p_min: self.min_spread_p.unwrap_or(own.spread_p_min),
            rate_p_min: self.min_rate_p.unwrap_or(own.rate_p_min),
            entropy_p_min: self.min_entropy_p.unwrap_or(own.entropy_p_min),
            combined_p_min: self.min_combined_p.unwrap_or(own.combined_p_min),
            predictive_entropy_max_nats: self.max_predictive_entropy.unwrap_or(own.predictive_entropy_max_nats),
        };
        ensure!(resolved.is_valid(), "a threshold is out of range: p-values are in 0..=1, entropies at least 0 nats");
        Ok(rule.with(resolved))
    }
}

/// Output lines on a board.
#[derive(Debug, Args)]
pub struct PinArguments {
    /// Raise one of three GPIO lines after each answer (BCM numbers: accept, abstain, fault).
    #[arg(long, value_name = "A,B,F", value_delimiter = ',', num_args = 1)]
    pub gpio: Option<Vec<u8>>,
}

/// How many threads share an inference, and where they run.
#[derive(Debug, Clone, Args)]
pub struct ThreadArguments {
    /// Threads that share one inference, 1 to 64: the same bits, sooner. A small network stays on one. int8 only.
    #[arg(long, default_value_t = 1, value_name = "N", env = "PARADISE_THREADS", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
    /// Cores that they are tied to, in turn: 2,3 [default: several threads keep to different cores].
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    pub pin: Vec<usize>,
}

/// Arguments of `classify`.
#[derive(Debug, Args)]
pub struct Classify {
    #[command(flatten)]
    pub model: ModelArguments,
    #[command(flatten)]
    pub site: SiteArguments,
    #[command(flatten)]
    pub thresholds: ThresholdArguments,
    #[command(flatten)]
    pub pins: PinArguments,
    #[command(flatten)]
    pub threads: ThreadArguments,
    /// One JSON object a picture, one a line.
    #[arg(long)]
    pub json: bool,
    /// Pictures, told by content: JPEG, PNG, WebP, TIFF, BMP, GIF, PNM, QOI, TGA, ICO; - reads one from standard input.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
}

/// Arguments of `faults`.
#[derive(Debug, Args)]
pub struct FaultsArguments {
    /// The service's --state.
    #[arg(long, value_name = "DIR", env = "STATE_DIRECTORY")]
    pub state: PathBuf,
    /// End the fault of this model: the device has been looked at.
    #[arg(long, value_name = "MODEL")]
    pub clear: Option<String>,
}

/// Arguments of `pull`.
#[cfg(feature = "oci")]
#[derive(Debug, Args)]
pub struct Pull {
    /// oci://HOST/NAME@sha256:DIGEST; its layers are the files of a bundle, as `oras push` makes them.
    #[arg(value_name = "ADDRESS")]
    pub address: String,
    /// The folder of models: the bundle becomes DIR/NAME/VERSION, as its signature says.
    #[arg(long, value_name = "DIR", env = "PARADISE_MODELS")]
    pub models: PathBuf,
    /// A public key of minisign, its file or its line of base64, one of which must have signed the bundle; may be given several times.
    #[arg(long, value_name = "KEY", env = "PARADISE_KEY")]
    pub key: Vec<String>,
    /// Take a bundle that nobody signed, as --version.
    #[arg(long, requires = "version")]
    pub unsigned: bool,
    /// The version of a bundle that nobody signed.
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Who asks, where the registry wants to know.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// A file whose first line is the password.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Without TLS, for a registry on this machine.
    #[arg(long)]
    pub plain_http: bool,
}

/// Arguments of `journal`.
#[derive(Debug, Args)]
pub struct JournalArguments {
    /// Files, the older first: DIR/journal.1.jsonl DIR/journal.jsonl.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Arguments of `selftest`.
#[derive(Debug, Args)]
pub struct Selftest {
    #[command(flatten)]
    pub model: ModelArguments,
    #[command(flatten)]
    pub site: SiteArguments,
    /// A public key of minisign, its file or its line of base64, one of which must have signed the bundle; may be given several times.
    #[arg(long, value_name = "KEY", env = "PARADISE_KEY")]
    pub key: Vec<String>,
    /// A JSON report instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Also write the report as a page to look at, with the probe pictures.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Fail when the p99 latency exceeds this, above 0.
    #[arg(long, value_name = "MS")]
    pub max_latency_ms: Option<f64>,
    /// Leave a check out; it reports `not run` and the exit code is 3. Not for manifest, signature and load, which the others
    /// need.
    #[arg(long, value_name = "CHECK")]
    pub skip: Vec<String>,
    /// Instead: put so many single-bit faults into the model's memory, one at a time, and report which check notices each; 1 if one that
    /// stays and changes an answer is missed.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1000", conflicts_with_all = ["html", "skip", "flip_weight_bit", "site"], value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub campaign: Option<u32>,
    /// Seed of the noise that is drawn, to find the same figure again [default: another each time]; of a campaign's faults [default: 1].
    #[arg(long, value_name = "SEED")]
    pub noise_seed: Option<u32>,
    /// Flip this bit of the resident weights after loading, to see the test fail (int8 only); `bit < 8 x bytes of tensors`.
    #[arg(long, value_name = "BIT")]
    pub flip_weight_bit: Option<usize>,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(flatten)]
    pub model: ModelArguments,
    #[command(flatten)]
    pub site: SiteArguments,
    /// Also time this back end, in turns, and end with the ratio of the medians.
    #[arg(long, value_name = "int8|tract")]
    pub versus: Option<BackendKind>,
    /// Also time every other set of kernels that this CPU has, in turns; only for the int8 back end.
    #[arg(long)]
    pub every_kernel: bool,
    /// Time the whole way of this picture instead, from the bytes of its file to the verdict.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["per_layer", "workers"])]
    pub picture: Option<PathBuf>,
    /// Where an inference's time goes, layer by layer, and the share of this CPU's measured int8 peak; only for the int8
    /// back end.
    #[arg(long, conflicts_with_all = ["versus", "every_kernel"])]
    pub per_layer: bool,
    /// Only this set of kernels, by its name in --every-kernel's report: what a smaller CPU would do; only for the int8 back end.
    #[arg(long, value_name = "NAME", conflicts_with = "every_kernel")]
    pub kernels: Option<String>,
    #[command(flatten)]
    pub threads: ThreadArguments,
    /// Images a second by so many threads instead, each with images and memory of its own; only for the int8 back end.
    #[arg(long, value_name = "N", conflicts_with_all = ["versus", "every_kernel", "per_layer", "threads"], value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Timed inferences.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub runs: u32,
    /// A JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Folder of the bundle.
    #[arg(long, value_name = "DIR", env = "PARADISE_MODEL")]
    pub model: PathBuf,
    #[command(flatten)]
    pub site: SiteArguments,
    /// A JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `calibrate`.
#[derive(Debug, Args)]
pub struct Calibrate {
    #[command(flatten)]
    pub model: ModelArguments,
    /// Pictures of the place, at least 200 different ones: a folder with all below it, or - for their paths on standard input, one
    /// a line. Pictures in folders named like the model's classes count as labelled.
    #[arg(long, value_name = "DIR|-")]
    pub images: PathBuf,
    /// Share of ordinary pictures of this place that may be abstained from: 5% or 0.05, at most half.
    #[arg(long, default_value = "5%", value_name = "SHARE", value_parser = share)]
    pub promise: f64,
    /// Refuse a place from whose pictures the maker's thresholds abstain more often than this.
    #[arg(long, default_value = "90%", value_name = "SHARE", value_parser = share)]
    pub max_abstained: f64,
    /// The file to write, for `--site`.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The report as a JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// A share, as `5%` or `0.05`.
fn share(text: &str) -> Result<f64, String> {
    let number = |text: &str| text.trim().parse::<f64>().map_err(|_| "not a share: write 5% or 0.05".to_string());
    let share = match text.strip_suffix('%') {
        Some(percent) => number(percent)? / 100.0,
        None => number(text)?,
    };
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is between 0 and 1, or 0% and 100%".into()) }
}

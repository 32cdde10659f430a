//! `train`: from images to a bundle that devices run.
#![deny(missing_docs)]

mod cli;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use paradise_data::Splits;
use paradise_data::settings::Source;
use paradise_evaluate::figure::scatter;
use paradise_runtime::say;
use paradise_support::files;
use paradise_train::config::Config;
use paradise_train::fit::{self, RunFolder};
use paradise_train::latent::points;
use paradise_train::trained::Trained;
use paradise_train::{demo, gpu_check, interrupt, sweep};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The version, and what else is built in.
const VERSION: &str =
    if cfg!(feature = "mpi") { concat!(env!("CARGO_PKG_VERSION"), " with MPI") } else { env!("CARGO_PKG_VERSION") };

/// Trains, attacks, evaluates, quantises and exports robust classifiers.
///
/// Exit codes: 0 done, 1 a self-test, a card or the GPU's check failed, 2 bad command line or input, 4 standard output was
/// closed or is full, 130 interrupted (SIGINT, SIGTERM, SIGHUP, SIGUSR1): fit, sweep, evaluate, certify and the demo have saved what
/// was done, and the same command goes on (fit: with --resume).
#[derive(Parser)]
#[command(version = VERSION)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The whole way on embedded images: train two models, attack, quantise, export, self-test, classify, draw.
    Demo(Demo),
    /// Train one model as a configuration file says.
    Fit(Fit),
    /// Search alpha by the supplement's rule, then gamma over a grid; resumable, with a table and a plot.
    Sweep(Sweep),
    /// Draw where a run's test images lie in the latent space.
    Latent(Latent),
    /// Attack a run's or a bundle's model on test images and write a report; resumable, in shards if wanted.
    Evaluate(cli::evaluate::Evaluate),
    /// Put the shards of an evaluation together.
    Merge(cli::evaluate::Merge),
    /// Put reports of several models side by side.
    Compare(cli::evaluate::Compare),
    /// Prove l2 radii by randomised smoothing.
    Certify(cli::evaluate::Certify),
    /// Make a table or a figure of the supplement from run folders.
    Report(cli::report::Report),
    /// Quantise a run and write its bundle.
    Export(cli::bundle::Export),
    /// Quantise a float ONNX classifier from elsewhere into a bundle.
    ImportOnnx(cli::bundle::ImportOnnx),
    /// Make a bundle's self-test again, on synthesised pictures or on test images.
    Probes(cli::bundle::Probes),
    /// Attack and disturb a bundle's own probes, and write into its self-test what devices must find again; for bundles that were
    /// exported without.
    Trials(cli::bundle::Trials),
    /// Fit a bundle's confidence anew, its weights untouched: means and covariances, tables, thresholds, self-test, card.
    Recalibrate(cli::bundle::Recalibrate),
    /// Compute the figures of a bundle's card again, from its files and images given by path.
    VerifyCard(cli::bundle::VerifyCard),
    /// Compare a GPU's loss and gradients with the CPU's, for every network (needs the feature `cuda`).
    GpuCheck,
}

#[derive(Args)]
struct Demo {
    /// Folder for runs, bundle, pictures and report; an interrupted demo resumes there.
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
}

/// What is trained, on what, and where it goes.
#[derive(Args)]
struct Chosen {
    /// TOML file; missing keys have the demo's values (see train/configs).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override one key, dotted: --set objective.gamma=4 --set fit.epochs=10.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seed of every random stream.
    #[arg(long)]
    seed: Option<u64>,
    /// Folder of the data set; with a configuration of the embedded subset, the full Fashion-MNIST is read from it.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder for what is made [default: runs/ and the configuration's file name].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Chosen {
    fn read(&self) -> Result<(Config, PathBuf)> {
        let mut overrides = self.set.clone();
        if let Some(folder) = &self.data {
            overrides.push(format!("data.folder={}", toml::Value::String(folder.display().to_string())));
        }
        overrides.extend(self.seed.map(|seed| format!("seed={seed}")));
        let mut config = Config::read(&self.config, &overrides)?;
        // A run may be gone on with from elsewhere.
        config.data.folder = std::path::absolute(&config.data.folder).unwrap_or(config.data.folder);
        if self.data.is_some() && config.data.source == Source::FashionMnistSubset {
            config.data.source = Source::FashionMnist;
        }
        let out = match &self.out {
            Some(out) => out.clone(),
            None => PathBuf::from("runs").join(self.config.file_stem().context("--config: not a file")?),
        };
        Ok((config, out))
    }
}

#[derive(Args)]
struct Fit {
    #[command(flatten)]
    chosen: Chosen,
    /// Go on from the last checkpoint.
    #[arg(long)]
    resume: bool,
    /// Read the data, print the network's parameters and multiply-accumulates, and stop.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
struct Sweep {
    #[command(flatten)]
    chosen: Chosen,
    /// First alpha; divided by 10 until the rate shows no gap.
    #[arg(long, default_value_t = 1e-3)]
    alpha: f64,
    /// Epochs of a run of the alpha search.
    #[arg(long, default_value_t = 5)]
    epochs: u32,
    /// Largest share by which the validation images' rate may exceed the training images'.
    #[arg(long, default_value_t = 0.05)]
    tolerance: f64,
    /// Values of gamma, comma-separated; each is a whole run.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "10,25,50")]
    gammas: Vec<f64>,
    /// Begin with this part of the runs, for example 2/4, or the task's part of a Slurm job array; processes that share the folder
    /// train a run each, and the last one writes the table.
    #[arg(long, value_name = "I/N|auto", default_value = "1/1")]
    shard: String,
}

#[derive(Args)]
struct Latent {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Picture [default: latent.png in the run folder].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Test images, stratified [default: 5000, or all].
    #[arg(long)]
    n: Option<usize>,
    /// Folder of the images, where they do not lie where the run found them.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::environment::settle();
    // What libraries have to say goes to standard error, a line each.
    tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_level(false).with_target(false).init();
    let outcome = interrupt::end_at_once().and_then(|()| run(arguments));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if !error.is::<cli::ranks::Silent>() {
                eprintln!("train: {}", cli::hint::with_hint(&error));
            }
            let interrupted = interrupt::Interrupted::ended(&error);
            ExitCode::from(if interrupted { interrupt::EXIT } else { 2 })
        }
    }
}

fn run(arguments: Arguments) -> Result<u8> {
    use Command::{Certify, Evaluate, Fit, Sweep};
    if !matches!(arguments.command, Fit(_) | Sweep(_) | Evaluate(_) | Certify(_)) {
        cli::ranks::alone()?;
    }
    match arguments.command {
        Command::Demo(arguments) => demo::run(&arguments.out),
        Command::Fit(arguments) => fit(&arguments),
        Command::Sweep(arguments) => sweep(&arguments),
        Command::Latent(arguments) => latent(&arguments),
        Command::Evaluate(arguments) => cli::evaluate::evaluate(&arguments),
        Command::Merge(arguments) => cli::evaluate::merge(&arguments),
        Command::Compare(arguments) => cli::evaluate::compare(&arguments),
        Command::Certify(arguments) => cli::evaluate::certify(&arguments),
        Command::Report(arguments) => cli::report::report(&arguments),
        Command::Export(arguments) => cli::bundle::export(&arguments),
        Command::ImportOnnx(arguments) => cli::bundle::import_onnx(&arguments),
        Command::Probes(arguments) => cli::bundle::probes(&arguments),
        Command::Trials(arguments) => cli::bundle::trials(&arguments),
        Command::Recalibrate(arguments) => cli::bundle::recalibrate(&arguments),
        Command::VerifyCard(arguments) => cli::bundle::verify_card(&arguments),
        Command::GpuCheck => gpu_check::run(|row| say!("{row}")).map(|holds| u8::from(!holds)),
    }
}

fn fit(arguments: &Fit) -> Result<u8> {
    let ranks = cli::ranks::Ranks::join()?;
    ranks.settle(fit_among(arguments, &ranks))
}

fn fit_among(arguments: &Fit, ranks: &cli::ranks::Ranks) -> Result<u8> {
    let (config, out) = arguments.chosen.read()?;
    let splits = config.data.load()?;
    if ranks.speaks() {
        say!("{} on {}, seed {}", config.objective.kind.name(), splits.source, config.seed);
    }
    if arguments.dry_run {
        return if ranks.speaks() { describe(&config, &splits, &out) } else { Ok(0) };
    }
    let stop = interrupt::flag()?;
    let folder = RunFolder::new(&out);
    let fitted = fit::fit_among(ranks.exchange(), &config, &splits, &folder, arguments.resume, &stop)?;
    if !ranks.speaks() {
        return Ok(0);
    }
    say!(
        "{}: best epoch {} (validation score {:.2}), {:.0} s",
        out.display(),
        fitted.progress.best_epoch,
        fitted.progress.best,
        fitted.seconds
    );
    if config.objective.kind.is_unsupervised() {
        say!("next: train latent --run {}", out.display());
    } else {
        say!("next: train evaluate --run {0}   or   train export --run {0} --out models/NAME", out.display());
    }
    Ok(0)
}

/// What `fit` would do.
fn describe(config: &Config, splits: &Splits, out: &Path) -> Result<u8> {
    let architecture = config.architecture(splits.train.shape(), splits.labels.len())?;
    say!("{}", architecture.table()?.trim_end());
    let images = splits.train.len().saturating_sub(config.data.validation);
    let steps = config.fit.steps(images)?;
    say!("{} epochs of {steps} steps of {} images, into {}", config.fit.epochs, config.fit.batch, out.display());
    Ok(0)
}

fn sweep(arguments: &Sweep) -> Result<u8> {
    let ranks = cli::ranks::Ranks::join()?;
    ranks.settle(sweep_among(arguments, &ranks))
}

fn sweep_among(arguments: &Sweep, ranks: &cli::ranks::Ranks) -> Result<u8> {
    let (config, out) = arguments.chosen.read()?;
    let Sweep { alpha, epochs, tolerance, gammas, .. } = arguments;
    anyhow::ensure!(*alpha > 0.0 && alpha.is_finite(), "--alpha {alpha} is not > 0");
    anyhow::ensure!(*epochs > 0 && *tolerance >= 0.0, "--epochs and --tolerance cannot be below 1 and 0");
    anyhow::ensure!(gammas.iter().all(|g| *g >= 0.0 && g.is_finite()), "--gammas: every value must be >= 0");
    let team = ranks.team(&arguments.shard)?;
    let splits = config.data.load()?;
    if ranks.speaks() {
        say!("{} on {}, seed {}", config.objective.kind.name(), splits.source, config.seed);
    }
    let plan = sweep::Plan { alpha: *alpha, epochs: *epochs, tolerance: *tolerance, gammas: gammas.clone() };
    let stop = interrupt::flag()?;
    let show = |row: &sweep::Row| {
        if ranks.speaks() {
            say!(
                "  {:<14} rate {:8.2} (training) {:8.2} (validation), gap {:+.1} %, score {:.2}",
                row.run,
                row.train_rate_nats,
                row.validation_rate_nats,
                100.0 * row.gap(),
                row.score
            );
        }
    };
    match sweep::sweep(&config, &splits, &out, &plan, &team, &stop, &show)? {
        sweep::Ended::Done(rows, best) => {
            say!("\n{}", sweep::table(&rows));
            let row = &rows[best];
            let picture = out.join("search.png");
            say!("best: alpha {:e}, gamma {} ({}); {}", row.alpha, row.gamma, row.run, picture.display());
        }
        sweep::Ended::Waiting(busy) => {
            say!("{}: {busy} runs of other shards go on; the last one writes the table", out.display());
        }
        sweep::Ended::Elsewhere => (),
    }
    Ok(0)
}

fn latent(arguments: &Latent) -> Result<u8> {
    let trained = Trained::open(&arguments.run, arguments.data.as_deref())?;
    let set = trained.splits.test.head(trained.count(arguments.n, 5000)?);
    let Trained { config, splits, network } = trained;
    let (points, axes) = points(&network.frozen(), &set)?;
    let names = axes.map(|a| format!("mu {a}"));
    let title = format!("{}: posterior means, {} test images", config.objective.kind.name(), set.len());
    let png = scatter::draw(&points, &splits.labels, [&names[0], &names[1]], &title)?;
    let out = arguments.out.clone().unwrap_or_else(|| arguments.run.join("latent.png"));
    files::write(&out, &png)?;
    say!("{}", out.display());
    Ok(0)
}

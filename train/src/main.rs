//! `train`: from images to a bundle that devices run.
#![deny(missing_docs)]

mod cli;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use paradise_train::config::{Config, Source};
use paradise_train::evaluate::latent::points;
use paradise_train::export::card::Card;
use paradise_train::export::{self, CardSettings};
use paradise_train::figure::latent;
use paradise_train::fit::{self, RunFolder};
use paradise_train::import::{self, Normalisation};
use paradise_train::report::subject::Trained;
use paradise_train::{demo, files, gpu_check, interrupt, sweep};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Trains, attacks, evaluates, quantises and exports robust classifiers.
///
/// Exit codes: 0 done, 1 a self-test or the GPU's check failed, 2 bad command line or input, 130 an evaluation was
/// interrupted.
#[derive(Parser)]
#[command(version)]
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
    Export(Export),
    /// Quantise a float ONNX classifier from elsewhere into a bundle.
    ImportOnnx(ImportOnnx),
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
}

#[derive(Args)]
struct Latent {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Picture [default: latent.png in the run folder].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Test images, stratified; at most the set.
    #[arg(long, default_value_t = 5000)]
    n: usize,
}

/// How a bundle is quantised, and what its card measures.
#[derive(Args)]
struct CardArguments {
    /// Test images behind the card's robustness figure.
    #[arg(long, default_value_t = 2000)]
    n: usize,
    /// Share of calibration images that may be abstained for any reason.
    #[arg(long, default_value_t = 0.05)]
    false_abstain: f64,
    /// How activations are quantised: `best` compares sixteen methods (ranges by min-max, percentile or squared error, bias
    /// correction, cross-layer equalisation) with the float network and reports what they do; `min-max` is the plain one.
    #[arg(long, default_value = "best", value_name = "best|min-max", value_parser = ["best", "min-max"])]
    quantise: String,
}

impl CardArguments {
    fn settings(&self) -> CardSettings {
        let choose = self.quantise == "best";
        CardSettings { n: self.n, false_abstain: self.false_abstain, choose, ..CardSettings::default() }
    }
}

/// What is imported, and by which pictures it is quantised.
#[derive(Args)]
struct ImportOnnx {
    /// Float ONNX classifier of one image `[n, c, h, w]`: Conv, BatchNormalization, Relu, Add, pools, Gemm, MatMul, Flatten.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder with train/CLASS and test/CLASS pictures: ranges, confidence and the card come from them.
    #[arg(long, value_name = "DIR")]
    calibrate: PathBuf,
    /// Bundle folder; its last part is the model's name.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Mean a channel that was taken from pixels in [0, 1] before the network. The engine's borders are black: what a first
    /// convolution with a border sees there differs from a border of 0 after normalisation.
    #[arg(long, value_name = "M,..", value_delimiter = ',', num_args = 1)]
    mean: Vec<f32>,
    /// Standard deviation a channel by which they were divided.
    #[arg(long, value_name = "S,..", value_delimiter = ',', num_args = 1)]
    std: Vec<f32>,
    #[command(flatten)]
    card: CardArguments,
}

#[derive(Args)]
struct Export {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Bundle folder; its last part is the model's name.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    card: CardArguments,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments.out),
        Command::Fit(arguments) => fit(&arguments),
        Command::Sweep(arguments) => sweep(&arguments),
        Command::Latent(arguments) => latent(&arguments),
        Command::Evaluate(arguments) => cli::evaluate::evaluate(&arguments),
        Command::Merge(arguments) => cli::evaluate::merge(&arguments),
        Command::Compare(arguments) => cli::evaluate::compare(&arguments),
        Command::Certify(arguments) => cli::evaluate::certify(&arguments),
        Command::Report(arguments) => cli::report::report(&arguments),
        Command::Export(arguments) => export(&arguments),
        Command::ImportOnnx(arguments) => import_onnx(&arguments),
        Command::GpuCheck => gpu_check::run(|row| println!("{row}")).map(|holds| u8::from(!holds)),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("train: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn fit(arguments: &Fit) -> Result<u8> {
    let (config, out) = arguments.chosen.read()?;
    let splits = config.data.load()?;
    println!("{} on {}, seed {}", config.objective.kind.name(), splits.source, config.seed);
    if arguments.dry_run {
        let architecture = config.architecture(splits.train.shape(), splits.labels.len())?;
        print!("{}", architecture.table()?);
        let images = splits.train.len().saturating_sub(config.data.validation);
        let steps = config.fit.steps(images)?;
        println!(
            "{} epochs of {steps} steps of {} images, into {}",
            config.fit.epochs,
            config.fit.batch,
            out.display()
        );
        return Ok(0);
    }
    let stop = interrupt::flag()?;
    let fitted = fit::fit(&config, &splits, &RunFolder::new(&out), arguments.resume, &stop)?;
    println!(
        "{}: best epoch {} (validation score {:.2}), {:.0} s",
        out.display(),
        fitted.progress.best_epoch,
        fitted.progress.best,
        fitted.seconds
    );
    if config.objective.kind.is_unsupervised() {
        println!("next: train latent --run {}", out.display());
    } else {
        println!("next: train evaluate --run {0}   or   train export --run {0} --out models/NAME", out.display());
    }
    Ok(0)
}

fn sweep(arguments: &Sweep) -> Result<u8> {
    let (config, out) = arguments.chosen.read()?;
    let Sweep { alpha, epochs, tolerance, gammas, .. } = arguments;
    anyhow::ensure!(*alpha > 0.0 && alpha.is_finite(), "--alpha {alpha} is not > 0");
    anyhow::ensure!(*epochs > 0 && *tolerance >= 0.0, "--epochs and --tolerance cannot be below 1 and 0");
    anyhow::ensure!(gammas.iter().all(|g| *g >= 0.0 && g.is_finite()), "--gammas: every value must be >= 0");
    let splits = config.data.load()?;
    println!("{} on {}, seed {}", config.objective.kind.name(), splits.source, config.seed);
    let plan = sweep::Plan { alpha: *alpha, epochs: *epochs, tolerance: *tolerance, gammas: gammas.clone() };
    let stop = interrupt::flag()?;
    let (rows, best) = sweep::sweep(&config, &splits, &out, &plan, &stop, |row| {
        println!(
            "  {:<14} rate {:8.2} (training) {:8.2} (validation), gap {:+.1} %, score {:.2}",
            row.run,
            row.train_rate_nats,
            row.validation_rate_nats,
            100.0 * row.gap(),
            row.score
        );
    })?;
    println!("\n{}", sweep::table(&rows));
    let row = &rows[best];
    println!("best: alpha {:e}, gamma {} ({}); {}", row.alpha, row.gamma, row.run, out.join("search.png").display());
    Ok(0)
}

fn latent(arguments: &Latent) -> Result<u8> {
    let Trained { config, splits, network } = Trained::open(&arguments.run, arguments.n)?;
    let set = splits.test.head(arguments.n);
    let (points, axes) = points(&network.frozen(), &set)?;
    let names = axes.map(|a| format!("mu {a}"));
    let title = format!("{}: posterior means, {} test images", config.objective.kind.name(), set.len());
    let png = latent::draw(&points, &splits.labels, [&names[0], &names[1]], &title)?;
    let out = arguments.out.clone().unwrap_or_else(|| arguments.run.join("latent.png"));
    files::write(&out, &png)?;
    println!("{}", out.display());
    Ok(0)
}

fn export(arguments: &Export) -> Result<u8> {
    let Trained { config, splits, network } = Trained::open(&arguments.run, arguments.card.n)?;
    let card = export::export(&network, &config, &splits, &arguments.out, &arguments.card.settings())?;
    finished(&card, &arguments.out);
    Ok(0)
}

fn import_onnx(arguments: &ImportOnnx) -> Result<u8> {
    let normalisation = Normalisation { mean: arguments.mean.clone(), std: arguments.std.clone() };
    let settings = arguments.card.settings();
    let card = import::import(&arguments.file, &normalisation, &arguments.calibrate, &arguments.out, &settings)?;
    finished(&card, &arguments.out);
    Ok(0)
}

/// Says what was made.
fn finished(card: &Card, out: &Path) {
    println!("{}", demo::describe(card));
    if let Some(quantisation) = &card.quantisation {
        println!("{quantisation}");
    }
    println!("next: paradised selftest --model {}", out.display());
}

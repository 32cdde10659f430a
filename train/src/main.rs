//! `train`: from images to a bundle that devices run.
#![deny(missing_docs)]

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use paradise_train::config::{Config, parse_eps};
use paradise_train::dataset::Splits;
use paradise_train::encoder::Network;
use paradise_train::export::{self, CardSettings};
use paradise_train::fit::{self, RunFolder};
use paradise_train::{demo, evaluate, files, interrupt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Trains, attacks, evaluates, quantises and exports robust classifiers.
///
/// Exit codes: 0 done, 1 a self-test failed, 2 bad command line or input.
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
    /// Measure clean and robust accuracy of a run on test images.
    Evaluate(Evaluate),
    /// Quantise a run and write its bundle.
    Export(Export),
}

#[derive(Args)]
struct Demo {
    /// Folder for runs, bundle, pictures and report; an interrupted demo resumes there.
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
}

#[derive(Args)]
struct Fit {
    /// TOML file; missing keys have the demo's values (see train/configs).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override one key, dotted: --set objective.gamma=4 --set fit.epochs=10.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Run folder [default: runs/ and the configuration's file name].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Read the full Fashion-MNIST from this folder of IDX files.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Go on from the last finished epoch.
    #[arg(long)]
    resume: bool,
}

#[derive(Args)]
struct Evaluate {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Attacks, comma-separated: fgsm, pgd[:STEPSxRESTARTS], adam-pgd[:STEPSxRESTARTS].
    #[arg(long, value_name = "LIST", default_value = "fgsm,pgd:40x2")]
    attacks: String,
    /// Radius of the l_inf ball, pixels in [0, 1].
    #[arg(long, default_value = "8/255", allow_hyphen_values = true)]
    eps: String,
    /// Test images, stratified; at most the set.
    #[arg(long, default_value_t = 2000)]
    n: usize,
    /// Seed of the attacks' starts.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also write the figures here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct Export {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Bundle folder; its last part is the model's name.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Test images behind the card's robustness figure.
    #[arg(long, default_value_t = 2000)]
    n: usize,
    /// Share of calibration images that may be abstained for any reason.
    #[arg(long, default_value_t = 0.05)]
    false_abstain: f64,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments.out),
        Command::Fit(arguments) => fit(&arguments),
        Command::Evaluate(arguments) => evaluate(&arguments),
        Command::Export(arguments) => export(&arguments),
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
    let mut overrides = arguments.set.clone();
    if let Some(folder) = &arguments.data {
        overrides.push("data.source=fashion-mnist".into());
        overrides.push(format!("data.folder={}", toml::Value::String(folder.display().to_string())));
    }
    let config = Config::read(&arguments.config, &overrides)?;
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => PathBuf::from("runs").join(arguments.config.file_stem().context("--config: not a file")?),
    };
    let splits = config.data.load()?;
    println!("{} on {}, seed {}", config.objective.kind.name(), splits.source, config.seed);
    let stop = interrupt::flag()?;
    let fitted = fit::fit(&config, &splits, &RunFolder::new(&out), arguments.resume, &stop)?;
    println!(
        "{}: best epoch {} (validation score {:.1}), {:.0} s",
        out.display(),
        fitted.progress.best_epoch,
        fitted.progress.best,
        fitted.seconds
    );
    println!("next: train evaluate --run {0}   or   train export --run {0} --out models/NAME", out.display());
    Ok(0)
}

/// A run on disk, ready to be measured on `n` of its test images.
struct Trained {
    config: Config,
    splits: Splits,
    network: Network,
}

impl Trained {
    fn open(run: &Path, n: usize) -> Result<Self> {
        let folder = RunFolder::new(run);
        let config = folder.read_config()?;
        let splits = config.data.load()?;
        let available = splits.test.len();
        anyhow::ensure!((1..=available).contains(&n), "--n {n}: the test set has {available} images");
        let (network, _) = folder.best_network(&config, &splits)?;
        Ok(Self { config, splits, network })
    }
}

fn evaluate(arguments: &Evaluate) -> Result<u8> {
    let eps = parse_eps(&arguments.eps)?;
    let attacks = evaluate::parse_attacks(&arguments.attacks)?;
    let Trained { config, splits, network } = Trained::open(&arguments.run, arguments.n)?;
    let set = splits.test.head(arguments.n);
    let (report, _) = evaluate::robust(&network.frozen(), &set, &attacks, eps, arguments.seed)?;
    println!("{} ({}), {}", arguments.run.display(), config.objective.kind.name(), splits.source);
    println!("{report}");
    if let Some(path) = &arguments.json {
        files::write(path, serde_json::to_string_pretty(&report)?.as_bytes())?;
    }
    Ok(0)
}

fn export(arguments: &Export) -> Result<u8> {
    let Trained { config, splits, network } = Trained::open(&arguments.run, arguments.n)?;
    let settings = CardSettings { n: arguments.n, false_abstain: arguments.false_abstain, ..CardSettings::default() };
    let card = export::export(&network, &config, &splits, &arguments.out, &settings)?;
    println!("{}", demo::describe(&card));
    println!("next: paradised selftest --model {}", arguments.out.display());
    Ok(0)
}

//! `train evaluate`, `train merge`, `train certify`.

use super::named_folder;
use super::ranks::Ranks;
use super::values::named;
use anyhow::Result;
use clap::Args;
use paradise_attack::certificate::{self, Smoothing};
use paradise_attack::threat::Norm;
use paradise_evaluate::plan::{Plan, Request};
use paradise_evaluate::report::{self, Report};
use paradise_nn::device::Choice;
use paradise_runtime::say;
use paradise_support::files;
use paradise_support::team::{Shard, Team};
use paradise_train::certify;
use paradise_train::config::parse_radius;
use paradise_train::evaluation::{self, Ended, Options};
use paradise_train::interrupt;
use paradise_train::trained::Trained;
use std::path::PathBuf;
use std::sync::Arc;

/// Which model on which images, and what is measured beside accuracy.
#[derive(Args)]
struct Subject {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Folder of the images, where they do not lie where the run found them.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Attack the int8 engine of this bundle, made from the run, instead of its float network.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Feed the classifier one sample of the posterior instead of its mean; then average gradients: autoattack-rand.
    #[arg(long, conflicts_with = "bundle")]
    sampled: bool,
    /// Run of an undefended model of the same images, for transfer attacks and two of the masking checks.
    #[arg(long, value_name = "DIR")]
    surrogate: Option<PathBuf>,
    /// Evaluation of another model on the same images: the points that broke it are tried too, last; repeatable.
    #[arg(long, value_name = "DIR")]
    points: Vec<PathBuf>,
    /// Another data set for the confidence figures: MNIST's or CIFAR's files, or any folder of pictures; repeatable.
    #[arg(long, value_name = "NAME=DIR")]
    foreign: Vec<String>,
    /// Leave out the masking checks.
    #[arg(long)]
    no_checks: bool,
    /// Leave out the confidence figures and the adaptive attack on abstention.
    #[arg(long)]
    no_confidence: bool,
    /// Where it computes; the int8 engine of a bundle is the CPU's.
    #[arg(long, value_name = "auto|cpu|cuda", default_value = "auto", value_parser = named::<Choice>)]
    device: Choice,
    /// Also write the figures here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Attacks test images and writes a report: JSON, Markdown and one HTML page.
#[derive(Args)]
pub struct Evaluate {
    #[command(flatten)]
    subject: Subject,
    /// Attacks, comma-separated, for example autoattack,pgd:40x2; an unknown name lists them all.
    #[arg(long, value_name = "LIST", default_value = "fgsm,pgd:40x2")]
    attacks: String,
    /// How far is measured.
    #[arg(long, value_name = "linf|l2", default_value = "linf", value_parser = named::<Norm>)]
    norm: Norm,
    /// Radii, comma-separated, pixels in [0, 1]; checks, confidence and pictures use the first.
    #[arg(long, value_name = "LIST", default_value = "8/255", allow_hyphen_values = true)]
    eps: String,
    /// Test images, stratified [default: 2000, or all].
    #[arg(long)]
    n: Option<usize>,
    /// Seed of the attacks' starts.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Images of a unit of work: what an interruption loses at most, and what shards share out.
    #[arg(long, default_value_t = 256)]
    batch: usize,
    /// Folder of the evaluation; the same command goes on there [default: in the run folder, by the settings].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Do only this part of the batches, for example 2/4, or the task's part of a Slurm job array. Parts may share a folder: the
    /// last one writes the report; else `train merge` puts them together.
    #[arg(long, value_name = "I/N|auto", default_value = "1/1")]
    shard: String,
}

/// Puts the shards of one evaluation together and writes its report.
#[derive(Args)]
pub struct Merge {
    /// Folders that `train evaluate --shard` wrote with --out.
    #[arg(required = true, value_name = "DIR")]
    shards: Vec<PathBuf>,
    #[command(flatten)]
    subject: Subject,
    /// Folder of the whole evaluation.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Subject {
    fn options(&self, request: Request, n: Option<usize>, out: Option<PathBuf>) -> Result<Options> {
        Ok(Options {
            run: self.run.clone(),
            bundle: self.bundle.clone(),
            sampled: self.sampled,
            surrogate: self.surrogate.clone(),
            points: self.points.clone(),
            device: self.device,
            request,
            data: self.data.clone(),
            n,
            out,
            team: Arc::new(Shard::WHOLE),
            merge: Vec::new(),
            checks: !self.no_checks,
            confidence: !self.no_confidence,
            foreign: self.foreign.iter().map(named_folder).collect::<Result<_>>()?,
        })
    }

    fn run(&self, options: &Options) -> Result<u8> {
        let stop = interrupt::flag()?;
        match evaluation::evaluate(options, &stop)? {
            Ended::Done(report, out) => {
                print(&report);
                say!("report: {}", out.join("report.html").display());
                if let Some(path) = &self.json {
                    files::write(path, serde_json::to_string_pretty(&report)?.as_bytes())?;
                }
                Ok(0)
            }
            Ended::Waiting(missing, out) => {
                say!("{}: this part is done; {missing} units of other shards are missing", out.display());
                say!(
                    "next: nothing where they share this folder, else train merge --run {} --out DIR SHARD...",
                    options.run.display()
                );
                Ok(0)
            }
            Ended::Elsewhere => Ok(0),
            Ended::Stopped(out) => {
                if options.team.concludes() {
                    say!("stopped; the same command goes on in {}", out.display());
                }
                Ok(interrupt::EXIT)
            }
        }
    }
}

/// The figures of a report on a terminal.
fn print(report: &Report) {
    let row = |name: &str, value: String| say!("  {name:<30}{value}");
    let plan = &report.plan;
    say!(
        "{}, {} images of {}, {}, seed {}",
        plan.model.name,
        plan.images.n,
        plan.images.source,
        plan.norm.name(),
        plan.seed
    );
    row("clean", report.clean.to_string());
    for radius in &report.radii {
        say!("eps {:.2}/255 ({})", radius.eps * 255.0, radius.eps);
        for attack in &radius.attacks {
            let success = attack.success.as_ref().map_or_else(String::new, |s| format!("   success rate {s}"));
            row(&attack.attack, format!("{}{success}", attack.robust));
        }
        row("worst case per image", radius.worst.to_string());
        row("  after rounding to 8 bits", radius.worst_on_grid.to_string());
    }
    say!("masking checks: {}   (intervals: Wilson, 95 %)", report.masking());
    if let Some(a) = &report.abstention {
        row("wrong and accepted, clean", a.clean.to_string());
        row("  attacked", a.plain.to_string());
        row("  attacked to be accepted", a.adaptive.to_string());
    }
    report.notes.iter().for_each(|note| say!("note: {note}"));
}

/// `train evaluate`.
pub fn evaluate(arguments: &Evaluate) -> Result<u8> {
    let eps = arguments.eps.split(',').map(|e| parse_radius(e, arguments.norm)).collect::<Result<_>>()?;
    let request = Request {
        norm: arguments.norm,
        eps,
        attacks: arguments.attacks.clone(),
        seed: arguments.seed,
        batch: arguments.batch,
    };
    let mut options = arguments.subject.options(request, arguments.n, arguments.out.clone())?;
    let ranks = Ranks::join()?;
    options.team = Arc::new(ranks.settle(ranks.team(&arguments.shard))?);
    ranks.settle(arguments.subject.run(&options))
}

/// `train merge`.
pub fn merge(arguments: &Merge) -> Result<u8> {
    let plan = Plan::read(&arguments.shards[0])?;
    let request = Request {
        norm: plan.norm,
        eps: plan.eps.clone(),
        attacks: plan.attacks.clone(),
        seed: plan.seed,
        batch: plan.batch,
    };
    let mut options = arguments.subject.options(request, Some(plan.images.n), Some(arguments.out.clone()))?;
    options.merge = arguments.shards.clone();
    arguments.subject.run(&options)
}

/// Proves l2 radii by randomised smoothing (Cohen et al., 2019); resumable.
#[derive(Args)]
pub struct Certify {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Standard deviation of the noise, pixels in [0, 1].
    #[arg(long, default_value = "0.12")]
    sigma: f64,
    /// Test images, stratified [default: 100, or all].
    #[arg(long)]
    n: Option<usize>,
    /// Folder of the images, where they do not lie where the run found them.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Draws an image that choose the class.
    #[arg(long, default_value_t = 100)]
    choose: usize,
    /// Draws an image that bound its share.
    #[arg(long, default_value_t = 100_000)]
    draws: usize,
    /// Chance that a certificate is wrong.
    #[arg(long, default_value_t = 0.001)]
    alpha: f64,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where it computes.
    #[arg(long, value_name = "auto|cpu|cuda", default_value = "auto", value_parser = named::<Choice>)]
    device: Choice,
    /// File of the certificates [default: certificates-SIGMA.json in the run folder]; until all are there, each has a file beside it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Do only this part of the images, for example 2/4, or the task's part of a Slurm job array; the last part writes the file.
    #[arg(long, value_name = "I/N|auto", default_value = "1/1")]
    shard: String,
}

/// `train certify`.
pub fn certify(arguments: &Certify) -> Result<u8> {
    let ranks = Ranks::join()?;
    ranks.settle(certify_among(arguments, &ranks))
}

fn certify_among(arguments: &Certify, ranks: &Ranks) -> Result<u8> {
    let smoothing = Smoothing {
        sigma: arguments.sigma,
        n0: arguments.choose,
        n: arguments.draws,
        alpha: arguments.alpha,
        seed: arguments.seed,
    };
    smoothing.check()?;
    let team = ranks.team(&arguments.shard)?;
    let trained = Trained::open(&arguments.run, arguments.data.as_deref())?;
    let set = trained.splits.test.head(trained.count(arguments.n, 100)?);
    let served = trained.logit_model(&arguments.device.open_for(team.local())?)?;
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => arguments.run.join(format!("certificates-{}.json", arguments.sigma)),
    };
    let stop = interrupt::flag()?;
    let certificates = match certify::certify(smoothing, &served, &set, &out, &team, &stop)? {
        certify::Ended::Done(certificates) => certificates,
        certify::Ended::Waiting(missing) => {
            say!("{}: this part is done; {missing} images of other shards are missing", out.display());
            return Ok(0);
        }
        certify::Ended::Elsewhere => return Ok(0),
        certify::Ended::Stopped(there) => {
            if ranks.speaks() {
                say!("stopped with {there} images done; the same command goes on in {}", out.display());
            }
            return Ok(interrupt::EXIT);
        }
    };
    say!(
        "smoothed {}: sigma {}, {} + {} draws, alpha {}; {} images; largest provable radius {:.3} (l_2)",
        trained.config.objective.kind.name(),
        smoothing.sigma,
        smoothing.n0,
        smoothing.n,
        smoothing.alpha,
        set.len(),
        smoothing.best_radius()
    );
    let radii: Vec<f64> = (0..8).map(|k| smoothing.best_radius() * f64::from(k) / 8.0).collect();
    for (radius, share) in radii.iter().zip(certificate::certified(&certificates, &set.labels, &radii)) {
        say!("  right and certified at l_2 radius {radius:.3}   {share}");
    }
    say!("{}", out.display());
    Ok(0)
}

/// Puts reports of several models side by side, as a Markdown table; a name that comes more than once is one row of
/// means over its runs.
#[derive(Args)]
pub struct Compare {
    /// Folders of evaluations of the same images and attacks, as DIR or NAME=DIR.
    #[arg(required = true, value_name = "[NAME=]DIR")]
    evaluations: Vec<String>,
    /// Also write the table here.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also draw robust accuracy against the radius, a line an evaluation: a PNG.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// `train compare`.
pub fn compare(arguments: &Compare) -> Result<u8> {
    let read = |text: &String| {
        let (name, path) = text.split_once('=').unwrap_or((text, text));
        Ok((name.to_string(), Report::read(std::path::Path::new(path))?))
    };
    let reports = arguments.evaluations.iter().map(read).collect::<Result<Vec<_>>>()?;
    let text = report::compare(&reports)?;
    say!("{}", text.trim_end());
    if let Some(out) = &arguments.out {
        files::write(out, text.as_bytes())?;
    }
    if let Some(picture) = &arguments.picture {
        files::write(picture, &report::curves(&reports)?)?;
    }
    Ok(0)
}

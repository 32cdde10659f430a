//! `train evaluate` and `train merge`: from a run or a bundle to its report.

use super::subject::{self, Respondent, Trained};
use super::{Abstention, Report};
use crate::answer::Record;
use crate::answer::{Predictions, predictions};
use crate::attack::evasion::{self, Guarded};
use crate::attack::expectation::Stochastic;
use crate::attack::int8::Int8;
use crate::attack::model::Classifier;
use crate::attack::suite::{self, Entry, Surrogate};
use crate::attack::threat::{self, Ball, Norm};
use crate::attack::{Outcome, Victim, pixels, samples};
use crate::dataset::{Dataset, foreign};
use crate::device::{Choice, Precision};
use crate::evaluate::confidence::{self, Quality};
use crate::evaluate::masking::{self, Checks};
use crate::evaluate::plan::{Identity, Plan, Request};
use crate::evaluate::points;
use crate::evaluate::radius::Radius;
use crate::evaluate::work::{Shard, Work, inspect};
use crate::export::confidence::fit_float;
use crate::files;
use crate::statistics::{Proportion, Share};
use anyhow::{Context, Result};
use candle_core::Device;
use paradise_engine::Model;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Test images of an evaluation unless told otherwise.
pub const USUAL: usize = 2000;
/// Images of the masking checks at most.
const CHECKED: usize = 200;
/// Images of each corruption at most.
const CORRUPTED: usize = 500;
/// Images of the adaptive attack at most, and its steps.
const EVADED: usize = 500;
const EVASION_STEPS: usize = 100;

/// What is evaluated, and where its report goes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Run folder.
    pub run: PathBuf,
    /// Bundle made from that run, whose int8 engine is attacked in its place.
    pub bundle: Option<PathBuf>,
    /// Whether the classifier is fed a sample of the posterior instead of its mean.
    pub sampled: bool,
    /// Run of an undefended model.
    pub surrogate: Option<PathBuf>,
    /// Folders of other models' evaluations of the same images, whose points are tried too.
    pub points: Vec<PathBuf>,
    /// Where it computes; the int8 engine of a bundle is the CPU's.
    pub device: Choice,
    /// Norm, radii, attacks, seed, batch.
    pub request: Request,
    /// Folder of the images, where they do not lie where the run found them.
    pub data: Option<PathBuf>,
    /// Test images, stratified; [`USUAL`] or all where no number is given.
    pub n: Option<usize>,
    /// Folder of the evaluation; in the run's folder where none is given.
    pub out: Option<PathBuf>,
    /// Which batches are done here.
    pub shard: Shard,
    /// Folders of shards that are merged first.
    pub merge: Vec<PathBuf>,
    /// Whether the masking checks are run.
    pub checks: bool,
    /// Whether confidence is measured.
    pub confidence: bool,
    /// Other data sets: name and folder.
    pub foreign: Vec<(String, PathBuf)>,
}

/// How a command ended.
#[derive(Debug)]
pub enum Ended {
    /// The report is in this folder.
    Done(Box<Report>, PathBuf),
    /// This shard is done; so many units of others are missing.
    Waiting(usize, PathBuf),
    /// Interrupted; the same command goes on.
    Stopped(PathBuf),
}

/// Runs or goes on with an evaluation.
///
/// # Errors
/// With the path or setting that is wrong.
pub fn evaluate(options: &Options, stop: &AtomicBool) -> Result<Ended> {
    let wanted = suite::read(&options.request.attacks)?;
    let trained = Trained::open(&options.run, options.data.as_deref())?;
    let set = trained.splits.test.head(trained.count(options.n, USUAL)?);
    let device = if options.bundle.is_some() { Device::Cpu } else { options.device.open()? };
    let served = trained.served(&device)?;
    inspect(&served, &set)?;
    // Read now, so that a wrong path is not found after hours.
    let others = foreign::named(&options.foreign, trained.splits.seen())?;
    let mut notes = Vec::new();
    let (mut identity, mut request) = (trained.identity(&served), options.request.clone());
    let bytes = options.bundle.as_ref().map(|b| subject::bundle_model(b, &trained)).transpose()?;
    let model = bytes.as_ref().map(|b| Model::parse(b)).transpose().context("model.pmq")?;
    if let Some(model) = &model {
        identity = subject::int8_identity(model);
        notes.push(
            "The int8 engine is attacked itself; gradients pass its rounding from the run's float network.".into(),
        );
        if request.norm == Norm::Linf && round_down(&mut request.eps) {
            notes.push("Radii are rounded down to whole 8-bit steps: the engine takes nothing between.".into());
        }
    }
    if options.sampled {
        identity.name.push_str(", sampled inference");
        notes.push("The classifier is fed one sample of the posterior, the same for the same image.".into());
    }
    let (surrogate, surrogate_identity) = open_surrogate(options, &served, &device)?;
    let mut plan = Plan::new(identity, surrogate_identity, &trained.splits.source, &set, request)?;
    let (known, found_on) = points::read(&options.points, &plan.images, set.shape.len() as usize)?;
    plan.points = found_on;
    let out = match &options.out {
        Some(out) => out.clone(),
        None => options.run.join("evaluations").join(plan.short_name()?),
    };
    let mut entries = suite::make(&wanted, served.classes(), surrogate.as_ref())?;
    if !known.is_empty() {
        // Last, on what a group like AutoAttack left standing, so that no other row changes.
        entries.push(Entry { attack: Box::new(known), survivors: true });
    }
    let work = Work::open(&out, &plan, &entries)?;
    work.gather(&options.merge)?;

    let engine = model.as_ref().map(Int8::new);
    let through = engine.as_ref().map(|engine| subject::int8_victim(engine, &served));
    let folded = trained.network.folded()?.on(&device, Precision::F32)?;
    let encoder = folded.frozen();
    let stochastic = Stochastic { encoder: &encoder, seed: plan.seed, draw: 0 };
    let victim = match &through {
        Some(through) => Victim::White(through),
        None if options.sampled => Victim::White(&stochastic),
        None => Victim::White(&served),
    };
    if options.merge.is_empty() && !work.run(victim, &set, options.shard, stop)? {
        return Ok(Ended::Stopped(out));
    }
    let missing = work.missing();
    if missing > 0 {
        return Ok(Ended::Waiting(missing, out));
    }
    let classifier = victim.classifier();
    let mut radii = Vec::new();
    let mut worst: Option<(Outcome, Predictions)> = None;
    for k in 0..plan.eps.len() {
        let (radius, outcome, on_grid) = Radius::of(&work, k, classifier, &set)?;
        radii.push(radius);
        worst = worst.or(Some((outcome, on_grid)));
    }
    let (worst, on_grid) = worst.context("a plan has a radius")?;
    let finish =
        Finish { options, out: &out, set: &set, victim, ball: plan.ball(0), seed: plan.seed, others: &others, stop };
    let Some(checks) = finish.checks(surrogate.as_ref())? else { return Ok(Ended::Stopped(out)) };

    let fitted = match (&model, options.confidence) {
        (None, true) => match fit_float(&folded, &trained.splits, confidence::FALSE_ABSTAIN) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                notes.push(format!("Confidence was not measured: {error:#}."));
                None
            }
        },
        _ => None,
    };
    let respondent = match (&bytes, &fitted) {
        (Some(bytes), _) if options.confidence => Some(Respondent::Int8(Model::parse(bytes)?)),
        (_, Some(bytes)) => Some(Respondent::Float(&folded, Model::parse(bytes)?)),
        _ => None,
    };
    let (mut quality, mut abstention) = (None, None);
    if let Some(respondent) = &respondent {
        if stop.load(Ordering::Relaxed) {
            return Ok(Ended::Stopped(out));
        }
        quality = Some(finish.confidence(respondent)?);
        let guarded = Guarded::new(&trained.network, respondent.model())?.on(&device)?;
        abstention = Some(finish.abstention(respondent, &guarded, &worst)?);
    }
    let report = Report {
        paradise: env!("CARGO_PKG_VERSION").into(),
        plan: plan.clone(),
        labels: trained.splits.labels.clone(),
        clean: predictions(classifier, &set)?.correct_share().into(),
        radii,
        checks,
        respondent: respondent.as_ref().map_or("none", Respondent::name).into(),
        confidence: quality,
        abstention,
        notes,
    };
    report.write(&out, &set, &worst, &on_grid.classes)?;
    Ok(Ended::Done(Box::new(report), out))
}

/// Rounds radii down to whole 8-bit steps; whether that changed one.
fn round_down(eps: &mut [f32]) -> bool {
    let mut changed = false;
    for e in eps {
        let whole = threat::whole_steps(*e) / 255.0;
        changed |= (whole - *e).abs() > 1e-5;
        *e = whole;
    }
    changed
}

fn open_surrogate(
    options: &Options,
    victim: &dyn Classifier,
    device: &Device,
) -> Result<(Option<Surrogate>, Option<Identity>)> {
    let Some(run) = &options.surrogate else { return Ok((None, None)) };
    let trained = Trained::open(run, options.data.as_deref())?;
    let served = trained.served(device)?;
    subject::check_surrogate(&served, victim)?;
    let identity = trained.identity(&served);
    Ok((Some(Arc::new(served)), Some(identity)))
}

/// What follows the attacks; each part is kept in a file of its own.
struct Finish<'a> {
    options: &'a Options,
    out: &'a Path,
    set: &'a Dataset,
    victim: Victim<'a>,
    ball: Ball,
    seed: u64,
    others: &'a [(String, Dataset)],
    stop: &'a AtomicBool,
}

impl Finish<'_> {
    /// The checks, `Some(None)` where they are not wanted; `None` when interrupted.
    fn checks(&self, surrogate: Option<&Surrogate>) -> Result<Option<Option<Checks>>> {
        if !self.options.checks {
            return Ok(Some(None));
        }
        if let Some(checks) = Checks::kept(self.out)? {
            return Ok(Some(Some(checks)));
        }
        if self.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let few = self.set.head(CHECKED);
        eprintln!("masking checks on {} images", few.len());
        let checks = masking::checks(self.victim, surrogate, self.ball, &few, self.seed)?;
        checks.keep(self.out)?;
        Ok(Some(Some(checks)))
    }

    fn confidence(&self, respondent: &Respondent) -> Result<Quality> {
        let path = self.out.join("work/confidence.json");
        let names: Vec<&str> = self.others.iter().map(|f| &*f.0).collect();
        if let Some(quality) = files::read_json::<Quality>(&path)? {
            let there: Vec<&str> = quality.foreign.iter().map(|f| &*f.name).collect();
            if there.ends_with(&names) && there.len() == names.len() + MADE {
                return Ok(quality);
            }
        }
        eprintln!("confidence on {} test images, foreign ones and corruptions", self.set.len());
        let (answers, home) = (|set: &Dataset| respondent.records(set), respondent.records(self.set)?);
        let quality = confidence::measure(&answers, self.set, &home, self.others, CORRUPTED, self.seed)?;
        files::write(&path, serde_json::to_string(&quality)?.as_bytes())?;
        Ok(quality)
    }

    fn abstention(&self, respondent: &Respondent, guarded: &Guarded, worst: &Outcome) -> Result<Abstention> {
        let path = self.out.join("work/abstention.json");
        if let Some(abstention) = files::read_json(&path)? {
            return Ok(abstention);
        }
        // The first images, so that the worst case at hand is theirs.
        let n = EVADED.min(self.set.len());
        let few = self.set.select(&(0..n).collect::<Vec<_>>());
        let fooled = |set: &Dataset| -> Result<Vec<bool>> {
            let records = respondent.records(set)?;
            let one = |(r, l): (&Record, &u16)| r.accept && r.class != *l;
            Ok(records.iter().zip(&few.labels).map(one).collect())
        };
        eprintln!("adaptive attack on abstention, {n} images");
        let pixels = pixels(&few);
        let attempts = evasion::evade(guarded, self.ball, &samples(&few, &pixels), EVASION_STEPS, self.seed)?;
        let adaptive = fooled(&Outcome::from_attempts(self.ball, attempts).on_grid(&few))?;
        let plain = fooled(&worst.on_grid(self.set).select(&(0..n).collect::<Vec<_>>()))?;
        let clean = fooled(&few)?;
        let share = |flags: &[bool]| -> Share { Proportion::of(flags.iter().copied()).into() };
        let any: Vec<bool> = (0..n).map(|i| clean[i] || plain[i] || adaptive[i]).collect();
        let abstention = Abstention {
            n,
            eps: self.ball.eps,
            steps: EVASION_STEPS,
            clean: share(&clean),
            plain: share(&plain),
            adaptive: share(&adaptive),
            worst: share(&any),
        };
        files::write(&path, serde_json::to_string(&abstention)?.as_bytes())?;
        Ok(abstention)
    }
}

/// Foreign sets that are made from the test images.
const MADE: usize = 3;

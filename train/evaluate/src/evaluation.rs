//! A whole evaluation of one model: units of work that resume and shard, the masking checks, what confidence is worth, the
//! report.

use crate::abstention::Abstention;
use crate::confidence::{self, Quality};
use crate::masking::{self, Checks};
use crate::plan::{Identity, Request};
use crate::points;
use crate::prediction::{PredictedClasses, Prediction, classify};

use crate::radius::Radius;
use crate::report::Report;
use crate::selection::Selection;
use crate::work::Work;
use anyhow::{Context, Result};
use paradise_attack::abstaining::AbstainingModel;
use paradise_attack::suite::{self, Entry, Surrogate};
use paradise_attack::{Outcome, Victim};
use paradise_data::Dataset;
use paradise_data::foreign::MADE;
use paradise_support::files;
use paradise_support::team::Team;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use crate::plan::Plan;

/// Images of the masking checks at most.
const CHECKED: usize = 200;
/// Images of each corruption at most.
const CORRUPTED: usize = 500;
/// Images of the adaptive attack at most.
const EVADED: usize = 500;
/// Steps of each of its walks.
pub const EVASION_STEPS: usize = 100;

/// What is evaluated.
pub struct Subject<'a> {
    /// Which model it is.
    pub identity: Identity,
    /// The model as attacks run it.
    pub victim: Victim<'a>,
    /// An undefended model of the same images, and which one it is.
    pub surrogate: Option<(Surrogate, Identity)>,
    /// Test images.
    pub set: &'a Dataset,
    /// Where they came from.
    pub source: &'a str,
    /// Names of the classes.
    pub labels: &'a [String],
    /// What a reader of the report should know.
    pub notes: Vec<String>,
}

/// A model that says how sure it is, as a device would.
pub trait ConfidentModel {
    /// `float` or `int8`, as reports name it.
    fn name(&self) -> &'static str;

    /// What a device would say of each image.
    ///
    /// # Errors
    /// If the images do not fit.
    fn predict(&self, set: &Dataset) -> Result<Vec<Prediction>>;

    /// Images that confidence was calibrated on.
    fn calibration(&self) -> &Dataset;

    /// The model as the adaptive attack sees it.
    ///
    /// # Errors
    /// If there is no float network behind it, or its device has no room.
    fn abstaining(&self) -> Result<AbstainingModel<'_>>;
}

/// What is measured beside accuracy, and where everything goes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Norm, radii, attacks, seed, batch.
    pub request: Request,
    /// Folders of other models' evaluations of the same images, whose points are tried, too.
    pub points: Vec<PathBuf>,
    /// Those who share out the batches; the masking checks, confidence and the report are one's work.
    pub team: Arc<dyn Team>,
    /// Folders of shards that are merged first; then nothing is attacked.
    pub merge: Vec<PathBuf>,
    /// Whether the masking checks are run.
    pub checks: bool,
    /// Other data sets for confidence: name and images.
    pub foreign: Vec<(String, Dataset)>,
}

/// How an evaluation ended.
#[derive(Debug)]
pub enum Ended {
    /// The report is in this folder.
    Done(Box<Report>, PathBuf),
    /// This shard is done; so many units of others are missing.
    Waiting(usize, PathBuf),
    /// Another process of the team writes the report.
    Elsewhere,
    /// Interrupted; the same call goes on.
    Stopped(PathBuf),
}

/// Runs or goes on with an evaluation in the folder that `out` gives for its plan. `confident` makes the model whose confidence
/// is measured, once all attacks are done; none where it is not wanted, and notes of its own for the report.
///
/// # Errors
/// With the path or setting that is wrong.
pub fn evaluate<'c>(
    subject: Subject,
    settings: &Settings,
    out: impl FnOnce(&Plan) -> Result<PathBuf>,
    confident: impl FnOnce(&mut Vec<String>) -> Result<Option<Box<dyn ConfidentModel + 'c>>>,
    stop: &AtomicBool,
) -> Result<Ended> {
    let Subject { identity, victim, surrogate, set, source, labels, mut notes } = subject;
    let (surrogate, surrogate_identity) = surrogate.unzip();
    let wanted = suite::read(&settings.request.attacks)?;
    let mut plan = Plan::new(identity, surrogate_identity, source, set, settings.request.clone())?;
    let (known, found_on) = points::read(&settings.points, &plan.images, set.shape.len() as usize)?;
    plan.points = found_on;
    let out = out(&plan)?;
    let classifier = victim.classifier();
    let mut entries = suite::make(&wanted, classifier.classes(), surrogate.as_ref())?;
    if !known.is_empty() {
        // Last, on what a group like AutoAttack left standing, so that no other row changes.
        entries.push(Entry { attack: Box::new(known), survivors: true });
    }
    let work = Work::open(&out, &plan, &entries)?;
    work.gather(&settings.merge)?;
    let team = &*settings.team;
    let stopped = settings.merge.is_empty() && !work.run(victim, set, team.shard(), stop)?;
    if team.meet(stopped)? {
        return Ok(Ended::Stopped(out));
    }
    if !team.concludes() {
        return Ok(Ended::Elsewhere);
    }
    let missing = work.missing();
    if missing > 0 {
        return Ok(Ended::Waiting(missing, out));
    }
    let mut radii = Vec::new();
    let mut worst: Option<(Outcome, PredictedClasses)> = None;
    for k in 0..plan.eps.len() {
        let (radius, outcome, on_grid) = Radius::of(&work, k, classifier, set)?;
        radii.push(radius);
        worst = worst.or(Some((outcome, on_grid)));
    }
    let (worst, on_grid) = worst.context("a plan has a radius")?;
    let finish = Finish { plan: &plan, settings, out: &out, set, victim, stop };
    let Some(checks) = finish.checks(surrogate.as_ref())? else { return Ok(Ended::Stopped(out)) };

    let confident = confident(&mut notes)?;
    let (mut quality, mut abstention) = (None, None);
    if let Some(model) = &confident {
        if stop.load(Ordering::Relaxed) {
            return Ok(Ended::Stopped(out));
        }
        quality = Some(finish.confidence(&**model)?);
        abstention = Some(finish.abstention(&**model, &worst)?);
    }
    let report = Report {
        paradise: env!("CARGO_PKG_VERSION").into(),
        labels: labels.to_vec(),
        clean: classify(classifier, set)?.correct_share(),
        radii,
        checks,
        confidence_of: confident.as_ref().map_or("none", |m| m.name()).into(),
        confidence: quality,
        abstention,
        notes,
        plan: plan.clone(),
    };
    report.write(&out, set, &worst, &on_grid.classes)?;
    Ok(Ended::Done(Box::new(report), out))
}

/// What follows the attacks; each part is kept in a file of its own.
struct Finish<'a> {
    plan: &'a Plan,
    settings: &'a Settings,
    out: &'a Path,
    set: &'a Dataset,
    victim: Victim<'a>,
    stop: &'a AtomicBool,
}

impl Finish<'_> {
    /// The checks, `Some(None)` where they are not wanted; `None` when interrupted.
    fn checks(&self, surrogate: Option<&Surrogate>) -> Result<Option<Option<Checks>>> {
        if !self.settings.checks {
            return Ok(Some(None));
        }
        if let Some(checks) = Checks::kept(self.out)? {
            return Ok(Some(Some(checks)));
        }
        if self.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let few = self.set.head(CHECKED);
        tracing::info!("masking checks on {} images", few.len());
        let checks = masking::checks(self.victim, surrogate, self.plan.ball(0), &few, self.plan.seed)?;
        checks.keep(self.out)?;
        Ok(Some(Some(checks)))
    }

    fn confidence(&self, model: &dyn ConfidentModel) -> Result<Quality> {
        let path = self.out.join("work/confidence.json");
        let others = &self.settings.foreign;
        let names: Vec<&str> = others.iter().map(|f| &*f.0).collect();
        if let Some(quality) = files::read_json::<Quality>(&path)? {
            let there: Vec<&str> = quality.foreign.iter().map(|f| &*f.name).collect();
            if there.ends_with(&names) && there.len() == names.len() + MADE {
                return Ok(quality);
            }
        }
        tracing::info!("confidence on {} test images, foreign ones and corruptions", self.set.len());
        let (answers, home) = (|set: &Dataset| model.predict(set), model.predict(self.set)?);
        let calibration = model.calibration();
        let selection = Selection::fit(&model.predict(calibration)?, calibration);
        let quality = confidence::measure(&answers, self.set, &home, &selection, others, CORRUPTED, self.plan.seed)?;
        files::write(&path, serde_json::to_string(&quality)?.as_bytes())?;
        Ok(quality)
    }

    fn abstention(&self, model: &dyn ConfidentModel, worst: &Outcome) -> Result<Abstention> {
        let path = self.out.join("work/abstention.json");
        if let Some(abstention) = files::read_json(&path)? {
            return Ok(abstention);
        }
        // The first images, so that the worst case at hand is theirs.
        let n = EVADED.min(self.set.len());
        let few = self.set.select(&(0..n).collect::<Vec<_>>());
        tracing::info!("adaptive attack on abstention, {n} images");
        let attacked = worst.on_grid(self.set).select(&(0..n).collect::<Vec<_>>());
        let (ball, seed) = (self.plan.ball(0), self.plan.seed);
        let abstention = Abstention::measure(model, &few, &attacked, ball, EVASION_STEPS, seed)?;
        files::write(&path, serde_json::to_string(&abstention)?.as_bytes())?;
        Ok(abstention)
    }
}

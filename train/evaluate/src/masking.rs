//! The checks that tell real robustness from masked gradients (Athalye et al., 2018; Carlini et al., 2019; Croce & Hein,
//! 2020; Pintor et al., 2022), each with its number, the limit it is held to and a verdict.

use crate::prediction::classify;
use anyhow::Result;
use paradise_attack::diagnosis::{self, Path};
use paradise_attack::loss::descending;
use paradise_attack::suite::{self, Surrogate};
use paradise_attack::threat::{Ball, Norm};
use paradise_attack::{Attempt, Sample, Victim, in_batches, joined, launch, pixels, samples};
use paradise_data::Dataset;
use paradise_support::files;
use paradise_support::progress::Watched;
use serde::{Deserialize, Serialize};

/// Their file in an evaluation's folder.
const NAME: &str = "work/checks.json";

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As an honest evaluation has it.
    Passed,
    /// As masked gradients, or an attack that is too weak, have it.
    Flagged,
    /// It needs what there is not.
    NotRun,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Short name.
    pub name: String,
    /// What was measured, in words.
    pub measured: String,
    /// The number.
    pub value: Option<f64>,
    /// When it is flagged, or why it was not run.
    pub limit: String,
    /// How it came out.
    pub verdict: Verdict,
}

/// All checks of one model at one radius.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checks {
    /// Images.
    pub n: usize,
    /// Radius in [0, 1] pixel units.
    pub eps: f32,
    /// A line each.
    pub checks: Vec<Check>,
}

impl Checks {
    /// Those of the evaluation in `folder`, if they were run.
    ///
    /// # Errors
    /// If their file is damaged.
    pub fn kept(folder: &std::path::Path) -> Result<Option<Self>> {
        files::read_json(&folder.join(NAME))
    }

    /// Keeps them in an evaluation's folder.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn keep(&self, folder: &std::path::Path) -> Result<()> {
        files::write(&folder.join(NAME), serde_json::to_string(self)?.as_bytes())
    }

    /// `14 passed, 2 flagged (transfer, zero gradients), 1 not run`.
    pub fn verdict(&self) -> String {
        let of = |v| self.checks.iter().filter(move |c| c.verdict == v);
        let names: Vec<&str> = of(Verdict::Flagged).map(|c| &*c.name).collect();
        let named = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        format!(
            "{} passed, {} flagged{named}, {} not run",
            of(Verdict::Passed).count(),
            names.len(),
            of(Verdict::NotRun).count()
        )
    }

    /// Whether any check is flagged.
    pub fn flagged(&self) -> bool {
        self.checks.iter().any(|c| c.verdict == Verdict::Flagged)
    }
}

/// Steps of the walks that are watched.
const STEPS: usize = 40;

/// A model under the checks.
struct Probe<'a> {
    victim: Victim<'a>,
    surrogate: Option<&'a Surrogate>,
    ball: Ball,
    samples: &'a [Sample<'a>],
    seed: u64,
}

impl Probe<'_> {
    fn classes(&self) -> usize {
        self.victim.classifier().classes()
    }

    /// Attacks by name, with a bar.
    fn attempts(&self, attack: &str, ball: Ball, samples: &[Sample]) -> Result<Vec<Attempt>> {
        let bar = Watched::new(samples.len() as u64, &format!("masking checks, {attack}"));
        let attack = suite::single(attack, self.classes(), self.surrogate)?;
        let attempts = launch(&*attack, self.victim, ball, samples, self.seed, &|n| bar.inc(n as u64))?;
        bar.close();
        Ok(attempts)
    }

    /// Which images an attack breaks in a ball.
    fn broken(&self, attack: &str, ball: Ball) -> Result<Vec<bool>> {
        let attempts = self.attempts(attack, ball, self.samples)?;
        Ok(attempts.into_iter().map(|a| a.broken).collect())
    }

    /// Which of the images that `standing` allows an attack breaks.
    fn beyond(&self, attack: &str, broken: &[bool]) -> Result<usize> {
        let standing: Vec<Sample> = self.samples.iter().zip(broken).filter(|(_, b)| !**b).map(|(s, _)| *s).collect();
        let attempts = self.attempts(attack, self.ball, &standing)?;
        Ok(attempts.into_iter().filter(|a| a.broken).count())
    }

    fn percent(&self, images: usize) -> f64 {
        100.0 * images as f64 / self.samples.len() as f64
    }
}

fn count(flags: &[bool]) -> usize {
    flags.iter().filter(|f| **f).count()
}

fn either(a: &[bool], b: &[bool]) -> Vec<bool> {
    a.iter().zip(b).map(|(a, b)| *a || *b).collect()
}

/// A check whose value must not exceed `limit`.
fn at_most(name: &str, measured: impl Into<String>, value: f64, limit: f64, unit: &str) -> Check {
    let verdict = if value <= limit { Verdict::Passed } else { Verdict::Flagged };
    Check {
        name: name.into(),
        measured: measured.into(),
        value: Some(value),
        limit: format!("flagged above {limit} {unit}"),
        verdict,
    }
}

fn not_run(name: &str, why: &str) -> Check {
    Check { name: name.into(), measured: String::new(), value: None, limit: why.into(), verdict: Verdict::NotRun }
}

/// Runs every check on `set`; without a surrogate (an undefended model for the same images) two of them are not run.
///
/// # Errors
/// If the ball is out of range or the model fails.
pub fn checks(victim: Victim, surrogate: Option<&Surrogate>, ball: Ball, set: &Dataset, seed: u64) -> Result<Checks> {
    let pixels = pixels(set);
    let samples = samples(set, &pixels);
    let probe = Probe { victim, surrogate, ball, samples: &samples, seed };
    let mut all = answers(&probe, set)?;
    let mut white = vec![false; set.len()];
    if let Victim::White(model) = victim {
        let cross_entropy = probe.broken("apgd-ce", ball)?;
        white = either(&cross_entropy, &probe.broken("apgd-t", ball)?);
        all.extend(gradients(&probe, model, &cross_entropy, &white)?);
    } else {
        all.push(not_run("gradients", "the model gives none"));
    }
    all.extend(without_gradients(&probe, &white)?);
    all.extend(transfers(&probe, &white)?);
    Ok(Checks { n: set.len(), eps: ball.eps, checks: all })
}

/// Checks of the model's answers alone, AutoAttack's warnings among them.
fn answers(probe: &Probe, set: &Dataset) -> Result<Vec<Check>> {
    let model = probe.victim.classifier();
    let classes = model.classes();
    let images = joined(probe.samples);
    let logits = model.logits(&images)?;
    let mut differ = 0;
    for _ in 0..4 {
        let again = model.logits(&images)?;
        let changed = |(a, b): (&[f32], &[f32])| a != b;
        let now = logits.chunks_exact(classes).zip(again.chunks_exact(classes)).filter(|p| changed(*p)).count();
        differ = differ.max(now);
    }
    // A model that can be redrawn answers at random even where one draw repeats itself.
    if matches!(probe.victim, Victim::White(model) if model.redrawn(1).is_some()) {
        differ = probe.samples.len();
    }
    let is_softmax =
        |z: &[f32]| z.iter().all(|v| (0.0..=1.0).contains(v)) && (z.iter().sum::<f32>() - 1.0).abs() < 1e-3;
    let softmax = logits.chunks_exact(classes).filter(|z| is_softmax(z)).count();
    let attack = if matches!(probe.victim, Victim::White(_)) { "pgd:10x1" } else { "square:5" };
    let zero = probe.broken(attack, Ball { eps: 0.0, ..probe.ball })?;
    let clean = classify(model, set)?.correct_share().correct;
    let apart = clean.abs_diff(set.len() - count(&zero));
    Ok(vec![
        at_most("randomised model", "images whose logits differ among 5 passes", probe.percent(differ), 0.0, "%"),
        at_most("softmax in the model", "images whose logits are probabilities", probe.percent(softmax), 50.0, "%"),
        Check {
            name: "number of classes".into(),
            measured: "classes; the difference of logits ratio needs 4".into(),
            value: Some(classes as f64),
            limit: "below 4 the logit margin stands in for it".into(),
            verdict: Verdict::Passed,
        },
        at_most("eps = 0", "images by which accuracy differs from clean accuracy", apart as f64, 0.0, "images"),
    ])
}

/// The largest radius there is: the whole box.
fn whole_box(norm: Norm, values: usize) -> f32 {
    match norm {
        Norm::Linf => 1.0,
        Norm::L2 => (values as f32).sqrt(),
    }
}

/// Checks that follow gradients.
fn gradients(
    probe: &Probe,
    model: &dyn paradise_attack::Differentiable,
    cross_entropy: &[bool],
    white: &[bool],
) -> Result<Vec<Check>> {
    let (ball, n) = (probe.ball, probe.samples.len());
    let most = whole_box(ball.norm, model.shape().len() as usize);
    let wider = |eps: f32| Ball { eps: eps.min(most), ..ball };
    let robust = |broken: &[bool]| probe.percent(n - count(broken));
    let (single, pgd) = (probe.broken("fgsm", ball)?, probe.broken("pgd:40x1", ball)?);
    let mut curve = vec![robust(&probe.broken("pgd:40x1", wider(ball.eps / 2.0))?), robust(&pgd)];
    for factor in [2.0, 4.0] {
        curve.push(robust(&probe.broken("pgd:40x1", wider(ball.eps * factor))?));
    }
    let rise = curve.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
    let half = robust(&probe.broken("pgd:40x1", wider(0.5 * most))?);
    let chance = 100.0 / model.classes() as f64;
    let longer = either(&probe.broken("apgd-ce:200x1", ball)?, &probe.broken("apgd-ce:100x2", ball)?);
    let more = count(&either(cross_entropy, &longer)) - count(cross_entropy);
    let held = robust(&probe.broken("pgd:40x1", wider(most))?);

    let standing: Vec<Sample> = right(probe)?;
    let slopes = diagnosis::gradients(model, &standing)?;
    let vanished = slopes.chunks_exact(model.shape().len() as usize).filter(|g| diagnosis::vanishes(g)).count();
    let paths = diagnosis::paths(model, ball, &standing, STEPS, probe.seed)?;
    let share = |of: &dyn Fn(&Path) -> bool, among: usize| {
        100.0 * paths.iter().filter(|p| of(p)).count() as f64 / among.max(1) as f64
    };
    let kept = paths.iter().filter(|p| !p.wrong.contains(&true)).count();
    let rising = share(&|p| !p.wrong.contains(&true) && p.still_rises(10), kept);
    Ok(vec![
        at_most(
            "iterative against one step",
            "points by which PGD-40 leaves accuracy above FGSM's",
            (robust(&pgd) - robust(&single)).max(0.0),
            1.0,
            "points",
        ),
        at_most(
            "growth with eps",
            format!(
                "points by which accuracy rises from one radius to the next (eps / 2, eps, 2 eps, 4 eps: {})",
                list(&curve)
            ),
            rise,
            1.0,
            "points",
        ),
        at_most(
            "half the box",
            "accuracy under PGD-40 at eps 0.5 of the box, where every image can be made the same",
            half,
            chance,
            "%, chance",
        ),
        at_most("unbounded", "accuracy under PGD-40 without a bound", held, 1.0, "%"),
        at_most(
            "twice the budget",
            "images that APGD-CE breaks with twice the steps or restarts, and not without",
            probe.percent(more),
            2.0,
            "%",
        ),
        at_most(
            "losses agree",
            "images that APGD-T breaks and APGD-CE does not",
            probe.percent(count(white) - count(cross_entropy)),
            5.0,
            "%",
        ),
        at_most("zero gradients", "images without a gradient where they are", probe.percent(vanished), 1.0, "%"),
        at_most(
            "gradients on the way",
            "images whose gradient vanished at some step of PGD-40",
            share(&|p| p.without_gradient > 0, n),
            1.0,
            "%",
        ),
        at_most(
            "silent success",
            "images whose class was wrong on the way and right at the end",
            share(&Path::fell_silently, n),
            5.0,
            "%",
        ),
        at_most(
            "loss still rises",
            format!(
                "of the {kept} images that held, those whose loss rose by over a tenth of its rise in the last 10 of 40 steps"
            ),
            rising,
            // One image is no sign of anything.
            10.0f64.max((100.0 / kept.max(1) as f64).round()),
            "%",
        ),
    ])
}

fn list(percents: &[f64]) -> String {
    percents.iter().map(|p| format!("{p:.1}")).collect::<Vec<_>>().join(", ")
}

/// The images that are classified right.
fn right<'a>(probe: &Probe<'a>) -> Result<Vec<Sample<'a>>> {
    let model = probe.victim.classifier();
    let logits = model.logits(&joined(probe.samples))?;
    let rows = probe.samples.iter().zip(logits.chunks_exact(model.classes()));
    Ok(rows.filter(|(s, z)| descending(z)[0] == s.label).map(|(s, _)| *s).collect())
}

/// Attacks that need no gradient must find nothing that those with gradients did not: over 0.2 points (AutoAttack's
/// limit), and more than one image.
fn without_gradients(probe: &Probe, white: &[bool]) -> Result<Vec<Check>> {
    let gradients = matches!(probe.victim, Victim::White(_));
    let mut all = Vec::new();
    for (name, attack, words) in [
        ("gradient-free", "square:2000", "Square with 2,000 queries"),
        ("decision-based", "hop-skip-jump:2000", "HopSkipJump with 2,000 queries"),
        ("noise", "noise:100", "100 draws of noise"),
    ] {
        if gradients {
            let more = probe.beyond(attack, white)?;
            let limit = 0.2f64.max(probe.percent(1));
            all.push(at_most(
                name,
                format!("images that {words} break and APGD-CE and APGD-T do not"),
                probe.percent(more),
                limit,
                "%",
            ));
        }
    }
    let robust = probe.percent(probe.samples.len() - count(white));
    let (agree, every) = stability(probe, 20)?;
    let contradiction = if gradients { (robust - every).max(0.0) } else { 0.0 };
    all.push(at_most(
        "stability",
        format!(
            "points by which images said to be robust exceed those that kept their class in 20 random directions of \
             length eps ({every:.1} % of the images; {agree:.1} % of the directions)"
        ),
        contradiction,
        0.2f64.max(probe.percent(1)),
        "points",
    ));
    Ok(all)
}

/// Per cent of random directions that keep the right class, and of images that all of them leave right.
fn stability(probe: &Probe, draws: u64) -> Result<(f64, f64)> {
    use paradise_support::random::{self, Purpose, branch};
    let model = probe.victim.classifier();
    let of = |samples: &[Sample]| {
        let mut kept = vec![0u64; samples.len()];
        for draw in 0..draws {
            let at = |s: &Sample| {
                let mut rng = random::stream(probe.seed, Purpose::AttackProbe, branch::MASKING_PROBE, s.key, draw);
                probe.ball.random_start(s.clean, 1.0, &mut rng)
            };
            let points: Vec<f32> = samples.iter().flat_map(at).collect();
            let logits = model.logits(&points)?;
            for ((k, s), z) in kept.iter_mut().zip(samples).zip(logits.chunks_exact(model.classes())) {
                *k += u64::from(descending(z)[0] == s.label);
            }
        }
        Ok(kept)
    };
    let kept = in_batches(model, probe.samples, 1, of)?;
    let n = probe.samples.len() as f64;
    let every = kept.iter().filter(|k| **k == draws).count() as f64;
    Ok((100.0 * kept.iter().sum::<u64>() as f64 / (n * draws as f64), 100.0 * every / n))
}

/// Checks that need an undefended model of the same images.
fn transfers(probe: &Probe, white: &[bool]) -> Result<Vec<Check>> {
    let Some(surrogate) = probe.surrogate else {
        let why = "needs an undefended model of the same images";
        return Ok(vec![not_run("transfer", why), not_run("attack validated", why)]);
    };
    let more = probe.beyond("transfer-pgd:40x1", white)?;
    let undefended = Probe { victim: Victim::White(&**surrogate), surrogate: None, ..*probe };
    let wide = match probe.ball.norm {
        Norm::Linf => 0.3,
        // The corner of an l_inf ball of 0.1.
        Norm::L2 => 0.1 * whole_box(Norm::L2, surrogate.shape().len() as usize),
    };
    let fell = count(&undefended.broken("apgd-ce", Ball { eps: wide, ..probe.ball })?);
    Ok(vec![
        at_most(
            "transfer",
            "images that PGD-40 on the surrogate breaks and APGD-CE and APGD-T on the model itself do not",
            probe.percent(more),
            1.0,
            "%",
        ),
        at_most(
            "attack validated",
            format!("accuracy of the surrogate under APGD-CE at eps {wide:.2}"),
            100.0 - undefended.percent(fell),
            1.0,
            "%",
        ),
    ])
}

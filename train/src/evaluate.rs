//! Accuracy, clean and robust: always the per-image worst case over all attacks run, with everything that was run.

use crate::attack::Outcome;
use crate::attack::gradient::Pgd;
use crate::dataset::Dataset;
use crate::encoder::Encoder;
use crate::progress;
use crate::statistics::Proportion;
use anyhow::{Result, bail, ensure};
use serde::Serialize;

/// Images run at once.
const BATCH: usize = 500;

/// The class of each image of a set, and whether it is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predictions {
    /// Predicted classes.
    pub classes: Vec<u16>,
    labels: Vec<u16>,
}

impl Predictions {
    /// Predictions and true classes of the same images.
    pub fn new(classes: Vec<u16>, labels: Vec<u16>) -> Self {
        Self { classes, labels }
    }

    /// The share that is right.
    pub fn correct_share(&self) -> Proportion {
        Proportion::of(self.classes.iter().zip(&self.labels).map(|(a, b)| a == b))
    }

    /// The share on which two models agree.
    pub fn agreement(&self, other: &Self) -> Proportion {
        Proportion::of(self.classes.iter().zip(&other.classes).map(|(a, b)| a == b))
    }
}

/// Predictions of the float model on a set, the classifier fed mu.
///
/// # Errors
/// If the images do not fit the encoder or logits are not finite.
pub fn clean(encoder: &Encoder, set: &Dataset) -> Result<Predictions> {
    let all: Vec<usize> = (0..set.len()).collect();
    let mut classes = Vec::with_capacity(set.len());
    for ids in all.chunks(BATCH) {
        for row in encoder.logits(&set.batch(ids)?)?.to_vec2::<f32>()? {
            ensure!(row.iter().all(|l| l.is_finite()), "the model's logits are not finite");
            classes.push(paradise_engine::classifier::argmax(&row) as u16);
        }
    }
    Ok(Predictions::new(classes, set.labels.clone()))
}

/// One image: its posterior mean in two dimensions, and its class.
pub type Point = ([f32; 2], u16);

/// Posterior means of a set in the two latent dimensions where they spread most, and which those are.
///
/// # Errors
/// If the images do not fit the encoder, or it has one latent dimension.
pub fn latent(encoder: &Encoder, set: &Dataset) -> Result<(Vec<Point>, [usize; 2])> {
    let d = encoder.architecture.latent;
    ensure!(d >= 2, "a latent space of one dimension has no scatter");
    let all: Vec<usize> = (0..set.len()).collect();
    let mut means: Vec<Vec<f32>> = Vec::with_capacity(set.len());
    for ids in all.chunks(BATCH) {
        means.extend(encoder.encode(&set.batch(ids)?)?.mu.to_vec2::<f32>()?);
    }
    let spread = |k: usize| {
        let n = means.len() as f64;
        let mean = means.iter().map(|m| f64::from(m[k])).sum::<f64>() / n;
        means.iter().map(|m| (f64::from(m[k]) - mean).powi(2)).sum::<f64>() / n
    };
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|a, b| spread(*b).total_cmp(&spread(*a)));
    let axes = [order[0].min(order[1]), order[0].max(order[1])];
    Ok((means.iter().zip(&set.labels).map(|(m, l)| (axes.map(|a| m[a]), *l)).collect(), axes))
}

/// The attacks of a comma-separated list: `fgsm`, `pgd`, `adam-pgd`, each of the last two also as
/// `name:STEPSxRESTARTS` (default 40 x 2).
///
/// # Errors
/// With the name that is not known.
pub fn parse_attacks(list: &str) -> Result<Vec<Pgd>> {
    let attacks = list.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|item| {
        let (name, settings) = item.split_once(':').unwrap_or((item, "40x2"));
        let numbers: Vec<Option<usize>> = settings.split('x').map(|n| n.parse().ok()).collect();
        let (steps, restarts) = match numbers[..] {
            [Some(s @ 1..=100_000), Some(r @ 1..=1000)] => (s, r),
            _ => bail!("attack {item:?}: settings are STEPSxRESTARTS, for example 40x2"),
        };
        match name {
            "fgsm" => Ok(Pgd::fgsm()),
            "pgd" => Ok(Pgd::sign(steps, restarts)),
            "adam-pgd" => Ok(Pgd::adam(steps, restarts)),
            _ => bail!("attack {name:?} is not known; there are fgsm, pgd and adam-pgd"),
        }
    });
    let attacks = attacks.collect::<Result<Vec<_>>>()?;
    ensure!(!attacks.is_empty(), "no attack is named; there are fgsm, pgd and adam-pgd");
    Ok(attacks)
}

/// A robustness table, complete with what was run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Radius in [0, 1] pixel units.
    pub eps: f32,
    /// Always `l_inf`.
    pub norm: &'static str,
    /// Images.
    pub n: usize,
    /// Seed of the starts.
    pub seed: u64,
    /// Clean accuracy.
    pub clean: Proportion,
    /// Accuracy under each attack alone.
    pub attacks: Vec<(String, Proportion)>,
    /// Per-image worst case over all attacks.
    pub worst: Proportion,
    /// The same, of the images that remain broken after rounding to 8 bits.
    pub worst_on_grid: Proportion,
    /// Verdict of the gradient-masking checks.
    pub masking_checks: &'static str,
}

/// Runs every attack on `set` and takes the per-image worst case.
///
/// # Errors
/// If eps is out of range or logits are not finite.
pub fn robust(encoder: &Encoder, set: &Dataset, attacks: &[Pgd], eps: f32, seed: u64) -> Result<(Report, Outcome)> {
    let mut worst: Option<Outcome> = None;
    let mut rows = Vec::new();
    for attack in attacks {
        let bar = progress::bar(set.len() as u64, &attack.describe());
        let outcome = attack.run_reporting(encoder, set, eps, seed, &mut |n| bar.inc(n as u64))?;
        bar.finish_and_clear();
        rows.push((attack.describe(), outcome.robust_share()));
        worst = Some(match worst {
            Some(so_far) => so_far.worst(&outcome),
            None => outcome,
        });
    }
    let Some(worst) = worst else { bail!("no attack was named") };
    let on_grid = clean(encoder, &worst.on_grid(set))?;
    let report = Report {
        eps,
        norm: "l_inf",
        n: set.len(),
        seed,
        clean: clean(encoder, set)?.correct_share(),
        attacks: rows,
        worst: worst.robust_share(),
        worst_on_grid: on_grid.correct_share(),
        masking_checks: "not run",
    };
    Ok((report, worst))
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} images, {} eps {:.1}/255, seed {}", self.n, self.norm, self.eps * 255.0, self.seed)?;
        writeln!(f, "  {:<28}{}", "clean", self.clean)?;
        for (name, share) in &self.attacks {
            writeln!(f, "  {name:<28}{share}")?;
        }
        writeln!(f, "  {:<28}{}", "worst case per image", self.worst)?;
        writeln!(f, "  {:<28}{}", "  after rounding to 8 bits", self.worst_on_grid)?;
        write!(f, "  masking checks: {}   (intervals: Wilson, 95 %)", self.masking_checks)
    }
}

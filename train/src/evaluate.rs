//! Accuracy, clean and robust: always the per-image worst case over all attacks run, with everything that was run.

use crate::attack::model::Classifier;
use crate::attack::threat::Ball;
use crate::attack::{self, Attack, Outcome, Victim};
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

/// A model's classes on a set.
///
/// # Errors
/// If the images do not fit the model or logits are not finite.
pub fn predictions(model: &dyn Classifier, set: &Dataset) -> Result<Predictions> {
    let each = set.shape.len() as usize;
    ensure!(set.shape == model.shape(), "images are {:?}, the model takes {:?}", set.shape, model.shape());
    let batch = |images: &[u8]| -> Result<Vec<u16>> {
        let pixels: Vec<f32> = images.iter().map(|p| f32::from(*p) / 255.0).collect();
        let logits = model.logits(&pixels)?;
        Ok(logits.chunks_exact(model.classes()).map(|z| paradise_engine::classifier::argmax(z) as u16).collect())
    };
    Ok(Predictions::new(attack::in_batches(model, &set.images, each, batch)?, set.labels.clone()))
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
/// If the ball is out of range or logits are not finite.
pub fn robust(
    victim: Victim,
    set: &Dataset,
    attacks: &[&dyn Attack],
    ball: Ball,
    seed: u64,
) -> Result<(Report, Outcome)> {
    let pixels = attack::pixels(set);
    let samples = attack::samples(set, &pixels);
    let mut worst: Option<Outcome> = None;
    let mut rows = Vec::new();
    for attack in attacks {
        let bar = progress::bar(set.len() as u64, &attack.describe());
        let attempts = attack::launch(*attack, victim, ball, &samples, seed, &|n| bar.inc(n as u64))?;
        bar.finish_and_clear();
        let outcome = Outcome::from_attempts(ball, attempts);
        rows.push((attack.describe(), outcome.robust_share()));
        worst = Some(match worst {
            Some(so_far) => so_far.worst(&outcome),
            None => outcome,
        });
    }
    let Some(worst) = worst else { bail!("no attack was named") };
    let on_grid = predictions(victim.classifier(), &worst.on_grid(set))?;
    let report = Report {
        eps: ball.eps,
        norm: ball.norm.name(),
        n: set.len(),
        seed,
        clean: predictions(victim.classifier(), set)?.correct_share(),
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

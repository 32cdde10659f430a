//! A robustness table in one go, for small budgets: the demo's and the card's. Long evaluations go through
//! [`work`](super::work).

use crate::prediction::classify;
use anyhow::{Result, bail};
use paradise_attack::Ball;
use paradise_attack::{Attack, Outcome, Victim, launch, pixels, samples};
use paradise_data::Dataset;
use paradise_support::progress::Watched;
use paradise_support::statistics::Proportion;
use serde::Serialize;

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
}

/// Runs every attack on `set` and takes the per-image worst case.
///
/// ```
/// use paradise_attack::{Ball, Function, Victim, square::Square};
/// use paradise_data::Dataset;
/// use paradise_engine::Shape;
///
/// let logits = |x: &[f32]| Ok(x.iter().flat_map(|x| [x - 0.5, 0.5 - x]).collect());
/// let model = Function { shape: Shape::new(1, 1, 1), classes: 2, logits };
/// let set = Dataset::new(Shape::new(1, 1, 1), vec![130, 250], vec![0, 0])?;
/// let square = Square { queries: 50, ..Square::default() };
/// let victim = Victim::Black(&model);
/// let (table, _) = paradise_evaluate::robust::measure(victim, &set, &[&square], Ball::linf(8.0 / 255.0), 0)?;
/// assert_eq!((table.clean.correct, table.worst.correct), (2, 1));
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// If the ball is out of range or logits are not finite.
pub fn measure(
    victim: Victim,
    set: &Dataset,
    attacks: &[&dyn Attack],
    ball: Ball,
    seed: u64,
) -> Result<(Report, Outcome)> {
    let pixels = pixels(set);
    let samples = samples(set, &pixels);
    let mut worst: Option<Outcome> = None;
    let mut rows = Vec::new();
    for attack in attacks {
        let bar = Watched::new(set.len() as u64, &attack.describe());
        let attempts = launch(*attack, victim, ball, &samples, seed, &|n| bar.inc(n as u64))?;
        bar.close();
        let outcome = Outcome::from_attempts(ball, attempts);
        rows.push((attack.describe(), outcome.robust_share()));
        worst = Some(match worst {
            Some(so_far) => so_far.worst(&outcome),
            None => outcome,
        });
    }
    let Some(worst) = worst else { bail!("no attack was named") };
    let on_grid = classify(victim.classifier(), &worst.on_grid(set))?;
    let report = Report {
        eps: ball.eps,
        norm: ball.norm.name(),
        n: set.len(),
        seed,
        clean: classify(victim.classifier(), set)?.correct_share(),
        attacks: rows,
        worst: worst.robust_share(),
        worst_on_grid: on_grid.correct_share(),
    };
    Ok((report, worst))
}

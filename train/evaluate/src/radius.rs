//! The figures of one radius, put together from its units of work.

use super::work::{Fate, Work};
use crate::prediction::{PredictedClasses, classify};
use anyhow::{Result, ensure};
use paradise_attack::Classifier;
use paradise_attack::{Outcome, pixels};
use paradise_data::Dataset;
use paradise_support::statistics::Proportion;
use serde::{Deserialize, Serialize};

/// One attack at one radius.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name and settings.
    pub attack: String,
    /// Images it saw: all, or what the attacks before it in its group left standing.
    pub seen: usize,
    /// Images of all that kept their class; in a group, under it and all before it.
    pub robust: Proportion,
    /// Where only a drawn class counts: images that were led to it, of those that were right before.
    pub success: Option<Proportion>,
}

/// All attacks at one radius.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Radius {
    /// In [0, 1] pixel units.
    pub eps: f32,
    /// A row an attack.
    pub attacks: Vec<Row>,
    /// Per-image worst case over all of them.
    pub worst: Proportion,
    /// An image a character: 1 where it kept its class under every attack, 0 where not.
    pub held: String,
    /// The same once the images that broke a class are rounded to 8 bits, inside the ball.
    pub worst_on_grid: Proportion,
}

impl Radius {
    /// The figures of radius `k`, the per-image worst case, and what the model says of that on the 8-bit grid.
    ///
    /// # Errors
    /// If a unit is missing or damaged, or the model fails.
    pub fn of(
        work: &Work,
        k: usize,
        model: &dyn Classifier,
        set: &Dataset,
    ) -> Result<(Self, Outcome, PredictedClasses)> {
        let each = set.shape.len() as usize;
        let n = set.len();
        let ball = work.plan.ball(k);
        let mut worst = Outcome { ball, broken: vec![false; n], points: pixels(set) };
        let mut cascade = vec![false; n];
        let mut rows = Vec::new();
        for (a, entry) in work.entries.iter().enumerate() {
            let (mut seen, mut led, mut right, mut broken) = (0, 0, 0, vec![false; n]);
            for b in 0..work.plan.batches() {
                for (i, fate) in work.unit(k, a, b)? {
                    seen += 1;
                    broken[i] = fate != Fate::Held;
                    right += usize::from(fate != Fate::WrongBefore);
                    led += usize::from(matches!(fate, Fate::Broken(_)));
                    if let Fate::Broken(point) = fate {
                        ensure!(point.len() == each, "a point of {} values, images have {each}", point.len());
                        if !worst.broken[i] {
                            worst.points[i * each..(i + 1) * each].copy_from_slice(&point);
                        }
                    }
                    worst.broken[i] |= broken[i];
                }
            }
            if entry.survivors {
                cascade.iter_mut().zip(&broken).for_each(|(c, b)| *c |= b);
                broken.clone_from(&cascade);
            }
            let robust = Proportion::of(broken.iter().map(|b| !b));
            let success = entry.attack.wants_one_class().then_some(Proportion { correct: led, n: right });
            rows.push(Row { attack: entry.attack.describe(), seen, robust, success });
        }
        let on_grid = classify(model, &worst.on_grid(set))?;
        let figures = Self {
            eps: ball.eps,
            attacks: rows,
            worst: worst.robust_share(),
            held: worst.broken.iter().map(|b| if *b { '0' } else { '1' }).collect(),
            worst_on_grid: on_grid.correct_share(),
        };
        Ok((figures, worst, on_grid))
    }
}

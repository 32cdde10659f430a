//! Black-box transfer: points crafted on another model, the supplement's test of whether a white-box figure is honest.

use crate::attack::{Attack, Attempt, Sample, Victim};
use crate::error::{Error, Result};
use crate::gradient::Pgd;
use crate::loss::descending;
use crate::model::Differentiable;
use crate::threat::Ball;
use std::sync::Arc;

/// An attack on a surrogate, whose points the victim is shown.
pub struct Transfer {
    /// The model on which points are crafted.
    pub surrogate: Arc<dyn Differentiable + Send>,
    /// How; it takes its most misclassified points.
    pub attack: Pgd,
}

impl Attack for Transfer {
    fn describe(&self) -> String {
        format!("transfer of {}", self.attack.describe())
    }

    fn run(&self, victim: Victim, ball: Ball, samples: &[Sample], seed: u64) -> Result<Vec<Attempt>> {
        let model = victim.classifier();
        let (ours, theirs) = (model.shape(), self.surrogate.shape());
        if ours != theirs {
            return Err(Error::SurrogateShape { surrogate: theirs, model: ours });
        }
        let (ours, theirs) = (model.classes(), self.surrogate.classes());
        if ours != theirs {
            return Err(Error::SurrogateClasses { surrogate: theirs, model: ours });
        }
        let mut attempts = self.attack.strongest().run(Victim::White(&*self.surrogate), ball, samples, seed)?;
        let points: Vec<f32> = attempts.iter().flat_map(|a| &a.point).copied().collect();
        let logits = model.logits(&points)?;
        for ((attempt, sample), z) in attempts.iter_mut().zip(samples).zip(logits.chunks_exact(model.classes())) {
            attempt.broken = descending(z)[0] != sample.label;
        }
        Ok(attempts)
    }
}

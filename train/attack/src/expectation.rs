//! Attacks on what a model that answers at random answers on average (expectation over transformation, Athalye
//! et al., 2018).

use crate::attack::{Attack, Attempt, Sample, Victim};
use crate::error::{Result, setting};
use crate::model::{Classifier, Differentiable};
use crate::threat::Ball;
use paradise_engine::Shape;

/// A model's answer averaged over its own randomness.
struct Expectation<'a> {
    draws: Vec<Box<dyn Differentiable + 'a>>,
}

impl Expectation<'_> {
    fn mean(&self, mut one: impl FnMut(&dyn Differentiable) -> Result<[Vec<f32>; 2]>) -> Result<[Vec<f32>; 2]> {
        let mut sums: [Vec<f64>; 2] = Default::default();
        for model in &self.draws {
            for (sum, values) in sums.iter_mut().zip(one(&**model)?) {
                sum.resize(values.len(), 0.0);
                sum.iter_mut().zip(values).for_each(|(s, v)| *s += f64::from(v));
            }
        }
        let n = self.draws.len() as f64;
        Ok(sums.map(|sum| sum.into_iter().map(|s| (s / n) as f32).collect()))
    }
}

impl Classifier for Expectation<'_> {
    fn shape(&self) -> Shape {
        self.draws[0].shape()
    }

    fn classes(&self) -> usize {
        self.draws[0].classes()
    }

    fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
        let [logits, _] = self.mean(|model| Ok([model.logits(images)?, Vec::new()]))?;
        Ok(logits)
    }
}

impl Differentiable for Expectation<'_> {
    fn pull(
        &self,
        images: &[f32],
        weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let [logits, gradient] = self.mean(|model| model.pull(images, weigh).map(|(z, g)| [z, g]))?;
        Ok((logits, gradient))
    }
}

/// An attack on the average over `draws` of a model's randomness; on a model without any it is the attack itself.
pub struct Averaged {
    /// The attack.
    pub attack: Box<dyn Attack>,
    /// Passes in every step.
    pub draws: usize,
}

impl Attack for Averaged {
    fn wants_one_class(&self) -> bool {
        self.attack.wants_one_class()
    }

    fn describe(&self) -> String {
        format!("{}, {} draws", self.attack.describe(), self.draws)
    }

    fn run(&self, victim: Victim, ball: Ball, samples: &[Sample], seed: u64) -> Result<Vec<Attempt>> {
        let model = victim.differentiable(self)?;
        setting(self.draws > 0, || "an average of no draws".into())?;
        match (0..self.draws as u64).map(|draw| model.redrawn(draw)).collect::<Option<Vec<_>>>() {
            None => self.attack.run(victim, ball, samples, seed),
            Some(draws) => self.attack.run(Victim::White(&Expectation { draws }), ball, samples, seed),
        }
    }
}

//! Models that answer at random, and attacks on what they answer on average (expectation over transformation, Athalye
//! et al., 2018).

use super::model::{self, Classifier, Differentiable};
use super::threat::Ball;
use super::{Attack, Attempt, Sample, Victim};
use crate::encoder::Encoder;
use crate::random::{self, Purpose};
use anyhow::{Context, Result, ensure};
use candle_core::{Tensor, Var};
use paradise_engine::Shape;
use sha2::{Digest, Sha256};

/// The classifier fed one sample of the posterior instead of mu.
///
/// The noise is keyed by seed, draw and the image's own values, so that neither batches nor threads matter.
#[derive(Clone)]
pub struct Stochastic<'a> {
    /// The network.
    pub encoder: &'a Encoder<'a>,
    /// Of the noise.
    pub seed: u64,
    /// Which sample.
    pub draw: u64,
}

impl Stochastic<'_> {
    fn run(&self, x: &Tensor, images: &[f32]) -> Result<Tensor> {
        let encoding = self.encoder.encode(x)?;
        let d = encoding.mu.dim(1)?;
        let each = self.shape().len() as usize;
        let noise: Vec<f32> = images
            .chunks_exact(each)
            .flat_map(|image| {
                let mut hash = Sha256::new();
                image.iter().for_each(|v| hash.update(v.to_le_bytes()));
                let key = hash.finalize().iter().take(8).fold(0, |key, b| key << 8 | u64::from(*b));
                let mut rng = random::stream(self.seed, Purpose::Posterior, u32::MAX, key, self.draw);
                (0..d).map(|_| random::normal(&mut rng)).collect::<Vec<_>>()
            })
            .collect();
        let noise = Tensor::from_vec(noise, encoding.mu.shape(), encoding.mu.device())?;
        self.encoder.classify(&(encoding.mu + (noise * encoding.sigma)?)?)
    }
}

impl Classifier for Stochastic<'_> {
    fn shape(&self) -> Shape {
        self.encoder.architecture.graph.input
    }

    fn batch(&self) -> (usize, bool) {
        self.encoder.batch()
    }

    fn classes(&self) -> usize {
        self.encoder.architecture.classes
    }

    fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
        model::logits(&self.run(&model::tensor(images, self.shape())?, images)?)
    }
}

impl Differentiable for Stochastic<'_> {
    fn pull(
        &self,
        images: &[f32],
        weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let x = Var::from_tensor(&model::tensor(images, self.shape())?)?;
        model::pull(&x, &self.run(&x, images)?, weigh)
    }

    fn redrawn(&self, draw: u64) -> Option<Box<dyn Differentiable + '_>> {
        Some(Box::new(Self { draw, ..self.clone() }))
    }
}

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
        ensure!(self.draws > 0, "an average of no draws");
        match (0..self.draws as u64).map(|draw| model.redrawn(draw)).collect::<Option<Vec<_>>>() {
            None => self.attack.run(victim, ball, samples, seed),
            Some(draws) => self.attack.run(Victim::White(&Expectation { draws }), ball, samples, seed),
        }
        .with_context(|| self.describe())
    }
}

//! Sampled inference: the classifier is fed a sample of the posterior in place of its mean.

use super::Encoder;
use super::classifier::{logits, pull, tensor};
use candle_core::Tensor;
use paradise_attack::{Classifier, Differentiable, Result};
use paradise_engine::Shape;
use paradise_support::random::{self, Purpose, branch};
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
    fn run(&self, x: &Tensor, images: &[f32]) -> anyhow::Result<Tensor> {
        let encoding = self.encoder.encode(x)?;
        let d = encoding.mu.dim(1)?;
        let each = self.shape().len() as usize;
        let noise: Vec<f32> = images
            .chunks_exact(each)
            .flat_map(|image| {
                let mut hash = Sha256::new();
                image.iter().for_each(|v| hash.update(v.to_le_bytes()));
                let key = hash.finalize().iter().take(8).fold(0, |key, b| key << 8 | u64::from(*b));
                let mut rng =
                    random::stream(self.seed, Purpose::Posterior, branch::SAMPLED_INFERENCE, key, self.draw);
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
        logits(tensor(images, self.shape()).and_then(|x| self.run(&x, images)))
    }
}

impl Differentiable for Stochastic<'_> {
    fn pull(
        &self,
        images: &[f32],
        weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        pull(images, self.shape(), |x| self.run(x, images), weigh)
    }

    fn redrawn(&self, draw: u64) -> Option<Box<dyn Differentiable + '_>> {
        Some(Box::new(Self { draw, ..self.clone() }))
    }
}

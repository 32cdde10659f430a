//! The encoder as attacks see it: logits through candle, and their gradients.

use super::{Encoder, values};
use candle_core::{Tensor, Var};
use paradise_attack::{Classifier, Differentiable, Error, Result, checked_logits};
use paradise_engine::Shape;
use paradise_nn::graph;

/// Images f32 `[n][h][w][c]` as a candle tensor.
pub(super) fn tensor(images: &[f32], shape: Shape) -> anyhow::Result<Tensor> {
    paradise_nn::images(images.to_vec(), images.len() / shape.len() as usize, shape)
}

/// [`Classifier::logits`] out of candle's `[n, classes]`.
pub(super) fn logits(tensor: anyhow::Result<Tensor>) -> Result<Vec<f32>> {
    let (dims, logits) = tensor.and_then(|t| Ok((t.dims2()?, values(&t)?))).map_err(Error::model)?;
    checked_logits(logits, dims.0, dims.1)
}

/// [`Differentiable::pull`] through candle: `logits` computes the logits of the images it is given.
pub(super) fn pull(
    images: &[f32],
    shape: Shape,
    logits: impl FnOnce(&Var) -> anyhow::Result<Tensor>,
    weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let run = || {
        let x = Var::from_tensor(&tensor(images, shape)?)?;
        graph::pull(&x, &logits(&x)?, &mut |logits| Ok(weighed(logits, weigh)?))
    };
    run().map_err(Error::model)
}

/// `weigh`, once the logits are known to be numbers.
pub(super) fn weighed(logits: &[f32], weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>) -> Result<Vec<f32>> {
    if logits.iter().any(|l| !l.is_finite()) {
        return Err(Error::NotFinite { what: "logits" });
    }
    weigh(logits)
}

impl Classifier for Encoder<'_> {
    fn shape(&self) -> Shape {
        self.architecture.graph.input
    }

    fn classes(&self) -> usize {
        self.architecture.classes
    }

    fn batch(&self) -> (usize, bool) {
        graph::batch(self.device().is_cpu())
    }

    fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
        logits(tensor(images, self.shape()).and_then(|x| Encoder::logits(self, &x)))
    }
}

impl Differentiable for Encoder<'_> {
    fn pull(
        &self,
        images: &[f32],
        weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        pull(images, self.shape(), |x| Encoder::logits(self, x), weigh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::{Network, small_conv::SmallConv};
    use paradise_support::random::{self, Purpose};

    #[test]
    fn the_pull_is_the_gradient_of_the_weighed_logits() {
        let shape = Shape::new(8, 8, 1);
        let encoder = SmallConv { channels: [3, 4], hidden: 6, latent: 4 };
        let network = Network::new(encoder.architecture(shape, 3), 2).unwrap();
        let view = network.frozen();
        let mut rng = random::stream(1, Purpose::Noise, 0, 0, 0);
        let x: Vec<f32> = (0..2 * 64).map(|_| random::uniform(&mut rng)).collect();
        let w = [0.5f32, -1.0, 2.0, 1.0, 0.25, -0.5];
        let (logits, gradient) = view.pull(&x, &mut |_| Ok(w.to_vec())).unwrap();
        assert_eq!(logits, Classifier::logits(&view, &x).unwrap());
        let worth = |x: &[f32]| -> f64 {
            Classifier::logits(&view, x).unwrap().iter().zip(w).map(|(l, w)| f64::from(*l) * f64::from(w)).sum()
        };
        let top = gradient.iter().fold(0.0f32, |m, g| m.max(g.abs()));
        for at in (0..x.len()).step_by(7) {
            let mut moved = [x.clone(), x.clone()];
            moved[0][at] += 5e-3;
            moved[1][at] -= 5e-3;
            let numeric = (worth(&moved[0]) - worth(&moved[1])) / f64::from(moved[0][at] - moved[1][at]);
            assert!((numeric - f64::from(gradient[at])).abs() < 2e-2 * f64::from(top), "{at} {numeric} {gradient:?}");
        }
        assert!(view.pull(&x, &mut |_| Ok(vec![0.0; 2])).is_err());
    }
}

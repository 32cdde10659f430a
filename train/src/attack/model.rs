//! What attacks see of a classifier: logits, and for those that follow gradients the way back from logits to pixels.

use crate::dataset;
use crate::encoder::{Encoder, values};
use crate::graph;
use anyhow::{Result, ensure};
use candle_core::{Tensor, Var};
use paradise_engine::Shape;

/// A classifier: all that gradient-free attacks need.
pub trait Classifier: Sync {
    /// Extents of an image.
    fn shape(&self) -> Shape;

    /// Images of one call that suit the model, and whether several calls may run at once.
    fn batch(&self) -> (usize, bool) {
        (32, true)
    }

    /// Number of classes.
    fn classes(&self) -> usize;

    /// Logits f32 `[n][classes]` of images f32 `[n][h][w][c]` in [0, 1].
    ///
    /// # Errors
    /// If the model fails.
    fn logits(&self, images: &[f32]) -> Result<Vec<f32>>;
}

/// A classifier whose gradients can be followed.
pub trait Differentiable: Classifier {
    /// Logits, and the gradient with respect to the images of `sum_i w_i . logits_i`, where `weigh` gives all the w of
    /// the logits `[n][classes]`: the chain rule for any loss of the logits.
    ///
    /// # Errors
    /// If the model or `weigh` fails.
    fn pull(&self, images: &[f32], weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>)
    -> Result<(Vec<f32>, Vec<f32>)>;

    /// The same model with its randomness drawn anew; `None` for a model that has none.
    fn redrawn(&self, draw: u64) -> Option<Box<dyn Differentiable + '_>> {
        let _ = draw;
        None
    }
}

/// Images f32 `[n][h][w][c]` as a candle tensor.
pub(super) fn tensor(images: &[f32], shape: Shape) -> Result<Tensor> {
    dataset::tensor(images.to_vec(), images.len() / shape.len() as usize, shape)
}

/// [`Classifier::logits`] out of candle's `[n, classes]`.
pub(super) fn logits(tensor: &Tensor) -> Result<Vec<f32>> {
    let (n, classes) = tensor.dims2()?;
    checked(values(tensor)?, n, classes)
}

/// [`Differentiable::pull`] through candle: `tensor` are the logits of the images `x`.
pub(super) fn pull(
    x: &Var,
    tensor: &Tensor,
    weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
) -> Result<(Vec<f32>, Vec<f32>)> {
    graph::pull(x, tensor, &mut |logits| {
        ensure!(logits.iter().all(|l| l.is_finite()), NOT_FINITE);
        weigh(logits)
    })
}

/// What is wrong with logits that are no numbers.
pub(super) const NOT_FINITE: &str = "the model's logits are not finite";

/// Logits that are numbers, one row an image.
///
/// # Errors
/// If one is not finite, or their number is another.
pub(crate) fn checked(logits: Vec<f32>, images: usize, classes: usize) -> Result<Vec<f32>> {
    ensure!(logits.len() == images * classes, "{} logits for {images} images of {classes} classes", logits.len());
    ensure!(logits.iter().all(|l| l.is_finite()), NOT_FINITE);
    Ok(logits)
}

/// Any function from images to logits.
pub struct Function<F> {
    /// Extents of an image.
    pub shape: Shape,
    /// Number of classes.
    pub classes: usize,
    /// From images f32 `[n][h][w][c]` to logits f32 `[n][classes]`.
    pub logits: F,
}

impl<F: Fn(&[f32]) -> Result<Vec<f32>> + Sync> Classifier for Function<F> {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
        checked((self.logits)(images)?, images.len() / self.shape.len() as usize, self.classes)
    }
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
        logits(&Encoder::logits(self, &tensor(images, self.shape())?)?)
    }
}

impl Differentiable for Encoder<'_> {
    fn pull(
        &self,
        images: &[f32],
        weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let x = Var::from_tensor(&tensor(images, self.shape())?)?;
        pull(&x, &Encoder::logits(self, &x)?, weigh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::{Network, small_conv::SmallConv};
    use crate::random::{self, Purpose};

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

    #[test]
    fn logits_that_are_no_numbers_are_refused() {
        let shape = Shape::new(1, 1, 1);
        let nan = Function { shape, classes: 2, logits: |x: &[f32]| Ok(vec![f32::NAN; 2 * x.len()]) };
        assert!(nan.logits(&[0.5]).unwrap_err().to_string().contains("not finite"));
        let short = Function { shape, classes: 2, logits: |_: &[f32]| Ok(vec![0.0]) };
        assert!(short.logits(&[0.5]).is_err());
    }
}

//! For tests: a linear classifier, whose distance to the boundary is known in closed form.

use crate::attack::Sample;
use crate::error::Result;
use crate::loss::descending;
use crate::model::{Classifier, Differentiable};
use crate::threat::Norm;
use paradise_engine::Shape;
use paradise_support::random::{self, Purpose};

/// Values of an image.
pub(crate) const D: usize = 12;

/// Logits `a . x + b` a class: the strongest point of a ball is known.
pub(crate) struct Linear {
    weights: Vec<Vec<f32>>,
    bias: Vec<f32>,
}

impl Linear {
    pub fn new(classes: usize, d: usize) -> Self {
        let mut rng = random::stream(8, Purpose::Noise, 0, 0, 0);
        let mut draw = || random::normal(&mut rng);
        let weights = (0..classes).map(|_| (0..d).map(|_| draw()).collect()).collect();
        Self { weights, bias: (0..classes).map(|_| draw()).collect() }
    }

    /// The least distance to a boundary by the dual norm, as if there were no box.
    pub fn distance(&self, norm: Norm, sample: &Sample) -> f64 {
        let logits = self.logits(sample.clean).unwrap();
        let to = |c: usize| {
            let apart = self.weights[sample.label].iter().zip(&self.weights[c]);
            let dual: f64 = match norm {
                Norm::Linf => apart.map(|(a, b)| f64::from((a - b).abs())).sum(),
                Norm::L2 => apart.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt(),
            };
            f64::from(logits[sample.label] - logits[c]) / dual
        };
        (0..self.classes()).filter(|c| *c != sample.label).map(to).fold(f64::MAX, f64::min)
    }
}

impl Classifier for Linear {
    fn shape(&self) -> Shape {
        Shape::new(1, self.weights[0].len() as u16, 1)
    }

    fn classes(&self) -> usize {
        self.bias.len()
    }

    fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
        let dot = |a: &[f32], x: &[f32]| a.iter().zip(x).map(|(a, x)| a * x).sum::<f32>();
        let row =
            |x: &[f32]| -> Vec<f32> { self.weights.iter().zip(&self.bias).map(|(a, b)| dot(a, x) + b).collect() };
        Ok(images.chunks_exact(self.weights[0].len()).flat_map(row).collect())
    }
}

impl Differentiable for Linear {
    fn pull(
        &self,
        images: &[f32],
        weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let logits = self.logits(images)?;
        let weights = weigh(&logits)?;
        let d = self.weights[0].len();
        let row = |w: &[f32]| -> Vec<f32> {
            (0..d).map(|k| w.iter().zip(&self.weights).map(|(w, a)| w * a[k]).sum()).collect()
        };
        Ok((logits, weights.chunks_exact(self.classes()).flat_map(row).collect()))
    }
}

/// Images far from the box's sides.
pub(crate) fn images(n: usize) -> Vec<f32> {
    let mut rng = random::stream(5, Purpose::Noise, 0, 0, 0);
    (0..n * D).map(|_| 0.3 + 0.4 * random::uniform(&mut rng)).collect()
}

/// The images with the classes that the model gives them.
pub(crate) fn samples<'a>(model: &Linear, images: &'a [f32]) -> Vec<Sample<'a>> {
    let logits = model.logits(images).unwrap();
    let label = |i: usize| descending(&logits[i * model.classes()..(i + 1) * model.classes()])[0];
    images.chunks_exact(D).enumerate().map(|(i, clean)| Sample { clean, label: label(i), key: i as u64 }).collect()
}

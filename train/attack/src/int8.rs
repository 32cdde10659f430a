//! The int8 engine under attack: its own logits on 8-bit images, and gradients that pass its rounding straight through,
//! taken from its float twin.

use crate::error::{Error, Result};
use crate::model::{Classifier, Differentiable, checked_logits};
use paradise_engine::{Memory, Model, Prepared, Shape, Watch};

/// The engine as a classifier; images are rounded to the 8-bit grid, as a device would be sent them.
pub struct Int8<'m>(Prepared<'m>);

impl<'m> Int8<'m> {
    /// The engine over a model.
    pub fn new(model: &Model<'m>) -> Self {
        Self(Prepared::new(model))
    }
}

impl Classifier for Int8<'_> {
    fn shape(&self) -> Shape {
        self.0.model().header().input
    }

    fn classes(&self) -> usize {
        self.0.model().header().classes as usize
    }

    fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
        let each = self.shape().len() as usize;
        let (mut bytes, mut memory) = (vec![0u8; each], Memory::new(&self.0));
        let mut logits = Vec::with_capacity(images.len() / each * self.classes());
        for image in images.chunks_exact(each) {
            bytes.iter_mut().zip(image).for_each(|(b, v)| *b = (v * 255.0).round() as u8);
            logits.extend(memory.classify(&self.0, &bytes, Watch::Nobody).map_err(Error::model)?.logits);
        }
        checked_logits(logits, images.len() / each, self.classes())
    }
}

/// One model's answers with another's gradients (the straight-through estimate of Bengio et al., 2013).
pub struct StraightThrough<'a> {
    /// Who answers.
    pub answers: &'a dyn Classifier,
    /// Whose gradients are followed, at weights that the answers give.
    pub gradients: &'a dyn Differentiable,
}

impl Classifier for StraightThrough<'_> {
    fn shape(&self) -> Shape {
        self.answers.shape()
    }

    fn batch(&self) -> (usize, bool) {
        self.answers.batch()
    }

    fn classes(&self) -> usize {
        self.answers.classes()
    }

    fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
        self.answers.logits(images)
    }
}

impl Differentiable for StraightThrough<'_> {
    fn pull(
        &self,
        images: &[f32],
        weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let logits = self.answers.logits(images)?;
        let weights = weigh(&logits)?;
        let (_, gradient) = self.gradients.pull(images, &mut |_| Ok(weights.clone()))?;
        Ok((logits, gradient))
    }
}

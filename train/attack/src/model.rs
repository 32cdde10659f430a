//! What attacks see of a classifier: logits, and for those that follow gradients the way back from logits to pixels.

use crate::error::{Error, Result};
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

/// Logits that are numbers, one row an image.
///
/// # Errors
/// If one is not finite, or their number is another.
pub fn checked_logits(logits: Vec<f32>, images: usize, classes: usize) -> Result<Vec<f32>> {
    if logits.len() != images * classes {
        return Err(Error::Logits { got: logits.len(), images, classes });
    }
    if logits.iter().any(|l| !l.is_finite()) {
        return Err(Error::NotFinite { what: "logits" });
    }
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
        checked_logits((self.logits)(images)?, images.len() / self.shape.len() as usize, self.classes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_that_are_no_numbers_are_refused() {
        let shape = Shape::new(1, 1, 1);
        let nan = Function { shape, classes: 2, logits: |x: &[f32]| Ok(vec![f32::NAN; 2 * x.len()]) };
        assert!(nan.logits(&[0.5]).unwrap_err().to_string().contains("not finite"));
        let short = Function { shape, classes: 2, logits: |_: &[f32]| Ok(vec![0.0]) };
        assert!(short.logits(&[0.5]).is_err());
    }
}

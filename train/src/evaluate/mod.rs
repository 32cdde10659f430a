//! Evaluations: accuracy, clean and robust, always as the per-image worst case over all attacks run; the checks that
//! tell robustness from masked gradients; what confidence is worth; the report of it all.

pub mod command;
pub mod confidence;
pub mod latent;
pub mod masking;
pub mod plan;
pub mod radius;
pub mod report;
pub mod robust;
pub mod subject;
pub mod work;

use crate::attack;
use crate::attack::model::Classifier;
use crate::dataset::Dataset;
use crate::statistics::Proportion;
use anyhow::{Result, ensure};

/// The class of each image of a set, and whether it is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predictions {
    /// Predicted classes.
    pub classes: Vec<u16>,
    labels: Vec<u16>,
}

impl Predictions {
    /// Predictions and true classes of the same images.
    pub fn new(classes: Vec<u16>, labels: Vec<u16>) -> Self {
        Self { classes, labels }
    }

    /// The share that is right.
    pub fn correct_share(&self) -> Proportion {
        Proportion::of(self.classes.iter().zip(&self.labels).map(|(a, b)| a == b))
    }

    /// The share on which two models agree.
    pub fn agreement(&self, other: &Self) -> Proportion {
        Proportion::of(self.classes.iter().zip(&other.classes).map(|(a, b)| a == b))
    }
}

/// A model's classes on a set.
///
/// # Errors
/// If the images do not fit the model or logits are not finite.
pub fn predictions(model: &dyn Classifier, set: &Dataset) -> Result<Predictions> {
    let each = set.shape.len() as usize;
    ensure!(set.shape == model.shape(), "images are {:?}, the model takes {:?}", set.shape, model.shape());
    let batch = |images: &[u8]| -> Result<Vec<u16>> {
        let pixels: Vec<f32> = images.iter().map(|p| f32::from(*p) / 255.0).collect();
        let logits = model.logits(&pixels)?;
        Ok(logits.chunks_exact(model.classes()).map(|z| paradise_engine::classifier::argmax(z) as u16).collect())
    };
    Ok(Predictions::new(attack::in_batches(model, &set.images, each, batch)?, set.labels.clone()))
}

//! What models say of a set: the classes that any classifier predicts, and each image's whole prediction as a device gives it.

pub mod int8;

use anyhow::{Result, ensure};
use paradise_attack::{Classifier, in_batches};
use paradise_data::Dataset;
use paradise_engine::typicality::Distances;
use paradise_engine::{Answer, PValues};
use paradise_support::statistics::Proportion;

/// The class of each image of a set, and whether it is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredictedClasses {
    /// Predicted classes.
    pub classes: Vec<u16>,
    labels: Vec<u16>,
}

impl PredictedClasses {
    /// PredictedClasses and true classes of the same images.
    pub fn new(classes: Vec<u16>, labels: Vec<u16>) -> Self {
        Self { classes, labels }
    }

    /// The classes of predictions on `set`, beside its labels.
    pub fn of(predictions: &[Prediction], set: &Dataset) -> Self {
        Self::new(predictions.iter().map(|p| p.class).collect(), set.labels.clone())
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
/// ```
/// use paradise_attack::Function;
/// use paradise_data::Dataset;
/// use paradise_engine::Shape;
/// let logits = |x: &[f32]| Ok(x.iter().flat_map(|x| [x - 0.5, 0.5 - x]).collect());
/// let model = Function { shape: Shape::new(1, 1, 1), classes: 2, logits };
/// let set = Dataset::new(model.shape, vec![200, 10, 220], vec![0, 1, 1])?;
/// let predicted = paradise_evaluate::prediction::classify(&model, &set)?;
/// assert_eq!((predicted.classes.as_slice(), predicted.correct_share().correct), (&[0, 1, 0][..], 2));
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// If the images do not fit the model or logits are not finite.
pub fn classify(model: &dyn Classifier, set: &Dataset) -> Result<PredictedClasses> {
    let each = set.shape.len() as usize;
    ensure!(set.shape == model.shape(), "images are {:?}, the model takes {:?}", set.shape, model.shape());
    let batch = |images: &[u8]| -> paradise_attack::Result<Vec<u16>> {
        let pixels: Vec<f32> = images.iter().map(|p| f32::from(*p) / 255.0).collect();
        let logits = model.logits(&pixels)?;
        Ok(logits.chunks_exact(model.classes()).map(|z| paradise_engine::classifier::argmax(z) as u16).collect())
    };
    Ok(PredictedClasses::new(in_batches(model, &set.images, each, batch)?, set.labels.clone()))
}

/// What a device says of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Class with the largest logit.
    pub class: u16,
    /// Its probability.
    pub probability: f32,
    /// Posterior means, `[d]`.
    pub mu: Vec<f32>,
    /// Posterior standard deviations, `[d]`.
    pub sigma: Vec<f32>,
    /// Their logarithms, `[d]`.
    pub log_sigma: Vec<f32>,
    /// Rate, nats.
    pub rate_nats: f32,
    /// Posterior entropy, nats.
    pub posterior_entropy_nats: f32,
    /// Predictive entropy, nats.
    pub predictive_entropy_nats: f32,
    /// Squared distances of posterior, spread and picture.
    pub distances: Distances,
    /// What calibration images say of them, of the rate and of the posterior entropy.
    pub p: PValues,
    /// Whether the device accepts.
    pub accept: bool,
}

impl From<Answer<'_>> for Prediction {
    fn from(a: Answer) -> Self {
        Self {
            class: a.class as u16,
            probability: a.probabilities[a.class],
            mu: a.mu.to_vec(),
            sigma: a.sigma.to_vec(),
            log_sigma: a.log_sigma.to_vec(),
            rate_nats: a.rate_nats,
            posterior_entropy_nats: a.posterior_entropy_nats,
            predictive_entropy_nats: a.predictive_entropy_nats,
            distances: a.distances,
            p: a.p,
            accept: a.decision.is_accept(),
        }
    }
}

//! What an attack is: samples in, attempts out, on a victim that lets it see logits or gradients, too.

use crate::error::{Error, Result};
use crate::model::{Classifier, Differentiable};
use crate::threat::Ball;

/// An image under attack.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// f32 `[h][w][c]` in [0, 1].
    pub clean: &'a [f32],
    /// Its class.
    pub label: usize,
    /// What its randomness is keyed by, whatever the batch.
    pub key: u64,
}

/// How one image came out of an attack.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Whether the point is misclassified (as the target, where an attack has only one).
    pub broken: bool,
    /// f32 `[h][w][c]` inside ball and box: the point that broke the image, or the last or best try.
    pub point: Vec<f32>,
}

impl Attempt {
    /// The clean image, not broken.
    pub(crate) fn none(sample: &Sample) -> Self {
        Self { broken: false, point: sample.clean.to_vec() }
    }
}

/// A model under attack: what it lets an attack see.
#[derive(Clone, Copy)]
pub enum Victim<'a> {
    /// Logits and their gradients.
    White(&'a dyn Differentiable),
    /// Logits only.
    Black(&'a dyn Classifier),
}

impl<'a> Victim<'a> {
    /// Its logits.
    pub fn classifier(self) -> &'a dyn Classifier {
        match self {
            Self::White(model) => model,
            Self::Black(model) => model,
        }
    }

    /// Its gradients.
    ///
    /// # Errors
    /// With the attack's name, if there are none.
    pub fn differentiable(self, attack: &dyn Attack) -> Result<&'a dyn Differentiable> {
        match self {
            Self::White(model) => Ok(model),
            Self::Black(_) => Err(Error::NoGradients { attack: attack.describe() }),
        }
    }
}

/// An attack with its budget.
pub trait Attack: Send + Sync {
    /// Name and settings, as tables print them.
    fn describe(&self) -> String;

    /// Whether only one class, drawn for each image, counts: then tables give the attack's success rate.
    fn wants_one_class(&self) -> bool {
        false
    }

    /// Attacks samples that are classified right as they are ([`launch`](crate::launch) sees to that), each on its own: batches change
    /// nothing, and randomness is keyed by seed and sample.
    ///
    /// # Errors
    /// If the model fails, or gives less than the attack needs.
    fn run(&self, victim: Victim, ball: Ball, samples: &[Sample], seed: u64) -> Result<Vec<Attempt>>;
}

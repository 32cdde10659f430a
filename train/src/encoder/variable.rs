//! Where each of a network's variables stands.

use candle_core::Tensor;

/// A variable of a network; a decoder's parameters, where there are any, follow the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Place {
    /// All parameters of the trunk, in one vector.
    Trunk,
    /// `[d][features]`.
    MuWeight,
    /// `[d]`.
    MuBias,
    /// `[d][features]`.
    SWeight,
    /// `[d]`.
    SBias,
    /// `[classes][d]`.
    ClassifierWeight,
    /// `[classes]`.
    ClassifierBias,
}

impl Place {
    /// The weights of the heads, which read the trunk's features.
    pub const HEAD_WEIGHTS: [Self; 2] = [Self::MuWeight, Self::SWeight];
}

/// Weight and bias of each linear map after the trunk.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    /// To the posterior means.
    pub mu: (&'a Tensor, &'a Tensor),
    /// To what becomes the posterior standard deviations.
    pub s: (&'a Tensor, &'a Tensor),
    /// From a latent to logits.
    pub classifier: (&'a Tensor, &'a Tensor),
}

impl<'a> Heads<'a> {
    /// The heads among a network's variables; none without a classifier.
    pub(super) fn of(at: impl Fn(Place) -> &'a Tensor, classes: usize) -> Option<Self> {
        (classes > 0).then(|| Self {
            mu: (at(Place::MuWeight), at(Place::MuBias)),
            s: (at(Place::SWeight), at(Place::SBias)),
            classifier: (at(Place::ClassifierWeight), at(Place::ClassifierBias)),
        })
    }
}

//! How far an input and its posterior are from those of the training images: three squared Mahalanobis distances to the
//! nearest class (the picture has one mean for all). What counts is how the numbers go *together*: each alone may be usual.

use crate::appearance::{self, Appearance};
use crate::artifact::Model;
use crate::whitening::nearest;
use serde::{Deserialize, Serialize};

/// Squared distances, all at least 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Distances {
    /// Of `theta = (log sigma, mu)`: the whole posterior.
    pub posterior: f32,
    /// Of `log sigma` alone.
    pub spread: f32,
    /// Of the input's [appearance].
    pub picture: f32,
}

/// The distances of an input's appearance and its posterior.
///
/// # Panics
/// If a slice is not of the model's length, or `scratch` is shorter than four times its latent dimension.
#[cfg_attr(feature = "std", inline(always))]
pub fn distances(model: &Model, seen: Appearance, mu: &[f32], log_sigma: &[f32], scratch: &mut [f32]) -> Distances {
    let header = model.header();
    let (typicality, tensors) = (&header.typicality, model.tensors());
    let posterior = &typicality.posterior;
    let theta = log_sigma.iter().chain(mu).copied();
    let white = posterior.whiten(tensors, theta, scratch);
    let means = model.f32s(posterior.means);
    let components = usize::from(posterior.components);
    let whole = nearest(means, components, white);
    let spread = match &typicality.spread {
        // The leading block of the triangle whitens log sigma alone.
        None => nearest(means, components, &white[..log_sigma.len()]),
        Some(spread) => {
            let white = spread.whiten(tensors, log_sigma.iter().copied(), scratch);
            nearest(model.f32s(spread.means), spread.components.into(), white)
        }
    };
    Distances { posterior: whole, spread, picture: picture(model, seen) }
}

/// The distance of an input's appearance alone.
#[cfg_attr(feature = "std", inline(always))]
pub fn picture(model: &Model, seen: Appearance) -> f32 {
    let picture = &model.header().typicality.picture;
    let mut scratch = [0.0; 2 * appearance::LEN];
    let white = picture.whiten(model.tensors(), seen.into_iter(), &mut scratch);
    nearest(model.f32s(picture.means), picture.components.into(), white)
}

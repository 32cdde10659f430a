//! Where a set lies in the latent space.

use crate::encoder::{Encoder, batch};
use anyhow::{Result, ensure};
use paradise_data::Dataset;
use paradise_evaluate::figure::scatter::Point;

/// Images run at once.
const BATCH: usize = 500;

/// Posterior means of a set in the two latent dimensions where they spread most, and which those are.
///
/// # Errors
/// If the images do not fit the encoder, or it has one latent dimension.
pub fn points(encoder: &Encoder, set: &Dataset) -> Result<(Vec<Point>, [usize; 2])> {
    let d = encoder.architecture.latent;
    ensure!(d >= 2, "a latent space of one dimension has no scatter");
    let all: Vec<usize> = (0..set.len()).collect();
    let mut means: Vec<Vec<f32>> = Vec::with_capacity(set.len());
    for ids in all.chunks(BATCH) {
        means.extend(encoder.encode(&batch(set, ids)?)?.mu.to_vec2::<f32>()?);
    }
    let spread = |k: usize| {
        let n = means.len() as f64;
        let mean = means.iter().map(|m| f64::from(m[k])).sum::<f64>() / n;
        means.iter().map(|m| (f64::from(m[k]) - mean).powi(2)).sum::<f64>() / n
    };
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|a, b| spread(*b).total_cmp(&spread(*a)));
    let axes = [order[0].min(order[1]), order[0].max(order[1])];
    Ok((means.iter().zip(&set.labels).map(|(m, l)| (axes.map(|a| m[a]), *l)).collect(), axes))
}

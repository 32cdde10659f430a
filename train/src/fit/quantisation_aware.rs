//! Quantisation-aware fine-tuning: weights are rounded to int8 before every step, and gradients pass the rounding straight
//! through (Bengio et al., 2013).
//!
//! A row's step is its largest magnitude / 127, so a batch norm after it, which scales the row, changes nothing: what is
//! rounded here are the integers that are exported.

use crate::encoder::Place;
use crate::encoder::{Network, values};
use anyhow::Result;
use candle_core::Tensor;
use paradise_nn::graph::Op;

/// Rounds each of `rows` rows to 255 levels between its extremes.
fn round(weights: &mut [f32], rows: usize) {
    let width = weights.len() / rows;
    for row in weights.chunks_exact_mut(width) {
        let step = row.iter().fold(0.0f32, |m, w| m.max(w.abs())) / 127.0;
        if step > 0.0 {
            row.iter_mut().for_each(|w| *w = (*w / step).round() * step);
        }
    }
}

/// What stands in the variables' places while a network learns at int8 weights: see [`Network::learning_at`].
///
/// # Errors
/// If a tensor cannot be read.
pub(super) fn rounded(network: &Network) -> Result<Vec<Tensor>> {
    let device = network.device();
    let mut theta = values(network.trunk_parameters())?;
    for (i, stage) in network.architecture.graph.stages.iter().enumerate() {
        if let Op::Conv { out, .. } | Op::Dense { out, .. } = &stage.op {
            round(&mut theta[network.trunk.places(i)[0].clone()], *out);
        }
    }
    let n = theta.len();
    let mut all = vec![Tensor::from_vec(theta, n, device)?];
    for (k, variable) in network.variables.iter().enumerate().skip(1) {
        let tensor = variable.as_tensor();
        // The weights of mu and s; the classifier stays f32 in the engine too.
        if !Place::HEAD_WEIGHTS.iter().any(|place| *place as usize == k) {
            all.push(tensor.clone());
            continue;
        }
        let own = values(tensor)?;
        let mut rounded = own.clone();
        round(&mut rounded, tensor.dim(0)?);
        let moved: Vec<f32> = rounded.iter().zip(&own).map(|(r, w)| r - w).collect();
        all.push((tensor + Tensor::from_vec(moved, tensor.dims(), device)?)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::encoder::{Encoder, Kind};
    use crate::encoder::batch;
    use candle_core::Device;
    use candle_nn::loss::cross_entropy;
    use paradise_data::embedded;
    use std::collections::BTreeSet;

    #[test]
    fn gradients_are_those_at_the_rounded_weights() {
        let set = embedded::subset().unwrap().test.head(16);
        let architecture = Encoder { kind: Kind::ResNet8, ..Encoder::default() }.architecture(set.shape, 10).unwrap();
        let network = Network::new(architecture.clone(), 3).unwrap();
        let at = rounded(&network).unwrap();
        let there = Network::from_numbers(architecture, network.split(&at).unwrap()).unwrap();
        let ids: Vec<usize> = (0..set.len()).collect();
        let images = batch(&set, &ids).unwrap();
        let labels: Vec<u32> = set.labels.iter().map(|l| u32::from(*l)).collect();
        let labels = Tensor::from_vec(labels, ids.len(), &Device::Cpu).unwrap();
        let of = |network: &Network, learning: crate::encoder::Encoder| {
            let loss = cross_entropy(&learning.logits(&images).unwrap(), &labels).unwrap();
            let all = learning.gradients(&network.variables, &loss).unwrap();
            all.into_iter().flatten().flat_map(|g| values(&g).unwrap()).collect::<Vec<f32>>()
        };
        let ours = of(&network, network.learning_at(at).unwrap());
        let exact = of(&there, there.learning().unwrap());
        assert_eq!(ours.len(), exact.len());
        for (a, b) in ours.iter().zip(&exact) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1e-2), "{a} {b}");
        }
    }

    #[test]
    fn a_row_takes_at_most_255_values_and_keeps_its_extreme() {
        let mut weights: Vec<f32> =
            (0..2000).map(|i| ((i * 7919 % 2003) as f32 / 1001.0 - 1.0) * (1 + i / 1000) as f32).collect();
        let before = weights.clone();
        round(&mut weights, 2);
        for (row, old) in weights.chunks(1000).zip(before.chunks(1000)) {
            let levels: BTreeSet<u32> = row.iter().map(|w| w.abs().to_bits()).collect();
            assert!(levels.len() <= 128, "{}", levels.len());
            let top = |r: &[f32]| r.iter().fold(0.0f32, |m, w| m.max(w.abs()));
            assert!((top(row) - top(old)).abs() <= 1e-6 * top(old));
            let step = top(old) / 127.0;
            assert!(row.iter().zip(old).all(|(a, b)| (a - b).abs() <= 0.5001 * step));
        }
    }
}

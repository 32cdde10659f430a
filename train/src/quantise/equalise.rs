//! Cross-layer equalisation (Nagel et al., 2019): a channel between two linear maps may be scaled by any positive factor,
//! for a ReLU passes it on; channels of like ranges lose less to a range that they share.

use super::observe::Activation;
use crate::encoder::{Network, values};
use crate::graph::{Graph, Op, Trunk};
use anyhow::Result;
use candle_core::{Device, Var};

/// Largest factor, and the inverse of the least.
const MOST: f32 = 32.0;

/// A stage whose output channels may be scaled, and the stage that alone reads them.
fn pairs(graph: &Graph) -> Vec<(usize, usize)> {
    let readers = |activation: usize| {
        let reads = move |stage: &crate::graph::Stage| {
            let other = match &stage.op {
                Op::Add { other, .. } => Some(*other),
                Op::Conv { residual, .. } => *residual,
                _ => None,
            };
            stage.x == activation || other == Some(activation)
        };
        let found = graph.stages.iter().enumerate().filter(move |(_, s)| reads(s)).map(|(i, _)| i);
        found.collect::<Vec<usize>>()
    };
    let scales = |op: &Op| {
        matches!(op, Op::Conv { relu: true, residual: None, bias: true, .. } | Op::Affine { relu: true })
            || matches!(op, Op::Dense { relu: true, .. })
    };
    let takes = |op: &Op| matches!(op, Op::Conv { groups: 1, .. } | Op::Dense { .. });
    let stages = graph.stages.iter().enumerate();
    stages
        .filter(|(_, s)| scales(&s.op))
        .filter_map(|(i, _)| match readers(i + 1)[..] {
            [j] if takes(&graph.stages[j].op) => Some((i, j)),
            _ => None,
        })
        .collect()
}

/// The same function with equalised channels; `seen` are its activations. Returns how many pairs were scaled.
///
/// # Errors
/// If the graph is not consistent.
pub fn equalise(network: &Network, seen: &[Activation]) -> Result<(Network, usize)> {
    let graph = &network.architecture.graph;
    let mut theta = values(network.variables[0].as_tensor())?;
    let trunk = Trunk::new(graph.clone())?;
    let pairs = pairs(graph);
    for &(first, second) in &pairs {
        let c = seen[first + 1].channel_max.len();
        let next = trunk.places(second)[0].clone();
        let mut weight_max = vec![0.0f32; c];
        for pixel in theta[next.clone()].chunks_exact(c) {
            weight_max.iter_mut().zip(pixel).for_each(|(m, w)| *m = m.max(w.abs()));
        }
        // sqrt(activation x weight) is then the range of both.
        let factors = seen[first + 1].channel_max.iter().zip(&weight_max).map(|(a, w)| match a * w > 0.0 {
            true => (a / w).sqrt().clamp(1.0 / MOST, MOST),
            false => 1.0,
        });
        let factors: Vec<f32> = factors.collect();
        for place in trunk.places(first) {
            let own = &mut theta[place.clone()];
            let each = own.len() / c;
            own.chunks_exact_mut(each).zip(&factors).for_each(|(row, f)| row.iter_mut().for_each(|w| *w /= f));
        }
        for pixel in theta[next].chunks_exact_mut(c) {
            pixel.iter_mut().zip(&factors).for_each(|(w, f)| *w *= f);
        }
    }
    let mut scaled = network.clone();
    scaled.variables[0] = Var::from_vec(theta, trunk.parameters(), &Device::Cpu)?;
    Ok((scaled, pairs.len()))
}

#[cfg(test)]
mod tests {
    use super::super::observe::observe;
    use super::*;
    use crate::config::encoder::{Encoder, Kind};
    use crate::dataset::embedded;

    #[test]
    fn logits_stay_and_ranges_meet() {
        let set = embedded::subset().unwrap().test.head(20);
        for kind in [Kind::SmallConv, Kind::ResNet8] {
            let architecture = Encoder { kind, ..Encoder::default() }.architecture(set.shape, 10).unwrap();
            let mut network = Network::new(architecture, 1).unwrap().folded().unwrap();
            // Uneven channels, so that there is something to do.
            let mut theta = values(network.variables[0].as_tensor()).unwrap();
            let trunk = Trunk::new(network.architecture.graph.clone()).unwrap();
            let place = trunk.places(0)[0].clone();
            let each = place.len() / 8;
            theta[place.start..place.start + each].iter_mut().for_each(|w| *w *= 50.0);
            network.variables[0] = Var::from_vec(theta, trunk.parameters(), &Device::Cpu).unwrap();
            let seen = observe(&network.frozen(), &set).unwrap();
            let (scaled, pairs) = equalise(&network, &seen).unwrap();
            assert!(pairs >= 2, "{pairs}");
            let ids: Vec<usize> = (0..set.len()).collect();
            let images = set.batch(&ids).unwrap();
            let of = |n: &Network| values(&n.frozen().logits(&images).unwrap()).unwrap();
            for (a, b) in of(&network).iter().zip(of(&scaled)) {
                assert!((a - b).abs() <= 1e-3 * a.abs().max(1.0), "{a} {b}");
            }
            let spread = |seen: &[Activation]| {
                let live = seen[1].channel_max.iter().filter(|m| **m > 0.0);
                let [low, high] = live.fold([f32::MAX, 0.0f32], |[a, b], m| [a.min(*m), b.max(*m)]);
                high / low
            };
            let after = observe(&scaled.frozen(), &set).unwrap();
            if kind == Kind::SmallConv {
                assert!(spread(&after) < spread(&seen), "{} {}", spread(&after), spread(&seen));
            }
        }
    }
}

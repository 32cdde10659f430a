//! Cross-layer equalisation (Nagel et al., 2019) of whole ties: channels of an activation may be scaled by any positive
//! factor, for ReLUs, sums and pools pass it on; what fills its range loses less to the step that all channels share. Where
//! only a map with a ReLU reads a sum, each channel also turns and moves until what the ReLU cuts off is below zero.

use super::observe::Activation;
use super::tie::{Cut, Tie, ties};
use crate::encoder::Place;
use crate::encoder::{Network, values};
use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use paradise_nn::graph::Trunk;
use std::ops::Range;

/// Largest factor over the least.
const SPAN: f32 = 1024.0;

/// The same function in channels that lose less to int8.
pub struct Equalised {
    /// The network.
    pub network: Network,
    /// For each activation, the value below which nobody tells values apart.
    pub floors: Vec<f32>,
}

/// What becomes of a tie's channels: `x` is stored as `x / factor + shift`, the shift in the cut's summand and sum alone.
struct Change {
    /// Never 0; negative where the channel turns.
    factors: Vec<f32>,
    /// 0 where nothing is cut.
    shifts: Vec<f32>,
    /// The other summand's largest value as it is stored.
    other: f32,
}

/// Each column's largest weight relative to its row's, of rows over channels that repeat.
fn weight_shares(rows: &[f32], width: usize, most: &mut [f32]) {
    for row in rows.chunks_exact(width) {
        let top = row.iter().fold(f32::MIN_POSITIVE, |m, w| m.max(w.abs()));
        for pixel in row.chunks_exact(most.len()) {
            most.iter_mut().zip(pixel).for_each(|(m, w)| *m = m.max(w.abs() / top));
        }
    }
}

/// Keeps factors above the largest one's [`SPAN`]th part.
fn bounded(mut factors: Vec<f32>) -> Vec<f32> {
    let top = factors.iter().fold(0.0f32, |m, f| m.max(*f));
    let least = if top > 0.0 { top / SPAN } else { 1.0 };
    factors.iter_mut().for_each(|f| *f = f.max(least));
    factors
}

/// Each channel's largest magnitude, against its largest weight where rows mix the channels.
fn scaled(tie: &Tie, seen: &[Activation], shares: Option<&[f32]>) -> Change {
    let of = |c: usize| tie.activations.iter().map(|&a| seen[a].largest(c)).fold(0.0f32, f32::max);
    let channels = seen[tie.activations[0]].channels.len();
    let factor = |c: usize| match shares.map(|s| s[c]) {
        Some(w) if w > 0.0 => (of(c) / w).sqrt(),
        Some(_) => 0.0,
        None => of(c),
    };
    Change { factors: bounded((0..channels).map(factor).collect()), shifts: vec![0.0; channels], other: 0.0 }
}

/// As `scaled`, of a tie that is cut where its map `mul x + add` is 0.
fn cut(tie: &Tie, cut: Cut, seen: &[Activation], mul: &[f32], add: &[f32]) -> Change {
    // Extremes once the map rises with its input.
    let turned = |a: usize, c: usize| match (seen[a].channels[c], mul[c] < 0.0) {
        ([low, high], true) => [-high, -low],
        (range, false) => range,
    };
    let base = |c: usize| {
        let [low, _] = turned(cut.sum, c);
        let zero = -add[c] / mul[c].abs();
        if zero.is_finite() { low.max(zero) } else { low }
    };
    let magnitude = |c: usize| {
        let of = |&a: &usize| match [cut.sum, cut.summand].contains(&a) {
            true => turned(a, c)[1] - base(c),
            false => seen[a].largest(c),
        };
        tie.activations.iter().map(of).fold(0.0f32, f32::max)
    };
    let magnitudes = bounded((0..mul.len()).map(magnitude).collect());
    let shifts = magnitudes.iter().enumerate().map(|(c, m)| -base(c) / m).collect();
    let others = magnitudes.iter().enumerate().map(|(c, m)| turned(cut.other, c)[1] / m);
    let other = others.fold(0.0f32, f32::max);
    let factors = magnitudes.iter().zip(mul).map(|(m, mul)| if *mul < 0.0 { -m } else { *m }).collect();
    Change { factors, shifts, other }
}

/// Applies `change` to equal parts of `numbers`, one a channel.
fn each_channel(numbers: &mut [f32], factors: &[f32], change: impl Fn(&mut f32, f32)) {
    let each = numbers.len() / factors.len();
    for (row, f) in numbers.chunks_exact_mut(each).zip(factors) {
        row.iter_mut().for_each(|w| change(w, *f));
    }
}

/// Multiplies each column's channel by its factor.
fn columns(rows: &mut [f32], factors: &[f32]) {
    for pixel in rows.chunks_exact_mut(factors.len()) {
        pixel.iter_mut().zip(factors).for_each(|(w, f)| *w *= f);
    }
}

/// The same function with equalised channels; `seen` are its activations.
///
/// # Errors
/// If the graph is not consistent.
pub fn equalise(network: &Network, seen: &[Activation]) -> Result<Equalised> {
    let graph = &network.architecture.graph;
    let shapes = graph.shapes()?;
    let trunk = Trunk::new(graph.clone())?;
    let place = |i: usize, k: usize| -> Range<usize> { trunk.places(i)[k].clone() };
    let mut theta = values(network.trunk_parameters())?;
    let mut heads = Vec::new();
    for v in Place::HEAD_WEIGHTS {
        heads.push(values(network[v].as_tensor())?);
    }
    let mut floors = vec![f32::NEG_INFINITY; shapes.len()];
    for tie in &ties(graph, &shapes) {
        let mut shares = vec![0.0f32; seen[tie.activations[0]].channels.len()];
        for &i in &tie.mixers {
            let rows = &theta[place(i, 0)];
            weight_shares(rows, rows.len() / usize::from(shapes[i + 1].c), &mut shares);
        }
        for (head, v) in heads.iter().zip(Place::HEAD_WEIGHTS).filter(|_| tie.features) {
            weight_shares(head, network[v].dim(1)?, &mut shares);
        }
        let mixed = tie.features || !tie.mixers.is_empty();
        let change = match tie.cut {
            Some(at) => cut(tie, at, seen, &theta[place(at.map, 0)], &theta[place(at.map, 1)]),
            None => scaled(tie, seen, mixed.then_some(&shares)),
        };
        for &i in &tie.writers {
            each_channel(&mut theta[place(i, 0)], &change.factors, |w, f| *w /= f);
            each_channel(&mut theta[place(i, 1)], &change.factors, |b, f| *b /= f);
        }
        for &i in &tie.maps {
            each_channel(&mut theta[place(i, 0)], &change.factors, |w, f| *w *= f);
        }
        tie.mixers.iter().for_each(|&i| columns(&mut theta[place(i, 0)], &change.factors));
        heads.iter_mut().filter(|_| tie.features).for_each(|head| columns(head, &change.factors));
        if let Some(at) = tie.cut {
            each_channel(&mut theta[place(at.summand - 1, 1)], &change.shifts, |b, s| *b += s);
            let mul = theta[place(at.map, 0)].to_vec();
            let add = &mut theta[place(at.map, 1)];
            add.iter_mut().zip(mul.iter().zip(&change.shifts)).for_each(|(a, (m, s))| *a -= m * s);
            (floors[at.sum], floors[at.summand]) = (0.0, -change.other);
        }
    }
    let mut scaled = network.clone();
    scaled[Place::Trunk] = Var::from_vec(theta, trunk.parameters(), &Device::Cpu)?;
    for (v, head) in Place::HEAD_WEIGHTS.into_iter().zip(heads) {
        scaled[v] = Var::from_tensor(&Tensor::from_vec(head, network[v].dims(), &Device::Cpu)?)?;
    }
    Ok(Equalised { network: scaled, floors })
}

#[cfg(test)]
mod tests {
    use super::super::observe::observe;
    use super::*;
    use crate::config::encoder::{Encoder, Kind};
    use crate::encoder::batch;
    use paradise_data::{Dataset, embedded};

    /// A network of `kind` whose channels differ: every seventh number of the trunk is eight times as large, every eleventh has
    /// the other sign.
    fn uneven(kind: Kind, set: &Dataset) -> Network {
        let architecture = Encoder { kind, ..Encoder::default() }.architecture(set.shape, 10).unwrap();
        let mut network = Network::new(architecture, 1).unwrap().folded().unwrap();
        let mut theta = values(network.trunk_parameters()).unwrap();
        let trunk = Trunk::new(network.architecture.graph.clone()).unwrap();
        for i in 0..network.architecture.graph.stages.len() {
            for place in trunk.places(i) {
                let c = usize::from(network.architecture.graph.shapes().unwrap()[i + 1].c);
                let each = place.len() / c;
                for (k, row) in theta[place.clone()].chunks_exact_mut(each).enumerate() {
                    let by = if k % 7 == 0 { 8.0 } else { 1.0 } * if k % 11 == 3 { -1.0 } else { 1.0 };
                    row.iter_mut().for_each(|w| *w = *w * by + 0.01 * (k % 5) as f32);
                }
            }
        }
        network[Place::Trunk] = Var::from_vec(theta, trunk.parameters(), &Device::Cpu).unwrap();
        network
    }

    fn posterior(network: &Network, set: &Dataset) -> Vec<f32> {
        let ids: Vec<usize> = (0..set.len()).collect();
        let encoding = network.frozen().encode(&batch(set, &ids).unwrap()).unwrap();
        [encoding.mu, encoding.log_sigma].map(|t| values(&t).unwrap()).concat()
    }

    #[test]
    fn the_posterior_stays_and_ranges_meet() {
        let set = embedded::subset().unwrap().test.head(20);
        for kind in [Kind::SmallConv, Kind::ResNet8] {
            let network = uneven(kind, &set);
            let seen = observe(&network.frozen(), &set, &[]).unwrap();
            let equalised = equalise(&network, &seen).unwrap();
            for (a, b) in posterior(&network, &set).iter().zip(posterior(&equalised.network, &set)) {
                assert!((a - b).abs() <= 2e-3 * a.abs().max(1.0), "{kind:?}: {a} {b}");
            }
            // A tie's largest magnitude a channel, over all its activations: of the largest channel to the least live one.
            let spread = |tie: &Tie, seen: &[Activation]| {
                let of = |c: usize| tie.activations.iter().map(|&a| seen[a].largest(c)).fold(0.0f32, f32::max);
                let live = (0..seen[tie.activations[0]].channels.len()).map(of).filter(|m| *m > 0.0);
                let [low, high] = live.fold([f32::MAX, 0.0f32], |[a, b], m| [a.min(m), b.max(m)]);
                high / low
            };
            let after = observe(&equalised.network.frozen(), &set, &equalised.floors).unwrap();
            let graph = &network.architecture.graph;
            let ties = ties(graph, &graph.shapes().unwrap());
            assert!(ties.len() >= 3, "{}", ties.len());
            for tie in ties {
                let [before, after] = [&seen, &after].map(|seen| spread(&tie, seen));
                // Where no row mixes the channels, they end equal; else weights have their say.
                let free = tie.mixers.is_empty() && !tie.features;
                assert!(if free { after < 1.001 } else { after < before }, "{kind:?} {tie:?}: {before} {after}");
            }
        }
    }

    #[test]
    fn what_a_relu_cuts_off_is_below_zero() {
        let set = embedded::subset().unwrap().test.head(20);
        let network = uneven(Kind::ResNet8, &set);
        let seen = observe(&network.frozen(), &set, &[]).unwrap();
        let equalised = equalise(&network, &seen).unwrap();
        let graph = &network.architecture.graph;
        let cuts = ties(graph, &graph.shapes().unwrap()).into_iter().filter_map(|t| t.cut);
        let trunk = Trunk::new(graph.clone()).unwrap();
        let theta = values(equalised.network.trunk_parameters()).unwrap();
        let after = observe(&equalised.network.frozen(), &set, &equalised.floors).unwrap();
        let mut seen_cuts = 0;
        for cut in cuts {
            let [mul, add] = [0, 1].map(|k| &theta[trunk.places(cut.map)[k].clone()]);
            for (c, (mul, add)) in mul.iter().zip(add).enumerate() {
                // Rising, and 0 or more above 0 alone unless the channel never comes near its ReLU.
                assert!(*mul >= 0.0);
                assert!(*add <= 1e-4 * mul || after[cut.sum].channels[c][0] <= 1e-4, "{add} {mul}");
            }
            assert_eq!(after[cut.sum].extremes[0], 0.0);
            seen_cuts += 1;
        }
        assert_eq!(seen_cuts, 3);
    }
}

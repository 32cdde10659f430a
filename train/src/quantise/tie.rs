//! Which activations' channels only scale together, and which sums a rectified map alone reads.

use paradise_engine::Shape;
use paradise_nn::graph::{Graph, Op};

/// Activations that sums and pools join.
#[derive(Debug, Default, PartialEq)]
pub struct Tie {
    /// Which.
    pub activations: Vec<usize>,
    /// Stages that make them by rows, or by a number a channel.
    pub writers: Vec<usize>,
    /// Stages that read a channel by a number of its own: at no cost.
    pub maps: Vec<usize>,
    /// Stages whose rows mix the channels.
    pub mixers: Vec<usize>,
    /// Whether the heads read them.
    pub features: bool,
    /// A sum among them of which a part is never seen.
    pub cut: Option<Cut>,
}

/// A sum that only a per-channel map with a ReLU reads: what the ReLU cuts off needs no integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The sum's activation.
    pub sum: usize,
    /// The summand that only the sum reads, a convolution's.
    pub summand: usize,
    /// The other summand.
    pub other: usize,
    /// The stage of the map.
    pub map: usize,
}

/// Whether each channel is read by a row of its own.
fn depthwise(op: &Op, x: Shape) -> bool {
    matches!(op, Op::Conv { groups, out, .. } if *groups == usize::from(x.c) && *out == *groups)
}

/// Whether an operation passes on what its operands' channels are multiplied by.
fn joins(op: &Op) -> bool {
    matches!(op, Op::Add { .. } | Op::AvgPool { .. } | Op::MaxPool { .. })
}

/// Every tie whose channels may be scaled, of a folded graph.
pub fn ties(graph: &Graph, shapes: &[Shape]) -> Vec<Tie> {
    let last = graph.stages.len();
    // The first activation of each one's tie.
    let mut first: Vec<usize> = (0..=last).collect();
    for (i, stage) in graph.stages.iter().enumerate().filter(|(_, s)| joins(&s.op)) {
        let of: Vec<usize> = [stage.x, i + 1].into_iter().chain(stage.op.second()).map(|a| first[a]).collect();
        let least = *of.iter().min().unwrap_or(&0);
        first.iter_mut().filter(|f| of.contains(f)).for_each(|f| *f = least);
    }
    let mut found: Vec<Option<Tie>> = (0..=last).map(|_| Some(Tie::default())).collect();
    // The image's channels are what they are.
    found[0] = None;
    for (a, &tie) in first.iter().enumerate() {
        if let Some(tie) = &mut found[tie] {
            tie.activations.push(a);
            tie.features |= a == last;
        }
    }
    for (i, stage) in graph.stages.iter().enumerate().filter(|(_, s)| !joins(&s.op)) {
        let (read, written) = (first[stage.x], first[i + 1]);
        if !matches!(stage.op, Op::Affine { .. } | Op::Dense { .. } | Op::Conv { bias: true, residual: None, .. }) {
            (found[read], found[written]) = (None, None);
            continue;
        }
        if let Some(tie) = &mut found[written] {
            tie.writers.push(i);
        }
        match &mut found[read] {
            Some(tie) if matches!(stage.op, Op::Affine { .. }) || depthwise(&stage.op, shapes[stage.x]) => {
                tie.maps.push(i);
            }
            Some(tie) if !matches!(&stage.op, Op::Conv { groups, .. } if *groups > 1) => tie.mixers.push(i),
            // Groups of channels are left alone.
            tie => *tie = None,
        }
    }
    let mut ties: Vec<Tie> = found.into_iter().flatten().filter(|tie| !tie.activations.is_empty()).collect();
    ties.iter_mut().for_each(|tie| tie.cut = cut(graph, tie));
    ties
}

/// The first sum of a tie that can be cut, if its channels may change their sign: nothing in it is rectified or pooled, and
/// only per-channel maps read it.
fn cut(graph: &Graph, tie: &Tie) -> Option<Cut> {
    let made = |a: usize| &graph.stages[a - 1].op;
    let linear = |a: &usize| !made(*a).relu() && matches!(made(*a), Op::Conv { .. } | Op::Add { .. });
    let maps = tie.maps.iter().all(|&i| matches!(graph.stages[i].op, Op::Affine { .. }));
    if tie.features || !tie.mixers.is_empty() || !maps || !tie.activations.iter().all(linear) {
        return None;
    }
    tie.activations.iter().find_map(|&sum| {
        let Op::Add { other, .. } = made(sum) else { return None };
        let [map] = graph.readers(sum)[..] else { return None };
        let operands = [graph.stages[sum - 1].x, *other];
        let own = |&a: &usize| graph.readers(a) == [sum - 1] && matches!(made(a), Op::Conv { .. });
        // The convolution that comes last: the block's own, not the shortcut's.
        let summand = operands.into_iter().filter(own).max()?;
        let other = operands.into_iter().find(|a| *a != summand)?;
        graph.stages[map].op.relu().then_some(Cut { sum, summand, other, map })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::encoder::{Encoder, Kind};
    use crate::encoder::Network;

    fn graph(kind: Kind) -> Graph {
        let shape = Shape::new(32, 32, 3);
        let architecture = Encoder { kind, ..Encoder::default() }.architecture(shape, 10).unwrap();
        Network::new(architecture, 1).unwrap().folded().unwrap().architecture.graph
    }

    #[test]
    fn sums_tie_a_residual_stream() {
        let graph = graph(Kind::ResNet8);
        let ties = ties(&graph, &graph.shapes().unwrap());
        let sums: Vec<usize> = (0..graph.stages.len()).filter(|&i| graph.stages[i].op.second().is_some()).collect();
        assert_eq!(sums.len(), 3);
        for sum in sums {
            let tie = ties.iter().find(|t| t.activations.contains(&(sum + 1))).unwrap();
            // Both summands and the sum; two convolutions write, only batch norms read.
            assert_eq!((tie.activations.len(), tie.writers.len()), (3, 2), "{tie:?}");
            assert!(tie.mixers.is_empty() && !tie.features && !tie.maps.is_empty(), "{tie:?}");
            let cut = tie.cut.unwrap();
            assert!(cut.sum == sum + 1 && cut.summand == sum && cut.other < sum, "{cut:?}");
        }
        let features = ties.iter().find(|t| t.features).unwrap();
        assert!(features.activations.contains(&graph.stages.len()) && features.cut.is_none());
    }

    #[test]
    fn a_sum_that_another_sum_reads_is_not_cut() {
        let graph = graph(Kind::ResNet20);
        let ties = ties(&graph, &graph.shapes().unwrap());
        let cuts: Vec<Cut> = ties.iter().filter_map(|t| t.cut).collect();
        assert_eq!(cuts.len(), 3, "{cuts:?}");
        for cut in cuts {
            let readers = graph.stages.iter().filter(|s| s.x == cut.sum || s.op.second() == Some(cut.sum)).count();
            assert_eq!(readers, 1);
        }
    }
}

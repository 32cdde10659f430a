//! Which layers of a model run in one go on a microcontroller, and where their activations lie.

use super::format::{Layout, Step, Work};
use super::geometry::Geometry;
use super::{Reads, reads};
use crate::arena::{Block, place};
use crate::header::{Header, MAX_ARENA, float_len};
use crate::layer::{Layer, Op};
use alloc::{vec, vec::Vec};

/// Most words of scratch memory of a convolution: past them it runs as a layer, by the scalar kernels.
const MOST_SCRATCH: usize = 8 << 10;
/// Where each activation begins.
const ALIGN: usize = 16;

/// Steps and places.
pub struct Plan {
    /// What runs, in order.
    pub steps: Vec<Step>,
    /// The first byte of each activation; 0 for those that are not stored.
    pub offsets: Vec<u32>,
    /// Bytes of all.
    pub arena: u32,
    /// Words of scratch memory: of the largest ring, or the floats that follow it.
    pub scratch: u32,
}

/// The words that a layer needs of the layout's kernels, if they compute it.
fn scratch(header: &Header, layer: usize, layout: Layout) -> Option<usize> {
    let found = header.layers.at(layer);
    let Op::Conv { window, groups: 1, .. } = &found.op else { return None };
    let [x, y] = [usize::from(found.inputs[0]), layer + 1].map(|i| header.activations.at(i).shape);
    let words = Geometry::new(layout, window, x, y)?.scratch_words(y.c.into());
    (words <= MOST_SCRATCH).then_some(words)
}

impl Plan {
    /// The plan of a valid model; `None` if its activations take more than [`MAX_ARENA`].
    pub fn new(header: &Header, layout: Layout) -> Option<Self> {
        let layers: Vec<Layer> = header.layers.iter().collect();
        let readers = |activation: usize| {
            layers.iter().enumerate().filter(move |(_, l)| l.reads().contains(&(activation as u16)))
        };
        // The heads read the last activation.
        let last = layers.len();
        let is_conv = |layer: usize| scratch(header, layer, layout).is_some();
        let on_the_way = |layer: usize| {
            let only_convs = readers(layer + 1).all(|(reader, _)| is_conv(reader));
            matches!(layers[layer].op, Op::Affine { .. }) && layer + 1 != last && only_convs
        };
        let (mut steps, mut most, mut at) = (Vec::new(), 0, 0);
        while at < layers.len() {
            let layer = at;
            at += 1;
            if on_the_way(layer) && readers(layer + 1).count() > 0 {
                continue;
            }
            let Some(words) = scratch(header, layer, layout) else {
                steps.push(Step { work: Work::Layer, layer: layer as u16, affine: None, sum: None });
                continue;
            };
            most = most.max(words);
            let input = layers[layer].inputs[0];
            let affine = input.checked_sub(1).filter(|affine| on_the_way((*affine).into()));
            // A sum follows where nothing else reads the convolution, which has no ReLU of its own then.
            let relu = matches!(layers[layer].op, Op::Conv { relu: true, .. });
            let sum = layers.get(at).filter(|next| {
                let own = at as u16;
                let reads = next.reads().contains(&own) && next.inputs[0] != next.inputs[1];
                matches!(next.op, Op::Add { .. }) && reads && !relu && at != last && readers(at).count() == 1
            });
            let sum = sum.map(|_| at as u16);
            at += usize::from(sum.is_some());
            steps.push(Step { work: Work::Conv, layer: layer as u16, affine, sum });
        }
        let most = most.max(float_len(header.latent.into(), header.classes.into()));
        let (offsets, arena) = places(header, &steps)?;
        Some(Self { steps, offsets, arena, scratch: u32::try_from(most).ok()? })
    }
}

/// Where activations lie: each is held from the step that stores it to the last that reads it, and a sum takes the place of an
/// operand that nobody reads after it.
fn places(header: &Header, steps: &[Step]) -> Option<(Vec<u32>, u32)> {
    let count = header.activations.len();
    // The first and the last step of each stored activation, and whose place it takes.
    let (mut lives, mut whose): (Vec<Option<[usize; 2]>>, Vec<usize>) = (vec![None; count], (0..count).collect());
    lives[0] = Some([0, 0]);
    for (s, step) in steps.iter().enumerate() {
        let (Reads { source, second }, output) = reads(header, step);
        for input in [Some(source), second].into_iter().flatten() {
            if let Some(life) = &mut lives[usize::from(input)] {
                life[1] = s;
            }
        }
        lives[usize::from(output)] = Some([s, s]);
    }
    if let Some(Some(features)) = lives.last_mut() {
        features[1] = steps.len();
    }
    for (s, step) in steps.iter().enumerate() {
        let layer = header.layers.at(step.stores().into());
        let (Reads { source: first, second: Some(second) }, output) = reads(header, step) else { continue };
        if !matches!(layer.op, Op::Add { .. }) || first == second {
            continue;
        }
        // What a convolution reads is not its sum's to overwrite.
        let candidates = if step.sum.is_some() { [second, second] } else { [second, first] };
        let free = candidates.into_iter().find(|i| lives[usize::from(*i)].is_some_and(|life| life[1] == s));
        if let Some(operand) = free {
            let place = whose[usize::from(operand)];
            whose[usize::from(output)] = place;
            let end = lives[usize::from(output)]?[1];
            if let Some(life) = &mut lives[place] {
                life[1] = life[1].max(end);
            }
        }
    }
    let own = |i: &usize| lives[*i].is_some() && whose[*i] == *i;
    let stored: Vec<usize> = (0..count).filter(own).collect();
    let block = |i: &usize| {
        let len = usize::try_from(header.activations.at(*i).shape.len()).ok()?;
        Some(Block { len, life: lives[*i]? })
    };
    let blocks: Vec<Block> = stored.iter().map(block).collect::<Option<_>>()?;
    let (at, end) = place(&blocks, ALIGN, MAX_ARENA as usize)?;
    let mut offsets = vec![0; count];
    for (i, at) in stored.iter().zip(at) {
        offsets[*i] = u32::try_from(at).ok()?;
    }
    for i in 0..count {
        offsets[i] = offsets[whose[i]];
    }
    Some((offsets, u32::try_from(end).ok()?))
}

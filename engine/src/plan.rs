//! Which layers fast kernels run in one go, and where their activations lie in the memory of an inference.

use crate::arena::{Block, place};
use crate::header::Header;
use crate::kernel::grid::Grid;
use crate::kernel::isa::Isa;
use crate::kernel::map::{self, Columns, Depthwise, SLACK, Wide};
use crate::kernel::packed::{DEPTH, Order};
use crate::kernel::winograd::Winograd;
use crate::layer::{Layer, Op, Window};
use alloc::{vec, vec::Vec};
use core::ops::Range;

/// Most bytes of an inference's memory. Borders are not bounded by a model's size; past this it runs on the scalar kernels.
const MAX_MEMORY: usize = 512 << 20;

/// Where each activation begins, at a register's width.
const ALIGN: usize = 64;

/// Groups of layers and places of activations.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Layers that run in one go, in order.
    pub groups: Vec<Range<usize>>,
    /// Each activation, its border as wide as its readers need.
    pub grids: Vec<Grid>,
    /// First byte of the room for a depthwise convolution's columns, for Winograd's tiles, or for widened inputs.
    pub columns: usize,
    /// For each layer that may be one of Winograd's: its tiles.
    pub tiles: Vec<Option<Winograd>>,
    /// Bytes of that room for one thread; the next one's follows.
    pub room: usize,
    /// Bytes of an inference's memory on one thread.
    pub len: usize,
    /// How often each activation is read.
    readers: Vec<usize>,
}

/// Whether a layer is one linear map, into whose registers what follows may be taken.
fn is_map(op: &Op) -> bool {
    matches!(op, Op::Conv { groups: 1, .. } | Op::Dense { .. })
}

/// Whether a convolution's channels each have an input channel of their own.
pub(crate) fn is_depthwise(groups: u16, x: &Grid, y: &Grid) -> bool {
    groups > 1 && groups == x.shape.c && groups == y.shape.c
}

/// The columns of a depthwise convolution from `x` to `y`.
fn columns(x: &Grid, window: &Window, y: &Grid) -> Columns {
    let [top, left, ..] = window.pad.map(usize::from);
    let [kernel_h, kernel_w] = window.kernel.map(usize::from);
    let [down, right] = window.stride.map(usize::from);
    let from = x.before(top, left);
    let width = (y.shape.w as usize - 1) * right + kernel_w;
    Columns { x: from, down: down * from.pitch, channels: x.shape.c.into(), extent: [width, kernel_h] }
}

/// Where a layer from `x` to `y` widens its inputs, if it is one linear map; the room begins at `at`.
pub(crate) fn wide(op: &Op, x: &Grid, y: &Grid, at: usize) -> Option<Wide> {
    let c = usize::from(x.shape.c);
    match op {
        Op::Conv { window, groups: 1, .. } => {
            let [kernel_h, kernel_w] = window.kernel.map(usize::from);
            let [down, right] = window.stride.map(usize::from);
            let steps = (kernel_w * c).div_ceil(4);
            let reach = map::reach(y.shape.w.into(), right * c, (kernel_h - 1) * x.pitch(), steps);
            Some(Wide::new(at, y.shape.h.into(), reach, down * x.pitch(), Wide::NEAR))
        }
        Op::Dense { .. } => {
            let last = if x.pad == [0; 4] { 0 } else { (usize::from(x.shape.h) - 1) * x.pitch() };
            let run = if x.pad == [0; 4] { x.shape.len() as usize } else { usize::from(x.shape.w) * c };
            Some(Wide::new(at, 1, map::reach(1, 0, last, run.div_ceil(4)), 0, Wide::NEAR))
        }
        _ => None,
    }
}

/// What a depthwise convolution from `x` to `y` reads for weights in such an order.
pub(crate) fn depthwise(order: Order, x: &Grid, window: &Window, y: &Grid) -> Depthwise {
    if order.is_by_taps() { Depthwise::Taps } else { Depthwise::Columns(columns(x, window, y)) }
}

/// Bytes from a pixel's first tap to each run of what it reads there: to each tap, or to four rows of columns.
pub(crate) fn depthwise_taps(reads: &Depthwise, x: &Grid, window: &Window) -> Vec<usize> {
    let [kernel_h, kernel_w] = window.kernel.map(usize::from);
    match reads {
        Depthwise::Columns(columns) => (0..kernel_h.div_ceil(DEPTH)).map(|run| run * columns.pitch()).collect(),
        Depthwise::Taps => {
            // The last of an odd number stands twice: its second weight is 0.
            let all = kernel_h * kernel_w;
            let tap = |i: usize| i / kernel_w * x.pitch() + i % kernel_w * usize::from(x.shape.c);
            (0..all.next_multiple_of(2)).map(|i| tap(i.min(all - 1))).collect()
        }
    }
}

/// How often each activation is read; the features once more, by the heads.
fn readers(header: &Header) -> Vec<usize> {
    let mut count = vec![0; header.activations.len()];
    for layer in header.layers.iter() {
        layer.reads().iter().for_each(|&i| count[i as usize] += 1);
    }
    if let Some(features) = count.last_mut() {
        *features += 1;
    }
    count
}

/// A linear map takes with it the residual sum that alone reads it, and the per-channel map that comes next.
fn groups(header: &Header) -> Vec<Range<usize>> {
    let count = readers(header);
    let layers: Vec<Layer> = header.layers.iter().collect();
    let mut groups = Vec::new();
    let mut at = 0;
    while at < layers.len() {
        let mut end = at + 1;
        if is_map(&layers[at].op) {
            // Activation `end` is the output of layer `end - 1`.
            let reads = |layer: &Layer| layer.reads().contains(&(end as u16));
            let is_sum = |l: &Layer| matches!(l.op, Op::Add { .. }) && reads(l) && l.inputs[0] != l.inputs[1];
            if count[end] == 1 && layers.get(end).is_some_and(is_sum) {
                end += 1;
            }
            let reads = |layer: &Layer| layer.reads().contains(&(end as u16));
            if layers.get(end).is_some_and(|l| matches!(l.op, Op::Affine { .. }) && reads(l)) {
                end += 1;
            }
        }
        groups.push(at..end);
        at = end;
    }
    groups
}

impl Plan {
    /// The plan of a valid model for an instruction set; `None` if it would take too much memory.
    pub fn new(header: &Header, isa: Isa) -> Option<Self> {
        let flip = isa.flip();
        let groups = groups(header);
        let mut grids: Vec<Grid> = header
            .activations
            .iter()
            .map(|a| Grid { shape: a.shape, pad: [0; 4], at: 0, zero: a.zero_point as u8 ^ flip })
            .collect();
        for layer in header.layers.iter() {
            if let Op::Conv { window, .. } = &layer.op {
                let pad = &mut grids[layer.inputs[0] as usize].pad;
                *pad = core::array::from_fn(|side| pad[side].max(window.pad[side] as usize));
            }
        }
        let lives = lifetimes(header, &groups);
        let blocks: Vec<Block> = grids.iter().zip(lives).map(|(g, life)| Block { len: g.len(), life }).collect();
        let (offsets, end) = place(&blocks, ALIGN, MAX_MEMORY)?;
        grids.iter_mut().zip(offsets).for_each(|(grid, at)| grid.at = at);
        let columns = (end + SLACK).next_multiple_of(ALIGN);
        let mut room = 0;
        let mut tiles = vec![None; header.layers.len()];
        for (i, layer) in header.layers.iter().enumerate() {
            let Op::Conv { window, groups, .. } = &layer.op else { continue };
            let [x, y] = [&grids[layer.inputs[0] as usize], &grids[i + 1]];
            if is_depthwise(*groups, x, y) {
                if let Depthwise::Columns(columns) = depthwise(isa.depthwise(), x, window, y) {
                    room = room.max(columns.len());
                }
            } else if let (1, Some(uses)) = (*groups, isa.winograd()) {
                tiles[i] = Winograd::of(uses, window, x.shape, y.shape).map(|w| Winograd { at: columns, ..w });
                room = room.max(tiles[i].map_or(0, |w| w.len()));
            }
        }
        for (i, layer) in header.layers.iter().enumerate().filter(|_| isa.order().is_wide()) {
            let wide = wide(&layer.op, &grids[layer.inputs[0] as usize], &grids[i + 1], columns);
            room = room.max(wide.map_or(0, |w| w.len));
        }
        let room = room.next_multiple_of(ALIGN);
        let len = columns.checked_add(room)?;
        (len <= MAX_MEMORY).then_some(Self { groups, grids, columns, tiles, room, len, readers: readers(header) })
    }

    /// Whether an activation is read more than once.
    pub fn is_shared(&self, activation: usize) -> bool {
        self.readers[activation] > 1
    }
}

/// The first and last group in which each activation is held. A group reads and writes at once, so what it reads lives to
/// its end.
fn lifetimes(header: &Header, groups: &[Range<usize>]) -> Vec<[usize; 2]> {
    let mut lives = vec![[0; 2]; header.activations.len()];
    for (g, group) in groups.iter().enumerate() {
        for layer in group.clone() {
            lives[layer + 1] = [g; 2];
            header.layers.at(layer).reads().iter().for_each(|&i| lives[i as usize][1] = g);
        }
    }
    if let Some(features) = lives.last_mut() {
        features[1] = usize::MAX;
    }
    lives
}

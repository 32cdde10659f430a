//! A model in the order in which register tiles read it, and its layers by the tiles' kernels.

use crate::artifact::Model;
use crate::encoder::{Heads, borrow, rows};
use crate::kernel::grid::View;
use crate::kernel::isa::Isa;
use crate::kernel::map::{self, Map, Sum};
use crate::kernel::packed::{Line, Packed, push_constants};
use crate::kernel::scalar::{self, Source, Target};
use crate::layer::{Head, Op};
use crate::plan::{Plan, is_plain};
use crate::prepared::Watch;
use crate::requant::Output;
use alloc::vec::Vec;
use core::ops::Range;

/// A layer's numbers in the block of lines.
#[derive(Debug, Clone, Copy)]
enum Step {
    Linear(Packed),
    /// The first line of the factors, and of the summands.
    Affine([usize; 2]),
    /// It has none, or reads them from the model as they are.
    Plain,
}

/// A model's numbers for tiles.
#[derive(Debug, Clone)]
pub(crate) struct Tiled {
    isa: Isa,
    plan: Plan,
    /// All packed numbers, in one aligned block.
    lines: Vec<Line>,
    steps: Vec<Step>,
    heads: [Packed; 2],
    /// Of the block, as it was made.
    checksum: u32,
}

/// What an inference runs over.
pub(crate) struct Memory<'a> {
    /// At least [`Tiled::scratch_len`] bytes.
    pub scratch: &'a mut [u8],
    /// The model's arena, for layers that are observed.
    pub arena: &'a mut [i8],
}

impl Tiled {
    /// The model for an instruction set; `None` if its borders take too much memory.
    pub fn new(model: &Model, isa: Isa) -> Option<Self> {
        let header = model.header();
        let (order, flip) = (isa.order(), isa.flip());
        let plan = Plan::new(header, flip)?;
        let mut lines = Vec::new();
        let mut steps = Vec::with_capacity(header.layers.len());
        for layer in &header.layers {
            let x = &plan.grids[layer.inputs[0] as usize];
            steps.push(match &layer.op {
                Op::Conv { window, groups: 1, weight, bias, scale, .. } => {
                    let [kernel_h, kernel_w] = window.kernel.map(usize::from);
                    let map = rows(model, *weight, *bias, *scale);
                    Step::Linear(Packed::push(&mut lines, map, kernel_h, kernel_w * x.shape.c as usize, order, flip))
                }
                Op::Dense { weight, bias, scale, .. } => {
                    // Without a border all inputs lie side by side.
                    let runs = if x.pad == [0; 4] { 1 } else { x.shape.h as usize };
                    let map = rows(model, *weight, *bias, *scale);
                    let run = x.shape.len() as usize / runs;
                    Step::Linear(Packed::push(&mut lines, map, runs, run, order, flip))
                }
                Op::Affine { mul, add, .. } => Step::Affine([*mul, *add].map(|constants| {
                    let at = lines.len();
                    push_constants(&mut lines, model.f32s(constants).iter().map(f32::to_le_bytes));
                    at
                })),
                _ => Step::Plain,
            });
        }
        let features = model.features().shape.len() as usize;
        let mut head =
            |h: &Head| Packed::push(&mut lines, rows(model, h.weight, h.bias, h.scale), 1, features, order, flip);
        let heads = [head(&header.mu), head(&header.sigma)];
        let mut this = Self { isa, plan, lines, steps, heads, checksum: 0 };
        this.checksum = this.sum();
        Some(this)
    }

    /// The model for the `n`-th instruction set of this CPU, the fastest first.
    pub fn nth(model: &Model, n: usize) -> Option<Self> {
        Isa::all().nth(n).and_then(|isa| Self::new(model, isa))
    }

    /// The kernels, as reports name them.
    pub fn kernels(&self) -> &'static str {
        self.isa.name()
    }

    /// The kernels of an operation, as reports name them.
    pub fn kernels_of(&self, op: &Op) -> &'static str {
        if is_plain(op) { "scalar" } else { self.kernels() }
    }

    /// [`Isa::multiply_at_peak`].
    pub fn multiply_at_peak(&self, rounds: u32) -> u64 {
        self.isa.multiply_at_peak(rounds)
    }

    /// Whether every packed number is as it was made.
    pub fn is_intact(&self) -> bool {
        self.sum() == self.checksum
    }

    /// CRC-32 of every packed number.
    fn sum(&self) -> u32 {
        let mut hash = crc32fast::Hasher::new();
        self.lines.iter().for_each(|l| hash.update(&l.0));
        hash.finalize()
    }

    /// Bytes of scratch memory of an inference, at any alignment.
    pub fn scratch_len(&self) -> usize {
        self.plan.len + align_of::<Line>()
    }

    /// From a u8 HWC image of the model's input length to its heads.
    pub fn run(&self, model: &Model, image: &[u8], memory: Memory, watch: Watch, heads: Heads) {
        let scratch = aligned(memory.scratch);
        let flip = self.isa.flip();
        let input = &self.plan.grids[0];
        input.fill_border(scratch);
        let row = image.len() / input.shape.h as usize;
        for (to, pixels) in input.rows_mut(&mut scratch[input.range()]).zip(image.chunks_exact(row)) {
            // u8 - 128, exactly.
            to.iter_mut().zip(pixels).for_each(|(to, pixel)| *to = pixel ^ 0x80 ^ flip);
        }
        match watch {
            Watch::Nobody => self.plan.groups.iter().for_each(|group| self.group(model, group.clone(), scratch)),
            Watch::Groups(after) => {
                after(0..0);
                for group in &self.plan.groups {
                    self.group(model, group.clone(), scratch);
                    after(group.clone());
                }
            }
            Watch::Layers(observe) => {
                for (layer, activation) in model.header().activations.iter().skip(1).enumerate() {
                    self.group(model, layer..layer + 1, scratch);
                    let output = &mut memory.arena[activation.range()];
                    self.plan.grids[layer + 1].read(scratch, flip, output);
                    observe(layer, output);
                }
            }
        }
        self.heads(scratch, heads);
    }

    fn heads(&self, scratch: &[u8], heads: Heads) {
        let Some(features) = self.plan.grids.last() else { return };
        for (packed, to) in self.heads.iter().zip([heads.mu, heads.s]) {
            let map = Map { x: features.inside(), ..self.linear(*packed, Output::new(0, false)) };
            self.isa.real(&map, scratch, to);
        }
    }

    /// A map of one pixel that is written nowhere yet.
    fn linear(&self, packed: Packed, out: Output) -> Map<'_> {
        let x = View { at: 0, pitch: 0 };
        Map { lines: &self.lines, packed, x, step: [0; 2], extent: [1; 2], out, y: None, sum: None, affine: None }
    }

    /// Runs layers in one go.
    fn group(&self, model: &Model, layers: Range<usize>, scratch: &mut [u8]) {
        let header = model.header();
        let layer = &header.layers[layers.start];
        let Self { isa, plan, .. } = self;
        let grid = |activation: u16| &plan.grids[activation as usize];
        let [x, second] = layer.inputs.map(grid);
        let y = &plan.grids[layers.start + 1];
        let out = |layer: usize, relu| Output::new(header.activations[layer + 1].zero_point, relu);
        let own = |relu| out(layers.start, relu);
        if let Step::Linear(packed) = &self.steps[layers.start] {
            let mut map = match &layer.op {
                Op::Conv { window, relu, .. } => {
                    let [top, left, ..] = window.pad.map(usize::from);
                    let [down, right] = window.stride.map(usize::from);
                    let from = x.before(top, left);
                    let step = [right * x.shape.c as usize, down * from.pitch];
                    let extent = [y.shape.h, y.shape.w].map(usize::from);
                    Map { x: from, step, extent, ..self.linear(*packed, own(*relu)) }
                }
                Op::Dense { relu, .. } => Map { x: x.inside(), ..self.linear(*packed, own(*relu)) },
                _ => unreachable!("only convolutions and dense layers are packed"),
            };
            let mut last = y;
            map.y = Some(y.inside());
            for next in layers.start + 1..layers.end {
                let after = &header.layers[next];
                let y = &plan.grids[next + 1];
                match (&after.op, &self.steps[next]) {
                    (Op::Add { ratio, relu }, _) => {
                        let [a, b] = after.inputs;
                        let is_first = a as usize == next;
                        let other = grid(if is_first { b } else { a });
                        let ratio = if is_first { *ratio } else { [ratio[1], ratio[0]] };
                        let (other_zero, out) = (other.zero, out(next, *relu));
                        map.sum = Some(Sum { other: other.inside(), other_zero, ratio, out });
                        (last, map.y) = (y, Some(y.inside()));
                    }
                    (Op::Affine { relu, .. }, Step::Affine([mul, add])) => {
                        let (mul, add, out) = (*mul, *add, out(next, *relu));
                        map.affine = Some(map::Affine { mul, add, out, y: y.inside() });
                        y.fill_border(scratch);
                        // The map's own output, activation `next`, may have no other reader.
                        if !plan.is_shared(next) {
                            map.y = None;
                        }
                    }
                    _ => unreachable!("only sums and affine maps follow in one go"),
                }
            }
            if map.y.is_some() {
                last.fill_border(scratch);
            }
            return isa.map(&map, scratch);
        }
        y.fill_border(scratch);
        if is_plain(&layer.op) {
            return self.plain(model, layers.start, scratch);
        }
        let (a, b, to) = borrow(scratch, [x.range(), second.range()], y.range());
        match &layer.op {
            Op::Affine { mul, add, relu } => {
                isa.affine((x, a), [model.f32s(*mul), model.f32s(*add)], own(*relu), (y, to));
            }
            Op::Add { ratio, relu } => isa.add([(x, a), (second, b)], *ratio, own(*relu), (y, to)),
            Op::AvgPool { window, scale } => isa.avg_pool((x, a), window, *scale, own(false), (y, to)),
            op => unreachable!("{} has a kernel", op.name()),
        }
    }

    /// A layer by the scalar kernels, on operands without borders.
    fn plain(&self, model: &Model, index: usize, scratch: &mut [u8]) {
        let header = model.header();
        let layer = &header.layers[index];
        let [input, output] = [layer.inputs[0] as usize, index + 1];
        let [x, y] = [input, output].map(|i| &self.plan.grids[i]);
        let flip = self.isa.flip();
        let (grids, room) = scratch.split_at_mut(self.plan.plain);
        let (from, rest) = room.split_at_mut(x.shape.len() as usize);
        let to = &mut rest[..y.shape.len() as usize];
        let (from, to): (&mut [i8], &mut [i8]) = (bytemuck::cast_slice_mut(from), bytemuck::cast_slice_mut(to));
        x.read(grids, flip, from);
        let source = Source { x: from, shape: x.shape, zero: header.activations[input].zero_point };
        let extent = [y.shape.h, y.shape.w].map(usize::from);
        match &layer.op {
            Op::Conv { window, groups, weight, bias, scale, relu } => {
                let map = rows(model, *weight, *bias, *scale);
                let out = Output::new(header.activations[output].zero_point, *relu);
                scalar::conv(source, window, *groups as usize, map, Target { y: to, extent, out });
            }
            Op::MaxPool { window } => scalar::max_pool(source, window, to, extent),
            op => unreachable!("{} has a kernel", op.name()),
        }
        y.write(grids, flip, to);
    }
}

/// The memory from its first aligned byte on.
fn aligned(scratch: &mut [u8]) -> &mut [u8] {
    let skip = scratch.as_ptr().align_offset(align_of::<Line>()).min(scratch.len());
    &mut scratch[skip..]
}

#[cfg(test)]
mod tests;

//! A model in the order in which register tiles read it, and its layers by the tiles' kernels.

use crate::artifact::Model;
use crate::encoder::{Heads, borrow, rows};
use crate::inference::{Evidence, Posterior};
use crate::kernel::grid::{Grid, View};
use crate::kernel::isa::Isa;
use crate::kernel::map::{self, Map, Sum};
use crate::kernel::packed::{CacheLine, DEPTH, LANES, Packed, push_constants};
pub(crate) use crate::kernel::team::Team;
use crate::kernel::winograd::{self, Winograd};
use crate::layer::{Activation, Head, Layer, Op, Window};
use crate::plan::{Plan, depthwise, depthwise_taps, is_depthwise, wide};
use crate::requant::Output;
use crate::slices::shown;
use crate::watch::Watch;
use alloc::vec::Vec;
use core::ops::Range;

/// Bytes from a pixel's first tap to each of its runs.
type Taps = Vec<usize>;

/// Products below which one thread is done before two had agreed.
const TINY: u64 = 2_000_000;

/// Products below which it depends on the machine.
const SMALL: u64 = 30_000_000;

/// A layer's numbers in the block of lines.
#[derive(Debug, Clone)]
enum Step {
    Linear(Packed, Taps),
    Winograd(Packed, Winograd),
    /// Maps side by side.
    Grouped(Vec<Packed>, Taps),
    Depthwise(Packed, Taps),
    /// The first line of the factors, and of the summands.
    Affine([usize; 2]),
    /// It has none.
    Plain,
}

impl Step {
    /// The kernel that computes it alone, as reports name it.
    fn kernel(&self) -> &'static str {
        match self {
            Self::Linear(..) => "tiles",
            Self::Winograd(..) => "winograd",
            Self::Grouped(..) => "tiles by group",
            Self::Depthwise(..) => "tiles by channel",
            Self::Affine(_) | Self::Plain => "rows",
        }
    }
}

/// A model's numbers for tiles.
#[derive(Debug, Clone)]
pub(crate) struct Tiled {
    isa: Isa,
    plan: Plan,
    /// The file's records, read once.
    layers: Vec<Layer>,
    activations: Vec<Activation>,
    /// All packed numbers, in one aligned block.
    lines: Vec<CacheLine>,
    steps: Vec<Step>,
    heads: [Packed; 2],
    /// Products of an inference.
    products: u64,
    /// Of the block, as it was made.
    checksum: u32,
}

/// What an inference runs over.
pub(crate) struct Memory<'a> {
    /// At least [`Tiled::scratch_len`] bytes for the members of the team.
    pub scratch: &'a mut [u8],
    /// The model's arena, for layers that are observed.
    pub arena: &'a mut [i8],
    /// Who shares the work, if anyone.
    pub team: Option<&'a mut Team>,
}

impl Tiled {
    /// The model for an instruction set; `None` if its borders take too much memory.
    pub fn new(model: &Model, isa: Isa) -> Option<Self> {
        let header = model.header();
        let (order, flip) = (isa.order(), isa.flip());
        let plan = Plan::new(header, isa)?;
        let mut lines = Vec::new();
        let mut steps = Vec::with_capacity(header.layers.len());
        for (i, layer) in header.layers.iter().enumerate() {
            let [x, y] = [&plan.grids[layer.inputs[0] as usize], &plan.grids[i + 1]];
            let c = x.shape.c as usize;
            steps.push(match &layer.op {
                Op::Conv { window, groups, weight, bias, scale, .. } => {
                    let map = rows(model, *weight, *bias, *scale);
                    let kernel @ [kernel_h, kernel_w] = window.kernel.map(usize::from);
                    let tiles = plan.tiles[i].zip(isa.winograd());
                    let by_tiles = tiles.and_then(|(w, uses)| {
                        let packed = winograd::push(&mut lines, map, c, w.side, uses.order, flip)?;
                        Some(Step::Winograd(packed, w))
                    });
                    if let Some(step) = by_tiles {
                        step
                    } else if *groups == 1 {
                        let taps = (0..kernel_h).map(|row| row * x.pitch()).collect();
                        Step::Linear(Packed::push(&mut lines, map, kernel_h, kernel_w * c, order, flip), taps)
                    } else if is_depthwise(*groups, x, y) {
                        let packed = Packed::push_depthwise(&mut lines, map, kernel, isa.depthwise(), flip);
                        Step::Depthwise(packed, depthwise_taps(&depthwise(isa.depthwise(), x, window, y), x, window))
                    } else {
                        let pixels = (0..kernel_h).flat_map(|row| (0..kernel_w).map(move |column| (row, column)));
                        let taps: Taps = pixels.map(|(row, column)| row * x.pitch() + column * c).collect();
                        let (groups, runs) = (*groups as usize, [taps.len(), c / *groups as usize]);
                        Step::Grouped(Packed::push_groups(&mut lines, map, runs, groups, order, flip), taps)
                    }
                }
                Op::Dense { weight, bias, scale, .. } => {
                    // Without a border all inputs lie side by side.
                    let runs = if x.pad == [0; 4] { 1 } else { x.shape.h as usize };
                    let map = rows(model, *weight, *bias, *scale);
                    let run = x.shape.len() as usize / runs;
                    let taps = (0..runs).map(|row| row * x.pitch()).collect();
                    Step::Linear(Packed::push(&mut lines, map, runs, run, order, flip), taps)
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
        let (layers, activations) = (header.layers.iter().collect(), header.activations.iter().collect());
        let products = header.total_macs();
        let mut this = Self { isa, plan, layers, activations, lines, steps, heads, products, checksum: 0 };
        this.checksum = this.sum(0..this.packed_len());
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

    /// The kernel that computes a layer alone, as reports name it.
    pub fn kernel_of(&self, layer: usize) -> &'static str {
        self.steps[layer].kernel()
    }

    /// What an image's posterior says of itself.
    pub fn evidence(&self, model: &Model, image: &[u8], posterior: &Posterior, scratch: &mut [f32]) -> Evidence {
        self.isa.evidence(model, image, posterior, scratch)
    }

    /// [`Isa::multiply_at_peak`].
    pub fn multiply_at_peak(&self, rounds: u32) -> u64 {
        self.isa.multiply_at_peak(rounds)
    }

    /// Whether every packed number is as it was made.
    pub fn is_intact(&self) -> bool {
        self.sum(0..self.packed_len()) == self.checksum
    }

    /// Bytes of the packed numbers.
    pub fn packed_len(&self) -> usize {
        self.lines.len() * size_of::<CacheLine>()
    }

    /// CRC-32 of packed numbers, whole lines.
    pub fn sum(&self, bytes: Range<usize>) -> u32 {
        let mut hash = crc32fast::Hasher::new();
        let lines = bytes.start / size_of::<CacheLine>()..bytes.end / size_of::<CacheLine>();
        self.lines[lines].iter().for_each(|l| hash.update(&l.0));
        hash.finalize()
    }

    /// Flips a bit of the packed numbers; wraps past the last.
    pub fn flip(&mut self, bit: usize) {
        let at = bit % (8 * self.packed_len());
        let line = &mut self.lines[at / 8 / size_of::<CacheLine>()];
        line.0[at / 8 % size_of::<CacheLine>()] ^= 1 << (at % 8);
    }

    /// CRC-32 of what was read of a layer, and where its numbers and its output lie.
    pub fn layer_sum(&self, layer: usize) -> u32 {
        let (read, lies) = (&self.layers[layer], &self.steps[layer]);
        shown(&(read, &self.activations[layer + 1], lies, &self.plan.grids[layer + 1]))
    }

    /// CRC-32 of what belongs to no layer.
    pub fn rest_sum(&self) -> u32 {
        let Plan { groups, len, room, columns, .. } = &self.plan;
        shown(&(&self.heads, &self.activations[0], &self.plan.grids[0], groups, len, room, columns))
    }

    /// Bytes of scratch memory of an inference on so many threads, at any alignment.
    pub fn scratch_len(&self, members: usize) -> usize {
        self.plan.len + (self.sharers(members) - 1) * self.plan.room + align_of::<CacheLine>()
    }

    /// How many of a team share an inference: a small network stays on one thread.
    fn sharers(&self, members: usize) -> usize {
        if self.products < TINY { 1 } else { members }
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
        let arena = memory.arena;
        match memory.team.filter(|team| self.sharers(team.members()) > 1) {
            Some(team) if self.products < SMALL => {
                team.briefly(|team| self.layers(model, scratch, arena, watch, team));
            }
            team => self.layers(model, scratch, arena, watch, team),
        }
        self.heads(scratch, heads);
    }

    /// Runs every layer.
    fn layers(&self, model: &Model, scratch: &mut [u8], arena: &mut [i8], watch: Watch, mut team: Option<&mut Team>) {
        let mut group = |layers: Range<usize>, scratch: &mut [u8]| {
            self.group(model, layers, scratch, team.as_deref_mut());
        };
        match watch {
            Watch::Nobody => self.plan.groups.iter().for_each(|layers| group(layers.clone(), scratch)),
            Watch::Groups(after) => {
                after(0..0);
                for layers in &self.plan.groups {
                    group(layers.clone(), scratch);
                    after(layers.clone());
                }
            }
            Watch::Memory(after) => {
                // The same bytes wherever the memory begins.
                let len = self.plan.len;
                after(0..0, &mut scratch[..len]);
                for layers in &self.plan.groups {
                    group(layers.clone(), scratch);
                    after(layers.clone(), &mut scratch[..len]);
                }
            }
            Watch::Layers(observe) => {
                for (layer, activation) in self.activations.iter().skip(1).enumerate() {
                    group(layer..layer + 1, scratch);
                    let output = &mut arena[activation.range()];
                    self.plan.grids[layer + 1].read(scratch, self.isa.flip(), output);
                    observe(layer, output);
                }
            }
        }
    }

    fn heads(&self, scratch: &[u8], heads: Heads) {
        let Some(features) = self.plan.grids.last() else { return };
        for (packed, to) in self.heads.iter().zip([heads.mu, heads.s]) {
            let map = Map { x: features.inside().at, ..Map::new(&self.lines, *packed, &[0], Output::new(0, false)) };
            self.isa.real(&map, scratch, to);
        }
    }

    /// A map at every pixel of a window that slides from `x` to `y`, as one over all channels.
    fn sliding<'a>(
        &'a self,
        packed: Packed,
        taps: &'a [usize],
        [x, y]: [&Grid; 2],
        window: &Window,
        out: Output,
    ) -> Map<'a> {
        let [top, left, ..] = window.pad.map(usize::from);
        let [down, right] = window.stride.map(usize::from);
        let from = x.before(top, left);
        let step = [right * x.shape.c as usize, down * from.pitch];
        let extent = [y.shape.h, y.shape.w].map(usize::from);
        let room = self.plan.room;
        Map { x: from.at, step, extent, room, y: Some(y.inside()), ..Map::new(&self.lines, packed, taps, out) }
    }

    /// Runs layers in one go.
    fn group(&self, model: &Model, layers: Range<usize>, scratch: &mut [u8], team: Option<&mut Team>) {
        let layer = &self.layers[layers.start];
        let Self { isa, plan, .. } = self;
        let grid = |activation: u16| &plan.grids[activation as usize];
        let [x, second] = layer.inputs.map(grid);
        let y = &plan.grids[layers.start + 1];
        let out = |layer: usize, relu| Output::new(self.activations[layer + 1].zero_point, relu);
        let own = |relu| out(layers.start, relu);
        let map = match (&self.steps[layers.start], &layer.op) {
            (Step::Linear(packed, taps), Op::Conv { window, relu, .. }) => {
                Some(self.sliding(*packed, taps, [x, y], window, own(*relu)))
            }
            (Step::Winograd(packed, w), Op::Conv { window, relu, .. }) => {
                Some(Map { winograd: Some(*w), ..self.sliding(*packed, &[], [x, y], window, own(*relu)) })
            }
            (Step::Linear(packed, taps), Op::Dense { relu, .. }) => {
                Some(Map { x: x.inside().at, ..Map::new(&self.lines, *packed, taps, own(*relu)) })
            }
            _ => None,
        };
        if let Some(mut map) = map {
            if isa.order().is_wide() && map.winograd.is_none() {
                map.wide = wide(&layer.op, x, y, plan.columns);
                map.room = plan.room;
            }
            let mut last = y;
            map.y = Some(y.inside());
            for next in layers.start + 1..layers.end {
                let after = &self.layers[next];
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
            return isa.map(&map, scratch, team);
        }
        y.fill_border(scratch);
        if let Op::Conv { window, groups, relu, .. } = &layer.op {
            return self.by_group(layers.start, (window, *groups), [x, y], own(*relu), scratch, team);
        }
        let (a, b, to) = borrow(scratch, [x.range(), second.range()], y.range());
        match &layer.op {
            Op::MaxPool { window } => isa.max_pool((x, a), window, (y, to)),
            Op::Affine { mul, add, relu } => {
                isa.affine((x, a), [model.f32s(*mul), model.f32s(*add)], own(*relu), (y, to));
            }
            Op::Add { ratio, relu } => isa.add([(x, a), (second, b)], *ratio, own(*relu), (y, to)),
            Op::AvgPool { window, scale } => isa.avg_pool((x, a), window, *scale, own(false), (y, to)),
            op => unreachable!("{} has a kernel", op.name()),
        }
    }

    /// Runs a convolution of several groups.
    fn by_group(
        &self,
        layer: usize,
        (window, groups): (&Window, u16),
        [x, y]: [&Grid; 2],
        out: Output,
        scratch: &mut [u8],
        mut team: Option<&mut Team>,
    ) {
        match &self.steps[layer] {
            Step::Grouped(maps, taps) => {
                let (channels, groups) = (y.shape.c as usize, groups as usize);
                let depth = x.shape.c as usize / groups;
                let mut first = 0;
                for packed in maps {
                    let map = self.sliding(*packed, taps, [x, y], window, out);
                    let to = View { at: y.inside().at + first, ..y.inside() };
                    let from = map.x + first * groups / channels * depth;
                    let map = Map { x: from, pixel: channels, y: Some(to), ..map };
                    self.isa.map(&map, scratch, team.as_deref_mut());
                    first += packed.channels;
                }
            }
            Step::Depthwise(packed, taps) => {
                let map = self.sliding(*packed, taps, [x, y], window, out);
                let mut map = Map { depthwise: Some(depthwise(self.isa.depthwise(), x, window, y)), ..map };
                if map.columns().is_some() {
                    map.x = self.plan.columns;
                    map.step = [window.stride[1] as usize * LANES * DEPTH, 0];
                }
                self.isa.map(&map, scratch, team);
            }
            _ => unreachable!("a convolution of one group is one map"),
        }
    }
}

/// The memory from its first aligned byte on.
fn aligned(scratch: &mut [u8]) -> &mut [u8] {
    let skip = scratch.as_ptr().align_offset(align_of::<CacheLine>()).min(scratch.len());
    &mut scratch[skip..]
}

#[cfg(test)]
mod tests;

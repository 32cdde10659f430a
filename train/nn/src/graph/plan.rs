//! A graph made ready for the CPU: kernels, where parameters and running statistics stand, and who reads what.

use super::pool::Pool;
use super::{Graph, Init, Op};
use crate::ops::conv::{Conv, Dense, Load, Packed, Tiles};
use crate::ops::lanes::Isa;
use crate::ops::norm::Affine;
use anyhow::Result;
use paradise_engine::Shape;
use rayon::prelude::*;
use std::ops::Range;

/// Images of a task: few enough to keep many threads busy, and fixed, so that sums do not depend on their number.
const CHUNK: usize = 8;

/// Images of a task around a dense layer.
pub(super) const ROWS: usize = 64;

/// Most f32 of the tasks' private weight gradients in one layer.
const PARTIAL_LIMIT: usize = 32 << 20;

/// Where a stage's parameters stand in the flat vectors.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// Weight or scale, then bias or shift, in the parameters.
    pub parameters: Vec<Range<usize>>,
    /// Running mean, then variance, of a batch norm.
    pub running: [Range<usize>; 2],
}

fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// A graph with its kernels.
#[derive(Debug)]
pub(super) struct Plan {
    pub isa: Isa,
    pub graph: Graph,
    pub shapes: Vec<Shape>,
    /// The convolution behind each Conv and Transposed stage.
    pub convs: Vec<Option<Conv>>,
    pub places: Vec<Place>,
    /// Values of all parameters.
    pub parameters: usize,
    /// Values of all running statistics.
    pub running: usize,
    /// First stage that reads each activation: the last one in the backward order.
    pub first_reader: Vec<usize>,
    /// Last stage that needs each stored activation, directly or through a map.
    pub last_need: Vec<usize>,
    /// Whether a batch norm reads each activation.
    pub feeds_norm: Vec<bool>,
}

impl Plan {
    /// Kernels for `isa`, products of convolutions in `tiles` where there are any.
    pub fn new(graph: Graph, isa: Isa, tiles: Option<Tiles>) -> Result<Self> {
        let shapes = graph.shapes()?;
        let mut convs = Vec::new();
        let (mut places, mut parameters, mut running) = (Vec::new(), 0, 0);
        let claim = |at: &mut usize, n: usize| {
            *at += n;
            *at - n..*at
        };
        for (i, (stage, declared)) in graph.stages.iter().zip(graph.parameters(Init::Uniform)?).enumerate() {
            let (x, y) = (shapes[stage.x], shapes[i + 1]);
            convs.push(match &stage.op {
                Op::Conv { window, groups, out, .. } => Some(Conv::new(isa, tiles, x, *window, *groups, *out)?),
                Op::Transposed { window, .. } => Some(Conv::new(isa, tiles, y, *window, 1, usize::from(x.c))?),
                _ => None,
            });
            let own = declared.iter().map(|p| claim(&mut parameters, p.len())).collect();
            let statistics = if matches!(stage.op, Op::BatchNorm { .. }) { usize::from(y.c) } else { 0 };
            places.push(Place { parameters: own, running: [0, 1].map(|_| claim(&mut running, statistics)) });
        }
        let n = shapes.len();
        let (mut first_reader, mut last_need, mut feeds_norm) = (vec![usize::MAX; n], vec![0; n], vec![false; n]);
        for (i, stage) in graph.stages.iter().enumerate() {
            first_reader[stage.x] = first_reader[stage.x].min(i);
            let stored = if graph.is_map(stage.x) { graph.stages[stage.x - 1].x } else { stage.x };
            last_need[stored] = i;
            feeds_norm[stage.x] |= matches!(stage.op, Op::BatchNorm { .. });
            if let Some(r) = stage.op.second() {
                last_need[r] = i;
            }
        }
        last_need[n - 1] = usize::MAX;
        Ok(Self { isa, graph, shapes, convs, places, parameters, running, first_reader, last_need, feeds_norm })
    }

    /// Whether the gradient of each activation leads anywhere.
    pub fn needs(&self, wants_theta: bool, wants_images: bool) -> Vec<bool> {
        let mut needs = vec![wants_images];
        for (stage, place) in self.graph.stages.iter().zip(&self.places) {
            let own = wants_theta && !place.parameters.is_empty();
            let second = stage.op.second().is_some_and(|r| needs[r]);
            needs.push(own || needs[stage.x] || second);
        }
        needs
    }

    /// Values of one image's activation `i`.
    pub fn len(&self, i: usize) -> usize {
        self.shapes[i].len() as usize
    }

    /// The activation that is stored for activation `i`, and the map over it.
    pub fn source(&self, i: usize) -> (usize, Option<usize>) {
        if self.graph.is_map(i) { (self.graph.stages[i - 1].x, Some(i)) } else { (i, None) }
    }

    /// Channels of activation `i`.
    pub fn channels(&self, i: usize) -> usize {
        usize::from(self.shapes[i].c)
    }

    /// Images of one task over `n` images, where each task keeps `partial` f32 of its own.
    pub fn chunk(&self, n: usize, partial: usize) -> usize {
        let tasks = (PARTIAL_LIMIT / partial.max(1)).clamp(4, usize::MAX);
        CHUNK.max(n.div_ceil(tasks))
    }

    /// Images of which every task over `n` images is a whole number: where a batch can be cut into shares.
    pub fn grain(&self, n: usize) -> usize {
        let mut grain = self.chunk(n, 0);
        let mut also = |images: usize| grain = lcm(grain, images);
        for (conv, stage) in self.convs.iter().zip(&self.graph.stages) {
            if let Some(conv) = conv {
                also(self.chunk(n, conv.weight_gradient_len()));
            }
            if matches!(stage.op, Op::Dense { .. }) {
                also(ROWS);
            }
        }
        grain
    }

    /// The dense layer of stage `i`.
    pub fn dense(&self, i: usize) -> Dense {
        Dense { isa: self.isa, inputs: self.len(self.graph.stages[i].x), outputs: self.len(i + 1) }
    }

    /// Stage `i`'s parameter `k`.
    pub fn parameter<'a>(&self, theta: &'a [f32], i: usize, k: usize) -> Option<&'a [f32]> {
        self.places[i].parameters.get(k).map(|r| &theta[r.clone()])
    }

    /// Whether the ReLU of the map that makes activation `i` is there.
    pub fn map_relu(&self, i: usize) -> bool {
        self.graph.stages[i - 1].op.relu()
    }

    /// How a reader of activation `i` loads it.
    pub fn load<'a>(&self, i: usize, maps: &'a [Option<Affine>]) -> Load<'a> {
        match &maps[i] {
            Some(map) => Load::Affine { scale: &map.scale, shift: &map.shift, relu: self.map_relu(i) },
            None => Load::Plain,
        }
    }

    /// A grid for readers of activation `i`: zeros, or what the fixed normalisation makes of black.
    pub fn blank(&self, pool: &Pool, conv: &Conv, i: usize, maps: &[Option<Affine>]) -> Vec<f32> {
        let mut grid = pool.zeros(conv.grid_len());
        if i > 0
            && let (Op::Normalise { .. }, Some(map)) = (&self.graph.stages[i - 1].op, &maps[i])
        {
            conv.fill_border(&map.shift, &mut grid);
        }
        grid
    }

    /// All images of activation `i` written out into `room`, or as they are stored.
    pub fn written<'a>(
        &self,
        i: usize,
        stored: &'a [f32],
        maps: &[Option<Affine>],
        room: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        if maps[i].is_none() {
            return stored;
        }
        room.resize(stored.len(), 0.0);
        let rows = ROWS * self.len(i);
        room.par_chunks_mut(rows).zip(stored.par_chunks(rows)).for_each_init(Vec::new, |scratch, (to, from)| {
            self.materialise(i, from, maps, scratch);
            to.copy_from_slice(scratch);
        });
        room
    }

    /// Images of activation `i` written out.
    pub fn materialise(&self, i: usize, stored: &[f32], maps: &[Option<Affine>], out: &mut Vec<f32>) {
        out.clear();
        match &maps[i] {
            None => out.extend_from_slice(stored),
            Some(map) => {
                let relu = self.map_relu(i);
                for pixel in stored.chunks_exact(map.scale.len()) {
                    out.extend(pixel.iter().zip(&map.scale).zip(&map.shift).map(|((x, a), b)| {
                        let v = x * a + b;
                        if relu && v < 0.0 { 0.0 } else { v }
                    }));
                }
            }
        }
    }
}

/// Weights packed once a mini-batch.
pub(super) fn pack(plan: &Plan, conv: &Conv, i: usize, theta: &[f32], transposed: bool) -> Packed {
    let weights = plan.parameter(theta, i, 0).unwrap_or(&[]);
    if transposed { conv.pack_transposed(weights) } else { conv.pack(weights) }
}

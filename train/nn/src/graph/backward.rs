//! A mini-batch from the last activation's gradient to the parameters' and the images'.
//!
//! Readers of a map write the gradient of its output; the last of them in this order also masks the map's ReLU and
//! takes the sums that the map's own stage needs. Tasks keep private weight gradients that are added in their order, so
//! that nothing depends on the number of threads.

use super::Op;
use super::forward::{Sums, Tape, add_up, stored};
use super::mode::Mode;
use super::plan::{Plan, ROWS, pack};
use super::pool::Pool;
use crate::exchange::{Later, Share, Sum, add_weights};
use crate::ops::conv::{End, Load};
use crate::ops::norm::{self, InputGradient};
use crate::ops::pool as window_pool;
use anyhow::{Context, Result};
use rayon::prelude::*;

/// One backward pass.
pub(super) struct Backward<'a> {
    pub plan: &'a Plan,
    pub pool: &'a Pool,
    pub theta: &'a [f32],
    pub images: &'a [f32],
    pub tape: &'a Tape,
    /// Whether the parameters' gradient is asked for.
    pub wants_theta: bool,
    /// Whether the images' gradient is asked for.
    pub wants_images: bool,
    /// As in the forward pass.
    pub share: Option<&'a Share>,
}

/// Gradients on their way.
struct State<'a> {
    /// Of each activation that still has one.
    gradients: Vec<Option<Vec<f32>>>,
    /// The sums that a map's readers left for it, `[2 c]`.
    sums: Vec<Vec<f64>>,
    theta: Vec<f32>,
    /// Weights' gradients to which other ranks add theirs.
    later: Option<Later<'a>>,
}

/// The gradient of the images and of the parameters, where asked for.
pub(super) type Gradients = (Option<Vec<f32>>, Option<Vec<f32>>);

/// What a task adds up: private weight gradients, bias gradients, sums of a map.
#[derive(Default)]
struct Partial {
    weights: Vec<f32>,
    bias: Vec<f64>,
    sums: Vec<f64>,
}

impl Backward<'_> {
    /// Runs back from the last activation's gradient.
    pub fn run(&self, gradient: &[f32]) -> Result<Gradients> {
        let plan = self.plan;
        let count = plan.shapes.len();
        let mut last = self.pool.take(gradient.len());
        last.copy_from_slice(gradient);
        let mut state = State {
            gradients: (0..count).map(|_| None).collect(),
            sums: vec![Vec::new(); count],
            theta: vec![0.0; if self.wants_theta { plan.parameters } else { 0 }],
            later: self.share.map(|share| Later::new(share, self.tape.n)).transpose()?,
        };
        state.gradients[count - 1] = Some(last);
        let needs = plan.needs(self.wants_theta, self.wants_images);
        for i in (0..plan.graph.stages.len()).rev() {
            let Some(dy) = state.gradients[i + 1].take() else { continue };
            if !needs[i + 1] {
                self.pool.put(dy);
                continue;
            }
            self.stage(i, dy, needs[plan.graph.stages[i].x], &mut state)?;
            self.arrived(&mut state, false)?;
        }
        self.arrived(&mut state, true)?;
        let images = match (self.wants_images, state.gradients[0].take()) {
            (false, _) => None,
            (true, Some(dx)) => Some(dx),
            (true, None) => Some(vec![0.0; self.images.len()]),
        };
        Ok((images, self.wants_theta.then_some(state.theta)))
    }

    fn stage(&self, i: usize, mut dy: Vec<f32>, needs_x: bool, state: &mut State<'_>) -> Result<()> {
        let plan = self.plan;
        let stage = &plan.graph.stages[i];
        let y = &self.tape.activations[i + 1];
        match &stage.op {
            Op::Normalise { .. } | Op::BatchNorm { .. } | Op::Affine { .. } => {
                self.map(i, dy, needs_x, state);
                return Ok(());
            }
            Op::Conv { relu: true, residual: Some(_), .. } | Op::Add { relu: true, .. } => {
                // Both branches get the masked gradient.
                mask(&mut dy, y);
            }
            _ => (),
        }
        let mut dx = None;
        if needs_x {
            let there = state.gradients[stage.x].take();
            let accumulate = there.is_some();
            let buffer = there.unwrap_or_else(|| self.pool.take(self.tape.n * plan.len(stage.x)));
            dx = Some((buffer, accumulate));
        }
        let mut partial = match &stage.op {
            Op::Conv { .. } | Op::Transposed { .. } => self.linear(i, &dy, y, &mut dx)?,
            Op::Dense { .. } => self.dense(i, &mut dy, y, &mut dx, &mut state.theta)?,
            Op::Add { .. } => {
                if let Some((to, accumulate)) = &mut dx {
                    if *accumulate { add_to(to, &dy) } else { to.copy_from_slice(&dy) }
                }
                Vec::new()
            }
            _ => self.pooled(i, &dy, y, &mut dx),
        };
        if self.wants_theta {
            self.parameters(i, &mut partial, state)?;
        }
        if plan.graph.is_map(stage.x) && plan.first_reader[stage.x] == i {
            let sums: Vec<Vec<f64>> = partial.into_iter().map(|p| p.sums).collect();
            state.sums[stage.x] = add_up(self.share, 2 * plan.channels(stage.x), self.tape.n, &sums)?;
        }
        if let Some((buffer, _)) = dx {
            state.gradients[stage.x] = Some(buffer);
        }
        match stage.op.second() {
            Some(other) => match &mut state.gradients[other] {
                Some(there) => {
                    add_to(there, &dy);
                    self.pool.put(dy);
                }
                // The sum's gradient is each summand's, unchanged.
                empty => *empty = Some(dy),
            },
            None => self.pool.put(dy),
        }
        Ok(())
    }

    /// Adds the tasks' weight and bias gradients, in their order, to the parameters' gradient.
    fn parameters(&self, i: usize, partial: &mut [Partial], state: &mut State<'_>) -> Result<()> {
        let plan = self.plan;
        let [weight, rest @ ..] = &plan.places[i].parameters[..] else { return Ok(()) };
        if let [bias] = rest {
            let sums: Vec<Vec<f64>> = partial.iter().map(|p| p.bias.clone()).collect();
            let sums = add_up(self.share, bias.len(), self.tape.n, &sums)?;
            state.theta[bias.clone()].iter_mut().zip(sums).for_each(|(t, s)| *t += s as f32);
        }
        let mut parts: Vec<Vec<f32>> = partial.iter_mut().map(|p| std::mem::take(&mut p.weights)).collect();
        // A dense layer's weights have their gradient already.
        if let (Some(conv), false) = (&plan.convs[i], parts.is_empty()) {
            if let Some(later) = &mut state.later {
                return later.push(Sum { key: i, total: self.pool.take(conv.weight_gradient_len()), parts });
            }
            // Onto the first task's own.
            let (total, rest) = parts.split_at_mut(1);
            add_weights(&mut total[0], rest, 0, false);
            conv.unpack_weight_gradient(&total[0], &mut state.theta[weight.clone()]);
        }
        parts.into_iter().for_each(|part| self.pool.put(part));
        Ok(())
    }

    /// Puts weights' gradients where they belong that have come by now from other ranks, or all.
    fn arrived(&self, state: &mut State<'_>, all: bool) -> Result<()> {
        let Some(later) = &mut state.later else { return Ok(()) };
        later.advance(all)?;
        for Sum { key: i, total, parts } in later.done() {
            if let (Some(conv), [weight, ..]) = (&self.plan.convs[i], &self.plan.places[i].parameters[..]) {
                conv.unpack_weight_gradient(&total, &mut state.theta[weight.clone()]);
            }
            parts.into_iter().chain([total]).for_each(|buffer| self.pool.put(buffer));
        }
        Ok(())
    }

    /// A map's own stage: parameters from the sums, and the gradient of what it reads.
    fn map(&self, i: usize, mut dz: Vec<f32>, needs_x: bool, state: &mut State<'_>) {
        let plan = self.plan;
        let stage = &plan.graph.stages[i];
        let sums = std::mem::take(&mut state.sums[i + 1]);
        let c = plan.channels(i + 1);
        if let (true, [scale, shift]) = (self.wants_theta, &plan.places[i].parameters[..]) {
            let mut put = |to: &std::ops::Range<usize>, from: &[f64]| {
                state.theta[to.clone()].iter_mut().zip(from).for_each(|(t, s)| *t += *s as f32);
            };
            put(shift, &sums[..c]);
            put(scale, &sums[c..]);
        }
        let Some(map) = &self.tape.maps[i + 1] else { return };
        if !needs_x {
            self.pool.put(dz);
            return;
        }
        let learned = self.tape.mode == Mode::Learn && matches!(stage.op, Op::BatchNorm { .. });
        let values = self.tape.whole * plan.len(i + 1) / c;
        let rule =
            if learned { InputGradient::through_statistics(map, &sums, values) } else { InputGradient::fixed(map) };
        let x = stored(self.tape, self.images, stage.x);
        let each = plan.len(i + 1);
        match &mut state.gradients[stage.x] {
            Some(there) => {
                there
                    .par_chunks_mut(each)
                    .zip(dz.par_chunks(each))
                    .zip(x.par_chunks(each))
                    .for_each(|((to, dz), x)| rule.add_to(plan.isa, x, dz, to));
                self.pool.put(dz);
            }
            empty => {
                dz.par_chunks_mut(each)
                    .zip(x.par_chunks(each))
                    .for_each_init(Vec::new, |scratch, (dz, x)| rule.in_place(plan.isa, x, dz, scratch));
                *empty = Some(dz);
            }
        }
    }

    /// The chunks of `dx` that belong to tasks of `chunk` images, or as many empty ones.
    fn chunks<'b>(&self, dx: &'b mut Option<(Vec<f32>, bool)>, each: usize, chunk: usize) -> Vec<&'b mut [f32]> {
        match dx {
            Some((buffer, _)) => buffer.chunks_mut(chunk * each).collect(),
            None => (0..self.tape.n.div_ceil(chunk)).map(|_| Default::default()).collect(),
        }
    }

    /// After an image's `dx` is complete: mask the map's ReLU and take its sums.
    fn finish(&self, i: usize, image: usize, dx: &mut [f32], sums: &mut Sums) {
        let plan = self.plan;
        let x = plan.graph.stages[i].x;
        if let (Some(map), true) = (&self.tape.maps[x], plan.first_reader[x] == i) {
            let each = plan.len(x);
            let from = &stored(self.tape, self.images, plan.source(x).0)[image * each..][..each];
            norm::mask_and_add_sums(plan.isa, map, plan.map_relu(x), from, dx, sums.image());
            sums.flush();
        }
    }

    /// A dense layer: all images at once for the large products, tasks of rows for the rest.
    fn dense(
        &self,
        i: usize,
        dy: &mut [f32],
        y: &[f32],
        dx: &mut Option<(Vec<f32>, bool)>,
        theta: &mut [f32],
    ) -> Result<Vec<Partial>> {
        let plan = self.plan;
        let stage = &plan.graph.stages[i];
        let (x_len, y_len) = (plan.len(stage.x), plan.len(i + 1));
        if stage.op.relu() {
            mask(dy, y);
        }
        let dy = &*dy;
        if let (true, [weight, ..]) = (self.wants_theta, &plan.places[i].parameters[..]) {
            let mut room = self.pool.take(0);
            let x = stored(self.tape, self.images, plan.source(stage.x).0);
            let x = plan.written(stage.x, x, &self.tape.maps, &mut room);
            self.dense_weights(i, x, dy, &mut theta[weight.clone()])?;
            self.pool.put(room);
        }
        if let Some((dx, accumulate)) = dx {
            plan.dense(i).input_gradient(dy, plan.parameter(self.theta, i, 0).unwrap_or(&[]), *accumulate, dx);
        }
        let bias = if self.wants_theta { plan.channels(i + 1) } else { 0 };
        let task = |(k, dx): (usize, &mut [f32])| {
            let images = k * ROWS..self.tape.n.min((k + 1) * ROWS);
            let mut bias_sums = Sums::of(bias);
            if bias > 0 {
                let dy = &dy[images.start * y_len..images.end * y_len];
                norm::add_masked_sums(plan.isa, dy, None, bias_sums.image());
                bias_sums.flush();
            }
            let mut sums = Sums::new(plan.channels(stage.x), plan.graph.is_map(stage.x));
            for (image, dx) in images.zip(dx.chunks_exact_mut(x_len)) {
                self.finish(i, image, dx, &mut sums);
            }
            Partial { weights: Vec::new(), bias: bias_sums.total, sums: sums.total }
        };
        Ok(self.chunks(dx, x_len, ROWS).into_par_iter().enumerate().map(task).collect())
    }

    /// The gradient of a dense layer's weights, onto that of the ranks before this one.
    fn dense_weights(&self, i: usize, x: &[f32], dy: &[f32], to: &mut [f32]) -> Result<()> {
        let dense = self.plan.dense(i);
        let Some(share) = self.share else {
            dense.add_weight_gradient(x, dy, to);
            return Ok(());
        };
        let copies = share.copies(self.tape.n)?;
        let total = share.in_turn(copies, to.len(), |copy, total| {
            let part = |v: &'_ [f32]| copy * v.len() / copies..(copy + 1) * v.len() / copies;
            dense.add_weight_gradient(&x[part(x)], &dy[part(dy)], total);
        })?;
        to.copy_from_slice(&total);
        Ok(())
    }

    fn linear(&self, i: usize, dy: &[f32], y: &[f32], dx: &mut Option<(Vec<f32>, bool)>) -> Result<Vec<Partial>> {
        let plan = self.plan;
        let stage = &plan.graph.stages[i];
        let transposed = matches!(stage.op, Op::Transposed { .. });
        let conv = plan.convs[i].as_ref().context("a stage without kernels")?;
        let wants = self.wants_theta;
        let chunk = plan.chunk(self.tape.whole, if wants { conv.weight_gradient_len() } else { 0 });
        let weights = dx.is_some().then(|| pack(plan, conv, i, self.theta, !transposed));
        let accumulate = dx.as_ref().is_some_and(|d| d.1);
        let (x_len, y_len) = (plan.len(stage.x), plan.len(i + 1));
        let x = stored(self.tape, self.images, plan.source(stage.x).0);
        let bias = if wants && plan.places[i].parameters.len() > 1 { plan.channels(i + 1) } else { 0 };
        let masked = stage.op.relu() && !matches!(stage.op, Op::Conv { residual: Some(_), .. });
        let task = |(k, dx): (usize, &mut [f32])| {
            let images = k * chunk..self.tape.n.min((k + 1) * chunk);
            let mut partial = Partial {
                weights: if wants { self.pool.zeros(conv.weight_gradient_len()) } else { Vec::new() },
                bias: Vec::new(),
                sums: Vec::new(),
            };
            let c = plan.channels(stage.x);
            let mut sums = Sums::new(c, plan.graph.is_map(stage.x));
            let mut bias_sums = Sums::of(bias);
            // `x` as the convolution reads it and `dy` as its adjoint does; a transposed one has them the other way.
            let mut x_grid = if transposed {
                self.pool.zeros(conv.grid_len())
            } else {
                plan.blank(self.pool, conv, stage.x, &self.tape.maps)
            };
            let mut dy_grid = self.pool.zeros(conv.gradient_grid_len());
            for image in images.clone() {
                let dy = &dy[image * y_len..][..y_len];
                let y = &y[image * y_len..][..y_len];
                let how = if masked { Load::Masked { mask: y } } else { Load::Plain };
                let x = &x[image * x_len..][..x_len];
                let load = plan.load(stage.x, &self.tape.maps);
                if transposed {
                    conv.load(dy, how, &mut x_grid);
                } else {
                    conv.load_gradient(dy, how, &mut dy_grid);
                }
                if wants {
                    if transposed {
                        conv.load_gradient(x, load, &mut dy_grid);
                    } else {
                        conv.load(x, load, &mut x_grid);
                    }
                    conv.add_weight_gradient(&x_grid, &dy_grid, &mut partial.weights);
                    if bias > 0 {
                        norm::add_masked_sums(plan.isa, dy, masked.then_some(y), bias_sums.image());
                        bias_sums.flush();
                    }
                }
                if let Some(weights) = &weights {
                    let at = (image - images.start) * x_len;
                    let dx = &mut dx[at..][..x_len];
                    let end = End { accumulate, ..End::default() };
                    if transposed {
                        conv.forward(&x_grid, weights, end, dx, None);
                    } else {
                        conv.input_gradient(&dy_grid, weights, end, dx, None);
                    }
                    self.finish(i, image, dx, &mut sums);
                }
            }
            for buffer in [x_grid, dy_grid] {
                self.pool.put(buffer);
            }
            (partial.sums, partial.bias) = (sums.total, bias_sums.total);
            partial
        };
        let tasks = self.chunks(dx, x_len, chunk);
        Ok(tasks.into_par_iter().enumerate().map(task).collect())
    }

    fn pooled(&self, i: usize, dy: &[f32], y: &[f32], dx: &mut Option<(Vec<f32>, bool)>) -> Vec<Partial> {
        let plan = self.plan;
        let stage = &plan.graph.stages[i];
        let Some((buffer, accumulate)) = dx else { return Vec::new() };
        let accumulate = *accumulate;
        let (x_len, y_len) = (plan.len(stage.x), plan.len(i + 1));
        let (input, output) = (plan.shapes[stage.x], plan.shapes[i + 1]);
        let x = stored(self.tape, self.images, plan.source(stage.x).0);
        let task = |scratch: &mut Vec<f32>, (image, dx): (usize, &mut [f32])| {
            if !accumulate {
                dx.fill(0.0);
            }
            let (y, dy) = (&y[image * y_len..][..y_len], &dy[image * y_len..][..y_len]);
            match &stage.op {
                Op::AvgPool { window } => window_pool::add_average_gradient(input, output, *window, dy, dx),
                Op::MaxPool { window } => {
                    plan.materialise(stage.x, &x[image * x_len..][..x_len], &self.tape.maps, scratch);
                    window_pool::add_maximum_gradient(input, output, *window, scratch, y, dy, dx);
                }
                _ => (),
            }
            let mut sums = Sums::new(plan.channels(stage.x), plan.graph.is_map(stage.x));
            self.finish(i, image, dx, &mut sums);
            Partial { sums: sums.total, ..Partial::default() }
        };
        buffer.par_chunks_mut(x_len).enumerate().map_init(Vec::new, task).collect()
    }
}

/// Numbers in one task of what only passes over them.
const GRAIN: usize = 1 << 14;

/// Zeroes the gradient where the ReLU that made `y` was shut.
fn mask(dy: &mut [f32], y: &[f32]) {
    dy.par_chunks_mut(GRAIN).zip(y.par_chunks(GRAIN)).for_each(|(dy, y)| {
        // Written either way, so that several are masked at once.
        dy.iter_mut().zip(y).for_each(|(d, y)| *d = if *y <= 0.0 { 0.0 } else { *d });
    });
}

fn add_to(to: &mut [f32], from: &[f32]) {
    to.par_chunks_mut(GRAIN).zip(from.par_chunks(GRAIN)).for_each(|(to, from)| {
        to.iter_mut().zip(from).for_each(|(t, d)| *t += d);
    });
}

//! Images to the last activation on the GPU.

use super::{Tape, frame, geometry, pool_numbers, ranks};
use crate::cuda::{Gpu, Values, count, int, launch, spread};
use crate::exchange::Share;
use crate::graph::forward::MOMENTUM;
use crate::graph::mode::Mode;
use crate::graph::plan::Plan;
use crate::graph::{Op, Stage};
use crate::ops::norm::EPS;
use candle_core::Result;
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaView};
use std::ops::Range;

/// One forward pass.
pub(in crate::graph) struct Forward<'a> {
    pub gpu: &'a Gpu,
    pub plan: &'a Plan,
    /// The parameters, f32.
    pub theta: &'a CudaView<'a, f32>,
    pub mode: Mode,
    /// Whether activations stay for the backward pass.
    pub keep: bool,
    /// This process's part of a batch of which statistics are taken, if it has not all of it.
    pub share: Option<&'a Share>,
}

impl Forward<'_> {
    /// Queues `n` images; `running` are the running statistics, moved in [`Mode::Learn`].
    pub fn run(&self, images: &CudaView<f32>, n: usize, running: &mut CudaSlice<f32>) -> Result<Tape> {
        let Self { gpu, plan, .. } = *self;
        let (stages, activations) = (plan.graph.stages.len(), plan.shapes.len());
        let mut tape = Tape {
            gpu: gpu.clone(),
            n,
            whole: ranks::whole(self.share, n)?,
            mode: self.mode,
            values: (0..activations).map(|_| None).collect(),
            numbers: (0..activations).map(|_| None).collect(),
            weights: (0..stages).map(|_| None).collect(),
        };
        let plain = |stage: &Stage| stage.reads(0) && !matches!(stage.op, Op::Normalise { .. });
        if plan.graph.stages.iter().any(plain) {
            tape.values[0] = Some(gpu.cast_in(images, n * plan.len(0))?);
        }
        for i in 0..stages {
            let out = self.stage(i, &mut tape, images, running)?;
            tape.values[i + 1] = Some(out);
            if !self.keep {
                for a in 0..=i {
                    if !plan.graph.stages[i + 1..].iter().any(|later| later.reads(a)) {
                        tape.values[a] = None;
                    }
                }
                tape.weights[i] = None;
            }
        }
        Ok(tape)
    }

    fn parameter(&self, i: usize, k: usize) -> Option<CudaView<'_, f32>> {
        self.plan.places[i].parameters.get(k).map(|r: &Range<usize>| self.theta.slice(r.clone()))
    }

    fn stage(
        &self,
        i: usize,
        tape: &mut Tape,
        images: &CudaView<f32>,
        running: &mut CudaSlice<f32>,
    ) -> Result<Values> {
        let Self { gpu, plan, .. } = *self;
        let stage = &plan.graph.stages[i];
        let (n, c) = (tape.n, plan.channels(i + 1));
        let total = n * plan.len(i + 1);
        match &stage.op {
            Op::Normalise { mean, std } => {
                let numbers = self.normalise(mean, std)?;
                let [top, left] = frame(plan, i + 1)?;
                let [h, w] = [plan.shapes[0].h, plan.shapes[0].w].map(usize::from);
                let (rows, columns) = (h + 2 * top, w + 2 * left);
                let framed = n * rows * columns * c;
                let mut out = gpu.values(framed)?;
                launch!(gpu, gpu.typed("frame"), spread(framed); &mut out, images, &numbers;
                    count(framed)?, int(h)?, int(w)?, int(c)?, int(top)?, int(left)?, int(rows)?, int(columns)?);
                tape.numbers[i + 1] = Some(numbers);
                Ok(out)
            }
            Op::BatchNorm { relu } | Op::Affine { relu } => {
                let numbers = self.numbers(i, tape.value(stage.x)?, [n, tape.whole], running)?;
                let mut out = gpu.values(total)?;
                launch!(gpu, gpu.typed("affine"), spread(total); &mut out, tape.value(stage.x)?, &numbers;
                    count(total)?, int(c)?, i32::from(*relu));
                tape.numbers[i + 1] = Some(numbers);
                Ok(out)
            }
            Op::Conv { .. } | Op::Transposed { .. } | Op::Dense { .. } => {
                let g = geometry(plan, i, n)?;
                let weights = match self.parameter(i, 0) {
                    Some(view) => gpu.cast_in(&view, plan.places[i].parameters[0].len())?,
                    None => candle_core::bail!("stage {i} has no weights"),
                };
                let mut out = gpu.values(total)?;
                let x = tape.value(stage.x)?;
                if matches!(stage.op, Op::Transposed { .. }) {
                    gpu.convolve_back(&g, x, &weights, &mut out, false)?;
                } else {
                    gpu.convolve(&g, x, &weights, &mut out, false)?;
                }
                let other = stage.op.second().map(|r| tape.value(r)).transpose()?;
                self.finish(i, &mut out, other, c)?;
                tape.weights[i] = Some(weights);
                Ok(out)
            }
            Op::Add { other, .. } => {
                // SAFETY of lengths: both summands have the output's extents.
                let mut out = gpu.values(total)?;
                gpu.device.memcpy_dtod(tape.value(stage.x)?, &mut out)?;
                self.finish(i, &mut out, Some(tape.value(*other)?), c)?;
                Ok(out)
            }
            Op::AvgPool { window } | Op::MaxPool { window } => {
                let [h, w, c, out_h, out_w, kh, kw, sy, sx, top, left] = pool_numbers(plan, i, window)?;
                let average = i32::from(matches!(stage.op, Op::AvgPool { .. }));
                let mut out = gpu.values(total)?;
                launch!(gpu, gpu.typed("pool"), spread(total); &mut out, tape.value(stage.x)?;
                    count(total)?, h, w, c, out_h, out_w, kh, kw, sy, sx, top, left, average);
                Ok(out)
            }
        }
    }

    /// Bias, other summand and ReLU of stage `i`, where there are any.
    fn finish(&self, i: usize, out: &mut Values, other: Option<&Values>, c: usize) -> Result<()> {
        let gpu = self.gpu;
        let relu = self.plan.graph.stages[i].op.relu();
        let bias = self.parameter(i, 1);
        if bias.is_none() && other.is_none() && !relu {
            return Ok(());
        }
        let total = out.len() / gpu.width();
        let flags = [bias.is_some(), other.is_some(), relu].map(i32::from);
        // A summand that is not there is never read, but an argument must stand in its place.
        let (empty_bias, empty_other) = (gpu.floats(1)?, gpu.values(1)?);
        let bias = bias.unwrap_or_else(|| empty_bias.slice(..));
        let other = other.unwrap_or(&empty_other);
        launch!(gpu, gpu.typed("finish"), spread(total); out, &bias, other;
            count(total)?, int(c)?, flags[0], flags[1], flags[2]);
        Ok(())
    }

    fn normalise(&self, mean: &[f32], std: &[f32]) -> Result<CudaSlice<f32>> {
        let scale = std.iter().map(|s| 1.0 / s);
        let shift = mean.iter().zip(std).map(|(m, s)| -m / s);
        let blank = std::iter::repeat_n(0.0f32, mean.len()).chain(std::iter::repeat_n(1.0, mean.len()));
        self.gpu.device.clone_htod(&blank.chain(scale).chain(shift).collect::<Vec<f32>>())
    }

    /// The numbers of the map of stage `i` over `x`.
    fn numbers(
        &self,
        i: usize,
        x: &Values,
        [n, whole]: [usize; 2],
        running: &mut CudaSlice<f32>,
    ) -> Result<CudaSlice<f32>> {
        let Self { gpu, plan, .. } = *self;
        let c = plan.channels(i + 1);
        let (Some(gamma), Some(beta)) = (self.parameter(i, 0), self.parameter(i, 1)) else {
            candle_core::bail!("stage {i} has no parameters")
        };
        let mut numbers = gpu.floats(4 * c)?;
        let threads = spread(c);
        if matches!(plan.graph.stages[i].op, Op::Affine { .. }) {
            launch!(gpu, "map_given", threads; &mut numbers, &gamma, &beta; count(c)?);
            return Ok(numbers);
        }
        // Mean and variance of a stage stand side by side.
        let [means, variances] = &plan.places[i].running;
        let mut own = running.slice_mut(means.start..variances.end);
        if self.mode == Mode::Learn {
            let pixels = |images: usize| images * plan.len(i + 1) / c;
            let sums = ranks::sums(gpu, self.share, gpu.moments(x, pixels(n), c)?)?;
            launch!(gpu, "norm_learned", threads; &mut numbers, &mut own, &sums, &gamma, &beta;
                count(c)?, pixels(whole) as f64, MOMENTUM, EPS);
        } else {
            launch!(gpu, "norm_fixed", threads; &mut numbers, &mut own, &gamma, &beta; count(c)?, EPS);
        }
        Ok(numbers)
    }
}

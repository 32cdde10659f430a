//! A mini-batch from images to the last activation. Images go side by side; batch statistics come out of the
//! convolution that makes their input, and are applied by the operation that reads it.

use super::Op;
use super::mode::Mode;
use super::plan::{Plan, pack};
use super::pool::Pool;
use crate::exchange::{Share, add_parts};
use crate::ops::conv::{Conv, End};
use crate::ops::norm::{self, Affine};
use crate::ops::pool as window_pool;
use anyhow::Result;
use rayon::prelude::*;

/// How far running statistics move to those of a mini-batch (PyTorch's default).
pub(super) const MOMENTUM: f64 = 0.1;

/// What the backward pass needs of a forward pass.
#[derive(Debug)]
pub(super) struct Tape {
    /// Images of this process.
    pub n: usize,
    /// Images of all ranks that share the batch.
    pub whole: usize,
    pub mode: Mode,
    /// Stored activations f32 `[n][h][w][c]`; empty for the image, for maps and where freed.
    pub activations: Vec<Vec<f32>>,
    /// The per-channel numbers of each map.
    pub maps: Vec<Option<Affine>>,
}

/// One forward pass.
pub(super) struct Forward<'a> {
    pub plan: &'a Plan,
    pub pool: &'a Pool,
    pub theta: &'a [f32],
    pub mode: Mode,
    /// Whether activations stay for the backward pass.
    pub keep: bool,
    /// This process's part of a batch of which statistics are taken, if it has not all of it.
    pub share: Option<&'a Share>,
}

impl Forward<'_> {
    /// Runs `n` images; `running` are the running statistics, moved in [`Mode::Learn`].
    pub fn run(&self, images: &[f32], n: usize, running: &mut [f32]) -> Result<Tape> {
        let plan = self.plan;
        let count = plan.shapes.len();
        let whole = match self.share {
            Some(share) => share.whole(n)?,
            None => n,
        };
        let (activations, maps) = (vec![Vec::new(); count], vec![None; count]);
        let mut tape = Tape { n, whole, mode: self.mode, activations, maps };
        let mut sums: Vec<Vec<f64>> = vec![Vec::new(); count];
        for (i, stage) in plan.graph.stages.iter().enumerate() {
            let y = i + 1;
            if stage.op.is_map() {
                if self.learns(i) && sums[stage.x].is_empty() {
                    sums[stage.x] = self.sums(stage.x, stored(&tape, images, stage.x))?;
                }
                tape.maps[y] = Some(self.map(i, &sums[stage.x], whole, running));
                continue;
            }
            let mut out = self.pool.take(n * plan.len(y));
            let wants = plan.feeds_norm[y] && self.mode == Mode::Learn;
            sums[y] = self.stage(i, &tape, images, &mut out, wants)?;
            tape.activations[y] = out;
            if !self.keep {
                for j in 1..y {
                    if plan.last_need[j] <= i {
                        self.pool.put(std::mem::take(&mut tape.activations[j]));
                    }
                }
            }
        }
        Ok(tape)
    }

    fn learns(&self, i: usize) -> bool {
        self.mode == Mode::Learn && matches!(self.plan.graph.stages[i].op, Op::BatchNorm { .. })
    }

    /// The numbers of the map of stage `i`.
    fn map(&self, i: usize, sums: &[f64], n: usize, running: &mut [f32]) -> Affine {
        let plan = self.plan;
        let parameter = |k| plan.parameter(self.theta, i, k).unwrap_or(&[]);
        match &plan.graph.stages[i].op {
            Op::Normalise { mean, std } => {
                let scale: Vec<f32> = std.iter().map(|s| 1.0 / s).collect();
                let shift: Vec<f32> = mean.iter().zip(std).map(|(m, s)| -m / s).collect();
                Affine::fixed(&scale, &shift)
            }
            Op::BatchNorm { .. } => {
                let [means, variances] = &plan.places[i].running;
                if !self.learns(i) {
                    let wide = |r: &std::ops::Range<usize>| -> Vec<f64> {
                        running[r.clone()].iter().map(|v| f64::from(*v)).collect()
                    };
                    return Affine::new(&wide(means), &wide(variances), parameter(0), parameter(1));
                }
                let c = plan.channels(i + 1);
                let values = (n * plan.len(i + 1) / c) as f64;
                let mean: Vec<f64> = sums[..c].iter().map(|s| s / values).collect();
                let variance: Vec<f64> =
                    sums[c..].iter().zip(&mean).map(|(q, m)| (q / values - m * m).max(0.0)).collect();
                let unbiased = values / (values - 1.0).max(1.0);
                let follow = |at: &mut f32, to: f64| *at = (f64::from(*at) * (1.0 - MOMENTUM) + to * MOMENTUM) as f32;
                running[means.clone()].iter_mut().zip(&mean).for_each(|(r, m)| follow(r, *m));
                running[variances.clone()].iter_mut().zip(&variance).for_each(|(r, v)| follow(r, v * unbiased));
                Affine::new(&mean, &variance, parameter(0), parameter(1))
            }
            _ => Affine::fixed(parameter(0), parameter(1)),
        }
    }

    /// Sums and squares of a channel of a stored activation, `[2 c]`.
    fn sums(&self, i: usize, values: &[f32]) -> Result<Vec<f64>> {
        let c = self.plan.channels(i);
        let partial = |image: &[f32]| {
            let mut sums = vec![0.0f32; 2 * c];
            norm::add_sums(self.plan.isa, c, image, &mut sums);
            sums.into_iter().map(f64::from).collect()
        };
        let partial: Vec<Vec<f64>> = values.par_chunks(self.plan.len(i)).map(partial).collect();
        add_up(self.share, 2 * c, partial.len(), &partial)
    }

    /// Runs stage `i` into `out`; a convolution returns the sums of its output, `[2 c]`, where `wants`.
    fn stage(&self, i: usize, tape: &Tape, images: &[f32], out: &mut [f32], wants: bool) -> Result<Vec<f64>> {
        let plan = self.plan;
        let stage = &plan.graph.stages[i];
        let x = stored(tape, images, plan.source(stage.x).0);
        let (x_len, y_len, c) = (plan.len(stage.x), plan.len(i + 1), plan.channels(i + 1));
        let mut sums = Vec::new();
        match &stage.op {
            Op::Conv { .. } | Op::Transposed { .. } => {
                let Some(conv) = &plan.convs[i] else { return Ok(sums) };
                let transposed = matches!(stage.op, Op::Transposed { .. });
                let weights = pack(plan, conv, i, self.theta, transposed);
                let residual = stage.op.second().map(|r| stored(tape, images, r));
                let end = End { bias: plan.parameter(self.theta, i, 1), relu: stage.op.relu(), ..End::default() };
                let chunk = plan.chunk(tape.whole, 0);
                let task = |(k, out): (usize, &mut [f32])| {
                    let mut grid = self.blank(conv, stage.x, tape, transposed);
                    let mut task_sums = Sums::new(c, wants);
                    for (j, y) in out.chunks_exact_mut(y_len).enumerate() {
                        let image = k * chunk + j;
                        let x = &x[image * x_len..][..x_len];
                        let residual = residual.map(|r| &r[image * y_len..][..y_len]);
                        let end = End { residual, ..end };
                        let load = plan.load(stage.x, &tape.maps);
                        if transposed {
                            conv.load_gradient(x, load, &mut grid);
                            conv.input_gradient(&grid, &weights, end, y, task_sums.split());
                        } else {
                            conv.load(x, load, &mut grid);
                            conv.forward(&grid, &weights, end, y, task_sums.split());
                        }
                        task_sums.flush();
                    }
                    self.pool.put(grid);
                    task_sums.total
                };
                let partial: Vec<Vec<f64>> = out.par_chunks_mut(chunk * y_len).enumerate().map(task).collect();
                sums = if wants { add_up(self.share, 2 * c, tape.n, &partial)? } else { sums };
            }
            Op::Add { other, relu } => {
                let other = stored(tape, images, *other);
                out.par_iter_mut().zip(x).zip(other).with_min_len(1 << 14).for_each(|((y, a), b)| {
                    let v = a + b;
                    *y = if *relu && v < 0.0 { 0.0 } else { v };
                });
            }
            Op::Dense { relu, .. } => {
                let mut room = self.pool.take(0);
                let x = plan.written(stage.x, x, &tape.maps, &mut room);
                let parameter = |k| plan.parameter(self.theta, i, k).unwrap_or(&[]);
                plan.dense(i).forward(x, parameter(0), parameter(1), *relu, out);
                self.pool.put(room);
            }
            Op::AvgPool { window } | Op::MaxPool { window } => {
                let (input, output) = (plan.shapes[stage.x], plan.shapes[i + 1]);
                let average = matches!(stage.op, Op::AvgPool { .. });
                out.par_chunks_mut(y_len).zip(x.par_chunks(x_len)).for_each_init(Vec::new, |scratch, (y, x)| {
                    plan.materialise(stage.x, x, &tape.maps, scratch);
                    let go = if average { window_pool::average } else { window_pool::maximum };
                    go(input, output, *window, scratch, y);
                });
            }
            Op::Normalise { .. } | Op::BatchNorm { .. } | Op::Affine { .. } => (),
        }
        Ok(sums)
    }

    fn blank(&self, conv: &Conv, x: usize, tape: &Tape, transposed: bool) -> Vec<f32> {
        if transposed {
            self.pool.zeros(conv.gradient_grid_len())
        } else {
            self.plan.blank(self.pool, conv, x, &tape.maps)
        }
    }
}

/// Activation `i`, which is stored; the image is the caller's.
pub(super) fn stored<'a>(tape: &'a Tape, images: &'a [f32], i: usize) -> &'a [f32] {
    if i == 0 { images } else { &tape.activations[i] }
}

/// Per-channel sums of a task: f32 within an image, f64 across images.
pub(super) struct Sums {
    image: Vec<f32>,
    pub total: Vec<f64>,
}

impl Sums {
    pub fn new(c: usize, wanted: bool) -> Self {
        Self::of(if wanted { 2 * c } else { 0 })
    }

    /// `n` sums.
    pub fn of(n: usize) -> Self {
        Self { image: vec![0.0; n], total: vec![0.0; n] }
    }

    /// The image's values and squares.
    pub fn split(&mut self) -> Option<(&mut [f32], &mut [f32])> {
        let half = self.image.len() / 2;
        (half > 0).then(|| self.image.split_at_mut(half))
    }

    pub fn image(&mut self) -> &mut [f32] {
        &mut self.image
    }

    /// Ends an image.
    pub fn flush(&mut self) {
        for (total, v) in self.total.iter_mut().zip(&mut self.image) {
            *total += f64::from(*v);
            *v = 0.0;
        }
    }
}

/// The sums of all tasks over `n` images of this process, added in their order; with those of other ranks.
pub(super) fn add_up(share: Option<&Share>, len: usize, n: usize, partial: &[Vec<f64>]) -> Result<Vec<f64>> {
    if let Some(share) = share {
        return share.add_up(partial, len, n);
    }
    let mut total = vec![0.0; len];
    add_parts(&mut total, partial.iter().map(Vec::as_slice));
    Ok(total)
}

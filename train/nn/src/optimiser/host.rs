//! One update on the CPU. Weights, moments, average and gradient are taken a part at a time, so that memory is read and written once
//! in a step, whatever the rule.

use super::{Numbers, Rule, State};
use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;
use std::cell::Cell;

/// Numbers of a part: with fewer another thread costs more than it brings, and so many of each tensor stay in a core's own cache.
const PART: usize = 1 << 15;

/// Neighbours for which weight decay counts the same: where they end, and the factor of their decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Run {
    end: usize,
    mask: f32,
}

impl Run {
    /// The runs of a mask of each number's factor.
    pub fn of(mask: &Tensor) -> Result<Vec<Self>> {
        look(Some(&mask.to_device(&Device::Cpu)?), |mask| {
            let mut end = 0;
            let runs = mask.chunk_by(|a, b| a.to_bits() == b.to_bits()).map(|run| {
                end += run.len();
                Self { end, mask: run[0] }
            });
            Ok(runs.collect())
        })
    }
}

/// Shows a tensor's numbers; of no tensor, none.
fn look<T>(tensor: Option<&Tensor>, f: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let Some(tensor) = tensor else { return f(&[]) };
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(all)), Some((from, to))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("an optimiser takes contiguous f32 tensors")
    };
    f(&all[from..to])
}

/// [`lend`] as an operation of candle's, which alone may write to a tensor.
struct Lend<F, T> {
    f: Cell<Option<F>>,
    outcome: Cell<Option<T>>,
}

impl<T, F: FnOnce(&mut [f32]) -> Result<T>> InplaceOp1 for Lend<F, T> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(all), Some((from, to)), Some(f)) = (storage, layout.contiguous_offsets(), self.f.take())
        else {
            bail!("an optimiser takes contiguous f32 tensors")
        };
        self.outcome.set(Some(f(&mut all[from..to])?));
        Ok(())
    }
}

/// Lends a tensor's numbers to be changed; of no tensor, none.
fn lend<T>(tensor: Option<&Tensor>, f: impl FnOnce(&mut [f32]) -> Result<T>) -> Result<T> {
    let Some(tensor) = tensor else { return f(&mut []) };
    let lend = Lend { f: Cell::new(Some(f)), outcome: Cell::new(None) };
    tensor.inplace_op1(&lend)?;
    lend.outcome.take().ok_or_else(|| candle_core::Error::Msg("a tensor on the CPU was expected".into()))
}

/// Sum of squares, in f64: eight sums side by side in each of the fixed parts, which are added in order.
pub(super) fn square(tensor: &Tensor) -> Result<f64> {
    look(Some(tensor), |all| Ok(all.par_chunks(PART).map(square_of).collect::<Vec<_>>().iter().sum()))
}

fn square_of(part: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    for eight in part.chunks(8) {
        for (sum, v) in sums.iter_mut().zip(eight) {
            *sum += f64::from(*v) * f64::from(*v);
        }
    }
    sums.iter().sum::<f64>()
}

/// A part of each tensor; those that are not there are empty.
#[derive(Default)]
struct Part<'a> {
    weights: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    average: &'a mut [f32],
    gradient: &'a [f32],
}

impl<'a> Part<'a> {
    /// Takes the next numbers, `n` where there are as many.
    fn take(&mut self, n: usize) -> Self {
        let next = |all: &mut &'a mut [f32]| all.split_off_mut(..n.min(all.len())).unwrap_or_default();
        Self {
            weights: next(&mut self.weights),
            first: next(&mut self.first),
            second: next(&mut self.second),
            average: next(&mut self.average),
            gradient: self.gradient.split_off(..n.min(self.gradient.len())).unwrap_or_default(),
        }
    }

    /// Moves what `runs` cover: the numbers from `at` on.
    fn update(mut self, numbers: &Numbers, mut at: usize, runs: &[Run]) {
        let first = runs.partition_point(|run| run.end <= at);
        for run in &runs[first..] {
            let own = self.take(run.end - at);
            if own.weights.is_empty() {
                break;
            }
            at = run.end;
            own.update_run(numbers, run.mask);
        }
    }

    fn update_run(self, numbers: &Numbers, mask: f32) {
        let Numbers { rule, scale, decay, keep } = *numbers;
        // `mask` is one number to the compiler, which so moves several weights at once.
        if decay > 0.0 {
            let decay = decay * mask;
            rule.follow(self.weights, self.first, self.second, self.gradient, mask, |g, w| g * scale + decay * w);
        } else {
            rule.follow(self.weights, self.first, self.second, self.gradient, mask, |g, _| g * scale);
        }
        for (average, w) in self.average.iter_mut().zip(self.weights) {
            *average = keep * *average + (1.0 - keep) * *w;
        }
    }
}

impl Rule {
    /// Moves weights and moments; `gradient` is that of a gradient of the loss and a weight. Without gradients nothing moves.
    fn follow(
        self,
        weights: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        gradients: &[f32],
        mask: f32,
        gradient: impl Fn(f32, f32) -> f32,
    ) {
        let each = weights.iter_mut().zip(first).zip(gradients);
        match self {
            Self::Nesterov { rate, momentum } => each.for_each(|((w, v), g)| {
                let g = gradient(*g, *w);
                *v = momentum * *v + g;
                *w -= rate * (g + momentum * *v);
            }),
            Self::Adam { rate, correction, shrink } => {
                let shrink = shrink * mask;
                each.zip(second).for_each(|(((w, m), g), v)| {
                    let g = gradient(*g, *w);
                    *m = 0.9 * *m + 0.1 * g;
                    *v = 0.999 * *v + 0.001 * (g * g);
                    *w = *w - rate * *m / ((*v * correction).sqrt() + 1e-8) - shrink * *w;
                });
            }
        }
    }
}

/// Moves a variable; the sum of its gradient's squares, added up as by [`square`], where `squared` asks for it.
pub(super) fn update(
    numbers: &Numbers,
    state: &State,
    gradient: Option<&Tensor>,
    runs: &[Run],
    squared: bool,
) -> Result<f64> {
    let State { variable, first, second, average } = *state;
    let n = variable.elem_count();
    let others = [Some(first), second, average, gradient];
    if let Some(other) = others.into_iter().flatten().find(|other| other.elem_count() != n) {
        bail!("{n} numbers beside {}", other.elem_count())
    }
    let run = |mut all: Part| {
        let parts: Vec<Part> = (0..n.div_ceil(PART)).map(|_| all.take(PART)).collect();
        let squares = parts.into_par_iter().enumerate().map(|(i, part)| {
            let square = if squared { square_of(part.gradient) } else { 0.0 };
            part.update(numbers, i * PART, runs);
            square
        });
        squares.collect::<Vec<_>>().iter().sum()
    };
    look(gradient, |gradient| {
        lend(Some(variable), |weights| {
            lend(Some(first), |first| {
                lend(second, |second| {
                    lend(average, |average| Ok(run(Part { weights, first, second, average, gradient })))
                })
            })
        })
    })
}

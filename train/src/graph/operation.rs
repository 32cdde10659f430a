//! The whole trunk as one candle operation over images, so that objectives and attacks differentiate through it like
//! through any other. The parameters' gradient is left in the [`Ledger`]: candle would copy it twice more.

use super::Graph;
use super::backward::{Backward, add_to};
use super::forward::{Forward, Tape};
use super::plan::Plan;
use super::pool::Pool;
use crate::ops::lanes::{Isa, detect};
use anyhow::{Result, ensure};
use candle_core::{CpuStorage, CustomOp2, Device, Layout, Shape, Storage, Tensor, Var, bail};
use std::sync::{Arc, Mutex, MutexGuard};

/// Where a batch norm's statistics come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The mini-batch; running statistics follow it.
    Learn,
    /// The running statistics, which stay.
    Fixed,
}

/// Where the operations of one loss leave the gradient of a trunk's parameters.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// A variable that every operation depends on, so that candle visits it.
    anchor: Var,
    sum: Arc<Mutex<Option<Vec<f32>>>>,
}

impl Ledger {
    /// An empty one.
    ///
    /// # Errors
    /// If candle cannot allocate.
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self { anchor: Var::new(0.0f32, device)?, sum: Arc::default() })
    }

    /// The gradient that was left, after the loss's backward pass; `None` if the loss does not depend on the trunk.
    pub fn take(&self) -> Option<Vec<f32>> {
        lock(&self.sum).take()
    }

    fn add(&self, gradient: Vec<f32>) {
        let mut sum = lock(&self.sum);
        match &mut *sum {
            Some(there) => add_to(there, &gradient),
            empty => *empty = Some(gradient),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[derive(Debug)]
struct Inner {
    plan: Plan,
    pool: Pool,
    running: Mutex<Vec<f32>>,
}

/// A graph ready to run, with its running statistics. Clones share them.
#[derive(Debug, Clone)]
pub struct Trunk(Arc<Inner>);

impl Trunk {
    /// Plans a graph for the fastest kernels of this CPU; running means are 0, variances 1.
    ///
    /// # Errors
    /// If the graph is not consistent.
    pub fn new(graph: Graph) -> Result<Self> {
        Self::on(graph, detect())
    }

    /// Plans a graph for one instruction set.
    ///
    /// # Errors
    /// If the graph is not consistent.
    pub fn on(graph: Graph, isa: Isa) -> Result<Self> {
        let plan = Plan::new(graph, isa)?;
        let mut running = vec![0.0; plan.running];
        for place in &plan.places {
            running[place.running[1].clone()].fill(1.0);
        }
        Ok(Self(Arc::new(Inner { plan, pool: Pool::default(), running: Mutex::new(running) })))
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.0.plan.graph
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.0.plan.parameters
    }

    /// Where the parameters of stage `i` stand in the flat vector.
    pub fn places(&self, i: usize) -> &[std::ops::Range<usize>] {
        &self.0.plan.places[i].parameters
    }

    /// Running mean, then variance, of stage `i` in [`Trunk::running`]; empty ranges without a batch norm.
    pub(crate) fn running_places(&self, i: usize) -> &[std::ops::Range<usize>; 2] {
        &self.0.plan.places[i].running
    }

    /// A copy of the running statistics.
    pub fn running(&self) -> Vec<f32> {
        self.lock().clone()
    }

    /// Sets the running statistics.
    ///
    /// # Errors
    /// If their number differs.
    pub fn set_running(&self, values: &[f32]) -> Result<()> {
        let mut running = self.lock();
        ensure!(values.len() == running.len(), "{} running statistics instead of {}", values.len(), running.len());
        running.copy_from_slice(values);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<f32>> {
        lock(&self.0.running)
    }

    /// The last activation f32 `[n, h, w, c]` of images f32 `[n, h, w, c]` under parameters f32 `[p]`, whose gradient a
    /// backward pass adds to `ledger`.
    ///
    /// # Errors
    /// If a shape differs or a tensor is not f32.
    pub fn apply(&self, images: &Tensor, theta: &Tensor, mode: Mode, ledger: Option<&Ledger>) -> Result<Tensor> {
        let parameters = self.parameters();
        ensure!(theta.dims() == [parameters], "{:?} parameters instead of {parameters}", theta.dims());
        let op = Apply {
            trunk: self.0.clone(),
            theta: theta.detach().contiguous()?,
            mode,
            ledger: ledger.cloned(),
            keep: images.track_op() || ledger.is_some(),
            tape: Mutex::new(None),
        };
        let images = images.contiguous()?;
        Ok(match ledger {
            Some(ledger) => images.apply_op2(&ledger.anchor, op)?,
            None => images.apply_op2(&Tensor::new(0.0f32, images.device())?, op)?,
        })
    }

    /// Every activation of `n` images f32 `[n][h][w][c]`, written out: the image, then each stage's output.
    ///
    /// # Errors
    /// If a kernel cannot be planned.
    pub fn activations(&self, images: &[f32], n: usize, theta: &[f32]) -> Result<Vec<Vec<f32>>> {
        let plan = &self.0.plan;
        let forward = Forward { plan, pool: &self.0.pool, theta, mode: Mode::Fixed, keep: true };
        let tape = forward.run(images, n, &mut self.lock())?;
        let all = (0..plan.shapes.len()).map(|i| {
            let mut out = Vec::new();
            plan.materialise(i, super::forward::stored(&tape, images, plan.source(i).0), &tape.maps, &mut out);
            out
        });
        Ok(all.collect())
    }
}

/// One application; its tape goes back to the pool when the last tensor that refers to it is dropped.
struct Apply {
    trunk: Arc<Inner>,
    theta: Tensor,
    mode: Mode,
    ledger: Option<Ledger>,
    keep: bool,
    tape: Mutex<Option<Tape>>,
}

impl Apply {
    fn take(&self) -> Option<Tape> {
        lock(&self.tape).take()
    }

    fn recycle(&self, tape: Tape) {
        tape.activations.into_iter().for_each(|a| self.trunk.pool.put(a));
    }
}

impl Drop for Apply {
    fn drop(&mut self) {
        if let Some(tape) = self.take() {
            self.recycle(tape);
        }
    }
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match (layout.contiguous_offsets(), storage) {
        (Some((from, to)), CpuStorage::F32(values)) => Ok(&values[from..to]),
        _ => bail!("a network takes contiguous f32 tensors"),
    }
}

fn cpu(storage: &Storage) -> candle_core::Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => bail!("this network runs on the CPU"),
    }
}

impl CustomOp2 for Apply {
    fn name(&self) -> &'static str {
        "paradise-trunk"
    }

    fn cpu_fwd(
        &self,
        images: &CpuStorage,
        images_layout: &Layout,
        _anchor: &CpuStorage,
        _anchor_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let Inner { plan, pool, running } = &*self.trunk;
        let input = plan.graph.input;
        let [h, w, c] = [input.h, input.w, input.c].map(usize::from);
        let n = match images_layout.dims() {
            [n, a, b, d] if [*a, *b, *d] == [h, w, c] => *n,
            dims => bail!("images {dims:?} for a network over [n, {h}, {w}, {c}]"),
        };
        let (theta, theta_layout) = self.theta.storage_and_layout();
        let theta = slice(cpu(&theta)?, theta_layout)?;
        let forward = Forward { plan, pool, theta, mode: self.mode, keep: self.keep };
        let mut guard = lock(running);
        let running: &mut [f32] = &mut guard;
        let images = slice(images, images_layout)?;
        // On a worker thread: from outside the pool each parallel loop would pay for waking one.
        let mut tape = rayon::scope(|_| forward.run(images, n, running))
            .map_err(|e| candle_core::Error::Msg(format!("{e:#}")))?;
        let last = plan.shapes.len() - 1;
        let y = if self.keep { tape.activations[last].clone() } else { std::mem::take(&mut tape.activations[last]) };
        let shape = plan.shapes[last];
        if self.keep {
            *lock(&self.tape) = Some(tape);
        } else {
            self.recycle(tape);
        }
        Ok((CpuStorage::F32(y), Shape::from((n, usize::from(shape.h), usize::from(shape.w), usize::from(shape.c)))))
    }

    fn bwd(
        &self,
        images: &Tensor,
        _anchor: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(tape) = self.take() else { bail!("a network's gradient can be taken once") };
        let gradient = gradient.contiguous()?;
        let (g, g_layout) = gradient.storage_and_layout();
        let (x, x_layout) = images.storage_and_layout();
        let (t, t_layout) = self.theta.storage_and_layout();
        let backward = Backward {
            plan: &self.trunk.plan,
            pool: &self.trunk.pool,
            theta: slice(cpu(&t)?, t_layout)?,
            images: slice(cpu(&x)?, x_layout)?,
            tape: &tape,
            wants_theta: self.ledger.is_some(),
            wants_images: images.track_op(),
        };
        let gradient = slice(cpu(&g)?, g_layout)?;
        let (dx, dtheta) =
            rayon::scope(|_| backward.run(gradient)).map_err(|e| candle_core::Error::Msg(format!("{e:#}")))?;
        self.recycle(tape);
        if let (Some(ledger), Some(dtheta)) = (&self.ledger, dtheta) {
            ledger.add(dtheta);
        }
        Ok((dx.map(|v| Tensor::from_vec(v, images.shape(), images.device())).transpose()?, None))
    }
}

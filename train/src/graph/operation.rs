//! The whole trunk as one candle operation over images, so that objectives and attacks differentiate through it like
//! through any other. The parameters' gradient is left in the [`Ledger`]: candle would copy it twice more.

use super::Graph;
use super::backward::Backward;
use super::forward::{Forward, Tape};
#[cfg(feature = "cuda")]
use super::gpu;
use super::plan::Plan;
use super::pool::Pool;
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, floats, on_device, tensor};
use crate::device::Precision;
use crate::ops::lanes::{Isa, detect};
use anyhow::{Result, ensure};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
#[cfg(feature = "cuda")]
use candle_core::cuda::{CudaDevice, cudarc::driver::CudaSlice};
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
    sum: Arc<Mutex<Option<Tensor>>>,
}

impl Ledger {
    /// An empty one.
    ///
    /// # Errors
    /// If candle cannot allocate.
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self { anchor: Var::new(0.0f32, device)?, sum: Arc::default() })
    }

    /// The gradient that was left, after the loss's backward pass: f32 `[parameters]`; `None` if the loss does not
    /// depend on the trunk.
    pub fn take(&self) -> Option<Tensor> {
        lock(&self.sum).take()
    }

    fn add(&self, gradient: Tensor) -> candle_core::Result<()> {
        let mut sum = lock(&self.sum);
        *sum = Some(match sum.take() {
            Some(there) => (there + gradient)?,
            None => gradient,
        });
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// Running statistics, where they were last moved.
#[derive(Debug)]
enum Running {
    Host(Vec<f32>),
    #[cfg(feature = "cuda")]
    Device(CudaSlice<f32>, CudaDevice),
}

impl Running {
    fn host(&mut self) -> candle_core::Result<&mut Vec<f32>> {
        #[cfg(feature = "cuda")]
        if let Self::Device(values, device) = self {
            *self = Self::Host(device.clone_dtoh(values)?);
        }
        match self {
            Self::Host(values) => Ok(values),
            #[cfg(feature = "cuda")]
            Self::Device(..) => bail!("running statistics did not come back"),
        }
    }

    #[cfg(feature = "cuda")]
    fn device(&mut self, device: &CudaDevice) -> candle_core::Result<&mut CudaSlice<f32>> {
        if let Self::Host(values) = self {
            // An allocation of no bytes is refused, and a graph without batch norms has none.
            let there = if values.is_empty() { vec![0.0] } else { values.clone() };
            *self = Self::Device(device.clone_htod(&there)?, device.clone());
        }
        match self {
            Self::Device(values, _) => Ok(values),
            Self::Host(_) => bail!("running statistics did not reach the device"),
        }
    }
}

#[derive(Debug)]
struct Inner {
    plan: Plan,
    pool: Pool,
    precision: Precision,
    running: Mutex<Running>,
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
        Self::on(graph, detect(), Precision::F32)
    }

    /// Plans a graph for one instruction set, and one precision on a GPU.
    ///
    /// # Errors
    /// If the graph is not consistent.
    pub fn on(graph: Graph, isa: Isa, precision: Precision) -> Result<Self> {
        let plan = Plan::new(graph, isa)?;
        let mut running = vec![0.0; plan.running];
        for place in &plan.places {
            running[place.running[1].clone()].fill(1.0);
        }
        Ok(Self(Arc::new(Inner {
            plan,
            pool: Pool::default(),
            precision,
            running: Mutex::new(Running::Host(running)),
        })))
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.0.plan.graph
    }

    /// How its convolutions compute on a GPU.
    pub fn precision(&self) -> Precision {
        self.0.precision
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
    ///
    /// # Errors
    /// If they cannot be read from the device.
    pub fn running(&self) -> Result<Vec<f32>> {
        let mut running = lock(&self.0.running);
        // A device's buffer is never empty.
        Ok(running.host()?[..self.0.plan.running].to_vec())
    }

    /// Sets the running statistics.
    ///
    /// # Errors
    /// If their number differs.
    pub fn set_running(&self, values: &[f32]) -> Result<()> {
        let own = self.0.plan.running;
        ensure!(values.len() == own, "{} running statistics instead of {own}", values.len());
        *lock(&self.0.running) = Running::Host(values.to_vec());
        Ok(())
    }

    /// The same graph and statistics at another precision.
    ///
    /// # Errors
    /// If the statistics cannot be read from the device.
    pub fn at(&self, precision: Precision) -> Result<Self> {
        let other = Self::on(self.graph().clone(), self.0.plan.isa, precision)?;
        other.set_running(&self.running()?)?;
        Ok(other)
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
        let tape = forward.run(images, n, lock(&self.0.running).host()?)?;
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
    tape: Mutex<Option<Kept>>,
}

/// The tape of a pass, on either side.
enum Kept {
    Host(Tape),
    #[cfg(feature = "cuda")]
    Device(gpu::Tape),
}

impl Apply {
    fn take(&self) -> Option<Kept> {
        lock(&self.tape).take()
    }

    fn recycle(&self, tape: Tape) {
        tape.activations.into_iter().for_each(|a| self.trunk.pool.put(a));
    }

    /// Number of images, or why they do not fit.
    fn images(&self, layout: &Layout) -> candle_core::Result<usize> {
        let input = self.trunk.plan.graph.input;
        let [h, w, c] = [input.h, input.w, input.c].map(usize::from);
        match layout.dims() {
            [n, a, b, d] if [*a, *b, *d] == [h, w, c] => Ok(*n),
            dims => bail!("images {dims:?} for a network over [n, {h}, {w}, {c}]"),
        }
    }

    /// The output's extents.
    fn output(&self, n: usize) -> Shape {
        let plan = &self.trunk.plan;
        let last = plan.shapes[plan.shapes.len() - 1];
        let [h, w, c] = [last.h, last.w, last.c].map(usize::from);
        Shape::from((n, h, w, c))
    }

    fn backward(&self, images: &Tensor, gradient: &Tensor, tape: Tape) -> candle_core::Result<Gradients> {
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
        let dx = dx.map(|v| Tensor::from_vec(v, images.shape(), images.device())).transpose()?;
        let dtheta = dtheta.map(|v| Tensor::from_vec(v, self.theta.shape(), images.device())).transpose()?;
        Ok((dx, dtheta))
    }

    #[cfg(feature = "cuda")]
    fn backward_on_device(
        &self,
        images: &Tensor,
        gradient: &Tensor,
        tape: &gpu::Tape,
    ) -> candle_core::Result<Gradients> {
        let gradient = gradient.contiguous()?;
        let (g, g_layout) = gradient.storage_and_layout();
        let (wants_theta, wants_images) = (self.ledger.is_some(), images.track_op());
        let backward = gpu::Backward { plan: &self.trunk.plan, tape, wants_theta, wants_images };
        let (dx, dtheta) = backward.run(&floats(on_device(&g)?, g_layout)?)?;
        let wrap = |values: Option<CudaSlice<f32>>, like: &Tensor| values.map(|v| tensor(v, like)).transpose();
        Ok((wrap(dx, images)?, wrap(dtheta, &self.theta)?))
    }
}

/// The gradients of the images and of the parameters, where asked for.
type Gradients = (Option<Tensor>, Option<Tensor>);

impl Drop for Apply {
    fn drop(&mut self) {
        if let Some(Kept::Host(tape)) = self.take() {
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
        let Inner { plan, pool, running, .. } = &*self.trunk;
        let n = self.images(images_layout)?;
        let (theta, theta_layout) = self.theta.storage_and_layout();
        let theta = slice(cpu(&theta)?, theta_layout)?;
        let forward = Forward { plan, pool, theta, mode: self.mode, keep: self.keep };
        let mut guard = lock(running);
        let running: &mut [f32] = guard.host()?;
        let images = slice(images, images_layout)?;
        // On a worker thread: from outside the pool each parallel loop would pay for waking one.
        let mut tape = rayon::scope(|_| forward.run(images, n, running))
            .map_err(|e| candle_core::Error::Msg(format!("{e:#}")))?;
        let last = plan.shapes.len() - 1;
        let y = if self.keep { tape.activations[last].clone() } else { std::mem::take(&mut tape.activations[last]) };
        if self.keep {
            *lock(&self.tape) = Some(Kept::Host(tape));
        } else {
            self.recycle(tape);
        }
        Ok((CpuStorage::F32(y), self.output(n)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        images: &CudaStorage,
        images_layout: &Layout,
        _anchor: &CudaStorage,
        _anchor_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let Inner { plan, precision, running, .. } = &*self.trunk;
        let n = self.images(images_layout)?;
        let gpu = Gpu { device: images.device.clone(), precision: *precision };
        let (theta, theta_layout) = self.theta.storage_and_layout();
        let theta = floats(on_device(&theta)?, theta_layout)?;
        let forward = gpu::Forward { gpu: &gpu, plan, theta: &theta, mode: self.mode, keep: self.keep };
        let mut guard = lock(running);
        let tape = forward.run(&floats(images, images_layout)?, n, guard.device(&gpu.device)?)?;
        let y = gpu.cast_out(tape.value(plan.shapes.len() - 1)?)?;
        if self.keep {
            *lock(&self.tape) = Some(Kept::Device(tape));
        }
        Ok((CudaStorage::wrap_cuda_slice(y, gpu.device), self.output(n)))
    }

    fn bwd(
        &self,
        images: &Tensor,
        _anchor: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dtheta) = match self.take() {
            Some(Kept::Host(tape)) => self.backward(images, gradient, tape)?,
            #[cfg(feature = "cuda")]
            Some(Kept::Device(tape)) => self.backward_on_device(images, gradient, &tape)?,
            None => bail!("a network's gradient can be taken once"),
        };
        if let (Some(ledger), Some(dtheta)) = (&self.ledger, dtheta) {
            ledger.add(dtheta)?;
        }
        Ok((dx, None))
    }
}

//! The whole trunk as one candle operation over images, so that objectives and attacks differentiate through it like
//! through any other. The parameters' gradient is left in the [`Ledger`]: candle would copy it twice more.

use super::backward::Backward;
use super::forward::{Forward, Tape};
#[cfg(feature = "cuda")]
use super::gpu;
use super::ledger::Ledger;
use super::mode::Mode;
use super::shared::{Inner, lock, told};
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, floats, on_device, tensor};
use crate::exchange::Share;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
#[cfg(feature = "cuda")]
use candle_core::cuda::cudarc::driver::CudaSlice;
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Storage, Tensor, bail};
use std::sync::{Arc, Mutex};

/// One application; its tape goes back to the pool when the last tensor that refers to it is dropped.
pub(super) struct Apply {
    trunk: Arc<Inner>,
    theta: Tensor,
    mode: Mode,
    ledger: Option<Ledger>,
    keep: bool,
    /// This process's part of the batch, if it has not all of it.
    share: Option<Share>,
    tape: Mutex<Option<Kept>>,
}

/// The tape of a pass, on either side.
enum Kept {
    Host(Tape),
    #[cfg(feature = "cuda")]
    Device(gpu::Tape),
}

impl Apply {
    /// Over parameters f32 `[p]`; `keep` says whether a backward pass will follow, and `ledger` where it leaves the
    /// parameters' gradient.
    pub fn new(trunk: Arc<Inner>, theta: Tensor, mode: Mode, ledger: Option<Ledger>, keep: bool) -> Self {
        Self { trunk, theta, mode, ledger, keep, share: None, tape: Mutex::new(None) }
    }

    /// The same over a share of a batch: its output is that of the whole batch, on every rank.
    pub fn of(mut self, share: Option<Share>) -> Self {
        self.share = share;
        self
    }

    fn take(&self) -> Option<Kept> {
        lock(&self.tape).take()
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
            share: self.share.as_ref(),
        };
        let gradient = slice(cpu(&g)?, g_layout)?;
        let own = self.share.as_ref().map(|share| share.part(gradient, gradient.len() / tape.whole));
        let (dx, dtheta) = told(rayon::scope(|_| backward.run(own.as_deref().unwrap_or(gradient))))?;
        self.trunk.recycle(tape);
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
        let (plan, share) = (&self.trunk.plan, self.share.as_ref());
        let backward = gpu::Backward { plan, tape, wants_theta, wants_images, share };
        let gradient = floats(on_device(&g)?, g_layout)?;
        let own = share.map(|share| gpu::ranks::part(&tape.gpu, share, &gradient, plan.len(plan.shapes.len() - 1)));
        let (dx, dtheta) = match own.transpose()? {
            Some(own) => backward.run(&own.slice(..))?,
            None => backward.run(&gradient)?,
        };
        let wrap = |values: Option<CudaSlice<f32>>, like: &Tensor| values.map(|v| tensor(v, like)).transpose();
        Ok((wrap(dx, images)?, wrap(dtheta, &self.theta)?))
    }
}

/// The gradients of the images and of the parameters, where asked for.
type Gradients = (Option<Tensor>, Option<Tensor>);

impl Drop for Apply {
    fn drop(&mut self) {
        if let Some(Kept::Host(tape)) = self.take() {
            self.trunk.recycle(tape);
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
        let share = self.share.as_ref();
        let forward = Forward { plan, pool, theta, mode: self.mode, keep: self.keep, share };
        let images = slice(images, images_layout)?;
        let mut guard = lock(running);
        // On a worker thread: from outside the pool each parallel loop would pay for waking one.
        let tape = if self.mode == Mode::Fixed {
            // Nothing moves, so that several threads may measure one network at once.
            let mut fixed = guard.host()?.clone();
            drop(guard);
            rayon::scope(|_| forward.run(images, n, &mut fixed))
        } else {
            let running: &mut [f32] = guard.host()?;
            rayon::scope(|_| forward.run(images, n, running))
        };
        let mut tape = told(tape)?;
        let (last, whole) = (plan.shapes.len() - 1, tape.whole);
        let y = if self.keep { tape.activations[last].clone() } else { std::mem::take(&mut tape.activations[last]) };
        if self.keep {
            *lock(&self.tape) = Some(Kept::Host(tape));
        } else {
            self.trunk.recycle(tape);
        }
        let y = match share {
            Some(share) => told(share.gather(&y, plan.len(last)))?,
            None => y,
        };
        Ok((CpuStorage::F32(y), self.output(whole)))
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
        let share = self.share.as_ref();
        let forward = gpu::Forward { gpu: &gpu, plan, theta: &theta, mode: self.mode, keep: self.keep, share };
        let mut guard = lock(running);
        let tape = forward.run(&floats(images, images_layout)?, n, guard.device(&gpu.device)?)?;
        let (last, whole) = (plan.shapes.len() - 1, tape.whole);
        let mut y = gpu.cast_out(tape.value(last)?)?;
        if let Some(share) = share {
            y = gpu::ranks::gather(&gpu, share, &y, plan.len(last))?;
        }
        if self.keep {
            *lock(&self.tape) = Some(Kept::Device(tape));
        }
        Ok((CudaStorage::wrap_cuda_slice(y, gpu.device), self.output(whole)))
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

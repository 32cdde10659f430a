//! A graph ready to run.

use super::Graph;
use super::forward::{Forward, Tape};
use super::ledger::Ledger;
use super::mode::Mode;
use super::operation::Apply;
use super::plan::Plan;
use super::pool::Pool;
use super::shared::{Inner, Running, lock};
use crate::Precision;
use crate::exchange::Share;
use crate::ops::conv;
use crate::ops::lanes::{Isa, detect};
use anyhow::{Result, ensure};
use candle_core::Tensor;
use std::sync::{Arc, Mutex};

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

    /// Plans a graph for one instruction set and one precision.
    ///
    /// # Errors
    /// If the graph is not consistent.
    pub fn on(graph: Graph, isa: Isa, precision: Precision) -> Result<Self> {
        let plan = Plan::new(graph, isa, if precision == Precision::Bf16 { conv::tiles() } else { None })?;
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

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.0.plan.graph
    }

    /// How its convolutions compute.
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
        self.apply_to(None, images, theta, mode, ledger)
    }

    /// As [`Trunk::apply`] of a whole batch, of which this process has a share: the output is that of all ranks' images, the
    /// parameters' gradient that of the whole batch, and the images' gradient that of this rank's.
    ///
    /// # Errors
    /// As [`Trunk::apply`]; if the images are not this rank's, or another rank is gone.
    pub fn apply_shared(
        &self,
        share: &Share,
        images: &Tensor,
        theta: &Tensor,
        mode: Mode,
        ledger: Option<&Ledger>,
    ) -> Result<Tensor> {
        self.apply_to(Some(share), images, theta, mode, ledger)
    }

    /// Images of which a share of `n` images must be a whole number.
    pub fn grain(&self, n: usize) -> usize {
        self.0.plan.grain(n)
    }

    fn apply_to(
        &self,
        share: Option<&Share>,
        images: &Tensor,
        theta: &Tensor,
        mode: Mode,
        ledger: Option<&Ledger>,
    ) -> Result<Tensor> {
        let parameters = self.parameters();
        ensure!(theta.dims() == [parameters], "{:?} parameters instead of {parameters}", theta.dims());
        let keep = images.track_op() || ledger.is_some();
        let op = Apply::new(self.0.clone(), theta.detach().contiguous()?, mode, ledger.cloned(), keep)
            .of(share.filter(|share| share.ranks() > 1).cloned());
        let images = images.contiguous()?;
        Ok(match ledger {
            Some(ledger) => images.apply_op2(&ledger.anchor, op)?,
            None => images.apply_op2(&Tensor::new(0.0f32, images.device())?, op)?,
        })
    }

    pub(super) fn fixed(&self, images: &[f32], n: usize, theta: &[f32], keep: bool) -> Result<Tape> {
        let Inner { plan, pool, .. } = &*self.0;
        ensure!(images.len() == n * plan.len(0), "{} values for {n} images of {}", images.len(), plan.len(0));
        ensure!(theta.len() == plan.parameters, "{} parameters instead of {}", theta.len(), plan.parameters);
        let forward = Forward { plan, pool, theta, mode: Mode::Fixed, keep, share: None };
        forward.run(images, n, &mut self.running()?)
    }

    /// Every activation of `n` images f32 `[n][h][w][c]`, written out: the image, then each stage's output.
    ///
    /// # Errors
    /// If a kernel cannot be planned.
    pub fn activations(&self, images: &[f32], n: usize, theta: &[f32]) -> Result<Vec<Vec<f32>>> {
        let plan = &self.0.plan;
        let tape = self.fixed(images, n, theta, true)?;
        let all = (0..plan.shapes.len()).map(|i| {
            let mut out = Vec::new();
            plan.materialise(i, super::forward::stored(&tape, images, plan.source(i).0), &tape.maps, &mut out);
            out
        });
        Ok(all.collect())
    }
}

//! What several GPUs add up, each a rank: its own sums, through the host's memory, in the order of ranks. Their number is seen in the
//! last bits, unlike that of ranks on the CPU: cuDNN adds a batch's images in an order of its own.

use crate::cuda::Gpu;
use crate::exchange::{Later, Share, Sum};
use crate::graph::plan::Plan;
use crate::graph::shared::told;
use candle_core::Result;
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaView};

/// Images of all ranks' batches where this rank has `n`.
pub(in crate::graph) fn whole(share: Option<&Share>, n: usize) -> Result<usize> {
    share.map_or(Ok(n), |share| told(share.whole(n)))
}

/// Sums of all ranks.
pub(super) fn sums(gpu: &Gpu, share: Option<&Share>, own: CudaSlice<f64>) -> Result<CudaSlice<f64>> {
    let Some(share) = share else { return Ok(own) };
    gpu.by_host(&own, |numbers| told(share.add_ranks(numbers)))
}

/// The gradients of linear stages' weights of all ranks, in the parameters' gradient; all else in it is of all ranks already.
pub(super) fn weights(gpu: &Gpu, share: Option<&Share>, plan: &Plan, own: CudaSlice<f32>) -> Result<CudaSlice<f32>> {
    let Some(share) = share else { return Ok(own) };
    gpu.by_host(&own, |numbers| {
        let linear = |i: &usize| !plan.graph.stages[*i].op.is_map() && !plan.places[*i].parameters.is_empty();
        let place = |i: usize| plan.places[i].parameters[0].clone();
        // One part a rank, as large as one copy of its images.
        let mut later = told(Later::new(share, share.own().len()))?;
        for key in (0..plan.graph.stages.len()).rev().filter(linear) {
            let part = numbers[place(key)].to_vec();
            told(later.push(Sum { key, total: vec![0.0; part.len()], parts: vec![part] }))?;
        }
        told(later.advance(true))?;
        for Sum { key, total, .. } in later.done() {
            numbers[place(key)].copy_from_slice(&total);
        }
        Ok(())
    })
}

/// A trunk's output of all ranks' images, `each` values an image.
pub(in crate::graph) fn gather(
    gpu: &Gpu,
    share: &Share,
    own: &CudaSlice<f32>,
    each: usize,
) -> Result<CudaSlice<f32>> {
    let all = gpu.on_host(own, |own| told(share.gather(own, each)))?;
    gpu.device.clone_htod(&all)
}

/// This rank's part of the gradient of all ranks' outputs.
pub(in crate::graph) fn part(gpu: &Gpu, share: &Share, all: &CudaView<f32>, each: usize) -> Result<CudaSlice<f32>> {
    let own = gpu.on_host(all, |all| Ok(share.part(all, each)))?;
    gpu.device.clone_htod(&own)
}

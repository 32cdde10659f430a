//! A mini-batch through a graph on the GPU: the same stages as on the CPU, with every per-channel map written out,
//! because cuDNN's convolutions read what is stored.

mod backward;
mod forward;
pub(super) mod ranks;

pub(super) use backward::Backward;
pub(super) use forward::Forward;

use super::mode::Mode;
use super::plan::Plan;
use super::{Op, Stage};
use crate::cuda::conv::Geometry;
use crate::cuda::{Gpu, Values, int};
use candle_core::cuda::cudarc::driver::CudaSlice;
use candle_core::{Result, bail};
use paradise_engine::Shape;
use paradise_engine::layer::Window;

/// What the backward pass needs of a forward pass.
pub(super) struct Tape {
    pub gpu: Gpu,
    /// Images of this process.
    pub n: usize,
    /// Images of all ranks that share the batch.
    pub whole: usize,
    pub mode: Mode,
    /// Every activation `[n][h][w][c]`, the images' normalised ones inside their frame; `None` where freed.
    pub values: Vec<Option<Values>>,
    /// Mean, inverse deviation, scale and shift of each map, f32 `[4 c]`.
    pub numbers: Vec<Option<CudaSlice<f32>>>,
    /// The stages' weights as values.
    pub weights: Vec<Option<Values>>,
}

impl Tape {
    /// Activation `i`.
    pub fn value(&self, i: usize) -> Result<&Values> {
        match self.values.get(i).and_then(Option::as_ref) {
            Some(values) => Ok(values),
            None => bail!("activation {i} was not kept"),
        }
    }

    /// The numbers of the map that makes activation `i`.
    pub fn map(&self, i: usize) -> Result<&CudaSlice<f32>> {
        match self.numbers.get(i).and_then(Option::as_ref) {
            Some(numbers) => Ok(numbers),
            None => bail!("activation {i} is no map's"),
        }
    }

    /// The weights of stage `i`.
    pub fn weight(&self, i: usize) -> Result<&Values> {
        match self.weights.get(i).and_then(Option::as_ref) {
            Some(weights) => Ok(weights),
            None => bail!("stage {i} has no weights"),
        }
    }
}

/// Rows and columns that frame the normalised image, so that what pads it is black: its readers' padding.
fn frame(plan: &Plan, i: usize) -> Result<[usize; 2]> {
    let mut pads = plan.graph.stages.iter().filter(|s| s.x == i).map(|s| match &s.op {
        Op::Conv { window, .. } => symmetric(window),
        Op::Dense { .. } => Ok([0, 0]),
        _ => bail!("on the GPU only convolutions and dense layers read the normalised image"),
    });
    let first = pads.next().unwrap_or(Ok([0, 0]))?;
    for pad in pads {
        if pad? != first {
            bail!("on the GPU all readers of the normalised image must pad it alike");
        }
    }
    Ok(first.map(|p| p as usize))
}

fn symmetric(window: &Window) -> Result<[i32; 2]> {
    let [top, left, bottom, right] = window.pad.map(i32::from);
    // A far side that no window reaches may differ; then the output's extents agree, which `geometry` checks.
    if bottom > top || right > left {
        bail!("cuDNN pads alike on both sides, not {window:?}")
    }
    Ok([top, left])
}

fn sides(shape: Shape) -> [i32; 3] {
    [shape.h.into(), shape.w.into(), shape.c.into()]
}

/// The convolution behind stage `i`, a Conv, Transposed or Dense.
fn geometry(plan: &Plan, i: usize, n: usize) -> Result<Geometry> {
    let Stage { x, op } = &plan.graph.stages[i];
    let (from, to) = (sides(plan.shapes[*x]), sides(plan.shapes[i + 1]));
    let n = int(n)?;
    let of = |window: &Window, input: [i32; 3], output: [i32; 3], pad: [i32; 2], groups: usize| {
        let g = Geometry {
            n,
            input,
            output,
            kernel: window.kernel.map(i32::from),
            stride: window.stride.map(i32::from),
            pad,
            groups: int(groups)?,
        };
        for axis in 0..2 {
            let slid = (g.input[axis] + 2 * g.pad[axis] - g.kernel[axis]) / g.stride[axis] + 1;
            if slid != g.output[axis] {
                bail!("stage {i}: cuDNN pads alike on both sides, and {window:?} does not")
            }
        }
        Ok(g)
    };
    match op {
        Op::Conv { window, groups, .. } => {
            if matches!(x.checked_sub(1).map(|s| &plan.graph.stages[s].op), Some(Op::Normalise { .. })) {
                let [top, left] = frame(plan, *x)?;
                let framed = [from[0] + 2 * int(top)?, from[1] + 2 * int(left)?, from[2]];
                return of(window, framed, to, [0, 0], *groups);
            }
            of(window, from, to, symmetric(window)?, *groups)
        }
        // The adjoint of a convolution from the output's extents to the input's.
        Op::Transposed { window, .. } => of(window, to, from, symmetric(window)?, 1),
        Op::Dense { out, .. } => {
            let window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
            of(&window, [1, 1, from.iter().product()], [1, 1, int(*out)?], [0, 0], 1)
        }
        _ => bail!("stage {i} is no convolution"),
    }
}

/// The window of a pool as kernels take it, after its input's and output's extents.
fn pool_numbers(plan: &Plan, i: usize, window: &Window) -> Result<[i32; 11]> {
    let [h, w, c] = sides(plan.shapes[plan.graph.stages[i].x]);
    let [out_h, out_w, _] = sides(plan.shapes[i + 1]);
    let ([kh, kw], [sy, sx]) = (window.kernel.map(i32::from), window.stride.map(i32::from));
    let [top, left] = [window.pad[0], window.pad[1]].map(i32::from);
    Ok([h, w, c, out_h, out_w, kh, kw, sy, sx, top, left])
}

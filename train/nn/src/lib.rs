//! Training kernels for candle that are faster than its own, and graphs of them: useful with or without PARADISE.
//!
//! | module | what it holds |
//! |---|---|
//! | [`graph`] | networks as stages in order (convolutions, batch norms, pools, dense layers): forward, backward, folding |
//! | [`ops`] | the kernels of one image, and the vectors of the CPU that they are written in |
//! | [`optimiser`] | SGD with Nesterov's momentum, Adam and AdamW with a state that is saved; schedules; clipping |
//! | [`exchange`] | a mini-batch that several processes share, to the bits of one |
//! | [`device`], [`Precision`] | which device, and how exactly convolutions compute |
//!
//! A [`graph::Trunk`] is one candle operation: gradients pass through it to whatever is around.
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use paradise_engine::{Shape, layer::Window};
//! use paradise_nn::graph::{Graph, Ledger, Mode, Op, Stage, Trunk};
//!
//! # fn main() -> anyhow::Result<()> {
//! // Four 3 x 3 filters over images of 8 x 8 pixels.
//! let window = Window { kernel: [3, 3], stride: [1, 1], pad: [1, 1, 1, 1] };
//! let conv = Op::Conv { window, groups: 1, out: 4, bias: true, relu: true, residual: None };
//! let trunk = Trunk::new(Graph { input: Shape::new(8, 8, 1), stages: vec![Stage { x: 0, op: conv }] })?;
//! let theta = Var::from_tensor(&Tensor::full(0.1f32, trunk.parameters(), &Device::Cpu)?)?;
//! let images = paradise_nn::images(vec![0.5; 2 * 64], 2, Shape::new(8, 8, 1))?;
//! let ledger = Ledger::new(&Device::Cpu)?;
//! let out = trunk.apply(&images, theta.as_tensor(), Mode::Learn, Some(&ledger))?;
//! assert_eq!(out.dims(), [2, 8, 8, 4]);
//! out.sum_all()?.backward()?;
//! assert_eq!(ledger.take().map(|g| g.elem_count()), Some(trunk.parameters()));
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

#[cfg(feature = "cuda")]
mod cuda;
pub mod device;
pub mod exchange;
pub mod graph;
pub mod ops;
pub mod optimiser;
mod precision;

#[cfg(feature = "cuda")]
pub use cuda::{augment::Pick, density::Density};

pub use precision::Precision;

use anyhow::Result;
use candle_core::{Device, Tensor};
use paradise_engine::Shape;

/// Images f32 `[n, h, w, c]` on the CPU, from values in that order.
///
/// ```
/// let images = paradise_nn::images(vec![0.5; 24], 2, paradise_engine::Shape::new(2, 2, 3))?;
/// assert_eq!(images.dims(), [2, 2, 2, 3]);
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// If their number is not `n h w c`.
pub fn images(values: Vec<f32>, n: usize, shape: Shape) -> Result<Tensor> {
    let dims = (n, shape.h as usize, shape.w as usize, shape.c as usize);
    Ok(Tensor::from_vec(values, dims, &Device::Cpu)?)
}

//! A network's trunk: operations from one image to its features (or from a latent to an image), and their parameters.
//!
//! The description is here; `plan` chooses kernels and fuses, `forward` and `backward` run a mini-batch (`gpu` on a GPU),
//! `trunk` is a graph ready to run, `frozen` one whose parameters stay, `operation` makes that one differentiable candle operation over (images,
//! parameters), and `fold` turns a trained graph into the one that is served.

mod backward;
mod fixed;
mod fold;
mod forward;
#[cfg(feature = "cuda")]
mod gpu;
mod ledger;
mod mode;
mod operation;
mod plan;
mod pool;
mod shared;
mod trunk;

#[cfg(test)]
mod tests;

pub use fixed::FixedGraph;
pub use fixed::{batch, pull};
pub use fold::fold;
pub use ledger::Ledger;
pub use mode::Mode;
pub use trunk::Trunk;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use paradise_engine::Shape;
use paradise_engine::layer::Window;

/// The numbers of an f32 tensor, in index order.
///
/// # Errors
/// If it holds another type, or cannot be read from its device.
pub fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
}

/// What a stage does to the activation that it reads.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// `(x - mean) / std` a channel, fixed; what pads it is black, not zero.
    Normalise {
        /// One a channel.
        mean: Vec<f32>,
        /// One a channel, > 0.
        std: Vec<f32>,
    },
    /// Convolution, then bias, residual and ReLU where there are any: weights `[out][kh][kw][in / groups]`.
    Conv {
        /// The sliding window.
        window: Window,
        /// Channel groups.
        groups: usize,
        /// Output channels.
        out: usize,
        /// Whether there is a bias.
        bias: bool,
        /// Whether a ReLU follows.
        relu: bool,
        /// The activation that is added before the ReLU.
        residual: Option<usize>,
    },
    /// Transposed convolution and bias: the adjoint of a convolution from `[h, w, out]`; weights
    /// `[in][kh][kw][out]`.
    Transposed {
        /// The window of the convolution whose adjoint this is.
        window: Window,
        /// Rows and columns of the output.
        side: [u16; 2],
        /// Output channels.
        out: usize,
        /// Whether a ReLU follows.
        relu: bool,
    },
    /// Batch normalisation with learned scale and shift, then a ReLU where asked.
    BatchNorm {
        /// Whether a ReLU follows.
        relu: bool,
    },
    /// `x * mul + add` a channel, then a ReLU where asked: a batch norm that no longer learns.
    Affine {
        /// Whether a ReLU follows.
        relu: bool,
    },
    /// Mean over each window.
    AvgPool {
        /// The sliding window.
        window: Window,
    },
    /// Largest value under each window.
    MaxPool {
        /// The sliding window.
        window: Window,
    },
    /// Sum with another activation, then a ReLU where asked; neither is a per-channel map's.
    Add {
        /// The other activation.
        other: usize,
        /// Whether a ReLU follows.
        relu: bool,
    },
    /// Fully connected over the flattened (NHWC) input: weights `[out][in]`, bias.
    Dense {
        /// Output values.
        out: usize,
        /// Whether a ReLU follows.
        relu: bool,
    },
}

/// One operation and the activation that it reads; 0 is the image, stage i makes activation i + 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The activation that is read.
    pub x: usize,
    /// What is done.
    pub op: Op,
}

impl Stage {
    /// Whether it reads activation `a`.
    pub(crate) fn reads(&self, a: usize) -> bool {
        self.x == a || self.op.second() == Some(a)
    }
}

/// The stages from an image to the last activation.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Extents of the image.
    pub input: Shape,
    /// In the order in which they run.
    pub stages: Vec<Stage>,
}

/// How fresh weights are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// `U(+-1 / sqrt(fan in))`.
    Uniform,
    /// Normal with variance `2 / fan out` (He et al., 2015).
    He,
    /// A constant.
    Ones,
    /// A constant.
    Zeros,
}

/// A parameter's name, extents and fans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in checkpoints.
    pub name: String,
    /// Its extents.
    pub dims: Vec<usize>,
    /// Inputs that feed one of its outputs.
    pub fan_in: usize,
    /// Outputs that one of its inputs feeds.
    pub fan_out: usize,
    /// How it starts.
    pub init: Init,
    /// Whether weight decay applies: weights, not biases nor batch norms.
    pub decays: bool,
}

impl Parameter {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Op {
    /// Whether it is a map that the next operation applies while it reads.
    pub fn is_map(&self) -> bool {
        matches!(self, Self::Normalise { .. } | Self::BatchNorm { .. } | Self::Affine { .. })
    }

    /// Whether a ReLU ends it.
    pub fn relu(&self) -> bool {
        match self {
            Self::Conv { relu, .. }
            | Self::Transposed { relu, .. }
            | Self::BatchNorm { relu }
            | Self::Affine { relu }
            | Self::Add { relu, .. }
            | Self::Dense { relu, .. } => *relu,
            _ => false,
        }
    }

    /// The second activation that it reads.
    pub fn second(&self) -> Option<usize> {
        match self {
            Self::Conv { residual, .. } => *residual,
            Self::Add { other, .. } => Some(*other),
            _ => None,
        }
    }

    /// The output's extents.
    fn output(&self, x: Shape) -> Result<Shape> {
        let channels = |out: usize| u16::try_from(out).context("more than 65535 channels");
        let slide = |window: &Window| window.output(x).with_context(|| format!("{window:?} does not fit {x:?}"));
        Ok(match self {
            Self::Normalise { .. } | Self::BatchNorm { .. } | Self::Affine { .. } | Self::Add { .. } => x,
            Self::Conv { window, groups, out, .. } => {
                let c = usize::from(x.c);
                ensure!(*groups > 0 && c % groups == 0 && out % groups == 0, "{groups} groups over {c} -> {out}");
                let [h, w] = slide(window)?;
                Shape::new(h, w, channels(*out)?)
            }
            Self::Transposed { window, side: [h, w], out, .. } => {
                let shape = Shape::new(*h, *w, channels(*out)?);
                ensure!(
                    window.output(shape) == Some([x.h, x.w]),
                    "{window:?} over {shape:?} does not give the {} x {} input of its adjoint",
                    x.h,
                    x.w
                );
                shape
            }
            Self::AvgPool { window } | Self::MaxPool { window } => {
                let [h, w] = slide(window)?;
                Shape::new(h, w, x.c)
            }
            Self::Dense { out, .. } => Shape::new(1, 1, channels(*out)?),
        })
    }
}

impl Graph {
    /// The extents of the image and of every stage's output.
    ///
    /// # Errors
    /// With the stage, if a window does not fit, or a stage reads what is not there or not stored.
    pub fn shapes(&self) -> Result<Vec<Shape>> {
        let mut shapes = vec![self.input];
        ensure!(!self.stages.is_empty(), "a network without stages");
        for (i, stage) in self.stages.iter().enumerate() {
            let x = *shapes.get(stage.x).with_context(|| format!("stage {i} reads activation {}", stage.x))?;
            let shape = stage.op.output(x).with_context(|| format!("stage {i}"))?;
            ensure!(!stage.op.is_map() || !self.is_map(stage.x), "stage {i}: a per-channel map of a per-channel map");
            if let Some(r) = stage.op.second() {
                ensure!(
                    shapes.get(r) == Some(&shape) && !self.is_map(r) && r > 0,
                    "stage {i}: the other summand's extents differ, or it is not stored"
                );
            }
            if let Op::Add { .. } = stage.op {
                ensure!(stage.x > 0 && !self.is_map(stage.x), "stage {i}: a summand is not stored");
            }
            if let Op::Normalise { mean, std } = &stage.op {
                let c = usize::from(x.c);
                ensure!(mean.len() == c && std.len() == c && stage.x == 0, "stage {i}: {} means for {c}", mean.len());
                ensure!(std.iter().all(|s| *s > 0.0), "stage {i}: a standard deviation is not positive");
            }
            shapes.push(shape);
        }
        ensure!(!self.stages[self.stages.len() - 1].op.is_map(), "the last stage is a per-channel map");
        Ok(shapes)
    }

    /// The stages that read activation `a`.
    pub fn readers(&self, a: usize) -> Vec<usize> {
        (0..self.stages.len()).filter(|&i| self.stages[i].reads(a)).collect()
    }

    /// Whether activation `i` is a per-channel map's, applied by its readers and never stored.
    pub fn is_map(&self, i: usize) -> bool {
        i > 0 && self.stages[i - 1].op.is_map()
    }

    /// Parameters of each stage in order: weight or scale, then bias or shift.
    ///
    /// # Errors
    /// As [`Graph::shapes`].
    pub fn parameters(&self, init: Init) -> Result<Vec<Vec<Parameter>>> {
        let shapes = self.shapes()?;
        let one = |name: String, dims: Vec<usize>, fans: [usize; 2], init: Init, decays: bool| Parameter {
            name,
            dims,
            fan_in: fans[0],
            fan_out: fans[1],
            init,
            decays,
        };
        let mut all = Vec::new();
        for (i, stage) in self.stages.iter().enumerate() {
            let (x, y) = (shapes[stage.x], shapes[i + 1]);
            let c = usize::from(x.c);
            let bias_init = if init == Init::Uniform { init } else { Init::Zeros };
            let linear = |kind: &str, dims: Vec<usize>, fans: [usize; 2], bias: Option<usize>| {
                let mut two = vec![one(format!("{kind}{i}.weight"), dims, fans, init, true)];
                two.extend(bias.map(|n| one(format!("{kind}{i}.bias"), vec![n], fans, bias_init, false)));
                two
            };
            all.push(match &stage.op {
                Op::Conv { window, groups, out, bias, .. } => {
                    let [kh, kw] = window.kernel.map(usize::from);
                    let fans = [kh * kw * c / groups, kh * kw * out / groups];
                    linear("conv", vec![*out, kh, kw, c / groups], fans, bias.then_some(*out))
                }
                Op::Transposed { window, out, .. } => {
                    let [kh, kw] = window.kernel.map(usize::from);
                    linear("transposed", vec![c, kh, kw, *out], [c, kh * kw * out], Some(*out))
                }
                Op::Dense { out, .. } => {
                    let width = x.len() as usize;
                    linear("dense", vec![*out, width], [width, *out], Some(*out))
                }
                Op::BatchNorm { .. } | Op::Affine { .. } => {
                    let c = usize::from(y.c);
                    let kind = if matches!(stage.op, Op::Affine { .. }) { "affine" } else { "norm" };
                    vec![
                        one(format!("{kind}{i}.scale"), vec![c], [1, 1], Init::Ones, false),
                        one(format!("{kind}{i}.shift"), vec![c], [1, 1], Init::Zeros, false),
                    ]
                }
                Op::Normalise { .. } | Op::AvgPool { .. } | Op::MaxPool { .. } | Op::Add { .. } => Vec::new(),
            });
        }
        Ok(all)
    }

    /// Multiply-accumulates of each stage for one image.
    ///
    /// ```
    /// use paradise_engine::Shape;
    /// use paradise_nn::graph::{Graph, Op, Stage};
    /// let dense = Stage { x: 0, op: Op::Dense { out: 10, relu: false } };
    /// let graph = Graph { input: Shape::new(1, 1, 64), stages: vec![dense] };
    /// assert_eq!(graph.macs()?, [640]);
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Graph::shapes`].
    pub fn macs(&self) -> Result<Vec<u64>> {
        let shapes = self.shapes()?;
        let pixels = |s: Shape| u64::from(s.h) * u64::from(s.w);
        Ok(self
            .stages
            .iter()
            .zip(&shapes[1..])
            .map(|(stage, y)| {
                let x = shapes[stage.x];
                match &stage.op {
                    Op::Conv { window, groups, out, .. } => {
                        let [kh, kw] = window.kernel.map(u64::from);
                        pixels(*y) * kh * kw * u64::from(x.c) / *groups as u64 * *out as u64
                    }
                    Op::Transposed { window, out, .. } => {
                        let [kh, kw] = window.kernel.map(u64::from);
                        pixels(x) * kh * kw * u64::from(x.c) * *out as u64
                    }
                    Op::Dense { out, .. } => x.len() * *out as u64,
                    _ => 0,
                }
            })
            .collect())
    }
}

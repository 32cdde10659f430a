//! Encoders: a chain of stages to features, two linear heads (mu and s), and the softmax classifier on mu.

pub mod small_conv;

use crate::ops::conv::conv;
use crate::random::{self, Purpose};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};
use paradise_engine::Shape;
use paradise_engine::layer::Window;

/// One step from image to features, with its own weights and bias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Convolution + ReLU: weights `[out, kh, kw, in]`.
    Conv {
        /// The sliding window.
        window: Window,
        /// Output channels.
        out: usize,
    },
    /// Fully connected layer over the flattened (NHWC) input + ReLU: weights `[out, in]`.
    Dense {
        /// Output values.
        out: usize,
    },
}

/// The shape of a network without its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Architecture {
    /// Input extents.
    pub input: Shape,
    /// Stages in order.
    pub stages: Vec<Stage>,
    /// Latent dimension d.
    pub latent: usize,
    /// Number of classes.
    pub classes: usize,
}

/// A parameter's name, extents and the number of inputs that feed one of its outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in checkpoints.
    pub name: String,
    /// Its extents.
    pub dims: Vec<usize>,
    /// For initialisation.
    pub fan_in: usize,
}

/// Weights before the stages' own: where the heads and the classifier start, counted from the end.
const TAIL: usize = 6;

impl Architecture {
    /// The shape of the image and of every stage's output.
    ///
    /// # Errors
    /// If a window does not fit.
    pub fn shapes(&self) -> Result<Vec<Shape>> {
        let mut shapes = vec![self.input];
        for (i, stage) in self.stages.iter().enumerate() {
            let x = shapes[i];
            let side = |out: usize| u16::try_from(out).context("more than 65535 channels");
            shapes.push(match stage {
                Stage::Conv { window, out } => {
                    let [h, w] = window.output(x).with_context(|| format!("stage {i}: {window:?} over {x:?}"))?;
                    Shape::new(h, w, side(*out)?)
                }
                Stage::Dense { out } => Shape::new(1, 1, side(*out)?),
            });
        }
        let last = shapes[shapes.len() - 1];
        ensure!(last.h == 1 && last.w == 1, "the features are {last:?}, not a vector");
        Ok(shapes)
    }

    /// All parameters in checkpoint order: each stage's weight and bias, then mu, s, classifier.
    ///
    /// # Errors
    /// If a window does not fit.
    pub fn parameters(&self) -> Result<Vec<Parameter>> {
        let shapes = self.shapes()?;
        let mut all = Vec::new();
        let mut push = |name: &str, dims: Vec<usize>| {
            let fan_in = dims[1..].iter().product();
            all.push(Parameter { name: format!("{name}.weight"), dims: dims.clone(), fan_in });
            all.push(Parameter { name: format!("{name}.bias"), dims: dims[..1].to_vec(), fan_in });
        };
        for (i, (stage, x)) in self.stages.iter().zip(&shapes).enumerate() {
            match stage {
                Stage::Conv { window, out } => {
                    let [kh, kw] = window.kernel.map(usize::from);
                    push(&format!("conv{i}"), vec![*out, kh, kw, x.c as usize]);
                }
                Stage::Dense { out } => push(&format!("dense{i}"), vec![*out, x.len() as usize]),
            }
        }
        let features = shapes[shapes.len() - 1].c as usize;
        push("mu", vec![self.latent, features]);
        push("s", vec![self.latent, features]);
        push("classifier", vec![self.classes, self.latent]);
        Ok(all)
    }
}

/// A network that learns: its architecture and variables.
#[derive(Debug, Clone)]
pub struct Network {
    /// Shape of the network.
    pub architecture: Architecture,
    /// Variables in the order of [`Architecture::parameters`].
    pub variables: Vec<Var>,
}

impl Network {
    /// Fresh weights and biases, `U(+-1/sqrt(fan_in))`, keyed by seed and parameter.
    ///
    /// # Errors
    /// If a window does not fit.
    pub fn new(architecture: Architecture, seed: u64) -> Result<Self> {
        let mut variables = Vec::new();
        for (i, p) in architecture.parameters()?.iter().enumerate() {
            let mut rng = random::stream(seed, Purpose::Init, 0, i as u64, 0);
            let bound = 1.0 / (p.fan_in as f32).sqrt();
            let n = p.dims.iter().product();
            let values: Vec<f32> = (0..n).map(|_| bound * (2.0 * random::uniform(&mut rng) - 1.0)).collect();
            variables.push(Var::from_vec(values, p.dims.as_slice(), &Device::Cpu)?);
        }
        Ok(Self { architecture, variables })
    }

    /// The network as it learns: gradients reach the variables.
    pub fn learning(&self) -> Encoder<'_> {
        let weights = self.variables.iter().map(|v| v.as_tensor().clone()).collect();
        Encoder { architecture: &self.architecture, weights }
    }

    /// The network as it is attacked or measured: no gradient reaches the variables.
    pub fn frozen(&self) -> Encoder<'_> {
        let weights = self.variables.iter().map(|v| v.as_detached_tensor()).collect();
        Encoder { architecture: &self.architecture, weights }
    }
}

/// A posterior before its nonlinearity: `sigma = sigmoid(s)`.
#[derive(Debug, Clone)]
pub struct Encoding {
    /// f32 `[n, d]`.
    pub mu: Tensor,
    /// f32 `[n, d]`.
    pub s: Tensor,
}

/// A network bound to tensors, ready to run.
#[derive(Debug, Clone)]
pub struct Encoder<'a> {
    /// Shape of the network.
    pub architecture: &'a Architecture,
    weights: Vec<Tensor>,
}

impl Encoder<'_> {
    /// Weight and bias of stage `i`; past the stages 0 is mu, 1 is s, 2 the classifier.
    pub fn pair(&self, i: usize) -> (&Tensor, &Tensor) {
        (&self.weights[2 * i], &self.weights[2 * i + 1])
    }

    fn tail(&self, k: usize) -> (&Tensor, &Tensor) {
        self.pair((self.weights.len() - TAIL) / 2 + k)
    }

    /// Weight and bias of the heads and the classifier: mu, s, classifier.
    pub fn heads(&self) -> [(&Tensor, &Tensor); 3] {
        [self.tail(0), self.tail(1), self.tail(2)]
    }

    /// The output of every stage for images f32 `[n, h, w, c]` in [0, 1].
    ///
    /// # Errors
    /// If the images have another shape.
    pub fn stages(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let mut outputs: Vec<Tensor> = Vec::new();
        for (i, stage) in self.architecture.stages.iter().enumerate() {
            let x = outputs.last().unwrap_or(images);
            let (weight, bias) = self.pair(i);
            outputs.push(match stage {
                Stage::Conv { window, .. } => conv(x, weight, bias, *window, true)?,
                Stage::Dense { .. } => linear(&x.flatten_from(1)?, weight, bias)?.relu()?,
            });
        }
        Ok(outputs)
    }

    /// mu and s for images f32 `[n, h, w, c]` in [0, 1].
    ///
    /// # Errors
    /// If the images have another shape.
    pub fn encode(&self, images: &Tensor) -> Result<Encoding> {
        let stages = self.stages(images)?;
        let features = stages.last().unwrap_or(images).flatten_from(1)?;
        let head = |(w, b): (&Tensor, &Tensor)| linear(&features, w, b);
        Ok(Encoding { mu: head(self.tail(0))?, s: head(self.tail(1))? })
    }

    /// Logits f32 `[n, classes]` of latents `[n, d]`.
    ///
    /// # Errors
    /// If the latents have another dimension.
    pub fn classify(&self, z: &Tensor) -> Result<Tensor> {
        let (w, b) = self.tail(2);
        linear(z, w, b)
    }

    /// Logits of images, the classifier fed mu: what is served and attacked.
    ///
    /// # Errors
    /// If the images have another shape.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.classify(&self.encode(images)?.mu)
    }
}

/// The numbers of a tensor, in index order.
pub(crate) fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
}

fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    Ok(x.matmul(&weight.t()?)?.broadcast_add(bias)?)
}

//! Builds `model.pmq` layer by layer: constants into the blob, activations into a planned arena.

use crate::confidence::written::Confidence;
use anyhow::{Context, Result, ensure};
use paradise_engine::arena::{Block, place};
use paradise_engine::artifact;
use paradise_engine::container::Blob;
use paradise_engine::header::{Classifier, Draft, MAX_NAME, Typicality};
use paradise_engine::image::ImagePolicy;
use paradise_engine::layer::{Activation, Head, Layer, Op, Window};
use paradise_engine::tensor::Span;
use paradise_engine::{Model, Shape};

/// Scale and zero point of an activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantisation {
    /// Real value of one step.
    pub scale: f32,
    /// The int8 that stands for 0.
    pub zero_point: i8,
}

/// What the sum over an average pool's window is multiplied by.
pub(super) fn pool_scale(x: Quantisation, y: Quantisation, window: &Window) -> f32 {
    let area = f32::from(window.kernel[0]) * f32::from(window.kernel[1]);
    x.scale / (y.scale * area)
}

/// The integers of a linear map, one row an output.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// i8 `[rows][width]`.
    pub weight: Vec<i8>,
    /// i32 `[rows]`, the input's zero point folded in.
    pub bias: Vec<i32>,
    /// f32 `[rows]`: what an accumulator is multiplied by.
    pub scale: Vec<f32>,
}

/// Name, labels and image policy of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// Name of the bundle.
    pub name: String,
    /// Class names.
    pub labels: Vec<String>,
    /// How pictures become inputs.
    pub policy: ImagePolicy,
    /// SHA-256 of what a card says of how the model was made.
    pub made: Option<[u8; 32]>,
}

/// A model under construction. Activation 0 is the image; each layer adds the next.
#[derive(Debug, Clone)]
pub struct Assembly {
    blob: Blob,
    layers: Vec<Layer>,
    activations: Vec<Activation>,
    mu: Head,
    sigma: Head,
    latent: usize,
    classes: usize,
    classifier: Classifier,
}

const NO_HEAD: Head = Head {
    weight: paradise_engine::tensor::Span { offset: 0, len: 0 },
    bias: paradise_engine::tensor::Span { offset: 0, len: 0 },
    scale: paradise_engine::tensor::Span { offset: 0, len: 0 },
};

impl Assembly {
    /// A model over images of this shape.
    pub fn new(input: Shape) -> Self {
        let image = Activation { shape: input, scale: 1.0 / 255.0, zero_point: -128, offset: 0 };
        Self {
            blob: Blob::default(),
            layers: Vec::new(),
            activations: vec![image],
            mu: NO_HEAD,
            sigma: NO_HEAD,
            latent: 0,
            classes: 0,
            classifier: Classifier { weight: NO_HEAD.weight, bias: NO_HEAD.bias },
        }
    }

    /// The encoder, heads and classifier of a finished model, ready for another confidence: its tensors byte for byte.
    pub fn of(model: &Model) -> Self {
        let (header, tensors) = (model.header(), model.tensors());
        let mut this = Self::new(header.input);
        let mut blob = Blob::default();
        let mut copy = |span: Span| blob.bytes(tensors.bytes(span));
        for layer in header.layers.iter() {
            let op = match layer.op {
                Op::Conv { window, groups, weight, bias, scale, relu } => {
                    let (weight, bias, scale) = (copy(weight), copy(bias), copy(scale));
                    Op::Conv { window, groups, weight, bias, scale, relu }
                }
                Op::Dense { weight, bias, scale, relu } => {
                    Op::Dense { weight: copy(weight), bias: copy(bias), scale: copy(scale), relu }
                }
                Op::Affine { mul, add, relu } => Op::Affine { mul: copy(mul), add: copy(add), relu },
                other @ (Op::Add { .. } | Op::AvgPool { .. } | Op::MaxPool { .. }) => other,
            };
            this.layers.push(Layer { op, inputs: layer.inputs });
        }
        this.activations = header.activations.iter().collect();
        let mut head =
            |head: Head| Head { weight: copy(head.weight), bias: copy(head.bias), scale: copy(head.scale) };
        (this.mu, this.sigma) = (head(header.mu), head(header.sigma));
        let Classifier { weight, bias } = header.classifier;
        this.classifier = Classifier { weight: copy(weight), bias: copy(bias) };
        (this.latent, this.classes, this.blob) = (header.latent.into(), header.classes.into(), blob);
        this
    }

    /// Scale and zero point of activation `i`.
    pub fn quantisation(&self, i: usize) -> Quantisation {
        Quantisation { scale: self.activations[i].scale, zero_point: self.activations[i].zero_point }
    }

    /// Latent dimension; 0 before [`Assembly::heads`].
    pub fn latent(&self) -> usize {
        self.latent
    }

    /// Shape of activation `i`.
    pub fn shape(&self, i: usize) -> Shape {
        self.activations[i].shape
    }

    fn push(&mut self, op: Op, inputs: [usize; 2], shape: Shape, y: Quantisation) -> usize {
        self.layers.push(Layer { op, inputs: inputs.map(|i| i as u16) });
        self.activations.push(Activation { shape, scale: y.scale, zero_point: y.zero_point, offset: 0 });
        self.activations.len() - 1
    }

    /// Appends a convolution of activation `x`: weights `[out][kh][kw][in / groups]`. Returns its activation.
    #[allow(clippy::too_many_arguments)]
    pub fn conv(
        &mut self,
        x: usize,
        window: Window,
        groups: u16,
        rows: &Linear,
        relu: bool,
        shape: Shape,
        y: Quantisation,
    ) -> usize {
        let weight = self.blob.i8s(&rows.weight);
        let (bias, scale) = (self.blob.i32s(&rows.bias), self.blob.f32s(&rows.scale));
        self.push(Op::Conv { window, groups, weight, bias, scale, relu }, [x, x], shape, y)
    }

    /// Appends a dense layer over activation `x`.
    pub fn dense(&mut self, x: usize, rows: &Linear, relu: bool, y: Quantisation) -> usize {
        let weight = self.blob.i8s(&rows.weight);
        let (bias, scale) = (self.blob.i32s(&rows.bias), self.blob.f32s(&rows.scale));
        let shape = Shape::new(1, 1, rows.bias.len() as u16);
        self.push(Op::Dense { weight, bias, scale, relu }, [x, x], shape, y)
    }

    /// Appends a per-channel affine map of activation `x`.
    pub fn affine(&mut self, x: usize, mul: &[f32], add: &[f32], relu: bool, y: Quantisation) -> usize {
        let (mul, add) = (self.blob.f32s(mul), self.blob.f32s(add));
        self.push(Op::Affine { mul, add, relu }, [x, x], self.shape(x), y)
    }

    /// Appends the sum of activations `a` and `b`.
    pub fn add(&mut self, a: usize, b: usize, relu: bool, y: Quantisation) -> usize {
        let ratio = [a, b].map(|i| self.activations[i].scale / y.scale);
        self.push(Op::Add { ratio, relu }, [a, b], self.shape(a), y)
    }

    /// Appends an average pool of activation `x`.
    pub fn avg_pool(&mut self, x: usize, window: Window, shape: Shape, y: Quantisation) -> usize {
        let scale = pool_scale(self.quantisation(x), y, &window);
        self.push(Op::AvgPool { window, scale }, [x, x], shape, y)
    }

    /// Appends a max pool of activation `x`.
    pub fn max_pool(&mut self, x: usize, window: Window, shape: Shape) -> usize {
        self.push(Op::MaxPool { window }, [x, x], shape, self.quantisation(x))
    }

    /// Sets the heads over the last activation.
    pub fn heads(&mut self, mu: &Linear, sigma: &Linear) {
        self.latent = mu.bias.len();
        let [mu, sigma] = [mu, sigma].map(|rows| Head {
            weight: self.blob.i8s(&rows.weight),
            bias: self.blob.i32s(&rows.bias),
            scale: self.blob.f32s(&rows.scale),
        });
        (self.mu, self.sigma) = (mu, sigma);
    }

    /// Sets the classifier: weights `[classes][d]`.
    pub fn classifier(&mut self, weight: &[f32], bias: &[f32]) {
        self.classes = bias.len();
        self.classifier = Classifier { weight: self.blob.f32s(weight), bias: self.blob.f32s(bias) };
    }

    /// Last layer that reads each activation; the features live on for the heads.
    fn last_reads(&self) -> Vec<usize> {
        let mut last: Vec<usize> = (0..self.activations.len()).collect();
        for (i, layer) in self.layers.iter().enumerate() {
            for &read in layer.reads() {
                last[read as usize] = last[read as usize].max(i + 1);
            }
        }
        if let Some(features) = last.last_mut() {
            *features = usize::MAX;
        }
        last
    }

    /// Gives each activation its place and returns the arena's size: with sums in an operand's place where that makes it
    /// smaller.
    fn plan(&mut self) -> Result<u32> {
        let (apart, in_place) = (self.places(false)?, self.places(true)?);
        let (offsets, end) = if in_place.1 < apart.1 { in_place } else { apart };
        self.activations.iter_mut().zip(offsets).for_each(|(a, offset)| a.offset = offset);
        Ok(end)
    }

    /// Which activation's place each one takes: its own, or that of an operand of the sum that it is, if nobody reads the
    /// operand afterwards.
    fn owners(&self, last: &[usize]) -> Vec<usize> {
        let mut owners: Vec<usize> = (0..self.activations.len()).collect();
        for (i, layer) in self.layers.iter().enumerate() {
            let dies = |&&input: &&u16| last[input as usize] == i + 1;
            if let (Op::Add { .. }, [a, b]) = (&layer.op, layer.reads())
                && a != b
                && let Some(input) = [b, a].into_iter().find(dies)
            {
                owners[i + 1] = owners[*input as usize];
            }
        }
        owners
    }

    /// Offsets of all activations, largest first at the lowest free one, and the end of the last.
    ///
    /// Activation i lives from step i (when layer i - 1 writes it) to its last read; two that live at the same step
    /// do not overlap.
    fn places(&self, in_place: bool) -> Result<(Vec<u32>, u32)> {
        const ALIGN: usize = 16;
        let last = self.last_reads();
        let n = self.activations.len();
        let owners = if in_place { self.owners(&last) } else { (0..n).collect() };
        // Sharers of a place live one after the other: as one.
        let mut ends = last.clone();
        for i in 0..n {
            ends[owners[i]] = ends[owners[i]].max(last[i]);
        }
        let own: Vec<usize> = (0..n).filter(|&i| owners[i] == i).collect();
        let block =
            |i: &usize| Ok(Block { len: usize::try_from(self.activations[*i].shape.len())?, life: [*i, ends[*i]] });
        let blocks = own.iter().map(block).collect::<Result<Vec<_>>>()?;
        let (places, end) = place(&blocks, ALIGN, u32::MAX as usize).context("the arena passes 4 GiB")?;
        let mut offsets = vec![0u32; n];
        own.iter().zip(places).for_each(|(i, at)| offsets[*i] = at as u32);
        let end = end as u32;
        Ok((owners.iter().map(|&owner| offsets[owner]).collect(), end))
    }

    /// The bytes of `model.pmq`, checked by the engine's own parser.
    ///
    /// # Errors
    /// If a limit of the format is passed or the model is not valid.
    pub fn finish(&self, identity: &Identity, confidence: &Confidence) -> Result<Vec<u8>> {
        let mut this = self.clone();
        let arena_bytes = this.plan()?;
        let blob = &mut this.blob;
        let mixture = confidence.mixture.write(blob)?;
        let typicality = Typicality {
            posterior: confidence.posterior.write(blob)?,
            picture: confidence.picture.write(blob)?,
            spread: confidence.spread.as_ref().map(|spread| spread.write(blob)).transpose()?,
        };
        let calibrations = confidence.calibration.write(blob);
        ensure!(identity.name.len() <= MAX_NAME, "a model's name has at most {MAX_NAME} bytes: {:?}", identity.name);
        let labels = identity.labels.join("\n");
        let draft = Draft {
            name: &identity.name,
            input: this.activations[0].shape,
            policy: identity.policy,
            layers: &this.layers,
            activations: &this.activations,
            arena_bytes,
            latent: u16::try_from(this.latent)?,
            mu: this.mu,
            sigma: this.sigma,
            classes: u16::try_from(this.classes)?,
            labels: &labels,
            classifier: this.classifier,
            mixture,
            typicality,
            calibrations,
            thresholds: confidence.thresholds,
            made: identity.made,
        };
        let bytes = artifact::emit(&draft, blob);
        Model::parse(&bytes).context("the exported model is not valid")?;
        Ok(bytes)
    }
}

//! What a model file says about its model: everything but the numbers. Read in place: a header borrows its tables.

use crate::decision::Thresholds;
use crate::image::ImagePolicy;
use crate::layer::{Activation, Head, Layer, Op, Window};
use crate::record::{Fields, Record, Records, Writer};
use crate::tensor::{Shape, Span};

/// Largest arena a model may declare, bytes.
pub const MAX_ARENA: u32 = 256 << 20;
/// Largest latent dimension d.
pub const MAX_LATENT: u16 = 4096;
/// Most classes.
pub const MAX_CLASSES: u16 = 4096;
/// Most stored calibration values per table.
pub const MAX_TABLE: usize = 1024;

/// The softmax classifier on mu: f32 weights `[classes][d]`, bias `[classes]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classifier {
    /// f32 weights.
    pub weight: Span,
    /// f32 biases.
    pub bias: Span,
}

/// The aggregate posterior `q(z) = sum_c pi_c N(m_c, diag s_c^2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixture {
    /// Number of components.
    pub components: u16,
    /// f32 `[components]`: log pi.
    pub log_weight: Span,
    /// f32 `[components][d]`: m.
    pub mean: Span,
    /// f32 `[components][d]`: log s.
    pub log_std: Span,
    /// f32 `[components][d]`: 1 / (2 s^2).
    pub half_precision: Span,
}

/// Sorted calibration values: all of them up to [`MAX_TABLE`], else that many exact order statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Calibration images behind the table.
    pub n: u32,
    /// f32 values, ascending.
    pub values: Span,
    /// u32 zero-based rank of each value among all n; the first is 0 and the last n - 1.
    pub ranks: Span,
}

/// How large a model is, and its maps from features to logits: section `HEAD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Bytes of the arena, planned at export.
    pub arena_bytes: u32,
    /// Latent dimension d.
    pub latent: u16,
    /// Number of classes.
    pub classes: u16,
    /// Head for mu.
    pub mu: Head,
    /// Head for s, with sigma = sigmoid(s).
    pub sigma: Head,
    /// Logits from mu.
    pub classifier: Classifier,
}

/// What calibration images taught: section `CONF`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence {
    /// What the rate is measured against.
    pub mixture: Mixture,
    /// Calibration rates, nats.
    pub rate_table: Table,
    /// Calibration posterior entropies, nats.
    pub entropy_table: Table,
    /// When to abstain.
    pub thresholds: Thresholds,
}

/// Input extents and how pictures become inputs: section `INPT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Height, width and channels (1: luma, 3: RGB).
    pub shape: Shape,
    /// How any picture becomes an input.
    pub policy: ImagePolicy,
}

/// Everything about a model but its numbers; `L` and `A` are tables of layers and activations, slices where a model is
/// being written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Header<'a, L = Records<'a, Layer>, A = Records<'a, Activation>> {
    /// Name of the bundle, at most [`MAX_NAME`] bytes.
    pub name: &'a str,
    /// Input height, width and channels (1: luma, 3: RGB).
    pub input: Shape,
    /// How any picture becomes an input.
    pub policy: ImagePolicy,
    /// The encoder, in execution order.
    pub layers: L,
    /// Activation 0 is the image, activation i + 1 the output of layer i.
    pub activations: A,
    /// Bytes of the arena, planned at export.
    pub arena_bytes: u32,
    /// Latent dimension d.
    pub latent: u16,
    /// Head for mu.
    pub mu: Head,
    /// Head for s, with sigma = sigmoid(s).
    pub sigma: Head,
    /// Number of classes.
    pub classes: u16,
    /// Class names, one a line.
    pub labels: &'a str,
    /// Logits from mu.
    pub classifier: Classifier,
    /// What the rate is measured against.
    pub mixture: Mixture,
    /// Calibration rates, nats.
    pub rate_table: Table,
    /// Calibration posterior entropies, nats.
    pub entropy_table: Table,
    /// When to abstain.
    pub thresholds: Thresholds,
    /// SHA-256 of what the maker says of how the model was made; nothing in an inference depends on it.
    pub made: Option<[u8; 32]>,
}

/// A header whose layers and activations are still in memory of their own.
pub type Draft<'a> = Header<'a, &'a [Layer], &'a [Activation]>;

/// Most bytes of a model's name.
pub const MAX_NAME: usize = 64;

impl Header<'_> {
    /// Steps of layer `index`: multiply-accumulates of a linear map, summands or comparisons of the others. Saturates;
    /// counted from shapes, which only validation has checked.
    pub fn work(&self, index: usize) -> u64 {
        let layer = self.layers.at(index);
        let x = self.activations.at(layer.inputs[0].into()).shape;
        let area = |window: &Window| u64::from(window.kernel[0]) * u64::from(window.kernel[1]);
        let each = match &layer.op {
            Op::Conv { window, groups, .. } => area(window).saturating_mul(u64::from(x.c / groups)),
            Op::Dense { .. } => x.len(),
            Op::AvgPool { window, .. } | Op::MaxPool { window } => area(window),
            Op::Affine { .. } | Op::Add { .. } => 1,
        };
        self.activations.at(index + 1).shape.len().saturating_mul(each)
    }

    /// Steps of all layers.
    pub fn total_work(&self) -> u64 {
        (0..self.layers.len()).map(|i| self.work(i)).fold(0, u64::saturating_add)
    }

    /// Multiply-accumulates of layer `index`: 0 for what is no linear map.
    pub fn macs(&self, index: usize) -> u64 {
        let is_map = matches!(self.layers.at(index).op, Op::Conv { .. } | Op::Dense { .. });
        if is_map { self.work(index) } else { 0 }
    }

    /// Multiply-accumulates of the heads.
    pub fn head_macs(&self) -> u64 {
        2 * u64::from(self.latent) * self.activations.last().map_or(0, |a| a.shape.len())
    }

    /// Multiply-accumulates of one inference.
    pub fn total_macs(&self) -> u64 {
        (0..self.layers.len()).map(|i| self.macs(i)).fold(self.head_macs(), u64::saturating_add)
    }
}

impl Record for Classifier {
    const SIZE: usize = 16;

    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self { weight: fields.record()?, bias: fields.record()? })
    }

    fn write(&self, to: &mut Writer) {
        to.record(&self.weight).record(&self.bias);
    }
}

/// f32 values of an inference: mu, s, log sigma, sigma; logits, probabilities.
pub(crate) const fn float_len(latent: usize, classes: usize) -> usize {
    4 * latent + 2 * classes
}

impl Record for Heads {
    const SIZE: usize = 8 + 2 * Head::SIZE + Classifier::SIZE;

    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            arena_bytes: fields.u32()?,
            latent: fields.u16()?,
            classes: fields.u16()?,
            mu: fields.record()?,
            sigma: fields.record()?,
            classifier: fields.record()?,
        })
    }

    fn write(&self, to: &mut Writer) {
        to.u32(self.arena_bytes).u16(self.latent).u16(self.classes);
        to.record(&self.mu).record(&self.sigma).record(&self.classifier);
    }
}

impl Record for Mixture {
    const SIZE: usize = 36;

    fn read(fields: &mut Fields) -> Option<Self> {
        let components = fields.u16()?;
        fields.zeros::<2>()?;
        Some(Self {
            components,
            log_weight: fields.record()?,
            mean: fields.record()?,
            log_std: fields.record()?,
            half_precision: fields.record()?,
        })
    }

    fn write(&self, to: &mut Writer) {
        to.u16(self.components).u16(0).record(&self.log_weight);
        to.record(&self.mean).record(&self.log_std).record(&self.half_precision);
    }
}

impl Record for Table {
    const SIZE: usize = 20;

    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self { n: fields.u32()?, values: fields.record()?, ranks: fields.record()? })
    }

    fn write(&self, to: &mut Writer) {
        to.u32(self.n).record(&self.values).record(&self.ranks);
    }
}

impl Record for Confidence {
    const SIZE: usize = Mixture::SIZE + 2 * Table::SIZE + Thresholds::SIZE;

    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            mixture: fields.record()?,
            rate_table: fields.record()?,
            entropy_table: fields.record()?,
            thresholds: fields.record()?,
        })
    }

    fn write(&self, to: &mut Writer) {
        to.record(&self.mixture).record(&self.rate_table).record(&self.entropy_table).record(&self.thresholds);
    }
}

impl Record for Input {
    const SIZE: usize = Shape::SIZE + ImagePolicy::SIZE;

    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self { shape: fields.record()?, policy: fields.record()? })
    }

    fn write(&self, to: &mut Writer) {
        to.record(&self.shape).record(&self.policy);
    }
}

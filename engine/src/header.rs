//! What a model file says about its model: everything but the numbers. Read in place: a header borrows its tables.

use crate::decision::Thresholds;
use crate::image::ImagePolicy;
use crate::layer::{Activation, Head, Layer, Op, Window};
use crate::record::{Fields, Record, Records, Writer};
use crate::tensor::{Shape, Span};
use crate::whitening::Whitening;

/// Largest arena a model may declare, bytes.
pub const MAX_ARENA: u32 = 256 << 20;
/// Largest latent dimension d.
pub const MAX_LATENT: u16 = 4096;
/// Most classes.
pub const MAX_CLASSES: u16 = 4096;
/// Most stored calibration values per table.
pub const MAX_TABLE: usize = 256;

/// The softmax classifier on mu: f32 weights `[classes][d]`, bias `[classes]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classifier {
    /// f32 weights.
    pub weight: Span,
    /// f32 biases.
    pub bias: Span,
}

/// The aggregate posterior `q(z) = sum_c pi_c N(m_c, S_c)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixture {
    /// Number of components.
    pub components: u16,
    /// f32 `[components]`: log pi.
    pub log_weight: Span,
    /// f32 `[components][d]`: m; where one covariance is shared `[d][components]`, less the centre and whitened.
    pub mean: Span,
    /// S.
    pub covariance: Covariance,
}

/// The covariances of a mixture's components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covariance {
    /// Each component has a diagonal one.
    Diagonal {
        /// f32 `[components][d]`: log s.
        log_std: Span,
        /// f32 `[components][d]`: 1 / (2 s^2).
        half_precision: Span,
    },
    /// All components have the same full one.
    Shared {
        /// f32 `[d]`: what is subtracted before mu is whitened.
        centre: Span,
        /// f32, [packed](crate::whitening::packed_len): the inverse of S's Cholesky factor.
        triangle: Span,
        /// f32 `[d]`: half of the diagonal of S's inverse.
        half_precision: Span,
        /// f32 `[1]`: `(log det S - d) / 2`.
        half_log_det: Span,
    },
    /// Each component has a full one.
    PerClass {
        /// f32 `[components]` triangles, as of a shared one.
        triangle: Span,
        /// f32 `[components][d]`.
        half_precision: Span,
        /// f32 `[components]`.
        half_log_det: Span,
    },
}

impl Covariance {
    /// What it is, in cards and reports: `diagonal`, `shared` or `per class`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Diagonal { .. } => "diagonal",
            Self::Shared { .. } => "shared",
            Self::PerClass { .. } => "per class",
        }
    }
}

/// Gaussians that say how far a posterior or a picture is from the training images': section `WHIT`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Typicality {
    /// Of `(log sigma, mu)`, a mean a class.
    pub posterior: Whitening,
    /// Of the input's [appearance](crate::appearance), one mean.
    pub picture: Whitening,
    /// Of `log sigma`; none where `posterior` is a triangle, whose leading block serves.
    pub spread: Option<Whitening>,
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

/// What the rate is measured against, and when to abstain: section `CONF`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence {
    /// What the rate is measured against.
    pub mixture: Mixture,
    /// When to abstain.
    pub thresholds: Thresholds,
}

/// What calibration images were: section `CALB`, a table each in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calibrations {
    /// Rates, nats.
    pub rate: Table,
    /// Posterior entropies, nats.
    pub entropy: Table,
    /// Squared distances of posteriors.
    pub posterior: Table,
    /// Squared distances of spreads.
    pub spread: Table,
    /// Squared distances of pictures.
    pub picture: Table,
    /// Predictive entropies, nats.
    pub predictive: Table,
    /// Of picture, posterior and class together: [`surprise`](crate::PValues::surprise).
    pub combined: Table,
}

/// Tables of [`Calibrations`].
pub const TABLES: usize = 7;

impl Calibrations {
    /// Tables in the order of their section.
    pub const fn new(tables: [Table; TABLES]) -> Self {
        let [rate, entropy, posterior, spread, picture, predictive, combined] = tables;
        Self { rate, entropy, posterior, spread, picture, predictive, combined }
    }

    /// All tables in the order of their section.
    pub fn all(&self) -> [Table; TABLES] {
        [self.rate, self.entropy, self.posterior, self.spread, self.picture, self.predictive, self.combined]
    }
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
    /// What posteriors and pictures are compared with.
    pub typicality: Typicality,
    /// What their distances, rates and entropies are compared with.
    pub calibrations: Calibrations,
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

impl Classifier {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        Self { weight: Span::read(fields), bias: Span::read(fields) }
    }
}

impl Record for Classifier {
    const SIZE: usize = 16;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        to.record(&self.weight).record(&self.bias);
    }
}

/// f32 values of an inference: mu, s, log sigma, sigma; logits, probabilities; scratch.
pub(crate) const fn float_len(latent: usize, classes: usize) -> usize {
    4 * latent + 2 * classes + scratch_len(latent)
}

/// f32 values of scratch memory that an answer's assessment needs: a posterior of twice the latent dimension, and it whitened.
pub const fn scratch_len(latent: usize) -> usize {
    4 * latent
}

impl Heads {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        Self {
            arena_bytes: fields.u32(),
            latent: fields.u16(),
            classes: fields.u16(),
            mu: Head::read(fields),
            sigma: Head::read(fields),
            classifier: Classifier::read(fields),
        }
    }
}

impl Record for Heads {
    const SIZE: usize = 8 + 2 * Head::SIZE + Classifier::SIZE;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        to.u32(self.arena_bytes).u16(self.latent).u16(self.classes);
        to.record(&self.mu).record(&self.sigma).record(&self.classifier);
    }
}

impl Mixture {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        let (components, kind) = (fields.u16(), fields.u8());
        fields.zeros::<1>();
        let (log_weight, mean) = (Span::read(fields), Span::read(fields));
        let (centre, triangle) = (Span::read(fields), Span::read(fields));
        let (log, half_precision) = (Span::read(fields), Span::read(fields));
        let covariance = match kind {
            0 if centre.is_none() && triangle.is_none() => Covariance::Diagonal { log_std: log, half_precision },
            2 if centre.is_none() => Covariance::PerClass { triangle, half_precision, half_log_det: log },
            _ => {
                fields.require(kind == 1);
                Covariance::Shared { centre, triangle, half_precision, half_log_det: log }
            }
        };
        Self { components, log_weight, mean, covariance }
    }
}

impl Record for Mixture {
    const SIZE: usize = 52;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        let none = Span::default();
        let (kind, spans) = match self.covariance {
            Covariance::Diagonal { log_std, half_precision } => (0, [none, none, log_std, half_precision]),
            Covariance::Shared { centre, triangle, half_precision, half_log_det } => {
                (1, [centre, triangle, half_log_det, half_precision])
            }
            Covariance::PerClass { triangle, half_precision, half_log_det } => {
                (2, [none, triangle, half_log_det, half_precision])
            }
        };
        to.u16(self.components).u8(kind).u8(0).record(&self.log_weight).record(&self.mean);
        spans.iter().for_each(|span| {
            to.record(span);
        });
    }
}

impl Table {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        Self { n: fields.u32(), values: Span::read(fields), ranks: Span::read(fields) }
    }
}

impl Record for Table {
    const SIZE: usize = 20;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        to.u32(self.n).record(&self.values).record(&self.ranks);
    }
}

impl Confidence {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        Self { mixture: Mixture::read(fields), thresholds: Thresholds::read(fields) }
    }
}

impl Record for Confidence {
    const SIZE: usize = Mixture::SIZE + Thresholds::SIZE;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        to.record(&self.mixture).record(&self.thresholds);
    }
}

impl Input {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        Self { shape: Shape::read(fields), policy: ImagePolicy::read(fields) }
    }
}

impl Record for Input {
    const SIZE: usize = Shape::SIZE + ImagePolicy::SIZE;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        to.record(&self.shape).record(&self.policy);
    }
}

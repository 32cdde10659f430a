//! What a model file says about its model: everything but the numbers.

use crate::decision::Thresholds;
use crate::image::ImagePolicy;
use crate::layer::{Activation, Head, Layer, MAX_LAYERS, Op, Window};
use crate::tensor::{Shape, Span};
use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

/// Largest arena a model may declare, bytes.
pub const MAX_ARENA: u32 = 256 << 20;
/// Largest latent dimension d.
pub const MAX_LATENT: u16 = 4096;
/// Most classes.
pub const MAX_CLASSES: u16 = 4096;
/// Most stored calibration values per table.
pub const MAX_TABLE: usize = 1024;

/// The softmax classifier on mu: f32 weights `[classes][d]`, bias `[classes]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classifier {
    /// f32 weights.
    pub weight: Span,
    /// f32 biases.
    pub bias: Span,
}

/// The aggregate posterior `q(z) = sum_c pi_c N(m_c, diag s_c^2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Calibration images behind the table.
    pub n: u32,
    /// f32 values, ascending.
    pub values: Span,
    /// u32 zero-based rank of each value among all n; the first is 0 and the last n - 1.
    pub ranks: Span,
}

/// Everything about a model but its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Name of the bundle.
    pub name: String<64>,
    /// Input height, width and channels (1: luma, 3: RGB).
    pub input: Shape,
    /// How any picture becomes an input.
    pub policy: ImagePolicy,
    /// The encoder, in execution order.
    pub layers: Vec<Layer, MAX_LAYERS>,
    /// Activation 0 is the image, activation i + 1 the output of layer i.
    pub activations: Vec<Activation, { MAX_LAYERS + 1 }>,
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
    /// Class names, UTF-8, one a line.
    pub labels: Span,
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
}

impl Header {
    /// Steps of layer `index`: multiply-accumulates of a linear map, summands or comparisons of the others. Saturates;
    /// counted from shapes, which only validation has checked.
    pub fn work(&self, index: usize) -> u64 {
        let layer = &self.layers[index];
        let x = self.activations[layer.inputs[0] as usize].shape;
        let area = |window: &Window| u64::from(window.kernel[0]) * u64::from(window.kernel[1]);
        let each = match &layer.op {
            Op::Conv { window, groups, .. } => area(window).saturating_mul(u64::from(x.c / groups)),
            Op::Dense { .. } => x.len(),
            Op::AvgPool { window, .. } | Op::MaxPool { window } => area(window),
            Op::Affine { .. } | Op::Add { .. } => 1,
        };
        self.activations[index + 1].shape.len().saturating_mul(each)
    }

    /// Steps of all layers.
    pub fn total_work(&self) -> u64 {
        (0..self.layers.len()).map(|i| self.work(i)).fold(0, u64::saturating_add)
    }

    /// Multiply-accumulates of layer `index`: 0 for what is no linear map.
    pub fn macs(&self, index: usize) -> u64 {
        if matches!(self.layers[index].op, Op::Conv { .. } | Op::Dense { .. }) { self.work(index) } else { 0 }
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

//! How exactly convolutions compute.

use serde::{Deserialize, Serialize};

/// The `fit.precision` key: how convolutions compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// f32 products and sums.
    F32,
    /// f32 values, products of TF32; on a CPU f32.
    Tf32,
    /// Activations and products in bf16; sums, statistics and weights in f32. On a CPU with AMX products in bf16, on any
    /// other f32.
    Bf16,
}

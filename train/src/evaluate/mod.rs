//! Evaluations: accuracy, clean and robust, always as the per-image worst case over all attacks run; the checks that
//! tell robustness from masked gradients; what confidence is worth.

pub mod confidence;
pub mod latent;
pub mod masking;
pub mod plan;
pub mod points;
pub mod radius;
pub mod robust;
pub mod work;

//! The `no_std` core of paradise: what a bundle means, and what every device answers, bit for bit.
//!
//! ```text
//! bytes --container/artifact--> Model            (validated once, borrowed, never copied)
//! image --image-------------->  u8 tensor        (HWC, the bundle's policy)
//!       --encoder/kernel----->  int8 activations (caller-owned arena)
//!       --heads/posterior---->  mu, log sigma
//!       --classifier--------->  logits, probabilities, predictive entropy
//!       --information-------->  rate, posterior entropy
//!       --typicality--------->  distances of posterior, spread and picture
//!       --calibration-------->  conformal p-values
//!       --decision----------->  accept, or abstain and why
//! ```
//!
//! Inference allocates nothing: [`Workspace`] borrows the caller's memory, whose size the model states.
//! Every formula of the project stands here once; `train` mirrors some for automatic differentiation and a test
//! binds the mirror to this crate.
#![no_std]
#![deny(missing_docs)]
#![deny(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod appearance;
#[cfg(feature = "alloc")]
pub mod arena;
pub mod artifact;
pub mod calibration;
pub mod classifier;
pub mod container;
pub mod decision;
pub mod encoder;
pub mod error;
pub mod float;
pub mod golden;
pub mod header;
pub mod image;
pub mod inference;
pub mod information;
pub mod kernel;
pub mod layer;
pub mod lowered;
pub mod part;
#[cfg(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod plan;
pub mod posterior;
#[cfg(feature = "alloc")]
pub mod predictor;
pub mod prepared;
pub mod record;
pub mod requant;
pub mod selftest;
mod sizes;
#[cfg(feature = "std")]
mod slices;
pub mod steady;
pub mod tensor;
#[cfg(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tiled;
#[cfg(not(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[path = "untiled.rs"]
mod tiled;
pub mod typicality;
mod validate;
pub mod watch;
pub mod whitening;

pub use artifact::Model;
pub use decision::{Decision, PValues, Reason, Thresholds};
pub use error::{FormatError, RunError};
pub use header::Header;
pub use inference::{Answer, Workspace, classify};
#[cfg(feature = "std")]
pub use kernel::team::Team;
pub use layer::{Layer, Op};
pub use lowered::Lowered;
#[cfg(feature = "alloc")]
pub use predictor::{Memory, Predictor};
pub use prepared::Prepared;
pub use sizes::Sizes;
pub use tensor::Shape;
pub use watch::Watch;

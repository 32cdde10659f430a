//! Serves paradise bundles on Linux.
//!
//! ```text
//! bundle (hashes checked) -> Backend: int8 engine | tract
//! picture bytes --paradise-picture--> u8 tensor --Backend--> Verdict: class, rate, entropies, decision --> pins
//! selftest: does this device still answer as its maker said?
//! ```
//! The daemon `paradised` (feature `daemon`) puts these behind a command line and HTTP.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod bundle;
pub mod int8;
pub mod load;
#[cfg(feature = "tract")]
pub mod onnx;
pub mod output;
pub mod pins;
pub mod pipeline;
pub mod profile;
pub mod selftest;

pub use bundle::{Bundle, BundleError};
pub use load::load;
pub use pipeline::{Backend, BackendKind, Verdict};

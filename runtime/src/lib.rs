//! Serves paradise bundles on Linux.
//!
//! ```text
//! bundle (hashes checked) -> Backend: int8 engine | tract
//! picture bytes --paradise-picture--> u8 tensor --Backend--> Verdict: class, p-values, decision (by a Rule) --> pins
//! local pictures --Observations--> Site: thresholds of the place where the device stands --> Rule
//! oip: the Open Inference Protocol, bytes to pictures and verdicts to bytes
//! mcu: a microcontroller over a serial port (feature `mcu`)
//! store: the folder of models, their versions and signatures
//! selftest: does this device still answer as its maker said?
//! ```
//! The daemon `paradised` (feature `daemon`) puts these behind a command line and HTTP.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod bundle;
pub mod camera;
pub mod cholesky;
mod files;
pub mod int8;
pub mod levels;
pub mod load;
#[cfg(feature = "mcu")]
pub mod mcu;
pub mod oip;
#[cfg(feature = "tract")]
pub mod onnx;
pub mod order;
pub mod output;
pub mod pins;
pub mod pipeline;
pub mod profile;
mod rule;
pub mod selftest;
pub mod site;
pub mod store;
pub mod tables;
pub mod threads;
pub mod watch;

pub use bundle::{Bundle, BundleError};
pub use load::load;
pub use pipeline::{Backend, BackendKind, Verdict};
pub use rule::Rule;
pub use site::Site;

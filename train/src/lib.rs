//! Trains robust stochastic-encoder classifiers, quantises them and exports them as bundles.
//!
//! ```text
//! data -> encoder -> posterior (mu, sigma) -> objective -> checkpoint -> attack -> evaluate -> quantise -> export
//! ```
//! `train` and the edge meet in a bundle, the folder that [`export`] writes, and nowhere else.
#![deny(missing_docs)]

pub mod certify;
pub mod checkpoint;
pub mod confidence;
mod confident;
pub mod config;
pub mod demo;
pub mod encoder;
pub mod evaluation;
pub mod export;
pub mod fit;
pub mod gaussian;
pub mod gpu_check;
pub mod import;
pub mod interrupt;
pub mod latent;
#[cfg(feature = "mpi")]
pub mod mpi;
pub mod objective;
pub mod paper;
pub mod prediction;
pub mod probes;
pub mod quantise;
pub mod recalibrate;
pub mod remedy;
pub mod sweep;
pub mod trained;
pub mod verify;

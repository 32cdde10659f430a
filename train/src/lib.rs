//! Trains, attacks, evaluates, quantises and exports robust stochastic-encoder classifiers.
//!
//! ```text
//! dataset -> encoder -> posterior (mu, sigma) -> objective -> checkpoint -> attack -> evaluate -> quantise -> export
//! ```
//! `train` and the edge meet in a bundle, the folder that [`export`] writes, and nowhere else.
#![deny(missing_docs)]

pub mod answer;
pub mod attack;
pub mod certificate;
pub mod checkpoint;
pub mod config;
#[cfg(feature = "cuda")]
mod cuda;
pub mod dataset;
pub mod demo;
pub mod device;
pub mod encoder;
pub mod evaluate;
pub mod export;
pub mod figure;
pub mod files;
pub mod fit;
pub mod gaussian;
pub mod gpu_check;
pub mod graph;
pub mod import;
pub mod interrupt;
pub mod objective;
pub mod ops;
pub mod optimiser;
pub mod progress;
pub mod quantise;
pub mod random;
pub mod renew;
pub mod report;
pub mod statistics;
pub mod supplement;
pub mod sweep;
pub mod verify;

//! What every crate of the workstation stands on: randomness that is keyed by what it is for, files that appear whole or
//! not at all, statistics of proportions, and progress of long work.
//!
//! | module | what it holds |
//! |---|---|
//! | [`random`] | ChaCha streams keyed by seed, purpose, epoch, image and draw: batches, threads and resuming change no bit |
//! | [`files`] | writes that are synced and renamed, JSON that says which file is damaged, folders that are replaced whole |
//! | [`statistics`] | proportions with Wilson's interval, AUROC, McNemar's exact test, Clopper-Pearson bounds |
//! | [`team`], [`claim`] | processes that share a folder of units; a folder that one at a time writes to |
//! | [`progress`] | bars on a terminal, and a log line now and then where there is none |
//!
//! ```
//! use paradise_support::random::{Purpose, normal, stream};
//! use paradise_support::statistics::Proportion;
//!
//! // The noise of image 7 is the same whatever was drawn before it.
//! let noise = |image| normal(&mut stream(1, Purpose::Noise, 0, image, 0));
//! assert_eq!(noise(7), noise(7));
//! assert_ne!(noise(7), noise(8));
//!
//! let robust = Proportion { correct: 870, n: 1000 };
//! assert_eq!(robust.to_string(), " 87.0 % [84.8, 88.9]");
//! ```
#![deny(missing_docs)]

pub mod claim;
pub mod files;
pub mod progress;
pub mod random;
pub mod statistics;
pub mod team;

/// Bytes as lower-case hexadecimal digits, two a byte: how digests are written.
///
/// ```
/// assert_eq!(paradise_support::hex(&[0x0f, 0xa0]), "0fa0");
/// ```
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

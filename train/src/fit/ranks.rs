//! What the ranks of one run must have in common, and what they told each other.

use crate::config::Config;
use anyhow::Result;
use paradise_data::Splits;
use paradise_data::settings::Data;
use paradise_nn::exchange::{Exchange, Measured, all_same, all_well};
use paradise_nn::ops::lanes;
use serde_json::json;
use std::path::PathBuf;

/// Refuses ranks that would not come to the same numbers.
///
/// # Errors
/// With what differs, or if a rank is gone.
pub(super) fn agree(ranks: &dyn Exchange, config: &Config, splits: &Splits) -> Result<()> {
    if ranks.ranks() == 1 {
        return Ok(());
    }
    all_same(ranks, "the program", concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")))?;
    all_same(ranks, "the instruction set", lanes::detect().name())?;
    // Where the images lie may differ.
    let home = Config { data: Data { folder: PathBuf::new(), ..config.data.clone() }, ..config.clone() };
    all_same(ranks, "the configuration", &home.to_toml()?)?;
    let digest = all_well(ranks, splits.train.digest())?;
    all_same(ranks, "the hash of the training images", &digest)?;
    all_same(ranks, "the hash of the calibration images", &splits.calibration.digest())
}

/// What ranks told each other during the steps of an epoch, as the first one saw it.
pub(super) struct Exchanged {
    pub steps: u64,
    pub seconds: f64,
    pub of: Measured,
}

impl Exchanged {
    pub fn json(&self, epoch: u32, ranks: usize) -> serde_json::Value {
        let steps = self.steps.max(1) as f64;
        json!({
            "epoch": epoch,
            "ranks": ranks,
            "threads": rayon::current_num_threads(),
            "seconds_a_step": self.seconds / steps,
            "exchange_seconds_a_step": self.of.seconds / steps,
            "bytes_a_step": self.of.bytes as f64 / steps,
        })
    }
}

impl std::fmt::Display for Exchanged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let steps = self.steps.max(1) as f64;
        let [step, exchange] = [self.seconds, self.of.seconds].map(|s| 1e3 * s / steps);
        write!(
            f,
            "a step {step:.0} ms, {exchange:.0} of them for {:.1} MB to other ranks",
            self.of.bytes as f64 / steps / 1e6
        )
    }
}

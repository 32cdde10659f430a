//! The terms of the loss over an epoch, by name.

use super::Loss;
use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};
use serde_json::{Map, Value, json};

/// Names of the terms, in the order of a checkpoint.
const NAMES: [&str; N] = ["total", "distortion", "rate_nats", "matching", "divergence_nats", "gradient_norm"];

/// How many.
const N: usize = 6;

/// Sums over the steps of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Terms {
    /// One a name.
    sums: [f64; N],
    /// Steps behind each sum.
    counts: [u32; N],
}

/// Steps' values that are still on their way: a GPU is asked for those of many steps at once.
#[derive(Debug, Default)]
pub struct Pending(Vec<(usize, Tensor)>);

/// Values after which a GPU is asked.
const MANY: usize = 256;

impl Pending {
    /// Takes one step's loss; its values reach `terms` at once on the CPU, later on a GPU.
    ///
    /// # Errors
    /// With its name, if a term is not finite.
    pub fn add(&mut self, loss: &Loss, terms: &mut Terms) -> Result<()> {
        let Loss { distortion, rate, matching, divergence, total } = loss;
        let optional = [rate.as_ref(), matching.as_ref(), divergence.as_ref()];
        // The total is looked at last: what made it infinite is the better name.
        let named = [(1, Some(distortion)), (2, optional[0]), (3, optional[1]), (4, optional[2]), (0, Some(total))];
        for (at, term) in named {
            if let Some(term) = term {
                self.0.push((at, term.detach().to_dtype(DType::F64)?.flatten_all()?));
            }
        }
        self.settle_if_due(terms)
    }

    /// Takes one step's gradient norm, f64 `[1]`.
    ///
    /// # Errors
    /// If it is not finite.
    pub fn add_norm(&mut self, norm: Tensor, terms: &mut Terms) -> Result<()> {
        self.0.push((N - 1, norm));
        self.settle_if_due(terms)
    }

    fn settle_if_due(&mut self, terms: &mut Terms) -> Result<()> {
        let here = self.0.first().is_none_or(|t| t.1.device().is_cpu());
        if here || self.0.len() >= MANY { self.settle(terms) } else { Ok(()) }
    }

    /// Brings every value to `terms`: before a checkpoint, so that none is written after a value that is not finite.
    ///
    /// # Errors
    /// With its name, if a term is not finite.
    pub fn settle(&mut self, terms: &mut Terms) -> Result<()> {
        let waiting = std::mem::take(&mut self.0);
        if waiting.is_empty() {
            return Ok(());
        }
        let tensors: Vec<&Tensor> = waiting.iter().map(|w| &w.1).collect();
        let values = Tensor::cat(&tensors, 0)?.to_vec1::<f64>()?;
        waiting.iter().zip(values).try_for_each(|((at, _), value)| terms.push(*at, value))
    }
}

impl Terms {
    fn push(&mut self, at: usize, value: f64) -> Result<()> {
        ensure!(
            value.is_finite(),
            "{} is {value}: lower fit.peak_rate, or set fit.clip; the last checkpoint is as it was",
            NAMES[at]
        );
        self.sums[at] += value;
        self.counts[at] += 1;
        Ok(())
    }

    /// Means by name; terms that the objective does not keep are null.
    pub fn json(&self) -> Value {
        let mut all = Map::new();
        for (name, (sum, count)) in NAMES.iter().zip(self.sums.iter().zip(self.counts)) {
            all.insert((*name).to_string(), json!((count > 0).then(|| sum / f64::from(count))));
        }
        Value::Object(all)
    }

    /// As numbers of a checkpoint.
    pub fn to_words(self) -> Vec<u64> {
        self.sums.iter().map(|s| s.to_bits()).chain(self.counts.map(u64::from)).collect()
    }

    /// From numbers of a checkpoint.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        let mut terms = Self::default();
        if words.len() != 2 * N {
            return None;
        }
        for i in 0..N {
            terms.sums[i] = f64::from_bits(words[i]);
            terms.counts[i] = u32::try_from(words[N + i]).ok()?;
        }
        Some(terms)
    }
}

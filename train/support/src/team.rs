//! Processes that share one folder of work: which units are whose, and which of them puts all together.

use anyhow::{Context, Result, ensure};
use std::fmt::Debug;

/// Which units are done here: those with `unit % of == index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub index: usize,
    /// Number of shards.
    pub of: usize,
}

impl Shard {
    /// All the work.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Reads `2/4`, counted from 1.
    ///
    /// ```
    /// use paradise_support::team::Shard;
    /// assert_eq!(Shard::parse("2/4")?, Shard { index: 1, of: 4 });
    /// assert!(Shard::parse("5/4").is_err());
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    ///
    /// # Errors
    /// If it is nothing like that.
    pub fn parse(text: &str) -> Result<Self> {
        let numbers = text.split_once('/').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let (index, of): (usize, usize) =
            numbers.with_context(|| format!("shard {text:?}: not like 2/4, nor auto"))?;
        ensure!((1..=of).contains(&index), "shard {text:?}: the first number is in 1..={of}");
        Ok(Self { index: index - 1, of })
    }

    /// The place of this task in a Slurm job array, whose variables `variable` reads; none where there is no array.
    ///
    /// ```
    /// use paradise_support::team::Shard;
    /// let array = |name: &str| match name {
    ///     "SLURM_ARRAY_TASK_ID" => Some("6".to_string()),
    ///     "SLURM_ARRAY_TASK_MIN" => Some("2".to_string()),
    ///     "SLURM_ARRAY_TASK_MAX" => Some("8".to_string()),
    ///     "SLURM_ARRAY_TASK_STEP" => Some("2".to_string()),
    ///     "SLURM_ARRAY_TASK_COUNT" => Some("4".to_string()),
    ///     _ => None,
    /// };
    /// assert_eq!(Shard::of_array(array)?, Some(Shard { index: 2, of: 4 }));
    /// assert_eq!(Shard::of_array(|_| None)?, None);
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    ///
    /// # Errors
    /// If a variable is no number, or the array's numbers are not evenly spaced.
    pub fn of_array(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let read = |what: &str| -> Result<Option<usize>> {
            let name = format!("SLURM_ARRAY_TASK_{what}");
            variable(&name)
                .map(|text| text.parse().with_context(|| format!("{name}={text}: not a number")))
                .transpose()
        };
        let Some(id) = read("ID")? else { return Ok(None) };
        let least = read("MIN")?.context("SLURM_ARRAY_TASK_ID without SLURM_ARRAY_TASK_MIN")?;
        let count = read("COUNT")?.context("SLURM_ARRAY_TASK_ID without SLURM_ARRAY_TASK_COUNT")?;
        let most = read("MAX")?.unwrap_or(least + count.saturating_sub(1));
        let step = read("STEP")?.unwrap_or(1).max(1);
        let even = most >= least && (most - least).is_multiple_of(step) && (most - least) / step + 1 == count;
        ensure!(
            even && (least..=most).contains(&id) && (id - least).is_multiple_of(step),
            "task {id} of an array of {count} tasks from {least} to {most} in steps of {step}: --shard auto needs evenly spaced tasks, for example --array=0-7"
        );
        Ok(Some(Self { index: (id - least) / step, of: count }))
    }

    /// The part `inner` of this one.
    pub fn split(self, inner: Self) -> Self {
        Self { index: self.index * inner.of + inner.index, of: self.of * inner.of }
    }

    /// Whether a unit belongs to it.
    pub fn holds(self, unit: usize) -> bool {
        unit % self.of == self.index
    }
}

/// This process and those that work beside it on the same units.
pub trait Team: Debug + Send + Sync {
    /// Which units are this one's.
    fn shard(&self) -> Shard;

    /// Waits until all have done their part; whether any of them was asked to stop before.
    ///
    /// # Errors
    /// If one of them is gone.
    fn meet(&self, stopped: bool) -> Result<bool>;

    /// Which one this is of those on its machine, which may have a GPU each.
    fn local(&self) -> usize {
        0
    }

    /// Whether this process puts the units together once all are there.
    fn concludes(&self) -> bool;
}

/// Processes that know nothing of each other: whoever finds all units there puts them together.
impl Team for Shard {
    fn shard(&self) -> Shard {
        *self
    }

    fn meet(&self, stopped: bool) -> Result<bool> {
        Ok(stopped)
    }

    fn concludes(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_out_the_units_and_so_do_shards_of_shards() {
        let shards = ["1/3", "2/3", "3/3"].map(|text| Shard::parse(text).unwrap());
        let halves = ["1/2", "2/2"].map(|text| Shard::parse(text).unwrap());
        for unit in 0..20 {
            assert_eq!(shards.iter().filter(|s| s.holds(unit)).count(), 1);
            let of_both = shards.iter().flat_map(|s| halves.map(|h| s.split(h)));
            assert_eq!(of_both.filter(|s| s.holds(unit)).count(), 1);
        }
        for bad in ["0/3", "4/3", "1", "a/b", "1/0", ""] {
            assert!(Shard::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_array_with_gaps_is_refused_with_its_numbers() {
        let array = |values: [&'static str; 5]| {
            let names = ["ID", "MIN", "MAX", "STEP", "COUNT"];
            let all: Vec<(String, &str)> =
                names.iter().zip(values).map(|(n, v)| (format!("SLURM_ARRAY_TASK_{n}"), v)).collect();
            Shard::of_array(move |name| all.iter().find(|(n, _)| n == name).map(|(_, v)| (*v).to_string()))
        };
        assert_eq!(array(["3", "0", "3", "1", "4"]).unwrap(), Some(Shard { index: 3, of: 4 }));
        // One task sent again on its own does what is left.
        assert_eq!(array(["3", "3", "3", "1", "1"]).unwrap(), Some(Shard::WHOLE));
        for bad in [["1", "1", "7", "1", "3"], ["9", "0", "3", "1", "4"], ["x", "0", "3", "1", "4"]] {
            assert!(array(bad).is_err(), "{bad:?}");
        }
    }
}

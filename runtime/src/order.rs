//! Order statistics of calibration values: which of many are kept, so that p-values stay exact where thresholds lie.

use paradise_engine::header::MAX_TABLE;
use serde::{Deserialize, Serialize};

/// Which values of a table decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tails {
    /// Large ones.
    Upper,
    /// Large and small ones.
    Both,
}

/// Some of `n` values in ascending order, and where each stands among all.
///
/// ```
/// use paradise_runtime::order::{OrderStatistics, Tails};
/// let few = OrderStatistics::of(&[3.0, 1.0, 2.0], Tails::Upper);
/// assert_eq!((few.n, &few.values[..], &few.ranks[..]), (3, &[1.0, 2.0, 3.0][..], &[0, 1, 2][..]));
/// let many: Vec<f32> = (0..5000u16).map(f32::from).collect();
/// assert_eq!(OrderStatistics::of(&many, Tails::Upper).values.len(), 256);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderStatistics {
    /// How many values there were.
    pub n: u32,
    /// Those that are kept, ascending.
    pub values: Vec<f32>,
    /// The zero-based rank of each among all.
    pub ranks: Vec<u32>,
}

impl OrderStatistics {
    /// Of values in any order: all up to the format's number, else that many, most of them near the tails that decide.
    pub fn of(values: &[f32], tails: Tails) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f32::total_cmp);
        let ranks = ranks(sorted.len(), tails);
        Self { n: sorted.len() as u32, values: ranks.iter().map(|&r| sorted[r as usize]).collect(), ranks }
    }
}

/// Which of `n` sorted values are kept: the first and the last, every one at the end of a tail, and ever fewer the farther
/// from it, so that a p-value is exact where thresholds lie and within a tenth of itself elsewhere.
fn ranks(n: usize, tails: Tails) -> Vec<u32> {
    if n <= MAX_TABLE {
        return (0..n as u32).collect();
    }
    let (most, reach) = match tails {
        Tails::Upper => (MAX_TABLE, n - 1),
        Tails::Both => (MAX_TABLE / 2, n / 2 - 1),
    };
    // Distances from the end: half of them 0, 1, 2, ..., the others growing by a constant factor up to `reach`.
    let near = most / 2;
    let mut distances: Vec<usize> = (0..near).collect();
    for k in 1..=most - near {
        let grown = near as f64 * (reach as f64 / near as f64).powf(k as f64 / (most - near) as f64);
        let left = most - near - k;
        // Each is farther than the one before, and leaves room for those that follow.
        let last = distances[distances.len() - 1];
        distances.push((grown.round() as usize).clamp(last + 1, reach - left));
    }
    let upper = distances.iter().rev().map(|d| (n - 1 - d) as u32);
    match tails {
        Tails::Upper => upper.collect(),
        Tails::Both => distances.iter().map(|d| *d as u32).chain(upper).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn kept_ranks_increase_and_span_the_table(n in 1usize..60_000, both in any::<bool>()) {
            let ranks = ranks(n, if both { Tails::Both } else { Tails::Upper });
            prop_assert_eq!(ranks.len(), n.min(MAX_TABLE));
            prop_assert_eq!((ranks[0], ranks[ranks.len() - 1]), (0, n as u32 - 1));
            prop_assert!(ranks.windows(2).all(|w| w[0] < w[1]));
            // A p-value is at most a step too large.
            for w in ranks.windows(2) {
                let tail = if both { w[1].min(n as u32 - 1 - w[0]) } else { n as u32 - 1 - w[0] };
                prop_assert!(f64::from(w[1] - w[0]) <= 1.0 + 0.12 * f64::from(tail), "{:?} of {}", w, n);
            }
        }
    }
}

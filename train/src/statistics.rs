//! Intervals and scores of the tables.

use serde::{Deserialize, Serialize};

/// A count of successes among trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proportion {
    /// Successes.
    pub correct: usize,
    /// Trials.
    pub n: usize,
}

impl Proportion {
    /// Counts the true values.
    pub fn of(flags: impl IntoIterator<Item = bool>) -> Self {
        let (mut correct, mut n) = (0, 0);
        for flag in flags {
            correct += usize::from(flag);
            n += 1;
        }
        Self { correct, n }
    }

    /// The share, in per cent; NaN for no trials.
    pub fn percent(&self) -> f64 {
        100.0 * self.correct as f64 / self.n as f64
    }

    /// The 95 % interval of Wilson (1927), in per cent.
    pub fn wilson_percent(&self) -> [f64; 2] {
        if self.n == 0 {
            return [0.0, 100.0];
        }
        let z = 1.959_963_984_540_054;
        let n = self.n as f64;
        let p = self.correct as f64 / n;
        let centre = p + z * z / (2.0 * n);
        let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        [centre - half, centre + half].map(|v| (100.0 * v / (1.0 + z * z / n)).clamp(0.0, 100.0))
    }
}

impl std::fmt::Display for Proportion {
    /// `87.9 % [86.4, 89.3]`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [low, high] = self.wilson_percent();
        write!(f, "{:5.1} % [{low:.1}, {high:.1}]", self.percent())
    }
}

/// A proportion as cards and reports store it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Successes.
    pub correct: usize,
    /// Trials.
    pub n: usize,
    /// In per cent.
    pub percent: f64,
    /// Wilson's 95 % interval, per cent.
    pub wilson_95_percent: [f64; 2],
}

impl From<Proportion> for Share {
    fn from(p: Proportion) -> Self {
        let round = |v: f64| (v * 100.0).round() / 100.0;
        Self {
            correct: p.correct,
            n: p.n,
            percent: round(p.percent()),
            wilson_95_percent: p.wilson_percent().map(round),
        }
    }
}

impl Serialize for Proportion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Share::from(*self).serialize(serializer)
    }
}

/// Area under the ROC curve: the chance that a random positive's score exceeds a random negative's, ties halved.
pub fn auroc(negatives: &[f32], positives: &[f32]) -> f64 {
    let mut all: Vec<(f32, bool)> =
        negatives.iter().map(|&v| (v, false)).chain(positives.iter().map(|&v| (v, true))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut wins, mut below, mut i) = (0.0, 0.0, 0);
    while i < all.len() {
        let tied = all[i..].iter().take_while(|v| v.0 == all[i].0).count();
        let positive = all[i..i + tied].iter().filter(|v| v.1).count() as f64;
        let negative = tied as f64 - positive;
        wins += positive * (below + 0.5 * negative);
        below += negative;
        i += tied;
    }
    wins / (negatives.len() as f64 * positives.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_equals_published_values() {
        // statsmodels 0.14 proportion_confint(method="wilson"): (8, 10), (0, 20), (500, 500).
        for (correct, n, low, high) in
            [(8, 10, 49.016_247, 94.331_78), (0, 20, 0.0, 16.112_516), (500, 500, 99.237_57, 100.0)]
        {
            let [l, h] = Proportion { correct, n }.wilson_percent();
            assert!((l - low).abs() < 1e-3 && (h - high).abs() < 1e-3, "{l} {h}");
        }
    }

    #[test]
    fn auroc_equals_counting_pairs() {
        let (negatives, positives) = ([0.1, 0.4, 0.4, 0.9], [0.4, 0.8, 1.5]);
        let mut wins = 0.0;
        for n in negatives {
            for p in positives {
                wins += if p > n {
                    1.0
                } else if p == n {
                    0.5
                } else {
                    0.0
                };
            }
        }
        assert_eq!(auroc(&negatives, &positives), wins / 12.0);
    }
}

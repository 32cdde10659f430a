//! Intervals and scores of the tables.

use serde::{Deserialize, Serialize};
use statrs::distribution::{Continuous, ContinuousCDF, Normal};
use statrs::function::beta::beta_reg;

/// A count of successes among trials. Files hold it with its share and interval, which must fit the counts when it is read.
///
/// ```
/// use paradise_support::statistics::Proportion;
/// let kept = Proportion::of([true, true, false, true]);
/// assert_eq!((kept.correct, kept.n, kept.percent()), (3, 4, 75.0));
/// assert_eq!(kept.short(), "75.0 % [30.1, 95.4]");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
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

    /// The share, in per cent; 0 for no trials, since JSON has no NaN.
    pub fn percent(&self) -> f64 {
        100.0 * self.correct as f64 / self.n.max(1) as f64
    }

    /// As it is displayed, without the space that lines columns up: `53.4 % [50.1, 56.7]`.
    pub fn short(&self) -> String {
        self.to_string().trim_start().into()
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

/// Mean and standard deviation of a sample (over n - 1; 0 for a single value).
///
/// ```
/// assert_eq!(paradise_support::statistics::mean_and_deviation(&[1.0, 3.0]), [2.0, 2f64.sqrt()]);
/// ```
pub fn mean_and_deviation(values: &[f64]) -> [f64; 2] {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    [mean, if values.len() > 1 { (square / (n - 1.0)).sqrt() } else { 0.0 }]
}

/// A proportion as cards and reports hold it: the counts, and what follows from them for a reader.
#[derive(Serialize, Deserialize)]
struct Stored {
    correct: usize,
    n: usize,
    percent: f64,
    wilson_95_percent: [f64; 2],
}

impl From<Proportion> for Stored {
    fn from(p: Proportion) -> Self {
        let round = |v: f64| (v * 100.0).round() / 100.0;
        let (percent, wilson_95_percent) = (round(p.percent()), p.wilson_percent().map(round));
        Self { correct: p.correct, n: p.n, percent, wilson_95_percent }
    }
}

impl TryFrom<Stored> for Proportion {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        let Stored { correct, n, percent, wilson_95_percent } = stored;
        let own = Self { correct, n };
        let follows = Stored::from(own);
        // Two roundings of one number may differ by a hundredth.
        let near = |a: f64, b: f64| (a - b).abs() <= 0.011;
        let [low, high] = [0, 1].map(|k| near(wilson_95_percent[k], follows.wilson_95_percent[k]));
        match correct <= n && near(percent, follows.percent) && low && high {
            true => Ok(own),
            false => Err(format!("{percent} % {wilson_95_percent:?} is not what {correct} of {n} are")),
        }
    }
}

/// Area under the ROC curve: the chance that a random positive's score exceeds a random negative's, ties halved.
///
/// ```
/// use paradise_support::statistics::auroc;
/// assert_eq!(auroc(&[0.1, 0.4], &[0.3, 0.9]), 0.75);
/// ```
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

/// The two-sided p-value of McNemar's exact test: of pairs in which one of two methods failed, `only_a` and `only_b`
/// say how often it was which; 1 for no such pair.
///
/// ```
/// use paradise_support::statistics::mcnemar;
/// assert_eq!(mcnemar(5, 5), 1.0);
/// assert!(mcnemar(0, 20) < 1e-5);
/// ```
pub fn mcnemar(only_a: u64, only_b: u64) -> f64 {
    let (n, k) = (only_a + only_b, only_a.min(only_b));
    if n == 0 {
        return 1.0;
    }
    // P(X <= k) of n fair coins.
    (2.0 * beta_reg((n - k) as f64, (k + 1) as f64, 0.5)).min(1.0)
}

/// The x with `P(N(0, 1) <= x) = p`.
///
/// # Panics
/// If p is not in (0, 1).
pub fn normal_quantile(p: f64) -> f64 {
    assert!(p > 0.0 && p < 1.0, "a quantile of {p}");
    let standard = Normal::standard();
    let x = standard.inverse_cdf(p);
    // One step of Newton's method on the smaller tail, where nothing cancels.
    let (tail, toward) = if p > 0.5 { (1.0 - p, -1.0) } else { (p, 1.0) };
    let near = -x.abs();
    let exact = near - (standard.cdf(near) - tail) / standard.pdf(near);
    exact * toward
}

/// The exact one-sided lower bound at level 1 - `alpha` on a share of which `correct` of `n` draws are successes
/// (Clopper & Pearson, 1934); 0 for no success.
pub fn proportion_lower_bound(correct: u64, n: u64, alpha: f64) -> f64 {
    if correct == 0 {
        return 0.0;
    }
    if correct >= n {
        return alpha.powf(1.0 / n as f64);
    }
    // The p at which so many successes or more have the chance alpha.
    let (mut low, mut high) = (0.0, correct as f64 / n as f64);
    for _ in 0..100 {
        let p = (low + high) / 2.0;
        if beta_reg(correct as f64, (n - correct + 1) as f64, p) < alpha { low = p } else { high = p }
    }
    low
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
    fn bounds_and_quantiles_equal_scipys() {
        // scipy 1.17.1: beta.ppf(alpha, k, n - k + 1) and norm.ppf(p).
        for (k, n, alpha, want) in [
            (99_000, 100_000, 0.001, 0.988_989_340_377_474_8),
            (50_200, 100_000, 0.001, 0.497_108_947_805_789_8),
            (60, 100, 0.05, 0.512_975_820_253_894_3),
            (99_999, 100_000, 0.001, 0.999_907_669_666_265_4),
            (1, 10, 0.01, 0.001_004_528_708_249_950_9),
        ] {
            let got = proportion_lower_bound(k, n, alpha);
            assert!((got / want - 1.0).abs() < 1e-8, "{k} of {n}: {got} {want}");
        }
        assert_eq!(proportion_lower_bound(0, 10, 0.01), 0.0);
        assert!((proportion_lower_bound(10, 10, 0.01) - 0.01f64.powf(0.1)).abs() < 1e-12);
        for (p, want) in [
            (0.5001, 0.000_250_662_830_088_007_5),
            (0.9, 1.281_551_565_544_600_4),
            (0.999_31, 3.198_801_814_704_810_7),
            (1.0 - 1e-9, 5.997_807_019_601_637),
            (1e-4, -3.719_016_485_455_680_4),
        ] {
            let got = normal_quantile(p);
            assert!((got - want).abs() < 1e-7, "{p}: {got} {want}");
        }
    }

    #[test]
    fn mcnemar_equals_scipys_binomtest() {
        // scipy 1.17.1: binomtest(k, n, 0.5).pvalue.
        for (a, b, want) in [
            (3, 12, 0.035_156_25),
            (40, 61, 0.046_044_066_929_342_785),
            (5, 5, 1.0),
            (0, 0, 1.0),
            (0, 9, 0.003_906_25),
        ] {
            assert!((mcnemar(a, b) - want).abs() < 1e-9, "{a} {b} {}", mcnemar(a, b));
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

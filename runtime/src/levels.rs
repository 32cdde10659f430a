//! Levels that are tuned together, so that the share of calibration images abstained from for any reason is the promised one.

use paradise_engine::{Decision, PValues, Thresholds};

/// What decides about one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    /// What calibration images say of it.
    pub p: PValues,
    /// Entropy of its class probabilities, nats.
    pub predictive_entropy_nats: f32,
}

impl Judged {
    /// Whether a device abstains.
    pub fn abstains(&self, limits: &Thresholds) -> bool {
        !Decision::new(limits, &self.p, self.predictive_entropy_nats).is_accept()
    }
}

/// A single test's share of the images, where the combined one has all.
const SINGLE: usize = 4;

/// Thresholds that abstain on at most the share `budget` of the images for any reason: the combined test on as many as the
/// budget allows, each single test alone on a quarter of that number. Rate and posterior entropy take part only if
/// `rate_and_entropy`.
///
/// All levels rise together until the budget is spent: where tests agree, each has a larger level than a split would give it.
pub fn tune(images: &[Judged], budget: f64, rate_and_entropy: bool) -> Thresholds {
    let n = images.len();
    if n == 0 {
        return Thresholds::NEVER;
    }
    let sorted = |of: fn(&Judged) -> f32| {
        let mut values: Vec<f32> = images.iter().map(of).collect();
        values.sort_by(f32::total_cmp);
        values
    };
    let [picture, posterior, spread] = [sorted(|j| j.p.picture), sorted(|j| j.p.posterior), sorted(|j| j.p.spread)];
    let [rate, entropy, combined] = [sorted(|j| j.p.rate), sorted(|j| j.p.entropy), sorted(|j| j.p.combined)];
    let predictive = sorted(|j| j.predictive_entropy_nats);
    let at = |k: usize| {
        let single = k / SINGLE;
        Thresholds {
            picture_p_min: picture[single],
            posterior_p_min: posterior[single],
            spread_p_min: spread[single],
            rate_p_min: if rate_and_entropy { rate[single] } else { 0.0 },
            entropy_p_min: if rate_and_entropy { entropy[single] } else { 0.0 },
            combined_p_min: combined[k],
            predictive_entropy_max_nats: predictive[n - 1 - single],
        }
    };
    let within = |k: usize| {
        let limits = at(k);
        images.iter().filter(|image| image.abstains(&limits)).count() as f64 <= budget * n as f64
    };
    // More is abstained from as levels rise: the last that is within the budget.
    let (mut low, mut high) = (0, n);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if within(middle) { low = middle } else { high = middle }
    }
    at(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// p-values of independent orders of `n` images.
    fn image(i: usize, n: usize) -> Judged {
        let order = |stride: usize| ((i * stride) % n + 1) as f32 / (n + 1) as f32;
        let p = PValues {
            picture: order(1),
            posterior: order(7),
            spread: order(333),
            rate: order(77),
            entropy: order(491),
            predictive: order(123),
            combined: order(201),
        };
        Judged { p, predictive_entropy_nats: 1.0 - p.predictive }
    }

    #[test]
    fn thresholds_spend_the_budget_and_no_more() {
        let images: Vec<Judged> = (0..1000).map(|i| image(i, 1000)).collect();
        for all in [false, true] {
            let limits = tune(&images, 0.05, all);
            let out = images.iter().filter(|image| image.abstains(&limits)).count();
            assert!((44..=50).contains(&out), "{out}");
            assert_eq!(limits.rate_p_min > 0.0, all);
            let none = tune(&images, 0.0, all);
            assert_eq!(images.iter().filter(|image| image.abstains(&none)).count(), 0);
        }
        assert_eq!(tune(&[], 0.05, true), Thresholds::NEVER);
    }

    #[test]
    fn levels_that_agree_are_not_split() {
        let same = |i| {
            let Judged { p: PValues { picture: p, .. }, .. } = image(i, 1000);
            let all =
                PValues { picture: p, posterior: p, spread: p, rate: p, entropy: p, predictive: p, combined: p };
            Judged { p: all, predictive_entropy_nats: 1.0 - p }
        };
        let limits = tune(&(0..1000).map(same).collect::<Vec<_>>(), 0.05, false);
        assert!((limits.combined_p_min - 0.051).abs() < 1e-3, "{limits:?}");
    }
}

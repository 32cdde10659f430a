//! Which of a model's own answers to trust: scores of mistakes, fitted and chosen on calibration images.

use crate::prediction::Prediction;
use paradise_data::Dataset;
use serde::{Deserialize, Serialize};

/// A score that is larger where a mistake is likelier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// Entropy of the class probabilities.
    PredictiveEntropy,
    /// The rate less the rate against one Gaussian for all classes: what is far from every class, and not from everything
    /// (Ren et al. 2021, on features).
    RelativeRate,
    /// Both, weighted as a logistic regression of mistakes weighs them.
    Combination,
}

impl Trust {
    /// All, the simplest first.
    pub const ALL: [Self; 3] = [Self::PredictiveEntropy, Self::RelativeRate, Self::Combination];

    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::PredictiveEntropy => "predictive entropy",
            Self::RelativeRate => "relative rate",
            Self::Combination => "combination",
        }
    }
}

/// Scores of mistakes, fitted to calibration images.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// The one that orders calibration images best.
    pub chosen: Trust,
    /// Mean of all posteriors, `[d]`.
    mean: Vec<f64>,
    /// Their variance, spread included, `[d]`.
    variance: Vec<f64>,
    /// Of predictive entropy and relative rate: means, deviations, weights.
    standard: [(f64, f64); 2],
    weights: [f64; 2],
}

/// Points of mean accuracy over all coverages by which a score must be better than a simpler one.
const WORTH: f64 = 0.05;

impl Selection {
    /// Of calibration images' predictions.
    ///
    /// # Panics
    /// If posteriors differ in length.
    pub fn fit(predictions: &[Prediction], set: &Dataset) -> Self {
        Self::of(predictions, &right(predictions, set))
    }

    fn of(predictions: &[Prediction], right: &[bool]) -> Self {
        let d = predictions.first().map_or(0, |p| p.mu.len());
        let n = predictions.len().max(1) as f64;
        let average =
            |j: usize, of: &dyn Fn(&Prediction, usize) -> f64| predictions.iter().map(|p| of(p, j)).sum::<f64>() / n;
        let mean: Vec<f64> = (0..d).map(|j| average(j, &|p, j| f64::from(p.mu[j]))).collect();
        // The Gaussian nearest to the aggregate posterior has its first two moments.
        let moment =
            |p: &Prediction, j: usize| f64::from(p.sigma[j]).powi(2) + (f64::from(p.mu[j]) - mean[j]).powi(2);
        let variance = (0..d).map(|j| average(j, &moment).max(1e-12)).collect();
        let mut fitted =
            Self { chosen: Trust::PredictiveEntropy, mean, variance, standard: [(0.0, 1.0); 2], weights: [1.0, 0.0] };
        let raw: Vec<[f64; 2]> = predictions.iter().map(|p| fitted.raw(p)).collect();
        fitted.standard = [0, 1].map(|k| {
            let mean = raw.iter().map(|r| r[k]).sum::<f64>() / n;
            let square = raw.iter().map(|r| (r[k] - mean).powi(2)).sum::<f64>() / n;
            (mean, square.sqrt().max(1e-9))
        });
        let standard: Vec<[f64; 2]> = raw.iter().map(|r| fitted.standardised(*r)).collect();
        fitted.weights = logistic(&standard, right);
        let worth = |trust: Trust| {
            let scores: Vec<f64> = predictions.iter().map(|p| fitted.score(trust, p)).collect();
            mean_covered(&scores, right)
        };
        let mut best = (Trust::ALL[0], worth(Trust::ALL[0]));
        for trust in &Trust::ALL[1..] {
            let found = worth(*trust);
            if found > best.1 + WORTH {
                best = (*trust, found);
            }
        }
        fitted.chosen = best.0;
        fitted
    }

    /// A prediction's score, the larger the less it is to be trusted.
    pub fn score(&self, trust: Trust, p: &Prediction) -> f64 {
        let raw = self.raw(p);
        match trust {
            Trust::PredictiveEntropy => raw[0],
            Trust::RelativeRate => raw[1],
            Trust::Combination => self.standardised(raw).iter().zip(self.weights).map(|(v, w)| v * w).sum(),
        }
    }

    /// Predictive entropy and relative rate.
    fn raw(&self, p: &Prediction) -> [f64; 2] {
        [f64::from(p.predictive_entropy_nats), f64::from(p.rate_nats) - self.background(p)]
    }

    fn standardised(&self, raw: [f64; 2]) -> [f64; 2] {
        [0, 1].map(|k| (raw[k] - self.standard[k].0) / self.standard[k].1)
    }

    /// `KL(N(mu, sigma^2), N(m, s^2))` with one m and s for all classes, nats.
    fn background(&self, p: &Prediction) -> f64 {
        let one = |j: usize| {
            let (mu, log_sigma) = (f64::from(p.mu[j]), f64::from(p.log_sigma[j]));
            let squares = (2.0 * log_sigma).exp() + (mu - self.mean[j]).powi(2);
            0.5 * (self.variance[j].ln() - 2.0 * log_sigma + squares / self.variance[j] - 1.0)
        };
        (0..p.mu.len()).map(one).sum()
    }
}

/// Whether each prediction is right.
pub fn right(predictions: &[Prediction], set: &Dataset) -> Vec<bool> {
    predictions.iter().zip(&set.labels).map(|(p, label)| p.class == *label).collect()
}

/// Weights of two standardised numbers in the logistic regression of mistakes, by Newton's method; a small penalty keeps them
/// finite where mistakes can be told perfectly, or there are none.
fn logistic(seen: &[[f64; 2]], right: &[bool]) -> [f64; 2] {
    const PENALTY: f64 = 1e-3;
    const ROUNDS: usize = 30;
    let n = seen.len().max(1) as f64;
    let mut w = [0.0f64; 3];
    for _ in 0..ROUNDS {
        let (mut gradient, mut hessian) = ([0.0f64; 3], [[0.0f64; 3]; 3]);
        for (x, right) in seen.iter().zip(right) {
            let x = [1.0, x[0], x[1]];
            let p = 1.0 / (1.0 + (-(0..3).map(|k| w[k] * x[k]).sum::<f64>()).exp());
            for i in 0..3 {
                gradient[i] += (p - f64::from(u8::from(!right))) * x[i] / n;
                for j in 0..3 {
                    hessian[i][j] += p * (1.0 - p) * x[i] * x[j] / n;
                }
            }
        }
        for k in 0..3 {
            gradient[k] += PENALTY * w[k];
            hessian[k][k] += PENALTY;
        }
        let step = solve(hessian, gradient);
        (0..3).for_each(|k| w[k] -= step[k]);
        if step.iter().all(|s| s.abs() < 1e-10) {
            break;
        }
    }
    // A combination that trusts what is less sure is none.
    if w[1].is_finite() && w[2].is_finite() && w[1] > 0.0 { [w[1], w[2]] } else { [1.0, 0.0] }
}

/// The solution of a positive definite system, by Gauss.
fn solve(mut a: [[f64; 3]; 3], mut b: [f64; 3]) -> [f64; 3] {
    for p in 0..3 {
        for i in 0..3 {
            if i != p {
                let f = a[i][p] / a[p][p];
                let pivot = a[p];
                a[i].iter_mut().zip(pivot).for_each(|(v, q)| *v -= f * q);
                b[i] -= f * b[p];
            }
        }
    }
    [0, 1, 2].map(|i| b[i] / a[i][i])
}

/// Accuracy, per cent, of the 1, 2, ... images that a score trusts most; equally trusted ones count by their mean.
pub fn covered(scores: &[f64], right: &[bool]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let mut curve = Vec::with_capacity(order.len());
    let (mut before, mut i) = (0.0, 0);
    while i < order.len() {
        let score = scores[order[i]];
        let tied = order[i..].iter().take_while(|o| scores[**o] == score).count();
        let good = order[i..i + tied].iter().filter(|o| right[**o]).count() as f64;
        for j in 1..=tied {
            curve.push(100.0 * (before + good * j as f64 / tied as f64) / (i + j) as f64);
        }
        before += good;
        i += tied;
    }
    curve
}

/// Mean accuracy over all coverages, per cent.
fn mean_covered(scores: &[f64], right: &[bool]) -> f64 {
    covered(scores, right).iter().sum::<f64>() / scores.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_engine::PValues;
    use paradise_engine::typicality::Distances;
    use paradise_support::random::{self, Purpose};

    fn prediction(mu: f32, log_sigma: f32, rate_nats: f32, predictive_entropy_nats: f32) -> Prediction {
        Prediction {
            class: 0,
            probability: 0.9,
            mu: vec![mu],
            sigma: vec![log_sigma.exp()],
            log_sigma: vec![log_sigma],
            rate_nats,
            posterior_entropy_nats: 0.0,
            predictive_entropy_nats,
            distances: Distances { posterior: 0.0, spread: 0.0, picture: 0.0 },
            p: PValues::TYPICAL,
            accept: true,
        }
    }

    #[test]
    fn the_background_is_the_divergence_from_the_moments_of_all() {
        let all = [prediction(-1.0, -1.0, 0.0, 0.1), prediction(3.0, -2.0, 0.0, 0.1)];
        let fitted = Selection::of(&all, &[true, true]);
        let variance = ((-2f64).exp() + (-4f64).exp()) / 2.0 + 4.0;
        assert!((fitted.mean[0] - 1.0).abs() < 1e-6 && (fitted.variance[0] - variance).abs() < 1e-6);
        // KL by numerical integration of q log(q / p).
        let (m, s) = (3.0, (-2f64).exp());
        let normal =
            |z: f64, m: f64, s: f64| (-0.5 * ((z - m) / s).powi(2)).exp() / (s * (2.0 * std::f64::consts::PI).sqrt());
        let kl: f64 = (-8000..8000)
            .map(|k| m + f64::from(k) * s / 1000.0)
            .map(|z| normal(z, m, s) * (normal(z, m, s) / normal(z, 1.0, variance.sqrt())).ln() * s / 1000.0)
            .sum();
        assert!((fitted.score(Trust::RelativeRate, &all[1]) + kl).abs() < 1e-4);
    }

    #[test]
    fn what_tells_mistakes_is_chosen() {
        let at = |i: u64, branch: u32| random::uniform(&mut random::stream(3, Purpose::Noise, branch, i, 0));
        for (by_entropy, by_rate, want) in
            [(1.0, 0.0, Trust::PredictiveEntropy), (0.0, 1.0, Trust::RelativeRate), (0.6, 0.6, Trust::Combination)]
        {
            let (mut all, mut right) = (vec![], vec![]);
            for i in 0..2000 {
                let (entropy, rate) = (at(i, 1), at(i, 2));
                all.push(prediction(0.0, 0.0, rate, entropy));
                right.push(by_entropy * entropy + by_rate * rate < 0.75);
            }
            assert_eq!(Selection::of(&all, &right).chosen, want);
        }
    }

    #[test]
    fn no_mistake_and_nothing_but_mistakes_are_no_error() {
        let all: Vec<_> = (0..20).map(|i| prediction(i as f32, -1.0, 1.0, i as f32 / 20.0)).collect();
        for right in [vec![true; 20], vec![false; 20]] {
            let fitted = Selection::of(&all, &right);
            assert!(all.iter().all(|p| fitted.score(Trust::Combination, p).is_finite()));
        }
    }
}

//! A model that abstains, as the adaptive attack sees it: its posterior, the limits between which a device accepts it, and
//! how far a posterior is beyond them, with the gradient.

use crate::error::{Result, setting};
use crate::loss::descending;
use crate::model::{Classifier, Differentiable, checked_logits};
use paradise_engine::inference::assess;
use paradise_engine::information::Calibration;
use paradise_engine::{Model, Shape, posterior};

/// A float network with its posterior in sight, judged by a model's mixture, tables and thresholds.
pub struct AbstainingModel<'m> {
    model: &'m Model<'m>,
    /// mu, then s, as its logits.
    posterior: Box<dyn Differentiable + 'm>,
    /// The classifier's, `[classes][d]` and `[classes]`.
    weight: Vec<f32>,
    bias: Vec<f32>,
    limits: Limits,
    mixture: Mixture,
}

/// Between which values the device accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Limits {
    rate_max: f64,
    entropy: [f64; 2],
    predictive_max: f64,
}

/// The mixture `q(z)` in f64: `log pi` `[c]`, mean and `1 / s^2` `[c][d]`, `log s` `[c][d]`.
struct Mixture {
    log_weight: Vec<f64>,
    mean: Vec<f64>,
    precision: Vec<f64>,
    log_std: Vec<f64>,
}

/// What an image's posterior is worth to the attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worth {
    /// Class with the largest logit.
    pub class: usize,
    /// Whether the device accepts it.
    pub accepted: bool,
}

impl<'m> AbstainingModel<'m> {
    /// A network whose outputs `posterior` gives (mu, then s, in the place of logits), under the confidence of `model`.
    /// `weight` `[classes][d]` and `bias` `[classes]` are the classifier's on mu.
    ///
    /// # Errors
    /// If a length is not the model's.
    pub fn new(
        posterior: Box<dyn Differentiable + 'm>,
        weight: Vec<f32>,
        bias: Vec<f32>,
        model: &'m Model<'m>,
    ) -> Result<Self> {
        let (d, classes) = (usize::from(model.header().latent), usize::from(model.header().classes));
        let fits = posterior.classes() == 2 * d && weight.len() == classes * d && bias.len() == classes;
        setting(fits, || {
            let got = (posterior.classes() / 2, bias.len());
            format!("{} latent dimensions and {} classes, the model has {d} and {classes}", got.0, got.1)
        })?;
        let part = |span| model.f32s(span).iter().map(f64::from).collect::<Vec<f64>>();
        let header = model.header();
        let mixture = Mixture {
            log_weight: part(header.mixture.log_weight),
            mean: part(header.mixture.mean),
            precision: part(header.mixture.half_precision).into_iter().map(|p| 2.0 * p).collect(),
            log_std: part(header.mixture.log_std),
        };
        Ok(Self { limits: Limits::of(model), model, posterior, weight, bias, mixture })
    }

    /// mu, then s, of images f32 `[n][h][w][c]`: f32 `[n][2 d]`.
    ///
    /// # Errors
    /// If the network fails.
    pub fn posteriors(&self, images: &[f32]) -> Result<Vec<f32>> {
        self.posterior.logits(images)
    }

    /// [`AbstainingModel::posteriors`] with the gradient of what `weigh` gives for them.
    ///
    /// # Errors
    /// If the network or `weigh` fails.
    pub(crate) fn pull(
        &self,
        images: &[f32],
        weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        self.posterior.pull(images, weigh)
    }

    pub(crate) fn d(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    fn class_logits(&self, mu: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(mu.len()).zip(&self.bias);
        rows.map(|(w, b)| w.iter().zip(mu).map(|(w, m)| w * m).sum::<f32>() + b).collect()
    }

    /// Class and decision of a posterior `mu, s`, by the engine's own rules.
    pub fn judge(&self, mu: &[f32], s: &[f32]) -> Worth {
        let log_sigma: Vec<f32> = s.iter().map(|s| posterior::log_sigma(*s)).collect();
        let sigma: Vec<f32> = s.iter().map(|s| posterior::sigma(*s)).collect();
        let logits = self.class_logits(mu);
        let mut probabilities = vec![0.0; logits.len()];
        let answer = assess(self.model, mu, &sigma, &log_sigma, &logits, &mut probabilities);
        Worth { class: answer.class, accepted: answer.decision.is_accept() }
    }

    /// `margin - weight * penalty` of a posterior `mu, s` `[2 d]`, its gradient in `gradient`; the penalty is how far
    /// rate, posterior entropy and predictive entropy are beyond their limits, nats.
    pub fn worth(&self, posterior: &[f32], label: usize, weight: f64, gradient: &mut [f64]) -> f64 {
        let d = self.d();
        let (mu, s) = posterior.split_at(d);
        gradient.fill(0.0);
        let logits = self.class_logits(mu);
        let order = descending(&logits);
        let other = if order[0] == label { order[1] } else { order[0] };
        let mut by_logit = vec![0.0f64; logits.len()];
        by_logit[other] += 1.0;
        by_logit[label] -= 1.0;
        let mut value = f64::from(logits[other]) - f64::from(logits[label]);

        // Predictive entropy: dH/dz_i = -p_i (log p_i + H).
        let top = f64::from(logits[order[0]]);
        let total: f64 = logits.iter().map(|z| (f64::from(*z) - top).exp()).sum();
        let log_p: Vec<f64> = logits.iter().map(|z| f64::from(*z) - top - total.ln()).collect();
        let predictive: f64 = -log_p.iter().map(|l| l.exp() * l).sum::<f64>();
        if predictive > self.limits.predictive_max {
            value -= weight * (predictive - self.limits.predictive_max);
            for (g, l) in by_logit.iter_mut().zip(&log_p) {
                *g += weight * l.exp() * (l + predictive);
            }
        }
        for (g, row) in by_logit.iter().zip(self.weight.chunks_exact(d)) {
            gradient[..d].iter_mut().zip(row).for_each(|(to, w)| *to += g * f64::from(*w));
        }

        // sigma = 1 / (1 + e^-s), d log sigma / d s = 1 - sigma.
        let log_sigma: Vec<f64> = s.iter().map(|s| -softplus(-f64::from(*s))).collect();
        let half_log_2pi_e = f64::from(posterior::HALF_LOG_2PI_E);
        let entropy: f64 = log_sigma.iter().map(|l| l + half_log_2pi_e).sum();
        let [low, high] = self.limits.entropy;
        let beyond = if entropy > high { entropy - high } else { (entropy - low).min(0.0) };
        value -= weight * beyond.abs();
        for (j, l) in log_sigma.iter().enumerate() {
            gradient[d + j] -= weight * (if beyond == 0.0 { 0.0 } else { beyond.signum() }) * (1.0 - l.exp());
        }
        let (rate, by_mu, by_log_sigma) = self.mixture.rate(mu, &log_sigma);
        if rate > self.limits.rate_max {
            value -= weight * (rate - self.limits.rate_max);
            for j in 0..d {
                gradient[j] -= weight * by_mu[j];
                gradient[d + j] -= weight * by_log_sigma[j] * (1.0 - log_sigma[j].exp());
            }
        }
        value
    }
}

/// `log(1 + e^x)`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

impl Mixture {
    /// The rate, and its gradient with respect to mu and log sigma.
    fn rate(&self, mu: &[f32], log_sigma: &[f64]) -> (f64, Vec<f64>, Vec<f64>) {
        let d = mu.len();
        let at = |c: usize, j: usize| (self.mean[c * d + j], self.precision[c * d + j], self.log_std[c * d + j]);
        // KL(N(mu, sigma^2) || N(m, s^2)) in one dimension.
        let kl = |c: usize, j: usize| {
            let (m, p, log_std) = at(c, j);
            let l = log_sigma[j];
            log_std - l + 0.5 * p * ((2.0 * l).exp() + (f64::from(mu[j]) - m).powi(2)) - 0.5
        };
        let term = |c: usize| self.log_weight[c] - (0..d).map(|j| kl(c, j)).sum::<f64>();
        let terms: Vec<f64> = (0..self.log_weight.len()).map(term).collect();
        let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = terms.iter().map(|t| (t - top).exp()).sum();
        let (mut by_mu, mut by_log_sigma) = (vec![0.0; d], vec![0.0; d]);
        for (c, t) in terms.iter().enumerate() {
            let share = (t - top).exp() / total;
            for j in 0..d {
                let (m, p, _) = at(c, j);
                by_mu[j] += share * p * (f64::from(mu[j]) - m);
                by_log_sigma[j] += share * (p * (2.0 * log_sigma[j]).exp() - 1.0);
            }
        }
        (-(top + total.ln()), by_mu, by_log_sigma)
    }
}

impl Limits {
    /// By bisection over the tables' values: p-values are steps.
    fn of(model: &Model) -> Self {
        let header = model.header();
        let (rates, entropies) =
            (Calibration::new(model, &header.rate_table), Calibration::new(model, &header.entropy_table));
        let span = |values: paradise_engine::tensor::Span| {
            let of = model.f32s(values);
            let (low, high) = of.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(v), h.max(v)));
            (f64::from(low) - 1.0, f64::from(high) + 1.0)
        };
        // The edge between where `inside` holds and where it does not.
        let edge = |mut inside: f64, mut outside: f64, holds: &dyn Fn(f32) -> bool| {
            for _ in 0..60 {
                let middle = (inside + outside) / 2.0;
                if holds(middle as f32) { inside = middle } else { outside = middle }
            }
            inside
        };
        let t = header.thresholds;
        let (low, high) = span(header.rate_table.values);
        let rate_max = edge(low, high, &|v| rates.upper_p(v) >= t.typicality_min);
        let (low, high) = span(header.entropy_table.values);
        let typical = |v: f32| entropies.two_sided_p(v) >= t.entropy_p_min;
        let middle = {
            let mut all: Vec<f32> = model.f32s(header.entropy_table.values).iter().collect();
            all.sort_by(f32::total_cmp);
            f64::from(all[all.len() / 2])
        };
        let entropy = [edge(middle, low, &typical), edge(middle, high, &typical)];
        Self { rate_max, entropy, predictive_max: f64::from(t.predictive_entropy_max_nats) }
    }
}

impl Classifier for AbstainingModel<'_> {
    fn shape(&self) -> Shape {
        self.posterior.shape()
    }

    fn batch(&self) -> (usize, bool) {
        self.posterior.batch()
    }

    fn classes(&self) -> usize {
        self.bias.len()
    }

    fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
        let n = images.len() / self.shape().len() as usize;
        let posteriors = self.posteriors(images)?;
        let logits = posteriors.chunks_exact(2 * self.d()).flat_map(|p| self.class_logits(&p[..self.d()]));
        checked_logits(logits.collect(), n, self.classes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_support::random::{self, Purpose};

    const BUNDLE: &[u8] = include_bytes!("../../../models/fashion-mnist-small/model.pmq");

    /// A "network" of one pixel: every output is that pixel times its place.
    struct OnePixel(usize);

    impl Classifier for OnePixel {
        fn shape(&self) -> Shape {
            Shape::new(1, 1, 1)
        }

        fn classes(&self) -> usize {
            self.0
        }

        fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
            Ok(images.iter().flat_map(|x| (0..self.0).map(move |k| x * k as f32)).collect())
        }
    }

    impl Differentiable for OnePixel {
        fn pull(
            &self,
            images: &[f32],
            weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
        ) -> Result<(Vec<f32>, Vec<f32>)> {
            let logits = self.logits(images)?;
            let weights = weigh(&logits)?;
            let slope = |w: &[f32]| w.iter().enumerate().map(|(k, w)| w * k as f32).sum();
            Ok((logits, weights.chunks_exact(self.0).map(slope).collect()))
        }
    }

    #[test]
    fn the_worth_has_its_gradient_and_limits_are_the_engines() {
        let model = Model::parse(BUNDLE).unwrap();
        let (d, classes) = (usize::from(model.header().latent), usize::from(model.header().classes));
        let (weight, bias) =
            (model.f32s(model.header().classifier.weight), model.f32s(model.header().classifier.bias));
        let new = |outputs| {
            AbstainingModel::new(Box::new(OnePixel(outputs)), weight.iter().collect(), bias.iter().collect(), &model)
        };
        assert!(new(2 * d + 1).is_err());
        let abstaining = new(2 * d).unwrap();
        assert_eq!(abstaining.logits(&[0.25, 0.5]).unwrap().len(), 2 * classes);

        // The limits are where the engine's own p-values cross their thresholds.
        let (header, limits) = (model.header(), abstaining.limits);
        let rates = Calibration::new(&model, &header.rate_table);
        let entropies = Calibration::new(&model, &header.entropy_table);
        for value in (-4000..4000).map(|k| k as f32 / 8.0) {
            let edge = |limit: f64| (f64::from(value) - limit).abs() < 1e-3;
            if !edge(limits.rate_max) {
                let typical = rates.upper_p(value) >= header.thresholds.typicality_min;
                assert_eq!(typical, f64::from(value) <= limits.rate_max, "rate {value}");
            }
            let [low, high] = limits.entropy;
            if !edge(low) && !edge(high) {
                let typical = entropies.two_sided_p(value) >= header.thresholds.entropy_p_min;
                assert_eq!(typical, (low..=high).contains(&f64::from(value)), "entropy {value}");
            }
        }

        let mut rng = random::stream(4, Purpose::Noise, 0, 0, 0);
        for trial in 0..40 {
            // Far from the training posteriors, so that every penalty is at work somewhere.
            let p: Vec<f32> = (0..2 * d).map(|_| 3.0 * random::normal(&mut rng)).collect();
            let (mut slope, mut unused) = (vec![0.0; 2 * d], vec![0.0; 2 * d]);
            abstaining.worth(&p, trial % classes, 0.7, &mut slope);
            for j in 0..2 * d {
                let mut moved = [p.clone(), p.clone()];
                moved[0][j] += 1e-2;
                moved[1][j] -= 1e-2;
                let h = f64::from(moved[0][j]) - f64::from(moved[1][j]);
                let [up, down] = moved.map(|p| abstaining.worth(&p, trial % classes, 0.7, &mut unused));
                let numeric = (up - down) / h;
                let near = (numeric - slope[j]).abs() <= 2e-2 * slope[j].abs().max(1.0);
                assert!(near, "{trial} {j} {numeric} {slope:?}");
            }
        }
        assert!(softplus(-800.0) == 0.0 && (softplus(800.0) - 800.0).abs() < 1e-9);
    }
}

//! A model that abstains, as the adaptive attack sees it: its posterior, the limits between which a device accepts it, and
//! how far a posterior is beyond them, with the gradient.

use crate::error::{Result, setting};
use crate::limits::{Limits, Surprises};
use crate::loss::descending;
use crate::model::{Classifier, Differentiable, checked_logits};
use crate::statistics::{Distances, Mixture};
use paradise_engine::calibration::Tables;
use paradise_engine::inference::{Posterior, assess, scratch_len};
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
    distances: Distances,
    surprises: Surprises,
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
        let (limits, mixture, distances) = (Limits::of(model), Mixture::of(model), Distances::of(model));
        let surprises = Surprises::of(model);
        Ok(Self { model, posterior, weight, bias, limits, mixture, distances, surprises })
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

    /// Class and decision of an image f32 `[h][w][c]` in [0, 1], seen at 8 bits, and its posterior `mu, s`, by the engine's own
    /// rules.
    pub fn judge(&self, image: &[f32], mu: &[f32], s: &[f32]) -> Worth {
        let image: Vec<u8> = image.iter().map(|v| (v * 255.0).round() as u8).collect();
        let log_sigma: Vec<f32> = s.iter().map(|s| posterior::log_sigma(*s)).collect();
        let sigma: Vec<f32> = s.iter().map(|s| posterior::sigma(*s)).collect();
        let logits = self.class_logits(mu);
        let (mut probabilities, mut scratch) = (vec![0.0; logits.len()], vec![0.0; scratch_len(mu.len())]);
        let posterior = Posterior { mu, sigma: &sigma, log_sigma: &log_sigma, logits: &logits };
        let answer = assess(self.model, &Tables::of(self.model), &image, posterior, &mut probabilities, &mut scratch);
        Worth { class: answer.class, accepted: answer.decision.is_accept() }
    }

    /// `margin - weight * penalty` of a posterior `mu, s` `[2 d]`, its gradient in `gradient`; the penalty is how far
    /// rate, posterior entropy, predictive entropy and half the squared distances of posterior and spread are beyond their
    /// limits, nats; of the picture, too, and how far all together surprise. `by_image` receives the gradient with respect to the
    /// image f32 `[h][w][c]` in [0, 1] itself, what reaches it through the posterior left aside.
    pub fn worth(
        &self,
        (image, posterior): (&[f32], &[f32]),
        label: usize,
        weight: f64,
        gradient: &mut [f64],
        by_image: &mut [f64],
    ) -> f64 {
        let d = self.d();
        let (mu, s) = posterior.split_at(d);
        gradient.fill(0.0);
        by_image.fill(0.0);
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
        let log_sigma: Vec<f64> = s.iter().map(|s| -softplus(-f64::from(*s))).collect();
        let wide: Vec<f64> = mu.iter().map(|m| f64::from(*m)).collect();
        let theta = [&log_sigma[..], &wide].concat();
        let (far, by_theta) = self.distances.posterior.nearest(&theta);
        let (unlike, by_pixel) = self.distances.picture(image);
        // What the penalty costs by each of them.
        let mut cost = Costs::default();
        let parts = [
            self.surprises.picture.at(unlike),
            self.surprises.posterior.at(far),
            self.surprises.predictive.at(predictive),
        ];
        let surprise: f64 = parts.iter().map(|(nats, _)| nats).sum();
        if surprise > self.limits.combined_max {
            value -= weight * (surprise - self.limits.combined_max);
            cost = Costs { picture: parts[0].1, posterior: parts[1].1, predictive: parts[2].1 };
        }
        if unlike > self.limits.picture_max {
            value -= 0.5 * weight * (unlike - self.limits.picture_max);
            cost.picture += 0.5;
        }
        if far > self.limits.posterior_max {
            value -= 0.5 * weight * (far - self.limits.posterior_max);
            cost.posterior += 0.5;
        }
        if predictive > self.limits.predictive_max {
            value -= weight * (predictive - self.limits.predictive_max);
            cost.predictive += 1.0;
        }
        for (g, slope) in by_image.iter_mut().zip(by_pixel) {
            *g -= weight * cost.picture * slope;
        }
        for (g, l) in by_logit.iter_mut().zip(&log_p) {
            *g += weight * cost.predictive * l.exp() * (l + predictive);
        }
        for (g, row) in by_logit.iter().zip(self.weight.chunks_exact(d)) {
            gradient[..d].iter_mut().zip(row).for_each(|(to, w)| *to += g * f64::from(*w));
        }

        // sigma = 1 / (1 + e^-s), d log sigma / d s = 1 - sigma.
        let half_log_2pi_e = f64::from(posterior::HALF_LOG_2PI_E);
        let entropy: f64 = log_sigma.iter().map(|l| l + half_log_2pi_e).sum();
        let [low, high] = self.limits.entropy;
        let beyond = if entropy > high { entropy - high } else { (entropy - low).min(0.0) };
        value -= weight * beyond.abs();
        for (j, l) in log_sigma.iter().enumerate() {
            gradient[d + j] -= weight * (if beyond == 0.0 { 0.0 } else { beyond.signum() }) * (1.0 - l.exp());
        }
        let mut through = |slope: &[f64], factor: f64| {
            for (j, slope) in slope.iter().enumerate() {
                let (at, inner) = if j < d { (d + j, 1.0 - log_sigma[j].exp()) } else { (j - d, 1.0) };
                gradient[at] -= factor * slope * inner;
            }
        };
        let (rate, by_rate) = self.mixture.rate(&wide, &log_sigma);
        if rate > self.limits.rate_max {
            value -= weight * (rate - self.limits.rate_max);
            through(&by_rate, weight);
        }
        through(&by_theta, weight * cost.posterior);
        let (narrow, by_spread) = self.distances.spread.nearest(&theta[..d]);
        if narrow > self.limits.spread_max {
            value -= 0.5 * weight * (narrow - self.limits.spread_max);
            through(&by_spread, 0.5 * weight);
        }
        value
    }
}

/// What a unit of each statistic costs.
#[derive(Debug, Clone, Copy, Default)]
struct Costs {
    picture: f64,
    posterior: f64,
    predictive: f64,
}

/// `log(1 + e^x)`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
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
    use paradise_engine::calibration::Calibration;
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
        let (tables, t) = (&header.calibrations, &header.thresholds);
        let upper = [
            (&tables.rate, t.rate_p_min, limits.rate_max),
            (&tables.posterior, t.posterior_p_min, limits.posterior_max),
            (&tables.spread, t.spread_p_min, limits.spread_max),
            (&tables.picture, t.picture_p_min, limits.picture_max),
            (&tables.combined, t.combined_p_min, limits.combined_max),
        ];
        let entropies = Calibration::new(&model, &tables.entropy);
        for value in (-4000..4000).map(|k| k as f32 / 8.0) {
            let edge = |limit: f64| (f64::from(value) - limit).abs() < 1e-3;
            for (table, level, most) in upper {
                if !edge(most) {
                    let typical = Calibration::new(&model, table).upper_p(value) >= level;
                    assert_eq!(typical, f64::from(value) <= most, "{value} {level} {most}");
                }
            }
            let [low, high] = limits.entropy;
            if !edge(low) && !edge(high) {
                let typical = entropies.two_sided_p(value) >= t.entropy_p_min;
                assert_eq!(typical, (low..=high).contains(&f64::from(value)), "entropy {value}");
            }
        }

        let mut rng = random::stream(4, Purpose::Noise, 0, 0, 0);
        let side = header.input.len() as usize;
        for trial in 0..40 {
            // Far from the training posteriors, so that every penalty is at work somewhere.
            let p: Vec<f32> = (0..2 * d).map(|_| 3.0 * random::normal(&mut rng)).collect();
            let image: Vec<f32> = (0..side).map(|_| random::uniform(&mut rng)).collect();
            let (mut slope, mut unused) = (vec![0.0; 2 * d], vec![0.0; 2 * d]);
            let (mut by_image, mut nothing) = (vec![0.0; side], vec![0.0; side]);
            abstaining.worth((&image, &p), trial % classes, 0.7, &mut slope, &mut by_image);
            for j in 0..2 * d {
                let mut moved = [p.clone(), p.clone()];
                // Short: the nearest class mean may change on the way.
                moved[0][j] += 2e-3;
                moved[1][j] -= 2e-3;
                let h = f64::from(moved[0][j]) - f64::from(moved[1][j]);
                let [up, down] =
                    moved.map(|p| abstaining.worth((&image, &p), trial % classes, 0.7, &mut unused, &mut nothing));
                let numeric = (up - down) / h;
                let near = (numeric - slope[j]).abs() <= 2e-2 * slope[j].abs().max(1.0);
                assert!(near, "{trial} {j} {numeric} {}", slope[j]);
            }
            for pixel in (0..side).step_by(97) {
                let mut moved = [image.clone(), image.clone()];
                moved[0][pixel] += 1e-4;
                moved[1][pixel] -= 1e-4;
                let h = f64::from(moved[0][pixel]) - f64::from(moved[1][pixel]);
                let [up, down] = moved
                    .map(|image| abstaining.worth((&image, &p), trial % classes, 0.7, &mut unused, &mut nothing));
                let numeric = (up - down) / h;
                // Roughness has kinks, where neighbours are equal.
                let near = (numeric - by_image[pixel]).abs() <= 5e-2 * by_image[pixel].abs().max(1.0);
                assert!(near, "{trial} pixel {pixel} {numeric} {}", by_image[pixel]);
            }
        }
        assert!(softplus(-800.0) == 0.0 && (softplus(800.0) - 800.0).abs() < 1e-9);
    }
}

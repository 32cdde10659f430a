//! The adaptive attack on abstention: it wants a wrong class *and* a posterior so typical that the device accepts it.

use super::loss::descending;
use super::model::{Classifier, checked};
use super::threat::Ball;
use super::{Attempt, Sample, in_batches};
use crate::encoder::{Bound, Network, values};
use crate::graph::{Frozen, Op, Stage};
use crate::random::{self, Purpose};
use anyhow::{Result, ensure};
use candle_core::Device;
use paradise_engine::inference::assess;
use paradise_engine::information::Calibration;
use paradise_engine::{Model, Shape, posterior};

/// Weights of the penalty for what would be abstained, one walk each.
const WEIGHTS: [f64; 3] = [0.1, 1.0, 10.0];

/// A float network with its posterior in sight, judged by a model's mixture, tables and thresholds.
pub struct Guarded<'m> {
    model: &'m Model<'m>,
    /// To mu, then s.
    frozen: Frozen,
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
struct Worth {
    class: usize,
    accepted: bool,
}

impl<'m> Guarded<'m> {
    /// The network, folded as it is served, under the confidence of `model`.
    ///
    /// # Errors
    /// If it has no classifier, bounds mu, or has another latent dimension than the model.
    pub fn new(network: &Network, model: &'m Model<'m>) -> Result<Self> {
        let folded = network.folded()?;
        let architecture = &folded.architecture;
        ensure!(architecture.classes > 0, "this encoder has no classifier");
        ensure!(architecture.bound == Bound::Sigmoid, "an encoder whose mu is bounded is not served");
        let d = architecture.latent;
        ensure!(
            d == model.header().latent as usize,
            "{d} latent dimensions, the model has {}",
            model.header().latent
        );
        let mut graph = architecture.graph.clone();
        graph.stages.push(Stage { x: graph.stages.len(), op: Op::Dense { out: 2 * d, relu: false } });
        // mu and s as the rows of one dense stage.
        let mut theta = Vec::new();
        for i in [0, 1, 3, 2, 4] {
            theta.extend(values(folded.variables[i].as_tensor())?);
        }
        let part = |span| model.f32s(span).iter().map(f64::from).collect::<Vec<f64>>();
        let header = model.header();
        let mixture = Mixture {
            log_weight: part(header.mixture.log_weight),
            mean: part(header.mixture.mean),
            precision: part(header.mixture.half_precision).into_iter().map(|p| 2.0 * p).collect(),
            log_std: part(header.mixture.log_std),
        };
        Ok(Self {
            model,
            frozen: Frozen::new(graph, theta)?,
            weight: values(folded.variables[5].as_tensor())?,
            bias: values(folded.variables[6].as_tensor())?,
            limits: Limits::of(model),
            mixture,
        })
    }

    /// The same where `device` is.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn on(self, device: &Device) -> Result<Self> {
        Ok(Self { frozen: self.frozen.on(device)?, ..self })
    }

    fn d(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    fn class_logits(&self, mu: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(mu.len()).zip(&self.bias);
        rows.map(|(w, b)| w.iter().zip(mu).map(|(w, m)| w * m).sum::<f32>() + b).collect()
    }

    /// Class and decision of a posterior `mu, s`, by the engine's own rules.
    fn judge(&self, mu: &[f32], s: &[f32]) -> Worth {
        let log_sigma: Vec<f32> = s.iter().map(|s| posterior::log_sigma(*s)).collect();
        let sigma: Vec<f32> = s.iter().map(|s| posterior::sigma(*s)).collect();
        let logits = self.class_logits(mu);
        let mut probabilities = vec![0.0; logits.len()];
        let answer = assess(self.model, mu, &sigma, &log_sigma, &logits, &mut probabilities);
        Worth { class: answer.class, accepted: answer.decision.is_accept() }
    }

    /// `margin - weight * penalty` of a posterior `mu, s` `[2 d]`, its gradient in `gradient`; the penalty is how far
    /// rate, posterior entropy and predictive entropy are beyond their limits, nats.
    fn worth(&self, posterior: &[f32], label: usize, weight: f64, gradient: &mut [f64]) -> f64 {
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

impl Classifier for Guarded<'_> {
    fn shape(&self) -> Shape {
        self.frozen.shape()
    }

    fn batch(&self) -> (usize, bool) {
        self.frozen.batch()
    }

    fn classes(&self) -> usize {
        self.bias.len()
    }

    fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
        let n = images.len() / self.shape().len() as usize;
        let posteriors = self.frozen.forward(images)?;
        let logits = posteriors.chunks_exact(2 * self.d()).flat_map(|p| self.class_logits(&p[..self.d()]));
        checked(logits.collect(), n, self.classes())
    }
}

/// Looks in each ball for a point that gets a wrong class accepted: signed or steepest steps that shrink, a walk for each
/// of three weights of the penalty. An image whose class is wrong and accepted as it is counts from the start.
///
/// # Errors
/// If the ball is out of range or the model fails.
pub fn evade(guarded: &Guarded, ball: Ball, samples: &[Sample], steps: usize, seed: u64) -> Result<Vec<Attempt>> {
    ball.check(guarded.shape().len() as usize)?;
    in_batches(guarded, samples, 1, |samples| batch(guarded, ball, samples, steps, seed))
}

fn batch(guarded: &Guarded, ball: Ball, samples: &[Sample], steps: usize, seed: u64) -> Result<Vec<Attempt>> {
    let each = guarded.shape().len() as usize;
    let width = 2 * guarded.d();
    let mut found: Vec<Attempt> = samples.iter().map(Attempt::none).collect();
    let mut direction = vec![0.0f32; each];
    for (walk, weight) in WEIGHTS.into_iter().enumerate() {
        let mut standing: Vec<usize> = (0..samples.len()).filter(|i| !found[*i].broken).collect();
        let start = |i: &usize| match walk {
            // Clean images may be wrong and accepted already.
            0 => samples[*i].clean.to_vec(),
            _ => {
                let mut rng = random::stream(seed, Purpose::AttackStart, 5, samples[*i].key, walk as u64);
                ball.random_inside(samples[*i].clean, &mut rng)
            }
        };
        let mut points: Vec<Vec<f32>> = standing.iter().map(start).collect();
        for step in 0..=steps {
            if standing.is_empty() {
                break;
            }
            let mut fell = Vec::with_capacity(standing.len());
            let (_, gradient) = guarded.frozen.pull(&points.concat(), &mut |posteriors| {
                ensure!(posteriors.iter().all(|v| v.is_finite()), "the model's posteriors are not finite");
                let mut slopes = Vec::with_capacity(posteriors.len());
                let mut slope = vec![0.0f64; width];
                for (p, i) in posteriors.chunks_exact(width).zip(&standing) {
                    let (mu, s) = p.split_at(width / 2);
                    let Worth { class, accepted } = guarded.judge(mu, s);
                    fell.push(class != samples[*i].label && accepted);
                    guarded.worth(p, samples[*i].label, weight, &mut slope);
                    slopes.extend(slope.iter().map(|v| *v as f32));
                }
                Ok(slopes)
            })?;
            let size = 2.0 * ball.eps * (0.25 + 0.025 - 0.25 * step as f32 / steps.max(1) as f32);
            for (k, i) in standing.iter().enumerate() {
                if fell[k] {
                    found[*i] = Attempt { broken: true, point: points[k].clone() };
                    continue;
                }
                ball.steepest(&gradient[k * each..(k + 1) * each], &mut direction);
                points[k].iter_mut().zip(&direction).for_each(|(x, d)| *x += size * d);
                ball.project(&mut points[k], samples[*i].clean);
            }
            let keep = |k: &usize| !fell[*k];
            let kept: Vec<usize> = (0..standing.len()).filter(keep).collect();
            points = kept.iter().map(|k| std::mem::take(&mut points[*k])).collect();
            standing = kept.into_iter().map(|k| standing[k]).collect();
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Record, float};
    use crate::dataset::{Training, embedded};
    use crate::encoder::small_conv::SmallConv;
    use crate::export::confidence;

    #[test]
    fn the_worth_has_its_gradient_and_decisions_are_the_engines() {
        let mut splits = embedded::subset().unwrap();
        splits.train = Training::Memory(splits.train.head(300).unwrap());
        splits.calibration = splits.calibration.head(100);
        let encoder = SmallConv { channels: [3, 4], hidden: 12, latent: 4 };
        let network = Network::new(encoder.architecture(splits.test.shape, 10), 2).unwrap();
        let folded = network.folded().unwrap();
        let bytes = confidence::fit_float(&folded, &splits, 0.2).unwrap();
        let model = Model::parse(&bytes).unwrap();
        let guarded = Guarded::new(&network, &model).unwrap();

        let set = splits.test.head(40);
        let records: Vec<Record> = float::records(&folded.frozen(), &model, &set).unwrap();
        let pixels = crate::attack::pixels(&set);
        let posteriors = guarded.frozen.forward(&pixels).unwrap();
        let mut same = 0;
        for (p, r) in posteriors.chunks_exact(8).zip(&records) {
            let Worth { class, accepted } = guarded.judge(&p[..4], &p[4..]);
            same += usize::from(class == usize::from(r.class) && accepted == r.accept);
            // The limits are where the engine's own p-values cross their thresholds.
            let inside = r.rate_nats <= guarded.limits.rate_max as f32;
            assert_eq!(
                inside,
                r.typicality >= model.header().thresholds.typicality_min,
                "{r:?} {:?}",
                guarded.limits
            );
        }
        // Another order of the sums may move a value over a step of its p-value.
        assert!(same >= 39, "{same}");

        let mut rng = random::stream(4, Purpose::Noise, 0, 0, 0);
        for trial in 0..40 {
            // Far from the training posteriors, so that every penalty is at work somewhere.
            let p: Vec<f32> = (0..8).map(|_| 3.0 * random::normal(&mut rng)).collect();
            let (mut slope, mut unused) = (vec![0.0; 8], vec![0.0; 8]);
            guarded.worth(&p, trial % 10, 0.7, &mut slope);
            for j in 0..8 {
                let mut moved = [p.clone(), p.clone()];
                moved[0][j] += 1e-2;
                moved[1][j] -= 1e-2;
                let h = f64::from(moved[0][j]) - f64::from(moved[1][j]);
                let [up, down] = moved.map(|p| guarded.worth(&p, trial % 10, 0.7, &mut unused));
                let numeric = (up - down) / h;
                assert!(
                    (numeric - slope[j]).abs() <= 2e-2 * slope[j].abs().max(1.0),
                    "{trial} {j} {numeric} {slope:?}"
                );
            }
        }
        assert!(softplus(-800.0) == 0.0 && (softplus(800.0) - 800.0).abs() < 1e-9);
    }
}

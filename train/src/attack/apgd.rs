//! Auto-PGD (Croce & Hein, 2020, algorithm 1): projected ascent with momentum, whose step is halved where the loss no
//! longer rises, and which then goes back to the best point.

use super::Sample;
use super::loss::{Aim, Loss, descending};
use super::model::Differentiable;
use super::threat::{Ball, Norm};
use crate::random::{self, Purpose};
use anyhow::{Result, ensure};

/// Share of a step that is taken afresh; the rest is the last move again.
const FRESH: f32 = 0.75;

/// Share of a window's steps that must raise the loss for the step to stay.
const RISING: f64 = 0.75;

/// The attack and its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apgd {
    /// What is raised.
    pub loss: Loss,
    /// Steps of a run.
    pub iterations: usize,
    /// Runs from other starts, for images that still stand.
    pub restarts: usize,
    /// Classes that are aimed at in turn, the likeliest wrong one first; 0 for any class at once.
    pub targets: usize,
}

/// Where one image is.
struct Climb {
    sample: usize,
    aim: Aim,
    x: Vec<f32>,
    before: Vec<f32>,
    gradient: Vec<f32>,
    loss: f64,
    best: Vec<f32>,
    best_gradient: Vec<f32>,
    best_loss: f64,
    /// Best loss at the last checkpoint, and whether the step was halved there.
    last_best: f64,
    halved: bool,
    /// Steps since then that raised the loss.
    rises: usize,
    step: f32,
}

/// Steps between checkpoints: 22 % of the run, shorter by 3 % each time down to 6 %.
#[derive(Debug, Clone, Copy)]
struct Windows {
    now: usize,
    less: usize,
    least: usize,
}

impl Windows {
    fn new(iterations: usize) -> Self {
        // In integers: 0.22 * 100 is not 22 in every rounding.
        let share = |percent: usize| (percent * iterations / 100).max(1);
        Self { now: share(22), less: share(3), least: share(6) }
    }

    fn next(&mut self) {
        self.now = self.now.saturating_sub(self.less).max(self.least);
    }
}

impl Apgd {
    /// A misclassified point of each image's ball, where one was found.
    ///
    /// # Errors
    /// If the model fails, its logits are not finite, or it has fewer classes than the loss needs.
    pub fn run(
        &self,
        model: &dyn Differentiable,
        ball: Ball,
        samples: &[Sample],
        seed: u64,
    ) -> Result<Vec<Option<Vec<f32>>>> {
        let classes = model.classes();
        let fewest = self.loss.classes(self.targets > 0);
        ensure!(classes >= fewest, "{:?} needs {fewest} classes, and the model has {classes}", self.loss);
        let mut found: Vec<Option<Vec<f32>>> = vec![None; samples.len()];
        let clean: Vec<f32> = samples.iter().flat_map(|s| s.clean).copied().collect();
        let logits = model.logits(&clean)?;
        let orders: Vec<Vec<usize>> = logits.chunks_exact(classes).map(descending).collect();
        for ((found, sample), order) in found.iter_mut().zip(samples).zip(&orders) {
            if order[0] != sample.label {
                *found = Some(sample.clean.to_vec());
            }
        }
        for restart in 0..self.restarts {
            for round in 0..self.targets.clamp(1, classes - 1) {
                let standing: Vec<(usize, Aim)> = (0..samples.len())
                    .filter(|i| found[*i].is_none())
                    .map(|i| {
                        let label = samples[i].label;
                        let wrong = orders[i].iter().copied().filter(|c| *c != label).nth(round);
                        (i, Aim { label, target: wrong.filter(|_| self.targets > 0) })
                    })
                    .collect();
                let run = (restart * self.targets.max(1) + round) as u64;
                self.climb(model, ball, samples, &standing, (seed, run), &mut found)?;
            }
        }
        Ok(found)
    }

    /// One run over the images that stand.
    fn climb(
        &self,
        model: &dyn Differentiable,
        ball: Ball,
        samples: &[Sample],
        standing: &[(usize, Aim)],
        (seed, run): (u64, u64),
        found: &mut [Option<Vec<f32>>],
    ) -> Result<()> {
        let mut climbs: Vec<Climb> = standing
            .iter()
            .map(|&(sample, aim)| {
                let x = start(ball, &samples[sample], seed, run);
                Climb {
                    sample,
                    aim,
                    before: x.clone(),
                    x,
                    gradient: Vec::new(),
                    loss: f64::NEG_INFINITY,
                    best: Vec::new(),
                    best_gradient: Vec::new(),
                    best_loss: f64::NEG_INFINITY,
                    last_best: f64::NEG_INFINITY,
                    halved: true,
                    rises: 0,
                    step: 2.0 * ball.eps,
                }
            })
            .collect();
        self.look(model, &mut climbs, found)?;
        climbs.iter_mut().for_each(|c| (c.last_best, c.rises) = (c.best_loss, 0));
        let mut windows = Windows::new(self.iterations);
        let mut since = 0;
        for iteration in 0..self.iterations {
            if climbs.is_empty() {
                return Ok(());
            }
            let fresh = if iteration == 0 { 1.0 } else { FRESH };
            climbs.iter_mut().for_each(|c| c.advance(ball, samples[c.sample].clean, fresh));
            self.look(model, &mut climbs, found)?;
            since += 1;
            if since == windows.now {
                climbs.iter_mut().for_each(|c| c.checkpoint(since));
                windows.next();
                since = 0;
            }
        }
        Ok(())
    }

    /// Loss and gradient at every point; images that are misclassified leave with it.
    fn look(
        &self,
        model: &dyn Differentiable,
        climbs: &mut Vec<Climb>,
        found: &mut [Option<Vec<f32>>],
    ) -> Result<()> {
        let classes = model.classes();
        let points: Vec<f32> = climbs.iter().flat_map(|c| &c.x).copied().collect();
        let mut losses = Vec::with_capacity(climbs.len());
        let (logits, gradient) = model.pull(&points, &mut |logits| {
            let mut weights = vec![0.0; logits.len()];
            for ((c, z), w) in climbs.iter().zip(logits.chunks_exact(classes)).zip(weights.chunks_exact_mut(classes))
            {
                losses.push(self.loss.value(z, c.aim, w));
            }
            Ok(weights)
        })?;
        let each = points.len() / climbs.len().max(1);
        for (k, c) in climbs.iter_mut().enumerate() {
            if descending(&logits[k * classes..(k + 1) * classes])[0] != c.aim.label {
                found[c.sample] = Some(c.x.clone());
                continue;
            }
            c.gradient = gradient[k * each..(k + 1) * each].to_vec();
            c.rises += usize::from(losses[k] > c.loss);
            c.loss = losses[k];
            if c.loss > c.best_loss {
                (c.best_loss, c.best, c.best_gradient) = (c.loss, c.x.clone(), c.gradient.clone());
            }
        }
        climbs.retain(|c| found[c.sample].is_none());
        Ok(())
    }
}

impl Climb {
    /// `z = P(x + eta d)`, then `P(x + fresh (z - x) + (1 - fresh) (x - before))`.
    fn advance(&mut self, ball: Ball, clean: &[f32], fresh: f32) {
        let mut z = vec![0.0; self.x.len()];
        ball.steepest(&self.gradient, &mut z);
        z.iter_mut().zip(&self.x).for_each(|(z, x)| *z = x + self.step * *z);
        ball.project(&mut z, clean);
        for ((z, x), before) in z.iter_mut().zip(&self.x).zip(&self.before) {
            *z = x + fresh * (*z - x) + (1.0 - fresh) * (x - before);
        }
        ball.project(&mut z, clean);
        self.before = std::mem::replace(&mut self.x, z);
    }

    /// Halves the step and goes back to the best point if too few of the `steps` raised the loss, or none found a better
    /// point since a checkpoint that did not halve it.
    fn checkpoint(&mut self, steps: usize) {
        let stuck = self.rises as f64 <= RISING * steps as f64;
        let stale = !self.halved && self.last_best >= self.best_loss;
        self.halved = stuck || stale;
        if self.halved {
            self.step /= 2.0;
            (self.x, self.gradient) = (self.best.clone(), self.best_gradient.clone());
        }
        (self.last_best, self.rises) = (self.best_loss, 0);
    }
}

/// A random point on the ball's surface, clipped to the box.
fn start(ball: Ball, sample: &Sample, seed: u64, run: u64) -> Vec<f32> {
    let mut rng = random::stream(seed, Purpose::AttackStart, 0, sample.key, run);
    let draw = |_| match ball.norm {
        Norm::Linf => 2.0 * random::uniform(&mut rng) - 1.0,
        Norm::L2 => random::normal(&mut rng),
    };
    let direction: Vec<f32> = (0..sample.clean.len()).map(draw).collect();
    let length = ball.distance(&direction, &vec![0.0; direction.len()]).max(1e-12) as f32;
    let mut x: Vec<f32> = sample.clean.iter().zip(&direction).map(|(c, d)| c + ball.eps * d / length).collect();
    ball.project(&mut x, sample.clean);
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::model::Classifier;
    use paradise_engine::Shape;

    /// Logits `a . x + b` a class: the strongest point of a ball is known.
    struct Linear {
        weights: Vec<Vec<f32>>,
        bias: Vec<f32>,
    }

    impl Linear {
        fn new(classes: usize, d: usize) -> Self {
            let mut rng = random::stream(8, Purpose::Noise, 0, 0, 0);
            let mut draw = || random::normal(&mut rng);
            let weights = (0..classes).map(|_| (0..d).map(|_| draw()).collect()).collect();
            Self { weights, bias: (0..classes).map(|_| draw()).collect() }
        }
    }

    impl Classifier for Linear {
        fn shape(&self) -> Shape {
            Shape::new(1, self.weights[0].len() as u16, 1)
        }

        fn classes(&self) -> usize {
            self.bias.len()
        }

        fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
            let dot = |a: &[f32], x: &[f32]| a.iter().zip(x).map(|(a, x)| a * x).sum::<f32>();
            let row =
                |x: &[f32]| -> Vec<f32> { self.weights.iter().zip(&self.bias).map(|(a, b)| dot(a, x) + b).collect() };
            Ok(images.chunks_exact(self.weights[0].len()).flat_map(row).collect())
        }
    }

    impl Differentiable for Linear {
        fn pull(
            &self,
            images: &[f32],
            weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
        ) -> Result<(Vec<f32>, Vec<f32>)> {
            let logits = self.logits(images)?;
            let weights = weigh(&logits)?;
            let d = self.weights[0].len();
            let row = |w: &[f32]| -> Vec<f32> {
                (0..d).map(|k| w.iter().zip(&self.weights).map(|(w, a)| w * a[k]).sum()).collect()
            };
            Ok((logits, weights.chunks_exact(self.classes()).flat_map(row).collect()))
        }
    }

    const D: usize = 12;

    fn images(n: usize) -> Vec<f32> {
        let mut rng = random::stream(5, Purpose::Noise, 0, 0, 0);
        (0..n * D).map(|_| 0.3 + 0.4 * random::uniform(&mut rng)).collect()
    }

    fn samples<'a>(model: &Linear, images: &'a [f32]) -> Vec<Sample<'a>> {
        let logits = model.logits(images).unwrap();
        let label = |i: usize| descending(&logits[i * model.classes()..(i + 1) * model.classes()])[0];
        images
            .chunks_exact(D)
            .enumerate()
            .map(|(i, clean)| Sample { clean, label: label(i), key: i as u64 })
            .collect()
    }

    fn attack(loss: Loss, targets: usize) -> Apgd {
        Apgd { loss, iterations: 50, restarts: 1, targets }
    }

    #[test]
    fn a_linear_model_falls_exactly_where_its_margin_is_within_reach() {
        let model = Linear::new(5, D);
        let pixels = images(40);
        let all = samples(&model, &pixels);
        for (norm, eps) in [(Norm::Linf, 0.04), (Norm::L2, 0.12)] {
            let ball = Ball { norm, eps };
            for (loss, targets) in [(Loss::CrossEntropy, 0), (Loss::Margin, 0), (Loss::Dlr, 0), (Loss::Dlr, 4)] {
                let found = attack(loss, targets).run(&model, ball, &all, 3).unwrap();
                let (mut fell, mut stood) = (0, 0);
                for (sample, point) in all.iter().zip(&found) {
                    // The least distance to a boundary in closed form, by the dual norm; the box is out of reach.
                    let logits = model.logits(sample.clean).unwrap();
                    let least = (0..5).filter(|c| *c != sample.label).map(|c| {
                        let apart = model.weights[sample.label].iter().zip(&model.weights[c]);
                        let dual: f64 = match norm {
                            Norm::Linf => apart.map(|(a, b)| f64::from((a - b).abs())).sum(),
                            Norm::L2 => apart.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt(),
                        };
                        f64::from(logits[sample.label] - logits[c]) / dual
                    });
                    let least = least.fold(f64::MAX, f64::min);
                    if (least - f64::from(eps)).abs() < 0.03 * f64::from(eps) {
                        continue;
                    }
                    // One class at a time finds the nearest; the others may climb towards a farther one.
                    let sure = targets == 4 || least > f64::from(eps);
                    assert!(!sure || point.is_some() == (least < f64::from(eps)), "{norm:?} {loss:?} {least} {eps}");
                    fell += usize::from(point.is_some());
                    stood += usize::from(point.is_none());
                    if let Some(x) = point {
                        assert!(ball.distance(x, sample.clean) <= f64::from(eps) * (1.0 + 1e-5));
                        assert_ne!(descending(&model.logits(x).unwrap())[0], sample.label);
                    }
                }
                assert!(fell > 5 && stood > 5, "{norm:?} {loss:?} {fell} {stood}");
            }
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_batch_and_radius_0_changes_nothing() {
        let model = Linear::new(4, D);
        let pixels = images(9);
        let all = samples(&model, &pixels);
        let ball = Ball { norm: Norm::Linf, eps: 0.05 };
        let attack = attack(Loss::CrossEntropy, 0);
        let together = attack.run(&model, ball, &all, 3).unwrap();
        let alone: Vec<_> =
            all.iter().map(|s| attack.run(&model, ball, std::slice::from_ref(s), 3).unwrap().remove(0)).collect();
        assert_eq!(together, alone);
        let none = attack.run(&model, Ball { eps: 0.0, ..ball }, &all, 3).unwrap();
        assert!(none.iter().all(Option::is_none));
        // An image that is wrong as it is needs no step.
        let wrong = Sample { label: (all[0].label + 1) % 4, ..all[0] };
        assert_eq!(attack.run(&model, ball, &[wrong], 3).unwrap()[0].as_deref(), Some(wrong.clean));
    }

    #[test]
    fn checkpoints_of_a_hundred_steps_are_autoattacks() {
        let mut windows = Windows::new(100);
        let mut at = vec![0];
        while at[at.len() - 1] + windows.now <= 100 {
            at.push(at[at.len() - 1] + windows.now);
            windows.next();
        }
        assert_eq!(at[1..], [22, 41, 57, 70, 80, 87, 93, 99]);
    }

    #[test]
    fn too_few_classes_are_refused() {
        let model = Linear::new(3, D);
        let pixels = images(1);
        let error =
            attack(Loss::Dlr, 2).run(&model, Ball { norm: Norm::Linf, eps: 0.1 }, &samples(&model, &pixels), 0);
        assert!(error.unwrap_err().to_string().contains("needs 4 classes"));
    }
}

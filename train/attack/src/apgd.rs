//! Auto-PGD (Croce & Hein, 2020, algorithm 1): projected ascent with momentum, whose step is halved where the loss no
//! longer rises, and which then goes back to the best point.

use crate::attack::{Attack, Attempt, Sample, Victim};
use crate::error::{Error, Result};
use crate::launch::wrong_classes;
use crate::loss::{Aim, Loss, descending};
use crate::model::Differentiable;
use crate::threat::Ball;
use paradise_support::random::{self, Purpose, branch};

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
    /// AutoAttack's first: cross-entropy, one run.
    pub fn cross_entropy(iterations: usize, restarts: usize) -> Self {
        Self { loss: Loss::CrossEntropy, iterations, restarts, targets: 0 }
    }

    /// The difference of logits ratio, untargeted.
    pub fn dlr(iterations: usize, restarts: usize) -> Self {
        Self { loss: Loss::Dlr, ..Self::cross_entropy(iterations, restarts) }
    }

    /// The targeted difference of logits ratio towards each of the `targets` likeliest wrong classes in turn.
    pub fn targeted(iterations: usize, targets: usize) -> Self {
        Self { targets, ..Self::dlr(iterations, 1) }
    }
}

impl Attack for Apgd {
    fn describe(&self) -> String {
        let Self { iterations, restarts, targets, .. } = self;
        let loss = match self.loss {
            Loss::CrossEntropy => "CE",
            Loss::Margin => "margin",
            Loss::Dlr => "DLR",
        };
        let many = if *restarts == 1 { String::new() } else { format!(" x {restarts}") };
        match targets {
            0 => format!("APGD-{loss}-{iterations}{many}"),
            _ => format!("APGD-T-{loss}-{iterations}{many}, {targets} targets"),
        }
    }

    fn run(&self, victim: Victim, ball: Ball, samples: &[Sample], seed: u64) -> Result<Vec<Attempt>> {
        let model = victim.differentiable(self)?;
        let classes = model.classes();
        let fewest = self.loss.classes(self.targets > 0);
        if classes < fewest {
            return Err(Error::Classes { what: format!("{:?}", self.loss), need: fewest, got: classes });
        }
        let mut attempts: Vec<Attempt> = samples.iter().map(Attempt::none).collect();
        let orders: Vec<Vec<usize>> = if self.targets == 0 { Vec::new() } else { wrong_classes(model, samples)? };
        for restart in 0..self.restarts {
            for round in 0..self.targets.clamp(1, classes - 1) {
                let standing: Vec<(usize, Aim)> = (0..samples.len())
                    .filter(|i| !attempts[*i].broken)
                    .map(|i| {
                        let target = orders.get(i).and_then(|wrong| wrong.get(round)).copied();
                        (i, Aim { label: samples[i].label, target })
                    })
                    .collect();
                let run = (restart * self.targets.max(1) + round) as u64;
                self.climb(model, ball, samples, &standing, (seed, run), &mut attempts)?;
            }
        }
        Ok(attempts)
    }
}

impl Apgd {
    /// One run over the images that stand.
    fn climb(
        &self,
        model: &dyn Differentiable,
        ball: Ball,
        samples: &[Sample],
        standing: &[(usize, Aim)],
        (seed, run): (u64, u64),
        attempts: &mut [Attempt],
    ) -> Result<()> {
        if standing.is_empty() {
            return Ok(());
        }
        let mut climbs: Vec<Climb> = standing
            .iter()
            .map(|&(sample, aim)| {
                let mut rng = random::stream(seed, Purpose::AttackStart, branch::GRADIENT, samples[sample].key, run);
                let x = ball.random_start(samples[sample].clean, 1.0, &mut rng);
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
        self.look(model, &mut climbs, attempts)?;
        climbs.iter_mut().for_each(|c| (c.last_best, c.rises) = (c.best_loss, 0));
        let mut windows = Windows::new(self.iterations);
        let mut since = 0;
        for iteration in 0..self.iterations {
            if climbs.is_empty() {
                return Ok(());
            }
            let fresh = if iteration == 0 { 1.0 } else { FRESH };
            climbs.iter_mut().for_each(|c| c.advance(ball, samples[c.sample].clean, fresh));
            self.look(model, &mut climbs, attempts)?;
            since += 1;
            if since == windows.now {
                climbs.iter_mut().for_each(|c| c.checkpoint(since));
                windows.next();
                since = 0;
            }
        }
        for c in climbs {
            attempts[c.sample].point = c.best;
        }
        Ok(())
    }

    /// Loss and gradient at every point; images that are misclassified leave with it.
    fn look(&self, model: &dyn Differentiable, climbs: &mut Vec<Climb>, attempts: &mut [Attempt]) -> Result<()> {
        let classes = model.classes();
        let points: Vec<f32> = climbs.iter().flat_map(|c| &c.x).copied().collect();
        let mut losses = Vec::new();
        let (logits, gradient) = model.pull(&points, &mut |logits| {
            let (values, weights) = self.loss.rows(logits, climbs.iter().map(|c| c.aim));
            losses = values;
            Ok(weights)
        })?;
        let each = points.len() / climbs.len().max(1);
        for (k, c) in climbs.iter_mut().enumerate() {
            if descending(&logits[k * classes..(k + 1) * classes])[0] != c.aim.label {
                attempts[c.sample] = Attempt { broken: true, point: c.x.clone() };
                continue;
            }
            c.gradient = gradient[k * each..(k + 1) * each].to_vec();
            c.rises += usize::from(losses[k] > c.loss);
            c.loss = losses[k];
            if c.loss > c.best_loss {
                (c.best_loss, c.best, c.best_gradient) = (c.loss, c.x.clone(), c.gradient.clone());
            }
        }
        climbs.retain(|c| !attempts[c.sample].broken);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch;
    use crate::linear::{D, Linear, images, samples};
    use crate::model::Classifier;
    use crate::threat::Norm;

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
                let found = attack(loss, targets).run(Victim::White(&model), ball, &all, 3).unwrap();
                let (mut fell, mut stood) = (0, 0);
                for (sample, point) in all.iter().zip(&found) {
                    let least = model.distance(norm, sample);
                    if (least - f64::from(eps)).abs() < 0.03 * f64::from(eps) {
                        continue;
                    }
                    // One class at a time finds the nearest; the others may climb towards a farther one.
                    let sure = targets == 4 || least > f64::from(eps);
                    assert!(!sure || point.broken == (least < f64::from(eps)), "{norm:?} {loss:?} {least} {eps}");
                    fell += usize::from(point.broken);
                    stood += usize::from(!point.broken);
                    let x = &point.point;
                    assert!(ball.distance(x, sample.clean) <= f64::from(eps) * (1.0 + 1e-5));
                    assert_eq!(descending(&model.logits(x).unwrap())[0] != sample.label, point.broken);
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
        let victim = Victim::White(&model);
        let together = attack.run(victim, ball, &all, 3).unwrap();
        let alone: Vec<_> =
            all.iter().map(|s| attack.run(victim, ball, std::slice::from_ref(s), 3).unwrap().remove(0)).collect();
        assert_eq!(together, alone);
        let none = launch(&attack, victim, Ball { eps: 0.0, ..ball }, &all, 3, &|_| ()).unwrap();
        assert!(none.iter().zip(&all).all(|(a, s)| !a.broken && a.point == s.clean));
        // An image that is wrong as it is needs no step.
        let wrong = Sample { label: (all[0].label + 1) % 4, ..all[0] };
        let attempt = launch(&attack, victim, ball, &[wrong], 3, &|_| ()).unwrap().remove(0);
        assert_eq!(attempt, Attempt { broken: true, point: wrong.clean.to_vec() });
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
        let attack = attack(Loss::Dlr, 2);
        let error = attack.run(Victim::White(&model), Ball::linf(0.1), &samples(&model, &pixels), 0);
        assert!(error.unwrap_err().to_string().contains("needs 4 classes"));
    }
}

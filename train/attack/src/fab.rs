//! Fast Adaptive Boundary attack (Croce & Hein, 2020): steps to the linearised boundary nearest to the point and to the
//! clean image, and back towards the clean image from the far side. It looks for the smallest change that fools; here it
//! ends as soon as one fits the ball.

use crate::attack::{Attack, Attempt, Sample, Victim};
use crate::error::{Result, setting};
use crate::launch::wrong_classes;
use crate::loss::descending;
use crate::model::Differentiable;
use crate::threat::{Ball, Norm};
use paradise_support::random::{self, Purpose, branch};

/// Largest share of a step that starts from the clean image.
const BIAS: f64 = 0.1;
/// How far a step goes beyond the boundary.
const OVERSHOOT: f64 = 1.05;
/// How far a fooling point steps back towards the clean image.
const BACKWARD: f32 = 0.9;

/// The attack and its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fab {
    /// Steps of a run.
    pub iterations: usize,
    /// Runs: the first from the clean image, the others from random points.
    pub restarts: usize,
    /// Boundaries to the likeliest wrong classes, one run each; 0 looks at all boundaries in every step.
    pub targets: usize,
}

/// One image on its way.
struct Search {
    sample: usize,
    target: Option<usize>,
    x: Vec<f32>,
    /// `z_t - z_y` and its gradient at x, one a boundary.
    boundaries: Vec<(f64, Vec<f32>)>,
}

impl Attack for Fab {
    fn describe(&self) -> String {
        let Self { iterations, restarts, targets } = self;
        let many = if *restarts == 1 { String::new() } else { format!(" x {restarts}") };
        match targets {
            0 => format!("FAB-{iterations}{many}"),
            _ => format!("FAB-T-{iterations}{many}, {targets} targets"),
        }
    }

    fn run(&self, victim: Victim, ball: Ball, samples: &[Sample], seed: u64) -> Result<Vec<Attempt>> {
        let model = victim.differentiable(self)?;
        let classes = model.classes();
        setting(self.iterations > 0 && self.restarts > 0, || "FAB without steps".into())?;
        let orders = wrong_classes(model, samples)?;
        let mut attempts: Vec<Attempt> = samples.iter().map(Attempt::none).collect();
        for round in 0..self.targets.clamp(1, classes - 1) {
            for restart in 0..self.restarts {
                let standing = (0..samples.len()).filter(|i| !attempts[*i].broken);
                let begin = |i: usize| {
                    let s = &samples[i];
                    let x = if restart == 0 {
                        s.clean.to_vec()
                    } else {
                        let run = (restart * self.targets.max(1) + round) as u64;
                        let mut rng = random::stream(seed, Purpose::AttackStart, branch::FAB, s.key, run);
                        ball.random_start(s.clean, 0.5, &mut rng)
                    };
                    let target = if self.targets == 0 { None } else { orders[i].get(round).copied() };
                    Search { sample: i, target, x, boundaries: Vec::new() }
                };
                let searches = standing.map(begin).collect();
                self.search(model, ball, samples, searches, &mut attempts)?;
            }
        }
        Ok(attempts)
    }
}

impl Fab {
    fn search(
        &self,
        model: &dyn Differentiable,
        ball: Ball,
        samples: &[Sample],
        mut searches: Vec<Search>,
        attempts: &mut [Attempt],
    ) -> Result<()> {
        let all: Vec<usize> = (0..searches.len()).collect();
        linearise(model, samples, &mut searches, &all)?;
        for iteration in 0..self.iterations {
            searches.iter_mut().for_each(|s| s.step(ball.norm, samples[s.sample].clean));
            if iteration + 1 == self.iterations {
                // The last points are only looked at.
                let points: Vec<f32> = searches.iter().flat_map(|s| &s.x).copied().collect();
                let logits = if searches.is_empty() { Vec::new() } else { model.logits(&points)? };
                let rows = logits.chunks_exact(model.classes());
                for (s, z) in searches.iter_mut().zip(rows) {
                    if descending(z)[0] != samples[s.sample].label {
                        s.fooled(ball, &samples[s.sample], &mut attempts[s.sample]);
                    }
                }
                return Ok(());
            }
            // Most points do not fool: their logits and gradient serve the next step as well.
            let all: Vec<usize> = (0..searches.len()).collect();
            let mut fooled = linearise(model, samples, &mut searches, &all)?;
            fooled.iter().for_each(|&k| {
                let i = searches[k].sample;
                searches[k].fooled(ball, &samples[i], &mut attempts[i]);
            });
            fooled.retain(|k| !attempts[searches[*k].sample].broken);
            linearise(model, samples, &mut searches, &fooled)?;
            searches.retain(|s| !attempts[s.sample].broken);
            if searches.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Logits and boundaries at the points of the searches `which`; returns those whose point is misclassified.
fn linearise(
    model: &dyn Differentiable,
    samples: &[Sample],
    searches: &mut [Search],
    which: &[usize],
) -> Result<Vec<usize>> {
    let classes = model.classes();
    let mut fooled = Vec::new();
    if which.is_empty() {
        return Ok(fooled);
    }
    which.iter().for_each(|k| searches[*k].boundaries.clear());
    let points: Vec<f32> = which.iter().flat_map(|k| &searches[*k].x).copied().collect();
    let each = points.len() / which.len();
    // One boundary a search where it has a target, otherwise the k-th wrong class in turn.
    let boundaries = if searches[which[0]].target.is_some() { 1 } else { classes - 1 };
    for boundary in 0..boundaries {
        let pairs: Vec<(usize, usize)> = which
            .iter()
            .map(|k| {
                let label = samples[searches[*k].sample].label;
                (label, searches[*k].target.unwrap_or(boundary + usize::from(boundary >= label)))
            })
            .collect();
        let (logits, gradient) = model.pull(&points, &mut |z| {
            let mut weights = vec![0.0; z.len()];
            for (w, (label, target)) in weights.chunks_exact_mut(classes).zip(&pairs) {
                (w[*target], w[*label]) = (1.0, -1.0);
            }
            Ok(weights)
        })?;
        for ((k, (label, target)), (z, g)) in
            which.iter().zip(&pairs).zip(logits.chunks_exact(classes).zip(gradient.chunks_exact(each)))
        {
            searches[*k].boundaries.push((f64::from(z[*target]) - f64::from(z[*label]), g.to_vec()));
            if boundary == 0 && descending(z)[0] != *label {
                fooled.push(*k);
            }
        }
    }
    Ok(fooled)
}

impl Search {
    /// Moves to the mean of the projections of the point and of the clean image onto the nearest boundary, each weighed
    /// by its closeness, and a little beyond.
    fn step(&mut self, norm: Norm, clean: &[f32]) {
        let distance = |(difference, g): &&(f64, Vec<f32>)| {
            let dual: f64 = match norm {
                Norm::Linf => g.iter().map(|v| f64::from(v.abs())).sum(),
                Norm::L2 => g.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt(),
            };
            difference.abs() / (dual + 1e-12)
        };
        let Some((difference, w)) = self.boundaries.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))) else {
            return;
        };
        // The hyperplane w . z = level.
        let dot = |x: &[f32]| w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
        let level = dot(&self.x) - difference;
        let here = to_hyperplane(norm, &self.x, w, -difference);
        let there = to_hyperplane(norm, clean, w, level - dot(clean));
        let [near, far] = [norm.length(&here).max(1e-8), norm.length(&there).max(1e-8)];
        let alpha = (near / (near + far)).min(BIAS) as f32;
        let over = OVERSHOOT as f32;
        for (((x, h), c), t) in self.x.iter_mut().zip(&here).zip(clean).zip(&there) {
            *x = ((*x + over * h) * (1.0 - alpha) + (c + over * t) * alpha).clamp(0.0, 1.0);
        }
    }

    /// Keeps a fooling point if it fits the ball; otherwise steps back towards the clean image.
    fn fooled(&mut self, ball: Ball, sample: &Sample, attempt: &mut Attempt) {
        if ball.holds(&self.x, sample.clean) {
            *attempt = Attempt { broken: true, point: self.x.clone() };
        }
        self.x.iter_mut().zip(sample.clean).for_each(|(x, c)| *x = c + (*x - c) * BACKWARD);
    }
}

/// The shortest change d of `x` with `w . d = gain` that keeps `x + d` in the box; where the box does not allow it, the
/// change that gains most.
///
/// With signs turned so that the gain is positive, value i offers `|w_i| min(r, room_i)` at l_inf length r, and
/// `|w_i| min(r |w_i|, room_i)` at l2 multiplier r. Their sum is concave and piecewise linear in r, so Newton's method
/// from r = 0 never oversteps and ends after finitely many steps; no sort is needed.
fn to_hyperplane(norm: Norm, x: &[f32], w: &[f32], gain: f64) -> Vec<f32> {
    let sign = if gain < 0.0 { -1.0f32 } else { 1.0 };
    let gain = gain.abs();
    let room = |x: f32, w: f32| if w * sign > 0.0 { 1.0 - x } else { x };
    let speed = |w: f32| match norm {
        Norm::Linf => 1.0,
        Norm::L2 => f64::from(w.abs()),
    };
    let mut r = 0.0f64;
    for _ in 0..64 {
        let (mut total, mut slope) = (0.0f64, 0.0f64);
        for (x, w) in x.iter().zip(w) {
            let (size, step, room) = (f64::from(w.abs()), speed(*w), f64::from(room(*x, *w)));
            let free = r * step < room;
            total += size * if free { r * step } else { room };
            slope += if free { size * step } else { 0.0 };
        }
        let missing = gain - total;
        if missing <= 1e-12 * gain || slope <= 0.0 {
            break;
        }
        r += missing / slope;
    }
    let one = |(x, w): (&f32, &f32)| {
        if *w == 0.0 {
            return 0.0;
        }
        let step = (r * speed(*w)).min(f64::from(room(*x, *w))) as f32;
        if *w * sign > 0.0 { step } else { -step }
    };
    x.iter().zip(w).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{Linear, images, samples};
    use crate::model::Classifier;
    use proptest::prelude::*;

    #[test]
    fn a_linear_model_falls_exactly_where_its_margin_is_within_reach() {
        let model = Linear::new(5, crate::linear::D);
        let pixels = images(40);
        let all = samples(&model, &pixels);
        for (norm, eps) in [(Norm::Linf, 0.04), (Norm::L2, 0.12)] {
            let ball = Ball { norm, eps };
            for targets in [4, 0] {
                let attack = Fab { iterations: 30, restarts: 1, targets };
                let found = attack.run(Victim::White(&model), ball, &all, 3).unwrap();
                let mut counts = [0, 0];
                for (sample, attempt) in all.iter().zip(&found) {
                    let least = model.distance(norm, sample);
                    if (least - f64::from(eps)).abs() < 0.03 * f64::from(eps) {
                        continue;
                    }
                    assert_eq!(attempt.broken, least < f64::from(eps), "{norm:?} {targets}: {least}");
                    counts[usize::from(attempt.broken)] += 1;
                    if attempt.broken {
                        assert!(ball.distance(&attempt.point, sample.clean) <= f64::from(eps) * (1.0 + 1e-5));
                        assert_ne!(descending(&model.logits(&attempt.point).unwrap())[0], sample.label);
                    }
                }
                assert!(counts.iter().all(|c| *c > 5), "{counts:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn projections_meet_the_hyperplane_by_the_shortest_way(
            pixels in proptest::collection::vec((0.0f32..=1.0, -2.0f32..2.0), 1..40), share in -1.2f64..1.2, l2: bool,
        ) {
            let norm = if l2 { Norm::L2 } else { Norm::Linf };
            let (x, w): (Vec<f32>, Vec<f32>) = pixels.into_iter().unzip();
            // What the box allows in either direction.
            let most = |sign: f32| -> f64 {
                x.iter().zip(&w).map(|(x, w)| f64::from(w.abs() * if w * sign > 0.0 { 1.0 - x } else { *x })).sum()
            };
            let reach = most(share.signum() as f32);
            let gain = share * reach;
            let d = to_hyperplane(norm, &x, &w, gain);
            let dot: f64 = d.iter().zip(&w).map(|(d, w)| f64::from(*d) * f64::from(*w)).sum();
            prop_assert!(x.iter().zip(&d).all(|(x, d)| (-1e-6..=1.0 + 1e-6).contains(&(x + d))));
            let wanted = gain.abs().min(reach) * share.signum();
            prop_assert!((dot - wanted).abs() <= 1e-4 * reach.max(1e-3), "{dot} {wanted}");
            // Optimality by definition, found by bisection over the length instead.
            let reachable = |r: f64| -> f64 {
                let sign = share.signum();
                let room = |x: f32, w: f32| f64::from(if f64::from(w) * sign > 0.0 { 1.0 - x } else { x });
                match norm {
                    Norm::Linf => {
                        x.iter().zip(&w).map(|(x, w)| f64::from(w.abs()) * r.min(room(*x, *w))).sum()
                    }
                    Norm::L2 => {
                        // The best change of length r: multipliers by bisection.
                        let at = |m: f64| -> (f64, f64) {
                            x.iter().zip(&w).fold((0.0, 0.0), |(g, l), (x, w)| {
                                let step = (m * f64::from(w.abs())).min(room(*x, *w));
                                (g + step * f64::from(w.abs()), l + step * step)
                            })
                        };
                        let (mut low, mut high) = (0.0, 1e6);
                        for _ in 0..200 {
                            let middle = 0.5 * (low + high);
                            if at(middle).1.sqrt() > r { high = middle } else { low = middle }
                        }
                        at(low).0
                    }
                }
            };
            let length = norm.length(&d);
            prop_assert!(reachable(length * 0.999) <= wanted.abs() + 1e-4 * reach.max(1e-3));
        }
    }
}

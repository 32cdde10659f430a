//! What a gradient attack sees on its way, for the checks that tell robustness from masked gradients (the indicators of
//! Pintor et al., 2022): walks that do not stop when an image falls.

use crate::attack::Sample;
use crate::batches::in_batches;
use crate::error::Result;
use crate::launch::joined;
use crate::loss::{Aim, Loss, descending};
use crate::model::Differentiable;
use crate::threat::Ball;
use paradise_support::random::{self, Purpose, branch};

/// One image's way over `steps` signed or steepest steps of 2.5 eps / steps on the cross-entropy.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// Cross-entropy at the start and after each step: `steps + 1` values.
    pub losses: Vec<f64>,
    /// Whether the class was wrong there.
    pub wrong: Vec<bool>,
    /// Steps whose gradient was zero, or too small to be a normal number, in every pixel.
    pub without_gradient: usize,
}

impl Path {
    /// Whether the class was wrong on the way and right at the end.
    pub fn fell_silently(&self) -> bool {
        self.wrong.iter().any(|w| *w) && self.wrong.last() == Some(&false)
    }

    /// Whether the highest loss still rose in the last `window` steps, by over a tenth of all that it rose.
    pub fn still_rises(&self, window: usize) -> bool {
        let split = self.losses.len().saturating_sub(window).max(1);
        let top = |losses: &[f64]| losses.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (before, all) = (top(&self.losses[..split]), top(&self.losses));
        let total = all - self.losses[0];
        // Rounding of a loss that does not move is no rise.
        total > 1e-6 && all - before > 0.1 * total
    }
}

/// Walks from a random start in the ball.
///
/// # Errors
/// If the model fails.
pub fn paths(
    model: &dyn Differentiable,
    ball: Ball,
    samples: &[Sample],
    steps: usize,
    seed: u64,
) -> Result<Vec<Path>> {
    in_batches(model, samples, 1, |samples| walk(model, ball, samples, steps, seed))
}

fn walk(model: &dyn Differentiable, ball: Ball, samples: &[Sample], steps: usize, seed: u64) -> Result<Vec<Path>> {
    let (each, classes) = (model.shape().len() as usize, model.classes());
    let empty =
        Path { losses: Vec::with_capacity(steps + 1), wrong: Vec::with_capacity(steps + 1), without_gradient: 0 };
    let mut paths = vec![empty; samples.len()];
    let start = |s: &Sample| {
        ball.random_inside(s.clean, &mut random::stream(seed, Purpose::AttackStart, branch::DIAGNOSIS, s.key, 0))
    };
    let mut points: Vec<f32> = samples.iter().flat_map(start).collect();
    let mut direction = vec![0.0; each];
    for step in 0..=steps {
        let aims = || samples.iter().map(|s| Aim { label: s.label, target: None });
        let mut losses = Vec::new();
        let (logits, gradient) = model.pull(&points, &mut |logits| {
            let (values, weights) = Loss::CrossEntropy.rows(logits, aims());
            losses = values;
            Ok(weights)
        })?;
        for (i, path) in paths.iter_mut().enumerate() {
            path.losses.push(losses[i]);
            path.wrong.push(descending(&logits[i * classes..(i + 1) * classes])[0] != samples[i].label);
            let gradient = &gradient[i * each..(i + 1) * each];
            if step == steps {
                continue;
            }
            path.without_gradient += usize::from(vanishes(gradient));
            ball.steepest(gradient, &mut direction);
            let x = &mut points[i * each..(i + 1) * each];
            let size = 2.5 * ball.eps / steps as f32;
            x.iter_mut().zip(&direction).for_each(|(x, d)| *x += size * d);
            ball.project(x, samples[i].clean);
        }
    }
    Ok(paths)
}

/// The cross-entropy's gradient at each image, f32 `[n][h][w][c]`.
///
/// # Errors
/// If the model fails.
pub fn gradients(model: &dyn Differentiable, samples: &[Sample]) -> Result<Vec<f32>> {
    let of = |samples: &[Sample]| {
        let aims = || samples.iter().map(|s| Aim { label: s.label, target: None });
        let weigh = &mut |logits: &[f32]| Ok(Loss::CrossEntropy.rows(logits, aims()).1);
        Ok(model.pull(&joined(samples), weigh)?.1)
    };
    in_batches(model, samples, 1, of)
}

/// Whether no value of a gradient is a normal number.
pub fn vanishes(gradient: &[f32]) -> bool {
    gradient.iter().all(|g| !g.is_normal())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{D, Linear, images, samples};

    #[test]
    fn a_linear_models_loss_rises_to_the_balls_edge_and_stays() {
        let model = Linear::new(3, D);
        let pixels = images(10);
        let all = samples(&model, &pixels);
        let paths = paths(&model, Ball::linf(0.02), &all, 40, 1).unwrap();
        for path in &paths {
            assert_eq!((path.losses.len(), path.wrong.len(), path.without_gradient), (41, 41, 0));
            assert!(path.losses[40] > path.losses[0] && !path.still_rises(10) && !path.fell_silently());
        }
    }

    #[test]
    fn rises_and_silent_falls_are_seen() {
        let path = |losses: &[f64], wrong: &[bool]| Path {
            losses: losses.to_vec(),
            wrong: wrong.to_vec(),
            without_gradient: 0,
        };
        assert!(path(&[0.0, 1.0, 2.0, 3.0], &[false; 4]).still_rises(2));
        assert!(!path(&[0.0, 3.0, 2.0, 3.1], &[false; 4]).still_rises(2));
        assert!(!path(&[0.5; 4], &[false; 4]).still_rises(2));
        assert!(path(&[0.0; 3], &[false, true, false]).fell_silently());
        assert!(!path(&[0.0; 3], &[false, true, true]).fell_silently());
        assert!(vanishes(&[0.0, 1e-40, f32::NAN]) && !vanishes(&[0.0, 1e-20]));
    }
}

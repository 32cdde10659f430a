//! The adaptive attack on abstention: it wants a wrong class *and* a picture and a posterior so typical that
//! the device accepts it. It knows every statistic of the decision and differentiates through each.

use crate::abstaining::{AbstainingModel, Worth};
use crate::attack::{Attempt, Sample};
use crate::batches::in_batches;
use crate::error::{Error, Result};
use crate::model::Classifier;
use crate::threat::Ball;
use paradise_support::random::{self, Purpose, branch};

/// Weights of the penalty for what would be abstained, one walk each.
const WEIGHTS: [f64; 3] = [0.1, 1.0, 10.0];

/// Looks in each ball for a point that gets a wrong class accepted: signed or steepest steps that shrink, a walk for each
/// of three weights of the penalty. An image whose class is wrong and accepted as it is counts from the start.
///
/// # Errors
/// If the ball is out of range or the model fails.
pub fn evade(
    abstaining: &AbstainingModel,
    ball: Ball,
    samples: &[Sample],
    steps: usize,
    seed: u64,
) -> Result<Vec<Attempt>> {
    ball.check(abstaining.shape().len() as usize)?;
    in_batches(abstaining, samples, 1, |samples| batch(abstaining, ball, samples, steps, seed))
}

fn batch(
    abstaining: &AbstainingModel,
    ball: Ball,
    samples: &[Sample],
    steps: usize,
    seed: u64,
) -> Result<Vec<Attempt>> {
    let each = abstaining.shape().len() as usize;
    let width = 2 * abstaining.d();
    let mut found: Vec<Attempt> = samples.iter().map(Attempt::none).collect();
    let mut direction = vec![0.0f32; each];
    for (walk, weight) in WEIGHTS.into_iter().enumerate() {
        let mut standing: Vec<usize> = (0..samples.len()).filter(|i| !found[*i].broken).collect();
        let start = |i: &usize| match walk {
            // Clean images may be wrong and accepted already.
            0 => samples[*i].clean.to_vec(),
            _ => {
                let mut rng =
                    random::stream(seed, Purpose::AttackStart, branch::EVASION, samples[*i].key, walk as u64);
                ball.random_inside(samples[*i].clean, &mut rng)
            }
        };
        let mut points: Vec<Vec<f32>> = standing.iter().map(start).collect();
        for step in 0..=steps {
            if standing.is_empty() {
                break;
            }
            let mut fell = Vec::with_capacity(standing.len());
            let mut by_images = Vec::with_capacity(standing.len());
            let (_, mut gradient) = abstaining.pull(&points.concat(), &mut |posteriors| {
                if posteriors.iter().any(|v| !v.is_finite()) {
                    return Err(Error::NotFinite { what: "posteriors" });
                }
                let mut slopes = Vec::with_capacity(posteriors.len());
                let (mut slope, mut by_image) = (vec![0.0f64; width], vec![0.0f64; each]);
                for ((p, point), i) in posteriors.chunks_exact(width).zip(&points).zip(&standing) {
                    let (mu, s) = p.split_at(width / 2);
                    let Worth { class, accepted } = abstaining.judge(point, mu, s);
                    fell.push(class != samples[*i].label && accepted);
                    abstaining.worth((point, p), samples[*i].label, weight, &mut slope, &mut by_image);
                    by_images.push(by_image.clone());
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
                let slope = &mut gradient[k * each..(k + 1) * each];
                slope.iter_mut().zip(&by_images[k]).for_each(|(g, own)| *g += *own as f32);
                ball.steepest(slope, &mut direction);
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

//! HopSkipJump (Chen, Jordan & Wainwright, 2020): sees nothing but the predicted class. From a misclassified image it
//! walks along the decision boundary towards the clean one, with the boundary's normal estimated from random probes.

use crate::attack::{Attack, Attempt, Sample, Victim};
use crate::error::Result;
use crate::loss::descending;
use crate::model::Classifier;
use crate::threat::{Ball, Norm};
use paradise_support::random::{self, Purpose, branch};
use rand_chacha::ChaCha8Rng;

/// Probes of the first estimate; the t-th has sqrt(t) times as many.
const PROBES: f64 = 100.0;

/// Images that are tried as misclassified starts.
const STARTS: usize = 100;

/// The attack and its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopSkipJump {
    /// Queries of each image at most.
    pub queries: usize,
}

impl Attack for HopSkipJump {
    fn describe(&self) -> String {
        format!("HopSkipJump-{}", self.queries)
    }

    fn run(&self, victim: Victim, ball: Ball, samples: &[Sample], seed: u64) -> Result<Vec<Attempt>> {
        let one = |sample: &Sample| {
            let rng = random::stream(seed, Purpose::AttackStart, branch::HOP_SKIP_JUMP, sample.key, 0);
            Walk { model: victim.classifier(), ball, sample: *sample, rng, left: self.queries }.run()
        };
        samples.iter().map(one).collect()
    }
}

/// One image on its way.
struct Walk<'a> {
    model: &'a dyn Classifier,
    ball: Ball,
    sample: Sample<'a>,
    rng: ChaCha8Rng,
    left: usize,
}

impl Walk<'_> {
    /// Whether each of some images is misclassified; `None` when the queries are spent.
    fn ask(&mut self, images: &[f32]) -> Result<Option<Vec<bool>>> {
        let n = images.len() / self.sample.clean.len();
        if n > self.left {
            return Ok(None);
        }
        self.left -= n;
        let logits = self.model.logits(images)?;
        let fools = |z: &[f32]| descending(z)[0] != self.sample.label;
        Ok(Some(logits.chunks_exact(self.model.classes()).map(fools).collect()))
    }

    fn run(mut self) -> Result<Attempt> {
        let none = Attempt::none(&self.sample);
        if self.ball.eps == 0.0 {
            return Ok(none);
        }
        let Some(start) = self.start()? else { return Ok(none) };
        let d = start.len() as f64;
        // The paper's tolerance of the search for the boundary.
        let theta = match self.ball.norm {
            Norm::Linf => 1.0 / (d * d),
            Norm::L2 => 1.0 / (d * d.sqrt()),
        };
        let mut x = self.nearest_wrong(start, theta)?;
        for t in 1.. {
            if self.ball.holds(&x, self.sample.clean) {
                break;
            }
            let distance = self.ball.distance(&x, self.sample.clean);
            let reach = match (t, self.ball.norm) {
                (1, _) => 0.1,
                (_, Norm::Linf) => d * theta * distance,
                (_, Norm::L2) => d.sqrt() * theta * distance,
            };
            let probes = (PROBES * f64::from(t).sqrt()) as usize;
            let Some(direction) = self.normal(&x, reach as f32, probes)? else { break };
            let Some(further) = self.leap(&x, &direction, distance / f64::from(t).sqrt())? else { break };
            x = self.nearest_wrong(further, theta)?;
        }
        // Where the walk did not reach the ball, its nearest point of the ball is the try.
        let broken = self.ball.holds(&x, self.sample.clean);
        self.ball.project(&mut x, self.sample.clean);
        Ok(Attempt { broken, point: x })
    }

    /// A misclassified image: black, white, grey, then noise.
    fn start(&mut self) -> Result<Option<Vec<f32>>> {
        let n = self.sample.clean.len();
        for k in 0..STARTS {
            let x: Vec<f32> = match k {
                0..3 => vec![k as f32 / 2.0; n],
                _ => (0..n).map(|_| random::uniform(&mut self.rng)).collect(),
            };
            match self.ask(&x)? {
                Some(fools) if fools[0] => return Ok(Some(x)),
                Some(_) => (),
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The misclassified point nearest to the clean image on the way there from the misclassified `x`: a line in l2, a
    /// shrinking cube in l_inf.
    fn nearest_wrong(&mut self, x: Vec<f32>, theta: f64) -> Result<Vec<f32>> {
        let (clean, norm) = (self.sample.clean, self.ball.norm);
        let (mut low, mut high, tolerance) = match norm {
            Norm::Linf => {
                let distance = self.ball.distance(&x, clean) as f32;
                (0.0f32, distance, (theta as f32).min(distance * theta as f32).max(1e-6))
            }
            Norm::L2 => (0.0, 1.0, (theta as f32).max(1e-6)),
        };
        let between = |share: f32| -> Vec<f32> {
            let one = |(x, c): (&f32, &f32)| match norm {
                Norm::Linf => x.max(c - share).min(c + share),
                Norm::L2 => c + share * (x - c),
            };
            x.iter().zip(clean).map(one).collect()
        };
        let mut best = x.clone();
        while high - low > tolerance {
            let middle = (low + high) / 2.0;
            if middle <= low || middle >= high {
                break;
            }
            let candidate = between(middle);
            let Some(fools) = self.ask(&candidate)? else { break };
            if fools[0] {
                (high, best) = (middle, candidate);
                if self.ball.holds(&best, clean) {
                    break;
                }
            } else {
                low = middle;
            }
        }
        Ok(best)
    }

    /// The boundary's normal at `x`, pointing to where images are misclassified, from `probes` random directions.
    fn normal(&mut self, x: &[f32], reach: f32, probes: usize) -> Result<Option<Vec<f32>>> {
        let n = x.len();
        let probes = probes.min(self.left);
        let mut points = Vec::with_capacity(probes * n);
        for _ in 0..probes {
            let direction: Vec<f32> = (0..n)
                .map(|_| match self.ball.norm {
                    Norm::Linf => 2.0 * random::uniform(&mut self.rng) - 1.0,
                    Norm::L2 => random::normal(&mut self.rng),
                })
                .collect();
            let length = Norm::L2.length(&direction).max(1e-12) as f32;
            points.extend(x.iter().zip(&direction).map(|(x, d)| (x + reach * d / length).clamp(0.0, 1.0)));
        }
        if probes == 0 {
            return Ok(None);
        }
        let Some(fools) = self.ask(&points)? else { return Ok(None) };
        let sign = |f: bool| if f { 1.0f64 } else { -1.0 };
        let mean = fools.iter().map(|f| sign(*f)).sum::<f64>() / probes as f64;
        let all_alike = mean.abs() == 1.0;
        let mut normal = vec![0.0f64; n];
        for (point, f) in points.chunks_exact(n).zip(&fools) {
            let weight = if all_alike { mean } else { sign(*f) - mean };
            normal.iter_mut().zip(point).zip(x).for_each(|((s, p), x)| *s += weight * f64::from(p - x));
        }
        let normal: Vec<f32> = normal.into_iter().map(|v| v as f32).collect();
        let mut direction = vec![0.0; n];
        self.ball.steepest(&normal, &mut direction);
        Ok(Some(direction))
    }

    /// The first misclassified point along the direction, from `step` on and halving.
    fn leap(&mut self, x: &[f32], direction: &[f32], mut step: f64) -> Result<Option<Vec<f32>>> {
        for _ in 0..40 {
            let candidate: Vec<f32> =
                x.iter().zip(direction).map(|(x, d)| (x + step as f32 * d).clamp(0.0, 1.0)).collect();
            match self.ask(&candidate)? {
                Some(fools) if fools[0] => return Ok(Some(candidate)),
                Some(_) => step /= 2.0,
                None => return Ok(None),
            }
        }
        // Nothing but the point itself.
        Ok(Some(x.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{D, Linear, images, samples};

    #[test]
    fn it_comes_close_to_a_linear_models_boundary_by_decisions_alone() {
        let model = Linear::new(5, D);
        let pixels = images(30);
        let all = samples(&model, &pixels);
        for (norm, eps) in [(Norm::Linf, 0.08), (Norm::L2, 0.3)] {
            let ball = Ball { norm, eps };
            let found = HopSkipJump { queries: 4000 }.run(Victim::Black(&model), ball, &all, 3).unwrap();
            let (mut easy, mut fell) = (0, 0);
            for (sample, attempt) in all.iter().zip(&found) {
                let least = model.distance(norm, sample);
                assert!(ball.distance(&attempt.point, sample.clean) <= f64::from(eps) * (1.0 + 1e-5));
                assert!(least < f64::from(eps) || !attempt.broken);
                if least < 0.7 * f64::from(eps) {
                    easy += 1;
                    fell += usize::from(attempt.broken);
                }
            }
            assert!(easy > 5 && fell * 10 >= easy * 9, "{norm:?}: {fell} of {easy}");
        }
    }
}

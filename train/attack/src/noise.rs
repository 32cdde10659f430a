//! Random noise, the weakest attack of all: what does not beat it found nothing.

use crate::attack::{Attack, Attempt, Sample, Victim};
use crate::error::Result;
use crate::loss::{Aim, Loss, descending};
use crate::threat::{Ball, Norm};
use paradise_support::random::{self, Purpose, branch};

/// How noise is distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Uniform in the ball.
    Uniform,
    /// Normal with a standard deviation of eps / 2 a value (l2: of eps in all), projected to the ball.
    Gaussian,
}

/// Independent draws; the most misclassified one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noise {
    /// How noise is distributed.
    pub kind: Kind,
    /// Draws an image.
    pub draws: usize,
}

impl Attack for Noise {
    fn describe(&self) -> String {
        format!("{} noise, {} draws", if self.kind == Kind::Uniform { "uniform" } else { "Gaussian" }, self.draws)
    }

    fn run(&self, victim: Victim, ball: Ball, samples: &[Sample], seed: u64) -> Result<Vec<Attempt>> {
        let model = victim.classifier();
        let classes = model.classes();
        let mut attempts: Vec<Attempt> = samples.iter().map(Attempt::none).collect();
        let mut worst = vec![f64::NEG_INFINITY; samples.len()];
        let mut unused = vec![0.0; classes];
        for draw in 0..self.draws {
            let points: Vec<Vec<f32>> = samples.iter().map(|s| self.draw(ball, s, seed, draw as u64)).collect();
            let logits = model.logits(&points.concat())?;
            for (i, (x, z)) in points.into_iter().zip(logits.chunks_exact(classes)).enumerate() {
                let aim = Aim { label: samples[i].label, target: None };
                let margin = Loss::Margin.value(z, aim, &mut unused);
                if margin > worst[i] {
                    worst[i] = margin;
                    attempts[i] = Attempt { broken: descending(z)[0] != aim.label, point: x };
                }
            }
        }
        Ok(attempts)
    }
}

impl Noise {
    fn draw(&self, ball: Ball, sample: &Sample, seed: u64, draw: u64) -> Vec<f32> {
        let branch = match self.kind {
            Kind::Uniform => branch::UNIFORM_NOISE,
            Kind::Gaussian => branch::GAUSSIAN_NOISE,
        };
        let mut rng = random::stream(seed, Purpose::AttackProbe, branch, sample.key, draw);
        if self.kind == Kind::Uniform {
            return ball.random_inside(sample.clean, &mut rng);
        }
        let deviation = match ball.norm {
            Norm::Linf => ball.eps / 2.0,
            Norm::L2 => ball.eps / (sample.clean.len() as f32).sqrt(),
        };
        let mut x: Vec<f32> = sample.clean.iter().map(|c| c + deviation * random::normal(&mut rng)).collect();
        ball.project(&mut x, sample.clean);
        x
    }
}

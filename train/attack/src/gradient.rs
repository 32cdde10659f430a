//! Attacks that step along the gradient of a loss of the logits: FGSM, R+FGSM, PGD with steepest steps, and the
//! supplement's Adam form, untargeted, random-targeted and multi-targeted.
//!
//! All are one loop: start in the ball, step, project *after* the step (a clamp inside the graph would kill the
//! gradient at black pixels and overstate robustness), stop an image as soon as it falls.

use crate::attack::{Attack, Attempt, Sample, Victim};
use crate::error::Result;
use crate::launch::wrong_classes;
use crate::loss::{Aim, Loss, descending};
use crate::model::Differentiable;
use crate::threat::Ball;
use paradise_support::random::{self, Purpose, branch};

/// How a gradient becomes a step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    /// `eps * factor` times the steepest direction of the ball's norm.
    Steepest { factor: f32 },
    /// Adam on the perturbation with eta 0.1; where `decays`, 0.01 in the third quarter and 0.001 in the last.
    Adam { decays: bool },
}

/// Where a walk begins.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Start {
    Clean,
    /// Uniform in the ball.
    Random,
    /// At this share of eps from the clean image in every pixel, with random signs.
    Signs(f32),
}

/// Which class is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aims {
    /// Any wrong one.
    Any,
    /// One drawn for each image; only that one counts.
    Drawn,
    /// Every wrong one in turn, the likeliest first; any that is reached counts.
    Every,
}

/// A projected gradient attack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pgd {
    steps: usize,
    restarts: usize,
    rule: Rule,
    loss: Loss,
    start: Start,
    aims: Aims,
    strongest: bool,
}

impl Pgd {
    /// One step of eps from the clean image (Goodfellow et al., 2014).
    pub fn fgsm() -> Self {
        Self {
            steps: 1,
            restarts: 1,
            rule: Rule::Steepest { factor: 1.0 },
            loss: Loss::CrossEntropy,
            start: Start::Clean,
            aims: Aims::Any,
            strongest: false,
        }
    }

    /// R+FGSM (Tramer et al., 2017): half of eps in random signs, the other half along the gradient there.
    pub fn random_fgsm() -> Self {
        Self { rule: Rule::Steepest { factor: 0.5 }, start: Start::Signs(0.5), ..Self::fgsm() }
    }

    /// Steepest steps of 2.5 eps / steps on the cross-entropy, from random starts (Madry et al., 2017).
    pub fn sign(steps: usize, restarts: usize) -> Self {
        let rule = Rule::Steepest { factor: 2.5 / steps.max(1) as f32 };
        Self { steps, restarts, rule, start: Start::Random, ..Self::fgsm() }
    }

    /// The supplement's untargeted attack: Adam on the logit margin, from random starts (200 steps, 20 starts there).
    pub fn adam(steps: usize, restarts: usize) -> Self {
        let rule = Rule::Adam { decays: true };
        Self { steps, restarts, rule, loss: Loss::Margin, start: Start::Random, ..Self::fgsm() }
    }

    /// The supplement's random-targeted attack: one wrong class is drawn for each image, and only reaching it counts, so
    /// that its share of broken images is the attack's success rate.
    pub fn random_targeted(steps: usize, restarts: usize) -> Self {
        Self { aims: Aims::Drawn, ..Self::adam(steps, restarts) }
    }

    /// The supplement's multi-targeted attack (Gowal et al., 2019): every wrong class in turn, eta 0.1 throughout (200
    /// steps there).
    pub fn multi_targeted(steps: usize) -> Self {
        Self { aims: Aims::Every, rule: Rule::Adam { decays: false }, ..Self::adam(steps, 1) }
    }

    /// The same attack, but an image that fell walks on and keeps its most misclassified point instead of its first:
    /// as many images fall, and their points transfer to a model that differs a little.
    pub fn strongest(self) -> Self {
        Self { strongest: true, ..self }
    }

    /// The classes that each sample is led to, one walk each.
    fn targets(&self, model: &dyn Differentiable, samples: &[Sample], seed: u64) -> Result<Vec<Vec<Option<usize>>>> {
        let drawn = |sample: &Sample| {
            let mut rng = random::stream(seed, Purpose::AttackTarget, 0, sample.key, 0);
            let draw = random::below(&mut rng, model.classes() - 1);
            vec![Some(draw + usize::from(draw >= sample.label))]
        };
        Ok(match self.aims {
            Aims::Any => vec![vec![None]; samples.len()],
            Aims::Every => {
                wrong_classes(model, samples)?.into_iter().map(|w| w.into_iter().map(Some).collect()).collect()
            }
            Aims::Drawn => samples.iter().map(drawn).collect(),
        })
    }
}

impl Attack for Pgd {
    fn wants_one_class(&self) -> bool {
        self.aims == Aims::Drawn
    }

    fn describe(&self) -> String {
        let Self { steps, restarts, .. } = self;
        match (self.rule, self.start, self.aims) {
            (_, Start::Clean, _) => "FGSM".into(),
            (_, Start::Signs(_), _) => "R+FGSM".into(),
            (Rule::Steepest { .. }, ..) => format!("PGD-{steps} x {restarts}"),
            (Rule::Adam { .. }, _, Aims::Any) => format!("Adam-PGD-{steps} x {restarts}"),
            (Rule::Adam { .. }, _, Aims::Drawn) => format!("random-targeted Adam-PGD-{steps} x {restarts}"),
            (Rule::Adam { .. }, _, Aims::Every) => format!("multi-targeted Adam-PGD-{steps}"),
        }
    }

    fn run(&self, victim: Victim, ball: Ball, samples: &[Sample], seed: u64) -> Result<Vec<Attempt>> {
        let model = victim.differentiable(self)?;
        let mut best: Vec<Best> = samples.iter().map(|s| Best { margin: 0.0, at: Attempt::none(s) }).collect();
        let targets = self.targets(model, samples, seed)?;
        let rounds = targets.iter().map(Vec::len).max().unwrap_or(0);
        for walk in 0..self.restarts * rounds {
            let (restart, round) = (walk / rounds, walk % rounds);
            let starts = (0..samples.len()).filter(|i| !best[*i].at.broken);
            let walkers = starts.filter_map(|i| {
                let aim = Aim { label: samples[i].label, target: *targets[i].get(round)? };
                Some(Walker::new(self, ball, &samples[i], i, aim, seed, restart))
            });
            self.walk(model, ball, samples, walkers.collect(), &mut best)?;
        }
        Ok(best.into_iter().map(|b| b.at).collect())
    }
}

/// The best point of an image over all walks.
struct Best {
    /// By how much it is misclassified.
    margin: f32,
    at: Attempt,
}

/// One image on one walk.
struct Walker {
    sample: usize,
    aim: Aim,
    x: Vec<f32>,
    /// Adam's.
    moments: Vec<[f32; 2]>,
}

impl Walker {
    fn new(attack: &Pgd, ball: Ball, sample: &Sample, i: usize, aim: Aim, seed: u64, restart: usize) -> Self {
        let mut rng = random::stream(seed, Purpose::AttackStart, branch::GRADIENT, sample.key, restart as u64);
        let x = match attack.start {
            Start::Clean => sample.clean.to_vec(),
            Start::Signs(share) => {
                let step = |c: &f32| c + share * ball.eps * random::sign(&mut rng);
                let mut x: Vec<f32> = sample.clean.iter().map(step).collect();
                ball.project(&mut x, sample.clean);
                x
            }
            Start::Random => ball.random_inside(sample.clean, &mut rng),
        };
        let moments = match attack.rule {
            Rule::Adam { .. } => vec![[0.0; 2]; x.len()],
            Rule::Steepest { .. } => Vec::new(),
        };
        Self { sample: i, aim, x, moments }
    }

    fn step(&mut self, attack: &Pgd, ball: Ball, clean: &[f32], step: usize, gradient: &[f32]) {
        match attack.rule {
            Rule::Steepest { factor } => {
                let mut direction = vec![0.0; gradient.len()];
                ball.steepest(gradient, &mut direction);
                self.x.iter_mut().zip(&direction).for_each(|(x, d)| *x += ball.eps * factor * d);
            }
            Rule::Adam { decays } => {
                let eta = match 4 * step / attack.steps.max(1) {
                    2 if decays => 0.01,
                    3.. if decays => 0.001,
                    _ => 0.1,
                };
                let power = step as i32 + 1;
                let (bias_1, bias_2) = (1.0 - 0.9f32.powi(power), 1.0 - 0.999f32.powi(power));
                for ((x, [m, v]), g) in self.x.iter_mut().zip(&mut self.moments).zip(gradient) {
                    *m = 0.9 * *m + 0.1 * g;
                    *v = 0.999 * *v + 0.001 * g * g;
                    *x += eta * (*m / bias_1) / ((*v / bias_2).sqrt() + 1e-8);
                }
            }
        }
        ball.project(&mut self.x, clean);
    }
}

impl Pgd {
    fn walk(
        &self,
        model: &dyn Differentiable,
        ball: Ball,
        samples: &[Sample],
        mut walkers: Vec<Walker>,
        best: &mut [Best],
    ) -> Result<()> {
        let each = model.shape().len() as usize;
        for step in 0..self.steps {
            if walkers.is_empty() {
                return Ok(());
            }
            let points: Vec<f32> = walkers.iter().flat_map(|w| &w.x).copied().collect();
            let (logits, gradient) =
                model.pull(&points, &mut |logits| Ok(self.loss.rows(logits, walkers.iter().map(|w| w.aim)).1))?;
            let stays = self.look(&walkers, &logits, best);
            for ((w, g), _) in walkers.iter_mut().zip(gradient.chunks_exact(each)).zip(&stays).filter(|(_, s)| **s) {
                w.step(self, ball, samples[w.sample].clean, step, g);
            }
            let mut stays = stays.into_iter();
            walkers.retain(|_| stays.next().unwrap_or(true));
        }
        let points: Vec<f32> = walkers.iter().flat_map(|w| &w.x).copied().collect();
        let logits = if walkers.is_empty() { Vec::new() } else { model.logits(&points)? };
        self.look(&walkers, &logits, best);
        for w in walkers {
            let best = &mut best[w.sample];
            if !best.at.broken {
                best.at.point = w.x;
            }
        }
        Ok(())
    }

    /// Records the walkers that fell; returns who walks on.
    fn look(&self, walkers: &[Walker], logits: &[f32], best: &mut [Best]) -> Vec<bool> {
        let classes = logits.len() / walkers.len().max(1);
        let one = |(k, w): (usize, &Walker)| {
            let z = &logits[k * classes..(k + 1) * classes];
            let class = descending(z)[0];
            let fell = match w.aim.target {
                Some(target) if self.aims == Aims::Drawn => class == target,
                _ => class != w.aim.label,
            };
            let (margin, best) = (z[class] - z[w.aim.label], &mut best[w.sample]);
            if fell && (!best.at.broken || margin > best.margin) {
                *best = Best { margin, at: Attempt { broken: true, point: w.x.clone() } };
            }
            !fell || self.strongest
        };
        walkers.iter().enumerate().map(one).collect()
    }
}

//! Attacks that follow the gradient of the loss: FGSM, PGD with signed steps, and the supplement's Adam form.
//!
//! All are one loop: start in the ball, step, project *after* the step (a clamp inside the graph would kill the
//! gradient at black pixels and overstate robustness), stop an image as soon as it is misclassified.

use super::{Outcome, threat};
use crate::dataset::{self, Dataset};
use crate::encoder::Encoder;
use crate::random::{self, Purpose};
use anyhow::{Result, ensure};
use candle_core::{D, Tensor, Var};
use candle_nn::loss::cross_entropy;

/// Images attacked at once; the result does not depend on it.
const BATCH: usize = 250;

/// What is maximised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// Cross-entropy.
    CrossEntropy,
    /// `max_{i != y} logit_i - logit_y`, the supplement's untargeted loss.
    Margin,
}

/// How a gradient becomes a step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    /// `eps * factor * sign(g)`.
    Sign { factor: f32 },
    /// Adam on the perturbation, eta 0.1 for the first half, 0.01 for a quarter, 0.001 for the last.
    Adam,
}

/// A projected gradient attack inside the l_inf ball.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pgd {
    steps: usize,
    restarts: usize,
    rule: Rule,
    loss: Loss,
    random_start: bool,
    strongest: bool,
}

impl Pgd {
    /// One signed step of eps from the clean image (Goodfellow et al., 2014).
    pub fn fgsm() -> Self {
        let rule = Rule::Sign { factor: 1.0 };
        Self { steps: 1, restarts: 1, rule, loss: Loss::CrossEntropy, random_start: false, strongest: false }
    }

    /// Signed steps of 2.5 eps / steps on the cross-entropy, from random starts (Madry et al., 2017).
    pub fn sign(steps: usize, restarts: usize) -> Self {
        let rule = Rule::Sign { factor: 2.5 / steps.max(1) as f32 };
        Self { steps, restarts, rule, loss: Loss::CrossEntropy, random_start: true, strongest: false }
    }

    /// The supplement's untargeted attack: Adam on the logit margin, from random starts.
    pub fn adam(steps: usize, restarts: usize) -> Self {
        Self { steps, restarts, rule: Rule::Adam, loss: Loss::Margin, random_start: true, strongest: false }
    }

    /// The same attack, but an image that fell walks on and keeps its most misclassified point instead of its first:
    /// as many images fall, and their points transfer to a model that differs a little.
    pub fn strongest(self) -> Self {
        Self { strongest: true, ..self }
    }

    /// The attack's name and settings, as tables print it.
    pub fn describe(&self) -> String {
        match (self.rule, self.random_start) {
            (Rule::Sign { .. }, false) => "FGSM".into(),
            (Rule::Sign { .. }, true) => format!("PGD-{} x {}", self.steps, self.restarts),
            (Rule::Adam, _) => format!("Adam-PGD-{} x {}", self.steps, self.restarts),
        }
    }

    /// Attacks every image of `set` within `eps`.
    ///
    /// Starts are keyed by (seed, image, restart), so neither batching nor which images fell before matters.
    ///
    /// # Errors
    /// If eps is not in [0, 1], or logits are not finite.
    pub fn run(&self, encoder: &Encoder, set: &Dataset, eps: f32, seed: u64) -> Result<Outcome> {
        self.run_reporting(encoder, set, eps, seed, &mut |_| {})
    }

    /// [`Pgd::run`], calling `done` with the number of images whenever a batch is finished.
    ///
    /// # Errors
    /// As [`Pgd::run`].
    pub fn run_reporting(
        &self,
        encoder: &Encoder,
        set: &Dataset,
        eps: f32,
        seed: u64,
        done: &mut dyn FnMut(usize),
    ) -> Result<Outcome> {
        ensure!((0.0..=1.0).contains(&eps), "eps {eps} is not in 0..=1");
        let mut outcome = Outcome { eps, broken: vec![false; set.len()], points: Vec::new() };
        outcome.points = set.images.iter().map(|&p| f32::from(p) / 255.0).collect();
        let all: Vec<usize> = (0..set.len()).collect();
        // No step from no offset: an image that is wrong as it is needs no attack, and is never counted as robust.
        let look = Self { steps: 0, random_start: false, ..*self };
        for ids in all.chunks(BATCH) {
            Walk::new(&look, encoder, set, eps, seed, 0, ids.to_vec()).run(&mut outcome)?;
            for restart in 0..self.restarts {
                let active = ids.iter().copied().filter(|&i| !outcome.broken[i]).collect();
                Walk::new(self, encoder, set, eps, seed, restart, active).run(&mut outcome)?;
            }
            done(ids.len());
        }
        Ok(outcome)
    }
}

/// One restart over the images of a batch that still stand.
struct Walk<'a> {
    attack: &'a Pgd,
    encoder: &'a Encoder<'a>,
    set: &'a Dataset,
    eps: f32,
    active: Vec<usize>,
    /// Current points of the active images.
    points: Vec<f32>,
    /// Adam's moments of the active images.
    moments: [Vec<f32>; 2],
    /// Largest margin of a misclassified point so far, 0 before the first.
    margins: Vec<f32>,
}

impl<'a> Walk<'a> {
    fn new(
        attack: &'a Pgd,
        encoder: &'a Encoder<'a>,
        set: &'a Dataset,
        eps: f32,
        seed: u64,
        restart: usize,
        active: Vec<usize>,
    ) -> Self {
        let mut points = Vec::with_capacity(active.len() * set.shape.len() as usize);
        for &id in &active {
            let mut rng = random::stream(seed, Purpose::AttackStart, 0, id as u64, restart as u64);
            points.extend(set.image(id).iter().map(|&p| {
                let clean = f32::from(p) / 255.0;
                let offset = if attack.random_start { eps * (2.0 * random::uniform(&mut rng) - 1.0) } else { 0.0 };
                threat::project(clean + offset, clean, eps)
            }));
        }
        let moments = match attack.rule {
            Rule::Adam => [vec![0.0; points.len()], vec![0.0; points.len()]],
            Rule::Sign { .. } => [Vec::new(), Vec::new()],
        };
        let margins = vec![0.0; active.len()];
        Self { attack, encoder, set, eps, active, points, moments, margins }
    }

    fn run(mut self, outcome: &mut Outcome) -> Result<()> {
        for step in 0..self.attack.steps {
            if self.active.is_empty() {
                return Ok(());
            }
            let (logits, gradient) = self.gradient()?;
            let gradient = self.retire(&logits, gradient, outcome)?;
            self.advance(step, &gradient);
        }
        if !self.active.is_empty() {
            let x = dataset::tensor(self.points.clone(), self.active.len(), self.set.shape)?;
            let logits = self.encoder.logits(&x)?;
            self.retire(&logits, Vec::new(), outcome)?;
        }
        let each = self.set.shape.len() as usize;
        for (id, point) in self.active.iter().zip(self.points.chunks_exact(each)) {
            if outcome.broken[*id] {
                continue;
            }
            outcome.points[id * each..(id + 1) * each].copy_from_slice(point);
        }
        Ok(())
    }

    /// Logits at the current points and the gradient of the summed loss with respect to them.
    fn gradient(&self) -> Result<(Tensor, Vec<f32>)> {
        let n = self.active.len();
        let x = Var::from_tensor(&dataset::tensor(self.points.clone(), n, self.set.shape)?)?;
        let logits = self.encoder.logits(&x)?;
        let labels: Vec<u32> = self.active.iter().map(|&i| u32::from(self.set.labels[i])).collect();
        let labels = Tensor::from_vec(labels, n, logits.device())?;
        let loss = match self.attack.loss {
            // The sum, so that each image's gradient is its own whatever the batch.
            Loss::CrossEntropy => (cross_entropy(&logits, &labels)? * n as f64)?,
            Loss::Margin => margins(&logits, &labels)?.sum_all()?,
        };
        let grads = loss.backward()?;
        let gradient = match grads.get(&x) {
            Some(g) => g.flatten_all()?.to_vec1::<f32>()?,
            None => vec![0.0; self.points.len()],
        };
        Ok((logits.detach(), gradient))
    }

    /// Records the images that are misclassified now and drops them; returns the gradient of those that stand.
    fn retire(&mut self, logits: &Tensor, gradient: Vec<f32>, outcome: &mut Outcome) -> Result<Vec<f32>> {
        let rows = logits.to_vec2::<f32>()?;
        ensure!(rows.iter().flatten().all(|l| l.is_finite()), "the model's logits are not finite");
        let each = self.set.shape.len() as usize;
        let mut keep = Vec::with_capacity(self.active.len());
        for (k, &id) in self.active.iter().enumerate() {
            let class = paradise_engine::classifier::argmax(&rows[k]);
            let label = self.set.labels[id] as usize;
            let (fell, margin) = (class != label, rows[k][class] - rows[k][label]);
            if fell && (!outcome.broken[id] || margin > self.margins[k]) {
                outcome.broken[id] = true;
                self.margins[k] = margin;
                outcome.points[id * each..(id + 1) * each].copy_from_slice(&self.points[k * each..(k + 1) * each]);
            }
            keep.push(!fell || self.attack.strongest);
        }
        if keep.iter().all(|k| *k) {
            return Ok(gradient);
        }
        let compact = |values: &[f32]| -> Vec<f32> {
            values.chunks_exact(each).zip(&keep).filter(|(_, k)| **k).flat_map(|(v, _)| v).copied().collect()
        };
        self.points = compact(&self.points);
        self.moments = [compact(&self.moments[0]), compact(&self.moments[1])];
        let mut flags = keep.iter();
        self.margins.retain(|_| *flags.next().unwrap_or(&true));
        let mut flags = keep.iter();
        self.active.retain(|_| *flags.next().unwrap_or(&true));
        Ok(compact(&gradient))
    }

    fn advance(&mut self, step: usize, gradient: &[f32]) {
        let each = self.set.shape.len() as usize;
        let steps = self.attack.steps;
        let eta = if 2 * step < steps {
            0.1
        } else if 4 * step < 3 * steps {
            0.01
        } else {
            0.001
        };
        let power = step as i32 + 1;
        let (bias_1, bias_2) = (1.0 - 0.9f32.powi(power), 1.0 - 0.999f32.powi(power));
        for (at, x) in self.points.iter_mut().enumerate() {
            let g = gradient[at];
            let change = match self.attack.rule {
                // f32::signum has no zero; a zero gradient moves nothing.
                Rule::Sign { factor } => self.eps * factor * f32::from(i8::from(g > 0.0) - i8::from(g < 0.0)),
                Rule::Adam => {
                    let m = &mut self.moments[0][at];
                    *m = 0.9 * *m + 0.1 * g;
                    let m = *m / bias_1;
                    let v = &mut self.moments[1][at];
                    *v = 0.999 * *v + 0.001 * g * g;
                    eta * m / ((*v / bias_2).sqrt() + 1e-8)
                }
            };
            let clean = f32::from(self.set.image(self.active[at / each])[at % each]) / 255.0;
            *x = threat::project(*x + change, clean, self.eps);
        }
    }
}

/// `max_{i != y} logit_i - logit_y` of each row.
fn margins(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let labels = labels.unsqueeze(1)?;
    let own = logits.gather(&labels, 1)?;
    let far = Tensor::full(-1e9f32, own.shape(), own.device())?;
    let others = logits.detach().scatter(&labels, &far, 1)?;
    let best = others.argmax_keepdim(D::Minus1)?;
    Ok((logits.gather(&best, 1)? - own)?.squeeze(1)?)
}

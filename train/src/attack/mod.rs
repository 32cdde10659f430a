//! Attacks: perturbations inside a threat ball that change the class. One file an attack family; all are called through
//! [`launch`], on any model that gives logits ([`model::Classifier`]; a closure is a [`model::Function`]) and, for those
//! that follow gradients, the way back to pixels ([`model::Differentiable`]).
//!
//! ```
//! use paradise_train::attack::{Sample, Victim, launch, model::Function, square::Square, threat::Ball};
//! # fn main() -> anyhow::Result<()> {
//! // Two classes by the mean of four pixels.
//! let logits = |x: &[f32]| Ok(x.chunks_exact(4).flat_map(|x| [x.iter().sum::<f32>() - 2.0, 0.0]).collect());
//! let model = Function { shape: paradise_engine::Shape::new(2, 2, 1), classes: 2, logits };
//! let image = [0.52, 0.54, 0.53, 0.51];
//! let samples = [Sample { clean: &image, label: 0, key: 0 }];
//! let square = Square { queries: 50, ..Square::default() };
//! let attempt = &launch(&square, Victim::Black(&model), Ball::linf(8.0 / 255.0), &samples, 0, &|_| ())?[0];
//! assert!(attempt.broken && attempt.point.iter().sum::<f32>() < 2.0);
//! # Ok(())
//! # }
//! ```

pub mod apgd;
pub mod diagnosis;
pub mod evasion;
pub mod expectation;
pub mod fab;
pub mod gradient;
pub mod hop_skip_jump;
pub mod int8;
pub mod known;
#[cfg(test)]
mod linear;
pub mod loss;
pub mod model;
pub mod noise;
pub mod served;
pub mod square;
pub mod suite;
pub mod threat;
pub mod transfer;

use crate::dataset::Dataset;
use crate::statistics::Proportion;
use anyhow::{Context, Result, anyhow, ensure};
use loss::descending;
use model::{Classifier, Differentiable};
use std::sync::atomic::{AtomicUsize, Ordering};
use threat::Ball;

/// An image under attack.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// f32 `[h][w][c]` in [0, 1].
    pub clean: &'a [f32],
    /// Its class.
    pub label: usize,
    /// What its randomness is keyed by, whatever the batch.
    pub key: u64,
}

/// How one image came out of an attack.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Whether the point is misclassified (as the target, where an attack has only one).
    pub broken: bool,
    /// f32 `[h][w][c]` inside ball and box: the point that broke the image, or the last or best try.
    pub point: Vec<f32>,
}

impl Attempt {
    /// The clean image, not broken.
    fn none(sample: &Sample) -> Self {
        Self { broken: false, point: sample.clean.to_vec() }
    }
}

/// A model under attack: what it lets an attack see.
#[derive(Clone, Copy)]
pub enum Victim<'a> {
    /// Logits and their gradients.
    White(&'a dyn Differentiable),
    /// Logits only.
    Black(&'a dyn Classifier),
}

impl<'a> Victim<'a> {
    /// Its logits.
    pub fn classifier(self) -> &'a dyn Classifier {
        match self {
            Self::White(model) => model,
            Self::Black(model) => model,
        }
    }

    /// Its gradients.
    ///
    /// # Errors
    /// With the attack's name, if there are none.
    pub fn differentiable(self, attack: &dyn Attack) -> Result<&'a dyn Differentiable> {
        match self {
            Self::White(model) => Ok(model),
            Self::Black(_) => {
                anyhow::bail!("{} follows gradients, and this model gives none", attack.describe())
            }
        }
    }
}

/// An attack with its budget.
pub trait Attack: Send + Sync {
    /// Name and settings, as tables print them.
    fn describe(&self) -> String;

    /// Whether only one class, drawn for each image, counts: then tables give the attack's success rate.
    fn wants_one_class(&self) -> bool {
        false
    }

    /// Attacks samples that are classified right as they are ([`launch`] sees to that), each on its own: batches change
    /// nothing, and randomness is keyed by seed and sample.
    ///
    /// # Errors
    /// If the model fails, or gives less than the attack needs.
    fn run(&self, victim: Victim, ball: Ball, samples: &[Sample], seed: u64) -> Result<Vec<Attempt>>;
}

/// Runs `attack` on every sample, in parallel batches; `done` hears of each finished batch.
///
/// An image that is misclassified as it is counts as broken by every attack, so robust accuracy never exceeds clean
/// accuracy, and eps = 0 gives clean accuracy exactly.
///
/// # Errors
/// If the ball is out of range, an image has another size or leaves [0, 1], a label is no class, logits are not finite,
/// or the attack cannot run on this model.
pub fn launch(
    attack: &dyn Attack,
    victim: Victim,
    ball: Ball,
    samples: &[Sample],
    seed: u64,
    done: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Attempt>> {
    let model = victim.classifier();
    let (each, classes) = (model.shape().len() as usize, model.classes());
    ball.check(each)?;
    ensure!(classes >= 2, "a model of {classes} classes cannot be fooled");
    for (i, sample) in samples.iter().enumerate() {
        ensure!(sample.clean.len() == each, "image {i} has {} values, the model takes {each}", sample.clean.len());
        ensure!(sample.clean.iter().all(|v| (0.0..=1.0).contains(v)), "image {i} has values outside [0, 1]");
        ensure!(sample.label < classes, "image {i} has class {}, the model has {classes}", sample.label);
    }
    let batch = |samples: &[Sample]| -> Result<Vec<Attempt>> {
        let logits = model.logits(&joined(samples))?;
        let wrong = |(s, z): (&Sample, &[f32])| descending(z)[0] != s.label;
        let broken: Vec<bool> = samples.iter().zip(logits.chunks_exact(classes)).map(wrong).collect();
        let standing: Vec<Sample> = samples.iter().zip(&broken).filter(|(_, b)| !**b).map(|(s, _)| *s).collect();
        let mut attempts =
            if standing.is_empty() { Vec::new() } else { attack.run(victim, ball, &standing, seed)? }.into_iter();
        let clean = |s: &Sample| Attempt { broken: true, point: s.clean.to_vec() };
        let all = samples.iter().zip(&broken).map(|(s, b)| if *b { Some(clean(s)) } else { attempts.next() });
        let all = all.collect::<Option<Vec<_>>>().context("an attack lost an image")?;
        done(samples.len());
        Ok(all)
    };
    in_batches(model, samples, 1, batch)
}

/// The wrong classes of each sample as it is, the likeliest first.
pub(crate) fn wrong_classes(model: &dyn Classifier, samples: &[Sample]) -> Result<Vec<Vec<usize>>> {
    let logits = model.logits(&joined(samples))?;
    let wrong = |(s, z): (&Sample, &[f32])| descending(z).into_iter().filter(|c| *c != s.label).collect();
    Ok(samples.iter().zip(logits.chunks_exact(model.classes())).map(wrong).collect())
}

/// The clean images side by side.
pub(crate) fn joined(samples: &[Sample]) -> Vec<f32> {
    samples.iter().flat_map(|s| s.clean).copied().collect()
}

/// `work` on batches that suit the model, its results in order; an image is `unit` of the `values`.
pub(crate) fn in_batches<T: Sync, R: Send>(
    model: &dyn Classifier,
    values: &[T],
    unit: usize,
    work: impl Fn(&[T]) -> Result<Vec<R>> + Sync,
) -> Result<Vec<R>> {
    let (size, parallel) = model.batch();
    let done = if parallel {
        let even = (values.len() / unit).div_ceil(rayon::current_num_threads());
        let batches: Vec<&[T]> = values.chunks(size.min(even).max(1) * unit).collect();
        each_on_one_thread(&batches, |batch| work(batch))?
    } else {
        // A GPU wants few, large batches.
        values.chunks(size.max(1) * unit).map(work).collect::<Result<Vec<_>>>()?
    };
    Ok(done.into_iter().flatten().collect())
}

/// `work` on every item, an item a thread. Parallel loops inside stay on their thread: stealing whole items from within
/// one another would nest them without bound.
fn each_on_one_thread<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<(usize, R)>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
        pool.install(|| {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(at) else { return Ok(done) };
                match work(item) {
                    Ok(result) => done.push((at, result)),
                    Err(error) => {
                        // The others need not go on.
                        next.store(items.len(), Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
        })
    };
    let threads = rayon::current_num_threads().min(items.len());
    let mut all = std::thread::scope(|scope| -> Result<Vec<(usize, R)>> {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let mut all = Vec::with_capacity(items.len());
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow!("a worker thread panicked"))??);
        }
        Ok(all)
    })?;
    all.sort_unstable_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

/// Pixels of a set in [0, 1].
pub fn pixels(set: &Dataset) -> Vec<f32> {
    set.images.iter().map(|&p| f32::from(p) / 255.0).collect()
}

/// The images of a set, keyed by their place in it; `pixels` are [`pixels`] of the set.
pub fn samples<'a>(set: &Dataset, pixels: &'a [f32]) -> Vec<Sample<'a>> {
    let images = pixels.chunks_exact(set.shape.len() as usize);
    images
        .zip(&set.labels)
        .enumerate()
        .map(|(i, (clean, label))| Sample { clean, label: usize::from(*label), key: i as u64 })
        .collect()
}

/// What an attack did to each image of a set.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Where perturbed images may be.
    pub ball: Ball,
    /// Whether each image was misclassified at some point of the ball (or from the start).
    pub broken: Vec<bool>,
    /// f32 `[n][h][w][c]`: the misclassified point, or the last or best try where none was found.
    pub points: Vec<f32>,
}

impl Outcome {
    /// [`launch`] over a whole set.
    ///
    /// # Errors
    /// As [`launch`].
    pub fn of(attack: &dyn Attack, victim: Victim, ball: Ball, set: &Dataset, seed: u64) -> Result<Self> {
        let pixels = pixels(set);
        let attempts = launch(attack, victim, ball, &samples(set, &pixels), seed, &|_| ())?;
        Ok(Self::from_attempts(ball, attempts))
    }

    /// The attempts of a set, in order.
    pub fn from_attempts(ball: Ball, attempts: Vec<Attempt>) -> Self {
        let broken = attempts.iter().map(|a| a.broken).collect();
        Self { ball, broken, points: attempts.into_iter().flat_map(|a| a.point).collect() }
    }

    /// The share of images that kept their class.
    pub fn robust_share(&self) -> Proportion {
        Proportion::of(self.broken.iter().map(|b| !b))
    }

    /// The per-image worst case of two attacks on the same images.
    ///
    /// # Panics
    /// If they are not of the same images.
    pub fn worst(mut self, other: &Self) -> Self {
        assert_eq!(self.broken.len(), other.broken.len(), "outcomes of the same images");
        let each = self.points.len() / self.broken.len().max(1);
        for i in 0..self.broken.len() {
            if !self.broken[i] && other.broken[i] {
                self.broken[i] = true;
                let range = i * each..(i + 1) * each;
                self.points[range.clone()].copy_from_slice(&other.points[range]);
            }
        }
        self
    }

    /// The points on the 8-bit grid, inside the ball: what could be sent as an image file.
    pub fn on_grid(&self, clean: &Dataset) -> Dataset {
        let each = clean.shape.len() as usize;
        let images = self.points.chunks_exact(each).zip(clean.images.chunks_exact(each));
        let images = images.flat_map(|(x, pixels)| self.ball.on_grid(x, pixels)).collect();
        Dataset { shape: clean.shape, images, labels: clean.labels.clone() }
    }
}

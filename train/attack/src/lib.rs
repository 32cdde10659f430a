//! Adversarial attacks on any classifier: a closure is enough, and no framework is needed.
//!
//! An attack looks inside a threat ball around an image for a point of another class. All are called through [`launch`], or
//! by name through [`suite`], on any model that gives logits ([`Classifier`]; a closure is a [`Function`]) and, for those
//! that follow gradients, the way back to pixels ([`Differentiable`]).
//!
//! | module | what it holds |
//! |---|---|
//! | [`gradient`] | FGSM, R+FGSM, PGD, Adam-PGD, targeted forms |
//! | [`apgd`], [`fab`], [`square`] | AutoAttack's parts: Auto-PGD on cross-entropy, DLR and targets, FAB, Square Attack |
//! | [`hop_skip_jump`], [`noise`], [`transfer`], [`known_points`] | by decisions alone, by chance, by another model's points |
//! | [`expectation`] | any of them on the average answer of a model that answers at random |
//! | [`abstaining`], [`evasion`] | the adaptive attack on a model that abstains: wrong *and* accepted |
//! | [`certificate`] | l2 radii that are proved, by randomised smoothing |
//! | [`diagnosis`] | walks that are watched, for checks that tell robustness from masked gradients |
//! | [`suite`] | attacks and groups of them by name, AutoAttack in one call |
//! | [`threat`], [`loss`], [`int8`] | balls and projections, what attacks raise, the int8 engine as a victim |
//!
//! ```
//! use paradise_attack::{Ball, Function, Sample, Victim, launch, square::Square};
//! # fn main() -> paradise_attack::Result<()> {
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
#![deny(missing_docs)]

pub mod abstaining;
pub mod apgd;
mod attack;
mod batches;
pub mod certificate;
pub mod diagnosis;
mod error;
pub mod evasion;
pub mod expectation;
pub mod fab;
pub mod gradient;
pub mod hop_skip_jump;
pub mod int8;
pub mod known_points;
mod launch;
mod limits;
#[cfg(test)]
mod linear;
pub mod loss;
mod model;
pub mod noise;
mod outcome;
pub mod square;
mod statistics;
pub mod suite;
pub mod threat;
pub mod transfer;

pub use attack::{Attack, Attempt, Sample, Victim};
pub use batches::in_batches;
pub use error::{Error, Result};
pub use launch::{joined, launch};
pub use model::{Classifier, Differentiable, Function, checked_logits};
pub use outcome::{Outcome, pixels, samples};
pub use suite::autoattack;
pub use threat::{Ball, Norm};

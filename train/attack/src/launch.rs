//! The one way in which attacks are run: samples are checked, those that are wrong as they are count as broken, the rest
//! goes to the attack in batches that suit the model.

use crate::attack::{Attack, Attempt, Sample, Victim};
use crate::batches::in_batches;
use crate::error::{Error, Result};
use crate::loss::descending;
use crate::model::Classifier;
use crate::threat::Ball;

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
    if classes < 2 {
        return Err(Error::Classes { what: "an attack".into(), need: 2, got: classes });
    }
    for (i, sample) in samples.iter().enumerate() {
        if sample.clean.len() != each {
            return Err(Error::Values { image: i, got: sample.clean.len(), need: each });
        }
        if !sample.clean.iter().all(|v| (0.0..=1.0).contains(v)) {
            return Err(Error::Pixels { image: i });
        }
        if sample.label >= classes {
            return Err(Error::Label { image: i, label: sample.label, classes });
        }
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
        let all = all.collect::<Option<Vec<_>>>().ok_or_else(|| Error::Lost { attack: attack.describe() })?;
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
pub fn joined(samples: &[Sample]) -> Vec<f32> {
    samples.iter().flat_map(|s| s.clean).copied().collect()
}

//! Fits what a device needs to know when not to trust itself, from the int8 engine's own outputs: the aggregate
//! posterior (training images), calibration tables and thresholds (calibration images).

use crate::encoder::Network;
use crate::prediction;
use crate::quantise::assemble::{Assembly, Confidence, Identity};
use crate::quantise::plain;
use anyhow::{Result, ensure};
use paradise_data::{Dataset, Splits};
use paradise_engine::{Model, Thresholds};
use paradise_evaluate::prediction::Prediction;

/// Training images on which activation ranges are observed.
pub const RANGE_IMAGES: usize = 2000;

/// Training images behind the mixture, where they are not in memory.
const MIXTURE_IMAGES: usize = 50_000;

/// Smallest variance of a mixture component, so that a constant dimension cannot dominate the rate.
const VARIANCE_FLOOR: f64 = 1e-4;

/// Who answers while confidence is fitted: each image's record under a model's mixture and tables.
pub type Answers<'a> = &'a dyn Fn(&Model, &Dataset) -> Result<Vec<Prediction>>;

/// The finished `model.pmq`, its confidence fitted to the records that `answers` gives: the int8 engine's for what is
/// exported.
///
/// # Errors
/// If a class has no training image or the model is not valid.
pub fn fit(
    assembly: &Assembly,
    identity: &Identity,
    splits: &Splits,
    false_abstain: f64,
    answers: Answers,
) -> Result<Vec<u8>> {
    assembly.finish(identity, &fitted(assembly, identity, splits, false_abstain, answers)?)
}

/// Mixture, tables and thresholds that [`fit`] writes down.
///
/// # Errors
/// As [`fit`].
pub fn fitted(
    assembly: &Assembly,
    identity: &Identity,
    splits: &Splits,
    false_abstain: f64,
    answers: Answers,
) -> Result<Confidence> {
    ensure!((0.0..1.0).contains(&false_abstain), "false-abstain rate {false_abstain} is not in 0..1");
    let mut confidence = Confidence::placeholder(assembly.latent())?;
    let bytes = assembly.finish(identity, &confidence)?;
    let train = splits.train.sample(MIXTURE_IMAGES)?;
    let training = answers(&Model::parse(&bytes)?, &train)?;
    mixture(&mut confidence, &training, &train.labels, splits.labels.len())?;

    let bytes = assembly.finish(identity, &confidence)?;
    let calibration = answers(&Model::parse(&bytes)?, &splits.calibration)?;
    confidence.rates = calibration.iter().map(|r| r.rate_nats).collect();
    confidence.entropies = calibration.iter().map(|r| r.posterior_entropy_nats).collect();

    let bytes = assembly.finish(identity, &confidence)?;
    let calibration = answers(&Model::parse(&bytes)?, &splits.calibration)?;
    confidence.thresholds = thresholds(&calibration, false_abstain);
    Ok(confidence)
}

/// A `model.pmq` whose mixture, tables and thresholds are those of the folded network in float, for [`prediction::predict`].
///
/// # Errors
/// If the network has no int8 form, or a class no training image.
pub fn fit_float(network: &Network, splits: &Splits, false_abstain: f64) -> Result<Vec<u8>> {
    let assembly = plain(network, &splits.train.head(RANGE_IMAGES)?)?;
    let encoder = &network.frozen();
    let answers = |model: &Model, set: &Dataset| prediction::predict(encoder, model, set);
    let labels = splits.labels.clone();
    let identity = Identity { name: "float".into(), labels, policy: splits.policy, made: None };
    fit(&assembly, &identity, splits, false_abstain, &answers)
}

/// One Gaussian a class: `m_c` the mean of mu, `s_c^2` the variance of mu plus the mean of sigma^2, floored.
fn mixture(confidence: &mut Confidence, records: &[Prediction], labels: &[u16], classes: usize) -> Result<()> {
    let d = records.first().map_or(0, |r| r.mu.len());
    let cells = classes * d;
    let (mut mean, mut square, mut inner) = (vec![0.0f64; cells], vec![0.0f64; cells], vec![0.0f64; cells]);
    let mut count = vec![0usize; classes];
    for (record, &label) in records.iter().zip(labels) {
        let c = label as usize;
        count[c] += 1;
        for j in 0..d {
            let mu = f64::from(record.mu[j]);
            mean[c * d + j] += mu;
            square[c * d + j] += mu * mu;
            inner[c * d + j] += f64::from(record.variance[j]);
        }
    }
    ensure!(count.iter().all(|&n| n > 0), "a class has no training image");
    let total = records.len() as f64;
    confidence.log_weight = count.iter().map(|&n| (n as f64 / total).ln() as f32).collect();
    let variance = |at: usize| {
        let n = count[at / d] as f64;
        let m = mean[at] / n;
        ((square[at] / n - m * m).max(0.0) + inner[at] / n).max(VARIANCE_FLOOR)
    };
    confidence.mean = (0..cells).map(|at| (mean[at] / count[at / d] as f64) as f32).collect();
    confidence.log_std = (0..cells).map(|at| (0.5 * variance(at).ln()) as f32).collect();
    confidence.half_precision = (0..cells).map(|at| (0.5 / variance(at)) as f32).collect();
    Ok(())
}

/// Thresholds that abstain on at most the share `budget` of the calibration images for any reason, each of the three
/// tests alone on the same number of images, as many as the budget allows.
fn thresholds(records: &[Prediction], budget: f64) -> Thresholds {
    let sorted = |pick: fn(&Prediction) -> f32| {
        let mut v: Vec<f32> = records.iter().map(pick).collect();
        v.sort_by(f32::total_cmp);
        v
    };
    let (rate, entropy) = (sorted(|r| r.typicality), sorted(|r| r.entropy_p));
    let predictive = sorted(|r| r.predictive_entropy_nats);
    let n = records.len();
    let at = |k: usize| Thresholds {
        typicality_min: rate[k],
        entropy_p_min: entropy[k],
        predictive_entropy_max_nats: predictive[n - 1 - k],
    };
    let abstained = |t: &Thresholds| {
        let out = |r: &&Prediction| {
            r.typicality < t.typicality_min
                || r.entropy_p < t.entropy_p_min
                || r.predictive_entropy_nats > t.predictive_entropy_max_nats
        };
        records.iter().filter(out).count()
    };
    let mut chosen = at(0);
    for k in 1..n {
        let next = at(k);
        if abstained(&next) as f64 > budget * n as f64 {
            break;
        }
        chosen = next;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(typicality: f32, entropy_p: f32, predictive: f32) -> Prediction {
        Prediction {
            class: 0,
            probability: 0.5,
            mu: vec![],
            variance: vec![],
            rate_nats: 0.0,
            posterior_entropy_nats: 0.0,
            predictive_entropy_nats: predictive,
            typicality,
            entropy_p,
            accept: true,
        }
    }

    #[test]
    fn thresholds_spend_the_budget_and_no_more() {
        // Independent orders of 1,000 images: three tests of 1.7 % each make about 5 %.
        let n = 1000;
        let p = |i: usize, stride: usize| ((i * stride) % n + 1) as f32 / (n + 1) as f32;
        let records: Vec<Prediction> = (0..n).map(|i| record(p(i, 1), p(i, 7), p(i, 333))).collect();
        let t = thresholds(&records, 0.05);
        let out = |r: &&Prediction| {
            r.typicality < t.typicality_min
                || r.entropy_p < t.entropy_p_min
                || r.predictive_entropy_nats > t.predictive_entropy_max_nats
        };
        let share = records.iter().filter(out).count();
        assert!((45..=50).contains(&share), "{share}");
        assert_eq!(records.iter().filter(|r| r.typicality < thresholds(&records, 0.0).typicality_min).count(), 0);
    }

    #[test]
    fn a_mixture_has_the_moments_of_its_class() {
        let mut records = vec![record(0.0, 0.0, 0.0); 4];
        for (r, (mu, variance)) in records.iter_mut().zip([(1.0, 0.5), (3.0, 0.1), (-2.0, 0.2), (-2.0, 0.2)]) {
            (r.mu, r.variance) = (vec![mu], vec![variance]);
        }
        let mut c = Confidence {
            log_weight: vec![],
            mean: vec![0.0],
            log_std: vec![],
            half_precision: vec![],
            rates: vec![],
            entropies: vec![],
            thresholds: Confidence::placeholder(1).unwrap().thresholds,
        };
        mixture(&mut c, &records, &[0, 0, 1, 1], 2).unwrap();
        assert_eq!(c.mean, [2.0, -2.0]);
        // Variance of {1, 3} is 1, mean of {0.5, 0.1} is 0.3.
        assert!((c.log_std[0] - 0.5 * 1.3f32.ln()).abs() < 1e-6 && (c.half_precision[1] - 2.5).abs() < 1e-5);
        assert!((c.log_weight[0] - 0.5f32.ln()).abs() < 1e-6);
        assert!(mixture(&mut c, &records, &[0, 0, 0, 0], 2).is_err());
    }
}

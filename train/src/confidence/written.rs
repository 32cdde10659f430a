//! What is fitted after the encoder, and how it lies in `model.pmq`.

use anyhow::{Result, ensure};
use paradise_engine::Thresholds;
use paradise_engine::appearance;
use paradise_engine::container::Blob;
use paradise_engine::header::{self, Calibrations, MAX_TABLE, Table};
use paradise_engine::whitening::{Directions, Whitening, pack};

/// The aggregate posterior, what posteriors and pictures are compared with, calibration values and thresholds.
#[derive(Debug, Clone, PartialEq)]
pub struct Confidence {
    /// What the rate is measured against.
    pub mixture: Mixture,
    /// Of `(log sigma, mu)`, a mean a class.
    pub posterior: White,
    /// Of `log sigma`; none where `posterior` is a triangle.
    pub spread: Option<White>,
    /// Of pictures' appearance.
    pub picture: White,
    /// What calibration images gave.
    pub calibration: Calibration,
    /// When to abstain.
    pub thresholds: Thresholds,
}

/// Gaussians, a component each.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    /// Log weights `[components]`.
    pub log_weight: Vec<f32>,
    /// Means `[components][d]`; less the centre and whitened where one covariance is shared.
    pub mean: Vec<f32>,
    /// Their covariances.
    pub covariance: Covariance,
}

/// As [`header::Covariance`], in memory; triangles are packed.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of the engine's record")]
pub enum Covariance {
    /// Each component has a diagonal one.
    Diagonal { log_std: Vec<f32>, half_precision: Vec<f32> },
    /// All have the same full one.
    Shared { centre: Vec<f32>, triangle: Vec<f32>, half_precision: Vec<f32>, half_log_det: f32 },
    /// Each has a full one.
    PerClass { triangle: Vec<f32>, half_precision: Vec<f32>, half_log_det: Vec<f32> },
}

/// As [`Whitening`], in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct White {
    /// `[n]`.
    pub centre: Vec<f32>,
    /// The covariance.
    pub shape: Shape,
    /// White means, `[components][n]`, or `[components][k + n]` of principal directions.
    pub means: Vec<f32>,
}

/// A covariance as it is inverted.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// The packed inverse of its Cholesky factor.
    Triangle(Vec<f32>),
    /// Principal directions, divided by their deviations, `[k][n]`; their variances `[k]`; one over the rest's deviation.
    Principal {
        /// `[k][n]`.
        rows: Vec<f32>,
        /// `[k]`.
        variance: Vec<f32>,
        /// One over a standard deviation.
        rest: f32,
    },
}

/// Values of calibration images, in any order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Calibration {
    /// Rates, nats.
    pub rate: Vec<f32>,
    /// Posterior entropies, nats.
    pub entropy: Vec<f32>,
    /// Squared distances of posteriors.
    pub posterior: Vec<f32>,
    /// Of spreads.
    pub spread: Vec<f32>,
    /// Of pictures.
    pub picture: Vec<f32>,
    /// Predictive entropies, nats.
    pub predictive: Vec<f32>,
    /// Of picture, posterior and class together.
    pub combined: Vec<f32>,
}

impl Confidence {
    /// Standard normal distributions and one calibration value under thresholds that never abstain: enough to run an encoder
    /// of `latent` dimensions.
    ///
    /// # Errors
    /// If there is no dimension.
    pub fn placeholder(latent: usize) -> Result<Self> {
        ensure!(latent > 0, "a model needs heads");
        let one = || vec![0.0];
        let covariance = Covariance::Diagonal { log_std: vec![0.0; latent], half_precision: vec![0.5; latent] };
        Ok(Self {
            mixture: Mixture { log_weight: one(), mean: vec![0.0; latent], covariance },
            posterior: White::standard(2 * latent),
            spread: Some(White::standard(latent)),
            picture: White {
                shape: Shape::Triangle(pack(appearance::LEN, |row, column| f32::from(u8::from(row == column)))),
                ..White::standard(appearance::LEN)
            },
            calibration: Calibration {
                rate: one(),
                entropy: one(),
                posterior: one(),
                spread: one(),
                picture: one(),
                predictive: one(),
                combined: one(),
            },
            thresholds: Thresholds::NEVER,
        })
    }
}

impl White {
    /// A standard normal distribution of `n` dimensions.
    fn standard(n: usize) -> Self {
        let shape = Shape::Principal { rows: vec![], variance: vec![], rest: 1.0 };
        Self { centre: vec![0.0; n], shape, means: vec![0.0; n] }
    }

    pub(crate) fn write(&self, blob: &mut Blob) -> Result<Whitening> {
        let centre = blob.f32s(&self.centre);
        let (directions, stride) = match &self.shape {
            Shape::Triangle(packed) => (Directions::Triangle(blob.f32s(packed)), self.centre.len()),
            Shape::Principal { rows, variance, rest } => {
                let (rows, k) = (blob.f32s(rows), variance.len());
                let variance = blob.f32s(variance);
                (Directions::Principal { rows, variance, rest: *rest }, self.centre.len() + k)
            }
        };
        let components = u16::try_from(self.means.len() / stride)?;
        Ok(Whitening { components, centre, directions, means: blob.f32s(&self.means) })
    }
}

impl Mixture {
    pub(crate) fn write(&self, blob: &mut Blob) -> Result<header::Mixture> {
        let components = u16::try_from(self.log_weight.len())?;
        let (log_weight, mean) = (blob.f32s(&self.log_weight), blob.f32s(&self.mean));
        let covariance = match &self.covariance {
            Covariance::Diagonal { log_std, half_precision } => header::Covariance::Diagonal {
                log_std: blob.f32s(log_std),
                half_precision: blob.f32s(half_precision),
            },
            Covariance::Shared { centre, triangle, half_precision, half_log_det } => header::Covariance::Shared {
                centre: blob.f32s(centre),
                triangle: blob.f32s(triangle),
                half_precision: blob.f32s(half_precision),
                half_log_det: blob.f32s(&[*half_log_det]),
            },
            Covariance::PerClass { triangle, half_precision, half_log_det } => header::Covariance::PerClass {
                triangle: blob.f32s(triangle),
                half_precision: blob.f32s(half_precision),
                half_log_det: blob.f32s(half_log_det),
            },
        };
        Ok(header::Mixture { components, log_weight, mean, covariance })
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let shape = match &self.covariance {
            Covariance::Diagonal { log_std, half_precision } => log_std.len() + half_precision.len(),
            Covariance::Shared { centre, triangle, half_precision, .. } => {
                centre.len() + triangle.len() + half_precision.len() + 1
            }
            Covariance::PerClass { triangle, half_precision, half_log_det } => {
                triangle.len() + half_precision.len() + half_log_det.len()
            }
        };
        4 * (self.log_weight.len() + self.mean.len() + shape)
    }
}

impl Calibration {
    pub(crate) fn write(&self, blob: &mut Blob) -> Result<Calibrations> {
        let mut one = |values: &[f32], tails| table(blob, values, tails);
        Ok(Calibrations {
            rate: one(&self.rate, Tails::Upper)?,
            entropy: one(&self.entropy, Tails::Both)?,
            posterior: one(&self.posterior, Tails::Upper)?,
            spread: one(&self.spread, Tails::Upper)?,
            picture: one(&self.picture, Tails::Upper)?,
            predictive: one(&self.predictive, Tails::Upper)?,
            combined: one(&self.combined, Tails::Upper)?,
        })
    }
}

/// Which values of a table decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tails {
    Upper,
    Both,
}

/// Sorted values: all of them, or the format's number of exact order statistics with their ranks.
fn table(blob: &mut Blob, values: &[f32], tails: Tails) -> Result<Table> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let ranks = ranks(sorted.len(), tails);
    let picked: Vec<f32> = ranks.iter().map(|&r| sorted[r as usize]).collect();
    Ok(Table { n: u32::try_from(sorted.len())?, values: blob.f32s(&picked), ranks: blob.u32s(&ranks) })
}

/// Which of `n` sorted values are kept: the first and the last, every one at the end of a tail, and ever fewer the farther
/// from it, so that a p-value is exact where thresholds lie and within a tenth of itself elsewhere.
fn ranks(n: usize, tails: Tails) -> Vec<u32> {
    if n <= MAX_TABLE {
        return (0..n as u32).collect();
    }
    let (most, reach) = match tails {
        Tails::Upper => (MAX_TABLE, n - 1),
        Tails::Both => (MAX_TABLE / 2, n / 2 - 1),
    };
    // Distances from the end: half of them 0, 1, 2, ..., the others growing by a constant factor up to `reach`.
    let near = most / 2;
    let mut distances: Vec<usize> = (0..near).collect();
    for k in 1..=most - near {
        let grown = near as f64 * (reach as f64 / near as f64).powf(k as f64 / (most - near) as f64);
        let left = most - near - k;
        // Each is farther than the one before, and leaves room for those that follow.
        let last = distances[distances.len() - 1];
        distances.push((grown.round() as usize).clamp(last + 1, reach - left));
    }
    let upper = distances.iter().rev().map(|d| (n - 1 - d) as u32);
    match tails {
        Tails::Upper => upper.collect(),
        Tails::Both => distances.iter().map(|d| *d as u32).chain(upper).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn kept_ranks_increase_and_span_the_table(n in 1usize..60_000, both in any::<bool>()) {
            let ranks = ranks(n, if both { Tails::Both } else { Tails::Upper });
            prop_assert_eq!(ranks.len(), n.min(MAX_TABLE));
            prop_assert_eq!((ranks[0], ranks[ranks.len() - 1]), (0, n as u32 - 1));
            prop_assert!(ranks.windows(2).all(|w| w[0] < w[1]));
            // A p-value is at most a step too large.
            for w in ranks.windows(2) {
                let tail = if both { w[1].min(n as u32 - 1 - w[0]) } else { n as u32 - 1 - w[0] };
                prop_assert!(f64::from(w[1] - w[0]) <= 1.0 + 0.12 * f64::from(tail), "{:?} of {}", w, n);
            }
        }
    }
}

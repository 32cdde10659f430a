//! What is fitted after the encoder, and how it lies in `model.pmq`.

use anyhow::{Result, ensure};
use paradise_engine::Thresholds;
use paradise_engine::appearance;
use paradise_engine::container::Blob;
use paradise_engine::header::{self, Calibrations, Table};
use paradise_engine::whitening::{Directions, Whitening, pack, turned};
use paradise_runtime::tables::Values;

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
        Ok(Whitening { components, centre, directions, means: blob.f32s(&turned(&self.means, stride)) })
    }
}

impl Mixture {
    pub(crate) fn write(&self, blob: &mut Blob) -> Result<header::Mixture> {
        let components = u16::try_from(self.log_weight.len())?;
        let log_weight = blob.f32s(&self.log_weight);
        let mean = match &self.covariance {
            // These are white, and compared as such.
            Covariance::Shared { centre, .. } => blob.f32s(&turned(&self.mean, centre.len())),
            _ => blob.f32s(&self.mean),
        };
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
    /// As tables keep them.
    pub fn values(&self) -> Values {
        let Self { rate, entropy, posterior, spread, picture, predictive, combined } = self;
        Values::of([rate, entropy, posterior, spread, picture, predictive, combined])
    }

    pub(crate) fn write(&self, blob: &mut Blob) -> Calibrations {
        let kept = self.values().all().map(|(_, kept)| Table {
            n: kept.n,
            values: blob.f32s(&kept.values),
            ranks: blob.u32s(&kept.ranks),
        });
        Calibrations::new(kept)
    }
}

//! The aggregate posterior: a Gaussian a class, with a covariance as full as the device's memory and held-out images allow.

use super::covariance::Scatter;
use super::written::{Covariance, Mixture};
use anyhow::Result;
use paradise_engine::whitening::{pack, packed_len, turned, unpack};
use paradise_engine::{Model, header};
use paradise_evaluate::prediction::Prediction;
use paradise_runtime::cholesky::{by_lower, cholesky, half_log_det, inverse};

/// Most bytes of a mixture that is not diagonal.
pub const MOST_BYTES: usize = 32 << 10;
/// Smallest variance of a component, so that a constant dimension cannot dominate the rate.
const VARIANCE_FLOOR: f64 = 1e-4;

/// What components' covariances are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Diagonal, each class its own.
    Diagonal,
    /// Full, one for all classes.
    Shared,
    /// Full, each class its own.
    PerClass,
}

impl Kind {
    /// All of them, from the smallest.
    pub const ALL: [Self; 3] = [Self::Diagonal, Self::Shared, Self::PerClass];

    /// Whether a mixture of `components` in `d` dimensions may have it.
    pub fn fits(self, components: usize, d: usize) -> bool {
        let values = match self {
            Self::Diagonal => return true,
            Self::Shared => packed_len(d) + 2 * d + components * (d + 1),
            Self::PerClass => components * (packed_len(d) + 2 * d + 2),
        };
        4 * values <= MOST_BYTES
    }
}

/// A component a class that has an image: `m_c` the mean of mu, `S_c` the covariance of mu plus the mean of sigma^2. One
/// class's own full covariance is drawn towards the shared one as if that were known from d more images.
///
/// # Errors
/// If there is no image or a posterior is not finite.
pub fn fit<'a>(kind: Kind, d: usize, images: impl Iterator<Item = (&'a Prediction, u16)> + Clone) -> Result<Mixture> {
    let mus = images.clone().map(|(p, label)| (&p.mu[..], label));
    let all = Scatter::of(d, mus.clone())?;
    let total = all.counts.iter().sum::<usize>() as f64;
    let log_weight = all.counts.iter().map(|n| (*n as f64 / total).ln() as f32).collect();
    let mut inner = vec![0.0f64; all.classes.len() * d];
    for (p, label) in images {
        let c = all.classes.iter().position(|c| *c == label).unwrap_or(0);
        let share = 1.0 / all.counts[c] as f64;
        inner[c * d..(c + 1) * d].iter_mut().zip(&p.sigma).for_each(|(i, s)| *i += share * f64::from(*s).powi(2));
    }
    let own = |class: u16| Scatter::of(d, mus.clone().filter(move |(_, label)| *label == class));
    let narrow = |values: &[f64]| values.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    if kind == Kind::Diagonal {
        let mut variance = Vec::with_capacity(inner.len());
        for (c, class) in all.classes.iter().enumerate() {
            let own = own(*class)?;
            variance.extend((0..d).map(|j| (own.covariance[j * d + j] + inner[c * d + j]).max(VARIANCE_FLOOR)));
        }
        let log_std = variance.iter().map(|v| (0.5 * v.ln()) as f32).collect();
        let half_precision = variance.iter().map(|v| (0.5 / v) as f32).collect();
        let covariance = Covariance::Diagonal { log_std, half_precision };
        return Ok(Mixture { log_weight, mean: narrow(&all.means), covariance });
    }
    // Mean of sigma^2 over all images.
    let shares: Vec<f64> = all.counts.iter().map(|n| *n as f64 / total).collect();
    let pooled: Vec<f64> =
        (0..d).map(|j| shares.iter().enumerate().map(|(c, s)| s * inner[c * d + j]).sum()).collect();
    if kind == Kind::Shared {
        let full = Full::of(&all.covariance, &pooled, d);
        let mean = all.means.chunks_exact(d).flat_map(|m| {
            let offset: Vec<f64> = m.iter().zip(&all.centre).map(|(m, c)| m - c).collect();
            narrow(&by_lower(&full.triangle, &offset))
        });
        let covariance = Covariance::Shared {
            centre: narrow(&all.centre),
            triangle: full.packed(d),
            half_precision: full.half_precision(d),
            half_log_det: full.constant,
        };
        return Ok(Mixture { log_weight, mean: mean.collect(), covariance });
    }
    let (mut triangle, mut half_precision, mut half_log_det) = (Vec::new(), Vec::new(), Vec::new());
    for (c, class) in all.classes.iter().enumerate() {
        let (own, n) = (own(*class)?, all.counts[c] as f64);
        let drawn = |a: f64, b: f64| (n * a + d as f64 * b) / (n + d as f64);
        let covariance: Vec<f64> = own.covariance.iter().zip(&all.covariance).map(|(a, b)| drawn(*a, *b)).collect();
        let inner: Vec<f64> = inner[c * d..].iter().zip(&pooled).map(|(a, b)| drawn(*a, *b)).collect();
        let full = Full::of(&covariance, &inner, d);
        triangle.extend(full.packed(d));
        half_precision.extend(full.half_precision(d));
        half_log_det.push(full.constant);
    }
    let covariance = Covariance::PerClass { triangle, half_precision, half_log_det };
    Ok(Mixture { log_weight, mean: narrow(&all.means), covariance })
}

/// A full covariance, inverted.
struct Full {
    /// The inverse of the Cholesky factor, `[d][d]`.
    triangle: Vec<f64>,
    /// `(log det S - d) / 2`.
    constant: f32,
}

impl Full {
    /// Of a covariance of means and the variances inside.
    fn of(covariance: &[f64], inner: &[f64], d: usize) -> Self {
        let mut s = covariance.to_vec();
        (0..d).for_each(|j| s[j * d + j] = (s[j * d + j] + inner[j]).max(0.0) + VARIANCE_FLOOR);
        let l = cholesky(&s, d);
        let constant = (half_log_det(&l, d) - 0.5 * d as f64) as f32;
        Self { triangle: inverse(&l, d), constant }
    }

    fn packed(&self, d: usize) -> Vec<f32> {
        pack(d, |row, column| self.triangle[row * d + column] as f32)
    }

    /// Half of the diagonal of the inverse: `S^-1 = W^T W`.
    fn half_precision(&self, d: usize) -> Vec<f32> {
        let column = |j: usize| (j..d).map(|i| self.triangle[i * d + j].powi(2)).sum::<f64>();
        (0..d).map(|j| (0.5 * column(j)) as f32).collect()
    }
}

/// A component of a model's aggregate posterior, to draw from.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// `[d]`.
    pub mean: Vec<f64>,
    /// Standard deviations, `[d]`.
    pub std: Vec<f64>,
    /// The covariance's Cholesky factor, `[d][d]`; none where it is diagonal.
    factor: Option<Vec<f64>>,
}

impl Component {
    /// Those of a model.
    pub fn all(model: &Model) -> Vec<Self> {
        let (mixture, d) = (model.header().mixture, usize::from(model.header().latent));
        let wide = |span| model.f32s(span).iter().map(f64::from).collect::<Vec<f64>>();
        let factor = |packed: &[f64]| inverse(&unpack(d, packed, d), d);
        let full = |mean: Vec<f64>, factor: Vec<f64>| {
            let std = factor.chunks_exact(d).map(|row| row.iter().map(|v| v * v).sum::<f64>().sqrt()).collect();
            Self { mean, std, factor: Some(factor) }
        };
        let stored = match mixture.covariance {
            header::Covariance::Shared { .. } => turned(&wide(mixture.mean), mixture.components.into()),
            _ => wide(mixture.mean),
        };
        let means = stored.chunks_exact(d).map(<[f64]>::to_vec);
        match mixture.covariance {
            header::Covariance::Diagonal { log_std, .. } => {
                let std: Vec<f64> = wide(log_std).iter().map(|l| l.exp()).collect();
                means
                    .zip(std.chunks_exact(d))
                    .map(|(mean, std)| Self { mean, std: std.to_vec(), factor: None })
                    .collect()
            }
            header::Covariance::Shared { centre, triangle, .. } => {
                let (centre, factor) = (wide(centre), factor(&wide(triangle)));
                let unwhite = |white: Vec<f64>| {
                    by_lower(&factor, &white).iter().zip(&centre).map(|(m, c)| m + c).collect::<Vec<f64>>()
                };
                means.map(|white| full(unwhite(white), factor.clone())).collect()
            }
            header::Covariance::PerClass { triangle, .. } => {
                let triangles = wide(triangle);
                let each = triangles.chunks_exact(packed_len(d)).map(factor);
                means.zip(each).map(|(mean, factor)| full(mean, factor)).collect()
            }
        }
    }

    /// The point that standard normal `noise` makes.
    pub fn point(&self, noise: &[f64]) -> Vec<f64> {
        let offset = match &self.factor {
            Some(factor) => by_lower(factor, noise),
            None => self.std.iter().zip(noise).map(|(s, n)| s * n).collect(),
        };
        self.mean.iter().zip(offset).map(|(m, o)| m + o).collect()
    }
}

//! Rate against the aggregate posterior.

use crate::artifact::Model;
use crate::header::Covariance;
use crate::part::Part;
use crate::posterior;
use crate::whitening::{by_triangle, distances, packed_len};

/// A logarithm of a sum of exponentials, term by term; -inf for no terms.
#[derive(Debug, Clone, Copy)]
struct LogSumExp {
    top: f32,
    sum: f32,
}

impl LogSumExp {
    const EMPTY: Self = Self { top: f32::NEG_INFINITY, sum: 0.0 };

    fn add(&mut self, term: f32) {
        if term <= self.top {
            self.sum += libm::expf(term - self.top);
        } else {
            self.sum = 1.0 + self.sum * libm::expf(self.top - term);
            self.top = term;
        }
    }

    fn value(self) -> f32 {
        self.top + libm::logf(self.sum)
    }
}

/// `rate(x) = -log sum_c pi_c exp(-KL(N(mu, sigma^2) || N(m_c, S_c)))`, nats: the variational upper bound of
/// Hershey & Olsen (2007) on the divergence from the mixture; exact for one component. For a full covariance
/// `KL = 1/2 (sum_j sigma_j^2 (S^-1)_jj + |L^-1 (mu - m)|^2 + log det S - d) - sum_j log sigma_j`, with `S = L L^T`.
///
/// # Panics
/// If `scratch` is shorter than twice `mu`.
#[cfg_attr(feature = "std", inline(always))]
pub fn rate_nats(model: &Model, mu: &[f32], sigma: &[f32], log_sigma: &[f32], scratch: &mut [f32]) -> f32 {
    // Components whose divergences are summed side by side.
    const ABREAST: usize = 4;
    let mixture = &model.header().mixture;
    let log_weight = model.f32s(mixture.log_weight);
    let mean = model.f32s(mixture.mean);
    let (d, components) = (mu.len(), log_weight.len());
    let mut total = LogSumExp::EMPTY;
    let own = || log_sigma.iter().fold(0.0, |sum, l| sum + l);
    // sum_j sigma_j^2 / 2 (S^-1)_jj.
    let inner = |half_precision: crate::tensor::Le<f32>| {
        sigma.iter().zip(half_precision.iter()).fold(0.0, |sum, (s, p)| sum + s * s * p)
    };
    let (white, centred) = scratch.split_at_mut(d);
    match mixture.covariance {
        Covariance::Diagonal { log_std, half_precision } if Part::Diagonal.is_built() => {
            let (log_std, half_precision) = (model.f32s(log_std), model.f32s(half_precision));
            for first in (0..components).step_by(ABREAST) {
                let kl = posterior::kl_nats::<ABREAST>(mu, sigma, log_sigma, |k, j| {
                    // Past the last component, the last again.
                    let at = (first + k).min(components - 1) * d + j;
                    (mean.at(at), log_std.at(at), half_precision.at(at))
                });
                for (c, kl) in (first..components).zip(kl) {
                    total.add(log_weight.at(c) - kl);
                }
            }
        }
        Covariance::Shared { centre, triangle, half_precision, half_log_det } if Part::Shared.is_built() => {
            for ((to, mu), centre) in centred.iter_mut().zip(mu).zip(model.f32s(centre).iter()) {
                *to = mu - centre;
            }
            by_triangle(model.f32s(triangle), &centred[..d], white);
            let (own, inner) = (own(), inner(model.f32s(half_precision)));
            let constant = model.f32s(half_log_det).at(0);
            distances(mean, components, white, |c, squared| {
                total.add(log_weight.at(c) - (inner + 0.5 * squared + constant - own));
            });
        }
        Covariance::PerClass { triangle, half_precision, half_log_det } if Part::PerClass.is_built() => {
            let (own, triangle) = (own(), model.f32s(triangle));
            let (half_precision, constant) = (model.f32s(half_precision), model.f32s(half_log_det));
            let each = packed_len(d);
            for c in 0..components {
                for ((to, mu), mean) in centred.iter_mut().zip(mu).zip(mean.slice(c * d, (c + 1) * d).iter()) {
                    *to = mu - mean;
                }
                by_triangle(triangle.slice(c * each, (c + 1) * each), &centred[..d], white);
                let squared = white.iter().fold(0.0, |sum, y| sum + y * y);
                let inner = inner(half_precision.slice(c * d, (c + 1) * d));
                total.add(log_weight.at(c) - (inner + 0.5 * squared + constant.at(c) - own));
            }
        }
        covariance => unreachable!("a {} covariance is not built", covariance.name()),
    }
    -total.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sum_exp_survives_large_terms() {
        let mut got = LogSumExp::EMPTY;
        assert_eq!(got.value(), f32::NEG_INFINITY);
        for term in [-1001.0, -1000.0, -1002.0] {
            got.add(term);
        }
        let exact = -1000.0 + libm::log(1.0 + libm::exp(-1.0) + libm::exp(-2.0));
        assert!((f64::from(got.value()) - exact).abs() < 1e-4, "{got:?} {exact}");
    }
}

//! Rate against the aggregate posterior, and what calibration images say of a rate or an entropy.

use crate::artifact::Model;
use crate::header::Table;
use crate::posterior;
use crate::tensor::Le;

/// Log-sum-exp of terms that are visited twice; -inf for no terms.
fn log_sum_exp(count: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut top = f32::NEG_INFINITY;
    for i in 0..count {
        top = top.max(term(i));
    }
    if top == f32::NEG_INFINITY {
        return top;
    }
    let mut sum = 0.0;
    for i in 0..count {
        sum += libm::expf(term(i) - top);
    }
    top + libm::logf(sum)
}

/// Components whose divergences are summed side by side.
const ABREAST: usize = 4;

/// Terms that are kept between the two visits; a mixture of more components computes them twice.
const KEPT: usize = 64;

/// `rate(x) = -log sum_c pi_c exp(-KL(N(mu, sigma^2) || N(m_c, s_c^2)))`, nats: the variational upper bound of
/// Hershey & Olsen (2007) on the divergence from the mixture; exact for one component.
pub fn rate_nats(model: &Model, mu: &[f32], sigma: &[f32], log_sigma: &[f32]) -> f32 {
    let mixture = &model.header().mixture;
    let log_weight = model.f32s(mixture.log_weight);
    let mean = model.f32s(mixture.mean);
    let log_std = model.f32s(mixture.log_std);
    let precision = model.f32s(mixture.half_precision);
    let (d, components) = (mu.len(), log_weight.len());
    let terms = |first: usize| -> [f32; ABREAST] {
        let kl = posterior::kl_nats::<ABREAST>(mu, sigma, log_sigma, |k, j| {
            // Past the last component, the last again.
            let at = (first + k).min(components - 1) * d + j;
            (mean.at(at), log_std.at(at), precision.at(at))
        });
        core::array::from_fn(|k| log_weight.at((first + k).min(components - 1)) - kl[k])
    };
    if components <= KEPT {
        let mut kept = [0.0; KEPT];
        for (group, to) in kept.chunks_exact_mut(ABREAST).take(components.div_ceil(ABREAST)).enumerate() {
            to.copy_from_slice(&terms(ABREAST * group));
        }
        return -log_sum_exp(components, |c| kept[c]);
    }
    -log_sum_exp(components, |c| terms(c)[0])
}

/// Two views of a sorted calibration table.
#[derive(Debug, Clone, Copy)]
pub struct Calibration<'a> {
    n: u32,
    values: Le<'a, f32>,
    ranks: Le<'a, u32>,
}

impl<'a> Calibration<'a> {
    /// The table's values in `model`.
    pub fn new(model: &Model<'a>, table: &Table) -> Self {
        Self { n: table.n, values: model.f32s(table.values), ranks: model.u32s(table.ranks) }
    }

    /// Calibration values that are at least `v`; where only order statistics are stored, the largest count that
    /// they allow, so that the p-value stays conservative.
    fn at_least(&self, v: f32) -> u32 {
        match self.values.partition_point(|stored| stored < v) {
            0 => self.n,
            k => self.n - self.ranks.at(k - 1) - 1,
        }
    }

    /// Calibration values that are at most `v`, counted the same way.
    fn at_most(&self, v: f32) -> u32 {
        let k = self.values.partition_point(|stored| stored <= v);
        if k == self.values.len() { self.n } else { self.ranks.at(k) }
    }

    /// Conformal p-value of a large value: `(1 + #{calibration >= v}) / (n + 1)`; 0 if `v` is not finite.
    pub fn upper_p(&self, v: f32) -> f32 {
        if !v.is_finite() {
            return 0.0;
        }
        (1 + u64::from(self.at_least(v))) as f32 / (u64::from(self.n) + 1) as f32
    }

    /// Two-sided p-value: `min(1, 2 min(1 + #{<= v}, 1 + #{>= v}) / (n + 1))`; 0 if `v` is not finite.
    pub fn two_sided_p(&self, v: f32) -> f32 {
        if !v.is_finite() {
            return 0.0;
        }
        let tail = 1 + u64::from(self.at_least(v).min(self.at_most(v)));
        ((2 * tail) as f32 / (u64::from(self.n) + 1) as f32).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    extern crate std;
    use std::vec::Vec;

    fn bytes<const N: usize, T>(items: &[T], le: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
        items.iter().flat_map(le).collect()
    }

    proptest! {
        #[test]
        fn p_values_equal_counting(mut all in proptest::collection::vec(-8i8..8, 1..60), v in -10i8..10) {
            all.sort_unstable();
            let values: Vec<f32> = all.iter().map(|&x| f32::from(x)).collect();
            let ranks: Vec<u32> = (0..values.len() as u32).collect();
            let (vb, rb) = (bytes(&values, |x| x.to_le_bytes()), bytes(&ranks, |x| x.to_le_bytes()));
            let table = Calibration { n: values.len() as u32, values: Le::new(&vb), ranks: Le::new(&rb) };
            let ge = all.iter().filter(|&&x| x >= v).count() as f32;
            let le = all.iter().filter(|&&x| x <= v).count() as f32;
            let n1 = all.len() as f32 + 1.0;
            prop_assert_eq!(table.upper_p(f32::from(v)), (1.0 + ge) / n1);
            prop_assert_eq!(table.two_sided_p(f32::from(v)), (2.0 * (1.0 + ge.min(le)) / n1).min(1.0));
        }

        #[test]
        fn order_statistics_are_conservative(mut all in proptest::collection::vec(-50i16..50, 8..80), v in -60i16..60) {
            all.sort_unstable();
            let n = all.len();
            let picks: Vec<usize> = (0..5).map(|i| i * (n - 1) / 4).collect();
            let values: Vec<f32> = picks.iter().map(|&i| f32::from(all[i])).collect();
            let ranks: Vec<u32> = picks.iter().map(|&i| i as u32).collect();
            let (vb, rb) = (bytes(&values, |x| x.to_le_bytes()), bytes(&ranks, |x| x.to_le_bytes()));
            let table = Calibration { n: n as u32, values: Le::new(&vb), ranks: Le::new(&rb) };
            let ge = all.iter().filter(|&&x| x >= v).count() as f32;
            prop_assert!(table.upper_p(f32::from(v)) >= (1.0 + ge) / (n as f32 + 1.0));
        }
    }

    #[test]
    fn what_is_not_finite_is_not_typical() {
        let (vb, rb) = (1.0f32.to_le_bytes(), 0u32.to_le_bytes());
        let table = Calibration { n: 1, values: Le::new(&vb), ranks: Le::new(&rb) };
        for v in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(table.upper_p(v), 0.0);
            assert_eq!(table.two_sided_p(v), 0.0);
        }
    }

    #[test]
    fn log_sum_exp_survives_large_terms() {
        let terms = [-1000.0f32, -1001.0, -1002.0];
        let got = f64::from(log_sum_exp(3, |i| terms[i]));
        let exact = -1000.0 + libm::log(1.0 + libm::exp(-1.0) + libm::exp(-2.0));
        assert!((got - exact).abs() < 1e-4, "{got} {exact}");
        assert_eq!(log_sum_exp(0, |_| 0.0), f32::NEG_INFINITY);
    }
}

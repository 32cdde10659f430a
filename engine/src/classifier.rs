//! Softmax of one linear layer on mu: logits, probabilities, the class and its predictive entropy.

use crate::tensor::Le;

/// `logits[c] = bias[c] + sum_j weight[c][j] * mu[j]`: product then sum, in index order, no FMA; bias last.
///
/// Four sums at a time, so that they do not wait for each other.
pub fn logits(weight: Le<f32>, bias: Le<f32>, mu: &[f32], out: &mut [f32]) {
    const ABREAST: usize = 4;
    let d = mu.len();
    let classes = out.len();
    for (group, out) in out.chunks_mut(ABREAST).enumerate() {
        let first = ABREAST * group;
        // Past the last class, the last again.
        let row: [usize; ABREAST] = core::array::from_fn(|k| (first + k).min(classes - 1) * d);
        let mut sums = [0.0; ABREAST];
        for (j, m) in mu.iter().enumerate() {
            for (sum, row) in sums.iter_mut().zip(row) {
                *sum += weight.at(row + j) * m;
            }
        }
        for (k, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
            *out = sum + bias.at(first + k);
        }
    }
}

/// Softmax by the shifted exponentials, in place of `out`.
///
/// ```
/// use paradise_engine::classifier::{predictive_entropy_nats, softmax};
/// let mut probabilities = [0.0; 2];
/// softmax(&[3.0, 3.0], &mut probabilities);
/// assert_eq!(probabilities, [0.5, 0.5]);
/// assert!((predictive_entropy_nats(&probabilities) - 2f32.ln()).abs() < 1e-6);
/// ```
pub fn softmax(logits: &[f32], out: &mut [f32]) {
    let top = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let mut sum = 0.0;
    for (p, l) in out.iter_mut().zip(logits) {
        *p = libm::expf(l - top);
        sum += *p;
    }
    for p in out.iter_mut() {
        *p /= sum;
    }
}

/// Predictive entropy `-sum p log p`, nats; a zero probability adds nothing.
pub fn predictive_entropy_nats(probabilities: &[f32]) -> f32 {
    let mut sum = 0.0;
    for &p in probabilities {
        if p > 0.0 {
            sum -= p * libm::logf(p);
        }
    }
    sum
}

/// Index of the largest logit, the first of equals.
///
/// ```
/// assert_eq!(paradise_engine::classifier::argmax(&[0.1, 2.0, -1.0]), 1);
/// ```
pub fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, l) in logits.iter().enumerate() {
        if *l > logits[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    extern crate std;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn softmax_and_entropy_equal_f64(logits in proptest::collection::vec(-30.0f32..30.0, 2..40)) {
            let total: f64 = logits.iter().map(|&l| libm::exp(f64::from(l))).sum();
            let exact: Vec<f64> = logits.iter().map(|&l| libm::exp(f64::from(l)) / total).collect();
            let mut got = std::vec![0.0; logits.len()];
            softmax(&logits, &mut got);
            for (g, e) in got.iter().zip(&exact) {
                prop_assert!((f64::from(*g) - e).abs() <= 1e-6);
            }
            let entropy: f64 = exact.iter().map(|p| -p * libm::log(*p)).sum();
            prop_assert!((f64::from(predictive_entropy_nats(&got)) - entropy).abs() <= 1e-5);
        }
    }

    #[test]
    fn ties_go_to_the_first() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax(&[f32::NAN, 1.0]), 0);
    }
}

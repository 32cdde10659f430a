//! Posterior matching, equation 8 of the supplement, and the perturbation x' of its section 1.5.

use super::{Batch, Objective};
use crate::encoder::Encoding;
use anyhow::Result;
use candle_core::Tensor;
use paradise_support::random::{self, Purpose};
use rayon::prelude::*;

/// `x' = x + s u`, `s ~ U(0, m)` once an image, `u ~ N(0, I)`: the same shape as the batch's images.
///
/// # Errors
/// If candle fails.
pub fn perturb(objective: &Objective, batch: &Batch) -> Result<Tensor> {
    let each = batch.images.elem_count() / batch.own.len();
    let mut noise = vec![0.0f32; batch.images.elem_count()];
    noise.par_chunks_mut(each).zip(batch.own_ids()).for_each(|(noise, id)| {
        let mut rng = random::stream(batch.seed, Purpose::Matching, batch.epoch, *id as u64, 0);
        let magnitude = random::uniform(&mut rng) * objective.matching_max_pixels / 255.0;
        noise.iter_mut().for_each(|n| *n = magnitude * random::normal(&mut rng));
    });
    let noise = Tensor::from_vec(noise, batch.images.shape(), batch.images.device())?;
    let perturbed = (batch.images + noise)?;
    Ok(if objective.matching_clip { perturbed.clamp(0.0, 1.0)? } else { perturbed })
}

/// `D = sum_j a_j |mu_j - mu'_j| + (1/d) sum_j |log sigma_j - log sigma'_j|` for two batches of m posteriors -> `[m]`.
///
/// `a_j = max(1/d, |mu_j - mu'_j| / sum_k |mu_k - mu'_k|)`, 1/d where the sum is 0; a weight without gradient unless
/// `weight_gradient`.
///
/// # Errors
/// If the shapes differ.
pub fn discrepancy(a: &Encoding, b: &Encoding, weight_gradient: bool) -> Result<Tensor> {
    let d = a.mu.dim(1)? as f64;
    let offset = (&a.mu - &b.mu)?.abs()?;
    let held = if weight_gradient { offset.clone() } else { offset.detach() };
    // A zero sum has zero summands: any positive divisor gives the share 0 there, and so a_j = 1/d. The floor's square
    // is still a normal f32, so that the quotient's gradient is finite too.
    let total = held.sum_keepdim(1)?.maximum(1e-12)?;
    let weight = held.broadcast_div(&total)?.maximum(1.0 / d)?;
    let means = (offset * weight)?.sum(1)?;
    let spreads = ((&a.log_sigma - &b.log_sigma)?.abs()?.sum(1)? / d)?;
    Ok((means + spreads)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use proptest::prelude::*;

    fn by_definition(a: (&[f32], &[f32]), b: (&[f32], &[f32])) -> f64 {
        let d = a.0.len() as f64;
        let gap: Vec<f64> = a.0.iter().zip(b.0).map(|(x, y)| (f64::from(*x) - f64::from(*y)).abs()).collect();
        let total: f64 = gap.iter().sum();
        let means: f64 = gap.iter().map(|g| g * if total == 0.0 { 1.0 / d } else { (g / total).max(1.0 / d) }).sum();
        let spreads: f64 = a.1.iter().zip(b.1).map(|(x, y)| (f64::from(*x) - f64::from(*y)).abs()).sum();
        means + spreads / d
    }

    proptest! {
        #[test]
        fn equation_8_equals_f64(rows in proptest::collection::vec([-3.0f32..3.0, -9.3f32..0.0, -3.0f32..3.0, -9.3f32..0.0], 1..40)) {
            let column = |i: usize| rows.iter().map(|r| r[i]).collect::<Vec<f32>>();
            let c: Vec<Vec<f32>> = (0..4).map(column).collect();
            let t = |v: &Vec<f32>| Tensor::from_vec(v.clone(), (1, v.len()), &Device::Cpu).unwrap();
            let posterior = |mu, log_sigma| Encoding { mu, sigma: t(log_sigma).exp().unwrap(), log_sigma: t(log_sigma) };
            let got = discrepancy(&posterior(t(&c[0]), &c[1]), &posterior(t(&c[2]), &c[3]), false).unwrap();
            let got = f64::from(got.to_vec1::<f32>().unwrap()[0]);
            let exact = by_definition((&c[0], &c[1]), (&c[2], &c[3]));
            prop_assert!((got - exact).abs() <= 1e-5 * exact.max(1e-3), "{got} {exact}");
        }
    }

    #[test]
    fn equal_posteriors_have_no_discrepancy_and_a_finite_gradient() {
        let mu = Var::from_tensor(&Tensor::ones((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
        for weight_gradient in [false, true] {
            let posterior = |mu: Tensor| Encoding { sigma: mu.exp().unwrap(), log_sigma: mu.clone(), mu };
            let (a, b) = (posterior(mu.as_tensor().clone()), posterior(mu.detach()));
            let d = discrepancy(&a, &b, weight_gradient).unwrap();
            assert_eq!(d.to_vec1::<f32>().unwrap(), [0.0, 0.0]);
            let grads = d.sum_all().unwrap().backward().unwrap();
            let gradient = grads.get(&mu).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
        }
    }
}

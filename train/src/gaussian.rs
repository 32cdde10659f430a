//! The automatic-differentiation mirror of the engine's posterior formulas, and the mini-batch rate.

use anyhow::{Result, ensure};
use candle_core::Tensor;
use paradise_engine::posterior::HALF_LOG_2PI_E;
use rayon::prelude::*;

/// `log sigma = -softplus(-s)`, elementwise, stable on both sides.
///
/// # Errors
/// If candle fails.
pub fn log_sigma(s: &Tensor) -> Result<Tensor> {
    let tail = (s.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok((s.neg()?.relu()? + tail)?.neg()?)
}

/// Mean posterior entropy over a batch, nats: `s` f32 `[m, d]` -> scalar (supplement, section 1.6).
///
/// # Errors
/// If candle fails.
pub fn mean_entropy(log_sigma: &Tensor) -> Result<Tensor> {
    let (m, d) = log_sigma.dims2()?;
    let sum = (log_sigma.sum_all()? / m as f64)?;
    Ok((sum + f64::from(HALF_LOG_2PI_E) * d as f64)?)
}

/// Mean of `KL(N(mu, diag sigma^2) || N(0, I))` over a batch, nats: DVIB's rate. Both f32 `[m, d]` -> scalar.
///
/// # Errors
/// If the shapes differ.
pub fn divergence_from_standard_normal(mu: &Tensor, log_sigma: &Tensor) -> Result<Tensor> {
    let variance = (log_sigma * 2.0)?.exp()?;
    let each = (((mu.sqr()? + variance)? - 1.0)? * 0.5)?;
    Ok(((each - log_sigma)?.sum_all()? / mu.dim(0)? as f64)?)
}

/// The mini-batch weighted sampling estimate, equation 7 of the supplement:
/// `(1/M) sum_i logsumexp_{j != i} log N(z_i; mu_j, diag sigma_j^2)`, nats, with mu_j and sigma_j under stop-gradient.
///
/// `z`, `mu`, `log_sigma` are f32 `[m, d]`, m >= 2. Differences and sums are f64 on the given f32 values: the
/// expanded quadratic and naive exponentials fail for sigma below 0.01.
///
/// # Errors
/// If the batch holds one image, whose own density is left out.
pub fn mini_batch_log_density(z: &Tensor, mu: &Tensor, log_sigma: &Tensor) -> Result<Tensor> {
    let (m, d) = z.dims2()?;
    ensure!(m > 1, "the rate needs a batch of at least 2 images");
    #[cfg(feature = "cuda")]
    if z.device().is_cuda() {
        let both = z.detach().contiguous()?.apply_op3_no_bwd(
            &mu.detach().contiguous()?,
            &log_sigma.detach().contiguous()?,
            &paradise_nn::Density,
        )?;
        let (value, gradient) = (both.narrow(1, 0, 1)?.mean_all()?, (both.narrow(1, 1, d)? / m as f64)?);
        return Ok((((z - z.detach())? * gradient)?.sum_all()? + value)?);
    }
    let rows = |t: &Tensor| t.detach().flatten_all()?.to_vec1::<f32>();
    let (samples, means, logs) = (rows(z)?, rows(mu)?, rows(log_sigma)?);
    let precisions: Vec<f64> = logs.iter().map(|l| (-2.0 * f64::from(*l)).exp()).collect();
    let constants: Vec<f64> = logs
        .chunks_exact(d)
        .map(|row| -row.iter().map(|l| f64::from(*l)).sum::<f64>() - 0.5 * d as f64 * std::f64::consts::TAU.ln())
        .collect();
    let values: Vec<(f32, Vec<f32>)> = samples
        .par_chunks_exact(d)
        .enumerate()
        .map(|(i, z)| density(i, z, &means, &precisions, &constants))
        .collect();
    // The value and its gradient with respect to z are known in closed form, so the linear function
    // value + gradient . (z - stop(z)) has both without building the m x m x d graph.
    let value = values.iter().map(|v| f64::from(v.0)).sum::<f64>() / m as f64;
    let gradient: Vec<f32> = values.into_iter().flat_map(|v| v.1).map(|g| g / m as f32).collect();
    let gradient = Tensor::from_vec(gradient, (m, d), z.device())?;
    Ok(((z - z.detach())? * gradient)?.sum_all()?.affine(1.0, value)?)
}

/// `logsumexp_{j != i} log N(z; mu_j, sigma_j^2)` and its gradient with respect to z.
fn density(i: usize, z: &[f32], means: &[f32], precisions: &[f64], constants: &[f64]) -> (f32, Vec<f32>) {
    let d = z.len();
    let logs: Vec<f64> = means
        .chunks_exact(d)
        .zip(precisions.chunks_exact(d))
        .zip(constants)
        .enumerate()
        .map(|(j, ((mean, precision), constant))| {
            if i == j {
                return f64::NEG_INFINITY;
            }
            let quadratic: f64 = z
                .iter()
                .zip(mean)
                .zip(precision)
                .map(|((z, m), p)| (f64::from(*z) - f64::from(*m)).powi(2) * p)
                .sum();
            constant - 0.5 * quadratic
        })
        .collect();
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logs.iter().map(|l| (l - top).exp()).sum();
    let mut gradient = vec![0.0f64; d];
    for (j, log) in logs.iter().enumerate() {
        let share = (log - top).exp() / total;
        if share < 1e-12 {
            continue;
        }
        for (t, g) in gradient.iter_mut().enumerate() {
            *g -= share * (f64::from(z[t]) - f64::from(means[j * d + t])) * precisions[j * d + t];
        }
    }
    ((top + total.ln()) as f32, gradient.into_iter().map(|g| g as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use paradise_engine::posterior;
    use proptest::prelude::*;

    fn rows(m: usize, d: usize, seed: u64, scale: f32, shift: f32) -> Vec<f32> {
        let mut rng = paradise_support::random::stream(seed, paradise_support::random::Purpose::Noise, 0, 0, 0);
        (0..m * d).map(|_| shift + scale * paradise_support::random::normal(&mut rng)).collect()
    }

    /// Equation 7 by summing densities in f64, without the row's own (possible while nothing underflows).
    fn by_definition(z: &[f32], mu: &[f32], logs: &[f32], m: usize, d: usize) -> f64 {
        let mut total = 0.0;
        for i in 0..m {
            let mut log = Vec::new();
            for j in (0..m).filter(|j| *j != i) {
                let mut l = 0.0;
                for t in 0..d {
                    let sd = f64::from(logs[j * d + t]).exp();
                    let u = (f64::from(z[i * d + t]) - f64::from(mu[j * d + t])) / sd;
                    l += -0.5 * u * u - (sd * (2.0 * std::f64::consts::PI).sqrt()).ln();
                }
                log.push(l);
            }
            let top = log.iter().copied().fold(f64::MIN, f64::max);
            total += top + log.iter().map(|l| (l - top).exp()).sum::<f64>().ln();
        }
        total / m as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn rate_and_gradient_equal_f64(m in 2usize..9, d in 1usize..7, seed: u64, level in -9.2f32..-0.1) {
            // sigma from about 1e-4 to 0.9.
            let (mu, logs) = (rows(m, d, seed, 1.0, 0.0), rows(m, d, seed ^ 1, 0.1, level));
            let z = rows(m, d, seed ^ 2, 1.0, 0.0);
            let t = |v: &[f32]| Tensor::from_vec(v.to_vec(), (m, d), &Device::Cpu).unwrap();
            let zv = Var::from_tensor(&t(&z)).unwrap();
            let value = mini_batch_log_density(&zv, &t(&mu), &t(&logs)).unwrap();
            let exact = by_definition(&z, &mu, &logs, m, d);
            let got = f64::from(value.to_scalar::<f32>().unwrap());
            prop_assert!((got - exact).abs() <= 1e-5 * exact.abs().max(1.0), "{got} {exact}");
            let grads = value.backward().unwrap();
            let gradient = grads.get(&zv).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let top = gradient.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            // Central differences of the definition. The nearest component may change within sigma^2, so the step is
            // small against that.
            for (at, &analytic) in gradient.iter().enumerate() {
                let h = f64::from(2.0 * (level - 0.4)).exp() * 1e-3;
                let shifted = |sign: f64| {
                    let mut total = 0.0;
                    let i = at / d;
                    let mut log = Vec::new();
                    for j in (0..m).filter(|j| *j != i) {
                        let mut l = 0.0;
                        for k in 0..d {
                            let zt = f64::from(z[i * d + k]) + if k == at % d { sign * h } else { 0.0 };
                            let sd = f64::from(logs[j * d + k]).exp();
                            let u = (zt - f64::from(mu[j * d + k])) / sd;
                            l += -0.5 * u * u - sd.ln();
                        }
                        log.push(l);
                    }
                    let top = log.iter().copied().fold(f64::MIN, f64::max);
                    total += top + log.iter().map(|l| (l - top).exp()).sum::<f64>().ln();
                    total / m as f64
                };
                let numeric = (shifted(1.0) - shifted(-1.0)) / (2.0 * h);
                prop_assert!((f64::from(analytic) - numeric).abs() <= 1e-3 * f64::from(top).max(1e-3), "{} {numeric}", analytic);
            }
        }

        #[test]
        fn the_mirror_equals_the_engine(s in proptest::collection::vec(-40.0f32..40.0, 1..40)) {
            let t = Tensor::from_vec(s.clone(), (1, s.len()), &Device::Cpu).unwrap();
            let logs = log_sigma(&t).unwrap();
            let got = logs.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (g, s) in got.iter().zip(&s) {
                prop_assert!((g - posterior::log_sigma(*s)).abs() <= 2e-6 * s.abs().max(1.0), "{g} {s}");
            }
            let engine: Vec<f32> = s.iter().map(|s| posterior::log_sigma(*s)).collect();
            let entropy = mean_entropy(&logs).unwrap().to_scalar::<f32>().unwrap();
            prop_assert!((entropy - posterior::entropy_nats(&engine)).abs() <= 1e-3);
        }
    }

    proptest! {
        #[test]
        fn the_divergence_equals_f64(rows in proptest::collection::vec((-4.0f32..4.0, -9.2f32..0.0), 1..40)) {
            let n = rows.len();
            let column = |pick: fn(&(f32, f32)) -> f32| {
                Var::from_vec(rows.iter().map(pick).collect::<Vec<f32>>(), (1, n), &Device::Cpu).unwrap()
            };
            let (mu, logs) = (column(|r| r.0), column(|r| r.1));
            let value = divergence_from_standard_normal(&mu, &logs).unwrap();
            let (mut exact, mut scale) = (0.0, 0.0);
            for (m, l) in &rows {
                let (m, sd) = (f64::from(*m), f64::from(*l).exp());
                exact += -sd.ln() + (sd * sd + m * m) / 2.0 - 0.5;
                scale += 1.0 + m * m - sd.ln();
            }
            prop_assert!((f64::from(value.to_scalar::<f32>().unwrap()) - exact).abs() <= 1e-6 * scale);
            let grads = value.backward().unwrap();
            let flat = |v: &Var| grads.get(v).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (i, (m, l)) in rows.iter().enumerate() {
                prop_assert!((flat(&mu)[i] - m).abs() <= 1e-5);
                let by_log = f64::from(*l).exp().powi(2) - 1.0;
                prop_assert!((f64::from(flat(&logs)[i]) - by_log).abs() <= 1e-5);
            }
        }
    }

    #[test]
    fn one_image_has_no_rate() {
        let t = Tensor::zeros((1, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(mini_batch_log_density(&t, &t, &t).is_err());
    }
}

//! The posterior `p(z|x) = N(mu, diag sigma^2)`: from the head's `s` to `sigma` and `log sigma`, and its entropy.
//!
//! All functions are f32 through the pinned `libm`, the same bits on every target.

/// `1/2 log 2 pi + 1/2`, nats.
pub const HALF_LOG_2PI_E: f32 = 1.418_938_5;

/// `sigma = 1 / (1 + e^-s)`, in (0, 1), and `log sigma = -softplus(-s) = -(max(-s, 0) + log(1 + e^-|s|))`, never the
/// logarithm of a rounded sigmoid; both stable on both sides, from one exponential.
///
/// ```
/// use paradise_engine::posterior::sigma_and_log;
/// assert_eq!(sigma_and_log(0.0), (0.5, 0.5f32.ln()));
/// // Far to the left sigma is tiny, and its logarithm still exact.
/// assert_eq!(sigma_and_log(-200.0).1, -200.0);
/// ```
pub fn sigma_and_log(s: f32) -> (f32, f32) {
    let e = libm::expf(-s.abs());
    let sigma = if s >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) };
    (sigma, -((-s).max(0.0) + libm::log1pf(e)))
}

/// `log sigma` of [`sigma_and_log`].
pub fn log_sigma(s: f32) -> f32 {
    sigma_and_log(s).1
}

/// `sigma` of [`sigma_and_log`].
pub fn sigma(s: f32) -> f32 {
    sigma_and_log(s).0
}

/// Posterior entropy `H = sum_j (1/2 log 2 pi + 1/2 + log sigma_j)`, nats (supplement, section 1.6).
///
/// ```
/// use paradise_engine::posterior::entropy_nats;
/// // One standard normal: log(2 pi e) / 2.
/// assert!((entropy_nats(&[0.0]) - 1.4189385).abs() < 1e-6);
/// ```
pub fn entropy_nats(log_sigma: &[f32]) -> f32 {
    let mut sum = 0.0;
    for l in log_sigma {
        sum += HALF_LOG_2PI_E + l;
    }
    sum
}

/// `KL(N(mu, sigma^2) || N(mean, std^2))` of N components, nats, from `(mean, log std, 1 / (2 std^2))` of component `k`
/// and dimension `j`.
///
/// Each sum runs in index order, whatever N: side by side they do not wait for each other.
pub fn kl_nats<const N: usize>(
    mu: &[f32],
    sigma: &[f32],
    log_sigma: &[f32],
    component: impl Fn(usize, usize) -> (f32, f32, f32),
) -> [f32; N] {
    let mut sums = [0.0; N];
    for (j, ((mu, sigma), log_sigma)) in mu.iter().zip(sigma).zip(log_sigma).enumerate() {
        for (k, sum) in sums.iter_mut().enumerate() {
            let (mean, log_std, half_precision) = component(k, j);
            let offset = mu - mean;
            let spread = sigma * sigma + offset * offset;
            *sum += (log_std - log_sigma) + (spread * half_precision - 0.5);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definitions in f64, by other routes: ln(1/(1+e^-s)) and the textbook KL.
    fn log_sigma_f64(s: f64) -> f64 {
        if s > -30.0 { -libm::log(1.0 + libm::exp(-s)) } else { s }
    }

    #[test]
    fn the_constant_is_half_log_two_pi_e() {
        let exact = 0.5 * libm::log(2.0 * core::f64::consts::PI * core::f64::consts::E);
        assert_eq!(HALF_LOG_2PI_E, exact as f32);
    }

    proptest! {
        #[test]
        fn log_sigma_within_three_ulp_of_f64(s in -80.0f32..80.0) {
            let exact = log_sigma_f64(f64::from(s));
            let error = (f64::from(log_sigma(s)) - exact).abs();
            // Where sigma is near 1 the f64 route itself loses relative digits; 1e-15 absolute covers it.
            prop_assert!(error <= 3.0 * f64::from(f32::EPSILON) * exact.abs() + 1e-15, "{s} {error}");
        }

        #[test]
        fn sigma_within_three_ulp_of_f64(s in -80.0f32..80.0) {
            let exact = 1.0 / (1.0 + libm::exp(-f64::from(s)));
            let error = (f64::from(sigma(s)) - exact).abs();
            prop_assert!(error <= 3.0 * f64::from(f32::EPSILON) * exact, "{s} {error}");
        }

        #[test]
        fn entropy_and_kl_equal_f64(
            rows in proptest::collection::vec((-3.0f32..3.0, -6.0f32..4.0, -3.0f32..3.0, 0.05f32..2.0), 1..70)
        ) {
            let mu: std::vec::Vec<f32> = rows.iter().map(|r| r.0).collect();
            let sigmas: std::vec::Vec<f32> = rows.iter().map(|r| sigma(r.1)).collect();
            let logs: std::vec::Vec<f32> = rows.iter().map(|r| log_sigma(r.1)).collect();
            let (mut h, mut kl, mut scale) = (0.0f64, 0.0f64, 0.0f64);
            for r in &rows {
                let sd = 1.0 / (1.0 + libm::exp(-f64::from(r.1)));
                let (m, t) = (f64::from(r.2), f64::from(r.3));
                h += 0.5 * libm::log(2.0 * core::f64::consts::PI * core::f64::consts::E * sd * sd);
                let ratio = sd * sd / (t * t);
                let shift = (f64::from(r.0) - m) / t;
                let term = 0.5 * (ratio + shift * shift - 1.0 - libm::log(ratio));
                kl += term;
                scale += term.abs() + libm::log(ratio).abs() + 1.0;
            }
            prop_assert!((f64::from(entropy_nats(&logs)) - h).abs() <= 1e-5 * (h.abs() + rows.len() as f64 * 6.0));
            let component = |_: usize, j: usize| {
                let (mean, std) = (rows[j].2, f64::from(rows[j].3));
                (mean, libm::log(std) as f32, (0.5 / (std * std)) as f32)
            };
            let got = kl_nats::<3>(&mu, &sigmas, &logs, component);
            prop_assert!((f64::from(got[0]) - kl).abs() <= 2e-6 * scale, "{got:?} {kl}");
            prop_assert_eq!(got, [got[0]; 3]);
        }
    }

    #[test]
    fn extremes_stay_finite() {
        for s in [-1e4, -88.0, -1.0, 0.0, 1.0, 88.0, 1e4] {
            assert!(log_sigma(s).is_finite() && sigma(s).is_finite(), "{s}");
        }
        assert_eq!(log_sigma(-1e4), -1e4);
    }

    extern crate std;
}

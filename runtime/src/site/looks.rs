//! What pictures of a site look like: one Gaussian over their [appearance](paradise_engine::appearance), instead of the maker's.

use super::SiteError;
use crate::cholesky::{cholesky, inverse};
use paradise_engine::appearance::{Appearance, LEN};
use serde::{Deserialize, Serialize};

/// Share of itself by which each variance grows. Two of the five numbers give a third, so the covariance alone is singular.
const LOOSER: f64 = 0.01;
/// Least variance: that of a site whose pictures all look the same.
const LEAST: f64 = 1e-4;
/// Share of the pictures that say what the others are like, while strays may be among them.
const CORE: f64 = 0.75;
/// Rounds of choosing them; a handful suffices.
const ROUNDS: usize = 20;

/// Mean and covariance of appearances, as they are compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Looks {
    mean: [f32; LEN],
    /// The inverse of the covariance's Cholesky factor, row by row, `[LEN][LEN]`.
    whitening: [[f32; LEN]; LEN],
}

impl Looks {
    /// Of appearances, all of the same weight.
    pub fn of<'a>(seen: impl Iterator<Item = &'a Appearance>) -> Self {
        Moments::of(seen).looks()
    }

    /// Of the three quarters of appearances that lie closest together (minimum covariance determinant: Rousseeuw & Van Driessen
    /// 1999, from one start): up to a quarter of strays plays no part.
    pub fn robust(seen: &[Appearance]) -> Self {
        let core = ((CORE * seen.len() as f64).ceil() as usize).max(1);
        let mut order: Vec<usize> = (0..seen.len()).collect();
        let mut looks = Self::spread_about_the_median(seen);
        for _ in 0..ROUNDS {
            let distances: Vec<f32> = seen.iter().map(|a| looks.distance(a)).collect();
            order.sort_by(|a, b| distances[*a].total_cmp(&distances[*b]).then(a.cmp(b)));
            let next = Self::of(order[..core].iter().map(|i| &seen[*i]));
            if next == looks {
                break;
            }
            looks = next;
        }
        looks
    }

    /// Each number by itself: median, and median absolute deviation.
    fn spread_about_the_median(seen: &[Appearance]) -> Self {
        let median = |mut values: Vec<f32>| {
            values.sort_by(f32::total_cmp);
            values[values.len() / 2]
        };
        let mean: Appearance = std::array::from_fn(|j| median(seen.iter().map(|a| a[j]).collect()));
        let mut whitening = [[0.0; LEN]; LEN];
        for (j, row) in whitening.iter_mut().enumerate() {
            let deviation = median(seen.iter().map(|a| (a[j] - mean[j]).abs()).collect());
            row[j] = 1.0 / (1.4826 * deviation).max(LEAST.sqrt() as f32);
        }
        Self { mean, whitening }
    }

    /// The squared Mahalanobis distance, in index order.
    pub fn distance(&self, seen: &Appearance) -> f32 {
        let mut distance = 0.0;
        for (row, whitening) in self.whitening.iter().enumerate() {
            let mut sum = 0.0;
            for (j, w) in whitening.iter().enumerate().take(row + 1) {
                sum += w * (seen[j] - self.mean[j]);
            }
            distance += sum * sum;
        }
        distance
    }

    /// The logarithm of its density there, but for a constant.
    pub fn log_density(&self, seen: &Appearance) -> f32 {
        (0..LEN).map(|j| self.whitening[j][j].ln()).sum::<f32>() - 0.5 * self.distance(seen)
    }

    /// Each appearance's distance from all others: from all, itself among them, it would be too small.
    pub fn left_out(seen: &[Appearance]) -> Vec<f32> {
        let all = Moments::of(seen.iter());
        seen.iter().map(|a| all.without(a).looks().distance(a)).collect()
    }

    /// Checks what was read from a file.
    ///
    /// # Errors
    /// If a number is not possible.
    pub fn check(&self) -> Result<(), SiteError> {
        let finite = self.mean.iter().chain(self.whitening.iter().flatten()).all(|v| v.is_finite());
        let positive = (0..LEN).all(|j| self.whitening[j][j] > 0.0);
        if finite && positive {
            Ok(())
        } else {
            Err(SiteError::Text("its looks are not a mean and a covariance".into()))
        }
    }
}

/// Sums over appearances, in f64.
#[derive(Clone)]
struct Moments {
    n: f64,
    sum: [f64; LEN],
    products: [[f64; LEN]; LEN],
}

impl Moments {
    fn of<'a>(seen: impl Iterator<Item = &'a Appearance>) -> Self {
        let mut all = Self { n: 0.0, sum: [0.0; LEN], products: [[0.0; LEN]; LEN] };
        seen.for_each(|a| all.add(a, 1.0));
        all
    }

    fn add(&mut self, seen: &Appearance, times: f64) {
        self.n += times;
        for i in 0..LEN {
            self.sum[i] += times * f64::from(seen[i]);
            for j in 0..LEN {
                self.products[i][j] += times * f64::from(seen[i]) * f64::from(seen[j]);
            }
        }
    }

    fn without(&self, seen: &Appearance) -> Self {
        let mut rest = self.clone();
        rest.add(seen, -1.0);
        rest
    }

    fn looks(&self) -> Looks {
        let mean: [f64; LEN] = std::array::from_fn(|j| self.sum[j] / self.n);
        let mut covariance = vec![0.0; LEN * LEN];
        for i in 0..LEN {
            for j in 0..LEN {
                covariance[i * LEN + j] = self.products[i][j] / self.n - mean[i] * mean[j];
            }
            covariance[i * LEN + i] = covariance[i * LEN + i].max(0.0) * (1.0 + LOOSER) + LEAST;
        }
        let inverse = inverse(&cholesky(&covariance, LEN), LEN);
        let whitening = std::array::from_fn(|i| std::array::from_fn(|j| inverse[i * LEN + j] as f32));
        Looks { mean: mean.map(|v| v as f32), whitening }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appearances about a mean, the fifth number given by two others as in pictures.
    fn drawn(n: usize, about: f32, seed: u64) -> Vec<Appearance> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut normal = move || (0..12).map(|_| rng.f32()).sum::<f32>() - 6.0;
        (0..n)
            .map(|_| {
                let (a, b, c, d) = (normal(), normal(), normal(), normal());
                [about + 0.1 * a, about + 0.3 * b, about + 0.2 * c + 0.2 * b, about + 0.1 * d, 0.2 * c - 0.1 * b]
            })
            .collect()
    }

    #[test]
    fn distances_equal_f64_from_the_definition() {
        let seen = drawn(300, -1.0, 1);
        let looks = Looks::of(seen.iter());
        let mean: Vec<f64> = (0..LEN).map(|j| seen.iter().map(|a| f64::from(a[j])).sum::<f64>() / 300.0).collect();
        let covariance = |i: usize, j: usize| {
            let product = |a: &Appearance| (f64::from(a[i]) - mean[i]) * (f64::from(a[j]) - mean[j]);
            let own = seen.iter().map(product).sum::<f64>() / 300.0;
            if i == j { own * (1.0 + LOOSER) + LEAST } else { own }
        };
        for a in &seen[..20] {
            // S y = x by Gauss; x^T y.
            let mut rows: Vec<Vec<f64>> = (0..LEN).map(|i| (0..LEN).map(|j| covariance(i, j)).collect()).collect();
            let x: Vec<f64> = (0..LEN).map(|j| f64::from(a[j]) - mean[j]).collect();
            let mut y = x.clone();
            for p in 0..LEN {
                for i in 0..LEN {
                    if i != p {
                        let f = rows[i][p] / rows[p][p];
                        let pivot = rows[p].clone();
                        rows[i].iter_mut().zip(pivot).for_each(|(r, q)| *r -= f * q);
                        y[i] -= f * y[p];
                    }
                }
            }
            let exact: f64 = (0..LEN).map(|i| x[i] * y[i] / rows[i][i]).sum();
            let got = f64::from(looks.distance(a));
            assert!((got - exact).abs() <= 1e-3 * exact.max(1.0), "{got} {exact}");
        }
    }

    #[test]
    fn strays_do_not_move_what_is_robust_and_a_picture_is_farther_from_the_others() {
        let mut seen = drawn(400, 0.0, 2);
        let clean = Looks::robust(&seen);
        let own = Looks::of(seen.iter());
        let mean = |distances: &[f32]| distances.iter().sum::<f32>() / distances.len() as f32;
        let apart = Looks::left_out(&seen);
        assert!(seen.iter().zip(&apart).all(|(a, left)| *left > own.distance(a)));
        assert!(mean(&apart) < 1.1 * LEN as f32);
        seen.extend(drawn(80, 5.0, 3));
        let dirty = Looks::robust(&seen);
        for a in &seen[400..] {
            assert!(dirty.distance(a) > 0.5 * clean.distance(a) && dirty.distance(a) > 200.0);
        }
    }

    #[test]
    fn a_site_of_one_picture_has_looks() {
        let looks = Looks::of([[0.5, -1.0, -2.0, -2.0, -1.0]; 3].iter());
        assert!(looks.check().is_ok() && looks.distance(&[0.5, -1.0, -2.0, -2.0, -1.0]) < 1e-3);
    }
}

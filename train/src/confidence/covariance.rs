//! Covariances in f64, in index order, so that every machine fits the same bits: class means, what they leave,
//! principal directions.

use anyhow::{Result, ensure};

/// Vectors seen by class: how many, their means, and the covariance of what the means leave.
#[derive(Debug, Clone, PartialEq)]
pub struct Scatter {
    /// Dimensions.
    pub n: usize,
    /// Classes that have a vector.
    pub classes: Vec<u16>,
    /// Vectors of each.
    pub counts: Vec<usize>,
    /// Means of those classes, `[classes][n]`.
    pub means: Vec<f64>,
    /// Mean over all vectors, rounded to f32, `[n]`.
    pub centre: Vec<f64>,
    /// Covariance within classes, `[n][n]`.
    pub covariance: Vec<f64>,
}

impl Scatter {
    /// Of `vectors`, each of `n` numbers, and their labels; classes without a vector have no mean.
    ///
    /// # Errors
    /// If there is no vector, or one is not finite.
    pub fn of<'a>(n: usize, vectors: impl Iterator<Item = (&'a [f32], u16)> + Clone) -> Result<Self> {
        let classes = vectors.clone().map(|(_, label)| usize::from(label) + 1).max().unwrap_or(0);
        let (mut counts, mut sums) = (vec![0usize; classes], vec![0.0f64; classes * n]);
        for (vector, label) in vectors.clone() {
            ensure!(vector.iter().all(|v| v.is_finite()), "a posterior is not finite");
            let c = usize::from(label);
            counts[c] += 1;
            sums[c * n..(c + 1) * n].iter_mut().zip(vector).for_each(|(sum, v)| *sum += f64::from(*v));
        }
        let total: usize = counts.iter().sum();
        ensure!(total > 0, "there is no image to fit confidence to");
        // As it is stored: what is subtracted from means is what a device subtracts.
        let mean = |j: usize| (0..classes).map(|c| sums[c * n + j]).sum::<f64>() / total as f64;
        let centre = (0..n).map(|j| f64::from(mean(j) as f32)).collect();
        let means: Vec<f64> = (0..classes * n)
            .map(|at| if counts[at / n] == 0 { 0.0 } else { sums[at] / counts[at / n] as f64 })
            .collect();
        let mut covariance = vec![0.0f64; n * n];
        let mut offset = vec![0.0f64; n];
        for (vector, label) in vectors {
            let mean = &means[usize::from(label) * n..][..n];
            offset.iter_mut().zip(vector).zip(mean).for_each(|((o, v), m)| *o = f64::from(*v) - m);
            for (i, row) in covariance.chunks_exact_mut(n).enumerate() {
                let by = offset[i];
                row[..=i].iter_mut().zip(&offset).for_each(|(sum, o)| *sum += by * o);
            }
        }
        for i in 0..n {
            for j in 0..=i {
                covariance[i * n + j] /= total as f64;
                covariance[j * n + i] = covariance[i * n + j];
            }
        }
        let there: Vec<usize> = (0..classes).filter(|c| counts[*c] > 0).collect();
        Ok(Self {
            n,
            classes: there.iter().map(|c| *c as u16).collect(),
            means: there.iter().flat_map(|c| means[c * n..(c + 1) * n].to_vec()).collect(),
            counts: there.iter().map(|c| counts[*c]).collect(),
            centre,
            covariance,
        })
    }

    /// The covariance with each variance larger by `share` of itself: correlations shrink, whatever the units of the numbers,
    /// and nothing is singular.
    pub fn shrunk(&self, share: f64) -> Vec<f64> {
        let n = self.n;
        let mut shrunk = self.covariance.clone();
        for j in 0..n {
            // Four times what rounding to f32 alone makes, so that no distance is made of it.
            let least = (f64::from(f32::EPSILON) * self.centre[j]).powi(2) / 3.0;
            let variance = &mut shrunk[j * n + j];
            *variance = (*variance * (1.0 + share)).max(least).max(1e-14);
        }
        shrunk
    }

    /// As if each vector could be off by what has the second moments `tolerance`, `[n][n]`.
    pub fn loosened(mut self, tolerance: Option<&[f64]>) -> Self {
        if let Some(tolerance) = tolerance {
            self.covariance.iter_mut().zip(tolerance).for_each(|(s, t)| *s += t);
        }
        self
    }
}

/// The `k` directions of largest variance, unit length, `[k][n]`, and their variances, largest first: orthogonal iteration.
pub fn principal(covariance: &[f64], n: usize, k: usize) -> (Vec<f64>, Vec<f64>) {
    const ROUNDS: usize = 200;
    const STILL: f64 = 1e-9;
    // Any start that no direction is orthogonal to; a linear congruence, so that it is always the same.
    let mut state = 1u64;
    let mut start = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    let mut rows: Vec<Vec<f64>> = (0..k).map(|_| (0..n).map(|_| start()).collect()).collect();
    orthonormal(&mut rows);
    let mut variance = vec![0.0; k];
    for _ in 0..ROUNDS {
        let mut next: Vec<Vec<f64>> =
            rows.iter().map(|u| covariance.chunks_exact(n).map(|row| dot(row, u)).collect()).collect();
        let found: Vec<f64> = next.iter().zip(&rows).map(|(s, u)| dot(s, u)).collect();
        orthonormal(&mut next);
        let moved = found.iter().zip(&variance).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let largest = found.iter().copied().fold(0.0, f64::max);
        (rows, variance) = (next, found);
        if moved <= STILL * largest {
            break;
        }
    }
    let variance =
        rows.iter().map(|u| dot(u, &covariance.chunks_exact(n).map(|row| dot(row, u)).collect::<Vec<_>>())).collect();
    (rows.concat(), variance)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Gram and Schmidt, twice over, since once leaves rounding.
fn orthonormal(rows: &mut [Vec<f64>]) {
    for i in 0..rows.len() {
        let (before, rest) = rows.split_at_mut(i);
        let row = &mut rest[0];
        for _ in 0..2 {
            for other in before.iter() {
                let along = dot(row, other);
                row.iter_mut().zip(other).for_each(|(r, o)| *r -= along * o);
            }
        }
        let length = dot(row, row).sqrt();
        // A direction that the others span already: any unit vector that they do not.
        if length <= 1e-300 {
            row.fill(0.0);
            let at = i % row.len();
            row[at] = 1.0;
        } else {
            row.iter_mut().for_each(|r| *r /= length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_runtime::cholesky::{cholesky, inverse};

    #[test]
    fn principal_directions_are_those_of_a_known_covariance() {
        // Rotated by 30 degrees in a plane of five dimensions: variances 9 and 4, and 1 elsewhere.
        let (c, s) = (0.75f64.sqrt(), 0.5);
        let u = [[c, 0.0, s, 0.0, 0.0], [-s, 0.0, c, 0.0, 0.0]];
        let at = |i: usize, j: usize| f64::from(u8::from(i == j)) + 8.0 * u[0][i] * u[0][j] + 3.0 * u[1][i] * u[1][j];
        let covariance: Vec<f64> = (0..25).map(|k| at(k / 5, k % 5)).collect();
        let (rows, variance) = principal(&covariance, 5, 2);
        assert!((variance[0] - 9.0).abs() < 1e-6 && (variance[1] - 4.0).abs() < 1e-6, "{variance:?}");
        for (row, u) in rows.chunks_exact(5).zip(u) {
            assert!((dot(row, &u).abs() - 1.0).abs() < 1e-6, "{row:?}");
        }
    }

    #[test]
    fn scatter_has_the_moments_of_its_classes_and_empty_ones_have_none() {
        let vectors = [[1.0f32, 0.0], [3.0, 0.0], [-2.0, 5.0], [-2.0, 5.0]];
        let labels = [0u16, 0, 2, 2];
        let all = vectors.iter().map(<[f32; 2]>::as_slice).zip(labels);
        let scatter = Scatter::of(2, all).unwrap();
        assert_eq!((&scatter.means[..], &scatter.counts[..]), (&[2.0, 0.0, -2.0, 5.0][..], &[2, 2][..]));
        assert_eq!((&scatter.covariance[..], &scatter.centre[..]), (&[0.5, 0.0, 0.0, 0.0][..], &[0.0, 2.5][..]));
        // A constant dimension is not singular once shrunk.
        let l = cholesky(&scatter.shrunk(1e-4), 2);
        assert!(l[3] > 0.0 && inverse(&l, 2).iter().all(|v| v.is_finite()));
        assert!(Scatter::of(2, std::iter::empty()).is_err());
        assert!(Scatter::of(1, [(&[f32::NAN][..], 0)].into_iter()).is_err());
    }
}

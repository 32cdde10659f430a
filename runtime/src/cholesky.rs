//! Cholesky's factor of a covariance and its inverse, which whitens: in f64, in index order, so that every machine computes the same
//! bits.

/// The lower Cholesky factor of a covariance given by its lower half, `[n][n]`; a direction without variance gets none.
pub fn cholesky(covariance: &[f64], n: usize) -> Vec<f64> {
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum();
            let rest = covariance[i * n + j] - sum;
            l[i * n + j] = if i == j {
                rest.max(0.0).sqrt()
            } else if l[j * n + j] > 1e-12 {
                rest / l[j * n + j]
            } else {
                0.0
            };
        }
    }
    l
}

/// The inverse of a lower triangle with a positive diagonal, `[n][n]`.
pub fn inverse(l: &[f64], n: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; n * n];
    for j in 0..n {
        inverse[j * n + j] = 1.0 / l[j * n + j];
        for i in j + 1..n {
            let sum: f64 = (j..i).map(|k| l[i * n + k] * inverse[k * n + j]).sum();
            inverse[i * n + j] = -sum / l[i * n + i];
        }
    }
    inverse
}

/// `sum_k l[k][k]`'s logarithm: half of the logarithm of the determinant of `L L^T`.
pub fn half_log_det(l: &[f64], n: usize) -> f64 {
    (0..n).map(|j| l[j * n + j].ln()).sum()
}

/// The product of a lower triangle and a vector.
pub fn by_lower(l: &[f64], x: &[f64]) -> Vec<f64> {
    l.chunks_exact(x.len()).enumerate().map(|(i, row)| row[..=i].iter().zip(x).map(|(a, b)| a * b).sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    proptest! {
        #[test]
        fn the_inverse_undoes_the_factor_of_a_covariance(
            n in 1usize..12, values in proptest::collection::vec(-2.0f64..2.0, 144), scale in -4i32..4
        ) {
            // B B^T + I, rows scaled by up to 10^4 against each other: ill-conditioned.
            let unit = |i: usize| 10f64.powi(if i.is_multiple_of(2) { scale } else { 0 });
            let s: Vec<f64> = (0..n * n).map(|at| {
                let (i, j) = (at / n, at % n);
                let dot: f64 = (0..n).map(|k| values[i * 12 + k] * values[j * 12 + k]).sum();
                (dot + f64::from(u8::from(i == j))) * unit(i) * unit(j)
            }).collect();
            let l = cholesky(&s, n);
            let w = inverse(&l, n);
            // |W x|^2 = x^T S^-1 x: solve S y = x by Gauss.
            let x: Vec<f64> = (0..n).map(|i| values[i] * unit(i)).collect();
            let mut a = s.clone();
            let mut y = x.clone();
            for p in 0..n {
                for i in p + 1..n {
                    let f = a[i * n + p] / a[p * n + p];
                    for j in p..n { a[i * n + j] -= f * a[p * n + j]; }
                    y[i] -= f * y[p];
                }
            }
            for i in (0..n).rev() {
                let sum: f64 = (i + 1..n).map(|j| a[i * n + j] * y[j]).sum();
                y[i] = (y[i] - sum) / a[i * n + i];
            }
            let exact = dot(&x, &y);
            let white = by_lower(&w, &x);
            let got = dot(&white, &white);
            prop_assert!((got - exact).abs() <= 1e-6 * exact.max(1e-9), "{} {}", got, exact);
        }
    }
}

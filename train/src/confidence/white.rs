//! What posteriors and pictures are compared with: class means under one covariance, as small as the format wants it and as
//! strongly shrunk as held-out images want it.

use super::covariance::{Scatter, principal};
use super::written::{Shape, White};
use anyhow::Result;
use paradise_engine::whitening::pack;
use paradise_runtime::cholesky::{by_lower, cholesky, half_log_det, inverse};

/// Most dimensions of a triangle; above, principal directions and an isotropic rest.
pub const MAX_TRIANGLE: usize = 256;
/// One image of so many is held out while a shape is chosen.
const HELD_OUT: usize = 10;
/// Shares of itself by which each variance may grow.
const SHRINKAGE: [f64; 4] = [1e-3, 1e-2, 1e-1, 1.0];
/// Numbers of principal directions that may be kept.
const DIRECTIONS: [usize; 5] = [0, 8, 16, 32, 64];

/// Whether image `i` is held out while something is chosen.
pub fn held_out(i: usize) -> bool {
    i % HELD_OUT == HELD_OUT - 1
}

/// Vectors of `n` numbers and their labels, whitened by the covariance within classes and, if there is some, a `tolerance`
/// `[n][n]`: second moments of what vectors may be off by elsewhere.
///
/// # Errors
/// If there is no vector, or one is not finite.
pub fn fit<'a>(
    n: usize,
    vectors: impl Iterator<Item = (&'a [f32], u16)> + Clone,
    tolerance: Option<&[f64]>,
) -> Result<White> {
    let part = |held: bool| vectors.clone().enumerate().filter(move |(i, _)| held_out(*i) == held).map(|(_, v)| v);
    let seen = Scatter::of(n, part(false))?.loosened(tolerance);
    let offsets: Vec<Vec<f64>> = part(true).filter_map(|(v, label)| offset(&seen, v, label)).collect();
    let all = Scatter::of(n, vectors.clone())?.loosened(tolerance);
    if n <= MAX_TRIANGLE {
        let chosen = least(&SHRINKAGE, |share| triangle_code(&seen.shrunk(*share), n, &offsets));
        // With nothing to judge by, what lies beside a few images is as likely as they are.
        return Ok(by_triangle(&all, *chosen.unwrap_or(&SHRINKAGE[SHRINKAGE.len() - 1])));
    }
    let most = DIRECTIONS[DIRECTIONS.len() - 1];
    let covariance = seen.shrunk(SHRINKAGE[0]);
    let (rows, variance) = principal(&covariance, n, most);
    let projected: Vec<(f64, Vec<f64>)> =
        offsets.iter().map(|o| (o.iter().map(|v| v * v).sum(), project(&rows, o))).collect();
    let code = |k: &usize| principal_code(&variance[..*k], rest(&covariance, n, &variance[..*k]), n, &projected);
    let k = *least(&DIRECTIONS, code).unwrap_or(&0);
    Ok(by_directions(&all, k))
}

/// A vector less its class's mean; none where the class has none.
fn offset(scatter: &Scatter, vector: &[f32], label: u16) -> Option<Vec<f64>> {
    let at = scatter.classes.iter().position(|c| *c == label)?;
    let mean = &scatter.means[at * scatter.n..][..scatter.n];
    Some(vector.iter().zip(mean).map(|(v, m)| f64::from(*v) - m).collect())
}

/// The choice of the shortest code; none where no code has a length.
fn least<T>(choices: &[T], code: impl Fn(&T) -> Option<f64>) -> Option<&T> {
    let all = choices.iter().filter_map(|c| Some((c, code(c)?)));
    all.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(c, _)| c)
}

/// Mean code length of held-out offsets under a covariance, nats, less what all covariances have in common.
fn triangle_code(covariance: &[f64], n: usize, offsets: &[Vec<f64>]) -> Option<f64> {
    let l = cholesky(covariance, n);
    let w = inverse(&l, n);
    let squares = offsets.iter().map(|o| by_lower(&w, o).iter().map(|y| y * y).sum::<f64>());
    mean(squares).map(|squared| half_log_det(&l, n) + 0.5 * squared)
}

fn principal_code(variance: &[f64], rest: f64, n: usize, projected: &[(f64, Vec<f64>)]) -> Option<f64> {
    let squares = projected.iter().map(|(length, along)| {
        let along = &along[..variance.len()];
        let inside: f64 = along.iter().zip(variance).map(|(p, l)| p * p / l).sum();
        inside + (length - along.iter().map(|p| p * p).sum::<f64>()).max(0.0) / rest
    });
    let log_det = variance.iter().map(|l| l.ln()).sum::<f64>() + (n - variance.len()) as f64 * rest.ln();
    mean(squares).map(|squared| 0.5 * (log_det + squared))
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let n = values.len();
    (n > 0).then(|| values.sum::<f64>() / n as f64)
}

/// Variance of each direction that the principal ones leave.
fn rest(covariance: &[f64], n: usize, variance: &[f64]) -> f64 {
    let trace: f64 = (0..n).map(|j| covariance[j * n + j]).sum();
    (trace - variance.iter().sum::<f64>()).max(f64::MIN_POSITIVE) / (n - variance.len()) as f64
}

fn project(rows: &[f64], x: &[f64]) -> Vec<f64> {
    rows.chunks_exact(x.len()).map(|u| u.iter().zip(x).map(|(u, x)| u * x).sum()).collect()
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

/// Class means less the centre.
fn centred(scatter: &Scatter) -> impl Iterator<Item = Vec<f64>> {
    scatter.means.chunks_exact(scatter.n).map(|m| m.iter().zip(&scatter.centre).map(|(m, c)| m - c).collect())
}

fn by_triangle(scatter: &Scatter, shrinkage: f64) -> White {
    let n = scatter.n;
    let w = inverse(&cholesky(&scatter.shrunk(shrinkage), n), n);
    White {
        centre: narrow(&scatter.centre),
        means: centred(scatter).flat_map(|m| narrow(&by_lower(&w, &m))).collect(),
        shape: Shape::Triangle(pack(n, |row, column| w[row * n + column] as f32)),
    }
}

fn by_directions(scatter: &Scatter, k: usize) -> White {
    let n = scatter.n;
    let covariance = scatter.shrunk(SHRINKAGE[0]);
    let (rows, variance) = principal(&covariance, n, k);
    let rest = rest(&covariance, n, &variance);
    let white = |x: Vec<f64>| {
        let along = project(&rows, &x);
        let mut left = x;
        for (u, p) in rows.chunks_exact(n).zip(&along) {
            left.iter_mut().zip(u).for_each(|(l, u)| *l -= p * u);
        }
        let along = along.iter().zip(&variance).map(|(p, l)| p / l.sqrt());
        along.chain(left.iter().map(|l| l / rest.sqrt())).map(|v| v as f32).collect::<Vec<f32>>()
    };
    White {
        centre: narrow(&scatter.centre),
        means: centred(scatter).flat_map(white).collect(),
        shape: Shape::Principal {
            rows: rows
                .chunks_exact(n)
                .zip(&variance)
                .flat_map(|(u, l)| u.iter().map(|u| (u / l.sqrt()) as f32))
                .collect(),
            variance: narrow(&variance),
            rest: (1.0 / rest.sqrt()) as f32,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_engine::container::{Blob, Tensors};
    use paradise_engine::whitening::nearest;
    use paradise_support::random::{self, Purpose};
    use proptest::prelude::*;

    /// The engine's squared distances of `probes` under a fitted covariance.
    fn served(white: &White, probes: &[Vec<f32>]) -> Vec<f64> {
        let mut blob = Blob::default();
        let record = white.write(&mut blob).unwrap();
        let tensors = Tensors::new(blob.collected());
        let each = |x: &Vec<f32>| {
            let mut scratch = vec![0.0; 2 * x.len()];
            let y = record.whiten(tensors, x.iter().copied(), &mut scratch);
            f64::from(nearest(tensors.numbers(record.means), record.components.into(), y))
        };
        probes.iter().map(each).collect()
    }

    /// By definition: means and covariance in two passes, each variance larger by `share`, solved by elimination.
    fn defined(rows: &[(Vec<f32>, u16)], share: f64, probes: &[Vec<f32>]) -> Vec<f64> {
        let n = probes[0].len();
        let classes: std::collections::BTreeSet<u16> = rows.iter().map(|r| r.1).collect();
        let mean = |class: u16| {
            let own: Vec<&Vec<f32>> = rows.iter().filter(|r| r.1 == class).map(|r| &r.0).collect();
            (0..n).map(|j| own.iter().map(|v| f64::from(v[j])).sum::<f64>() / own.len() as f64).collect::<Vec<f64>>()
        };
        let means: std::collections::BTreeMap<u16, Vec<f64>> = classes.iter().map(|c| (*c, mean(*c))).collect();
        let mut s = vec![vec![0.0f64; n]; n];
        for (v, class) in rows {
            for i in 0..n {
                for j in 0..n {
                    s[i][j] +=
                        (f64::from(v[i]) - means[class][i]) * (f64::from(v[j]) - means[class][j]) / rows.len() as f64;
                }
            }
        }
        (0..n).for_each(|j| s[j][j] = (s[j][j] * (1.0 + share)).max(1e-12));
        let squared = |x: &Vec<f32>, m: &Vec<f64>| {
            let offset: Vec<f64> = x.iter().zip(m).map(|(x, m)| f64::from(*x) - m).collect();
            let (mut a, mut y) = (s.clone(), offset.clone());
            for p in 0..n {
                let row = a[p].clone();
                for i in p + 1..n {
                    let f = a[i][p] / row[p];
                    (p..n).for_each(|j| a[i][j] -= f * row[j]);
                    y[i] -= f * y[p];
                }
            }
            for i in (0..n).rev() {
                let sum: f64 = (i + 1..n).map(|j| a[i][j] * y[j]).sum();
                y[i] = (y[i] - sum) / a[i][i];
            }
            offset.iter().zip(&y).map(|(o, y)| o * y).sum::<f64>()
        };
        probes.iter().map(|x| means.values().map(|m| squared(x, m)).fold(f64::INFINITY, f64::min)).collect()
    }

    /// `count` vectors of `n` numbers of very different sizes, some of which hang together, in classes.
    fn vectors(count: usize, n: usize, classes: u16, seed: u64) -> Vec<(Vec<f32>, u16)> {
        (0..count)
            .map(|i| {
                let mut rng = random::stream(seed, Purpose::Noise, 0, i as u64, 0);
                let common = random::normal(&mut rng);
                let class = i as u16 % classes;
                let number = |j: usize| {
                    let own = random::normal(&mut rng);
                    let unit = 10f32.powi(j as i32 % 5 - 2);
                    // Every third follows the common one but for a hundredth.
                    unit * (if j.is_multiple_of(3) { common + 0.01 * own } else { own } + f32::from(class) * 2.0)
                };
                ((0..n).map(number).collect(), class)
            })
            .collect()
    }

    fn fitted(rows: &[(Vec<f32>, u16)]) -> White {
        fit(rows[0].0.len(), rows.iter().map(|(v, c)| (&v[..], *c)), None).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn distances_equal_their_definition(n in 2usize..14, count in 4usize..80, classes in 1u16..4, seed in any::<u64>()) {
            let rows = vectors(count, n, classes, seed);
            let probes: Vec<Vec<f32>> =
                vectors(12, n, 1, seed ^ 1).into_iter().map(|(v, _)| v.iter().map(|v| 1.5 * v).collect()).collect();
            let got = served(&fitted(&rows), &probes);
            // One of the shares is the one that was chosen.
            let error = |share: &f64| {
                let exact = defined(&rows, *share, &probes);
                got.iter().zip(exact).map(|(g, e)| (g - e).abs() / e.max(1.0)).fold(0.0, f64::max)
            };
            let least = SHRINKAGE.iter().map(error).fold(f64::INFINITY, f64::min);
            prop_assert!(least <= 2e-3, "{}", least);
        }
    }

    #[test]
    fn degenerate_images_have_finite_distances() {
        let far = |rows: &[(Vec<f32>, u16)]| {
            let n = rows[0].0.len();
            let probes = [rows[0].0.clone(), vec![50.0; n]];
            let got = served(&fitted(rows), &probes);
            assert!(got.iter().all(|d| d.is_finite() && *d >= 0.0) && got[1] > got[0], "{got:?}");
        };
        // One image; two in a class; all equal; a constant number; one that another gives.
        far(&[(vec![1.0, 2.0], 0)]);
        far(&[(vec![1.0, 2.0], 3), (vec![1.5, 2.5], 3)]);
        far(&vec![(vec![0.5, 0.5, 0.5], 1); 30]);
        let constant = |i: usize| (vec![(i % 7) as f32, 3.0, (i % 5) as f32], (i % 2) as u16);
        far(&(0..60).map(constant).collect::<Vec<_>>());
        let given = |i: usize| (vec![(i % 7) as f32, 2.0 * (i % 7) as f32], 0);
        far(&(0..60).map(given).collect::<Vec<_>>());
        // Fewer images than dimensions, by a triangle and by directions.
        far(&vectors(30, 64, 3, 5));
        far(&vectors(40, 1024, 2, 6));
    }

    #[test]
    fn many_dimensions_have_principal_directions_that_tell_what_the_covariance_tells() {
        // d = 512: twelve strong directions over a weak rest.
        let n = 1024;
        let make = |i: usize, scale: f32| {
            let mut rng = random::stream(9, Purpose::Noise, 1, i as u64, 0);
            let strong: Vec<f32> = (0..12).map(|_| 5.0 * random::normal(&mut rng)).collect();
            (0..n).map(|j| scale * (strong[j % 12] + random::normal(&mut rng))).collect::<Vec<f32>>()
        };
        let rows: Vec<(Vec<f32>, u16)> = (0..300).map(|i| (make(i, 1.0), 0)).collect();
        let white = fitted(&rows);
        assert!(matches!(&white.shape, Shape::Principal { variance, .. } if variance.len() >= 8));
        let mean = |v: Vec<f64>| v.iter().sum::<f64>() / v.len() as f64;
        let fresh: Vec<Vec<f32>> = (300..340).map(|i| make(i, 1.0)).collect();
        let wide: Vec<Vec<f32>> = (300..340).map(|i| make(i, 1.3)).collect();
        // As long as dimensions are many, and a third farther out is a third farther out.
        let (near, far) = (mean(served(&white, &fresh)), mean(served(&white, &wide)));
        assert!((near / n as f64 - 1.0).abs() < 0.15 && (far / near - 1.69).abs() < 0.05, "{near} {far}");
    }
}

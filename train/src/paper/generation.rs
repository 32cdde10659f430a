//! Figures 1 and 2: images from the latent space of a model that reconstructs, and arithmetic there.

use crate::encoder::batch;
use crate::encoder::{Encoder, values};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use paradise_data::Dataset;
use paradise_evaluate::figure::gallery::{self, Cell, Row};
use paradise_runtime::cholesky::cholesky;
use paradise_support::random::{self, Purpose, branch};

/// Images encoded at once.
const BATCH: usize = 256;

/// A Gaussian with any covariance: mean `[d]`, and the lower factor of the covariance `[d][d]`.
pub struct Gaussian {
    mean: Vec<f64>,
    factor: Vec<f64>,
}

impl Gaussian {
    /// Fitted to the aggregate posterior of a set: covariance of mu plus the mean of sigma^2.
    ///
    /// # Errors
    /// If there are fewer images than two.
    pub fn of(mu: &[f32], sigma: &[f32], d: usize) -> Result<Self> {
        let n = mu.len() / d;
        ensure!(n > 1, "a Gaussian needs two images");
        let mean: Vec<f64> =
            (0..d).map(|j| mu.chunks_exact(d).map(|r| f64::from(r[j])).sum::<f64>() / n as f64).collect();
        let mut covariance = vec![0.0; d * d];
        for (row, spread) in mu.chunks_exact(d).zip(sigma.chunks_exact(d)) {
            for i in 0..d {
                for j in 0..=i {
                    covariance[i * d + j] += (f64::from(row[i]) - mean[i]) * (f64::from(row[j]) - mean[j]) / n as f64;
                }
                covariance[i * d + i] += f64::from(spread[i]).powi(2) / n as f64;
            }
        }
        Ok(Self { mean, factor: cholesky(&covariance, d) })
    }

    fn draw(&self, seed: u64, k: u64) -> Vec<f32> {
        let d = self.mean.len();
        let mut rng = random::stream(seed, Purpose::Posterior, branch::RECONSTRUCTION, k, 0);
        let noise: Vec<f64> = (0..d).map(|_| f64::from(random::normal(&mut rng))).collect();
        let one = |i: usize| self.mean[i] + (0..=i).map(|j| self.factor[i * d + j] * noise[j]).sum::<f64>();
        (0..d).map(|i| one(i) as f32).collect()
    }
}

/// mu and sigma of a set, `[n][d]` each.
fn encode(encoder: &Encoder, set: &Dataset) -> Result<[Vec<f32>; 2]> {
    let all: Vec<usize> = (0..set.len()).collect();
    let (mut mu, mut sigma) = (Vec::new(), Vec::new());
    for ids in all.chunks(BATCH) {
        let posterior = encoder.encode(&batch(set, ids)?)?;
        mu.extend(values(&posterior.mu)?);
        sigma.extend(values(&posterior.sigma)?);
    }
    Ok([mu, sigma])
}

/// The picture of one latent.
fn decode(encoder: &Encoder, z: &[f32]) -> Result<Vec<u8>> {
    let z = Tensor::from_slice(z, (1, z.len()), &Device::Cpu)?;
    let byte = |v: f32| (v.clamp(0.0, 1.0) * 255.0).round() as u8;
    Ok(values(&encoder.decode(&z)?)?.into_iter().map(byte).collect())
}

/// Figure 1: images of latents drawn from a Gaussian fitted to the aggregate posterior of unseen images, then each
/// reconstructed again and again.
///
/// # Errors
/// If the encoder has no decoder, or drawing fails.
pub fn figure_1(encoder: &Encoder, unseen: &Dataset, rows: usize, columns: usize, seed: u64) -> Result<Vec<u8>> {
    let d = encoder.architecture.latent;
    let [mu, sigma] = encode(encoder, unseen)?;
    let gaussian = Gaussian::of(&mu, &sigma, d)?;
    let mut all = Vec::new();
    for k in 0..rows {
        let mut cells = Vec::new();
        let mut pixels = decode(encoder, &gaussian.draw(seed, k as u64))?;
        for column in 0..columns {
            let caption = if k > 0 {
                String::new()
            } else if column == 0 {
                "from noise".into()
            } else {
                format!("{column}")
            };
            cells.push(Cell { pixels: pixels.clone(), shape: unseen.shape, caption });
            let again = Dataset::new(unseen.shape, pixels, vec![0])?;
            pixels = decode(encoder, &encode(encoder, &again)?[0])?;
        }
        all.push(Row { name: format!("draw {}", k + 1), cells });
    }
    gallery::draw(&all, "Images from noise, then successive reconstructions", 96)
}

/// Figure 2: what a pair of images of two classes differ by in the latent space, added to other images of the first.
///
/// # Errors
/// If a class has too few images, or the encoder no decoder.
pub fn figure_2(
    encoder: &Encoder,
    unseen: &Dataset,
    classes: [usize; 2],
    names: [&str; 2],
    rows: usize,
    pairs: usize,
) -> Result<Vec<u8>> {
    let of = |class: usize| -> Vec<usize> {
        (0..unseen.len()).filter(|i| usize::from(unseen.labels[*i]) == class).collect()
    };
    let (from, to) = (of(classes[0]), of(classes[1]));
    ensure!(to.len() >= pairs, "{}: {} images, {pairs} are needed", names[1], to.len());
    ensure!(from.len() >= pairs + rows, "{}: {} images, {} are needed", names[0], from.len(), pairs + rows);
    let d = encoder.architecture.latent;
    let chosen = [&from[..pairs + rows], &to[..pairs]].concat();
    let [mu, _] = encode(encoder, &unseen.select(&chosen))?;
    let z = |i: usize| &mu[i * d..(i + 1) * d];
    let cell = |z: &[f32], caption: String| -> Result<Cell> {
        Ok(Cell { pixels: decode(encoder, z)?, shape: unseen.shape, caption })
    };
    let mut first = Vec::new();
    for pair in 0..pairs {
        first.push(cell(z(pair), names[0].into())?);
        first.push(cell(z(pairs + rows + pair), names[1].into())?);
    }
    let mut all = vec![Row { name: "the pair".into(), cells: first }];
    for row in 0..rows {
        let own = z(pairs + row);
        let mut cells = Vec::new();
        for pair in 0..pairs {
            let moved = own.iter().zip(z(pairs + rows + pair)).zip(z(pair)).map(|((o, to), from)| o + to - from);
            cells.push(cell(own, String::new())?);
            cells.push(cell(&moved.collect::<Vec<f32>>(), String::new())?);
        }
        all.push(Row { name: format!("image {}", row + 1), cells });
    }
    gallery::draw(&all, &format!("{} to {}: the pair's difference added to others", names[0], names[1]), 96)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_aggregate_posteriors_moments() {
        // mu = (t, 2 t) with t = -1, 0, 1; sigma (0.5, 0).
        let mu = [-1.0f32, -2.0, 0.0, 0.0, 1.0, 2.0];
        let gaussian = Gaussian::of(&mu, &[0.5, 0.0, 0.5, 0.0, 0.5, 0.0], 2).unwrap();
        let want = [2.0 / 3.0 + 0.25, 4.0 / 3.0, 8.0 / 3.0];
        let draws: Vec<Vec<f32>> = (0..20_000).map(|k| gaussian.draw(3, k)).collect();
        let moment = |i: usize, j: usize| {
            draws.iter().map(|z| f64::from(z[i]) * f64::from(z[j])).sum::<f64>() / draws.len() as f64
        };
        for ((i, j), want) in [(0, 0), (0, 1), (1, 1)].into_iter().zip(want) {
            assert!((moment(i, j) - want).abs() < 0.05 * want, "{i} {j} {} {want}", moment(i, j));
        }
        assert!(Gaussian::of(&mu[..2], &mu[..2], 2).is_err());
        // A constant dimension neither divides by zero nor moves.
        let flat = cholesky(&[0.0, 0.0, 0.0, 1.0], 2);
        assert_eq!(flat, [0.0, 0.0, 0.0, 1.0]);
    }
}

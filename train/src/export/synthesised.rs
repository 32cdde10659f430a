//! Pictures that a network draws itself: a self-test's, where its data set's may not be passed on.
//!
//! Each is drawn from the aggregate posterior, which the bundle holds anyway: a component c of the mixture, a point
//! of it, and a picture whose mu is that point, found by following the gradient from a smooth random one. Its label is c.

use super::Bundled;
use crate::confidence::mixture::Component;
use crate::encoder::batch;
use crate::encoder::{Encoder, values};
use anyhow::{Result, ensure};
use candle_core::{Tensor, Var};
use paradise_data::Dataset;
use paradise_engine::Shape;
use paradise_support::progress;
use paradise_support::random::{self, Purpose};
use rayon::prelude::*;

/// Steps at most.
const STEPS: usize = 200;
/// Mean squared distance of mu from its point, in standard deviations of the component, at which a picture is done.
const NEAR: f32 = 0.01;
/// Longest step a pixel, root mean square; pixels are in [0, 1].
const LONGEST: f32 = 0.02;
/// Points a side of the grid from which a picture starts.
const COARSE: usize = 4;

/// `n` pictures, classes in turn, the same for the same bundle and seed.
///
/// # Errors
/// If mixture and classes do not belong together, or the encoder fails.
pub(super) fn synthesised(bundled: &Bundled, n: usize, seed: u64) -> Result<Dataset> {
    let header = bundled.model.header();
    let (d, classes) = (usize::from(header.latent), usize::from(header.classes));
    let components = Component::all(bundled.model);
    ensure!(
        components.len() == classes,
        "pictures are drawn class by class: {} components for {classes} classes",
        components.len()
    );
    let bar = progress::bar(n as u64, "drawing");
    let one = |i: usize| {
        let mut rng = random::stream(seed, Purpose::Synthesis, 0, i as u64, 0);
        let c = i % classes;
        let noise: Vec<f64> = (0..d).map(|_| f64::from(random::normal(&mut rng))).collect();
        let point = components[c].point(&noise).iter().map(|v| *v as f32).collect();
        let target = Target { point, precision: components[c].std.iter().map(|s| (1.0 / s) as f32).collect() };
        let start = smooth(header.input, || random::uniform(&mut rng));
        let picture = draw(bundled.encoder, header.input, &start, &target);
        bar.inc(1);
        picture
    };
    let images: Vec<Vec<u8>> = (0..n).into_par_iter().map(one).collect::<Result<_>>()?;
    bar.finish_and_clear();
    Dataset::new(header.input, images.concat(), (0..n).map(|i| (i % classes) as u16).collect())
}

/// Where a picture's mu shall be.
struct Target {
    /// f32 `[d]`.
    point: Vec<f32>,
    /// One over the standard deviation, f32 `[d]`.
    precision: Vec<f32>,
}

/// The 8-bit picture of the walk from `start` whose mu came nearest, u8 `[h][w][c]`.
fn draw(encoder: &Encoder, shape: Shape, start: &[f32], target: &Target) -> Result<Vec<u8>> {
    let d = target.point.len();
    let [point, precision] =
        [&target.point, &target.precision].map(|v| Tensor::from_slice(v, (1, d), encoder.device()));
    let (point, precision) = (point?, precision?);
    let mut x = start.to_vec();
    let mut nearest = (f32::INFINITY, Vec::new());
    for _ in 0..STEPS {
        // Distances are those of the rounded picture: that is what is kept.
        let rounded: Vec<u8> = x.iter().map(|v| (v * 255.0).round() as u8).collect();
        let picture = Dataset::new(shape, rounded, vec![0])?;
        let seen = Var::from_tensor(&batch(&picture, &[0])?)?;
        let mu = encoder.encode(&seen)?.mu;
        let loss = (mu - &point)?.mul(&precision)?.sqr()?.mean_all()?;
        let far = loss.to_scalar::<f32>()?;
        ensure!(far.is_finite(), "the network's mu is not finite");
        if far < nearest.0 {
            nearest = (far, picture.images);
        }
        if far <= NEAR {
            break;
        }
        let slopes = loss.backward()?;
        let Some(slope) = slopes.get(&seen) else { break };
        let slope = values(slope)?;
        let squared: f32 = slope.iter().map(|g| g * g).sum();
        if squared == 0.0 {
            break;
        }
        // Polyak's step towards a loss of zero, no longer than a pixel may move.
        let longest = LONGEST * (x.len() as f32 / squared).sqrt();
        let step = (far / squared).min(longest);
        x.iter_mut().zip(&slope).for_each(|(x, g)| *x = (*x - step * g).clamp(0.0, 1.0));
    }
    Ok(nearest.1)
}

/// A coarse grid of random numbers between which is interpolated, f32 `[h][w][c]`.
fn smooth(shape: Shape, mut uniform: impl FnMut() -> f32) -> Vec<f32> {
    let [h, w, c] = [shape.h, shape.w, shape.c].map(usize::from);
    let grid: Vec<f32> = (0..COARSE * COARSE * c).map(|_| uniform()).collect();
    // Of an axis: the grid point before, the one after, and the share of the latter.
    let between = |i: usize, n: usize| {
        let at = (COARSE - 1) as f32 * i as f32 / (n.max(2) - 1) as f32;
        let before = (at as usize).min(COARSE - 2);
        (before, at - before as f32)
    };
    let mut image = Vec::with_capacity(h * w * c);
    for y in 0..h {
        let (top, down) = between(y, h);
        for x in 0..w {
            let (left, right) = between(x, w);
            for k in 0..c {
                let value = |y: usize, x: usize| grid[(y * COARSE + x) * c + k];
                let row = |y: usize| (1.0 - right) * value(y, left) + right * value(y, left + 1);
                image.push((1.0 - down) * row(top) + down * row(top + 1));
            }
        }
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::{Network, small_conv::SmallConv};

    #[test]
    fn a_picture_is_drawn_whose_mu_is_where_it_shall_be() {
        let shape = Shape::new(12, 12, 3);
        let architecture = SmallConv { channels: [8, 16], hidden: 32, latent: 6 }.architecture(shape, 4);
        let network = Network::new(architecture, 3).unwrap();
        let encoder = network.frozen();
        let mut rng = random::stream(1, Purpose::Noise, 0, 0, 0);
        let start = smooth(shape, || random::uniform(&mut rng));
        let other = smooth(shape, || random::uniform(&mut rng));
        let mu = |image: &[u8]| {
            let set = Dataset::new(shape, image.to_vec(), vec![0]).unwrap();
            values(&encoder.encode(&batch(&set, &[0]).unwrap()).unwrap().mu).unwrap()
        };
        let bytes = |x: &[f32]| x.iter().map(|v| (v * 255.0).round() as u8).collect::<Vec<_>>();
        // The mu of another picture can be reached; the unit is a tenth of how far it is.
        let (from, point) = (mu(&bytes(&start)), mu(&bytes(&other)));
        let away = (from.iter().zip(&point).map(|(a, b)| (a - b) * (a - b)).sum::<f32>() / 6.0).sqrt();
        let target = Target { point: point.clone(), precision: vec![10.0 / away; 6] };
        let found = mu(&draw(&encoder, shape, &start, &target).unwrap());
        let left = (found.iter().zip(&point).map(|(a, b)| (a - b) * (a - b)).sum::<f32>() / 6.0).sqrt();
        assert!(left <= 0.011 * away, "{left} of {away}");
    }

    #[test]
    fn what_is_smooth_stays_between_its_grid_points() {
        let mut k = 0.0;
        let image = smooth(Shape::new(7, 4, 1), || {
            k += 1.0;
            k / 16.0
        });
        // Grid points 1/16 to 16/16 row by row: a plane, whose corners are its own.
        let at = |y: usize, x: usize| image[y * 4 + x];
        assert!((at(0, 0) - 1.0 / 16.0).abs() < 1e-6 && (at(6, 3) - 1.0).abs() < 1e-6);
        for y in 0..7 {
            for x in 0..4 {
                assert!((at(y, x) - (1.0 + 4.0 * 0.5 * y as f32 + x as f32) / 16.0).abs() < 1e-6);
            }
        }
        assert!(smooth(Shape::new(1, 1, 3), || 0.5).iter().all(|v| *v == 0.5));
    }
}

//! What a device measures of an answer, in f64 and with gradients: the mirror of the engine's rate and distances that the
//! adaptive attack climbs.

use paradise_engine::appearance::LEN;
use paradise_engine::header::{Covariance, Typicality};
use paradise_engine::tensor::Span;
use paradise_engine::whitening::{Directions, Whitening, packed_len, turned, unpack};
use paradise_engine::{Model, Shape};

/// A linear map to white coordinates.
#[derive(Debug, Clone, PartialEq)]
enum Map {
    /// A factor a dimension.
    Diagonal(Vec<f64>),
    /// A lower triangle `[n][n]`.
    Lower(Vec<f64>),
    /// Principal directions over their deviations `[k][n]`, variances `[k]`, one over the rest's deviation.
    Principal(Vec<f64>, Vec<f64>, f64),
}

/// A tensor in f64.
fn wide(model: &Model, span: Span) -> Vec<f64> {
    model.f32s(span).iter().map(f64::from).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Map {
    /// A packed triangle of `n` rows, of which the first `rows` count.
    fn lower(packed: &[f64], n: usize, rows: usize) -> Self {
        Self::Lower(unpack(n, packed, rows))
    }

    fn apply(&self, x: &[f64]) -> Vec<f64> {
        match self {
            Self::Diagonal(factors) => factors.iter().zip(x).map(|(f, x)| f * x).collect(),
            Self::Lower(w) => w.chunks_exact(x.len()).map(|row| dot(row, x)).collect(),
            Self::Principal(rows, variance, rest) => {
                let mut white: Vec<f64> = rows.chunks_exact(x.len()).map(|row| dot(row, x)).collect();
                let left = left(rows, variance, x);
                white.extend(left.iter().map(|v| v * rest));
                white
            }
        }
    }

    /// The transposed map.
    fn back(&self, e: &[f64]) -> Vec<f64> {
        let sum = |rows: &[f64], n: usize, e: &[f64]| {
            let mut sum = vec![0.0; n];
            for (row, e) in rows.chunks_exact(n).zip(e) {
                sum.iter_mut().zip(row).for_each(|(s, w)| *s += e * w);
            }
            sum
        };
        match self {
            Self::Diagonal(factors) => factors.iter().zip(e).map(|(f, e)| f * e).collect(),
            Self::Lower(w) => sum(w, e.len(), e),
            Self::Principal(rows, variance, rest) => {
                let (along, across) = e.split_at(variance.len());
                // What is left is a symmetric projection.
                let across = left(rows, variance, across);
                let mut back = sum(rows, across.len(), along);
                back.iter_mut().zip(across).for_each(|(b, a)| *b += rest * a);
                back
            }
        }
    }
}

/// What principal directions leave of `x`.
fn left(rows: &[f64], variance: &[f64], x: &[f64]) -> Vec<f64> {
    let mut left = x.to_vec();
    for (row, variance) in rows.chunks_exact(x.len()).zip(variance) {
        let along = variance * dot(row, &left);
        left.iter_mut().zip(row).for_each(|(l, w)| *l -= along * w);
    }
    left
}

/// Gaussians of one covariance.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gaussians {
    centre: Vec<f64>,
    map: Map,
    /// White means.
    means: Vec<Vec<f64>>,
}

impl Gaussians {
    /// The model's, of `n` coordinates; of the first `leading` of them, if there is a triangle.
    fn of(model: &Model, whitening: &Whitening, leading: usize) -> Self {
        let wide = |span: Span| wide(model, span);
        let n = whitening.len();
        let (map, kept) = match whitening.directions {
            Directions::Triangle(packed) => (Map::lower(&wide(packed), n, leading), leading),
            Directions::Principal { rows, variance, rest } => {
                (Map::Principal(wide(rows), wide(variance), f64::from(rest)), whitening.white_len())
            }
        };
        let means = turned(&wide(whitening.means), whitening.components.into());
        let means = means.chunks_exact(whitening.white_len()).map(|m| m[..kept].to_vec()).collect();
        let coordinates = if matches!(map, Map::Lower(_)) { leading } else { n };
        Self { centre: wide(whitening.centre)[..coordinates].to_vec(), map, means }
    }

    /// Squared distance to the nearest mean, and its gradient.
    pub(crate) fn nearest(&self, x: &[f64]) -> (f64, Vec<f64>) {
        let offset: Vec<f64> = x.iter().zip(&self.centre).map(|(x, c)| x - c).collect();
        let white = self.map.apply(&offset);
        let from = |mean: &Vec<f64>| white.iter().zip(mean).map(|(y, m)| y - m).collect::<Vec<f64>>();
        let all = self.means.iter().map(from).map(|e| (dot(&e, &e), e));
        let (squared, e) = all.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::INFINITY, vec![0.0; white.len()]));
        (squared, self.map.back(&e).into_iter().map(|g| 2.0 * g).collect())
    }
}

/// A component of the aggregate posterior.
struct Component {
    log_weight: f64,
    /// Index of its map.
    map: usize,
    /// The white mean, with the map's centre in it.
    offset: Vec<f64>,
    half_precision: Vec<f64>,
    constant: f64,
}

/// The mixture `q(z)`.
pub(crate) struct Mixture {
    maps: Vec<Map>,
    components: Vec<Component>,
}

impl Mixture {
    /// The model's.
    pub(crate) fn of(model: &Model) -> Self {
        let (mixture, d) = (model.header().mixture, usize::from(model.header().latent));
        let wide = |span: Span| wide(model, span);
        let (log_weight, stored) = (wide(mixture.log_weight), wide(mixture.mean));
        let mean = match mixture.covariance {
            Covariance::Shared { .. } => turned(&stored, log_weight.len()),
            _ => stored,
        };
        let means: Vec<&[f64]> = mean.chunks_exact(d).collect();
        let build = |map: usize, c: usize, offset: Vec<f64>, half_precision: &[f64], constant: f64| Component {
            log_weight: log_weight[c],
            map,
            offset,
            half_precision: half_precision.to_vec(),
            constant,
        };
        match mixture.covariance {
            Covariance::Diagonal { log_std, half_precision } => {
                let (log_std, half) = (wide(log_std), wide(half_precision));
                let maps: Vec<Map> = half
                    .chunks_exact(d)
                    .map(|h| Map::Diagonal(h.iter().map(|h| (2.0 * h).sqrt()).collect()))
                    .collect();
                let each = |c: usize| {
                    let constant = log_std[c * d..(c + 1) * d].iter().sum::<f64>() - 0.5 * d as f64;
                    build(c, c, maps[c].apply(means[c]), &half[c * d..(c + 1) * d], constant)
                };
                let components = (0..means.len()).map(each).collect();
                Self { maps, components }
            }
            Covariance::Shared { centre, triangle, half_precision, half_log_det } => {
                let (half, constant) = (wide(half_precision), wide(half_log_det)[0]);
                let map = Map::lower(&wide(triangle), d, d);
                let centre = map.apply(&wide(centre));
                let offset = |c: usize| means[c].iter().zip(&centre).map(|(m, c)| m + c).collect();
                let components = (0..means.len()).map(|c| build(0, c, offset(c), &half, constant)).collect();
                Self { maps: vec![map], components }
            }
            Covariance::PerClass { triangle, half_precision, half_log_det } => {
                let (half, constant) = (wide(half_precision), wide(half_log_det));
                let maps: Vec<Map> =
                    wide(triangle).chunks_exact(packed_len(d)).map(|t| Map::lower(t, d, d)).collect();
                let each = |c: usize| build(c, c, maps[c].apply(means[c]), &half[c * d..(c + 1) * d], constant[c]);
                let components = (0..means.len()).map(each).collect();
                Self { maps, components }
            }
        }
    }

    /// The rate, and its gradient with respect to theta = (log sigma, mu).
    pub(crate) fn rate(&self, mu: &[f64], log_sigma: &[f64]) -> (f64, Vec<f64>) {
        let d = mu.len();
        let variance: Vec<f64> = log_sigma.iter().map(|l| (2.0 * l).exp()).collect();
        let white: Vec<Vec<f64>> = self.maps.iter().map(|map| map.apply(mu)).collect();
        let apart = |c: &Component| white[c.map].iter().zip(&c.offset).map(|(y, o)| y - o).collect::<Vec<f64>>();
        let own: f64 = log_sigma.iter().sum();
        let apart: Vec<Vec<f64>> = self.components.iter().map(apart).collect();
        let term = |(c, e): (&Component, &Vec<f64>)| {
            c.log_weight - (dot(&variance, &c.half_precision) + 0.5 * dot(e, e) + c.constant - own)
        };
        let terms: Vec<f64> = self.components.iter().zip(&apart).map(term).collect();
        let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = terms.iter().map(|t| (t - top).exp()).sum();
        let (mut by_mu, mut by_log_sigma) = (vec![0.0; d], vec![-1.0; d]);
        for ((c, e), t) in self.components.iter().zip(&apart).zip(&terms) {
            let share = (t - top).exp() / total;
            let slope = self.maps[c.map].back(e);
            for j in 0..d {
                by_mu[j] += share * slope[j];
                by_log_sigma[j] += share * 2.0 * variance[j] * c.half_precision[j];
            }
        }
        by_log_sigma.extend(by_mu);
        (-(top + total.ln()), by_log_sigma)
    }
}

/// Distances of posterior, spread and picture.
pub(crate) struct Distances {
    /// Of `(log sigma, mu)`.
    pub(crate) posterior: Gaussians,
    /// Of `log sigma`.
    pub(crate) spread: Gaussians,
    picture: Gaussians,
    shape: Shape,
}

impl Distances {
    /// The model's.
    pub(crate) fn of(model: &Model) -> Self {
        let Typicality { posterior, picture, spread } = &model.header().typicality;
        let d = usize::from(model.header().latent);
        Self {
            posterior: Gaussians::of(model, posterior, 2 * d),
            spread: Gaussians::of(model, spread.as_ref().unwrap_or(posterior), d),
            picture: Gaussians::of(model, picture, LEN),
            shape: model.header().input,
        }
    }

    /// Of an image f32 `[h][w][c]` in [0, 1], and the gradient with respect to it. Luma is not rounded here.
    pub(crate) fn picture(&self, image: &[f32]) -> (f64, Vec<f64>) {
        let (seen, slopes) = appearance(image, self.shape);
        let (squared, by) = self.picture.nearest(&seen);
        let mut gradient = vec![0.0; image.len()];
        for (by, slope) in by.iter().zip(slopes) {
            gradient.iter_mut().zip(slope).for_each(|(g, s)| *g += by * s);
        }
        (squared, gradient)
    }
}

/// The numbers of [`paradise_engine::appearance`], and each one's gradient.
fn appearance(image: &[f32], shape: Shape) -> ([f64; LEN], [Vec<f64>; LEN]) {
    const WEIGHTS: [f64; 3] = [77.0 / 256.0, 150.0 / 256.0, 29.0 / 256.0];
    let [h, w, c] = [shape.h, shape.w, shape.c].map(usize::from);
    let weights = if c == 1 { &[1.0][..] } else { &WEIGHTS[..] };
    let luma: Vec<f64> =
        image.chunks_exact(c).map(|p| p.iter().zip(weights).map(|(p, w)| f64::from(*p) * w).sum()).collect();
    let n = luma.len();
    let mean = luma.iter().sum::<f64>() / n as f64;
    let deviation = (luma.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>() / n as f64).sqrt();
    // Mean absolute value of differences with these coefficients along both axes, and its gradient.
    let rough = |coefficients: &[f64]| {
        let reach = coefficients.len() - 1;
        let (mut sum, mut count, mut slope) = (0.0f64, 0usize, vec![0.0; n]);
        for (step, across, down) in [(1, reach, 0), (w, 0, reach)] {
            for y in 0..h.saturating_sub(down) {
                for x in 0..w.saturating_sub(across) {
                    let at = y * w + x;
                    let value: f64 = coefficients.iter().enumerate().map(|(k, c)| c * luma[at + k * step]).sum();
                    sum += value.abs();
                    count += 1;
                    if value != 0.0 {
                        coefficients.iter().enumerate().for_each(|(k, c)| slope[at + k * step] += c * value.signum());
                    }
                }
            }
        }
        let count = count.max(1) as f64;
        slope.iter_mut().for_each(|s| *s /= count);
        (sum / count, slope)
    };
    let ((r, by_r), (r2, by_r2)) = (rough(&[-1.0, 1.0]), rough(&[1.0, -2.0, 1.0]));
    let (contrast, r, r2) = (deviation + 0.01, r + 0.003, r2 + 0.003);
    let by_deviation = |y: &f64| if deviation > 0.0 { (y - mean) / (n as f64 * deviation) } else { 0.0 };
    let by_contrast: Vec<f64> = luma.iter().map(|y| by_deviation(y) / contrast).collect();
    let log = |slope: &[f64], value: f64| slope.iter().map(|s| s / value).collect::<Vec<f64>>();
    let by_rough = log(&by_r, r);
    let both = by_rough.iter().zip(&by_contrast).map(|(a, b)| a - b).collect();
    let by_luma = [vec![1.0 / n as f64; n], by_contrast, by_rough, log(&by_r2, r2), both];
    let to_pixels = |slope: Vec<f64>| slope.iter().flat_map(|s| weights.iter().map(move |w| s * w)).collect();
    ([mean, contrast.ln(), r.ln(), r2.ln(), (r / contrast).ln()], by_luma.map(to_pixels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_engine::appearance::Sums;
    use paradise_support::random::{self, Purpose};

    #[test]
    fn appearance_is_the_engines_and_has_its_gradient() {
        let mut rng = random::stream(3, Purpose::Noise, 0, 0, 0);
        for shape in [Shape::new(7, 9, 1), Shape::new(6, 5, 3), Shape::new(1, 1, 1)] {
            let bytes: Vec<u8> = (0..shape.len()).map(|_| random::below(&mut rng, 256) as u8).collect();
            let image: Vec<f32> = bytes.iter().map(|b| f32::from(*b) / 255.0).collect();
            let (seen, slopes) = appearance(&image, shape);
            for (engine, here) in Sums::of(&bytes, shape).appearance().iter().zip(seen) {
                // Luma is rounded to 8 bits there.
                assert!((f64::from(*engine) - here).abs() < 0.01, "{engine} {here}");
            }
            for (k, slope) in slopes.iter().enumerate() {
                for p in 0..image.len() {
                    let moved = [1e-3f32, -1e-3].map(|by| {
                        let mut image = image.clone();
                        image[p] += by;
                        (f64::from(image[p]), appearance(&image, shape).0[k])
                    });
                    let numeric = (moved[0].1 - moved[1].1) / (moved[0].0 - moved[1].0);
                    assert!((numeric - slope[p]).abs() < 2e-3 * numeric.abs().max(1.0), "{k} {p} {numeric}");
                }
            }
        }
    }

    #[test]
    fn every_map_has_its_transpose() {
        let unit = 0.5f64.sqrt();
        let maps = [
            Map::Diagonal(vec![2.0, 0.5, 1.0]),
            Map::Lower(vec![1.0, 0.0, 0.0, -2.0, 3.0, 0.0, 0.5, 0.25, 4.0]),
            Map::Principal(vec![unit / 3.0, unit / 3.0, 0.0], vec![9.0], 2.0),
        ];
        for map in maps {
            let (x, white) = ([0.3, -1.0, 2.0], map.apply(&[0.3, -1.0, 2.0]));
            let e: Vec<f64> = (0..white.len()).map(|i| 1.0 + i as f64).collect();
            assert!((dot(&white, &e) - dot(&x, &map.back(&e))).abs() < 1e-12, "{map:?}");
        }
    }
}

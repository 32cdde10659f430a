//! What corruptions do to one image: warps, convolutions, textures and draws.

use paradise_engine::Shape;
use paradise_support::random;
use rand_chacha::ChaCha8Rng;

/// One image on its way, f32 `[h][w][c]`.
pub struct Picture {
    pub values: Vec<f32>,
    pub shape: Shape,
    pub rng: ChaCha8Rng,
}

impl Picture {
    pub fn sides(&self) -> [usize; 3] {
        [self.shape.h, self.shape.w, self.shape.c].map(usize::from)
    }

    /// Lengths published for 32 pixels a side, at this one.
    pub fn scale(&self) -> f32 {
        f32::from(self.shape.h.min(self.shape.w)) / 32.0
    }

    pub fn each(&mut self, mut f: impl FnMut(f32, &mut ChaCha8Rng) -> f32) {
        for v in &mut self.values {
            *v = f(*v, &mut self.rng);
        }
    }

    /// The value at a place between pixels, the border repeated.
    fn at(&self, y: f32, x: f32, k: usize) -> f32 {
        let [h, w, c] = self.sides();
        let inside = |v: f32, n: usize| v.clamp(0.0, (n - 1) as f32);
        let (y, x) = (inside(y, h), inside(x, w));
        let (y0, x0) = (y.floor() as usize, x.floor() as usize);
        let (y1, x1) = ((y0 + 1).min(h - 1), (x0 + 1).min(w - 1));
        let (fy, fx) = (y - y0 as f32, x - x0 as f32);
        let v = |y: usize, x: usize| self.values[(y * w + x) * c + k];
        (1.0 - fy) * ((1.0 - fx) * v(y0, x0) + fx * v(y0, x1)) + fy * ((1.0 - fx) * v(y1, x0) + fx * v(y1, x1))
    }

    /// Every pixel from a place that `from` gives.
    pub fn warp(&mut self, from: impl Fn(usize, usize) -> (f32, f32)) {
        let [h, w, c] = self.sides();
        let mut out = Vec::with_capacity(self.values.len());
        for y in 0..h {
            for x in 0..w {
                let (sy, sx) = from(y, x);
                out.extend((0..c).map(|k| self.at(sy, sx, k)));
            }
        }
        self.values = out;
    }

    pub fn convolve(&mut self, kernel: &Kernel) {
        let [h, w, c] = self.sides();
        let mut out = Vec::with_capacity(self.values.len());
        for y in 0..h {
            for x in 0..w {
                for k in 0..c {
                    let one = |(dy, dx, weight): &(f32, f32, f32)| weight * self.at(y as f32 + dy, x as f32 + dx, k);
                    out.push(kernel.0.iter().map(one).sum());
                }
            }
        }
        self.values = out;
    }

    pub fn swap_neighbours(&mut self, share: f32, rounds: usize) {
        let [h, w, c] = self.sides();
        for _ in 0..rounds {
            for y in 1..h.saturating_sub(1) {
                for x in 1..w.saturating_sub(1) {
                    if random::uniform(&mut self.rng) >= share {
                        continue;
                    }
                    let mut step = || random::below(&mut self.rng, 3);
                    let (oy, ox) = (y + step() - 1, x + step() - 1);
                    for k in 0..c {
                        self.values.swap((y * w + x) * c + k, (oy * w + ox) * c + k);
                    }
                }
            }
        }
    }

    pub fn zoom(&mut self, most: f32) {
        const STEPS: usize = 6;
        let [h, w, _] = self.sides();
        let (cy, cx) = ((h - 1) as f32 / 2.0, (w - 1) as f32 / 2.0);
        let original = self.values.clone();
        let mut sum = original.clone();
        for step in 1..=STEPS {
            self.values.clone_from(&original);
            let factor = 1.0 + most * step as f32 / STEPS as f32;
            self.warp(|y, x| (cy + (y as f32 - cy) / factor, cx + (x as f32 - cx) / factor));
            sum.iter_mut().zip(&self.values).for_each(|(s, v)| *s += v);
        }
        self.values = sum.into_iter().map(|v| v / (STEPS + 1) as f32).collect();
    }

    /// Flakes that fall at an angle, over an image that pales.
    pub fn snow(&mut self, amount: f32, keep: f32) {
        let [h, w, c] = self.sides();
        let shape = Shape { c: 1, ..self.shape };
        let flake = |rng: &mut ChaCha8Rng| if random::uniform(rng) < amount * 0.25 { 1.0 } else { 0.0 };
        let values = (0..h * w).map(|_| flake(&mut self.rng)).collect();
        let mut layer = Picture { values, shape, rng: self.rng.clone() };
        layer.convolve(&line(3.0 * self.scale(), 1.0));
        for at in 0..h * w {
            for k in 0..c {
                let v = &mut self.values[at * c + k];
                *v = keep * *v + (1.0 - keep) * v.max(0.75) + 1.5 * layer.values[at];
            }
        }
    }

    /// Mixes in a cloud in [0, 1], rougher for a smaller `decay`.
    pub fn overlay(&mut self, decay: f32, mix: impl Fn(f32, f32) -> f32) {
        let [h, w, c] = self.sides();
        let cloud = plasma(h.max(w), decay, &mut self.rng);
        let side = cloud.len().isqrt();
        for at in 0..h * w {
            for k in 0..c {
                let v = &mut self.values[at * c + k];
                *v = mix(*v, cloud[at / w * side + at % w]);
            }
        }
    }

    pub fn elastic(&mut self, strength: f32) {
        let [h, w, _] = self.sides();
        let mut field = || {
            let values = (0..h * w).map(|_| 2.0 * random::uniform(&mut self.rng) - 1.0).collect();
            let mut field = Picture { values, shape: Shape { c: 1, ..self.shape }, rng: self.rng.clone() };
            field.convolve(&gaussian(3.0 * self.shape.h as f32 / 32.0));
            let top = field.values.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
            field.values.into_iter().map(|v| v / top * strength).collect::<Vec<f32>>()
        };
        let (dy, dx) = (field(), field());
        self.warp(|y, x| (y as f32 + dy[y * w + x], x as f32 + dx[y * w + x]));
    }

    /// Fewer, larger pixels: area means, then nearest.
    pub fn pixelate(&mut self, share: f32) {
        let [h, w, c] = self.sides();
        let fewer = |n: usize| ((n as f32 * share) as usize).max(1);
        let (fh, fw) = (fewer(h), fewer(w));
        let bounds = |i: usize, few: usize, n: usize| (i * n / few, (((i + 1) * n).div_ceil(few)).min(n));
        let mut out = vec![0.0; self.values.len()];
        for y in 0..h {
            for x in 0..w {
                let ((y0, y1), (x0, x1)) = (bounds(y * fh / h, fh, h), bounds(x * fw / w, fw, w));
                for k in 0..c {
                    let block = (y0..y1).flat_map(|y| (x0..x1).map(move |x| (y * w + x) * c + k));
                    let sum: f32 = block.map(|at| self.values[at]).sum();
                    out[(y * w + x) * c + k] = sum / ((y1 - y0) * (x1 - x0)) as f32;
                }
            }
        }
        self.values = out;
    }
}

/// Offsets in rows and columns, and weights that sum to 1.
pub struct Kernel(Vec<(f32, f32, f32)>);

impl Kernel {
    fn of(points: impl Iterator<Item = (f32, f32, f32)>) -> Self {
        let points: Vec<_> = points.filter(|p| p.2 > 1e-6).collect();
        let total: f32 = points.iter().map(|p| p.2).sum();
        Self(points.into_iter().map(|(y, x, w)| (y, x, w / total)).collect())
    }

    fn square(reach: i32, weight: impl Fn(f32, f32) -> f32) -> Self {
        let all = (-reach..=reach).flat_map(|y| (-reach..=reach).map(move |x| (y as f32, x as f32)));
        Self::of(all.map(|(y, x)| (y, x, weight(y, x))))
    }
}

/// A disc whose edge pixels count by how much of them it covers, about.
pub fn disc(radius: f32) -> Kernel {
    Kernel::square(radius.ceil() as i32, |y, x| (radius + 0.5 - y.hypot(x)).clamp(0.0, 1.0))
}

pub fn gaussian(sigma: f32) -> Kernel {
    Kernel::square((3.0 * sigma).ceil() as i32, |y, x| (-(y * y + x * x) / (2.0 * sigma * sigma).max(1e-6)).exp())
}

/// Places along a line, the weights falling off on one side, as a moving camera has them.
pub fn line(length: f32, angle: f32) -> Kernel {
    let steps = (2.0 * length).ceil().max(1.0) as i32;
    let at = |i: i32| i as f32 * length / steps as f32;
    Kernel::of((0..=steps).map(|i| (at(i) * angle.sin(), at(i) * angle.cos(), (-at(i) / length.max(1e-3)).exp())))
}

/// A cloud by midpoint displacement, `[side][side]` in [0, 1], side a power of two that is at least `least`.
fn plasma(least: usize, decay: f32, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let side = least.next_power_of_two();
    let mut map = vec![0.0f32; side * side];
    let (mut step, mut wobble) = (side, 1.0f32);
    while step >= 2 {
        let half = step / 2;
        let mut noise = |mean: f32| mean + wobble * (2.0 * random::uniform(rng) - 1.0);
        let at = |y: usize, x: usize| (y % side) * side + x % side;
        for y in (0..side).step_by(step) {
            for x in (0..side).step_by(step) {
                let corners =
                    map[at(y, x)] + map[at(y + step, x)] + map[at(y, x + step)] + map[at(y + step, x + step)];
                map[at(y + half, x + half)] = noise(corners / 4.0);
            }
        }
        for y in (0..side).step_by(half) {
            for x in (0..side).step_by(half).filter(|x| (x + y) / half % 2 == 1) {
                let around = map[at(y + side - half, x)]
                    + map[at(y + half, x)]
                    + map[at(y, x + side - half)]
                    + map[at(y, x + half)];
                map[at(y, x)] = noise(around / 4.0);
            }
        }
        step = half;
        wobble /= decay;
    }
    let (low, high) = map.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    map.iter().map(|v| (v - low) / (high - low).max(1e-6)).collect()
}

/// A Poisson draw: by counting below 30, by a rounded normal above.
pub fn poisson(mean: f32, rng: &mut ChaCha8Rng) -> f32 {
    if mean > 30.0 {
        return (mean + mean.sqrt() * random::normal(rng)).round().max(0.0);
    }
    let (limit, mut product, mut count) = ((-mean).exp(), random::uniform(rng), 0.0);
    while product > limit {
        product *= random::uniform(rng);
        count += 1.0;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_support::random::Purpose;

    #[test]
    fn blurs_keep_the_mean_and_counts_their_moments() {
        for kernel in [disc(1.5), gaussian(0.8), line(3.0, 0.4)] {
            assert!((kernel.0.iter().map(|p| p.2).sum::<f32>() - 1.0).abs() < 1e-5);
        }
        let mut rng = random::stream(1, Purpose::Noise, 0, 0, 0);
        for mean in [0.5f32, 12.0, 80.0] {
            let draws: Vec<f64> = (0..20_000).map(|_| f64::from(poisson(mean, &mut rng))).collect();
            let average = draws.iter().sum::<f64>() / 20_000.0;
            let spread = draws.iter().map(|d| (d - average).powi(2)).sum::<f64>() / 20_000.0;
            // Mean and variance of a Poisson draw are the same; five standard errors, and rounding's 1/12.
            let five = 5.0 * (f64::from(mean) / 20_000.0).sqrt();
            assert!((average - f64::from(mean)).abs() < five, "{mean} {average}");
            assert!((spread / f64::from(mean) - 1.0).abs() < 0.08, "{mean} {spread}");
        }
    }
}

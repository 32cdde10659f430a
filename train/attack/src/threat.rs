//! The threat balls and the box of images. Every attack projects here and nowhere else.

use crate::error::{Error, Result};
use paradise_support::random;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The interval of one pixel: inside the ball around `clean` and inside [0, 1].
///
/// Both bounds are rounded f32 sums, so a projected pixel differs from `clean` by at most `eps` plus one rounding.
pub fn bounds(clean: f32, eps: f32) -> [f32; 2] {
    [(clean - eps).max(0.0), (clean + eps).min(1.0)]
}

/// `x` projected to the ball around `clean` and the box.
pub fn project(x: f32, clean: f32, eps: f32) -> f32 {
    let [low, high] = bounds(clean, eps);
    // A NaN gradient leaves the clean pixel's lower bound rather than spreading.
    x.max(low).min(high)
}

/// Whole steps of an 8-bit pixel in `eps`.
pub fn whole_steps(eps: f32) -> f32 {
    // An eps such as 8/255 in f32 may fall just below 8 steps; a thousandth of a step is no perturbation.
    (eps * 255.0 + 1e-3).floor()
}

/// The 8-bit value nearest `x` that is at most `eps` from the 8-bit pixel `clean`.
pub fn to_grid(x: f32, clean: u8, eps: f32) -> u8 {
    let reach = whole_steps(eps);
    let clean = f32::from(clean);
    let nearest = (x * 255.0).round();
    nearest.clamp((clean - reach).max(0.0), (clean + reach).min(255.0)) as u8
}

/// How far is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// The largest change of a value.
    Linf,
    /// The Euclidean length of the change.
    L2,
}

/// Where a perturbed image may be: at most `eps` from the clean one, and inside [0, 1].
///
/// ```
/// use paradise_attack::{Ball, Norm};
/// let (clean, mut x) = ([0.5, 0.9], [0.0, 1.0]);
/// Ball::linf(0.2).project(&mut x, &clean);
/// assert_eq!(x, [0.3, 1.0]);
/// let ball = Ball { norm: Norm::L2, eps: 0.5 };
/// assert!(ball.holds(&[0.5, 0.6], &clean) && !ball.holds(&[0.0, 0.0], &clean));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ball {
    /// How far is measured.
    pub norm: Norm,
    /// How far it may be.
    pub eps: f32,
}

impl Norm {
    /// As tables and command lines write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linf => "l_inf",
            Self::L2 => "l_2",
        }
    }

    /// `8/255`, `25.5/255`; plain in l2, whose lengths are not steps of a pixel.
    pub fn radius(self, eps: f32) -> String {
        match self {
            Self::Linf => format!("{}/255", (f64::from(eps) * 255.0 * 10.0).round() / 10.0),
            Self::L2 => format!("{}", (f64::from(eps) * 1e4).round() / 1e4),
        }
    }

    /// The norm of a change.
    pub fn length(self, change: &[f32]) -> f64 {
        match self {
            Self::Linf => change.iter().map(|v| f64::from(v.abs())).fold(0.0, f64::max),
            Self::L2 => change.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt(),
        }
    }
}

impl Ball {
    /// An l_inf ball.
    pub fn linf(eps: f32) -> Self {
        Self { norm: Norm::Linf, eps }
    }

    /// Refuses a radius that cannot be meant, for images of `values` values.
    ///
    /// # Errors
    /// If eps is not finite, negative, or larger than the box: 1 in l_inf, `sqrt(values)` in l2.
    pub fn check(&self, values: usize) -> Result<()> {
        let most = match self.norm {
            Norm::Linf => 1.0,
            Norm::L2 => (values as f32).sqrt(),
        };
        if !(0.0..=most).contains(&self.eps) {
            return Err(Error::Radius { norm: self.norm.name(), eps: self.eps, most });
        }
        Ok(())
    }

    /// `x` on the 8-bit grid and inside the ball around 8-bit pixels `clean`.
    ///
    /// l2: where rounding would leave the ball, every change is rounded towards no change.
    pub fn on_grid(&self, x: &[f32], clean: &[u8]) -> Vec<u8> {
        let pairs = || x.iter().zip(clean);
        match self.norm {
            Norm::Linf => pairs().map(|(x, c)| to_grid(*x, *c, self.eps)).collect(),
            Norm::L2 => {
                let nearest: Vec<u8> = pairs().map(|(x, _)| (x * 255.0).round() as u8).collect();
                let square = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b)).powi(2);
                let length = nearest.iter().zip(clean).map(square).sum::<f64>().sqrt() / 255.0;
                if length <= f64::from(self.eps) {
                    return nearest;
                }
                let toward = |(x, c): (&f32, &u8)| {
                    let v = x * 255.0;
                    if v > f32::from(*c) { v.floor() as u8 } else { v.ceil() as u8 }
                };
                pairs().map(toward).collect()
            }
        }
    }

    /// A point at `share` of the radius from the clean image, in a random direction (l_inf: of the cube; l2: evenly);
    /// clipped to the box.
    pub fn random_start(&self, clean: &[f32], share: f32, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let draw = |_| match self.norm {
            Norm::Linf => 2.0 * random::uniform(rng) - 1.0,
            Norm::L2 => random::normal(rng),
        };
        let direction: Vec<f32> = (0..clean.len()).map(draw).collect();
        let length = self.norm.length(&direction).max(1e-12) as f32;
        let mut x: Vec<f32> = clean.iter().zip(&direction).map(|(c, d)| c + share * self.eps * d / length).collect();
        self.project(&mut x, clean);
        x
    }

    /// A point of the ball, clipped to the box: uniform in l_inf; in l2 in a random direction at a uniform distance.
    pub fn random_inside(&self, clean: &[f32], rng: &mut ChaCha8Rng) -> Vec<f32> {
        match self.norm {
            Norm::Linf => {
                let offset = |c: &f32| project(c + self.eps * (2.0 * random::uniform(rng) - 1.0), *c, self.eps);
                clean.iter().map(offset).collect()
            }
            Norm::L2 => {
                let share = random::uniform(rng);
                self.random_start(clean, share, rng)
            }
        }
    }

    /// Brings `x` into the ball around `clean` and the box.
    ///
    /// l_inf: every value by [`project`]. l2: the change is shortened, then clamped, which never lengthens it; its length
    /// in f64 is at most `eps` (1 + 1e-6).
    pub fn project(&self, x: &mut [f32], clean: &[f32]) {
        match self.norm {
            Norm::Linf => x.iter_mut().zip(clean).for_each(|(x, c)| *x = project(*x, *c, self.eps)),
            Norm::L2 => {
                let length = distance(x, clean);
                let shrink = if length > f64::from(self.eps) { f64::from(self.eps) / length } else { 1.0 };
                for (x, c) in x.iter_mut().zip(clean) {
                    let change = if x.is_nan() { 0.0 } else { (f64::from(*x) - f64::from(*c)) * shrink };
                    *x = ((f64::from(*c) + change) as f32).clamp(0.0, 1.0);
                }
            }
        }
    }

    /// The unit step along which a loss with `gradient` rises fastest; zero where the gradient is.
    pub fn steepest(&self, gradient: &[f32], to: &mut [f32]) {
        match self.norm {
            // f32::signum has no zero; a zero gradient moves nothing.
            Norm::Linf => {
                to.iter_mut()
                    .zip(gradient)
                    .for_each(|(t, g)| *t = f32::from(i8::from(*g > 0.0) - i8::from(*g < 0.0)));
            }
            Norm::L2 => {
                let length = self.norm.length(gradient);
                let scale = if length > 0.0 && length.is_finite() { 1.0 / length } else { 0.0 };
                to.iter_mut().zip(gradient).for_each(|(t, g)| *t = (f64::from(*g) * scale) as f32);
            }
        }
    }

    /// Whether `x` is in the ball, by the bounds to which [`Ball::project`] projects, and in the box.
    pub fn holds(&self, x: &[f32], clean: &[f32]) -> bool {
        match self.norm {
            Norm::Linf => x.iter().zip(clean).all(|(x, c)| project(*x, *c, self.eps) == *x),
            Norm::L2 => {
                x.iter().all(|v| (0.0..=1.0).contains(v)) && distance(x, clean) <= f64::from(self.eps) * (1.0 + 1e-6)
            }
        }
    }

    /// How far `x` is from `clean`.
    pub fn distance(&self, x: &[f32], clean: &[f32]) -> f64 {
        match self.norm {
            Norm::Linf => x.iter().zip(clean).map(|(x, c)| (f64::from(*x) - f64::from(*c)).abs()).fold(0.0, f64::max),
            Norm::L2 => distance(x, clean),
        }
    }
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn projection_stays_in_ball_and_box(x in -2.0f32..3.0, clean in 0.0f32..=1.0, eps in 0.0f32..=1.0) {
            let p = project(x, clean, eps);
            prop_assert!((0.0..=1.0).contains(&p));
            prop_assert!((f64::from(p) - f64::from(clean)).abs() <= f64::from(eps) + 6e-8);
            prop_assert_eq!(project(clean, clean, eps), clean);
        }

        #[test]
        fn balls_hold_what_is_projected_and_leave_what_is_inside(
            pixels in proptest::collection::vec((-2.0f32..3.0, 0.0f32..=1.0), 1..50), eps in 0.0f32..=3.0, l2: bool,
        ) {
            let ball = Ball { norm: if l2 { Norm::L2 } else { Norm::Linf }, eps };
            let (mut x, clean): (Vec<f32>, Vec<f32>) = pixels.into_iter().unzip();
            ball.project(&mut x, &clean);
            prop_assert!(x.iter().all(|v| (0.0..=1.0).contains(v)));
            prop_assert!(ball.distance(&x, &clean) <= f64::from(eps) * (1.0 + 1e-6) + 1e-7);
            let before = x.clone();
            ball.project(&mut x, &clean);
            prop_assert!(x.iter().zip(&before).all(|(a, b)| (a - b).abs() <= 1e-6));
            let mut step = vec![f32::NAN; clean.len()];
            ball.steepest(&vec![0.0; clean.len()], &mut step);
            prop_assert!(step.iter().all(|s| *s == 0.0));
        }

        #[test]
        fn l2_grid_points_stay_in_the_ball(
            pixels in proptest::collection::vec((0.0f32..=1.0, any::<u8>()), 1..50), eps in 0.0f32..=3.0,
        ) {
            let ball = Ball { norm: Norm::L2, eps };
            let (mut x, bytes): (Vec<f32>, Vec<u8>) = pixels.into_iter().unzip();
            let clean: Vec<f32> = bytes.iter().map(|b| f32::from(*b) / 255.0).collect();
            ball.project(&mut x, &clean);
            let grid: Vec<f32> = ball.on_grid(&x, &bytes).iter().map(|b| f32::from(*b) / 255.0).collect();
            prop_assert!(ball.distance(&grid, &clean) <= f64::from(eps) * (1.0 + 1e-6) + 1e-6);
        }

        #[test]
        fn the_grid_point_stays_in_the_ball(x in 0.0f32..=1.0, clean: u8, steps in 0u8..=64) {
            let q = to_grid(x, clean, f32::from(steps) / 255.0);
            prop_assert!(q.abs_diff(clean) <= steps);
            prop_assert_eq!(to_grid(f32::from(clean) / 255.0, clean, 0.0), clean);
        }
    }
}

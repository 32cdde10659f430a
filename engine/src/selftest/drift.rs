//! Drift under noise that was never seen before: how far posteriors of noisy images are from the training images', on average,
//! against what the maker's machine found for many draws.

use super::Painter;
use super::square::mixed;
use crate::inference::Answer;

/// Noise is the sum of three draws of at most so much either way: of standard deviation 8.5.
const REACH: i32 = 8;

/// Adds the seed's noise to an image.
pub fn noisy(image: &[u8], seed: u32, to: &mut [u8]) {
    for (at, (to, value)) in to.iter_mut().zip(image).enumerate() {
        let draw = mixed(seed, at as u32);
        let part = |shift: u32| (draw >> shift & 0x3ff) as i32 % (2 * REACH + 1) - REACH;
        *to = (i32::from(*value) + part(0) + part(10) + part(20)).clamp(0, 255) as u8;
    }
}

/// What the maker found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference {
    /// Mean of [`Drift::mean`] over draws.
    pub mean: f32,
    /// Its standard deviation.
    pub std: f32,
}

impl Reference {
    /// Standard deviations within which a device's mean must be: its bits are the maker's, so only the draw differs.
    pub const TOLERANCE: f32 = 6.0;

    /// Of the means of several draws; at least two.
    pub fn of(means: &[f32]) -> Self {
        let n = means.len() as f32;
        let mean = means.iter().sum::<f32>() / n;
        let squares: f32 = means.iter().map(|m| (m - mean) * (m - mean)).sum();
        Self { mean, std: libm::sqrtf(squares / (n - 1.0)) }
    }

    /// Whether a device's mean agrees.
    pub fn agrees(&self, mean: f32) -> bool {
        (mean - self.mean).abs() <= Self::TOLERANCE * self.std
    }
}

/// A mean under way.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Drift {
    sum: f32,
    n: u16,
}

impl Drift {
    /// Answers an image with the seed's noise, and adds the distance of its posterior.
    ///
    /// # Errors
    /// If the device gives no answer.
    pub fn step<E>(&mut self, device: &mut dyn Painter<Error = E>, image: &[u8], seed: u32) -> Result<(), E> {
        let mut distance = 0.0;
        device.answer_painted(&mut |to| noisy(image, seed, to), &mut |answer: &Answer| {
            distance = libm::sqrtf(answer.distances.posterior);
        })?;
        self.sum += distance;
        self.n += 1;
        Ok(())
    }

    /// The mean distance so far.
    pub fn mean(&self) -> f32 {
        self.sum / f32::from(self.n.max(1))
    }
}

//! What calibration images do to every activation: extremes, histograms, means.

use crate::encoder::Encoder;
use crate::encoder::batch;
use anyhow::{Result, ensure};
use paradise_data::Dataset;

/// Images run at once.
const BATCH: usize = 250;

/// Bins of a histogram between an activation's extremes.
const BINS: usize = 2048;

/// Shrunk ranges that the search for the least squared error tries, from the whole range down.
const SHRINKS: usize = 80;

/// How an activation's range is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ranges {
    /// Smallest and largest value seen.
    MinMax,
    /// So many per cent of the values lie inside; what lies outside saturates.
    Percentile(f64),
    /// The range, shrunk from both ends alike, whose int8 has the least squared error.
    SquaredError,
}

impl std::fmt::Display for Ranges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MinMax => f.write_str("min-max"),
            Self::Percentile(p) => write!(f, "{p} %"),
            Self::SquaredError => f.write_str("squared error"),
        }
    }
}

/// An activation over the calibration images.
#[derive(Debug, Clone)]
pub struct Activation {
    /// Smallest and largest value, 0 included.
    pub extremes: [f32; 2],
    /// Values in each of [`BINS`] equal parts between the extremes.
    histogram: Vec<u64>,
    /// Mean over the images of each value, `[h][w][c]`.
    pub mean: Vec<f32>,
    /// Smallest and largest value of each channel, 0 included, `[c]`.
    pub channels: Vec<[f32; 2]>,
}

impl Activation {
    /// Largest magnitude of channel `c`.
    pub fn largest(&self, c: usize) -> f32 {
        let [low, high] = self.channels[c];
        high.max(-low)
    }

    /// The range of a method; it always holds 0.
    pub fn range(&self, method: Ranges) -> [f32; 2] {
        let [low, high] = self.extremes;
        if high <= low {
            return self.extremes;
        }
        match method {
            Ranges::MinMax => self.extremes,
            Ranges::Percentile(inside) => self.percentile(inside),
            Ranges::SquaredError => {
                let candidates = (0..SHRINKS).map(|k| 1.0 - 0.9 * k as f64 / SHRINKS as f64);
                let errors = candidates.map(|keep| (self.squared_error(keep), keep));
                let best = errors.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(1.0, |(_, keep)| keep);
                [low, high].map(|v| (f64::from(v) * best) as f32)
            }
        }
    }

    /// The value in the middle of bin `i`.
    fn middle(&self, i: usize) -> f64 {
        let [low, high] = self.extremes.map(f64::from);
        low + (high - low) * (i as f64 + 0.5) / BINS as f64
    }

    fn percentile(&self, inside: f64) -> [f32; 2] {
        let total: u64 = self.histogram.iter().sum();
        // Half of what is left out at either end.
        let out = (total as f64 * (1.0 - inside / 100.0) / 2.0) as u64;
        let reached = |seen: &mut u64, i: usize| {
            *seen += self.histogram[i];
            *seen > out
        };
        let first = (0..BINS).scan(0, |seen, i| Some((i, reached(seen, i)))).find(|(_, r)| *r);
        let last = (0..BINS).rev().scan(0, |seen, i| Some((i, reached(seen, i)))).find(|(_, r)| *r);
        let [first, last] = [first, last].map(|found| found.map(|(i, _)| i));
        let at = |bin: Option<usize>, side: f32| bin.map_or(side, |i| self.middle(i) as f32);
        [at(first, self.extremes[0]).min(0.0), at(last, self.extremes[1]).max(0.0)]
    }

    /// Squared error of all values in int8 over the range times `keep`.
    fn squared_error(&self, keep: f64) -> f64 {
        let [low, high] = self.extremes.map(|v| f64::from(v) * keep);
        let step = (high - low) / 255.0;
        let error = |(i, count): (usize, &u64)| {
            let v = self.middle(i);
            let q = low + ((v - low) / step).round().clamp(0.0, 255.0) * step;
            *count as f64 * (v - q) * (v - q)
        };
        self.histogram.iter().enumerate().map(error).sum()
    }
}

/// The image and every stage's output over `set`; values below an activation's floor, where `floors` has one, count as it.
///
/// # Errors
/// If the images do not fit the encoder or a value is not finite.
pub fn observe(encoder: &Encoder, set: &Dataset, floors: &[f32]) -> Result<Vec<Activation>> {
    ensure!(!set.is_empty(), "no calibration images");
    let shapes = encoder.architecture.graph.shapes()?;
    let mut seen: Vec<Activation> = shapes
        .iter()
        .map(|s| Activation {
            extremes: [0.0; 2],
            histogram: vec![0; BINS],
            mean: vec![0.0; s.len() as usize],
            channels: vec![[0.0; 2]; s.c as usize],
        })
        .collect();
    each_batch(encoder, set, floors, |i, values| {
        let a = &mut seen[i];
        for v in values {
            ensure!(v.is_finite(), "an activation is {v}");
            a.extremes = [a.extremes[0].min(*v), a.extremes[1].max(*v)];
        }
        for image in values.chunks_exact(a.mean.len()) {
            a.mean.iter_mut().zip(image).for_each(|(m, v)| *m += v / set.len() as f32);
        }
        for pixel in values.chunks_exact(a.channels.len()) {
            a.channels.iter_mut().zip(pixel).for_each(|(m, v)| *m = [m[0].min(*v), m[1].max(*v)]);
        }
        Ok(())
    })?;
    each_batch(encoder, set, floors, |i, values| {
        let a = &mut seen[i];
        let [low, high] = a.extremes;
        let scale = if high > low { BINS as f32 / (high - low) } else { 0.0 };
        for v in values {
            a.histogram[(((v - low) * scale) as usize).min(BINS - 1)] += 1;
        }
        Ok(())
    })?;
    Ok(seen)
}

/// Every activation of every batch, raised to its floor where `floors` has one.
pub(super) fn each_batch(
    encoder: &Encoder,
    set: &Dataset,
    floors: &[f32],
    mut look: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let all: Vec<usize> = (0..set.len()).collect();
    for ids in all.chunks(BATCH) {
        for (i, mut values) in encoder.activations(&batch(set, ids)?)?.into_iter().enumerate() {
            if let Some(&floor) = floors.get(i) {
                values.iter_mut().filter(|v| **v < floor).for_each(|v| *v = floor);
            }
            look(i, &values)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activation(values: &[f32]) -> Activation {
        let extremes = values.iter().fold([0.0f32; 2], |[a, b], v| [a.min(*v), b.max(*v)]);
        let mut histogram = vec![0; BINS];
        for v in values {
            let at = (v - extremes[0]) / (extremes[1] - extremes[0]) * BINS as f32;
            histogram[(at as usize).min(BINS - 1)] += 1;
        }
        Activation { extremes, histogram, mean: vec![], channels: vec![] }
    }

    /// Evenly spread in [-1, 1], and one value far out.
    fn outlier() -> Activation {
        let mut values: Vec<f32> = (0..10_000).map(|i| -1.0 + i as f32 / 5000.0).collect();
        values.push(100.0);
        activation(&values)
    }

    #[test]
    fn an_outlier_stays_outside_but_for_min_max() {
        let a = outlier();
        assert_eq!(a.range(Ranges::MinMax), [-1.0, 100.0]);
        let [low, high] = a.range(Ranges::Percentile(99.9));
        assert!((-1.05..=-0.9).contains(&low) && (0.9..=1.1).contains(&high), "{low} {high}");
        let [low, high] = a.range(Ranges::SquaredError);
        assert!(low <= 0.0 && high < 100.0, "{low} {high}");
    }

    #[test]
    fn the_least_squared_error_is_least() {
        let a = outlier();
        let best = f64::from(a.range(Ranges::SquaredError)[1]) / 100.0;
        for keep in [1.0, 0.8, 0.5, 0.2] {
            assert!(a.squared_error(best) <= a.squared_error(keep), "{keep}");
        }
    }
}

//! Learning rates over a run.

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How the learning rate goes from the first step to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// A cosine from peak / 25 up to the peak over the first 30 %, then a cosine down to peak / 250,000 (Smith's
    /// one-cycle, with the usual constants).
    OneCycle,
    /// A cosine from the peak to 0 (Loshchilov & Hutter, 2017), after the warm-up.
    Cosine,
    /// The peak, divided at each milestone, after the warm-up.
    Step,
}

/// A schedule with its numbers.
#[derive(Debug, Clone, Copy)]
pub struct Rates<'a> {
    /// Its form.
    pub schedule: Schedule,
    /// Largest rate.
    pub peak: f64,
    /// Steps over which the rate rises linearly to the peak; not for one-cycle.
    pub warmup: u64,
    /// Shares of the run after which the rate is divided, for [`Schedule::Step`].
    pub milestones: &'a [f64],
    /// What it is divided by.
    pub divisor: f64,
}

impl Rates<'_> {
    /// The rate of step `step` of `steps`, counted from 0.
    ///
    /// ```
    /// use paradise_nn::optimiser::schedule::{Rates, Schedule};
    /// let rates = Rates { schedule: Schedule::Step, peak: 0.1, warmup: 0, milestones: &[0.5], divisor: 10.0 };
    /// assert!((rates.at(0, 100) - 0.1).abs() < 1e-12 && (rates.at(60, 100) - 0.01).abs() < 1e-12);
    /// ```
    pub fn at(&self, step: u64, steps: u64) -> f64 {
        let cosine = |from: f64, to: f64, t: f64| to + (from - to) * 0.5 * (1.0 + (PI * t.min(1.0)).cos());
        let share = step as f64 / steps.max(1) as f64;
        if self.schedule == Schedule::OneCycle {
            let (start, end) = (self.peak / 25.0, self.peak / 250_000.0);
            return if share < 0.3 {
                cosine(start, self.peak, share / 0.3)
            } else {
                cosine(self.peak, end, (share - 0.3) / 0.7)
            };
        }
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        match self.schedule {
            Schedule::Cosine => {
                let left = steps.saturating_sub(self.warmup).max(1);
                cosine(self.peak, 0.0, (step - self.warmup) as f64 / left as f64)
            }
            _ => {
                // A milestone is the first step at or past its share, whatever f64 makes of the quotient.
                let passed = self.milestones.iter().filter(|m| step as f64 + 1e-6 >= **m * steps as f64).count();
                self.peak / self.divisor.powi(passed as i32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule) -> Rates<'static> {
        Rates { schedule, peak: 1.0, warmup: 0, milestones: &[0.5, 0.75], divisor: 10.0 }
    }

    #[test]
    fn one_cycle_rises_and_falls() {
        let rates: Vec<f64> = (0..=100).map(|s| rates(Schedule::OneCycle).at(s, 100)).collect();
        assert!((rates[0] - 0.04).abs() < 1e-12 && (rates[30] - 1.0).abs() < 1e-12 && rates[100] < 1e-5);
        assert!(rates[..30].windows(2).all(|w| w[0] < w[1]) && rates[30..].windows(2).all(|w| w[0] > w[1]));
    }

    #[test]
    fn cosine_halves_in_the_middle_and_steps_divide() {
        let cosine = rates(Schedule::Cosine);
        assert!((cosine.at(0, 100) - 1.0).abs() < 1e-12 && (cosine.at(50, 100) - 0.5).abs() < 1e-12);
        assert!(cosine.at(100, 100).abs() < 1e-12);
        let step = rates(Schedule::Step);
        let at = [0, 49, 50, 74, 75, 99].map(|s| step.at(s, 100));
        assert_eq!(at, [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]);
        let warm = Rates { warmup: 4, ..step };
        assert_eq!([0, 1, 3, 4].map(|s| warm.at(s, 100)), [0.25, 0.5, 1.0, 1.0]);
    }
}

//! Whether answers are still distributed as over the calibration images: rolling histograms of their p-values, which the tables in
//! the bundle, or the site's, foretell.

use paradise_engine::PValues;
use paradise_engine::calibration::{Calibration, Tables};
use serde::Serialize;
use std::collections::VecDeque;

/// Answers that a histogram is of.
const WINDOW: usize = 500;
/// Bins of p-values, a tenth each.
const BINS: usize = 10;
/// The population stability index from which a distribution counts as another (the usual limit), and below which the alarm ends. With
/// nothing changed, [`WINDOW`] answers give about (BINS - 1) / WINDOW = 0.02.
const ALARM: [f64; 2] = [0.25, 0.1];
/// Fewest answers that a bin is expected to have: what almost never happens must not divide by nothing.
const LEAST: f64 = 0.5;

/// What is looked at: how likely the rate, the picture, the posterior and both entropies are among the calibration images'.
const NAMES: [&str; 5] = ["rate", "picture", "posterior", "posterior_entropy", "predictive_entropy"];

/// One number's distribution against the reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shift {
    /// What it is of: a p-value's name, or `abstention`.
    pub of: &'static str,
    /// The population stability index; for abstention, its share.
    pub index: f64,
    /// Whether it counts as another distribution.
    pub alarm: bool,
}

/// Histograms of the last answers.
#[derive(Debug)]
pub struct Drift {
    expected: [[f64; BINS]; NAMES.len()],
    /// Share of ordinary pictures that may be abstained from, if that was promised.
    promised: Option<f64>,
    window: VecDeque<([u8; NAMES.len()], bool)>,
    counts: [[u32; BINS]; NAMES.len()],
    abstained: u32,
    alarms: [bool; NAMES.len() + 1],
}

fn bin(p: f32) -> usize {
    // A p-value of 0 or of no number is as small as can be.
    (((p * BINS as f32).ceil() as usize).max(1) - 1).min(BINS - 1)
}

/// Shares of each bin among the calibration images themselves.
fn expected(table: &Calibration, p: impl Fn(f32) -> f32) -> [f64; BINS] {
    let mut shares = [0.0; BINS];
    for (value, n) in table.each() {
        shares[bin(p(value))] += f64::from(n);
    }
    let all: f64 = shares.iter().sum();
    shares.map(|share| share / all)
}

impl Drift {
    /// Against these tables, and the share of abstentions that was promised.
    pub fn new(tables: &Tables, promised: Option<f64>) -> Self {
        let upper = |table: &Calibration| expected(table, |v| table.upper_p(v));
        let expected = [
            upper(&tables.rate),
            upper(&tables.picture),
            upper(&tables.posterior),
            expected(&tables.entropy, |v| tables.entropy.two_sided_p(v)),
            upper(&tables.predictive),
        ];
        let (window, counts) = (VecDeque::with_capacity(WINDOW + 1), [[0; BINS]; NAMES.len()]);
        Self { expected, promised, window, counts, abstained: 0, alarms: [false; NAMES.len() + 1] }
    }

    /// Adds an answer.
    pub fn add(&mut self, p: &PValues, accepts: bool) {
        let bins = [p.rate, p.picture, p.posterior, p.entropy, p.predictive].map(|p| bin(p) as u8);
        self.window.push_back((bins, accepts));
        self.count(&bins, accepts, 1);
        if self.window.len() > WINDOW
            && let Some((bins, accepts)) = self.window.pop_front()
        {
            self.count(&bins, accepts, u32::MAX);
        }
    }

    /// Adds `by`, modulo 2^32, where an answer belongs.
    fn count(&mut self, bins: &[u8], accepts: bool, by: u32) {
        for (counts, bin) in self.counts.iter_mut().zip(bins) {
            let count = &mut counts[usize::from(*bin)];
            *count = count.wrapping_add(by);
        }
        if !accepts {
            self.abstained = self.abstained.wrapping_add(by);
        }
    }

    /// How far each distribution is from the reference; nothing before 500 answers.
    pub fn shifts(&mut self) -> Vec<Shift> {
        if self.window.len() < WINDOW {
            return Vec::new();
        }
        let n = WINDOW as f64;
        let mut shifts = Vec::with_capacity(NAMES.len() + 1);
        let each = self.counts.iter().zip(&self.expected).zip(NAMES);
        for (((counts, expected), of), alarm) in each.zip(&mut self.alarms) {
            let index: f64 = counts
                .iter()
                .zip(expected)
                .map(|(count, share)| {
                    let [is, was] = [f64::from(*count), share * n].map(|count| count.max(LEAST) / n);
                    (is - was) * (is / was).ln()
                })
                .sum();
            *alarm = index > ALARM[usize::from(*alarm)];
            shifts.push(Shift { of, index, alarm: *alarm });
        }
        if let Some(promised) = self.promised {
            let share = f64::from(self.abstained) / n;
            let alarm = &mut self.alarms[NAMES.len()];
            // Twice as often as promised, and more than four standard deviations of chance.
            let chance = promised + 4.0 * (promised * (1.0 - promised) / n).sqrt();
            let limits = [chance.max(2.0 * promised), 1.5 * promised];
            *alarm = share > limits[usize::from(*alarm)];
            shifts.push(Shift { of: "abstention", index: share, alarm: *alarm });
        }
        shifts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{OwnTables, Values};

    fn tables(n: u32) -> OwnTables {
        let mut rng = fastrand::Rng::with_seed(1);
        let values: Vec<f32> = (0..n).map(|_| (0..6).map(|_| rng.f32()).sum()).collect();
        OwnTables::new(&Values::of([&values; 7])).unwrap()
    }

    fn answers(tables: &Tables, seed: u64, more: f32, n: usize, drift: &mut Drift) {
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..n {
            let v = (0..6).map(|_| rng.f32()).sum::<f32>() + more;
            let (upper, both) = (tables.rate.upper_p(v), tables.rate.two_sided_p(v));
            let p = PValues {
                picture: upper,
                posterior: upper,
                spread: upper,
                rate: upper,
                entropy: both,
                predictive: upper,
                combined: upper,
            };
            drift.add(&p, upper > 0.05);
        }
    }

    #[test]
    fn the_same_distribution_raises_nothing_and_another_does() {
        for n in [300, 5000] {
            let own = tables(n);
            let mut drift = Drift::new(own.tables(), Some(0.05));
            answers(own.tables(), 2, 0.0, WINDOW - 1, &mut drift);
            assert!(drift.shifts().is_empty());
            for seed in 3..30 {
                answers(own.tables(), seed, 0.0, WINDOW, &mut drift);
                let shifts = drift.shifts();
                assert_eq!(shifts.len(), 6);
                assert!(shifts.iter().all(|shift| !shift.alarm), "{n} {seed}: {shifts:?}");
            }
            // Half a standard deviation more.
            answers(own.tables(), 1, 0.6, WINDOW, &mut drift);
            let shifts = drift.shifts();
            assert!(
                shifts.iter().filter(|shift| shift.of != "posterior_entropy").all(|s| s.alarm),
                "{n}: {shifts:?}"
            );
            answers(own.tables(), 2, 0.0, WINDOW, &mut drift);
            assert!(drift.shifts().iter().all(|shift| !shift.alarm));
        }
    }

    #[test]
    fn counts_are_of_the_window_alone() {
        let own = tables(300);
        let mut drift = Drift::new(own.tables(), None);
        answers(own.tables(), 1, 0.2, 3 * WINDOW + 17, &mut drift);
        assert!(drift.counts.iter().all(|counts| counts.iter().sum::<u32>() == WINDOW as u32));
        assert_eq!((drift.window.len(), drift.shifts().len()), (WINDOW, 5));
        assert_eq!([0.0, f32::NAN, 0.1, 0.1001, 1.0].map(bin), [0, 0, 0, 1, 9]);
    }
}

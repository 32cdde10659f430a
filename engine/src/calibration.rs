//! What calibration images say of a number: conformal p-values.

use crate::artifact::Model;
use crate::error::FormatError;
use crate::header::{MAX_TABLE, Table};
use crate::tensor::Le;
use crate::validate::{ensure, limit};

/// Two views of a sorted calibration table.
#[derive(Debug, Clone, Copy)]
pub struct Calibration<'a> {
    n: u32,
    values: Le<'a, f32>,
    ranks: Le<'a, u32>,
}

impl<'a> Calibration<'a> {
    /// The table's values in `model`.
    pub fn new(model: &Model<'a>, table: &Table) -> Self {
        Self { n: table.n, values: model.f32s(table.values), ranks: model.u32s(table.ranks) }
    }

    /// The order statistics of `n` values: at most [`MAX_TABLE`] in ascending order, and the zero-based rank of each among
    /// all, of which the first is 0 and the last n - 1.
    ///
    /// # Errors
    /// Where they are not that.
    pub fn checked(n: u32, values: Le<'a, f32>, ranks: Le<'a, u32>) -> Result<Self, FormatError> {
        let stored = values.len();
        limit("calibration values", MAX_TABLE as u64, stored as u64)?;
        ensure(stored > 0 && stored as u64 <= u64::from(n), "a calibration table is empty or too long")?;
        ensure(ranks.len() == stored, "calibration values and ranks are not as many")?;
        ensure(values.iter().all(f32::is_finite), "a calibration value is not finite")?;
        ensure((1..stored).all(|i| values.at(i - 1) <= values.at(i)), "calibration values are not sorted")?;
        ensure((1..stored).all(|i| ranks.at(i - 1) < ranks.at(i)), "calibration ranks are not increasing")?;
        ensure(ranks.at(0) == 0 && ranks.at(stored - 1) == n - 1, "calibration ranks do not span the table")?;
        Ok(Self { n, values, ranks })
    }

    /// Calibration values that are at least `v`; where only order statistics are stored, the largest count that
    /// they allow, so that the p-value stays conservative.
    fn at_least(&self, v: f32) -> u32 {
        match self.values.partition_point(|stored| stored < v) {
            0 => self.n,
            k => self.n - self.ranks.at(k - 1) - 1,
        }
    }

    /// Calibration values that are at most `v`, counted the same way.
    fn at_most(&self, v: f32) -> u32 {
        let k = self.values.partition_point(|stored| stored <= v);
        if k == self.values.len() { self.n } else { self.ranks.at(k) }
    }

    /// The smallest stored value that at least the share `share` of all, in [0, 1], does not exceed.
    pub fn quantile(&self, share: f64) -> f32 {
        let rank = (share.clamp(0.0, 1.0) * f64::from(self.n - 1)) as u32;
        let k = self.ranks.partition_point(|stored| stored < rank);
        self.values.at(k.min(self.values.len() - 1))
    }

    /// What the calibration values were: each that is stored, once, and for those between two stored ones a value between, as often as
    /// there were.
    pub fn each(&self) -> impl Iterator<Item = (f32, u32)> {
        let stored = (0..self.values.len()).map(|k| (self.values.at(k), 1));
        let between = (1..self.values.len()).map(|k| {
            let (low, high) = (self.values.at(k - 1), self.values.at(k));
            (low + (high - low) / 2.0, self.ranks.at(k) - self.ranks.at(k - 1) - 1)
        });
        stored.chain(between)
    }

    /// Conformal p-value of a large value: `(1 + #{calibration >= v}) / (n + 1)`; 0 if `v` is not finite.
    pub fn upper_p(&self, v: f32) -> f32 {
        if !v.is_finite() {
            return 0.0;
        }
        (1 + u64::from(self.at_least(v))) as f32 / (u64::from(self.n) + 1) as f32
    }

    /// Two-sided p-value: `min(1, 2 min(1 + #{<= v}, 1 + #{>= v}) / (n + 1))`; 0 if `v` is not finite.
    pub fn two_sided_p(&self, v: f32) -> f32 {
        if !v.is_finite() {
            return 0.0;
        }
        let tail = 1 + u64::from(self.at_least(v).min(self.at_most(v)));
        ((2 * tail) as f32 / (u64::from(self.n) + 1) as f32).min(1.0)
    }
}

/// A table of every number that calibration images are compared by: a model's, or those of a place where it stands.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    /// Rates, nats.
    pub rate: Calibration<'a>,
    /// Posterior entropies, nats.
    pub entropy: Calibration<'a>,
    /// Squared distances of posteriors.
    pub posterior: Calibration<'a>,
    /// Squared distances of spreads.
    pub spread: Calibration<'a>,
    /// Squared distances of pictures.
    pub picture: Calibration<'a>,
    /// Predictive entropies, nats.
    pub predictive: Calibration<'a>,
    /// Of picture, posterior and class together: [`surprise`](crate::PValues::surprise).
    pub combined: Calibration<'a>,
}

impl<'a> Tables<'a> {
    /// The model's own.
    pub fn of(model: &Model<'a>) -> Self {
        let tables = &model.header().calibrations;
        let table = |table| Calibration::new(model, table);
        Self {
            rate: table(&tables.rate),
            entropy: table(&tables.entropy),
            posterior: table(&tables.posterior),
            spread: table(&tables.spread),
            picture: table(&tables.picture),
            predictive: table(&tables.predictive),
            combined: table(&tables.combined),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    extern crate std;
    use std::vec::Vec;

    fn bytes<const N: usize, T>(items: &[T], le: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
        items.iter().flat_map(le).collect()
    }

    proptest! {
        #[test]
        fn p_values_equal_counting(mut all in proptest::collection::vec(-8i8..8, 1..60), v in -10i8..10) {
            all.sort_unstable();
            let values: Vec<f32> = all.iter().map(|&x| f32::from(x)).collect();
            let ranks: Vec<u32> = (0..values.len() as u32).collect();
            let (vb, rb) = (bytes(&values, |x| x.to_le_bytes()), bytes(&ranks, |x| x.to_le_bytes()));
            let table = Calibration { n: values.len() as u32, values: Le::new(&vb), ranks: Le::new(&rb) };
            let ge = all.iter().filter(|&&x| x >= v).count() as f32;
            let le = all.iter().filter(|&&x| x <= v).count() as f32;
            let n1 = all.len() as f32 + 1.0;
            prop_assert_eq!(table.upper_p(f32::from(v)), (1.0 + ge) / n1);
            prop_assert_eq!(table.two_sided_p(f32::from(v)), (2.0 * (1.0 + ge.min(le)) / n1).min(1.0));
        }

        #[test]
        fn order_statistics_are_conservative(mut all in proptest::collection::vec(-50i16..50, 8..80), v in -60i16..60) {
            all.sort_unstable();
            let n = all.len();
            let picks: Vec<usize> = (0..5).map(|i| i * (n - 1) / 4).collect();
            let values: Vec<f32> = picks.iter().map(|&i| f32::from(all[i])).collect();
            let ranks: Vec<u32> = picks.iter().map(|&i| i as u32).collect();
            let (vb, rb) = (bytes(&values, |x| x.to_le_bytes()), bytes(&ranks, |x| x.to_le_bytes()));
            let table = Calibration { n: n as u32, values: Le::new(&vb), ranks: Le::new(&rb) };
            let ge = all.iter().filter(|&&x| x >= v).count() as f32;
            prop_assert!(table.upper_p(f32::from(v)) >= (1.0 + ge) / (n as f32 + 1.0));
        }
    }

    #[test]
    fn quantiles_are_stored_values() {
        let values: Vec<f32> = [1.0, 2.0, 4.0, 8.0].to_vec();
        let (vb, rb) = (bytes(&values, |x| x.to_le_bytes()), bytes(&[0u32, 50, 90, 100], |x| x.to_le_bytes()));
        let table = Calibration::checked(101, Le::new(&vb), Le::new(&rb)).unwrap();
        assert_eq!([0.0, 0.3, 0.5, 0.51, 0.95, 1.0].map(|q| table.quantile(q)), [1.0, 2.0, 2.0, 4.0, 8.0, 8.0]);
        for wrong in [3u32, 101, 100] {
            let odd = [0, 50, wrong, 100].map(u32::to_le_bytes).concat();
            assert!(Calibration::checked(101, Le::new(&vb), Le::new(&odd)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_value_is_counted_once() {
        let values: Vec<f32> = [1.0, 2.0, 4.0, 8.0].to_vec();
        let (vb, rb) = (bytes(&values, |x| x.to_le_bytes()), bytes(&[0u32, 1, 90, 100], |x| x.to_le_bytes()));
        let table = Calibration::checked(101, Le::new(&vb), Le::new(&rb)).unwrap();
        let each: Vec<(f32, u32)> = table.each().collect();
        assert_eq!(each.iter().map(|(_, n)| n).sum::<u32>(), 101);
        assert_eq!(each[4..], [(1.5, 0), (3.0, 88), (6.0, 9)]);
    }

    #[test]
    fn what_is_not_finite_is_not_typical() {
        let (vb, rb) = (1.0f32.to_le_bytes(), 0u32.to_le_bytes());
        let table = Calibration { n: 1, values: Le::new(&vb), ranks: Le::new(&rb) };
        for v in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(table.upper_p(v), 0.0);
            assert_eq!(table.two_sided_p(v), 0.0);
        }
    }
}

//! Between which values a device accepts, and how surprising a statistic is to it: its steps of p-values as the adaptive attack
//! climbs them.

use paradise_engine::Model;
use paradise_engine::calibration::Calibration;
use paradise_engine::header::Table;

/// Between which values the device accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limits {
    pub(crate) rate_max: f64,
    pub(crate) entropy: [f64; 2],
    pub(crate) predictive_max: f64,
    pub(crate) posterior_max: f64,
    pub(crate) spread_max: f64,
    pub(crate) picture_max: f64,
    pub(crate) combined_max: f64,
}

/// How surprising a statistic is: `-ln p` at a table's values, straight lines between them, and beyond the last as steep as
/// before it, so that there is always a way back.
pub(crate) struct Surprise {
    values: Vec<f64>,
    nats: Vec<f64>,
}

impl Surprise {
    fn of(model: &Model, table: &Table) -> Self {
        let calibration = Calibration::new(model, table);
        let mut values: Vec<f32> = model.f32s(table.values).iter().collect();
        values.dedup();
        let nats = values.iter().map(|v| -f64::from(calibration.upper_p(*v)).ln()).collect();
        Self { values: values.into_iter().map(f64::from).collect(), nats }
    }

    /// Its value and its slope.
    pub(crate) fn at(&self, v: f64) -> (f64, f64) {
        let last = self.values.len() - 1;
        let slope = |a: usize, b: usize| match self.values[b] - self.values[a] {
            run if run > 0.0 => (self.nats[b] - self.nats[a]) / run,
            _ => 0.0,
        };
        if v >= self.values[last] {
            let slope = slope(last - last / 8, last);
            return (self.nats[last] + slope * (v - self.values[last]), slope);
        }
        match self.values.partition_point(|value| *value <= v) {
            0 => (self.nats[0], 0.0),
            after => {
                let slope = slope(after - 1, after);
                (self.nats[after - 1] + slope * (v - self.values[after - 1]), slope)
            }
        }
    }
}

/// Surprise at picture, posterior and class.
pub(crate) struct Surprises {
    pub(crate) picture: Surprise,
    pub(crate) posterior: Surprise,
    pub(crate) predictive: Surprise,
}

impl Surprises {
    /// By the model's tables.
    pub(crate) fn of(model: &Model) -> Self {
        let tables = &model.header().calibrations;
        Self {
            picture: Surprise::of(model, &tables.picture),
            posterior: Surprise::of(model, &tables.posterior),
            predictive: Surprise::of(model, &tables.predictive),
        }
    }
}

impl Limits {
    /// By bisection over the tables' values: p-values are steps. A test that is left out has no limit.
    pub(crate) fn of(model: &Model) -> Self {
        let (tables, t) = (&model.header().calibrations, model.header().thresholds);
        let span = |table: &Table| {
            let of = model.f32s(table.values);
            let (low, high) = of.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(v), h.max(v)));
            (f64::from(low) - 1.0, f64::from(high) + 1.0)
        };
        // The edge between where `inside` holds and where it does not.
        let edge = |mut inside: f64, mut outside: f64, holds: &dyn Fn(f32) -> bool| {
            for _ in 0..60 {
                let middle = (inside + outside) / 2.0;
                if holds(middle as f32) { inside = middle } else { outside = middle }
            }
            inside
        };
        let most = |table: &Table, level: f32| {
            let ((low, high), calibration) = (span(table), Calibration::new(model, table));
            if level == 0.0 { f64::INFINITY } else { edge(low, high, &|v| calibration.upper_p(v) >= level) }
        };
        let (low, high) = span(&tables.entropy);
        let entropies = Calibration::new(model, &tables.entropy);
        let typical = |v: f32| entropies.two_sided_p(v) >= t.entropy_p_min;
        let middle = {
            let mut all: Vec<f32> = model.f32s(tables.entropy.values).iter().collect();
            all.sort_by(f32::total_cmp);
            f64::from(all[all.len() / 2])
        };
        let entropy = match t.entropy_p_min {
            0.0 => [f64::NEG_INFINITY, f64::INFINITY],
            _ => [edge(middle, low, &typical), edge(middle, high, &typical)],
        };
        Self {
            rate_max: most(&tables.rate, t.rate_p_min),
            entropy,
            predictive_max: f64::from(t.predictive_entropy_max_nats),
            posterior_max: most(&tables.posterior, t.posterior_p_min),
            spread_max: most(&tables.spread, t.spread_p_min),
            picture_max: most(&tables.picture, t.picture_p_min),
            combined_max: most(&tables.combined, t.combined_p_min),
        }
    }
}

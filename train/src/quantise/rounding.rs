//! Which way each weight of a row rounds: so that the errors, which inputs that go together see together, make up for
//! one another (feedback as in QuIP's LDLQ and GPTQ, Chee et al. and Frantar et al., 2023; then single steps downhill).

use super::spread::Spread;

/// What is added to the covariance's diagonal, as a share of its mean.
const DAMPING: f64 = 0.01;

/// Passes over a row's weights in search of a better neighbour.
const PASSES: usize = 20;

/// Largest magnitude of a weight.
const MOST: f64 = 127.0;

/// A covariance, ready to round rows by: damped, and as `(U + I) D (U + I)'` with its inputs by falling variance.
pub struct Feedback {
    /// Damped, in the inputs' own order.
    covariance: Vec<f64>,
    /// Inputs by falling variance.
    order: Vec<usize>,
    /// Strictly upper triangular, column by column, in that order.
    upper: Vec<f64>,
}

impl Feedback {
    /// Of inputs that spread so.
    pub fn new(spread: &Spread) -> Self {
        let n = spread.width;
        let mut covariance = spread.covariance.clone();
        let mean = (0..n).map(|i| covariance[i * n + i]).sum::<f64>() / n.max(1) as f64;
        // Inputs that never move leave the rounding to the nearest.
        let damping = if mean > 0.0 { DAMPING * mean } else { 1.0 };
        (0..n).for_each(|i| covariance[i * n + i] += damping);
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| covariance[b * n + b].total_cmp(&covariance[a * n + a]));
        let mut h: Vec<f64> =
            order.iter().flat_map(|&i| order.iter().map(move |&j| i * n + j)).map(|at| covariance[at]).collect();
        let mut upper = vec![0.0; n * n];
        // The last input's share goes first, so that what is left is the covariance of those before it.
        for k in (0..n).rev() {
            let pivot = h[k * n + k].max(damping * 1e-6);
            let column: Vec<f64> = (0..k).map(|j| h[j * n + k] / pivot).collect();
            for (i, u) in column.iter().enumerate() {
                let row = &mut h[i * n..i * n + k];
                row.iter_mut().zip(&column).for_each(|(h, v)| *h -= u * pivot * v);
            }
            upper[k * n..k * n + k].copy_from_slice(&column);
        }
        Self { covariance, order, upper }
    }

    /// Mean square error of an output whose weights are off by `errors`.
    pub fn error(&self, errors: &[f64]) -> f64 {
        let n = errors.len();
        let row = |i: usize| errors.iter().zip(&self.covariance[i * n..]).map(|(e, h)| e * h).sum::<f64>();
        (0..n).map(|i| errors[i] * row(i)).sum()
    }

    /// Multiples of `step` for a row's weights: never worse than the nearest ones.
    pub fn round(&self, row: &[f32], step: f32) -> Vec<i8> {
        let n = row.len();
        let exact: Vec<f64> = row.iter().map(|w| f64::from(*w) / f64::from(step)).collect();
        let clamp = |v: f64| v.round().clamp(-MOST, MOST);
        let nearest: Vec<f64> = exact.iter().map(|v| v - clamp(*v)).collect();
        let mut fed = vec![0.0; n];
        // Errors so far, in the order of the inputs.
        let mut so_far = Vec::with_capacity(n);
        for (k, &i) in self.order.iter().enumerate() {
            let owed: f64 = so_far.iter().zip(&self.upper[k * n..]).map(|(e, u): (&f64, &f64)| e * u).sum();
            fed[i] = exact[i] - clamp(exact[i] + owed);
            so_far.push(fed[i]);
        }
        let mut errors = if self.error(&fed) < self.error(&nearest) { fed } else { nearest };
        self.descend(&exact, &mut errors);
        exact.iter().zip(&errors).map(|(v, e)| (v - e).round() as i8).collect()
    }

    /// Moves one weight by one step wherever that lessens the error, until it does nowhere.
    fn descend(&self, exact: &[f64], errors: &mut [f64]) {
        let n = errors.len();
        let row = |i: usize| &self.covariance[i * n..(i + 1) * n];
        let mut slope: Vec<f64> = (0..n).map(|i| errors.iter().zip(row(i)).map(|(e, h)| e * h).sum()).collect();
        for _ in 0..PASSES {
            let mut moved = false;
            for i in 0..n {
                // Error + t costs t^2 h + 2 t slope.
                let t = if slope[i] > 0.0 { -1.0 } else { 1.0 };
                let fits = (exact[i] - errors[i] - t).abs() <= MOST;
                if fits && t * t * row(i)[i] + 2.0 * t * slope[i] < -1e-12 * row(i)[i] {
                    errors[i] += t;
                    slope.iter_mut().zip(row(i)).for_each(|(s, h)| *s += t * h);
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_support::random::{self, Purpose};
    use proptest::prelude::*;

    /// The covariance of `inputs`, rows of `width`, about 0.
    fn spread(inputs: &[f64], width: usize) -> Spread {
        let mut covariance = vec![0.0; width * width];
        for x in inputs.chunks_exact(width) {
            for (at, c) in covariance.iter_mut().enumerate() {
                *c += x[at / width] * x[at % width] * width as f64 / inputs.len() as f64;
            }
        }
        Spread { width, covariance }
    }

    fn mean_square(inputs: &[f64], row: &[f32], rounded: &[i8]) -> f64 {
        let of = |x: &[f64]| {
            let e: f64 = x.iter().zip(row).zip(rounded).map(|((x, w), q)| x * (f64::from(*w) - f64::from(*q))).sum();
            e * e
        };
        inputs.chunks_exact(row.len()).map(of).sum::<f64>() * row.len() as f64 / inputs.len() as f64
    }

    /// The cost of integers from the inputs themselves, damping included.
    fn cost(inputs: &[f64], spread: &Spread, row: &[f32], rounded: &[i8]) -> f64 {
        let n = row.len();
        let damping = DAMPING * (0..n).map(|i| spread.covariance[i * n + i]).sum::<f64>() / n as f64;
        let far: f64 = row.iter().zip(rounded).map(|(w, q)| (f64::from(*w) - f64::from(*q)).powi(2)).sum();
        mean_square(inputs, row, rounded) + damping * far
    }

    /// Inputs of one image move together, each a little on its own.
    fn together(common: &[f64], own: &[f64]) -> Vec<f64> {
        own.iter().enumerate().map(|(i, v)| v + common[i / 6]).collect()
    }

    proptest! {
        #[test]
        fn no_worse_than_the_nearest_nor_than_any_neighbour(
            row in proptest::collection::vec(-20.0f32..20.0, 6),
            common in proptest::collection::vec(-1.0f64..1.0, 24), own in proptest::collection::vec(-0.3f64..0.3, 144),
        ) {
            let inputs = together(&common, &own);
            let spread = spread(&inputs, 6);
            let rounded = Feedback::new(&spread).round(&row, 1.0);
            let got = cost(&inputs, &spread, &row, &rounded);
            let nearest: Vec<i8> = row.iter().map(|w| w.round() as i8).collect();
            prop_assert!(got <= cost(&inputs, &spread, &row, &nearest) + 1e-9);
            for (i, step) in (0..6).flat_map(|i| [(i, -1), (i, 1)]) {
                let mut other = rounded.clone();
                other[i] += step;
                prop_assert!(got <= cost(&inputs, &spread, &row, &other) + 1e-9, "{i} {step}");
            }
        }

        #[test]
        fn what_is_on_the_grid_stays(row in proptest::collection::vec(-127i8..=127, 5), own in proptest::collection::vec(-1.0f64..1.0, 50)) {
            let floats: Vec<f32> = row.iter().map(|q| f32::from(*q) * 0.5).collect();
            prop_assert_eq!(Feedback::new(&spread(&own, 5)).round(&floats, 0.5), row);
        }
    }

    /// Over many rows, the cost lies much nearer that of the best of all 64 ways to round than that of the nearest.
    #[test]
    fn close_to_the_best_of_all() {
        let mut rng = random::stream(5, Purpose::Init, 0, 0, 0);
        let mut costs = [0.0; 3];
        for _ in 0..200 {
            let mut draw = |n: usize, most: f64| -> Vec<f64> {
                (0..n).map(|_| most * (2.0 * f64::from(random::uniform(&mut rng)) - 1.0)).collect()
            };
            let inputs = together(&draw(24, 1.0), &draw(144, 0.3));
            let row: Vec<f32> = draw(6, 20.0).iter().map(|w| *w as f32).collect();
            let spread = spread(&inputs, 6);
            let of = |q: &[i8]| cost(&inputs, &spread, &row, q);
            let way = |bits: u8| row.iter().enumerate().map(move |(i, w)| w.floor() as i8 + (bits >> i & 1) as i8);
            let best = (0..64).map(|bits| of(&way(bits).collect::<Vec<i8>>())).fold(f64::INFINITY, f64::min);
            let nearest: Vec<i8> = row.iter().map(|w| w.round() as i8).collect();
            let each = [best, of(&Feedback::new(&spread).round(&row, 1.0)), of(&nearest)];
            costs.iter_mut().zip(each).for_each(|(c, e)| *c += e);
        }
        let [best, ours, nearest] = costs;
        assert!(ours <= best + 0.2 * (nearest - best), "{best} {ours} {nearest}");
    }

    #[test]
    fn inputs_that_go_together_share_an_error() {
        // Two equal inputs: 0.4 + 0.4 is closer to 1 + 0 than to 0 + 0.
        let spread = Spread { width: 2, covariance: vec![1.0, 0.999, 0.999, 1.0] };
        let rounded = Feedback::new(&spread).round(&[0.4, 0.4], 1.0);
        assert_eq!(rounded.iter().map(|q| i32::from(*q)).sum::<i32>(), 1);
    }

    #[test]
    fn inputs_that_never_move_round_to_the_nearest() {
        let spread = Spread { width: 3, covariance: vec![0.0; 9] };
        assert_eq!(Feedback::new(&spread).round(&[0.4, -1.6, 200.0], 1.0), [0, -2, 127]);
    }
}

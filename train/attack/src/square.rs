//! Square Attack (Andriushchenko et al., 2020): random squares, kept where the margin falls. Needs no gradient.

use crate::attack::{Attack, Attempt, Sample, Victim};
use crate::error::{Result, setting};
use crate::loss::{Aim, Loss, descending};
use crate::model::Classifier;
use crate::threat::{Ball, Norm};
use paradise_engine::Shape;
use paradise_support::random::{self, Purpose, branch};
use rand_chacha::ChaCha8Rng;

/// Iterations after which the share of pixels in a square is halved, for any number of queries (AutoAttack's choice).
const HALVINGS: [usize; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];

/// The attack and its budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Square {
    /// Queries of each image at most.
    pub queries: usize,
    /// Share of pixels in the first squares.
    pub share: f64,
}

impl Default for Square {
    fn default() -> Self {
        Self { queries: 5000, share: 0.8 }
    }
}

/// One image on its way.
struct Search {
    sample: usize,
    rng: ChaCha8Rng,
    x: Vec<f32>,
    /// `max_{i != y} z_i - z_y` there.
    margin: f64,
}

impl Attack for Square {
    fn describe(&self) -> String {
        format!("Square-{}", self.queries)
    }

    fn run(&self, victim: Victim, ball: Ball, samples: &[Sample], seed: u64) -> Result<Vec<Attempt>> {
        let share = self.share;
        setting((0.0..=1.0).contains(&share), || format!("a share of {share} pixels is not in 0..=1"))?;
        let model = victim.classifier();
        let shape = model.shape();
        let mut attempts: Vec<Attempt> = samples.iter().map(Attempt::none).collect();
        let begin = |(sample, s): (usize, &Sample)| Search {
            sample,
            rng: random::stream(seed, Purpose::AttackStart, branch::SQUARE, s.key, 0),
            x: s.clean.to_vec(),
            margin: f64::NEG_INFINITY,
        };
        let mut searches: Vec<Search> = samples.iter().enumerate().map(begin).collect();
        for query in 0..self.queries {
            if searches.is_empty() {
                break;
            }
            // The first query is the start; moves are counted from 0.
            let side = self.side(query.saturating_sub(1), shape, ball.norm);
            let mut candidates = Vec::with_capacity(searches.len() * shape.len() as usize);
            for s in &mut searches {
                let clean = samples[s.sample].clean;
                let mut x = match (query, ball.norm) {
                    (0, Norm::Linf) => stripes(shape, clean, ball.eps, &mut s.rng),
                    (0, Norm::L2) => tiles(shape, clean, ball.eps, &mut s.rng),
                    (_, Norm::Linf) => square(shape, &s.x, ball.eps, side, &mut s.rng),
                    (_, Norm::L2) => bump(shape, &s.x, clean, ball.eps, side, &mut s.rng),
                };
                ball.project(&mut x, clean);
                candidates.append(&mut x);
            }
            accept(model, &mut searches, &candidates, samples, &mut attempts)?;
        }
        for s in searches {
            attempts[s.sample].point = s.x;
        }
        Ok(attempts)
    }
}

impl Square {
    /// Rows and columns of the square of a move.
    fn side(&self, step: usize, shape: Shape, norm: Norm) -> usize {
        let halvings = HALVINGS.iter().filter(|h| step > **h).count() as i32;
        let pixels = self.share / 2f64.powi(halvings) * f64::from(shape.h) * f64::from(shape.w);
        let side = pixels.sqrt().round() as usize;
        let most = usize::from(shape.h.min(shape.w));
        match norm {
            Norm::Linf => side.clamp(1, most),
            // Odd, and at least 3, for a bump with a middle.
            Norm::L2 => (side.max(3) | 1).min(most),
        }
    }
}

/// Asks the model about every candidate; keeps those whose margin rose, and ends the search of those that fell.
fn accept(
    model: &dyn Classifier,
    searches: &mut Vec<Search>,
    candidates: &[f32],
    samples: &[Sample],
    attempts: &mut [Attempt],
) -> Result<()> {
    let (classes, each) = (model.classes(), model.shape().len() as usize);
    let logits = model.logits(candidates)?;
    let mut unused = vec![0.0; classes];
    let rows = candidates.chunks_exact(each).zip(logits.chunks_exact(classes));
    for (s, (x, z)) in searches.iter_mut().zip(rows) {
        let label = samples[s.sample].label;
        let margin = Loss::Margin.value(z, Aim { label, target: None }, &mut unused);
        if descending(z)[0] != label {
            attempts[s.sample] = Attempt { broken: true, point: x.to_vec() };
        } else if margin > s.margin {
            s.margin = margin;
            s.x.copy_from_slice(x);
        }
    }
    searches.retain(|s| !attempts[s.sample].broken);
    Ok(())
}

/// Vertical stripes of +-eps, drawn a channel and column.
fn stripes(shape: Shape, clean: &[f32], eps: f32, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let row = usize::from(shape.w) * usize::from(shape.c);
    let signs: Vec<f32> = (0..row).map(|_| random::sign(rng)).collect();
    clean.iter().enumerate().map(|(i, c)| c + eps * signs[i % row]).collect()
}

/// The corner of a square inside the image.
fn corner(shape: Shape, side: usize, rng: &mut ChaCha8Rng) -> [usize; 2] {
    [shape.h, shape.w].map(|size| random::below(rng, usize::from(size) - side + 1))
}

/// Where the values of one channel of a square stand.
fn window(shape: Shape, [top, left]: [usize; 2], side: usize, channel: usize) -> impl Iterator<Item = usize> {
    let [w, c] = [shape.w, shape.c].map(usize::from);
    (0..side * side).map(move |k| ((top + k / side) * w + left + k % side) * c + channel)
}

/// A square of +-2 eps a channel, on top of what is there.
fn square(shape: Shape, x: &[f32], eps: f32, side: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let at = corner(shape, side, rng);
    let mut x = x.to_vec();
    for channel in 0..usize::from(shape.c) {
        let change = 2.0 * eps * random::sign(rng);
        window(shape, at, side, channel).for_each(|i| x[i] += change);
    }
    x
}

/// Half a square that swells to its middle, and its negative beside it; of unit length, upright or lying.
fn swelling(side: usize, lying: bool) -> Vec<f32> {
    let mut values = vec![0.0f64; side * side];
    let (upper, lower) = (side / 2, side - side / 2);
    for (first, rows, sign) in [(0, upper, 1.0), (upper, lower, -1.0)] {
        let middle = [rows / 2, side / 2];
        let (mut half, mut length) = (vec![0.0f64; rows * side], 0.0);
        for (k, v) in half.iter_mut().enumerate() {
            // 1 / r^2 summed over all rings around the middle that hold the pixel.
            let ring = (k / side).abs_diff(middle[0]).max((k % side).abs_diff(middle[1]));
            *v = (ring..=middle[0].max(middle[1])).map(|r| 1.0 / ((r + 1) as f64).powi(2)).sum();
            length += *v * *v;
        }
        for (k, v) in half.iter().enumerate() {
            values[first * side + k] = sign * v / length.sqrt().max(1e-12);
        }
    }
    let length = values.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
    let place = |k: usize| if lying { k % side * side + k / side } else { k };
    (0..side * side).map(|k| (values[place(k)] / length) as f32).collect()
}

/// Brings a change to length eps around the clean image.
fn stretched(clean: &[f32], change: &[f32], eps: f32) -> Vec<f32> {
    let length = change.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12);
    clean.iter().zip(change).map(|(c, d)| c + (f64::from(*d) / length * f64::from(eps)) as f32).collect()
}

/// A change of length eps: five by five swellings, each channel of each with a sign of its own.
fn tiles(shape: Shape, clean: &[f32], eps: f32, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let [h, w] = [shape.h, shape.w].map(usize::from);
    let side = (h.min(w) / 5).max(1);
    let mut change = vec![0.0; clean.len()];
    for top in (0..h + 1 - side).step_by(side) {
        for left in (0..w + 1 - side).step_by(side) {
            let lying = random::below(rng, 2) == 1;
            let values = swelling(side, lying);
            for channel in 0..usize::from(shape.c) {
                let sign = random::sign(rng);
                window(shape, [top, left], side, channel).zip(&values).for_each(|(i, v)| change[i] += sign * v);
            }
        }
    }
    stretched(clean, &change, eps)
}

/// Takes the change's length out of one square and puts it, swelling, into another.
fn bump(shape: Shape, x: &[f32], clean: &[f32], eps: f32, side: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let mut change: Vec<f32> = x.iter().zip(clean).map(|(x, c)| x - c).collect();
    let square = |values: &[f32], at: &mut dyn Iterator<Item = usize>| -> f64 {
        at.map(|i| f64::from(values[i]).powi(2)).sum()
    };
    let (to, from) = (corner(shape, side, rng), corner(shape, side, rng));
    let c = usize::from(shape.c);
    let spare = (f64::from(eps).powi(2) - square(&change, &mut (0..change.len()))).max(0.0) / c as f64;
    let values = swelling(side, random::below(rng, 2) == 1);
    for channel in 0..c {
        // The budget of both squares, pixels in both counted once, goes into the first.
        let inside: Vec<usize> = window(shape, to, side, channel).collect();
        let outside: Vec<usize> = window(shape, from, side, channel).filter(|i| !inside.contains(i)).collect();
        let there = square(&change, &mut inside.iter().copied());
        let budget = spare + there + square(&change, &mut outside.iter().copied());
        let (sign, old) = (random::sign(rng), there.sqrt().max(1e-12) as f32);
        let new: Vec<f32> = inside.iter().zip(&values).map(|(i, v)| sign * v + change[*i] / old).collect();
        let length = square(&new, &mut (0..new.len())).sqrt().max(1e-12);
        outside.iter().for_each(|i| change[*i] = 0.0);
        for (i, v) in inside.iter().zip(&new) {
            change[*i] = (f64::from(*v) / length * budget.sqrt()) as f32;
        }
    }
    stretched(clean, &change, eps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch;
    use crate::model::Function;
    use proptest::prelude::*;

    #[test]
    fn squares_shrink_as_autoattacks_do() {
        let (attack, shape) = (Square::default(), Shape::new(32, 32, 3));
        let sides = [0, 10, 11, 51, 201, 501, 1001, 2001, 4001].map(|step| attack.side(step, shape, Norm::Linf));
        // round(sqrt(p h w)) with p = 0.8, halved after 10, 50, 200, ...
        assert_eq!(sides, [29, 29, 20, 14, 10, 7, 5, 4, 3]);
        assert_eq!(attack.side(4001, shape, Norm::L2), 3);
        assert_eq!(attack.side(0, Shape::new(2, 2, 1), Norm::L2), 2);
    }

    proptest! {
        #[test]
        fn swellings_are_unit_and_balanced(side in 1usize..16, lying: bool) {
            let values = swelling(side, lying);
            let length: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
            prop_assert!((length - 1.0).abs() < 1e-5);
            // Both halves have the same length and opposite signs.
            let half = |positive: bool| -> f64 {
                values.iter().filter(|v| (**v > 0.0) == positive).map(|v| f64::from(*v).powi(2)).sum()
            };
            prop_assert!(side < 2 || (half(true) - half(false)).abs() < 1e-5, "{values:?}");
        }

        #[test]
        fn moves_keep_an_l2_change_at_full_length(h in 5u16..12, w in 5u16..12, c in 1u16..4, seed: u64) {
            let shape = Shape::new(h, w, c);
            let mut rng = random::stream(seed, Purpose::Noise, 0, 0, 0);
            let clean = vec![0.5f32; shape.len() as usize];
            let ball = Ball { norm: Norm::L2, eps: 0.4 };
            let mut x = tiles(shape, &clean, 0.4, &mut rng);
            for side in [5, 3, 3, 5] {
                prop_assert!((ball.distance(&x, &clean) - 0.4).abs() < 1e-5);
                x = bump(shape, &x, &clean, 0.4, side, &mut rng);
            }
            prop_assert!((ball.distance(&x, &clean) - 0.4).abs() < 1e-5);
        }
    }

    /// A model that counts its queries: class 1 where the mean of the upper half is above the lower half's by `gap`.
    fn halves(gap: f32) -> Function<impl Fn(&[f32]) -> Result<Vec<f32>> + Sync> {
        let shape = Shape::new(10, 10, 1);
        let logits = move |x: &[f32]| {
            let row = |x: &[f32]| {
                let mean = |v: &[f32]| v.iter().sum::<f32>() / v.len() as f32;
                [0.0, mean(&x[..50]) - mean(&x[50..]) - gap]
            };
            Ok(x.chunks_exact(100).flat_map(row).collect())
        };
        Function { shape, classes: 2, logits }
    }

    #[test]
    fn it_reaches_what_is_in_reach_and_nothing_else() {
        let clean = vec![0.5f32; 100];
        let samples = [Sample { clean: &clean, label: 0, key: 4 }];
        let attack = Square { queries: 800, share: 0.8 };
        // The largest difference of the halves' means: 2 eps in l_inf, eps / 5 in l2.
        // An l2 swelling is far from the even change that this model wants most.
        for (norm, eps, reach, share) in [(Norm::Linf, 0.1, 0.2, 0.8), (Norm::L2, 0.5, 0.1, 0.5)] {
            let ball = Ball { norm, eps };
            let run = |ball, gap| {
                launch(&attack, Victim::Black(&halves(gap)), ball, &samples, 1, &|_| ()).unwrap().remove(0)
            };
            let Attempt { broken, point: x } = run(ball, share * reach);
            assert!(broken, "{norm:?} stood");
            assert!(ball.distance(&x, &clean) <= f64::from(eps) * (1.0 + 1e-6));
            let stood = run(ball, 1.01 * reach);
            assert!(!stood.broken && ball.distance(&stood.point, &clean) <= f64::from(eps) * (1.0 + 1e-6));
            assert!(!run(Ball { eps: 0.0, ..ball }, 0.01).broken);
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_batch() {
        let images: Vec<Vec<f32>> = (0..6).map(|i| vec![0.3 + 0.05 * i as f32; 100]).collect();
        let samples: Vec<Sample> =
            images.iter().enumerate().map(|(i, clean)| Sample { clean, label: 0, key: i as u64 }).collect();
        let (model, attack) = (halves(0.12), Square { queries: 60, share: 0.8 });
        for norm in [Norm::Linf, Norm::L2] {
            let ball = Ball { norm, eps: if norm == Norm::Linf { 0.1 } else { 0.7 } };
            let victim = Victim::Black(&model);
            let together = attack.run(victim, ball, &samples, 2).unwrap();
            let alone = |s: &Sample| attack.run(victim, ball, std::slice::from_ref(s), 2).unwrap().remove(0);
            assert_eq!(together, samples.iter().map(alone).collect::<Vec<_>>());
        }
    }
}

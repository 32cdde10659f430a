//! Post-training int8: activation ranges from training images, per-channel weights, folded biases (the contract is
//! in ARCHITECTURE.md, "int8 arithmetic"; how methods differ, "Quantisation").

pub mod assemble;
pub mod choose;
mod correct;
mod dither;
mod equalise;
pub mod observe;
mod rounding;
mod spread;
mod tie;

use crate::encoder::Heads;
use crate::encoder::{Encoder, Network, values};
use anyhow::{Result, bail};
use assemble::{Assembly, Linear, Quantisation};
use candle_core::Tensor;
use observe::{Activation, Ranges, observe};
use paradise_data::Dataset;
use paradise_engine::Shape;
use paradise_nn::graph::Op;
use rayon::prelude::*;
use rounding::Feedback;
use spread::{Spread, spreads};

/// How weights are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest multiple of the step.
    Nearest,
    /// To the nearest; biases make up for what that does to means.
    Corrected,
    /// So that errors make up for one another in what calibration images show; biases for what is left in the mean.
    Feedback,
}

/// How a network is quantised after training.
///
/// ```
/// assert_eq!(paradise_train::quantise::Method::PLAIN.to_string(), "min-max");
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Method {
    /// How activation ranges are chosen.
    pub ranges: Ranges,
    /// How weights are rounded.
    pub rounding: Rounding,
    /// Whether the channels of activations are scaled to like ranges.
    pub equalise: bool,
    /// Whether pooled features are stored several times, each rounded from another part of a step.
    pub dither: bool,
}

impl Method {
    /// Extremes, nothing corrected.
    pub const PLAIN: Self =
        Self { ranges: Ranges::MinMax, rounding: Rounding::Nearest, equalise: false, dither: false };
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.ranges)?;
        match self.rounding {
            Rounding::Nearest => {}
            Rounding::Corrected => write!(f, ", bias correction")?,
            Rounding::Feedback => write!(f, ", error feedback")?,
        }
        if self.equalise {
            write!(f, ", equalisation")?;
        }
        if self.dither { write!(f, ", dithered features") } else { Ok(()) }
    }
}

/// The int8 layers and heads of a folded network by the plain method, what it observes on `calibration`.
///
/// # Errors
/// If a stage has no int8 operation, or the images do not fit.
pub fn plain(network: &Network, calibration: &Dataset) -> Result<Assembly> {
    let encoder = network.frozen();
    quantise(&encoder, &observe(&encoder, calibration, &[])?, &[], Method::PLAIN)
}

impl Quantisation {
    /// The scale and zero point whose int8 covers `[low, high]`, which holds 0.
    pub fn covering([low, high]: [f32; 2]) -> Self {
        let span = high - low;
        // A stage that never fires keeps a harmless scale.
        let scale = if span > 0.0 { span / 255.0 } else { 1.0 / 255.0 };
        let zero = (-128.0 - (low / scale).round()).clamp(-128.0, 127.0);
        Self { scale, zero_point: zero as i8 }
    }
}

/// Largest |b / (s_x s_w)| of a bias, so that a channel of tiny weights cannot overflow its accumulator, nor a head over
/// [`dither::COPIES`] of its inputs.
const BIAS_LIMIT: f64 = (1 << 28) as f64;

/// The step at which a row's largest weight is 127.
fn own_step(row: &[f32]) -> f32 {
    let top = row.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    (top / 127.0).max(f32::MIN_POSITIVE * 1e10)
}

/// Rows of a linear map in int8: weights per row at `max |w| / 127`, bias at `s_x * s_w` with `z_x` folded in.
///
/// `means`, where there are any, are the mean inputs of each equal part of the rows, and biases then make up for the
/// rounding of weights; `fed`, where there is any, is that rounding at each row's own step, else it is to the nearest.
/// Returns the integers and each row's `s_x * s_w` in f32.
pub fn rows(weight: &[f32], bias: &[f32], x: Quantisation, means: &[Vec<f64>], fed: Option<&[i8]>) -> Linear {
    let width = weight.len() / bias.len();
    let mut linear = Linear { weight: Vec::with_capacity(weight.len()), bias: Vec::new(), scale: Vec::new() };
    for (r, (row, &b)) in weight.chunks_exact(width).zip(bias).enumerate() {
        let floor = (f64::from(b).abs() / (f64::from(x.scale) * BIAS_LIMIT)) as f32;
        let step = own_step(row).max(floor);
        match fed {
            Some(fed) if floor < step => linear.weight.extend(&fed[r * width..(r + 1) * width]),
            _ => linear.weight.extend(row.iter().map(|w| (w / step).round().clamp(-127.0, 127.0) as i8)),
        }
        let own = &linear.weight[linear.weight.len() - width..];
        let sum: i32 = own.iter().map(|&w| i32::from(w)).sum();
        let mean = means.get(r * means.len() / bias.len());
        let moved = mean.map_or(0.0, |mean| correct::shift(row, own, step, mean));
        let scaled = (f64::from(b) + moved) / (f64::from(x.scale) * f64::from(step));
        let scaled = scaled.round().clamp(-BIAS_LIMIT, BIAS_LIMIT) as i32;
        linear.bias.push(scaled - i32::from(x.zero_point) * sum);
        linear.scale.push(x.scale * step);
    }
    linear
}

/// The mean inputs of a stage's rows, one for each group of them, from the mean of the activation that it reads.
fn mean_inputs(op: &Op, mean: &[f32], shape: Shape) -> Vec<Vec<f64>> {
    let Op::Conv { window, groups, .. } = op else { return vec![mean.iter().map(|m| f64::from(*m)).collect()] };
    let patch = correct::mean_patch(mean, shape, window);
    let (c, depth) = (shape.c as usize, shape.c as usize / groups);
    let of_group = |g: usize| patch.chunks_exact(c).flat_map(|p| &p[g * depth..][..depth]).copied().collect();
    (0..*groups).map(of_group).collect()
}

/// The weights of a folded encoder's linear maps, rounded with error feedback over `set`: one a stage (none where there is
/// no such map), then mu's and s's.
fn feed_back(encoder: &Encoder, set: &Dataset) -> Result<Vec<Vec<i8>>> {
    let spreads = spreads(encoder, set)?;
    let stages = encoder.architecture.graph.stages.len();
    let Heads { mu, s, .. } = encoder.heads()?;
    let round = |weight: &[f32], spreads: &[Spread]| -> Vec<i8> {
        let group = weight.len() / spreads.len().max(1);
        let each = weight.chunks(group).zip(spreads).map(|(weight, spread)| {
            let feedback = Feedback::new(spread);
            let rows = weight.par_chunks(spread.width).map(|row| feedback.round(row, own_step(row)));
            rows.collect::<Vec<_>>().concat()
        });
        each.flatten().collect()
    };
    let mut all = Vec::new();
    for (i, spreads) in spreads[..stages].iter().enumerate() {
        all.push(match spreads.is_empty() {
            true => Vec::new(),
            false => round(&encoder.stage(i)?[0], spreads),
        });
    }
    for (weight, _) in [mu, s] {
        all.push(round(&values(weight)?, &spreads[stages]));
    }
    Ok(all)
}

/// The int8 layers and heads of a folded encoder whose activations were seen; `fed` is what [`feed_back`] made of it,
/// where the method asks for that.
fn quantise(encoder: &Encoder, seen: &[Activation], fed: &[Vec<i8>], method: Method) -> Result<Assembly> {
    let corrects = method.rounding != Rounding::Nearest;
    let fed = |i: usize| (method.rounding == Rounding::Feedback).then(|| fed[i].as_slice());
    let graph = &encoder.architecture.graph;
    let shapes = graph.shapes()?;
    let dithered = method.dither && dither::fits(graph, &shapes);
    let mut assembly = Assembly::new(graph.input);
    for (i, stage) in graph.stages.iter().enumerate() {
        let numbers = encoder.stage(i)?;
        let range = seen[i + 1].range(method.ranges);
        let (x, y, shape) = (assembly.quantisation(stage.x), Quantisation::covering(range), shapes[i + 1]);
        let linear = || {
            let means = match corrects {
                true => mean_inputs(&stage.op, &seen[stage.x].mean, shapes[stage.x]),
                false => Vec::new(),
            };
            let mut linear = rows(&numbers[0], &numbers[1], x, &means, fed(i));
            // (s_x * s_w) / s_y, each step f32 in that order.
            linear.scale.iter_mut().for_each(|s| *s /= y.scale);
            linear
        };
        match &stage.op {
            Op::Conv { window, groups, bias: true, relu, residual: None, .. } => {
                assembly.conv(stage.x, *window, u16::try_from(*groups)?, &linear(), *relu, shape, y)
            }
            Op::Dense { relu, .. } => assembly.dense(stage.x, &linear(), *relu, y),
            Op::Affine { relu } => {
                let mul: Vec<f32> = numbers[0].iter().map(|m| m * x.scale / y.scale).collect();
                let add: Vec<f32> = numbers[1].iter().map(|a| a / y.scale).collect();
                assembly.affine(stage.x, &mul, &add, *relu, y)
            }
            Op::Add { other, relu } => assembly.add(stage.x, *other, *relu, y),
            Op::AvgPool { window } if dithered && i + 1 == graph.stages.len() => {
                let rows = dither::copied(shape.c, window, x, y);
                let copies = Shape::new(1, 1, rows.bias.len() as u16);
                assembly.conv(stage.x, *window, shape.c, &rows, false, copies, y)
            }
            Op::AvgPool { window } => assembly.avg_pool(stage.x, *window, shape, y),
            Op::MaxPool { window } => assembly.max_pool(stage.x, *window, shape),
            op => bail!("stage {i}: {op:?} is not an operation of the int8 engine"),
        };
    }
    let last = graph.stages.len();
    let features = assembly.quantisation(last);
    let means = match corrects {
        true => vec![seen[last].mean.iter().map(|m| f64::from(*m)).collect()],
        false => Vec::new(),
    };
    let Heads { mu, s, classifier } = encoder.heads()?;
    let head = |(w, b): (&Tensor, &Tensor), fed: Option<&[i8]>| {
        let rows = rows(&values(w)?, &values(b)?, features, &means, fed);
        Ok::<_, anyhow::Error>(if dithered { dither::repeated(&rows) } else { rows })
    };
    assembly.heads(&head(mu, fed(last))?, &head(s, fed(last + 1))?);
    assembly.classifier(&values(classifier.0)?, &values(classifier.1)?);
    Ok(assembly)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_map_zero_exactly() {
        for range in [[0.0, 1.0], [-1.0, 1.0], [-3.0, 0.5], [0.0, 0.0], [-1e-9, 1e9]] {
            let q = Quantisation::covering(range);
            assert!(q.scale > 0.0);
            let low = f64::from(q.scale) * (-128.0 - f64::from(q.zero_point));
            let high = f64::from(q.scale) * (127.0 - f64::from(q.zero_point));
            let slack = f64::from(q.scale) * 0.51;
            assert!(low <= f64::from(range[0]) + slack && high >= f64::from(range[1]) - slack, "{range:?} {q:?}");
        }
        assert_eq!(Quantisation::covering([0.0, 2.0]).zero_point, -128);
    }

    proptest! {
        #[test]
        fn integers_stand_for_the_floats(
            weight in proptest::collection::vec(-2.0f32..2.0, 12), bias in proptest::collection::vec(-3.0f32..3.0, 3),
            q in proptest::collection::vec(any::<i8>(), 4), zero in any::<i8>(), scale in 1e-3f32..0.1,
        ) {
            let linear = rows(&weight, &bias, Quantisation { scale, zero_point: zero }, &[], None);
            for row in 0..3 {
                let mut acc = i64::from(linear.bias[row]);
                let mut exact = f64::from(bias[row]);
                let mut spread = 0.0;
                for i in 0..4 {
                    let x = f64::from(scale) * (f64::from(q[i]) - f64::from(zero));
                    acc += i64::from(q[i]) * i64::from(linear.weight[4 * row + i]);
                    exact += x * f64::from(weight[4 * row + i]);
                    spread += x.abs();
                }
                let step = f64::from(linear.scale[row]);
                // Half a step of each weight and of the bias.
                let bound = 0.51 * (step / f64::from(scale) * spread + step) + 1e-6;
                prop_assert!((acc as f64 * step - exact).abs() <= bound);
            }
        }
    }

    #[test]
    fn a_dead_channel_with_a_bias_does_not_overflow() {
        let linear = rows(&[0.0, 1e-30], &[5.0], Quantisation { scale: 0.01, zero_point: -128 }, &[], None);
        assert!((f64::from(linear.bias[0]) * f64::from(linear.scale[0]) - 5.0).abs() < 1e-3);
    }
}

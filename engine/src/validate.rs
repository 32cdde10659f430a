//! What makes a parsed header a valid model. Each rule here is one that inference relies on.

use crate::appearance;
use crate::calibration::Calibration;
use crate::container::Tensors;
use crate::error::FormatError;
use crate::header::{Covariance, Header, MAX_ARENA, MAX_CLASSES, MAX_LATENT, MAX_NAME, Table, Typicality};
use crate::layer::{Activation, Head, MAX_LAYERS, Op, Window};
use crate::tensor::{Shape, Span};
use crate::whitening::{Directions, Whitening, packed_len};

/// Most multiply-accumulates of one inference: ten times WRN-28-10, and a bound on what a hostile file costs.
const MAX_MACS: u64 = 1 << 36;

pub(crate) fn model(h: &Header, t: Tensors) -> Result<(), FormatError> {
    model_but(h, t, |_| false)?;
    arena_plan(h)
}

/// All rules but those of the arena, and of the weights of convolutions that are `packed`.
pub(crate) fn model_but(h: &Header, t: Tensors, packed: impl Fn(usize) -> bool) -> Result<(), FormatError> {
    limit("bytes of the name", MAX_NAME as u64, h.name.len() as u64)?;
    limit("layers", MAX_LAYERS as u64, h.layers.len() as u64)?;
    ensure(h.policy.is_valid(), "the image policy keeps no part of a picture, or more than all")?;
    activations(h)?;
    for index in 0..h.layers.len() {
        layer(h, t, index, packed(index)).map_err(|rule| match rule {
            Broken::Rule(rule) => FormatError::Layer { index: index as u16, rule },
            Broken::Format(error) => error,
        })?;
    }
    macs(h)?;
    heads(h, t)?;
    confidence(h, t)
}

/// A rule of one layer, or an error that already names its place.
enum Broken {
    Rule(&'static str),
    Format(FormatError),
}

impl From<FormatError> for Broken {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}

pub(crate) fn ensure(holds: bool, rule: &'static str) -> Result<(), FormatError> {
    if holds { Ok(()) } else { Err(FormatError::Invalid(rule)) }
}

fn rule(holds: bool, rule: &'static str) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken::Rule(rule)) }
}

pub(crate) fn limit(what: &'static str, limit: u64, got: u64) -> Result<(), FormatError> {
    if got <= limit { Ok(()) } else { Err(FormatError::Limit { what, limit, got }) }
}

fn activations(h: &Header) -> Result<(), FormatError> {
    limit("arena bytes", u64::from(MAX_ARENA), u64::from(h.arena_bytes))?;
    ensure(h.activations.len() == h.layers.len() + 1, "one activation a layer and one for the image")?;
    ensure(!h.layers.is_empty(), "a model has at least one layer")?;
    for a in h.activations.iter() {
        ensure(!a.shape.is_empty(), "an activation has a zero extent")?;
        ensure(a.scale.is_finite() && a.scale > 0.0, "an activation's scale is not finite and positive")?;
        limit("end of an activation in the arena", u64::from(h.arena_bytes), u64::from(a.offset) + a.shape.len())?;
    }
    let image = h.activations.at(0);
    ensure(image.shape == h.input, "activation 0 is not the input")?;
    ensure(matches!(h.input.c, 1 | 3), "the input has 1 or 3 channels")?;
    ensure(image.scale == 1.0 / 255.0 && image.zero_point == -128, "the input is not u8 - 128 at scale 1/255")
}

/// f32 values of a scale tensor: `count` of them, finite and positive.
fn scales(t: Tensors, span: Span, count: usize) -> Result<(), Broken> {
    t.sized(span, 4 * count as u64)?;
    rule(t.numbers::<f32>(span).iter().all(|s| s.is_finite() && s > 0.0), "a scale is not finite and positive")
}

fn finite(t: Tensors, span: Span, count: u64) -> Result<(), FormatError> {
    t.sized(span, 4 * count)?;
    ensure(t.numbers::<f32>(span).iter().all(f32::is_finite), "a constant is not finite")
}

/// Weights in -127..=127 and `128 * sum |w| + |bias| <= i32::MAX` in every row, so no partial sum overflows.
fn rows(t: Tensors, weight: Span, bias: Span, rows: usize, width: u64) -> Result<(), Broken> {
    t.sized(weight, rows as u64 * width)?;
    t.sized(bias, 4 * rows as u64)?;
    let weights = t.i8s(weight);
    rule(!weights.contains(&i8::MIN), "a weight is -128")?;
    for (row, bias) in weights.chunks_exact(width as usize).zip(t.numbers::<i32>(bias).iter()) {
        let magnitude: u64 = row.iter().map(|w| u64::from(w.unsigned_abs())).sum();
        let worst = 128 * magnitude + u64::from(bias.unsigned_abs());
        rule(worst <= i32::MAX as u64, "an accumulator could overflow")?;
    }
    Ok(())
}

fn layer(h: &Header, t: Tensors, index: usize, packed: bool) -> Result<(), Broken> {
    let layer = h.layers.at(index);
    rule(layer.inputs.iter().all(|&i| (i as usize) <= index), "reads an activation of the future")?;
    rule(layer.op.arity() == 2 || layer.inputs[0] == layer.inputs[1], "a unary layer names two inputs")?;
    let x = h.activations.at(layer.inputs[0].into());
    let y = h.activations.at(index + 1);
    let out = y.shape.c as usize;
    let output = |window: &Window, channels: u16| {
        let [h, w] = window.output(x.shape).ok_or(Broken::Rule("the window does not fit the input"))?;
        rule(y.shape == Shape::new(h, w, channels), "the output's shape is wrong")
    };
    match &layer.op {
        Op::Conv { window, groups, weight, bias, scale, .. } => {
            rule(*groups > 0, "groups is 0")?;
            rule(x.shape.c.is_multiple_of(*groups) && y.shape.c.is_multiple_of(*groups), "groups do not divide")?;
            output(window, y.shape.c)?;
            if packed {
                return Ok(());
            }
            let width = area(window) * u64::from(x.shape.c / groups);
            rows(t, *weight, *bias, out, width)?;
            scales(t, *scale, out)
        }
        Op::Dense { weight, bias, scale, .. } => {
            rule(y.shape.h == 1 && y.shape.w == 1, "a dense output is 1 x 1")?;
            rows(t, *weight, *bias, out, x.shape.len())?;
            scales(t, *scale, out)
        }
        Op::Affine { mul, add, .. } => {
            rule(y.shape == x.shape, "the output's shape is wrong")?;
            finite(t, *mul, u64::from(x.shape.c))?;
            Ok(finite(t, *add, u64::from(x.shape.c))?)
        }
        Op::Add { ratio, .. } => {
            let b = h.activations.at(layer.inputs[1].into());
            rule(x.shape == b.shape && x.shape == y.shape, "the operands' shapes differ")?;
            // Bounded so that the sum of the two products stays finite.
            rule(ratio.iter().all(|r| *r > 0.0 && *r <= 1e30), "a ratio is not finite and positive")
        }
        Op::AvgPool { window, scale } => {
            output(window, x.shape.c)?;
            rule(area(window) <= 1 << 20, "an accumulator could overflow")?;
            rule(scale.is_finite() && *scale > 0.0, "a scale is not finite and positive")
        }
        Op::MaxPool { window } => {
            output(window, x.shape.c)?;
            let covered = (0..2).all(|a| window.pad[a].max(window.pad[a + 2]) < window.kernel[a]);
            rule(covered, "a window could lie wholly in the padding")?;
            rule(x.scale == y.scale && x.zero_point == y.zero_point, "a maximum changes scale or zero point")
        }
    }
}

fn area(window: &Window) -> u64 {
    u64::from(window.kernel[0]) * u64::from(window.kernel[1])
}

/// The work of one inference, counted from shapes that were checked.
fn macs(h: &Header) -> Result<(), FormatError> {
    limit("multiply-accumulates", MAX_MACS, h.total_work())
}

/// No layer overwrites an activation that is still to be read, its own inputs included; but a sum may take the very place
/// of an operand that nobody reads after it.
fn arena_plan(h: &Header) -> Result<(), FormatError> {
    // The last layer that reads each activation, plus one; 0 where none does.
    let mut last_read = [0u16; MAX_LAYERS + 1];
    for (index, layer) in h.layers.iter().enumerate() {
        layer.reads().iter().for_each(|&i| last_read[i as usize] = index as u16 + 1);
    }
    for (writer, target) in h.activations.iter().enumerate().skip(1) {
        let layer = h.layers.at(writer - 1);
        for (held, other) in h.activations.iter().enumerate().take(writer) {
            let reads = layer.reads().contains(&(held as u16));
            let read_after = last_read[held] as usize > writer;
            let sum_of_two = matches!(layer.op, Op::Add { .. }) && layer.inputs[0] != layer.inputs[1];
            let in_place = sum_of_two && !read_after && target.range() == other.range();
            if (reads && !in_place || read_after) && overlap(&target, &other) {
                return Err(FormatError::Layer {
                    index: (writer - 1) as u16,
                    rule: "overwrites an activation that is still read",
                });
            }
        }
    }
    Ok(())
}

fn overlap(a: &Activation, b: &Activation) -> bool {
    let (a, b) = (a.range(), b.range());
    a.start < b.end && b.start < a.end
}

fn heads(h: &Header, t: Tensors) -> Result<(), FormatError> {
    limit("latent dimension", u64::from(MAX_LATENT), u64::from(h.latent))?;
    limit("classes", u64::from(MAX_CLASSES), u64::from(h.classes))?;
    ensure(h.latent > 0 && h.classes > 1, "a model has a latent and at least two classes")?;
    let features = h.activations.at(h.activations.len() - 1).shape;
    ensure(features.h == 1 && features.w == 1, "the features are not 1 x 1")?;
    for head in [&h.mu, &h.sigma] {
        linear(t, head, h.latent as usize, u64::from(features.c)).map_err(|broken| match broken {
            Broken::Rule(rule) => FormatError::Invalid(rule),
            Broken::Format(error) => error,
        })?;
    }
    finite(t, h.classifier.weight, u64::from(h.classes) * u64::from(h.latent))?;
    finite(t, h.classifier.bias, u64::from(h.classes))?;
    ensure(h.labels.lines().count() == h.classes as usize, "not one label a class")
}

fn linear(t: Tensors, head: &Head, outputs: usize, width: u64) -> Result<(), Broken> {
    rows(t, head.weight, head.bias, outputs, width)?;
    scales(t, head.scale, outputs)
}

fn confidence(h: &Header, t: Tensors) -> Result<(), FormatError> {
    mixture(h, t)?;
    let d = u64::from(h.latent);
    let Typicality { posterior, picture, spread } = &h.typicality;
    whitening(t, posterior, 2 * d)?;
    whitening(t, picture, appearance::LEN as u64)?;
    ensure(picture.principal() == 0, "a picture's appearance has a triangle")?;
    match spread {
        Some(spread) => whitening(t, spread, d)?,
        None => ensure(posterior.principal() == 0, "spreads have no whitening")?,
    }
    for found in h.calibrations.all() {
        table(t, &found)?;
    }
    ensure(h.thresholds.is_valid(), "a threshold is out of range")
}

fn mixture(h: &Header, t: Tensors) -> Result<(), FormatError> {
    let m = h.mixture;
    let (components, d) = (u64::from(m.components), u64::from(h.latent));
    limit("mixture components", u64::from(MAX_CLASSES), components)?;
    ensure(components > 0, "the mixture is empty")?;
    finite(t, m.log_weight, components)?;
    finite(t, m.mean, components * d)?;
    let packed = packed_len(h.latent.into()) as u64;
    let (half_precision, each) = match m.covariance {
        Covariance::Diagonal { log_std, half_precision } => {
            finite(t, log_std, components * d)?;
            (half_precision, components)
        }
        Covariance::Shared { centre, triangle, half_precision, half_log_det } => {
            finite(t, centre, d)?;
            finite(t, triangle, packed)?;
            finite(t, half_log_det, 1)?;
            (half_precision, 1)
        }
        Covariance::PerClass { triangle, half_precision, half_log_det } => {
            finite(t, triangle, components * packed)?;
            finite(t, half_log_det, components)?;
            (half_precision, components)
        }
    };
    finite(t, half_precision, each * d)?;
    ensure(t.numbers::<f32>(half_precision).iter().all(|p| p > 0.0), "a precision is not positive")
}

/// A whitening of vectors of `n` coordinates.
fn whitening(t: Tensors, w: &Whitening, n: u64) -> Result<(), FormatError> {
    limit("means", u64::from(MAX_CLASSES), w.components.into())?;
    ensure(w.components > 0, "a whitening has no mean")?;
    finite(t, w.centre, n)?;
    match w.directions {
        Directions::Triangle(rows) => finite(t, rows, packed_len(n as usize) as u64)?,
        Directions::Principal { rows, variance, rest } => {
            let k = w.principal() as u64;
            ensure(k <= n, "more principal directions than coordinates")?;
            finite(t, variance, k)?;
            finite(t, rows, k * n)?;
            ensure(rest.is_finite() && rest > 0.0, "the rest of a covariance is not finite and positive")?;
        }
    }
    finite(t, w.means, u64::from(w.components) * w.white_len() as u64)
}

fn table(t: Tensors, table: &Table) -> Result<(), FormatError> {
    let stored = t.checked(table.values)?.len() / 4;
    t.sized(table.values, 4 * stored as u64)?;
    t.sized(table.ranks, 4 * stored as u64)?;
    Calibration::checked(table.n, t.numbers(table.values), t.numbers(table.ranks)).map(|_| ())
}

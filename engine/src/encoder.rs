//! Runs the layers of a model in the caller's arena by the scalar kernels: image -> int8 features -> mu and s.

use crate::artifact::Model;
use crate::kernel;
use crate::kernel::ring::Affine;
use crate::kernel::scalar::{self, Rows, Source, Target};
use crate::layer::Op;
use crate::part::Part;
use crate::requant::Output;
use crate::tensor::Span;
use core::ops::Range;

/// Where the heads' outputs go, `[d]` each.
pub(crate) struct Heads<'a> {
    /// Posterior means.
    pub mu: &'a mut [f32],
    /// What sigma is the sigmoid of.
    pub s: &'a mut [f32],
}

/// Runs every layer, then the heads. `observe(layer, output)` sees each layer's int8 output in NHWC order.
///
/// `image` is u8 HWC and has the model's input length; `arena` has at least its arena length (both checked by
/// [`crate::inference`]).
pub(crate) fn run(
    model: &Model,
    image: &[u8],
    arena: &mut [i8],
    observe: &mut dyn FnMut(usize, &[i8]),
    heads: Heads,
) {
    place(model, image, arena);
    for index in 0..model.header().layers.len() {
        layer(model, index, arena);
        observe(index, &arena[model.header().activations.at(index + 1).range()]);
    }
    self::heads(model, arena, heads);
}

/// Writes the image down as the first activation.
pub(crate) fn place(model: &Model, image: &[u8], arena: &mut [i8]) {
    for (q, pixel) in arena[model.header().activations.at(0).range()].iter_mut().zip(image) {
        // u8 - 128, exactly.
        *q = (pixel ^ 0x80) as i8;
    }
}

/// Runs layer `index` over activations that lie in the arena.
pub(crate) fn layer(model: &Model, index: usize, arena: &mut [i8]) {
    let header = model.header();
    let layer = header.layers.at(index);
    let inputs = layer.inputs.map(|i| header.activations.at(i.into()).range());
    let output = header.activations.at(index + 1).range();
    match (&layer.op, inputs.iter().position(|input| *input == output)) {
        (Op::Add { ratio, relu }, Some(own)) if Part::Add.is_built() => {
            let other = 1 - own;
            let zeros = [own, other].map(|k| header.activations.at(layer.inputs[k].into()).zero_point);
            let (b, _, y) = borrow(arena, [inputs[other].clone(), inputs[other].clone()], output);
            let out = Output::new(header.activations.at(index + 1).zero_point, *relu);
            // A sum of two f32 is the same either way round.
            scalar::add_in_place(y, b, zeros, [ratio[own], ratio[other]], out);
        }
        _ => {
            let (a, b, y) = borrow(arena, inputs, output);
            step(model, index, a, b, y);
        }
    }
}

/// The heads, over the features in the arena.
pub(crate) fn heads(model: &Model, arena: &[i8], heads: Heads) {
    let header = model.header();
    let features = &arena[model.features().range()];
    for (head, to) in [(&header.mu, heads.mu), (&header.sigma, heads.s)] {
        scalar::head(features, rows(model, head.weight, head.bias, head.scale), to);
    }
}

/// Two inputs and the output, which validation has shown to be disjoint from both.
pub(crate) fn borrow<T>(arena: &mut [T], inputs: [Range<usize>; 2], output: Range<usize>) -> (&[T], &[T], &mut [T]) {
    let (left, rest) = arena.split_at_mut(output.start);
    let (y, right) = rest.split_at_mut(output.end - output.start);
    let (left, right) = (&*left, &*right);
    let pick = |range: &Range<usize>| {
        if range.end <= output.start {
            &left[range.clone()]
        } else {
            &right[range.start - output.end..range.end - output.end]
        }
    };
    (pick(&inputs[0]), pick(&inputs[1]), y)
}

/// A linear map's numbers.
pub(crate) fn rows<'m>(model: &Model<'m>, weight: Span, bias: Span, scale: Span) -> Rows<'m> {
    Rows { weight: model.i8s(weight), bias: model.i32s(bias), scale: model.f32s(scale) }
}

/// Layer `index`: `a` and `b` are its inputs, `y` its output.
fn step(model: &Model, index: usize, a: &[i8], b: &[i8], y: &mut [i8]) {
    let header = model.header();
    let layer = header.layers.at(index);
    let [x, second] = layer.inputs.map(|i| header.activations.at(i.into()));
    let target = header.activations.at(index + 1);
    let zero = x.zero_point;
    let out = |relu| Output::new(target.zero_point, relu);
    let source = Source { x: a, shape: x.shape, zero };
    let extent = [target.shape.h as usize, target.shape.w as usize];
    match &layer.op {
        Op::Conv { window, groups, weight, bias, scale, relu } if Part::Conv.is_built() => {
            let rows = rows(model, *weight, *bias, *scale);
            scalar::conv(source, window, *groups as usize, rows, Target { y, extent, out: out(*relu) });
        }
        Op::Dense { weight, bias, scale, relu } if Part::Dense.is_built() => {
            scalar::dense(a, rows(model, *weight, *bias, *scale), out(*relu), y);
        }
        Op::Affine { mul, add, relu } if Part::Affine.is_built() => {
            let (mul, add, out) = (model.f32s(*mul), model.f32s(*add), out(*relu));
            kernel::affine(a, &Affine { zero, mul, add, out }, y);
        }
        Op::Add { ratio, relu } if Part::Add.is_built() => {
            scalar::add(a, b, [zero, second.zero_point], *ratio, out(*relu), y);
        }
        Op::AvgPool { window, scale } if Part::AvgPool.is_built() => {
            scalar::avg_pool(source, window, *scale, Target { y, extent, out: out(false) });
        }
        Op::MaxPool { window } if Part::MaxPool.is_built() => scalar::max_pool(source, window, y, extent),
        op => unreachable!("{} is not built", op.name()),
    }
}

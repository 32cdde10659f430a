//! Runs the steps of a lowered model in the caller's memory: int8 image -> int8 features.

use super::Lowered;
use super::format::{Step, Work};
use super::geometry::Geometry;
use crate::encoder::{self, borrow};
use crate::header::Header;
use crate::kernel::ring::{Affine, Conv, Other, Sum};
use crate::layer::Op;
use crate::requant::Output;

/// Runs every step over an image that lies in the arena as int8. Lengths are the caller's to check.
pub fn run(lowered: &Lowered, arena: &mut [i8], scratch: &mut [u32], observe: &mut dyn FnMut(usize, &[i8])) {
    let model = &lowered.model;
    for step in lowered.steps.iter() {
        match step.work {
            Work::Layer => encoder::layer(model, step.layer.into(), arena),
            Work::Conv => conv(lowered, &step, arena, scratch),
        }
        let stored = usize::from(step.stores());
        observe(stored, &arena[model.header().activations.at(stored + 1).range()]);
    }
}

/// The rounding of a layer's output.
fn rounding(header: &Header, layer: u16, relu: bool) -> Output {
    Output::new(header.activations.at(usize::from(layer) + 1).zero_point, relu)
}

/// A convolution with what stands before and after it.
fn conv(lowered: &Lowered, step: &Step, arena: &mut [i8], scratch: &mut [u32]) {
    let model = &lowered.model;
    let header = model.header();
    let activation = |i: u16| header.activations.at(i.into());
    let layer = header.layers.at(step.layer.into());
    let Op::Conv { window, weight, relu, .. } = &layer.op else { return };
    let [x, y] = [layer.inputs[0], step.layer + 1].map(activation);
    let mut source = layer.inputs[0];
    let before = step.affine.and_then(|affine| {
        let map = header.layers.at(affine.into());
        let Op::Affine { mul, add, relu } = map.op else { return None };
        source = map.inputs[0];
        let (zero, out) = (activation(source).zero_point, rounding(header, affine, relu));
        Some(Affine { zero, mul: model.f32s(mul), add: model.f32s(add), out })
    });
    let mut operand = None;
    let sum = step.sum.and_then(|sum| {
        let layer = header.layers.at(sum.into());
        let Op::Add { ratio, relu } = layer.op else { return None };
        let is_first = layer.inputs[0] == step.layer + 1;
        let (other, ratio) =
            if is_first { (layer.inputs[1], ratio) } else { (layer.inputs[0], [ratio[1], ratio[0]]) };
        operand = Some(other);
        Some(Sum { ratio, zero: activation(other).zero_point, out: rounding(header, sum, relu) })
    });
    let Some(geometry) = Geometry::new(lowered.layout(), window, x.shape, y.shape) else { return };
    let out = rounding(header, step.layer, *relu);
    let weight = model.tensors().bytes(*weight);
    let window = *window;
    let conv = Conv { window, shapes: [x.shape, y.shape], zero: x.zero_point, before, weight, out, sum };
    let (from, to) = (activation(source).range(), activation(step.stores() + 1).range());
    match operand.map(|other| activation(other).range()) {
        Some(other) if other != to => {
            let (x, other, y) = borrow(arena, [from, other], to);
            geometry.conv(&conv, x, Other::At(other), y, scratch);
        }
        in_place => {
            let (x, _, y) = borrow(arena, [from.clone(), from], to);
            let other = if in_place.is_some() { Other::Place } else { Other::None };
            geometry.conv(&conv, x, other, y, scratch);
        }
    }
}

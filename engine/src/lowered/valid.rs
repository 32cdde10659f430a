//! What makes a parsed lowered model valid: every rule that running it relies on.

use super::format::{Step, Work};
use super::geometry::Geometry;
use super::{Lowered, Reads};
use crate::error::FormatError;
use crate::header::Header;
use crate::layer::{Activation, MAX_LAYERS, Op};
use crate::validate::{self, ensure};

pub fn lowered(lowered: &Lowered) -> Result<(), FormatError> {
    let (h, t) = (lowered.model.header(), lowered.model.tensors());
    ensure(!lowered.steps.is_empty(), "a lowered model has at least one step")?;
    validate::limit("steps", MAX_LAYERS as u64, lowered.steps.len() as u64)?;
    let floats = lowered.model.float_len();
    ensure(floats <= lowered.scratch_len(), "the scratch memory is too small for the floats")?;
    let mut packed = [false; MAX_LAYERS];
    for step in lowered.steps.iter() {
        if step.work == Work::Conv
            && let Some(packed) = packed.get_mut(usize::from(step.layer))
        {
            *packed = true;
        }
    }
    validate::model_but(h, t, |layer| packed.get(layer).copied().unwrap_or(false))?;
    for step in lowered.steps.iter() {
        self::step(lowered, &step).map_err(|rule| FormatError::Layer { index: step.layer, rule })?;
    }
    order(h, lowered)
}

/// The layers of a step exist and follow each other, and its weights are whole.
fn step(lowered: &Lowered, step: &Step) -> Result<(), &'static str> {
    let (h, t) = (lowered.model.header(), lowered.model.tensors());
    let layer = h.layers.get(step.layer.into()).ok_or("a step runs a layer that is not there")?;
    if step.work == Work::Layer {
        return Ok(());
    }
    let Op::Conv { window, groups: 1, weight, relu, .. } = &layer.op else {
        return Err("a step convolves a layer that is no convolution of one group");
    };
    if let Some(affine) = step.affine {
        let map = h.layers.get(affine.into()).ok_or("a step reads through a layer that is not there")?;
        let is_before = affine + 1 == layer.inputs[0] && matches!(map.op, Op::Affine { .. });
        if !is_before {
            return Err("a step reads through a layer that is not before it");
        }
    }
    if let Some(sum) = step.sum {
        let next = h.layers.get(sum.into()).ok_or("a step adds a layer that is not there")?;
        let adds = matches!(next.op, Op::Add { .. }) && next.inputs[0] != next.inputs[1];
        if !adds || !next.inputs.contains(&(step.layer + 1)) || *relu {
            return Err("a step adds a layer that is no sum of it");
        }
    }
    let [x, y] = [layer.inputs[0], step.layer + 1].map(|i| h.activations.at(i.into()).shape);
    let geometry =
        Geometry::new(lowered.layout(), window, x, y).ok_or("its kernels do not compute this convolution")?;
    let channels = usize::from(y.c);
    if geometry.scratch_words(channels) > lowered.scratch_len() {
        return Err("the scratch memory is too small");
    }
    let bytes = geometry.weight_len(channels) as u64;
    geometry.check(t.sized(*weight, bytes).map_err(|_| "its records are misplaced")?)
}

/// What a step reads has been stored, and nothing has been stored over it since; a sum may take the place of its operand.
fn order(h: &Header, lowered: &Lowered) -> Result<(), FormatError> {
    // Whether each activation is whole in memory.
    let mut whole = [false; MAX_LAYERS + 1];
    whole[0] = true;
    let overlap = |a: &Activation, b: &Activation| {
        let (a, b) = (a.range(), b.range());
        a.start < b.end && b.start < a.end
    };
    for step in lowered.steps.iter() {
        let broken = |rule| Err(FormatError::Layer { index: step.layer, rule });
        let (Reads { source, second }, output) = super::reads(h, &step);
        let target = h.activations.at(output.into());
        for input in [Some(source), second].into_iter().flatten() {
            if !whole.get(usize::from(input)).copied().unwrap_or(false) {
                return broken("reads an activation that is not in memory");
            }
            let sum =
                matches!(h.layers.at(step.stores().into()).op, Op::Add { .. }) && second.is_some_and(|b| b != source);
            let operand = if step.sum.is_some() { second == Some(input) } else { true };
            let place = h.activations.at(input.into());
            if overlap(&target, &place) && !(sum && operand && place.range() == target.range()) {
                return broken("overwrites an activation that it reads");
            }
        }
        for (held, whole) in whole.iter_mut().enumerate().take(h.activations.len()) {
            if *whole && overlap(&target, &h.activations.at(held)) {
                *whole = false;
            }
        }
        whole[usize::from(output)] = true;
    }
    ensure(whole[h.activations.len() - 1], "no step stores the features")
}

//! What an ONNX file says in numbers: constants and attributes.

use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constant {
    pub dims: Vec<usize>,
    pub values: Values,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

impl Constant {
    fn new(tensor: &TensorProto) -> Result<Self> {
        ensure!(tensor.data_location != Some(1), "its values lie in another file; save the model as one file");
        let dims: Vec<usize> =
            tensor.dims.iter().map(|d| usize::try_from(*d).context("a negative extent")).collect::<Result<_>>()?;
        let n = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).context("its extents overflow")?;
        let raw = &tensor.raw_data;
        let values = match tensor.data_type {
            1 if raw.is_empty() => Values::F32(tensor.float_data.clone()),
            1 => Values::F32(raw.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
            7 if raw.is_empty() => Values::I64(tensor.int64_data.clone()),
            7 => Values::I64(raw.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
            other => bail!("its element type is {other}; float32 is needed"),
        };
        let len = match &values {
            Values::F32(v) => v.len(),
            Values::I64(v) => v.len(),
        };
        ensure!(len == n, "it has {len} values instead of {n}");
        Ok(Self { dims, values })
    }

    pub fn f32s(&self) -> Result<&[f32]> {
        match &self.values {
            Values::F32(v) => {
                ensure!(v.iter().all(|v| v.is_finite()), "a constant is not finite");
                Ok(v)
            }
            Values::I64(_) => bail!("a constant holds integers instead of float32"),
        }
    }

    pub fn i64s(&self) -> Result<&[i64]> {
        match &self.values {
            Values::I64(v) => Ok(v),
            Values::F32(_) => bail!("a constant holds float32 instead of integers"),
        }
    }

    /// A value a channel: of extents `[c]`, `[1, c]`, `[c, 1, 1]`, `[1, c, 1, 1]`, or one value for all.
    pub fn per_channel(&self, c: usize) -> Result<Vec<f32>> {
        let values = self.f32s()?;
        if let [one] = values {
            return Ok(vec![*one; c]);
        }
        let kept: Vec<usize> = self.dims.iter().copied().filter(|d| *d != 1).collect();
        ensure!(kept == [c], "a constant of extents {:?} is not one value for each of {c} channels", self.dims);
        // [c] beside a map of [n, c, h, w] would be columns.
        Ok(values.to_vec())
    }
}

/// Every constant of a graph by name: initialisers and Constant nodes.
///
/// # Errors
/// With the name of one that cannot be read.
pub(super) fn all(graph: &GraphProto) -> Result<HashMap<String, Constant>> {
    let mut all = HashMap::new();
    let named =
        |name: &str, tensor: &TensorProto| Constant::new(tensor).with_context(|| format!("constant {name:?}"));
    for tensor in &graph.initializer {
        all.insert(tensor.name.clone(), named(&tensor.name, tensor)?);
    }
    for node in graph.node.iter().filter(|n| n.op_type == "Constant") {
        if let (Some(name), Some(tensor)) = (node.output.first(), attribute(node, "value").and_then(|a| a.t.as_ref()))
        {
            all.insert(name.clone(), named(name, tensor)?);
        }
    }
    Ok(all)
}

pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

/// An integer attribute.
pub(super) fn int(node: &NodeProto, name: &str, otherwise: i64) -> i64 {
    attribute(node, name).map_or(otherwise, |a| a.i)
}

/// A float attribute.
pub(super) fn float(node: &NodeProto, name: &str, otherwise: f32) -> f32 {
    attribute(node, name).map_or(otherwise, |a| a.f)
}

/// A list of integers.
pub(super) fn ints<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [i64]> {
    attribute(node, name).map(|a| &a.ints[..])
}

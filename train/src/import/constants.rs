//! What an ONNX file says in numbers: constants and attributes.

use super::view::View;
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};
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
        ensure!(tensor.data_location != Some(1), "its values lie in another file");
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

    /// A list of integers.
    pub fn list(values: Vec<i64>) -> Self {
        Self { dims: vec![values.len()], values: Values::I64(values) }
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

    /// One value an output: of extents `[n]` or `[1, n]`, or one value for all.
    pub fn vector(&self, n: usize) -> Result<Vec<f32>> {
        self.spread(n, &[1, n])
    }

    /// One value a channel of an activation that is seen as `view`, or one for all: its extents, aligned with the
    /// activation's from the right as ONNX does, must be 1 but for the channels'.
    pub fn per_channel(&self, c: usize, view: View) -> Result<Vec<f32>> {
        match view {
            View::Nchw => self.spread(c, &[1, c, 1, 1]),
            View::Nhwc => self.spread(c, &[1, 1, 1, c]),
            View::Flat | View::FlatNhwc => self.spread(c, &[1, c]),
        }
    }

    fn spread(&self, c: usize, extents: &[usize]) -> Result<Vec<f32>> {
        let values = self.f32s()?;
        let fits = self.dims.len() <= extents.len();
        if let (true, [one]) = (fits, values) {
            return Ok(vec![*one; c]);
        }
        let padded = [&vec![1; extents.len().saturating_sub(self.dims.len())], &self.dims[..]].concat();
        ensure!(
            fits && padded == extents,
            "a constant of extents {:?} is not one value for each of {c} channels",
            self.dims
        );
        Ok(values.to_vec())
    }
}

/// Every constant of a graph by name, initialisers and Constant nodes; and why others cannot be read, which matters where
/// they are used.
pub(super) fn all(graph: &GraphProto) -> (HashMap<String, Constant>, HashMap<String, String>) {
    let (mut read, mut unread) = (HashMap::new(), HashMap::new());
    let mut put = |name: &str, constant: Result<Constant>| match constant {
        Ok(constant) => drop(read.insert(name.to_string(), constant)),
        Err(why) => drop(unread.insert(name.to_string(), format!("constant {name:?}: {why:#}"))),
    };
    for tensor in &graph.initializer {
        put(&tensor.name, Constant::new(tensor));
    }
    for node in graph.node.iter().filter(|n| n.op_type == "Constant") {
        if let Some(name) = node.output.first() {
            put(name, of_node(node));
        }
    }
    (read, unread)
}

/// The value of a Constant node.
fn of_node(node: &NodeProto) -> Result<Constant> {
    let given = node.attribute.iter().find(|a| a.name.starts_with("value")).context("it has no value")?;
    let dims = |n: usize, list: bool| if list { vec![n] } else { Vec::new() };
    Ok(match given.name.as_str() {
        "value" => return Constant::new(given.t.as_ref().context("it has no value")?),
        "value_float" => Constant { dims: dims(1, false), values: Values::F32(vec![given.f]) },
        "value_floats" => {
            Constant { dims: dims(given.floats.len(), true), values: Values::F32(given.floats.clone()) }
        }
        "value_int" => Constant { dims: dims(1, false), values: Values::I64(vec![given.i]) },
        "value_ints" => Constant { dims: dims(given.ints.len(), true), values: Values::I64(given.ints.clone()) },
        other => bail!("{other} holds no numbers"),
    })
}

/// What a node makes of constants alone: extents that exporters compute while the model runs.
pub(super) fn folded(node: &NodeProto, inputs: &[&Constant]) -> Option<Result<Constant>> {
    let integers = |k: usize| inputs.get(k).context("an input is missing").and_then(|c| c.i64s());
    Some(match node.op_type.as_str() {
        "Identity" => Ok((*inputs.first()?).clone()),
        "Cast" => match (&inputs.first()?.values, int(node, "to", 0)) {
            (Values::F32(_), 1) | (Values::I64(_), 7) => Ok((*inputs.first()?).clone()),
            (Values::I64(v), 6) => {
                Ok(Constant { dims: inputs.first()?.dims.clone(), values: Values::I64(v.clone()) })
            }
            (Values::I64(v), 1) => {
                let values = Values::F32(v.iter().map(|v| *v as f32).collect());
                Ok(Constant { dims: inputs.first()?.dims.clone(), values })
            }
            (_, to) => Err(anyhow::anyhow!("a constant is cast to element type {to}")),
        },
        // Lists of extents have one axis: what is gathered, joined or wrapped stays a list.
        "Gather" => integers(0).and_then(|from| {
            let at = |i: &i64| {
                let i = if *i < 0 { *i + from.len() as i64 } else { *i };
                usize::try_from(i).ok().and_then(|i| from.get(i)).copied().context("an index outside its list")
            };
            Ok(Constant::list(integers(1)?.iter().map(at).collect::<Result<_>>()?))
        }),
        "Unsqueeze" | "Squeeze" => integers(0).map(|v| Constant::list(v.to_vec())),
        "Concat" => {
            (0..inputs.len()).map(integers).collect::<Result<Vec<_>>>().map(|all| Constant::list(all.concat()))
        }
        "Slice" => (|| {
            let (from, start, end) = (integers(0)?, integers(1)?, integers(2)?);
            let ([start], [end]) = (start, end) else { bail!("a slice of more than one axis") };
            ensure!(inputs.len() <= 4 || integers(4)? == [1], "a slice with steps");
            let n = from.len() as i64;
            let clamp = |v: i64| (if v < 0 { v + n } else { v }).clamp(0, n) as usize;
            Ok(Constant::list(from.get(clamp(*start)..clamp(*end)).unwrap_or(&[]).to_vec()))
        })(),
        _ => return None,
    })
}

/// Reads tensors that lie in files of their own into the model.
///
/// # Errors
/// With the name of a tensor whose file is missing, too short, or not beside the model.
pub(super) fn gather(graph: &mut GraphProto, folder: &Path) -> Result<()> {
    for tensor in graph.initializer.iter_mut().filter(|t| t.data_location == Some(1)) {
        let name = tensor.name.clone();
        external(tensor, folder).with_context(|| format!("constant {name:?}"))?;
    }
    Ok(())
}

fn external(tensor: &mut TensorProto, folder: &Path) -> Result<()> {
    let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let location = entry("location").context("its file is not named")?;
    let plain = Path::new(location).components().all(|c| matches!(c, Component::Normal(_)));
    ensure!(plain, "its file {location:?} is not beside the model");
    let number = |key: &str| entry(key).map(str::parse::<u64>).transpose().with_context(|| format!("its {key}"));
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    let path = folder.join(location);
    let at = || path.display().to_string();
    let mut file = std::fs::File::open(&path).with_context(at)?;
    let all = file.metadata().with_context(at)?.len();
    let length = length.unwrap_or(all.saturating_sub(offset));
    ensure!(offset.checked_add(length).is_some_and(|end| end <= all), "{}: ends early", path.display());
    ensure!(length <= super::MAX_FILE, "{}: {length} bytes exceed the limit of {}", path.display(), super::MAX_FILE);
    file.seek(SeekFrom::Start(offset)).with_context(at)?;
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(length).read_to_end(&mut bytes).with_context(at)?;
    (tensor.raw_data, tensor.data_location) = (bytes, None);
    tensor.external_data.clear();
    Ok(())
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

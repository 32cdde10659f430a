//! An ONNX graph from image to logits as the stages and numbers of a network.

use super::constants::{self, Constant, int, ints};
use crate::graph::{Graph, Op, Stage};
use anyhow::{Context, Result, bail, ensure};
use paradise_engine::Shape;
use paradise_engine::layer::Window;
use std::collections::{HashMap, HashSet};
use tract_onnx::pb::{GraphProto, NodeProto, tensor_shape_proto::dimension, type_proto};

/// A tensor of the ONNX graph: an activation, perhaps flattened in NCHW order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value {
    pub activation: usize,
    pub flat: bool,
}

/// Stages and the numbers of each, the last stage giving the logits.
#[derive(Debug)]
pub(super) struct Read {
    pub graph: Graph,
    pub numbers: Vec<Vec<Vec<f32>>>,
}

/// A graph being read.
pub(super) struct Reader {
    constants: HashMap<String, Constant>,
    /// How often each tensor is used.
    pub uses: HashMap<String, usize>,
    values: HashMap<String, Value>,
    pub shapes: Vec<Shape>,
    pub read: Read,
}

/// The name of a classifier's output: `logits` where there is one, else the first.
///
/// # Errors
/// If there is no output.
pub(super) fn logits(graph: &GraphProto) -> Result<&str> {
    let named = graph.output.iter().find(|o| o.name == "logits").or(graph.output.first());
    Ok(&named.context("the graph has no output")?.name)
}

/// Reads the way from the image to the tensor of the name `output`.
///
/// # Errors
/// With the node, if it is not one of those that the int8 engine has an operation for.
pub(super) fn read(graph: &GraphProto, output: &str) -> Result<Read> {
    let constants = constants::all(graph)?;
    let mut inputs = graph.input.iter().filter(|i| !constants.contains_key(&i.name));
    let image = inputs.next().context("the graph has no input")?;
    if let Some(other) = inputs.next() {
        bail!("the graph has inputs {:?} and {:?}; a classifier has one, the image", image.name, other.name);
    }
    let input = image_shape(image)?;
    let nodes = needed(graph, output);
    let mut uses = HashMap::new();
    for name in nodes.iter().flat_map(|n| &n.input).map(String::as_str).chain([output]) {
        *uses.entry(name.to_string()).or_insert(0) += 1;
    }
    let read = Read { graph: Graph { input, stages: Vec::new() }, numbers: Vec::new() };
    let values = HashMap::from([(image.name.clone(), Value { activation: 0, flat: false })]);
    let mut reader = Reader { constants, uses, values, shapes: vec![input], read };
    for node in nodes {
        reader.node(node).with_context(|| format!("node {:?} ({})", node.name, node.op_type))?;
    }
    let last =
        reader.values.get(output).with_context(|| format!("output {output:?} is not computed from the image"))?;
    ensure!(
        last.activation > 0 && last.activation == reader.read.graph.stages.len(),
        "output {output:?} is not the last thing that is computed"
    );
    Ok(reader.read)
}

/// Height, width and channels of an input `[n, c, h, w]`.
fn image_shape(image: &tract_onnx::pb::ValueInfoProto) -> Result<Shape> {
    let Some(type_proto::Value::TensorType(tensor)) = image.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        bail!("input {:?} is no tensor", image.name)
    };
    ensure!(tensor.elem_type == 1, "input {:?} is not of float32", image.name);
    let dims = tensor.shape.as_ref().map_or(&[][..], |s| &s.dim);
    ensure!(dims.len() == 4, "input {:?} has {} axes; an image is [n, c, h, w]", image.name, dims.len());
    let size = |axis: usize| match dims[axis].value {
        Some(dimension::Value::DimValue(v)) => u16::try_from(v).ok().filter(|v| *v > 0),
        _ => None,
    };
    let [c, h, w] = [1, 2, 3].map(size);
    let open = || format!("input {:?}: channels, rows and columns must be fixed and below 65536", image.name);
    let shape = Shape::new(h.with_context(open)?, w.with_context(open)?, c.with_context(open)?);
    ensure!(matches!(shape.c, 1 | 3), "input {:?} has {} channels; the engine takes 1 or 3", image.name, shape.c);
    Ok(shape)
}

/// The nodes that an output depends on, in the file's order.
fn needed<'a>(graph: &'a GraphProto, output: &str) -> Vec<&'a NodeProto> {
    let mut wanted = HashSet::from([output.to_string()]);
    let mut nodes: Vec<&NodeProto> = Vec::new();
    for node in graph.node.iter().rev() {
        if node.op_type != "Constant" && node.output.iter().any(|o| wanted.contains(o)) {
            wanted.extend(node.input.iter().cloned());
            nodes.push(node);
        }
    }
    nodes.reverse();
    nodes
}

impl Reader {
    pub fn push(&mut self, x: usize, op: Op, numbers: Vec<Vec<f32>>) -> Result<usize> {
        let stages = &mut self.read.graph.stages;
        stages.push(Stage { x, op });
        self.read.numbers.push(numbers);
        let mut closed = self.read.graph.clone();
        if closed.stages.last().is_some_and(|s| s.op.is_map()) {
            // A graph may not end in a map; what follows will read it.
            let window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
            closed.stages.push(Stage { x: closed.stages.len(), op: Op::AvgPool { window } });
        }
        self.shapes = closed.shapes()?[..=self.read.graph.stages.len()].to_vec();
        Ok(self.read.graph.stages.len())
    }

    pub fn value(&self, node: &NodeProto, k: usize) -> Result<Value> {
        let name = node.input.get(k).context("an input is missing")?;
        self.values.get(name).copied().with_context(|| format!("input {name:?} is not computed from the image"))
    }

    pub fn constant(&self, node: &NodeProto, k: usize) -> Option<&Constant> {
        node.input.get(k).and_then(|name| self.constants.get(name))
    }

    /// An activation that is stored, not a per-channel map that its readers apply: by a convolution that changes nothing.
    pub fn stored(&mut self, value: Value, relu: bool) -> Result<usize> {
        let is_map = self.read.graph.is_map(value.activation);
        if !is_map && !relu && value.activation > 0 {
            return Ok(value.activation);
        }
        let c = usize::from(self.shapes[value.activation].c);
        let window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
        let op = Op::Conv { window, groups: c, out: c, bias: true, relu, residual: None };
        self.push(value.activation, op, vec![vec![1.0; c], vec![0.0; c]])
    }

    fn node(&mut self, node: &NodeProto) -> Result<()> {
        let value = match node.op_type.as_str() {
            "Conv" => self.conv(node)?,
            "BatchNormalization" => self.batch_norm(node)?,
            "Relu" => self.relu(node)?,
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(node)?,
            "AveragePool" | "MaxPool" => self.pool(node)?,
            "GlobalAveragePool" => self.global_pool(node)?,
            "ReduceMean" => {
                let axes = match self.constant(node, 1) {
                    Some(axes) => axes.i64s()?.to_vec(),
                    None => ints(node, "axes").unwrap_or_default().to_vec(),
                };
                ensure!(axes == [2, 3] || axes == [-2, -1] || axes == [-1, -2], "only means over rows and columns");
                let flat = int(node, "keepdims", 1) == 0;
                Value { flat, ..self.global_pool(node)? }
            }
            "Gemm" | "MatMul" => self.dense(node)?,
            "Flatten" | "Reshape" | "Squeeze" => self.flatten(node)?,
            // Softmax keeps the order of the logits, which is all that a classifier needs of it.
            "Identity" | "Dropout" | "Softmax" | "LogSoftmax" => self.value(node, 0)?,
            _ => bail!(
                "the int8 engine has no such operation; it takes Conv, BatchNormalization, Relu, Add, AveragePool, MaxPool, \
                 GlobalAveragePool, ReduceMean, Gemm, MatMul, Flatten, Reshape, and constants per channel"
            ),
        };
        let output = node.output.first().context("it has no output")?;
        self.values.insert(output.clone(), value);
        Ok(())
    }
}

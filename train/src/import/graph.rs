//! An ONNX graph from image to logits as the stages and numbers of a network.

use super::constants::{self, Constant, int, ints};
use super::view::View;
use super::{Normalisation, Range};
use anyhow::{Context, Result, bail, ensure};
use paradise_engine::Shape;
use paradise_engine::layer::Window;
use paradise_nn::graph::{Graph, Op, Stage};
use std::collections::{HashMap, HashSet};
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto, tensor_shape_proto::dimension, type_proto};

/// A tensor of the ONNX graph.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value {
    pub activation: usize,
    pub view: View,
}

/// What a file wants to be given, and where it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contract {
    /// `[n, h, w, c]` instead of `[n, c, h, w]`.
    pub nhwc: bool,
    /// Pixels in 0..=255 instead of [0, 1].
    pub bytes: bool,
    /// They are u8.
    pub integer: bool,
    /// Index of the output that is read.
    pub output: usize,
}

/// Stages and the numbers of each, the last stage giving the logits.
#[derive(Debug)]
pub(super) struct Read {
    pub graph: Graph,
    pub numbers: Vec<Vec<Vec<f32>>>,
    pub contract: Contract,
}

/// A graph being read.
pub(super) struct Reader {
    constants: HashMap<String, Constant>,
    /// How often each tensor is used by something that computes.
    uses: HashMap<String, usize>,
    /// The tensor that another name stands for.
    roots: HashMap<String, String>,
    values: HashMap<String, Value>,
    /// Probabilities: nothing may follow.
    ended: HashSet<String>,
    opset: i64,
    pub shapes: Vec<Shape>,
    pub read: Read,
}

/// The output of a classifier: `logits` where there is one, else the first of float32 that is more than one value, else the
/// first.
///
/// # Errors
/// If there is no output.
pub(super) fn answers(graph: &GraphProto) -> Result<(usize, &str)> {
    let many = |o: &ValueInfoProto| {
        let last = tensor(o).and_then(|t| t.shape.as_ref()).and_then(|s| s.dim.last());
        let single = matches!(last.and_then(|d| d.value.as_ref()), Some(dimension::Value::DimValue(1)));
        tensor(o).is_some_and(|t| t.elem_type == 1) && !single
    };
    let at = graph.output.iter().position(|o| o.name == "logits").or_else(|| graph.output.iter().position(many));
    let at = at.unwrap_or(0);
    Ok((at, &graph.output.get(at).context("the graph has no output")?.name))
}

fn tensor(value: &ValueInfoProto) -> Option<&type_proto::Tensor> {
    match value.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => Some(tensor),
        _ => None,
    }
}

/// Operations that give their first input another name or other extents and change no number.
const VIEWS: [&str; 8] = ["Identity", "Dropout", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose"];

/// Reads the way from the image to an output, whose images are first changed as `normalisation` says.
///
/// # Errors
/// With every node that is not understood and why.
pub(super) fn read(model: &ModelProto, (at, output): (usize, &str), normalisation: &Normalisation) -> Result<Read> {
    let graph = model.graph.as_ref().context("the file holds no graph")?;
    let (constants, unread) = constants::all(graph);
    let inputs = graph.input.iter().filter(|i| !constants.contains_key(&i.name) && !unread.contains_key(&i.name));
    let mut inputs = inputs.filter(|i| !graph.initializer.iter().any(|t| t.name == i.name));
    let image = inputs.next().context("the graph has no input")?;
    if let Some(other) = inputs.next() {
        bail!("the graph has inputs {:?} and {:?}; a classifier has one, the image", image.name, other.name);
    }
    let nodes = needed(graph, output);
    let (input, nhwc, integer) = image_shape(image, &nodes)?;
    let mut roots: HashMap<String, String> = HashMap::new();
    for node in &nodes {
        if let (true, Some(from), Some(to)) =
            (VIEWS.contains(&node.op_type.as_str()), node.input.first(), node.output.first())
        {
            let root = roots.get(from).unwrap_or(from).clone();
            roots.insert(to.clone(), root);
        }
    }
    let mut uses = HashMap::new();
    let computing = nodes.iter().filter(|n| !VIEWS.contains(&n.op_type.as_str()) && n.op_type != "Shape");
    for name in computing.flat_map(|n| &n.input).map(String::as_str).chain([output]) {
        let root = roots.get(name).map_or(name, String::as_str);
        *uses.entry(root.to_string()).or_insert(0) += 1;
    }
    let bytes = match normalisation.range {
        Range::Bytes => true,
        Range::Unit => false,
        Range::Auto => integer || takes_bytes(&nodes, &image.name, &constants),
    };
    let contract = Contract { nhwc, bytes, integer, output: at };
    let read = Read { graph: Graph { input, stages: Vec::new() }, numbers: Vec::new(), contract };
    let opset = model.opset_import.iter().find(|o| o.domain.is_empty() || o.domain == "ai.onnx");
    let opset = opset.map_or(1, |o| o.version);
    let (values, ended, shapes) = (HashMap::new(), HashSet::new(), vec![input]);
    let mut reader = Reader { constants, uses, roots, values, ended, opset, shapes, read };
    let first = reader.image(normalisation, if nhwc { View::Nhwc } else { View::Nchw })?;
    reader.values.insert(image.name.clone(), first);
    let (mut reasons, mut lost) = (Vec::new(), HashSet::new());
    for node in nodes {
        let known = KNOWN.contains(&node.op_type.as_str()) && matches!(node.domain.as_str(), "" | "ai.onnx");
        let outcome = if !known {
            Err(anyhow::anyhow!("the int8 engine has no such operation"))
        } else if let Some(why) = node.input.iter().find_map(|name| unread.get(name)) {
            Err(anyhow::anyhow!("{why}"))
        } else if node.input.iter().any(|name| lost.contains(name)) {
            // What it reads is not understood, which was said.
            lost.extend(node.output.iter().cloned());
            continue;
        } else {
            reader.node(node)
        };
        if let Err(why) = outcome {
            let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
            reasons.push(format!("node {:?} ({}): {why:#}", name.map_or("?", String::as_str), node.op_type));
            lost.extend(node.output.iter().cloned());
        }
    }
    ensure!(reasons.is_empty(), "{}\nwhat is taken: {}", reasons.join("\n"), KNOWN.join(", "));
    let last =
        reader.values.get(output).with_context(|| format!("output {output:?} is not computed from the image"))?;
    ensure!(
        last.activation > 0 && last.activation == reader.read.graph.stages.len(),
        "output {output:?} is not the last thing that is computed"
    );
    Ok(reader.read)
}

/// Operations that are understood, some of them only in some places or with some attributes.
const KNOWN: [&str; 29] = [
    "Conv",
    "BatchNormalization",
    "Relu",
    "Clip",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "AveragePool",
    "MaxPool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "ReduceMean",
    "Gemm",
    "MatMul",
    "Flatten",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Identity",
    "Dropout",
    "Cast",
    "Softmax",
    "LogSoftmax",
    "Shape",
    "Gather",
    "Concat",
    "Slice",
];

/// Whether the first arithmetic that meets the image only makes sense for pixels in 0..=255: a division by a large number,
/// a multiplication by a small one, a mean far above 1.
fn takes_bytes(nodes: &[&NodeProto], image: &str, constants: &HashMap<String, Constant>) -> bool {
    let mut names = HashSet::from([image.to_string()]);
    for node in nodes {
        if !node.input.iter().any(|i| names.contains(i)) {
            continue;
        }
        if VIEWS.contains(&node.op_type.as_str()) {
            names.extend(node.output.iter().cloned());
            continue;
        }
        let Some(Ok(values)) = node.input.get(1).and_then(|name| constants.get(name)).map(Constant::f32s) else {
            return false;
        };
        let all = |test: fn(f32) -> bool| !values.is_empty() && values.iter().all(|v| test(v.abs()));
        return match node.op_type.as_str() {
            "Div" => all(|v| v > 10.0),
            "Mul" => all(|v| v < 0.1),
            "Sub" | "Add" => values.iter().any(|v| v.abs() > 1.5 && v.abs() < 256.0),
            _ => false,
        };
    }
    false
}

/// Height, width and channels of an input `[n, c, h, w]` or `[n, h, w, c]`, whether it is the latter, and of u8.
fn image_shape(image: &ValueInfoProto, nodes: &[&NodeProto]) -> Result<(Shape, bool, bool)> {
    let tensor = tensor(image).with_context(|| format!("input {:?} is no tensor", image.name))?;
    ensure!(matches!(tensor.elem_type, 1 | 2), "input {:?} is neither of float32 nor of uint8", image.name);
    let dims = tensor.shape.as_ref().map_or(&[][..], |s| &s.dim);
    ensure!(dims.len() == 4, "input {:?} has {} axes; an image is [n, c, h, w]", image.name, dims.len());
    let size = |axis: usize| match dims[axis].value {
        Some(dimension::Value::DimValue(v)) => u16::try_from(v).ok().filter(|v| *v > 0),
        _ => None,
    };
    let colours = |axis: usize| matches!(size(axis), Some(1 | 3));
    let turned = nodes.iter().find(|n| n.input.contains(&image.name) && n.op_type != "Cast");
    let turned = turned.is_some_and(|n| ints(n, "perm") == Some(&[0, 3, 1, 2]));
    let nhwc = colours(3) && (!colours(1) || turned);
    let [c, h, w] = if nhwc { [3, 1, 2] } else { [1, 2, 3] }.map(size);
    let open = || format!("input {:?}: channels, rows and columns must be fixed and below 65536", image.name);
    let shape = Shape::new(h.with_context(open)?, w.with_context(open)?, c.with_context(open)?);
    ensure!(matches!(shape.c, 1 | 3), "input {:?} has {} channels; the engine takes 1 or 3", image.name, shape.c);
    Ok((shape, nhwc, tensor.elem_type == 2))
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

    /// The image as the graph wants it: pixels in [0, 1], less a mean and divided by a deviation, or in 0..=255. A layer of its
    /// own, so that a border of 0 behind it is what it was for the graph.
    fn image(&mut self, normalisation: &Normalisation, view: View) -> Result<Value> {
        let c = usize::from(self.read.graph.input.c);
        let Normalisation { mean, std, .. } = normalisation;
        let image = Value { activation: 0, view };
        let given = !(mean.is_empty() && std.is_empty());
        if !given {
            return match self.read.contract.bytes {
                true => self.map(image, vec![255.0; c], vec![0.0; c]),
                false => Ok(image),
            };
        }
        ensure!(!self.read.contract.bytes, "a mean and a deviation are for a network that takes pixels in [0, 1]");
        let or = |given: &[f32], otherwise: f32| if given.is_empty() { vec![otherwise; c] } else { given.to_vec() };
        let (mean, std) = (or(mean, 0.0), or(std, 1.0));
        ensure!(
            mean.len() == c && std.len() == c,
            "{} means and {} deviations for {c} channels",
            mean.len(),
            std.len()
        );
        ensure!(std.iter().all(|s| *s > 0.0 && s.is_finite()), "a deviation is not above 0");
        let add = mean.iter().zip(&std).map(|(m, s)| -m / s).collect();
        self.map(image, std.iter().map(|s| 1.0 / s).collect(), add)
    }

    /// Whether nothing but the node that is being read uses the tensor of this name, under whatever name.
    pub fn is_alone(&self, name: &str) -> bool {
        self.uses.get(self.roots.get(name).map_or(name, String::as_str)) == Some(&1)
    }

    /// The version of ONNX's operations.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    fn node(&mut self, node: &NodeProto) -> Result<()> {
        let output = node.output.first().context("it has no output")?.clone();
        let inputs: Option<Vec<&Constant>> =
            node.input.iter().filter(|n| !n.is_empty()).map(|n| self.constants.get(n)).collect();
        if let Some(folded) = inputs.filter(|i| !i.is_empty()).and_then(|inputs| constants::folded(node, &inputs)) {
            self.constants.insert(output, folded?);
            return Ok(());
        }
        let ended = node.input.iter().any(|name| self.ended.contains(name));
        ensure!(
            !ended || matches!(node.op_type.as_str(), "Identity" | "Dropout"),
            "it follows a Softmax, which is understood at the end alone"
        );
        let value = match node.op_type.as_str() {
            "Conv" => self.conv(node)?,
            "BatchNormalization" => self.batch_norm(node)?,
            "Relu" => self.relu(node)?,
            "Clip" => self.clip(node)?,
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(node)?,
            "AveragePool" | "MaxPool" => self.pool(node)?,
            "GlobalAveragePool" | "GlobalMaxPool" => self.global_pool(node)?,
            "ReduceMean" => self.mean(node)?,
            "Gemm" | "MatMul" => self.dense(node)?,
            "Flatten" | "Reshape" | "Squeeze" | "Transpose" => self.view(node)?,
            "Shape" => {
                let extents = self.extents(self.value(node, 0)?);
                ensure!(node.attribute.is_empty(), "a part of an activation's extents");
                self.constants.insert(output, Constant::list(extents));
                return Ok(());
            }
            "Identity" => self.value(node, 0)?,
            "Dropout" => {
                let training = self.constant(node, 2).is_some();
                ensure!(!training && int(node, "is_test", 1) == 1, "it is in training mode");
                self.value(node, 0)?
            }
            "Cast" => {
                ensure!(int(node, "to", 1) == 1, "activations are cast to element type {}", int(node, "to", 1));
                self.value(node, 0)?
            }
            "Softmax" | "LogSoftmax" => self.softmax(node)?,
            _ => bail!("it is understood of constants and extents alone, not of activations"),
        };
        if ended || node.op_type.ends_with("Softmax") {
            self.ended.insert(output.clone());
        }
        self.values.insert(output, value);
        Ok(())
    }
}

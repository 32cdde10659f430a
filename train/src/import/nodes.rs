//! Each kind of ONNX node as stages.

use super::constants::{self, float, int, ints};
use super::graph::{Reader, Value};
use crate::graph::Op;
use anyhow::{Context, Result, bail, ensure};
use paradise_engine::Shape;
use paradise_engine::layer::Window;
use tract_onnx::pb::NodeProto;

/// `[out][in][kh][kw]` as `[out][kh][kw][in]`.
fn to_nhwc(weights: &[f32], [out, depth, kh, kw]: [usize; 4]) -> Vec<f32> {
    let mut all = Vec::with_capacity(weights.len());
    for o in 0..out {
        for tap in 0..kh * kw {
            all.extend((0..depth).map(|i| weights[(o * depth + i) * kh * kw + tap]));
        }
    }
    all
}

impl Reader {
    /// Kernel, stride and border of a sliding window.
    fn window(&self, node: &NodeProto, x: Shape, kernel: [usize; 2]) -> Result<Window> {
        let pair = |name: &str| -> Result<[usize; 2]> {
            match ints(node, name) {
                None => Ok([1, 1]),
                Some([a, b]) => Ok([usize::try_from(*a)?, usize::try_from(*b)?]),
                Some(other) => bail!("{name} = {other:?} is not for two axes"),
            }
        };
        ensure!(pair("dilations")? == [1, 1], "dilated windows have no int8 kernel");
        ensure!(int(node, "ceil_mode", 0) == 0, "ceil_mode is not supported");
        let stride = pair("strides")?;
        let automatic = constants::attribute(node, "auto_pad").map(|a| String::from_utf8_lossy(&a.s).into_owned());
        let pad = match automatic.as_deref() {
            None | Some("NOTSET" | "") => match ints(node, "pads") {
                None => [0; 4],
                Some([a, b, c, d]) => [*a, *b, *c, *d].map(|p| usize::try_from(p).unwrap_or(usize::MAX)),
                Some(other) => bail!("pads = {other:?} are not of two axes"),
            },
            Some("VALID") => [0; 4],
            Some(same @ ("SAME_UPPER" | "SAME_LOWER")) => {
                let size = [x.h, x.w].map(usize::from);
                let total = |a: usize| {
                    ((size[a].div_ceil(stride[a].max(1)) - 1) * stride[a] + kernel[a]).saturating_sub(size[a])
                };
                let before = |a: usize| if same == "SAME_LOWER" { total(a).div_ceil(2) } else { total(a) / 2 };
                [before(0), before(1), total(0) - before(0), total(1) - before(1)]
            }
            Some(other) => bail!("auto_pad = {other:?} is unknown"),
        };
        let small = |v: usize| u16::try_from(v).context("an extent of the window is above 65535");
        Ok(Window {
            kernel: [small(kernel[0])?, small(kernel[1])?],
            stride: [small(stride[0])?, small(stride[1])?],
            pad: [small(pad[0])?, small(pad[1])?, small(pad[2])?, small(pad[3])?],
        })
    }

    pub fn conv(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.value(node, 0)?;
        let weight = self.constant(node, 1).context("its weights are not constant")?;
        let [out, depth, kh, kw] = weight.dims[..] else { bail!("its weights have {} axes", weight.dims.len()) };
        let weights = to_nhwc(weight.f32s()?, [out, depth, kh, kw]);
        let bias = match node.input.get(2).filter(|name| !name.is_empty()) {
            Some(_) => self.constant(node, 2).context("its bias is not constant")?.per_channel(out)?,
            None => vec![0.0; out],
        };
        let shape = self.shapes[x.activation];
        let groups = usize::try_from(int(node, "group", 1))?;
        ensure!(groups > 0 && depth * groups == usize::from(shape.c), "weights for {} channels", depth * groups);
        let window = self.window(node, shape, [kh, kw])?;
        let op = Op::Conv { window, groups, out, bias: true, relu: false, residual: None };
        let activation = self.push(x.activation, op, vec![weights, bias])?;
        Ok(Value { activation, flat: false })
    }

    /// A per-channel map of a value.
    fn map(&mut self, x: Value, mul: Vec<f32>, add: Vec<f32>) -> Result<Value> {
        let from = if self.read.graph.is_map(x.activation) { self.stored(x, false)? } else { x.activation };
        let activation = self.push(from, Op::Affine { relu: false }, vec![mul, add])?;
        Ok(Value { activation, ..x })
    }

    pub fn batch_norm(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.value(node, 0)?;
        let c = usize::from(self.shapes[x.activation].c);
        let constant = |k| self.constant(node, k).context("its numbers are not constant")?.per_channel(c);
        let [scale, shift, mean, variance] = [constant(1)?, constant(2)?, constant(3)?, constant(4)?];
        let eps = f64::from(float(node, "epsilon", 1e-5));
        let mul: Vec<f64> =
            scale.iter().zip(&variance).map(|(s, v)| f64::from(*s) / (f64::from(*v).max(0.0) + eps).sqrt()).collect();
        let add = (0..c).map(|i| (f64::from(shift[i]) - mul[i] * f64::from(mean[i])) as f32).collect();
        self.map(x, mul.iter().map(|m| *m as f32).collect(), add)
    }

    pub fn relu(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.value(node, 0)?;
        let alone = node.input.first().and_then(|name| self.uses.get(name)) == Some(&1);
        if let (true, Some(last)) =
            (alone && x.activation == self.read.graph.stages.len(), self.read.graph.stages.last_mut())
        {
            match &mut last.op {
                Op::Conv { relu, .. } | Op::Affine { relu } | Op::Add { relu, .. } | Op::Dense { relu, .. } => {
                    *relu = true;
                    return Ok(x);
                }
                _ => {}
            }
        }
        Ok(Value { activation: self.stored(x, true)?, ..x })
    }

    pub fn arithmetic(&mut self, node: &NodeProto) -> Result<Value> {
        let (left, right) = (self.constant(node, 0).cloned(), self.constant(node, 1).cloned());
        let (x, constant, swapped) = match (left, right) {
            (None, None) => return self.add(node),
            (None, Some(constant)) => (self.value(node, 0)?, constant, false),
            (Some(constant), None) => (self.value(node, 1)?, constant, true),
            (Some(_), Some(_)) => bail!("both operands are constant; simplify the model first"),
        };
        let c = usize::from(self.shapes[x.activation].c);
        let own = constant.per_channel(c)?;
        let (mul, add) = match (node.op_type.as_str(), swapped) {
            ("Add", _) => (vec![1.0; c], own),
            ("Sub", false) => (vec![1.0; c], own.iter().map(|v| -v).collect()),
            ("Sub", true) => (vec![-1.0; c], own),
            ("Mul", _) => (own, vec![0.0; c]),
            ("Div", false) => (own.iter().map(|v| 1.0 / v).collect(), vec![0.0; c]),
            _ => bail!("a constant divided by an activation"),
        };
        ensure!(mul.iter().all(|m| m.is_finite()), "a division by 0");
        let name = if swapped { &node.input[1] } else { &node.input[0] };
        let alone = self.uses.get(name) == Some(&1) && x.activation == self.read.graph.stages.len();
        // MatMul and its bias; and a scale and shift that come one after the other.
        if let (true, Some(last)) = (alone, self.read.graph.stages.last())
            && matches!(last.op, Op::Dense { relu: false, .. } | Op::Affine { relu: false })
        {
            let at = self.read.numbers.len() - 1;
            let numbers = &mut self.read.numbers[at];
            let width = numbers[0].len() / c;
            for (o, row) in numbers[0].chunks_exact_mut(width).enumerate() {
                row.iter_mut().for_each(|w| *w *= mul[o]);
            }
            numbers[1].iter_mut().enumerate().for_each(|(o, b)| *b = *b * mul[o] + add[o]);
            return Ok(x);
        }
        self.map(x, mul, add)
    }

    fn add(&mut self, node: &NodeProto) -> Result<Value> {
        ensure!(node.op_type == "Add", "of two activations only Add has an int8 kernel");
        let (a, b) = (self.value(node, 0)?, self.value(node, 1)?);
        ensure!(self.shapes[a.activation] == self.shapes[b.activation], "its operands' extents differ");
        let (x, other) = (self.stored(a, false)?, self.stored(b, false)?);
        let activation = self.push(x, Op::Add { other, relu: false }, vec![])?;
        Ok(Value { activation, flat: a.flat })
    }

    pub fn pool(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.value(node, 0)?;
        let kernel = match ints(node, "kernel_shape") {
            Some([h, w]) => [usize::try_from(*h)?, usize::try_from(*w)?],
            other => bail!("kernel_shape = {other:?} is not of two axes"),
        };
        let window = self.window(node, self.shapes[x.activation], kernel)?;
        let op = if node.op_type == "MaxPool" {
            Op::MaxPool { window }
        } else {
            let counted = int(node, "count_include_pad", 0) == 1;
            ensure!(counted || window.pad == [0; 4], "its mean leaves the border out (count_include_pad = 0)");
            Op::AvgPool { window }
        };
        Ok(Value { activation: self.push(x.activation, op, vec![])?, flat: false })
    }

    pub fn global_pool(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.value(node, 0)?;
        let shape = self.shapes[x.activation];
        let window = Window { kernel: [shape.h, shape.w], stride: [1, 1], pad: [0; 4] };
        Ok(Value { activation: self.push(x.activation, Op::AvgPool { window }, vec![])?, flat: false })
    }

    pub fn dense(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.value(node, 0)?;
        let shape = self.shapes[x.activation];
        let [h, w, c] = [shape.h, shape.w, shape.c].map(usize::from);
        ensure!(x.flat || h * w == 1, "its input is not flattened");
        ensure!(int(node, "transA", 0) == 0, "transA = 1");
        let weight = self.constant(node, 1).context("its weights are not constant")?;
        let [rows, columns] = weight.dims[..] else { bail!("its weights have {} axes", weight.dims.len()) };
        let transposed = node.op_type == "Gemm" && int(node, "transB", 0) == 1;
        let (out, inputs) = if transposed { (rows, columns) } else { (columns, rows) };
        ensure!(inputs == h * w * c, "weights for {inputs} inputs, there are {}", h * w * c);
        let (alpha, values) = (float(node, "alpha", 1.0), weight.f32s()?);
        let mut weights = Vec::with_capacity(values.len());
        for o in 0..out {
            // Inputs are flattened as [c][h][w]; activations are [h][w][c].
            for pixel in 0..h * w {
                for channel in 0..c {
                    let i = channel * h * w + pixel;
                    weights.push(alpha * if transposed { values[o * inputs + i] } else { values[i * out + o] });
                }
            }
        }
        let bias = match (node.op_type.as_str(), node.input.get(2).filter(|n| !n.is_empty())) {
            ("Gemm", Some(_)) => {
                let beta = float(node, "beta", 1.0);
                let own = self.constant(node, 2).context("its bias is not constant")?.per_channel(out)?;
                own.iter().map(|b| beta * b).collect()
            }
            _ => vec![0.0; out],
        };
        let activation = self.push(x.activation, Op::Dense { out, relu: false }, vec![weights, bias])?;
        Ok(Value { activation, flat: true })
    }

    pub fn flatten(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.value(node, 0)?;
        let shape = self.shapes[x.activation];
        let single = shape.h == 1 && shape.w == 1;
        match node.op_type.as_str() {
            "Flatten" => ensure!(int(node, "axis", 1) == 1, "axis is not 1"),
            "Squeeze" => ensure!(single, "it takes axes away that are not 1"),
            _ => {
                let to = self.constant(node, 1).context("its shape is not constant")?.i64s()?;
                let all = shape.len() as i64;
                let flattens = matches!(to, [-1..=1, n] if *n == all || *n == -1);
                let keeps = single && matches!(to, [-1..=1, n, 1, 1] if *n == all || *n == -1);
                ensure!(flattens || keeps, "it gives extents {to:?}; only flattening is supported");
                return Ok(Value { flat: flattens, ..x });
            }
        }
        Ok(Value { flat: true, ..x })
    }
}

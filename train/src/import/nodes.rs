//! Each kind of ONNX node as stages.

use super::constants::{self, float, int, ints};
use super::graph::{Reader, Value};
use super::view::View;
use anyhow::{Context, Result, bail, ensure};
use paradise_engine::Shape;
use paradise_engine::layer::Window;
use paradise_nn::graph::Op;
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
        let pad = if int(node, "ceil_mode", 0) == 1 {
            ensure!(node.op_type == "MaxPool", "a mean over windows that reach past the border (ceil_mode)");
            let size = [x.h, x.w].map(usize::from);
            let end = |a: usize| {
                let room = (size[a] + pad[a] + pad[a + 2]).saturating_sub(kernel[a]);
                let mut steps = room.div_ceil(stride[a].max(1));
                // A window that begins behind the image and its first border does not count.
                if steps * stride[a] >= size[a] + pad[a] {
                    steps = steps.saturating_sub(1);
                }
                (steps * stride[a] + kernel[a]).saturating_sub(size[a] + pad[a])
            };
            [pad[0], pad[1], end(0), end(1)]
        } else {
            pad
        };
        let small = |v: usize| u16::try_from(v).context("an extent of the window is above 65535");
        Ok(Window {
            kernel: [small(kernel[0])?, small(kernel[1])?],
            stride: [small(stride[0])?, small(stride[1])?],
            pad: [small(pad[0])?, small(pad[1])?, small(pad[2])?, small(pad[3])?],
        })
    }

    pub fn conv(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.planes(node)?;
        let weight = self.constant(node, 1).context("its weights are not constant")?;
        let [out, depth, kh, kw] = weight.dims[..] else { bail!("its weights have {} axes", weight.dims.len()) };
        let weights = to_nhwc(weight.f32s()?, [out, depth, kh, kw]);
        let bias = match node.input.get(2).filter(|name| !name.is_empty()) {
            Some(_) => self.constant(node, 2).context("its bias is not constant")?.vector(out)?,
            None => vec![0.0; out],
        };
        let shape = self.shapes[x.activation];
        let groups = usize::try_from(int(node, "group", 1))?;
        ensure!(groups > 0 && depth * groups == usize::from(shape.c), "weights for {} channels", depth * groups);
        let window = self.window(node, shape, [kh, kw])?;
        let op = Op::Conv { window, groups, out, bias: true, relu: false, residual: None };
        let activation = self.push(x.activation, op, vec![weights, bias])?;
        Ok(Value { activation, ..x })
    }

    /// The first input, which must be seen as `[n, c, h, w]`.
    fn planes(&self, node: &NodeProto) -> Result<Value> {
        let x = self.value(node, 0)?;
        ensure!(x.view == View::Nchw, "its input is not [n, c, h, w]");
        Ok(x)
    }

    /// Extents as the graph sees them, of one image.
    pub fn extents(&self, x: Value) -> Vec<i64> {
        let shape = self.shapes[x.activation];
        let [h, w, c] = [shape.h, shape.w, shape.c].map(i64::from);
        match x.view {
            View::Nchw => vec![1, c, h, w],
            View::Nhwc => vec![1, h, w, c],
            View::Flat | View::FlatNhwc => vec![1, h * w * c],
        }
    }

    /// A per-channel map of a value.
    pub fn map(&mut self, x: Value, mul: Vec<f32>, add: Vec<f32>) -> Result<Value> {
        let from = if self.read.graph.is_map(x.activation) { self.stored(x, false)? } else { x.activation };
        let activation = self.push(from, Op::Affine { relu: false }, vec![mul, add])?;
        Ok(Value { activation, ..x })
    }

    pub fn batch_norm(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.value(node, 0)?;
        let shape = self.shapes[x.activation];
        let channels = x.view == View::Nchw || matches!(x.view, View::Flat) && shape.h == 1 && shape.w == 1;
        ensure!(channels, "its input's second axis is not the channels");
        let training = match self.opset() {
            ..7 => int(node, "is_test", 0) == 0,
            7..14 => node.output.iter().filter(|o| !o.is_empty()).count() > 1,
            _ => int(node, "training_mode", 0) == 1,
        };
        ensure!(
            !training,
            "it is in training mode: its mean and variance are the batch's; export in evaluation mode"
        );
        ensure!(int(node, "spatial", 1) == 1, "it normalises every pixel on its own (spatial = 0)");
        let c = usize::from(shape.c);
        let constant = |k| self.constant(node, k).context("its numbers are not constant")?.vector(c);
        let [scale, shift, mean, variance] = [constant(1)?, constant(2)?, constant(3)?, constant(4)?];
        let eps = f64::from(float(node, "epsilon", 1e-5));
        let mul: Vec<f64> =
            scale.iter().zip(&variance).map(|(s, v)| f64::from(*s) / (f64::from(*v).max(0.0) + eps).sqrt()).collect();
        let add = (0..c).map(|i| (f64::from(shift[i]) - mul[i] * f64::from(mean[i])) as f32).collect();
        self.map(x, mul.iter().map(|m| *m as f32).collect(), add)
    }

    pub fn relu(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.value(node, 0)?;
        let alone = node.input.first().is_some_and(|name| self.is_alone(name));
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

    /// A clip at 0 alone, which is a ReLU.
    pub fn clip(&mut self, node: &NodeProto) -> Result<Value> {
        let bound = |k: usize, name: &str| -> Result<Option<f32>> {
            match node.input.get(k).filter(|n| !n.is_empty()) {
                Some(_) => match self.constant(node, k).context("its bounds are not constant")?.f32s()? {
                    [one] => Ok(Some(*one)),
                    other => bail!("{} bounds", other.len()),
                },
                None => Ok(constants::attribute(node, name).map(|a| a.f)),
            }
        };
        let (low, high) = (bound(1, "min")?, bound(2, "max")?);
        let open = high.is_none_or(|h| h >= f32::MAX);
        let told = |v: Option<f32>| v.map_or_else(|| "no bound".to_string(), |v| v.to_string());
        ensure!(
            low == Some(0.0) && open,
            "a clip from {} to {}; only one at 0 alone has an int8 operation",
            told(low),
            told(high)
        );
        self.relu(node)
    }

    /// Probabilities of logits, at the end: they keep the logits' order, and an engine's own are the same.
    pub fn softmax(&self, node: &NodeProto) -> Result<Value> {
        let x = self.value(node, 0)?;
        let shape = self.shapes[x.activation];
        ensure!(shape.h == 1 && shape.w == 1, "it is not over one value a class");
        let usual = if self.opset() >= 13 { -1 } else { 1 };
        let rank = self.extents(x).len() as i64;
        let axis = int(node, "axis", usual);
        let axis = if axis < 0 { axis + rank } else { axis };
        let classes = if x.view == View::Nhwc { rank - 1 } else { 1 };
        // Before version 13 all axes from this one on were taken together.
        let classes = axis == classes || self.opset() < 13 && (1..=classes).contains(&axis);
        ensure!(classes, "it is over axis {axis}, not the classes");
        Ok(x)
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
        let shape = self.shapes[x.activation];
        let single = shape.h == 1 && shape.w == 1;
        ensure!(
            single || constant.f32s()?.len() == 1 || matches!(x.view, View::Nchw | View::Nhwc),
            "a constant for each value of a flattened map"
        );
        let own = constant.per_channel(c, x.view)?;
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
        let alone = self.is_alone(name) && x.activation == self.read.graph.stages.len();
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
        ensure!(
            self.shapes[a.activation] == self.shapes[b.activation] && a.view == b.view,
            "its operands' extents differ"
        );
        let (x, other) = (self.stored(a, false)?, self.stored(b, false)?);
        let activation = self.push(x, Op::Add { other, relu: false }, vec![])?;
        Ok(Value { activation, ..a })
    }

    pub fn pool(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.planes(node)?;
        ensure!(node.output.iter().filter(|o| !o.is_empty()).count() == 1, "the places of its maxima are asked for");
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
        Ok(Value { activation: self.push(x.activation, op, vec![])?, ..x })
    }

    pub fn global_pool(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.planes(node)?;
        self.over_all(x, node.op_type == "GlobalMaxPool")
    }

    /// One value a channel, over all rows and columns.
    fn over_all(&mut self, x: Value, largest: bool) -> Result<Value> {
        let shape = self.shapes[x.activation];
        let window = Window { kernel: [shape.h, shape.w], stride: [1, 1], pad: [0; 4] };
        let op = if largest { Op::MaxPool { window } } else { Op::AvgPool { window } };
        Ok(Value { activation: self.push(x.activation, op, vec![])?, ..x })
    }

    /// A mean over rows and columns.
    pub fn mean(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.value(node, 0)?;
        let mut axes = match self.constant(node, 1) {
            Some(axes) => axes.i64s()?.to_vec(),
            None => ints(node, "axes").unwrap_or_default().to_vec(),
        };
        axes.iter_mut().filter(|a| **a < 0).for_each(|a| *a += 4);
        axes.sort_unstable();
        let whole = match x.view {
            View::Nchw => axes == [2, 3],
            View::Nhwc => axes == [1, 2],
            View::Flat | View::FlatNhwc => false,
        };
        ensure!(whole, "only means over rows and columns");
        let view = if int(node, "keepdims", 1) == 0 { View::Flat } else { x.view };
        Ok(Value { view, ..self.over_all(x, false)? })
    }

    pub fn dense(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.value(node, 0)?;
        let shape = self.shapes[x.activation];
        let [h, w, c] = [shape.h, shape.w, shape.c].map(usize::from);
        let flat = matches!(x.view, View::Flat | View::FlatNhwc);
        // A matrix multiplies the last axis, whatever stands before it.
        let last = node.op_type == "MatMul" && x.view == View::Nhwc && h * w == 1;
        ensure!(flat || last, "its input is not flattened");
        ensure!(int(node, "transA", 0) == 0, "transA = 1");
        let weight = self.constant(node, 1).context("its weights are not constant")?;
        let [rows, columns] = weight.dims[..] else { bail!("its weights have {} axes", weight.dims.len()) };
        let by_pixel = x.view == View::FlatNhwc;
        let transposed = node.op_type == "Gemm" && int(node, "transB", 0) == 1;
        let (out, inputs) = if transposed { (rows, columns) } else { (columns, rows) };
        ensure!(inputs == h * w * c, "weights for {inputs} inputs, there are {}", h * w * c);
        let (alpha, values) = (float(node, "alpha", 1.0), weight.f32s()?);
        let mut weights = Vec::with_capacity(values.len());
        for o in 0..out {
            // Inputs are flattened as [c][h][w], or as activations are: [h][w][c].
            for pixel in 0..h * w {
                for channel in 0..c {
                    let i = if by_pixel { pixel * c + channel } else { channel * h * w + pixel };
                    weights.push(alpha * if transposed { values[o * inputs + i] } else { values[i * out + o] });
                }
            }
        }
        let bias = match (node.op_type.as_str(), node.input.get(2).filter(|n| !n.is_empty())) {
            ("Gemm", Some(_)) => {
                let beta = float(node, "beta", 1.0);
                let own = self.constant(node, 2).context("its bias is not constant")?.vector(out)?;
                own.iter().map(|b| beta * b).collect()
            }
            _ => vec![0.0; out],
        };
        let activation = self.push(x.activation, Op::Dense { out, relu: false }, vec![weights, bias])?;
        Ok(Value { activation, view: if last { View::Nhwc } else { View::Flat } })
    }

    /// The same numbers under other extents.
    pub fn view(&mut self, node: &NodeProto) -> Result<Value> {
        let x = self.value(node, 0)?;
        let shape = self.shapes[x.activation];
        let single = shape.h == 1 && shape.w == 1;
        let flattened = match x.view {
            View::Nchw | View::Flat => View::Flat,
            // One pixel is in both orders.
            View::Nhwc | View::FlatNhwc if single => View::Flat,
            View::Nhwc | View::FlatNhwc => View::FlatNhwc,
        };
        let rank = self.extents(x).len() as i64;
        let view = match node.op_type.as_str() {
            "Flatten" => {
                let axis = int(node, "axis", 1);
                ensure!(axis == 1 || axis + rank == 1, "axis is {axis}, not 1");
                flattened
            }
            "Transpose" => match (x.view, ints(node, "perm")) {
                (view, Some([0, 1] | [0, 1, 2, 3])) => view,
                (View::Nchw, Some([0, 2, 3, 1])) => View::Nhwc,
                (View::Nhwc, Some([0, 3, 1, 2])) => View::Nchw,
                (_, perm) => bail!("perm = {perm:?} neither makes channels the last axis nor the second"),
            },
            "Squeeze" => {
                let mut axes = match self.constant(node, 1) {
                    Some(axes) => axes.i64s()?.to_vec(),
                    None => ints(node, "axes").unwrap_or_default().to_vec(),
                };
                axes.iter_mut().filter(|a| **a < 0).for_each(|a| *a += rank);
                axes.sort_unstable();
                let own = if x.view == View::Nhwc { [1, 2] } else { [2, 3] };
                ensure!(single && rank == 4 && axes == own, "it takes away axes {axes:?}");
                View::Flat
            }
            _ => {
                let to = self.constant(node, 1).context("its shape is not constant")?.i64s()?;
                ensure!(int(node, "allowzero", 0) == 0 || !to.contains(&0), "an extent of 0");
                let all = shape.len() as i64;
                let flattens = matches!(to, [-1..=1, n] if *n == all || *n == -1) && to != [-1, -1];
                let keeps = single && matches!(to, [-1..=1, n, 1, 1] if *n == all || *n == -1);
                let channels_last = single && matches!(to, [-1..=1, 1, 1, n] if *n == all || *n == -1);
                match (flattens, keeps, channels_last) {
                    (true, ..) => flattened,
                    (_, true, _) => View::Nchw,
                    (.., true) => View::Nhwc,
                    _ if *to == self.extents(x)[..] => x.view,
                    _ => bail!("it gives extents {to:?}; only flattening is supported"),
                }
            }
        };
        Ok(Value { view, ..x })
    }
}

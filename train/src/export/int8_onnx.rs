//! `encoder.int8.onnx`: the mirror of `model.pmq` in standard operators, the very same integers.
//!
//! Run with graph optimisations off, ONNX Runtime gives the engine's bits tensor by tensor: activation i of the model
//! is the tensor `a<i>`. Scales of activations are 1 here and each stored requantisation scale stands as the
//! weight's scale, so that `(1 * s) / 1` is exactly the stored f32.

use super::onnx::{Builder, Element, int, to_nchw, window};
use anyhow::Result;
use paradise_engine::layer::{Activation, Layer, Op, Window};
use paradise_engine::tensor::Span;
use paradise_engine::{Model, Shape};

/// The bytes of `encoder.int8.onnx`.
///
/// # Errors
/// Never for a valid model; the signature leaves room.
pub fn encode(model: &Model) -> Result<Vec<u8>> {
    let header = model.header();
    let mut mirror = Mirror { model, graph: Builder::default() };
    let input = header.input;
    mirror.graph.input("image", Element::F32, &[input.c, input.h, input.w].map(usize::from));
    let image = mirror.graph.f32s(&[], &[1.0 / 255.0]);
    let zero = mirror.graph.i8s(&[], &[-128]);
    mirror.graph.named("QuantizeLinear", &["image", &image, &zero], vec![], "a0");
    for (i, layer) in header.layers.iter().enumerate() {
        mirror.layer(i, &layer);
    }
    mirror.heads();
    Ok(mirror.graph.encode("paradise int8 encoder"))
}

struct Mirror<'a, 'm> {
    model: &'a Model<'m>,
    graph: Builder,
}

impl Mirror<'_, '_> {
    fn activation(&self, i: usize) -> Activation {
        self.model.header().activations.at(i)
    }

    fn layer(&mut self, i: usize, layer: &Layer) {
        let inputs = layer.inputs.map(|a| format!("a{a}"));
        let x = self.activation(layer.inputs[0] as usize);
        let b = self.activation(layer.inputs[1] as usize);
        let y = self.activation(i + 1);
        let output = format!("a{}", i + 1);
        match layer.op {
            Op::Conv { window: sliding, groups, weight, bias, scale, relu } => {
                let rows = (self.model.i8s(weight).to_vec(), self.folded(weight, bias, x.zero_point), scale);
                let depth = x.shape.c / groups;
                self.conv(
                    &inputs[0],
                    x,
                    &sliding,
                    groups,
                    depth,
                    &rows.0,
                    &rows.1,
                    &self.scales(scale),
                    relu,
                    y,
                    &output,
                );
            }
            Op::Dense { weight, bias, scale, relu } => {
                let whole = Window { kernel: [x.shape.h, x.shape.w], stride: [1, 1], pad: [0; 4] };
                let weights = self.model.i8s(weight).to_vec();
                let bias = self.folded(weight, bias, x.zero_point);
                self.conv(
                    &inputs[0],
                    x,
                    &whole,
                    1,
                    x.shape.c,
                    &weights,
                    &bias,
                    &self.scales(scale),
                    relu,
                    y,
                    &output,
                );
            }
            Op::Affine { mul, add, relu } => {
                let real = self.dequantise(&inputs[0], 1.0, x.zero_point);
                let dims = [x.shape.c as usize, 1, 1];
                let (mul, add) = (self.scales(mul), self.scales(add));
                let (mul, add) = (self.graph.f32s(&dims, &mul), self.graph.f32s(&dims, &add));
                let scaled = self.graph.node("Mul", &[&real, &mul], vec![]);
                let sum = self.graph.node("Add", &[&scaled, &add], vec![]);
                self.quantise(&sum, relu, y.zero_point, &output);
            }
            Op::Add { ratio, relu } => {
                let left = self.dequantise(&inputs[0], ratio[0], x.zero_point);
                let right = self.dequantise(&inputs[1], ratio[1], b.zero_point);
                let sum = self.graph.node("Add", &[&left, &right], vec![]);
                self.quantise(&sum, relu, y.zero_point, &output);
            }
            Op::AvgPool { window: sliding, scale } => {
                // A depthwise convolution with ones: the exact sum, one multiplication.
                let c = x.shape.c;
                let taps = c as usize * sliding.kernel.map(usize::from).iter().product::<usize>();
                let (ones, none) = (vec![1i8; taps], vec![0i32; c as usize]);
                let scales = vec![scale; c as usize];
                self.conv(&inputs[0], x, &sliding, c, 1, &ones, &none, &scales, false, y, &output);
            }
            Op::MaxPool { window: sliding } => {
                self.graph.named("MaxPool", &[&inputs[0]], window(&sliding), &output);
            }
        }
    }

    fn scales(&self, span: Span) -> Vec<f32> {
        self.model.f32s(span).iter().collect()
    }

    /// The bias before the input's zero point was folded in: ONNX subtracts the zero point itself.
    fn folded(&self, weight: Span, bias: Span, zero: i8) -> Vec<i32> {
        let bias = self.model.i32s(bias);
        let weights = self.model.i8s(weight);
        let width = weights.len() / bias.len();
        let sums = weights.chunks_exact(width).map(|row| row.iter().map(|&w| i32::from(w)).sum::<i32>());
        bias.iter().zip(sums).map(|(b, sum)| b + i32::from(zero) * sum).collect()
    }

    #[allow(clippy::too_many_arguments)]
    fn conv(
        &mut self,
        x: &str,
        source: Activation,
        sliding: &Window,
        groups: u16,
        depth: u16,
        weights: &[i8],
        bias: &[i32],
        scales: &[f32],
        relu: bool,
        y: Activation,
        output: &str,
    ) {
        let out = bias.len();
        let [kh, kw] = sliding.kernel.map(usize::from);
        let depth = depth as usize;
        let g = &mut self.graph;
        let filter = g.i8s(&[out, depth, kh, kw], &to_nchw(weights, [out, kh, kw, depth]));
        let one = g.f32s(&[], &[1.0]);
        let x_zero = g.i8s(&[], &[source.zero_point]);
        let scale = g.f32s(&[out], scales);
        let w_zero = g.i8s(&[out], &vec![0; out]);
        let y_zero = g.i8s(&[], &[y.zero_point]);
        let bias = g.i32s(&[out], bias);
        let mut attributes = window(sliding);
        attributes.push(int("group", i64::from(groups)));
        let inputs = [x, &one, &x_zero, &filter, &scale, &w_zero, &one, &y_zero, &bias];
        if relu && y.zero_point != -128 {
            let raw = g.node("QLinearConv", &inputs, attributes);
            g.named("Clip", &[&raw, &y_zero], vec![], output);
        } else {
            g.named("QLinearConv", &inputs, attributes, output);
        }
    }

    fn dequantise(&mut self, x: &str, scale: f32, zero: i8) -> String {
        let (scale, zero) = (self.graph.f32s(&[], &[scale]), self.graph.i8s(&[], &[zero]));
        self.graph.node("DequantizeLinear", &[x, &scale, &zero], vec![])
    }

    fn quantise(&mut self, x: &str, relu: bool, zero: i8, output: &str) {
        let x = if relu { self.graph.node("Relu", &[x], vec![]) } else { x.to_string() };
        let (one, zero) = (self.graph.f32s(&[], &[1.0]), self.graph.i8s(&[], &[zero]));
        self.graph.named("QuantizeLinear", &[&x, &one, &zero], vec![], output);
    }

    /// Heads on the int8 features, then what both files share.
    fn heads(&mut self) {
        let header = self.model.header();
        let last = format!("a{}", header.layers.len());
        let Shape { c, .. } = self.model.features().shape;
        let (c, d) = (c as usize, header.latent as usize);
        self.graph.named("Flatten", &[&last], vec![int("axis", 1)], "features");
        self.graph.output("features", Element::I8, &[c]);
        for (head, name) in [(header.mu, "mu"), (header.sigma, "s")] {
            let rows = self.model.i8s(head.weight);
            let columns: Vec<i8> = (0..c * d).map(|at| rows[at % d * c + at / d]).collect();
            let bias: Vec<i32> = self.model.i32s(head.bias).iter().collect();
            let scale = self.scales(head.scale);
            let g = &mut self.graph;
            let (w, b, s) = (g.i8s(&[c, d], &columns), g.i32s(&[d], &bias), g.f32s(&[d], &scale));
            let product = g.node("MatMulInteger", &["features", &w], vec![]);
            let sum = g.node("Add", &[&product, &b], vec![]);
            let real = g.node("Cast", &[&sum], vec![int("to", Element::F32 as i64)]);
            g.named("Mul", &[&real, &s], vec![], name);
        }
        let (weight, bias) = (self.scales(header.classifier.weight), self.scales(header.classifier.bias));
        self.graph.tail(d, &weight, &bias);
    }
}

//! Writes ONNX graphs with tract's protobuf types: nodes, constants, inputs and outputs by name.

use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto::Dimension, tensor_shape_proto::dimension,
    type_proto,
};

/// Element types of the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Element {
    F32 = 1,
    I8 = 3,
    I32 = 6,
    I64 = 7,
}

/// A graph under construction. Names are unique because each is made from a counter or given once.
#[derive(Debug, Default)]
pub(super) struct Builder {
    graph: GraphProto,
    made: usize,
}

/// An attribute of a node.
pub(super) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Ints as i32,
        ints: values.to_vec(),
        ..Default::default()
    }
}

/// An attribute of a node.
pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i: value, ..Default::default() }
}

impl Builder {
    fn constant(&mut self, element: Element, dims: &[usize], raw_data: Vec<u8>) -> String {
        self.made += 1;
        let name = format!("c{}", self.made);
        self.graph.initializer.push(TensorProto {
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: element as i32,
            name: name.clone(),
            raw_data,
            ..Default::default()
        });
        name
    }

    /// A constant of f32.
    pub fn f32s(&mut self, dims: &[usize], values: &[f32]) -> String {
        self.constant(Element::F32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A constant of int8.
    pub fn i8s(&mut self, dims: &[usize], values: &[i8]) -> String {
        self.constant(Element::I8, dims, values.iter().map(|&v| v as u8).collect())
    }

    /// A constant of i32.
    pub fn i32s(&mut self, dims: &[usize], values: &[i32]) -> String {
        self.constant(Element::I32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A vector of i64, such as a shape.
    pub fn i64s(&mut self, values: &[i64]) -> String {
        self.constant(Element::I64, &[values.len()], values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A node with one output of the given name.
    pub fn named(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>, output: &str) -> String {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|i| i.to_string()).collect(),
            output: vec![output.into()],
            name: format!("{op}_{output}"),
            op_type: op.into(),
            attribute: attributes,
            ..Default::default()
        });
        output.into()
    }

    /// A node with one output.
    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        self.made += 1;
        let output = format!("t{}", self.made);
        self.named(op, inputs, attributes, &output)
    }

    fn value(name: &str, element: Element, dims: &[usize]) -> ValueInfoProto {
        // The first axis is the batch, of any size.
        let batch = dimension::Value::DimParam("N".into());
        let rest = dims.iter().map(|&d| dimension::Value::DimValue(d as i64));
        let dim =
            std::iter::once(batch).chain(rest).map(|v| Dimension { value: Some(v), ..Default::default() }).collect();
        let tensor = type_proto::Tensor { elem_type: element as i32, shape: Some(TensorShapeProto { dim }) };
        let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
        ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
    }

    /// Declares an input `[N, dims]`.
    pub fn input(&mut self, name: &str, element: Element, dims: &[usize]) {
        self.graph.input.push(Self::value(name, element, dims));
    }

    /// Declares an output `[N, dims]`.
    pub fn output(&mut self, name: &str, element: Element, dims: &[usize]) {
        self.graph.output.push(Self::value(name, element, dims));
    }

    /// The bytes of the model, opset 17.
    pub fn encode(mut self, name: &str) -> Vec<u8> {
        self.graph.name = name.into();
        ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
            producer_name: "paradise".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.graph),
            ..Default::default()
        }
        .encode_to_vec()
    }

    /// `sigma`, `log_sigma` from `s`, and `logits` from `mu`: what both files share after the heads.
    ///
    /// `weight` is `[classes][d]`.
    pub fn tail(&mut self, d: usize, weight: &[f32], bias: &[f32]) {
        self.named("Sigmoid", &["s"], vec![], "sigma");
        let negated = self.node("Neg", &["s"], vec![]);
        let softplus = self.node("Softplus", &[&negated], vec![]);
        self.named("Neg", &[&softplus], vec![], "log_sigma");
        let (w, b) = (self.f32s(&[bias.len(), d], weight), self.f32s(&[bias.len()], bias));
        self.named("Gemm", &["mu", &w, &b], vec![int("transB", 1)], "logits");
        self.output("logits", Element::F32, &[bias.len()]);
        for name in ["mu", "sigma", "log_sigma"] {
            self.output(name, Element::F32, &[d]);
        }
    }
}

/// `[out][h][w][c]` to `[out][c][h][w]`: filters or flattened-image columns on their way to ONNX's layout.
pub(super) fn to_nchw<T: Copy>(values: &[T], [out, h, w, c]: [usize; 4]) -> Vec<T> {
    let mut moved = Vec::with_capacity(values.len());
    for o in 0..out {
        for k in 0..c {
            moved.extend((0..h * w).map(|pixel| values[(o * h * w + pixel) * c + k]));
        }
    }
    moved
}

/// ONNX attributes of a sliding window.
pub(super) fn window(window: &paradise_engine::layer::Window) -> Vec<AttributeProto> {
    let wide = |v: &[u16]| v.iter().map(|&x| i64::from(x)).collect::<Vec<_>>();
    vec![
        ints("kernel_shape", &wide(&window.kernel)),
        ints("strides", &wide(&window.stride)),
        ints("pads", &wide(&window.pad)),
    ]
}

//! `encoder.onnx`: the float encoder. Input `image` NCHW f32 in [0, 1]; outputs `logits`, `mu`, `sigma`, `log_sigma`.

use super::onnx::{Builder, Element, int, to_nchw, window};
use crate::encoder::Heads;
use crate::encoder::{Bound, Encoder, values};
use anyhow::{Result, bail, ensure};
use paradise_engine::Shape;
use paradise_nn::graph::Op;

/// The bytes of `encoder.onnx` of a folded encoder.
///
/// # Errors
/// If the encoder's shapes are inconsistent, or it holds what is not served.
pub fn encode(encoder: &Encoder) -> Result<Vec<u8>> {
    let architecture = encoder.architecture;
    ensure!(architecture.bound == Bound::Sigmoid, "an encoder with tanh bounds is not served");
    let shapes = architecture.graph.shapes()?;
    let mut graph = Builder::default();
    let input = architecture.graph.input;
    graph.input("image", Element::F32, &[input.c, input.h, input.w].map(usize::from));
    let mut names = vec!["image".to_string()];
    for (i, stage) in architecture.graph.stages.iter().enumerate() {
        let numbers = encoder.stage(i)?;
        let x = names[stage.x].clone();
        let source = shapes[stage.x];
        let y = operation(&mut graph, &stage.op, &x, &names, source, &numbers)?;
        names.push(if stage.op.relu() { graph.node("Relu", &[&y], vec![]) } else { y });
    }
    let x = graph.node("Flatten", &[&names[names.len() - 1]], vec![int("axis", 1)]);
    let features = shapes[shapes.len() - 1].len() as usize;
    let d = architecture.latent;
    let Heads { mu, s, classifier } = encoder.heads()?;
    for ((weight, bias), name) in [(mu, "mu"), (s, "s")] {
        let (w, b) = (graph.f32s(&[d, features], &values(weight)?), graph.f32s(&[d], &values(bias)?));
        graph.named("Gemm", &[&x, &w, &b], vec![int("transB", 1)], name);
    }
    graph.tail(d, &values(classifier.0)?, &values(classifier.1)?);
    Ok(graph.encode("paradise encoder"))
}

/// The nodes of one operation before its ReLU.
fn operation(
    graph: &mut Builder,
    op: &Op,
    x: &str,
    names: &[String],
    source: Shape,
    numbers: &[Vec<f32>],
) -> Result<String> {
    let side = usize::from;
    Ok(match op {
        Op::Conv { window: sliding, groups, out, bias: true, residual: None, .. } => {
            let [kh, kw] = sliding.kernel.map(side);
            let depth = side(source.c) / groups;
            let filter = graph.f32s(&[*out, depth, kh, kw], &to_nchw(&numbers[0], [*out, kh, kw, depth]));
            let bias = graph.f32s(&[*out], &numbers[1]);
            let mut attributes = window(sliding);
            attributes.push(int("group", *groups as i64));
            graph.node("Conv", &[x, &filter, &bias], attributes)
        }
        Op::Dense { out, .. } => {
            let flat = graph.node("Flatten", &[x], vec![int("axis", 1)]);
            let moved = to_nchw(&numbers[0], [*out, side(source.h), side(source.w), side(source.c)]);
            let columns = graph.f32s(&[*out, source.len() as usize], &moved);
            let bias = graph.f32s(&[*out], &numbers[1]);
            let y = graph.node("Gemm", &[&flat, &columns, &bias], vec![int("transB", 1)]);
            // Activations keep four axes, as everything that reads them expects.
            let shape = graph.i64s(&[0, *out as i64, 1, 1]);
            graph.node("Reshape", &[&y, &shape], vec![])
        }
        Op::Affine { .. } => {
            let [mul, add] = [0, 1].map(|k| graph.f32s(&[1, side(source.c), 1, 1], &numbers[k]));
            let y = graph.node("Mul", &[x, &mul], vec![]);
            graph.node("Add", &[&y, &add], vec![])
        }
        Op::Add { other, .. } => graph.node("Add", &[x, &names[*other]], vec![]),
        Op::AvgPool { window: sliding } => {
            let mut attributes = window(sliding);
            attributes.push(int("count_include_pad", 1));
            graph.node("AveragePool", &[x], attributes)
        }
        Op::MaxPool { window: sliding } => graph.node("MaxPool", &[x], window(sliding)),
        op => bail!("{op:?} has no node"),
    })
}

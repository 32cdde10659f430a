//! `encoder.onnx`: the float encoder. Input `image` NCHW f32 in [0, 1]; outputs `logits`, `mu`, `sigma`, `log_sigma`.

use super::onnx::{Builder, Element, int, to_nchw, window};
use crate::encoder::{Encoder, Stage, values};
use anyhow::Result;

/// The bytes of `encoder.onnx`.
///
/// # Errors
/// If the encoder's shapes are inconsistent.
pub fn encode(encoder: &Encoder) -> Result<Vec<u8>> {
    let shapes = encoder.architecture.shapes()?;
    let mut graph = Builder::default();
    let input = encoder.architecture.input;
    graph.input("image", Element::F32, &[input.c, input.h, input.w].map(usize::from));
    let mut x = "image".to_string();
    let mut flat = false;
    for (i, stage) in encoder.architecture.stages.iter().enumerate() {
        let (weight, bias) = encoder.pair(i);
        let (w, b) = (values(weight)?, values(bias)?);
        let source = shapes[i];
        let extents = |out, h, w, c| [out, usize::from(h), usize::from(w), usize::from(c)];
        let y = match stage {
            Stage::Conv { window: sliding, out } => {
                let [kh, kw] = sliding.kernel;
                let dims = extents(*out, kh, kw, source.c);
                let filter = graph.f32s(&[dims[0], dims[3], dims[1], dims[2]], &to_nchw(&w, dims));
                let bias = graph.f32s(&[*out], &b);
                graph.node("Conv", &[&x, &filter, &bias], window(sliding))
            }
            Stage::Dense { out } => {
                if !flat {
                    x = graph.node("Flatten", &[&x], vec![int("axis", 1)]);
                    flat = true;
                }
                let moved = to_nchw(&w, extents(*out, source.h, source.w, source.c));
                let columns = graph.f32s(&[*out, source.len() as usize], &moved);
                let bias = graph.f32s(&[*out], &b);
                graph.node("Gemm", &[&x, &columns, &bias], vec![int("transB", 1)])
            }
        };
        x = graph.node("Relu", &[&y], vec![]);
    }
    if !flat {
        x = graph.node("Flatten", &[&x], vec![int("axis", 1)]);
    }
    let features = shapes[shapes.len() - 1].len() as usize;
    let d = encoder.architecture.latent;
    let [mu, s, classifier] = encoder.heads();
    for ((weight, bias), name) in [(mu, "mu"), (s, "s")] {
        let (w, b) = (graph.f32s(&[d, features], &values(weight)?), graph.f32s(&[d], &values(bias)?));
        graph.named("Gemm", &[&x, &w, &b], vec![int("transB", 1)], name);
    }
    graph.tail(d, &values(classifier.0)?, &values(classifier.1)?);
    Ok(graph.encode("paradise encoder"))
}

//! A trained graph as it is served: batch norms folded into the convolutions before them, or left as per-channel maps
//! where something else reads that convolution too; the fixed normalisation absorbed by the first weights.

use super::{Graph, Op, Stage, Trunk};
use crate::ops::norm::EPS;
use anyhow::{Result, ensure};

/// One stage's parameters while they are folded, f64.
#[derive(Clone, Default)]
struct Numbers {
    weight: Vec<f64>,
    bias: Vec<f64>,
}

/// A per-channel map `x * scale + shift` of one activation.
struct Map {
    activation: usize,
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Numbers {
    /// Takes in the map of the input, whose channels each of `out` outputs in `groups` reads again and again.
    fn absorb(&mut self, map: Option<&Map>, out: usize, groups: usize) {
        let Some(Map { scale, shift, .. }) = map else { return };
        let depth = scale.len() / groups;
        let width = self.weight.len() / out;
        for (o, (weights, bias)) in self.weight.chunks_exact_mut(width).zip(&mut self.bias).enumerate() {
            let first = o / (out / groups) * depth;
            for (at, w) in weights.iter_mut().enumerate() {
                *bias += *w * shift[first + at % depth];
                *w *= scale[first + at % depth];
            }
        }
    }

    /// Applies a map to the outputs.
    fn follow(&mut self, mul: &[f64], add: &[f64]) {
        let width = self.weight.len() / mul.len();
        for (o, weights) in self.weight.chunks_exact_mut(width).enumerate() {
            weights.iter_mut().for_each(|w| *w *= mul[o]);
            self.bias[o] = self.bias[o] * mul[o] + add[o];
        }
    }
}

/// The folded graph and its flat parameters: stages are Conv with bias, Affine, Add, pools and Dense.
///
/// # Errors
/// If the graph holds a transposed convolution, which is not served, or its last activation would vanish.
pub fn fold(trunk: &Trunk, theta: &[f32]) -> Result<(Graph, Vec<f32>)> {
    let graph = trunk.graph();
    let running = trunk.running()?;
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|v| f64::from(*v)).collect() };
    let mut folded = Graph { input: graph.input, stages: Vec::new() };
    let mut numbers: Vec<Numbers> = Vec::new();
    // Where each old activation is in the new graph, and the fixed map that its readers must absorb.
    let mut moved: Vec<usize> = vec![0];
    let mut pending: Option<Map> = None;
    for (i, stage) in graph.stages.iter().enumerate() {
        let own = |k: usize| trunk.places(i).get(k).map_or(Vec::new(), |r| wide(&theta[r.clone()]));
        let absorbed = pending.as_ref().filter(|map| map.activation == stage.x);
        match &stage.op {
            Op::Normalise { mean, std } => {
                let scale = std.iter().map(|s| 1.0 / f64::from(*s)).collect();
                let shift = mean.iter().zip(std).map(|(m, s)| -f64::from(*m) / f64::from(*s)).collect();
                pending = Some(Map { activation: i + 1, scale, shift });
                moved.push(moved[stage.x]);
                continue;
            }
            Op::BatchNorm { relu } | Op::Affine { relu } => {
                let (mul, add) = if matches!(stage.op, Op::Affine { .. }) {
                    (own(0), own(1))
                } else {
                    let [mean, variance] = trunk.running_places(i).clone().map(|r| wide(&running[r]));
                    let mul: Vec<f64> =
                        own(0).iter().zip(&variance).map(|(g, v)| g / (v.max(0.0) + EPS).sqrt()).collect();
                    let add = own(1).iter().zip(&mul).zip(&mean).map(|((b, s), m)| b - s * m).collect();
                    (mul, add)
                };
                let before = moved[stage.x];
                let foldable = stage.x > 0
                    && graph.readers(stage.x).len() == 1
                    && matches!(graph.stages[stage.x - 1].op, Op::Conv { relu: false, residual: None, .. });
                if foldable {
                    numbers[before - 1].follow(&mul, &add);
                    if let Op::Conv { relu: folded_relu, .. } = &mut folded.stages[before - 1].op {
                        *folded_relu = *relu;
                    }
                    moved.push(before);
                    continue;
                }
                folded.stages.push(Stage { x: before, op: Op::Affine { relu: *relu } });
                numbers.push(Numbers { weight: mul, bias: add });
            }
            Op::Conv { window, groups, out, relu, residual, .. } => {
                let mut linear = Numbers { weight: own(0), bias: own(1) };
                linear.bias.resize(*out, 0.0);
                linear.absorb(absorbed, *out, *groups);
                let (window, groups, out) = (*window, *groups, *out);
                let fused = *relu && residual.is_none();
                let op = Op::Conv { window, groups, out, bias: true, relu: fused, residual: None };
                folded.stages.push(Stage { x: moved[stage.x], op });
                numbers.push(linear);
                if let Some(r) = residual {
                    let op = Op::Add { other: moved[*r], relu: *relu };
                    folded.stages.push(Stage { x: folded.stages.len(), op });
                    numbers.push(Numbers::default());
                }
            }
            Op::Add { other, relu } => {
                folded.stages.push(Stage { x: moved[stage.x], op: Op::Add { other: moved[*other], relu: *relu } });
                numbers.push(Numbers::default());
            }
            Op::Dense { out, .. } => {
                let mut linear = Numbers { weight: own(0), bias: own(1) };
                linear.absorb(absorbed, *out, 1);
                folded.stages.push(Stage { x: moved[stage.x], op: stage.op.clone() });
                numbers.push(linear);
            }
            Op::AvgPool { .. } | Op::MaxPool { .. } => {
                ensure!(absorbed.is_none(), "stage {i}: a pool of the normalised image is not served");
                folded.stages.push(Stage { x: moved[stage.x], op: stage.op.clone() });
                numbers.push(Numbers::default());
            }
            Op::Transposed { .. } => anyhow::bail!("stage {i}: a transposed convolution is not served"),
        }
        moved.push(folded.stages.len());
    }
    let flat = numbers.iter().flat_map(|n| n.weight.iter().chain(&n.bias)).map(|v| *v as f32).collect();
    Ok((folded, flat))
}

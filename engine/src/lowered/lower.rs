//! From `model.pmq` to a lowered model, on the host that builds a firmware.

use super::format::{ABOUT, About, Layout, MAGIC, STEPS, VERSION, Work};
use super::geometry::Geometry;
use super::plan::Plan;
use crate::artifact::{self, Model};
use crate::container::Blob;
use crate::encoder::rows;
use crate::error::FormatError;
use crate::header::{Calibrations, Covariance, Draft, Mixture, Table};
use crate::layer::{Activation, Head, Layer, Op};
use crate::record::table;
use crate::tensor::Span;
use crate::whitening::{Directions, Whitening};
use alloc::vec::Vec;

/// Copies tensors from a model into another file's blob.
struct Copier<'a> {
    model: &'a Model<'a>,
    blob: Blob,
}

impl Copier<'_> {
    /// Where the tensor lies now.
    fn span(&mut self, span: Span) -> Span {
        if span == Span::default() { span } else { self.blob.bytes(self.model.tensors().bytes(span)) }
    }

    fn head(&mut self, head: Head) -> Head {
        let Head { weight, bias, scale } = head;
        Head { weight: self.span(weight), bias: self.span(bias), scale: self.span(scale) }
    }

    fn whitening(&mut self, whitening: Whitening) -> Whitening {
        let directions = match whitening.directions {
            Directions::Triangle(rows) => Directions::Triangle(self.span(rows)),
            Directions::Principal { rows, variance, rest } => {
                Directions::Principal { rows: self.span(rows), variance: self.span(variance), rest }
            }
        };
        let Whitening { components, centre, means, .. } = whitening;
        Whitening { components, centre: self.span(centre), directions, means: self.span(means) }
    }

    fn mixture(&mut self, mixture: Mixture) -> Mixture {
        let covariance = match mixture.covariance {
            Covariance::Diagonal { log_std, half_precision } => {
                Covariance::Diagonal { log_std: self.span(log_std), half_precision: self.span(half_precision) }
            }
            Covariance::Shared { centre, triangle, half_precision, half_log_det } => Covariance::Shared {
                centre: self.span(centre),
                triangle: self.span(triangle),
                half_precision: self.span(half_precision),
                half_log_det: self.span(half_log_det),
            },
            Covariance::PerClass { triangle, half_precision, half_log_det } => Covariance::PerClass {
                triangle: self.span(triangle),
                half_precision: self.span(half_precision),
                half_log_det: self.span(half_log_det),
            },
        };
        let Mixture { components, log_weight, mean, .. } = mixture;
        Mixture { components, log_weight: self.span(log_weight), mean: self.span(mean), covariance }
    }

    fn table(&mut self, table: Table) -> Table {
        Table { n: table.n, values: self.span(table.values), ranks: self.span(table.ranks) }
    }

    /// A layer with its numbers as `model.pmq` has them.
    fn layer(&mut self, layer: Layer) -> Layer {
        let op = match layer.op {
            Op::Conv { window, groups, weight, bias, scale, relu } => {
                let Head { weight, bias, scale } = self.head(Head { weight, bias, scale });
                Op::Conv { window, groups, weight, bias, scale, relu }
            }
            Op::Dense { weight, bias, scale, relu } => {
                let Head { weight, bias, scale } = self.head(Head { weight, bias, scale });
                Op::Dense { weight, bias, scale, relu }
            }
            Op::Affine { mul, add, relu } => Op::Affine { mul: self.span(mul), add: self.span(add), relu },
            op @ (Op::Add { .. } | Op::AvgPool { .. } | Op::MaxPool { .. }) => op,
        };
        Layer { op, ..layer }
    }

    /// A convolution with its numbers in the order of the layout's kernels.
    fn packed(&mut self, index: usize, layout: Layout) -> Option<Layer> {
        let header = self.model.header();
        let found = header.layers.at(index);
        let Op::Conv { window, groups, weight, bias, scale, relu } = found.op else { return None };
        let [x, y] = [usize::from(found.inputs[0]), index + 1].map(|i| header.activations.at(i).shape);
        let geometry = Geometry::new(layout, &window, x, y)?;
        let weight = self.blob.bytes(&geometry.pack(rows(self.model, weight, bias, scale)));
        let (bias, scale) = (Span::default(), Span::default());
        Some(Layer { op: Op::Conv { window, groups, weight, bias, scale, relu }, ..found })
    }
}

/// The lowered model of `model`, its weights in the order of `layout`.
///
/// # Errors
/// [`FormatError::Limit`] if its activations take too much memory.
pub fn lower(model: &Model, layout: Layout) -> Result<Vec<u8>, FormatError> {
    let header = model.header();
    let plan = Plan::new(header, layout).ok_or(FormatError::Limit {
        what: "bytes of a lowered model's memory",
        limit: crate::header::MAX_ARENA.into(),
        got: header.arena_bytes.into(),
    })?;
    let mut copier = Copier { model, blob: Blob::default() };
    let is_packed = |i: usize| plan.steps.iter().any(|s| s.work == Work::Conv && usize::from(s.layer) == i);
    let mut layers = Vec::with_capacity(header.layers.len());
    for (i, layer) in header.layers.iter().enumerate() {
        let packed = if is_packed(i) { copier.packed(i, layout) } else { None };
        layers.push(packed.unwrap_or_else(|| copier.layer(layer)));
    }
    let place = |(a, offset): (Activation, &u32)| Activation { offset: *offset, ..a };
    let activations: Vec<Activation> = header.activations.iter().zip(&plan.offsets).map(place).collect();
    let classifier = crate::header::Classifier {
        weight: copier.span(header.classifier.weight),
        bias: copier.span(header.classifier.bias),
    };
    let draft = Draft {
        name: header.name,
        input: header.input,
        policy: header.policy,
        layers: &layers,
        activations: &activations,
        arena_bytes: plan.arena,
        latent: header.latent,
        mu: copier.head(header.mu),
        sigma: copier.head(header.sigma),
        classes: header.classes,
        labels: header.labels,
        classifier,
        mixture: copier.mixture(header.mixture),
        typicality: crate::header::Typicality {
            posterior: copier.whitening(header.typicality.posterior),
            picture: copier.whitening(header.typicality.picture),
            spread: header.typicality.spread.map(|spread| copier.whitening(spread)),
        },
        calibrations: Calibrations::new(header.calibrations.all().map(|table| copier.table(table))),
        thresholds: header.thresholds,
        made: header.made,
    };
    let about = About { scratch: plan.scratch, layout, source: model.hash() };
    let own = [(ABOUT, &table(&[about])[..]), (STEPS, &table(&plan.steps))];
    Ok(artifact::emit_as((MAGIC, VERSION), &own, &draft, &copier.blob))
}

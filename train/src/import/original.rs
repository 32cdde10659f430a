//! The imported file as it is, in tract: whether what was read from it gives the same classes.

use super::graph::Contract;
use super::{Normalisation, Range};
use crate::encoder::Network;
use anyhow::{Context, Result, anyhow, ensure};
use paradise_data::Dataset;
use paradise_evaluate::prediction::classify;
use paradise_support::statistics::Proportion;
use prost::Message;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

/// Most pictures that are compared.
const MOST: usize = 1000;

/// On how many images the original and the network read from it give the same class.
///
/// # Errors
/// If tract does not run the file, or it answers with something else than one value a class.
pub(super) fn same_classes(
    onnx: &ModelProto,
    contract: Contract,
    normalisation: &Normalisation,
    network: &Network,
    set: &Dataset,
) -> Result<Proportion> {
    let set = set.select(&(0..set.len().min(MOST)).collect::<Vec<_>>());
    let read = classify(&network.frozen(), &set)?;
    let original = Original::new(onnx, contract, &set).map_err(|e| anyhow!("{e:#}"))?;
    let mut correct = 0;
    for (i, class) in read.classes.iter().enumerate() {
        let values = original.values(set.image(i), &set, normalisation).map_err(|e| anyhow!("{e:#}"))?;
        ensure!(values.len() == network.architecture.classes, "it answers with {} values", values.len());
        let best = (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b]).then(b.cmp(a)));
        correct += usize::from(best.context("no classes")? == usize::from(*class));
    }
    Ok(Proportion { correct, n: set.len() })
}

struct Original {
    plan: std::sync::Arc<TypedRunnableModel>,
    contract: Contract,
}

impl Original {
    fn new(onnx: &ModelProto, contract: Contract, set: &Dataset) -> TractResult<Self> {
        let [h, w, c] = [set.shape.h, set.shape.w, set.shape.c].map(usize::from);
        let dims = if contract.nhwc { [1, h, w, c] } else { [1, c, h, w] };
        let fact = if contract.integer { u8::fact(dims) } else { f32::fact(dims) };
        let plan = tract_onnx::onnx()
            .model_for_read(&mut &onnx.encode_to_vec()[..])?
            .with_input_fact(0, fact.into())?
            .into_optimized()?
            .into_runnable()?;
        Ok(Self { plan, contract })
    }

    /// The output's values for one image, u8 `[h][w][c]`.
    fn values(&self, image: &[u8], set: &Dataset, normalisation: &Normalisation) -> TractResult<Vec<f32>> {
        let [h, w, c] = [set.shape.h, set.shape.w, set.shape.c].map(usize::from);
        let Contract { nhwc, bytes, integer, output } = self.contract;
        let dims = if nhwc { [1, h, w, c] } else { [1, c, h, w] };
        // Where value i of the input lies in the image.
        let at = |i: usize| if nhwc { i } else { i % (h * w) * c + i / (h * w) };
        let or = |given: &[f32], channel: usize, otherwise: f32| given.get(channel).copied().unwrap_or(otherwise);
        let Normalisation { range, mean, std } = normalisation;
        debug_assert!(*range == Range::Auto || bytes == (*range == Range::Bytes));
        let value = |i: usize| {
            let pixel = f32::from(image[at(i)]);
            let pixel = if bytes { pixel } else { pixel / 255.0 };
            (pixel - or(mean, at(i) % c, 0.0)) / or(std, at(i) % c, 1.0)
        };
        let input = if integer {
            let bytes: Vec<u8> = (0..image.len()).map(|i| image[at(i)]).collect();
            Tensor::from_shape(&dims, &bytes)?
        } else {
            let values: Vec<f32> = (0..image.len()).map(value).collect();
            Tensor::from_shape(&dims, &values)?
        };
        let outputs = self.plan.run(tvec!(input.into()))?;
        let output = outputs.get(output).context("an output is missing")?;
        Ok(output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
    }
}

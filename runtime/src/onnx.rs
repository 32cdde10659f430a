//! The float back end: `encoder.onnx` in tract; rate, entropies and decision by the engine, as for int8.

use crate::bundle::{Bundle, BundleError, ENCODER, ENCODER_TABLES};
use crate::int8::Int8;
use crate::pipeline::{Backend, BackendError, BackendKind};
use crate::tables::{OwnTables, Values};
use paradise_engine::calibration::Tables;
use paradise_engine::inference::{self, Posterior};
use paradise_engine::{Answer, Model, RunError, Shape};
use std::sync::Arc;
use tract_onnx::prelude::*;

/// The float network alone, in tract.
#[derive(Clone)]
pub struct FloatNetwork {
    plan: Arc<TypedRunnableModel>,
    input: Shape,
    latent: usize,
    classes: usize,
}

impl std::fmt::Debug for FloatNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FloatNetwork").field("input", &self.input).finish_non_exhaustive()
    }
}

/// What the float network gives for an image.
struct Outputs {
    logits: Vec<f32>,
    mu: Vec<f32>,
    sigma: Vec<f32>,
    log_sigma: Vec<f32>,
}

fn plan(bytes: &[u8], input: Shape) -> TractResult<Arc<TypedRunnableModel>> {
    let dims = [1, input.c as usize, input.h as usize, input.w as usize];
    tract_onnx::onnx()
        .model_for_read(&mut &bytes[..])?
        .with_input_fact(0, f32::fact(dims).into())?
        .into_optimized()?
        .into_runnable()
}

impl FloatNetwork {
    /// The network of `encoder.onnx`'s bytes, with the extents of `model`.
    ///
    /// # Errors
    /// If tract does not run it.
    pub fn new(bytes: &[u8], model: &Model) -> Result<Self, BackendError> {
        let header = model.header();
        let plan = plan(bytes, header.input).map_err(|e| BackendError::Float(format!("{e:#}")))?;
        Ok(Self { plan, input: header.input, latent: header.latent.into(), classes: header.classes.into() })
    }

    /// Runs one u8 HWC input; `read` sees the engine's answer by `model`, compared with `tables`.
    ///
    /// # Errors
    /// If the input or an output has the wrong length, or tract fails.
    pub fn answer(
        &self,
        model: &Model,
        tables: &Tables,
        input: &[u8],
        read: &mut dyn FnMut(&Answer),
    ) -> Result<(), BackendError> {
        let need = self.input.len() as usize;
        if input.len() != need {
            return Err(BackendError::Run(RunError::Image { need, got: input.len() }));
        }
        let outputs = self.outputs(input).map_err(|e| BackendError::Float(format!("{e:#}")))?;
        let Outputs { logits, mu, sigma, log_sigma } = &outputs;
        let d = self.latent;
        if [logits.len(), mu.len(), sigma.len(), log_sigma.len()] != [self.classes, d, d, d] {
            return Err(BackendError::Float("encoder.onnx and model.pmq disagree on their extents".into()));
        }
        let (mut probabilities, mut scratch) = (vec![0.0; self.classes], vec![0.0; inference::scratch_len(d)]);
        let posterior = Posterior { mu, sigma, log_sigma, logits };
        read(&inference::assess(model, tables, input, posterior, &mut probabilities, &mut scratch));
        Ok(())
    }

    fn outputs(&self, input: &[u8]) -> TractResult<Outputs> {
        let Shape { h, w, c } = self.input;
        let (h, w, c) = (h as usize, w as usize, c as usize);
        let mut nchw = vec![0.0f32; input.len()];
        for (channel, plane) in nchw.chunks_exact_mut(h * w).enumerate() {
            for (to, pixel) in plane.iter_mut().zip(input.chunks_exact(c)) {
                *to = f32::from(pixel[channel]) / 255.0;
            }
        }
        let outputs = self.plan.run(tvec!(Tensor::from_shape(&[1, c, h, w], &nchw)?.into()))?;
        let flat =
            |i: usize| -> TractResult<Vec<f32>> { Ok(outputs[i].try_as_plain_ram()?.as_slice::<f32>()?.to_vec()) };
        Ok(Outputs { logits: flat(0)?, mu: flat(1)?, sigma: flat(2)?, log_sigma: flat(3)? })
    }
}

/// The float network and the model that says what its posterior means.
#[derive(Debug)]
pub struct Tract {
    network: FloatNetwork,
    meaning: Int8,
    /// The float network's own calibration tables, where the bundle has them.
    tables: Option<OwnTables>,
}

fn tables(bytes: &[u8]) -> Result<OwnTables, String> {
    let values: Values = serde_json::from_slice(bytes).map_err(|e| format!("no calibration tables: {e}"))?;
    OwnTables::new(&values).map_err(|e| e.to_string())
}

impl Tract {
    /// Loads `encoder.onnx` and `model.pmq` of a bundle.
    ///
    /// # Errors
    /// With the path of the file that is refused.
    pub fn load(bundle: &Bundle) -> Result<Self, BundleError> {
        let meaning = Int8::load(bundle)?;
        let refused = |file: &str, why: String| BundleError::Backend(bundle.path(file), why);
        let network = FloatNetwork::new(bundle.file(ENCODER)?, meaning.model());
        let network = network.map_err(|e| refused(ENCODER, e.to_string()))?;
        let tables = bundle.file(ENCODER_TABLES).ok().map(tables).transpose();
        let tables = tables.map_err(|why| refused(ENCODER_TABLES, why))?;
        Ok(Self { network, meaning, tables })
    }
}

impl Backend for Tract {
    fn kind(&self) -> BackendKind {
        BackendKind::Tract
    }

    fn with_model(&self, read: &mut dyn FnMut(&Model)) {
        read(self.meaning.model());
    }

    fn answer(&mut self, input: &[u8], read: &mut dyn FnMut(&Model, &Answer)) -> Result<(), BackendError> {
        let model = self.meaning.model();
        let own = self.tables.as_ref().map_or_else(|| Tables::of(model), |own| *own.tables());
        self.network.answer(model, &own, input, &mut |answer| read(model, answer))
    }
}

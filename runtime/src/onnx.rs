//! The float back end: `encoder.onnx` in tract; rate, entropies and decision by the engine, as for int8.

use crate::bundle::{Bundle, BundleError, ENCODER};
use crate::int8::Int8;
use crate::pipeline::{Backend, BackendError, BackendKind};
use paradise_engine::inference::{self, Posterior};
use paradise_engine::{Answer, Model, RunError, Shape};
use std::sync::Arc;
use tract_onnx::prelude::*;

/// The float encoder and the model that says what its posterior means.
pub struct Tract {
    plan: Arc<TypedRunnableModel>,
    meaning: Int8,
}

impl std::fmt::Debug for Tract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tract").field("meaning", &self.meaning).finish_non_exhaustive()
    }
}

fn plan(bytes: &[u8], input: Shape) -> TractResult<Arc<TypedRunnableModel>> {
    let dims = [1, input.c as usize, input.h as usize, input.w as usize];
    tract_onnx::onnx()
        .model_for_read(&mut &bytes[..])?
        .with_input_fact(0, f32::fact(dims).into())?
        .into_optimized()?
        .into_runnable()
}

impl Tract {
    /// Loads `encoder.onnx` and `model.pmq` of a bundle.
    ///
    /// # Errors
    /// With the path of the file that is refused.
    pub fn load(bundle: &Bundle) -> Result<Self, BundleError> {
        let meaning = Int8::load(bundle)?;
        let plan = plan(bundle.file(ENCODER)?, meaning.model().header().input)
            .map_err(|e| BundleError::Backend(bundle.path(ENCODER), format!("{e:#}")))?;
        Ok(Self { plan, meaning })
    }

    fn run(&self, input: &[u8]) -> TractResult<[Vec<f32>; 4]> {
        let Shape { h, w, c } = self.meaning.model().header().input;
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
        Ok([flat(0)?, flat(1)?, flat(2)?, flat(3)?])
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
        let header = model.header();
        let need = header.input.len() as usize;
        if input.len() != need {
            return Err(BackendError::Run(RunError::Image { need, got: input.len() }));
        }
        let [logits, mu, sigma, log_sigma] = self.run(input).map_err(|e| BackendError::Float(format!("{e:#}")))?;
        let (d, classes) = (header.latent as usize, header.classes as usize);
        if [logits.len(), mu.len(), sigma.len(), log_sigma.len()] != [classes, d, d, d] {
            return Err(BackendError::Float("encoder.onnx and model.pmq disagree on their extents".into()));
        }
        let (mut probabilities, mut scratch) = (vec![0.0; classes], vec![0.0; inference::scratch_len(d)]);
        let posterior = Posterior { mu: &mu, sigma: &sigma, log_sigma: &log_sigma, logits: &logits };
        let answer = inference::assess(model, input, posterior, &mut probabilities, &mut scratch);
        read(model, &answer);
        Ok(())
    }
}

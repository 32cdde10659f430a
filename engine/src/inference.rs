//! One answer for one image: the whole way, in the caller's memory.

use crate::artifact::Model;
use crate::classifier;
use crate::decision::Decision;
use crate::encoder::{self, Heads};
use crate::error::RunError;
use crate::information::{Calibration, rate_nats};
use crate::posterior;

/// The memory of an inference: an int8 arena and f32 scratch, both of the size the model states.
#[derive(Debug)]
pub struct Workspace<'m> {
    /// At least [`Header::arena_bytes`](crate::Header::arena_bytes).
    pub arena: &'m mut [i8],
    /// At least [`Model::float_len`].
    pub floats: &'m mut [f32],
}

impl Workspace<'_> {
    /// The same memory for a shorter while.
    pub fn reborrow(&mut self) -> Workspace<'_> {
        Workspace { arena: self.arena, floats: self.floats }
    }
}

/// What the device says of an image.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'m> {
    /// Index of the class with the largest logit.
    pub class: usize,
    /// Posterior means, `[d]`.
    pub mu: &'m [f32],
    /// Logarithms of the posterior's standard deviations, `[d]`, at most 0.
    pub log_sigma: &'m [f32],
    /// Posterior standard deviations, `[d]`, in (0, 1).
    pub sigma: &'m [f32],
    /// `[classes]`.
    pub logits: &'m [f32],
    /// `[classes]`, summing to 1.
    pub probabilities: &'m [f32],
    /// Rate against the aggregate posterior, nats.
    pub rate_nats: f32,
    /// Posterior entropy H, nats.
    pub posterior_entropy_nats: f32,
    /// Entropy of the class probabilities, nats.
    pub predictive_entropy_nats: f32,
    /// Conformal p-value of the rate, in (0, 1].
    pub typicality: f32,
    /// Two-sided conformal p-value of the posterior entropy, in (0, 1].
    pub entropy_p: f32,
    /// Accept or abstain, by the model's thresholds.
    pub decision: Decision,
}

impl Answer<'_> {
    /// Every number that must be the same bits on every device: mu, log sigma, sigma, logits, rate.
    pub fn numbers(&self) -> impl Iterator<Item = f32> {
        let vectors = [self.mu, self.log_sigma, self.sigma, self.logits];
        vectors.into_iter().flatten().copied().chain([self.rate_nats])
    }
}

/// Classifies a u8 image in HWC order.
///
/// `observe(layer, output)` sees each layer's int8 output in NHWC order; pass `&mut |_, _| {}` to ignore them.
///
/// ```
/// use paradise_engine::{Model, Sizes, Workspace, classify};
/// const MODEL: &[u8] = include_bytes!("../../models/fashion-mnist-small/model.pmq");
/// const SIZES: Sizes = Sizes::of(MODEL);
/// let (mut arena, mut floats) = ([0; SIZES.arena], [0.0; SIZES.floats]);
/// let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
/// let mut layers = 0;
/// let model = Model::parse(MODEL).unwrap();
/// let answer = classify(&model, &[128; 784], &mut memory, &mut |_, _| layers += 1).unwrap();
/// assert!(answer.rate_nats.is_finite() && layers == model.header().layers.len());
/// ```
///
/// # Errors
/// If the image, the arena or the float workspace has the wrong size.
pub fn classify<'m>(
    model: &Model,
    image: &[u8],
    memory: &'m mut Workspace<'_>,
    observe: &mut dyn FnMut(usize, &[i8]),
) -> Result<Answer<'m>, RunError> {
    run(model, image, memory.reborrow(), |arena, heads| encoder::run(model, image, arena, observe, heads))
}

/// [`classify`] with an encoder that turns the checked image into the heads' outputs, over the checked arena.
pub(crate) fn run<'m>(
    model: &Model,
    image: &[u8],
    memory: Workspace<'m>,
    encode: impl FnOnce(&mut [i8], Heads),
) -> Result<Answer<'m>, RunError> {
    let header = model.header();
    let need = header.input.len() as usize;
    if image.len() != need {
        return Err(RunError::Image { need, got: image.len() });
    }
    let need = header.arena_bytes as usize;
    if memory.arena.len() < need {
        return Err(RunError::Arena { need, got: memory.arena.len() });
    }
    let parts = split(model, memory.floats)?;
    let heads = Heads { mu: &mut *parts.mu, s: &mut *parts.s };
    encode(memory.arena, heads);
    for (j, s) in parts.s.iter().enumerate() {
        (parts.sigma[j], parts.log_sigma[j]) = posterior::sigma_and_log(*s);
    }
    let weight = model.f32s(header.classifier.weight);
    classifier::logits(weight, model.f32s(header.classifier.bias), parts.mu, parts.logits);
    Ok(assess(model, parts.mu, parts.sigma, parts.log_sigma, parts.logits, parts.probabilities))
}

/// Rate, entropies, p-values and decision of a posterior and its logits, from whichever back end they came.
///
/// # Panics
/// If a slice is not of the model's latent or class length.
pub fn assess<'m>(
    model: &Model,
    mu: &'m [f32],
    sigma: &'m [f32],
    log_sigma: &'m [f32],
    logits: &'m [f32],
    probabilities: &'m mut [f32],
) -> Answer<'m> {
    let header = model.header();
    classifier::softmax(logits, probabilities);
    let rate_nats = rate_nats(model, mu, sigma, log_sigma);
    let posterior_entropy_nats = posterior::entropy_nats(log_sigma);
    let predictive_entropy_nats = classifier::predictive_entropy_nats(probabilities);
    let typicality = Calibration::new(model, &header.rate_table).upper_p(rate_nats);
    let entropy_p = Calibration::new(model, &header.entropy_table).two_sided_p(posterior_entropy_nats);
    let decision = Decision::new(&header.thresholds, typicality, entropy_p, predictive_entropy_nats);
    Answer {
        class: classifier::argmax(logits),
        mu,
        log_sigma,
        sigma,
        logits,
        probabilities,
        rate_nats,
        posterior_entropy_nats,
        predictive_entropy_nats,
        typicality,
        entropy_p,
        decision,
    }
}

/// The float workspace, cut into its six vectors.
struct Parts<'m> {
    mu: &'m mut [f32],
    s: &'m mut [f32],
    log_sigma: &'m mut [f32],
    sigma: &'m mut [f32],
    logits: &'m mut [f32],
    probabilities: &'m mut [f32],
}

fn split<'m>(model: &Model, floats: &'m mut [f32]) -> Result<Parts<'m>, RunError> {
    let (d, classes) = (model.header().latent as usize, model.header().classes as usize);
    let need = model.float_len();
    if floats.len() < need {
        return Err(RunError::Floats { need, got: floats.len() });
    }
    let (mu, rest) = floats.split_at_mut(d);
    let (s, rest) = rest.split_at_mut(d);
    let (log_sigma, rest) = rest.split_at_mut(d);
    let (sigma, rest) = rest.split_at_mut(d);
    let (logits, rest) = rest.split_at_mut(classes);
    let probabilities = &mut rest[..classes];
    Ok(Parts { mu, s, log_sigma, sigma, logits, probabilities })
}

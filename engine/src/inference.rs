//! One answer for one image: the whole way, in the caller's memory.

use crate::appearance::{Appearance, Sums};
use crate::artifact::Model;
use crate::calibration::Tables;
use crate::classifier;
use crate::decision::{Decision, PValues};
use crate::encoder::{self, Heads};
use crate::error::RunError;
pub use crate::header::scratch_len;
use crate::information::rate_nats;
use crate::posterior;
use crate::typicality::{self, Distances};

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
    /// Squared distances of posterior, spread and picture from the training images'.
    pub distances: Distances,
    /// What the picture looks like, in five numbers of its luma.
    pub appearance: Appearance,
    /// What calibration images say of those distances, of the rate and of the posterior entropy.
    pub p: PValues,
    /// Accept or abstain, by the model's thresholds.
    pub decision: Decision,
}

impl Answer<'_> {
    /// What calibration images are compared with.
    pub fn evidence(&self) -> Evidence {
        let Self { rate_nats, posterior_entropy_nats, distances, appearance, .. } = *self;
        Evidence { rate_nats, posterior_entropy_nats, distances, appearance }
    }

    /// Every number that must be the same bits on every device: mu, log sigma, sigma, logits, rate, distances.
    pub fn numbers(&self) -> impl Iterator<Item = f32> {
        let vectors = [self.mu, self.log_sigma, self.sigma, self.logits];
        let Distances { posterior, spread, picture } = self.distances;
        vectors.into_iter().flatten().copied().chain([self.rate_nats, posterior, spread, picture])
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
    let evidence = |posterior: &Posterior, scratch: &mut [f32]| Evidence::of(model, image, posterior, scratch);
    run(model, image, memory.reborrow(), |arena, heads| encoder::run(model, image, arena, observe, heads), evidence)
}

/// [`classify`] with an encoder that turns the checked image into the heads' outputs, over the checked arena, and what computes the
/// evidence.
pub(crate) fn run<'m>(
    model: &Model,
    image: &[u8],
    memory: Workspace<'m>,
    encode: impl FnOnce(&mut [i8], Heads),
    evidence: impl FnOnce(&Posterior, &mut [f32]) -> Evidence,
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
    let arena = memory.arena;
    conclude(model, memory.floats, |heads| encode(arena, heads), evidence)
}

/// From the heads' outputs to the answer, over float memory.
pub(crate) fn conclude<'m>(
    model: &Model,
    floats: &'m mut [f32],
    heads: impl FnOnce(Heads),
    evidence: impl FnOnce(&Posterior, &mut [f32]) -> Evidence,
) -> Result<Answer<'m>, RunError> {
    let header = model.header();
    let parts = split(model, floats)?;
    heads(Heads { mu: &mut *parts.mu, s: &mut *parts.s });
    for (j, s) in parts.s.iter().enumerate() {
        (parts.sigma[j], parts.log_sigma[j]) = posterior::sigma_and_log(*s);
    }
    let weight = model.f32s(header.classifier.weight);
    classifier::logits(weight, model.f32s(header.classifier.bias), parts.mu, parts.logits);
    let posterior = Posterior { mu: parts.mu, sigma: parts.sigma, log_sigma: parts.log_sigma, logits: parts.logits };
    let evidence = evidence(&posterior, parts.scratch);
    Ok(decide(model, &Tables::of(model), evidence, posterior, parts.probabilities))
}

/// A posterior and its logits, from whichever back end they came.
#[derive(Debug, Clone, Copy)]
pub struct Posterior<'m> {
    /// Means, `[d]`.
    pub mu: &'m [f32],
    /// Standard deviations, `[d]`.
    pub sigma: &'m [f32],
    /// Their logarithms, `[d]`.
    pub log_sigma: &'m [f32],
    /// `[classes]`.
    pub logits: &'m [f32],
}

/// What an image's posterior says of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// Rate against the aggregate posterior, nats.
    pub rate_nats: f32,
    /// Posterior entropy H, nats.
    pub posterior_entropy_nats: f32,
    /// Squared distances from the training images.
    pub distances: Distances,
    /// What the picture looks like.
    pub appearance: Appearance,
}

impl Evidence {
    /// Of an image u8 `[h][w][c]` and its posterior; logits play no part.
    ///
    /// # Panics
    /// If a slice is not of the model's length, or `scratch` shorter than [`scratch_len`].
    pub fn of(model: &Model, image: &[u8], posterior: &Posterior, scratch: &mut [f32]) -> Self {
        Self::from_sums(model, &Sums::of(image, model.header().input), posterior, scratch)
    }

    /// [`Evidence::of`], for an instruction set with vectors.
    #[cfg(feature = "std")]
    #[inline(always)]
    pub(crate) fn side_by_side(model: &Model, image: &[u8], posterior: &Posterior, scratch: &mut [f32]) -> Self {
        Self::from_sums(model, &Sums::side_by_side(image, model.header().input), posterior, scratch)
    }

    #[cfg_attr(feature = "std", inline(always))]
    pub(crate) fn from_sums(model: &Model, sums: &Sums, posterior: &Posterior, scratch: &mut [f32]) -> Self {
        let Posterior { mu, sigma, log_sigma, .. } = *posterior;
        let appearance = sums.appearance();
        Self {
            rate_nats: rate_nats(model, mu, sigma, log_sigma, scratch),
            posterior_entropy_nats: posterior::entropy_nats(log_sigma),
            distances: typicality::distances(model, appearance, mu, log_sigma, scratch),
            appearance,
        }
    }

    /// What calibration images say of it, and of an answer of this predictive entropy.
    pub fn p_values(&self, tables: &Tables, predictive_entropy_nats: f32) -> PValues {
        let mut p = PValues {
            picture: tables.picture.upper_p(self.distances.picture),
            posterior: tables.posterior.upper_p(self.distances.posterior),
            spread: tables.spread.upper_p(self.distances.spread),
            rate: tables.rate.upper_p(self.rate_nats),
            entropy: tables.entropy.two_sided_p(self.posterior_entropy_nats),
            predictive: tables.predictive.upper_p(predictive_entropy_nats),
            combined: 0.0,
        };
        p.combined = tables.combined.upper_p(p.surprise());
        p
    }
}

/// Class, evidence, p-values and decision of an image's posterior; the class probabilities are written down. `tables` are what
/// calibration images gave by the network that gave the posterior.
///
/// # Panics
/// If a slice is not of the model's length, or `scratch` shorter than [`scratch_len`].
pub fn assess<'m>(
    model: &Model,
    tables: &Tables,
    image: &[u8],
    posterior: Posterior<'m>,
    probabilities: &'m mut [f32],
    scratch: &mut [f32],
) -> Answer<'m> {
    decide(model, tables, Evidence::of(model, image, &posterior, scratch), posterior, probabilities)
}

/// [`assess`] of evidence at hand.
fn decide<'m>(
    model: &Model,
    tables: &Tables,
    evidence: Evidence,
    posterior: Posterior<'m>,
    probabilities: &'m mut [f32],
) -> Answer<'m> {
    let Posterior { mu, sigma, log_sigma, logits } = posterior;
    classifier::softmax(logits, probabilities);
    let predictive_entropy_nats = classifier::predictive_entropy_nats(probabilities);
    let Evidence { rate_nats, posterior_entropy_nats, distances, appearance } = evidence;
    let p = evidence.p_values(tables, predictive_entropy_nats);
    let decision = Decision::new(&model.header().thresholds, &p, predictive_entropy_nats);
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
        distances,
        appearance,
        p,
        decision,
    }
}

/// The float workspace, cut into its vectors.
struct Parts<'m> {
    mu: &'m mut [f32],
    s: &'m mut [f32],
    log_sigma: &'m mut [f32],
    sigma: &'m mut [f32],
    logits: &'m mut [f32],
    probabilities: &'m mut [f32],
    scratch: &'m mut [f32],
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
    let (probabilities, rest) = rest.split_at_mut(classes);
    let scratch = &mut rest[..scratch_len(d)];
    Ok(Parts { mu, s, log_sigma, sigma, logits, probabilities, scratch })
}

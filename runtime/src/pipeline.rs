//! What every back end offers: an input tensor becomes a verdict.

use crate::rule::Rule;
use paradise_engine::{Answer, Decision, Model, PValues, RunError};
use paradise_picture::PictureError;
use serde::Serialize;

/// Which implementation runs the encoder.
///
/// ```
/// use paradise_runtime::BackendKind;
/// assert_eq!("int8".parse(), Ok(BackendKind::Int8));
/// assert!("gpu".parse::<BackendKind>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// The engine, the same bits on every device.
    Int8,
    /// The float encoder in tract.
    Tract,
}

impl std::str::FromStr for BackendKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "int8" => Ok(Self::Int8),
            "tract" => Ok(Self::Tract),
            _ => Err(format!("{text:?} is not a back end; there are int8 and tract")),
        }
    }
}

impl std::fmt::Display for BackendKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Int8 => "int8",
            Self::Tract => "tract",
        })
    }
}

/// An owned answer, as it is printed and sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Name of the class.
    pub label: String,
    /// Index of the class.
    pub class: usize,
    /// Probability of the class.
    pub score: f32,
    /// Probability of every class, in label order.
    pub probabilities: Vec<f32>,
    /// Rate against the aggregate posterior, nats.
    pub rate_nats: f32,
    /// Posterior entropy, nats.
    pub posterior_entropy_nats: f32,
    /// Predictive entropy, nats.
    pub predictive_entropy_nats: f32,
    /// What calibration images, the maker's or the site's, say of picture and posterior: `picture_p`, `posterior_p`, `spread_p`,
    /// `rate_p`, `entropy_p`, `predictive_p` and `combined_p` where it is sent, each in (0, 1], small for what is unlike them.
    #[serde(flatten, serialize_with = "p_values")]
    pub p: PValues,
    /// Accept or abstain: `decision`, `accept` or `abstain`, and `reason`, a sentence or null, where it is sent.
    #[serde(flatten, serialize_with = "decision_and_reason")]
    pub decision: Decision,
}

/// How p-values are sent: the fields that [`Verdict::p`] names.
///
/// # Errors
/// The serializer's.
pub fn p_values<S: serde::Serializer>(p: &PValues, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Sent {
        picture_p: f32,
        posterior_p: f32,
        spread_p: f32,
        rate_p: f32,
        entropy_p: f32,
        predictive_p: f32,
        combined_p: f32,
    }
    Sent {
        picture_p: p.picture,
        posterior_p: p.posterior,
        spread_p: p.spread,
        rate_p: p.rate,
        entropy_p: p.entropy,
        predictive_p: p.predictive,
        combined_p: p.combined,
    }
    .serialize(serializer)
}

/// How a decision is sent: the fields that [`Verdict::decision`] names.
///
/// # Errors
/// The serializer's.
pub fn decision_and_reason<S: serde::Serializer>(decision: &Decision, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Sent {
        decision: &'static str,
        reason: Option<&'static str>,
    }
    Sent { decision: decision.name(), reason: decision.reason().map(|r| r.name()) }.serialize(serializer)
}

impl Verdict {
    /// An owned copy of an answer, decided by `rule`.
    pub fn new(model: &Model, answer: &Answer, rule: &Rule) -> Self {
        let (p, decision) = rule.judge(answer);
        Self {
            label: model.label(answer.class).to_string(),
            class: answer.class,
            score: answer.probabilities[answer.class],
            probabilities: answer.probabilities.to_vec(),
            rate_nats: answer.rate_nats,
            posterior_entropy_nats: answer.posterior_entropy_nats,
            predictive_entropy_nats: answer.predictive_entropy_nats,
            p,
            decision,
        }
    }

    /// Whether the class may be used.
    pub fn is_accept(&self) -> bool {
        self.decision.is_accept()
    }
}

/// Why a back end gave no answer.
#[derive(Debug)]
pub enum BackendError {
    /// The engine refuses the input.
    Run(RunError),
    /// The float encoder failed.
    Float(String),
    /// The bytes are no picture, or too large a one.
    Picture(PictureError),
    /// The device does not compute as it should; what it says must not be used.
    Fault(String),
}

impl std::fmt::Display for BackendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Run(error) => write!(f, "{error}"),
            Self::Float(why) => write!(f, "tract: {why}"),
            Self::Picture(error) => write!(f, "{error}"),
            Self::Fault(why) => write!(f, "fault: {why}"),
        }
    }
}

impl std::error::Error for BackendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Run(error) => error.source(),
            Self::Picture(error) => error.source(),
            Self::Float(_) | Self::Fault(_) => None,
        }
    }
}

/// A loaded model that answers.
pub trait Backend: Send {
    /// Which implementation this is.
    fn kind(&self) -> BackendKind;

    /// Calls `read` with the model, which holds labels, thresholds, tables and the image policy.
    fn with_model(&self, read: &mut dyn FnMut(&Model));

    /// Runs one u8 HWC input and calls `read` with the answer.
    ///
    /// # Errors
    /// If the input has the wrong length or the back end fails.
    fn answer(&mut self, input: &[u8], read: &mut dyn FnMut(&Model, &Answer)) -> Result<(), BackendError>;

    /// Runs one input and decides by a rule, the model's own where `None`.
    ///
    /// # Errors
    /// If the input has the wrong length or the back end fails.
    fn verdict(&mut self, input: &[u8], rule: Option<&Rule>) -> Result<Verdict, BackendError> {
        let mut verdict = None;
        self.answer(input, &mut |model, answer| {
            verdict = Some(match rule {
                Some(rule) => Verdict::new(model, answer, rule),
                None => Verdict::new(model, answer, &Rule::of(model)),
            });
        })?;
        verdict.ok_or_else(|| BackendError::Float("no answer".into()))
    }

    /// The model's input for a picture: u8 HWC, by the bundle's own image policy.
    ///
    /// # Errors
    /// If the bytes are no picture, not all of one, or too large a one.
    fn input(&self, bytes: &[u8]) -> Result<Vec<u8>, PictureError> {
        let mut input = Ok(Vec::new());
        self.with_model(&mut |model| {
            input = paradise_picture::input(bytes, &model.header().policy, model.header().input);
        });
        input
    }

    /// The way of every served picture: its bytes to the model's input to a verdict.
    ///
    /// # Errors
    /// If the bytes are no picture or the back end fails.
    fn picture(&mut self, bytes: &[u8], rule: Option<&Rule>) -> Result<Verdict, BackendError> {
        let input = self.input(bytes).map_err(BackendError::Picture)?;
        self.verdict(&input, rule)
    }
}

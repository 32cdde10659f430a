//! What a model says of the pictures of a site, one after the other.

use super::made::SOURCES;
use super::report::{Count, Report};
use super::{Options, Site, SiteError, fit};
use crate::bundle::hex;
use crate::pipeline::{Backend, BackendError};
use paradise_engine::inference::Evidence;
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// A picture as the model sees it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub name: String,
    pub evidence: Evidence,
    pub predictive_entropy_nats: f32,
    pub class: usize,
    /// Whether the maker's thresholds accept it.
    pub accepted: bool,
    pub label: Option<usize>,
}

impl Seen {
    /// Runs the model on one input.
    pub fn of(
        backend: &mut dyn Backend,
        name: &str,
        input: &[u8],
        label: Option<usize>,
    ) -> Result<Self, BackendError> {
        let mut seen = None;
        backend.answer(input, &mut |_, answer| {
            seen = Some(Self {
                name: name.into(),
                evidence: answer.evidence(),
                predictive_entropy_nats: answer.predictive_entropy_nats,
                class: answer.class,
                accepted: answer.decision.is_accept(),
                label,
            });
        })?;
        seen.ok_or_else(|| BackendError::Float("no answer".into()))
    }
}

/// The pictures of a site.
///
/// ```
/// use paradise_runtime::site::{Observations, Options, SiteError};
/// use paradise_runtime::{BackendKind, Bundle, load};
/// # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/fashion-mnist-small");
/// let mut model = load(&Bundle::open(&folder)?, BackendKind::Int8)?;
/// let mut pictures = Observations::new(model.as_ref());
/// assert!(pictures.add(model.as_mut(), "black", &[0; 28 * 28], None)?);
/// assert!(!pictures.add(model.as_mut(), "the same", &[0; 28 * 28], None)?);
/// let refused = pictures.calibrate(model.as_mut(), &Options::default()).unwrap_err();
/// assert!(matches!(refused, SiteError::TooFew { need: 200, got: 1 }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Observations {
    pub(super) model: String,
    pub(super) model_sha256: String,
    pub(super) seen: Vec<Seen>,
    pub(super) repeated: usize,
    /// The first inputs, of which foreign ones are made.
    pub(super) sources: Vec<Vec<u8>>,
    digests: HashSet<[u8; 32]>,
}

impl Observations {
    /// No picture yet, for the model of this back end.
    pub fn new(backend: &dyn Backend) -> Self {
        let (mut model, mut model_sha256) = (String::new(), String::new());
        backend.with_model(&mut |m| (model, model_sha256) = (m.header().name.to_string(), hex(&m.hash())));
        Self { model, model_sha256, seen: vec![], repeated: 0, sources: vec![], digests: HashSet::new() }
    }

    /// Pictures so far, each counted once.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Adds an input u8 `[h][w][c]`, and its class where that is known; false if the same was there before.
    ///
    /// # Errors
    /// If the input has the wrong length or the back end fails.
    pub fn add(
        &mut self,
        backend: &mut dyn Backend,
        name: &str,
        input: &[u8],
        label: Option<usize>,
    ) -> Result<bool, BackendError> {
        // A camera that stands still delivers the same frame a thousand times, which is one picture and not a thousand.
        if !self.digests.insert(Sha256::digest(input).into()) {
            self.repeated += 1;
            return Ok(false);
        }
        self.seen.push(Seen::of(backend, name, input, label)?);
        if self.sources.len() < SOURCES {
            self.sources.push(input.to_vec());
        }
        Ok(true)
    }

    /// How many the maker's thresholds abstain from.
    pub fn abstained(&self) -> Count {
        Count::of(self.seen.iter().map(|seen| !seen.accepted))
    }

    /// The site, and what was found.
    ///
    /// # Errors
    /// If there are too few pictures, the model is not made for them, or noise among them would be made acceptable.
    pub fn calibrate(&self, backend: &mut dyn Backend, options: &Options) -> Result<(Site, Report), SiteError> {
        fit::fit(self, backend, options)
    }
}

//! What decides about answers: thresholds, and whose pictures the p-values compare with.

use crate::site::Site;
use paradise_engine::calibration::Tables;
use paradise_engine::{Answer, Decision, Model, PValues, Thresholds};
use std::sync::Arc;

/// Thresholds, over the maker's calibration images or over those of the place where the device stands.
///
/// ```
/// use paradise_runtime::{BackendKind, Bundle, Rule, load};
/// use paradise_engine::Thresholds;
/// # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/fashion-mnist-small");
/// let mut model = load(&Bundle::open(&folder)?, BackendKind::Int8)?;
/// let trusting = Rule::from(Thresholds::NEVER);
/// assert!(model.verdict(&[0; 28 * 28], Some(&trusting))?.is_accept());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Rule {
    thresholds: Thresholds,
    site: Option<Arc<Site>>,
}

impl Rule {
    /// The model's own.
    pub fn of(model: &Model) -> Self {
        Self::from(model.header().thresholds)
    }

    /// The same with other thresholds.
    pub fn with(self, thresholds: Thresholds) -> Self {
        Self { thresholds, ..self }
    }

    /// When it abstains.
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// Whose pictures it compares with, where they are not the maker's.
    pub fn site(&self) -> Option<&Site> {
        self.site.as_deref()
    }

    /// What answers are compared with, where it is not what the model holds.
    pub fn tables(&self) -> Option<&Tables<'_>> {
        self.site.as_deref().map(Site::tables)
    }

    /// CRC-32 of the numbers in memory that it decides by.
    pub fn sum(&self) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        // Each field by its name, so that none is forgotten.
        sum.update(format!("{:?}", self.thresholds).as_bytes());
        if let Some(site) = &self.site {
            site.add_to(&mut sum);
        }
        sum.finalize()
    }

    /// What the pictures say of an answer, and what follows.
    pub fn judge(&self, answer: &Answer) -> (PValues, Decision) {
        let p = match &self.site {
            Some(site) => site.p_values(answer.evidence(), answer.predictive_entropy_nats),
            None => answer.p,
        };
        (p, Decision::new(&self.thresholds, &p, answer.predictive_entropy_nats))
    }
}

impl From<Thresholds> for Rule {
    /// Over the maker's calibration images.
    fn from(thresholds: Thresholds) -> Self {
        Self { thresholds, site: None }
    }
}

impl From<Site> for Rule {
    fn from(site: Site) -> Self {
        Arc::new(site).into()
    }
}

impl From<Arc<Site>> for Rule {
    fn from(site: Arc<Site>) -> Self {
        Self { thresholds: *site.thresholds(), site: Some(site) }
    }
}

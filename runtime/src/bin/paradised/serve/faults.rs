//! What the service remembers of faults, and writes down of what mattered.

use super::lock::locked;
use anyhow::Context;
use jiff::Timestamp;
use paradise_runtime::watch::{Fault, Journal, Latch};
use std::path::Path;
use std::sync::Mutex;

/// A fault was found in a model, here or before a restart.
#[derive(Debug)]
pub struct Latched(pub String);

impl std::fmt::Display for Latched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Latched {}

/// Latch and journal.
pub struct Faults {
    latch: Mutex<Latch>,
    journal: Option<Mutex<Journal>>,
}

impl Faults {
    /// As a folder remembers; without one, nothing outlives the program.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn open(folder: Option<&Path>) -> anyhow::Result<Self> {
        // The folder alone: a path that is misspelt is an error, not a tree of folders.
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            std::fs::create_dir(folder).with_context(|| folder.display().to_string())?;
        }
        let journal = folder.map(Journal::open).transpose()?.map(Mutex::new);
        Ok(Self { latch: Mutex::new(Latch::open(folder)?), journal })
    }

    /// Writes down what happened; a full disk does not stop the service.
    pub fn note(&self, event: &str, model: &str, detail: &str) {
        if let Some(journal) = &self.journal
            && let Err(error) = locked(journal).add(Timestamp::now(), event, model, detail)
        {
            tracing::error!("the journal misses {event:?} ({detail}): {error}");
        }
    }

    /// Latches a model's fault.
    pub fn latch(&self, model: &str, version: &str, why: &str) {
        tracing::error!("{model} {version}: FAULT: {why}");
        let fault = Fault { at: Timestamp::now(), version: version.into(), why: why.into() };
        if let Err(error) = locked(&self.latch).set(model, fault) {
            tracing::error!("the fault is forgotten by the next start: {error}");
        }
        self.note("fault", model, &format!("version {version}: {why}"));
    }

    /// Whether a model may serve.
    ///
    /// # Errors
    /// Its fault.
    pub fn none(&self, model: &str) -> Result<(), Latched> {
        let latch = locked(&self.latch);
        latch.of(model).map_or(Ok(()), |Fault { at, version, why }| {
            Err(Latched(format!(
                "{model}: fault latched at {at:.0} in version {version}: {why}. When the device has been looked at: DELETE \
                 /v1/faults?model={model}, or `paradised faults --clear {model}` while the service is stopped"
            )))
        })
    }

    /// All faults, by model.
    pub fn all(&self) -> Vec<(String, Fault)> {
        locked(&self.latch).all().map(|(model, fault)| (model.to_string(), fault.clone())).collect()
    }

    /// Ends a model's fault; whether it had one.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn clear(&self, model: &str) -> std::io::Result<bool> {
        let had = locked(&self.latch).clear(model)?;
        if had {
            self.note("clear", model, "the fault was cleared");
        }
        Ok(had)
    }
}

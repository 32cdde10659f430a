//! Faults that a restart does not end: a model that a fault was found in serves again when somebody has looked and says so.

use crate::files;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// The file's format.
const FORMAT: u32 = 1;
/// The file, in the folder of what is remembered.
const FILE: &str = "faults.json";

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When.
    pub at: Timestamp,
    /// The version that served.
    pub version: String,
    /// What is wrong.
    pub why: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Latched {
    format: u32,
    faults: BTreeMap<String, Fault>,
}

/// The faults, by model; in a file where there is a folder for what is remembered, else until the program ends.
#[derive(Debug)]
pub struct Latch {
    path: Option<PathBuf>,
    latched: Latched,
}

impl Latch {
    /// Reads what a folder remembers.
    ///
    /// # Errors
    /// With the path: what cannot be read must not count as no fault.
    pub fn open(folder: Option<&Path>) -> Result<Self> {
        let Some(path) = folder.map(|folder| folder.join(FILE)) else {
            return Ok(Self { path: None, latched: Latched { format: FORMAT, ..Latched::default() } });
        };
        let at =
            |why: &dyn std::fmt::Display| Error::new(ErrorKind::InvalidData, format!("{}: {why}", path.display()));
        let latched = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| at(&e))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Latched { format: FORMAT, ..Latched::default() },
            Err(error) => return Err(at(&error)),
        };
        if latched.format != FORMAT {
            return Err(at(&format!("format {}", latched.format)));
        }
        Ok(Self { path: Some(path), latched })
    }

    /// All faults, by model.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Fault)> {
        self.latched.faults.iter().map(|(model, fault)| (model.as_str(), fault))
    }

    /// A model's fault.
    pub fn of(&self, model: &str) -> Option<&Fault> {
        self.latched.faults.get(model)
    }

    /// Latches a fault; the first of a model stays. It holds in memory even if it cannot be written.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set(&mut self, model: &str, fault: Fault) -> Result<()> {
        self.latched.faults.entry(model.to_string()).or_insert(fault);
        self.write()
    }

    /// Ends a model's fault; whether it had one.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn clear(&mut self, model: &str) -> Result<bool> {
        let had = self.latched.faults.remove(model).is_some();
        if had {
            self.write()?;
        }
        Ok(had)
    }

    fn write(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let text = serde_json::to_vec_pretty(&self.latched)?;
        files::replace(path, &text).map_err(|e| Error::new(e.kind(), format!("{}: {e}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_outlives_the_program_until_it_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let fault = |why: &str| Fault { at: Timestamp::UNIX_EPOCH, version: "1".into(), why: why.into() };
        let mut latch = Latch::open(Some(folder.path())).unwrap();
        assert!(latch.of("net").is_none());
        latch.set("net", fault("first")).unwrap();
        latch.set("net", fault("second")).unwrap();
        let mut again = Latch::open(Some(folder.path())).unwrap();
        assert_eq!(again.of("net"), Some(&fault("first")));
        assert!(again.of("other").is_none() && again.all().count() == 1);
        assert!(again.clear("net").unwrap() && !again.clear("net").unwrap());
        assert!(Latch::open(Some(folder.path())).unwrap().of("net").is_none());
        for wrong in ["", "{", "{}", r#"{"format":2,"faults":{}}"#, r#"{"format":1,"faults":{"a":3}}"#] {
            std::fs::write(folder.path().join(FILE), wrong).unwrap();
            let error = Latch::open(Some(folder.path())).unwrap_err().to_string();
            assert!(error.contains("faults.json"), "{wrong}: {error}");
        }
    }

    #[test]
    fn without_a_folder_it_holds_as_long_as_the_program() {
        let mut latch = Latch::open(None).unwrap();
        latch.set("net", Fault { at: Timestamp::UNIX_EPOCH, version: "1".into(), why: "w".into() }).unwrap();
        assert!(latch.of("net").is_some() && Latch::open(None).unwrap().of("net").is_none());
        let gone = Path::new("/no/such/folder");
        let mut latch = Latch::open(Some(gone)).unwrap();
        let fault = Fault { at: Timestamp::UNIX_EPOCH, version: "1".into(), why: "w".into() };
        assert!(latch.set("net", fault).is_err() && latch.of("net").is_some());
    }
}

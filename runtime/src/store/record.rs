//! What a device remembers of a model across restarts: which version serves, which served before, which was the newest ever, which
//! were refused. One file a model, replaced whole.

use super::Version;
use crate::files;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// The format that this build reads and writes.
const FORMAT: u32 = 1;
/// Ends of the process after which a version that was just taken into service is given up.
pub const MOST_CRASHES: u32 = 2;

/// The record of a model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    /// What serves.
    pub current: Option<Version>,
    /// What served before it.
    pub previous: Option<Version>,
    /// The newest that ever served: nothing older is taken into service again, but for `previous` in a roll-back.
    pub highest: Option<Version>,
    /// Versions that were refused, with their bundles' fingerprints, and why.
    #[serde(default)]
    pub refused: BTreeMap<String, String>,
    /// Whether what serves has served long enough.
    #[serde(default)]
    pub proven: bool,
    /// What is being taken into service or on probation, and how often that was begun.
    pub trying: Option<(Version, u32)>,
    /// The latest day on which a version was taken into service: a clock that has gone back does not make what had expired by then new
    /// again. One that goes ahead by mistake leaves no mark, unless a bundle was still new then.
    pub seen: Option<Date>,
}

impl Record {
    /// Reads a model's record; an empty one if there is none.
    ///
    /// # Errors
    /// With the path, if it cannot be read or is not one: what cannot be read must not be forgotten silently.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self { format: FORMAT, ..Self::default() });
            }
            Err(error) => return Err(Error::new(error.kind(), format!("{}: {error}", path.display()))),
        };
        let wrong = |why: String| Error::new(ErrorKind::InvalidData, format!("{}: {why}", path.display()));
        let record: Self = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("not a record: {e}")))?;
        if record.format == FORMAT { Ok(record) } else { Err(wrong(format!("format {}", record.format))) }
    }

    /// Writes it in the old one's place, synced.
    ///
    /// # Errors
    /// With the path.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        files::replace(path, &text).map_err(|e| Error::new(e.kind(), format!("{}: {e}", path.display())))
    }

    /// Today, or the latest day that was seen.
    pub fn today(&self, clock: Date) -> Date {
        self.seen.map_or(clock, |seen| seen.max(clock))
    }

    /// Whether a version may be tried: no older than the newest that ever served, or what serves, or what served before it.
    pub fn allows(&self, version: &Version) -> bool {
        self.highest.as_ref().is_none_or(|highest| version >= highest)
            || [&self.current, &self.previous].into_iter().flatten().any(|known| known == version)
    }

    /// A version is about to be tried. Whether the process has ended too often when it was, and there is one to go back to.
    pub fn begin(&mut self, version: &Version) -> bool {
        if self.proven && self.current.as_ref() == Some(version) {
            return false;
        }
        let times = match &self.trying {
            Some((tried, times)) if tried == version => times + 1,
            _ => 1,
        };
        self.trying = Some((version.clone(), times));
        times > MOST_CRASHES && [&self.current, &self.previous].into_iter().flatten().any(|other| other != version)
    }

    /// A version serves, from this day on.
    pub fn accept(&mut self, version: &Version, day: Date) {
        self.seen = Some(self.today(day));
        if self.current.as_ref() != Some(version) {
            self.proven = false;
            self.previous = self.current.take().filter(|before| before < version).or(self.previous.take());
            self.current = Some(version.clone());
        }
        if self.previous.as_ref() == Some(version) {
            self.previous = None;
        }
        if self.highest.as_ref().is_none_or(|highest| version > highest) {
            self.highest = Some(version.clone());
        }
    }

    /// A version has served long enough.
    pub fn prove(&mut self) {
        (self.trying, self.proven) = (None, true);
    }

    /// Why a version was refused as this bundle, if it was.
    pub fn why_refused(&self, version: &Version, bundle: &str) -> Option<&str> {
        self.refused.get(&format!("{version} {bundle}")).map(String::as_str)
    }

    /// A version is not tried again until it is another bundle.
    pub fn refuse(&mut self, version: &Version, bundle: &str, why: String) {
        self.refused.insert(format!("{version} {bundle}"), format!("{version}: {why}"));
        if self.trying.as_ref().is_some_and(|(tried, _)| tried == version) {
            self.trying = None;
        }
    }
}

/// Where a model's record lies.
pub fn path(folder: &Path, model: &str) -> PathBuf {
    folder.join(format!("{model}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_older_never_serves_again_but_what_served_before() {
        let mut record = Record::default();
        for version in ["1", "2", "3"] {
            assert!(record.allows(&v(version)));
            record.accept(&v(version), day("2026-11-29"));
        }
        assert_eq!(
            (&record.current, &record.previous, &record.highest),
            (&Some(v("3")), &Some(v("2")), &Some(v("3")))
        );
        assert!(record.allows(&v("3")) && record.allows(&v("2")) && record.allows(&v("4")));
        assert!(!record.allows(&v("1")) && !record.allows(&v("2.5")));
        // Rolled back: the newest stays known.
        record.accept(&v("2"), day("2026-11-29"));
        assert_eq!((&record.current, &record.highest), (&Some(v("2")), &Some(v("3"))));
        assert!(!record.allows(&v("2.5")) && record.allows(&v("3")) && record.allows(&v("3.1")));
    }

    #[test]
    fn two_ends_of_the_process_are_too_many() {
        let mut record = Record::default();
        record.accept(&v("1"), day("2026-11-29"));
        // There is no other to go back to.
        assert!((0..9).all(|_| !record.begin(&v("1"))));
        record.prove();
        assert!(!record.begin(&v("2")) && !record.begin(&v("2")) && record.begin(&v("2")));
        record.refuse(&v("2"), "bundle", "it ended the process".into());
        assert!(record.why_refused(&v("2"), "bundle").is_some() && record.trying.is_none());
        assert!(record.why_refused(&v("1"), "bundle").is_none() && record.why_refused(&v("2"), "another").is_none());
        // What has served long enough is not given up because the power fails thrice.
        assert!((0..9).all(|_| !record.begin(&v("1"))));
        record.accept(&v("3"), day("2026-11-29"));
        assert!(!record.proven && !record.begin(&v("3")) && !record.begin(&v("3")) && record.begin(&v("3")));
    }

    #[test]
    fn a_clock_that_goes_back_is_not_believed() {
        let mut record = Record::default();
        assert_eq!(record.today(day("2099-01-01")), day("2099-01-01"));
        record.accept(&v("1"), day("2026-11-29"));
        assert_eq!(record.today(day("1970-01-01")), day("2026-11-29"));
        assert_eq!(record.today(day("2027-01-01")), day("2027-01-01"));
        record.accept(&v("2"), day("1970-01-01"));
        assert_eq!(record.seen, Some(day("2026-11-29")));
    }

    #[test]
    fn records_come_back_and_what_is_none_is_said_so() {
        let folder = tempfile::tempdir().unwrap();
        let at = path(folder.path(), "net");
        let mut record = Record::read(&at).unwrap();
        record.accept(&v("1.2"), day("2026-11-29"));
        record.begin(&v("1.3"));
        record.refuse(&v("9"), "aa", "why".into());
        record.write(&at).unwrap();
        assert_eq!(Record::read(&at).unwrap(), record);
        for wrong in ["", "{", "{}", r#"{"format":2}"#, r#"{"format":1,"current":"x"}"#] {
            std::fs::write(&at, wrong).unwrap();
            assert!(Record::read(&at).unwrap_err().to_string().contains("net.json"), "{wrong}");
        }
    }
}

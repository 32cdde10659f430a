//! The place where a device stands: thresholds and calibration values from its own, unlabelled pictures, in one file that belongs
//! to one model.
//!
//! ```text
//! local pictures --Observations--> evidence by the model --strays--> without what is foreign --fit--> Site + Report
//! site.toml --Site::read--> checked, of this model --> Rule
//! ```

mod error;
mod fit;
mod looks;
mod made;
mod observations;
mod report;
mod strays;

pub use error::SiteError;
pub use fit::{MIN_PICTURES, Options};
pub use observations::Observations;
pub use report::{Count, Report, Shares};

use crate::bundle::hex;
use crate::files;
use crate::tables::{OwnTables, TableError, Values};
use looks::Looks;
use paradise_engine::calibration::Tables;
use paradise_engine::inference::Evidence;
use paradise_engine::{FormatError, Model, PValues, Thresholds};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;

/// The format that this build reads and writes.
const FORMAT: u32 = 1;
/// Largest site file, bytes; one is about 30 KiB.
pub const MAX_SITE: u64 = 1 << 20;

/// A site file, field by field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// [`FORMAT`].
    format: u32,
    /// Name of the model.
    model: String,
    /// SHA-256 of its `model.pmq`.
    model_sha256: String,
    /// Pictures that were calibrated on.
    pictures: u32,
    /// Share of ordinary local pictures that may be abstained from, per cent.
    promised_percent: f64,
    /// Where that share lies for further pictures of this place, with 95 % probability, per cent.
    expected_percent: [f64; 2],
    /// When to abstain.
    thresholds: Thresholds,
    /// What the pictures look like.
    looks: Looks,
    /// What the pictures gave.
    tables: Values,
}

/// Thresholds and calibration values of the place where a device stands.
///
/// ```
/// use paradise_runtime::site::Site;
/// let refused = Site::parse("format = 1").unwrap_err();
/// assert!(refused.to_string().contains("model"));
/// ```
pub struct Site {
    file: File,
    tables: OwnTables,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("model", &self.file.model).field("pictures", &self.file.pictures).finish()
    }
}

impl Site {
    fn new(file: File) -> Result<Self, SiteError> {
        let tables = OwnTables::new(&file.tables).map_err(SiteError::Table)?;
        let few = file.tables.all().into_iter().find(|(_, kept)| kept.n != file.pictures);
        if let Some((table, _)) = few {
            let why = FormatError::Invalid("it is not of all pictures");
            return Err(SiteError::Table(TableError { table, why }));
        }
        file.looks.check()?;
        if !file.thresholds.is_valid() {
            return Err(SiteError::Text("a threshold is out of range".into()));
        }
        Ok(Self { file, tables })
    }

    /// A site from the text of its file.
    ///
    /// # Errors
    /// If it is not such a text, of another version, or a value in it is not possible.
    pub fn parse(text: &str) -> Result<Self, SiteError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let wrong = |e: toml::de::Error| SiteError::Text(e.message().to_string());
        let Version { format } = toml::from_str(text).map_err(wrong)?;
        if format != FORMAT {
            return Err(SiteError::Version { need: FORMAT, got: format });
        }
        Self::new(toml::from_str(text).map_err(wrong)?)
    }

    /// Reads a site file that belongs to `model`.
    ///
    /// # Errors
    /// With the path, if it cannot be read, is no site file, or belongs to another model.
    pub fn read(path: &Path, model: &Model) -> Result<Self, SiteError> {
        let at = |why: SiteError| SiteError::At(path.to_path_buf(), Box::new(why));
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(|e| at(SiteError::Io(e)))?;
        let read = file.take(MAX_SITE + 1).read_to_string(&mut text).map_err(|e| at(SiteError::Io(e)))?;
        if read as u64 > MAX_SITE {
            return Err(at(SiteError::TooLarge));
        }
        let site = Self::parse(&text).map_err(at)?;
        site.belongs_to(model).map_err(at)?;
        Ok(site)
    }

    /// Checks that it was made with this model.
    ///
    /// # Errors
    /// With both models' hashes if not.
    pub fn belongs_to(&self, model: &Model) -> Result<(), SiteError> {
        let here = hex(&model.hash());
        if self.file.model_sha256 == here {
            return Ok(());
        }
        Err(SiteError::OtherModel { name: self.file.model.clone(), need: self.file.model_sha256.clone(), got: here })
    }

    /// The text of its file.
    ///
    /// # Errors
    /// If a number has no form in TOML.
    pub fn text(&self) -> Result<String, SiteError> {
        let body = toml::to_string(&self.file).map_err(|e| SiteError::Text(e.to_string()))?;
        Ok(format!(
            "# Written by `paradised calibrate`, for `paradised ... --site`. It fits one model and one place.\n{body}"
        ))
    }

    /// Writes its file, whole or not at all.
    ///
    /// # Errors
    /// With the path, if it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), SiteError> {
        let at = |why: SiteError| SiteError::At(path.to_path_buf(), Box::new(why));
        files::replace(path, self.text().map_err(at)?.as_bytes()).map_err(|e| at(SiteError::Io(e)))
    }

    /// When to abstain here.
    pub fn thresholds(&self) -> &Thresholds {
        &self.file.thresholds
    }

    /// What this site's pictures say of an answer: its picture is compared with theirs, its posterior with the training images' as
    /// theirs were.
    pub fn p_values(&self, mut evidence: Evidence, predictive_entropy_nats: f32) -> PValues {
        evidence.distances.picture = self.file.looks.distance(&evidence.appearance);
        evidence.p_values(self.tables.tables(), predictive_entropy_nats)
    }

    /// What answers are compared with.
    pub fn tables(&self) -> &Tables<'_> {
        self.tables.tables()
    }

    /// Adds the numbers in memory that it decides by to a sum.
    pub(crate) fn add_to(&self, sum: &mut crc32fast::Hasher) {
        sum.update(format!("{:?}{:?}", self.file.thresholds, self.file.looks).as_bytes());
        self.tables.add_to(sum);
    }

    /// Pictures that were calibrated on.
    pub fn pictures(&self) -> u32 {
        self.file.pictures
    }

    /// Share of ordinary local pictures that may be abstained from, per cent.
    pub fn promised_percent(&self) -> f64 {
        self.file.promised_percent
    }

    /// Where that share lies for further pictures of this place, with 95 % probability, per cent.
    pub fn expected_percent(&self) -> [f64; 2] {
        self.file.expected_percent
    }
}

impl std::fmt::Display for Site {
    /// `600 pictures of this site, 5 % promised (3.4 to 6.8 % expected)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let File { pictures, promised_percent, expected_percent: [low, high], .. } = self.file;
        write!(
            f,
            "{pictures} pictures of this site, {promised_percent} % promised ({low:.1} to {high:.1} % expected)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn site(values: &[f32]) -> Site {
        let looks = Looks::of([[0.1f32, -2.0, -3.0, -3.0, -1.0], [0.4, -1.0, -2.0, -2.5, -1.2]].iter());
        let file = File {
            format: FORMAT,
            model: "one \"of\" ours".into(),
            model_sha256: "ab".repeat(32),
            pictures: values.len() as u32,
            promised_percent: 5.0,
            expected_percent: [3.0, 7.0],
            thresholds: Thresholds { combined_p_min: 0.04, ..Thresholds::NEVER },
            looks,
            tables: Values::of([values; 7]),
        };
        Site::new(file).unwrap()
    }

    proptest! {
        #[test]
        fn a_file_is_read_as_it_was_written(values in proptest::collection::vec(-1e9f32..1e9, 1..700)) {
            let site = site(&values);
            prop_assert_eq!(Site::parse(&site.text().unwrap()).unwrap().file, site.file);
        }

        #[test]
        fn no_text_panics(at in any::<proptest::sample::Index>(), with in "[-a-z0-9.=\\[\\]\"\n]{0,4}", cut in 0usize..4) {
            let text = site(&[1.0, 2.5, 3.0]).text().unwrap();
            let at = at.index(text.len());
            let end = (at + cut).min(text.len());
            // Refused or another site: never a panic.
            let _ = Site::parse(&[&text[..at], &with, &text[end..]].concat());
        }
    }
}

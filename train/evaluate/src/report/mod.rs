//! The report of an evaluation: JSON for programs, Markdown for commits, one HTML page for people.

mod compare;
mod html;
mod markdown;
mod pictures;

use crate::abstention::Abstention;
use crate::confidence::Quality;
use crate::masking::Checks;
use crate::plan::Plan;
use crate::radius::Radius;
use anyhow::{Context, Result};
use paradise_attack::Outcome;
use paradise_data::Dataset;
use paradise_support::files;
use paradise_support::statistics::Proportion;
use serde::{Deserialize, Serialize};
use std::path::Path;

pub use compare::compare;
pub use pictures::{Picture, curves};

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this program.
    pub paradise: String,
    /// What was evaluated.
    pub plan: Plan,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Clean accuracy.
    pub clean: Proportion,
    /// A table a radius.
    pub radii: Vec<Radius>,
    /// The masking checks, at the first radius.
    pub checks: Option<Checks>,
    /// Whose confidence was measured, `float` or `int8`.
    #[serde(alias = "respondent")]
    pub confidence_of: String,
    /// What confidence is worth.
    pub confidence: Option<Quality>,
    /// Abstention under attack, at the first radius.
    pub abstention: Option<Abstention>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

impl Report {
    /// The verdict of the masking checks, in a line.
    pub fn masking(&self) -> String {
        self.checks.as_ref().map_or_else(|| "not run".into(), Checks::verdict)
    }

    /// The report in an evaluation's folder.
    ///
    /// # Errors
    /// With the path, if it is missing or damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("report.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{}: not a report of this version", path.display()))
    }

    /// The tables as Markdown.
    pub fn markdown(&self) -> String {
        markdown::write(self)
    }

    /// Writes `report.json`, `report.md` and `report.html`; `worst` is the per-image worst case at the first radius, and
    /// `classes` what the model says of those images on the 8-bit grid.
    ///
    /// # Errors
    /// If a picture cannot be drawn or a file not written.
    pub fn write(&self, folder: &Path, set: &Dataset, worst: &Outcome, classes: &[u16]) -> Result<()> {
        let pictures = pictures::draw(self, set, worst, classes)?;
        files::write(&folder.join("report.json"), serde_json::to_string_pretty(self)?.as_bytes())?;
        files::write(&folder.join("report.md"), self.markdown().as_bytes())?;
        files::write(&folder.join("report.html"), html::write(self, &pictures).as_bytes())
    }
}

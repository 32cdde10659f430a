//! Where events and pictures go: `[events]`, `[[webhook]]`, `[pins]`, `[[folder]]`, `[samples]`.

use anyhow::ensure;
use serde::Deserialize;
use std::path::PathBuf;

/// `[events]`: a file to which each event is written, a line of JSON.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// The file; those before it have a number at their end.
    pub file: PathBuf,
    /// Bytes from which another file is begun.
    #[serde(default = "bytes")]
    pub bytes: u64,
    /// Files that are kept beside it.
    #[serde(default = "files")]
    pub files: u32,
}

fn bytes() -> u64 {
    10 << 20
}
fn files() -> u32 {
    5
}

/// `[[webhook]]`: an address to which each event is posted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where to.
    pub url: String,
    /// A file whose first line goes with each as `Authorization: Bearer`.
    pub token: Option<PathBuf>,
    /// Who vouches for its certificate, PEM; the usual authorities if nothing is said.
    pub ca: Option<PathBuf>,
}

/// `[pins]`: GPIO lines, by their names, that say how a camera stands.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// Which camera; needed where there are several.
    pub camera: Option<String>,
    /// High while a class is known.
    pub accept: String,
    /// High while nothing is known.
    pub abstain: String,
    /// High while there is no camera.
    pub fault: String,
    /// Changes each half second as long as the service answers.
    pub heartbeat: Option<String>,
}

/// `[[folder]]`: what is moved into it is classified once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    /// The folder.
    pub path: PathBuf,
    /// The model that is asked; needed where there are several.
    pub model: Option<String>,
    /// A file to which answers are written, a line of JSON each [default: NAME.json beside each picture].
    pub journal: Option<PathBuf>,
}

/// `[samples]`: keeps pictures that were abstained from, or had a low margin.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Samples {
    /// Where.
    pub folder: PathBuf,
    /// Most bytes; the oldest give way.
    #[serde(default = "sample_bytes")]
    pub bytes: u64,
    /// Most days.
    #[serde(default = "sample_days")]
    pub days: u32,
    /// A picture is hard, too, if the two most probable classes are closer than this.
    #[serde(default = "margin")]
    pub margin: f32,
    /// Of each source at most one in so many seconds.
    #[serde(default = "between")]
    pub between_seconds: u64,
}

fn sample_bytes() -> u64 {
    100 << 20
}
fn sample_days() -> u32 {
    30
}
fn margin() -> f32 {
    0.2
}
fn between() -> u64 {
    10
}

impl Samples {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.bytes >= 1 << 10, "bytes {}: at least 1024", self.bytes);
        ensure!((1..=36_500).contains(&self.days), "days {}: 1 to 36500", self.days);
        ensure!((0.0..=1.0).contains(&self.margin), "margin {}: 0 to 1", self.margin);
        Ok(())
    }
}

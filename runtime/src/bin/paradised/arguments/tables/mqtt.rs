//! `[mqtt]`.

use super::{is_name, is_topic};
use anyhow::ensure;
use serde::Deserialize;
use std::path::PathBuf;

/// `[mqtt]`: a broker that is told of each event, and that says what to do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// `mqtt://HOST[:PORT]`, or `mqtts://HOST[:PORT]` for TLS.
    pub broker: String,
    /// What this device is called [default: the machine's name].
    pub device: Option<String>,
    /// By what the broker knows it again [default: paradised-DEVICE].
    pub client_id: Option<String>,
    /// Topics are BASE/DEVICE/...
    #[serde(default = "base")]
    pub base: String,
    /// Who it is, where the broker wants to know.
    pub user: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// Who vouches for the broker's certificate, PEM [default: whom the machine trusts].
    pub ca: Option<PathBuf>,
    /// Under what Home Assistant finds it; empty: not at all.
    #[serde(default = "homeassistant")]
    pub homeassistant: String,
    /// Whether the picture that turned a camera is published, too.
    #[serde(default)]
    pub pictures: bool,
    /// Answers requests on BASE/requests as one of the group of this name.
    pub share: Option<String>,
    /// Events that wait while the broker is gone.
    #[serde(default = "waiting")]
    pub waiting: usize,
    /// Largest message that is taken.
    #[serde(default = "max_bytes")]
    pub max_bytes: u32,
}

fn base() -> String {
    "paradise".into()
}
fn homeassistant() -> String {
    "homeassistant".into()
}
fn waiting() -> usize {
    1000
}
fn max_bytes() -> u32 {
    16 << 20
}

impl Mqtt {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        crate::serve::address(&self.broker)?;
        ensure!(is_topic(&self.base), "base {:?}: a topic without + and #", self.base);
        for (what, name) in [("device", &self.device), ("client_id", &self.client_id), ("share", &self.share)] {
            let fits = name.as_deref().is_none_or(is_name);
            ensure!(fits, "{what} {:?}: 1 to 64 letters, digits, - and _", name.as_deref().unwrap_or_default());
        }
        ensure!(self.homeassistant.is_empty() || is_topic(&self.homeassistant), "homeassistant: a topic, or nothing");
        ensure!((1..=1_000_000).contains(&self.waiting), "waiting {}: 1 to 1000000", self.waiting);
        ensure!((1024..=256 << 20).contains(&self.max_bytes), "max_bytes {}: 1024 to {}", self.max_bytes, 256 << 20);
        Ok(())
    }
}

//! `[[camera]]`.

use super::{is_http, is_name, is_topic};
use anyhow::{bail, ensure};
use paradise_runtime::camera::region::Region;
use paradise_runtime::camera::standing::Terms;
use paradise_runtime::camera::{gate, observer};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// `[[camera]]`: where pictures come from, and how they are looked at.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Camera {
    /// What it is called: letters, digits, - and _.
    pub name: String,
    /// The model that is asked; needed where there are several.
    pub model: Option<String>,
    /// `http(s)://` of a snapshot, `mjpeg+http(s)://` of a stream, `v4l2:/dev/video0`, `mqtt:TOPIC`.
    #[serde(default)]
    pub source: String,
    /// Instead: a program and its arguments, whose standard output is JPEG pictures one after the other.
    #[serde(default)]
    pub command: Vec<String>,
    /// Between two pictures: a snapshot is fetched so often, and a camera that is silent for twice as long is unavailable.
    #[serde(default = "interval")]
    pub interval_ms: u64,
    /// The part that is looked at, [x, y, width, height] in pixels of the picture as it comes; all of it if nothing is said.
    pub region: Option<Region>,
    /// When a picture is classified without being asked for: `motion` in the region, `always`, or `never`.
    #[serde(default)]
    pub trigger: Trigger,
    /// A GPIO line by its name: when it rises, the next picture is classified.
    pub trigger_line: Option<String>,
    /// Most inferences a second.
    #[serde(default = "per_second")]
    pub per_second: f64,
    /// Most inferences a second while a change is pending.
    #[serde(default = "hurried")]
    pub per_second_pending: f64,
    /// So many ...
    #[serde(default = "need")]
    pub need: usize,
    /// ... of the last so many answers make a class known.
    #[serde(default = "of")]
    pub of: usize,
    /// A class replaces another if the answers for it give it this probability on average.
    #[serde(default = "sure")]
    pub sure: f32,
    /// An answer that is older is none.
    #[serde(default = "expires")]
    pub expires_ms: u64,
    /// So many equal pictures in a row are a frozen camera; 0: none are.
    #[serde(default = "frozen")]
    pub frozen_pictures: u32,
    /// Who vouches for the camera's certificate, PEM; the usual authorities if nothing is said.
    pub ca: Option<PathBuf>,
}

/// When pictures are classified that nobody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// Something moves in the region; now and then without that, so that answers do not expire.
    #[default]
    Motion,
    /// Each, as often as it may be.
    Always,
    /// Only those that are asked for.
    Never,
}

fn interval() -> u64 {
    1000
}
fn per_second() -> f64 {
    2.0
}
fn hurried() -> f64 {
    10.0
}
fn need() -> usize {
    Terms::default().need
}
fn of() -> usize {
    Terms::default().of
}
fn sure() -> f32 {
    Terms::default().sure
}
fn expires() -> u64 {
    Terms::default().expires.as_millis() as u64
}
fn frozen() -> u32 {
    10
}

impl Camera {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(is_name(&self.name), "a name is 1 to 64 letters, digits, - and _");
        match (self.source.is_empty(), self.command.is_empty()) {
            (true, true) => bail!("where from? source or command"),
            (false, false) => bail!("source and command: one or the other"),
            (false, true) => {
                let is_topic = self.topic().is_some_and(is_topic);
                let is_device = self.source.strip_prefix("v4l2:").is_some_and(|path| path.starts_with('/'));
                ensure!(
                    is_http(self.source.strip_prefix("mjpeg+").unwrap_or(&self.source)) || is_device || is_topic,
                    "source {:?}: there are http:// and https:// (a snapshot), mjpeg+http:// and mjpeg+https:// (a stream), \
                     mqtt:TOPIC and v4l2:/dev/video0",
                    self.source
                );
            }
            (true, false) => {}
        }
        ensure!((20..=3_600_000).contains(&self.interval_ms), "interval_ms {}: 20 to 3600000", self.interval_ms);
        ensure!(self.expires_ms >= 100, "expires_ms {}: at least 100", self.expires_ms);
        for (name, rate) in [("per_second", self.per_second), ("per_second_pending", self.per_second_pending)] {
            ensure!((0.001..=1000.0).contains(&rate), "{name} {rate}: 0.001 to 1000");
        }
        let terms = observer::Observer::new(self.observed(), std::time::Instant::now());
        ensure!(
            terms.is_some(),
            "need {}, of {}, sure {}: 1 <= need <= of <= 16, 0 <= sure < 1",
            self.need,
            self.of,
            self.sure
        );
        Ok(())
    }

    /// The topic on which its pictures come, if they do.
    pub fn topic(&self) -> Option<&str> {
        self.source.strip_prefix("mqtt:")
    }

    /// Between two pictures.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    /// How it is looked at.
    pub fn observed(&self) -> observer::Settings {
        let (need, of, sure, expires) = (self.need, self.of, self.sure, Duration::from_millis(self.expires_ms));
        let refresh = gate::Settings::default().refresh.min(expires / 2);
        observer::Settings {
            gate: (self.trigger == Trigger::Motion).then(|| gate::Settings { refresh, ..gate::Settings::default() }),
            unasked: self.trigger != Trigger::Never,
            per_second: [self.per_second, self.per_second_pending],
            terms: Terms { need, of, sure, expires },
            frozen: self.frozen_pictures,
            silence: 2 * self.interval(),
        }
    }
}

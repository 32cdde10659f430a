//! Tables of the file of settings: cameras and what is told of them, which no flag could say.

use anyhow::{Context, bail, ensure};
use paradise_runtime::camera::region::Region;
use paradise_runtime::camera::standing::Terms;
use paradise_runtime::camera::{gate, observer};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// What the tables say.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tables {
    /// `[[camera]]`.
    pub camera: Vec<Camera>,
    /// `[[webhook]]`.
    pub webhook: Vec<Webhook>,
    /// `[events]`.
    pub events: Option<Events>,
    /// `[mqtt]`.
    pub mqtt: Option<Mqtt>,
    /// `[[folder]]`.
    pub folder: Vec<Folder>,
    /// `[samples]`.
    pub samples: Option<Samples>,
    /// `[pins]`.
    pub pins: Option<Pins>,
}

impl Tables {
    /// Their names.
    pub const NAMES: [&str; 7] = ["camera", "webhook", "events", "mqtt", "folder", "samples", "pins"];

    /// What must be so before anything is opened.
    ///
    /// # Errors
    /// What is not, with the table's name.
    pub fn check(&self) -> anyhow::Result<()> {
        let mut names = std::collections::BTreeSet::new();
        for camera in &self.camera {
            let name = &camera.name;
            camera.check().with_context(|| format!("[[camera]] {name:?}"))?;
            ensure!(names.insert(name), "[[camera]] {name:?}: there are two of that name");
        }
        for Webhook { url, .. } in &self.webhook {
            ensure!(is_http(url), "[[webhook]] {url:?}: an address begins with http:// or https://");
        }
        if let Some(mqtt) = &self.mqtt {
            mqtt.check().context("[mqtt]")?;
        }
        for Folder { path, .. } in &self.folder {
            ensure!(path.is_dir(), "[[folder]] {}: not a folder", path.display());
        }
        if let Some(samples) = &self.samples {
            samples.check().context("[samples]")?;
        }
        if let Some(Pins { camera, .. }) = &self.pins {
            let known = camera.as_ref().is_none_or(|name| self.camera.iter().any(|one| one.name == *name));
            ensure!(known, "[pins] camera {:?}: there is none of that name", camera.as_deref().unwrap_or_default());
            ensure!(camera.is_some() || self.camera.len() < 2, "[pins]: camera = which one do they show?");
        }
        let over = self.camera.iter().find(|camera| camera.topic().is_some());
        if let (Some(camera), None) = (over, &self.mqtt) {
            bail!("[[camera]] {:?}: its pictures come over MQTT, and there is no [mqtt]", camera.name);
        }
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.camera.is_empty()
            && self.webhook.is_empty()
            && self.events.is_none()
            && self.mqtt.is_none()
            && self.folder.is_empty()
            && self.samples.is_none()
            && self.pins.is_none()
    }

    /// Whether programs are run.
    pub fn runs_programs(&self) -> bool {
        self.camera.iter().any(|camera| !camera.command.is_empty())
    }

    /// Devices that are opened.
    pub fn needs_devices(&self) -> bool {
        let any = |camera: &Camera| camera.source.starts_with("v4l2:") || camera.trigger_line.is_some();
        self.pins.is_some() || self.camera.iter().any(any)
    }
}

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

/// Whether a name can stand in a path and in a topic.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

/// Whether messages can be sent there.
fn is_topic(topic: &str) -> bool {
    (1..=1024).contains(&topic.len()) && !topic.contains(['+', '#', '\0'])
}

fn is_http(url: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|host| !host.is_empty()))
}

impl Camera {
    fn check(&self) -> anyhow::Result<()> {
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
    fn check(&self) -> anyhow::Result<()> {
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
    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.bytes >= 1 << 10, "bytes {}: at least 1024", self.bytes);
        ensure!((1..=36_500).contains(&self.days), "days {}: 1 to 36500", self.days);
        ensure!((0.0..=1.0).contains(&self.margin), "margin {}: 0 to 1", self.margin);
        Ok(())
    }
}

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

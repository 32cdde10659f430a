//! Tables of the file of settings: cameras and what is told of them, which no flag could say.

mod camera;
mod mqtt;
mod places;

pub use camera::Camera;
pub use mqtt::Mqtt;
pub use places::{Events, Folder, Pins, Samples, Webhook};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

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

/// Whether a name can stand in a path and in a topic.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

/// Whether messages can be sent there.
fn is_topic(topic: &str) -> bool {
    (1..=1024).contains(&topic.len()) && !topic.contains(['+', '#', '\0'])
}

fn is_http(url: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|host| !host.is_empty()))
}

//! Where what is said, below `BASE/DEVICE/`.

use crate::arguments::tables::Mqtt;

/// The topics of a device.
#[derive(Debug, Clone)]
pub struct Topics {
    /// `BASE/DEVICE`.
    own: String,
    base: String,
}

impl Topics {
    /// As the table says.
    pub fn new(settings: &Mqtt, device: &str) -> Self {
        Self { own: format!("{}/{device}", settings.base), base: settings.base.clone() }
    }

    /// `online` or `offline`; retained, and the will.
    pub fn status(&self) -> String {
        format!("{}/status", self.own)
    }

    /// What is known of a camera; retained.
    pub fn camera(&self, camera: &str) -> String {
        format!("{}/camera/{camera}", self.own)
    }

    /// The picture that turned it; retained.
    pub fn picture(&self, camera: &str) -> String {
        format!("{}/camera/{camera}/picture", self.own)
    }

    /// Classifies a camera's next picture.
    pub fn trigger(&self, camera: &str) -> String {
        format!("{}/camera/{camera}/classify", self.own)
    }

    /// The verdict of a model's last self-test; retained.
    pub fn selftest(&self) -> String {
        format!("{}/selftest", self.own)
    }

    /// The version that serves, and the newest that is there; retained.
    pub fn update(&self) -> String {
        format!("{}/update", self.own)
    }

    /// What the device is told to do.
    pub fn command(&self, name: &str) -> String {
        format!("{}/command/{name}", self.own)
    }

    /// Pictures that whoever of a group is free classifies.
    pub fn requests(&self) -> String {
        format!("{}/requests", self.base)
    }

    /// What follows `BASE/DEVICE/` in a topic.
    pub fn below<'t>(&self, topic: &'t str) -> Option<&'t str> {
        topic.strip_prefix(&*self.own)?.strip_prefix('/')
    }
}

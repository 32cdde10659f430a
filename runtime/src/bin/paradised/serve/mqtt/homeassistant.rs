//! Home Assistant's discovery of devices over MQTT, as its release 2025.1 documents it: one retained message says all that a device has.

use super::topics::Topics;
use crate::serve::camera::Cameras;
use serde_json::{Map, Value, json};

/// Where Home Assistant listens, and what it is told.
pub fn discovery(prefix: &str, device: &str, topics: &Topics, cameras: &Cameras, pictures: bool) -> (String, Value) {
    let id = |what: &str| format!("paradise_{device}_{what}");
    let mut parts = Map::new();
    for live in cameras.all() {
        let (name, state) = (&live.name, topics.camera(&live.name));
        parts.insert(
            id(&format!("{name}_label")),
            json!({
                "platform": "sensor",
                "unique_id": id(&format!("{name}_label")),
                "name": name,
                "state_topic": state,
                "value_template": "{{ value_json.label if value_json.state == 'label' else value_json.state }}",
                "json_attributes_topic": state,
                "icon": "mdi:shape",
            }),
        );
        if pictures {
            parts.insert(
                id(&format!("{name}_picture")),
                json!({
                    "platform": "image",
                    "unique_id": id(&format!("{name}_picture")),
                    "name": format!("{name} picture"),
                    "image_topic": topics.picture(name),
                    "content_type": "image/jpeg",
                }),
            );
        }
    }
    parts.insert(
        id("model"),
        json!({
            "platform": "update",
            "unique_id": id("model"),
            "name": "Model",
            "state_topic": topics.update(),
            "command_topic": topics.command("reload"),
            "payload_install": "install",
            "entity_category": "config",
        }),
    );
    parts.insert(
        id("selftest"),
        json!({
            "platform": "button",
            "unique_id": id("selftest"),
            "name": "Self-test",
            "command_topic": topics.command("selftest"),
            "payload_press": "press",
            "entity_category": "diagnostic",
        }),
    );
    parts.insert(
        id("verdict"),
        json!({
            "platform": "sensor",
            "unique_id": id("verdict"),
            "name": "Last self-test",
            "state_topic": topics.selftest(),
            "value_template": "{{ value_json.verdict }}",
            "json_attributes_topic": topics.selftest(),
            "entity_category": "diagnostic",
        }),
    );
    let message = json!({
        "device": {
            "identifiers": [id("device")],
            "name": device,
            "manufacturer": "paradise",
            "model": "paradised",
            "sw_version": env!("CARGO_PKG_VERSION"),
        },
        "origin": { "name": "paradised", "sw_version": env!("CARGO_PKG_VERSION") },
        "availability_topic": topics.status(),
        "payload_available": "online",
        "payload_not_available": "offline",
        "qos": 1,
        "components": parts,
    });
    (format!("{prefix}/device/paradise_{device}/config"), message)
}

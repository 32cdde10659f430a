//! How the device itself stands: the version that serves, and its last self-test. Said when there is a connection, and when it changes.

use super::client::{Client, Message};
use super::topics::Topics;
use crate::serve::http::Service;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// A message for those who come later, too.
pub fn retained(topic: String, payload: impl Into<Vec<u8>>) -> Message {
    Message { topic, payload: payload.into(), retain: true, ..Message::default() }
}

fn json_message(topic: String, value: &Value) -> Message {
    Message { content_type: Some("application/json"), ..retained(topic, value.to_string()) }
}

/// What is said of it.
pub fn messages(service: &Service, topics: &Topics) -> Vec<Message> {
    let mut all = Vec::new();
    let models = service.registry.loaded();
    if let Some(model) = models.first() {
        let newest = service.guard.as_ref().and_then(|guard| guard.newest(&model.name));
        let update = json!({
            "installed_version": model.version,
            "latest_version": newest.unwrap_or_else(|| model.version.clone()),
            "title": model.name,
        });
        all.push(json_message(topics.update(), &update));
    }
    let verdicts: Vec<Value> = service
        .registry
        .index()
        .iter()
        .filter_map(|(name, version, _)| {
            let verdict = service.exams.last(name)?.verdict().name().to_string();
            Some(json!({ "model": name, "version": version, "verdict": verdict }))
        })
        .collect();
    // The worst is the device's.
    if let Some(worst) = verdicts.iter().find(|one| one["verdict"] != "passed").or_else(|| verdicts.first()) {
        all.push(json_message(topics.selftest(), &json!({ "verdict": worst["verdict"], "models": verdicts })));
    }
    all
}

/// Says what has changed, as long as the service runs.
pub async fn follow(client: Client, topics: Topics, service: Weak<Service>) {
    let mut said: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    loop {
        client.up().await;
        let Some(messages) = service.upgrade().map(|service| messages(&service, &topics)) else { return };
        for message in messages {
            let Message { topic, payload, .. } = message.clone();
            if said.get(&topic) != Some(&payload) && client.send(message).await.is_ok() {
                said.insert(topic, payload);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

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
        all.push(Message::json(topics.update(), update.to_string()).retained());
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
        let said = json!({ "verdict": worst["verdict"], "models": verdicts });
        all.push(Message::json(topics.selftest(), said.to_string()).retained());
    }
    all
}

/// Says it over each connection, and what changes meanwhile, as long as the service runs.
pub async fn follow(client: Client, topics: Topics, service: Weak<Service>) {
    let (mut said, mut over) = (BTreeMap::<String, Vec<u8>>::new(), 0);
    loop {
        client.up().await;
        let connection = client.connection();
        if over != connection {
            said.clear();
            over = connection;
        }
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

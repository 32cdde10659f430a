//! What a device is told to do over the broker; each is written down in the journal.

use super::client::{Client, Incoming};
use super::standing;
use super::topics::Topics;
use crate::arguments::ThresholdArguments;
use crate::serve::http::Service;
use crate::serve::{body, guard, thresholds};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The commands.
pub const ALL: [&str; 3] = ["selftest", "reload", "thresholds"];

/// Other thresholds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    model: Option<String>,
    #[serde(default)]
    thresholds: ThresholdArguments,
}

/// Does what a message says, and answers if it says where to.
pub async fn obey(service: &Arc<Service>, client: &Client, topics: &Topics, command: &str, incoming: &Incoming) {
    // Whoever comes later must not find that something is done again.
    let outcome = if incoming.is_retained() {
        Err("a command must not be retained".to_string())
    } else {
        run(service, client, topics, command, incoming.payload()).await
    };
    let said = match &outcome {
        Ok(_) => "done".to_string(),
        Err(why) => why.clone(),
    };
    tracing::info!("MQTT: {command}: {said}");
    service.faults.note("command", "", &format!("over MQTT: {command}: {said}"));
    let payload = outcome.unwrap_or_else(|why| json!({ "error": why })).to_string().into_bytes();
    if let Some(answer) = incoming.answer(payload) {
        // Whoever asked may have gone.
        let _ = client.send(answer).await;
    }
}

async fn run(
    service: &Arc<Service>,
    client: &Client,
    topics: &Topics,
    command: &str,
    payload: &[u8],
) -> Result<Value, String> {
    match command {
        "selftest" => {
            let mut verdicts = Vec::new();
            for served in service.registry.loaded() {
                let verdict = match service.exams.test(service, &served).await {
                    Some(Ok(report)) => report.verdict().name().to_string(),
                    Some(Err(why)) => format!("not run: {why:#}"),
                    None => "not run: another is under way".into(),
                };
                verdicts.push(json!({ "model": served.name, "version": served.version, "verdict": verdict }));
            }
            for message in standing::messages(service, topics) {
                let _ = client.send(message).await;
            }
            Ok(json!({ "selftests": verdicts }))
        }
        "reload" => {
            let reloaded = service.clone();
            let reload = tokio::task::spawn_blocking(move || guard::reload(&reloaded)).await;
            reload.map_err(|error| error.to_string())?;
            let models = service.registry.loaded();
            let models: Vec<_> = models.iter().map(|m| json!({ "model": m.name, "version": m.version })).collect();
            Ok(json!({ "models": models }))
        }
        "thresholds" => {
            let Sent { model, thresholds } = body::object(payload)?;
            thresholds::set(service, model.as_deref(), thresholds).map_err(|error| format!("{error:#}"))
        }
        other => Err(format!("no command {other:?}; there are {}", ALL.join(", "))),
    }
}

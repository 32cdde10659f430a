//! `/v1/thresholds`: when a model abstains, and how that is changed while it serves.

use super::asked::Which;
use super::body;
use super::http::{Service, answer};
use super::served::Served;
use super::trouble::Trouble;
use crate::arguments::ThresholdArguments;
use anyhow::anyhow;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};
use std::sync::Arc;

/// The path.
pub fn routes() -> Router<Arc<Service>> {
    Router::new().route("/v1/thresholds", get(read).put(write))
}

/// How a model decides.
fn report(service: &Service, served: &Served) -> Value {
    let rule = served.rule();
    let site = rule.site().map(|site| {
        json!({
            "pictures": site.pictures(),
            "promised_percent": site.promised_percent(),
            "expected_percent": site.expected_percent(),
        })
    });
    json!({
        "model": served.name,
        "version": served.version,
        "thresholds": rule.thresholds(),
        "sent": service.rules.sent(&served.name),
        "site": site,
    })
}

/// Other thresholds for a model from now on: those that are said; the others are as the settings, the site or the maker say.
///
/// # Errors
/// If there is no such model, or one is out of range.
pub fn set(service: &Service, model: Option<&str>, thresholds: ThresholdArguments) -> anyhow::Result<Value> {
    let served = service.registry.named(model).map_err(|missing| anyhow!("{}", missing.why()))?;
    let backend = served.another()?;
    let rule = service.rules.send(backend.as_ref(), &served.name, thresholds)?;
    served.decide_by(rule)?;
    service.faults.note("thresholds", &served.name, &serde_json::to_string(served.rule().thresholds())?);
    Ok(report(service, &served))
}

async fn read(State(service): State<Arc<Service>>, Which(model): Which) -> Result<Response, Trouble> {
    let served = service.registry.named(model.as_deref())?;
    Ok(answer(StatusCode::OK, &report(&service, &served)))
}

async fn write(
    State(service): State<Arc<Service>>,
    Which(model): Which,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Trouble> {
    // What is wrong with the name is another status than what is wrong with the body.
    service.registry.named(model.as_deref())?;
    let sent = body::setting(&headers, body).await?;
    let set = tokio::task::block_in_place(|| set(&service, model.as_deref(), sent));
    Ok(answer(StatusCode::OK, &set.map_err(|error| Trouble::bad(format!("{error:#}")))?))
}

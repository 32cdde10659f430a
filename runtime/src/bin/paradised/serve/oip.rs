//! The Open Inference Protocol's paths, under `/v2`.

use super::body;
use super::http::{Service, answer};
use super::served::Served;
use super::trouble::Trouble;
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use paradise_runtime::oip::{HEADER_LENGTH, Invalid, Request, metadata};
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<Service>>;
type Answered = Result<Response, Trouble>;

/// The paths.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/v2", get(|| async { answer(StatusCode::OK, &metadata::server()) }))
        .route("/v2/health/live", get(|| async { answer(StatusCode::OK, &json!({ "live": true })) }))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{model}", get(model))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/infer", post(infer))
        .route("/v2/models/{model}/versions/{version}", get(model))
        .route("/v2/models/{model}/versions/{version}/ready", get(model_ready))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer))
        .route("/v2/repository/index", post(index))
        .route("/v2/repository/models/{model}/load", post(load))
        .route("/v2/repository/models/{model}/unload", post(unload))
}

/// A model by its name, and its version where the path has one.
#[derive(serde::Deserialize)]
struct Which {
    model: String,
    version: Option<String>,
}

type Named = Result<Path<Which>, PathRejection>;

/// What a path names; a name that is no text is nobody's.
fn named(which: Named) -> Result<Which, Trouble> {
    let nobody = |_| Trouble::new(StatusCode::NOT_FOUND, "no such model: its name is not UTF-8");
    which.map(|Path(which)| which).map_err(nobody)
}

/// The model that a path names.
fn of(which: Named, service: &Service) -> Result<Arc<Served>, Trouble> {
    let which = named(which)?;
    Ok(service.registry.get(&which.model, which.version.as_deref())?)
}

async fn ready(State(service): Shared) -> Response {
    let ready = service.is_ready();
    let replaced: u64 = service.registry.loaded().iter().map(|model| model.replaced()).sum();
    let body = json!({ "ready": ready, "workers_replaced": replaced });
    answer(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

async fn model(State(service): Shared, which: Named) -> Answered {
    let model = of(which, &service)?;
    let versions = [model.version.clone()];
    Ok(answer(StatusCode::OK, &metadata::model(&model.name, &versions, model.input, model.labels.len())))
}

async fn model_ready(State(service): Shared, which: Named) -> Answered {
    Ok(answer(StatusCode::OK, &json!({ "name": of(which, &service)?.name, "ready": true })))
}

async fn infer(State(service): Shared, which: Named, headers: HeaderMap, body: Body) -> Answered {
    let body = body::any(&headers, body, service.max_body).await.map_err(Trouble::body)?;
    let model = of(which, &service)?;
    let length = headers.get(HEADER_LENGTH).map(HeaderValue::to_str).transpose();
    let length = length.map_err(|_| Trouble::bad("Inference-Header-Content-Length: not a length"))?;
    let mut request = Request::parse(&body, length, model.input).map_err(|Invalid(why)| Trouble::bad(why))?;
    drop(body);
    let verdicts = model.ask(request.take_pictures()).await;
    let verdicts = verdicts.map_err(|refusal| Trouble::refused(refusal, StatusCode::BAD_REQUEST))?;
    let names = (model.name.as_str(), model.version.as_str());
    Ok(written(paradise_runtime::oip::Response::write(names, &model.labels, &request, &verdicts)))
}

fn written(response: paradise_runtime::oip::Response) -> Response {
    let Some(length) = response.header else {
        return ([(header::CONTENT_TYPE, "application/json")], response.body).into_response();
    };
    let mut answer = ([(header::CONTENT_TYPE, "application/octet-stream")], response.body).into_response();
    answer.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(length));
    answer
}

/// Most bytes of a body that only says how.
const SMALL: usize = 1 << 16;

/// What a body says that need not be there.
async fn said(headers: &HeaderMap, body: Body) -> Result<Value, Trouble> {
    let body = body::any(headers, body, SMALL).await.map_err(Trouble::body)?;
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(json!({}));
    }
    match serde_json::from_slice(&body) {
        Ok(Value::Object(said)) => Ok(Value::Object(said)),
        Ok(_) => Err(Trouble::bad("request body: not a JSON object")),
        Err(why) => Err(Trouble::bad(format!("request body: {why}"))),
    }
}

/// Every model; only those that answer where the body says `{"ready": true}`.
async fn index(State(service): Shared, headers: HeaderMap, body: Body) -> Answered {
    let only_ready = match said(&headers, body).await?.get("ready") {
        None => false,
        Some(Value::Bool(ready)) => *ready,
        Some(_) => return Err(Trouble::bad("request body: ready is true or false")),
    };
    let models: Vec<Value> = service
        .registry
        .index()
        .into_iter()
        .filter(|(_, _, state)| !only_ready || state.name() == "READY")
        .map(|(name, version, state)| {
            json!({ "name": name, "version": version, "state": state.name(), "reason": state.reason() })
        })
        .collect();
    Ok(answer(StatusCode::OK, &models))
}

/// Loads a model from where it came from; the one before answers until the new one has passed its self-test.
async fn load(State(service): Shared, which: Named, headers: HeaderMap, body: Body) -> Answered {
    said(&headers, body).await?;
    let which = named(which)?;
    let loaded = tokio::task::spawn_blocking(move || service.registry.load(&which.model)).await;
    loaded.map_err(|_| Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, "loading failed; the log says why"))??;
    Ok(answer(StatusCode::OK, &json!({})))
}

async fn unload(State(service): Shared, which: Named, headers: HeaderMap, body: Body) -> Answered {
    said(&headers, body).await?;
    service.registry.unload(&named(which)?.model)?;
    Ok(answer(StatusCode::OK, &json!({})))
}

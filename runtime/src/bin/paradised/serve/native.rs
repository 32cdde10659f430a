//! Paths of our own, under `/v1`: a picture's bytes in, a verdict out.

use super::asked::Which;
use super::body;
use super::http::{Service, answer};
use super::registry::State as Standing;
use super::served::Served;
use super::trouble::Trouble;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use paradise_runtime::Verdict;
use paradise_runtime::oip::Pictures;
use paradise_runtime::watch::Fault;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// The paths.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/v1/classify", post(classify))
        .route("/v1/models", get(models))
        .route("/v1/selftest", get(last_test).post(test))
        .route("/v1/faults", get(faults).delete(clear))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
}

/// What this service answers, for programs.
async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

/// What was counted, for Prometheus.
async fn metrics(State(service): State<Arc<Service>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], service.counted.render()).into_response()
}

/// The body of an answer.
#[derive(Serialize)]
struct Reply<'a> {
    #[serde(flatten)]
    verdict: &'a Verdict,
    model: &'a str,
    latency_us: u64,
}

async fn classify(
    State(service): State<Arc<Service>>,
    which: Which,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Trouble> {
    let began = Instant::now();
    let bytes = body::picture(&headers, body, service.max_body).await.map_err(Trouble::body)?;
    let model = named(&service, which)?;
    let kept = service.samples.wants().then(|| bytes.clone().into());
    let verdicts = model.ask(Pictures::Encoded(vec![bytes])).await;
    let verdicts = verdicts.map_err(|refusal| Trouble::refused(refusal, StatusCode::UNPROCESSABLE_ENTITY))?;
    let [verdict] = &verdicts[..] else {
        return Err(Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, "no verdict"));
    };
    if let Some(picture) = kept {
        service.samples.offer("http", &model.name, &picture, verdict);
    }
    let latency_us = began.elapsed().as_micros() as u64;
    Ok(answer(StatusCode::OK, &Reply { verdict, model: &model.name, latency_us }))
}

/// The model that a query names, or the only one.
fn named(service: &Service, which: Which) -> Result<Arc<Served>, Trouble> {
    Ok(service.registry.named(which.0.as_deref())?)
}

/// Tests a model now, and answers with the report.
async fn test(State(service): State<Arc<Service>>, which: Which) -> Result<Response, Trouble> {
    let model = named(&service, which)?;
    match service.exams.test(&service, &model).await {
        Some(Ok(report)) => Ok(answer(StatusCode::OK, &*report)),
        Some(Err(why)) => Err(Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{why:#}"))),
        None => Err(Trouble::new(StatusCode::SERVICE_UNAVAILABLE, "a self-test is under way")),
    }
}

/// A model's last report.
async fn last_test(State(service): State<Arc<Service>>, which: Which) -> Result<Response, Trouble> {
    let Which(Some(name)) = &which else {
        return last(&service, &named(&service, which)?.name);
    };
    // Of one that was taken out of service, too.
    last(&service, name)
}

fn last(service: &Service, name: &str) -> Result<Response, Trouble> {
    match service.exams.last(name) {
        Some(report) => Ok(answer(StatusCode::OK, &*report)),
        None => Err(Trouble::new(
            StatusCode::NOT_FOUND,
            format!("model {name:?}: not tested since the service started; POST tests it"),
        )),
    }
}

/// The faults that keep models out of service.
async fn faults(State(service): State<Arc<Service>>) -> Response {
    let faults = service.faults.all().into_iter().map(
        |(model, Fault { at, version, why })| json!({ "model": model, "version": version, "at": at, "why": why }),
    );
    answer(StatusCode::OK, &json!({ "faults": faults.collect::<Vec<Value>>() }))
}

/// Ends a model's fault, because somebody has looked at the device, and loads the model.
async fn clear(State(service): State<Arc<Service>>, which: Which) -> Result<Response, Trouble> {
    let Which(Some(name)) = which else {
        return Err(Trouble::bad("whose fault? ?model=NAME"));
    };
    let cleared = {
        let (service, name) = (service.clone(), name.clone());
        tokio::task::spawn_blocking(move || {
            // The registry logs why if the model does not load.
            Ok::<_, std::io::Error>(service.faults.clear(&name)?.then(|| service.registry.load(&name).is_ok()))
        })
    };
    let failed = |why: String| Err(Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, why));
    match cleared.await {
        Ok(Ok(Some(serves))) => Ok(answer(StatusCode::OK, &json!({ "model": name, "serves": serves }))),
        Ok(Ok(None)) => Err(Trouble::new(StatusCode::NOT_FOUND, format!("model {name:?} has no fault"))),
        Ok(Err(error)) => failed(error.to_string()),
        Err(error) => failed(error.to_string()),
    }
}

/// Every model, and how it stands.
async fn models(State(service): State<Arc<Service>>) -> Response {
    let models: Vec<Value> = service
        .registry
        .index()
        .into_iter()
        .map(|(name, version, state)| {
            let mut model =
                json!({ "name": name, "version": version, "state": state.name(), "reason": state.reason() });
            if let Standing::Ready(served) = &state {
                model["input"] = json!([served.input.h, served.input.w, served.input.c]);
                model["labels"] = json!(served.labels);
                model["workers_replaced"] = json!(served.replaced());
                model["watch"] = served.watched.report();
                model["selftest"] =
                    json!(service.exams.last(&name).map(|report| report.verdict().name().to_string()));
            }
            model
        })
        .collect();
    answer(StatusCode::OK, &json!({ "models": models }))
}

//! `paradised serve`: pictures in, verdicts out, over HTTP.

use crate::arguments::Serve;
use crate::gpio::Pins;
use crate::worker::{self, Failure, Health, Job, Queue, Refused};
use crate::{body, listen};
use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use paradise_runtime::say;
use paradise_runtime::selftest;
use paradise_runtime::{Bundle, Verdict, load};
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::oneshot;

struct Service {
    queue: Queue,
    max_body: usize,
    model: String,
    stopping: AtomicBool,
    health: Arc<Health>,
}

/// Serves until SIGINT or SIGTERM, then answers what waits and returns.
pub fn run(arguments: Serve) -> anyhow::Result<u8> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let folder = &arguments.model.model;
    let bundle = Bundle::open(folder)?;
    let options = selftest::Options { site: arguments.site.site.clone(), ..Default::default() };
    let report = selftest::run(folder, arguments.model.backend, &options)?;
    if report.exit_code() == 1 {
        eprintln!("{report}");
        return Ok(1);
    }
    let backend = load(&bundle, arguments.model.backend)?;
    let rule = arguments.thresholds.over(arguments.site.rule(backend.as_ref())?)?;
    match rule.site() {
        Some(site) => tracing::info!("thresholds: {site}"),
        None => tracing::info!("thresholds: the maker's"),
    }
    let pins = Pins::open(arguments.pins.gpio.as_deref())?;
    let (name, kind, folder) = (bundle.name().to_string(), arguments.model.backend, folder.clone());
    drop(bundle);
    // The one that is loaded already, then whatever the folder holds, if the site is one of that.
    let (mut first, site) = (Some(backend), rule.clone());
    let fresh = move || match first.take() {
        Some(backend) => Ok(backend),
        None => {
            let backend = load(&Bundle::open(&folder)?, kind)?;
            let mut fits = Ok(());
            backend.with_model(&mut |model| fits = site.site().map_or(Ok(()), |site| site.belongs_to(model)));
            fits?;
            Ok(backend)
        }
    };
    let (queue, thread, health) = worker::start(fresh, rule, pins, arguments.queue.into())?;
    let service = Service {
        queue,
        max_body: arguments.max_body as usize,
        model: name,
        stopping: AtomicBool::new(false),
        health,
    };
    tokio::runtime::Runtime::new()?.block_on(serve(&arguments, service))?;
    thread.join().map_err(|_| anyhow::anyhow!("the worker panicked"))?;
    tracing::info!("stopped");
    Ok(0)
}

async fn serve(arguments: &Serve, service: Service) -> anyhow::Result<()> {
    let service = Arc::new(service);
    let app = Router::new()
        .route("/v1/classify", post(classify))
        .route("/v2/health/live", get(|| async { answer(StatusCode::OK, &json!({ "live": true })) }))
        .route("/v2/health/ready", get(ready))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "no such path; POST /v1/classify takes a picture") })
        .method_not_allowed_fallback(|| async {
            error(StatusCode::METHOD_NOT_ALLOWED, "this path has another method")
        })
        .with_state(service.clone());
    let listener = tokio::net::TcpListener::bind(&arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    // Tools read the address, port 0 included, from the first line.
    say!("listening on http://{}", listener.local_addr()?);
    tracing::info!("serving {} on the {} back end", service.model, arguments.model.backend);
    let stopping = service.clone();
    let stop = async move {
        stop_signal().await;
        stopping.stopping.store(true, Ordering::Relaxed);
        tracing::info!("stopping: answering what waits");
    };
    listen::serve(listener, app, stop).await;
    Ok(())
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(error) => {
            tracing::warn!("SIGTERM cannot be caught: {error}");
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// The body of an answer.
#[derive(Serialize)]
struct Reply<'a> {
    #[serde(flatten)]
    verdict: &'a Verdict,
    model: &'a str,
    latency_us: u64,
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let json = HeaderValue::from_static("application/json");
    match serde_json::to_string(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, json)], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn error(status: StatusCode, message: &str) -> Response {
    answer(status, &json!({ "error": message }))
}

/// Whether pictures are answered: not while stopping, and not without a worker.
async fn ready(State(service): State<Arc<Service>>) -> Response {
    let ready = !service.stopping.load(Ordering::Relaxed) && service.health.is_up();
    let body = json!({ "ready": ready, "workers_replaced": service.health.replaced() });
    answer(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

async fn classify(State(service): State<Arc<Service>>, headers: HeaderMap, body: Body) -> Response {
    let began = Instant::now();
    let bytes = match body::read(&headers, body, service.max_body).await {
        Ok(bytes) => bytes,
        Err((status, why)) => return closing(error(status, &why)),
    };
    let (reply, receive) = oneshot::channel();
    match service.queue.push(Job { bytes, reply }) {
        Ok(()) => {}
        Err(Refused::Full) => {
            let mut response = error(StatusCode::SERVICE_UNAVAILABLE, "busy: the queue is full, try again");
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        }
        Err(Refused::Stopped) => {
            return error(StatusCode::SERVICE_UNAVAILABLE, "the worker is down; the log says why");
        }
    }
    match tokio::time::timeout(listen::ANSWER, receive).await {
        Ok(Ok(Ok(verdict))) => {
            let latency_us = began.elapsed().as_micros() as u64;
            let body = Reply { verdict: &verdict, model: &service.model, latency_us };
            answer(StatusCode::OK, &body)
        }
        Ok(Ok(Err(Failure::Picture(why)))) => {
            error(StatusCode::UNPROCESSABLE_ENTITY, &format!("request body: {why}"))
        }
        Ok(Ok(Err(Failure::Worker(why)))) => error(StatusCode::INTERNAL_SERVER_ERROR, &why),
        Ok(Err(_)) => error(StatusCode::INTERNAL_SERVER_ERROR, "the worker stopped"),
        Err(_) => error(StatusCode::GATEWAY_TIMEOUT, &format!("no answer within {} s", listen::ANSWER.as_secs())),
    }
}

/// An answer after which the connection ends: what else its client sends is not read.
fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

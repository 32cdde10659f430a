//! The page at `/`, and the report for browsers without scripts. All of it is in this program; it asks the paths under `/v1`.

mod report;

use super::asked::Which;
use super::http::Service;
use super::trouble::Trouble;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use paradise_runtime::selftest;
use std::sync::Arc;

/// What a page of ours may load: what comes from here. Pictures that were dropped on it are its own.
const ONLY_OURS: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
    connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'";
/// The self-test's page has its style and its pictures inside.
const SELFTEST: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'";

/// The paths.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/", get(|| async { asset("text/html; charset=utf-8", include_str!("page.html")) }))
        .route("/page.css", get(|| async { asset("text/css; charset=utf-8", include_str!("page.css")) }))
        .route("/page.js", get(|| async { asset("text/javascript; charset=utf-8", include_str!("page.js")) }))
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
        .route("/report", get(overview))
        .route("/v1/selftest/page", get(tested))
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    page(kind, ONLY_OURS, text.to_string())
}

fn page(kind: &'static str, policy: &'static str, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}

/// How everything stands, without a script.
async fn overview(State(service): State<Arc<Service>>) -> Response {
    page("text/html; charset=utf-8", ONLY_OURS, report::text(&service))
}

/// The last self-test of a model, with its probe pictures.
async fn tested(State(service): State<Arc<Service>>, Which(model): Which) -> Result<Response, Trouble> {
    let served = service.registry.named(model.as_deref())?;
    let Some(last) = service.exams.last(&served.name) else {
        return Err(Trouble::new(StatusCode::NOT_FOUND, format!("model {:?} was not tested yet", served.name)));
    };
    let made = tokio::task::spawn_blocking(move || {
        let (bundle, backend) = ((served.open)().ok(), served.another().ok());
        selftest::page(&last, bundle.as_ref(), backend)
    });
    match made.await {
        Ok(Ok(text)) => Ok(page("text/html; charset=utf-8", SELFTEST, text)),
        Ok(Err(error)) => Err(Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
        Err(error) => Err(Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

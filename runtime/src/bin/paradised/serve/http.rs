//! The service as a whole: its models, its routes, its end.

use super::listen;
use super::registry::{Load, Registry};
use super::served::Served;
use super::trouble::Trouble;
use super::{native, oip};
use crate::arguments::Serve;
use crate::gpio::Pins;
use anyhow::{Context, ensure};
use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use paradise_runtime::selftest::{self, Options};
use paradise_runtime::{Bundle, load, say};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What every request sees.
pub struct Service {
    /// The models.
    pub registry: Registry,
    /// Largest body, bytes.
    pub max_body: usize,
    stopping: AtomicBool,
}

impl Service {
    /// Whether pictures are answered: not while stopping, and not without a worker.
    pub fn is_ready(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed) && self.registry.is_ready()
    }
}

/// The version of a bundle that no version was given for.
const VERSION: &str = "1";

/// Serves until SIGINT or SIGTERM, then answers what waits and returns.
pub fn run(arguments: Serve) -> anyhow::Result<u8> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments = Arc::new(arguments);
    let several = arguments.model.model.len() > 1;
    ensure!(!several || arguments.site.site.is_none(), "--site belongs to one model, and {SEVERAL}");
    ensure!(!several || arguments.pins.gpio.is_none(), "--gpio shows one model's answers, and {SEVERAL}");
    let registry = Registry::default();
    for folder in &arguments.model.model {
        let Some(served) = start(&arguments, folder)? else { return Ok(1) };
        let (again, path) = (arguments.clone(), folder.clone());
        let load: Load = Arc::new(move || {
            start(&again, &path)?
                .with_context(|| format!("{}: the self-test failed; the log says where", path.display()))
        });
        registry.add(served, load).with_context(|| folder.display().to_string())?;
    }
    let service = Service { registry, max_body: arguments.max_body as usize, stopping: AtomicBool::new(false) };
    tokio::runtime::Runtime::new()?.block_on(serve(&arguments, service))?;
    tracing::info!("stopped");
    Ok(0)
}

const SEVERAL: &str = "there are several: serve them by services of their own";

/// A bundle's worker, if the bundle passes its self-test.
fn start(arguments: &Arc<Serve>, folder: &Path) -> anyhow::Result<Option<Served>> {
    let (kind, bundle) = (arguments.model.backend, Bundle::open(folder)?);
    let options = Options { site: arguments.site.site.clone(), ..Options::default() };
    let report = selftest::run(folder, kind, &options)?;
    if report.exit_code() == 1 {
        eprintln!("{report}");
        return Ok(None);
    }
    let backend = load(&bundle, kind)?;
    let rule = arguments.thresholds.over(arguments.site.rule(backend.as_ref())?)?;
    match rule.site() {
        Some(site) => tracing::info!("{}: thresholds: {site}", bundle.name()),
        None => tracing::info!("{}: thresholds: the maker's", bundle.name()),
    }
    let pins = Pins::open(arguments.pins.gpio.as_deref())?;
    // The one that is loaded already, then whatever the folder holds, if the site is one of that.
    let (mut first, site, folder) = (Some(backend), rule.clone(), folder.to_path_buf());
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
    Ok(Some(Served::start(VERSION, fresh, rule, pins, arguments.queue.into())?))
}

async fn serve(arguments: &Serve, service: Service) -> anyhow::Result<()> {
    let service = Arc::new(service);
    let app = Router::new()
        .merge(native::routes())
        .merge(oip::routes())
        .fallback(|| async {
            Trouble::new(StatusCode::NOT_FOUND, "no such path; POST /v1/classify takes a picture, /v2 says more")
        })
        .method_not_allowed_fallback(|| async {
            Trouble::new(StatusCode::METHOD_NOT_ALLOWED, "this path has another method")
        })
        .with_state(service.clone());
    let listener = tokio::net::TcpListener::bind(&arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    // Tools read the address, port 0 included, from the first line.
    say!("listening on http://{}", listener.local_addr()?);
    for model in service.registry.loaded() {
        tracing::info!("serving {} {} on the {} back end", model.name, model.version, arguments.model.backend);
    }
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

/// An answer in JSON.
pub fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let json = HeaderValue::from_static("application/json");
    match serde_json::to_string(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, json)], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

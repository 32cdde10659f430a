//! The service as a whole: its models, its routes, its end.

use super::camera::{self, Cameras};
use super::exam::{self, Exams};
use super::faults::{Faults, Latched};
use super::guard::{self, Guard};
use super::listen;
use super::meters;
use super::policy::{self, Token};
use super::registry::{Failed, Registry};
use super::rules::Rules;
use super::samples::{self, Samples};
use super::sink::Sinks;
use super::source::{Loader, SelfTestFailed};
use super::tls::Tls;
use super::trouble::Trouble;
use super::{folder, gpio_lines, logs, mqtt, native, notify, oip, page, sandbox, sentry, thresholds};
use crate::arguments::Serve;
use anyhow::{Context, bail, ensure};
use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::PrometheusHandle;
use paradise_runtime::say;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What every request sees.
pub struct Service {
    /// The models.
    pub registry: Registry,
    /// Largest body, bytes.
    pub max_body: usize,
    stopping: AtomicBool,
    /// Longest that a worker may compute for one request.
    pub longest: std::time::Duration,
    /// The time of a round through memory.
    pub round: std::time::Duration,
    /// What is remembered of faults.
    pub faults: Arc<Faults>,
    /// Self-tests while it serves.
    pub exams: Exams,
    /// Other origins whose pages may ask.
    pub origins: Vec<String>,
    /// What requests must bring.
    pub token: Option<Token>,
    /// The certificate, where connections are of TLS.
    pub tls: Option<Arc<Tls>>,
    /// What was counted.
    pub counted: PrometheusHandle,
    /// Who looks after the folder of models, where there is one.
    pub guard: Option<Guard>,
    /// Most memory that decoding a picture may take, bytes.
    pub max_decoded: u64,
    /// The cameras.
    pub cameras: Cameras,
    /// Who is told of them.
    pub sinks: Sinks,
    /// Hard samples.
    pub samples: Samples,
    /// What decides about answers.
    pub rules: Arc<Rules>,
}

impl Service {
    /// Whether pictures are answered: not while stopping, and not without a worker.
    pub fn is_ready(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed) && self.registry.is_ready()
    }
}

/// Serves until SIGINT or SIGTERM, then answers what waits and returns.
pub fn run(arguments: Serve) -> anyhow::Result<u8> {
    policy::settings(&arguments)?;
    logs::begin(&arguments)?;
    let addresses = policy::addresses(&arguments)?;
    let token = policy::token(&arguments, &addresses)?;
    // For those libraries that ask for one; it is none of theirs to fail.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let tls = policy::tls(&arguments)?.map(Arc::new);
    let faults = Faults::open(arguments.model.remembered().as_deref())?;
    sandbox::confine(&arguments)?;
    let loader = Loader::new(arguments, faults)?;
    let arguments = loader.arguments();
    let counted = meters::install()?;
    let registry = Registry::default();
    for folder in &arguments.model.model {
        let (name, load) = loader.folder(folder)?;
        ensure!(registry.add(&name, load), "{}: there are two models {name:?}", folder.display());
        match registry.load(&name) {
            Ok(()) => {}
            Err(Failed::Refused(error)) => {
                if let Some(failed) = error.downcast_ref::<SelfTestFailed>() {
                    eprintln!("{}", failed.0);
                    return Ok(1);
                }
                // It does not serve, and can be asked why.
                if !error.is::<Latched>() {
                    return Err(error);
                }
            }
            Err(Failed::Missing(missing)) => bail!("{missing:?}"),
        }
    }
    let store = loader.store()?;
    let service = Arc::new(Service {
        registry,
        max_body: arguments.max_body as usize,
        stopping: AtomicBool::new(false),
        round: std::time::Duration::from_secs(arguments.round_seconds.into()),
        faults: loader.faults.clone(),
        longest: std::time::Duration::from_secs(arguments.hang_seconds.into()),
        counted,
        origins: arguments.cors.clone(),
        token,
        tls,
        exams: Exams::default(),
        guard: store.map(|store| Guard::new(loader.clone(), store)),
        max_decoded: u64::from(arguments.max_decoded) << 20,
        cameras: Cameras::new(&arguments.tables)?,
        sinks: Sinks::open(&arguments.tables)?,
        samples: Samples::open(arguments.tables.samples.as_ref())?,
        rules: loader.rules.clone(),
    });
    if let Some(guard) = &service.guard {
        guard.rescan(&service.registry);
        ensure!(
            !service.registry.loaded().is_empty() || !service.faults.all().is_empty(),
            "{}: no model may serve; the log says why",
            guard.root().display()
        );
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(listen::threads()).enable_all().build()?;
    runtime.block_on(serve(arguments, &addresses, service.clone()))?;
    if let Some(guard) = &service.guard {
        guard.ended_well(&service.registry);
    }
    service.faults.note("stop", "", "as asked");
    tracing::info!("stopped");
    Ok(0)
}

async fn serve(arguments: &Serve, addresses: &[SocketAddr], service: Arc<Service>) -> anyhow::Result<()> {
    let mut app = Router::new()
        .merge(native::routes())
        .merge(oip::routes())
        .merge(camera::routes::routes())
        .merge(thresholds::routes())
        .merge(page::routes())
        .merge(samples::routes())
        .fallback(|| async {
            Trouble::new(StatusCode::NOT_FOUND, "no such path; POST /v1/classify takes a picture, /v2 says more")
        })
        .method_not_allowed_fallback(|| async {
            Trouble::new(StatusCode::METHOD_NOT_ALLOWED, "this path has another method")
        })
        .layer(axum::middleware::from_fn_with_state(service.clone(), policy::admit))
        .with_state(service.clone());
    // Outside the token: a browser asks whether it may ask without one.
    if let Some(origins) = policy::origins(arguments)? {
        app = app.layer(origins);
    }
    if arguments.log_requests {
        app = app.layer(axum::middleware::from_fn(logs::request));
    }
    let listener = tokio::net::TcpListener::bind(addresses)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    // Before anybody knows that it listens.
    let asked = stop_signal().context("SIGTERM")?;
    // Tools read the address, port 0 included, from the first line.
    let scheme = if service.tls.is_some() { "https" } else { "http" };
    say!("listening on {scheme}://{}", listener.local_addr()?);
    service.faults.note("start", "", concat!("paradised ", env!("CARGO_PKG_VERSION")));
    for model in service.registry.loaded() {
        service.faults.note("serves", &model.name, &format!("version {}, bundle {}", model.version, model.bundle));
        tracing::info!("serving {} {} on the {} back end", model.name, model.version, arguments.model.backend);
    }
    sentry::start(&service, tokio::runtime::Handle::current());
    guard::start(&service)?;
    notify::ready(&service);
    notify::watch(&service);
    exam::follow(&service);
    let broker = match (&arguments.tables.mqtt, service.sinks.outbox()) {
        (Some(settings), Some(outbox)) => Some(mqtt::start(&service, settings, outbox)?),
        _ => None,
    };
    let here = tokio::runtime::Handle::current();
    camera::start(&service, &here);
    if let Some(line) = arguments.tables.pins.as_ref().and_then(|pins| pins.heartbeat.as_ref()) {
        gpio_lines::beat(&service, line).context("[pins] heartbeat")?;
    }
    for camera in &arguments.tables.camera {
        if let Some(line) = &camera.trigger_line {
            gpio_lines::trigger(&service, &camera.name, line)
                .with_context(|| format!("[[camera]] {:?}", camera.name))?;
        }
    }
    folder::start_all(&service, &arguments.tables.folder, &here)?;
    if let Some(hours) = arguments.selftest_hours {
        exam::schedule(&service, std::time::Duration::from_secs_f64(3600.0 * hours));
    }
    let stopping = service.clone();
    let stop = async move {
        asked.await;
        stopping.stopping.store(true, Ordering::Relaxed);
        notify::stopping();
        tracing::info!("stopping: answering what waits");
    };
    listen::serve(listener, service.tls.clone(), app, stop).await;
    service.cameras.stop();
    if let Some(broker) = broker {
        broker.leave().await;
    }
    Ok(())
}

/// Ends when this process is asked to stop; from now on that does not end it by itself.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let [mut terminate, mut interrupt] = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// An answer in JSON.
pub fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let json = HeaderValue::from_static("application/json");
    match serde_json::to_string(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, json)], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

//! The log: what is written, and where to.

use crate::arguments::{LogTo, Serve};
use anyhow::Context;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use std::time::Instant;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Under this name requests are logged.
const REQUESTS: &str = "requests";

/// The levels that are logged, by module.
///
/// # Errors
/// If they are none.
pub fn levels(arguments: &Serve) -> anyhow::Result<Targets> {
    let what =
        || format!("--log {:?}: levels are error, warn, info, debug, trace and off, or MODULE=LEVEL", arguments.log);
    // A word alone would pass for a module.
    let alone = arguments.log.split(',').filter(|part| !part.contains('='));
    for level in alone {
        level.trim().parse::<LevelFilter>().with_context(what)?;
    }
    let levels: Targets = arguments.log.parse().with_context(what)?;
    Ok(if arguments.log_requests { levels.with_target(REQUESTS, tracing::Level::INFO) } else { levels })
}

/// Begins to log.
///
/// # Errors
/// If the levels are none, or journald is not there.
pub fn begin(arguments: &Serve) -> anyhow::Result<()> {
    let subscriber = tracing_subscriber::registry().with(levels(arguments)?);
    match arguments.log_to {
        LogTo::Stderr => {
            let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
            subscriber.with(layer.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))).init();
        }
        LogTo::Journald => {
            let layer = tracing_journald::layer().context("--log-to journald")?;
            subscriber.with(layer.with_syslog_identifier("paradised".into())).init();
        }
    }
    Ok(())
}

/// Logs a request, once it is answered.
pub async fn request(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    let response = next.run(request).await;
    let (status, took_us) = (response.status().as_u16(), began.elapsed().as_micros() as u64);
    tracing::info!(target: REQUESTS, %method, path, status, took_us);
    response
}

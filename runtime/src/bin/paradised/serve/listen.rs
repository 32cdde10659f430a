//! Accepts connections and ends them: every wait on a client has a limit of seconds, and so has the stop.

use super::tls::Tls;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Time to receive a request's head, the idle time of a kept connection included.
pub const HEAD: Duration = Duration::from_secs(10);
/// Time to receive a body.
pub const BODY: Duration = Duration::from_secs(30);
/// Time to answer a picture that was received whole.
pub const ANSWER: Duration = Duration::from_secs(30);
/// Time to answer what is under way when the service stops; what is not answered then is cut off.
pub const STOP: Duration = Duration::from_secs(15);

/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 512;

/// Threads that receive: one a core, at most four. Two on one core would wait for each other's time.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(4))
}

/// Serves until `stop`, then lets what is under way end; over TLS, if there is a certificate.
pub async fn serve(listener: TcpListener, tls: Option<Arc<Tls>>, app: Router, stop: impl Future<Output = ()>) {
    let (graceful, slots) = (GracefulShutdown::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    let mut stop = std::pin::pin!(stop);
    loop {
        let slot = tokio::select! {
            slot = slots.clone().acquire_owned() => slot,
            () = &mut stop => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Too many open files, as a rule: some will be closed.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        let (app, watcher) = (TowerToHyperService::new(app.clone()), graceful.watcher());
        let acceptor = tls.as_deref().map(Tls::acceptor);
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD);
            // A client that breaks off is no fault of ours.
            match acceptor {
                None => drop(watcher.watch(http.serve_connection(TokioIo::new(stream), app)).await),
                Some(acceptor) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(HEAD, acceptor.accept(stream)).await {
                        drop(watcher.watch(http.serve_connection(TokioIo::new(stream), app)).await);
                    }
                }
            }
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(STOP, graceful.shutdown()).await.is_err() {
        tracing::warn!("a connection was still open after {} s and was cut off", STOP.as_secs());
    }
}

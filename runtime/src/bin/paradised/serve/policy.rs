//! What settings may be together, and who may ask.

use super::faults::Faults;
use super::http::Service;
use super::logs;
use super::source::Loader;
use super::tls::Tls;
use super::trouble::Trouble;
use crate::arguments::Serve;
use anyhow::{Context, bail, ensure};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use paradise_runtime::say;
use sha2::{Digest, Sha256};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Fewest bytes of a token.
const SHORTEST: usize = 16;

const SEVERAL: &str = "there may be several: serve them by services of their own";

/// What must be so before anything is opened.
///
/// # Errors
/// What is not.
pub fn settings(arguments: &Serve) -> anyhow::Result<()> {
    let model = &arguments.model;
    ensure!(
        !model.model.is_empty() || model.models.is_some(),
        "what is to be served? --model DIR, or --models DIR for a folder of signed models"
    );
    ensure!(model.model.is_empty() || model.models.is_none(), "--model and --models: one or the other");
    ensure!(!model.unsigned || model.key.is_empty(), "--unsigned and --key: one or the other");
    let several = model.model.len() > 1 || model.models.is_some();
    ensure!(!several || arguments.site.site.is_none(), "--site belongs to one model, and {SEVERAL}");
    ensure!(!several || arguments.pins.gpio.is_none(), "--gpio shows one model's answers, and {SEVERAL}");
    Ok(())
}

/// The token that requests must bring, if any must.
///
/// # Errors
/// If the file holds none, or other machines would be served without one.
pub fn token(arguments: &Serve, addresses: &[SocketAddr]) -> anyhow::Result<Option<Token>> {
    let local = addresses.iter().all(|address| address.ip().is_loopback());
    let Some(path) = &arguments.token else {
        ensure!(
            arguments.open || local,
            "--listen {}: other machines can ask there; give a --token, or say --open",
            arguments.listen
        );
        return Ok(None);
    };
    if !local && arguments.tls_certificate.is_none() {
        tracing::warn!("the token goes over the network as it is: --tls-certificate and --tls-key encrypt it");
    }
    Token::read(path).map(Some).with_context(|| path.display().to_string())
}

/// Where to listen.
///
/// # Errors
/// If that is no address.
pub fn addresses(arguments: &Serve) -> anyhow::Result<Vec<SocketAddr>> {
    let listen = &arguments.listen;
    Ok(listen.to_socket_addrs().with_context(|| format!("--listen {listen}"))?.collect())
}

/// The certificate, where connections shall be of TLS.
///
/// # Errors
/// If it is none.
pub fn tls(arguments: &Serve) -> anyhow::Result<Option<Tls>> {
    match (&arguments.tls_certificate, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Tls::open(certificate, key).map(Some),
        (None, None) => Ok(None),
        _ => bail!("--tls-certificate and --tls-key: both or neither"),
    }
}

/// The pages of other origins that may ask from a browser; none unless they are named.
///
/// # Errors
/// If one is no origin.
pub fn origins(arguments: &Serve) -> anyhow::Result<Option<CorsLayer>> {
    let named = &arguments.cors;
    if named.is_empty() {
        return Ok(None);
    }
    let allowed = if named.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let value = |origin: &String| {
            let is_one = origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'));
            ensure!(is_one, "--cors {origin:?}: an origin is SCHEME://HOST[:PORT], as https://panel.example, or *");
            HeaderValue::from_str(origin).with_context(|| format!("--cors {origin:?}"))
        };
        AllowOrigin::list(named.iter().map(value).collect::<anyhow::Result<Vec<_>>>()?)
    };
    let headers = [header::AUTHORIZATION, header::CONTENT_TYPE, HeaderName::from_static(BINARY)];
    let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
    Ok(Some(CorsLayer::new().allow_origin(allowed).allow_headers(headers).allow_methods(methods)))
}

/// The header that says where a request's binary tensors begin.
const BINARY: &str = "inference-header-content-length";

/// A token, of which only the hash is kept.
pub struct Token([u8; 32]);

impl Token {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let token = text.lines().next().unwrap_or("").trim();
        ensure!(token.len() >= SHORTEST, "a token has at least {SHORTEST} bytes, and this {}", token.len());
        ensure!(token.bytes().all(|b| b.is_ascii_graphic()), "a token is of visible ASCII characters");
        Ok(Self(Sha256::digest(token.as_bytes()).into()))
    }

    /// Whether a request brings it: `Bearer TOKEN` from a program, or as the password that a browser asked for. Hashes are compared, so
    /// that how long that takes tells nothing.
    fn is_brought(&self, value: Option<&HeaderValue>) -> bool {
        let Some(value) = value.and_then(|value| value.to_str().ok()) else { return false };
        let brought = match (value.strip_prefix("Bearer "), value.strip_prefix("Basic ")) {
            (Some(token), _) => token.trim().as_bytes().to_vec(),
            (_, Some(both)) => {
                let Ok(both) = BASE64_STANDARD.decode(both.trim()) else { return false };
                let Some(at) = both.iter().position(|byte| *byte == b':') else { return false };
                both[at + 1..].to_vec()
            }
            _ => return false,
        };
        Sha256::digest(brought)[..] == self.0
    }
}

/// Whether a request that changes something comes from a page of somebody else, which a browser sends along with the token that it
/// remembers, or to a service on this machine that asks for none.
fn is_strange(service: &Service, request: &Request) -> bool {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
        return false;
    }
    let headers = request.headers();
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let named = |allowed: &String| allowed == "*" || allowed.as_bytes() == origin.as_bytes();
    let own = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    !(own.is_some() && own == host || service.origins.iter().any(named))
}

/// Lets a request through that may ask: all, or those that bring the token; anyone may ask for health.
pub async fn admit(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let health = ["/v2/health/live", "/v2/health/ready"].contains(&path);
    let admitted = match &service.token {
        Some(token) => health || token.is_brought(request.headers().get(header::AUTHORIZATION)),
        None => true,
    };
    if !admitted {
        let why = "a token is needed: Authorization: Bearer TOKEN, or as a browser's password";
        let mut response = Trouble::body((StatusCode::UNAUTHORIZED, why.into())).into_response();
        for scheme in ["Bearer", "Basic realm=\"paradised: any name, the token as password\""] {
            response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        return response;
    }
    if is_strange(&service, &request) {
        let why = "a page of another origin may not do this (--cors names those that may)";
        return Trouble::body((StatusCode::FORBIDDEN, why.into())).into_response();
    }
    next.run(request).await
}

/// `paradised check-config`: every setting with where it came from, and what is wrong with them. Opens bundles, keys and the token, and
/// listens nowhere.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(arguments: Serve, sources: &[[String; 3]]) -> anyhow::Result<u8> {
    for [name, value, source] in sources {
        say!("{name:24} {value:32}  {source}");
    }
    settings(&arguments)?;
    token(&arguments, &addresses(&arguments)?)?;
    tls(&arguments)?;
    origins(&arguments)?;
    logs::levels(&arguments)?;
    // Nothing is written.
    let loader = Loader::new(arguments, Faults::open(None)?)?;
    for folder in &loader.arguments().model.model {
        loader.folder(folder)?;
    }
    if let Some(store) = loader.store()? {
        ensure!(!store.names()?.is_empty(), "{}: no models (DIR/NAME/VERSION/)", store.root().display());
    }
    say!("the settings are in order");
    Ok(0)
}

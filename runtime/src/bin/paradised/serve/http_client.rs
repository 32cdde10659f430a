//! What this service asks of others over HTTP: one place for times, sizes and whom to trust.

use anyhow::{Context, ensure};
use std::path::Path;
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// A client that waits no longer than `wait` for any part of an answer; `ca`: who vouches for certificates, PEM.
///
/// # Errors
/// If that file holds no certificate.
pub fn client(wait: Duration, ca: Option<&Path>) -> anyhow::Result<Agent> {
    let roots = match ca {
        None => RootCerts::WebPki,
        Some(path) => roots(path).with_context(|| format!("ca {}", path.display()))?,
    };
    let config = Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .user_agent(concat!("paradised/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT.min(wait)))
        .timeout_resolve(Some(CONNECT.min(wait)))
        .timeout_recv_response(Some(wait))
        .timeout_per_read(Some(wait))
        .timeout_send_body(Some(wait))
        .max_redirects(3)
        .build();
    Ok(config.into())
}

fn roots(path: &Path) -> anyhow::Result<RootCerts> {
    let pem = std::fs::read(path)?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item? {
            certificates.push(certificate);
        }
    }
    ensure!(!certificates.is_empty(), "no certificate in it");
    Ok(RootCerts::from(certificates))
}

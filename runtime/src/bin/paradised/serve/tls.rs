//! TLS for those who come from other machines: a certificate and its key, read anew at SIGHUP.

use super::lock::locked;
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate with its key, as their files were when they were read last.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    now: Mutex<Arc<ServerConfig>>,
}

fn read(certificate: &Path, key: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let chain: Vec<CertificateDer> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| format!("--tls-certificate {}", certificate.display()))?;
    ensure!(!chain.is_empty(), "--tls-certificate {}: no certificate in it", certificate.display());
    let own = PrivateKeyDer::from_pem_file(key).with_context(|| format!("--tls-key {}", key.display()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, own);
    let config = config.with_context(|| format!("{} and {}", certificate.display(), key.display()))?;
    Ok(Arc::new(config))
}

impl Tls {
    /// Of these files, PEM.
    ///
    /// # Errors
    /// If they are none, or do not belong together.
    pub fn open(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let now = Mutex::new(read(certificate, key)?);
        Ok(Self { certificate: certificate.into(), key: key.into(), now })
    }

    /// Reads the files anew; if they are none, the old ones stay.
    pub fn reload(&self) {
        match read(&self.certificate, &self.key) {
            Ok(config) => *locked(&self.now) = config,
            Err(error) => tracing::error!("the certificate stays as it was: {error:#}"),
        }
    }

    /// What makes a connection one of TLS.
    pub fn acceptor(&self) -> TlsAcceptor {
        locked(&self.now).clone().into()
    }
}

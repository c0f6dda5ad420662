//! TLS of the listener: what it shows, and whom it believes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bus::{Identity, KeyHash, UnixMillis};
use router::io::tls::{identity_of, key_of, validity_of};
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{
    NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;

use crate::config::ApiConfig;
use crate::io::shown::Served;

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub(in crate::io) enum TlsError {
    #[error("api: certificate and key go together")]
    HalfPair,
    #[error("api.{key}: {path} holds nothing of use in PEM", path = path.display())]
    Pem { key: &'static str, path: PathBuf, source: pem::Error },
    #[error("api.certificate: {path} holds no certificate", path = path.display())]
    NoCertificate { path: PathBuf },
    #[error("api: certificate and key cannot be used for TLS")]
    Pair(#[source] rustls::Error),
    #[error("the cluster's authority cannot be used")]
    Ca(#[source] rustls::Error),
    #[error("clients cannot be verified")]
    Verifier(#[from] VerifierBuilderError),
}

/// TLS 1.3. A client may come without a certificate; one that it shows must be the cluster's and in force.
pub(super) fn server(config: &ApiConfig, node: &Served) -> Result<Arc<ServerConfig>, TlsError> {
    let shown: Arc<dyn ResolvesServerCert> = match (&config.certificate, &config.key) {
        (Some(certificate), Some(key)) => single(read_chain(certificate)?, read_key(key)?)?,
        (None, None) => node.shown.clone(),
        _ => return Err(TlsError::HalfPair),
    };
    let mut roots = RootCertStore::empty();
    roots.add(node.ca.clone()).map_err(TlsError::Ca)?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Pair)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would outlive the check of its certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn single(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<SingleCertAndKey>, TlsError> {
    let pair = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(TlsError::Pair)?;
    Ok(Arc::new(pair.into()))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem { key: "certificate", path: path.to_owned(), source };
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(failed)?;
    match found.is_empty() {
        true => Err(TlsError::NoCertificate { path: path.to_owned() }),
        false => Ok(found),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Pem {
        key: "key",
        path: path.to_owned(),
        source,
    })
}

/// What a verified certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) identity: Identity,
    pub(super) key: KeyHash,
    /// Connections may last longer than what let them in.
    pub(super) not_after: UnixMillis,
}

impl Shown {
    /// `None`: it names nobody.
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, not_after) = validity_of(certificate)?;
        let (identity, key) = (identity_of(certificate).ok()?, key_of(certificate)?);
        Some(Self { identity, key, not_after: UnixMillis(not_after) })
    }
}

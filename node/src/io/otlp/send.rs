//! The way to a collector: one request a connection, over TLS if its address says so.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::config::{Collector, TelemetryConfig};

/// How long one request may take, the way there included.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What is read of a collector's answer.
const MAX_ANSWER: usize = 1 << 16;

/// Where systems keep the authorities that they believe: Debian and Alpine, Fedora, openSUSE, and what else has OpenSSL.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why a collector cannot be used at all.
#[derive(Debug, Error)]
pub(super) enum CollectorError {
    #[error("telemetry.ca: {path} holds no certificate in PEM", path = .0.display())]
    Pem(PathBuf, #[source] pem::Error),
    #[error("telemetry.ca: {path} holds no certificate of an authority", path = .0.display())]
    Empty(PathBuf),
    #[error(
        "telemetry.otlp: this system has no list of authorities (package ca-certificates): name a file as telemetry.ca"
    )]
    NoRoots,
    #[error("telemetry.otlp: '{0}' is no host that a certificate could be for")]
    Host(String),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// Why the collector has not got what it was sent.
#[derive(Debug, Error)]
pub(super) enum ExportError {
    #[error("no request can be made")]
    Unusable(#[from] CollectorError),
    #[error("cannot connect to {0}")]
    Connect(String, #[source] std::io::Error),
    #[error(
        "no TLS with {0}: it must speak TLS 1.3, and its certificate be of an authority that telemetry.ca or the system names"
    )]
    Handshake(String, #[source] std::io::Error),
    #[error("the collector ended the connection")]
    Broken(#[from] hyper::Error),
    #[error("the collector answered {0}: {1}")]
    Refused(StatusCode, String, Option<Duration>),
    #[error("no answer within {PATIENCE:?}")]
    Silent,
    #[error("the request cannot be made")]
    Request(#[from] hyper::http::Error),
}

impl ExportError {
    /// The collector may have got the request.
    pub(super) fn was_heard(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Refused(..) | Self::Silent)
    }

    /// The same request would be refused again: OTLP/HTTP names the four answers after which it is sent again.
    pub(super) fn is_final(&self) -> bool {
        let is_again = |status: StatusCode| matches!(status.as_u16(), 429 | 502 | 503 | 504);
        matches!(self, Self::Refused(status, ..) if !is_again(*status)) || matches!(self, Self::Request(_))
    }

    /// How long the collector wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let Self::Refused(_, _, after) = self else { return None };
        *after
    }
}

/// What a collector may ask for with `Retry-After`: whoever asks for more gets the question sooner.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// A collector, and how it is reached.
#[derive(Clone)]
pub(super) struct Target {
    authority: String,
    /// `""` or `/and/so/on`.
    prefix: String,
    tls: Option<Arc<Tls>>,
}

/// Made with the first request. A file that cannot be read is tried again with the next: a node starts without it.
struct Tls {
    ca: Option<PathBuf>,
    made: OnceLock<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// `None`: nothing is sent.
    pub(super) fn of(config: &TelemetryConfig) -> Option<Self> {
        let Collector::At { tls, place } = &config.otlp else { return None };
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let path = path.trim_matches('/');
        let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        let tls = tls.then(|| Arc::new(Tls { ca: config.ca.clone(), made: OnceLock::new() }));
        Some(Self { authority: authority.to_owned(), prefix, tls })
    }

    /// Whether it can be used at all, as far as this machine tells.
    pub(super) fn check(&self) -> Result<(), CollectorError> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.get(&self.authority).map(drop))
    }

    /// One request to `/v1/<signal>`.
    pub(super) async fn send(&self, signal: &str, body: String) -> Result<(), ExportError> {
        let until = Instant::now() + PATIENCE;
        let tls = match &self.tls {
            Some(tls) => Some(tls.get(&self.authority)?),
            None => None,
        };
        let late = |_| ExportError::Connect(self.authority.clone(), ErrorKind::TimedOut.into());
        let stream = timeout_at(until, TcpStream::connect(&self.authority)).await.map_err(late)?;
        let stream = stream.map_err(|error| ExportError::Connect(self.authority.clone(), error))?;
        let Some((connector, name)) = tls else {
            return timeout_at(until, self.post(stream, signal, body))
                .await
                .map_err(|_| ExportError::Silent)?;
        };
        let stream = timeout_at(until, connector.connect(name.clone(), stream)).await.map_err(late)?;
        let stream = stream.map_err(|error| ExportError::Handshake(self.authority.clone(), error))?;
        timeout_at(until, self.post(stream, signal, body)).await.map_err(|_| ExportError::Silent)?
    }

    async fn post(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        signal: &str,
        body: String,
    ) -> Result<(), ExportError> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = Request::post(format!("{}/v1/{signal}", self.prefix))
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let after = after.map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE));
        let answer = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let answer = answer.map(|body| body.to_bytes()).unwrap_or_default();
        let told = String::from_utf8_lossy(&answer).trim().chars().take(200).collect();
        Err(ExportError::Refused(status, told, after))
    }
}

impl Tls {
    fn get(&self, authority: &str) -> Result<&(TlsConnector, ServerName<'static>), CollectorError> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let made = (connector(self.ca.as_deref())?, server_name(authority)?);
        Ok(self.made.get_or_init(|| made))
    }
}

fn server_name(authority: &str) -> Result<ServerName<'static>, CollectorError> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|_| CollectorError::Host(host.to_owned()))
}

fn connector(ca: Option<&Path>) -> Result<TlsConnector, CollectorError> {
    let path = match ca {
        Some(path) => path.to_owned(),
        None => SYSTEM_ROOTS
            .iter()
            .map(PathBuf::from)
            .find(|path| path.is_file())
            .ok_or(CollectorError::NoRoots)?,
    };
    let mut roots = RootCertStore::empty();
    let unreadable = |why| CollectorError::Pem(path.clone(), why);
    for certificate in CertificateDer::pem_file_iter(&path).map_err(unreadable)? {
        // Of a system's list some are of a kind that nobody believes any more.
        let _ = roots.add(certificate.map_err(unreadable)?);
    }
    if roots.is_empty() {
        return Err(CollectorError::Empty(path));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

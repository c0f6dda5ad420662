//! TLS of the broker: which certificate it shows, and by which it knows clients.

use std::sync::Arc;

use bus::{Identity, KeyHash, Name, NodeId, NodeKind};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{
    NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::pass::{Pass, Register};
use crate::gate::access::Who;
use crate::gate::access::passwords::check_name;

/// Whose certificates name a client.
#[derive(Debug, Clone)]
pub enum ClientCa {
    /// The cluster's own authority: `spiffe://<cluster>/<user|mapper>/<name>` among the alternative names.
    Cluster { ca: CertificateDer<'static>, name: Name },
    /// The site's: the subject's common name is a user's.
    Site { roots: Vec<CertificateDer<'static>> },
}

/// How clients and broker know each other on one listener. TLS 1.2 and 1.3: devices in the field speak 1.2.
#[derive(Debug, Clone)]
pub struct Tls {
    pub(super) config: Arc<ServerConfig>,
    cluster: Option<Name>,
    register: Option<Register>,
}

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("certificate and key cannot be used for TLS")]
    Certificate(#[source] rustls::Error),
    #[error("the certificate authority for clients cannot be used")]
    Ca(#[source] rustls::Error),
    #[error("clients cannot be verified")]
    Verifier(#[from] VerifierBuilderError),
}

/// A verified certificate that names no client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum NoClient {
    #[error("not an X.509 certificate")]
    Malformed,
    #[error("no single SPIFFE URI of this cluster's users or mappers among the alternative names")]
    NoSpiffe,
    #[error("no common name that can be a user's")]
    NoName,
    #[error("it was revoked, or another took its place")]
    Barred,
}

impl Tls {
    /// `required`: clients without a certificate are turned away.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        clients: ClientCa,
        required: bool,
    ) -> Result<Self, TlsError> {
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let key = SingleCertAndKey::from(key.map_err(TlsError::Certificate)?);
        Self::resolved(Arc::new(key), clients, required)
    }

    /// The same with a certificate that may be another one from connection to connection.
    pub fn resolved(
        shown: Arc<dyn ResolvesServerCert>,
        clients: ClientCa,
        required: bool,
    ) -> Result<Self, TlsError> {
        let (roots, cluster) = match clients {
            ClientCa::Cluster { ca, name } => (vec![ca], Some(name)),
            ClientCa::Site { roots } => (roots, None),
        };
        let mut anchors = RootCertStore::empty();
        roots.into_iter().try_for_each(|root| anchors.add(root)).map_err(TlsError::Ca)?;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), Arc::clone(&provider));
        let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Certificate)?
            .with_client_cert_verifier(verifier.build()?)
            .with_cert_resolver(shown);
        // A resumed session would outlive the check of its certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), cluster, register: None })
    }

    /// Certificates of the cluster count as the node says.
    pub fn with_register(self, register: Register) -> Self {
        Self { register: Some(register), ..self }
    }

    /// How long a certificate lets its client stay; `None`: it is nobody's of whom the node could say something.
    pub(super) fn pass(&self, certificate: &[u8], who: &Who) -> Option<Pass> {
        let (Some(_), Some(register)) = (&self.cluster, &self.register) else { return None };
        let client = match who {
            Who::User(user) => NodeId { kind: NodeKind::User, name: Name::new(user).ok()? },
            Who::Mapper(mapper) => NodeId { kind: NodeKind::Mapper, name: mapper.clone() },
            Who::Anonymous => return None,
        };
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let key = KeyHash::of_spki(certificate.public_key().raw);
        Some(Pass { client, key, register: register.clone() })
    }

    /// Whom a certificate names that the handshake has verified.
    pub(super) fn identify(&self, certificate: &[u8]) -> Result<Who, NoClient> {
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| NoClient::Malformed)?;
        match &self.cluster {
            Some(cluster) => spiffe(&certificate)
                .and_then(|identity| Who::of_certificate(&identity, cluster))
                .ok_or(NoClient::NoSpiffe),
            None => common_name(&certificate).map(|name| Who::User(name.into())).ok_or(NoClient::NoName),
        }
    }
}

/// The only URI among the alternative names (SPIFFE X.509-SVID §2).
fn spiffe(certificate: &X509Certificate<'_>) -> Option<Identity> {
    let names = certificate.subject_alternative_name().ok()??;
    let uri = |name: &GeneralName<'_>| matches!(name, GeneralName::URI(_));
    let mut uris = names.value.general_names.iter().filter(|name| uri(name));
    match (uris.next(), uris.next()) {
        (Some(GeneralName::URI(uri)), None) => uri.parse().ok(),
        _ => None,
    }
}

fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let mut names = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    match (names.next(), names.next()) {
        (Some(name), None) if check_name(name).is_ok() => Some(name),
        _ => None,
    }
}

//! Who is at the other end: mutual TLS 1.3 with SPIFFE identities instead of DNS names.
//!
//! A server shows its certificate and asks for one; a client without one may only join. A client knows the server by
//! the cluster's CA and the expected identity or, when it joins, by the CA's hash from its token.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bus::id::InvalidIdentity;
use bus::token::CaHash;
use bus::{Identity, KeyHash, Name, NodeId, NodeKind};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme,
};
use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::shard::Lane;

const DAY: u64 = 24 * 3600;

/// What a node shows of itself, and the CA by which it knows the others.
pub struct Credentials {
    /// The node's certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// The cluster's CA: the one trust anchor.
    pub ca: CertificateDer<'static>,
    pub identity: Identity,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        let Self { chain, key, ca, identity } = self;
        Self { chain: chain.clone(), key: key.clone_key(), ca: ca.clone(), identity: identity.clone() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Credentials that cannot be used.
#[derive(Debug, Error)]
pub enum CredentialsError {
    #[error("the certificate does not name its own node")]
    Identity(#[source] NoIdentity),
    #[error("the certificate names {certificate}, not {expected}")]
    OtherNode { certificate: Identity, expected: Identity },
    #[error("the certificate and the key cannot be used for TLS")]
    Tls(#[source] rustls::Error),
    #[error("the CA cannot be used to verify others")]
    Ca(#[source] rustls::server::VerifierBuilderError),
    #[error("no cipher suite for QUIC's first packets")]
    CipherSuite(#[from] quinn_proto::crypto::rustls::NoInitialCipherSuite),
}

/// A certificate that names no party of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoIdentity {
    #[error("no certificate")]
    Missing,
    #[error("not an X.509 certificate")]
    Malformed,
    #[error("no single SPIFFE URI among the subject's alternative names")]
    NoUri,
    #[error("the SPIFFE URI names no node: {0}")]
    Invalid(#[from] InvalidIdentity),
}

/// Whom a dial must reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// This node of our own cluster.
    Node(Identity),
    /// Any cloud of the cluster whose CA certificate has this hash. The server sends that certificate in its chain.
    CaHash(CaHash),
}

/// Why we did not believe the server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ServerRefused {
    #[error("its certificate was not issued by the expected CA")]
    UnknownCa,
    #[error("it did not show the CA certificate that the token names")]
    CaNotShown,
    #[error("its certificate is not valid: {0}")]
    Certificate(String),
    #[error("its certificate is no node's: {0}")]
    NoIdentity(#[from] NoIdentity),
    #[error("it belongs to cluster {got}, not {expected}")]
    WrongCluster { expected: Name, got: Name },
    #[error("it is {got}, not {expected}")]
    WrongNode { expected: NodeId, got: NodeId },
    #[error("it is {0}, not a cloud")]
    NotACloud(NodeId),
}

/// Why a server did not believe its client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
enum ClientRefused {
    #[error("the certificate is no node's: {0}")]
    NoIdentity(#[from] NoIdentity),
    #[error("the certificate is of cluster {got}, not {expected}")]
    WrongCluster { expected: Name, got: Name },
    #[error("{0} is not a node that makes links")]
    Kind(NodeId),
    #[error("certificate expired {days} days ago, which is too long to renew it: join again with a token")]
    TooLate { days: u64 },
}

/// The identity that a certificate carries: its only URI among the alternative names (SPIFFE X.509-SVID §2).
pub fn identity_of(certificate: &[u8]) -> Result<Identity, NoIdentity> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| NoIdentity::Malformed)?;
    let names = certificate.subject_alternative_name().map_err(|_| NoIdentity::Malformed)?;
    let mut uris = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri.parse()?),
        _ => Err(NoIdentity::NoUri),
    }
}

/// Which key a certificate is for; `None` if it is no certificate.
pub fn key_of(certificate: &[u8]) -> Option<KeyHash> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(KeyHash::of_spki(certificate.public_key().raw))
}

/// From when to when a certificate holds, in milliseconds since 1970; `None` if it is no certificate.
pub fn validity_of(certificate: &[u8]) -> Option<(u64, u64)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    let millis = |seconds: i64| u64::try_from(seconds).unwrap_or_default().saturating_mul(1000);
    Some((millis(validity.not_before.timestamp()), millis(validity.not_after.timestamp())))
}

/// Checks that credentials fit together and name the node that they say.
pub fn check(credentials: &Credentials) -> Result<(), CredentialsError> {
    anchored(&credentials.ca).map_err(CredentialsError::Tls)?;
    certified_key(credentials).map(drop)
}

fn valid_from(certificate: &[u8]) -> Option<UnixTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_before.timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

fn certified_key(credentials: &Credentials) -> Result<CertifiedKey, CredentialsError> {
    let first = credentials.chain.first().ok_or(CredentialsError::Identity(NoIdentity::Missing))?;
    let certificate = identity_of(first).map_err(CredentialsError::Identity)?;
    if certificate != credentials.identity {
        let expected = credentials.identity.clone();
        return Err(CredentialsError::OtherNode { certificate, expected });
    }
    CertifiedKey::from_der(credentials.chain.clone(), credentials.key.clone_key(), &provider())
        .map_err(CredentialsError::Tls)
}

/// ring's TLS 1.3 suites. AES-128-GCM first where the CPU computes AES itself; ChaCha20, five times cheaper than AES
/// in software, first where it does not. A server takes the client's order.
fn provider() -> Arc<CryptoProvider> {
    let (gcm_128, gcm_256, chacha) =
        (TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256);
    let cipher_suites =
        if has_aes() { vec![gcm_128, gcm_256, chacha] } else { vec![chacha, gcm_128, gcm_256] };
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

fn anchored(ca: &CertificateDer<'static>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    Ok(roots)
}

/// TLS of the accepting side, for all lanes. A client's certificate may be over since `late`: whoever accepts must hold
/// what it is let in for against that.
pub(super) fn server(
    credentials: &Credentials,
    late: Duration,
) -> Result<QuicServerConfig, CredentialsError> {
    let key = certified_key(credentials)?;
    let roots = anchored(&credentials.ca).map_err(CredentialsError::Tls)?;
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(CredentialsError::Ca)?;
    let verifier = Arc::new(ClientCheck { chain, cluster: credentials.identity.cluster.clone(), late });
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(CredentialsError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Chains::new(key, &credentials.ca)));
    config.alpn_protocols = Lane::ALL.map(|lane| lane.alpn().to_vec()).into();
    // A resumed session would outlive the check of its certificate.
    config.send_tls13_tickets = 0;
    Ok(config.try_into()?)
}

/// Where a dial leaves its typed verdict on the server: QUIC itself keeps only its text.
pub(super) type Verdict = Arc<OnceLock<ServerRefused>>;

/// Why no TLS could be set up for a dial.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    #[error("no credentials")]
    NoCredentials,
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// TLS of one dial.
pub(super) fn client(
    credentials: Option<&Credentials>,
    expect: Expect,
    lane: Lane,
) -> Result<(QuicClientConfig, Verdict), ClientError> {
    if matches!(expect, Expect::Node(_)) && credentials.is_none() {
        return Err(ClientError::NoCredentials);
    }
    let verdict = Verdict::default();
    let check = ServerCheck {
        expect,
        ca: credentials.map(|own| own.ca.clone()),
        algorithms: provider().signature_verification_algorithms,
        verdict: verdict.clone(),
    };
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(CredentialsError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check));
    let mut config = match (lane, credentials) {
        (Lane::Join, _) => builder.with_no_client_auth(),
        (Lane::Bus | Lane::Packets | Lane::Renew, Some(own)) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key(own)?)))
        }
        (Lane::Bus | Lane::Packets | Lane::Renew, None) => return Err(ClientError::NoCredentials),
    };
    config.alpn_protocols = vec![lane.alpn().to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok((config.try_into().map_err(CredentialsError::CipherSuite)?, verdict))
}

/// The server's chain; a joining client is also shown the CA, which it knows only by hash.
#[derive(Debug)]
struct Chains {
    known: Arc<CertifiedKey>,
    joining: Arc<CertifiedKey>,
}

impl Chains {
    fn new(key: CertifiedKey, ca: &CertificateDer<'static>) -> Self {
        let mut joining = key.clone();
        if !joining.cert.contains(ca) {
            joining.cert.push(ca.clone());
        }
        Self { known: Arc::new(key), joining: Arc::new(joining) }
    }
}

impl ResolvesServerCert for Chains {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let joins = hello.alpn()?.any(|protocol| protocol == Lane::Join.alpn());
        Some(if joins { self.joining.clone() } else { self.known.clone() })
    }
}

/// The server's check of a client: the chain as webpki sees it, then the identity.
#[derive(Debug)]
struct ClientCheck {
    chain: Arc<dyn ClientCertVerifier>,
    cluster: Name,
    /// Since when it may be over.
    late: Duration,
}

impl ClientCheck {
    /// When the chain has to be valid: now, or where lateness is borne, at the certificate's own end.
    fn time_for(&self, certificate: &[u8], now: UnixTime) -> Result<UnixTime, ClientRefused> {
        if self.late.is_zero() {
            return Ok(now);
        }
        let Some((_, until_ms)) = validity_of(certificate) else { return Ok(now) };
        let until = Duration::from_millis(until_ms);
        let over_for = Duration::from_secs(now.as_secs()).saturating_sub(until);
        if over_for > self.late {
            return Err(ClientRefused::TooLate { days: over_for.as_secs() / DAY });
        }
        Ok(if over_for.is_zero() { now } else { UnixTime::since_unix_epoch(until) })
    }

    fn identity(&self, certificate: &[u8]) -> Result<(), ClientRefused> {
        let Identity { cluster, node } = identity_of(certificate)?;
        if cluster != self.cluster {
            return Err(ClientRefused::WrongCluster { expected: self.cluster.clone(), got: cluster });
        }
        match node.kind {
            NodeKind::Cloud | NodeKind::Edge => Ok(()),
            NodeKind::Mapper | NodeKind::User | NodeKind::Wireguard => Err(ClientRefused::Kind(node)),
        }
    }
}

impl ClientCertVerifier for ClientCheck {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let at = self.time_for(certificate, now).map_err(refusal)?;
        let verified = self.chain.verify_client_cert(certificate, intermediates, at)?;
        self.identity(certificate).map_err(refusal)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Carries our words to the peer, in the close frame's reason.
fn refusal(why: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    rustls::Error::Other(OtherError(Arc::new(why)))
}

/// The client's check of the server: CA, then identity; the DNS name is not looked at.
#[derive(Debug)]
struct ServerCheck {
    expect: Expect,
    ca: Option<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    verdict: Verdict,
}

impl ServerCheck {
    /// 1. The trust anchor is our own CA, or the shown certificate with the token's hash.
    /// 2. The chain leads to it and is valid now. A certificate of our CA that is not valid *yet* says that our own clock
    ///    is behind, as it is on boards that keep no time while they are off: the link is where they get it from. So it
    ///    cannot be earlier than the certificate begins. One that is over by our clock stays refused; nobody whose clock
    ///    is behind can tell more.
    /// 3. The identity is the expected one; while joining, any cloud's.
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), ServerRefused> {
        let roots = anchored(&self.anchor(shown)?).map_err(invalid)?;
        let parsed = ParsedCertificate::try_from(certificate).map_err(invalid)?;
        let now = valid_from(certificate).map_or(now, |begin| begin.max(now));
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, shown, now, self.algorithms.all)
            .map_err(invalid)?;
        self.identity(identity_of(certificate)?)
    }

    fn anchor(&self, shown: &[CertificateDer<'_>]) -> Result<CertificateDer<'static>, ServerRefused> {
        match &self.expect {
            Expect::Node(_) => self.ca.clone().ok_or(ServerRefused::UnknownCa),
            Expect::CaHash(hash) => shown
                .iter()
                .find(|certificate| CaHash::of_der(certificate) == *hash)
                .map(|certificate| certificate.clone().into_owned())
                .ok_or(ServerRefused::CaNotShown),
        }
    }

    fn identity(&self, got: Identity) -> Result<(), ServerRefused> {
        match &self.expect {
            Expect::CaHash(_) if got.node.kind == NodeKind::Cloud => Ok(()),
            Expect::CaHash(_) => Err(ServerRefused::NotACloud(got.node)),
            Expect::Node(expected) if expected.cluster != got.cluster => {
                Err(ServerRefused::WrongCluster { expected: expected.cluster.clone(), got: got.cluster })
            }
            Expect::Node(expected) if expected.node != got.node => {
                Err(ServerRefused::WrongNode { expected: expected.node.clone(), got: got.node })
            }
            Expect::Node(_) => Ok(()),
        }
    }
}

fn invalid(error: rustls::Error) -> ServerRefused {
    use CertificateError::{BadSignature, UnknownIssuer};
    if matches!(error, rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature)) {
        return ServerRefused::UnknownCa;
    }
    ServerRefused::Certificate(error.to_string())
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.check(certificate, intermediates, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(why) => {
                let _first = self.verdict.set(why.clone());
                Err(refusal(why))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

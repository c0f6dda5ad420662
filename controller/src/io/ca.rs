//! The cluster's certificate authority: one key, made at the cloud's first start, and what it signs.
//!
//! Key and certificate live in one file, `ca.pem`, mode 0600. One file, because the authority's hash is in every
//! join token: a key without its certificate would be another authority to all who hold a token.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bus::token::CaHash;
use bus::{Identity, Name, NodeKind, UnixMillis};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, GeneralName};

use super::secret_file;
use crate::join::{CsrError, Signed};
use crate::nodes::KeyHash;

/// How long a node's certificate holds where the configuration says nothing. It is renewed when a third is left, so a
/// cloud may be away for a month before anybody misses it.
pub const NODE_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long the authority's own certificate holds: an edge outlives servers, and nothing renews the authority.
const CA_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// Certificates begin this much in the past, for nodes whose clock is a little behind the cloud's; short ones by a tenth
/// of their validity at most.
const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// A request with a P-256 key takes about 200 bytes; what is longer is not parsed.
const MAX_CSR_LEN: usize = 4096;

/// Signs for one cluster.
pub struct CertificateAuthority {
    cluster: Name,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    not_after: UnixMillis,
}

/// Why the authority could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("cannot make the directory {path}", path = path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot create {path}", path = path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Read(#[from] secret_file::ReadError),
    #[error("{path} holds no key and certificate; restore it from a backup", path = path.display())]
    Damaged { path: PathBuf, source: pem::Error },
    #[error("{path} holds a certificate that cannot be read; restore it from a backup", path = path.display())]
    Certificate { path: PathBuf },
    #[error("key and certificate in {path} are no pair; restore it from a backup", path = path.display())]
    NoPair { path: PathBuf },
    #[error("{path} is the authority of cluster '{found}', not '{wanted}'; set the cluster's name back or use another data directory", path = path.display())]
    OtherCluster { path: PathBuf, found: String, wanted: Name },
    #[error("cannot make a key or certificate")]
    Crypto(#[from] rcgen::Error),
}

impl CertificateAuthority {
    /// Opens `<dir>/ca.pem`, or makes it (and `dir`) at the cloud's first start. `now` dates a new certificate.
    pub fn open_or_create(dir: &Path, cluster: &Name, now: UnixMillis) -> Result<Self, OpenError> {
        let path = dir.join("ca.pem");
        if !path.exists() {
            std::fs::create_dir_all(dir)
                .map_err(|source| OpenError::Directory { path: dir.to_owned(), source })?;
            create(&path, cluster, now)?;
        }
        Self::open(&path, cluster)
    }

    fn open(path: &Path, cluster: &Name) -> Result<Self, OpenError> {
        let text = secret_file::read(path)?;
        let damaged = |source| OpenError::Damaged { path: path.to_owned(), source };
        let certificate = CertificateDer::from_pem_slice(&text).map_err(damaged)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(damaged)?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)?;
        let facts = CaFacts::of(&certificate).ok_or(OpenError::Certificate { path: path.to_owned() })?;
        if facts.public_key != key.subject_public_key_info() {
            return Err(OpenError::NoPair { path: path.to_owned() });
        }
        if facts.trust_domain != trust_domain(cluster) {
            let found = facts.trust_domain.trim_start_matches("spiffe://").to_owned();
            return Err(OpenError::OtherCluster { path: path.to_owned(), found, wanted: cluster.clone() });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { cluster: cluster.clone(), issuer, certificate, not_after: facts.not_after })
    }

    /// Signs the key in `csr_der` as `identity`, if the request is signed with that key.
    ///
    /// A request for the identity of somebody else is refused. Whatever other names and rights it asks for are ignored:
    /// the certificate says `identity` and nothing else.
    /// It ends with the authority's own certificate at the latest.
    pub fn issue(
        &self,
        csr_der: &[u8],
        identity: &Identity,
        now: UnixMillis,
        validity: Duration,
    ) -> Result<Signed, CsrError> {
        self.issue_named(csr_der, identity, &[], now, validity)
    }

    /// The same, for a node that is also asked by these names and addresses, over HTTPS. What cannot be a name in a
    /// certificate is left out.
    pub fn issue_named(
        &self,
        csr_der: &[u8],
        identity: &Identity,
        hosts: &[String],
        now: UnixMillis,
        validity: Duration,
    ) -> Result<Signed, CsrError> {
        let key = proven_key(csr_der, identity)?;
        self.sign(&key, identity, hosts, now, validity).map_err(|e| CsrError::Authority(e.into()))
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        identity: &Identity,
        hosts: &[String],
        now: UnixMillis,
        validity: Duration,
    ) -> Result<Signed, IssueError> {
        if identity.cluster != self.cluster {
            return Err(IssueError::ForeignCluster(identity.clone()));
        }
        let not_after = after(now, validity).min(self.not_after);
        let serial = random_serial()?;
        let backdate = BACKDATE.min(validity / 10);
        let params = node_params(identity, hosts, (now, backdate), not_after, &serial)?;
        Ok(Signed {
            certificate_der: params.signed_by(key, &self.issuer)?.der().to_vec(),
            public_key: KeyHash::of_spki(&key.subject_public_key_info()),
            serial: serial.to_vec(),
            not_after,
        })
    }

    /// What join tokens carry, so that a joining node knows this authority.
    pub fn hash(&self) -> CaHash {
        CaHash::of_der(&self.certificate)
    }

    pub fn ca_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("cluster", &self.cluster)
            .field("hash", &self.hash())
            .finish_non_exhaustive()
    }
}

/// Why the authority did not sign.
#[derive(Debug, Error)]
pub enum IssueError {
    #[error("{0} is of another cluster")]
    ForeignCluster(Identity),
    #[error("no randomness for a serial number")]
    Random(#[from] getrandom::Error),
    #[error("cannot make a certificate")]
    Crypto(#[from] rcgen::Error),
}

fn create(path: &Path, cluster: &Name, now: UnixMillis) -> Result<(), OpenError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = ca_params(cluster, now)?.self_signed(&key)?;
    let text = key.serialize_pem() + &certificate.pem();
    match secret_file::create(path, text.as_bytes()) {
        // Another process was first; its authority is opened.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|source| OpenError::Create { path: path.to_owned(), source }),
    }
}

fn ca_params(cluster: &Name, now: UnixMillis) -> Result<CertificateParams, rcgen::Error> {
    let mut params = dated((now, BACKDATE), after(now, CA_VALIDITY));
    params.distinguished_name = common_name(&format!("kubebus {cluster}"));
    params.subject_alt_names = vec![SanType::URI(trust_domain(cluster).try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Under what name a node's certificate can be checked by those who know no SPIFFE, such as kubectl; `None`: it serves
/// nobody. An edge's kind is part of it, so that no edge can be called like the cloud.
pub fn server_name(identity: &Identity) -> Option<String> {
    let Identity { cluster, node } = identity;
    match node.kind {
        NodeKind::Cloud => Some(format!("{}.{cluster}.kb.internal", node.name)),
        NodeKind::Edge => Some(format!("{}.edge.{cluster}.kb.internal", node.name)),
        NodeKind::Mapper | NodeKind::User | NodeKind::Wireguard => None,
    }
}

/// As RFC 5280 §4.2.1.6 has names of hosts.
fn host_names(identity: &Identity, hosts: &[String]) -> Vec<SanType> {
    let name = |text: &str| match text.parse() {
        Ok(address) => Some(SanType::IpAddress(address)),
        Err(_) => text.try_into().ok().map(SanType::DnsName),
    };
    let own = server_name(identity);
    own.iter().chain(hosts).filter_map(|text| name(text)).collect()
}

/// X.509-SVID §3 and §4: exactly one URI SAN, no authority, signatures only.
fn node_params(
    identity: &Identity,
    hosts: &[String],
    (now, backdate): (UnixMillis, Duration),
    not_after: UnixMillis,
    serial: &[u8],
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = dated((now, backdate), not_after);
    params.distinguished_name = common_name(identity.node.name.as_str());
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
    params.subject_alt_names.extend(host_names(identity, hosts));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Nobody takes a mapper or a user for a broker.
    params.extended_key_usages = match identity.node.kind {
        NodeKind::Cloud | NodeKind::Edge => {
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth]
        }
        NodeKind::Mapper | NodeKind::User | NodeKind::Wireguard => {
            vec![ExtendedKeyUsagePurpose::ClientAuth]
        }
    };
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn dated((now, backdate): (UnixMillis, Duration), not_after: UnixMillis) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_millis(now.0).saturating_sub(backdate);
    params.not_after = epoch + Duration::from_millis(not_after.0);
    params
}

/// Whole seconds: what a certificate can say.
fn after(now: UnixMillis, validity: Duration) -> UnixMillis {
    UnixMillis((now.0 / 1000 + validity.as_secs()) * 1000)
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn trust_domain(cluster: &Name) -> String {
    format!("spiffe://{cluster}")
}

/// 127 random bits: positive and not zero (RFC 5280 §4.1.2.2).
fn random_serial() -> Result<[u8; 16], getrandom::Error> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial)?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

/// The public key of a request that is signed with it; P-256 and Ed25519 only.
fn proven_key(csr_der: &[u8], identity: &Identity) -> Result<SubjectPublicKeyInfo, CsrError> {
    if csr_der.len() > MAX_CSR_LEN {
        return Err(CsrError::Malformed);
    }
    let (rest, csr) = X509CertificationRequest::from_der(csr_der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let key = SubjectPublicKeyInfo::from_der(csr.certification_request_info.subject_pki.raw)
        .map_err(|_| CsrError::KeyKind)?;
    if ![&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519].contains(&key.algorithm()) {
        return Err(CsrError::KeyKind);
    }
    csr.verify_signature().map_err(|_| CsrError::Unproven)?;
    match other_identity(&csr, identity) {
        Some(other) => Err(CsrError::OtherIdentity(other)),
        None => Ok(key),
    }
}

/// The SPIFFE id that a request asks for, if it is somebody else's.
fn other_identity(csr: &X509CertificationRequest<'_>, identity: &Identity) -> Option<String> {
    /// Of what a stranger wrote; enough for people, and nothing of it moves their terminal.
    const SHOWN: usize = 200;
    let own = identity.to_string();
    for extension in csr.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            if let GeneralName::URI(uri) = name
                && *uri != own
            {
                return Some(uri.chars().take(SHOWN).flat_map(char::escape_debug).collect());
            }
        }
    }
    None
}

/// What is read back from the authority's certificate.
struct CaFacts {
    public_key: Vec<u8>,
    trust_domain: String,
    not_after: UnixMillis,
}

impl CaFacts {
    fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let names = &certificate.subject_alternative_name().ok()??.value.general_names;
        let [GeneralName::URI(uri)] = names.as_slice() else { return None };
        let seconds = certificate.validity().not_after.timestamp();
        Some(Self {
            public_key: certificate.public_key().raw.to_vec(),
            trust_domain: (*uri).to_owned(),
            not_after: UnixMillis(u64::try_from(seconds).ok()?.saturating_mul(1000)),
        })
    }
}

#[cfg(test)]
mod tests;

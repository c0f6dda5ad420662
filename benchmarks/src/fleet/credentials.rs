//! The cluster's authority, and certificates as it gives them to nodes.

use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use router::io::shard::Credentials;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

const CERTIFICATE: &str = "ca.der";
const KEY: &str = "ca.key";

/// P-256, as clouds make it.
pub(super) struct Authority {
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(super) fn create() -> Result<Self> {
        let key = KeyPair::generate().context("a key for the authority")?;
        let certificate = params().self_signed(&key).context("the authority's certificate")?.der().clone();
        Ok(Self { key, certificate })
    }

    pub(super) fn store(&self, room: &Path) -> Result<()> {
        std::fs::write(room.join(CERTIFICATE), &self.certificate).context("write the certificate")?;
        std::fs::write(room.join(KEY), self.key.serialize_pem()).context("write the key")
    }

    pub(super) fn load(room: &Path) -> Result<Self> {
        let key = std::fs::read_to_string(room.join(KEY)).context("read the authority's key")?;
        let certificate = std::fs::read(room.join(CERTIFICATE)).context("read its certificate")?.into();
        Ok(Self { key: KeyPair::from_pem(&key).context("the authority's key")?, certificate })
    }

    /// For `cluster/kind/name`.
    pub(super) fn issue(&self, name: &str) -> Result<Credentials> {
        let uri = format!("spiffe://{name}");
        let key = KeyPair::generate().context("a node's key")?;
        let mut node = CertificateParams::default();
        node.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().context("a node's name")?)];
        let issuer = Issuer::new(params(), &self.key);
        let certificate = node.signed_by(&key, &issuer).context("a node's certificate")?.der().clone();
        Ok(Credentials {
            chain: vec![certificate],
            key: PrivateKeyDer::try_from(key.serialize_der()).ok().context("a node's key")?,
            ca: self.certificate.clone(),
            identity: uri.parse().ok().context("a node's name")?,
        })
    }
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

//! Certificates of clients, at the cloud: who they are is signed by the cluster's authority.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bus::io::Clock;
use bus::{Identity, KeyHash, NodeId, NodeKind, UnixMillis};
use controller::api::object::timestamp;
use controller::io::{CertificateAuthority, new_key_and_csr};
use controller::pem;

use super::commands::Usage;
use super::identity;

/// Longest validity: longer than a machine's life is a mistake.
const MAX_VALIDITY: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Somebody's new certificate. PEM.
pub(super) struct Issued {
    pub(super) identity: Identity,
    /// The cloud that issued it.
    pub(super) cloud: Identity,
    pub(super) key: String,
    pub(super) certificate: String,
    pub(super) authority: String,
    pub(super) key_hash: KeyHash,
    pub(super) not_after: UnixMillis,
}

impl Issued {
    /// When it ends, as people read it.
    pub(super) fn until(&self) -> String {
        timestamp(self.not_after)
    }
}

/// Makes a key and signs it. `data_dir` is the cloud's, which may run or not.
pub(super) fn issue(who: &NodeId, lasting: Duration, data_dir: &Path) -> Result<Issued> {
    if !matches!(who.kind, NodeKind::Mapper | NodeKind::User) {
        return Err(Usage(anyhow::anyhow!("'{who}' is no client: write mapper/NAME or user/NAME")).into());
    }
    if lasting > MAX_VALIDITY {
        return Err(Usage(anyhow::anyhow!("--for: at most ten years")).into());
    }
    let dir = data_dir.join("ca");
    let cloud = identity::cloud_of(data_dir)?.filter(|_| dir.join("ca.pem").exists());
    let Some(cloud) = cloud else {
        bail!("{} is no cloud's data directory: issue certificates at the cloud", data_dir.display());
    };
    let now = Clock::start().now().wall;
    let authority = CertificateAuthority::open_or_create(&dir, &cloud.cluster, now)
        .context("the cluster's certificate authority")?;
    let (key, csr) = new_key_and_csr().context("make a key")?;
    let identity = Identity { cluster: cloud.cluster.clone(), node: who.clone() };
    let signed = authority.issue(&csr, &identity, now, lasting)?;
    Ok(Issued {
        identity,
        cloud,
        key: pem::encode("PRIVATE KEY", key.secret_pkcs8_der()),
        certificate: pem::encode("CERTIFICATE", &signed.certificate_der),
        authority: pem::encode("CERTIFICATE", authority.ca_der()),
        key_hash: signed.public_key,
        not_after: signed.not_after,
    })
}

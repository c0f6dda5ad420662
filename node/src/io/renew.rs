//! Getting this node's next certificate, keeping it, and showing it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use bus::{Identity, UnixMillis};
use controller::io::{CertificateAuthority, new_key_and_csr};
use controller::join::CsrError;
use controller::renew::{RenewRefusal, RenewReply, RenewRequest};
use router::io::shard::{Credentials, CredentialsError, Expect, Lane};
use router::io::tls;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use tokio::task::JoinSet;

use super::identity::{self, EdgeIdentity, IdentityError, Pair};
use super::join::{self, JoinError};
use super::shown::Served;
use super::upstream::Target;
use crate::renewal::{Certificate, News, Verdict};

/// A shorter validity leaves no time for a renewal.
const SHORTEST_VALIDITY: Duration = Duration::from_secs(10);

/// A longer one makes renewals so rare that nobody knows whether they work.
const LONGEST_VALIDITY: Duration = Duration::from_secs(825 * 24 * 3600);

/// Checks `cloud.certificate-validity`.
pub(super) fn check_validity(validity: Duration) -> Result<()> {
    if validity < SHORTEST_VALIDITY || validity > LONGEST_VALIDITY {
        bail!("cloud.certificate-validity: write 10s to 825d; 90d is usual");
    }
    Ok(())
}

/// Why there is no next certificate.
#[derive(Debug, Error)]
pub(super) enum RenewError {
    #[error(transparent)]
    Ask(#[from] JoinError),
    #[error("{message}")]
    Refused { code: RenewRefusal, message: String, retry_after: Duration },
    #[error("the certificate that the cloud sent cannot be used")]
    Unusable(#[from] CredentialsError),
    #[error(transparent)]
    Keep(#[from] IdentityError),
    #[error("cannot sign this cloud's own certificate")]
    Own(#[source] CsrError),
    #[error("the renewal broke off")]
    BrokeOff,
}

impl RenewError {
    pub(super) fn into_news(self) -> News {
        let why = bus::with_causes(&self);
        let (verdict, retry_after) = if let Self::Refused { code, retry_after, .. } = self {
            (verdict_of(code), retry_after)
        } else {
            (Verdict::Open, Duration::ZERO)
        };
        News::Failed { why, verdict, retry_after }
    }
}

fn verdict_of(code: RenewRefusal) -> Verdict {
    match code {
        RenewRefusal::NotMember | RenewRefusal::Superseded => Verdict::Unknown,
        RenewRefusal::Malformed
        | RenewRefusal::TooLate
        | RenewRefusal::Busy
        | RenewRefusal::InvalidCsr
        | RenewRefusal::Internal
        | RenewRefusal::Other => Verdict::Open,
    }
}

/// By what this node is known, and how it gets the next of it.
#[derive(Debug)]
pub struct Papers {
    shown: Credentials,
    served: Served,
    source: Source,
    /// At most one at a time: the node asks again when it has the answer.
    asked: JoinSet<Result<Pair, RenewError>>,
}

#[derive(Debug)]
enum Source {
    Cloud(Box<Own>),
    Edge { data_dir: PathBuf, pair: Pair, former: Option<Pair> },
}

/// What a cloud signs its own certificate with, for its lasting key.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) authority: Arc<CertificateAuthority>,
    pub(super) csr: Vec<u8>,
    pub(super) hosts: Vec<String>,
    pub(super) validity: Duration,
}

impl Own {
    /// The certificate, in DER.
    pub(super) fn sign(&self, me: &Identity, now: UnixMillis) -> Result<Vec<u8>, CsrError> {
        let Self { authority, csr, hosts, validity } = self;
        Ok(authority.issue_named(csr, me, hosts, now, *validity)?.certificate_der)
    }
}

impl Papers {
    pub(super) fn of_cloud(shown: Credentials, own: Own) -> Result<Self, rustls::Error> {
        let served = Served::new(&shown)?;
        Ok(Self { shown, served, source: Source::Cloud(Box::new(own)), asked: JoinSet::new() })
    }

    /// Of the edge that joined into `data_dir`.
    pub(super) fn of_edge(stored: EdgeIdentity, data_dir: &Path) -> Result<Self> {
        let pair = Pair { certificate: stored.certificate.clone(), key: stored.key.clone() };
        let shown = credentials(&pair, CertificateDer::from(stored.ca.clone()), stored.identity());
        let served = Served::new(&shown)?;
        let former = identity::load_former(data_dir)?;
        let source = Source::Edge { data_dir: data_dir.to_owned(), pair, former };
        Ok(Self { shown, served, source, asked: JoinSet::new() })
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.shown
    }

    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    /// The certificate that is shown.
    pub(super) fn certificate(&self) -> Certificate {
        let first = self.shown.chain.first().and_then(|certificate| tls::validity_of(certificate));
        let (not_before, not_after) = first.unwrap_or_default();
        Certificate { not_before: UnixMillis(not_before), not_after: UnixMillis(not_after) }
    }

    /// Goes on with [`Self::answered`]. An edge asks the cloud, at `target`.
    pub(super) fn renew(&mut self, target: Option<(Target, Identity)>, now: UnixMillis) {
        match (&self.source, target) {
            (Source::Cloud(own), _) => {
                let signed = own.sign(&self.shown.identity, now).map_err(RenewError::Own);
                let key = self.shown.key.secret_der().to_vec();
                let pair = signed.map(|certificate| Pair { certificate, key });
                self.asked.spawn(std::future::ready(pair));
            }
            (Source::Edge { data_dir, pair, .. }, Some((target, cloud))) => {
                let ask = Ask {
                    target,
                    cloud,
                    shown: self.shown.clone(),
                    pair: pair.clone(),
                    data_dir: data_dir.clone(),
                };
                self.asked.spawn(ask.run());
            }
            (Source::Edge { .. }, None) => {
                self.asked.spawn(std::future::ready(Err(RenewError::BrokeOff)));
            }
        }
    }

    /// What came of it; never, while nothing was asked.
    pub(super) async fn answered(&mut self) -> Result<Pair, RenewError> {
        match self.asked.join_next().await {
            Some(answer) => answer.unwrap_or(Err(RenewError::BrokeOff)),
            None => std::future::pending().await,
        }
    }

    /// From now on this is shown.
    pub(super) fn show(&mut self, next: Pair) -> Result<(), RenewError> {
        let next_shown = credentials(&next, self.shown.ca.clone(), self.shown.identity.clone());
        tls::check(&next_shown)?;
        self.served.shown.set(&next_shown).map_err(CredentialsError::Tls)?;
        self.shown = next_shown;
        if let Source::Edge { pair, former, .. } = &mut self.source {
            *former = Some(std::mem::replace(pair, next));
        }
        Ok(())
    }

    /// The certificate before this one, for a cloud that knows no newer one; `false` if there is none.
    pub(super) fn show_other(&mut self) -> Result<bool, RenewError> {
        let Source::Edge { former: Some(former), .. } = &self.source else { return Ok(false) };
        self.show(former.clone())?;
        Ok(true)
    }
}

fn credentials(pair: &Pair, ca: CertificateDer<'static>, identity: Identity) -> Credentials {
    Credentials {
        chain: vec![CertificateDer::from(pair.certificate.clone())],
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.key.clone())),
        ca,
        identity,
    }
}

/// One request of an edge.
struct Ask {
    target: Target,
    cloud: Identity,
    shown: Credentials,
    pair: Pair,
    data_dir: PathBuf,
}

impl Ask {
    /// A pair that is on the disk.
    async fn run(self) -> Result<Pair, RenewError> {
        let Self { target, cloud, shown, pair, data_dir } = self;
        let address: SocketAddr = match target {
            Target::Address(address) => address,
            Target::Endpoint((host, port)) => join::resolve(&host, port).await?,
        };
        let (key, csr_der) = new_key_and_csr().map_err(JoinError::Key)?;
        let request = RenewRequest { csr_der }.to_bytes();
        let (ca, identity) = (shown.ca.clone(), shown.identity.clone());
        let whom = (Expect::Node(cloud), Lane::Renew);
        let answer = join::exchange(address, Some(shown), whom, request).await?;
        let certificate = match RenewReply::from_bytes(&answer).map_err(|_| JoinError::Answer)? {
            RenewReply::Renewed { certificate_der } => certificate_der,
            RenewReply::Refused { code, message, retry_after_s } => {
                let retry_after = Duration::from_secs(retry_after_s.into());
                return Err(RenewError::Refused { code, message, retry_after });
            }
        };
        let next = Pair { certificate, key: key.secret_pkcs8_der().to_vec() };
        tls::check(&credentials(&next, ca, identity))?;
        let kept = tokio::task::spawn_blocking(move || {
            identity::renew(&data_dir, &pair, &next)?;
            Ok(next)
        });
        kept.await.unwrap_or(Err(RenewError::BrokeOff))
    }
}

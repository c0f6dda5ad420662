//! Giving an edge its next certificate: one request on a link whose certificate says who asks, answered in one cycle.
//!
//! The order of the checks:
//!
//! 1. the asker is in the register, so it was not revoked;
//! 2. its key is the one in the register, or the one that was signed last and not used yet: no older certificate, and
//!    none of a former node of that name, gets a younger one;
//! 3. that certificate is over for at most [`RENEWABLE_FOR`];
//! 4. no more is asked than [`Rate`] allows;
//! 5. the request is well-formed, signed with its own key, and asks for no other identity.
//!
//! The new key is put beside the old one, and takes its place when the edge shows it for the first time
//! ([`nodes::promote`]): an edge whose answer was lost, or whose disk lost it, still comes by the old one.

mod wire;

pub use wire::{RenewRefusal, RenewReply, RenewRequest};

use std::collections::VecDeque;
use std::time::Duration;

use bus::{Identity, KeyHash, Mono, Name, NodeId, Now, RENEWABLE_FOR};
use metadata::Keyspace;
use thiserror::Error;

use crate::join::{CsrError, InvalidMessage, Signer};
use crate::nodes::{self, Next, NodeRecord};
use crate::record::DamagedRecord;

/// Certificates signed in a second, at most: a signature and a commit are cheap, but a fleet that was off for a season
/// comes back at once. What is beyond waits for [`BUSY`].
const PER_SECOND: usize = 200;

/// Certificates signed for one edge within [`MEMORY`]: it needs one, and one more when its answer was lost.
const OF_ONE: usize = 4;

/// How long it is remembered who was given one.
const MEMORY: Duration = Duration::from_secs(10);

/// What an edge beyond the rate is told to wait, its own jitter excluded.
const BUSY: Duration = Duration::from_secs(30);

/// Who asks, as its link proves.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    pub name: &'a Name,
    pub key: KeyHash,
}

/// Why an edge gets no certificate. The text goes to it.
#[derive(Debug, Error)]
enum Refusal {
    #[error("the request cannot be read: {0}; use the same version of kubebus at both ends")]
    Malformed(#[source] InvalidMessage),
    #[error("edge/{0} is not a member of this cluster any more: join again into an empty data directory")]
    NotMember(Name),
    #[error(
        "this certificate of edge/{0} was superseded: a newer one was used since, or another machine has the name; join \
         again into an empty data directory"
    )]
    Superseded(Name),
    #[error(
        "this certificate expired {days} days ago, which is too long to renew it: join again with a token"
    )]
    TooLate { days: u64 },
    #[error("the cloud signs as many certificates as it can: ask again later")]
    Busy,
    #[error("the request for a certificate is refused: {0}")]
    InvalidCsr(#[source] CsrError),
    #[error("the cloud cannot sign: {0}; see its log")]
    Authority(#[source] CsrError),
    #[error("the cloud's store is damaged: {0}")]
    Damaged(#[from] DamagedRecord),
}

impl Refusal {
    fn code(&self) -> RenewRefusal {
        match self {
            Self::Malformed(_) => RenewRefusal::Malformed,
            Self::NotMember(_) => RenewRefusal::NotMember,
            Self::Superseded(_) => RenewRefusal::Superseded,
            Self::TooLate { .. } => RenewRefusal::TooLate,
            Self::Busy => RenewRefusal::Busy,
            Self::InvalidCsr(_) => RenewRefusal::InvalidCsr,
            Self::Authority(_) | Self::Damaged(_) => RenewRefusal::Internal,
        }
    }

    fn retry_after(&self) -> Duration {
        if matches!(self, Self::Busy) { BUSY } else { Duration::ZERO }
    }
}

/// Who was given a certificate in the last ten seconds: at most 200 entries for each of them.
#[derive(Debug, Default)]
pub struct Rate(VecDeque<(Mono, Name)>);

impl Rate {
    /// Whether `name` may have one now; if so, it counts.
    fn take(&mut self, name: &Name, now: Mono) -> bool {
        while self.0.front().is_some_and(|(at, _)| now.since(*at) >= MEMORY) {
            self.0.pop_front();
        }
        let of_one = self.0.iter().filter(|(_, other)| other == name).count();
        let lately =
            self.0.iter().rev().take_while(|(at, _)| now.since(*at) < Duration::from_secs(1)).count();
        let may = of_one < OF_ONE && lately < PER_SECOND;
        if may {
            self.0.push_back((now, name.clone()));
        }
        may
    }
}

/// Answers one request. Never fails: a refusal is an answer, and writes nothing.
pub fn handle_renew(
    cluster: &Name,
    asker: Asker<'_>,
    request: &[u8],
    ks: &mut Keyspace,
    now: Now,
    rate: &mut Rate,
    sign: &mut Signer<'_>,
) -> RenewReply {
    match renew(cluster, asker, request, ks, now, rate, sign) {
        Ok(certificate_der) => RenewReply::Renewed { certificate_der },
        Err(refusal) => RenewReply::Refused {
            code: refusal.code(),
            message: refusal.to_string(),
            retry_after_s: refusal.retry_after().as_secs() as u32,
        },
    }
}

fn renew(
    cluster: &Name,
    asker: Asker<'_>,
    request: &[u8],
    ks: &mut Keyspace,
    now: Now,
    rate: &mut Rate,
    sign: &mut Signer<'_>,
) -> Result<Vec<u8>, Refusal> {
    let request = RenewRequest::from_bytes(request).map_err(Refusal::Malformed)?;
    let Asker { name, key } = asker;
    let node = nodes::get(name, ks)?.ok_or_else(|| Refusal::NotMember(name.clone()))?;
    check_age(&node, key, now)?;
    if !rate.take(name, now.mono) {
        return Err(Refusal::Busy);
    }
    let identity = Identity { cluster: cluster.clone(), node: NodeId::edge(name.clone()) };
    let signed = sign(&request.csr_der, &identity).map_err(|error| match error {
        CsrError::Authority(_) => Refusal::Authority(error),
        CsrError::Malformed | CsrError::KeyKind | CsrError::Unproven | CsrError::OtherIdentity(_) => {
            Refusal::InvalidCsr(error)
        }
    })?;
    // Who shows the newest key has used it.
    let node = nodes::promote(name, key, ks)?.unwrap_or(node);
    let next = Next { public_key: signed.public_key, serial: signed.serial, not_after: signed.not_after };
    nodes::put(&NodeRecord { next: Some(next), ..node }, ks);
    Ok(signed.certificate_der)
}

/// Checks 2 and 3.
fn check_age(node: &NodeRecord, key: KeyHash, now: Now) -> Result<(), Refusal> {
    /// In seconds.
    const DAY: u64 = 24 * 3600;
    let until = node.until(key).ok_or_else(|| Refusal::Superseded(node.name.clone()))?;
    let over_for = now.wall.since(until);
    if over_for > RENEWABLE_FOR {
        return Err(Refusal::TooLate { days: over_for.as_secs() / DAY });
    }
    Ok(())
}

#[cfg(test)]
mod tests;

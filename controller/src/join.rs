//! Letting a node in: one request, checked and answered, all of it written in one keyspace cycle.
//!
//! The order of the checks is what an outsider may learn: without a valid token's secret nothing of the cluster, not
//! even which names exist, and no signature is computed.
//!
//! 1. the request is well-formed;
//! 2. its token is known and has not expired;
//! 3. the token has a use left, or this very node used it and asks again;
//! 4. the certificate request is signed with its own key;
//! 5. the name is free, or held by the same key, and no WireGuard client has it;
//! 6. the token's LANs can be told from those of other nodes ([`clash`]);
//! 7. the pool has a place.
//!
//! Then token, node record, lease and routes are written together. A node whose reply was lost asks again with the
//! same token and key and is welcome without using the token up twice. The same key may come with a new token: it
//! then has that token's site and LANs.

mod wire;

pub use wire::{
    InvalidMessage, JoinReply, JoinRequest, MAX_REPLY_LEN, MAX_REQUEST_LEN, RefusalCode, Welcome,
};
pub(crate) use wire::{codes, whole};

use std::time::Duration;

use bus::{Identity, Name, NodeId, Now, Route, SubnetKind, UnixMillis};
use metadata::Keyspace;
use thiserror::Error;

use crate::access;
use crate::clash::{self, Unsettled};
use crate::cluster::{Cluster, lease_routes};
use crate::lease::{self, GrantError};
use crate::nodes::{self, KeyHash, NodeRecord};
use crate::record::DamagedRecord;
use crate::token::{self, Token, TokenRefused};
use crate::{retired, route, wireguard};

/// A new certificate and what the registry keeps of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub certificate_der: Vec<u8>,
    pub public_key: KeyHash,
    pub serial: Vec<u8>,
    pub not_after: UnixMillis,
}

/// Why a request for a certificate was not signed.
#[derive(Debug, Error)]
pub enum CsrError {
    #[error("not a PKCS#10 request")]
    Malformed,
    #[error("the key is neither ECDSA P-256 nor Ed25519")]
    KeyKind,
    #[error("the request is not signed with its own key")]
    Unproven,
    #[error("it asks for {0}, which is somebody else")]
    OtherIdentity(String),
    #[error("the cluster's authority failed")]
    Authority(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Signs a request as an identity; the cluster's authority is the one that does.
pub type Signer<'a> = dyn FnMut(&[u8], &Identity) -> Result<Signed, CsrError> + 'a;

/// Why a node is not let in. The text goes to it.
#[derive(Debug, Error)]
enum Refusal {
    #[error("the join request cannot be read: {0}; use the same version of kubebus at both ends")]
    Malformed(#[source] InvalidMessage),
    #[error("this is no token's secret; copy the token whole from 'kubebus token create'")]
    Secret,
    #[error(
        "this token is not known to cluster {cluster}; create one with 'kubebus token create --site <site>'"
    )]
    UnknownToken { cluster: Name },
    #[error("this token expired {} ago; create another with 'kubebus token create --site {site}'", rounded(*.age))]
    Expired { site: Name, age: Duration },
    #[error(
        "this token was used by {}; create another with 'kubebus token create --site {}'",
        users(.0), .0.site
    )]
    Used(Box<Token>),
    #[error(
        "the name {0} belongs to another key; join with another --name, or remove the old node with \
         'kubebus delete node {0}'"
    )]
    NameTaken(Name),
    #[error("the name {0} is that of a WireGuard client: join with another --name")]
    NameOfClient(Name),
    #[error("the request for a certificate is refused: {0}")]
    InvalidCsr(#[source] CsrError),
    #[error(transparent)]
    Lans(Unsettled),
    #[error("{0}")]
    NoAddress(#[source] GrantError),
    #[error("the cloud cannot sign: {0}; see its log")]
    Authority(#[source] CsrError),
    #[error("the cloud's store is damaged: {0}")]
    Damaged(#[from] DamagedRecord),
}

/// To the second: nobody needs it finer.
fn rounded(age: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(age.as_secs()))
}

fn users(token: &Token) -> String {
    /// More names help nobody.
    const SHOWN: usize = 3;
    let shown: Vec<String> =
        token.used_by.iter().take(SHOWN).map(|name| NodeId::edge(name.clone()).to_string()).collect();
    let more = token.used_by.len().saturating_sub(SHOWN);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &tail
}

impl Refusal {
    fn code(&self) -> RefusalCode {
        match self {
            Self::Malformed(_) | Self::Secret => RefusalCode::Malformed,
            Self::UnknownToken { .. } => RefusalCode::UnknownToken,
            Self::Expired { .. } => RefusalCode::Expired,
            Self::Used(_) => RefusalCode::Used,
            Self::NameTaken(_) | Self::NameOfClient(_) => RefusalCode::NameTaken,
            Self::InvalidCsr(_) => RefusalCode::InvalidCsr,
            Self::Lans(Unsettled::Fixed { .. }) => RefusalCode::LanClash,
            Self::NoAddress(_) | Self::Lans(Unsettled::NoRoom { .. }) => RefusalCode::NoAddress,
            Self::Authority(_) | Self::Damaged(_) | Self::Lans(Unsettled::Damaged(_)) => {
                RefusalCode::Internal
            }
        }
    }
}

/// Answers one request of a node without a certificate. Never fails: a refusal is an answer, and writes nothing.
pub fn handle_join(
    cluster: &Cluster,
    request: &[u8],
    ks: &mut Keyspace,
    now: Now,
    sign: &mut Signer<'_>,
) -> Vec<u8> {
    let reply = match admit(cluster, request, ks, now, sign) {
        Ok(welcome) => JoinReply::Welcome(welcome),
        Err(refusal) => JoinReply::Refused { code: refusal.code(), message: refusal.to_string() },
    };
    reply.to_bytes()
}

fn admit(
    cluster: &Cluster,
    request: &[u8],
    ks: &mut Keyspace,
    now: Now,
    sign: &mut Signer<'_>,
) -> Result<Welcome, Refusal> {
    let request = JoinRequest::from_bytes(request).map_err(Refusal::Malformed)?;
    let known = nodes::get(&request.name, ks)?;
    let token = usable_token(cluster, &request, known.as_ref(), ks, now)?;
    let identity = Identity { cluster: cluster.name.clone(), node: NodeId::edge(request.name.clone()) };
    let signed = sign(&request.csr_der, &identity).map_err(refused_csr)?;
    check_name(&request.name, known.as_ref(), &signed.public_key, &token)?;
    if wireguard::exists(&request.name, ks) {
        return Err(Refusal::NameOfClient(request.name));
    }
    let settled = clash::settle(&token.lans, (&identity.node, &token.site), &cluster.plan, ks, now)
        .map_err(Refusal::Lans)?;
    let lease = lease::grant(&cluster.plan, &identity.node, ks, now).map_err(Refusal::NoAddress)?;
    let kinds = (SubnetKind::EdgeNode, SubnetKind::EdgeContainer);
    let routes = [lease_routes(&lease, &identity.node, kinds), settled.lans.clone()].concat();
    retired::update(&identity.node, &routes, ks, now)?;
    route::replace(&identity.node, &routes, ks)?;
    renumber(&settled.renumbered, ks)?;
    let asks_again = came_with(known.as_ref(), &token);
    nodes::put(&new_record(&request.name, &token, &signed, now), ks);
    if !asks_again {
        token.consume(&request.name, ks);
    }
    Ok(welcome(cluster, signed, settled.lans))
}

/// Checks 2 and 3.
fn usable_token(
    cluster: &Cluster,
    request: &JoinRequest,
    known: Option<&NodeRecord>,
    ks: &Keyspace,
    now: Now,
) -> Result<Token, Refusal> {
    let token = token::find(&request.secret, ks, now).map_err(|refused| match refused {
        TokenRefused::Malformed => Refusal::Secret,
        TokenRefused::Unknown => Refusal::UnknownToken { cluster: cluster.name.clone() },
        TokenRefused::Expired(token) => {
            Refusal::Expired { age: now.wall.since(token.expires), site: token.site }
        }
        TokenRefused::Damaged(damaged) => Refusal::Damaged(damaged),
    })?;
    if token.is_used_up() && !came_with(known, &token) {
        return Err(Refusal::Used(Box::new(token)));
    }
    Ok(token)
}

fn came_with(known: Option<&NodeRecord>, token: &Token) -> bool {
    known.is_some_and(|node| node.token() == token.id())
}

fn refused_csr(error: CsrError) -> Refusal {
    match error {
        CsrError::Authority(_) => Refusal::Authority(error),
        CsrError::Malformed | CsrError::KeyKind | CsrError::Unproven | CsrError::OtherIdentity(_) => {
            Refusal::InvalidCsr(error)
        }
    }
}

/// Check 5. A stranger who shows a used token under its user's name is told of the token.
fn check_name(name: &Name, known: Option<&NodeRecord>, key: &KeyHash, token: &Token) -> Result<(), Refusal> {
    match known {
        Some(node) if node.until(*key).is_none() && token.is_used_up() => {
            Err(Refusal::Used(Box::new(token.clone())))
        }
        Some(node) if node.until(*key).is_none() => Err(Refusal::NameTaken(name.clone())),
        _ => Ok(()),
    }
}

/// LANs of other edges get other prefixes: other policies may lead to them.
pub(crate) fn renumber(routes: &[Route], ks: &mut Keyspace) -> Result<(), DamagedRecord> {
    routes.iter().for_each(|route| route::renumber(route, ks));
    access::tell_edges(routes.iter().map(|route| route.owner.name.clone()), ks)
}

fn new_record(name: &Name, token: &Token, signed: &Signed, now: Now) -> NodeRecord {
    let node = NodeRecord::new(name.clone(), token.site.clone(), token.id(), signed, now.wall);
    NodeRecord { lans: token.lans.clone(), ..node }
}

fn welcome(cluster: &Cluster, signed: Signed, lans: Vec<Route>) -> Welcome {
    Welcome {
        cluster: cluster.name.clone(),
        cloud: cluster.cloud.clone(),
        certificate_der: signed.certificate_der,
        ca_der: cluster.ca_der.clone(),
        endpoints: cluster.endpoints.clone(),
        lans,
    }
}

#[cfg(test)]
mod tests;

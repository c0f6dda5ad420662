//! The LANs that an edge's own configuration names: `/c/advert/<edge>`.
//!
//! ```text
//!                    told by the edge               approved
//! (nothing) --------------------------> pending --------------> granted: a route, like a LAN of its token
//!                                          ^                        |
//!                                          '------------------------'
//!                                               revoked, still told
//! ```
//! What the token grants counts at once. Nothing else does before somebody approves it at the cloud: else an edge that
//! was broken into could draw the packets of other networks to itself. What was approved is written into the node's
//! record, so a node that joins again with another token has that token's LANs.

use bus::{Name, NodeId, Now, SubnetKind};
use metadata::Keyspace;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::clash::{self, Unsettled};
use crate::cluster::{Cluster, lease_routes};
use crate::join::renumber;
use crate::lan::{Lan, overlap};
use crate::lease;
use crate::nodes::{self, NodeRecord};
use crate::plan::Plan;
use crate::record::{self, DamagedRecord};
use crate::token::MAX_LANS;
use crate::{retired, route};

pub(crate) const PREFIX: &str = "/c/advert/";

/// The outbox' key under which an edge tells it.
pub const UP: &str = "lans";

/// A struct, so that a later version can say more.
#[derive(Encode, Decode)]
struct Record {
    #[n(0)]
    lans: Vec<Lan>,
}

/// Why nothing was approved or revoked.
#[derive(Debug, Error)]
pub enum ApproveError {
    #[error("no node '{0}'; see 'kubebus get nodes'")]
    UnknownNode(Name),
    #[error(
        "edge/{edge} does not name {lan} in its configuration (edge.lans); see 'kubebus route list' for what is pending"
    )]
    NotPending { edge: Name, lan: Lan },
    #[error("edge/{edge} has no right to {lan}; see 'kubebus get nodes'")]
    NotGranted { edge: Name, lan: Lan },
    #[error("{lan} overlaps {other}, which edge/{edge} has already")]
    Twice { edge: Name, lan: Lan, other: Lan },
    #[error("{lan} overlaps the overlay's own pool; renumber the LAN, or start the cloud with another pool")]
    InPool { lan: Lan },
    #[error("edge/{0} has {MAX_LANS} LANs, the most that fit: name a wider prefix for several")]
    TooMany(Name),
    #[error("it cannot be told from other networks: {0}")]
    Clash(String),
    #[error(transparent)]
    Damaged(#[from] DamagedRecord),
}

/// What an edge tells of itself.
pub fn encode(lans: &[Lan]) -> Vec<u8> {
    record::encode(&Record { lans: lans.to_vec() })
}

/// An edge told what its configuration names. Returns what of it is pending and was not known before.
pub fn handle_told(edge: &Name, payload: &[u8], ks: &mut Keyspace) -> Vec<Lan> {
    let Ok(Record { mut lans }) = minicbor::decode(payload) else { return Vec::new() };
    lans.truncate(MAX_LANS);
    if !nodes::exists(edge, ks) {
        return Vec::new();
    }
    let before = pending(edge, ks);
    match lans.is_empty() {
        true => record::delete(ks, &key(edge)),
        false => record::put(ks, &key(edge), &Record { lans }),
    }
    pending(edge, ks).into_iter().filter(|lan| !before.contains(lan)).collect()
}

/// What an edge names and has no right to.
pub fn pending(edge: &Name, ks: &Keyspace) -> Vec<Lan> {
    let told = ks.get(&key(edge)).and_then(|bytes| minicbor::decode::<Record>(bytes).ok());
    let granted = nodes::get(edge, ks).ok().flatten().map(|node| node.lans).unwrap_or_default();
    told.map(|told| told.lans).unwrap_or_default().into_iter().filter(|lan| !granted.contains(lan)).collect()
}

/// All that is pending, by edge.
pub fn list(ks: &Keyspace) -> Vec<(NodeId, Lan)> {
    let edges = ks.range(PREFIX).filter_map(|(key, _)| Name::new(key.as_str().strip_prefix(PREFIX)?).ok());
    let each = |edge: Name| pending(&edge, ks).into_iter().map(move |lan| (NodeId::edge(edge.clone()), lan));
    edges.flat_map(each).collect()
}

/// Gives an edge the right to a LAN that it names. Writes nothing if it fails.
pub fn approve(
    cluster: &Cluster,
    edge: &Name,
    lan: Lan,
    ks: &mut Keyspace,
    now: Now,
) -> Result<(), ApproveError> {
    let node = known(edge, ks)?;
    if !pending(edge, ks).contains(&lan) {
        return Err(ApproveError::NotPending { edge: edge.clone(), lan });
    }
    if node.lans.len() >= MAX_LANS {
        return Err(ApproveError::TooMany(edge.clone()));
    }
    if let Some(other) = node.lans.iter().find(|other| overlap(&other.net(), &lan.net())) {
        return Err(ApproveError::Twice { edge: edge.clone(), lan, other: *other });
    }
    if cluster.plan.pools().iter().any(|pool| overlap(pool, &lan.net())) {
        return Err(ApproveError::InPool { lan });
    }
    let lans = [node.lans.as_slice(), &[lan]].concat();
    grant(&cluster.plan, NodeRecord { lans, ..node }, ks, now)
}

/// Takes the right to a LAN back, whether it came from the token or was approved. Writes nothing if it fails.
pub fn revoke(
    cluster: &Cluster,
    edge: &Name,
    lan: Lan,
    ks: &mut Keyspace,
    now: Now,
) -> Result<(), ApproveError> {
    let mut node = known(edge, ks)?;
    if !node.lans.contains(&lan) {
        return Err(ApproveError::NotGranted { edge: edge.clone(), lan });
    }
    node.lans.retain(|kept| *kept != lan);
    grant(&cluster.plan, node, ks, now)
}

/// The edge is gone.
pub(crate) fn remove(edge: &Name, ks: &mut Keyspace) {
    record::delete(ks, &key(edge));
}

fn known(edge: &Name, ks: &Keyspace) -> Result<NodeRecord, ApproveError> {
    nodes::get(edge, ks)?.ok_or_else(|| ApproveError::UnknownNode(edge.clone()))
}

/// Makes the LANs of `node` all that lie behind it.
fn grant(plan: &Plan, node: NodeRecord, ks: &mut Keyspace, now: Now) -> Result<(), ApproveError> {
    let id = node.id();
    let settled =
        clash::settle(&node.lans, (&id, &node.site), plan, ks, now).map_err(|error| match error {
            Unsettled::Damaged(damaged) => ApproveError::Damaged(damaged),
            error @ (Unsettled::Fixed { .. } | Unsettled::NoRoom { .. }) => {
                ApproveError::Clash(error.to_string())
            }
        })?;
    let lease = lease::of(&id, ks)?;
    let kinds = (SubnetKind::EdgeNode, SubnetKind::EdgeContainer);
    let own = lease.map(|lease| lease_routes(&lease, &id, kinds)).unwrap_or_default();
    let routes = [own, settled.lans].concat();
    retired::update(&id, &routes, ks, now)?;
    route::replace(&id, &routes, ks)?;
    renumber(&settled.renumbered, ks)?;
    nodes::put(&node, ks);
    Ok(())
}

fn key(edge: &Name) -> String {
    format!("{PREFIX}{edge}")
}

#[cfg(test)]
mod tests;

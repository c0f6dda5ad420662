//! Who holds which addresses: `/c/lease/<kind>/<name>`, and the same as the edge is told it, `/e/<edge>/lease`.
//!
//! ```text
//!            grant                     release                30 days, somebody needs it
//! (nothing) -------> held by identity ---------> kept for it ----------------------------> (nothing)
//!                          ^                          |
//!                          '--------------------------'
//!                             the identity joins again
//! ```
//! A lease belongs to an identity and never changes: not with a restart, not with a new key, not with a wider pool.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::Duration;

use bus::{Lease, NodeId, NodeKind, Now, Route, UnixMillis};
use ipnet::{IpNet, Ipv4Net};
use metadata::Keyspace;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::plan::Plan;
use crate::record::{self, DamagedRecord};
use crate::{retired, route, wireguard};

pub const PREFIX: &str = "/c/lease/";

/// How long the addresses of a removed node are kept from others: so long may a peer, a firewall or a person still
/// take them for the old node's.
pub const REUSE_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct LeaseRecord {
    #[n(0)]
    pub(crate) owner: NodeId,
    #[n(1)]
    pub(crate) lease: Lease,
    /// When its node was removed.
    #[n(2)]
    released: Option<UnixMillis>,
}

impl LeaseRecord {
    fn is_free(&self, now: Now) -> bool {
        self.released.is_some_and(|at| now.wall.since(at) >= REUSE_AFTER)
    }
}

/// Why no addresses were given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GrantError {
    #[error(
        "all {edges} edge places of the pool {pool} are held{}; start the cloud with a wider pool, for instance \
         {wider}: leases stay as they are", kept_for(*.kept)
    )]
    Exhausted { pool: Ipv4Net, edges: u32, kept: usize, wider: Ipv4Net },
    #[error(transparent)]
    Damaged(#[from] DamagedRecord),
}

fn kept_for(removed: usize) -> String {
    match removed {
        0 => String::new(),
        n => format!(", {n} of them for nodes that were removed less than 30 days ago"),
    }
}

/// The lease of `owner`, if it holds one now.
pub fn of(owner: &NodeId, ks: &Keyspace) -> Result<Option<Lease>, DamagedRecord> {
    let record: Option<LeaseRecord> = record::get(ks, &key(owner))?;
    Ok(record.filter(|record| record.released.is_none()).map(|record| record.lease))
}

/// Gives `owner` its addresses: those it had, else the lowest slot that nobody holds. Writes nothing if it fails.
pub fn grant(plan: &Plan, owner: &NodeId, ks: &mut Keyspace, now: Now) -> Result<Lease, GrantError> {
    let lease = match record::get::<LeaseRecord>(ks, &key(owner))? {
        Some(record) => record.lease,
        None => free_lease(plan, ks, now)?,
    };
    put(&LeaseRecord { owner: owner.clone(), lease: lease.clone(), released: None }, ks);
    Ok(lease)
}

/// The lowest free slot's lease; forgets those whose time of grace is over.
fn free_lease(plan: &Plan, ks: &mut Keyspace, now: Now) -> Result<Lease, GrantError> {
    let (free, held): (Vec<_>, Vec<_>) = records(ks)?.into_iter().partition(|record| record.is_free(now));
    let translated = [route::translated(ks)?, retired::list(ks, now)?].concat();
    let taken = Taken::by(&held, &translated, &wireguard::held_v4(ks)?);
    let lease =
        plan.slots().map(|slot| plan.lease(slot)).find(|lease| !taken.overlaps(lease)).ok_or_else(|| {
            GrantError::Exhausted {
                pool: plan.v4(),
                edges: plan.edges(),
                kept: held.iter().filter(|record| record.released.is_some()).count(),
                wider: wider(plan.v4()),
            }
        })?;
    free.iter().for_each(|record| record::delete(ks, &key(&record.owner)));
    Ok(lease)
}

/// Eight times as wide, and containing `pool`.
fn wider(pool: Ipv4Net) -> Ipv4Net {
    let length = pool.prefix_len().saturating_sub(3).max(8);
    Ipv4Net::new_assert(pool.network(), length).trunc()
}

/// The node is gone: its addresses are kept for it, and from others for [`REUSE_AFTER`].
pub(crate) fn release(owner: &NodeId, ks: &mut Keyspace, now: Now) -> Result<(), DamagedRecord> {
    if let Some(record) = record::get::<LeaseRecord>(ks, &key(owner))? {
        record::put(ks, &key(owner), &LeaseRecord { released: Some(now.wall), ..record });
        told_at(owner).iter().for_each(|key| record::delete(ks, key));
    }
    Ok(())
}

pub(crate) fn records(ks: &Keyspace) -> Result<Vec<LeaseRecord>, DamagedRecord> {
    record::list(ks, PREFIX)
}

/// Tells all holders of the pool as it is now.
pub(crate) fn announce_pool(plan: &Plan, ks: &mut Keyspace) -> Result<(), DamagedRecord> {
    for mut record in records(ks)? {
        record.lease.pool_v4 = plan.v4();
        record.lease.pool_v6 = plan.v6();
        put(&record, ks);
    }
    Ok(())
}

fn put(record: &LeaseRecord, ks: &mut Keyspace) {
    record::put(ks, &key(&record.owner), record);
    if record.released.is_none() {
        told_at(&record.owner).iter().for_each(|key| record::put(ks, key, &record.lease));
    }
}

fn key(owner: &NodeId) -> String {
    format!("{PREFIX}{owner}")
}

/// Where an edge reads its lease. A cloud has it at hand.
fn told_at(owner: &NodeId) -> Option<String> {
    (owner.kind == NodeKind::Edge).then(|| format!("/e/{}/lease", owner.name))
}

/// What nodes hold, or what is kept for them, and what stands for LANs.
pub(crate) fn taken_by_nodes(ks: &Keyspace, now: Now) -> Result<Taken, DamagedRecord> {
    let translated = [route::translated(ks)?, retired::list(ks, now)?].concat();
    Ok(Taken::by(&records(ks)?, &translated, &[]))
}

/// Every address that somebody holds. Leases and virtual prefixes of a narrower pool lie elsewhere than today's plan has
/// them, so this compares addresses and not slots.
pub(crate) struct Taken {
    /// First to last address, disjoint.
    v4: BTreeMap<u32, u32>,
    /// Node and container prefix of one slot: who holds the address holds both.
    v6: BTreeSet<Ipv6Addr>,
}

impl Taken {
    fn by(records: &[LeaseRecord], translated: &[Route], clients: &[Ipv4Net]) -> Self {
        let leases = || records.iter().map(|record| &record.lease);
        let virtual_v4 = translated.iter().filter_map(|route| match route.prefix {
            IpNet::V4(prefix) => Some(span(prefix)),
            IpNet::V6(_) => None, // The IPv6 pool never changes.
        });
        Self {
            v4: leases().flat_map(spans).chain(virtual_v4).chain(clients.iter().copied().map(span)).collect(),
            v6: leases().map(|lease| lease.v6).collect(),
        }
    }

    fn overlaps(&self, lease: &Lease) -> bool {
        self.v6.contains(&lease.v6) || spans(lease).into_iter().any(|wanted| self.overlaps_span(wanted))
    }

    pub(crate) fn holds(&self, prefix: Ipv4Net) -> bool {
        self.overlaps_span(span(prefix))
    }

    fn overlaps_span(&self, (first, last): (u32, u32)) -> bool {
        let below = self.v4.range(..=last).next_back();
        below.is_some_and(|(_, end)| *end >= first)
    }
}

fn spans(lease: &Lease) -> [(u32, u32); 2] {
    [span(lease.v4.into()), span(lease.container_v4)]
}

/// First to last address.
fn span(prefix: Ipv4Net) -> (u32, u32) {
    (prefix.network().to_bits(), prefix.broadcast().to_bits())
}

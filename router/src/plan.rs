//! What the kernel should know of the overlay: the addresses and routes of our interface, from lease and routes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bus::{Lease, NodeId, Route};
use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

/// The wanted state of the overlay interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The node's own, as /32 and /128.
    pub addresses: BTreeSet<IpNet>,
    /// What is sent into the overlay.
    pub routes: BTreeSet<PlannedRoute>,
}

/// A prefix to be routed into the overlay, with the node's own address as the source of its own packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlannedRoute {
    pub prefix: IpNet,
    pub source: IpAddr,
}

impl Plan {
    /// Works out the plan by these rules:
    /// 1. the pool and every prefix of another node go into the overlay;
    /// 2. a prefix of `me` does not: it is on another interface;
    /// 3. nor does one that lies in a wider one which goes there anyway: a pool with 100,000 nodes is one route;
    /// 4. nor a default route: the links to the cloud would go into themselves.
    pub fn new(lease: &Lease, me: &NodeId, routes: &[Route]) -> Self {
        let remote = remote_prefixes(lease, me, routes);
        let source = |prefix: IpNet| if prefix.addr().is_ipv4() { lease.v4.into() } else { lease.v6.into() };
        let wanted = remote
            .iter()
            .filter(|(prefix, is_remote)| **is_remote && prefix.prefix_len() > 0)
            .filter(|(prefix, _)| !is_covered(&remote, *prefix))
            .map(|(prefix, _)| PlannedRoute { prefix, source: source(prefix) })
            .collect();
        let addresses = [IpAddr::V4(lease.v4).into(), IpAddr::V6(lease.v6).into()].into();
        Self { addresses, routes: wanted }
    }

    /// The plan for an interface that cannot have IPv6.
    #[must_use]
    pub fn without_ipv6(mut self) -> Self {
        self.addresses.retain(|address| address.addr().is_ipv4());
        self.routes.retain(|route| route.prefix.addr().is_ipv4());
        self
    }
}

/// Every prefix of the overlay, and whether it lies behind another node.
fn remote_prefixes(lease: &Lease, me: &NodeId, routes: &[Route]) -> JointPrefixMap<IpNet, bool> {
    let pools: [IpNet; 2] = [lease.pool_v4.trunc().into(), lease.pool_v6.trunc().into()];
    let containers: [IpNet; 2] = [lease.container_v4.trunc().into(), lease.container_v6.trunc().into()];
    pools
        .into_iter()
        .map(|pool| (pool, true))
        .chain(routes.iter().map(|route| (route.prefix.trunc(), &route.owner != me)))
        .chain(containers.map(|own| (own, false)))
        .collect()
}

/// Whether the next wider prefix goes into the overlay as well.
fn is_covered(remote: &JointPrefixMap<IpNet, bool>, prefix: IpNet) -> bool {
    let wider = prefix.supernet().and_then(|wider| remote.get_lpm(&wider));
    wider.is_some_and(|(wider, is_remote)| *is_remote && wider.prefix_len() > 0)
}

#[cfg(test)]
mod tests;

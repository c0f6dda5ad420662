//! What the nodes of a cluster and the hosts on LANs are called, and by which address whoever asks can reach them.
//!
//! ```text
//! <node>.<site>.<cluster>.kb.internal    a node: its overlay address
//! <host>.<site>.<cluster>.kb.internal    a host on a LAN of the site
//!                                          asked from within the site: the address that it has there
//!                                          from elsewhere: the one by which the overlay knows it, or none
//! <cloud>.<cluster>.kb.internal          a cloud
//! ```
//! and the other way around. A node has a copy of all of this (routes, sites, hosts), so it answers without the cloud.
//!
//! Files: `zone` (what is there), `reverse` (names that are addresses), `answer` (the bytes). `io/dns.rs` has the sockets.

mod answer;
mod reverse;
mod zone;

use std::collections::BTreeMap;
use std::net::IpAddr;

use bus::overlay::{Lease, Route, SubnetKind};
use bus::{Identity, Name, NodeId, NodeKind};
use controller::host::{HostId, Hosts};
use ipnet::IpNet;
use metadata::Revision;
use prefix_trie::joint::JointPrefixMap;
use router::policy::Sites;

pub use self::answer::{Asked, Over, Reply, failed, is_answer, numbered, passed_on};

/// Above the names of all clusters. `internal` is reserved for private use, and no name in it is public.
const ROOT: &str = "kb.internal";

/// All names of a cluster, for one node. Immutable: a change makes a new one.
#[derive(Debug, Clone, PartialEq)]
pub struct Names {
    /// `<cluster>.kb.internal`.
    apex: String,
    /// The node that answers.
    server: String,
    /// How new this is: a revision of the cloud, of which the low bits are enough (RFC 1982).
    serial: u32,
    /// The site of this node.
    here: Option<Name>,
    own: [IpAddr; 2],
    pools: [IpNet; 2],
    /// Networks of this site, as it has them itself.
    at_home: Vec<IpNet>,
    /// Which site lies behind a prefix.
    places: JointPrefixMap<IpNet, Name>,
    clouds: BTreeMap<Name, Known>,
    /// Nodes and hosts of each site.
    sites: BTreeMap<Name, BTreeMap<Name, Known>>,
    pointers: BTreeMap<IpAddr, Vec<Pointer>>,
}

/// The addresses of a name.
#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    /// For its own site.
    at_home: Vec<IpAddr>,
    /// For all others.
    elsewhere: Vec<IpAddr>,
}

/// The name of an address.
#[derive(Debug, Clone, PartialEq)]
struct Pointer {
    name: String,
    /// Only there: elsewhere another host may have that address.
    within: Option<Name>,
}

/// What names follow from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub me: &'a Identity,
    pub lease: &'a Lease,
    pub routes: &'a [Route],
    pub sites: &'a Sites,
    pub hosts: &'a Hosts,
    pub revision: Revision,
}

impl Names {
    pub fn new(Facts { me, lease, routes, sites, hosts, revision }: Facts<'_>) -> Self {
        let apex = format!("{}.{ROOT}", me.cluster);
        let here = sites.get(&me.node).cloned();
        let is_here = |route: &&Route| here.is_some() && sites.get(&route.holder()) == here.as_ref();
        let mut names = Self {
            server: name_of(&me.node, here.as_ref(), &apex),
            apex,
            serial: (revision.0 & u64::from(u32::MAX)) as u32,
            own: [lease.v4.into(), lease.v6.into()],
            pools: [lease.pool_v4.into(), lease.pool_v6.into()],
            at_home: routes.iter().filter(is_here).map(Route::behind).collect(),
            places: JointPrefixMap::default(),
            clouds: BTreeMap::new(),
            sites: BTreeMap::new(),
            pointers: BTreeMap::new(),
            here,
        };
        let mut networks: BTreeMap<&Name, Vec<&Route>> = BTreeMap::new();
        for route in routes {
            let Some(site) = sites.get(&route.holder()) else { continue };
            names.places.insert(route.prefix.trunc(), site.clone());
            networks.entry(site).or_default().push(route);
            if names.is_of_a_node(route) {
                names.add_node(&route.owner, site, route.prefix.addr());
            }
        }
        for (host, addresses) in hosts {
            let networks = networks.get(&host.site).map(Vec::as_slice).unwrap_or_default();
            names.add_host(host, addresses, networks);
        }
        names
    }

    /// Nodes have their own addresses in the pool, and so have LANs that are known by virtual prefixes.
    fn is_of_a_node(&self, Route { prefix, kind, .. }: &Route) -> bool {
        prefix.prefix_len() == prefix.max_prefix_len()
            && !matches!(kind, SubnetKind::Lan | SubnetKind::Wireguard)
            && self.pools.iter().any(|pool| pool.contains(prefix))
    }

    fn add_node(&mut self, node: &NodeId, site: &Name, address: IpAddr) {
        let in_site = self.sites.entry(site.clone()).or_default().entry(node.name.clone()).or_default();
        in_site.add(address);
        if node.kind == NodeKind::Cloud {
            self.clouds.entry(node.name.clone()).or_default().add(address);
        }
        let name = name_of(node, Some(site), &self.apex);
        self.pointers.entry(address).or_default().push(Pointer { name, within: None });
    }

    /// A node of its site goes before a host of its name.
    fn add_host(&mut self, HostId { site, name }: &HostId, at_home: &[IpAddr], networks: &[&Route]) {
        let in_site = self.sites.entry(site.clone()).or_default();
        if in_site.contains_key(name) {
            return;
        }
        let full = format!("{name}.{site}.{}", self.apex);
        let elsewhere: Vec<IpAddr> =
            at_home.iter().filter_map(|address| on_overlay(*address, networks)).collect();
        for address in &elsewhere {
            self.pointers.entry(*address).or_default().push(Pointer { name: full.clone(), within: None });
        }
        for address in at_home.iter().filter(|address| !elsewhere.contains(address)) {
            let pointer = Pointer { name: full.clone(), within: Some(site.clone()) };
            self.pointers.entry(*address).or_default().push(pointer);
        }
        in_site.insert(name.clone(), Known { at_home: at_home.to_vec(), elsewhere });
    }

    /// Whether `asker` is answered at all.
    pub fn is_served(&self, asker: IpAddr) -> bool {
        self.site_of(asker).is_some()
    }

    /// From which site an address asks. `None`: from none, so it is answered nothing.
    ///
    /// 1. this node asks itself: its own site;
    /// 2. the address is one of this site's networks, as it has them itself: its own site. What comes from another site
    ///    over the overlay has no such address, even if its hosts have;
    /// 3. the site behind the longest prefix that holds it.
    fn site_of(&self, asker: IpAddr) -> Option<&Name> {
        let asker = asker.to_canonical();
        let is_me = asker.is_loopback() || self.own.contains(&asker);
        if is_me || self.at_home.iter().any(|network| network.contains(&asker)) {
            return self.here.as_ref();
        }
        self.places.get_lpm(&IpNet::from(asker)).map(|(_, site)| site)
    }
}

impl Known {
    /// An address that is the same everywhere.
    fn add(&mut self, address: IpAddr) {
        self.at_home.push(address);
        self.elsewhere.push(address);
    }

    fn seen_from(&self, is_home: bool) -> &[IpAddr] {
        if is_home { &self.at_home } else { &self.elsewhere }
    }
}

/// A cloud's name has no site in it.
fn name_of(node: &NodeId, site: Option<&Name>, apex: &str) -> String {
    match site.filter(|_| node.kind != NodeKind::Cloud) {
        Some(site) => format!("{}.{site}.{apex}", node.name),
        None => format!("{}.{apex}", node.name),
    }
}

/// By what other sites know an address of a site with these networks.
fn on_overlay(address: IpAddr, networks: &[&Route]) -> Option<IpAddr> {
    let holding = networks.iter().filter(|route| route.behind().contains(&address));
    let route = holding.max_by_key(|route| route.prefix.prefix_len())?;
    Some(moved(address, route.prefix))
}

/// The address with the same last bits in another prefix.
pub(crate) fn moved(address: IpAddr, to: IpNet) -> IpAddr {
    match (address, to) {
        (IpAddr::V4(address), IpNet::V4(to)) => {
            let host = address.to_bits() & to.hostmask().to_bits();
            IpAddr::V4((to.network().to_bits() | host).into())
        }
        (IpAddr::V6(address), IpNet::V6(to)) => {
            let host = address.to_bits() & to.hostmask().to_bits();
            IpAddr::V6((to.network().to_bits() | host).into())
        }
        (address, _) => address,
    }
}

#[cfg(test)]
mod tests;

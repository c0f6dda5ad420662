//! What an address is to the rules: its node, its site, its kind.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bus::{Name, NodeId, NodeKind, Route, SubnetKind};
use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::Sites;

/// A site's or an edge's name as a number: comparing is all that rules do with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number(u32);

/// What the longest prefix that holds an address says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    site: Option<Number>,
    /// An edge or a WireGuard client; `None`: a cloud, which is selected by its site.
    edge: Option<Number>,
    /// Of the node that a WireGuard client comes in by.
    gateway_site: Option<Number>,
    kind: SubnetKind,
    /// One address: a node's own, and no network behind it.
    is_node: bool,
}

/// An address and its place, if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) address: IpAddr,
    place: Option<Place>,
}

impl Spot {
    pub(super) fn is_known(&self) -> bool {
        self.place.is_some()
    }

    pub(super) fn site(&self) -> Option<Number> {
        self.place?.site
    }

    pub(super) fn edge(&self) -> Option<Number> {
        self.place?.edge
    }

    pub(super) fn kind(&self) -> Option<SubnetKind> {
        Some(self.place?.kind)
    }

    /// A cloud itself, which stands between all sites.
    pub(super) fn is_cloud(&self) -> bool {
        self.place.is_some_and(|place| place.is_node && place.edge.is_none())
    }

    /// Whether `other` is at the site of the gateway that this WireGuard client comes in by.
    pub(super) fn comes_in_at_site_of(&self, other: &Self) -> bool {
        let gateway = self.place.and_then(|place| place.gateway_site);
        gateway.is_some() && gateway == other.site()
    }

    /// Two addresses of unknown sites share none.
    pub(super) fn shares_site_with(&self, other: &Self) -> bool {
        self.site().is_some() && self.site() == other.site()
    }
}

/// All prefixes of the overlay with what they are, by the same routes as the table's.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Places {
    prefixes: JointPrefixMap<IpNet, Place>,
    names: BTreeMap<Name, Number>,
}

impl Places {
    pub(super) fn new(routes: &[Route], sites: &Sites) -> Self {
        let mut places = Self::default();
        for route in routes {
            let place = places.place(route, sites);
            places.prefixes.insert(route.prefix.trunc(), place);
        }
        places
    }

    fn place(&mut self, route: &Route, sites: &Sites) -> Place {
        let holder = route.holder();
        let gateway = route.peer.as_ref().and_then(|_| sites.get(&route.owner));
        Place {
            is_node: route.prefix.prefix_len() == route.prefix.max_prefix_len(),
            site: sites.get(&holder).map(|site| self.number(site)),
            edge: self.edge_number(&holder),
            gateway_site: gateway.map(|site| self.number(site)),
            kind: route.kind,
        }
    }

    fn edge_number(&mut self, holder: &NodeId) -> Option<Number> {
        matches!(holder.kind, NodeKind::Edge | NodeKind::Wireguard).then(|| self.number(&holder.name))
    }

    /// Also of a name that no route has yet.
    pub(super) fn number(&mut self, name: &Name) -> Number {
        let next = Number(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        *self.names.entry(name.clone()).or_insert(next)
    }

    pub(super) fn spot(&self, address: IpAddr) -> Spot {
        let place = self.prefixes.get_lpm(&IpNet::from(address)).map(|(_, place)| *place);
        Spot { address, place }
    }

    /// For people: looks through all names.
    pub(super) fn name(&self, number: Number) -> Option<&Name> {
        self.names.iter().find(|(_, own)| **own == number).map(|(name, _)| name)
    }
}

//! A rule, its names turned into numbers.

use bus::{AccessRule, PortRange, Selector, SubnetKind};
use ipnet::IpNet;

use super::places::{Number, Places, Spot};
use crate::packet::{Flow, Ports};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    pub(super) name: String,
    from: Vec<Wanted>,
    to: Vec<Wanted>,
    /// Empty: everything.
    pub(super) ports: Vec<PortRange>,
}

impl Rule {
    pub(super) fn new(AccessRule { name, from, to, ports }: &AccessRule, places: &mut Places) -> Self {
        let mut compile = |selectors: &[Selector]| -> Vec<Wanted> {
            selectors.iter().map(|selector| Wanted::new(selector, places)).collect()
        };
        Self { name: name.clone(), from: compile(from), to: compile(to), ports: ports.clone() }
    }

    pub(super) fn covers(&self, from: &Spot, to: &Spot, flow: &Flow) -> bool {
        self.covers_traffic(flow) && self.covers_ends(from, to)
    }

    pub(super) fn covers_ends(&self, from: &Spot, to: &Spot) -> bool {
        self.from.iter().any(|wanted| wanted.is(from)) && self.to.iter().any(|wanted| wanted.is(to))
    }

    fn covers_traffic(&self, flow: &Flow) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|range| covers(range, flow))
    }
}

fn covers(PortRange { protocol, ports }: &PortRange, flow: &Flow) -> bool {
    let port_fits = match (ports, flow.ports) {
        (None, _) => true,
        (Some((first, last)), Ports::Pair { destination, .. }) => (*first..=*last).contains(&destination),
        (Some(_), Ports::Echo { .. } | Ports::IcmpError | Ports::None) => false,
    };
    port_fits && protocol.covers(flow.protocol)
}

/// A [`Selector`] in numbers: all that is given must be so.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    site: Option<Number>,
    edge: Option<Number>,
    cidr: Option<IpNet>,
    kind: Option<SubnetKind>,
}

impl Wanted {
    fn new(Selector { site, node, cidr, kind }: &Selector, places: &mut Places) -> Self {
        Self {
            site: site.as_ref().map(|site| places.number(site)),
            edge: node.as_ref().map(|node| places.number(node)),
            cidr: *cidr,
            kind: *kind,
        }
    }

    fn is(&self, spot: &Spot) -> bool {
        spot.is_known()
            && (self.site.is_none() || self.site == spot.site())
            && (self.edge.is_none() || self.edge == spot.edge())
            && (self.kind.is_none() || self.kind == spot.kind())
            && self.cidr.is_none_or(|cidr| cidr.contains(&spot.address))
    }
}

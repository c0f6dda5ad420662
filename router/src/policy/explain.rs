//! What a policy says about two addresses, in words for people.

use std::net::IpAddr;

use bus::{Name, PortRange, SubnetKind};

use super::places::Spot;
use super::{Decision, Policy};
use crate::packet::{Flow, Ports};

/// Whether a conversation may begin, and which rule decides; the other direction is what `to` could begin by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub from: End,
    pub to: End,
    pub there: Ruling,
    pub back: Ruling,
}

/// What is known of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub address: IpAddr,
    pub site: Option<Name>,
    /// `None`: unknown, or a cloud.
    pub edge: Option<Name>,
    pub kind: Option<SubnetKind>,
}

/// What decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    SameSite,
    Rule {
        name: String,
    },
    /// Denied: this rule is about these two ends, but not about that traffic.
    OtherPorts {
        name: String,
        ports: Vec<PortRange>,
    },
    /// Denied: no rule is about these two ends.
    NoRule,
    /// Denied: no route of the overlay has the address.
    Unknown(IpAddr),
}

impl Ruling {
    pub fn is_allowed(&self) -> bool {
        match self {
            Self::SameSite | Self::Rule { .. } => true,
            Self::OtherPorts { .. } | Self::NoRule | Self::Unknown(_) => false,
        }
    }
}

/// Reserved by IANA: an asker who names no protocol gets what holds for every one.
const NO_PROTOCOL: u8 = 255;

impl Policy {
    /// Explains what becomes of a conversation. Without a protocol or port it asks about all of it: a rule that names
    /// some allows that only in part.
    pub fn explain(&self, from: IpAddr, to: IpAddr, protocol: Option<u8>, port: Option<u16>) -> Explanation {
        let ports = port.map_or(Ports::None, |destination| Ports::Pair { source: 0, destination });
        let protocol = protocol.unwrap_or(NO_PROTOCOL);
        let there = Flow { source: from, destination: to, protocol, ports };
        let back = Flow { source: to, destination: from, protocol, ports };
        Explanation {
            from: self.end(from),
            to: self.end(to),
            there: self.ruling(&there),
            back: self.ruling(&back),
        }
    }

    fn ruling(&self, flow: &Flow) -> Ruling {
        match self.decide(flow) {
            Decision::SameSite => Ruling::SameSite,
            Decision::Rule(rule) => {
                Ruling::Rule { name: self.rule_name(rule).unwrap_or_default().to_owned() }
            }
            Decision::Deny => self.why_not(flow),
        }
    }

    fn why_not(&self, flow: &Flow) -> Ruling {
        let (from, to) = (self.spot(flow.source), self.spot(flow.destination));
        if let Some(unknown) = [from, to].into_iter().find(|spot| !spot.is_known()) {
            return Ruling::Unknown(unknown.address);
        }
        let near = self.rules.iter().find(|rule| rule.covers_ends(&from, &to));
        near.map_or(Ruling::NoRule, |rule| Ruling::OtherPorts {
            name: rule.name.clone(),
            ports: rule.ports.clone(),
        })
    }

    fn end(&self, address: IpAddr) -> End {
        let spot: Spot = self.spot(address);
        let name = |number| self.places.name(number).cloned();
        End { address, site: spot.site().and_then(name), edge: spot.edge().and_then(name), kind: spot.kind() }
    }
}

//! Who may send packets to whom, as the cloud tells it and every router enforces it.
//!
//! A rule speaks of sites, nodes and kinds, and not of the prefixes that they have today: a router finds those in its
//! routes, so a rule also holds for who joins later, and costs an edge the same few bytes however large a site grows.

use std::fmt;

use ipnet::IpNet;
use minicbor::{Decode, Encode};

use crate::overlay::maybe_net;
use crate::{Name, SubnetKind};

/// Lets new conversations from some addresses to others begin; their answers need no rule.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AccessRule {
    /// As people know it: `<namespace>/<name>` of its policy.
    #[n(0)]
    pub name: String,
    /// Any of these.
    #[n(1)]
    pub from: Vec<Selector>,
    /// Any of these.
    #[n(2)]
    pub to: Vec<Selector>,
    /// Any of these; empty: everything.
    #[n(3)]
    pub ports: Vec<PortRange>,
}

/// Which addresses are meant: those for which all that is given is true.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Selector {
    /// Behind a node of this site.
    #[n(0)]
    pub site: Option<Name>,
    /// Behind the edge of this name.
    #[n(1)]
    pub node: Option<Name>,
    /// In this network.
    #[n(2)]
    #[cbor(with = "maybe_net")]
    pub cidr: Option<IpNet>,
    /// In a subnet of this kind.
    #[n(3)]
    pub kind: Option<SubnetKind>,
}

/// A protocol, and with TCP and UDP maybe destination ports of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct PortRange {
    #[n(0)]
    pub protocol: Protocol,
    /// First and last; `None`: all, and what has no ports.
    #[n(1)]
    pub ports: Option<(u16, u16)>,
}

/// Which upper-layer protocols are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Protocol {
    #[n(0)]
    Any,
    #[n(1)]
    Tcp,
    #[n(2)]
    Udp,
    /// That of the packet's own family: IPv4's or IPv6's.
    #[n(3)]
    Icmp,
    /// By IANA's number.
    #[n(4)]
    Number(#[n(0)] u8),
}

impl Protocol {
    /// Whether `number` (IANA's) is meant.
    pub fn covers(self, number: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Tcp => number == 6,
            Self::Udp => number == 17,
            Self::Icmp => number == 1 || number == 58,
            Self::Number(own) => number == own,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Tcp => f.write_str("tcp"),
            Self::Udp => f.write_str("udp"),
            Self::Icmp => f.write_str("icmp"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports {
            None => self.protocol.fmt(f),
            Some((first, last)) if first == last => write!(f, "{}/{first}", self.protocol),
            Some((first, last)) => write!(f, "{}/{first}-{last}", self.protocol),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_back() {
        let site = Some(Name::new("hq").unwrap());
        let rule = AccessRule {
            name: "default/scada".into(),
            from: vec![
                Selector { site, ..Selector::default() },
                Selector { cidr: Some("10.9.0.0/24".parse().unwrap()), ..Selector::default() },
            ],
            to: vec![Selector { kind: Some(SubnetKind::Lan), ..Selector::default() }],
            ports: vec![
                PortRange { protocol: Protocol::Tcp, ports: Some((502, 502)) },
                PortRange { protocol: Protocol::Number(47), ports: None },
            ],
        };
        let bytes = minicbor::to_vec(&rule).unwrap();
        assert_eq!(minicbor::decode::<AccessRule>(&bytes).unwrap(), rule);
    }

    #[test]
    fn ports_are_shown_as_people_write_them() {
        let shown = |protocol, ports| PortRange { protocol, ports }.to_string();
        assert_eq!(shown(Protocol::Tcp, Some((502, 502))), "tcp/502");
        assert_eq!(shown(Protocol::Udp, Some((5000, 5010))), "udp/5000-5010");
        assert_eq!(shown(Protocol::Icmp, None), "icmp");
        assert_eq!(shown(Protocol::Number(47), None), "47");
    }
}

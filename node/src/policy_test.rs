//! `kubebus policy test`: whether one may begin to talk to another over the overlay, and what decides it.

use std::net::IpAddr;

use bus::{NodeId, NodeKind, Route, SubnetKind};
use router::Policy;
use router::packet::{ICMP, ICMPV6, TCP, UDP};
use router::policy::{End, Explanation, Ruling};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::admin::AdminError;

/// What is asked, as typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyTest {
    /// The name of a node or of a WireGuard client, or an address.
    pub from: String,
    pub to: String,
    /// `tcp`, `udp`, `icmp` or a number of IANA's; absent: all of them.
    #[serde(default)]
    pub protocol: Option<String>,
    /// The destination port; absent: all of them.
    #[serde(default)]
    pub port: Option<u16>,
}

/// The same in addresses and numbers.
#[derive(Debug)]
pub(crate) struct Test {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    protocol: Option<u8>,
    port: Option<u16>,
    traffic: String,
    /// The node that `to` lies behind.
    pub(crate) receiver: Option<NodeId>,
}

impl PolicyTest {
    pub(crate) fn on(&self, routes: &[Route]) -> Result<Test, AdminError> {
        let is_v6 = |text: &str| text.parse().is_ok_and(|address: IpAddr| address.is_ipv6());
        let v6 = is_v6(&self.from) || is_v6(&self.to);
        let (from, to) = (address(&self.from, v6, routes)?, address(&self.to, v6, routes)?);
        if from.is_ipv4() != to.is_ipv4() {
            return Err(AdminError::Invalid(format!("{from} and {to} are of two families")));
        }
        let protocol = self.protocol.as_deref().map(|text| number(text, v6)).transpose()?;
        if self.port.is_some() && !matches!(protocol, Some(TCP | UDP)) {
            return Err(AdminError::Invalid("a port is of tcp or udp: give --protocol as well".to_owned()));
        }
        let receiver = longest(routes, to).map(|route| route.owner.clone());
        Ok(Test { from, to, protocol, port: self.port, traffic: self.traffic(), receiver })
    }

    fn traffic(&self) -> String {
        match (&self.protocol, self.port) {
            (None, _) => "everything".to_owned(),
            (Some(protocol), None) => protocol.clone(),
            (Some(protocol), Some(port)) => format!("{protocol}/{port}"),
        }
    }
}

/// The route of the longest prefix that holds `address`.
pub(crate) fn longest(routes: &[Route], address: IpAddr) -> Option<&Route> {
    let holding = routes.iter().filter(|route| route.prefix.contains(&address));
    holding.max_by_key(|route| route.prefix.prefix_len())
}

/// The address of a node itself; of several that are meant an edge's goes before a cloud's.
pub(crate) fn own_address(routes: &[Route], v6: bool, is_meant: impl Fn(&NodeId) -> bool) -> Option<IpAddr> {
    let is_own = |route: &&Route| {
        let prefix = route.prefix;
        let is_one = prefix.prefix_len() == prefix.max_prefix_len() && prefix.addr().is_ipv6() == v6;
        is_one && is_meant(&route.holder())
    };
    let own = routes.iter().filter(is_own).max_by_key(|route| route.owner.kind == NodeKind::Edge);
    own.map(|route| route.prefix.addr())
}

fn address(text: &str, v6: bool, routes: &[Route]) -> Result<IpAddr, AdminError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    own_address(routes, v6, |node| node.name.as_str() == text).ok_or_else(|| {
        AdminError::NotFound(format!(
            "'{text}' is no address, and no node or WireGuard client of that name is known"
        ))
    })
}

fn number(text: &str, v6: bool) -> Result<u8, AdminError> {
    match text {
        "tcp" => Ok(TCP),
        "udp" => Ok(UDP),
        "icmp" => Ok(if v6 { ICMPV6 } else { ICMP }),
        other => other.parse().map_err(|_| {
            AdminError::Invalid(format!("'{other}' is no protocol: use tcp, udp, icmp or a number to 255"))
        }),
    }
}

impl Test {
    pub(crate) fn at(&self, policy: &Policy) -> Explanation {
        policy.explain(self.from, self.to, self.protocol, self.port)
    }

    /// `hub` is what the cloud enforces for all, where that is known.
    pub(crate) fn answer(&self, hub: Option<&Explanation>, receiver: &Explanation) -> Value {
        let node = self.receiver.as_ref().map(ToString::to_string);
        let is_allowed = hub.is_none_or(|hub| hub.there.is_allowed()) && receiver.there.is_allowed();
        let mut at_receiver = ruling(&receiver.there);
        at_receiver["node"] = json!(node);
        json!({
            "allowed": is_allowed,
            "traffic": self.traffic,
            "from": end(&receiver.from),
            "to": end(&receiver.to),
            "hub": hub.map(|hub| ruling(&hub.there)),
            "receiver": at_receiver,
            "back": hub.map(|hub| ruling(&hub.back)),
        })
    }
}

fn end(End { address, site, edge, kind }: &End) -> Value {
    if *kind == Some(SubnetKind::Wireguard) {
        return json!({ "address": address, "site": site, "edge": null, "client": edge });
    }
    json!({ "address": address, "site": site, "edge": edge })
}

pub(crate) fn ruling(ruling: &Ruling) -> Value {
    let (because, rule) = match ruling {
        Ruling::SameSite => ("both are in one site".to_owned(), None),
        Ruling::Rule { name } => (format!("access policy {name} allows it"), Some(name)),
        Ruling::OtherPorts { name, ports } => {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            (format!("access policy {name} allows only {}", ports.join(", ")), Some(name))
        }
        Ruling::NoRule => ("no access policy is about these two".to_owned(), None),
        Ruling::Unknown(address) => (format!("{address} lies behind no node"), None),
    };
    let decision = if ruling.is_allowed() { "allow" } else { "deny" };
    json!({ "decision": decision, "policy": rule, "because": because })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::{AccessRule, Name, PortRange, Protocol, Selector};
    use router::policy::Sites;

    fn edge(name: &str) -> NodeId {
        NodeId::edge(Name::new(name).unwrap())
    }

    fn routes() -> Vec<Route> {
        let route = |prefix: &str, owner: &str, kind| Route {
            prefix: prefix.parse().unwrap(),
            owner: edge(owner),
            kind,
            real: None,
            peer: None,
        };
        vec![
            route("10.86.0.2/32", "a", SubnetKind::EdgeNode),
            route("fd00::2/128", "a", SubnetKind::EdgeNode),
            route("10.86.0.3/32", "b", SubnetKind::EdgeNode),
            route("192.168.10.0/24", "b", SubnetKind::Lan),
        ]
    }

    fn modbus() -> Policy {
        let site = |name: &str| Selector { site: Some(Name::new(name).unwrap()), ..Selector::default() };
        let ports = vec![PortRange { protocol: Protocol::Tcp, ports: Some((502, 502)) }];
        let rule =
            AccessRule { name: "default/modbus".into(), from: vec![site("a")], to: vec![site("b")], ports };
        let sites: Sites = ["a", "b"].map(|name| (edge(name), Name::new(name).unwrap())).into();
        Policy::for_hub(&routes(), &sites, &[rule])
    }

    fn asked(from: &str, to: &str, protocol: Option<&str>, port: Option<u16>) -> PolicyTest {
        PolicyTest { from: from.into(), to: to.into(), protocol: protocol.map(str::to_owned), port }
    }

    #[test]
    fn names_stand_for_their_nodes_own_address() {
        let test = asked("a", "192.168.10.7", Some("tcp"), Some(502)).on(&routes()).unwrap();
        assert_eq!((test.from.to_string(), test.receiver.clone()), ("10.86.0.2".to_owned(), Some(edge("b"))));
        let policy = modbus();
        let answer = test.answer(Some(&test.at(&policy)), &test.at(&Policy::default()));
        assert_eq!(answer["hub"]["because"], "access policy default/modbus allows it");
        assert_eq!((&answer["receiver"]["decision"], &answer["allowed"]), (&json!("deny"), &json!(false)));
        let answer = test.answer(None, &test.at(&policy));
        assert_eq!((&answer["receiver"]["node"], &answer["allowed"]), (&json!("edge/b"), &json!(true)));
    }

    #[test]
    fn what_a_rule_allows_in_part_is_said() {
        let test = asked("a", "b", None, None).on(&routes()).unwrap();
        let answer = test.answer(None, &test.at(&modbus()));
        assert_eq!(answer["receiver"]["because"], "access policy default/modbus allows only tcp/502");
        assert_eq!(answer["traffic"], "everything");
    }

    #[test]
    fn nonsense_is_refused() {
        for (test, words) in [
            (asked("c", "b", None, None), "'c' is no address, and no node"),
            (asked("a", "b", Some("tcpp"), None), "'tcpp' is no protocol"),
            (asked("a", "b", None, Some(502)), "a port is of tcp or udp"),
            (asked("a", "b", Some("icmp"), Some(502)), "a port is of tcp or udp"),
            (asked("fd00::9", "10.86.0.3", None, None), "of two families"),
        ] {
            let error = test.on(&routes()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}

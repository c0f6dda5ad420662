//! `kubebus route`: which node an address lies behind, over which one packets go there, and what stops them.

use std::net::IpAddr;

use bus::{NodeId, Route, SubnetKind};
use controller::Lan;
use router::Policy;
use router::policy::Sites;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::admin::{AdminError, AdminResponse};
use crate::names::moved;
use crate::policy_test::{self, PolicyTest, Test};

/// What is asked, as typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteQuery {
    /// A node's name, or an address.
    pub to: String,
    /// `tcp`, `udp`, `icmp` or a number of IANA's; absent: all of them.
    #[serde(default)]
    pub protocol: Option<String>,
    /// The destination port; absent: all of them.
    #[serde(default)]
    pub port: Option<u16>,
}

/// What a node knows of the overlay.
#[derive(Debug)]
pub(crate) struct Overlay<'a> {
    pub(crate) me: &'a NodeId,
    /// The hub, at an edge.
    pub(crate) via: Option<&'a NodeId>,
    /// The nodes that an edge reaches without it.
    pub(crate) neighbours: Vec<NodeId>,
    pub(crate) routes: Vec<Route>,
    /// What edges name and have no right to.
    pub(crate) pending: Vec<(NodeId, Lan)>,
    pub(crate) sites: Sites,
    pub(crate) policy: &'a Policy,
}

impl Overlay<'_> {
    /// All routes, in the order of their prefixes, and behind them what waits for approval.
    pub(crate) fn list(&self) -> Value {
        let mut routes: Vec<&Route> = self.routes.iter().collect();
        routes.sort();
        let with_state = |mut route: Value, state: &str| {
            route["state"] = json!(state);
            route
        };
        let active = routes.into_iter().map(|route| with_state(self.describe(route), "active"));
        let pending = self.pending.iter().map(|(owner, lan)| {
            let route = Route {
                prefix: lan.net(),
                owner: owner.clone(),
                kind: SubnetKind::Lan,
                real: None,
                peer: None,
            };
            with_state(self.describe(&route), "pending")
        });
        active.chain(pending).collect()
    }

    fn describe(&self, described: &Route) -> Value {
        let Route { prefix, owner, kind, real, peer } = described;
        let mut route = json!({
            "prefix": prefix.to_string(), "kind": kind.as_str(), "owner": owner.to_string(),
            "site": self.sites.get(&described.holder()),
        });
        if let Some(peer) = peer {
            route["peer"] = json!(peer);
        }
        if let Some(real) = real {
            route["real"] = json!(real.to_string());
        }
        route
    }

    /// `is_connected` says whether there is a packets lane to a node.
    pub(crate) fn find(&self, asked: &RouteQuery, is_connected: impl Fn(&NodeId) -> bool) -> AdminResponse {
        let test = self.test(asked)?;
        let Some(route) = policy_test::longest(&self.routes, test.to) else {
            return Err(self.no_prefix(test.to));
        };
        let by_hub = self.via.filter(|_| !self.neighbours.contains(&route.owner));
        let next = (route.owner != *self.me).then(|| by_hub.unwrap_or(&route.owner));
        let mut found = self.describe(route);
        found["address"] = json!(test.to);
        found["from"] = json!(test.from);
        found["next_hop"] =
            json!(next.map(|node| json!({ "peer": node.to_string(), "connected": is_connected(node) })));
        found["policy"] = self.policy(asked, &test);
        found["problem"] = json!(next.filter(|node| !is_connected(node)).map(|node| self.why_down(node)));
        Ok(found)
    }

    /// What would be sent from here.
    fn test(&self, RouteQuery { to, protocol, port }: &RouteQuery) -> Result<Test, AdminError> {
        let v6 = to.parse().is_ok_and(|address: IpAddr| address.is_ipv6());
        let from = policy_test::own_address(&self.routes, v6, |node| node == self.me);
        let from = from.ok_or_else(|| {
            AdminError::NotFound(
                "this node has no address on the overlay yet: see 'kubebus status'".to_owned(),
            )
        })?;
        let (protocol, port) = (protocol.clone(), *port);
        PolicyTest { from: from.to_string(), to: to.clone(), protocol, port }.on(&self.routes)
    }

    /// An edge knows the policies that lead to it. Of what leaves its site the hub decides.
    fn policy(&self, asked: &RouteQuery, test: &Test) -> Value {
        let ruling = test.at(self.policy).there;
        if self.via.is_none() || ruling.is_allowed() {
            return policy_test::ruling(&ruling);
        }
        let traffic: String = [
            asked.protocol.as_ref().map(|protocol| format!(" --protocol {protocol}")),
            asked.port.map(|port| format!(" --port {port}")),
        ]
        .into_iter()
        .flatten()
        .collect();
        let because = format!(
            "the cloud decides about other sites; ask there: kubebus policy test {} {}{traffic}",
            test.from, test.to
        );
        json!({ "decision": "unknown", "policy": null, "because": because })
    }

    /// An address of a LAN that the overlay knows by another prefix may be meant.
    fn no_prefix(&self, address: IpAddr) -> AdminError {
        let is_meant = |route: &&Route| route.real.is_some_and(|real| real.contains(&address));
        let meant: Vec<String> =
            self.routes.iter().filter(is_meant).map(|route| self.known_as(address, route)).collect();
        AdminError::NotFound(if meant.is_empty() {
            format!(
                "no prefix of the overlay holds {address}: see 'kubebus route list'; a network behind an edge is named \
                 when its token is made, with 'kubebus token create --lan CIDR'"
            )
        } else {
            format!(
                "several sites have {address}, so the overlay knows it by other addresses: {}",
                meant.join(", ")
            )
        })
    }

    fn known_as(&self, address: IpAddr, route: &Route) -> String {
        let site = self.sites.get(&route.owner).map(|site| format!(" (site {site})")).unwrap_or_default();
        format!("{} behind {}{site}", moved(address, route.prefix), route.owner)
    }

    fn why_down(&self, next: &NodeId) -> String {
        match self.via {
            Some(_) => format!("no packets link to {next}: see 'kubebus status' and the log of this node"),
            None => format!("{next} is not connected: see 'kubebus status' and the log there"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::Name;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn edge(text: &str) -> NodeId {
        NodeId::edge(name(text))
    }

    fn hub() -> NodeId {
        NodeId::cloud(name("hq"))
    }

    fn routes() -> Vec<Route> {
        let route = |prefix: &str, owner: NodeId, kind| Route {
            prefix: prefix.parse().unwrap(),
            owner,
            kind,
            real: None,
            peer: None,
        };
        let clashing = route("10.86.64.0/24", edge("a"), SubnetKind::Lan);
        vec![
            route("192.168.10.0/24", edge("b"), SubnetKind::Lan),
            Route { real: Some("192.168.20.0/24".parse().unwrap()), ..clashing },
            route("10.86.0.3/32", edge("b"), SubnetKind::EdgeNode),
            route("10.86.0.2/32", edge("a"), SubnetKind::EdgeNode),
            route("10.86.0.1/32", hub(), SubnetKind::CloudVm),
        ]
    }

    fn pending() -> Vec<(NodeId, Lan)> {
        vec![(edge("b"), "192.168.30.0/24".parse().unwrap())]
    }

    fn sites() -> Sites {
        [(edge("a"), name("plant")), (edge("b"), name("depot")), (hub(), name("hq"))].into()
    }

    fn query(to: &str) -> RouteQuery {
        RouteQuery { to: to.to_owned(), protocol: Some("icmp".to_owned()), port: None }
    }

    fn at_hub(to: &str, is_connected: bool) -> AdminResponse {
        let policy = Policy::for_hub(&routes(), &sites(), &[]);
        let overlay = Overlay {
            me: &hub(),
            via: None,
            neighbours: vec![],
            routes: routes(),
            pending: pending(),
            sites: sites(),
            policy: &policy,
        };
        overlay.find(&query(to), |_| is_connected)
    }

    fn at_edge(to: &str) -> AdminResponse {
        let policy = Policy::for_edge(&routes(), &sites(), &[]);
        let (me, hub) = (edge("a"), hub());
        let overlay = Overlay {
            me: &me,
            via: Some(&hub),
            neighbours: vec![],
            routes: routes(),
            pending: pending(),
            sites: sites(),
            policy: &policy,
        };
        overlay.find(&query(to), |_| true)
    }

    #[test]
    fn a_hub_sends_to_the_owner_and_says_what_its_policy_decides() {
        let expected = json!({
            "address": "192.168.10.7", "from": "10.86.0.1", "prefix": "192.168.10.0/24", "kind": "lan",
            "owner": "edge/b", "site": "depot", "next_hop": { "peer": "edge/b", "connected": true },
            "policy": { "decision": "deny", "policy": null, "because": "no access policy is about these two" },
            "problem": null,
        });
        assert_eq!(at_hub("192.168.10.7", true), Ok(expected));
    }

    #[test]
    fn an_owner_that_is_away_is_named_with_what_to_do() {
        let found = at_hub("b", false).unwrap();
        assert_eq!(found["next_hop"]["connected"], false);
        let problem = found["problem"].as_str().unwrap();
        assert!(problem.starts_with("edge/b is not connected: see 'kubebus status'"), "{problem}");
    }

    #[test]
    fn an_edge_sends_to_its_hub_which_decides_about_other_sites() {
        let found = at_edge("b").unwrap();
        assert_eq!(found["next_hop"]["peer"], "cloud/hq");
        assert_eq!(found["policy"]["decision"], "unknown");
        let because = found["policy"]["because"].as_str().unwrap();
        assert!(because.ends_with("kubebus policy test 10.86.0.2 10.86.0.3 --protocol icmp"), "{because}");
    }

    #[test]
    fn what_lies_behind_this_node_has_no_next_hop() {
        let found = at_edge("a").unwrap();
        assert_eq!((&found["next_hop"], &found["problem"]), (&Value::Null, &Value::Null));
        assert_eq!(found["policy"]["decision"], "allow");
    }

    #[test]
    fn what_nobody_has_is_not_found() {
        for (to, words) in [
            ("10.99.0.1", "no prefix of the overlay holds 10.99.0.1"),
            ("192.168.20.7", "knows it by other addresses: 10.86.64.7 behind edge/a (site plant)"),
            ("nobody", "no node or WireGuard client of that name"),
            ("fd00::9", "this node has no address on the overlay"),
        ] {
            let Err(AdminError::NotFound(told)) = at_edge(to) else { panic!("{to} is found") };
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn routes_are_listed_in_the_order_of_their_prefixes_and_what_is_pending_comes_last() {
        let policy = Policy::default();
        let overlay = Overlay {
            me: &hub(),
            via: None,
            neighbours: vec![],
            routes: routes(),
            pending: pending(),
            sites: sites(),
            policy: &policy,
        };
        let list = overlay.list();
        let prefixes: Vec<_> = list.as_array().unwrap().iter().map(|route| &route["prefix"]).collect();
        let want = [
            "10.86.0.1/32",
            "10.86.0.2/32",
            "10.86.0.3/32",
            "10.86.64.0/24",
            "192.168.10.0/24",
            "192.168.30.0/24",
        ];
        assert_eq!(prefixes, want);
        assert_eq!(list[3]["real"], "192.168.20.0/24");
        let lan = |prefix: &str, state: &str| json!({ "prefix": prefix, "kind": "lan", "owner": "edge/b", "site": "depot", "state": state });
        assert_eq!(list[4], lan("192.168.10.0/24", "active"));
        assert_eq!(list[5], lan("192.168.30.0/24", "pending"));
    }
}

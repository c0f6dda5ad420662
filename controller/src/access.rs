//! `AccessPolicy` (`kubebus.io/v1alpha1`): who may begin to talk to whom over the overlay.
//!
//! ```yaml
//! apiVersion: kubebus.io/v1alpha1
//! kind: AccessPolicy
//! metadata: {name: scada-reads-pumps}
//! spec:
//!   from: [{site: hq}, {cidr: 10.9.0.0/24}]
//!   to:   [{site: plant-a, kind: lan}]
//!   ports: [{protocol: tcp, port: 502}, {protocol: icmp}]   # absent: everything
//! ```
//! The manifest is kept like any other. Its rule goes, as `/e/<edge>/access/<ns>/<name>`, to the edges to whose
//! prefixes it leads and to no others: they enforce it for what comes in. A rule names sites and nodes, so it does not
//! change when those do. Labels (`matchLabels: {tier: pump}`) are the cloud's: its rules name who has them, and are told
//! anew when that changes.

mod spec;

use std::collections::{BTreeMap, BTreeSet};

use bus::twin::DeviceId;
use bus::{AccessRule, Name, NodeId, NodeKind, Route, Selector};
use device_twin::model::Document;
use ipnet::IpNet;
use metadata::Keyspace;

use crate::label::{self, Labels};
use crate::lan::overlap;
use crate::plan::Plan;
use crate::record::{self, DamagedRecord};
use crate::resource::{self, ResourceKind};
use crate::{route, site};

pub use self::spec::{AccessPolicySpec, MAX_RANGES, MAX_SELECTORS};

/// Where the cloud keeps the manifests.
pub const PREFIX: &str = "/c/resource/accesspolicy/";

/// Where an edge finds the rules that lead to it.
pub const TOLD: &str = "/m/access/";

/// A packet that no rule allows is held against all of them: 1024 of three selectors each take about 10 µs.
pub const MAX_POLICIES: usize = 1024;

/// Whether a policy of this name may be kept.
pub fn has_room(id: &DeviceId, ks: &Keyspace) -> bool {
    resource::get(ResourceKind::Access, id, ks).is_some() || ks.range(PREFIX).count() < MAX_POLICIES
}

/// All rules at the cloud, by namespace and name. A manifest that cannot be read allows nothing.
pub fn rules(ks: &Keyspace) -> Vec<AccessRule> {
    let labels = label::Map::read(ks);
    resource::list(ResourceKind::Access, None, ks).filter_map(|(_, json)| rule_of(json, &labels)).collect()
}

/// The rules that the cloud tells `edge`.
pub fn told_to(edge: &Name, ks: &Keyspace) -> Vec<AccessRule> {
    read(&format!("/e/{edge}/access/"), ks)
}

/// The rules that an edge was told. What it cannot read allows nothing.
pub fn told(ks: &Keyspace) -> Vec<AccessRule> {
    read(TOLD, ks)
}

fn read(prefix: &str, ks: &Keyspace) -> Vec<AccessRule> {
    ks.range(prefix).filter_map(|(_, bytes)| minicbor::decode(bytes).ok()).collect()
}

fn rule_of(json: &[u8], labels: &label::Map) -> Option<AccessRule> {
    let document = Document::<AccessPolicySpec>::from_json(json).ok()?;
    Some(document.spec.rule(&document.id(), labels))
}

/// Whether a policy selects by labels, so that who joins or goes may change what is told to others.
fn has_labels(ks: &Keyspace) -> bool {
    resource::list(ResourceKind::Access, None, ks).any(|(_, json)| !labels_of(json).is_empty())
}

/// The labels that a policy selects by.
fn labels_of(json: &[u8]) -> Vec<Labels> {
    let document = Document::<AccessPolicySpec>::from_json(json).ok();
    document.map(|document| document.spec.labels().cloned().collect()).unwrap_or_default()
}

/// Tells the edges of all policies; writes nothing where all is well.
pub fn tell_all(ks: &mut Keyspace) -> Result<(), DamagedRecord> {
    let edges: Vec<Name> = Map::read(ks)?.edges().cloned().collect();
    tell_edges(edges, ks)
}

/// Tells these edges of all policies: they are new, or something about them has changed. Where labels count, others may
/// hear of it too.
pub fn tell_changed(edges: impl IntoIterator<Item = Name>, ks: &mut Keyspace) -> Result<(), DamagedRecord> {
    if has_labels(ks) { tell_all(ks) } else { tell_edges(edges, ks) }
}

/// Tells these edges of all policies.
pub fn tell_edges(edges: impl IntoIterator<Item = Name>, ks: &mut Keyspace) -> Result<(), DamagedRecord> {
    let rules = rules(ks);
    let map = Map::read(ks)?;
    for edge in edges {
        let wanted: BTreeMap<String, &AccessRule> = rules
            .iter()
            .filter(|rule| map.leads_to(rule, &edge))
            .map(|rule| (format!("/e/{edge}/access/{}", rule.name), rule))
            .collect();
        let kept: Vec<_> = ks.range(&format!("/e/{edge}/access/")).map(|(key, _)| key.clone()).collect();
        kept.iter().filter(|key| !wanted.contains_key(key.as_str())).for_each(|key| ks.delete(key));
        wanted.iter().for_each(|(key, rule)| record::put(ks, key, *rule));
    }
    Ok(())
}

/// Tells the edges of one policy, which is new, has changed or is gone.
pub fn tell_policy(id: &DeviceId, ks: &mut Keyspace) -> Result<(), DamagedRecord> {
    let labels = label::Map::read(ks);
    let rule = resource::get(ResourceKind::Access, id, ks).and_then(|json| rule_of(json, &labels));
    let map = Map::read(ks)?;
    for edge in map.edges() {
        let key = format!("/e/{edge}/access/{id}");
        match rule.as_ref().filter(|rule| map.leads_to(rule, edge)) {
            Some(rule) => record::put(ks, &key, rule),
            None => record::delete(ks, &key),
        }
    }
    Ok(())
}

/// What a policy waits for: the sites and nodes in it that nobody has joined as. Empty: for nothing.
pub fn waits_for(id: &DeviceId, ks: &Keyspace) -> Vec<String> {
    let labels = label::Map::read(ks);
    let json = resource::get(ResourceKind::Access, id, ks);
    let Some((json, rule)) = json.and_then(|json| Some((json, rule_of(json, &labels)?))) else {
        return Vec::new();
    };
    let sites = site::list(site::PREFIX, ks);
    let has_site = |name: &&Name| !sites.values().any(|site| site == *name);
    let is_known = |name: &Name| sites.keys().any(|node| node.kind != NodeKind::Cloud && node.name == *name);
    let has_node = |name: &&Name| !is_known(name);
    let selectors = || rule.from.iter().chain(&rule.to);
    let missing_sites = selectors().filter_map(|s| s.site.as_ref()).filter(has_site);
    let missing_nodes = selectors().filter_map(|s| s.node.as_ref()).filter(has_node);
    let missing_sites = missing_sites.map(|name| format!("site {name}"));
    let missing_nodes = missing_nodes.map(|name| format!("edge/{name}"));
    let unlabelled = labels_of(json).into_iter().filter(|wanted| labels.select(wanted).is_empty());
    let unlabelled = unlabelled.map(|wanted| {
        let wanted: Vec<String> = wanted.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("anybody with the labels {}", wanted.join(","))
    });
    let missing: BTreeSet<String> = missing_sites.chain(missing_nodes).chain(unlabelled).collect();
    missing.into_iter().collect()
}

/// Which edge has which site and prefixes.
struct Map {
    sites: BTreeMap<NodeId, Name>,
    routes: BTreeMap<NodeId, Vec<Route>>,
}

impl Map {
    fn read(ks: &Keyspace) -> Result<Self, DamagedRecord> {
        let mut routes: BTreeMap<NodeId, Vec<Route>> = BTreeMap::new();
        for route in route::list(ks)? {
            routes.entry(route.owner.clone()).or_default().push(route);
        }
        Ok(Self { sites: site::list(site::PREFIX, ks), routes })
    }

    fn edges(&self) -> impl Iterator<Item = &Name> {
        self.sites.keys().filter(|node| node.kind == NodeKind::Edge).map(|node| &node.name)
    }

    /// Whether a packet that the rule allows can be for something behind `edge`.
    fn leads_to(&self, rule: &AccessRule, edge: &Name) -> bool {
        let mut behind = self.routes.get(&NodeId::edge(edge.clone())).into_iter().flatten();
        behind.any(|route| rule.to.iter().any(|to| self.selects(to, route)))
    }

    fn selects(&self, Selector { site, node, cidr, kind }: &Selector, route: &Route) -> bool {
        let holder = route.holder();
        site.as_ref().is_none_or(|site| Some(site) == self.sites.get(&holder))
            && node.as_ref().is_none_or(|node| holder.kind != NodeKind::Cloud && *node == holder.name)
            && kind.is_none_or(|kind| kind == route.kind)
            && cidr.is_none_or(|cidr| overlap(&cidr, &route.prefix))
    }

    /// Whether what is behind `from` may begin to talk to what is behind `to`: in one site, or as a rule lets it.
    fn opens(&self, rules: &[AccessRule], from: &Route, to: &Route) -> bool {
        let sites = (self.sites.get(&from.holder()), self.sites.get(&to.holder()));
        let in_one_site = sites.0.is_some() && sites.0 == sites.1;
        let begins = |rule: &AccessRule| rule.from.iter().any(|selector| self.selects(selector, from));
        let leads = |rule: &AccessRule| rule.to.iter().any(|selector| self.selects(selector, to));
        in_one_site || rules.iter().any(|rule| begins(rule) && leads(rule))
    }
}

/// Whether anything behind one of two nodes may begin to talk to anything behind the other.
pub fn may_talk(a: &NodeId, b: &NodeId, ks: &Keyspace) -> Result<bool, DamagedRecord> {
    let (map, rules) = (Map::read(ks)?, rules(ks));
    let behind = |node: &NodeId| map.routes.get(node).map(Vec::as_slice).unwrap_or_default();
    let opens = |from: &Route, to: &Route| map.opens(&rules, from, to);
    Ok(behind(a).iter().any(|of_a| behind(b).iter().any(|of_b| opens(of_a, of_b) || opens(of_b, of_a))))
}

/// The prefixes outside the pools to which `client` may begin to talk, as things are now: those of its own site, and
/// those that policies lead it to.
pub(crate) fn reachable(client: &Name, plan: &Plan, ks: &Keyspace) -> Result<BTreeSet<IpNet>, DamagedRecord> {
    let (map, rules) = (Map::read(ks)?, rules(ks));
    let routes = || map.routes.values().flatten();
    let own: Vec<&Route> = routes().filter(|route| route.peer.as_ref() == Some(client)).collect();
    let may = |to: &Route| own.iter().any(|from| map.opens(&rules, from, to));
    let is_outside = |route: &&Route| !plan.pools().iter().any(|pool| overlap(pool, &route.prefix));
    Ok(routes().filter(is_outside).filter(|route| may(route)).map(|route| route.prefix).collect())
}

#[cfg(test)]
mod tests;

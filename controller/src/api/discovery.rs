//! What there is: groups, versions, resources and their verbs.

use serde_json::{Value, json};

use super::{Kind, Layout, Part, Verb};

/// Groups of which nothing is stored: reviews of oneself.
const REVIEWS: [(&str, &str, &str); 2] = [
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
];

/// Groups with a name, and their one version.
fn groups() -> impl Iterator<Item = (&'static str, &'static str)> {
    let ours = [("devices.kubeedge.io", "v1beta1"), ("kubebus.io", "v1alpha1")];
    ours.into_iter().chain(REVIEWS.iter().map(|(group, ..)| (*group, "v1")))
}

fn kinds(layout: Layout, group: &str, version: &str) -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(move |kind| {
        kind.is_served(layout) && (kind.info().group, kind.info().version) == (group, version)
    })
}

/// The verbs that make sense at this node. An edge writes nothing but wishes.
fn verbs(layout: Layout, kind: Kind) -> Vec<&'static str> {
    let is_here = |verb: &&Verb| {
        layout == Layout::Cloud || !verb.writes() || (kind == Kind::Device && **verb == Verb::Patch)
    };
    kind.info().verbs.iter().filter(is_here).map(|verb| verb.as_str()).collect()
}

/// `/api`.
pub fn core() -> Value {
    json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
}

/// `/apis`.
pub fn all() -> Value {
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups().map(|(group, version)| entry(group, version)).collect::<Vec<_>>() })
}

/// `/apis/<group>`.
pub fn group(name: &str) -> Option<Value> {
    let (group, version) = groups().find(|(group, _)| *group == name)?;
    let mut entry = entry(group, version);
    entry["kind"] = "APIGroup".into();
    entry["apiVersion"] = "v1".into();
    Some(entry)
}

fn entry(group: &str, version: &str) -> Value {
    let version = json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    json!({ "name": group, "versions": [version], "preferredVersion": version })
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub fn resources(layout: Layout, group: &str, version: &str) -> Option<Value> {
    let mut found = Vec::new();
    for kind in kinds(layout, group, version) {
        let info = kind.info();
        found.push(json!({
            "name": info.plural, "singularName": info.singular, "namespaced": info.namespaced, "kind": info.kind,
            "verbs": verbs(layout, kind), "shortNames": info.short, "categories": categories(kind),
        }));
        if info.has_status {
            found.push(json!({
                "name": format!("{}/status", info.plural), "singularName": "", "namespaced": info.namespaced,
                "kind": info.kind, "verbs": ["get"],
            }));
        }
        found.extend(parts(kind).iter().map(|part| {
            json!({
                "name": format!("{}/{part}", info.plural), "singularName": "", "namespaced": info.namespaced,
                "group": info.group, "version": info.version, "kind": part.kind(), "verbs": part.verb_names(),
            })
        }));
    }
    for (of, plural, kind) in REVIEWS {
        if (of, "v1") == (group, version) {
            found.push(json!({
                "name": plural, "singularName": plural.trim_end_matches('s'), "namespaced": false, "kind": kind,
                "verbs": ["create"],
            }));
        }
    }
    if found.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": found,
    }))
}

fn parts(kind: Kind) -> &'static [Part] {
    if kind == Kind::Device { &Part::ALL } else { &[] }
}

/// `kubectl get all` shows what works in a plant.
fn categories(kind: Kind) -> &'static [&'static str] {
    if matches!(kind, Kind::Device | Kind::Rule) {
        return &["all", "kubebus"];
    }
    if kind.info().group.is_empty() { &[] } else { &["kubebus"] }
}

/// `/api` and `/apis` with all of it in one answer (KEP-3352); `version` is v2 or v2beta1.
pub fn aggregated(layout: Layout, core: bool, version: &str) -> Value {
    let listed: Vec<(&str, &str)> = if core { vec![("", "v1")] } else { groups().collect() };
    let items: Vec<Value> = listed
        .into_iter()
        .map(|(group, of)| {
            let resources = resources(layout, group, of).map(|list| list["resources"].clone());
            let resources: Vec<Value> = resources
                .iter()
                .filter_map(Value::as_array)
                .flatten()
                .filter_map(|r| discovered(group, of, r))
                .collect();
            let of = json!({ "version": of, "resources": resources, "freshness": "Current" });
            let metadata = if group.is_empty() { json!({}) } else { json!({ "name": group }) };
            json!({ "metadata": metadata, "versions": [of] })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items,
    })
}

fn discovered(group: &str, version: &str, resource: &Value) -> Option<Value> {
    let name = resource["name"].as_str()?;
    if name.contains('/') {
        return None;
    }
    let kind = json!({ "group": group, "version": version, "kind": resource["kind"] });
    let mut found = json!({
        "resource": name, "responseKind": kind, "singularResource": resource["singularName"],
        "scope": if resource["namespaced"] == true { "Namespaced" } else { "Cluster" },
        "verbs": resource["verbs"],
    });
    for (to, from) in [("shortNames", "shortNames"), ("categories", "categories")] {
        if let Some(value) = resource.get(from) {
            found[to] = value.clone();
        }
    }
    let of = Kind::find(group, version, name);
    let mut below = Vec::new();
    if of.is_some_and(|kind| kind.info().has_status) {
        below.push(json!({ "subresource": "status", "responseKind": kind, "verbs": ["get"] }));
    }
    below.extend(of.map(parts).unwrap_or_default().iter().map(|part| {
        let kind = json!({ "group": group, "version": version, "kind": part.kind() });
        json!({ "subresource": part.as_str(), "responseKind": kind, "verbs": part.verb_names() })
    }));
    if !below.is_empty() {
        found["subresources"] = below.into();
    }
    Some(found)
}

/// `/version`, in the terms of Kubernetes: what clients compare with their own.
pub fn version(ours: &str) -> Value {
    json!({
        "major": "1", "minor": "32", "gitVersion": format!("v1.32.0+kubebus-{ours}"), "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": "linux",
    })
}

use super::*;
use crate::resource::Manifest;
use bus::{PortRange, Protocol, SubnetKind};
use serde_json::{Value, json};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

fn policy(policy: &str, spec: Value) -> Value {
    json!({"apiVersion": "kubebus.io/v1alpha1", "kind": "AccessPolicy", "metadata": {"name": policy}, "spec": spec})
}

fn apply(ks: &mut Keyspace, named: &str, spec: Value) {
    Manifest::parse(&policy(named, spec)).unwrap().apply(ks);
    tell_policy(&id(named), ks).unwrap();
}

/// The cloud `hq`; `scada` at the site `plant`; `pumps` there too, with a LAN; `depot` at its own.
fn cluster() -> Keyspace {
    let mut ks = Keyspace::new();
    let node = |prefix: &str, kind| (prefix.parse().unwrap(), kind);
    for (owner, at, behind) in [
        (NodeId::cloud(name("hq")), "hq", vec![node("10.86.0.1/32", SubnetKind::CloudVm)]),
        (NodeId::edge(name("scada")), "plant", vec![node("10.86.0.2/32", SubnetKind::EdgeNode)]),
        (
            NodeId::edge(name("pumps")),
            "plant",
            vec![node("10.86.0.3/32", SubnetKind::EdgeNode), node("192.168.10.0/24", SubnetKind::Lan)],
        ),
        (NodeId::edge(name("depot")), "depot", vec![node("10.86.0.4/32", SubnetKind::EdgeNode)]),
    ] {
        let routes: Vec<Route> = behind
            .into_iter()
            .map(|(prefix, kind)| Route { prefix, owner: owner.clone(), kind, real: None, peer: None })
            .collect();
        route::replace(&owner, &routes, &mut ks).unwrap();
        site::put(&owner, &name(at), &mut ks);
    }
    ks
}

fn told_of(ks: &Keyspace) -> Vec<String> {
    ks.range("/e/").map(|(key, _)| key.as_str().to_owned()).collect()
}

#[test]
fn a_manifest_becomes_a_rule() {
    let mut ks = cluster();
    let spec = json!({
        "from": [{"site": "hq"}, {"node": "scada"}, {"cidr": "10.9.0.7/24"}, {"kind": "cloud-vm", "site": "hq"}],
        "to": [{"site": "plant", "kind": "lan"}],
        "ports": [{"protocol": "tcp", "port": 502}, {"protocol": "udp", "from": 5000, "to": 5010},
                  {"protocol": "icmp"}, {"protocol": 47}],
    });
    apply(&mut ks, "reads", spec);
    let any = Selector::default;
    let want = AccessRule {
        name: "default/reads".into(),
        from: vec![
            Selector { site: Some(name("hq")), ..any() },
            Selector { node: Some(name("scada")), ..any() },
            Selector { cidr: Some("10.9.0.0/24".parse().unwrap()), ..any() },
            Selector { kind: Some(SubnetKind::CloudVm), site: Some(name("hq")), ..any() },
        ],
        to: vec![Selector { site: Some(name("plant")), kind: Some(SubnetKind::Lan), ..any() }],
        ports: vec![
            PortRange { protocol: Protocol::Tcp, ports: Some((502, 502)) },
            PortRange { protocol: Protocol::Udp, ports: Some((5000, 5010)) },
            PortRange { protocol: Protocol::Icmp, ports: None },
            PortRange { protocol: Protocol::Number(47), ports: None },
        ],
    };
    assert_eq!(rules(&ks), std::slice::from_ref(&want));
    assert_eq!(told_to(&name("pumps"), &ks), [want]);
}

#[test]
fn an_edge_hears_only_of_rules_that_lead_to_it() {
    let mut ks = cluster();
    let to = |to: Value| json!({"from": [{"site": "hq"}], "to": [to]});
    for (named, selector, edges) in [
        ("site", json!({"site": "plant"}), &["pumps", "scada"][..]),
        ("lan", json!({"site": "plant", "kind": "lan"}), &["pumps"]),
        ("node", json!({"node": "depot"}), &["depot"]),
        ("cidr", json!({"cidr": "192.168.0.0/16"}), &["pumps"]),
        ("part", json!({"cidr": "192.168.10.7/32"}), &["pumps"]),
        ("kind", json!({"kind": "edge-node"}), &["depot", "pumps", "scada"]),
        ("cloud", json!({"site": "hq"}), &[]),
        ("nobody", json!({"site": "nowhere"}), &[]),
    ] {
        apply(&mut ks, named, to(selector));
        let want: Vec<_> = edges.iter().map(|edge| format!("/e/{edge}/access/default/{named}")).collect();
        assert_eq!(told_of(&ks), want, "{named}");
        resource::delete(ResourceKind::Access, &id(named), &mut ks);
        tell_policy(&id(named), &mut ks).unwrap();
        assert_eq!(told_of(&ks), [""; 0], "{named} is gone");
    }
}

#[test]
fn two_nodes_may_talk_where_a_rule_leads_from_either_to_the_other_or_in_one_site() {
    let mut ks = cluster();
    let [scada, pumps, depot] = ["scada", "pumps", "depot"].map(|edge| NodeId::edge(name(edge)));
    assert_eq!(may_talk(&scada, &pumps, &ks), Ok(true), "one site");
    assert_eq!(may_talk(&depot, &pumps, &ks), Ok(false));
    apply(&mut ks, "reads", json!({"from": [{"site": "depot"}], "to": [{"site": "plant", "kind": "lan"}]}));
    for (a, b) in [(&depot, &pumps), (&pumps, &depot)] {
        assert_eq!(may_talk(a, b, &ks), Ok(true));
    }
    assert_eq!(may_talk(&depot, &scada, &ks), Ok(false), "it has no LAN");
    assert_eq!(may_talk(&depot, &NodeId::edge(name("nobody")), &ks), Ok(false));
}

#[test]
fn who_joins_later_is_told_and_who_changed_sites_is_told_anew() {
    let mut ks = cluster();
    apply(&mut ks, "plant", json!({"from": [{"site": "hq"}], "to": [{"site": "plant"}]}));
    apply(&mut ks, "depot", json!({"from": [{"site": "hq"}], "to": [{"site": "depot"}]}));
    ks.seal();
    tell_edges([name("scada"), name("pumps"), name("depot")], &mut ks).unwrap();
    assert_eq!(ks.seal(), None, "all was well");
    site::put(&NodeId::edge(name("scada")), &name("depot"), &mut ks);
    tell_edges([name("scada")], &mut ks).unwrap();
    let told: Vec<_> = told_to(&name("scada"), &ks).into_iter().map(|rule| rule.name).collect();
    assert_eq!(told, ["default/depot"]);
}

#[test]
fn a_policy_says_what_it_waits_for() {
    let mut ks = cluster();
    let spec =
        json!({"from": [{"site": "nowhere"}, {"site": "hq"}], "to": [{"node": "nobody"}, {"node": "pumps"}]});
    apply(&mut ks, "early", spec);
    assert_eq!(waits_for(&id("early"), &ks), ["edge/nobody", "site nowhere"]);
}

fn label(ks: &mut Keyspace, text: &str, tier: &str) {
    let set = [("tier".to_owned(), tier.to_owned())].into();
    let labels = label::Change { set, remove: Vec::new() };
    label::change(&text.parse().unwrap(), labels, ks).unwrap();
}

#[test]
fn labels_mean_who_has_them_and_change_with_them() {
    let mut ks = cluster();
    let spec = json!({"from": [{"matchLabels": {"tier": "office"}}],
                      "to": [{"matchLabels": {"tier": "pump"}, "kind": "lan"}, {"matchLabels": {"tier": "pump"}, "site": "depot"}]});
    apply(&mut ks, "web", spec);
    assert_eq!(
        waits_for(&id("web"), &ks),
        ["anybody with the labels tier=office", "anybody with the labels tier=pump"]
    );
    assert_eq!((&rules(&ks)[0].from, &rules(&ks)[0].to), (&vec![], &vec![]), "it allows nothing");
    label(&mut ks, "site/hq", "office");
    label(&mut ks, "site/plant", "pump");
    tell_all(&mut ks).unwrap();
    assert_eq!(waits_for(&id("web"), &ks), [""; 0]);
    let any = Selector::default;
    let rule = told_to(&name("pumps"), &ks).remove(0);
    assert_eq!(rule.from, [Selector { site: Some(name("hq")), ..any() }]);
    assert_eq!(rule.to, [Selector { site: Some(name("plant")), kind: Some(SubnetKind::Lan), ..any() }]);
    assert_eq!(told_of(&ks).iter().filter(|key| key.contains("/access/")).count(), 1, "only pumps has a LAN");

    // Who comes to a labelled site is meant, and those to whom the rule leads hear of it.
    ks.seal();
    site::put(&NodeId::edge(name("desk")), &name("hq"), &mut ks);
    tell_changed([], &mut ks).unwrap();
    assert_eq!(told_to(&name("pumps"), &ks), [rule], "by its site");
    label(&mut ks, "site/hq", "lab");
    tell_changed([], &mut ks).unwrap();
    assert_eq!(told_to(&name("pumps"), &ks)[0].from, []);
}

#[test]
fn each_refusal_names_the_field() {
    let with = |key: &str, value: Value| {
        let mut spec = json!({"from": [{"site": "hq"}], "to": [{"site": "plant"}]});
        spec[key] = value;
        spec
    };
    let many = |len| Value::from(vec![json!({"site": "hq"}); len]);
    for (spec, field) in [
        (json!({"to": [{"site": "plant"}]}), "spec"),
        (with("from", json!([])), "spec.from"),
        (with("from", many(MAX_SELECTORS + 1)), "spec.from"),
        (with("to", json!([{"site": "plant"}, {}])), "spec.to[1]"),
        (with("to", json!([{"site": "No Name"}])), "spec.to[0].site"),
        (with("to", json!([{"cidr": "10.0.0.0/40"}])), "spec.to[0].cidr"),
        (with("to", json!([{"kind": "moon"}])), "spec.to[0].kind"),
        (with("to", json!([{"sit": "plant"}])), "spec.to[0].sit"),
        (with("to", json!([{"matchLabels": {}}])), "spec.to[0]"),
        (with("to", json!([{"matchLabels": {"tier": "a b"}}])), "spec.to[0].matchLabels"),
        (with("ports", json!([])), "spec.ports"),
        (with("ports", json!([{"protocol": "sctpp"}])), "spec.ports[0].protocol"),
        (with("ports", json!([{"protocol": 300}])), "spec.ports[0].protocol"),
        (with("ports", json!([{"protocol": "icmp", "port": 1}])), "spec.ports[0].protocol"),
        (with("ports", json!([{"port": 1}])), "spec.ports[0]"),
        (with("ports", json!([{"protocol": "tcp", "port": 1, "to": 2}])), "spec.ports[0].port"),
        (with("ports", json!([{"protocol": "tcp", "from": 1}])), "spec.ports[0].from"),
        (with("ports", json!([{"protocol": "tcp", "from": 2, "to": 1}])), "spec.ports[0].to"),
        (with("ports", json!([{"protocol": "tcp", "port": 70000}])), "spec.ports[0].port"),
    ] {
        let error = Manifest::parse(&policy("p", spec.clone())).unwrap_err();
        assert_eq!(error.field(), Some(field), "{spec}: {}", bus::with_causes(&error));
    }
}

#[test]
fn the_thousand_and_twentyfifth_policy_has_no_room() {
    let mut ks = Keyspace::new();
    for number in 0..MAX_POLICIES {
        assert!(has_room(&id(&format!("p{number}")), &ks));
        let spec = json!({"from": [{"site": "a"}], "to": [{"site": "b"}]});
        Manifest::parse(&policy(&format!("p{number}"), spec)).unwrap().apply(&mut ks);
    }
    assert!(has_room(&id("p7"), &ks), "one that is there may change");
    assert!(!has_room(&id("another"), &ks));
}

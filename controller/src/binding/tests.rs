use super::*;
use crate::resource::Manifest;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

fn device(name: &str, node: Option<&str>, model: Option<&str>) -> Value {
    let mut document = json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": {"name": name}, "spec": {"protocol": {"protocolName": "virtual"}}});
    if let Some(node) = node {
        document["spec"]["nodeName"] = node.into();
    }
    if let Some(model) = model {
        document["spec"]["deviceModelRef"] = json!({ "name": model });
    }
    document
}

fn model(name: &str, unit: &str) -> Value {
    json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": name},
        "spec": {"properties": [{"name": "level", "type": "FLOAT", "unit": unit}]}})
}

fn policy(name: &str, model: &str) -> Value {
    json!({"apiVersion": "kubebus.io/v1alpha1", "kind": "TwinPolicy", "metadata": {"name": name},
        "spec": {"model": model}})
}

fn rule(name: &str, output: &str) -> Value {
    json!({"apiVersion": "kubebus.io/v1alpha1", "kind": "Rule", "metadata": {"name": name},
        "spec": {"inputs": {}, "output": {"device": output, "property": "level", "ttl": "30s"},
        "onUnknown": "hold", "cases": [{"then": "hold"}]}})
}

/// A keyspace with its binder, changed and reconciled in one cycle.
#[derive(Default)]
struct Cloud {
    ks: Keyspace,
    binder: Binder,
}

impl Cloud {
    fn apply(&mut self, document: &Value) {
        let manifest = Manifest::parse(document).unwrap();
        manifest.apply(&mut self.ks);
        self.binder.handle_changes([&manifest.key()], &mut self.ks);
    }

    fn delete(&mut self, kind: Kind, name: &str) {
        let id = id(name);
        resource::delete(kind, &id, &mut self.ks);
        self.binder.handle_changes([&resource::key(kind, &id)], &mut self.ks);
    }

    /// A node's record, as far as binding is concerned: that it is there.
    fn node(&mut self, name: &str, present: bool) {
        let key = own_key(&format!("{}{name}", nodes::PREFIX));
        if present {
            self.ks.put(key.clone(), Bytes::from_static(b"node"));
        } else {
            self.ks.delete(&key);
        }
        self.binder.handle_changes([&key], &mut self.ks);
    }

    /// What is known of a node that is there changes.
    fn record(&mut self, name: &str, record: &'static str) {
        let key = own_key(&format!("{}{name}", nodes::PREFIX));
        self.ks.put(key.clone(), Bytes::from_static(record.as_bytes()));
        self.binder.handle_changes([&key], &mut self.ks);
    }

    fn wish(&mut self, edge: &str, device: &str) {
        let key = own_key(&format!("/e/{edge}/desired/default/{device}/level"));
        self.ks.put(key, Bytes::from_static(b"wish"));
    }

    fn at(&self, edge: &str) -> Vec<String> {
        let prefix = format!("/e/{edge}/");
        self.ks.range(&prefix).map(|(key, _)| key.as_str()[prefix.len()..].to_owned()).collect()
    }
}

fn cloud_with_one_device() -> Cloud {
    let mut cloud = Cloud::default();
    ["a", "b"].iter().for_each(|node| cloud.node(node, true));
    cloud.apply(&model("tank", "m"));
    cloud.apply(&policy("ages", "tank"));
    cloud.apply(&policy("other", "pump"));
    cloud.apply(&rule("fill", "t1"));
    cloud.apply(&device("t1", Some("a"), Some("tank")));
    cloud.wish("a", "t1");
    cloud
}

const ALL_OF_T1: [&str; 5] = [
    "desired/default/t1/level",
    "device/default/t1",
    "model/default/tank",
    "policy/default/ages",
    "rule/default/fill",
];

#[test]
fn an_edge_gets_its_devices_and_what_belongs_to_them() {
    let cloud = cloud_with_one_device();
    assert_eq!(cloud.at("a"), ALL_OF_T1);
    assert_eq!(cloud.at("b"), [""; 0]);
    assert_eq!(cloud.ks.get("/e/a/model/default/tank"), resource::get(Kind::Model, &id("tank"), &cloud.ks));
}

#[test]
fn a_device_that_moves_takes_all_with_it_but_the_wishes() {
    let mut cloud = cloud_with_one_device();
    cloud.apply(&device("t1", Some("b"), Some("tank")));
    assert_eq!(cloud.at("a"), [""; 0]);
    assert_eq!(cloud.at("b"), ALL_OF_T1[1..]);
}

#[test]
fn what_another_device_still_needs_stays_when_one_goes() {
    let mut cloud = cloud_with_one_device();
    cloud.apply(&device("t2", Some("a"), Some("tank")));
    cloud.delete(Kind::Device, "t1");
    assert_eq!(cloud.at("a"), ["device/default/t2", "model/default/tank", "policy/default/ages"]);
}

#[test]
fn wishes_outlive_a_change_of_the_model() {
    let mut cloud = cloud_with_one_device();
    cloud.delete(Kind::Model, "tank");
    assert_eq!(cloud.at("a"), ["desired/default/t1/level"]);
    cloud.apply(&model("tank", "cm"));
    assert_eq!(cloud.at("a"), ALL_OF_T1);
}

#[test]
fn other_keys_of_an_edge_are_not_touched() {
    let mut cloud = cloud_with_one_device();
    cloud.ks.put(own_key("/e/a/lease"), Bytes::from_static(b"lease"));
    cloud.delete(Kind::Device, "t1");
    cloud.binder.reconcile_all(&mut cloud.ks);
    assert_eq!(cloud.at("a"), ["lease"]);
}

#[test]
fn a_placement_says_what_is_waited_for() {
    let mut cloud = Cloud::default();
    let text = |cloud: &Cloud| {
        let of = |placement: Option<Placement>| placement.map(|p| p.to_string()).unwrap_or_default();
        (of(cloud.binder.device(&id("t1"))), of(cloud.binder.rule(&id("fill"))))
    };
    let both = |text: &str| (text.to_owned(), text.to_owned());
    assert_eq!(text(&cloud), both(""));
    cloud.apply(&rule("fill", "t1"));
    assert_eq!(text(&cloud), (String::new(), "waits: device default/t1 does not exist".to_owned()));
    cloud.apply(&device("t1", None, None));
    assert_eq!(text(&cloud), both("waits: spec.nodeName names no edge"));
    cloud.apply(&device("t1", Some("a"), None));
    assert_eq!(text(&cloud), both("waits: spec.deviceModelRef names no model"));
    cloud.apply(&device("t1", Some("a"), Some("tank")));
    assert_eq!(text(&cloud), both("waits: model default/tank does not exist"));
    cloud.apply(&model("tank", "m"));
    assert_eq!(text(&cloud), both("waits: edge/a has not joined"));
    cloud.node("a", true);
    assert_eq!(text(&cloud), both("runs at edge/a"));
}

/// An edge that has so many devices, each with a rule; what was written is sealed.
fn plant(devices: usize) -> Cloud {
    let mut cloud = Cloud::default();
    cloud.node("a", true);
    for manifest in [model("tank", "m"), model("other", "m"), policy("ages", "tank")] {
        cloud.apply(&manifest);
    }
    let mut keys = Vec::new();
    for n in 0..devices {
        for manifest in
            [device(&format!("t{n}"), Some("a"), Some("tank")), rule(&format!("r{n}"), &format!("t{n}"))]
        {
            let manifest = Manifest::parse(&manifest).unwrap();
            manifest.apply(&mut cloud.ks);
            keys.push(manifest.key());
        }
    }
    cloud.binder.handle_changes(&keys, &mut cloud.ks);
    cloud.ks.seal();
    cloud
}

impl Cloud {
    /// Manifests decoded, rows compared and rows of edges written.
    fn cost(&mut self, change: impl FnOnce(&mut Self)) -> (u64, u64, usize) {
        let before = self.binder.stats();
        change(self);
        let after = self.binder.stats();
        let written = self.ks.written().filter(|(key, _)| key.as_str().starts_with("/e/")).count();
        self.ks.seal();
        (after.decoded - before.decoded, after.compared - before.compared, written)
    }
}

#[test]
fn a_change_costs_what_it_concerns_and_not_what_its_edge_has() {
    const DEVICES: usize = 10_000;
    let mut cloud = plant(DEVICES);
    let tagged = |text: &str| {
        let mut tagged = device("t7", Some("a"), Some("tank"));
        tagged["metadata"]["labels"] = json!({ "hall": text });
        tagged
    };
    let costs = [
        ("a changed device", cloud.cost(|cloud| cloud.apply(&tagged("1"))), (1, 1, 1)),
        ("the same again", cloud.cost(|cloud| cloud.apply(&tagged("1"))), (1, 1, 0)),
        ("a new device", cloud.cost(|cloud| cloud.apply(&device("new", Some("a"), Some("tank")))), (1, 1, 1)),
        (
            "another model: the first that asks for it here",
            cloud.cost(|cloud| cloud.apply(&device("new", Some("a"), Some("other")))),
            (1, 2, 2),
        ),
        (
            "a device that goes, and its model",
            cloud.cost(|cloud| cloud.delete(Kind::Device, "new")),
            (0, 2, 2),
        ),
        ("a device without its rule", cloud.cost(|cloud| cloud.delete(Kind::Device, "t8")), (0, 2, 2)),
        ("a changed model", cloud.cost(|cloud| cloud.apply(&model("tank", "cm"))), (1, 1, 1)),
        ("a policy", cloud.cost(|cloud| cloud.apply(&policy("more", "tank"))), (1, 1, 1)),
        ("a rule", cloud.cost(|cloud| cloud.apply(&rule("again", "t1"))), (1, 1, 1)),
        ("a node's new certificate", cloud.cost(|cloud| cloud.record("a", "new")), (0, 0, 0)),
    ];
    for (what, cost, expected) in costs {
        assert_eq!(cost, expected, "{what}");
    }
    let all = 2 * (DEVICES - 1) + 4;
    let cost = cloud.cost(|cloud| cloud.delete(Kind::Model, "tank"));
    assert_eq!(cost, (0, all as u64, all), "a model that goes");
}

#[test]
fn what_a_cycle_changes_twice_is_done_once() {
    let mut cloud = plant(3);
    let keys: Vec<Key> =
        ["t0", "t1", "t0"].iter().map(|name| resource::key(Kind::Device, &id(name))).collect();
    let cost = cloud.cost(|cloud| {
        for (name, model) in [("t0", "other"), ("t1", "other")] {
            Manifest::parse(&device(name, Some("a"), Some(model))).unwrap().apply(&mut cloud.ks);
        }
        cloud.binder.handle_changes(&keys, &mut cloud.ks);
    });
    // Two devices, their rules, and the model that both ask for now.
    assert_eq!(cost, (2, 5, 3));
}

#[test]
fn a_rule_may_name_a_device_of_another_namespace() {
    let mut cloud = cloud_with_one_device();
    let mut elsewhere = rule("guard", "default/t1");
    elsewhere["metadata"]["namespace"] = "safety".into();
    cloud.apply(&elsewhere);
    assert!(cloud.at("a").contains(&"rule/safety/guard".to_owned()));
}

/// What the edges should hold, said again without the binder: from the stored JSON, edge by edge.
fn expected(ks: &Keyspace) -> BTreeMap<String, Bytes> {
    let stored = |kind: &str| -> Vec<(String, Value, Bytes)> {
        let prefix = format!("/c/resource/{kind}/");
        let entries = ks.range(&prefix).map(|(key, json)| {
            let rest = key.as_str()[prefix.len()..].to_owned();
            (rest, serde_json::from_slice(json).unwrap(), json.clone())
        });
        entries.collect()
    };
    // What is damaged names nothing, and there is no model of it.
    let model_of = |spec: &Value| format!("default/{}", spec.as_str().unwrap_or("-"));
    let mut all = BTreeMap::new();
    for (device, manifest, json) in stored("device") {
        let Some(edge) = manifest["spec"]["nodeName"].as_str() else { continue };
        let model = model_of(&manifest["spec"]["deviceModelRef"]["name"]);
        let is_it = |(name, spec, _): &(String, Value, Bytes)| *name == model && spec.get("spec").is_some();
        let Some((_, _, model_json)) = stored("devicemodel").into_iter().find(is_it) else { continue };
        if ks.get(&format!("/c/node/{edge}")).is_none() {
            continue;
        }
        all.insert(format!("/e/{edge}/device/{device}"), json);
        all.insert(format!("/e/{edge}/model/{model}"), model_json);
        for (name, manifest, json) in stored("twinpolicy") {
            if model_of(&manifest["spec"]["model"]) == model {
                all.insert(format!("/e/{edge}/policy/{name}"), json);
            }
        }
        for (name, manifest, json) in stored("rule") {
            if model_of(&manifest["spec"]["output"]["device"]) == device {
                all.insert(format!("/e/{edge}/rule/{name}"), json);
            }
        }
    }
    all
}

fn actual(ks: &Keyspace, wishes: bool) -> BTreeMap<String, Bytes> {
    let entries = ks.range("/e/").map(|(key, value)| (key.to_string(), value.clone()));
    entries.filter(|(key, _)| key.contains("/desired/") == wishes).collect()
}

/// One edit; names are drawn from few, so that edits meet.
#[derive(Debug, Clone)]
enum Edit {
    Apply(Value),
    /// What no binder can read.
    Damage(Kind, String),
    Delete(Kind, String),
    /// It joins, or what is known of it changes.
    Join(String, u8),
    /// As [`nodes::remove`] does.
    Remove(String),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let maybe = |kind: &'static str| prop::option::of((0..3u8).prop_map(move |n| format!("{kind}{n}")));
    let one = |kind: &'static str| (0..3u8).prop_map(move |n| format!("{kind}{n}"));
    let kinds = || {
        let kinds = prop_oneof![
            Just((Kind::Device, "d")),
            Just((Kind::Model, "m")),
            Just((Kind::Policy, "p")),
            Just((Kind::Rule, "r")),
        ];
        (kinds, 0..3u8).prop_map(|((kind, name), n)| (kind, format!("{name}{n}")))
    };
    let labelled = |mut device: Value, label: u8| {
        device["metadata"]["labels"] = json!({ "hall": label.to_string() });
        Edit::Apply(device)
    };
    let edit = prop_oneof![
        4 => (one("d"), maybe("e"), maybe("m"), 0..2u8)
            .prop_map(move |(d, e, m, label)| labelled(device(&d, e.as_deref(), m.as_deref()), label)),
        2 => (one("m"), one("unit")).prop_map(|(m, unit)| Edit::Apply(model(&m, &unit))),
        2 => (one("p"), one("m")).prop_map(|(p, m)| Edit::Apply(policy(&p, &m))),
        2 => (one("r"), one("d")).prop_map(|(r, d)| Edit::Apply(rule(&r, &d))),
        3 => kinds().prop_map(|(kind, name)| Edit::Delete(kind, name)),
        1 => kinds().prop_map(|(kind, name)| Edit::Damage(kind, name)),
        2 => (one("e"), 0..2u8).prop_map(|(e, record)| Edit::Join(e, record)),
        1 => one("e").prop_map(Edit::Remove),
    ];
    prop::collection::vec(edit, 0..40)
}

fn write(edit: &Edit, ks: &mut Keyspace) -> Key {
    match edit {
        Edit::Apply(document) => {
            let manifest = Manifest::parse(document).unwrap();
            manifest.apply(ks);
            manifest.key()
        }
        Edit::Delete(kind, name) => {
            resource::delete(*kind, &id(name), ks);
            resource::key(*kind, &id(name))
        }
        Edit::Damage(kind, name) => {
            let key = resource::key(*kind, &id(name));
            ks.put(key.clone(), Bytes::from_static(b"{}"));
            key
        }
        Edit::Join(name, record) => {
            let key = own_key(&format!("/c/node/{name}"));
            ks.put(key.clone(), vec![*record].into());
            key
        }
        Edit::Remove(name) => {
            let key = own_key(&format!("/c/node/{name}"));
            ks.delete(&key);
            crate::record::delete_all_but(ks, &format!("/e/{name}/"), &["desired/"]);
            key
        }
    }
}

/// What a binder makes of the same manifests and nodes that never saw the edges' rows.
fn anew(ks: &Keyspace) -> BTreeMap<String, Bytes> {
    let mut fresh = Keyspace::new();
    ks.range("/c/").for_each(|(key, value)| fresh.put(key.clone(), value.clone()));
    Binder::load(&fresh).reconcile_all(&mut fresh);
    actual(&fresh, false)
}

proptest! {
    #[test]
    fn binding_equals_a_naive_recomputation_after_any_edits(edits in edits(), batch in 1usize..5) {
        let mut cloud = Cloud::default();
        for edits in edits.chunks(batch) {
            let keys: Vec<Key> = edits.iter().map(|edit| write(edit, &mut cloud.ks)).collect();
            cloud.binder.handle_changes(&keys, &mut cloud.ks);
            prop_assert_eq!(actual(&cloud.ks, false), expected(&cloud.ks));
            prop_assert_eq!(actual(&cloud.ks, false), anew(&cloud.ks));
            for edge in ["e0", "e1", "e2"] {
                for device in ["d0", "d1", "d2"] {
                    let at_home = cloud.binder.register.is_home(&name(edge), &id(device));
                    let wished = cloud.ks.get(&format!("/e/{edge}/desired/default/{device}/level")).is_some();
                    prop_assert!(!wished || at_home);
                    if at_home && nodes::exists(&name(edge), &cloud.ks) {
                        cloud.wish(edge, device);
                    }
                }
            }
        }
        cloud.ks.seal();
        let mut fresh = Binder::load(&cloud.ks);
        prop_assert_eq!(&fresh.register, &cloud.binder.register);
        fresh.reconcile_all(&mut cloud.ks);
        prop_assert_eq!(cloud.ks.seal(), None);
    }

    #[test]
    fn a_full_reconcile_repairs_whatever_was_left_behind(edits in edits(), stray in 0usize..3) {
        let mut ks = Keyspace::new();
        edits.iter().for_each(|edit| drop(write(edit, &mut ks)));
        for edge in 0..stray {
            for rest in ["device/default/d0", "rule/default/gone", "policy/x/y", "model/not a/key/at/all"] {
                let key = own_key(&format!("/e/e{edge}/{}", rest.replace(' ', "-")));
                ks.put(key, Bytes::from_static(b"old"));
            }
            ks.put(own_key(&format!("/e/e{edge}/desired/default/gone/level")), Bytes::from_static(b"old"));
        }
        Binder::load(&ks).reconcile_all(&mut ks);
        prop_assert_eq!(actual(&ks, false), expected(&ks));
        prop_assert_eq!(actual(&ks, true), BTreeMap::new());
    }
}

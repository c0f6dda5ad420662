use bus::token::{CaHash, TokenId};
use bus::{KeyHash, Mono, Name, UnixMillis};
use controller::api::Method;
use controller::api::call::{Call, Request};
use controller::api::read::{Found, Read};
use controller::join::{CsrError, Signed};
use controller::nodes::{self, NodeRecord};
use controller::{CloudSubnets, Cluster, Plan};
use metadata::{Commit, Keyspace};

use super::*;
use crate::cloud::CloudSettings;
use crate::seam::{Input, Output};
use crate::steering::asker;

const NOW: Now = Now { mono: Mono(0), wall: UnixMillis(1_000_000) };

/// A cloud whose disk takes everything at once.
struct Desk(Cloud);

impl Desk {
    fn new() -> Self {
        let (name, ca) = (Name::new("water").unwrap(), CaHash::of_der(b"ca"));
        let plan = Plan::new(Plan::DEFAULT_POOL, &name, &ca).unwrap();
        let endpoints = vec!["cloud.example:10001".to_owned()];
        let cluster = Cluster { name, cloud: Name::new("hub").unwrap(), ca_der: Vec::new(), endpoints, plan };
        let settings = CloudSettings { cluster, subnets: CloudSubnets::default(), ca, seed: 1, term: None };
        let signer = Box::new(|_: &[u8], _: &bus::Identity| Err(CsrError::Malformed));
        Self(Cloud::new(settings, signer, Keyspace::new(), NOW).unwrap())
    }

    /// The answer, and what was written for it.
    fn ask(&mut self, request: ApiRequest) -> (ApiAnswer, Vec<Commit>) {
        self.0.handle(Input::Api { id: 7, request }, NOW);
        let (mut answer, mut commits) = (None, Vec::new());
        while let Some(output) = self.0.poll_output() {
            if let Output::Persist(commit) = output {
                assert_eq!(answer, None, "nothing is answered before it is durable");
                self.0.handle(Input::Persisted(commit.revision), NOW);
                commits.push(commit);
            } else if let Output::Api { id: 7, answer: said } = output {
                answer = Some(said);
            }
        }
        (answer.unwrap(), commits)
    }

    fn write(&mut self, method: Method, path: &str, body: Value) -> Result<Value, Refusal> {
        let (kind, written) = self.written(method, path, body)?;
        let (Outcome::Item(item) | Outcome::Gone(item)) = written.outcome;
        Ok(object::render(kind, *item))
    }

    fn written(&mut self, method: Method, path: &str, body: Value) -> Result<(Kind, Written), Refusal> {
        self.written_by("admin", "application/merge-patch+json", method, path, body)
    }

    fn written_by(
        &mut self,
        role: &str,
        content_type: &str,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<(Kind, Written), Refusal> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request =
            Request { method, path, query, accept: "application/json", content_type, user_agent: "test" };
        let Call::Write(write) = Call::parse(&request)? else { panic!("{path} is no write") };
        let kind = write.kind;
        let order = Order { write, body, asker: asker(role), secret: [3; JoinToken::SECRET_LEN] };
        let (ApiAnswer::Written(done), _) = self.ask(ApiRequest::Write(Box::new(order))) else { panic!() };
        Ok((kind, done?))
    }
}

mod steering;

const DEVICES: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/default/devices";

fn device() -> Value {
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "valve"},
        "spec": {"nodeName": "a"},
    })
}

#[test]
fn a_change_of_metadata_alone_goes_to_no_edge_and_is_a_new_version() {
    let mut desk = Desk::new();
    let made = desk.write(Method::Post, DEVICES, device()).unwrap();
    let note = json!({"metadata": {"annotations": {"note": "x"}}});
    let noted = desk.write(Method::Patch, &format!("{DEVICES}/valve"), note).unwrap();
    assert_eq!(noted["metadata"]["uid"], made["metadata"]["uid"]);
    let version =
        |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(version(&noted), version(&made) + 1);
    let manifest = desk.0.keyspace.get("/c/resource/device/default/valve").unwrap();
    let lean: Value = serde_json::from_slice(manifest).unwrap();
    assert_eq!(lean["metadata"], json!({"name": "valve", "namespace": "default"}));
}

#[test]
fn what_kubebus_apply_brings_keeps_what_others_said_of_the_object() {
    let mut desk = Desk::new();
    let made = desk.write(Method::Post, DEVICES, device()).unwrap();
    let hold = json!({"metadata": {"finalizers": ["example.org/hold"], "annotations": {"note": "x"}}});
    desk.write(Method::Patch, &format!("{DEVICES}/valve"), hold).unwrap();
    let mut again = device();
    again["spec"]["nodeName"] = "b".into();
    let request = crate::admin::AdminRequest::Apply { manifest: again };
    desk.0.handle(Input::Admin { id: 1, request }, NOW);
    let after = desk.write(Method::Patch, &format!("{DEVICES}/valve"), json!({})).unwrap();
    assert_eq!(after["spec"]["nodeName"], "b");
    assert_eq!(after["metadata"]["generation"], 2);
    assert_eq!(after["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(after["metadata"]["finalizers"], json!(["example.org/hold"]));
    assert_eq!(after["metadata"]["annotations"], json!({"note": "x"}));
}

#[test]
fn tokens_are_named_by_the_server_and_shown_once() {
    let mut desk = Desk::new();
    let tokens = "/apis/kubebus.io/v1alpha1/jointokens";
    let order =
        json!({"metadata": {"generateName": "t-"}, "spec": {"site": "plant", "uses": 2, "ttl": "1h"}});
    let made = desk.write(Method::Post, tokens, order.clone()).unwrap();
    assert!(made["status"]["token"].as_str().unwrap().starts_with("kb1."));
    let name = made["metadata"]["name"].as_str().unwrap();
    let read = Read::Get { kind: Kind::JoinToken, id: Id::from(name) };
    let (ApiAnswer::Found(Found::Item(Some(item))), _) = desk.ask(ApiRequest::Read(read)) else { panic!() };
    let shown = object::render(Kind::JoinToken, item);
    assert_eq!((&shown["status"]["token"], &shown["spec"]["uses"]), (&Value::Null, &json!(2)));
    for (field, value, expected) in [
        ("site", json!("Not A Name"), "spec.site"),
        ("site", Value::Null, "spec.site"),
        ("ttl", json!("soon"), "spec.ttl"),
        ("uses", json!(-1), "spec.uses"),
        ("lans", json!(["10.0.0.0"]), "spec.lans"),
    ] {
        let mut wrong = order.clone();
        wrong["spec"][field] = value;
        let refused = desk.write(Method::Post, tokens, wrong).unwrap_err();
        assert_eq!((refused.code, refused.causes[0].field.as_str()), (422, expected));
    }
    desk.write(Method::Delete, &format!("{tokens}/{name}"), Value::Null).unwrap();
    assert_eq!(desk.write(Method::Delete, &format!("{tokens}/{name}"), Value::Null).unwrap_err().code, 404);
}

#[test]
fn wireguard_peers_come_and_go_and_their_preshared_key_is_never_shown() {
    let mut desk = Desk::new();
    let gateway =
        bus::WireguardGateway { endpoint: "vpn.example:51820".to_owned(), public_key: WireguardKey([9; 32]) };
    desk.0.handle(Input::Wireguard(gateway), NOW);
    let peers = "/apis/kubebus.io/v1alpha1/wireguardpeers";
    let (public, secret) = (WireguardKey([1; 32]).to_string(), WireguardKey([2; 32]).to_string());
    let peer = json!({"metadata": {"name": "phone"}, "spec": {"publicKey": public, "presharedKey": secret}});
    let made = desk.write(Method::Post, peers, peer.clone()).unwrap();
    assert_eq!(made["spec"], json!({"publicKey": public, "site": "phone", "gateway": "cloud/hub"}));
    assert!(!made.to_string().contains(&secret));
    assert_eq!(desk.write(Method::Post, peers, peer).unwrap_err().reason, "AlreadyExists");
    let other = json!({"metadata": {"name": "other"}, "spec": {"publicKey": "no key"}});
    assert_eq!(desk.write(Method::Post, peers, other).unwrap_err().causes[0].field, "spec.publicKey");
    let gone = desk.write(Method::Delete, &format!("{peers}/phone"), Value::Null).unwrap();
    assert_eq!(gone["metadata"]["name"], "phone");
}

#[test]
fn a_disk_that_refuses_writes_takes_none_and_serves_reads() {
    let mut desk = Desk::new();
    desk.write(Method::Post, DEVICES, device()).unwrap();
    desk.0.handle(Input::Degraded { why: "no space".to_owned() }, NOW);
    let refused = desk.write(Method::Delete, &format!("{DEVICES}/valve"), Value::Null).unwrap_err();
    assert_eq!(refused.code, 507);
    let read = Read::Get { kind: Kind::Device, id: Id::from("default/valve") };
    let (answer, commits) = desk.ask(ApiRequest::Read(read));
    assert!(matches!(answer, ApiAnswer::Found(Found::Item(Some(_)))) && commits.is_empty(), "{answer:?}");
}

#[test]
fn an_edge_that_was_connected_is_told_as_disconnected_by_the_next_process() {
    let mut desk = Desk::new();
    let edge = Name::new("a").unwrap();
    desk.0.tell_of_node(&edge, controller::event::Severity::Normal, "Connected", "its link stands", NOW);
    assert_eq!(controller::event::connected(Layout::Cloud, &desk.0.keyspace), [edge]);
    desk.0.tell_of_restart(Now { wall: UnixMillis(NOW.wall.0 + 1), ..NOW });
    assert_eq!(controller::event::connected(Layout::Cloud, &desk.0.keyspace), []);
}

#[test]
fn who_names_what_the_manifest_wished_before_hears_what_is_in_force() {
    let mut desk = Desk::new();
    let model = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "m"},
        "spec": {"properties": [{"name": "position", "type": "FLOAT", "accessMode": "ReadWrite"}]},
    });
    let models = "/apis/devices.kubeedge.io/v1beta1/namespaces/default/devicemodels";
    desk.write(Method::Post, models, model).unwrap();
    let mut valve = device();
    let wish = |text: &str| json!([{"name": "position", "desired": {"value": text}}]);
    valve["spec"]["deviceModelRef"] = json!({"name": "m"});
    valve["spec"]["properties"] = wish("40");
    desk.write(Method::Post, DEVICES, valve).unwrap();
    let patch = |desk: &mut Desk, text: &str| {
        let patch = json!({"spec": {"properties": wish(text)}});
        desk.written(Method::Patch, &format!("{DEVICES}/valve"), patch).unwrap().1.warnings
    };
    assert_eq!(patch(&mut desk, "40"), [""; 0]);
    let id = "default/valve".parse().unwrap();
    let Cloud { twins, keyspace, .. } = &mut desk.0;
    twins.set_desired(&id, "position", bus::Value::Float(50.0), "ann", keyspace, NOW).unwrap();
    let warned = patch(&mut desk, "40");
    assert!(warned[0].contains("50 is in force (by ann)"), "{warned:?}");
    let operations = json!([{"op": "replace", "path": "/spec/properties/0/desired/value", "value": "40"}]);
    let by_place = |desk: &mut Desk| {
        let (how, valve) = ("application/json-patch+json", format!("{DEVICES}/valve"));
        desk.written_by("admin", how, Method::Patch, &valve, operations.clone()).unwrap().1.warnings
    };
    assert!(by_place(&mut desk)[0].contains("50 is in force (by ann)"));
    let Cloud { twins, keyspace, .. } = &mut desk.0;
    let taken_back = serde_json::from_str(r#"{"position": null}"#).unwrap();
    twins.patch(&id, &taken_back, "ann", keyspace, NOW).unwrap();
    assert!(by_place(&mut desk)[0].contains("nothing is desired any more"));
    assert_eq!(patch(&mut desk, "45"), [""; 0]);
}

const REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";

#[test]
fn users_are_let_in_by_a_request_and_turned_away_by_a_patch() {
    let mut desk = Desk::new();
    let key = std::cell::Cell::new(0);
    desk.0.signer = Box::new(move |request, identity| {
        assert_eq!((request, identity.node.to_string().as_str()), (&[0, 0, 0][..], "user/alice"));
        key.set(key.get() + 1);
        Ok(Signed {
            certificate_der: vec![7],
            public_key: KeyHash([key.get(); 32]),
            serial: vec![1],
            not_after: UnixMillis(9_000_000),
        })
    });
    let users = "/apis/kubebus.io/v1alpha1/users";
    let alice = format!("{users}/alice");
    let user = |spec: Value| json!({"metadata": {"name": "alice"}, "spec": spec});
    for (spec, field) in [
        (json!({"role": "operator"}), "spec.request"),
        (json!({"role": "king", "request": REQUEST}), "spec.role"),
        (
            json!({"role": "operator", "request": REQUEST.replace("CERTIFICATE REQUEST", "PRIVATE KEY")}),
            "spec.request",
        ),
        (json!({"role": "operator", "request": REQUEST, "revoked": true}), "spec.revoked"),
    ] {
        let refused = desk.write(Method::Post, users, user(spec)).unwrap_err();
        assert_eq!((refused.code, refused.causes[0].field.as_str()), (422, field), "{refused:?}");
    }
    let made =
        desk.write(Method::Post, users, user(json!({"role": "operator", "request": REQUEST}))).unwrap();
    assert_eq!(
        made["status"]["certificate"],
        "-----BEGIN CERTIFICATE-----\nBw==\n-----END CERTIFICATE-----\n"
    );
    assert_eq!(made["spec"], json!({"role": "operator"}));
    let twice = desk.write(Method::Post, users, user(json!({"role": "operator", "request": REQUEST})));
    assert_eq!(twice.unwrap_err().reason, "AlreadyExists");
    let row = |desk: &Desk| controller::user::get(&Name::new("alice").unwrap(), &desk.0.keyspace).unwrap();
    desk.write(Method::Patch, &alice, json!({"spec": {"role": "viewer"}})).unwrap();
    assert_eq!((row(&desk).role.as_str(), row(&desk).key.0[0]), ("viewer", 1));
    let gone = desk.write(Method::Patch, &alice, json!({"spec": {"revoked": true}})).unwrap();
    assert!(gone["status"]["revoked"].is_string() && row(&desk).revoked.is_some());
    assert!(gone["status"]["certificate"].is_null(), "shown once");
    let refused = desk.write(Method::Patch, &alice, json!({"spec": {"revoked": null}})).unwrap_err();
    assert_eq!(refused.causes[0].field, "spec.revoked");
    let labelled =
        desk.write(Method::Patch, &alice, json!({"metadata": {"labels": {"a": "b"}}})).unwrap_err();
    assert_eq!(labelled.causes[0].field, "metadata.labels");
    for spec in [json!({"request": REQUEST}), json!({"request": REQUEST, "revoked": true})] {
        let refused = desk.write(Method::Patch, &alice, json!({"spec": spec})).unwrap_err();
        assert_eq!(refused.causes[0].field, "spec.revoked", "he is revoked still");
    }
    desk.write(Method::Patch, &alice, json!({"spec": {"request": REQUEST, "revoked": false}})).unwrap();
    assert_eq!((row(&desk).key.0[0], row(&desk).revoked), (2, None));
    desk.write(Method::Delete, &alice, Value::Null).unwrap();
    assert_eq!(desk.write(Method::Delete, &alice, Value::Null).unwrap_err().code, 404);
}

#[test]
fn another_public_key_rotates_a_wireguard_peer_and_nothing_else_of_it_can_be_changed() {
    let mut desk = Desk::new();
    let gateway =
        bus::WireguardGateway { endpoint: "vpn.example:51820".to_owned(), public_key: WireguardKey([9; 32]) };
    desk.0.handle(Input::Wireguard(gateway), NOW);
    let peers = "/apis/kubebus.io/v1alpha1/wireguardpeers";
    let key = |byte| WireguardKey([byte; 32]).to_string();
    let peer = json!({"metadata": {"name": "phone"}, "spec": {"publicKey": key(1), "presharedKey": key(2)}});
    let made = desk.write(Method::Post, peers, peer).unwrap();
    let phone = format!("{peers}/phone");
    let rotated = desk.write(Method::Patch, &phone, json!({"spec": {"publicKey": key(3)}})).unwrap();
    assert_eq!(rotated["spec"]["publicKey"], json!(key(3)));
    assert_eq!(rotated["status"], made["status"], "its addresses stay");
    let client = wireguard::get(&Name::new("phone").unwrap(), &desk.0.keyspace).unwrap();
    assert_eq!(
        (client.peer.public_key.0[0], client.peer.preshared_key.0[0]),
        (3, 2),
        "the other secret stays"
    );
    let moved = desk.write(Method::Patch, &phone, json!({"spec": {"site": "other"}})).unwrap_err();
    assert_eq!((moved.code, moved.causes[0].field.as_str()), (422, "spec.site"));
    let stale = desk.write(Method::Put, &phone, made).unwrap_err();
    assert_eq!(stale.reason, "Conflict", "who read before it was rotated");
}

impl Desk {
    fn with_edge(edge: &str, site: &str) -> Self {
        let mut desk = Self::new();
        let name = |text: &str| Name::new(text).unwrap();
        let signed = Signed {
            certificate_der: Vec::new(),
            public_key: KeyHash([7; 32]),
            serial: vec![1],
            not_after: UnixMillis(9_000_000),
        };
        let node = NodeRecord::new(name(edge), name(site), TokenId([0; 32]), &signed, NOW.wall);
        nodes::put(&node, &mut desk.0.keyspace);
        // Sealed with the next cycle.
        desk.ask(ApiRequest::Layout);
        desk
    }

    fn get(&mut self, kind: Kind, id: &str) -> Value {
        let read = Read::Get { kind, id: Id::from(id) };
        let (ApiAnswer::Found(Found::Item(Some(item))), _) = self.ask(ApiRequest::Read(read)) else {
            panic!("{id}")
        };
        object::render(kind, item)
    }
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[test]
fn labels_of_edges_and_sites_that_somebody_else_changed_since_are_a_conflict() {
    let mut desk = Desk::with_edge("a", "plant");
    for (kind, path, id) in [(Kind::EdgeNode, "edgenodes", "a"), (Kind::Site, "sites", "plant")] {
        let path = format!("/apis/kubebus.io/v1alpha1/{path}/{id}");
        let first = desk.get(kind, id);
        let mut mine = first.clone();
        mine["metadata"]["labels"] = json!({"tier": "pump"});
        let labelled = desk.write(Method::Put, &path, mine.clone()).unwrap();
        assert_eq!(labelled["metadata"]["labels"], json!({"tier": "pump"}), "{kind:?}");
        let mut late = first;
        late["metadata"]["labels"] = json!({"tier": "office"});
        assert_eq!(desk.write(Method::Put, &path, late.clone()).unwrap_err().code, 409, "{kind:?}");
        // Also once no label is left.
        let mut bare = labelled.clone();
        bare["metadata"]["labels"] = Value::Null;
        let bare = desk.write(Method::Put, &path, bare).unwrap();
        assert_eq!(bare["metadata"].get("labels"), None);
        assert!(version(&bare) > version(&labelled));
        for stale in [late, mine, labelled] {
            assert_eq!(desk.write(Method::Put, &path, stale).unwrap_err().code, 409, "{kind:?}");
        }
        let mut ahead = bare.clone();
        ahead["metadata"]["resourceVersion"] = (version(&bare) + 1000).to_string().into();
        ahead["metadata"]["labels"] = json!({"tier": "mill"});
        let refused = desk.write(Method::Put, &path, ahead).unwrap_err();
        assert!(refused.code == 409 && refused.message.contains("is not known here"), "{refused}");
        let patch = json!({"metadata": {"labels": {"tier": "mill"}}});
        assert_eq!(
            desk.write(Method::Patch, &path, patch).unwrap()["metadata"]["labels"],
            json!({"tier": "mill"})
        );
    }
}

#[test]
fn a_site_without_nodes_goes_with_its_last_label() {
    let mut desk = Desk::new();
    let of = Labelled::Site(Name::new("to-be").unwrap());
    desk.0
        .label(&of, Change { set: [("tier".to_owned(), "pump".to_owned())].into(), remove: Vec::new() })
        .unwrap();
    desk.ask(ApiRequest::Layout);
    let path = "/apis/kubebus.io/v1alpha1/sites/to-be";
    let gone = desk.write(Method::Patch, path, json!({"metadata": {"labels": {"tier": null}}})).unwrap();
    assert_eq!(gone["metadata"]["name"], "to-be");
    assert_eq!(desk.write(Method::Patch, path, json!({})).unwrap_err().code, 404);
}

#[test]
fn a_manifest_that_is_too_long_is_told_its_limit() {
    let mut desk = Desk::new();
    let mut long = device();
    long["spec"]["vendor"] = "x".repeat(resource::MAX_MANIFEST_LEN).into();
    let refused = desk.write(Method::Post, DEVICES, long).unwrap_err();
    assert_eq!((refused.code, refused.reason), (413, "RequestEntityTooLarge"));
    assert!(refused.message.contains("over the limit of 262144"), "{refused}");
    let mut noted = device();
    noted["metadata"]["annotations"] = json!({"note": "x".repeat(resource::MAX_MANIFEST_LEN)});
    let refused = desk.write(Method::Post, DEVICES, noted).unwrap_err();
    assert!(refused.code == 413 && refused.message.starts_with("metadata of "), "{refused}");
}

/// Of a device with as many properties as fit, every write is one walk: squares of them would take minutes.
#[test]
fn a_device_of_thousands_of_properties_is_made_patched_and_applied() {
    const COUNT: usize = 3000;
    let mut desk = Desk::new();
    let name = |n: usize| format!("p{n:04}");
    let properties = |of: &dyn Fn(usize) -> Value| (0..COUNT).map(of).collect::<Value>();
    let model = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "m"},
        "spec": {"properties": properties(&|n| json!({"name": name(n), "type": "INT", "accessMode": "ReadWrite"}))},
    });
    let models = "/apis/devices.kubeedge.io/v1beta1/namespaces/default/devicemodels";
    desk.write(Method::Post, models, model).unwrap();
    let mut large = device();
    large["spec"]["deviceModelRef"] = json!({"name": "m"});
    large["spec"]["properties"] = properties(&|n| json!({"name": name(n), "collectCycle": 100}));
    desk.write(Method::Post, DEVICES, large.clone()).unwrap();
    let path = format!("{DEVICES}/valve");
    large["spec"]["properties"] = properties(&|n| json!({"name": name(n), "collectCycle": 200}));
    let patched = desk.write(Method::Patch, &path, json!({"spec": large["spec"]})).unwrap();
    assert_eq!(patched["spec"]["properties"][COUNT - 1]["collectCycle"], 200);
    assert_eq!(patched["status"]["twins"].as_array().unwrap().len(), COUNT);
    let gone = desk.write(Method::Delete, &path, Value::Null).unwrap();
    assert_eq!(gone["metadata"]["name"], "valve");
}

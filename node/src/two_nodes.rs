//! A cloud and an edge whose disks can refuse, in virtual time: what each may say then, and what is left after a crash.

mod access;
mod checkup;
mod health;
mod history;
mod renewal;
mod wireguard;

use bus::bus::LinkId;
use bus::token::CaHash;
use bus::twin::DeviceId;
use bus::{Identity, JoinToken, KeyHash, Mono, Name, NodeId, Now, Topic, UnixMillis, Value};
use controller::join::{JoinReply, JoinRequest, Signed};
use controller::{CloudSubnets, Cluster, Plan};
use device_twin::{Announcement, Ticket};
use metadata::{Commit, Keyspace, MemoryStore, Store};
use serde_json::{Value as Json, json};

use crate::admin::{AdminError, AdminRequest, AdminResponse, TokenOrder};
use crate::cloud::CloudSettings;
use crate::edge::EdgeSettings;
use crate::seam::{Input, Node, Output};
use crate::{Cloud, Edge};

const NOW: Now = Now { mono: Mono(1), wall: UnixMillis(1) };
const LINK: LinkId = LinkId(1);
const STRANGER: LinkId = LinkId(9);
const DESIRED: &str = "/m/desired/water/junction/setpoint";

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn cloud_id() -> NodeId {
    NodeId::cloud(name("hub"))
}

fn edge_id() -> NodeId {
    NodeId::edge(name("pump-house"))
}

fn new_cloud(keyspace: Keyspace) -> Node {
    let ca = CaHash::of_der(b"ca");
    let plan = Plan::new(Plan::DEFAULT_POOL, &name("water"), &ca).unwrap();
    let endpoints = vec!["cloud.example:10001".to_owned()];
    let cluster = Cluster { name: name("water"), cloud: name("hub"), ca_der: vec![1], endpoints, plan };
    let seed = keyspace.revision().0 + 1;
    let settings = CloudSettings { cluster, subnets: CloudSubnets::default(), ca, seed, term: None };
    let sign = |csr: &[u8], _: &Identity| {
        let public_key = KeyHash::of_spki(csr);
        Ok(Signed { certificate_der: vec![1], public_key, serial: vec![1], not_after: UnixMillis(u64::MAX) })
    };
    Node::Cloud(Box::new(Cloud::new(settings, Box::new(sign), keyspace, NOW).unwrap()))
}

fn new_edge(keyspace: Keyspace) -> Node {
    let identity = Identity { cluster: name("water"), node: edge_id() };
    let seed = keyspace.revision().0 + 100;
    Node::Edge(Box::new(Edge::new(
        EdgeSettings {
            identity,
            cloud: cloud_id(),
            seed,
            direct: true,
            lans: Vec::new(),
            standby: true,
            damaged_stores: Vec::new(),
        },
        keyspace,
        NOW,
    )))
}

/// A node with its disk.
struct Side {
    node: Node,
    start: fn(Keyspace) -> Node,
    store: MemoryStore,
    refuses: bool,
    refused: Vec<Commit>,
    said: Vec<Output>,
}

impl Side {
    fn new(start: fn(Keyspace) -> Node) -> Self {
        let (node, store) = (start(Keyspace::new()), MemoryStore::default());
        Self { node, start, store, refuses: false, refused: Vec::new(), said: Vec::new() }
    }

    fn handle(&mut self, input: Input) {
        self.node.handle(input, NOW);
    }

    fn persist(&mut self, commit: Commit) {
        let revision = commit.revision;
        if self.refuses {
            self.refused.push(commit);
            self.handle(Input::Degraded { why: "no space".to_owned() });
        } else {
            self.store.commit(&[commit]).unwrap();
            self.handle(Input::Persisted(revision));
        }
    }

    /// The disk takes writes again.
    fn mend(&mut self) {
        self.refuses = false;
        let refused = std::mem::take(&mut self.refused);
        let last = refused.last().unwrap().revision;
        self.store.commit(&refused).unwrap();
        self.handle(Input::Persisted(last));
    }

    /// kill -9, and back over a disk that takes writes again.
    fn restart(&mut self) {
        self.refuses = false;
        self.refused.clear();
        self.node = (self.start)(Keyspace::load(self.store.load().unwrap()));
    }

    fn keyspace(&self) -> &Keyspace {
        match &self.node {
            Node::Cloud(cloud) => cloud.keyspace(),
            Node::Edge(edge) => edge.keyspace(),
        }
    }

    fn answers(&self) -> Vec<&AdminResponse> {
        let answer = |output: &'_ Output| matches!(output, Output::Admin { .. });
        let answers = self.said.iter().filter(|output| answer(output));
        answers
            .filter_map(|o| if let Output::Admin { response, .. } = o { Some(response) } else { None })
            .collect()
    }
}

struct Pair {
    cloud: Side,
    edge: Side,
}

impl Pair {
    /// The edge has joined and is linked; it has a junction with a pressure and a setpoint.
    fn new() -> Self {
        let mut pair = Self { cloud: Side::new(new_cloud), edge: Side::new(new_edge) };
        let secret = [1; JoinToken::SECRET_LEN];
        let order = TokenOrder { site: name("plant"), lans: vec![], ttl_seconds: 60, uses: 2 };
        assert!(pair.ask(AdminRequest::CreateToken { order, secret }).is_ok());
        pair.join("pump-house");
        let model = json!({ "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel",
            "metadata": { "name": "sensor", "namespace": "water" },
            "spec": { "properties": [{ "name": "pressure", "type": "FLOAT", "accessMode": "ReadOnly" },
                                     { "name": "setpoint", "type": "FLOAT", "accessMode": "ReadWrite" }] } });
        let device = json!({ "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
            "metadata": { "name": "junction", "namespace": "water" },
            "spec": { "deviceModelRef": { "name": "sensor" }, "nodeName": "pump-house",
                      "protocol": { "protocolName": "virtual" } } });
        for manifest in [model, device] {
            assert!(pair.ask(AdminRequest::Apply { manifest }).is_ok());
        }
        pair.link();
        pair
    }

    fn link(&mut self) {
        let key = KeyHash::of_spki(b"pump-house");
        for side in [&mut self.cloud, &mut self.edge] {
            side.handle(Input::LinkDown { link: LINK });
        }
        self.cloud.handle(Input::LinkUp { link: LINK, peer: edge_id(), key, attempt: None });
        self.edge.handle(Input::LinkUp { link: LINK, peer: cloud_id(), key, attempt: Some(1) });
        self.run();
    }

    /// Until both are silent.
    fn run(&mut self) {
        while step(&mut self.cloud, &mut self.edge) | step(&mut self.edge, &mut self.cloud) {}
    }

    /// What the cloud answers at once.
    fn ask(&mut self, request: AdminRequest) -> AdminResponse {
        self.cloud.said.clear();
        self.cloud.handle(Input::Admin { id: 1, request });
        self.run();
        let [response] = self.cloud.answers()[..] else { panic!("{:?}", self.cloud.said) };
        response.clone()
    }

    fn set(&mut self, value: f64) -> AdminResponse {
        let device: DeviceId = "water/junction".parse().unwrap();
        self.ask(AdminRequest::SetTwin {
            device,
            property: "setpoint".to_owned(),
            value: Value::Float(value),
        })
    }

    fn join(&mut self, node: &str) -> JoinReply {
        let request =
            JoinRequest { secret: vec![1; JoinToken::SECRET_LEN], name: name(node), csr_der: node.into() };
        self.cloud.handle(Input::Join { link: STRANGER, request: request.to_bytes().into() });
        self.run();
        let reply = |output: &Output| {
            let Output::Send { link: STRANGER, frame, .. } = output else { return None };
            JoinReply::from_bytes(&frame.payload).ok()
        };
        self.cloud.said.iter().rev().find_map(reply).unwrap()
    }

    /// An app at the edge reports; what it is answered.
    fn report(&mut self, pressure: u32) -> Vec<Output> {
        self.edge.said.clear();
        let topic = Topic::new("twin/water/junction/report/pressure").unwrap();
        let payload = pressure.to_string().into();
        self.edge.handle(Input::mqtt(Some(Ticket(1)), topic, payload, false));
        self.run();
        let is_answer = |o: &Output| matches!(o, Output::Accept(_) | Output::Reject(..) | Output::Unkept(_));
        let said = std::mem::take(&mut self.edge.said);
        said.into_iter().filter(is_answer).collect()
    }

    /// What the cloud knows of the pressure.
    fn known(&mut self) -> Json {
        let twins = self.ask(AdminRequest::Twins { device: None }).unwrap();
        let pressure = twins.as_array().unwrap().iter().find(|twin| twin["property"] == "pressure");
        pressure.unwrap()["reported"]["value"].clone()
    }

    fn outbox(&mut self) -> Json {
        self.edge.said.clear();
        self.edge.handle(Input::Admin { id: 1, request: AdminRequest::Status });
        self.run();
        let [Ok(status)] = self.edge.answers()[..] else { panic!("{:?}", self.edge.said) };
        status["metadata"]["outbox"].clone()
    }
}

fn step(from: &mut Side, to: &mut Side) -> bool {
    let mut moved = false;
    while let Some(output) = from.node.poll_output() {
        moved = true;
        if let Output::Persist(commit) = output {
            from.persist(commit);
        } else if let Output::Send { link: LINK, frame, .. } = output {
            to.handle(Input::Frame { link: LINK, frame });
        } else {
            from.said.push(output);
        }
    }
    moved
}

#[test]
fn a_wish_that_a_crash_could_undo_reaches_no_edge_before_the_disk_is_back() {
    let mut pair = Pair::new();
    pair.set(1.0).unwrap();
    let first = pair.edge.keyspace().get(DESIRED).cloned();
    assert!(first.is_some());

    pair.cloud.refuses = true;
    assert_eq!(pair.set(2.0), Err(AdminError::Unkept));
    assert_eq!(pair.set(3.0), Err(AdminError::Degraded("no space".to_owned())));
    pair.link();
    assert_eq!(pair.edge.keyspace().get(DESIRED), first.as_ref());

    pair.cloud.mend();
    pair.run();
    assert_ne!(pair.edge.keyspace().get(DESIRED), first.as_ref());
    assert!(pair.set(4.0).is_ok());
}

#[test]
fn a_cloud_whose_disk_refuses_serves_an_edge_that_comes_back() {
    let mut pair = Pair::new();
    pair.cloud.handle(Input::LinkDown { link: LINK });
    pair.set(1.0).unwrap();
    pair.cloud.refuses = true;
    pair.cloud.handle(Input::Degraded { why: "no space".to_owned() });
    pair.link();
    assert!(pair.edge.keyspace().get(DESIRED).is_some());
}

#[test]
fn an_edge_keeps_what_the_cloud_could_not_store_until_it_can() {
    let mut pair = Pair::new();
    pair.cloud.refuses = true;
    assert_eq!(pair.report(4), [Output::Accept(Ticket(1))]);
    assert_eq!((pair.known(), pair.outbox()), (json!(4.0), json!(1)));
    pair.link();
    assert_eq!((pair.known(), pair.outbox()), (json!(4.0), json!(1)));
    pair.cloud.mend();
    pair.run();
    assert_eq!((pair.known(), pair.outbox()), (json!(4.0), json!(0)));
}

#[test]
fn what_a_cloud_took_over_a_dead_disk_it_is_told_again() {
    let mut pair = Pair::new();
    pair.report(3);
    pair.cloud.refuses = true;
    pair.report(4);
    pair.link();
    pair.report(5);
    pair.cloud.restart();
    assert_eq!(pair.known(), json!(3.0));
    pair.link();
    assert_eq!((pair.known(), pair.outbox()), (json!(5.0), json!(0)));
}

#[test]
fn what_an_edge_said_over_a_dead_disk_does_not_hide_what_it_says_later() {
    let mut pair = Pair::new();
    assert_eq!(pair.report(1), [Output::Accept(Ticket(1))]);
    pair.edge.refuses = true;
    for pressure in 2..20 {
        assert_eq!(pair.report(pressure), [Output::Unkept(Ticket(1))]);
        assert_eq!(pair.known(), json!(f64::from(pressure)));
    }
    pair.edge.restart();
    pair.link();
    assert_eq!(pair.known(), json!(1.0));
    assert_eq!(pair.report(30), [Output::Accept(Ticket(1))]);
    assert_eq!(pair.known(), json!(30.0));
}

#[test]
fn an_edge_that_goes_on_over_a_dead_disk_has_all_of_it_when_the_disk_is_back() {
    let mut pair = Pair::new();
    pair.edge.refuses = true;
    for pressure in 2..20 {
        pair.report(pressure);
    }
    pair.set(7.0).unwrap();
    pair.edge.mend();
    pair.run();
    assert_eq!(pair.report(20), [Output::Accept(Ticket(1))]);
    let rows = |keyspace: &Keyspace| {
        keyspace.range("/").map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
    };
    let on_disk = Keyspace::load(pair.edge.store.load().unwrap());
    assert_eq!(rows(&on_disk), rows(pair.edge.keyspace()));
}

#[test]
fn a_cloud_whose_disk_refuses_takes_no_nodes_and_no_wishes_of_apps() {
    let mut pair = Pair::new();
    pair.cloud.refuses = true;
    pair.report(4);
    assert!(matches!(pair.join("late"), JoinReply::Refused { message, .. } if message.contains("no space")));

    pair.cloud.said.clear();
    let topic = Topic::new("twin/water/junction/set/setpoint").unwrap();
    pair.cloud.handle(Input::mqtt(Some(Ticket(2)), topic, "3".into(), false));
    pair.run();
    let [Output::Unkept(Ticket(2)), Output::Publish(Announcement { topic, .. })] = &pair.cloud.said[..]
    else {
        panic!("{:?}", pair.cloud.said)
    };
    assert_eq!(topic.as_str(), "twin/water/junction/result");
    assert!(pair.edge.keyspace().get(DESIRED).is_none());

    pair.cloud.mend();
    pair.run();
    assert!(matches!(pair.join("late"), JoinReply::Welcome(_)));
}

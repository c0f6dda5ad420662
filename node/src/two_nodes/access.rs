//! Access policies on their way from an administrator to the routers of both nodes.

use std::net::IpAddr;
use std::sync::Arc;

use router::Policy;
use router::packet::TCP;
use router::policy::Ruling;

use super::*;
use crate::policy_test::PolicyTest;

const TOLD: &str = "/m/access/default/modbus";

/// The cloud's site may begin to talk Modbus to the plant.
fn modbus() -> Json {
    json!({ "apiVersion": "kubebus.io/v1alpha1", "kind": "AccessPolicy", "metadata": { "name": "modbus" },
            "spec": { "from": [{ "site": "hub" }], "to": [{ "site": "plant" }],
                      "ports": [{ "protocol": "tcp", "port": 502 }] } })
}

fn id() -> DeviceId {
    "modbus".parse().unwrap()
}

/// What its router was told last.
fn policy(side: &Side) -> Arc<Policy> {
    let told =
        |output: &Output| if let Output::Policy(policy) = output { Some(policy.clone()) } else { None };
    side.said.iter().rev().find_map(told).unwrap()
}

/// What its router says about Modbus from the cloud to the edge.
fn ruling(side: &Side) -> Ruling {
    let address = |text: &str| -> IpAddr { text.parse().unwrap() };
    policy(side).explain(address("10.86.0.1"), address("10.86.0.2"), Some(TCP), Some(502)).there
}

fn allowed() -> Ruling {
    Ruling::Rule { name: "default/modbus".to_owned() }
}

fn test(from: &str, to: &str) -> AdminRequest {
    let [from, to] = [from, to].map(str::to_owned);
    AdminRequest::PolicyTest(PolicyTest { from, to, protocol: Some("tcp".to_owned()), port: Some(502) })
}

impl Pair {
    fn apply(&mut self, manifest: Json) -> Json {
        self.ask(AdminRequest::Apply { manifest }).unwrap()
    }

    fn ask_edge(&mut self, request: AdminRequest) -> AdminResponse {
        self.edge.said.clear();
        self.edge.handle(Input::Admin { id: 1, request });
        self.run();
        let [response] = self.edge.answers()[..] else { panic!("{:?}", self.edge.said) };
        response.clone()
    }
}

#[test]
fn two_sites_are_closed_until_a_policy_opens_them_and_again_when_it_is_gone() {
    let mut pair = Pair::new();
    assert_eq!(ruling(&pair.edge), Ruling::NoRule);
    assert_eq!(pair.apply(modbus())["applied"], "created");
    assert_eq!((ruling(&pair.cloud), ruling(&pair.edge)), (allowed(), allowed()));
    assert_eq!(pair.apply(modbus())["applied"], "unchanged");
    pair.ask(AdminRequest::Delete { kind: "accesspolicy".to_owned(), device: id() }).unwrap();
    assert_eq!((ruling(&pair.cloud), ruling(&pair.edge)), (Ruling::NoRule, Ruling::NoRule));
    let gone = pair.ask(AdminRequest::Delete { kind: "accesspolicy".to_owned(), device: id() });
    assert!(matches!(gone, Err(AdminError::NotFound(_))));
}

#[test]
fn an_edge_is_not_told_of_a_policy_that_does_not_lead_to_it() {
    let mut pair = Pair::new();
    let mut manifest = modbus();
    manifest["spec"]["to"] = json!([{ "site": "hub" }]);
    pair.apply(manifest.clone());
    assert_eq!(pair.edge.keyspace().get(TOLD), None);
    manifest["spec"]["to"] = json!([{ "site": "hub" }, { "node": "pump-house" }]);
    assert_eq!(pair.apply(manifest)["applied"], "configured");
    assert!(pair.edge.keyspace().get(TOLD).is_some());
}

#[test]
fn an_edge_enforces_what_it_was_told_after_a_restart_without_its_cloud() {
    let mut pair = Pair::new();
    pair.apply(modbus());
    for side in [&mut pair.cloud, &mut pair.edge] {
        side.handle(Input::LinkDown { link: LINK });
        side.restart();
        side.said.clear();
        side.handle(Input::Timeout);
    }
    pair.run();
    assert_eq!((ruling(&pair.cloud), ruling(&pair.edge)), (allowed(), allowed()));
    let before_table =
        pair.edge.said.iter().find(|o| matches!(o, Output::Policy(_) | Output::Overlay { .. }));
    assert!(matches!(before_table, Some(Output::Policy(_))), "no packet meets a table without its policy");
}

#[test]
fn a_node_that_never_joined_allows_nothing() {
    let (mut edge, mut nobody) = (Side::new(new_edge), Side::new(new_cloud));
    edge.handle(Input::Timeout);
    while step(&mut edge, &mut nobody) {}
    assert_eq!(ruling(&edge), Ruling::Unknown("10.86.0.1".parse().unwrap()));
}

#[test]
fn an_edge_that_joins_again_for_another_site_is_told_of_that_sites_policies() {
    let mut pair = Pair::new();
    pair.apply(modbus());
    let secret = [2; JoinToken::SECRET_LEN];
    let order = TokenOrder { site: name("depot"), lans: vec![], ttl_seconds: 60, uses: 1 };
    pair.ask(AdminRequest::CreateToken { order, secret }).unwrap();
    let request =
        JoinRequest { secret: secret.to_vec(), name: name("pump-house"), csr_der: b"pump-house".to_vec() };
    pair.cloud.handle(Input::Join { link: STRANGER, request: request.to_bytes().into() });
    pair.run();
    assert_eq!(pair.edge.keyspace().get(TOLD), None);
    assert_eq!((ruling(&pair.cloud), ruling(&pair.edge)), (Ruling::NoRule, Ruling::NoRule));
}

#[test]
fn a_policy_about_who_has_not_joined_counts_when_they_have() {
    let mut pair = Pair::new();
    let mut manifest = modbus();
    manifest["spec"]["from"] = json!([{ "node": "late" }]);
    assert_eq!(pair.apply(manifest)["placement"], "nobody has joined yet as edge/late");
    assert!(matches!(pair.join("late"), JoinReply::Welcome(_)));
    let tested = pair.ask(test("late", "pump-house")).unwrap();
    assert_eq!(tested["hub"]["because"], "both are in one site", "its token is the plant's");
}

#[test]
fn the_cloud_says_what_both_places_decide_and_an_edge_what_comes_in() {
    let mut pair = Pair::new();
    let denied = pair.ask(test("hub", "pump-house")).unwrap();
    assert_eq!((&denied["allowed"], &denied["from"]["site"]), (&json!(false), &json!("hub")));
    pair.apply(modbus());
    let tested = pair.ask(test("hub", "pump-house")).unwrap();
    assert_eq!(tested["allowed"], true);
    assert_eq!(tested["hub"]["policy"], "default/modbus");
    assert_eq!(tested["receiver"]["policy"], "default/modbus");
    assert_eq!(tested["receiver"]["node"], "edge/pump-house");
    assert_eq!(tested["back"]["decision"], "deny");
    let at_edge = pair.ask_edge(test("hub", "10.86.0.2")).unwrap();
    assert_eq!((&at_edge["hub"], &at_edge["receiver"]), (&Json::Null, &tested["receiver"]));
    assert_eq!(pair.ask_edge(test("pump-house", "hub")), Err(AdminError::CloudOnly));
}

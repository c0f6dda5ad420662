//! WireGuard clients on their way from an administrator to a gateway edge, and to the routers of both nodes.

use std::net::IpAddr;

use bus::{WireguardGateway, WireguardKey, WireguardPeer};
use router::policy::Ruling;

use super::*;
use crate::policy_test::PolicyTest;
use crate::route_query::RouteQuery;
use crate::wireguard::{WireguardKeys, WireguardOrder};

fn key(byte: u8) -> WireguardKey {
    WireguardKey([byte; 32])
}

fn order(called: &str, byte: u8) -> AdminRequest {
    AdminRequest::AddWireguard(WireguardOrder {
        name: name(called),
        site: None,
        gateway: None,
        public_key: key(byte),
        preshared_key: key(100 + byte),
    })
}

fn remove(called: &str) -> AdminRequest {
    AdminRequest::RemoveWireguard { name: name(called) }
}

/// Whom its gateway was told to let in last.
fn let_in(side: &Side) -> Vec<(String, WireguardKey)> {
    let told =
        |output: &Output| if let Output::Wireguard(clients) = output { Some(clients.clone()) } else { None };
    let clients = side.said.iter().rev().find_map(told).unwrap();
    clients
        .into_iter()
        .map(|WireguardPeer { name, public_key, .. }| (name.as_str().to_owned(), public_key))
        .collect()
}

impl Pair {
    /// The edge is a gateway.
    fn with_gateway() -> Self {
        let mut pair = Self::new();
        let endpoint = "gate.example:51820".to_owned();
        pair.edge.handle(Input::Wireguard(WireguardGateway { public_key: key(200), endpoint }));
        pair.run();
        pair
    }

    fn ask_gateway(&mut self, request: AdminRequest) -> AdminResponse {
        self.edge.said.clear();
        self.edge.handle(Input::Admin { id: 1, request });
        self.run();
        let [response] = self.edge.answers()[..] else { panic!("{:?}", self.edge.said) };
        response.clone()
    }
}

#[test]
fn nobody_is_let_in_before_a_node_is_a_gateway() {
    let mut pair = Pair::new();
    let Err(AdminError::Conflict(told)) = pair.ask(order("phone", 1)) else {
        panic!("no gateway is no conflict")
    };
    assert!(told.starts_with("no node is a WireGuard gateway yet"), "{told}");
}

#[test]
fn a_client_reaches_its_gateway_by_the_sync_and_its_invitation_says_how_it_gets_there() {
    let mut pair = Pair::with_gateway();
    let invited = pair.ask(order("phone", 1)).unwrap();
    assert_eq!((&invited["gateway"], &invited["site"]), (&json!("edge/pump-house"), &json!("phone")));
    assert_eq!(invited["gateway_endpoint"], "gate.example:51820");
    assert_eq!(invited["gateway_key"], json!(key(200)));
    assert_eq!(invited["allowed_ips"].as_array().unwrap().len(), 2, "the two pools: {invited}");
    assert_eq!(let_in(&pair.edge), [("phone".to_owned(), key(1))]);
    assert!(let_in(&pair.cloud).is_empty(), "it is no client of the cloud's");

    let keys = WireguardKeys { public_key: key(2), preshared_key: key(3) };
    pair.ask(AdminRequest::RotateWireguard { name: name("phone"), keys }).unwrap();
    assert_eq!(let_in(&pair.edge), [("phone".to_owned(), key(2))]);
    pair.ask(remove("phone")).unwrap();
    assert!(let_in(&pair.edge).is_empty());
    assert!(matches!(pair.ask(remove("phone")), Err(AdminError::NotFound(_))));
}

#[test]
fn a_gateway_lets_its_clients_in_again_without_the_cloud() {
    let mut pair = Pair::with_gateway();
    pair.ask(order("phone", 1)).unwrap();
    pair.edge.restart();
    pair.edge.said.clear();
    let list = pair.ask_gateway(AdminRequest::ListWireguard).unwrap();
    assert_eq!(let_in(&pair.edge), [("phone".to_owned(), key(1))]);
    let client = &list[crate::wireguard::CLIENTS][0];
    assert_eq!((&client["name"], &client["site"]), (&json!("phone"), &json!("phone")));
    assert!(matches!(pair.ask_gateway(order("tablet", 2)), Err(AdminError::CloudOnly)));
}

#[test]
fn clients_have_names_for_policies_and_routes() {
    let mut pair = Pair::with_gateway();
    pair.ask(order("phone", 1)).unwrap();
    let test = |from: &str, to: &str| {
        let [from, to] = [from, to].map(str::to_owned);
        AdminRequest::PolicyTest(PolicyTest { from, to, protocol: None, port: None })
    };
    assert_eq!(
        pair.ask(test("phone", "pump-house")).unwrap()["allowed"],
        false,
        "its gateway is another site"
    );
    let rule = json!({ "apiVersion": "kubebus.io/v1alpha1", "kind": "AccessPolicy", "metadata": { "name": "in" },
                       "spec": { "from": [{ "node": "phone" }], "to": [{ "node": "pump-house" }] } });
    pair.ask(AdminRequest::Apply { manifest: rule }).unwrap();
    let told = pair.ask(test("phone", "pump-house")).unwrap();
    assert_eq!((&told["allowed"], &told["from"]["client"]), (&json!(true), &json!("phone")));
    assert_eq!(told["receiver"]["node"], "edge/pump-house");
    assert_eq!(pair.ask_gateway(test("phone", "pump-house")).unwrap()["allowed"], true);
    let query = RouteQuery { to: "phone".into(), protocol: None, port: None };
    let found = pair.ask(AdminRequest::Route(query)).unwrap();
    assert_eq!((&found["owner"], &found["peer"]), (&json!("edge/pump-house"), &json!("phone")));
    assert_eq!((&found["kind"], &found["site"]), (&json!("wireguard"), &json!("phone")));
}

#[test]
fn routers_of_both_nodes_know_the_client_before_its_packets_come() {
    let mut pair = Pair::with_gateway();
    let invited = pair.ask(order("phone", 1)).unwrap();
    let phone: IpAddr = invited["addresses"][0].as_str().unwrap().parse().unwrap();
    for side in [&pair.cloud, &pair.edge] {
        let policy =
            side.said.iter().rev().find_map(|output| {
                if let Output::Policy(policy) = output { Some(policy.clone()) } else { None }
            });
        let ruling = policy.unwrap().explain(phone, "10.86.0.1".parse().unwrap(), None, None).there;
        assert_eq!(ruling, Ruling::NoRule, "known, and of another site");
        let last = side.said.iter().rev().find(|o| matches!(o, Output::Policy(_) | Output::Overlay { .. }));
        assert!(matches!(last, Some(Output::Overlay { .. })), "no packet meets a table without its policy");
    }
}

#[test]
fn deleting_a_gateways_node_removes_its_clients_and_their_names_are_free_for_nodes() {
    let mut pair = Pair::with_gateway();
    pair.ask(order("late", 1)).unwrap();
    assert!(
        matches!(pair.join("late"), JoinReply::Refused { message, .. } if message.contains("WireGuard client"))
    );
    pair.ask(AdminRequest::DeleteNode { name: name("pump-house") }).unwrap();
    let list = pair.ask(AdminRequest::ListWireguard).unwrap();
    assert_eq!(list[crate::wireguard::CLIENTS], json!([]));
    assert!(matches!(pair.join("late"), JoinReply::Welcome(_)));
}

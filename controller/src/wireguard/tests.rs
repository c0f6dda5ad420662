use super::*;
use crate::lease::{self, REUSE_AFTER};
use crate::resource::Manifest;
use bus::token::CaHash;
use bus::{Lease, Mono};
use serde_json::json;

const NOW: Now = Now { mono: Mono(0), wall: UnixMillis(1) };

fn later(by: std::time::Duration) -> Now {
    Now { wall: UnixMillis(NOW.wall.0 + u64::try_from(by.as_millis()).unwrap()), ..NOW }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn gate() -> NodeId {
    NodeId::edge(name("gate"))
}

fn key(byte: u8) -> WireguardKey {
    WireguardKey([byte; 32])
}

fn cluster() -> Cluster {
    let water = name("water");
    Cluster {
        plan: Plan::new(Plan::DEFAULT_POOL, &water, &CaHash::of_der(b"ca")).unwrap(),
        name: water,
        cloud: name("hq"),
        ca_der: Vec::new(),
        endpoints: Vec::new(),
    }
}

fn edge(called: &str, at: &str, lan: &str, ks: &mut Keyspace) -> Lease {
    let owner = NodeId::edge(name(called));
    let lease = lease::grant(&cluster().plan, &owner, ks, NOW).unwrap();
    let lan = Route {
        prefix: lan.parse().unwrap(),
        owner: owner.clone(),
        kind: SubnetKind::Lan,
        real: None,
        peer: None,
    };
    route::replace(&owner, &[lan], ks).unwrap();
    site::put(&owner, &name(at), ks);
    lease
}

/// The cloud `hq`, the gateway `gate` at `plant` and `far` at `depot`, both with LANs.
fn keyspace() -> Keyspace {
    let mut ks = Keyspace::new();
    cluster().establish(&crate::CloudSubnets::default(), &mut ks, NOW).unwrap();
    edge("gate", "plant", "192.168.10.0/24", &mut ks);
    edge("far", "depot", "192.168.20.0/24", &mut ks);
    let endpoint = "gate.example:51820".to_owned();
    let told = WireguardGateway { public_key: key(200), endpoint };
    assert!(handle_gateway(&gate(), Some(&told), &mut ks));
    ks
}

fn order(called: &str, byte: u8) -> Order {
    let keys = Keys { public: key(byte), preshared: key(!byte) };
    Order { name: name(called), site: None, gateway: None, keys }
}

fn add_one(called: &str, byte: u8, ks: &mut Keyspace) -> Client {
    add(order(called, byte), &cluster(), ks, NOW).unwrap()
}

fn policy(named: &str, spec: &serde_json::Value, ks: &mut Keyspace) {
    let document = json!({ "apiVersion": "kubebus.io/v1alpha1", "kind": "AccessPolicy",
                           "metadata": { "name": named }, "spec": spec });
    let manifest = Manifest::parse(&document).unwrap();
    manifest.apply(ks);
    access::tell_policy(manifest.id(), ks).unwrap();
}

fn keys_under(prefix: &str, ks: &Keyspace) -> Vec<String> {
    ks.range(prefix).map(|(key, _)| key.as_str().to_owned()).collect()
}

#[test]
fn a_client_has_addresses_routes_by_its_gateway_and_a_site_of_its_own() {
    let mut ks = keyspace();
    let client = add_one("phone", 1, &mut ks);
    assert_eq!((client.gateway.clone(), client.site.as_str()), (gate(), "phone"));
    assert_eq!(client.peer.v4.to_string(), "10.86.32.1");
    let its: Vec<Route> =
        route::list(&ks).unwrap().into_iter().filter(|route| route.peer.is_some()).collect();
    assert!(
        its.iter().all(|route| route.owner == gate() && route.holder() == NodeId::wireguard(name("phone")))
    );
    assert_eq!(its.iter().map(|route| route.prefix).collect::<BTreeSet<_>>(), client.peer.addresses().into());
    assert_eq!(keys_under("/e/gate/wireguard/", &ks), ["/e/gate/wireguard/phone"]);
    assert_eq!(behind(&gate(), &ks).unwrap(), [client.peer]);
    assert_eq!(add_one("plc", 2, &mut ks).peer.v4.to_string(), "10.86.32.2");
}

#[test]
fn no_private_part_of_a_client_is_kept() {
    let mut ks = keyspace();
    let client = add_one("phone", 1, &mut ks);
    let WireguardPeer { name: _, public_key, preshared_key, v4: _, v6: _ } = client.peer;
    assert_eq!((public_key, preshared_key), (key(1), key(!1)), "what was given, and there is no third");
}

#[test]
fn names_and_keys_are_one_clients_alone() {
    let mut ks = keyspace();
    add_one("phone", 1, &mut ks);
    let mut refused = |order| {
        let revision = keys_under("/", &ks);
        let error = add(order, &cluster(), &mut ks, NOW).unwrap_err();
        assert_eq!(keys_under("/", &ks), revision, "nothing is written");
        error
    };
    assert_eq!(refused(order("phone", 2)), ClientError::Exists(name("phone")));
    assert_eq!(refused(order("hq", 2)), ClientError::NameOfNode(name("hq")));
    assert_eq!(refused(order("plant", 2)), ClientError::SiteExists(name("plant")));
    assert_eq!(refused(order("plc", 1)), ClientError::KeyTaken(NodeId::wireguard(name("phone"))));
    assert_eq!(refused(order("plc", 200)), ClientError::KeyTaken(gate()));
    let elsewhere = Order { gateway: Some(NodeId::edge(name("far"))), ..order("plc", 2) };
    assert_eq!(
        refused(elsewhere),
        ClientError::NotAGateway { asked: NodeId::edge(name("far")), known: vec![gate()] }
    );
    let plant = Order { site: Some(name("plant")), ..order("plc", 2) };
    assert_eq!(add(plant, &cluster(), &mut ks, NOW).unwrap().site, name("plant"));
}

#[test]
fn without_gateways_nobody_is_let_in_and_of_several_the_clouds_is_taken() {
    let mut ks = Keyspace::new();
    assert_eq!(add(order("phone", 1), &cluster(), &mut ks, NOW), Err(ClientError::NoGateway));
    let mut ks = keyspace();
    let tell = |node: NodeId, byte, ks: &mut Keyspace| {
        let told = WireguardGateway { public_key: key(byte), endpoint: "x:1".into() };
        assert!(handle_gateway(&node, Some(&told), ks));
    };
    tell(NodeId::edge(name("far")), 201, &mut ks);
    let several = ClientError::WhichGateway(vec![NodeId::edge(name("far")), gate()]);
    assert_eq!(add(order("phone", 1), &cluster(), &mut ks, NOW), Err(several));
    tell(cluster().cloud_id(), 202, &mut ks);
    assert_eq!(add_one("phone", 1, &mut ks).gateway, cluster().cloud_id());
    assert_eq!(keys_under("/e/", &ks).iter().filter(|key| key.contains("wireguard")).count(), 0);
}

#[test]
fn other_keys_leave_all_else_as_it_is() {
    let mut ks = keyspace();
    let before = add_one("phone", 1, &mut ks);
    let keys = Keys { public: key(7), preshared: key(8) };
    let after = rotate(&name("phone"), keys, &mut ks, NOW).unwrap();
    let expected = WireguardPeer { public_key: key(7), preshared_key: key(8), ..before.peer };
    assert_eq!(after.peer, expected);
    assert_eq!(behind(&gate(), &ks).unwrap(), [expected]);
    assert_eq!(rotate(&name("nobody"), keys, &mut ks, NOW), Err(ClientError::Unknown(name("nobody"))));
}

#[test]
fn addresses_of_a_removed_client_are_kept_for_it_and_from_others_for_thirty_days() {
    let mut ks = keyspace();
    let first = add_one("phone", 1, &mut ks);
    remove(&name("phone"), &mut ks, NOW).unwrap();
    assert!(behind(&gate(), &ks).unwrap().is_empty());
    assert_eq!(route::list(&ks).unwrap().iter().filter(|route| route.peer.is_some()).count(), 0);
    assert!(!site::list(site::PREFIX, &ks).contains_key(&NodeId::wireguard(name("phone"))));
    let add_at = |called: &str, byte, now, ks: &mut Keyspace| add(order(called, byte), &cluster(), ks, now);
    let other = add_at("plc", 2, NOW, &mut ks).unwrap();
    assert_ne!(other.peer.v4, first.peer.v4);
    assert_eq!(add_at("phone", 3, NOW, &mut ks).unwrap().peer.v4, first.peer.v4);
    remove(&name("phone"), &mut ks, NOW).unwrap();
    assert_eq!(add_at("tablet", 4, later(REUSE_AFTER), &mut ks).unwrap().peer.v4, first.peer.v4);
}

#[test]
fn no_node_and_no_lan_is_given_a_clients_address() {
    let mut ks = keyspace();
    let client = add_one("phone", 1, &mut ks).peer;
    let held = held(&ks).unwrap();
    assert_eq!(held, client.addresses());
    // In a pool that was widened since, a client lies where a slot would be: that one is left out.
    let narrow = Plan::new("10.87.0.0/17".parse().unwrap(), &name("water"), &CaHash::of_der(b"ca")).unwrap();
    let wide = Plan::new("10.86.0.0/15".parse().unwrap(), &name("water"), &CaHash::of_der(b"ca")).unwrap();
    let mut ks = Keyspace::new();
    let given = addresses::grant(&narrow, &name("old"), &mut ks, NOW).unwrap();
    for index in 0..wide.edges() {
        let owner = NodeId::edge(name(&format!("e{index}")));
        let lease = lease::grant(&wide, &owner, &mut ks, NOW).unwrap();
        assert!(!lease.container_v4.contains(&given.v4) && lease.v4 != given.v4, "{lease:?}");
    }
}

#[test]
fn a_gateway_takes_its_clients_along_and_keeps_them_when_it_joins_again() {
    let mut ks = keyspace();
    add_one("phone", 1, &mut ks);
    route::replace(&gate(), &[], &mut ks).unwrap();
    assert_eq!(route::list(&ks).unwrap().iter().filter(|route| route.peer.is_some()).count(), 2);
    handle_node_gone(&gate(), &mut ks, NOW).unwrap();
    assert_eq!((list(&ks).unwrap(), gateways(&ks)), (vec![], vec![]));
}

#[test]
fn policies_know_a_client_by_its_name_and_its_site_and_not_by_its_gateway() {
    let mut ks = keyspace();
    let plan = cluster().plan;
    let client = Order { site: Some(name("people")), ..order("phone", 1) };
    add(client, &cluster(), &mut ks, NOW).unwrap();
    let pools: BTreeSet<IpNet> = plan.pools().into();
    assert_eq!(allowed_ips(&name("phone"), &plan, &ks).unwrap(), pools, "the gateway's LAN is not its own");
    let depot: IpNet = "192.168.20.0/24".parse().unwrap();
    policy("by-name", &json!({ "from": [{ "node": "phone" }], "to": [{ "site": "depot" }] }), &mut ks);
    let allowed = allowed_ips(&name("phone"), &plan, &ks).unwrap();
    assert_eq!(allowed.difference(&pools).collect::<Vec<_>>(), [&depot]);
    assert_eq!(keys_under("/e/gate/access/", &ks), Vec::<String>::new(), "it does not lead there");
    policy("to-it", &json!({ "from": [{ "site": "depot" }], "to": [{ "site": "people" }] }), &mut ks);
    policy("to-gate", &json!({ "from": [{ "site": "depot" }], "to": [{ "node": "gate" }] }), &mut ks);
    assert_eq!(
        keys_under("/e/gate/access/", &ks),
        ["/e/gate/access/default/to-gate", "/e/gate/access/default/to-it"]
    );
    assert_eq!(keys_under("/e/far/access/", &ks), ["/e/far/access/default/by-name"]);
    assert_eq!(access::waits_for(&"by-name".parse().unwrap(), &ks), Vec::<String>::new());
    remove(&name("phone"), &mut ks, NOW).unwrap();
    assert_eq!(access::waits_for(&"by-name".parse().unwrap(), &ks), ["edge/phone"]);
}

#[test]
fn a_gateway_in_the_clients_own_site_opens_its_lan() {
    let mut ks = keyspace();
    let client = Order { site: Some(name("plant")), ..order("phone", 1) };
    add(client, &cluster(), &mut ks, NOW).unwrap();
    let allowed = allowed_ips(&name("phone"), &cluster().plan, &ks).unwrap();
    assert!(allowed.contains(&"192.168.10.0/24".parse::<IpNet>().unwrap()), "{allowed:?}");
}

#[test]
fn a_pool_that_leaves_clients_outside_is_refused() {
    let mut ks = keyspace();
    add_one("phone", 1, &mut ks);
    assert_eq!(check(&cluster().plan, &ks).unwrap(), None);
    let elsewhere =
        Plan::new("10.99.0.0/16".parse().unwrap(), &name("water"), &CaHash::of_der(b"ca")).unwrap();
    let outside = check(&elsewhere, &ks).unwrap().unwrap();
    assert_eq!((outside.0.as_str(), outside.1.to_string().as_str()), ("phone", "10.86.32.1/32"));
}

#[test]
fn a_gateway_says_where_to_dial_and_nothing_else() {
    let mut ks = keyspace();
    let before = gateway(&gate(), &ks);
    let told = |endpoint: &str| WireguardGateway { public_key: key(1), endpoint: endpoint.to_owned() };
    for text in ["x:1\n[Interface]\nPostUp = true\n[Peer]", "x", ":1", "x:99999", "x y:1", "$(id):1"] {
        assert!(!handle_gateway(&gate(), Some(&told(text)), &mut ks), "{text}");
    }
    assert_eq!(gateway(&gate(), &ks), before);
    assert!(handle_gateway(&gate(), Some(&told("[2001:db8::1]:51820")), &mut ks));
    assert!(handle_gateway(&gate(), None, &mut ks));
    assert_eq!(gateway(&gate(), &ks), None, "it is none any more");
}

//! Who gets in, and who is believed.

use bus::token::CaHash;
use bus::{Class, NodeId};
use router::io::shard::{
    Command, Credentials, CredentialsError, DialError, Expect, Lane, Limits, NoIdentity, ServerRefused,
    ShardConfig, SpawnError, spawn,
};

use crate::cluster::{Ca, Node, connect, frame, identity, loopback, up};
use crate::raw::RawPeer;

fn node(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn expect(text: &str) -> Expect {
    Expect::Node(identity(text))
}

/// In seconds.
const DAY: i64 = 24 * 3600;

/// A node that has no certificate yet.
fn joiner() -> Node {
    Node::start(ShardConfig::new(loopback(), None))
}

fn pinned(ca: &Ca) -> Expect {
    Expect::CaHash(CaHash::of_der(&ca.certificate))
}

#[test]
fn a_server_is_believed_only_as_the_expected_node_of_our_cluster() {
    let ca = Ca::new();
    let mut edge = Node::edge(ca.issue("c/edge/a"));
    let stranger = Node::cloud(Ca::new().issue("c/cloud/hub"));
    let other_cluster = Node::cloud(ca.issue("d/cloud/hub"));
    let other_node = Node::cloud(ca.issue("c/cloud/other"));
    let mut ask = |server: &Node| edge.fail(server.address(), expect("c/cloud/hub"), Lane::Bus);
    assert_eq!(ask(&stranger), DialError::Server(ServerRefused::UnknownCa));
    let (expected, got) = ("c".parse().unwrap(), "d".parse().unwrap());
    assert_eq!(ask(&other_cluster), DialError::Server(ServerRefused::WrongCluster { expected, got }));
    let (expected, got) = (node("cloud/hub"), node("cloud/other"));
    assert_eq!(ask(&other_node), DialError::Server(ServerRefused::WrongNode { expected, got }));
    edge.wait_for(|stats| stats.dials_failed == 3);
}

/// What a hub of cluster c says to a client with these credentials.
fn refusal(ca: &Ca, client: Credentials, lane: Lane) -> String {
    let hub = Node::cloud(ca.issue("c/cloud/hub"));
    let why = RawPeer::connect(hub.address(), lane.alpn(), Some(&client)).closed();
    assert_eq!(hub.shard.stats().links_up, 0);
    why
}

#[test]
fn a_client_gets_in_only_as_a_node_of_the_cluster() {
    let ca = Ca::new();
    let told = refusal(&ca, Ca::new().issue("c/edge/a"), Lane::Bus);
    assert!(told.contains("invalid peer certificate"), "{told}");
    let told = refusal(&ca, ca.issue("d/edge/a"), Lane::Bus);
    assert!(told.contains("the certificate is of cluster d, not c"), "{told}");
    let told = refusal(&ca, ca.issue("c/user/ada"), Lane::Packets);
    assert!(told.contains("user/ada is not a node that makes links"), "{told}");
    for uris in [&["spiffe://c/edge/a", "spiffe://c/edge/b"][..], &[], &["https://c/edge/a"]] {
        let told = refusal(&ca, ca.issue_with_uris("c/edge/a", uris), Lane::Bus);
        assert!(told.contains("the certificate is no node's"), "{uris:?}: {told}");
    }
}

#[test]
fn an_expired_certificate_is_no_certificate() {
    let ca = Ca::new();
    let told = refusal(&ca, ca.issue_expired("c/edge/a"), Lane::Bus);
    assert!(told.contains("certificate expired"), "{told}");
    let stale = Node::cloud(ca.issue_expired("c/cloud/hub"));
    let error = Node::edge(ca.issue("c/edge/a")).fail(stale.address(), expect("c/cloud/hub"), Lane::Bus);
    let DialError::Server(ServerRefused::Certificate(why)) = &error else { panic!("{error}") };
    assert!(why.contains("certificate expired"), "{why}");
}

#[test]
fn a_certificate_that_is_over_gets_a_node_to_the_renewal_and_nowhere_else() {
    let ca = Ca::new();
    let mut hub = Node::cloud(ca.issue("c/cloud/hub"));
    let mut late = Node::edge(ca.issue_until("c/edge/a", -10 * DAY));
    for lane in [Lane::Bus, Lane::Packets] {
        let error = late.fail(hub.address(), expect("c/cloud/hub"), lane);
        assert!(error.is_renewable(), "{error}");
    }
    connect(&mut late, &mut hub, Lane::Renew);
    let told = refusal(&ca, ca.issue_until("c/edge/a", -91 * DAY), Lane::Renew);
    assert!(told.contains("certificate expired 91 days ago"), "{told}");
    // One of another authority, or of no node, has no door at all.
    let told = refusal(&ca, Ca::new().issue_until("c/edge/a", -10 * DAY), Lane::Renew);
    assert!(told.contains("invalid peer certificate"), "{told}");
    let told = refusal(&ca, ca.issue_until("c/user/ada", -10 * DAY), Lane::Renew);
    assert!(told.contains("is not a node that makes links"), "{told}");
    let told = RawPeer::connect(hub.address(), Lane::Renew.alpn(), None).closed();
    assert!(told.contains("this lane needs a certificate"), "{told}");
}

#[test]
fn an_edge_lets_nobody_renew_and_no_neighbour_in_late() {
    let ca = Ca::new();
    let config = ShardConfig { neighbours: true, ..ShardConfig::new(loopback(), Some(ca.issue("c/edge/a"))) };
    let host = Node::start(ShardConfig { limits: Limits::NEIGHBOURS, ..config });
    host.shard.send(Command::Knock { addresses: vec!["127.0.0.1:9".parse().unwrap()] }).unwrap();
    let told = |credentials: &Credentials, lane: Lane| {
        RawPeer::connect(host.address(), lane.alpn(), Some(credentials)).closed()
    };
    let words = told(&ca.issue_until("c/edge/b", -DAY), Lane::Bus);
    assert!(words.contains("certificate expired"), "{words}");
    let words = told(&ca.issue("c/edge/b"), Lane::Renew);
    assert!(words.contains("too many nodes renew at once"), "{words}");
}

#[test]
fn links_end_with_the_certificate_that_made_them_and_new_ones_are_made_with_the_next() {
    let ca = Ca::new();
    let mut hub = Node::cloud(ca.issue("c/cloud/hub"));
    let mut edge = Node::edge(ca.issue_until("c/edge/a", 3));
    connect(&mut edge, &mut hub, Lane::Bus);
    let next = ca.issue("c/edge/a");
    edge.shard.send(Command::SetCredentials(Box::new(next))).unwrap();
    assert_eq!(hub.next_down(), "the certificate that made this link is over");
    assert!(edge.next_down().contains("the certificate that made this link is over"));
    connect(&mut edge, &mut hub, Lane::Bus);
}

#[test]
fn replicas_keep_their_link_over_the_end_of_a_certificate() {
    let ca = Ca::new();
    let mut leads = Node::cloud(ca.issue_until("c/cloud/hub", 2));
    let mut waits = Node::edge(ca.issue_until("c/cloud/hub", 2));
    let (to_leader, _) = connect(&mut waits, &mut leads, Lane::Bus);
    std::thread::sleep(std::time::Duration::from_secs(3));
    waits.send(to_leader, Class::Control, frame("still here"));
    assert_eq!(leads.next_frame(), frame("still here"));
}

#[test]
fn a_hub_shows_its_next_certificate_to_who_dials_from_then_on() {
    let ca = Ca::new();
    let mut hub = Node::cloud(ca.issue_expired("c/cloud/hub"));
    let mut edge = Node::edge(ca.issue("c/edge/a"));
    edge.fail(hub.address(), expect("c/cloud/hub"), Lane::Bus);
    hub.shard.send(Command::SetCredentials(Box::new(ca.issue("c/cloud/hub")))).unwrap();
    connect(&mut edge, &mut hub, Lane::Bus);
}

#[test]
fn a_node_whose_clock_is_behind_connects_and_no_client_brings_its_own_time() {
    let ca = Ca::new();
    let mut hub = Node::cloud(ca.issue_for_year("c/cloud/hub", 2100));
    connect(&mut Node::edge(ca.issue("c/edge/a")), &mut hub, Lane::Bus);
    let told = refusal(&ca, ca.issue_for_year("c/edge/b", 2100), Lane::Bus);
    assert!(told.contains("certificate not valid yet"), "{told}");
}

#[test]
fn a_dialler_learns_in_words_why_it_is_refused_and_is_never_up() {
    let ca = Ca::new();
    let hub = Node::cloud(ca.issue("c/cloud/hub"));
    let mut impostor = Node::edge(Credentials { ca: ca.certificate.clone(), ..Ca::new().issue("c/edge/a") });
    let error = impostor.fail(hub.address(), expect("c/cloud/hub"), Lane::Bus);
    assert!(matches!(&error, DialError::Refused(why) if why.contains("invalid peer certificate")), "{error}");
    assert_eq!(impostor.shard.stats().links_up, 0);
}

#[test]
fn without_a_certificate_there_is_only_the_join_lane() {
    let ca = Ca::new();
    let hub = Node::cloud(ca.issue("c/cloud/hub"));
    for lane in [Lane::Bus, Lane::Packets] {
        let told = RawPeer::connect(hub.address(), lane.alpn(), None).closed();
        assert!(told.contains("this lane needs a certificate"), "{told}");
        assert_eq!(joiner().fail(hub.address(), pinned(&ca), lane), DialError::NoCredentials);
    }
    let told = RawPeer::connect(hub.address(), b"kubebus/2", None).closed();
    assert!(told.contains("any known protocol"), "{told}");
    let told = refusal(&ca, ca.issue("c/edge/a"), Lane::Join);
    assert!(told.contains("has joined already"), "{told}");
}

#[test]
fn a_node_joins_without_a_certificate_by_the_hash_of_the_ca() {
    let ca = Ca::new();
    let mut hub = Node::cloud(ca.issue("c/cloud/hub"));
    let mut joiner = joiner();
    joiner.dial(1, hub.address(), pinned(&ca), Lane::Join);
    let to_hub = up(&mut joiner, Some(1), Some(hub.id()), Lane::Join);
    joiner.send(to_hub, Class::Control, frame("request"));
    let to_joiner = up(&mut hub, None, None, Lane::Join);
    assert_eq!(hub.next_frame(), frame("request"));
    hub.send(to_joiner, Class::Control, frame(vec![7; 4000]));
    assert_eq!(joiner.next_frame(), frame(vec![7; 4000]));
}

#[test]
fn a_joiner_believes_only_a_cloud_under_the_pinned_ca() {
    let ca = Ca::new();
    let mut joiner = joiner();
    let stranger = Node::cloud(Ca::new().issue("c/cloud/hub"));
    assert_eq!(
        joiner.fail(stranger.address(), pinned(&ca), Lane::Join),
        DialError::Server(ServerRefused::CaNotShown)
    );
    // Shows the right CA beside a certificate of its own making.
    let mut credentials = Ca::new().issue("c/cloud/hub");
    credentials.chain.push(ca.certificate.clone());
    let liar = Node::cloud(credentials);
    assert_eq!(
        joiner.fail(liar.address(), pinned(&ca), Lane::Join),
        DialError::Server(ServerRefused::UnknownCa)
    );
    let edge = Node::cloud(ca.issue("c/edge/a"));
    assert_eq!(
        joiner.fail(edge.address(), pinned(&ca), Lane::Join),
        DialError::Server(ServerRefused::NotACloud(node("edge/a")))
    );
}

#[test]
fn only_so_many_join_at_once_and_not_for_long() {
    let ca = Ca::new();
    let limits = Limits { max_joining: 1, ..Limits::default() };
    let config =
        ShardConfig { accept: true, limits, ..ShardConfig::new(loopback(), Some(ca.issue("c/cloud/hub"))) };
    let (mut hub, mut first, mut second) = (Node::start(config), joiner(), joiner());
    first.dial(1, hub.address(), pinned(&ca), Lane::Join);
    up(&mut first, Some(1), Some(hub.id()), Lane::Join);
    let why = "too many nodes join at once: try again".to_owned();
    assert_eq!(second.fail(hub.address(), pinned(&ca), Lane::Join), DialError::Refused(why));
    up(&mut hub, None, None, Lane::Join);
    assert_eq!(hub.next_down(), "joining took too long");
    second.dial(1, hub.address(), pinned(&ca), Lane::Join);
    up(&mut second, Some(1), Some(hub.id()), Lane::Join);
}

#[test]
fn a_node_has_one_place_of_those_that_renew() {
    let ca = Ca::new();
    let limits = Limits { max_renewing: 1, ..Limits::default() };
    let mut hub = hub_with(&ca, limits);
    // Whoever has a former certificate of it: that it is no member is not known here.
    let mut before = Node::edge(ca.issue("c/edge/a"));
    connect(&mut before, &mut hub, Lane::Renew);
    let again = Node::edge(ca.issue("c/edge/a"));
    again.dial(7, hub.address(), expect("c/cloud/hub"), Lane::Renew);
    assert_eq!(hub.next_down(), "replaced by a newer link of the same node");
    up(&mut hub, None, Some(again.id()), Lane::Renew);
    let error = Node::edge(ca.issue("c/edge/b")).fail(hub.address(), expect("c/cloud/hub"), Lane::Renew);
    assert_eq!(error, DialError::Refused("too many nodes renew at once: try again".to_owned()));
}

#[test]
fn credentials_that_do_not_fit_together_start_no_shard() {
    let ca = Ca::new();
    let start = |credentials| {
        let error = spawn(ShardConfig::new(loopback(), Some(credentials))).unwrap_err();
        let SpawnError::Credentials(error) = error else { panic!("{error}") };
        error
    };
    let no_uri = start(ca.issue_with_uris("c/cloud/hub", &[]));
    assert!(matches!(no_uri, CredentialsError::Identity(NoIdentity::NoUri)), "{no_uri}");
    let other = start(Credentials { identity: identity("c/cloud/other"), ..ca.issue("c/cloud/hub") });
    assert!(matches!(other, CredentialsError::OtherNode { .. }), "{other}");
    let other_key = start(Credentials { key: ca.issue("c/cloud/hub").key, ..ca.issue("c/cloud/hub") });
    assert!(matches!(other_key, CredentialsError::Tls(_)), "{other_key}");
}

fn hub_with(ca: &Ca, limits: Limits) -> Node {
    Node::start(ShardConfig {
        accept: true,
        limits,
        ..ShardConfig::new(loopback(), Some(ca.issue("c/cloud/hub")))
    })
}

#[test]
fn under_load_a_stranger_first_proves_its_address() {
    let ca = Ca::new();
    let mut hub = hub_with(&ca, Limits { retry_above: 0, ..Limits::default() });
    connect(&mut Node::edge(ca.issue("c/edge/a")), &mut hub, Lane::Bus);
    hub.wait_for(|stats| stats.retried == 1);
}

#[test]
fn at_its_limit_a_hub_says_that_it_is_busy() {
    let ca = Ca::new();
    let hub = hub_with(&ca, Limits { max_unproven: 0, ..Limits::default() });
    let error = Node::edge(ca.issue("c/edge/a")).fail(hub.address(), expect("c/cloud/hub"), Lane::Bus);
    assert_eq!(error, DialError::Busy);
    assert!(error.retry_after().is_some());
    hub.wait_for(|stats| stats.refused_busy == 1);
}

#[test]
fn proven_nodes_do_not_count_against_strangers() {
    let ca = Ca::new();
    let mut hub = hub_with(&ca, Limits { max_unproven: 1, ..Limits::default() });
    let mut edges = ["c/edge/a", "c/edge/b", "c/edge/d"].map(|name| Node::edge(ca.issue(name)));
    for edge in &mut edges {
        connect(edge, &mut hub, Lane::Bus);
    }
    hub.wait_for(|stats| (stats.links, stats.unproven, stats.refused_busy) == (3, 0, 0));
}

#[test]
fn a_refused_stranger_is_forgotten() {
    let ca = Ca::new();
    let mut hub = hub_with(&ca, Limits { max_unproven: 2, ..Limits::default() });
    for _ in 0..2 {
        RawPeer::connect(hub.address(), Lane::Bus.alpn(), None).closed();
    }
    hub.wait_for(|stats| (stats.unproven, stats.refused) == (0, 2));
    connect(&mut Node::edge(ca.issue("c/edge/a")), &mut hub, Lane::Bus);
}

use super::*;
use crate::plan::Plan;
use crate::site;
use bus::token::CaHash;
use bus::{KeyHash, Mono, UnixMillis};

const NOW: Now = Now { mono: Mono::ZERO, wall: UnixMillis(0) };

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn lan(text: &str) -> Lan {
    text.parse().unwrap()
}

fn cluster() -> Cluster {
    let plan = Plan::new(Plan::DEFAULT_POOL, &name("water"), &CaHash::of_der(b"ca")).unwrap();
    Cluster { name: name("water"), cloud: name("hq"), ca_der: Vec::new(), endpoints: Vec::new(), plan }
}

/// A cloud with an edge that has one LAN by its token.
fn cloud() -> (Cluster, Keyspace) {
    let (cluster, mut ks) = (cluster(), Keyspace::new());
    cluster.establish(&Default::default(), &mut ks, NOW).unwrap();
    add(&cluster, "a", &["192.168.10.0/24"], &mut ks);
    (cluster, ks)
}

fn add(cluster: &Cluster, edge: &str, lans: &[&str], ks: &mut Keyspace) {
    let node = NodeRecord {
        name: name(edge),
        site: name(edge),
        public_key: KeyHash::of_spki(edge.as_bytes()),
        lans: lans.iter().map(|text| lan(text)).collect(),
        joined: NOW.wall,
        serial: vec![1],
        not_after: NOW.wall,
        token: [0; 32],
        next: None,
    };
    lease::grant(&cluster.plan, &node.id(), ks, NOW).unwrap();
    grant(&cluster.plan, node, ks, NOW).unwrap();
}

fn tell(edge: &str, lans: &[&str], ks: &mut Keyspace) -> Vec<Lan> {
    let lans: Vec<Lan> = lans.iter().map(|text| lan(text)).collect();
    handle_told(&name(edge), &encode(&lans), ks)
}

fn lans_of(edge: &str, ks: &Keyspace) -> Vec<String> {
    let routes = route::list(ks).unwrap();
    let lans = routes.iter().filter(|route| route.kind == SubnetKind::Lan && route.owner.name == name(edge));
    lans.map(|route| format!("{} as {}", route.behind(), route.prefix)).collect()
}

#[test]
fn what_the_token_grants_counts_and_the_rest_waits_for_approval() {
    let (cluster, mut ks) = cloud();
    let before = ks.range("/e/a/lease").count();
    assert_eq!(tell("a", &["192.168.10.0/24", "192.168.30.0/24"], &mut ks), [lan("192.168.30.0/24")]);
    assert_eq!(tell("a", &["192.168.10.0/24", "192.168.30.0/24"], &mut ks), [], "that is no news");
    assert_eq!(list(&ks), [(NodeId::edge(name("a")), lan("192.168.30.0/24"))]);
    assert_eq!(lans_of("a", &ks), ["192.168.10.0/24 as 192.168.10.0/24"]);
    approve(&cluster, &name("a"), lan("192.168.30.0/24"), &mut ks, NOW).unwrap();
    assert_eq!(list(&ks), []);
    let both = ["192.168.10.0/24 as 192.168.10.0/24", "192.168.30.0/24 as 192.168.30.0/24"];
    assert_eq!(lans_of("a", &ks), both);
    assert_eq!(ks.range("/e/a/lease").count(), before, "its addresses are the same");
    assert_eq!(route::list(&ks).unwrap().len(), 4 + 4 + 2, "and have their routes");
    revoke(&cluster, &name("a"), lan("192.168.10.0/24"), &mut ks, NOW).unwrap();
    assert_eq!(lans_of("a", &ks), ["192.168.30.0/24 as 192.168.30.0/24"]);
    assert_eq!(pending(&name("a"), &ks), [lan("192.168.10.0/24")]);
    assert_eq!(tell("a", &[], &mut ks), []);
    assert_eq!(list(&ks), [], "it names nothing any more");
}

#[test]
fn what_is_approved_may_clash_and_is_virtual_then() {
    let (cluster, mut ks) = cloud();
    add(&cluster, "b", &[], &mut ks);
    tell("b", &["192.168.10.0/24"], &mut ks);
    approve(&cluster, &name("b"), lan("192.168.10.0/24"), &mut ks, NOW).unwrap();
    assert_eq!(lans_of("a", &ks), ["192.168.10.0/24 as 10.86.64.0/24"]);
    assert_eq!(lans_of("b", &ks), ["192.168.10.0/24 as 10.86.65.0/24"]);
    revoke(&cluster, &name("b"), lan("192.168.10.0/24"), &mut ks, NOW).unwrap();
    approve(&cluster, &name("b"), lan("192.168.10.0/24"), &mut ks, NOW).unwrap();
    assert_eq!(lans_of("b", &ks), ["192.168.10.0/24 as 10.86.65.0/24"], "it was kept");
}

#[test]
fn nothing_else_can_be_approved_and_why_is_told() {
    let (cluster, mut ks) = cloud();
    tell("a", &["192.168.10.128/25", "10.86.0.0/24", "192.168.40.0/24"], &mut ks);
    site::put(&NodeId::edge(name("c")), &name("a"), &mut ks);
    let taken = bus::Route {
        prefix: "192.168.40.0/24".parse().unwrap(),
        owner: NodeId::edge(name("c")),
        kind: SubnetKind::Lan,
        real: None,
        peer: None,
    };
    route::replace(&taken.owner, std::slice::from_ref(&taken), &mut ks).unwrap();
    let before: Vec<_> = ks.rows().collect();
    for (edge, wanted, why) in [
        ("x", "192.168.30.0/24", "no node 'x'"),
        ("a", "192.168.30.0/24", "edge/a does not name 192.168.30.0/24 in its configuration"),
        ("a", "192.168.10.0/24", "edge/a does not name 192.168.10.0/24"),
        ("a", "192.168.10.128/25", "192.168.10.128/25 overlaps 192.168.10.0/24, which edge/a has already"),
        ("a", "10.86.0.0/24", "10.86.0.0/24 overlaps the overlay's own pool"),
        ("a", "192.168.40.0/24", "it cannot be told from other networks: 192.168.40.0/24"),
    ] {
        let error = approve(&cluster, &name(edge), lan(wanted), &mut ks, NOW).unwrap_err().to_string();
        assert!(error.starts_with(why), "{error}");
    }
    let error = revoke(&cluster, &name("a"), lan("192.168.30.0/24"), &mut ks, NOW).unwrap_err();
    assert!(error.to_string().starts_with("edge/a has no right to 192.168.30.0/24"), "{error}");
    assert_eq!(ks.rows().collect::<Vec<_>>(), before, "nothing was written");
}

#[test]
fn strangers_and_nonsense_change_nothing_and_a_list_is_bounded() {
    let (_, mut ks) = cloud();
    assert_eq!(tell("x", &["192.168.30.0/24"], &mut ks), []);
    assert_eq!(handle_told(&name("a"), &[0xff], &mut ks), []);
    assert_eq!(ks.range(PREFIX).count(), 0);
    let many: Vec<Lan> = (0..100).map(|third| lan(&format!("192.168.{third}.0/24"))).collect();
    handle_told(&name("a"), &encode(&many), &mut ks);
    assert!(pending(&name("a"), &ks).len() <= MAX_LANS);
    nodes::remove(&name("a"), &mut ks, NOW).unwrap();
    assert_eq!(ks.range(PREFIX).count(), 0, "with its edge it is gone");
}

use super::*;
use bus::token::CaHash;
use bus::{Mono, UnixMillis};

const NOW: Now = Now { mono: Mono(0), wall: UnixMillis(1) };

fn cluster(pool: &str) -> Cluster {
    let name = Name::new("water").unwrap();
    Cluster {
        plan: Plan::new(pool.parse().unwrap(), &name, &CaHash::of_der(b"ca")).unwrap(),
        name,
        cloud: Name::new("hub").unwrap(),
        ca_der: Vec::new(),
        endpoints: Vec::new(),
    }
}

fn subnets(vms: &[&str], containers: &[&str]) -> CloudSubnets {
    let nets = |texts: &[&str]| texts.iter().map(|net| net.parse().unwrap()).collect();
    CloudSubnets { vms: nets(vms), containers: nets(containers) }
}

fn edge(name: &str) -> NodeId {
    NodeId::edge(Name::new(name).unwrap())
}

/// An edge with a LAN, as a join leaves it.
fn admit(cluster: &Cluster, name: &str, lan: &str, ks: &mut Keyspace) -> Lease {
    let owner = edge(name);
    let lease = lease::grant(&cluster.plan, &owner, ks, NOW).unwrap();
    let lan = Route {
        prefix: lan.parse().unwrap(),
        owner: owner.clone(),
        kind: SubnetKind::Lan,
        real: None,
        peer: None,
    };
    let own = lease_routes(&lease, &owner, (SubnetKind::EdgeNode, SubnetKind::EdgeContainer));
    route::replace(&owner, &[own, vec![lan]].concat(), ks).unwrap();
    lease
}

fn shown(ks: &Keyspace) -> Vec<String> {
    let routes = route::list(ks).unwrap();
    let v4 = routes.into_iter().filter(|route| matches!(route.prefix, IpNet::V4(_)));
    v4.map(|route| format!("{} {} {:?}", route.prefix, route.owner, route.kind)).collect()
}

#[test]
fn the_cloud_takes_the_first_slot_and_announces_its_subnets() {
    let mut ks = Keyspace::new();
    let own = subnets(&["172.31.0.0/16"], &["10.42.0.0/16"]);
    let lease = cluster("10.86.0.0/16").establish(&own, &mut ks, NOW).unwrap();
    assert_eq!(lease.v4.to_string(), "10.86.0.1");
    assert_eq!(
        shown(&ks),
        [
            "10.42.0.0/16 cloud/hub CloudContainer",
            "10.86.0.1/32 cloud/hub CloudVm",
            "10.86.128.0/24 cloud/hub CloudContainer",
            "172.31.0.0/16 cloud/hub CloudVm",
        ]
    );
    assert_eq!(ks.range("/e/").count(), 0);
}

#[test]
fn a_second_start_writes_nothing_and_a_changed_subnet_takes_the_place_of_the_old() {
    let mut ks = Keyspace::new();
    let cluster = cluster("10.86.0.0/16");
    cluster.establish(&subnets(&["172.31.0.0/16"], &[]), &mut ks, NOW).unwrap();
    ks.seal();
    cluster.establish(&subnets(&["172.31.0.0/16"], &[]), &mut ks, NOW).unwrap();
    assert_eq!(ks.seal(), None);
    cluster.establish(&subnets(&["172.30.0.0/16"], &[]), &mut ks, NOW).unwrap();
    let written = ks.seal().unwrap().writes;
    let keys: Vec<(&str, bool)> = written.iter().map(|w| (w.key.as_str(), w.value.is_some())).collect();
    assert_eq!(keys, [("/all/route/172.30.0.0_16", true), ("/all/route/172.31.0.0_16", false)]);
}

#[test]
fn a_wider_pool_keeps_every_lease_and_gives_new_nodes_room() {
    let mut ks = Keyspace::new();
    let narrow = cluster("10.86.4.0/22");
    let cloud = narrow.establish(&CloudSubnets::default(), &mut ks, NOW).unwrap();
    let first = admit(&narrow, "a", "192.168.1.0/24", &mut ks);
    assert!(lease::grant(&narrow.plan, &edge("b"), &mut ks, NOW).is_err());

    let wide = cluster("10.86.0.0/20");
    let again = wide.establish(&CloudSubnets::default(), &mut ks, NOW).unwrap();
    assert_eq!(again, Lease { pool_v4: wide.plan.v4(), ..cloud });
    let told: Lease = minicbor::decode(ks.get("/e/a/lease").unwrap()).unwrap();
    assert_eq!(told, Lease { pool_v4: wide.plan.v4(), ..first });
    // Eight slots; the cloud and edge a hold other IPv4 addresses than the wider plan has for theirs, and the same IPv6.
    let new = ["b", "c", "d", "e", "f", "g"].map(|name| lease::grant(&wide.plan, &edge(name), &mut ks, NOW));
    let records = lease::records(&ks).unwrap();
    for (n, one) in records.iter().enumerate() {
        for other in &records[n + 1..] {
            for (a, b) in prefixes(&one.lease).iter().flat_map(|a| prefixes(&other.lease).map(|b| (*a, b))) {
                assert!(!overlap(&a, &b), "{a} of {} and {b} of {}", one.owner, other.owner);
            }
        }
    }
    assert_eq!(new.iter().filter(|lease| lease.is_ok()).count(), 6);
}

#[test]
fn a_plan_that_does_not_fit_the_store_is_refused_and_writes_nothing() {
    let mut ks = Keyspace::new();
    let old = cluster("10.86.0.0/16");
    old.establish(&CloudSubnets::default(), &mut ks, NOW).unwrap();
    admit(&old, "a", "192.168.10.0/24", &mut ks);
    ks.seal();
    for (pool, own, expected) in [
        (
            "10.87.0.0/16",
            subnets(&[], &[]),
            "cloud/hub holds 10.86.0.1/32, outside the pool 10.87.0.0/16; a new pool must contain the old one",
        ),
        (
            "10.86.0.0/16",
            subnets(&["10.86.200.0/24"], &[]),
            "the cloud's subnet 10.86.200.0/24 overlaps the overlay's pool 10.86.0.0/16",
        ),
        (
            "10.86.0.0/16",
            subnets(&[], &["192.168.0.0/16"]),
            "the cloud's subnet 192.168.0.0/16 overlaps 192.168.10.0/24, which lies behind edge/a",
        ),
        (
            "10.86.0.0/16",
            subnets(&["172.31.0.0/16"], &["172.31.5.0/24"]),
            "the cloud's subnets 172.31.0.0/16 and 172.31.5.0/24 overlap",
        ),
        ("10.86.0.0/16", subnets(&["127.0.0.0/8"], &[]), "the cloud's subnet 127.0.0.0/8 cannot be routed"),
    ] {
        let error = cluster(pool).establish(&own, &mut ks, NOW).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(ks.seal(), None);
    }
}

#[test]
fn a_pool_cannot_grow_over_a_lan() {
    let mut ks = Keyspace::new();
    let old = cluster("10.86.0.0/16");
    old.establish(&CloudSubnets::default(), &mut ks, NOW).unwrap();
    admit(&old, "a", "10.87.1.0/24", &mut ks);
    let error = cluster("10.86.0.0/15").establish(&CloudSubnets::default(), &mut ks, NOW).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the pool 10.86.0.0/15 overlaps 10.87.1.0/24, which lies behind edge/a; choose another pool or remove that \
         node"
    );
}

#[test]
fn a_damaged_record_stops_the_start_instead_of_being_skipped() {
    let mut ks = Keyspace::new();
    let cluster = cluster("10.86.0.0/16");
    ks.put(metadata::Key::new("/c/lease/edge/a").unwrap(), bytes::Bytes::from_static(b"\xff"));
    let error = cluster.establish(&CloudSubnets::default(), &mut ks, NOW).unwrap_err();
    assert!(error.to_string().starts_with("the record /c/lease/edge/a cannot be read"), "{error}");
}

use super::*;
use bus::Name;
use bus::token::CaHash;
use bus::{Mono, UnixMillis};
use metadata::{MemoryStore, Store};

const DAY: u64 = 24 * 3_600_000;

fn after(days: u64) -> Now {
    Now { mono: Mono::ZERO, wall: UnixMillis(days * DAY) }
}

fn plan() -> Plan {
    Plan::new(Plan::DEFAULT_POOL, &Name::new("water").unwrap(), &CaHash::of_der(b"ca")).unwrap()
}

fn edge(name: &str) -> NodeId {
    NodeId::edge(Name::new(name).unwrap())
}

/// An edge joins in a site of its own.
fn come(name: &str, lans: &[&str], ks: &mut Keyspace) -> Result<(), String> {
    come_to(name, name, lans, ks)
}

fn come_to(name: &str, at: &str, lans: &[&str], ks: &mut Keyspace) -> Result<(), String> {
    come_on(after(0), (name, at), lans, ks)
}

/// Settles and keeps it, as a join does.
fn come_on(now: Now, (name, at): (&str, &str), lans: &[&str], ks: &mut Keyspace) -> Result<(), String> {
    let lans: Vec<Lan> = lans.iter().map(|lan| lan.parse().unwrap()).collect();
    let at = Name::new(at).unwrap();
    let settled = settle(&lans, (&edge(name), &at), &plan(), ks, now).map_err(|error| error.to_string())?;
    retired::update(&edge(name), &settled.lans, ks, now).unwrap();
    route::replace(&edge(name), &settled.lans, ks).unwrap();
    site::put(&edge(name), &at, ks);
    settled.renumbered.iter().for_each(|route| route::renumber(route, ks));
    Ok(())
}

fn known(ks: &Keyspace) -> Vec<String> {
    let mut shown: Vec<String> = route::list(ks)
        .unwrap()
        .into_iter()
        .map(|route| format!("{} {} {}", route.owner.name, route.behind(), route.prefix))
        .collect();
    shown.sort();
    shown
}

#[test]
fn lans_that_clash_with_nobody_stay_as_they_are() {
    let mut ks = Keyspace::new();
    come("a", &["192.168.10.0/24", "fd10::/64"], &mut ks).unwrap();
    come("b", &["192.168.11.0/24"], &mut ks).unwrap();
    come("a", &["192.168.10.0/24"], &mut ks).unwrap();
    assert_eq!(known(&ks), ["a 192.168.10.0/24 192.168.10.0/24", "b 192.168.11.0/24 192.168.11.0/24"]);
}

#[test]
fn on_a_clash_every_lan_concerned_is_virtual_and_keeps_its_prefix() {
    let mut ks = Keyspace::new();
    come("a", &["192.168.10.0/24"], &mut ks).unwrap();
    come("b", &["192.168.10.0/24", "192.168.20.0/24"], &mut ks).unwrap();
    let both = [
        "a 192.168.10.0/24 10.86.64.0/24",
        "b 192.168.10.0/24 10.86.65.0/24",
        "b 192.168.20.0/24 192.168.20.0/24",
    ];
    assert_eq!(known(&ks), both);
    // Again, in the other order, and after a restart.
    let mut disk = MemoryStore::default();
    disk.commit(ks.seal().as_slice()).unwrap();
    let mut ks = Keyspace::load(disk.load().unwrap());
    come("b", &["192.168.20.0/24", "192.168.10.0/24"], &mut ks).unwrap();
    come("a", &["192.168.10.0/24"], &mut ks).unwrap();
    assert_eq!(known(&ks), both);
}

fn go(name: &str, now: Now, ks: &mut Keyspace) {
    retired::update(&edge(name), &[], ks, now).unwrap();
    route::replace(&edge(name), &[], ks).unwrap();
    site::remove(&edge(name), ks);
}

#[test]
fn a_virtual_prefix_outlives_the_clash_and_waits_for_its_edge_for_thirty_days() {
    let mut ks = Keyspace::new();
    come("a", &["192.168.10.0/24"], &mut ks).unwrap();
    come("b", &["192.168.10.0/24"], &mut ks).unwrap();
    go("a", after(1), &mut ks);
    come("b", &["192.168.10.0/24"], &mut ks).unwrap();
    assert_eq!(known(&ks), ["b 192.168.10.0/24 10.86.65.0/24"]);
    come_on(after(30), ("c", "c"), &["192.168.10.0/24"], &mut ks).unwrap();
    assert_eq!(known(&ks)[1], "c 192.168.10.0/24 10.86.66.0/24", "another one is given out");
    go("c", after(30), &mut ks);
    come_on(after(30), ("a", "a"), &["192.168.10.0/24"], &mut ks).unwrap();
    assert_eq!(known(&ks)[0], "a 192.168.10.0/24 10.86.64.0/24", "its own is given back");
    assert_eq!(ks.range(retired::PREFIX).count(), 1, "and that of c is kept");
    go("a", after(40), &mut ks);
    come_on(after(60), ("d", "d"), &["192.168.10.0/24"], &mut ks).unwrap();
    assert_eq!(known(&ks)[1], "d 192.168.10.0/24 10.86.66.0/24", "that of c is free");
    go("d", after(60), &mut ks);
    come_on(after(70), ("e", "e"), &["192.168.10.0/24"], &mut ks).unwrap();
    assert_eq!(known(&ks)[1], "e 192.168.10.0/24 10.86.64.0/24", "that of a is free");
}

#[test]
fn a_free_prefix_is_given_to_lans_of_other_lengths() {
    let mut ks = Keyspace::new();
    come("b", &["192.168.10.0/24"], &mut ks).unwrap();
    come("a", &["192.168.10.0/24"], &mut ks).unwrap();
    route::replace(&edge("b"), &[], &mut ks).unwrap();
    come("c", &["192.168.0.0/16"], &mut ks).unwrap_err();
    come("c", &["192.168.8.0/22"], &mut ks).unwrap();
    come("d", &["192.168.10.128/25"], &mut ks).unwrap();
    let now = [
        "a 192.168.10.0/24 10.86.65.0/24",
        "c 192.168.8.0/22 10.86.68.0/22",
        "d 192.168.10.128/25 10.86.64.0/25",
    ];
    assert_eq!(known(&ks), now);
}

#[test]
fn a_wider_lan_renumbers_each_that_lies_in_it_and_ipv6_has_its_own_pool() {
    let mut ks = Keyspace::new();
    come("a", &["172.16.1.0/24", "fd10::/64"], &mut ks).unwrap();
    come("b", &["172.16.2.0/24"], &mut ks).unwrap();
    come("c", &["172.16.0.0/22", "fd10::/56"], &mut ks).unwrap();
    let v6 = plan().v6().network().to_string();
    let v6 = v6.trim_end_matches("::");
    assert_eq!(
        known(&ks),
        [
            "a 172.16.1.0/24 10.86.64.0/24".to_owned(),
            format!("a fd10::/64 {v6}:c000::/64"),
            "b 172.16.2.0/24 10.86.65.0/24".to_owned(),
            "c 172.16.0.0/22 10.86.68.0/22".to_owned(),
            format!("c fd10::/56 {v6}:c100::/56"),
        ]
    );
}

#[test]
fn what_is_no_lan_and_what_has_no_room_is_refused_with_what_to_do() {
    let mut ks = Keyspace::new();
    let vms = Route {
        prefix: "172.31.0.0/16".parse().unwrap(),
        owner: NodeId::cloud(Name::new("hub").unwrap()),
        kind: SubnetKind::CloudVm,
        real: None,
        peer: None,
    };
    route::replace(&vms.owner, std::slice::from_ref(&vms), &mut ks).unwrap();
    come("a", &["192.168.10.0/24"], &mut ks).unwrap();
    for (lan, why) in [
        (
            "172.31.5.0/24",
            "172.31.5.0/24 of this token overlaps 172.31.0.0/16, which lies behind cloud/hub; renumber one of them, or \
             create a token without it",
        ),
        (
            "192.168.0.0/17",
            "192.168.0.0/17 of this token overlaps 192.168.10.0/24, which lies behind edge/a, and 10.86.64.0/18, where \
             both would get virtual prefixes, has no room for 192.168.0.0/17; create tokens for smaller parts of that \
             network, or start the cloud with a wider pool",
        ),
    ] {
        assert_eq!(come("b", &[lan], &mut ks).unwrap_err(), why);
    }
    assert_eq!(
        come_to("b", "a", &["192.168.10.0/25"], &mut ks).unwrap_err(),
        "192.168.10.0/25 of this token overlaps 192.168.10.0/24, which lies behind edge/a; renumber one of them, or \
         create a token without it",
        "it is the same site's"
    );
}

#[test]
fn what_becomes_of_the_lans_of_a_token_is_told_before_somebody_joins() {
    let mut ks = Keyspace::new();
    come("a", &["192.168.10.0/24"], &mut ks).unwrap();
    let told = |lan: &str, site: &str, ks: &Keyspace| {
        forecast(&[lan.parse().unwrap()], &Name::new(site).unwrap(), ks).unwrap()
    };
    assert_eq!(told("192.168.11.0/24", "b", &ks), [""; 0]);
    assert_eq!(
        told("192.168.10.128/25", "b", &ks),
        [
            "192.168.10.128/25 overlaps 192.168.10.0/24, which lies behind edge/a of another site: both will be known by \
          virtual prefixes from when an edge joins, and by these no more"
        ]
    );
    assert_eq!(
        told("192.168.10.0/24", "a", &ks),
        [
            "192.168.10.0/24 overlaps 192.168.10.0/24, which lies behind edge/a of the same site: only edge/a can join with \
          this token"
        ]
    );
    come("b", &["192.168.10.0/24"], &mut ks).unwrap();
    assert_eq!(
        told("192.168.10.0/24", "c", &ks),
        [
            "192.168.10.0/24 overlaps 192.168.10.0/24, which lies behind edge/a and is known by a virtual prefix: so will \
          this one be, from when an edge joins"
        ]
    );
}

//! Joins against a signer that takes any request at its word: a request is the key's name as text. The real
//! authority is tested with `io::ca`, and both together there.

use super::*;
use crate::plan::Plan;
use crate::token::TokenSpec;
use bus::token::CaHash;
use bus::{Lease, Mono, UnixMillis};
use metadata::{MemoryStore, Store};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const DAY: u64 = 24 * 3_600_000;
const HOUR: u64 = 3_600_000;

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * 1000), wall: UnixMillis(1_000_000 + ms) }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn edge(text: &str) -> NodeId {
    NodeId::edge(name(text))
}

fn sign(csr: &[u8], identity: &Identity) -> Result<Signed, CsrError> {
    match csr {
        b"garbage" => Err(CsrError::Malformed),
        b"forged" => Err(CsrError::Unproven),
        b"rsa" => Err(CsrError::KeyKind),
        b"broken authority" => Err(CsrError::Authority("no entropy".into())),
        key => Ok(Signed {
            certificate_der: [identity.to_string().as_bytes(), b" ", key].concat(),
            public_key: KeyHash::of_spki(key),
            serial: vec![7],
            not_after: UnixMillis(9),
        }),
    }
}

/// A cloud with its keyspace; each test's time is its own.
struct Cloud {
    cluster: Cluster,
    ks: Keyspace,
}

impl Cloud {
    fn new(pool: &str) -> Self {
        let plan = Plan::new(pool.parse().unwrap(), &name("water"), &CaHash::of_der(b"ca")).unwrap();
        let cluster = Cluster {
            name: name("water"),
            cloud: name("hub"),
            ca_der: b"ca".to_vec(),
            endpoints: vec!["hub.example:10001".to_owned()],
            plan,
        };
        let mut ks = Keyspace::new();
        cluster.establish(&Default::default(), &mut ks, at(0)).unwrap();
        Self { cluster, ks }
    }

    fn token(&mut self, secret: u8, spec: &TokenSpec, now: Now) -> Token {
        token::create(spec, &[secret; 20], &self.cluster.plan, &mut self.ks, now).unwrap()
    }

    fn join(&mut self, secret: &[u8], node: &str, key: &str, now: Now) -> JoinReply {
        let request =
            JoinRequest { secret: secret.to_vec(), name: name(node), csr_der: key.as_bytes().to_vec() };
        self.say(&request.to_bytes(), now)
    }

    fn say(&mut self, request: &[u8], now: Now) -> JoinReply {
        let reply = handle_join(&self.cluster, request, &mut self.ks, now, &mut sign);
        JoinReply::from_bytes(&reply).unwrap()
    }

    fn lease(&self, node: &str) -> Option<Lease> {
        lease::of(&edge(node), &self.ks).unwrap()
    }

    fn routes_of(&self, node: &NodeId) -> Vec<(String, SubnetKind)> {
        let routes = route::list(&self.ks).unwrap().into_iter().filter(|route| route.owner == *node);
        routes.map(|route| (route.prefix.to_string(), route.kind)).collect()
    }
}

fn site(text: &str) -> TokenSpec {
    TokenSpec::for_site(name(text))
}

fn with_lan(lan: &str) -> TokenSpec {
    TokenSpec { lans: vec![lan.parse().unwrap()], ..site("site-a") }
}

fn refusal(reply: JoinReply) -> (RefusalCode, String) {
    let JoinReply::Refused { code, message } = reply else { panic!("{reply:?}") };
    (code, message)
}

fn welcomed(node: &str, key: &str) -> JoinReply {
    JoinReply::Welcome(Welcome {
        cluster: name("water"),
        cloud: name("hub"),
        certificate_der: format!("spiffe://water/edge/{node} {key}").into_bytes(),
        ca_der: b"ca".to_vec(),
        endpoints: vec!["hub.example:10001".to_owned()],
        lans: Vec::new(),
    })
}

fn lan_of(node: &str, prefix: &str, real: Option<&str>) -> Route {
    let real = real.map(|real| real.parse().unwrap());
    Route { prefix: prefix.parse().unwrap(), owner: edge(node), kind: SubnetKind::Lan, real, peer: None }
}

/// The same with what lies behind the node.
fn welcomed_with(node: &str, key: &str, lan: Route) -> JoinReply {
    let JoinReply::Welcome(welcome) = welcomed(node, key) else { unreachable!() };
    JoinReply::Welcome(Welcome { lans: vec![lan], ..welcome })
}

#[test]
fn a_join_writes_node_lease_routes_and_token_in_one_commit() {
    let mut cloud = Cloud::new("10.86.0.0/16");
    let token = cloud.token(1, &with_lan("192.168.10.0/24"), at(0));
    cloud.ks.seal();
    let lan = lan_of("pump-house", "192.168.10.0/24", None);
    assert_eq!(cloud.join(&[1; 20], "pump-house", "k1", at(5)), welcomed_with("pump-house", "k1", lan));

    let commit = cloud.ks.seal().unwrap();
    let v6 = cloud.cluster.plan.v6().network().to_string().trim_end_matches("::").replace(':', "-");
    let keys: BTreeSet<String> = commit.writes.iter().map(|write| write.key.to_string()).collect();
    let expected = [
        format!("/c/token/{}", token.id()),
        "/c/node/pump-house".to_owned(),
        "/c/lease/edge/pump-house".to_owned(),
        "/e/pump-house/lease".to_owned(),
        "/all/site/edge/pump-house".to_owned(),
        "/all/route/10.86.0.2_32".to_owned(),
        "/all/route/10.86.129.0_24".to_owned(),
        "/all/route/192.168.10.0_24".to_owned(),
        format!("/all/route/{v6}--2_128"),
        format!("/all/route/{v6}-2--_64"),
    ];
    assert_eq!(keys, BTreeSet::from(expected));

    let told: Lease = minicbor::decode(cloud.ks.get("/e/pump-house/lease").unwrap()).unwrap();
    assert_eq!(Some(told), cloud.lease("pump-house"));
    let record = nodes::get(&name("pump-house"), &cloud.ks).unwrap().unwrap();
    let expected = NodeRecord {
        name: name("pump-house"),
        site: name("site-a"),
        public_key: KeyHash::of_spki(b"k1"),
        lans: vec!["192.168.10.0/24".parse().unwrap()],
        joined: at(5).wall,
        serial: vec![7],
        not_after: UnixMillis(9),
        token: token.id().0,
        next: None,
    };
    assert_eq!(record, expected);
    assert_eq!(token::list(&cloud.ks).unwrap()[0].used_by, [name("pump-house")]);
}

/// One cluster with every reason to say no, and what each of them says.
#[test]
fn each_refusal_has_its_code_says_what_to_do_and_writes_nothing() {
    let mut cloud = Cloud::new("10.86.0.0/22");
    cloud.token(1, &with_lan("192.168.10.0/24"), at(0));
    cloud.join(&[1; 20], "pump-house", "k1", at(0));
    cloud.token(2, &site("site-b"), at(2 * HOUR));
    cloud.token(3, &with_lan("192.168.0.0/16"), at(2 * HOUR));
    cloud.token(4, &TokenSpec { ttl: Duration::from_secs(1), ..site("site-c") }, at(0));
    cloud.ks.seal();
    let now = at(3 * HOUR);
    let request = |secret: &[u8], node: &str, key: &str| {
        JoinRequest { secret: secret.to_vec(), name: name(node), csr_der: key.as_bytes().to_vec() }.to_bytes()
    };
    let bad_name = minicbor::to_vec(([0u8; 3], "Not A Name", [0u8; 3])).unwrap();
    let used =
        "this token was used by edge/pump-house; create another with 'kubebus token create --site site-a'";
    let table: [(Vec<u8>, RefusalCode, &str); 14] = [
        (b"\xffgarbage".to_vec(), RefusalCode::Malformed, "use the same version of kubebus at both ends"),
        (bad_name, RefusalCode::Malformed, "the join request cannot be read"),
        (vec![0; MAX_REQUEST_LEN + 1], RefusalCode::Malformed, "message of 8193 bytes is over the limit"),
        (
            request(b"short", "b", "k2"),
            RefusalCode::Malformed,
            "copy the token whole from 'kubebus token create'",
        ),
        (
            request(&[9; 20], "b", "k2"),
            RefusalCode::UnknownToken,
            "this token is not known to cluster water; create one with 'kubebus token create --site <site>'",
        ),
        (
            request(&[4; 20], "b", "k2"),
            RefusalCode::Expired,
            "this token expired 2h 59m 59s ago; create another with 'kubebus token create --site site-c'",
        ),
        (request(&[1; 20], "b", "k2"), RefusalCode::Used, used),
        (request(&[1; 20], "pump-house", "k2"), RefusalCode::Used, used),
        (
            request(&[2; 20], "pump-house", "k2"),
            RefusalCode::NameTaken,
            "the name pump-house belongs to another key; join with another --name, or remove the old node with \
             'kubebus delete node pump-house'",
        ),
        (request(&[2; 20], "b", "garbage"), RefusalCode::InvalidCsr, "not a PKCS#10 request"),
        (request(&[2; 20], "b", "forged"), RefusalCode::InvalidCsr, "not signed with its own key"),
        (request(&[2; 20], "b", "broken authority"), RefusalCode::Internal, "the cluster's authority failed"),
        (
            request(&[3; 20], "b", "k2"),
            RefusalCode::LanClash,
            "192.168.0.0/16 of this token overlaps 192.168.10.0/24, which lies behind edge/pump-house; renumber one \
             of them, or create a token without it",
        ),
        (
            request(&[2; 20], "b", "k2"),
            RefusalCode::NoAddress,
            "all 1 edge places of the pool 10.86.0.0/22 are held; start the cloud with a wider pool, for instance \
             10.86.0.0/19: leases stay as they are",
        ),
    ];
    for (bytes, code, text) in table {
        let (got, message) = refusal(cloud.say(&bytes, now));
        assert_eq!(got, code, "{message}");
        assert!(message.contains(text), "{message}");
        assert_eq!(cloud.ks.seal(), None, "{message}");
    }
}

#[test]
fn of_two_joins_with_one_token_exactly_one_wins() {
    let mut cloud = Cloud::new("10.86.0.0/16");
    cloud.token(1, &site("site-a"), at(0));
    cloud.ks.seal();
    let first = cloud.join(&[1; 20], "a", "k1", at(1));
    let second = cloud.join(&[1; 20], "b", "k2", at(1));
    assert_eq!(first, welcomed("a", "k1"));
    assert_eq!(refusal(second).0, RefusalCode::Used);
    assert_eq!(nodes::list(&cloud.ks).unwrap().len(), 1);
    assert_eq!(cloud.lease("b"), None);
}

#[test]
fn a_token_for_three_admits_three() {
    let mut cloud = Cloud::new("10.86.0.0/16");
    cloud.token(1, &TokenSpec { uses: 3, ..site("site-a") }, at(0));
    for node in ["a", "b", "c"] {
        assert_eq!(cloud.join(&[1; 20], node, node, at(1)), welcomed(node, node));
    }
    let (code, message) = refusal(cloud.join(&[1; 20], "d", "d", at(1)));
    assert_eq!(code, RefusalCode::Used);
    assert!(message.starts_with("this token was used by edge/a, edge/b, edge/c; "), "{message}");
}

#[test]
fn a_node_whose_reply_was_lost_asks_again_and_uses_nothing_up() {
    let mut cloud = Cloud::new("10.86.0.0/16");
    cloud.token(1, &TokenSpec { uses: 2, ..site("site-a") }, at(0));
    cloud.join(&[1; 20], "a", "k1", at(1));
    let lease = cloud.lease("a");
    assert_eq!(cloud.join(&[1; 20], "a", "k1", at(2)), welcomed("a", "k1"));
    assert_eq!(cloud.lease("a"), lease);
    assert_eq!(token::list(&cloud.ks).unwrap()[0].used_by, [name("a")]);
    assert_eq!(cloud.join(&[1; 20], "b", "k2", at(3)), welcomed("b", "k2"));
    assert_eq!(cloud.join(&[1; 20], "a", "k1", at(4)), welcomed("a", "k1"));
}

#[test]
fn the_same_key_with_a_new_token_moves_to_that_tokens_site_and_lans() {
    let mut cloud = Cloud::new("10.86.0.0/16");
    cloud.token(1, &with_lan("192.168.10.0/24"), at(0));
    cloud.token(2, &TokenSpec { lans: vec!["192.168.20.0/24".parse().unwrap()], ..site("site-b") }, at(0));
    cloud.join(&[1; 20], "a", "k1", at(1));
    let lease = cloud.lease("a").unwrap();
    let lan = lan_of("a", "192.168.20.0/24", None);
    assert_eq!(cloud.join(&[2; 20], "a", "k1", at(2)), welcomed_with("a", "k1", lan));
    assert_eq!(cloud.lease("a"), Some(lease.clone()));
    assert_eq!(nodes::get(&name("a"), &cloud.ks).unwrap().unwrap().site, name("site-b"));
    let routes: BTreeMap<_, _> = cloud.routes_of(&edge("a")).into_iter().collect();
    let expected = [
        (format!("{}/32", lease.v4), SubnetKind::EdgeNode),
        (format!("{}/128", lease.v6), SubnetKind::EdgeNode),
        (lease.container_v4.to_string(), SubnetKind::EdgeContainer),
        (lease.container_v6.to_string(), SubnetKind::EdgeContainer),
        ("192.168.20.0/24".to_owned(), SubnetKind::Lan),
    ];
    assert_eq!(routes, BTreeMap::from(expected));
}

#[test]
fn a_second_site_with_the_same_lan_makes_both_virtual_and_policies_follow() {
    let mut cloud = Cloud::new("10.86.0.0/16");
    cloud.token(1, &with_lan("192.168.10.0/24"), at(0));
    cloud.token(2, &TokenSpec { lans: vec!["192.168.10.0/24".parse().unwrap()], ..site("site-b") }, at(0));
    cloud.join(&[1; 20], "a", "k1", at(1));
    let policy = serde_json::json!({
        "apiVersion": "kubebus.io/v1alpha1", "kind": "AccessPolicy", "metadata": {"name": "to-virtual"},
        "spec": {"from": [{"site": "site-b"}], "to": [{"cidr": "10.86.64.0/24"}]},
    });
    let manifest = crate::Manifest::parse(&policy).unwrap();
    manifest.apply(&mut cloud.ks);
    access::tell_all(&mut cloud.ks).unwrap();
    let told = |cloud: &Cloud| cloud.ks.range("/e/a/access/").count();
    assert_eq!(told(&cloud), 0);

    let second = lan_of("b", "10.86.65.0/24", Some("192.168.10.0/24"));
    let welcome = welcomed_with("b", "k2", second.clone());
    assert_eq!(cloud.join(&[2; 20], "b", "k2", at(2)), welcome);
    assert_eq!(cloud.join(&[2; 20], "b", "k2", at(3)), welcome, "asked again");
    let first = lan_of("a", "10.86.64.0/24", Some("192.168.10.0/24"));
    assert_eq!(route::translated(&cloud.ks).unwrap(), [first, second]);
    assert_eq!(told(&cloud), 1, "the policy leads to a's LAN now");
    cloud.cluster.establish(&Default::default(), &mut cloud.ks, at(4)).unwrap();
    assert_eq!(route::translated(&cloud.ks).unwrap().len(), 2);
}

#[test]
fn a_removed_node_leaves_what_its_devices_have_and_its_addresses_which_wait_for_it() {
    let mut cloud = Cloud::new("10.86.0.0/16");
    (1..=3).for_each(|secret| drop(cloud.token(secret, &site("site-a"), at(0))));
    cloud.join(&[1; 20], "a", "k1", at(1));
    let lease = cloud.lease("a");
    let of_devices = ["authority", "command", "desired", "unit", "withdrawn"];
    for kind in of_devices.iter().chain(&["device", "policy"]) {
        cloud.ks.put(crate::record::own_key(&format!("/e/a/{kind}/water/valve")), "x".into());
    }
    nodes::remove(&name("a"), &mut cloud.ks, at(2)).unwrap();
    assert_eq!(cloud.lease("a"), None);
    assert_eq!(cloud.routes_of(&edge("a")), []);
    let left: Vec<&str> = cloud.ks.range("/e/a/").map(|(key, _)| key.as_str()).collect();
    assert_eq!(left, of_devices.map(|kind| format!("/e/a/{kind}/water/valve")));
    let again = nodes::remove(&name("a"), &mut cloud.ks, at(2)).unwrap_err();
    assert_eq!(again.to_string(), "no node 'a'; see 'kubebus get nodes'");

    cloud.join(&[2; 20], "b", "k2", at(3));
    assert_ne!(cloud.lease("b"), lease);
    assert_eq!(cloud.join(&[3; 20], "a", "other key", at(4)), welcomed("a", "other key"));
    assert_eq!(cloud.lease("a"), lease);
}

#[test]
fn the_last_places_come_free_thirty_days_after_a_removal() {
    let mut cloud = Cloud::new("10.86.0.0/22");
    cloud.token(1, &site("site-a"), at(0));
    cloud.join(&[1; 20], "a", "k1", at(0));
    let lease = cloud.lease("a");
    nodes::remove(&name("a"), &mut cloud.ks, at(0)).unwrap();
    cloud.token(2, &site("site-a"), at(30 * DAY - HOUR));
    let (code, message) = refusal(cloud.join(&[2; 20], "b", "k2", at(30 * DAY - 1)));
    assert_eq!(code, RefusalCode::NoAddress);
    assert!(message.contains("are held, 1 of them for nodes that were removed less than 30 days ago"));
    assert_eq!(cloud.join(&[2; 20], "b", "k2", at(30 * DAY)), welcomed("b", "k2"));
    assert_eq!(cloud.lease("b").map(|l| l.v4), lease.map(|l| l.v4));
}

#[test]
fn the_default_pool_admits_127_edges() {
    let mut cloud = Cloud::new("10.86.0.0/16");
    cloud.token(1, &TokenSpec { uses: 128, ..site("site-a") }, at(0));
    for n in 0..127 {
        let node = format!("edge-{n}");
        assert_eq!(cloud.join(&[1; 20], &node, &node, at(1)), welcomed(&node, &node));
    }
    assert_eq!(refusal(cloud.join(&[1; 20], "late", "late", at(1))).0, RefusalCode::NoAddress);
}

/// What may happen to a cluster's membership.
#[derive(Debug, Clone)]
enum Step {
    Join { node: u8, key: u8 },
    Remove { node: u8 },
    Restart,
    Wait { days: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..12u8, 0..3u8).prop_map(|(node, key)| Step::Join { node, key }),
        3 => (0..12u8).prop_map(|node| Step::Remove { node }),
        1 => Just(Step::Restart),
        1 => (0..40u8).prop_map(|days| Step::Wait { days }),
    ];
    prop::collection::vec(step, 0..60)
}

/// The keyspace as it comes back from the disk after a restart.
fn reloaded(disk: &mut MemoryStore, ks: &mut Keyspace) -> Keyspace {
    disk.commit(ks.seal().as_slice()).unwrap();
    Keyspace::load(disk.load().unwrap())
}

proptest! {
    #[test]
    fn no_address_has_two_live_owners_and_leases_are_stable(steps in steps()) {
        // Seven edges fit: joins run into the bound, too.
        let mut cloud = Cloud::new("10.86.0.0/20");
        let mut disk = MemoryStore::default();
        let mut held: BTreeMap<u8, Lease> = BTreeMap::new();
        let mut clock = 0;
        for (index, step) in steps.into_iter().enumerate() {
            clock += 1;
            match step {
                Step::Join { node, key } => {
                    cloud.token(index as u8, &site("site-a"), at(clock));
                    let reply = cloud.join(&[index as u8; 20], &format!("n{node}"), &format!("k{key}"), at(clock));
                    let lease = cloud.lease(&format!("n{node}"));
                    if matches!(reply, JoinReply::Welcome(_)) {
                        let lease = lease.unwrap();
                        prop_assert_eq!(held.entry(node).or_insert_with(|| lease.clone()), &lease);
                    } else {
                        prop_assert_eq!(lease.as_ref(), held.get(&node));
                    }
                }
                Step::Remove { node } => {
                    let removed = nodes::remove(&name(&format!("n{node}")), &mut cloud.ks, at(clock));
                    prop_assert_eq!(removed.is_ok(), held.remove(&node).is_some());
                }
                Step::Restart => {
                    cloud.ks = reloaded(&mut disk, &mut cloud.ks);
                    cloud.cluster.establish(&Default::default(), &mut cloud.ks, at(clock)).unwrap();
                }
                Step::Wait { days } => clock += u64::from(days) * DAY,
            }
            for (node, lease) in &held {
                let stored = cloud.lease(&format!("n{node}"));
                prop_assert_eq!(stored.as_ref(), Some(lease));
            }
            let routes = route::list(&cloud.ks).unwrap();
            for (n, one) in routes.iter().enumerate() {
                for other in &routes[n + 1..] {
                    prop_assert!(!crate::lan::overlap(&one.prefix, &other.prefix), "{:?} {:?}", one, other);
                }
            }
            prop_assert_eq!(routes.len(), 4 * (held.len() + 1));
        }
    }

    #[test]
    fn any_bytes_get_an_answer_and_write_nothing(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut cloud = Cloud::new("10.86.0.0/16");
        cloud.ks.seal();
        let (code, _) = refusal(cloud.say(&bytes, at(0)));
        prop_assert!([RefusalCode::Malformed, RefusalCode::UnknownToken].contains(&code));
        prop_assert_eq!(cloud.ks.seal(), None);
    }
}

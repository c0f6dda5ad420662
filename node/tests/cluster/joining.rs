//! `kubebus join`: who gets in, who does not, and what a refusal says and leaves behind.

use std::process::{Command, Stdio};

use crate::harness::{Cluster, Node, QUICK_LINK, kubebus};
use crate::process::{eventually, run};

/// Exit codes as `kubebus` documents them.
const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const NOT_FOUND: i32 = 4;
const CONFLICT: i32 = 5;

/// Races that one token sees.
const ROUNDS: usize = 5;

#[test]
fn a_token_lets_exactly_one_of_two_in_that_come_at_once() {
    let cluster = Cluster::start();
    for round in 0..ROUNDS {
        let token = cluster.token();
        let rivals = ["left", "right"].map(|side| cluster.stranger(&format!("{side}-{round}")));
        let commands: Vec<Command> = rivals.iter().map(|edge| cluster.joining(edge, &token)).collect();
        let threads: Vec<_> =
            commands.into_iter().map(|command| std::thread::spawn(move || run(command))).collect();
        let ran: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();

        let winner =
            ran.iter().position(|ran| ran.code == Some(0)).unwrap_or_else(|| panic!("nobody: {ran:?}"));
        let [won, lost] = [&rivals[winner], &rivals[1 - winner]];
        let user = format!("used by edge/{}", won.name);
        ran.into_iter().nth(1 - winner).unwrap().refused(CONFLICT, &[&user, "kubebus token create"]);
        cluster.join(lost, &cluster.token()).expect(0);
    }
    let nodes = cluster.cloud.ask(&["get", "nodes"]);
    let nodes = nodes.as_array().unwrap();
    assert_eq!(nodes.len(), 2 * ROUNDS);
    let mut addresses: Vec<&str> = nodes.iter().map(|node| node["address"].as_str().unwrap()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 2 * ROUNDS, "every edge has an address of its own: {addresses:?}");
}

#[test]
fn a_refused_join_says_why_and_blocks_no_later_one() {
    let cluster = Cluster::start();
    let (edge, member) = (cluster.stranger("late"), cluster.stranger("member"));
    let used = cluster.token();
    cluster.join(&member, &used).expect(0);

    let expiring = cluster.cloud.say(&["token", "create", "--site", "plant", "--ttl", "1s"]);
    let expired = eventually("a token of a second expires", || {
        let ran = cluster.join(&cluster.stranger(&format!("probe-{}", fresh())), &expiring);
        if ran.stderr.contains("expired") { Ok(ran) } else { Err(format!("{ran:?}")) }
    });
    expired.refused(CONFLICT, &["expired", "kubebus token create --site plant"]);

    cluster
        .join(&edge, &used)
        .refused(CONFLICT, &["used by edge/member", "kubebus token create --site plant"]);
    cluster.join(&edge, &unknown(&cluster.token())).refused(CONFLICT, &["not known to cluster water"]);
    cluster.join(&edge, "kb1.half.a-token").refused(USAGE, &["--token", "copy it whole"]);
    cluster.join(&edge, "kb9.a.b").refused(USAGE, &["--token", "newer version", "upgrade"]);
    for name in ["Late", "-late", "la_te", ""] {
        let endpoint = cluster.cloud.endpoint();
        let args = ["join", &endpoint, "--token", &cluster.token(), &format!("--name={name}")];
        edge.run(&args).refused(USAGE, &["--name", "a-z, 0-9"]);
    }

    cluster.join(&edge, &cluster.token()).expect(0);
    let mut edge = edge;
    edge.start();
    cluster.in_step("late");
}

#[test]
fn sites_with_the_same_lan_are_told_the_virtual_prefixes_that_the_others_know() {
    let cluster = Cluster::start();
    let join = |name: &str| {
        let token =
            cluster.cloud.run(&["token", "create", "--site", name, "--lan", "192.168.10.0/24"]).expect(0);
        let joined = cluster.join(&cluster.stranger(name), token.stdout.trim()).expect(0);
        (token.stderr, joined.stdout)
    };
    let (warned, told) = join("a");
    assert!(warned.is_empty() && !told.contains("192.168.10.0/24"), "{warned}{told}");
    let (warned, told) = join("b");
    assert!(warned.contains("lies behind edge/a of another site: both will be known by virtual"), "{warned}");
    let expected =
        "192.168.10.0/24 is also the LAN of another site: the others reach its hosts as 10.86.65.0/24";
    assert!(told.contains(expected), "{told}");
    let nodes = cluster.cloud.ask(&["get", "nodes"]);
    let lans: Vec<_> = nodes.as_array().unwrap().iter().map(|node| &node["lans"]).collect();
    assert_eq!(
        serde_json::json!(lans),
        serde_json::json!([["192.168.10.0/24 as 10.86.64.0/24"], ["192.168.10.0/24 as 10.86.65.0/24"]])
    );
}

/// A number that no other call gave.
fn fresh() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The same cluster's token with another secret.
fn unknown(token: &str) -> String {
    let (ca, secret) = token.rsplit_once('.').unwrap();
    let first = if secret.starts_with('a') { 'b' } else { 'a' };
    format!("{ca}.{first}{}", &secret[1..])
}

#[test]
fn a_name_belongs_to_the_key_that_took_it() {
    let cluster = Cluster::start();
    let edge = cluster.edge("a");
    let impostor = cluster.stranger("impostor");
    let token = cluster.token();
    let endpoint = cluster.cloud.endpoint();
    let as_a = ["join", &endpoint, "--token", &token, "--name", "a"];
    impostor.run(&as_a).refused(CONFLICT, &["the name a belongs to another key", "--name"]);
    assert!(cluster.is_connected("a"), "the real one stays");
    // The refusal did not use the token up.
    cluster.join(&impostor, &token).expect(0);
    drop(edge);
}

#[test]
fn a_token_of_another_cluster_is_not_shown_to_this_one() {
    let (ours, theirs) = (Cluster::start(), Cluster::start());
    let edge = ours.stranger("a");
    ours.join(&edge, &theirs.token()).refused(FAILURE, &["not the expected server", "CA certificate"]);
    ours.join(&edge, &ours.token()).expect(0);
}

#[test]
fn a_cloud_that_does_not_run_is_told_from_one_that_refuses() {
    let mut cluster = Cluster::start();
    let (edge, token) = (cluster.stranger("a"), cluster.token());
    cluster.cloud.kill();
    let endpoint = cluster.cloud.endpoint();
    cluster.join(&edge, &token).refused(FAILURE, &[&endpoint, "no answer", "UDP"]);
    cluster.cloud.start();
    cluster.join(&edge, &token).expect(0);
}

#[test]
fn a_name_or_port_that_cannot_be_is_told_before_anything_is_sent() {
    let cluster = Cluster::start();
    let (edge, token) = (cluster.stranger("a"), cluster.token());
    edge.run(&["join", "127.0.0.1:port", "--token", &token, "--name", "a"])
        .refused(USAGE, &["'port' is no port"]);
    edge.run(&["join", "cloud.invalid", "--token", &token, "--name", "a"])
        .refused(FAILURE, &["cannot find cloud.invalid"]);
    cluster.join(&edge, &token).expect(0);
}

#[test]
fn a_directory_holds_one_membership() {
    let cluster = Cluster::start();
    let edge = cluster.edge("a");
    let before = files(&edge);
    let refused = cluster.join(&edge, &cluster.token());
    refused.refused(CONFLICT, &["is a member already", "spiffe://water/edge/a", "remove the directory"]);
    assert_eq!(files(&edge), before);
    assert!(cluster.is_connected("a"));
}

fn files(node: &Node) -> Vec<(String, Vec<u8>)> {
    let names = ["identity.json", "node.crt.der", "node.key.der", "ca.crt.der"];
    names.map(|name| (name.to_owned(), std::fs::read(node.data_dir().join(name)).unwrap())).into()
}

/// As after a power cut between the cloud's decision and the edge's last write.
#[test]
fn a_join_whose_answer_was_lost_is_repeated_with_the_same_token_and_key() {
    let cluster = Cluster::start();
    let (mut edge, token) = (cluster.stranger("a"), cluster.token());
    cluster.join(&edge, &token).expect(0);
    let address = cluster.cloud.ask(&["get", "nodes"])[0]["address"].clone();
    std::fs::remove_file(edge.data_dir().join("identity.json")).unwrap();

    cluster.join(&edge, &token).expect(0);
    edge.start();
    cluster.in_step("a");
    assert_eq!(cluster.cloud.ask(&["get", "nodes"])[0]["address"], address, "it keeps its lease");

    // Without the key it is somebody else.
    let thief = cluster.stranger("thief");
    let endpoint = cluster.cloud.endpoint();
    thief.run(&["join", &endpoint, "--token", &token, "--name", "a"]).refused(CONFLICT, &["used by edge/a"]);
}

#[test]
fn a_token_for_two_admits_two() {
    let cluster = Cluster::start();
    let token = cluster.cloud.say(&["token", "create", "--site", "plant", "--uses", "2"]);
    for name in ["a", "b"] {
        cluster.join(&cluster.stranger(name), &token).expect(0);
    }
    cluster.join(&cluster.stranger("c"), &token).refused(CONFLICT, &["used by edge/a, edge/b"]);
}

#[test]
fn tokens_that_make_no_sense_are_not_created() {
    let cluster = Cluster::start();
    let create = |more: &[&str]| {
        let args: Vec<&str> = ["token", "create", "--site", "plant"].iter().chain(more).copied().collect();
        cluster.cloud.run(&args)
    };
    create(&["--ttl", "0s"]).refused(USAGE, &["between a second and"]);
    create(&["--ttl", "soon"]).refused(USAGE, &["--ttl"]);
    create(&["--uses", "0"]).refused(USAGE, &["1 to"]);
    create(&["--lan", "192.168.1.0/33"]).refused(USAGE, &["--lan"]);
    create(&["--lan", "10.86.3.0/24"]).refused(USAGE, &["10.86.3.0/24 overlaps", "10.86.0.0/16"]);
    cluster.cloud.run(&["token", "create", "--site", "Plant 1"]).refused(USAGE, &["--site", "a-z, 0-9"]);
}

#[test]
fn a_revoked_token_admits_nobody() {
    let cluster = Cluster::start();
    let (kept, revoked) = (cluster.token(), cluster.cloud.say(&["token", "create", "--site", "hut"]));
    let list = cluster.cloud.ask(&["token", "list"]);
    let sites = list.as_array().unwrap().iter().map(|token| token["site"].as_str().unwrap());
    assert_eq!(sites.clone().count(), 2);
    let hut = list.as_array().unwrap().iter().find(|token| token["site"] == "hut").unwrap();
    let id = hut["id"].as_str().unwrap();
    assert!(!revoked.contains(id), "the id is not the secret");

    cluster
        .cloud
        .run(&["token", "revoke", "nothing"])
        .refused(NOT_FOUND, &["'nothing'", "kubebus token list"]);
    cluster.cloud.run(&["token", "revoke", ""]).refused(CONFLICT, &["give more"]);
    assert_eq!(cluster.cloud.say(&["token", "revoke", &id[..8]]), format!("token {id} revoked"));
    let edge = cluster.stranger("a");
    cluster.join(&edge, &revoked).refused(CONFLICT, &["not known to cluster water"]);
    cluster.join(&edge, &kept).expect(0);
}

#[test]
fn a_deleted_node_is_turned_away_also_when_another_took_its_name() {
    let cluster = Cluster::start();
    let mut old = cluster.edge("a");
    cluster.cloud.run(&["delete", "node", "b"]).refused(NOT_FOUND, &["b"]);
    assert_eq!(cluster.cloud.say(&["delete", "node", "a"]), "node a deleted");
    assert_eq!(cluster.cloud.ask(&["get", "nodes"]), serde_json::json!([]));
    is_turned_away(&cluster, &mut old);

    let new = cluster.stranger("successor");
    let (endpoint, token) = (cluster.cloud.endpoint(), cluster.token());
    new.run(&["join", &endpoint, "--token", &token, "--name", "a"]).expect(0);
    is_turned_away(&cluster, &mut old);
    let mut new = new;
    new.start();
    cluster.in_step("a");
}

/// Starts an edge anew, so that it dials at once, and waits until the cloud has met it.
#[track_caller]
fn is_turned_away(cluster: &Cluster, edge: &mut Node) {
    let met = |cluster: &Cluster| cluster.cloud.logged("turned edge/a away");
    let before = met(cluster);
    edge.kill();
    edge.start();
    eventually("the cloud turns it away", || {
        assert!(!cluster.is_connected("a"), "the cloud let it in");
        if met(cluster) > before { Ok(()) } else { Err("not yet".to_owned()) }
    });
}

#[test]
fn what_join_prints_starts_the_edge() {
    let cluster = Cluster::start();
    let edge = cluster.stranger("a");
    let said = cluster.join(&edge, &cluster.token()).expect(0).stdout;
    let typed = said.split('\'').nth(1).unwrap_or_else(|| panic!("no command in {said}"));
    // Without its configuration the node would be another one, with packets: not to be started here.
    let config = format!("--config {}", edge.config().display());
    assert!(typed.contains(&config), "'{typed}' leaves out {config}");

    let args: Vec<&str> = typed.strip_prefix("kubebus ").unwrap().split(' ').collect();
    let mut process = kubebus(&args).stderr(Stdio::null()).spawn().unwrap();
    cluster.in_step("a");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn an_edge_that_did_not_join_says_how_to() {
    let room = tempfile::tempdir().unwrap();
    let edge = Node::new("edge", "a", room.path(), QUICK_LINK);
    edge.run(&["edge"]).refused(FAILURE, &["holds no identity", "kubebus join"]);
}

//! What keeps a node from starting, and that it says so before it touches anything.

use std::path::Path;

use crate::harness::Cluster;
use crate::process::{Ran, run};

/// Exit codes as `kubebus` documents them.
const FAILURE: i32 = 1;
const CONFLICT: i32 = 5;

/// Starts a cloud with the configuration of `cluster`'s, changed, in a directory: it must not come up.
#[track_caller]
fn start_cloud(cluster: &Cluster, (from, to): (&str, &str), data_dir: &Path) -> Ran {
    let text = std::fs::read_to_string(cluster.cloud.config()).unwrap();
    assert!(text.contains(from), "no '{from}' in {text}");
    let config = cluster.file("changed.yaml", &text.replace(from, to));
    let mut command = crate::harness::kubebus(&["cloud"]);
    command.arg("--config").arg(config).arg("--data-dir").arg(data_dir);
    run(command)
}

/// Nothing is changed.
const AS_IT_IS: (&str, &str) = ("", "");

/// Two nodes of one directory would each hold half the truth.
#[test]
fn a_second_node_in_the_same_directory_is_refused_and_the_first_goes_on() {
    let cluster = Cluster::start();
    let edge = cluster.edge("a");
    for node in [&cluster.cloud, &edge] {
        let again = node.run(&[node.role]);
        again.refused(FAILURE, &["in use by another process", "a data directory of its own"]);
        node.say(&["status"]);
    }
    cluster.edge("b");
}

#[test]
fn a_port_in_use_is_named() {
    let cluster = Cluster::start();
    let other = cluster.path("other");
    start_cloud(&cluster, AS_IT_IS, &other)
        .refused(FAILURE, &["mqtt.listen", &cluster.cloud.mqtt().to_string(), "in use"]);
    let moved = cluster.cloud.mqtt().port();
    start_cloud(&cluster, (&moved.to_string(), &(moved + 1).to_string()), &other)
        .refused(FAILURE, &["QUIC", &cluster.cloud.endpoint(), "in use"]);
    cluster.edge("a");
}

#[test]
fn the_clusters_name_and_pool_are_fixed_at_the_first_start() {
    let mut cluster = Cluster::start();
    cluster.cloud.kill();
    let data = cluster.cloud.data_dir();
    start_cloud(&cluster, ("cluster: water", "cluster: fire"), &data)
        .refused(FAILURE, &["cluster 'water', not 'fire'", "another data directory"]);
    start_cloud(&cluster, ("enabled: false", "enabled: false, pool: 10.99.0.0/16"), &data)
        .refused(FAILURE, &["10.86.0.1/32, outside the pool 10.99.0.0/16", "must contain the old one"]);
    cluster.cloud.start();
    cluster.edge("a");
}

/// Every edge knows the cloud by it.
#[test]
fn the_clouds_name_is_fixed_as_its_clusters_is() {
    let mut cluster = Cluster::start();
    cluster.edge("a");
    cluster.cloud.kill();
    let renamed = ("cluster: water", "cluster: water, name: headquarters");
    start_cloud(&cluster, renamed, &cluster.cloud.data_dir())
        .refused(FAILURE, &["headquarters", "name back"]);
}

#[test]
fn a_directory_belongs_to_one_kind_of_node() {
    let cluster = Cluster::start();
    let mut edge = cluster.edge("a");
    edge.kill();
    let listen = cluster.cloud.mqtt().ip().to_string();
    let own = edge.mqtt().ip().to_string();
    start_cloud(&cluster, (&listen, &own), &edge.data_dir()).refused(FAILURE, &["spiffe://water/edge/a"]);
    assert!(!edge.data_dir().join("ca").exists(), "an authority was made in an edge's directory");
    edge.start();
    cluster.in_step("a");

    cluster.cloud.run(&["edge"]).refused(FAILURE, &["holds no identity"]);
    let token = cluster.token();
    let args = ["join", &cluster.cloud.endpoint(), "--token", &token, "--name", "b"];
    cluster.cloud.run(&args).refused(CONFLICT, &["cloud"]);
    assert!(!cluster.cloud.data_dir().join("identity.json").exists());
}

#[test]
fn a_store_that_is_none_is_not_overwritten() {
    let mut cluster = Cluster::start();
    cluster.cloud.kill();
    let store = cluster.cloud.data_dir().join("store.redb");
    let noise: Vec<u8> = (0..4096_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    std::fs::write(&store, &noise).unwrap();
    cluster
        .cloud
        .run(&["cloud"])
        .refused(FAILURE, &["store.redb is damaged", "since its last backup", "kubebus cloud restore FILE"]);
    assert_eq!(std::fs::read(&store).unwrap(), noise);
}

/// As an empty cloud under its name it would turn every edge away.
#[test]
fn a_cloud_whose_store_is_gone_does_not_start_as_an_empty_one() {
    let mut cluster = Cluster::start();
    let edge = cluster.edge("a");
    let (store, elsewhere) = (cluster.cloud.data_dir().join("store.redb"), cluster.path("elsewhere"));
    let words = ["store.redb is gone", "mount its volume", "last backup", "kubebus cloud restore FILE"];
    cluster.cloud.kill();
    std::fs::rename(&store, &elsewhere).unwrap();
    cluster.cloud.run(&["cloud"]).refused(FAILURE, &words);
    assert!(!store.exists(), "an empty store was made");

    std::fs::rename(&elsewhere, &store).unwrap();
    cluster.cloud.start();
    cluster.in_step(&edge.name);

    // A restored one, too, that never ran.
    let (file, restored) = (cluster.path("backup"), cluster.second_cloud("restored"));
    let file = file.to_str().unwrap();
    cluster.cloud.say(&["cloud", "backup", file]);
    restored.say(&["cloud", "restore", file]);
    std::fs::remove_file(restored.data_dir().join("store.redb")).unwrap();
    restored.run(&["cloud"]).refused(FAILURE, &words);
}

#[test]
fn a_damaged_identity_says_what_to_do() {
    let cluster = Cluster::start();
    let mut edge = cluster.edge("a");
    edge.kill();
    std::fs::write(edge.data_dir().join("identity.json"), "{").unwrap();
    for command in [&["edge"][..], &["join", "127.0.0.1", "--token", &cluster.token(), "--name", "a"]] {
        edge.run(command)
            .refused(FAILURE, &["identity.json is damaged", "restore it, or remove the directory"]);
    }
}

//! Backups, and a cloud at a new address: edges find it, and nothing at them restarts.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;

use crate::harness::{Cluster, Node, QUICK_LINK};
use crate::mqtt::{self, V5};
use crate::process::becomes;
use crate::twins::Plant;

const COUNT: (&str, &str) = ("water/meter", "count");
const SETPOINT: (&str, &str) = ("water/valve", "setpoint");
const REPORT: &str = "twin/water/meter/report/count";

/// Exit codes.
const USAGE: i32 = 2;
const NOT_RUNNING: i32 = 3;
const CONFLICT: i32 = 5;

/// Tells the edges where the cloud will be, by a restart of it.
#[track_caller]
fn announce(cluster: &mut Cluster, next: &Node, edges: &[&str]) {
    assert!(cluster.cloud.terminate().0.success());
    cluster.cloud.configure(QUICK_LINK, &[next.endpoint()]);
    cluster.cloud.start();
    edges.iter().for_each(|edge| cluster.in_step(edge));
}

#[test]
fn edges_find_a_cloud_whose_directory_moved_to_the_address_that_it_told_them() {
    let mut cluster = Cluster::start();
    let edges = ["a", "b"].map(|name| cluster.edge(name));
    let pids = edges.each_ref().map(Node::pid);
    let mut next = cluster.second_cloud("next");
    announce(&mut cluster, &next, &["a", "b"]);

    assert!(cluster.cloud.terminate().0.success());
    std::fs::rename(cluster.cloud.data_dir(), next.data_dir()).unwrap();
    next.start();
    std::mem::swap(&mut cluster.cloud, &mut next);
    ["a", "b"].iter().for_each(|edge| cluster.in_step(edge));
    assert_eq!(edges.each_ref().map(Node::pid), pids);

    // It is kept: also an edge that restarts finds the cloud there.
    let [mut a, _b] = edges;
    a.kill();
    a.start();
    cluster.in_step("a");
}

/// Backs the cluster's cloud up into its room.
#[track_caller]
fn back_up(cluster: &Cluster, name: &str) -> PathBuf {
    let file = cluster.path(name);
    let said = cluster.cloud.say(&["cloud", "backup", text(&file)]);
    assert!(said.contains("spiffe://water/cloud/cloud at revision"), "{said}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    file
}

#[track_caller]
fn restore(node: &Node, file: &Path) -> String {
    node.say(&["cloud", "restore", text(file)])
}

/// Both sides say that the edges hold what they are to hold: their digests agreed, and nothing was sent again.
#[track_caller]
fn agree(cluster: &Cluster, edges: &[&Node]) {
    for edge in edges {
        cluster.in_step(&edge.name);
        let status = edge.ask(&["status"]);
        let seen = [&status["cloud"]["connected"], &status["metadata"]["repairs"]];
        assert_eq!(seen, [&json!(true), &json!(0)], "{status}");
    }
    let status = cluster.cloud.ask(&["status"]);
    assert_eq!(status["metadata"]["repairs"], json!(0), "{status}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The cloud is another machine from now on; what it was is returned.
fn replace_cloud(plant: &mut Plant, next: Node) -> Node {
    std::mem::replace(&mut plant.cluster.cloud, next)
}

#[test]
fn a_restored_cloud_takes_over_at_a_new_address_and_nothing_at_the_edges_restarts() {
    let mut plant = Plant::start();
    let b = plant.cluster.edge("b");
    let pids = [plant.a.pid(), b.pid()];
    let next = plant.cluster.second_cloud("next");
    announce(&mut plant.cluster, &next, &["a", "b"]);
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "2.5"]);
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));

    // While values change.
    let file = std::thread::scope(|scope| {
        let lines: String = (1..=300).map(|count| format!("{count}\n")).collect();
        let reports = scope.spawn({
            let a = &plant.a;
            move || mqtt::say_lines(a, REPORT, &lines)
        });
        let file = back_up(&plant.cluster, "backup");
        reports.join().unwrap();
        file
    });
    // After the backup: the new cloud hears of it from the edge alone.
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(300));
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "3"]);
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
    assert!(plant.cluster.cloud.terminate().0.success());
    mqtt::say(&plant.a, V5, REPORT, "301");

    let said = restore(&next, &file);
    assert!(said.contains("epoch 2, 2 nodes, 2 devices"), "{said}");
    let _old = replace_cloud(&mut plant, next);
    plant.cluster.cloud.start();
    agree(&plant.cluster, &[&plant.a, &b]);
    assert_eq!([plant.a.pid(), b.pid()], pids);
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(301));
    plant.cluster.cloud.twin_becomes(SETPOINT, "/reported/value", json!(3.0));
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "4"]);
    plant.cluster.cloud.twin_becomes(SETPOINT, "/reported/value", json!(4.0));
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
    mqtt::say(&plant.a, V5, REPORT, "302");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(302));
    // The older wish of the backup moved nothing.
    let moved = plant.valve.written();
    assert_eq!(moved, [2.5, 3.0, 4.0].map(|value| ("setpoint".to_owned(), json!(value))));
    agree(&plant.cluster, &[&plant.a, &b]);
    // Its authority is the same: a new edge joins as before.
    plant.cluster.edge("c");
}

#[test]
fn a_cloud_that_lost_its_disk_is_put_back_by_its_last_backup() {
    let mut plant = Plant::start();
    mqtt::say(&plant.a, V5, REPORT, "1");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(1));
    let file = back_up(&plant.cluster, "backup");
    mqtt::say(&plant.a, V5, REPORT, "2");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(2));
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "2"]);
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));

    plant.cluster.cloud.kill();
    std::fs::remove_dir_all(plant.cluster.cloud.data_dir()).unwrap();
    restore(&plant.cluster.cloud, &file);
    plant.cluster.cloud.start();
    plant.cluster.in_step("a");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(2));
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "3"]);
    plant.cluster.cloud.twin_becomes(SETPOINT, "/reported/value", json!(3.0));
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
}

#[test]
fn a_stopped_cloud_is_backed_up_from_its_disk() {
    let mut plant = Plant::start();
    mqtt::say(&plant.a, V5, REPORT, "5");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(5));
    assert!(plant.cluster.cloud.terminate().0.success());
    let file = back_up(&plant.cluster, "backup");
    std::fs::remove_dir_all(plant.cluster.cloud.data_dir()).unwrap();
    restore(&plant.cluster.cloud, &file);
    plant.cluster.cloud.start();
    assert_eq!(plant.cluster.cloud.twin(COUNT.0, COUNT.1)["reported"]["value"], json!(5));
    plant.cluster.in_step("a");
}

#[test]
fn only_a_cloud_is_backed_up() {
    let cluster = Cluster::start();
    let edge = cluster.edge("a");
    let file = cluster.path("backup");
    edge.run(&["cloud", "backup", text(&file)]).refused(1, &["only the cloud can do this"]);
    let nobody = cluster.second_cloud("nobody");
    // A cloud whose store is gone: an empty backup would take the place of a good one.
    let mut emptied = cluster.second_cloud("emptied");
    emptied.start();
    emptied.kill();
    std::fs::remove_file(emptied.data_dir().join("store.redb")).unwrap();
    emptied.run(&["cloud", "backup", text(&file)]).refused(1, &["store.redb is gone"]);
    nobody.run(&["cloud", "backup", text(&file)]).refused(NOT_RUNNING, &["no kubebus runs under"]);
    let nowhere = cluster.path("no-such-directory/backup");
    cluster.cloud.run(&["cloud", "backup", text(&nowhere)]).refused(1, &["cannot write", text(&nowhere)]);
    assert_eq!(leftovers(&cluster.path("")), Vec::<String>::new());
}

/// Files of a backup that did not come about.
fn leftovers(room: &Path) -> Vec<String> {
    let names = std::fs::read_dir(room).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("backup")).collect()
}

#[test]
fn a_backup_goes_through_a_pipe_and_back() {
    let cluster = Cluster::start();
    let file = cluster.path("backup");
    let mut command = cluster.cloud.command(&["cloud", "backup", "-"]);
    assert!(command.stdout(File::create(&file).unwrap()).status().unwrap().success());
    let next = cluster.second_cloud("next");
    let mut command = next.command(&["cloud", "restore", "-"]);
    assert!(command.stdin(File::open(&file).unwrap()).stdout(Stdio::null()).status().unwrap().success());
    assert_eq!(next.run(&["cloud", "backup", text(&file)]).code, Some(0));
}

#[test]
fn a_directory_in_use_is_not_restored_into() {
    let cluster = Cluster::start();
    let edge = cluster.edge("a");
    let file = back_up(&cluster, "backup");
    for node in [&cluster.cloud, &edge] {
        let before = files(&node.data_dir());
        let words = ["is not empty", "mv ", "--data-dir"];
        node.run(&["cloud", "restore", text(&file)]).refused(CONFLICT, &words);
        assert_eq!(files(&node.data_dir()), before);
    }
}

fn files(dir: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn a_file_that_is_no_whole_backup_is_refused_and_nothing_is_made_of_it() {
    let cluster = Cluster::start();
    let whole = std::fs::read(back_up(&cluster, "backup")).unwrap();
    let next = cluster.second_cloud("next");
    let edited = |at: usize| {
        let mut edited = whole.clone();
        edited[at] ^= 0x20;
        edited
    };
    let version = whole.iter().position(|byte| *byte == b'1').unwrap();
    let of_another_version = [&whole[..version], b"2", &whole[version + 1..]].concat();
    for (bytes, word) in [
        (whole[..whole.len() / 2].to_vec(), "damaged"),
        (whole[..whole.len() - 1].to_vec(), "damaged"),
        (edited(whole.len() / 2), "damaged"),
        (edited(whole.len() - 1), "damaged"),
        (of_another_version, "format 2"),
        (b"anything".to_vec(), "no backup"),
        (Vec::new(), "no backup"),
    ] {
        let file = cluster.path("damaged");
        std::fs::write(&file, bytes).unwrap();
        next.run(&["cloud", "restore", text(&file)]).refused(USAGE, &[word, text(&file)]);
        assert!(!next.data_dir().exists());
    }
    let whole = cluster.path("backup");
    let low = ["cloud", "restore", text(&whole), "--epoch", "1"];
    next.run(&low).refused(USAGE, &["epoch 1 is not above the backup's, 1"]);
    let high = next.say(&["cloud", "restore", text(&whole), "--epoch", "7"]);
    assert!(high.contains("epoch 7"), "{high}");
}

#[test]
fn nothing_starts_where_a_restore_was_interrupted_and_it_can_be_done_again() {
    let mut cluster = Cluster::start();
    let file = back_up(&cluster, "backup");
    let mut next = cluster.second_cloud("next");
    restore(&next, &file);
    // As if the power had failed right before the end.
    std::fs::write(next.data_dir().join("restoring"), "").unwrap();
    next.run(&["cloud"]).refused(1, &["half restored", "kubebus cloud restore"]);
    next.run(&["cloud", "backup", text(&file)]).refused(1, &["half restored"]);
    restore(&next, &file);
    cluster.cloud.kill();
    next.start();
}

#[test]
fn a_cloud_that_comes_back_after_another_took_over_is_refused_and_says_so() {
    let mut plant = Plant::start();
    let pid = plant.a.pid();
    let next = plant.cluster.second_cloud("next");
    announce(&mut plant.cluster, &next, &["a"]);
    let file = back_up(&plant.cluster, "backup");
    plant.cluster.cloud.kill();
    restore(&next, &file);
    let mut old = replace_cloud(&mut plant, next);
    plant.cluster.cloud.start();
    plant.cluster.in_step("a");

    plant.cluster.cloud.kill();
    old.start();
    old.say(&["twin", "set", "water/valve", "setpoint", "5"]);
    becomes("the old cloud knows", &json!(2), || old.ask(&["status"])["metadata"]["superseded_by"].clone());
    assert!(old.logged("stop this one") > 0);
    assert_eq!(plant.a.ask(&["status"])["metadata"]["epoch"], json!(2));

    // Both run now: the edge finds the one that it follows.
    plant.cluster.cloud.start();
    agree(&plant.cluster, &[&plant.a]);
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "2"]);
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
    assert_eq!(plant.valve.written(), [("setpoint".to_owned(), json!(2.0))]);
    assert_eq!(plant.a.pid(), pid);
}

#[test]
fn a_cloud_stopped_for_its_move_loses_nothing_and_does_not_start_again() {
    let mut plant = Plant::start();
    let mut next = plant.cluster.second_cloud("next");
    announce(&mut plant.cluster, &next, &["a"]);
    let file = plant.cluster.path("backup");
    let stop = ["cloud", "backup", "--stop", text(&file)];
    std::thread::scope(|scope| {
        let lines: String = (1..=500).map(|count| format!("{count}\n")).collect();
        let a = &plant.a;
        let reports = scope.spawn(move || mqtt::say_lines(a, REPORT, &lines));
        plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "2"]);
        plant.cluster.cloud.say(&stop);
        reports.join().unwrap();
    });
    assert!(plant.cluster.cloud.terminate().0.success(), "it has ended by itself, and well");
    plant.cluster.cloud.run(&["cloud"]).refused(1, &["was stopped for a move", "moved"]);
    // Again, when the first file got lost.
    plant.cluster.cloud.say(&stop);

    restore(&next, &file);
    next.start();
    replace_cloud(&mut plant, next);
    plant.cluster.in_step("a");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(500));
    plant.cluster.cloud.twin_becomes(SETPOINT, "/desired", json!(2.0));
    plant.cluster.cloud.twin_becomes(SETPOINT, "/ack/outcome", json!("succeeded"));
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
}

#[test]
fn only_a_cloud_is_stopped_for_its_move() {
    let cluster = Cluster::start();
    let edge = cluster.edge("a");
    let file = cluster.path("backup");
    edge.run(&["cloud", "backup", "--stop", text(&file)]).refused(1, &["is no cloud's data directory"]);
    let nowhere = cluster.path("no-such-directory/backup");
    cluster.cloud.run(&["cloud", "backup", "--stop", text(&nowhere)]).refused(1, &["cannot write"]);
    // Both go on.
    cluster.in_step("a");
}

#[test]
fn an_endpoint_that_cannot_be_dialled_is_refused_at_the_start() {
    let mut cluster = Cluster::start();
    cluster.cloud.kill();
    cluster.cloud.configure(QUICK_LINK, &["new:port".to_owned()]);
    cluster.cloud.run(&["cloud"]).refused(1, &["cloud.endpoints", "'port' is no port"]);
}

#[test]
fn a_wish_told_to_a_restored_cloud_before_its_edge_is_back_is_carried_out() {
    let mut plant = Plant::start();
    let set = |plant: &Plant, value: &str| {
        plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", value]);
    };
    set(&plant, "2");
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
    let file = back_up(&plant.cluster, "backup");
    set(&plant, "3");
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
    plant.cluster.cloud.kill();
    plant.a.kill();
    std::fs::remove_dir_all(plant.cluster.cloud.data_dir()).unwrap();
    restore(&plant.cluster.cloud, &file);
    plant.cluster.cloud.start();
    // The number after the backup's last one was given to 3 before.
    set(&plant, "4");
    plant.a.start();
    plant.cluster.cloud.twin_becomes(SETPOINT, "/reported/value", json!(4.0));
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
}

//! `describe`, `watch` and `get`: objects of the resource API at the console of a real cloud.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use crate::harness::Cluster;
use crate::meters;
use crate::process::eventually;

pub(crate) fn are_described_and_watched_over_a_restart() {
    let mut cluster = Cluster::start();
    let _a = cluster.edge("a");
    let watching =
        cluster.cloud.command(&["watch", "devices"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut watching = watching.unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (kept, stdout) = (Arc::clone(&lines), watching.stdout.take().unwrap());
    std::thread::spawn(move || {
        BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line));
    });
    let sees = |what: &str| {
        eventually(what, || {
            let lines = lines.lock().unwrap();
            let is_it = |line: &String| line.starts_with(what) && line.contains("water/meter");
            if lines.iter().any(is_it) { Ok(()) } else { Err(lines.join("\n")) }
        });
    };
    cluster.apply(&meters::without_mapper());
    sees("ADDED");

    // All that is known of it, and the command that helps where nothing is.
    eventually("the device is described", || {
        let told = cluster.cloud.say(&["describe", "device", "water/meter"]);
        let words = ["Device    water/meter", "mapper modbus is not connected", "nodeName: a", "count"];
        if words.iter().all(|word| told.contains(word)) { Ok(()) } else { Err(told) }
    });
    // Once the edge has told of its links.
    eventually("the node is described", || {
        let told = cluster.cloud.say(&["describe", "node", "a"]);
        let words = ["EdgeNode   a", "cloud/cloud", "BEHIND IT", "DEVICES", "Connected"];
        if words.iter().all(|word| told.contains(word)) { Ok(()) } else { Err(told) }
    });
    cluster.cloud.run(&["describe", "device", "water/nothing"]).refused(4, &["kubebus get devices"]);
    cluster.cloud.run(&["describe", "pods", "x"]).refused(2, &["devices", "edgenodes"]);

    // Every kind is listed in every form.
    assert!(cluster.cloud.say(&["get", "sites", "-o", "name"]).lines().any(|site| site == "plant"));
    assert_eq!(cluster.cloud.say(&["get", "devices", "-o", "name"]), "water/meter");
    assert!(cluster.cloud.say(&["get", "sites"]).starts_with("NAME"));
    assert!(cluster.cloud.say(&["get", "nodes", "-o", "wide"]).starts_with("NAME"));

    cluster.cloud.kill();
    cluster.cloud.start();
    cluster.cloud.say(&["delete", "device", "water/meter"]);
    sees("DELETED");
    let added = lines.lock().unwrap().iter().filter(|line| line.starts_with("ADDED")).count();
    assert_eq!(added, 1, "it goes on from where it was: {lines:?}");
    watching.kill().unwrap();
    watching.wait().unwrap();
}

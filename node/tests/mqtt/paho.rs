//! Eclipse Paho's client for Python: the scripts beside this file, each against a node of its own.

use std::path::Path;
use std::process::Command;

use crate::process::run;
use crate::{Cluster, Node, no_panic};

/// Runs the cases of a script, side by side; one that does not hold fails the test with its traceback.
#[track_caller]
fn holds(node: &Node, script: &str, args: &[&str]) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mqtt").join(script);
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/venv/bin/python");
    assert!(python.is_file(), "{} is not there: run `cargo xtask python`", python.display());
    let mut command = Command::new(python);
    command.arg("-B").arg(here).arg(node.mqtt().ip().to_string()).arg(node.mqtt().port().to_string());
    command.args(args);
    let ran = run(command);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    no_panic(node);
}

#[test]
fn what_is_published_arrives() {
    holds(&Cluster::start().cloud, "delivery.py", &[]);
}

#[test]
fn sessions_and_wills_outlive_connections() {
    holds(&Cluster::start().cloud, "sessions.py", &[]);
}

#[test]
fn what_mqtt_5_alone_can_works() {
    holds(&Cluster::start().cloud, "five.py", &[]);
}

#[test]
fn what_waits_and_what_is_retained_survives_a_kill() {
    let mut cluster = Cluster::start();
    holds(&cluster.cloud, "survival.py", &["before"]);
    cluster.cloud.kill();
    cluster.cloud.start();
    holds(&cluster.cloud, "survival.py", &["after"]);
}

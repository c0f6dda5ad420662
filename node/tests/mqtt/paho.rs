//! Eclipse Paho's client for Python: the scripts beside this file, each against a node of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::run;
use crate::{Cluster, Node, mqtt, no_panic};

fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/venv/bin/python");
    assert!(python.is_file(), "{} is not there: run `cargo xtask python`", python.display());
    python
}

/// Runs the cases of a script, side by side; one that does not hold fails the test with its traceback.
#[track_caller]
fn holds(node: &Node, script: &str, args: &[&str]) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mqtt").join(script);
    let mut command = Command::new(python());
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

const METER: &str = "\
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: meter, namespace: water}
spec: {properties: [{name: count, type: INT, accessMode: ReadOnly}]}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: meter, namespace: water}
spec: {deviceModelRef: {name: meter}, nodeName: a, protocol: {protocolName: app}}
";

#[test]
fn the_documented_program_shows_what_devices_report() {
    let cluster = Cluster::start();
    let a = cluster.edge("a");
    cluster.apply(METER);
    cluster.in_step("a");
    let page = include_str!("../../../docs/mqtt.md");
    let (_, program) = page.split_once("```python\n").unwrap();
    let (program, _) = program.split_once("```").unwrap();
    let at = format!("\"{}\", {}", a.mqtt().ip(), a.mqtt().port());
    let program = program.replace("\"127.0.0.1\", 1883", &at);
    assert!(program.contains(&at), "{program}");
    mqtt::say(&a, mqtt::V5, "twin/water/meter/report/count", "5");
    let mut command = Command::new(python());
    command.arg("-Bu").arg("-c").arg(program).stdout(Stdio::piped());
    let mut shown = command.spawn().unwrap();
    let line = BufReader::new(shown.stdout.take().unwrap()).lines().next();
    shown.kill().unwrap();
    shown.wait().unwrap();
    assert_eq!(line.unwrap().unwrap(), "twin/water/meter/reported/count 5");
}

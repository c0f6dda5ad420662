//! The command line: what it answers, what it refuses, and how scripts can tell.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::harness::{Cluster, Node, QUICK_LINK, kubebus};
use crate::process::{run, run_with};

/// Exit codes as `kubebus` documents them.
const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const NOT_RUNNING: i32 = 3;
const NOT_FOUND: i32 = 4;

const METER: &str = "\
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: meter, namespace: water}
spec:
  properties:
    - {name: count, type: INT, accessMode: ReadOnly}
    - {name: rate, type: DOUBLE, accessMode: ReadWrite, minimum: '-5', maximum: '10', unit: m3/h}
    - {name: mode, type: STRING, accessMode: ReadWrite}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: meter, namespace: water}
spec: {deviceModelRef: {name: meter}, nodeName: a, protocol: {protocolName: app}}
";

#[test]
fn every_command_explains_itself() {
    let commands = [
        "",
        "demo",
        "cloud",
        "join",
        "edge",
        "token",
        "token create",
        "token list",
        "token revoke",
        "apply",
        "get",
        "delete",
        "twin",
        "twin get",
        "twin set",
        "mapper",
        "mapper new",
        "mapper list",
        "mapper run",
        "policy test",
        "route get",
        "route list",
        "route approve",
        "route revoke",
        "label",
        "dns set",
        "ping",
        "status",
    ];
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        let help = run(kubebus(&[words.as_slice(), &["--help"]].concat())).expect(0);
        assert!(help.stdout.contains("Usage: kubebus") && help.stderr.is_empty(), "{command}: {help:?}");
    }
    let version = run(kubebus(&["--version"])).expect(0);
    assert_eq!(version.stdout, concat!("kubebus ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_command_line_without_sense_is_refused() {
    run(kubebus(&["clud"])).refused(USAGE, &["clud", "--help"]);
    run(kubebus(&["token", "create"])).refused(USAGE, &["--site"]);
    run(kubebus(&["get", "bananas"])).refused(USAGE, &["bananas", "devices", "twinpolicies"]);
    run(kubebus(&["twin", "get", "Water/meter"])).refused(USAGE, &["'Water'"]);
    run(kubebus(&["status", "-o", "xml"])).refused(USAGE, &["xml", "json"]);
}

#[test]
fn a_node_that_does_not_run_is_told_from_a_refusal() {
    let room = tempfile::tempdir().unwrap();
    let node = Node::new("cloud", "cloud", room.path(), QUICK_LINK);
    let device = room.path().join("device.yaml");
    std::fs::write(&device, METER).unwrap();
    let device = device.to_str().unwrap();
    let commands: [&[&str]; 7] = [
        &["status"],
        &["get", "nodes"],
        &["twin", "get"],
        &["twin", "set", "water/meter", "rate", "1"],
        &["delete", "device", "water/meter"],
        &["token", "create", "--site", "plant"],
        &["apply", "-f", device],
    ];
    for command in commands {
        let directory = node.data_dir();
        let words = ["no kubebus runs under", directory.to_str().unwrap(), "kubebus cloud", "--data-dir"];
        node.run(command).refused(NOT_RUNNING, &words);
    }
}

/// A socket that a killed node left is no running node.
#[test]
fn a_killed_node_does_not_run() {
    let mut cluster = Cluster::start();
    cluster.cloud.kill();
    assert!(cluster.cloud.data_dir().join("admin.sock").exists());
    cluster.cloud.run(&["status"]).refused(NOT_RUNNING, &["no kubebus runs under"]);
    cluster.cloud.start();
}

#[test]
fn what_is_set_is_checked_and_a_refusal_names_what_is_wrong() {
    let cluster = Cluster::start();
    cluster.apply(METER);
    let set = |device: &str, property: &str, value: &str| {
        cluster.cloud.run(&["twin", "set", device, property, value])
    };
    set("water/meteor", "rate", "1").refused(NOT_FOUND, &["water/meteor"]);
    set("water/meter", "speed", "1").refused(NOT_FOUND, &["water/meter", "'speed'"]);
    set("meter", "rate", "1").refused(NOT_FOUND, &["default/meter"]);
    set("water/meter", "count", "1").refused(USAGE, &["water/meter/count", "read-only"]);
    set("water/meter", "rate", "11").refused(USAGE, &["water/meter/rate", "11 is outside -5 to 10"]);
    set("water/meter", "rate", "fast").refused(USAGE, &["water/meter/rate", "wrong type", "fast"]);
    set("water/meter", "mode", "3").refused(USAGE, &["water/meter/mode", "wrong type", "3"]);
    set("water/meter", "rate", "1e999").refused(USAGE, &["water/meter/rate"]);

    cluster.cloud.run(&["twin", "get", "water/meteor"]).refused(NOT_FOUND, &["water/meteor"]);
    assert!(cluster.cloud.twin("water/meter", "rate")["desired"].is_null(), "nothing was set");

    assert_eq!(cluster.cloud.say(&["twin", "set", "water/meter", "rate", "-2.5"]), {
        "water/meter rate desired -2.5, version 0.1"
    });
    assert_eq!(cluster.cloud.say(&["twin", "set", "water/meter", "mode", "eco"]), {
        "water/meter mode desired eco, version 0.1"
    });
    let rate = cluster.cloud.twin("water/meter", "rate");
    let shown =
        ["desired", "version", "by", "converged", "unit", "writable"].map(|field| rate[field].clone());
    let expected =
        [json!(-2.5), json!("0.1"), json!("kubebus twin set"), json!(false), json!("m3/h"), json!(true)];
    assert_eq!(shown, expected);
}

#[test]
fn a_bad_manifest_is_refused_by_file_and_field() {
    let cluster = Cluster::start();
    let apply = |name: &str, text: &str| {
        let path = cluster.file(name, text);
        cluster.cloud.run(&["apply", "-f", path.to_str().unwrap()])
    };
    let cases = [
        ("type.yaml", METER.replace("type: INT", "type: INTEGER"), "DeviceModel: spec.properties[0].type: "),
        (
            "bound.yaml",
            METER.replace("'10'", "'much'"),
            "DeviceModel: spec.properties[1].maximum: 'much' is no number",
        ),
        (
            "twice.yaml",
            METER.replace("name: rate", "name: count"),
            "DeviceModel: spec.properties[1].name: 'count' is there twice",
        ),
        ("name.yaml", METER.replace("name: meter", "name: Meter"), "DeviceModel: metadata.name: "),
        (
            "kind.yaml",
            METER.replace("DeviceModel\n", "DeviceModell\n"),
            "devices.kubeedge.io/v1beta1 DeviceModell is not known",
        ),
        ("typo.yaml", policy("desiredMaxAgee: 10s"), "TwinPolicy: spec.desiredMaxAgee: "),
        ("span.yaml", policy("desiredMaxAge: soon"), "TwinPolicy: spec.desiredMaxAge: "),
    ];
    for (name, text, reason) in cases {
        let ran = apply(name, &text);
        assert_eq!(ran.stderr.matches(reason).count(), 1, "'{reason}' once in {ran:?}");
        ran.refused(USAGE, &[name]);
    }
    apply("broken.yaml", "kind: {{").refused(USAGE, &["broken.yaml", "line 1"]);
    let missing = cluster.path("missing.yaml");
    let missing = missing.to_str().unwrap();
    cluster.cloud.run(&["apply", "-f", missing]).refused(USAGE, &[missing, "No such file"]);
    for kind in ["devices", "devicemodels", "twinpolicies", "rules"] {
        assert_eq!(cluster.cloud.ask(&["get", kind]), json!([]), "nothing was applied");
    }
}

fn policy(field: &str) -> String {
    format!(
        "apiVersion: kubebus.io/v1alpha1\nkind: TwinPolicy\nmetadata: {{name: p, namespace: water}}\n\
         spec:\n  model: meter\n  {field}\n"
    )
}

#[test]
fn manifests_are_created_changed_listed_and_deleted() {
    let cluster = Cluster::start();
    cluster.join(&cluster.stranger("a"), &cluster.token()).expect(0);
    let created = "devicemodel water/meter created\ndevice water/meter created (runs at edge/a)";
    assert_eq!(cluster.apply(METER), created);
    assert_eq!(cluster.apply(METER), created.replace("created", "unchanged"));
    let changed = METER.replace("'10'", "'20'");
    assert_eq!(
        cluster.apply(&changed),
        created
            .replace("model water/meter created", "model water/meter configured")
            .replace("device water/meter created", "device water/meter unchanged")
    );

    let table = cluster.cloud.say(&["get", "devices"]);
    assert_eq!(table, "NAMESPACE   NAME    NODE\nwater       meter   a");
    let listed = cluster.cloud.ask(&["get", "device"]);
    let device = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": { "name": "meter", "namespace": "water" },
        "spec": { "deviceModelRef": { "name": "meter" }, "nodeName": "a", "protocol": { "protocolName": "app" } },
    });
    assert_eq!(listed, json!([device]));
    let yaml = cluster.cloud.say(&["get", "devices", "-o", "yaml"]);
    assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), listed, "{yaml}");
    // What is listed can be applied again.
    let document = serde_saphyr::to_string(&listed[0]).unwrap();
    assert_eq!(cluster.apply(&document), "device water/meter unchanged (runs at edge/a)");

    assert_eq!(cluster.cloud.say(&["delete", "device", "water/meter"]), "device water/meter deleted");
    cluster.cloud.run(&["delete", "device", "water/meter"]).refused(NOT_FOUND, &["no device water/meter"]);
    assert_eq!(cluster.cloud.ask(&["get", "devices"]), json!([]));
    assert_eq!(cluster.cloud.ask(&["twin", "get"]), json!([]));
}

#[test]
fn manifests_come_from_standard_input_too() {
    let cluster = Cluster::start();
    let said = run_with(cluster.cloud.command(&["apply", "-f", "-"]), METER).expect(0);
    assert!(said.stdout.contains("device water/meter created"), "{said:?}");
}

#[test]
fn nodes_are_listed_with_site_address_and_networks() {
    let cluster = Cluster::start();
    let token = cluster.cloud.say(&["token", "create", "--site", "plant-a", "--lan", "192.168.10.0/24"]);
    cluster.join(&cluster.stranger("a"), &token).expect(0);
    let expected = json!([{
        "name": "a", "site": "plant-a", "lans": ["192.168.10.0/24"], "connected": false,
        "address": "10.86.0.2", "containers": "10.86.129.0/24",
    }]);
    assert_eq!(cluster.cloud.ask(&["get", "nodes"]), expected);
    let expected = "NAME   SITE      CONNECTED   ADDRESS     CONTAINERS       LANS\n\
                    a      plant-a   false       10.86.0.2   10.86.129.0/24   192.168.10.0/24";
    assert_eq!(cluster.cloud.say(&["get", "node"]), expected);
}

#[test]
fn an_edge_says_what_only_the_cloud_can_do() {
    let cluster = Cluster::start();
    let edge = cluster.edge("a");
    let path = cluster.file("meter.yaml", METER);
    let commands: [&[&str]; 4] = [
        &["token", "create", "--site", "plant"],
        &["get", "nodes"],
        &["delete", "device", "water/meter"],
        &["apply", "-f", path.to_str().unwrap()],
    ];
    for command in commands {
        edge.run(command).refused(FAILURE, &["only the cloud can do this"]);
    }
    // An operator at the site sets its own devices.
    let set = ["twin", "set", "water/meter", "rate", "1"];
    edge.run(&set).refused(NOT_FOUND, &["this node knows no device water/meter"]);
}

#[test]
fn data_goes_to_stdout_and_can_be_read_by_programs() {
    let cluster = Cluster::start();
    let edge = cluster.edge("a");
    cluster.apply(METER);
    let questions: [&[&str]; 5] = [
        &["status"],
        &["get", "nodes"],
        &["get", "devicemodels"],
        &["twin", "get"],
        &["twin", "get", "water/meter"],
    ];
    for question in questions {
        for format in ["table", "json", "yaml"] {
            let ran = cluster.cloud.run(&[question, &["-o", format]].concat()).expect(0);
            assert_eq!(ran.stderr, "", "{question:?} {format}");
            match format {
                "json" => drop(serde_json::from_str::<Value>(&ran.stdout).unwrap()),
                "yaml" => drop(serde_saphyr::from_str::<Value>(&ran.stdout).unwrap()),
                _ => assert!(ran.stdout.lines().count() >= 2, "{ran:?}"),
            }
        }
    }
    let token = cluster.cloud.ask(&["token", "create", "--site", "plant"]);
    assert!(token["token"].as_str().unwrap().starts_with("kb1."), "{token}");

    let status = edge.ask(&["status"]);
    assert_eq!(status["node"], "spiffe://water/edge/a");
    assert_eq!(
        (&status["cloud"]["connected"], &status["overlay"]["interface"]),
        (&json!(true), &json!("off"))
    );
    assert_eq!(status["disk"]["state"], "ok");
}

/// One HTTP request on the admin socket, as any tool could make it.
fn http(node: &Node, path: &str) -> (String, String) {
    let mut stream = UnixStream::connect(node.data_dir().join("admin.sock")).unwrap();
    stream.set_read_timeout(Some(crate::process::PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: kubebus\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn health_and_metrics_are_on_the_admin_socket() {
    let cluster = Cluster::start();
    let edge = cluster.edge("a");
    for node in [&cluster.cloud, &edge] {
        assert_eq!(http(node, "/healthz"), ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
        let (status, metrics) = http(node, "/metrics");
        assert_eq!(status, "HTTP/1.1 200 OK");
        let own = format!("kubebus_link_frames_sent_total{{node=\"{}/{}\"", node.role, node.name);
        let count =
            metrics.lines().find(|line| line.starts_with(&own)).and_then(|line| line.rsplit_once(' '));
        assert!(count.unwrap().1.parse::<u64>().unwrap() > 0, "{metrics}");
        assert_eq!(http(node, "/kubebus/v1/nothing").0, "HTTP/1.1 404 Not Found");
        assert_eq!(http(node, "/nothing").0, "HTTP/1.1 404 Not Found");
    }
}

#[test]
fn a_nodes_files_are_its_owners_alone() {
    let cluster = Cluster::start();
    let edge = cluster.edge("a");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for node in [&cluster.cloud, &edge] {
        assert_eq!(mode(&node.data_dir()), 0o700);
        assert_eq!(mode(&node.data_dir().join("admin.sock")), 0o600);
    }
    assert_eq!(mode(&edge.data_dir().join("node.key.der")), 0o600);
}

#[test]
fn a_configuration_without_sense_is_named() {
    let room = tempfile::tempdir().unwrap();
    let node = Node::new("cloud", "cloud", room.path(), QUICK_LINK);
    let config = node.config();
    let shown = config.to_str().unwrap();
    for (text, word) in [
        ("link: {keepalives: 15s}", "keepalives"),
        ("link: {idle: soon}", "soon"),
        ("mqtt: {listen: here}", "socket address"),
        ("cloud: {cluster: Water}", "Water"),
        ("overlay: {{", "line 1"),
    ] {
        std::fs::write(&config, text).unwrap();
        node.run(&["cloud"]).refused(USAGE, &[shown, word]);
    }
    std::fs::remove_file(&config).unwrap();
    node.run(&["cloud"]).refused(USAGE, &[shown, "No such file"]);
}

//! The mapper's program, which is the SDK's command line: what it prints, how it ends, and what a broker with passwords
//! (mosquitto) and a schema checker (Python's jsonschema: `cargo xtask python`) say to it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const TANK: &str = "
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: tank, namespace: water}
spec:
  properties:
    - {name: level, type: DOUBLE, unit: m, visitors: {configData: {waveform: constant, max: 3}}}
    - {name: count, type: INT, visitors: {configData: {waveform: constant, max: 7}}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: tank, namespace: water}
spec: {deviceModelRef: {name: tank}, nodeName: a, protocol: {protocolName: virtual}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: meter, namespace: water}
spec: {deviceModelRef: {name: tank}, nodeName: a, protocol: {protocolName: modbus}}
";

/// For a program to end and for a thing to come true, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn mapper(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubebus-mapper-virtual"));
    command.args(args);
    for variable in ["KUBEBUS_BROKER", "KUBEBUS_LOG", "KUBEBUS_MQTT_USER", "KUBEBUS_MQTT_PASSWORD"] {
        command.env_remove(variable);
    }
    command
}

/// Exit code, stdout and stderr.
fn ran(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn file(dir: &tempfile::TempDir, text: &str) -> String {
    let path = dir.path().join("tank.yaml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_manifest_is_checked_and_each_fault_names_file_device_and_field() {
    let dir = tempfile::tempdir().unwrap();
    let good = file(&dir, TANK);
    assert_eq!(
        ran(mapper(&["check", &good])),
        (Some(0), format!("{good}: water/tank: 2 properties\n"), String::new())
    );
    let (code, _, told) = ran(mapper(&["check", &good, "--name", "opcua"]));
    assert!(
        code == Some(2) && told.contains("no device of opcua") && told.contains("only of modbus, virtual"),
        "{told}"
    );
    let bad = file(
        &dir,
        &TANK.replace("max: 7", "max: seven").replace(
            "{name: tank}, nodeName: a, protocol: {protocolName: modbus}",
            "{name: tonk}, protocol: {protocolName: virtual}",
        ),
    );
    let (code, out, told) = ran(mapper(&["check", &bad]));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    for words in
        [&bad, "water/tank: properties.count.address", "water/meter: spec.deviceModelRef: water/tonk"]
    {
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn values_are_read_without_broker_or_node() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir, TANK);
    let (code, out, told) = ran(mapper(&["read", &file]));
    assert_eq!(code, Some(0), "{out}{told}");
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().take(4).collect()).collect();
    assert_eq!(rows[0], ["DEVICE", "PROPERTY", "VALUE", "UNIT"]);
    assert_eq!(rows[1], ["water/tank", "level", "3", "m"]);
    assert_eq!(rows[2][..3], ["water/tank", "count", "7"]);
    let (code, _, told) = ran(mapper(&["read", &file, "--device", "water/tonk"]));
    assert!(code == Some(2) && told.contains("water/tonk"), "{told}");
}

#[test]
fn a_device_that_cannot_be_read_is_a_row_without_value() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        TANK.replace("{protocolName: virtual}", "{protocolName: virtual, configData: {socket: /nowhere/s}}");
    let (code, out, told) = ran(mapper(&["read", &file(&dir, &text), "--for", "2s"]));
    assert_eq!(code, Some(1), "{out}{told}");
    assert!(out.lines().skip(1).all(|row| row.contains("not read")), "{out}");
    assert!(told.contains("2 of 2 properties were not read"), "{told}");
}

/// Reads a document and an instance as JSON lines, and fails if the one does not allow the other.
const VALIDATE: &str = "\
import json, sys
from jsonschema import Draft202012Validator as Validator
document = json.loads(sys.stdin.readline())
for key in ('connection', 'address'):
    Validator.check_schema(document[key])
for key, instance, fits in json.loads(sys.stdin.readline()):
    assert Validator(document[key]).is_valid(instance) == fits, (key, instance)
";

#[test]
fn its_schemas_are_schemas_and_say_what_it_takes() {
    let (code, out, told) = ran(mapper(&["schema"]));
    assert_eq!((code, told.as_str()), (Some(0), ""));
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["protocol"], "virtual");
    let instances = serde_json::json!([
        ["connection", {"socket": "/run/water/valve.sock"}, true],
        ["connection", {"socket": 7}, false],
        ["address", {"register": "position", "scale": 0.1, "shift": -40}, true],
        ["address", {"register": "position", "scale": "0.1"}, false],
        ["address", 7, false],
    ]);
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/venv/bin/python");
    assert!(python.is_file(), "{} is not there: run `cargo xtask python`", python.display());
    let mut child = Command::new(python).args(["-c", VALIDATE]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{document}\n{instances}\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn it_serves_behind_a_password_until_it_is_told_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir, "mapper/virtual", "secret");
    let password = dir.path().join("secret");
    std::fs::write(&password, "secret\n").unwrap();
    let address = format!("127.0.0.1:{}", broker.port);
    let mut states = broker.listen("mapper/virtual/state");
    let args = ["--broker", &address, "--password-file", password.to_str().unwrap(), "--log", "warn"];
    let mut running = mapper(&args).spawn().unwrap();
    let said = |states: &mut BufReader<_>| {
        let mut line = String::new();
        states.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(said(&mut states), "online\n");
    kill_process(Pid::from_child(&running), Signal::TERM).unwrap();
    assert_eq!(said(&mut states), "offline\n");
    let start = Instant::now();
    while running.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(running.wait().unwrap().code(), Some(0));
}

/// Mosquitto with one user, and whoever listens to it; all end with the test.
struct Broker {
    port: u16,
    user: String,
    password: String,
    processes: std::cell::RefCell<Vec<Child>>,
}

impl Broker {
    fn start(dir: &tempfile::TempDir, user: &str, password: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let [passwords, config] = ["passwords", "mosquitto.conf"].map(|name| dir.path().join(name));
        let made =
            tool("mosquitto_passwd").args(["-b", "-c"]).arg(&passwords).args([user, password]).status();
        assert!(made.expect("these tests need mosquitto: apt-get install mosquitto").success());
        // It lowers its rights when root starts it.
        let text = format!(
            "user root\nlistener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n",
            passwords.display()
        );
        std::fs::write(&config, text).unwrap();
        let process = tool("mosquitto").arg("-c").arg(&config).stderr(Stdio::null()).spawn().unwrap();
        let broker =
            Self { port, user: user.into(), password: password.into(), processes: vec![process].into() };
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < PATIENCE, "mosquitto does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        broker
    }

    /// What is said on a topic, a line each.
    fn listen(&self, topic: &str) -> BufReader<impl Read + use<>> {
        let mut command = tool("mosquitto_sub");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-u",
            &self.user,
            "-P",
            &self.password,
        ]);
        command.args(["-q", "1", "-W", &PATIENCE.as_secs().to_string(), "-t", topic]).stdout(Stdio::piped());
        let mut process =
            command.spawn().expect("these tests need mosquitto_sub: apt-get install mosquitto-clients");
        let lines = BufReader::new(process.stdout.take().unwrap());
        self.processes.borrow_mut().push(process);
        lines
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for process in self.processes.get_mut() {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// Debian keeps servers in sbin, which is not on everybody's path.
fn tool(name: &str) -> Command {
    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(name);
    command.env("PATH", path);
    command
}

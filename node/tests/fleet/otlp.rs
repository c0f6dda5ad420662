//! A node and a collector that reads by OpenTelemetry's own messages: `collector.py`, which needs `cargo xtask python`.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::harness::{Cluster, QUICK_LINK};

struct Collector {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Collector {
    fn start(room: &Path) -> Self {
        let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/venv/bin/python");
        assert!(python.is_file(), "{} is not there: run `cargo xtask python`", python.display());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fleet/collector.py");
        let mut command = Command::new(python);
        let mut process = command.args(["-Bu", script]).arg(room).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// What it says next; nextest's own limit ends a wait that is none.
    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("the collector ended").unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_collector_is_sent_metrics_and_the_log_over_tls() {
    let room = tempfile::tempdir().unwrap();
    let mut collector = Collector::start(room.path());
    let begun = collector.next();
    let telemetry = format!(
        "telemetry: {{otlp: 'https://127.0.0.1:{}/otlp', ca: {}, logs: info, interval: 10s}}\n",
        begun["port"], begun["ca"]
    );
    let mut cluster = Cluster::start_cloud(QUICK_LINK, |cloud| {
        let config = std::fs::read_to_string(cloud.config()).unwrap() + &telemetry;
        std::fs::write(cloud.config(), config).unwrap();
        cloud
    });
    let (mut metrics, mut logs) = (Vec::<Value>::new(), Vec::<Value>::new());
    while metrics.is_empty() || logs.is_empty() {
        let told = collector.next();
        assert_eq!(told["wrong"], Value::Null, "{told}");
        metrics.extend(told["metrics"].as_array().into_iter().flatten().cloned());
        logs.extend(told["logs"].as_array().into_iter().flatten().cloned());
        assert!(told["logs"].is_array() || told["nodes"][0] == "cloud/cloud", "{told}");
    }
    assert!(metrics.contains(&"kubebus_node_up".into()), "{metrics:?}");
    // What a node says last is sent too, and nothing of what it said about sending.
    let (status, _) = cluster.cloud.terminate();
    assert!(status.success(), "{status}");
    while !logs.contains(&"stopping".into()) {
        let told = collector.next();
        assert_eq!(told["wrong"], Value::Null, "{told}");
        logs.extend(told["logs"].as_array().into_iter().flatten().cloned());
    }
    assert!(
        !logs.iter().any(|line| line.as_str().is_some_and(|line| line.contains("sent by OTLP"))),
        "{logs:?}"
    );
}

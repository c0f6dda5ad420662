//! A script beside this file, and the nodes that it speaks to.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Cluster, Node};

/// Where the device of a script listens, at its edge's own address.
const DEVICE: u16 = 21555;
/// Where the edge's broker speaks TLS.
const TLS: u16 = 21884;

const MANIFESTS: &str = include_str!("manifests.yaml");

pub(crate) fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../python")
}

/// The interpreter with everything installed that `xtask/python.txt` names, and the package beside it.
pub(crate) fn python() -> Command {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/venv/bin/python");
    assert!(python.is_file(), "{} is not there: run `cargo xtask python`", python.display());
    let mut command = Command::new(python);
    command.arg("-Bu").env("PYTHONPATH", package().join("src"));
    command
}

/// A cloud, and an edge with the devices of `manifests.yaml`.
pub(crate) struct Site {
    cluster: Cluster,
    a: Node,
}

impl Site {
    #[track_caller]
    pub(crate) fn start() -> Self {
        let cluster = Cluster::start();
        let edge = cluster.stranger("a");
        let config = std::fs::read_to_string(edge.config()).unwrap();
        let listener = format!("mqtt: {{listeners: [{{address: '{}:{TLS}', tls: {{}}}}], ", edge.mqtt().ip());
        std::fs::write(edge.config(), config.replace("mqtt: {", &listener)).unwrap();
        let a = cluster.admit(edge);
        let certificate = cluster.path("alice");
        cluster.cloud.say(&["mqtt", "certificate", "user/alice", "--out", certificate.to_str().unwrap()]);
        let site = Self { cluster, a };
        site.cluster.apply(&MANIFESTS.replace("ADDRESS", &site.device()));
        site.cluster.in_step("a");
        site
    }

    fn device(&self) -> String {
        format!("{}:{DEVICE}", self.a.mqtt().ip())
    }

    /// Runs the script and does what it asks for; one that does not hold fails the test with its tracebacks.
    #[track_caller]
    pub(crate) fn holds(&mut self, script: &str) {
        let mut command = python();
        // Not captured: it speaks to us by its standard streams.
        command.args(["-m", "pytest", "-q", "-s", "--tb=native", "-p", "no:cacheprovider", script]);
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python"));
        command.env("KUBEBUS_EDGE", self.a.mqtt().to_string());
        command.env("KUBEBUS_CLOUD", self.cluster.cloud.mqtt().to_string());
        command.env("KUBEBUS_DEVICE", self.device());
        command.env("KUBEBUS_TLS", format!("{}:{TLS}", self.a.mqtt().ip()));
        command.env("KUBEBUS_CERTIFICATES", self.cluster.path("alice"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut answers = process.stdin.take().unwrap();
        let mut said = String::new();
        for line in BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok) {
            match line.strip_prefix('@').and_then(|order| order.split_once(' ')) {
                Some(order) => {
                    self.obey(order);
                    writeln!(answers, "done").unwrap();
                }
                None => said += &format!("{line}\n"),
            }
        }
        assert!(process.wait().unwrap().success(), "{said}");
        for node in [&self.a, &self.cluster.cloud] {
            assert!(node.panics().is_empty(), "{:#?}", node.panics());
        }
    }

    fn obey(&mut self, (verb, what): (&str, &str)) {
        match (verb, what) {
            ("kill", "a") => self.a.kill(),
            ("start", "a") => self.a.start(),
            ("freeze", "a") => self.signal(Signal::STOP),
            ("thaw", "a") => self.signal(Signal::CONT),
            ("apply", manifests) => drop(self.cluster.apply(&manifests.replace("\\n", "\n"))),
            _ => panic!("the script asks for '{verb} {what}'"),
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.a.pid().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

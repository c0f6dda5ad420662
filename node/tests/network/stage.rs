//! A cloud in the open, two edges behind NATs, and their processes.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use ipnet::Ipv4Net;
use lab::io::{Namespace, Wire, enter_user_namespace};
use lab::{Attachment, LinkSettings, NatKind, NatSettings, PortId};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const CLOUD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// Silence is noticed soon: `kill -9` says no goodbye.
pub(crate) const CONFIG: &str = "
cloud: {cluster: water, name: hq}
link: {keepalive: 1s, idle: 5s}
mqtt: {listen: '127.0.0.1:1883'}
";

/// The order of fields is that of dropping: processes, then their network, then their files.
pub(crate) struct Stage {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) cloud: Node,
    pub(crate) wire: Wire,
    /// Of the cloud, `a` and `b`.
    pub(crate) ports: [PortId; 3],
    _room: TempDir,
}

impl Stage {
    /// Both edges have joined, each for a site of its own, and everything runs.
    pub(crate) fn build() -> Self {
        Self::build_with(CONFIG)
    }

    /// The same, with another configuration of all nodes.
    pub(crate) fn build_with(config: &str) -> Self {
        enter_user_namespace().unwrap();
        let (wire, room) = (Wire::start(7).unwrap(), tempfile::tempdir().unwrap());
        let mut cloud = Node::new("cloud", "hq", room.path());
        cloud.configure(config);
        let at_cloud = attach(&wire, &cloud.network, CLOUD, None);
        cloud.start();
        let [(a, at_a), (b, at_b)] = [("a", 21), ("b", 22)].map(|(name, last)| {
            let mut edge = Node::new("edge", name, room.path());
            edge.configure(config);
            let port = attach_behind(NatKind::PortRestricted, &wire, &edge.network, last);
            let token = cloud.command(&["token", "create", "--site", &format!("site-{name}")]).expect(0);
            edge.command(&["join", &CLOUD.to_string(), "--token", token.trim(), "--name", name]).expect(0);
            edge.start();
            (edge, port)
        });
        Self { a, b, cloud, wire, ports: [at_cloud, at_a, at_b], _room: room }
    }
}

/// Behind a NAT at `203.0.113.<last>`, as `192.168.<last>.2`.
pub(crate) fn attach_behind(kind: NatKind, wire: &Wire, network: &Namespace, last: u8) -> PortId {
    let inside = Ipv4Net::new(Ipv4Addr::new(192, 168, last, 2), 24).unwrap();
    attach(wire, network, Ipv4Addr::new(203, 0, 113, last), Some(NatSettings { kind, inside }))
}

pub(crate) fn attach(wire: &Wire, network: &Namespace, public: Ipv4Addr, nat: Option<NatSettings>) -> PortId {
    let name = network.name().to_owned();
    wire.attach(network, Attachment { name, public, nat, link: LinkSettings::default() }).unwrap()
}

pub(crate) struct Node {
    pub(crate) network: Namespace,
    role: &'static str,
    dir: PathBuf,
    process: Option<Child>,
}

impl Node {
    pub(crate) fn new(role: &'static str, name: &str, room: &Path) -> Self {
        Self::within(Namespace::create(name).unwrap(), role, name, room)
    }

    pub(crate) fn within(network: Namespace, role: &'static str, name: &str, room: &Path) -> Self {
        let dir = room.join(name);
        std::fs::create_dir(&dir).unwrap();
        let node = Self { network, role, dir, process: None };
        node.configure(CONFIG);
        node
    }

    /// Writes its configuration, which is read at the next start.
    pub(crate) fn configure(&self, config: &str) {
        std::fs::write(self.dir.join("kubebus.yaml"), config).unwrap();
    }

    fn kubebus(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubebus"));
        command.args(args).arg("--config").arg(self.dir.join("kubebus.yaml"));
        command.arg("--data-dir").arg(self.dir.join("data")).env_remove("KUBEBUS_LOG");
        self.network.command(&mut command);
        command
    }

    /// Starts the node, or starts it again, and waits until it answers.
    pub(crate) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut command = self.kubebus(&[self.role]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let is_up = || self.kubebus(&["status"]).output().unwrap().status.success().then_some(());
        crate::eventually(&format!("{} answers", self.dir.display()), is_up);
    }

    /// Of the running process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Ran {
        Ran(self.kubebus(args).output().unwrap())
    }

    pub(crate) fn apply(&self, manifest: &str) {
        let file = self.dir.join("manifest.yaml");
        std::fs::write(&file, manifest).unwrap();
        self.command(&["apply", "-f", file.to_str().unwrap()]).expect(0);
    }

    pub(crate) fn status(&self) -> Value {
        self.json(&["status"])
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["-o", "json"]].concat();
        serde_json::from_str(&self.command(&args).expect(0)).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            eprintln!("--- log of {}\n{log}", self.dir.display());
        }
    }
}

/// What a command said.
pub(crate) struct Ran(Output);

impl Ran {
    /// It ended with `code`; what it printed.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> String {
        assert_eq!(self.0.status.code(), Some(code), "{:?}", self.0);
        String::from_utf8(self.0.stdout).unwrap()
    }

    /// It ended with `code`; what it told beside its output.
    #[track_caller]
    pub(crate) fn expect_told(self, code: i32) -> String {
        assert_eq!(self.0.status.code(), Some(code), "{:?}", self.0);
        String::from_utf8(self.0.stderr).unwrap()
    }

    pub(crate) fn ended_with(&self, code: i32) -> bool {
        self.0.status.code() == Some(code)
    }
}

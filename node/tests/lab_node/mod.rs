//! Nodes as processes, each in a network of its own on the lab's wire: what the suites over the lab share.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use lab::io::{Namespace, Wire};
use lab::{Attachment, LinkSettings, NatKind, NatSettings, PortId};
use serde_json::Value;

/// Where the cloud is.
pub(crate) const CLOUD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// Silence is noticed soon: `kill -9` says no goodbye.
pub(crate) const CONFIG: &str = "
cloud: {cluster: water, name: hq}
link: {keepalive: 1s, idle: 5s}
mqtt: {listen: '127.0.0.1:1883'}
";

/// For one thing to come true: many times what an idle machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

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
    name: String,
    dir: PathBuf,
    process: Option<Child>,
}

impl Node {
    /// Its files are below `room`; it runs with [`CONFIG`] until something else is configured.
    pub(crate) fn new(role: &'static str, name: &str, room: &Path) -> Self {
        Self::within(Namespace::create(name).unwrap(), role, name, room)
    }

    pub(crate) fn within(network: Namespace, role: &'static str, name: &str, room: &Path) -> Self {
        let dir = room.join(name);
        std::fs::create_dir(&dir).unwrap();
        let node = Self { network, role, name: name.to_owned(), dir, process: None };
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

    /// Joins a running cloud at its well-known address with a token for `site` and these LANs, and starts.
    pub(crate) fn join(&mut self, cloud: &Self, site: &str, lans: &[&str]) {
        let mut create = vec!["token", "create", "--site", site];
        create.extend(lans.iter().flat_map(|lan| ["--lan", lan]));
        let token = cloud.command(&create).expect(0);
        let at = CLOUD.to_string();
        self.command(&["join", &at, "--token", token.trim(), "--name", &self.name]).expect(0);
        self.start();
    }

    /// Starts the node, or starts it again, and waits until it answers.
    pub(crate) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut command = self.kubebus(&[self.role]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let is_up = || self.kubebus(&["status"]).output().unwrap().status.success().then_some(());
        eventually(&format!("{} answers", self.dir.display()), is_up);
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

    /// Its IPv4 address on the overlay, once it has one.
    pub(crate) fn address(&self) -> IpAddr {
        eventually("a lease", || self.status()["overlay"]["addresses"][0].as_str()?.parse().ok())
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
        self.expect_both(code).0
    }

    /// It ended with `code`; what it printed, and what it told beside that.
    #[track_caller]
    pub(crate) fn expect_both(self, code: i32) -> (String, String) {
        assert_eq!(self.0.status.code(), Some(code), "{:?}", self.0);
        (String::from_utf8(self.0.stdout).unwrap(), String::from_utf8(self.0.stderr).unwrap())
    }

    pub(crate) fn ended_with(&self, code: i32) -> bool {
        self.0.status.code() == Some(code)
    }
}

/// Looks until it is there.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

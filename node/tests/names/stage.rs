//! A cloud in the open, two plants behind NATs that have the same LAN, and their processes.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use lab::io::lan::{LanAddress, LanLink, connect};
use lab::io::{Namespace, Wire, enter_user_namespace};
use lab::{Attachment, LinkSettings, NatKind, NatSettings};
use serde_json::Value;
use tempfile::TempDir;

const CLOUD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// For one thing to come true: many times what an idle machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

const LAN: &str = "192.168.10.0/24";

/// Behind B too, and no token grants it.
pub(crate) const YARD: &str = "172.30.0.0/24";

/// The order of fields is that of dropping: processes, then their network, then their files.
pub(crate) struct Stage {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) cloud: Node,
    /// On the LAN of plant B.
    pub(crate) host: Namespace,
    /// Beside it, on a LAN that only B's configuration names.
    pub(crate) stranger: Namespace,
    _wire: Wire,
    _room: TempDir,
}

impl Stage {
    pub(crate) fn build() -> Self {
        enter_user_namespace().unwrap();
        let (wire, room) = (Wire::start(7).unwrap(), tempfile::tempdir().unwrap());
        let mut cloud = Node::new("cloud", "hq", "dns: {enabled: true}", room.path());
        attach(&wire, &cloud.network, CLOUD, None);
        cloud.start();
        let of_b = format!("dns: {{enabled: true, upstream: ['127.0.0.1:5353']}}\nedge: {{lans: [{YARD}]}}");
        let [a, b] = [("a", 21, "dns: {enabled: true}"), ("b", 22, &of_b)].map(|(name, last, config)| {
            let mut edge = Node::new("edge", name, config, room.path());
            let inside = Ipv4Net::new(Ipv4Addr::new(172, 29, last, 2), 24).unwrap();
            let nat = NatSettings { kind: NatKind::PortRestricted, inside };
            attach(&wire, &edge.network, Ipv4Addr::new(203, 0, 113, last), Some(nat));
            let site = format!("plant-{name}");
            let token = cloud.command(&["token", "create", "--site", &site, "--lan", LAN]);
            edge.command(&["join", &CLOUD.to_string(), "--token", token.trim(), "--name", name]);
            edge.start();
            edge
        });
        let host = beside(&b, "plc", [Ipv4Addr::new(192, 168, 10, 1), Ipv4Addr::new(192, 168, 10, 20)]);
        let stranger = beside(&b, "stranger", [Ipv4Addr::new(172, 30, 0, 1), Ipv4Addr::new(172, 30, 0, 9)]);
        Self { a, b, cloud, host, stranger, _wire: wire, _room: room }
    }

    /// By what the overlay knows a host of plant B.
    pub(crate) fn virtual_address_at_b(&self, host: u8) -> String {
        let routes = self.cloud.json(&["route", "list"]);
        let is_lan = |route: &&Value| route["owner"] == "edge/b" && route["real"] == LAN;
        let route = routes.as_array().unwrap().iter().find(is_lan).unwrap();
        route["prefix"].as_str().unwrap().replace(".0/24", &format!(".{host}"))
    }
}

fn attach(wire: &Wire, network: &Namespace, public: Ipv4Addr, nat: Option<NatSettings>) {
    let name = network.name().to_owned();
    wire.attach(network, Attachment { name, public, nat, link: LinkSettings::default() }).unwrap();
}

fn beside(edge: &Node, name: &str, [gateway, host]: [Ipv4Addr; 2]) -> Namespace {
    let namespace = Namespace::create(name).unwrap();
    let addresses = vec![LanAddress { gateway: IpAddr::V4(gateway), host: IpAddr::V4(host) }];
    let link =
        LanLink { gateway_interface: format!("to-{name}"), host_interface: "eth0".to_owned(), addresses };
    connect(&edge.network, &namespace, &link).unwrap();
    namespace
}

pub(crate) struct Node {
    pub(crate) network: Namespace,
    role: &'static str,
    dir: PathBuf,
    process: Option<Child>,
}

impl Node {
    fn new(role: &'static str, name: &str, more: &str, room: &Path) -> Self {
        let dir = room.join(name);
        std::fs::create_dir(&dir).unwrap();
        // Silence is noticed soon: `kill -9` says no goodbye.
        let config = format!(
            "cloud: {{cluster: water, name: hq}}\nlink: {{keepalive: 1s, idle: 5s}}\nmqtt: {{listen: '127.0.0.1:1883'}}\n\
             {more}\n"
        );
        std::fs::write(dir.join("kubebus.yaml"), config).unwrap();
        Self { network: Namespace::create(name).unwrap(), role, dir, process: None }
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
        eventually(&format!("{} answers", self.dir.display()), is_up);
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// What a command that succeeds prints.
    #[track_caller]
    pub(crate) fn command(&self, args: &[&str]) -> String {
        let output = self.kubebus(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.command(&[args, &["-o", "json"]].concat())).unwrap()
    }

    pub(crate) fn status(&self) -> Value {
        self.json(&["status"])
    }

    /// The node's IPv4 address on the overlay, once it has one.
    pub(crate) fn address(&self) -> String {
        eventually("a lease", || Some(self.status()["overlay"]["addresses"][0].as_str()?.to_owned()))
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

/// The data of the records that a server has, asked with `dig` from within a network.
pub(crate) fn dig(network: &Namespace, server: &str, args: &[&str]) -> String {
    dig_all(network, server, &[args, &["+short"]].concat())
}

/// All that `dig` prints.
pub(crate) fn dig_all(network: &Namespace, server: &str, args: &[&str]) -> String {
    let mut command = Command::new("dig");
    command.arg(format!("@{server}")).args(["+tries=1", "+time=5"]).args(args);
    let output = network.command(&mut command).output();
    let output = output.expect("dig starts: apt-get install bind9-dnsutils, or run cargo xtask test");
    String::from_utf8(output.stdout).unwrap()
}

/// Looks until it is there.
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

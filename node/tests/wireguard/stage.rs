//! A cloud and two edges, one of them in the open, each edge with a host in a LAN behind it, and their processes.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use ipnet::Ipv4Net;
use lab::io::lan::{LanAddress, LanLink, connect};
use lab::io::probe::EchoServer;
use lab::io::{Namespace, Wire, enter_user_namespace};
use lab::{Attachment, LinkSettings, NatKind, NatSettings};
use router::io::Netlink;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::Value;
use tempfile::TempDir;

const CLOUD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const GATE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 22);
const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 23);

/// Namespaces for user, network and mounts, with a /run of its own: WireGuard's control sockets are there.
#[expect(unsafe_code, reason = "rustix has no safe unshare")]
pub(crate) fn enter() {
    enter_user_namespace().unwrap();
    // SAFETY: unsafe only with FILES, which is not passed: no thread loses sight of a descriptor.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), c"mode=755").unwrap();
}

/// Whether the backend can be had here.
pub(crate) fn probe(backend: &str) -> Result<(), String> {
    if backend == "userspace" {
        return Ok(());
    }
    let network = Namespace::create("probe").unwrap();
    let made = network.run(|| Netlink::open().unwrap().wireguard_create("wg0", network.as_fd())).unwrap();
    made.map_err(|error| bus::with_causes(&error))
}

/// The order of fields is that of dropping: processes, then their network, then their files.
pub(crate) struct Stage {
    pub(crate) cloud: Node,
    /// A gateway with a public address, at the site `plant`.
    pub(crate) gate: Node,
    /// Behind a NAT, at the site `depot`.
    pub(crate) far: Node,
    pub(crate) wire: Wire,
    _room: TempDir,
}

impl Stage {
    /// All have joined, and run.
    pub(crate) fn build(backend: &str) -> Self {
        let (wire, room) = (Wire::start(11).unwrap(), tempfile::tempdir().unwrap());
        let gateway_with = |backend: &str, at: Ipv4Addr, interface: &str| {
            format!("{{listen: 51820, endpoint: '{at}:51820', interface: {interface}, backend: {backend}}}")
        };
        let gateway = |at, interface| gateway_with(backend, at, interface);
        let mut cloud = Node::new("cloud", "hq", 9, &gateway(CLOUD, "kbwg-hq"), room.path());
        attach(&wire, &cloud.network, CLOUD, None);
        cloud.start();
        let mut gate = Node::new("edge", "gate", 10, &gateway(GATE, "kbwg-gate"), room.path());
        attach(&wire, &gate.network, GATE, None);
        gate.join(&cloud, "plant");
        let mut far = Node::new("edge", "far", 20, &gateway_with("kernel", FAR, "kbwg-far"), room.path());
        let inside = Ipv4Net::new(Ipv4Addr::new(192, 168, 99, 2), 24).unwrap();
        attach(&wire, &far.network, FAR, Some(NatSettings { kind: NatKind::PortRestricted, inside }));
        far.join(&cloud, "depot");
        Self { cloud, gate, far, wire, _room: room }
    }

    /// On the hosts in the LANs, on the cloud's own addresses, and where the internet is.
    pub(crate) fn servers(&self) -> Vec<EchoServer> {
        let at = |network: &Namespace, address: IpAddr| {
            EchoServer::start(network, SocketAddr::new(address, crate::PORT)).unwrap()
        };
        let hosts = [&self.gate, &self.far].into_iter();
        let lans = hosts.flat_map(|node| node.lan().map(|address| (&node.host, address)));
        let cloud = [(&self.cloud.network, self.cloud.address())];
        let internet = [(&self.gate.network, IpAddr::V4(GATE))];
        lans.chain(cloud).chain(internet).map(|(network, address)| at(network, address)).collect()
    }
}

pub(crate) fn attach(wire: &Wire, network: &Namespace, public: Ipv4Addr, nat: Option<NatSettings>) {
    let name = network.name().to_owned();
    wire.attach(network, Attachment { name, public, nat, link: LinkSettings::default() }).unwrap();
}

pub(crate) struct Node {
    pub(crate) network: Namespace,
    /// In the LAN behind it.
    pub(crate) host: Namespace,
    role: &'static str,
    name: String,
    /// The LAN is 192.168.`lan`.0/24 and fd`lan`::/64.
    lan: u8,
    dir: PathBuf,
    process: Option<Child>,
}

impl Node {
    /// Silence is noticed soon: `kill -9` says no goodbye.
    fn new(role: &'static str, name: &str, lan: u8, wireguard: &str, room: &Path) -> Self {
        let dir = room.join(name);
        std::fs::create_dir(&dir).unwrap();
        let config = format!(
            "cloud: {{cluster: water, name: hq}}\nlink: {{keepalive: 1s, idle: 5s}}\nmqtt: {{listen: '127.0.0.1:1883'}}\n\
             wireguard: {wireguard}\n"
        );
        std::fs::write(dir.join("kubebus.yaml"), config).unwrap();
        let network = Namespace::create(name).unwrap();
        let host = Namespace::create(&format!("{name}-host")).unwrap();
        let node = Self { network, host, role, name: name.to_owned(), lan, dir, process: None };
        node.connect_host();
        node
    }

    fn connect_host(&self) {
        let addresses = self.lan().map(|host| {
            let gateway = match host {
                IpAddr::V4(_) => format!("192.168.{}.1", self.lan),
                IpAddr::V6(_) => format!("fd{}::1", self.lan),
            };
            LanAddress { gateway: gateway.parse().unwrap(), host }
        });
        let link = LanLink {
            gateway_interface: "lan0".to_owned(),
            host_interface: "eth0".to_owned(),
            addresses: addresses.to_vec(),
        };
        connect(&self.network, &self.host, &link).unwrap();
    }

    /// The host's addresses.
    pub(crate) fn lan(&self) -> [IpAddr; 2] {
        [format!("192.168.{}.20", self.lan), format!("fd{}::20", self.lan)].map(|text| text.parse().unwrap())
    }

    fn join(&mut self, cloud: &Self, site: &str) {
        let lans = [format!("192.168.{}.0/24", self.lan), format!("fd{}::/64", self.lan)];
        let args = ["token", "create", "--site", site, "--lan", &lans[0], "--lan", &lans[1]];
        let token = cloud.command(&args).expect(0);
        let at = CLOUD.to_string();
        self.command(&["join", &at, "--token", token.trim(), "--name", &self.name]).expect(0);
        self.start();
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

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["-o", "json"]].concat();
        serde_json::from_str(&self.command(&args).expect(0)).unwrap()
    }

    /// Its IPv4 address on the overlay, once it has one.
    pub(crate) fn address(&self) -> IpAddr {
        let look = || self.json(&["status"])["overlay"]["addresses"][0].as_str()?.parse().ok();
        crate::eventually("a lease", look)
    }

    /// Its gateway's.
    pub(crate) fn public_key(&self) -> String {
        self.json(&["status"])["wireguard"]["public_key"].as_str().unwrap().to_owned()
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
}

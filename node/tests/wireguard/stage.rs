//! A cloud and two edges, one of them in the open, each edge with a host in a LAN behind it, and their processes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::path::Path;

use ipnet::Ipv4Net;
use lab::io::lan::{LanAddress, LanLink, connect};
use lab::io::probe::EchoServer;
use lab::io::{Namespace, Wire, enter_user_namespace};
use lab::{NatKind, NatSettings};
use router::io::Netlink;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::TempDir;

use crate::lab_node::{CLOUD, CONFIG, Node, attach};

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
    pub(crate) cloud: Gateway,
    /// A gateway with a public address, at the site `plant`.
    pub(crate) gate: Gateway,
    /// Behind a NAT, at the site `depot`.
    pub(crate) far: Gateway,
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
        let mut cloud = Gateway::new("cloud", "hq", 9, &gateway(CLOUD, "kbwg-hq"), room.path());
        attach(&wire, &cloud.network, CLOUD, None);
        cloud.start();
        let mut gate = Gateway::new("edge", "gate", 10, &gateway(GATE, "kbwg-gate"), room.path());
        attach(&wire, &gate.network, GATE, None);
        gate.join_as(&cloud, "plant");
        let mut far = Gateway::new("edge", "far", 20, &gateway_with("kernel", FAR, "kbwg-far"), room.path());
        let inside = Ipv4Net::new(Ipv4Addr::new(192, 168, 99, 2), 24).unwrap();
        attach(&wire, &far.network, FAR, Some(NatSettings { kind: NatKind::PortRestricted, inside }));
        far.join_as(&cloud, "depot");
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

/// A node with a LAN behind it.
pub(crate) struct Gateway {
    node: Node,
    /// In the LAN behind it.
    pub(crate) host: Namespace,
    /// The LAN is 192.168.`lan`.0/24 and fd`lan`::/64.
    lan: u8,
}

impl Deref for Gateway {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl DerefMut for Gateway {
    fn deref_mut(&mut self) -> &mut Node {
        &mut self.node
    }
}

impl Gateway {
    fn new(role: &'static str, name: &str, lan: u8, wireguard: &str, room: &Path) -> Self {
        let node = Node::new(role, name, room);
        node.configure(&format!("{CONFIG}wireguard: {wireguard}\n"));
        let host = Namespace::create(&format!("{name}-host")).unwrap();
        let gateway = Self { node, host, lan };
        gateway.connect_host();
        gateway
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

    fn join_as(&mut self, cloud: &Node, site: &str) {
        let lans = [format!("192.168.{}.0/24", self.lan), format!("fd{}::/64", self.lan)];
        self.node.join(cloud, site, &[&lans[0], &lans[1]]);
    }

    /// Of its WireGuard.
    pub(crate) fn public_key(&self) -> String {
        self.status()["wireguard"]["public_key"].as_str().unwrap().to_owned()
    }
}

//! A cloud and three sites with a host of each kind behind them; two sites have the same LAN.
//!
//! ```text
//!   vm -- cloud -- container                  site hq: 10.50.1.0/24 and 10.60.1.0/24, with IPv6
//!           |
//!        internet --- NAT, full cone ------- edge a -- LAN 192.168.10.0/24, fd10::/64, and a container
//!             \  \--- NAT, port-restricted - edge b -- the same LAN, and a container
//!              \----- NAT, symmetric ------- edge c -- LAN 192.168.30.0/24, fd30::/64, and a container
//! ```

use std::net::IpAddr;

use ipnet::IpNet;
use lab::NatKind;
use lab::io::lan::{LanAddress, LanLink, connect};
use lab::io::{Namespace, Wire, enter_user_namespace};
use serde_json::Value;
use tempfile::TempDir;

use crate::lab_node::{CLOUD, CONFIG, Node, attach, attach_behind, eventually};

/// Something that has addresses on the overlay.
pub(crate) struct Host {
    pub(crate) label: String,
    pub(crate) site: String,
    pub(crate) network: Namespace,
    /// IPv4 and IPv6, as the host itself has them.
    home: [IpAddr; 2],
    /// The same, as other sites know them.
    abroad: [IpAddr; 2],
}

impl Host {
    /// One that has the same addresses everywhere.
    fn new(label: String, site: &str, network: &Namespace, home: [IpAddr; 2]) -> Self {
        Self { label, site: site.to_owned(), network: network.clone(), home, abroad: home }
    }

    pub(crate) fn home(&self) -> [IpAddr; 2] {
        self.home
    }

    /// By which addresses a host of `site` reaches it.
    pub(crate) fn addresses_from(&self, site: &str) -> [IpAddr; 2] {
        if self.site == site { self.home } else { self.abroad }
    }
}

/// The order of fields is that of dropping: processes, then their network, then their files.
pub(crate) struct Town {
    pub(crate) cloud: Node,
    pub(crate) edges: Vec<Node>,
    pub(crate) hosts: Vec<Host>,
    _wire: Wire,
    _room: TempDir,
}

/// An edge's name, its NAT, the last part of its public address, and the number of its LAN.
const EDGES: [(&str, NatKind, u8, u8); 3] = [
    ("a", NatKind::FullCone, 21, 10),
    ("b", NatKind::PortRestricted, 22, 10),
    ("c", NatKind::Symmetric, 23, 30),
];

impl Town {
    /// Everything has joined and runs.
    pub(crate) fn build() -> Self {
        enter_user_namespace().unwrap();
        let (wire, room) = (Wire::start(7).unwrap(), tempfile::tempdir().unwrap());
        let mut cloud = Node::new("cloud", "hq", room.path());
        let subnets = "vm-subnets: ['10.50.1.0/24', 'fd50:1::/64'], \
                       container-subnets: ['10.60.1.0/24', 'fd60:1::/64']}";
        cloud.configure(&CONFIG.replace("name: hq}", &format!("name: hq, {subnets}")));
        attach(&wire, &cloud.network, CLOUD, None);
        cloud.start();
        let edges: Vec<Node> = EDGES.map(|edge| Self::edge(edge, &cloud, &wire, &room)).into();
        let mut hosts = vec![
            Host::new("cloud".to_owned(), "hq", &cloud.network, overlay_addresses(&cloud)),
            behind(&cloud, "vm", "hq", &["10.50.1.0/24", "fd50:1::/64"].map(net)),
            behind(&cloud, "cloud-cont", "hq", &["10.60.1.0/24", "fd60:1::/64"].map(net)),
        ];
        for ((name, _, _, lan), edge) in EDGES.iter().zip(&edges) {
            let site = format!("site-{name}");
            hosts.push(Host::new(format!("edge-{name}"), &site, &edge.network, overlay_addresses(edge)));
            let containers = eventually("a lease", || list(&edge.status()["overlay"]["containers"]));
            hosts.push(behind(edge, &format!("cont-{name}"), &site, &containers.map(|text| net(&text))));
            let lans = lans(*lan).map(|text| net(&text));
            let mut host = behind(edge, &format!("lan-{name}"), &site, &lans);
            host.abroad = abroad(&cloud, name, lans, host.home);
            hosts.push(host);
        }
        Self { cloud, edges, hosts, _wire: wire, _room: room }
    }

    fn edge(
        (name, nat, last, lan): (&str, NatKind, u8, u8),
        cloud: &Node,
        wire: &Wire,
        room: &TempDir,
    ) -> Node {
        let mut edge = Node::new("edge", name, room.path());
        attach_behind(nat, wire, &edge.network, last);
        let ([v4, v6], site) = (lans(lan), format!("site-{name}"));
        let token =
            cloud.command(&["token", "create", "--site", &site, "--lan", &v4, "--lan", &v6]).expect(0);
        edge.command(&["join", &CLOUD.to_string(), "--token", token.trim(), "--name", name]).expect(0);
        edge.start();
        edge
    }
}

fn lans(number: u8) -> [String; 2] {
    [format!("192.168.{number}.0/24"), format!("fd{number}::/64")]
}

fn net(text: impl AsRef<str>) -> IpNet {
    text.as_ref().parse().unwrap()
}

fn list(value: &Value) -> Option<[String; 2]> {
    serde_json::from_value(value.clone()).ok()
}

fn overlay_addresses(node: &Node) -> [IpAddr; 2] {
    let addresses = eventually("a lease", || list(&node.status()["overlay"]["addresses"]));
    addresses.map(|address| address.parse().unwrap())
}

/// A host on a cable of its own behind `node`: the tenth address of each subnet, whose first is the node's.
fn behind(node: &Node, label: &str, site: &str, subnets: &[IpNet; 2]) -> Host {
    let network = Namespace::create(label).unwrap();
    let addresses = subnets.map(|subnet| LanAddress { gateway: nth(subnet, 1), host: nth(subnet, 10) });
    let link = LanLink {
        gateway_interface: label.to_owned(),
        host_interface: "eth0".to_owned(),
        addresses: addresses.into(),
    };
    connect(&node.network, &network, &link).unwrap();
    Host::new(label.to_owned(), site, &network, addresses.map(|address| address.host))
}

/// An address of a subnet by its host part.
fn nth(subnet: IpNet, host: u8) -> IpAddr {
    match subnet.network() {
        IpAddr::V4(first) => (u32::from(first) | u32::from(host)).to_be_bytes().into(),
        IpAddr::V6(first) => (u128::from(first) | u128::from(host)).to_be_bytes().into(),
    }
}

/// What the cloud says a host is known by, whose LAN may be known by a virtual prefix.
fn abroad(cloud: &Node, edge: &str, lans: [IpNet; 2], home: [IpAddr; 2]) -> [IpAddr; 2] {
    let routes = cloud.json(&["route", "list"]);
    let routes = routes.as_array().unwrap();
    std::array::from_fn(|family| {
        let is_it = |route: &&Value| {
            route["owner"] == format!("edge/{edge}") && route["real"] == lans[family].to_string()
        };
        let known_as = |route: &Value| net(route["prefix"].as_str().unwrap());
        routes.iter().find(is_it).map_or(home[family], |route| nth(known_as(route), 10))
    })
}

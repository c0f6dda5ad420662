//! A cloud in the open, and two plants behind NATs that have the same LAN.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;

use ipnet::Ipv4Net;
use lab::io::lan::{LanAddress, LanLink, connect};
use lab::io::{Namespace, Wire, enter_user_namespace};
use lab::{NatKind, NatSettings};
use serde_json::Value;
use tempfile::TempDir;

use crate::lab_node::{CLOUD, CONFIG, Node, attach};

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
        let mut cloud = node("cloud", "hq", "dns: {enabled: true}", room.path());
        attach(&wire, &cloud.network, CLOUD, None);
        cloud.start();
        let of_b = format!("dns: {{enabled: true, upstream: ['127.0.0.1:5353']}}\nedge: {{lans: [{YARD}]}}");
        let [a, b] = [("a", 21, "dns: {enabled: true}"), ("b", 22, &of_b)].map(|(name, last, config)| {
            let mut edge = node("edge", name, config, room.path());
            let inside = Ipv4Net::new(Ipv4Addr::new(172, 29, last, 2), 24).unwrap();
            let nat = NatSettings { kind: NatKind::PortRestricted, inside };
            attach(&wire, &edge.network, Ipv4Addr::new(203, 0, 113, last), Some(nat));
            edge.join(&cloud, &format!("plant-{name}"), &[LAN]);
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

fn node(role: &'static str, name: &str, more: &str, room: &Path) -> Node {
    let node = Node::new(role, name, room);
    node.configure(&format!("{CONFIG}{more}\n"));
    node
}

fn beside(edge: &Node, name: &str, [gateway, host]: [Ipv4Addr; 2]) -> Namespace {
    let namespace = Namespace::create(name).unwrap();
    let addresses = vec![LanAddress { gateway: IpAddr::V4(gateway), host: IpAddr::V4(host) }];
    let link =
        LanLink { gateway_interface: format!("to-{name}"), host_interface: "eth0".to_owned(), addresses };
    connect(&edge.network, &namespace, &link).unwrap();
    namespace
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

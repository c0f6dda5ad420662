//! A stock client: Debian's wireguard-go and `wg`, behind a NAT.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use ipnet::{IpNet, Ipv4Net};
use lab::io::Namespace;
use lab::io::probe::EchoServer;
use lab::{NatKind, NatSettings};
use router::io::Netlink;

use crate::lab_node::{attach, eventually};
use crate::stage::Stage;

pub(crate) struct Client {
    pub(crate) network: Namespace,
    interface: String,
    process: Child,
    private: String,
    addresses: Vec<IpAddr>,
}

impl Client {
    /// Behind a NAT at 203.0.113.`last`.
    pub(crate) fn new(stage: &Stage, name: &str, last: u8) -> Self {
        let network = Namespace::create(name).unwrap();
        let inside = Ipv4Net::new(Ipv4Addr::new(192, 168, 100 + last, 2), 24).unwrap();
        let nat = NatSettings { kind: NatKind::PortRestricted, inside };
        attach(&stage.wire, &network, Ipv4Addr::new(203, 0, 113, last), Some(nat));
        let interface = format!("wg-{name}");
        let mut command = Command::new("wireguard-go");
        command.args(["-f", &interface]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = network.command(&mut command).spawn();
        let process = process.expect("wireguard-go runs: apt-get install wireguard-go wireguard-tools");
        let private = wg(&network, &["genkey"], "");
        let client = Self { network, interface, process, private, addresses: Vec::new() };
        eventually("wireguard-go is up", || client.try_wg(&["show", &client.interface]));
        client
    }

    /// For `--public-key`.
    pub(crate) fn public_key(&self) -> String {
        wg(&self.network, &["pubkey"], &self.private)
    }

    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.clone()
    }

    /// Does what wg-quick does: `wg setconf` with what `wg` knows, and addresses, MTU and routes by the rest.
    pub(crate) fn configure(&mut self, config: &str) {
        let own = format!("[Interface]\nPrivateKey = {}", self.private);
        let config = if config.contains("\nPrivateKey") {
            config.to_owned()
        } else {
            config.replace("[Interface]", &own)
        };
        let of = |key: &str| -> Vec<IpNet> {
            let line = config.lines().find_map(|line| line.strip_prefix(&format!("{key} = "))).unwrap();
            line.split(", ").map(|net| net.parse().unwrap()).collect()
        };
        let is_wgs = |line: &&str| !line.starts_with("Address") && !line.starts_with("MTU");
        let stripped: Vec<&str> = config.lines().filter(is_wgs).collect();
        wg(&self.network, &["setconf", &self.interface, "/dev/stdin"], &(stripped.join("\n") + "\n"));
        let (addresses, allowed) = (of("Address"), of("AllowedIPs"));
        self.network
            .run(|| {
                let mut netlink = Netlink::open().unwrap();
                netlink.link_up(&self.interface).unwrap();
                netlink.set_mtu(&self.interface, 1280).unwrap();
                for address in &addresses {
                    netlink.address_replace(&self.interface, *address).unwrap();
                }
                for net in allowed {
                    netlink.route_replace(net, &self.interface, None, None).unwrap();
                }
            })
            .unwrap();
        self.addresses = addresses.iter().map(IpNet::addr).collect();
    }

    /// As a client would that asks for more than it was given: `AllowedIPs` is its own file.
    pub(crate) fn route_into_tunnel(&self, networks: &[&str]) {
        let gateway = self.try_wg(&["show", &self.interface, "peers"]).unwrap();
        let known = self.try_wg(&["show", &self.interface, "allowed-ips"]).unwrap();
        let all: Vec<&str> = known.split_whitespace().skip(1).chain(networks.iter().copied()).collect();
        let allowed = ["set", &self.interface, "peer", gateway.trim(), "allowed-ips", &all.join(",")];
        wg(&self.network, &allowed, "");
        let route = || {
            let mut netlink = Netlink::open().unwrap();
            for network in networks {
                netlink.route_replace(network.parse().unwrap(), &self.interface, None, None).unwrap();
            }
        };
        self.network.run(route).unwrap();
    }

    /// On its addresses.
    pub(crate) fn servers(&self) -> Vec<EchoServer> {
        let at = |address: &IpAddr| SocketAddr::new(*address, crate::PORT);
        self.addresses.iter().map(|address| EchoServer::start(&self.network, at(address)).unwrap()).collect()
    }

    fn try_wg(&self, args: &[&str]) -> Option<String> {
        let mut command = Command::new("wg");
        let output = self.network.command(command.args(args)).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }
}

/// `wg` in a network, with a standard input; what it printed.
fn wg(network: &Namespace, args: &[&str], input: &str) -> String {
    let mut command = Command::new("wg");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = network.command(&mut command).spawn();
    let mut child = child.expect("wg runs: apt-get install wireguard-go wireguard-tools");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "wg {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Drop for Client {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

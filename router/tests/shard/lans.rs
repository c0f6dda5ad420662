//! Two sites whose LANs have the same prefixes, and hosts with the same addresses.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bus::{Route, SubnetKind};
use ipnet::IpNet;
use router::io::Netlink;
use router::io::shard::{Command, Lane};
use router::io::sysctl::enable_forwarding;
use router::{Policy, Table, checksum};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, sockopt};

use crate::cluster::{Ca, Node, PATIENCE, connect};
use crate::namespace::{in_own_network, new_network, within};
use crate::packets::{Edge, rule, sites};

const PREFIXES: [&str; 2] = ["192.168.10.0/24", "fd10::/64"];
const GATEWAYS: [&str; 2] = ["192.168.10.1", "fd10::1"];
const HOSTS: [&str; 2] = ["192.168.10.20", "fd10::20"];
/// For connecting before an error is to be heard of.
const CLOSED_PORT: u16 = 9999;

/// An edge with one host on its LAN.
struct Site {
    edge: Edge,
    lan: OwnedFd,
    prefixes: [IpNet; 2],
}

impl Site {
    fn new(edge: Edge, prefixes: [&str; 2]) -> Self {
        let lan = new_network();
        within(edge.network.as_fd(), || {
            let mut netlink = Netlink::open().unwrap();
            netlink.veth_create("lan0", "eth0", Some(lan.as_fd())).unwrap();
            netlink.link_up("lan0").unwrap();
            netlink.address_add("lan0", "192.168.10.1/24".parse().unwrap()).unwrap();
            netlink.address_add("lan0", "fd10::1/64".parse().unwrap()).unwrap();
            enable_forwarding().unwrap();
        });
        within(lan.as_fd(), || {
            let mut netlink = Netlink::open().unwrap();
            netlink.link_up("eth0").unwrap();
            netlink.address_add("eth0", "192.168.10.20/24".parse().unwrap()).unwrap();
            netlink.address_add("eth0", "fd10::20/64".parse().unwrap()).unwrap();
            for (all, gateway) in ["0.0.0.0/0", "::/0"].into_iter().zip(GATEWAYS) {
                let gateway = Some(gateway.parse().unwrap());
                netlink.route_replace(all.parse().unwrap(), "eth0", gateway, None).unwrap();
            }
        });
        Self { edge, lan, prefixes: prefixes.map(|prefix| prefix.parse().unwrap()) }
    }

    fn routes(&self) -> Vec<Route> {
        let lan = |(prefix, real): (IpNet, &str)| Route {
            prefix,
            owner: self.edge.node.id(),
            kind: SubnetKind::Lan,
            real: Some(real.parse().unwrap()),
            peer: None,
        };
        self.edge.routes().into_iter().chain(self.prefixes.into_iter().zip(PREFIXES).map(lan)).collect()
    }

    /// What other sites know the host by.
    fn host(&self, family: usize) -> IpAddr {
        let is_host =
            |address: &IpAddr| address.to_string().ends_with(if family == 0 { ".20" } else { ":20" });
        self.prefixes[family].hosts().take(64).find(is_host).unwrap()
    }

    fn udp(&self, family: usize, port: u16) -> UdpSocket {
        let address: IpAddr = HOSTS[family].parse().unwrap();
        let socket = within(self.lan.as_fd(), || UdpSocket::bind((address, port))).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    }
}

fn two_sites() -> (Node, Site, Site) {
    Netlink::open().unwrap().link_up("lo").unwrap();
    let ca = Ca::new();
    let mut hub = Node::cloud(ca.issue("c/cloud/hub"));
    let mut a =
        Site::new(Edge::start(&ca, "c/edge/a", 2, &hub.id()), ["10.86.64.0/24", "fd86:0:0:c000::/64"]);
    let mut b =
        Site::new(Edge::start(&ca, "c/edge/b", 3, &hub.id()), ["10.86.65.0/24", "fd86:0:0:c001::/64"]);
    let routes = [a.routes(), b.routes()].concat();
    let rules = [rule("a", "b"), rule("b", "a")];
    hub.shard.send(Command::SetTable(Arc::new(Table::new(hub.id(), routes.clone(), None)))).unwrap();
    let policy = Policy::for_hub(&routes, &sites(), &rules);
    hub.shard.send(Command::SetPolicy(Arc::new(policy))).unwrap();
    for site in [&mut a, &mut b] {
        site.edge.set_routes(&routes, &hub.id());
        site.edge.set_policy(&routes, &rules);
        connect(&mut site.edge.node, &mut hub, Lane::Packets);
    }
    (hub, a, b)
}

/// Sends until it arrives, and answers: each side sees the other's virtual address.
fn datagrams_come_and_go(from: &Site, to: &Site, family: usize) {
    let (sender, receiver) = (from.udp(family, 7000), to.udp(family, 7001));
    let (ours, theirs) = (from.host(family), to.host(family));
    let (mut buffer, patience) = ([0; 2000], Instant::now() + PATIENCE);
    for len in [1, 1000] {
        let seen = loop {
            sender.send_to(&vec![7; len], (theirs, 7001)).unwrap();
            match receiver.recv_from(&mut buffer) {
                Ok((got, seen)) if got == len => break seen,
                _ => assert!(Instant::now() < patience, "{len} bytes never came to {theirs}"),
            }
        };
        assert_eq!(seen, SocketAddr::from((ours, 7000)));
        receiver.send_to(b"answer", seen).unwrap();
        assert_eq!(sender.recv_from(&mut buffer).unwrap(), (6, (theirs, 7001).into()));
    }
}

fn a_stream_comes_back_whole(from: &Site, to: &Site, family: usize) {
    let address: IpAddr = HOSTS[family].parse().unwrap();
    let listener = within(to.lan.as_fd(), || TcpListener::bind((address, 8000))).unwrap();
    let mut client = within(from.lan.as_fd(), || TcpStream::connect((to.host(family), 8000))).unwrap();
    let (mut server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), from.host(family));
    let sent: Vec<u8> = (0..2 << 20).map(|n: u32| (n ^ (n >> 8)) as u8).collect();
    let mut echo = client.try_clone().unwrap();
    let received = thread::scope(|scope| {
        scope.spawn(|| std::io::copy(&mut server.try_clone().unwrap(), &mut server).unwrap());
        scope.spawn(|| client.write_all(&sent).unwrap());
        let mut received = vec![0; sent.len()];
        echo.set_read_timeout(Some(PATIENCE)).unwrap();
        echo.read_exact(&mut received).unwrap();
        echo.shutdown(std::net::Shutdown::Both).unwrap();
        received
    });
    assert!(received == sent);
}

fn a_closed_port_is_told_to_the_socket_that_asked(from: &Site, to: &Site, family: usize) {
    let socket = from.udp(family, 7002);
    socket.connect((to.host(family), CLOSED_PORT)).unwrap();
    let patience = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < patience, "nobody said that the port is closed");
        let told = socket.send(b"anybody?").and_then(|_| socket.recv(&mut [0; 10]));
        if told.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            return;
        }
    }
}

fn an_echo_is_answered(from: &Site, to: &Site) {
    let IpAddr::V4(theirs) = to.host(0) else { panic!("IPv4 comes first") };
    let ping = within(from.lan.as_fd(), || {
        rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)).unwrap()
    });
    sockopt::set_socket_timeout(&ping, sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
    let mut request = [8, 0, 0, 0, 0x4b, 0x42, 0, 1, 1, 2, 3, 4];
    let sum = !checksum::sum(&request);
    request[2..4].copy_from_slice(&sum.to_be_bytes());
    rustix::net::sendto(&ping, &request, SendFlags::empty(), &SocketAddr::from((theirs, 0))).unwrap();
    let mut buffer = [0; 100];
    let (len, _) = rustix::net::recv(&ping, &mut buffer, RecvFlags::empty()).unwrap();
    let (header, reply) = buffer[..len].split_at(20);
    assert_eq!(Ipv4Addr::new(header[12], header[13], header[14], header[15]), theirs);
    assert_eq!((reply[0], &reply[4..]), (0, &request[4..]));
    assert_eq!(checksum::sum(reply), 0xffff);
}

#[test]
fn hosts_of_sites_with_the_same_lan_reach_each_other_by_virtual_addresses() {
    in_own_network("lans::hosts_of_sites_with_the_same_lan_reach_each_other_by_virtual_addresses", || {
        let (_hub, a, b) = two_sites();
        for (from, to) in [(&a, &b), (&b, &a)] {
            for family in [0, 1] {
                datagrams_come_and_go(from, to, family);
                a_stream_comes_back_whole(from, to, family);
                a_closed_port_is_told_to_the_socket_that_asked(from, to, family);
            }
            an_echo_is_answered(from, to);
        }
    });
}

use std::net::UdpSocket;
use std::os::fd::AsFd;

use router::io::Netlink;
use router::io::netlink::{KernelRoute, NetlinkError};

use crate::namespace::{in_own_network, new_network, within};
use crate::wire::PATIENCE;

fn socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn exchange(here: &UdpSocket, there: &UdpSocket) {
    let mut buffer = [0; 16];
    here.send_to(b"ping", there.local_addr().unwrap()).unwrap();
    assert_eq!(there.recv_from(&mut buffer).unwrap(), (4, here.local_addr().unwrap()));
    there.send_to(b"pong!", here.local_addr().unwrap()).unwrap();
    assert_eq!(here.recv_from(&mut buffer).unwrap(), (5, there.local_addr().unwrap()));
}

fn dress(dev: &str, addresses: [&str; 2]) {
    let mut netlink = Netlink::open().unwrap();
    netlink.link_up(dev).unwrap();
    for address in addresses {
        netlink.address_add(dev, address.parse().unwrap()).unwrap();
    }
}

#[test]
fn two_networks_talk_over_a_virtual_cable() {
    in_own_network("veth::two_networks_talk_over_a_virtual_cable", || {
        let other = new_network();
        Netlink::open().unwrap().veth_create("left", "right", Some(other.as_fd())).unwrap();
        dress("left", ["192.168.50.1/24", "fd50::1/64"]);
        within(other.as_fd(), || dress("right", ["192.168.50.2/24", "fd50::2/64"]));
        for (here, there) in [("192.168.50.1:0", "192.168.50.2:0"), ("[fd50::1]:0", "[fd50::2]:0")] {
            exchange(&socket(here), &within(other.as_fd(), || socket(there)));
        }
    });
}

#[test]
fn a_virtual_cable_goes_with_either_end() {
    in_own_network("veth::a_virtual_cable_goes_with_either_end", || {
        let other = new_network();
        let mut netlink = Netlink::open().unwrap();
        netlink.veth_create("a", "b", Some(other.as_fd())).unwrap();
        assert!(matches!(netlink.link_index("b"), Err(NetlinkError::NoInterface(_))));

        let mut over_there = within(other.as_fd(), || Netlink::open().unwrap());
        over_there.link_index("b").unwrap();
        netlink.link_del("a").unwrap();
        assert!(matches!(over_there.link_index("b"), Err(NetlinkError::NoInterface(_))));
    });
}

#[test]
fn addresses_and_routes_are_listed_as_they_were_set() {
    in_own_network("veth::addresses_and_routes_are_listed_as_they_were_set", || {
        let mut netlink = Netlink::open().unwrap();
        netlink.veth_create("a", "b", None).unwrap();
        netlink.link_up("b").unwrap();
        dress("a", ["192.168.50.1/24", "fd50::1/64"]);
        let mut addresses = netlink.address_list("a").unwrap();
        addresses.retain(|address| !address.to_string().starts_with("fe80:"));
        assert_eq!(addresses, ["192.168.50.1/24", "fd50::1/64"].map(|text| text.parse().unwrap()));

        let route = |destination: &str, via: Option<&str>, source: Option<&str>, metric| KernelRoute {
            destination: destination.parse().unwrap(),
            via: via.map(|via| via.parse().unwrap()),
            source: source.map(|source| source.parse().unwrap()),
            metric,
        };
        let gateway = route("10.0.0.0/8", Some("192.168.50.9"), None, 0);
        netlink.route_replace(gateway.destination, "a", gateway.via, None).unwrap();
        netlink.route_replace(gateway.destination, "a", gateway.via, None).unwrap();
        let default = route("::/0", Some("fd50::9"), None, 1024);
        netlink.route_replace(default.destination, "a", default.via, None).unwrap();
        let on_link = route("172.16.0.0/12", None, Some("192.168.50.1"), 77);
        netlink.route_add("a", &on_link).unwrap();
        assert_eq!(netlink.route_list("a").unwrap(), [gateway, on_link, default]);
        assert_eq!(netlink.route_list("b").unwrap(), []);

        let twice = netlink.route_add("a", &on_link).unwrap_err();
        assert_eq!(twice.refused_with(), Some(libc::EEXIST));
        assert_eq!(twice.to_string(), "cannot route 172.16.0.0/12 to 'a'");
        netlink.route_del("a", &on_link).unwrap();
        assert_eq!(netlink.route_list("a").unwrap(), [gateway, default]);
    });
}

/// As one WireGuard client must not reach another past the guard.
#[test]
fn what_comes_in_by_an_interface_goes_out_by_another_whatever_the_routes_say() {
    in_own_network("veth::what_comes_in_by_an_interface_goes_out_by_another_whatever_the_routes_say", || {
        let other = new_network();
        let mut netlink = Netlink::open().unwrap();
        for (near, far) in [("clients", "client"), ("guarded", "guard")] {
            netlink.veth_create(near, far, Some(other.as_fd())).unwrap();
            netlink.link_up(near).unwrap();
        }
        let route = |destination: &str| KernelRoute {
            destination: destination.parse().unwrap(),
            via: None,
            source: None,
            metric: 0,
        };
        netlink.route_add("clients", &route("10.86.32.0/24")).unwrap();
        let way = |iif: &[&str]| {
            let arguments = ["route", "get", "10.86.32.2", "from", "10.86.32.1"];
            let ran = std::process::Command::new("ip").args(arguments).args(iif).output().unwrap();
            String::from_utf8(ran.stdout).unwrap()
        };
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        assert!(way(&["iif", "clients"]).contains("dev clients"), "{}", way(&["iif", "clients"]));
        netlink.forward_all("clients", "guarded", false).unwrap();
        netlink.forward_all("clients", "guarded", true).unwrap();
        assert!(way(&["iif", "clients"]).contains("dev guarded"), "{}", way(&["iif", "clients"]));
        assert!(way(&["iif", "guarded"]).contains("dev clients"), "{}", way(&["iif", "guarded"]));
    });
}

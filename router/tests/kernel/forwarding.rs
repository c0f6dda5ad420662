use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use router::io::sysctl::enable_forwarding;
use router::io::{Netlink, Overlay};

use crate::namespace::{in_own_network, new_network, within};
use crate::overlay::{lease, me, route};
use crate::wire::{PATIENCE, read_packet_to, udp, udp_parts};

#[test]
fn a_device_on_the_lan_behind_an_edge_is_reached_from_the_overlay() {
    in_own_network("forwarding::a_device_on_the_lan_behind_an_edge_is_reached_from_the_overlay", || {
        let lan = new_network();
        let mut netlink = Netlink::open().unwrap();
        netlink.veth_create("lan0", "eth0", Some(lan.as_fd())).unwrap();
        netlink.link_up("lan0").unwrap();
        netlink.address_add("lan0", "192.168.10.1/24".parse().unwrap()).unwrap();
        netlink.address_add("lan0", "fd10::1/64".parse().unwrap()).unwrap();
        let sockets = within(lan.as_fd(), || {
            let mut netlink = Netlink::open().unwrap();
            netlink.link_up("eth0").unwrap();
            netlink.address_add("eth0", "192.168.10.2/24".parse().unwrap()).unwrap();
            netlink.address_add("eth0", "fd10::2/64".parse().unwrap()).unwrap();
            for (all, gateway) in [("0.0.0.0/0", "192.168.10.1"), ("::/0", "fd10::1")] {
                let gateway = Some(gateway.parse().unwrap());
                netlink.route_replace(all.parse().unwrap(), "eth0", gateway, None).unwrap();
            }
            ["192.168.10.2:502", "[fd10::2]:502"].map(|address| UdpSocket::bind(address).unwrap())
        });

        let mut overlay = Overlay::open("kb0").unwrap();
        let own = [route("192.168.10.0/24", me()), route("fd10::/64", me())];
        overlay.sync(&lease(), &me(), &own).unwrap();
        enable_forwarding().unwrap();
        let tun = overlay.tun().unwrap();
        for (socket, remote) in sockets.iter().zip(["10.86.0.9:5000", "[fd86::9]:5000"]) {
            let remote: SocketAddr = remote.parse().unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            tun.write(&udp(remote, socket.local_addr().unwrap(), b"read coil")).unwrap();
            let mut buffer = [0; 64];
            assert_eq!(socket.recv_from(&mut buffer).unwrap(), (9, remote));
            socket.send_to(b"closed", remote).unwrap();
            let reply = read_packet_to(&tun, remote.ip());
            assert_eq!(udp_parts(&reply), (502, 5000, &b"closed"[..]));
        }
    });
}

#[test]
fn forwarding_does_not_cost_the_router_announcements() {
    in_own_network("forwarding::forwarding_does_not_cost_the_router_announcements", || {
        let read =
            |name: &str| fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap().trim().to_owned();
        let mut netlink = Netlink::open().unwrap();
        netlink.veth_create("uplink", "cable", None).unwrap();
        fs::write("/proc/sys/net/ipv6/conf/cable/accept_ra", "0").unwrap();
        assert_eq!(read("ipv6/conf/uplink/accept_ra"), "1");

        enable_forwarding().unwrap();
        enable_forwarding().unwrap();
        assert_eq!(read("ipv4/ip_forward"), "1");
        assert_eq!(read("ipv6/conf/uplink/forwarding"), "1");
        assert_eq!(read("ipv6/conf/uplink/accept_ra"), "2");
        assert_eq!(read("ipv6/conf/cable/accept_ra"), "0");
    });
}

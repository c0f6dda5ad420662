use std::fs;
use std::net::{SocketAddr, UdpSocket};

use bus::{Name, NodeId};
use ipnet::IpNet;
use router::io::device::{OVERLAY_METRIC, SyncReport};
use router::io::netlink::KernelRoute;
use router::io::{Netlink, Overlay};
use router::{Lease, Route, SubnetKind, Table, Verdict};

use crate::namespace::in_own_network;
use crate::wire::{PATIENCE, read_packet_to, udp, udp_parts};

pub(crate) fn me() -> NodeId {
    NodeId::edge(Name::new("me").unwrap())
}

pub(crate) fn hub() -> NodeId {
    NodeId::cloud(Name::new("hub").unwrap())
}

pub(crate) fn lease() -> Lease {
    Lease {
        v4: "10.86.0.2".parse().unwrap(),
        v6: "fd86::2".parse().unwrap(),
        container_v4: "10.86.129.0/24".parse().unwrap(),
        container_v6: "fd86:0:0:1::/64".parse().unwrap(),
        pool_v4: "10.86.0.0/16".parse().unwrap(),
        pool_v6: "fd86::/48".parse().unwrap(),
    }
}

pub(crate) fn route(prefix: &str, owner: NodeId) -> Route {
    Route { prefix: prefix.parse().unwrap(), owner, kind: SubnetKind::Lan, real: None, peer: None }
}

fn nets<const N: usize>(texts: [&str; N]) -> Vec<IpNet> {
    texts.map(|text| text.parse().unwrap()).into()
}

/// The address from which the kernel would send to `to`.
fn source_towards(to: &str) -> String {
    let to: SocketAddr = to.parse().unwrap();
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
    socket.connect(to).unwrap();
    socket.local_addr().unwrap().ip().to_string()
}

#[test]
fn packets_go_through_the_tun_to_a_socket_and_back() {
    in_own_network("overlay::packets_go_through_the_tun_to_a_socket_and_back", || {
        let mut overlay = Overlay::open("kb0").unwrap();
        overlay.sync(&lease(), &me(), &[]).unwrap();
        let tun = overlay.tun().unwrap();
        let table = Table::new(me(), [], Some(hub())).with_lease(&lease());
        for (local, remote) in [("10.86.0.2:7000", "10.86.0.9:5000"), ("[fd86::2]:7000", "[fd86::9]:5000")] {
            let (local, remote): (SocketAddr, SocketAddr) = (local.parse().unwrap(), remote.parse().unwrap());
            let socket = UdpSocket::bind(local).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();

            let request = udp(remote, local, b"how are you");
            assert_eq!(table.accept(&hub(), &request), Verdict::Local);
            tun.write(&request).unwrap();
            let mut buffer = [0; 64];
            assert_eq!(socket.recv_from(&mut buffer).unwrap(), (11, remote));
            assert_eq!(&buffer[..11], b"how are you");

            socket.send_to(b"fine", remote).unwrap();
            let reply = read_packet_to(&tun, remote.ip());
            assert_eq!(udp_parts(&reply), (7000, 5000, &b"fine"[..]));
            assert_eq!(table.forward(&reply), Verdict::Peer(&hub()));
        }
    });
}

#[test]
fn a_sync_adds_what_is_missing_and_removes_what_no_longer_belongs() {
    in_own_network("overlay::a_sync_adds_what_is_missing_and_removes_what_no_longer_belongs", || {
        let mut overlay = Overlay::open("kb0").unwrap();
        let routes = [
            route("192.168.1.0/24", me()),
            route("192.168.2.0/24", hub()),
            route("10.86.0.9/32", hub()),
            route("2001:db8::/64", hub()),
        ];
        let first = overlay.sync(&lease(), &me(), &routes).unwrap();
        let want = SyncReport {
            addresses_added: nets(["10.86.0.2/32", "fd86::2/128"]),
            routes_added: nets(["10.86.0.0/16", "192.168.2.0/24", "2001:db8::/64", "fd86::/48"]),
            ..SyncReport::default()
        };
        assert_eq!(first, want);
        assert_eq!(overlay.sync(&lease(), &me(), &routes).unwrap(), SyncReport::default());
        assert_eq!(source_towards("192.168.2.7:1"), "10.86.0.2");
        assert_eq!(source_towards("[2001:db8::7]:1"), "fd86::2");

        let moved = Lease { v4: "10.86.0.3".parse().unwrap(), v6: "fd86::3".parse().unwrap(), ..lease() };
        let routes = [route("192.168.3.0/24", hub())];
        let second = overlay.sync(&moved, &me(), &routes).unwrap();
        let want = SyncReport {
            addresses_added: nets(["10.86.0.3/32", "fd86::3/128"]),
            addresses_removed: nets(["10.86.0.2/32", "fd86::2/128"]),
            routes_added: nets(["10.86.0.0/16", "192.168.3.0/24", "fd86::/48"]),
            routes_removed: nets(["10.86.0.0/16", "192.168.2.0/24", "2001:db8::/64", "fd86::/48"]),
            ..SyncReport::default()
        };
        assert_eq!(second, want);
        assert_eq!(source_towards("192.168.3.7:1"), "10.86.0.3");
        assert_eq!(source_towards("[fd86::9]:1"), "fd86::3");
    });
}

#[test]
fn a_sync_mends_what_somebody_else_changed() {
    in_own_network("overlay::a_sync_mends_what_somebody_else_changed", || {
        let mut overlay = Overlay::open("kb0").unwrap();
        overlay.sync(&lease(), &me(), &[]).unwrap();
        let mut netlink = Netlink::open().unwrap();
        netlink.address_add("kb0", "10.99.0.1/32".parse().unwrap()).unwrap();
        netlink.address_del("kb0", "fd86::2/128".parse().unwrap()).unwrap();
        netlink.route_replace("10.98.0.0/16".parse().unwrap(), "kb0", None, None).unwrap();
        let mended = overlay.sync(&lease(), &me(), &[]).unwrap();
        assert_eq!(mended.addresses_added, nets(["fd86::2/128"]));
        assert_eq!(mended.addresses_removed, nets(["10.99.0.1/32"]));
        assert!(mended.routes_removed.contains(&"10.98.0.0/16".parse().unwrap()), "{mended:?}");
        assert_eq!(overlay.sync(&lease(), &me(), &[]).unwrap(), SyncReport::default());
        assert_eq!(source_towards("[fd86::9]:1"), "fd86::2");
    });
}

#[test]
fn the_machines_own_networks_win_and_stay_as_they_are() {
    in_own_network("overlay::the_machines_own_networks_win_and_stay_as_they_are", || {
        let mut netlink = Netlink::open().unwrap();
        netlink.veth_create("lan", "cable", None).unwrap();
        netlink.link_up("cable").unwrap();
        netlink.link_up("lan").unwrap();
        netlink.address_add("lan", "192.168.5.1/24".parse().unwrap()).unwrap();
        netlink.route_replace("172.20.0.0/16".parse().unwrap(), "lan", None, None).unwrap();
        let same_metric = KernelRoute {
            destination: "172.21.0.0/16".parse().unwrap(),
            via: None,
            source: None,
            metric: OVERLAY_METRIC,
        };
        netlink.route_add("lan", &same_metric).unwrap();
        let before = netlink.route_list("lan").unwrap();

        let mut overlay = Overlay::open("kb0").unwrap();
        let remote = ["192.168.5.0/24", "172.20.0.0/16", "172.21.0.0/16"].map(|net| route(net, hub()));
        let report = overlay.sync(&lease(), &me(), &remote).unwrap();
        assert_eq!(report.routes_taken, nets(["172.21.0.0/16"]));
        assert_eq!(netlink.route_list("lan").unwrap(), before);
        assert_eq!(source_towards("192.168.5.9:1"), "192.168.5.1");
        assert_eq!(source_towards("172.20.0.9:1"), "192.168.5.1");

        netlink.link_del("lan").unwrap();
        let report = overlay.sync(&lease(), &me(), &remote).unwrap();
        assert_eq!(report, SyncReport { routes_added: nets(["172.21.0.0/16"]), ..SyncReport::default() });
        assert_eq!(source_towards("192.168.5.9:1"), "10.86.0.2");
    });
}

#[test]
fn where_ipv6_is_off_the_overlay_carries_ipv4() {
    in_own_network("overlay::where_ipv6_is_off_the_overlay_carries_ipv4", || {
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let mut overlay = Overlay::open("kb0").unwrap();
        let report = overlay.sync(&lease(), &me(), &[route("2001:db8::/64", hub())]).unwrap();
        let want = SyncReport {
            addresses_added: nets(["10.86.0.2/32"]),
            routes_added: nets(["10.86.0.0/16"]),
            without_ipv6: true,
            ..SyncReport::default()
        };
        assert_eq!(report, want);
        assert_eq!(source_towards("10.86.0.9:1"), "10.86.0.2");
    });
}

//! The tests themselves.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::io::lan::{self, LanAddress};
use lab::io::probe::{self, EchoServer, ProbeError};
use lab::io::{EnterError, Entered, LanLink, Namespace, Wire, enter_user_namespace};
use lab::{Attachment, LinkSettings, NatKind, NatSettings, PortId, Rate};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

pub(crate) const ALL: &[(&str, fn())] = &[
    ("a_process_with_threads_cannot_enter", a_process_with_threads_cannot_enter),
    ("where_user_namespaces_are_forbidden_root_gets_a_network", forbidden_to_root),
    ("where_everything_is_forbidden_the_error_says_so", forbidden_to_all),
    ("a_program_is_started_inside_its_namespace", a_program_is_started_inside),
    ("an_edge_reaches_the_cloud_and_is_not_reached_unasked", an_edge_reaches_the_cloud),
    ("two_edges_behind_nats_do_not_reach_each_other", two_edges_behind_nats),
    ("several_edges_share_one_nat_and_one_lan", several_edges_share_one_nat),
    ("insiders_of_a_nat_that_hairpins_meet_at_their_public_endpoints", insiders_meet_by_hairpin),
    ("only_a_symmetric_nat_shows_two_clouds_two_endpoints", two_clouds_see_one_edge),
    ("nats_of_all_kinds_are_punched_through_but_those_that_cannot_be", nats_are_punched_through),
    ("a_line_that_reorders_delivers_all_and_some_of_it_late", a_line_that_reorders),
    ("what_the_edge_asked_for_comes_in", what_the_edge_asked_for_comes_in),
    ("a_cut_stops_traffic_and_mending_resumes_it", a_cut_stops_traffic),
    ("a_flood_is_held_to_three_megabit", a_flood_is_held_to_three_megabit),
    ("lan_hosts_reach_their_edge_and_each_other_in_both_families", lan_hosts_reach_their_edge),
    ("a_stopped_wire_takes_its_interfaces_along", a_stopped_wire_takes_its_interfaces_along),
];

const CLOUD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const EDGE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const EDGE_PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const PORT: u16 = 7000;
/// Long enough for a loaded machine, short enough to wait for in vain.
const PATIENCE: Duration = Duration::from_secs(5);
const IN_VAIN: Duration = Duration::from_millis(400);

fn enter() -> Entered {
    let entered = enter_user_namespace().unwrap_or_else(|error| panic!("cannot run here: {}", chain(&error)));
    crate::limit_time();
    entered
}

fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn works<T, E: Error>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{}", chain(&error)))
}

fn at(address: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(address.into(), PORT)
}

fn is_silence<T>(result: Result<T, ProbeError>) -> bool {
    matches!(result, Err(ProbeError::Timeout(_)))
}

/// A cloud in the open and an edge behind a NAT, each with an echo server.
struct Lab {
    cloud: Namespace,
    edge: Namespace,
    at_cloud: PortId,
    at_edge: PortId,
    wire: Wire,
    _servers: [EchoServer; 2],
}

fn behind_nat(name: &str, public: Ipv4Addr, node: Ipv4Addr, link: LinkSettings) -> Attachment {
    let inside = ipnet::Ipv4Net::new(node, 24).unwrap();
    let nat = Some(NatSettings { kind: NatKind::PortRestricted, inside });
    Attachment { name: name.to_owned(), public, nat, link }
}

impl Lab {
    fn new(link: LinkSettings) -> Self {
        enter();
        let (cloud, edge) = (works(Namespace::create("cloud")), works(Namespace::create("edge")));
        let wire = works(Wire::start(1));
        let in_the_open = Attachment { name: "cloud".to_owned(), public: CLOUD, nat: None, link };
        let at_cloud = works(wire.attach(&cloud, in_the_open));
        let at_edge = works(wire.attach(&edge, behind_nat("edge", EDGE_PUBLIC, EDGE, link)));
        let servers =
            [works(EchoServer::start(&cloud, at(CLOUD))), works(EchoServer::start(&edge, at(EDGE)))];
        Self { cloud, edge, at_cloud, at_edge, wire, _servers: servers }
    }

    fn edge_asks_cloud(&self, patience: Duration) -> Result<Duration, ProbeError> {
        works(self.edge.run(|| probe::udp_echo(at(CLOUD), patience)))
    }
}

fn a_process_with_threads_cannot_enter() {
    let (_hold, held) = std::sync::mpsc::sync_channel::<()>(0);
    let _thread = std::thread::spawn(move || held.recv());
    assert!(matches!(enter_user_namespace(), Err(EnterError::ManyThreads(2))));
}

/// Enters once, and forbids further user namespaces below.
fn enter_and_forbid() {
    let entered = enter_user_namespace().unwrap_or_else(|error| panic!("cannot run here: {}", chain(&error)));
    assert_eq!(
        entered,
        Entered::UserAndNetwork,
        "this test makes a user namespace that forbids more of them"
    );
    std::fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
}

fn forbidden_to_root() {
    enter_and_forbid();
    let before = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(works(enter_user_namespace()), Entered::NetworkOnly);
    assert_ne!(std::fs::read_link("/proc/self/ns/net").unwrap(), before);
}

fn forbidden_to_all() {
    enter_and_forbid();
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
    let before = std::fs::read_link("/proc/self/ns/net").unwrap();
    let refused = enter_user_namespace();
    assert!(matches!(refused, Err(EnterError::Forbidden(_))), "{refused:?}");
    assert_eq!(
        std::fs::read_link("/proc/self/ns/net").unwrap(),
        before,
        "the network is still the machine's"
    );
}

fn a_program_is_started_inside() {
    enter();
    let namespace = works(Namespace::create("somewhere"));
    let link = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let mut readlink = Command::new("readlink");
    let output = namespace.command(readlink.arg("/proc/self/ns/net")).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.trim(), works(namespace.run(link)).to_str().unwrap());
    assert_ne!(said.trim(), link().to_str().unwrap());
}

fn an_edge_reaches_the_cloud() {
    let lab = Lab::new(LinkSettings { delay: Duration::from_millis(5), ..LinkSettings::default() });
    let round_trips = works(lab.edge.run(|| {
        [
            works(probe::udp_echo(at(CLOUD), PATIENCE)),
            works(probe::tcp_connect(at(CLOUD), PATIENCE)),
            works(probe::tcp_echo(at(CLOUD), PATIENCE)),
            works(probe::ping(CLOUD.into(), PATIENCE)),
        ]
    }));
    let two_lines_twice = Duration::from_millis(20);
    assert!(round_trips.iter().all(|rtt| *rtt >= two_lines_twice), "{round_trips:?}");

    let before = lab.wire.stats(lab.at_edge).port;
    works(lab.cloud.run(|| {
        assert!(is_silence(probe::udp_echo(at(EDGE_PUBLIC), IN_VAIN)));
        assert!(is_silence(probe::tcp_connect(at(EDGE_PUBLIC), IN_VAIN)));
        assert!(is_silence(probe::ping(EDGE_PUBLIC.into(), IN_VAIN)));
        assert!(is_silence(probe::udp_echo(at(EDGE), IN_VAIN)), "a private address is routed nowhere");
    }));
    let after = lab.wire.stats(lab.at_edge).port;
    assert!(after.nat_refused - before.nat_refused >= 3, "{after:?}");
    assert_eq!(after.delivered, before.delivered);
    assert_eq!(lab.wire.stats(lab.at_cloud).port.unroutable, 1);
}

fn two_edges_behind_nats() {
    let lab = Lab::new(LinkSettings::default());
    let other = works(Namespace::create("other"));
    let (public, node) = (Ipv4Addr::new(198, 51, 100, 8), EDGE); // the same private address, as in life
    works(lab.wire.attach(&other, behind_nat("other", public, node, LinkSettings::default())));
    let _server = works(EchoServer::start(&other, at(node)));
    works(other.run(|| works(probe::udp_echo(at(CLOUD), PATIENCE))));
    works(other.run(|| assert!(is_silence(probe::udp_echo(at(EDGE_PUBLIC), IN_VAIN)))));
    works(lab.edge.run(|| assert!(is_silence(probe::tcp_connect(at(public), IN_VAIN)))));
}

/// A site's router holds the attachment; its edges hang on it as LAN hosts whose addresses may leave.
fn several_edges_share_one_nat() {
    let lab = Lab::new(LinkSettings::default());
    let router = works(Namespace::create("router"));
    let (public, gateway) = (Ipv4Addr::new(198, 51, 100, 8), Ipv4Addr::new(192, 168, 2, 1));
    let port = works(lab.wire.attach(&router, behind_nat("site", public, gateway, LinkSettings::default())));
    let edges = two_edges_of_a_site(&router);
    let _server = works(EchoServer::start(&edges[1].0, at(edges[1].1)));
    for (edge, _) in &edges {
        works(edge.run(|| works(probe::udp_echo(at(CLOUD), PATIENCE))));
        works(edge.run(|| works(probe::tcp_echo(at(CLOUD), PATIENCE))));
    }
    works(edges[0].0.run(|| works(probe::udp_echo(at(edges[1].1), PATIENCE))));
    assert!(is_silence(works(lab.cloud.run(|| probe::udp_echo(at(public), IN_VAIN)))));
    assert!(lab.wire.stats(port).port.nat_refused >= 1);
}

/// Two edges behind one router, which is behind a NAT.
fn two_edges_of_a_site(router: &Namespace) -> [(Namespace, Ipv4Addr); 2] {
    let gateway = Ipv4Addr::new(192, 168, 2, 1);
    [2, 3].map(|last| {
        let edge = works(Namespace::create("edge of the site"));
        let host = Ipv4Addr::new(192, 168, 2, last);
        let link = LanLink {
            gateway_interface: format!("lan{last}"),
            host_interface: "eth0".to_owned(),
            addresses: vec![LanAddress { gateway: gateway.into(), host: host.into() }],
        };
        works(lan::connect(router, &edge, &link));
        (edge, host)
    })
}

fn insiders_meet_by_hairpin() {
    let lab = Lab::new(LinkSettings::default());
    let router = works(Namespace::create("router"));
    let (public, gateway) = (Ipv4Addr::new(198, 51, 100, 8), Ipv4Addr::new(192, 168, 2, 1));
    let port = works(lab.wire.attach(&router, behind_nat("site", public, gateway, LinkSettings::default())));
    let clouds = Socket::open(&lab.cloud, CLOUD);
    let [a, b] = two_edges_of_a_site(&router).map(|(edge, address)| Socket::open(&edge, address));
    let [seen_a, seen_b] = [&a, &b].map(|edge| edge.seen_by(&clouds));
    assert_eq!([*seen_a.ip(), *seen_b.ip()], [public, public]);
    assert_eq!(meet((&a, seen_a), (&b, seen_b), IN_VAIN), [None; 2], "cheap routers do not");
    lab.wire.set_hairpin(port, true);
    assert_eq!(meet((&a, seen_a), (&b, seen_b), PATIENCE), [Some(seen_b), Some(seen_a)]);
}

const KINDS: [NatKind; 4] =
    [NatKind::FullCone, NatKind::RestrictedCone, NatKind::PortRestricted, NatKind::Symmetric];

fn site_behind(kind: NatKind, wire: &Wire, last: u8) -> Namespace {
    let site = works(Namespace::create(&format!("{kind:?} {last}")));
    let inside = ipnet::Ipv4Net::new(EDGE, 24).unwrap();
    let attachment = Attachment {
        name: site.name().to_owned(),
        public: Ipv4Addr::new(198, 51, 100, last),
        nat: Some(NatSettings { kind, inside }),
        link: LinkSettings::default(),
    };
    works(wire.attach(&site, attachment));
    site
}

fn two_clouds_see_one_edge() {
    let lab = Lab::new(LinkSettings::default());
    let second = Ipv4Addr::new(203, 0, 113, 11);
    let other = works(Namespace::create("second cloud"));
    let attachment = Attachment {
        name: "second cloud".to_owned(),
        public: second,
        nat: None,
        link: LinkSettings::default(),
    };
    works(lab.wire.attach(&other, attachment));
    let clouds = [Socket::open(&lab.cloud, CLOUD), Socket::open(&other, second)];
    for (kind, last) in KINDS.into_iter().zip(20..) {
        let edge = Socket::open(&site_behind(kind, &lab.wire, last), EDGE);
        let [first, second] = [edge.seen_by(&clouds[0]), edge.seen_by(&clouds[1])];
        assert_eq!(first.ip(), second.ip());
        assert_eq!(first != second, kind == NatKind::Symmetric, "{kind:?}: {first} {second}");
    }
}

/// Both ends learn from a cloud where the other is seen, and then send to each other at the same time.
fn nats_are_punched_through() {
    let lab = Lab::new(LinkSettings::default());
    let cloud = Socket::open(&lab.cloud, CLOUD);
    for (at, left) in KINDS.into_iter().enumerate() {
        let near = site_behind(left, &lab.wire, 20 + at as u8);
        for (beyond, right) in KINDS.into_iter().enumerate().skip(at) {
            let far = site_behind(right, &lab.wire, 30 + 10 * at as u8 + beyond as u8);
            let (near, far) = (Socket::open(&near, EDGE), Socket::open(&far, EDGE));
            let is_hopeless = matches!(left, NatKind::PortRestricted | NatKind::Symmetric);
            let is_met = !(is_hopeless && right == NatKind::Symmetric);
            let patience = if is_met { PATIENCE } else { IN_VAIN };
            let met = meet((&near, near.seen_by(&cloud)), (&far, far.seen_by(&cloud)), patience);
            assert_eq!(met.map(|from| from.is_some()), [is_met; 2], "{left:?} and {right:?}");
        }
    }
}

/// A UDP socket inside a namespace.
struct Socket(UdpSocket);

impl Socket {
    fn open(namespace: &Namespace, address: Ipv4Addr) -> Self {
        Self(works(namespace.run(|| UdpSocket::bind((address, 0)).unwrap())))
    }

    fn send(&self, to: SocketAddrV4) {
        self.0.send_to(b"it is me", to).unwrap();
    }

    /// From where something came, if it does within `patience`.
    fn hears(&self, patience: Duration) -> Option<SocketAddrV4> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        match self.0.recv_from(&mut [0; 64]) {
            Ok((_, SocketAddr::V4(from))) => Some(from),
            Ok((_, SocketAddr::V6(from))) => panic!("from {from}?"),
            Err(_) => None,
        }
    }

    /// Its endpoint as `reflector` sees it.
    fn seen_by(&self, reflector: &Self) -> SocketAddrV4 {
        let SocketAddr::V4(to) = reflector.0.local_addr().unwrap() else { panic!("opened as IPv4") };
        self.send(to);
        reflector.hears(PATIENCE).unwrap()
    }
}

/// Both send to where the other was seen, again and again, since the first is what opens; what is heard is answered to where
/// it came from. From where each heard the other, within `patience`.
fn meet(
    a: (&Socket, SocketAddrV4),
    b: (&Socket, SocketAddrV4),
    patience: Duration,
) -> [Option<SocketAddrV4>; 2] {
    let (mut heard, until) = ([None; 2], Instant::now() + patience);
    while heard.contains(&None) && Instant::now() < until {
        a.0.send(b.1);
        b.0.send(a.1);
        for (heard, (socket, _)) in heard.iter_mut().zip([a, b]) {
            *heard = socket.hears(Duration::from_millis(50)).or(*heard);
            if let Some(from) = *heard {
                socket.send(from);
            }
        }
    }
    heard
}

fn a_line_that_reorders() {
    const COUNT: u32 = 2000;
    let lab = Lab::new(LinkSettings::default());
    let reorders = LinkSettings {
        reorder_ppm: 100_000,
        reorder_delay: Duration::from_millis(20),
        ..LinkSettings::default()
    };
    lab.wire.set_link(lab.at_edge, reorders);
    let (cloud, edge) = (Socket::open(&lab.cloud, CLOUD), Socket::open(&lab.edge, EDGE));
    let target = cloud.0.local_addr().unwrap();
    let sender = std::thread::spawn(move || {
        for number in 0..COUNT {
            edge.0.send_to(&number.to_be_bytes(), target).unwrap();
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    cloud.0.set_read_timeout(Some(IN_VAIN)).unwrap();
    let mut numbers = Vec::new();
    let mut number = [0; 4];
    while cloud.0.recv(&mut number).is_ok() {
        numbers.push(u32::from_be_bytes(number));
    }
    sender.join().unwrap();
    let newest = numbers.iter().scan(0, |newest, number| {
        *newest = (*newest).max(*number);
        Some(*newest)
    });
    let late = numbers.iter().zip(newest).filter(|(number, newest)| *number < newest).count();
    assert!((100..=300).contains(&late), "{late} of {COUNT} late instead of a tenth");
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..COUNT), "{} of {COUNT} arrived", numbers.len());
}

/// The cloud answers from the port that was asked, and only that answer passes.
fn what_the_edge_asked_for_comes_in() {
    let lab = Lab::new(LinkSettings::default());
    let open = |address: Ipv4Addr| UdpSocket::bind((address, 0)).unwrap();
    let asked = works(lab.cloud.run(|| open(CLOUD)));
    let not_asked = works(lab.cloud.run(|| open(CLOUD)));
    let edge = works(lab.edge.run(|| open(EDGE)));
    for socket in [&asked, &edge] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    edge.send_to(b"question", asked.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 64];
    let (_, public) = asked.recv_from(&mut buffer).unwrap();
    assert_eq!(public.ip(), IpAddr::from(EDGE_PUBLIC));
    not_asked.send_to(b"junk", public).unwrap();
    asked.send_to(b"answer", public).unwrap();
    let (len, from) = edge.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from), (&b"answer"[..], asked.local_addr().unwrap()));
}

fn a_cut_stops_traffic() {
    let lab = Lab::new(LinkSettings::default());
    works(lab.edge_asks_cloud(PATIENCE));
    lab.wire.cut(lab.at_edge);
    assert!(is_silence(lab.edge_asks_cloud(IN_VAIN)));
    assert!(lab.wire.stats(lab.at_edge).port.cut >= 1);
    lab.wire.restore(lab.at_edge);
    works(lab.edge_asks_cloud(PATIENCE));
}

fn a_flood_is_held_to_three_megabit() {
    const PAYLOAD: usize = 1172; // 1200 bytes with headers
    let lab = Lab::new(LinkSettings::default());
    let slow = LinkSettings { up: Some(Rate::mbit(3)), queue: 24_000, ..LinkSettings::default() };
    lab.wire.set_link(lab.at_edge, slow);
    let sink = works(lab.cloud.run(|| UdpSocket::bind((CLOUD, 0)).unwrap()));
    let target = sink.local_addr().unwrap();
    let source = works(lab.edge.run(|| UdpSocket::bind((EDGE, 0)).unwrap()));
    let flood = std::thread::spawn(move || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            source.send_to(&[0; PAYLOAD], target).unwrap();
            std::thread::sleep(Duration::from_micros(500));
        }
    });
    sink.set_read_timeout(Some(IN_VAIN)).unwrap();
    let mut times = Vec::new();
    while sink.recv(&mut [0; 2048]).is_ok() {
        times.push(Instant::now());
    }
    flood.join().unwrap();
    let span = times[times.len() - 1].duration_since(times[0]);
    let rate = (times.len() - 1) as f64 * 1200.0 / span.as_secs_f64();
    assert!((320_000.0..=412_500.0).contains(&rate), "{rate:.0} bytes/s instead of 375,000");
    let stats = lab.wire.stats(lab.at_edge);
    assert!(stats.port.queue_full > 100, "twice the rate was offered: {stats:?}");
}

fn lan_hosts_reach_their_edge() {
    let lab = Lab::new(LinkSettings::default());
    let gateway: [IpAddr; 2] = [Ipv4Addr::new(192, 168, 10, 1).into(), "fd00:10::1".parse().unwrap()];
    let plc: [IpAddr; 2] = [Ipv4Addr::new(192, 168, 10, 20).into(), "fd00:10::20".parse().unwrap()];
    let panel: [IpAddr; 2] = [Ipv4Addr::new(192, 168, 10, 21).into(), "fd00:10::21".parse().unwrap()];
    let connected = |name: &str, gateway_interface: &str, own: [IpAddr; 2]| {
        let host = works(Namespace::create(name));
        let addresses = gateway.into_iter().zip(own).map(|(gateway, host)| LanAddress { gateway, host });
        let link = LanLink {
            gateway_interface: gateway_interface.to_owned(),
            host_interface: "eth0".to_owned(),
            addresses: addresses.collect(),
        };
        works(lan::connect(&lab.edge, &host, &link));
        host
    };
    let at_plc = connected("plc", "lan0", plc);
    let at_panel = connected("panel", "lan1", panel);
    let _servers = [gateway[0], gateway[1]].map(|address| works(EchoServer::start(&lab.edge, at(address))));
    let _at_plc = plc.map(|address| works(EchoServer::start(&at_plc, at(address))));
    for (gateway, plc) in gateway.into_iter().zip(plc) {
        works(at_plc.run(|| works(probe::udp_echo(at(gateway), PATIENCE))));
        works(at_plc.run(|| works(probe::ping(gateway, PATIENCE))));
        works(lab.edge.run(|| works(probe::tcp_echo(at(plc), PATIENCE))));
        works(at_panel.run(|| works(probe::udp_echo(at(plc), PATIENCE))));
        works(at_panel.run(|| works(probe::tcp_echo(at(plc), PATIENCE))));
    }
    let closed = SocketAddr::new(gateway[0], 1);
    let refused = works(at_plc.run(|| probe::udp_echo(closed, PATIENCE)));
    assert!(matches!(refused, Err(ProbeError::Refused)), "{refused:?}");
    assert!(
        is_silence(works(at_plc.run(|| probe::udp_echo(at(CLOUD), IN_VAIN)))),
        "the LAN has no way out but the overlay"
    );
}

fn a_stopped_wire_takes_its_interfaces_along() {
    let lab = Lab::new(LinkSettings::default());
    works(lab.edge_asks_cloud(PATIENCE));
    lab.wire.stop();
    let target = SocketAddrV4::new(CLOUD, PORT);
    let after = works(lab.edge.run(|| probe::udp_echo(target.into(), IN_VAIN)));
    assert!(matches!(after, Err(ProbeError::Unreachable)), "{after:?}");
}

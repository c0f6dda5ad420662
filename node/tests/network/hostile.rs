//! Strangers throw all they have at the cloud's port, while its edges work.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::io::Namespace;
use lab::io::probe::{EchoServer, udp_echo};

use crate::attack::Ammunition;
use crate::lab_node::{CLOUD, Node, PATIENCE, attach, eventually};
use crate::stage::Stage;
use crate::{A_CALLS_B, PORT};

const ATTACKER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
const SOCKETS: usize = 64;
/// Datagrams a second: 10,000 half-open handshakes take ten seconds.
const RATE: u64 = 3000;
const HALF_OPEN: usize = 10_000;
const LASTS: Duration = Duration::from_secs(12);

/// What the cloud may grow by, in KiB. Connections of strangers are 256 at most, however many come; seen are 8 MiB.
const GROWTH_KIB: u64 = 16 << 10;

const STREAM_PORT: u16 = 7008;
/// Of one transfer, in bytes.
const LOAD: usize = 2 << 20;

pub(crate) fn strangers_throw_all_they_have() {
    let mut stage = Stage::build();
    stage.cloud.apply(A_CALLS_B);
    let b = stage.b.address();
    let _server = EchoServer::start(&stage.b.network, SocketAddr::new(b, PORT)).unwrap();
    reached(&stage, b);
    let ammunition = Ammunition::prepare(target(), HALF_OPEN, handshakes(&mut stage, b));
    let attacker = Namespace::create("attacker").unwrap();
    attach(&stage.wire, &attacker, ATTACKER, None);
    let sockets = attacker.run(|| [(); SOCKETS].map(|()| UdpSocket::bind((ATTACKER, 0)).unwrap())).unwrap();

    // What the transfer itself needs, before it is measured.
    transfer(&stage, b);
    let (before, refused) = (resident(&stage.cloud), counter(&stage.cloud, "link_handshakes_refused"));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let throwing = scope.spawn(|| ammunition.throw(&sockets, target(), RATE, &is_over));
        let watching = scope.spawn(|| peak(&stage.cloud, &is_over));
        let (began, mut transfers) = (Instant::now(), 0);
        while began.elapsed() < LASTS {
            transfer(&stage, b);
            transfers += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        let (thrown, peak) = (throwing.join().unwrap(), watching.join().unwrap());
        crate::say(&format!(
            "{transfers} transfers of {LOAD} bytes under {thrown:?}; {} KiB more at most",
            peak.saturating_sub(before)
        ));
        assert_eq!(thrown.half_open, HALF_OPEN as u64, "the attack was too slow to be one: {thrown:?}");
        assert!(peak <= before + GROWTH_KIB, "grew from {before} to {peak} KiB under {thrown:?}");
    });
    assert!(counter(&stage.cloud, "link_handshakes_refused") > refused);
    let links = stage.cloud.status()["links"].as_array().unwrap().len();
    assert_eq!(links, 4, "two edges with two lanes each: a handshake that is said again makes no link");

    // An edge that comes while strangers are still at it is let in.
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let throwing = scope.spawn(|| ammunition.throw(&sockets, target(), RATE, &is_over));
        stage.a.kill();
        stage.a.start();
        reached(&stage, b);
        is_over.store(true, Ordering::Relaxed);
        assert!(throwing.join().unwrap().sum() > 0);
    });
}

fn target() -> SocketAddr {
    SocketAddr::from((CLOUD, 10001))
}

/// What edge `a` says to the cloud while it connects, as UDP payloads.
fn handshakes(stage: &mut Stage, b: IpAddr) -> Vec<Vec<u8>> {
    stage.a.kill();
    stage.wire.record(stage.ports[1]);
    stage.a.start();
    reached(stage, b);
    let is_udp = |packet: &Vec<u8>| packet.len() > 28 && packet[9] == 17;
    let recorded = stage.wire.recorded();
    recorded.into_iter().filter(is_udp).map(|packet| packet[28..].to_vec()).collect()
}

fn reached(stage: &Stage, b: IpAddr) {
    let reach = || udp_echo(SocketAddr::new(b, PORT), Duration::from_secs(1)).ok();
    eventually("b is reached from a", || stage.a.network.run(reach).unwrap());
}

/// Through the cloud from `a` to `b`, and each byte compared.
fn transfer(stage: &Stage, b: IpAddr) {
    let listener = stage.b.network.run(|| TcpListener::bind((b, STREAM_PORT)).unwrap()).unwrap();
    let mut client = stage.a.network.run(|| TcpStream::connect((b, STREAM_PORT)).unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent: Vec<u8> = (0..LOAD).map(|n| (n ^ (n >> 8)) as u8).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            client.write_all(&sent).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{} of {} bytes, or others", received.len(), sent.len());
    });
}

/// Resident memory in KiB.
fn resident(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The most that it had until told to stop.
fn peak(node: &Node, stop: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !stop.load(Ordering::Relaxed) {
        peak = peak.max(resident(node));
        thread::sleep(Duration::from_millis(20));
    }
    peak
}

fn counter(node: &Node, name: &str) -> u64 {
    node.status()["counters"][name].as_u64().unwrap()
}

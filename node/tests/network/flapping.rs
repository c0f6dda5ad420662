//! A link that comes and goes: ten seconds up, five seconds down.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::io::Namespace;
use lab::io::probe::{EchoServer, udp_echo};

use crate::lab_node::{PATIENCE, eventually};
use crate::stage::Stage;
use crate::{A_CALLS_B, PORT};

const UP: Duration = Duration::from_secs(10);
const DOWN: Duration = Duration::from_secs(5);

/// What is shipped: a cut of five seconds ends no link.
const CONFIG: &str = "
cloud: {cluster: water, name: hq}
mqtt: {listen: '127.0.0.1:1883'}
";

const STREAM_PORT: u16 = 7008;

/// How soon packets pass again when the path is back.
const BACK_WITHIN: Duration = Duration::from_secs(1);
/// Between two questions whether they do.
const ASKED_EVERY: Duration = Duration::from_millis(10);

/// What the stream carries: 20 kB/s.
const BLOCK: usize = 1000;
const BLOCK_EVERY: Duration = Duration::from_millis(50);

/// What may go to a path that is down in five seconds, both ways and with all headers: what TCP has under way and repeats,
/// keepalives, and knocks of the two links. Seen are 20 to 40 packets and 11 kB.
const LOST_PACKETS: u64 = 100;
const LOST_BYTES: u64 = 50_000;

/// A minute of it.
pub(crate) fn short() {
    flap(4);
}

/// Five minutes of it.
pub(crate) fn long() {
    flap(20);
}

fn flap(times: usize) {
    let stage = Stage::build_with(CONFIG);
    stage.cloud.apply(A_CALLS_B);
    let b = stage.b.address();
    let _server = EchoServer::start(&stage.b.network, SocketAddr::new(b, PORT)).unwrap();
    let target = SocketAddr::new(b, PORT);
    let reach = || stage.a.network.run(|| udp_echo(target, Duration::from_secs(1)).ok()).unwrap();
    eventually("the policy is in force", reach);

    let listener = bound(&stage.b.network, || TcpListener::bind((b, STREAM_PORT)).unwrap());
    let client = bound(&stage.a.network, || TcpStream::connect((b, STREAM_PORT)).unwrap());
    let (server, _) = listener.accept().unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| send_blocks(client, &is_over));
        let receiving = scope.spawn(|| check_blocks(server));
        let mut seen = Vec::new();
        for _ in 0..times {
            thread::sleep(UP);
            seen.push(flap_once(&stage, target));
        }
        is_over.store(true, Ordering::Relaxed);
        let (sent, received) = (sending.join().unwrap(), receiving.join().unwrap());
        assert_eq!(sent, received, "blocks of the stream");
        for (after, lost, bytes) in seen {
            crate::say(&format!("back after {after:?}; {lost} packets, {bytes} bytes sent while down"));
        }
    });
}

/// Down, and up again: how soon packets passed, and what was sent to the path meanwhile.
fn flap_once(stage: &Stage, target: SocketAddr) -> (Duration, u64, u64) {
    let [_, at_a, _] = stage.ports;
    let before = stage.wire.stats(at_a).port;
    stage.wire.cut(at_a);
    thread::sleep(DOWN);
    let after = stage.wire.stats(at_a).port;
    stage.wire.restore(at_a);
    let back = answered_after(&stage.a.network, target);
    let (lost, bytes) = (after.cut - before.cut, after.cut_bytes - before.cut_bytes);
    assert!(lost <= LOST_PACKETS && bytes <= LOST_BYTES, "a storm: {lost} packets, {bytes} bytes while down");
    assert!(lost > 0, "the path was down, and nothing was sent to it");
    assert!(back <= BACK_WITHIN, "packets pass {back:?} after the path");
    (back, lost, bytes)
}

/// Asks until something is answered.
fn answered_after(network: &Namespace, target: SocketAddr) -> Duration {
    let socket = bound(network, || UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.connect(target).unwrap();
    socket.set_read_timeout(Some(ASKED_EVERY)).unwrap();
    let began = Instant::now();
    loop {
        socket.send(b"are you back?").unwrap();
        if socket.recv(&mut [0; 100]).is_ok() {
            return began.elapsed();
        }
        assert!(began.elapsed() < PATIENCE, "never back");
    }
}

/// A socket that was made inside.
fn bound<T: Send>(network: &Namespace, make: impl FnOnce() -> T + Send) -> T {
    network.run(make).unwrap()
}

/// Each block is its number, again and again. Returns how many were sent.
fn send_blocks(mut stream: TcpStream, is_over: &AtomicBool) -> u32 {
    let mut number = 0u32;
    while !is_over.load(Ordering::Relaxed) {
        stream.write_all(&number.to_be_bytes().repeat(BLOCK / 4)).unwrap();
        number += 1;
        thread::sleep(BLOCK_EVERY);
    }
    number
}

/// Reads blocks to the end of the stream; each must be the next. Returns how many there were.
fn check_blocks(mut stream: TcpStream) -> u32 {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut block, mut number) = ([0; BLOCK], 0u32);
    while stream.peek(&mut [0]).unwrap() > 0 {
        stream.read_exact(&mut block).unwrap();
        assert_eq!(&block[..], number.to_be_bytes().repeat(BLOCK / 4), "block {number}");
        number += 1;
    }
    number
}

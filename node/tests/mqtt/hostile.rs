//! Random bytes of ill will, for as long as one likes: recorded sessions of both versions, mutated, over several
//! connections at a time. Meanwhile the process lives, nothing in it panics, two clients that wish nobody ill go on
//! within [`BOUND`], and memory stays within [`ROOM_KIB`].
//!
//! `KUBEBUS_HOSTILE_SECONDS=600 KUBEBUS_HOSTILE_SEED=7 cargo test -p node --test mqtt -- --ignored hostile`

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::wire::{
    CLEAN, GOODBYE, PING, PUBACK, PUBCOMP, PUBREC, PUBREL, Pair, V3, V5, acknowledge, connect, packet,
    properties, publish, subscribe, text, unsubscribe,
};
use crate::{Cluster, Node, no_panic};

/// Connections of ill will at a time.
const ATTACKERS: u64 = 4;

/// For one message and its acknowledgements there and back, meanwhile. On this machine it takes under a millisecond;
/// the attackers and the node share its cores.
const BOUND: Duration = Duration::from_secs(5);

/// What the node may grow by after the first second: retained values, queues and sessions at their bounds.
const ROOM_KIB: u64 = 128 * 1024;

/// How long an attacker listens for an answer to what it said: some of it is answered by silence.
const LISTENING: Duration = Duration::from_millis(5);

/// Mutations of one session at most.
const MUTATIONS: u64 = 6;

/// SplitMix64: a seed says all.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

const TOPICS: [&str; 12] = [
    "a",
    "a/b",
    "größe/水",
    "twin/w/d/report",
    "twin/w/d/set/p",
    "mapper/m/result",
    "mesh/x",
    "$SYS/x",
    "$hw/events/device/d/twin/update",
    "/",
    "a+",
    "",
];
const FILTERS: [&str; 10] =
    ["#", "+/b", "a/#", "$share/g/a", "$share/g/#", "$SYS/#", "twin/#", "a#", "", "+/+/+/+/+/+/+/+"];

/// A session as clients mean it, packet by packet.
fn session(dice: &mut Dice) -> Vec<Vec<u8>> {
    let version = dice.pick(&[V3, V5]);
    let id = format!("hostile-{}", dice.below(64));
    let props: &[u8] = dice.pick(&[
        &[][..],
        &[0x11, 0, 0, 0, 9],
        &[0x11, 0xff, 0xff, 0xff, 0xff, 0x21, 0, 3],
        &[0x22, 0, 9],
        &[0x22, 0, 0],
        &[0x27, 0, 0, 0, 40],
    ]);
    let mut packets = vec![greeting(version, &id, props, dice)];
    for _ in 0..dice.below(12) {
        packets.push(utterance(version, dice));
    }
    if dice.below(3) == 0 {
        packets.push(GOODBYE.to_vec());
    }
    packets
}

fn greeting(version: u8, id: &str, props: &[u8], dice: &mut Dice) -> Vec<u8> {
    let clean = if dice.below(2) == 0 { CLEAN } else { 0 };
    if dice.below(3) > 0 {
        return connect(version, id, clean, dice.pick(&[0, 1, 60]), props);
    }
    let will = [properties(version, &[0x18, 0, 0, 0, 1]), text(dice.pick(&TOPICS)), text("gone")].concat();
    let flags = clean | 0b100 | dice.pick(&[0, 0b1000, 0b10_1000]);
    let head = [text("MQTT"), vec![version, flags, 0, 9], properties(version, props), text(id), will];
    packet(0x10, &head.concat())
}

fn utterance(version: u8, dice: &mut Dice) -> Vec<u8> {
    let id = u16::try_from(dice.below(5)).unwrap();
    match dice.below(10) {
        0 | 1 => subscribe(version, id, dice.pick(&FILTERS), dice.pick(&[0, 1, 2, 4, 8, 16, 32])),
        2 => unsubscribe(version, id, dice.pick(&FILTERS)),
        3 => acknowledge(dice.pick(&[PUBACK, PUBREC, PUBREL, PUBCOMP]), id),
        4 => PING.to_vec(),
        _ => {
            let flags = dice.pick(&[0, 1, 2, 3, 4, 5, 10, 12]);
            let props: &[u8] = dice.pick(&[
                &[][..],
                &[0x02, 0, 0, 0, 1],
                &[0x23, 0, 1],
                &[0x01, 1],
                &[0x26, 0, 1, b'k', 0, 1, b'v'],
            ]);
            let payload = vec![b'x'; dice.pick(&[0, 1, 10, 3000])];
            publish(version, flags, dice.pick(&TOPICS), id, props, &payload)
        }
    }
}

/// What goes wrong with bytes: some flipped, some gone, some twice, lengths that lie, sessions run together.
fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    if bytes.is_empty() {
        return;
    }
    let at = dice.below(bytes.len());
    let some = (at + 1 + dice.below(16)).min(bytes.len());
    match dice.below(7) {
        0 => bytes[at] ^= 1 << dice.below(8),
        1 => bytes[at] = dice.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        2 => drop(bytes.drain(at..some)),
        3 => {
            let twice = bytes[at..some].to_vec();
            bytes.splice(at..at, twice);
        }
        4 => bytes.insert(at, u8::try_from(dice.below(256)).unwrap()),
        5 => bytes.truncate(at),
        _ => {
            let other = session(dice).concat();
            bytes.splice(at.., other);
        }
    }
}

/// One session, as mutated, in pieces; then a moment of listening.
fn attack(node: SocketAddr, dice: &mut Dice) -> std::io::Result<()> {
    let packets = session(dice);
    // Half of all are let in first.
    let (mut bytes, rest) = if dice.below(2) == 0 {
        (Vec::new(), packets.concat())
    } else {
        (packets[0].clone(), packets[1..].concat())
    };
    let mut wrong = rest;
    for _ in 0..=dice.next() % MUTATIONS {
        mutate(&mut wrong, dice);
    }
    bytes.extend(wrong);
    let mut stream = TcpStream::connect(node)?;
    stream.set_read_timeout(Some(LISTENING))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let mut piece = bytes.as_slice();
    while !piece.is_empty() {
        let size = if dice.below(4) == 0 { dice.below(piece.len()) + 1 } else { piece.len() };
        stream.write_all(&piece[..size])?;
        piece = &piece[size..];
    }
    let mut answer = [0; 4096];
    for _ in 0..dice.below(4) {
        if stream.read(&mut answer)? == 0 {
            break;
        }
    }
    Ok(())
}

fn resident_kib(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[track_caller]
fn withstands(time: Duration) {
    let seed = setting("KUBEBUS_HOSTILE_SEED", 1);
    let cluster = Cluster::start();
    let node = &cluster.cloud;
    let (address, over, sessions) = (node.mqtt(), AtomicBool::new(false), AtomicU64::new(0));
    let mut pair = Pair::connect(node, "bystanders");
    let (start, mut before, mut slowest, mut exchanged) = (Instant::now(), None, Duration::ZERO, 0_u64);
    let (over, sessions) = (&over, &sessions);
    std::thread::scope(|scope| {
        for attacker in 0..ATTACKERS {
            scope.spawn(move || {
                let mut dice = Dice(seed.wrapping_mul(1_000_003).wrapping_add(attacker));
                while !over.load(Ordering::Relaxed) {
                    // How a connection ends is the node's affair.
                    let _ = attack(address, &mut dice);
                    sessions.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while start.elapsed() < time {
            let asked = Instant::now();
            let went = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.exchange()));
            if went.is_err() {
                over.store(true, Ordering::Relaxed);
                panic!("the bystanders were cut off after {:?}, seed {seed}", start.elapsed());
            }
            slowest = slowest.max(asked.elapsed());
            exchanged += 1;
            if start.elapsed() > Duration::from_secs(1) {
                before.get_or_insert_with(|| resident_kib(node));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        over.store(true, Ordering::Relaxed);
    });
    let grown = resident_kib(node).saturating_sub(before.unwrap());
    let sessions = sessions.load(Ordering::Relaxed);
    eprintln!(
        "seed {seed}: {sessions} sessions, {exchanged} messages beside them, the slowest {slowest:?}, {grown} KiB more"
    );
    no_panic(node);
    assert!(slowest < BOUND, "a message took {slowest:?}, seed {seed}");
    assert!(grown < ROOM_KIB, "{grown} KiB more, seed {seed}");
    assert!(sessions > 100, "they were let speak: {sessions}");
    Pair::connect(node, "afterwards").exchange();
}

#[test]
fn hostile_bytes_hurt_nobody() {
    withstands(Duration::from_secs(15));
}

#[test]
#[ignore = "ten minutes; KUBEBUS_HOSTILE_SECONDS says otherwise"]
fn hostile_bytes_for_ten_minutes() {
    withstands(Duration::from_secs(setting("KUBEBUS_HOSTILE_SECONDS", 600)));
}

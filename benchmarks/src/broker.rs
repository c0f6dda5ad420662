//! The embedded broker against mosquitto, and what an edge's core adds to relaying.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cluster::{Cluster, EDGE};
use crate::load::{DEVICES, PROPERTIES, REPORTS};
use crate::manifests;
use crate::mosquitto::Mosquitto;
use crate::table::{Table, count, median};

pub(crate) const ROUNDS: usize = 5;

/// Clients that are connected and say nothing.
const IDLE: usize = 1000;

/// Two numbers of one load, in a process of its own.
pub(crate) fn load(broker: impl Display, name: &str) -> Result<(f64, f64)> {
    let me = std::env::current_exe().context("where am I")?;
    let ran = Command::new(me).arg("measure-load").arg(broker.to_string()).arg(name).output();
    let ran = ran.context("start a load")?;
    ensure!(ran.status.success(), "{name}: {}", String::from_utf8_lossy(&ran.stderr));
    let words = String::from_utf8(ran.stdout).context("a measurement")?;
    let mut numbers = words.split_whitespace().map(str::parse);
    let mut next = || numbers.next().context("a measurement")?.context("a measurement");
    Ok((next()?, next()?))
}

/// Two brokers in turn, each first in every second round.
pub(crate) fn rounds<T>(mut measure: impl FnMut(usize) -> Result<T>) -> Result<[Vec<T>; 2]> {
    let mut measured = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            measured[which].push(measure(which)?);
        }
    }
    Ok(measured)
}

pub(crate) fn row(
    table: &mut Table,
    what: &str,
    aim: &str,
    shown: impl Fn(f64) -> String,
    [ours, theirs]: [Vec<f64>; 2],
) {
    let ratio = median(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect());
    table.row([
        what.to_owned(),
        shown(median(ours)),
        shown(median(theirs)),
        format!("{ratio:.2}"),
        aim.to_owned(),
    ]);
}

pub(crate) fn run(program: &Path, room: &Path) -> Result<Table> {
    allow_sockets()?;
    let cluster = Cluster::start(program, room, Ok)?;
    let mosquitto = Mosquitto::start(room, 3, "")?;
    let brokers = [cluster.edge.mqtt(), mosquitto.address];
    // First: what a load needed and gave back would hide it.
    let pids = [cluster.edge.pid()?, mosquitto.pid()];
    let idle = [idle(brokers[0], pids[0])?, idle(brokers[1], pids[1])?].map(|kib| vec![kib]);
    let mut table = Table::new(
        "broker: the embedded broker against mosquitto, payloads of 64 bytes",
        &["", "kubebus", "mosquitto", "kubebus : mosquitto", "aim"],
    );
    for (name, what, aim) in [
        ("one-qos1", "QoS 1, one to one: messages/s", "2 or more"),
        ("fan-qos0", "QoS 0, one to 100: deliveries/s", "5 or more"),
        ("fan-qos1", "QoS 1, one to 100: deliveries/s", "5 or more"),
    ] {
        let measured = rounds(|which| Ok(load(brokers[which], name)?.0))?;
        row(&mut table, what, aim, count, measured);
    }
    let micros = |value: f64| format!("{value:.0} us");
    let [ours, theirs] = rounds(|which| load(brokers[which], "steady"))?;
    let split = |of: fn(&(f64, f64)) -> f64| [&ours, &theirs].map(|all| all.iter().map(of).collect());
    row(&mut table, "QoS 1, 1,000/s: median", "", micros, split(|both| both.0));
    row(&mut table, "QoS 1, 1,000/s: 99 of 100", "1 or less", micros, split(|both| both.1));
    row(&mut table, "an idle client: KiB", "", |kib| format!("{kib:.1}"), idle);
    table.note(format!(
        "medians of {ROUNDS} rounds, both brokers in turn in each; the load is one thread of a process of its own;"
    ));
    table.note(format!("an idle client: what {IDLE} of them add to the process's resident memory"));
    Ok(table)
}

/// Each broker holds [`IDLE`] sockets, and this process their other ends.
fn allow_sockets() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum.map_or(8192, |most| most.min(8192));
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit }).context("allow more sockets")
}

/// What a client that says nothing costs, in KiB.
fn idle(broker: SocketAddr, pid: u32) -> Result<f64> {
    let before = resident_kib(pid)?;
    let clients: Vec<TcpStream> = (0..IDLE).map(|number| greet(broker, number)).collect::<Result<_>>()?;
    // What a connection's start needed for a moment is given back by then.
    std::thread::sleep(Duration::from_secs(1));
    let after = resident_kib(pid)?;
    drop(clients);
    Ok((after - before) / IDLE as f64)
}

fn greet(broker: SocketAddr, number: usize) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(broker).context("connect an idle client")?;
    let name = format!("idle-{number:04}");
    let mut connect =
        vec![0x10, 12 + name.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, name.len() as u8];
    connect.extend_from_slice(name.as_bytes());
    stream.write_all(&connect).context("greet")?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).context("an idle client's CONNACK")?;
    ensure!(connack[3] == 0, "an idle client is refused");
    Ok(stream)
}

fn resident_kib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("memory")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("memory")?;
    line.split_whitespace().nth(1).context("memory")?.parse().context("memory")
}

/// Reports from publish to durable and forwarded, against mosquitto relaying the same.
pub(crate) fn reports(program: &Path, room: &Path) -> Result<Table> {
    let cluster = Cluster::start(program, room, Ok)?;
    cluster.apply(&manifests::plant(DEVICES, PROPERTIES))?;
    cluster.in_step()?;
    let mosquitto = Mosquitto::start(room, 3, "")?;
    let brokers = [(cluster.edge.mqtt(), "reported"), (mosquitto.address, "relayed")];
    let mut cloud = Vec::new();
    let measured = rounds(|which| {
        let (broker, name) = brokers[which];
        let start = Instant::now();
        let rate = load(broker, name)?.0;
        if which == 0 {
            cluster.in_step()?;
            cloud.push(REPORTS as f64 / start.elapsed().as_secs_f64());
        }
        Ok(rate)
    })?;
    let mut table = Table::new(
        format!(
            "reports: {REPORTS} reports over MQTT with QoS 1, 4 mappers, {DEVICES} devices of {PROPERTIES} properties"
        ),
        &["", "kubebus", "mosquitto", "kubebus : mosquitto", "aim"],
    );
    let aim = "0.5 or more, and 20,000/s";
    row(&mut table, "durable and forwarded, against relayed: reports/s", aim, count, measured.clone());
    row(&mut table, "and the cloud has the last of each", "", count, [cloud, measured[1].clone()]);
    table.note(format!(
        "medians of {ROUNDS} rounds in turn; every report changes its value and is acknowledged when it is durable;"
    ));
    table.note(format!("a subscriber with QoS 1 at the {EDGE} hears each value, at mosquitto each report"));
    Ok(table)
}

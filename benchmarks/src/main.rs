//! KubeBus against its aims and against others, side by side in one run.

#[path = "../../node/tests/network/attack.rs"]
mod attack;
mod broker;
mod cluster;
mod cores;
mod fleet;
mod health;
mod kubectl;
mod load;
mod manifests;
mod memory;
mod modbus;
mod mosquitto;
mod mqtt;
mod overlay;
mod relay;
mod resync;
mod sites;
mod store;
mod sync;
mod table;
mod twins;
mod values;
mod wire;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::overlay::Options;
use crate::table::Table;

const USAGE: &str = "\
usage: cargo xtask bench [NAME..] [--rounds N] [--seconds N] [--peers NAME,..]

  store    twin updates on a disk, against SQLite
  sync     changes a second from a cloud core to edge cores
  wire     bytes on the wire for a changed key
  resync   10,000 keys over a slow link, and what live messages notice of it
  memory   what an edge with 1,000 devices holds in memory
  twins    reports a second through the twin core, without and with a disk, against SQLite
  broker   the embedded broker alone, against mosquitto
  kubectl  kubectl with 10,000 devices, against the same bytes replayed; 100 watches
           --rounds N (5)
  fleet    10,000 idle edges at one router: memory of each, and handshakes a second
  health   10,000 edges that tell their cloud how they are: memory, and what a scrape and 'status' cost
  sites    from a client of one site to a client of another, against bridged mosquittos
  reports  reports a second over MQTT until they are durable and forwarded, against mosquitto relaying them
  modbus   50 Modbus devices at one mapper, all well and some dead: requests, CPU, memory, missed readings
           --seconds N of each course (60)

Only when named, as root, since they make network namespaces with NATs of the kernel's; `cargo xtask` installs what they
need from Debian's packages and crates.io:

  overlay  packets through the overlay, against raw, quincy, wireguard-go, boringtun, nebula and openvpn
           --rounds N (5), --seconds N of the TCP stream (4), --peers kubebus,quincy (all)
  thin     a bulk transfer over 3 Mbit/s and 100 to 300 ms, and what packets and twins beside it notice
           --rounds N (3), --seconds N of the transfer (15), --peers (raw,wireguard-go,kubebus)
  hostile  a transfer while strangers throw all they have at the cloud's port, against the same without them
           --rounds N (5), --seconds N of the transfer (4)
";

const ALL: [&str; 13] = [
    "store", "sync", "wire", "resync", "memory", "twins", "broker", "sites", "reports", "fleet", "health", "modbus",
    "kubectl",
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(program), Some(room)) = (args.next(), args.next()) else {
        eprint!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let names: Vec<String> = args.collect();
    if let ("measure-store" | "measure-twins", [what, group]) = (program.as_str(), names.as_slice()) {
        return ended(&program, measure(&program, &room, what, group));
    }
    if let ("measure-load", [what]) = (program.as_str(), names.as_slice()) {
        return ended(&program, load::measure(&room, what));
    }
    if let (part @ ("measure-fleet-hub" | "measure-fleet-edges"), [argument]) =
        (program.as_str(), names.as_slice())
    {
        return ended(part, fleet::measure(part, Path::new(&room), argument));
    }
    let (names, options) = match chosen(names) {
        Ok(chosen) => chosen,
        Err(error) => return ended("", Err(error)),
    };
    let names = if names.is_empty() { ALL.map(str::to_owned).to_vec() } else { names };
    for name in names {
        let done = run(&name, Path::new(&program), Path::new(&room), &options)
            .map(|tables| tables.iter().for_each(|table| println!("{table}")));
        if ended(&name, done) == ExitCode::FAILURE {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Names apart from options.
fn chosen(args: Vec<String>) -> Result<(Vec<String>, Options)> {
    let (mut names, mut options) = (Vec::new(), Options::default());
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--rounds" => options.rounds = Some(value()?.parse().context("--rounds")?),
            "--seconds" => options.seconds = Some(value()?.parse().context("--seconds")?),
            "--peers" => options.peers = value()?.split(',').map(str::to_owned).collect(),
            _ => names.push(arg),
        }
    }
    Ok((names, options))
}

fn ended(name: &str, done: Result<()>) -> ExitCode {
    if let Err(error) = done {
        eprintln!("bench {name}: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What `store` and `twins` start in a process of its own.
fn measure(which: &str, room: &str, what: &str, group: &str) -> Result<()> {
    let (room, group) = (Path::new(room), group.parse().context("updates a transaction")?);
    if which == "measure-store" {
        store::measure(room, what, group)
    } else {
        twins::measure(room, what, group)
    }
}

fn run(name: &str, program: &Path, room: &Path, options: &Options) -> Result<Vec<Table>> {
    let table = match name {
        "overlay" => return overlay::run(program, room, options),
        "thin" => return overlay::thin::run(program, room, options),
        "hostile" => return overlay::hostile::run(program, room, options),
        "store" => store::run(room),
        "sync" => sync::run(),
        "wire" => wire::run(),
        "resync" => resync::run(program, room),
        "memory" => memory::run(program, room),
        "fleet" => fleet::run(room),
        "health" => health::run(),
        "twins" => twins::run(room),
        "broker" => broker::run(program, room),
        "sites" => sites::run(program, room),
        "reports" => broker::reports(program, room),
        "kubectl" => kubectl::run(program, room, options),
        "modbus" => modbus::run(program, room, options),
        _ => bail!("{USAGE}"),
    }?;
    Ok(vec![table])
}

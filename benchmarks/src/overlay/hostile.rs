//! What a transfer notices of strangers that throw all they have at the cloud's UDP port: `cargo xtask bench hostile`.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use super::figures::{Metric, Way};
use super::measure::Course;
use super::others::Others;
use super::peers::{Peer, Place};
use super::topology::{CLOUD, Topology};
use super::{Bench, Options};
use crate::attack::{Ammunition, Thrown};
use crate::table::{Table, count, median};

const ROUNDS: usize = 5;

/// Of a transfer.
const SECONDS: u64 = 4;

/// Datagrams a second: 6 to 36 Mbit/s, more than a site with a thin line could send.
const RATE: u64 = 3000;

/// Handshakes that nobody goes on with, in each transfer.
const HALF_OPEN: usize = 4000;

const SOCKETS: usize = 64;

/// What a transfer under attack is to have of one without.
const AIM: f64 = 0.9;

/// One transfer from edge1: Mbit/s, CPU seconds per GB at the cloud, and MiB that the cloud had at most.
#[derive(Debug, Clone, Copy, Default)]
struct Transfer {
    rate: f64,
    cpu: f64,
    resident: f64,
}

pub(crate) fn run(kubebus: &Path, room: &Path, options: &Options) -> Result<Vec<Table>> {
    let bench = Bench::prepare(kubebus, room, options, &[Peer::KubeBus])?;
    let topology = Topology::new()?;
    let attacker = topology.stranger()?;
    let open = || -> std::io::Result<Vec<UdpSocket>> {
        (0..SOCKETS).map(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).collect()
    };
    let sockets = attacker.namespace().run(open)?.context("an attacker's sockets")?;
    let files = tempfile::tempdir_in(room).context("a directory for the nodes")?;
    let place = Place {
        sites: topology.sites(),
        topology: Some(&topology),
        programs: &bench.programs,
        room: files.path(),
    };
    let tunnel = Peer::KubeBus.start(place)?;
    let mut others = Others::default();
    let mut tables = Vec::new();
    for way in Way::ALL {
        let seconds = options.seconds.unwrap_or(SECONDS);
        let course = Course { sites: topology.sites(), tunnel: &tunnel, way, seconds };
        let mut rounds = Vec::new();
        for round in 0..options.rounds.unwrap_or(ROUNDS) {
            others.look();
            // Each comes first in every second round.
            let (quiet, under) = if round % 2 == 0 {
                let quiet = transfer(course)?;
                (quiet, attacked(course, &sockets)?)
            } else {
                let under = attacked(course, &sockets)?;
                (transfer(course)?, under)
            };
            eprintln!("hostile: {}, {:.0} Mbit/s, under attack {:.0}", way.name(), quiet.rate, under.0.rate);
            rounds.push((quiet, under));
        }
        tables.push(table(way, &rounds));
    }
    if let Some(table) = tables.last_mut() {
        table.note(others.told());
        bench.note(table, &[]);
    }
    Ok(tables)
}

fn transfer(course: Course<'_>) -> Result<Transfer> {
    let taken = course.one_stream().context("a transfer")?;
    let figure = |metric| taken.iter().find(|(of, _)| *of == metric).map_or(f64::NAN, |(_, value)| *value);
    let cpu = if course.way == Way::OneHop { Metric::CpuReceiver } else { Metric::CpuHub };
    Ok(Transfer { rate: figure(Metric::Tcp), cpu: figure(cpu), resident: figure(Metric::ResidentCloud) })
}

fn attacked(course: Course<'_>, sockets: &[UdpSocket]) -> Result<(Transfer, Thrown)> {
    let target = SocketAddr::from((CLOUD, 10001));
    let (ammunition, is_over) = (Ammunition::prepare(target, HALF_OPEN, Vec::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let throwing = scope.spawn(|| ammunition.throw(sockets, target, RATE, &is_over));
        let transfer = transfer(course);
        is_over.store(true, Ordering::Relaxed);
        let thrown = throwing.join().ok().context("the attack ended early")?;
        Ok((transfer?, thrown))
    })
}

fn table(way: Way, rounds: &[(Transfer, (Transfer, Thrown))]) -> Table {
    let title = format!("hostile: a TCP transfer, {}, and strangers at the cloud's port", way.name());
    let mut table =
        Table::new(title, &["", "Mbit/s", "to without", "aim", "cloud's CPU s/GB", "cloud's MiB"]);
    let of = |pick: fn(&(Transfer, (Transfer, Thrown))) -> f64| median(rounds.iter().map(pick).collect());
    table.row([
        "without".to_owned(),
        count(of(|(quiet, _)| quiet.rate)),
        String::new(),
        String::new(),
        format!("{:.2}", of(|(quiet, _)| quiet.cpu)),
        format!("{:.1}", of(|(quiet, _)| quiet.resident)),
    ]);
    table.row([
        "under attack".to_owned(),
        count(of(|(_, (under, _))| under.rate)),
        format!("{:.2}", of(|(quiet, (under, _))| under.rate / quiet.rate)),
        format!("{AIM} or more"),
        format!("{:.2}", of(|(_, (under, _))| under.cpu)),
        format!("{:.1}", of(|(_, (under, _))| under.resident)),
    ]);
    let thrown = of(|(_, (_, thrown))| thrown.sum() as f64);
    table.note(format!(
        "medians of {} rounds, with and without in turn; ratio: median of those of each round; {} datagrams a transfer at \
         {RATE}/s, {HALF_OPEN} of them handshakes that nobody goes on with, the rest damaged, of noise, or up to 64 KiB",
        rounds.len(),
        count(thrown),
    ));
    table
}

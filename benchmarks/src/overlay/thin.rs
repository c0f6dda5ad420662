//! A thin, long line to a site, as mobile networks are: what a bulk transfer gets of it, and what everything else
//! notices of that. `cargo xtask bench thin`.
//!
//! ```text
//!  edge1 ---- NAT, 3 Mbit/s, delay, loss ---- cloud
//! ```
//! The line is the laboratory's (`simulations/lab`), in user space: not every kernel can delay (netem), and at this
//! speed it is no bottleneck.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::io::Wire;
use lab::{Attachment, LinkSettings, NatKind, NatSettings, Rate};

use super::figures::Way;
use super::measure::{Course, round_trips};
use super::others::Others;
use super::peers::{Peer, Place};
use super::space::{Space, finish};
use super::topology::{CLOUD, Sites};
use super::twin::{self, Twin};
use super::{Bench, Options};
use crate::table::{Table, median, percentile};

const ROUNDS: usize = 3;

/// Of a bulk transfer.
const SECONDS: u64 = 15;

/// Of its beginning, which is not counted: TCP overshoots, and on a line of 300 ms that queues for a second it takes this
/// long until what was lost then is repaired and all that waited for it has been read.
const WARM_UP_SECONDS: u64 = 10;

/// Of a look at what is idle.
const IDLE: Duration = Duration::from_secs(5);

const BITS_PER_SECOND: f64 = 3e6;

/// What TCP carries at most where nothing else is: 1448 bytes of each 1500, with timestamps.
const RAW_SHARE: f64 = 1448.0 / 1500.0;

/// What waits for the line, as in mobile routers: as much as it carries in this time. More is dropped.
const QUEUE_MS: u64 = 1000;

const PEERS: [Peer; 3] = [Peer::Raw, Peer::WireguardGo, Peer::KubeBus];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    round_trip_ms: u64,
    loss_per_cent: u32,
}

const CASES: [Case; 3] = [
    Case { round_trip_ms: 100, loss_per_cent: 0 },
    Case { round_trip_ms: 100, loss_per_cent: 1 },
    Case { round_trip_ms: 300, loss_per_cent: 0 },
];

impl Case {
    fn name(self) -> String {
        format!("{} ms, {} % lost each way", self.round_trip_ms, self.loss_per_cent)
    }

    fn link(self) -> LinkSettings {
        let rate = Rate::kbit((BITS_PER_SECOND / 1e3) as u32);
        LinkSettings {
            up: Some(rate),
            down: Some(rate),
            delay: Duration::from_millis(self.round_trip_ms / 2),
            loss_ppm: self.loss_per_cent * 10_000,
            queue: (BITS_PER_SECOND / 8e3) as usize * QUEUE_MS as usize,
            ..LinkSettings::default()
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Up,
    Down,
}

impl Direction {
    const ALL: [Self; 2] = [Self::Up, Self::Down];

    fn name(self) -> &'static str {
        match self {
            Self::Up => "to the cloud",
            Self::Down => "to the edge",
        }
    }
}

/// What one bulk transfer was like.
#[derive(Debug, Clone, Copy, Default)]
struct Bulk {
    mbit: f64,
    idle_ms: f64,
    /// Over the idle median.
    rise_ms: f64,
    rise_p99_ms: f64,
    twin_idle_p99_ms: Option<f64>,
    twin_p99_ms: Option<f64>,
}

pub(crate) fn run(kubebus: &Path, room: &Path, options: &Options) -> Result<Vec<Table>> {
    let bench = Bench::prepare(kubebus, room, options, &PEERS)?;
    let mut results = Results::default();
    let rounds = options.rounds.unwrap_or(ROUNDS);
    for round in 1..=rounds {
        for case in CASES {
            for peer in bench.peers.clone() {
                eprint!("thin: round {round} of {rounds}, {}, {}:", case.name(), peer.name());
                if let Err(error) = results.turn(&bench, case, peer) {
                    eprint!(" {error:#}");
                    results.failures.push(format!("{}, {}: {error:#}", peer.name(), case.name()));
                }
                eprintln!();
            }
        }
    }
    Ok(results.tables(&bench, rounds))
}

/// The cloud and one edge on the line.
struct Line {
    // Before the wire, so that nothing is left that uses it.
    cloud: Space,
    edges: Vec<Space>,
    _wire: Wire,
}

impl Line {
    fn new(case: Case) -> Result<Self> {
        let wire = Wire::start(1).context("start the line")?;
        let (cloud, edge) = (Space::new("cloud")?, Space::new("edge1")?);
        let at = |name: &str, public, nat, link| Attachment { name: name.to_owned(), public, nat, link };
        wire.attach(cloud.namespace(), at("cloud", CLOUD, None, LinkSettings::default()))?;
        let inside = "192.168.1.2/24".parse().context("an address")?;
        // A port for each flow, as the overlay's other benchmark has it.
        let nat = NatSettings { kind: NatKind::Symmetric, inside };
        wire.attach(edge.namespace(), at("edge1", Ipv4Addr::new(203, 0, 113, 21), Some(nat), case.link()))?;
        Ok(Self { cloud, edges: vec![edge], _wire: wire })
    }
}

#[derive(Debug, Default)]
struct Results {
    others: Others,
    bulks: BTreeMap<(Case, Direction, Peer), Vec<Bulk>>,
    failures: Vec<String>,
}

impl Results {
    fn turn(&mut self, bench: &Bench<'_>, case: Case, peer: Peer) -> Result<()> {
        self.others.look();
        let line = Line::new(case)?;
        let files = tempfile::tempdir_in(bench.room).context("a directory for a peer")?;
        let sites = Sites { cloud: &line.cloud, edges: &line.edges };
        let place = Place { sites, topology: None, programs: &bench.programs, room: files.path() };
        let tunnel = peer.start(place)?;
        if peer == Peer::KubeBus {
            twin::declare(place)?;
        }
        let seconds = bench.options.seconds.unwrap_or(SECONDS);
        let course = Course { sites, tunnel: &tunnel, way: Way::OneHop, seconds };
        for direction in Direction::ALL {
            let bulk = measure(course, place, direction, peer).context(direction.name())?;
            eprint!(" {} {:.2} Mbit/s, +{:.0} ms;", direction.name(), bulk.mbit, bulk.rise_ms);
            self.bulks.entry((case, direction, peer)).or_default().push(bulk);
        }
        Ok(())
    }

    fn median(&self, key: (Case, Direction, Peer), of: impl Fn(&Bulk) -> Option<f64>) -> f64 {
        let bulks = self.bulks.get(&key).map_or(&[][..], Vec::as_slice);
        median(bulks.iter().filter_map(of).collect())
    }

    fn tables(&self, bench: &Bench<'_>, rounds: usize) -> Vec<Table> {
        let mut tables: Vec<Table> = CASES.iter().map(|case| self.table(*case, &bench.peers)).collect();
        let mut aims = self.aims();
        aims.note(format!("medians of {rounds} rounds; the line queues {QUEUE_MS} ms before it drops"));
        aims.note(
            "of the line: TCP's bytes to those that TCP could carry without a tunnel, 1448 of each 1500",
        );
        aims.note(self.others.told());
        bench.note(&mut aims, &self.failures);
        tables.push(aims);
        tables
    }

    fn table(&self, case: Case, peers: &[Peer]) -> Table {
        let mut table = Table::new(
            format!("thin: 3 Mbit/s, {}", case.name()),
            &[
                "",
                "bulk Mbit/s",
                "of the line",
                "to raw",
                "RTT idle ms",
                "rise, median",
                "rise, 99 %",
                "twin idle, 99 %",
                "twin, 99 %",
            ],
        );
        for direction in Direction::ALL {
            for peer in peers {
                let of = |value: fn(&Bulk) -> Option<f64>| self.median((case, direction, *peer), value);
                let raw = self.median((case, direction, Peer::Raw), |bulk| Some(bulk.mbit));
                let mbit = of(|bulk| Some(bulk.mbit));
                table.row([
                    format!("{}, {}", peer.name(), direction.name()),
                    shown(mbit, 2),
                    shown(share(mbit), 2),
                    shown(mbit / raw, 2),
                    shown(of(|bulk| Some(bulk.idle_ms)), 0),
                    shown(of(|bulk| Some(bulk.rise_ms)), 0),
                    shown(of(|bulk| Some(bulk.rise_p99_ms)), 0),
                    shown(of(|bulk| bulk.twin_idle_p99_ms), 0),
                    shown(of(|bulk| bulk.twin_p99_ms), 0),
                ]);
            }
        }
        table
    }

    /// The aims are of the first case; those of the others are what to expect, not what to promise.
    fn aims(&self) -> Table {
        let mut table = Table::new("thin: kubebus against its aims", &["", "reached", "aim", "met"]);
        for case in CASES {
            for direction in Direction::ALL {
                let of =
                    |value: fn(&Bulk) -> Option<f64>| self.median((case, direction, Peer::KubeBus), value);
                let mut row = |what: &str, reached: f64, digits, aim: &str, met: bool| {
                    let met = if reached.is_nan() {
                        "-"
                    } else if met {
                        "yes"
                    } else {
                        "no"
                    };
                    let what = format!("{}, {}: {what}", case.name(), direction.name());
                    table.row([what, shown(reached, digits), aim.to_owned(), met.to_owned()]);
                };
                let share = share(of(|bulk| Some(bulk.mbit)));
                row("bulk, of the line", share, 2, "0.92 or more", share >= 0.92);
                let twin = of(|bulk| bulk.twin_p99_ms);
                row("twin, 99 of 100, ms", twin, 0, "below 250", twin < 250.0);
                let rise = of(|bulk| Some(bulk.rise_ms));
                row("round trip's rise, ms", rise, 0, "below 30", rise < 30.0);
            }
        }
        table
    }
}

fn share(mbit: f64) -> f64 {
    mbit * 1e6 / (BITS_PER_SECOND * RAW_SHARE)
}

fn shown(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "-".to_owned() }
}

fn measure(course: Course<'_>, place: Place<'_>, direction: Direction, peer: Peer) -> Result<Bulk> {
    let mut beside = Beside::new(place, direction, peer)?;
    let idle = beside.idle(course)?;
    let twin_idle_p99_ms = beside.twin_p99()?;
    let (mbit, loaded) = beside.bulk(course, direction)?;
    let idle_ms = percentile(&idle, 50);
    Ok(Bulk {
        mbit,
        idle_ms,
        rise_ms: percentile(&loaded, 50) - idle_ms,
        rise_p99_ms: percentile(&loaded, 99) - idle_ms,
        twin_idle_p99_ms,
        twin_p99_ms: beside.twin_p99()?,
    })
}

/// What goes on beside a bulk transfer: pings, and changes of a twin where there are twins.
struct Beside {
    twin: Option<Twin>,
    failed: Option<anyhow::Error>,
}

impl Beside {
    fn new(place: Place<'_>, direction: Direction, peer: Peer) -> Result<Self> {
        let twin = match direction {
            _ if peer != Peer::KubeBus => None,
            Direction::Up => Some(Twin::reported(place)?),
            Direction::Down => Some(Twin::desired(place)?),
        };
        Ok(Self { twin, failed: None })
    }

    /// Round trips in ms, in order of size.
    fn idle(&mut self, course: Course<'_>) -> Result<Vec<f64>> {
        let ping = course.ping(&["-i", "0.1", "-w", &IDLE.as_secs().to_string()])?;
        round_trips(&finish(ping, IDLE * 2, || self.glance())?)
    }

    /// Mbit/s of the transfer, and the same round trips beside it.
    fn bulk(&mut self, course: Course<'_>, direction: Direction) -> Result<(f64, Vec<f64>)> {
        let (warm_up, all) = (WARM_UP_SECONDS.to_string(), course.seconds + WARM_UP_SECONDS);
        let mut args = vec!["-C", "cubic", "-O", &warm_up];
        if direction == Direction::Down {
            args.push("-R");
        }
        let ping = course.ping(&["-i", "0.1", "-w", &all.to_string()])?;
        let report = course.iperf(&args, course.seconds, || self.glance());
        let loaded = finish(ping, Duration::from_secs(all), || {}).and_then(|words| round_trips(&words));
        let bits = report?["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3's report")?;
        Ok((bits / 1e6, loaded?))
    }

    fn glance(&mut self) {
        if let Some(Err(error)) = self.twin.as_mut().map(Twin::glance) {
            self.failed = Some(error);
        }
    }

    fn twin_p99(&mut self) -> Result<Option<f64>> {
        if let Some(error) = self.failed.take() {
            return Err(error.context("a twin"));
        }
        self.twin.as_mut().map(|twin| Ok(percentile(&twin.delays()?, 99))).transpose()
    }
}

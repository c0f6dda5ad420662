//! The overlay against others that do the same, over kernel NATs, peer by peer in turn: `cargo xtask bench overlay`.

mod figures;
pub(crate) mod hostile;
mod measure;
mod others;
mod peers;
mod report;
mod space;
pub(crate) mod thin;
mod topology;
mod twin;

use std::path::Path;

use anyhow::{Context, Result, ensure};

use self::figures::{Figures, Way};
use self::measure::{Course, Taken};
use self::others::Others;
use self::peers::{Peer, Place, Programs};
use self::topology::Topology;
use crate::table::Table;

/// What can be chosen of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) rounds: Option<usize>,
    /// Of the one TCP stream.
    pub(crate) seconds: Option<u64>,
    /// Names of peers; empty: all.
    pub(crate) peers: Vec<String>,
}

const ROUNDS: usize = 5;

/// Of the one TCP stream.
const SECONDS: u64 = 4;

/// Programs of the kernel's tools, without which there is no lab.
const TOOLS: [&str; 6] = ["ip", "nft", "ethtool", "iperf3", "ping", "setpriv"];

/// Measured on cables without offloads too.
const WIRE: [Peer; 3] = [Peer::Raw, Peer::KubeBus, Peer::Quincy];

pub(crate) fn run(kubebus: &Path, room: &Path, options: &Options) -> Result<Vec<Table>> {
    let bench = Bench::prepare(kubebus, room, options, &Peer::ALL)?;
    let rounds = options.rounds.unwrap_or(ROUNDS);
    let topology = Topology::new()?;
    let mut results = Results::default();
    for round in 0..rounds {
        // Each comes after another in every second round: what one leaves warm or hot serves all alike.
        let mut order = bench.peers.clone();
        if round % 2 == 1 {
            order.reverse();
        }
        for peer in order {
            eprint!("overlay: round {} of {}, {}:", round + 1, rounds, peer.name());
            results.turn(&bench, &topology, peer);
        }
        results.figures.next_round();
    }
    Ok(results.tables(&bench, rounds))
}

/// What a run needs, found before it begins.
#[derive(Debug)]
struct Bench<'a> {
    room: &'a Path,
    options: &'a Options,
    programs: Programs,
    peers: Vec<Peer>,
    missing: Vec<String>,
}

impl<'a> Bench<'a> {
    fn prepare(kubebus: &Path, room: &'a Path, options: &'a Options, all: &[Peer]) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "network namespaces with NATs of the kernel's need root: run it as root"
        );
        let programs = Programs::new(kubebus, room);
        for tool in TOOLS {
            programs.find(tool).with_context(|| format!("the lab needs {tool}"))?;
        }
        let chosen: Vec<Peer> = match options.peers.as_slice() {
            [] => all.to_vec(),
            names => names.iter().map(|name| Peer::named(name)).collect::<Result<_>>()?,
        };
        let (mut peers, mut missing) = (Vec::new(), Vec::new());
        for peer in chosen {
            match peer.missing(&programs).as_slice() {
                [] => peers.push(peer),
                absent => missing.push(format!("{} (no {})", peer.name(), absent.join(", "))),
            }
        }
        Ok(Self { room, options, programs, peers, missing })
    }

    /// Who was compared, who could not be, and what went wrong.
    fn note(&self, table: &mut Table, failures: &[String]) {
        let version = |peer: &Peer| format!("{} {}", peer.name(), peer.version(&self.programs));
        table.note(self.peers.iter().map(version).collect::<Vec<_>>().join(", "));
        if !self.missing.is_empty() {
            table.note(format!("MISSING, not measured: {}", self.missing.join(", ")));
        }
        failures.iter().for_each(|failure| table.note(format!("FAILED: {failure}")));
    }
}

#[derive(Debug, Default)]
struct Results {
    figures: Figures,
    others: Others,
    failures: Vec<String>,
}

impl Results {
    /// One peer: started, measured, ended. What fails is told under the tables.
    fn turn(&mut self, bench: &Bench<'_>, topology: &Topology, peer: Peer) {
        self.others.look();
        if let Err(error) = self.measure(bench, topology, peer) {
            eprint!(" {error:#}");
            self.failures.push(format!("{}: {error:#}", peer.name()));
        }
        eprintln!();
    }

    fn measure(&mut self, bench: &Bench<'_>, topology: &Topology, peer: Peer) -> Result<()> {
        let files = tempfile::tempdir_in(bench.room).context("a directory for a peer")?;
        let place = Place {
            sites: topology.sites(),
            topology: Some(topology),
            programs: &bench.programs,
            room: files.path(),
        };
        let tunnel = peer.start(place)?;
        for way in Way::ALL {
            let course = Course {
                sites: topology.sites(),
                tunnel: &tunnel,
                way,
                seconds: bench.options.seconds.unwrap_or(SECONDS),
            };
            self.take(peer, way, course.measure());
            if WIRE.contains(&peer) {
                topology.set_offloads(false)?;
                let taken = course.measure_wire();
                topology.set_offloads(true)?;
                self.take(peer, way, taken);
            }
        }
        Ok(())
    }

    fn take(&mut self, peer: Peer, way: Way, taken: Taken) {
        for (metric, value) in taken.figures {
            if matches!(metric, figures::Metric::Tcp | figures::Metric::WireTcp) {
                eprint!(" {} {metric:?} {value:.0} Mbit/s;", way.name());
            }
            self.figures.add(peer, way, metric, value);
        }
        for failure in taken.failures {
            eprint!(" {} {failure};", way.name());
            self.failures.push(format!("{}, {}, {failure}", peer.name(), way.name()));
        }
    }

    fn tables(&self, bench: &Bench<'_>, rounds: usize) -> Vec<Table> {
        let mut tables = Vec::new();
        for way in Way::ALL {
            tables.push(report::streams(&self.figures, way, &bench.peers));
            tables.push(report::packets(&self.figures, way, &bench.peers));
        }
        let mut aims = report::aims(&self.figures);
        aims.note(format!(
            "medians of {rounds} rounds, peers in turn; ratios are medians of those of each round"
        ));
        aims.note(self.others.told());
        bench.note(&mut aims, &self.failures);
        tables.push(aims);
        tables
    }
}

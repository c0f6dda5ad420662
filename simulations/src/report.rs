//! What came of a run, and of many.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::links::NetStats;
use crate::oracle::Violation;
use crate::trace::TraceHash;

/// What came of one seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReport {
    pub seed: u64,
    pub events: u64,
    /// Virtual time.
    pub span: Duration,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often each invariant was asked for.
    pub asked: BTreeMap<&'static str, u64>,
    pub net: NetStats,
    pub violation: Option<Violation>,
    pub hash: TraceHash,
    /// The event log, if it was kept.
    pub lines: Vec<String>,
}

/// What came of many seeds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Total {
    pub seeds: u64,
    pub events: u64,
    pub span: Duration,
    pub faults: BTreeMap<&'static str, u64>,
    pub asked: BTreeMap<&'static str, u64>,
    pub net: NetStats,
    /// Seeds that were played twice to compare their logs.
    pub repeated: u64,
    pub failures: Vec<Failure>,
}

/// A seed that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub seed: u64,
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, what } = self;
        write!(f, "seed {seed}: {what}\n  replay: cargo run --release -p simulations -- replay {seed}")
    }
}

impl Total {
    pub fn add(&mut self, run: &RunReport) {
        self.seeds += 1;
        self.events += run.events;
        self.span += run.span;
        run.faults.iter().for_each(|(kind, n)| *self.faults.entry(kind).or_default() += n);
        run.asked.iter().for_each(|(what, n)| *self.asked.entry(what).or_default() += n);
        self.net.frames += run.net.frames;
        self.net.frames_lost += run.net.frames_lost;
        self.net.losses += run.net.losses;
        self.net.overtaken += run.net.overtaken;
        self.net.connections += run.net.connections;
        self.net.rebindings += run.net.rebindings;
        self.net.idle_timeouts += run.net.idle_timeouts;
        let failure = run.violation.as_ref().map(|v| Failure { seed: run.seed, what: v.to_string() });
        self.failures.extend(failure);
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, events, span, faults, asked, net, repeated, failures } = self;
        let hours = span.as_secs() / 3600;
        writeln!(f, "{seeds} seeds, {events} events, {hours} hours of the world's time")?;
        writeln!(
            f,
            "network: {} connections, {} frames, {} lost and sent again, {} reordered, {} lost with their \
             connection, {} idle timeouts, {} NAT rebindings",
            net.connections,
            net.frames,
            net.losses,
            net.overtaken,
            net.frames_lost,
            net.idle_timeouts,
            net.rebindings
        )?;
        let list = |rows: &BTreeMap<&'static str, u64>| {
            rows.iter().map(|(what, n)| format!("  {n:>9}  {what}\n")).collect::<String>()
        };
        write!(f, "faults:\n{}asked:\n{}", list(faults), list(asked))?;
        writeln!(f, "same seed, same trace: {repeated} seeds played twice")?;
        failures.iter().try_for_each(|failure| writeln!(f, "FAILED {failure}"))
    }
}

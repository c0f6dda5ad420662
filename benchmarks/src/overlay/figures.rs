//! What was measured, by peer, way and metric.

use std::collections::BTreeMap;

use super::peers::Peer;
use crate::table::median;

/// Whom a packet of edge1 is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// The cloud.
    OneHop,
    /// edge2, over the cloud.
    Relayed,
}

impl Way {
    pub(super) const ALL: [Self; 2] = [Self::OneHop, Self::Relayed];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OneHop => "one hop",
            Self::Relayed => "relayed",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Metric {
    /// One TCP stream, Mbit/s received.
    Tcp,
    /// Four.
    Tcp4,
    /// One, from the far end to edge1.
    Reverse,
    /// One, on cables that carry frames of the MTU.
    WireTcp,
    /// CPU seconds per 10^9 bytes received, of the one TCP stream: at edge1, the relay, the far end.
    CpuSender,
    CpuHub,
    CpuReceiver,
    /// MiB while TCP runs, the most that was seen: at edge1 and the cloud; and of it what is no file's.
    ResidentEdge,
    ResidentCloud,
    AnonymousEdge,
    AnonymousCloud,
    /// 64-byte datagrams, as many as go in: thousands a second received.
    Flood,
    /// Per cent lost of 50,000 and of 100,000 such datagrams a second.
    Loss50k,
    Loss100k,
    /// Round trips in ms: with nothing else on the way, and beside one TCP stream.
    IdleMedian,
    IdleP99,
    LoadedMedian,
    LoadedP99,
}

/// With the round of each.
#[derive(Debug, Default)]
pub(super) struct Figures {
    round: usize,
    values: BTreeMap<(Peer, Way, Metric), BTreeMap<usize, f64>>,
}

impl Figures {
    /// What is added from now on is of another round.
    pub(super) fn next_round(&mut self) {
        self.round += 1;
    }

    pub(super) fn add(&mut self, peer: Peer, way: Way, metric: Metric, value: f64) {
        self.values.entry((peer, way, metric)).or_default().insert(self.round, value);
    }

    /// NaN if it was never measured.
    pub(super) fn median(&self, peer: Peer, way: Way, metric: Metric) -> f64 {
        median(self.of(peer, way, metric).collect())
    }

    pub(super) fn of(&self, peer: Peer, way: Way, metric: Metric) -> impl Iterator<Item = f64> {
        self.values.get(&(peer, way, metric)).into_iter().flat_map(BTreeMap::values).copied()
    }

    /// Of one to the other, the median of the rounds that have both: what else the machine does changes from round to
    /// round, and less within one.
    pub(super) fn ratio(&self, one: Peer, other: Peer, way: Way, metric: Metric) -> f64 {
        let Some(others) = self.values.get(&(other, way, metric)) else { return f64::NAN };
        let ones = self.values.get(&(one, way, metric)).into_iter().flatten();
        median(ones.filter_map(|(round, value)| Some(value / others.get(round)?)).collect())
    }

    pub(super) fn holds(&self, peer: Peer) -> bool {
        self.values.keys().any(|(one, ..)| *one == peer)
    }
}

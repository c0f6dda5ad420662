//! Each entry of an edge's outbox is taken by the cloud once and none is passed over; it leaves the edge when the
//! cloud has it, not before.

use std::collections::BTreeMap;

use bus::Mono;
use bus::twin::Incarnation;
use metadata::sync::{Body, Entry, Lane, PerLane, ToCloud};
use metadata::{Commit, Key, Revision, Write};

use super::{Oracle, life_of};
use crate::disk::Image;
use crate::machine::{Machine, Seat};
use crate::manifests;

const ONCE: &str = "the cloud takes an entry once";
const ALL: &str = "the cloud passes no entry over";
const KEPT: &str = "an entry leaves the edge when the cloud has it";

/// An entry: whose, in which life of its disk, its lane and number.
type Name = (usize, Incarnation, Lane, u64);

/// The cloud's memory of what it took.
#[derive(Debug, Default)]
pub(super) struct Taken {
    entries: BTreeMap<Name, (Body, Revision)>,
    /// What it took before its disk was put back to an older copy.
    lost: BTreeMap<Name, Body>,
    /// The message that the cloud is handling, and whose it is.
    arriving: Option<(Seat, Lane, Vec<Entry>)>,
}

impl Taken {
    /// What was taken since is lost, and may come again.
    pub(super) fn on_cloud_put_back(&mut self, durable: Revision) {
        let lost = self.entries.extract_if(.., |_, (_, revision)| *revision > durable);
        self.lost.extend(lost.map(|(name, (body, _))| (name, body)));
    }

    /// What was not durable never was.
    pub(super) fn on_cloud_crash(&mut self, durable: Revision) {
        self.entries.retain(|_, (_, revision)| *revision <= durable);
    }
}

/// The lives of an edge's disk, with the last entry stored of each lane.
fn lives(bytes: Option<&bytes::Bytes>) -> BTreeMap<Incarnation, PerLane> {
    let lives: Option<super::promises::Inbox> = bytes.and_then(|bytes| minicbor::decode(bytes).ok());
    lives.unwrap_or_default().into_iter().map(|life| (life.incarnation, life.stored)).collect()
}

fn row(key: &str, value: &bytes::Bytes) -> Option<(Lane, u64, Body)> {
    let (lane, seq) = row_name(key)?;
    Some((lane, seq, minicbor::decode(value).ok()?))
}

fn row_name(key: &str) -> Option<(Lane, u64)> {
    let (lane, seq) = key.strip_prefix("/o/")?.split_once('/')?;
    let lane = match lane {
        "state" => Lane::State,
        "event" => Lane::Event,
        "telemetry" => Lane::Telemetry,
        _ => return None,
    };
    Some((lane, seq.parse().ok()?))
}

impl Oracle {
    /// The cloud's node is about to handle this message, which came from `seat`.
    pub fn on_arrival(&mut self, seat: Option<Seat>, payload: &[u8]) {
        let message = minicbor::decode::<ToCloud>(payload).ok();
        self.taken.arriving = match (seat, message) {
            (Some(seat), Some(ToCloud::Up { lane, entries, .. })) => Some((seat, lane, entries)),
            _ => None,
        };
    }

    /// Before `commit` is counted as held: what it says is taken.
    pub(super) fn check_taken(&mut self, commit: &Commit, now: Mono) {
        for Write { key, value } in &commit.writes {
            let Some(edge) = key.as_str().strip_prefix("/sync/in/") else { continue };
            let Some(site) = manifests::site_of_edge(edge) else { continue };
            let before = self.held.get(&Machine::Cloud).and_then(|held| held.get(key.as_str()));
            let (before, after) = (lives(before), lives(value.as_ref()));
            for (life, stored) in after {
                for lane in Lane::ALL {
                    let from = before.get(&life).map_or(0, |stored| stored[lane]);
                    self.take((site, life, lane, from), stored[lane], commit.revision, now);
                }
            }
        }
    }

    /// The cloud says that it now has what is numbered up to `to`.
    fn take(&mut self, (site, life, lane, from): Name, to: u64, revision: Revision, now: Mono) {
        self.verdict.ask(now, ONCE, from <= to, || format!("edge-{site} {life:?} {lane:?}: {from} to {to}"));
        if to <= from {
            return;
        }
        let arriving = self.taken.arriving.as_ref().filter(|(seat, of, _)| seat.site == site && *of == lane);
        let (seat, entries) = match arriving {
            Some((seat, _, entries)) => (Some(*seat), entries.clone()),
            None => (None, Vec::new()),
        };
        let new = entries.into_iter().filter(|entry| entry.seq > from && entry.seq <= to);
        for Entry { seq, body } in new {
            let again = self.taken.entries.insert((site, life, lane, seq), (body, revision));
            self.verdict.ask(now, ONCE, again.is_none(), || format!("edge-{site} {life:?} {lane:?} {seq}"));
        }
        let seat = seat.filter(|seat| !self.refused.contains(seat));
        let held = seat.and_then(|seat| self.held.get(&Machine::Edge(seat)));
        let held = held.filter(|held| life_of(held) == Some(life));
        let missed = held.and_then(|held| self.missed(held, (site, life, lane, from), to));
        self.verdict.ask(now, ALL, missed.is_none(), || {
            format!("edge-{site} {life:?} {lane:?}: {missed:?} is passed over on the way from {from} to {to}")
        });
    }

    /// A number that waits at the edge, and that the cloud says it has and has not.
    fn missed(&self, edge: &Image, (site, life, lane, from): Name, to: u64) -> Option<u64> {
        let waiting = edge.under("/o/").filter_map(|(rest, _)| row_name(&format!("/o/{rest}")));
        let mut waiting = waiting.filter(|(of, seq)| *of == lane && *seq > from && *seq <= to);
        waiting
            .find(|(_, seq)| !self.taken.entries.contains_key(&(site, life, lane, *seq)))
            .map(|(_, seq)| seq)
    }

    /// Before `commit` is counted as held: what leaves the outbox by it.
    pub(super) fn check_outbox(&mut self, seat: Seat, commit: &Commit, now: Mono) {
        let Some(held) = self.held.get(&Machine::Edge(seat)) else { return };
        let Some(life) = life_of(held) else { return };
        // Entries are for no follower: a commit does not delete them, it forgets them.
        let gone = |key: &Key| row(key.as_str(), held.get(key.as_str())?);
        for (lane, seq, body) in commit.forgotten.iter().filter_map(gone) {
            let name = (seat.site, life, lane, seq);
            let taken = self.taken.entries.get(&name).map(|(taken, _)| taken);
            let had = taken == Some(&body) || self.taken.lost.get(&name) == Some(&body);
            let holds = had || is_replaced(commit, lane, seq, &body);
            self.verdict.ask(now, KEPT, holds, || {
                format!("{seat} drops {life:?} {lane:?} {seq} {body:?}; the cloud took {taken:?}")
            });
        }
    }
}

/// Whether the commit that takes this entry out puts another in its place: a newer state of the same key, or a gap
/// that names it.
fn is_replaced(commit: &Commit, lane: Lane, seq: u64, body: &Body) -> bool {
    let put = |write: &Write| row(write.key.as_str(), write.value.as_ref()?);
    commit.writes.iter().filter_map(put).any(|(of, number, new)| match (&new, body) {
        _ if of != lane => false,
        (Body::Gap { from }, _) => *from <= seq && seq <= number,
        (Body::Data { key, .. }, Body::Data { key: old, .. }) => {
            lane == Lane::State && key == old && number > seq
        }
        (Body::Data { .. }, Body::Gap { .. }) => false,
    })
}

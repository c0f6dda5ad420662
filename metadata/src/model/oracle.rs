//! What must hold in every state, and the observer's notes that tell.

use std::collections::BTreeMap;

use bus::Class;
use bus::twin::Incarnation;
use bytes::Bytes;

use super::state::{Accepted, Cloud, Edge, State};
use crate::epoch;
use crate::{Key, Position, Revision};

/// What an edge sees, by name.
pub(super) type View = BTreeMap<String, Bytes>;

/// The names that are written together.
pub(super) const PAIR: [&str; 2] = ["a", "b"];
/// Begins the values written together.
pub(super) const PAIRED: u8 = b'p';

/// Frames under way in one direction: more would mean that nothing bounds them. A window is eight parts; each may have
/// been asked for again after a loss.
const MAX_FRAMES: usize = 24;

/// A promise that was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    WentBack,
    NotTheFold,
    SeenApart,
    TakenTwice,
    LowerEpoch,
    Damaged,
    Renewed,
    Unbounded,
    Blamed,
}

impl State {
    pub(super) fn note(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }

    /// After a cycle of the edge.
    pub(super) fn look_at_copy(&mut self) {
        let applied = self.edge.host.core.applied();
        let epoch = epoch::get(&self.edge.host.ks);
        let before = std::mem::replace(&mut self.edge_mut().stood, applied);
        let followed = std::mem::replace(&mut self.edge_mut().followed, epoch);
        if epoch < followed {
            self.note(Broken::LowerEpoch);
        }
        let life = self.edge.host.core.incarnation();
        if std::mem::replace(&mut self.edge_mut().life, life) != life && !self.went_back {
            self.note(Broken::Renewed);
        }
        let copy = self.edge.copy();
        if is_apart(&copy) {
            self.note(Broken::SeenApart);
        }
        if applied == Position::default() {
            return;
        }
        let Some(past) = self.cloud.past.get(&at(applied)).cloned() else {
            return self.note(Broken::NotTheFold);
        };
        if past.view != copy {
            self.note(Broken::NotTheFold);
        }
        let was = self.cloud.past.get(&at(before));
        if was.is_some_and(|was| (was.line, before.revision) > (past.line, applied.revision)) {
            self.note(Broken::WentBack);
        }
        if before != applied && past.epoch < followed {
            self.note(Broken::LowerEpoch);
        }
    }

    pub(super) fn look_at_queues(&mut self) {
        let held = self.cloud.host.held().count().max(self.edge.host.held().count());
        let queued = self.link.as_ref().map_or(0, |link| link.up.len().max(link.down.len()));
        if held.max(queued) > MAX_FRAMES {
            self.note(Broken::Unbounded);
        }
    }

    /// Whether the cloud may take this now: nothing of the lane that came after it, and not it, was taken before in
    /// the same life of the edge's disk; nor in another, unless disks were exchanged or the cloud's was put back.
    pub(super) fn may_take(&self, incarnation: Incarnation, class: Class, payload: &Bytes) -> bool {
        let taken = |prefix: &str| -> Vec<Bytes> {
            self.cloud.host.ks.range(prefix).map(|(_, value)| value.clone()).collect()
        };
        let of_this_life = taken(&record_prefix(incarnation, class));
        let of_any = taken(RECORDS);
        let in_order = of_this_life.iter().all(|before| before < payload);
        in_order && (self.went_back || !of_any.contains(payload))
    }

    /// Nobody follows a cloud that another one took over from.
    pub(super) fn is_refused(&self) -> bool {
        self.link.is_none() && epoch::get(&self.cloud.host.ks) < epoch::get(&self.edge.host.ks)
    }

    /// Both sides agree: the copy is what the cloud says now, and what the edge had to say is all with the cloud.
    pub(super) fn agrees(&self) -> bool {
        let Self { cloud, edge, .. } = self;
        let in_step = cloud.host.core.edges(&cloud.host.ks).all(|(_, in_step)| in_step);
        if self.is_refused() {
            return true;
        }
        in_step && edge.copy() == cloud.view() && edge.host.core.outbox_len() == 0 && has_all(cloud, edge)
    }
}

fn at(position: Position) -> (u64, Revision) {
    (position.term, position.revision)
}

fn is_apart(copy: &View) -> bool {
    let [a, b] = PAIR.map(|name| copy.get(name).filter(|value| value[0] == PAIRED).map(|value| &value[..2]));
    a != b
}

/// Where the cloud's cores keep what came up.
const RECORDS: &str = "/c/up/";

fn record_prefix(incarnation: Incarnation, class: Class) -> String {
    format!("{RECORDS}{incarnation:?}/{}/", class as u8)
}

pub(super) fn record_key(incarnation: Incarnation, class: Class, seq: u64) -> Key {
    Key::literal(&format!("{}{seq:020}", record_prefix(incarnation, class)))
}

/// Each accepted event, and the last accepted state.
fn has_all(cloud: &Cloud, edge: &Edge) -> bool {
    let records: Vec<&Bytes> = cloud.host.ks.range(RECORDS).map(|(_, value)| value).collect();
    let last_state = edge.accepted.iter().rfind(|entry| entry.class == Class::State);
    let events = edge.accepted.iter().filter(|entry| entry.class == Class::Event);
    events.chain(last_state).all(|entry| records.contains(&&entry.payload))
}

/// What a cloud that was put back to a backup must still get: what the edge holds, or the backup has.
pub(super) fn still_owed(accepted: &[Accepted], cloud: &Cloud, edge: &Edge) -> Vec<Accepted> {
    let kept = |entry: &&Accepted| {
        let waits = edge
            .host
            .ks
            .range("/o/")
            .any(|(_, row)| row.windows(entry.payload.len()).any(|window| *window == entry.payload));
        waits || cloud.host.ks.range(RECORDS).any(|(_, value)| *value == entry.payload)
    };
    accepted.iter().filter(kept).cloned().collect()
}

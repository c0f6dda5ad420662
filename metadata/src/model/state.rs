//! One state: both parties with their disks, the link with what is under way, and what an observer remembers.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bus::twin::Incarnation;
use bus::{Class, Mono, Name, Now, UnixMillis};
use bytes::Bytes;

use super::action::{Action, Budget, Side};
use super::oracle::{Broken, View};
use super::plant::Plant;
use super::print::Print;
use crate::epoch;
use crate::two_parties::host::{Host, Link};
use crate::{Feed, Keyspace, MemoryStore, Position, Replica, Revision};

/// What the edge was to see at one position of the cloud, and in which of the cloud's histories that was: each restore
/// from a backup begins another.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) line: u8,
    pub(super) epoch: u64,
    pub(super) view: View,
}

#[derive(Clone)]
pub(super) struct Cloud {
    pub(super) host: Host<Feed, Bytes>,
    pub(super) term: u64,
    pub(super) line: u8,
    /// By term and revision.
    pub(super) past: BTreeMap<(u64, Revision), Past>,
    past_print: Print,
    print: u64,
}

/// An entry that the edge accepted, and the edge's revision that holds it.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) revision: Revision,
    pub(super) class: Class,
    pub(super) payload: Bytes,
}

#[derive(Clone)]
pub(super) struct Edge {
    pub(super) host: Host<Replica, Bytes>,
    /// What this disk accepted and must not lose.
    pub(super) accepted: Vec<Accepted>,
    /// Applied at the end of the last cycle.
    pub(super) stood: Position,
    /// The highest epoch followed then.
    pub(super) followed: u64,
    /// The incarnation then.
    pub(super) life: Incarnation,
    print: u64,
}

/// A disk of the edge that lies in a drawer.
#[derive(Clone)]
pub(super) struct Spare {
    pub(super) disk: MemoryStore,
    pub(super) accepted: Vec<Accepted>,
}

/// A disk of the cloud that it does not run on: a backup, or the one before the restore.
#[derive(Clone)]
pub(super) struct Other {
    pub(super) disk: MemoryStore,
    pub(super) line: u8,
    /// A cloud ran on it after the backup was made.
    pub(super) is_ahead: bool,
}

/// Parts that an action does not touch are shared with the state before it.
#[derive(Clone)]
pub(super) struct State {
    pub(super) cloud: Arc<Cloud>,
    pub(super) edge: Arc<Edge>,
    pub(super) link: Option<Link>,
    pub(super) spare: Option<Arc<Spare>>,
    pub(super) other: Option<Arc<Other>>,
    pub(super) mono: Mono,
    /// Starts of the cloud and of the edge: the next one's seed.
    pub(super) starts: [u64; 2],
    /// Values written and entries pushed: makes each unlike any other.
    pub(super) values: [u8; 2],
    /// A disk of either side was exchanged for an older one.
    pub(super) went_back: bool,
    /// Links that an outdated cloud's edge did not want; it tries for ever.
    pub(super) refusals: u8,
    pub(super) left: Budget,
    pub(super) broken: Option<Broken>,
    pub(super) plant: Option<Plant>,
    /// Transactions that a disk may have under way before the next cycle waits.
    pub(super) pipeline: usize,
}

/// What happens at the third try happened at the second.
const MAX_REFUSALS: u8 = 2;

pub(super) fn edge_name() -> Name {
    Name::new("x").unwrap()
}

impl State {
    /// Both have started on empty disks and do not know each other.
    pub(super) fn first(left: Budget, pipeline: usize, plant: Option<Plant>) -> Self {
        let cloud = Cloud::start(MemoryStore::default(), 0, |_| {});
        let edge = Edge::start(MemoryStore::default(), 0, Vec::new());
        let mut state = Self {
            cloud: Arc::new(cloud),
            edge: Arc::new(edge),
            link: None,
            spare: None,
            other: None,
            mono: Mono(1),
            starts: [1, 1],
            values: [0, 0],
            went_back: false,
            refusals: 0,
            left,
            broken: None,
            plant,
            pipeline,
        };
        state.cloud_mut().remember();
        state.after(Action::Persist(Side::Cloud)).after(Action::Persist(Side::Edge))
    }

    pub(super) fn now(&self) -> Now {
        Now { mono: self.mono, wall: UnixMillis(0) }
    }

    pub(super) fn under_way(&self, side: Side) -> usize {
        match side {
            Side::Cloud => self.cloud.host.store.unsynced(),
            Side::Edge => self.edge.host.store.unsynced(),
        }
    }

    /// Whether its disk lets this side run a cycle.
    fn is_free(&self, side: Side) -> bool {
        self.under_way(side) < self.pipeline
    }

    pub(super) fn queue(&self, to: Side) -> usize {
        let link = self.link.as_ref();
        link.map_or(0, |link| match to {
            Side::Cloud => link.up.len(),
            Side::Edge => link.down.len(),
        })
    }

    pub(super) fn next_timer(&self) -> Option<Mono> {
        let timers = [self.cloud.host.core.poll_timeout(), self.edge.host.core.poll_timeout()];
        timers.into_iter().flatten().map(|(due, _)| due).min()
    }

    /// Whether `action` makes sense here; what it costs is another question.
    pub(super) fn can(&self, action: Action) -> bool {
        let both_free = self.is_free(Side::Cloud) && self.is_free(Side::Edge);
        match action {
            Action::Write(_) | Action::Compact => self.is_free(Side::Cloud),
            Action::Push(_) => self.is_free(Side::Edge),
            Action::Persist(side) => self.under_way(side) > 0,
            Action::Deliver { to, at } => self.queue(to) > at && self.is_free(to),
            Action::Duplicate { to } | Action::Drop { to } => self.queue(to) > 0,
            Action::Connect => {
                let is_tried = self.refusals >= MAX_REFUSALS && self.is_refused();
                self.link.is_none() && both_free && !is_tried
            }
            Action::Cut { .. } => self.link.is_some() && both_free,
            Action::Crash { .. } | Action::Wipe => true,
            Action::CopyDisk => self.spare.is_none(),
            Action::ExchangeDisks => self.spare.is_some(),
            Action::Backup => self.other.is_none() && self.under_way(Side::Cloud) == 0,
            Action::Restore => self.other.as_ref().is_some_and(|other| !other.is_ahead),
            Action::ReturnCloud => self.other.as_ref().is_some_and(|other| other.is_ahead),
            Action::Wait => self.next_timer().is_some() && both_free,
        }
    }

    /// Of all but what may still happen: two of an equal one end alike once faults do.
    pub(super) fn print(&self) -> Print {
        let mut print = Print::default();
        print.number(self.cloud.print);
        print.number(self.edge.print);
        print.number(self.mono.0);
        print.debug(&self.broken);
        match &self.link {
            None => print.number(0),
            Some(link) => {
                for queue in [&link.up, &link.down] {
                    print.number(queue.len() as u64 + 1);
                    queue.iter().for_each(|frame| print.bytes(frame));
                }
            }
        }
        print
    }
}

impl Cloud {
    /// A cloud that found this disk. Its first cycle is not ended yet.
    pub(super) fn start(disk: MemoryStore, starts: u64, first: impl FnOnce(&mut Keyspace)) -> Self {
        let term = 1000 + starts;
        let host = Host::start(disk, |ks| {
            first(ks);
            Feed::load(ks, term)
        });
        let past_print = Print::default();
        Self { host, term, line: 0, past: BTreeMap::new(), past_print, print: 0 }
    }

    /// The same observer goes on with this cloud.
    pub(super) fn after(self, before: &Self, line: u8) -> Self {
        Self { line, past: before.past.clone(), past_print: before.past_print, ..self }
    }

    pub(super) fn remember(&mut self) {
        let revision = self.host.ks.revision();
        let past = Past { line: self.line, epoch: epoch::get(&self.host.ks), view: self.view() };
        self.past_print.number(self.term);
        self.past_print.number(revision.0);
        self.past_print.number(u64::from(past.line));
        for (name, value) in &past.view {
            self.past_print.bytes(name.as_bytes());
            self.past_print.bytes(value);
        }
        self.past.insert((self.term, revision), past);
    }

    /// What the edge is to see.
    pub(super) fn view(&self) -> View {
        let mut view = View::new();
        for scope in ["/all/".to_owned(), format!("/e/{}/", edge_name())] {
            let rows = self.host.ks.range(&scope);
            view.extend(rows.map(|(key, value)| (key.as_str()[scope.len()..].to_owned(), value.clone())));
        }
        view
    }

    pub(super) fn take_print(&mut self) {
        let mut print = self.past_print;
        core_print(&mut print, &self.host.core);
        print.number(u64::from(self.line));
        self.host.print(&mut print);
        self.host.held().for_each(|frame| print.bytes(frame));
        self.print = print.end();
    }
}

impl Edge {
    /// An edge that found this disk. Its first cycle is not ended yet.
    pub(super) fn start(disk: MemoryStore, starts: u64, accepted: Vec<Accepted>) -> Self {
        let host = Host::start(disk, |ks| Replica::load(ks, starts));
        let stood = host.core.applied();
        let (followed, life) = (epoch::get(&host.ks), host.core.incarnation());
        Self { host, accepted, stood, followed, life, print: 0 }
    }

    pub(super) fn copy(&self) -> View {
        let rows = self.host.ks.range("/m/");
        rows.map(|(key, value)| (key.as_str()["/m/".len()..].to_owned(), value.clone())).collect()
    }

    pub(super) fn take_print(&mut self) {
        let mut print = Print::default();
        core_print(&mut print, &self.host.core);
        self.host.print(&mut print);
        self.host.held().for_each(|frame| print.bytes(frame));
        accepted_print(&mut print, &self.accepted);
        self.print = print.end();
    }
}

/// What was counted has no say in what follows.
fn core_print(print: &mut Print, core: &impl fmt::Debug) {
    let text = format!("{core:?}");
    let (before, counted) = text.split_once("stats: Stats {").unwrap();
    print.bytes(before.as_bytes());
    print.bytes(counted.split_once('}').unwrap().1.as_bytes());
}

fn accepted_print(print: &mut Print, accepted: &[Accepted]) {
    for Accepted { revision, payload, .. } in accepted {
        print.number(revision.0);
        print.bytes(payload);
    }
}

impl<C, O> Host<C, O> {
    /// The disk adds to the keyspace only what it does not have yet.
    fn print(&self, print: &mut Print) {
        print.keyspace(&self.ks);
        if self.store.unsynced() > 0 {
            print.disk(&self.store);
        }
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let mut print = self.print();
        if let Some(spare) = &self.spare {
            print.disk(&spare.disk);
            accepted_print(&mut print, &spare.accepted);
        }
        if let Some(other) = &self.other {
            print.disk(&other.disk);
        }
        print.end().hash(hasher);
        (self.starts, self.values, self.refusals, self.left).hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let rest = |state: &Self| (state.starts, state.values, state.refusals, state.left);
        self.print().end() == other.print().end() && rest(self) == rest(other)
    }
}

/// Short: a trace shows each state it passes.
impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("cloud_revision", &self.cloud.host.ks.revision())
            .field("applied", &self.edge.host.core.applied())
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

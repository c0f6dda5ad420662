//! What must hold after every event, and what must hold once the world has come to rest.
//!
//! The oracle sees what the nodes hand out (commits, words, and what became durable) and what is true in the world
//! (the real time, what devices did), never what a node believes. Its parts:
//!
//! | module | asks | invariant |
//! |---|---|---|
//! | `versions` | does no version go back, on any node and for any subscriber | I3, I5 |
//! | `copies` | is an edge's copy a state that the cloud went through, whole | I3, I4 |
//! | `outbox` | does the cloud take each entry once, and the edge keep it until then, or name it in a gap | I7 |
//! | `promises` | would a crash now undo what was said | |
//! | `writes` | does a device move only by a fresh decision, once an id, in its time | I1, I2, I9 |
//! | `commands` | is a command carried out once and in its time, and does its end stay | I1, I2, I7 |
//! | `authority` | is nothing decided on under an authority that is over | I5 |
//! | `groups` | is what is changed as one carried out as one | I4 |
//! | `interlocks` | does a tripped interlock let nothing else through | I6 |
//! | this one | do the queues on disk stay under their bounds | I8 |
//! | `settled` | after quiet: is everything where it belongs | I6, I7 |
//!
//! I1 no write begins after its time; I2 an id is carried out at most once; I3 what an edge has applied grows, and is
//! what it was sent; I4 a batch, and a change of several wishes, is seen whole; I5 no desired value is accepted under a
//! lower epoch; I6 a tripped interlock has its value through; I7 each accepted event reaches the cloud, or a gap names
//! it; I8 queues are bounded; I9 reads and starts move nothing.
//!
//! What is excused is counted, under a name in parentheses: an age that is wrong because a wall clock was set in
//! mid-flight, what was lost with a disk, what two disks of one edge say of the same, and a wish that was answered for
//! having been made under an authority that is over.

mod authority;
mod commands;
mod copies;
mod groups;
mod interlocks;
mod outbox;
mod promises;
mod settled;
#[cfg(test)]
mod tests;
mod versions;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bus::Mono;
use bus::twin::{DesiredVersion, Incarnation};
use device_twin::PropertyId;
use metadata::Commit;

use crate::disk::Image;
use crate::machine::{Machine, Seat};

pub use settled::Settled;

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub at: Mono,
    pub invariant: &'static str,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, invariant, what } = self;
        write!(f, "at {}.{:06} s: {invariant}: {what}", at.0 / 1_000_000, at.0 % 1_000_000)
    }
}

/// How often each question was asked, and the first answer that was wrong.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) asked: BTreeMap<&'static str, u64>,
    pub(crate) first: Option<Violation>,
}

impl Verdict {
    /// Something does not hold, for a reason that is right.
    pub(crate) fn excuse(&mut self, why: &'static str) {
        *self.asked.entry(why).or_default() += 1;
    }

    /// Asks whether `holds`; `what` tells the story if it does not.
    pub(crate) fn ask(
        &mut self,
        at: Mono,
        invariant: &'static str,
        holds: bool,
        what: impl FnOnce() -> String,
    ) {
        *self.asked.entry(invariant).or_default() += 1;
        if !holds && self.first.is_none() {
            self.first = Some(Violation { at, invariant, what: what() });
        }
    }
}

/// The last version that the cloud gave to a wish for each property.
const VERSIONS: &str = "/c/version/";

const INCARNATION: &str = "/sync/incarnation";

fn decode<T: for<'b> minicbor::Decode<'b, ()>>(bytes: Option<&bytes::Bytes>) -> Option<T> {
    minicbor::decode(bytes?).ok()
}

fn life_of(held: &Image) -> Option<Incarnation> {
    held.get(INCARNATION).and_then(decode_life)
}

fn decode_life(bytes: &bytes::Bytes) -> Option<Incarnation> {
    minicbor::decode(bytes).ok()
}

/// The oracle of one run.
#[derive(Debug, Default)]
pub struct Oracle {
    verdict: Verdict,
    /// What each running node holds, as its commits told.
    held: BTreeMap<Machine, Image>,
    /// Each seat's disks, in the order of their lives.
    lives: BTreeMap<Seat, Vec<Incarnation>>,
    copies: copies::Copies,
    promises: promises::Promises,
    taken: outbox::Taken,
    /// Edges whose disk refuses writes: what they say and do is in memory only.
    refused: BTreeSet<Seat>,
    /// Sites that were among them once.
    went_on_in_memory: BTreeSet<usize>,
    /// The cloud's disk was once an old copy: edges go back with it.
    put_back: bool,
    /// The newest wish for a property that was lost with the cloud's disk.
    lost_wishes: BTreeMap<PropertyId, DesiredVersion>,
    /// Up to which version an edge ever refused wishes for a property, or called them over.
    outranked: BTreeMap<PropertyId, DesiredVersion>,
    /// Wishes that were made as one with others, also if nothing is left to say so.
    grouped: BTreeSet<(PropertyId, DesiredVersion)>,
    writes: writes::Writes,
    commands: commands::Commands,
    interlocks: interlocks::Interlocks,
    subscribers: versions::Subscribers,
    /// When a wall clock was set.
    jumps: Vec<(Mono, Machine)>,
    /// Sites whose disk was once empty or a copy: their revisions began anew.
    wiped: BTreeSet<usize>,
    /// Sites of which two disks took turns: their lives have no order.
    cloned: BTreeSet<usize>,
    /// Sites where a clone's disk took the place of the original's: it knows of other devices what they did.
    moved: BTreeSet<usize>,
    /// Seats whose node counts on from a copy of a disk in that disk's life: until it takes a new one numbers come
    /// twice.
    aged: BTreeMap<Seat, Incarnation>,
}

impl Oracle {
    pub fn violation(&self) -> Option<&Violation> {
        self.verdict.first.as_ref()
    }

    pub fn asked(&self) -> &BTreeMap<&'static str, u64> {
        &self.verdict.asked
    }

    /// The player itself saw something that cannot be.
    pub fn accuse(&mut self, at: Mono, invariant: &'static str, what: String) {
        self.verdict.ask(at, invariant, false, || what);
    }

    /// A node handed out a commit; it is not durable yet.
    pub fn on_commit(&mut self, machine: Machine, commit: &Commit, now: Mono) {
        self.note_life(machine, commit);
        self.check_versions(machine, commit, now);
        match machine {
            Machine::Cloud => self.check_taken(commit, now),
            Machine::Edge(seat) if self.refused.contains(&seat) => {}
            Machine::Edge(seat) => self.check_outbox(seat, commit, now),
        }
        self.check_commands(machine, commit, now);
        self.note_wishes(machine, commit, now);
        let decided = authority::Decided::in_commit(self.held.get(&machine), commit);
        let begun = interlocks::begun(self.held.get(&machine), commit);
        self.held.entry(machine).or_default().apply(commit);
        self.note_new_numbers(machine, commit);
        match machine {
            Machine::Cloud => self.copies.on_cloud_commit(commit, &self.held[&machine]),
            Machine::Edge(seat) => {
                self.writes.on_edge_commit(seat, commit);
                self.note_outranked(commit);
                self.check_bounds(seat, commit, now);
                let held = &self.held[&machine];
                self.copies.check_edge(seat, commit, held, &mut self.verdict, now);
                self.note_interlocks(seat, commit, now);
                // What was done while the disk refused comes as one commit, whatever its order was.
                if !self.refused.contains(&seat) {
                    self.check_decided(seat, &decided, now);
                    self.check_groups(seat, &decided, now);
                    self.check_interlocks(seat, &begun, now);
                }
            }
        }
    }

    /// The disk refuses writes, and the node goes on in memory.
    pub fn on_refused(&mut self, machine: Machine) {
        let Machine::Edge(seat) = machine else { return };
        self.refused.insert(seat);
        self.went_on_in_memory.insert(seat.site);
        // It may take a new life and forget it again.
        self.cloned.insert(seat.site);
        self.wiped.insert(seat.site);
    }

    /// The disk takes writes; what was in memory only has been handed to it.
    pub fn on_taken_again(&mut self, machine: Machine) {
        if let Machine::Edge(seat) = machine {
            self.refused.remove(&seat);
        }
    }

    /// A node's process ended: what it held is what its disk holds.
    pub fn on_crash(&mut self, machine: Machine, durable: &Image, now: Mono) {
        self.held.insert(machine, durable.clone());
        match machine {
            Machine::Cloud => {
                self.copies.on_cloud_crash(durable.revision);
                self.taken.on_cloud_crash(durable.revision);
                self.subscribers.on_cloud_crash();
            }
            Machine::Edge(seat) => {
                self.writes.on_edge_crash(seat);
                self.commands.on_edge_disk(seat, durable.revision);
                if self.refused.remove(&seat) {
                    self.writes.forget(seat);
                    self.aged.extend(life_of(durable).map(|life| (seat, life)));
                }
            }
        }
        self.check_kept(machine, durable, now);
    }

    pub fn on_wipe(&mut self, seat: Seat) {
        self.held.insert(Machine::Edge(seat), Image::default());
        self.wiped.insert(seat.site);
        self.aged.remove(&seat);
        self.promises.forget(seat);
        self.writes.on_wipe(seat);
    }

    /// The machine has another disk, once copied from that of an edge of this name: what happened since is forgotten
    /// there, and only the cloud can tell.
    pub fn on_other_disk(&mut self, seat: Seat, durable: &Image) {
        self.held.insert(Machine::Edge(seat), durable.clone());
        self.wiped.insert(seat.site);
        if let Some(life) = life_of(durable) {
            self.aged.insert(seat, life);
            self.lives.entry(seat).or_default().push(life);
        }
        self.promises.forget(seat);
        self.writes.forget(seat);
        self.commands.on_edge_disk(seat, durable.revision);
    }

    /// The cloud has its disk as it was at some earlier time: what was made since is forgotten, and only edges can tell
    /// some of it.
    pub fn on_cloud_put_back(&mut self, durable: &Image) {
        self.note_lost_wishes(durable);
        self.held.insert(Machine::Cloud, durable.clone());
        self.copies.on_cloud_put_back(durable.revision);
        self.taken.on_cloud_put_back(durable.revision);
        self.promises.on_cloud_put_back(durable);
        self.commands.on_cloud_put_back(durable);
        self.wiped.extend(0..crate::world::MAX_SITES);
        self.put_back = true;
    }

    /// The clone's disk is now the site's.
    pub fn on_clone_survives(&mut self, site: usize) {
        self.moved.insert(site);
    }

    /// An edge may have carried out what the cloud does not know any more. The older wish does not move its device,
    /// nor does a new one that gets the same number: a restored cloud numbers above all of them, but one whose disk was
    /// put back without a new epoch does not know that it should.
    fn note_lost_wishes(&mut self, durable: &Image) {
        let Some(held) = self.held.get(&Machine::Cloud) else { return };
        for (rest, bytes) in held.under(VERSIONS) {
            let given = |bytes: &bytes::Bytes| minicbor::decode::<DesiredVersion>(bytes).ok();
            let (lost, kept) = (given(bytes), durable.get(&format!("{VERSIONS}{rest}")).and_then(given));
            if let (Some(id), Some(lost)) = (PropertyId::parse(rest), lost.filter(|_| lost > kept)) {
                let known = self.lost_wishes.entry(id).or_default();
                *known = lost.max(*known);
            }
        }
    }

    /// The disk of the machine that joined at this site was copied for another one: from here on both count in one
    /// life, until one takes a new one.
    pub fn on_clone(&mut self, site: usize) {
        let original = Seat::of(site);
        self.cloned.insert(site);
        let life = self.held.get(&Machine::Edge(original)).and_then(life_of);
        self.aged.extend(life.map(|life| (original, life)));
    }

    pub fn on_wall_jump(&mut self, machine: Machine, now: Mono) {
        self.jumps.push((now, machine));
    }

    /// A cloud process starts; positions of this run carry `term`.
    pub fn on_cloud_start(&mut self, term: u64) {
        self.copies.begin_term(term);
    }

    /// A disk is known by its incarnation.
    fn note_life(&mut self, machine: Machine, commit: &Commit) {
        let Machine::Edge(seat) = machine else { return };
        let named = commit.writes.iter().find(|write| write.key.as_str() == INCARNATION);
        let Some(life) = named.and_then(|write| decode_life(write.value.as_ref()?)) else { return };
        self.lives.entry(seat).or_default().push(life);
        self.promises.forget(seat);
    }

    fn note_outranked(&mut self, commit: &Commit) {
        for write in &commit.writes {
            let id = write.key.as_str().strip_prefix(versions::OUTRANKED).and_then(PropertyId::parse);
            let version = decode::<DesiredVersion>(write.value.as_ref());
            if let (Some(id), Some(version)) = (id, version) {
                let known = self.outranked.entry(id).or_default();
                *known = version.max(*known);
            }
        }
    }

    fn note_new_numbers(&mut self, machine: Machine, commit: &Commit) {
        let Machine::Edge(seat) = machine else { return };
        let Some(old) = self.aged.get(&seat).copied() else { return };
        let told = commit.writes.iter().filter(|write| write.key.as_str().starts_with("/t/reported/"));
        let mut told = told.filter_map(|write| versions::reported(write.value.as_ref()?));
        if told.any(|version| version.incarnation != old) {
            self.aged.remove(&seat);
        }
    }

    /// Queues that are kept on disk stay below their bounds.
    fn check_bounds(&mut self, seat: Seat, commit: &Commit, now: Mono) {
        if !commit.revision.0.is_multiple_of(32) {
            return;
        }
        let held = &self.held[&Machine::Edge(seat)];
        for (prefix, bound) in [
            ("/o/state/", metadata::outbox::MAX_STATE_ENTRIES),
            ("/o/event/", metadata::outbox::MAX_EVENT_ENTRIES),
            ("/o/telemetry/", metadata::outbox::MAX_TELEMETRY_ENTRIES),
        ] {
            let waiting = held.under(prefix).count();
            self.verdict.ask(now, "held queues stay under their bounds", waiting <= bound, || {
                format!("{seat} holds {waiting} entries under {prefix}")
            });
        }
    }

    /// Whether the wall clock of `machine` was set between two moments.
    fn was_set(&self, machine: Machine, from: Mono, to: Mono) -> bool {
        self.jumps.iter().any(|(at, whose)| *whose == machine && from <= *at && *at <= to)
    }

    /// Something happened too late, which a wall clock that was set in between explains.
    fn excuse(&mut self, late: bool) {
        if late {
            self.verdict.excuse("(late, excused by a wall clock that was set)");
        }
    }
}

//! The edge's half of the sync: its copy of what it must know, under `/m/`, and the outbox.
//!
//! ```text
//!            link_up: hello        welcome: receipt kept     first part
//!   Offline ---------------> Greeting ------------> Following ----------> Staging
//!                             ^    |                 ^   ^                 |   |
//!                             |    | renew: new      |   +-- last part: ---+   |
//!                             +----+ incarnation,    |       all in one cycle  |
//!                                    hello again     +-- a part that does -----+
//!                                                        not follow: nack
//!   From anywhere back to Offline: link_down, or a welcome of a lower epoch.
//! ```
//! Acks wait, like every output, until the cycle's commit is durable.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bus::backoff::Jitter;
use bus::twin::Incarnation;
use bus::{Class, Mono, Now};
use bytes::Bytes;

use crate::digest::{Buckets, Digest};
use crate::epoch;
use crate::key::Key;
use crate::key::Revision;
use crate::keyspace::Keyspace;
use crate::outbox::{Outbox, PushError};
use crate::sync::{
    Base, Change, Hello, Misbehaviour, Part, PerLane, Position, Receipt, ToCloud, ToEdge, encode,
};

/// Without an answer to hello or an ack for this long, says it again. The link repairs losses itself and ends after
/// 45 s of silence; this is for what got lost between link and core.
pub const STALL: Duration = Duration::from_secs(30);

/// The largest batch staged, names and values: all an edge may be told to know, as that is in memory too on a device
/// of 64 MB. A cloud that sends more is told so by the end of the link.
pub const MAX_BATCH_BYTES: usize = 16 << 20;

const INCARNATION: &str = "/sync/incarnation";
const RECEIPT: &str = "/sync/receipt";
/// Which entries may have been sent under which receipt: kept when one is numbered that was not.
const SENT: &str = "/sync/sent";
const APPLIED: &str = "/sync/applied";
const COPY: &str = "/m/";

/// What the replica wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaOutput {
    /// Send to the cloud, channel metadata.
    Send { class: Class, payload: Bytes },
    /// These keys under `/m/` have new values or are gone, in this cycle.
    Changed(Vec<Key>),
    /// The copy was made anew from a snapshot: the cloud may not know what it was told before, say it again.
    Resynced,
    /// The copy was not what the cloud had made of it, and is now: this machine's disk or memory lost something.
    Repaired,
    /// Close the link.
    Misbehaved(Misbehaviour),
    /// This cloud is at `epoch`, and another one, restored from a backup of it, was followed at `followed`. Close the
    /// link.
    Outdated { epoch: u64, followed: u64 },
}

/// What happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Copies made anew from nothing.
    pub snapshots: u64,
    /// Copies found to differ from the cloud's, and mended.
    pub repairs: u64,
    /// Parts that did not follow.
    pub nacks: u64,
}

#[derive(Debug, Clone)]
struct Staging {
    batch: u32,
    next_part: u32,
    snapshot: bool,
    /// Whose names are all named, or else deleted.
    mends: Buckets,
    /// The last part's.
    digest: Option<u64>,
    bytes: usize,
    writes: BTreeMap<Key, Option<Bytes>>,
}

#[derive(Debug, Clone)]
struct Link {
    session: u32,
    /// Nothing is heeded before.
    welcomed: bool,
    /// The cloud's, once welcomed.
    term: u64,
    staging: Option<Staging>,
    /// The last batch applied in this session.
    done: Option<u32>,
    /// When to say again what is unanswered.
    deadline: Mono,
}

/// The replica of one edge.
#[derive(Debug, Clone)]
pub struct Replica {
    incarnation: Incarnation,
    receipt: Receipt,
    /// See [`Hello::sent`].
    sent: PerLane,
    /// See [`Hello::stored`].
    stored: PerLane,
    /// The disk knows `sent` for this receipt.
    marked: bool,
    applied: Position,
    outbox: Outbox,
    link: Option<Link>,
    /// Of the last hello: counts on with each, from a random start.
    session: u32,
    /// Draws incarnations.
    jitter: Jitter,
    stats: Stats,
    /// Drained after each handle, which adds at most a window of messages.
    outputs: VecDeque<ReplicaOutput>,
}

impl Replica {
    /// The replica as the keyspace kept it. `seed` must be random at each start: sessions come of it, and for a keyspace
    /// that has none the incarnation, by which a wiped disk is known.
    pub fn load(ks: &mut Keyspace, seed: u64) -> Self {
        let incarnation = ks.get(INCARNATION).and_then(|bytes| minicbor::decode(bytes).ok());
        let mut jitter = Jitter::new(seed);
        let incarnation = incarnation.unwrap_or_else(|| Incarnation(jitter.next_u64()));
        ks.put(Key::literal(INCARNATION), encode(&incarnation));
        let applied = ks.get(APPLIED).and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default();
        let receipt: Receipt =
            ks.get(RECEIPT).and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default();
        let outbox = Outbox::load(ks);
        let mark: Option<(Receipt, PerLane)> = ks.get(SENT).and_then(|bytes| minicbor::decode(bytes).ok());
        let mark = mark.filter(|(under, _)| *under == receipt);
        let (sent, marked) = (mark.map_or(outbox.numbered(), |(_, sent)| sent), mark.is_some());
        Self {
            incarnation,
            receipt,
            sent,
            stored: PerLane::default(),
            marked,
            applied,
            outbox,
            link: None,
            session: jitter.next_u64() as u32,
            jitter,
            stats: Stats::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Changes only if the cloud does not know this disk by it, as an old copy or a clone is found to be;
    /// [`ReplicaOutput::Resynced`] follows then.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The state of the cloud that the copy equals.
    pub fn applied(&self) -> Position {
        self.applied
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// How many entries wait in the outbox.
    pub fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    /// Of the outbox' lanes; see [`Outbox::ends`].
    pub fn outbox_ends(&self) -> [(u64, u64); 3] {
        self.outbox.ends()
    }

    /// Whether what the outbox refused may try again.
    pub fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// Puts an entry into the outbox; see [`Outbox::push`].
    pub fn push(
        &mut self,
        class: Class,
        key: &str,
        payload: Bytes,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), PushError> {
        self.mark_sent(ks);
        self.outbox.push(class, key, payload, ks)?;
        self.send_up(ks, now);
        Ok(())
    }

    /// Puts a message for other sites into the outbox, in a lane of its own; see [`Outbox::push_message`].
    pub fn push_message(&mut self, message: &[u8], ks: &mut Keyspace, now: Now) -> Result<(), PushError> {
        self.mark_sent(ks);
        self.outbox.push_message(message, ks)?;
        self.send_up(ks, now);
        Ok(())
    }

    /// How many messages for other sites wait in the outbox.
    pub fn messages_len(&self) -> usize {
        self.outbox.messages_len()
    }

    /// A link to the cloud stands.
    pub fn handle_link_up(&mut self, ks: &Keyspace, now: Now) {
        self.say_hello(ks, now);
    }

    pub fn handle_link_down(&mut self) {
        self.link = None;
    }

    /// A frame of [`bus::Channel::Metadata`] arrived from the cloud.
    pub fn handle_frame(&mut self, payload: &[u8], ks: &mut Keyspace, now: Now) {
        let Some(link) = &mut self.link else { return };
        let outcome = match minicbor::decode::<ToEdge>(payload) {
            Err(_) => Err(Misbehaviour::Malformed),
            Ok(message) if message.session() != link.session => return,
            Ok(message) if !link.welcomed => {
                self.handle_answer(&message, ks, now);
                Ok(())
            }
            Ok(message) => self.handle_message(message, ks, now),
        };
        match outcome {
            Ok(()) => self.send_up(ks, now),
            Err(what) => {
                self.link = None;
                self.outputs.push_back(ReplicaOutput::Misbehaved(what));
            }
        }
    }

    pub fn handle_timeout(&mut self, ks: &Keyspace, now: Now) {
        let due = self.poll_timeout().is_some_and(|(at, _)| at <= now.mono);
        let Some(link) = self.link.as_mut().filter(|_| due) else { return };
        link.deadline = now.mono + STALL;
        if !link.welcomed {
            return self.say_hello(ks, now);
        }
        self.outbox.rewind();
        self.send_up(ks, now);
    }

    pub fn poll_output(&mut self) -> Option<ReplicaOutput> {
        self.outputs.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let link = self.link.as_ref()?;
        let waits = !link.welcomed || self.outbox.has_unacked();
        waits.then_some((link.deadline, "say again what is unanswered"))
    }

    fn say_hello(&mut self, ks: &Keyspace, now: Now) {
        self.session = self.session.wrapping_add(1);
        let (session, deadline) = (self.session, now.mono + STALL);
        self.link = Some(Link { session, welcomed: false, term: 0, staging: None, done: None, deadline });
        let Self { incarnation, applied, receipt, sent, stored, .. } = *self;
        let epoch = epoch::get(ks);
        self.send(&ToCloud::Hello(Hello { incarnation, applied, session, receipt, sent, epoch, stored }));
    }

    fn send(&mut self, message: &ToCloud) {
        self.outputs.push_back(ReplicaOutput::Send { class: Class::State, payload: encode(message) });
    }

    fn send_up(&mut self, ks: &Keyspace, now: Now) {
        let Some(link) = self.link.as_mut().filter(|link| link.welcomed) else { return };
        if !self.outbox.has_unacked() {
            link.deadline = now.mono + STALL;
        }
        let session = link.session;
        while let Some(message) = self.outbox.next_message(session, ks) {
            if let ToCloud::Up { lane, entries, .. } = &message
                && let Some(last) = entries.last()
            {
                let sent = &mut self.sent[*lane];
                *sent = last.seq.max(*sent);
            }
            self.send(&message);
        }
    }

    /// While nothing can be sent: lets the disk know what was, so that what is numbered from here on is not counted to
    /// it after a restart. Another disk may be using the same numbers.
    fn mark_sent(&mut self, ks: &mut Keyspace) {
        let is_welcome = self.link.as_ref().is_some_and(|link| link.welcomed);
        if !is_welcome && !std::mem::replace(&mut self.marked, true) {
            ks.put(Key::literal(SENT), encode(&(self.receipt, self.sent)));
        }
    }

    /// What hello is answered with. All else is of a session whose welcome got lost.
    fn handle_answer(&mut self, message: &ToEdge, ks: &mut Keyspace, now: Now) {
        if let ToEdge::Welcome { receipt, epoch, term, .. } = message {
            self.handle_welcome(*receipt, *epoch, *term, ks);
        } else if let ToEdge::Renew { .. } = message {
            self.renew(ks, now);
        }
    }

    fn handle_welcome(&mut self, receipt: Receipt, epoch: u64, term: u64, ks: &mut Keyspace) {
        let followed = epoch::get(ks);
        if epoch < followed {
            self.link = None;
            return self.outputs.push_back(ReplicaOutput::Outdated { epoch, followed });
        }
        epoch::set(ks, epoch);
        self.keep_receipt(receipt, ks);
        self.outbox.rewind();
        if let Some(link) = &mut self.link {
            link.welcomed = true;
            link.term = term;
        }
    }

    fn keep_receipt(&mut self, receipt: Receipt, ks: &mut Keyspace) {
        self.receipt = receipt;
        self.marked = false;
        ks.put(Key::literal(RECEIPT), encode(&receipt));
    }

    fn handle_message(&mut self, message: ToEdge, ks: &mut Keyspace, now: Now) -> Result<(), Misbehaviour> {
        match message {
            ToEdge::Part(part) => self.handle_part(part, ks),
            ToEdge::UpAck { lane, seq, .. } => {
                if let Some(link) = &mut self.link {
                    link.deadline = now.mono + STALL;
                }
                self.outbox.handle_ack(lane, seq, ks)?;
                let stored = &mut self.stored[lane];
                *stored = seq.max(*stored);
                Ok(())
            }
            ToEdge::UpNack { lane, .. } => {
                self.outbox.handle_nack(lane);
                Ok(())
            }
            // Repeated.
            ToEdge::Welcome { .. } | ToEdge::Renew { .. } => Ok(()),
        }
    }

    /// The cloud knows another disk by our incarnation: what we number must not be taken for what that one did.
    fn renew(&mut self, ks: &mut Keyspace, now: Now) {
        self.incarnation = Incarnation(self.jitter.next_u64());
        ks.put(Key::literal(INCARNATION), encode(&self.incarnation));
        self.stored = PerLane::default();
        self.keep_receipt(Receipt::NONE, ks);
        self.say_hello(ks, now);
    }

    fn handle_part(&mut self, part: Part, ks: &mut Keyspace) -> Result<(), Misbehaviour> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let (session, batch, number, advance) = (part.session, part.batch, part.part, part.advance);
        let ack = ToCloud::Ack { batch, part: number, session };
        match place(&part, link, self.applied) {
            Place::Repeated => {
                self.send(&ack);
                return Ok(());
            }
            Place::Gap => {
                link.staging = None;
                self.stats.nacks += 1;
                self.send(&ToCloud::Nack { batch, applied: self.applied, session });
                return Ok(());
            }
            Place::First => link.staging.insert(Staging::new(&part)).add(part)?,
            Place::Next(staging) => staging.add(part)?,
        }
        if let Some(advance) = advance
            && let Some(staging) = link.staging.take()
        {
            link.done = Some(batch);
            let base = if staging.snapshot { Revision::ZERO } else { self.applied.revision };
            let end = Position { term: link.term, revision: Revision(base.0.saturating_add(advance)) };
            let digest = staging.digest;
            self.apply(staging, end, ks);
            self.send(&ack);
            self.check(batch, digest, session, ks);
        } else {
            self.send(&ack);
        }
        Ok(())
    }

    fn check(&mut self, batch: u32, digest: Option<u64>, session: u32, ks: &Keyspace) {
        let Some(digest) = digest else { return };
        let sums = Digest::of(ks.range(COPY).map(|(key, value)| (&key.as_str()[COPY.len()..], &value[..])));
        if sums.total() != digest {
            self.send(&ToCloud::Differs { batch, sums, session });
        }
    }

    /// All of a batch, in this one cycle.
    fn apply(&mut self, staging: Staging, end: Position, ks: &mut Keyspace) {
        let mut writes = staging.writes;
        if staging.mends != Buckets::NONE {
            let mended = ks.range(COPY).filter(|(key, _)| staging.mends.has(&key.as_str()[COPY.len()..]));
            for (key, _) in mended {
                writes.entry(key.clone()).or_insert(None);
            }
        }
        writes.retain(|key, value| ks.get(key.as_str()) != value.as_ref());
        let changed: Vec<Key> = writes.keys().cloned().collect();
        for (key, value) in writes {
            match value {
                Some(value) => ks.put(key, value),
                None => ks.delete(&key),
            }
        }
        self.applied = end;
        ks.put(Key::literal(APPLIED), encode(&end));
        if staging.snapshot {
            // What it has forgotten of us it will not be reminded of again.
            self.stored = PerLane::default();
            self.stats.snapshots += 1;
            self.outputs.push_back(ReplicaOutput::Resynced);
        } else if staging.mends != Buckets::NONE {
            self.stats.repairs += 1;
            self.outputs.push_back(ReplicaOutput::Repaired);
        }
        if !changed.is_empty() {
            self.outputs.push_back(ReplicaOutput::Changed(changed));
        }
    }
}

/// What a part is to us.
enum Place<'a> {
    First,
    Next(&'a mut Staging),
    /// Its ack got lost, or a later batch took its place.
    Repeated,
    Gap,
}

/// In this order:
/// 1. of a batch applied in this session, or staged already: repeated;
/// 2. the one after the last staged of the same batch: next;
/// 3. the first of a batch that starts from nothing, from where we stand, or from the last batch applied: first;
/// 4. all else is a gap.
fn place<'a>(part: &Part, link: &'a mut Link, applied: Position) -> Place<'a> {
    if link.done.is_some_and(|done| part.batch <= done) {
        return Place::Repeated;
    }
    if let Some(staging) = &mut link.staging {
        match (part.batch, part.part).cmp(&(staging.batch, staging.next_part)) {
            Ordering::Less => return Place::Repeated,
            Ordering::Equal => return Place::Next(staging),
            Ordering::Greater => {}
        }
    }
    let starts = match part.base {
        Some(Base::Nothing) => true,
        Some(Base::At(base)) => base == applied,
        None => part.batch.checked_sub(1).is_some_and(|before| link.done == Some(before)),
    };
    if part.part == 0 && starts { Place::First } else { Place::Gap }
}

impl Staging {
    fn new(first: &Part) -> Self {
        let snapshot = first.base == Some(Base::Nothing);
        let mends = if snapshot { Buckets::ALL } else { first.mends.unwrap_or(Buckets::NONE) };
        let (batch, writes) = (first.batch, BTreeMap::new());
        Self { batch, next_part: 0, snapshot, mends, digest: None, bytes: 0, writes }
    }

    fn add(&mut self, part: Part) -> Result<(), Misbehaviour> {
        for Change { name, value } in part.changes.unpack()? {
            self.bytes += name.len() + value.as_ref().map_or(0, Bytes::len);
            self.writes.insert(copy_key(&name)?, value);
        }
        self.next_part = part.part.saturating_add(1);
        self.digest = part.digest;
        if self.bytes > MAX_BATCH_BYTES { Err(Misbehaviour::BatchTooLarge) } else { Ok(()) }
    }
}

fn copy_key(name: &str) -> Result<Key, Misbehaviour> {
    Key::new(&format!("{COPY}{name}")).map_err(|_| Misbehaviour::Malformed)
}

#[cfg(test)]
mod tests;

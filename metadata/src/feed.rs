//! The cloud's half of the sync: one cursor and one inbox an edge.
//!
//! ```text
//!   edge_up          hello: welcome              edge_down
//!  ---------> Greeting ----> Live {cursor, inbox} --------->
//!              |  hello of an old copy or a clone: renew
//!              |  hello that followed a later cloud: superseded, out
//!                             |  commit, ack: parts to send
//!                             |  nack: seek
//!                             |  up: taken once, handed out, acked
//! ```
//! Only what is sealed is sent, so frames may be handled in the middle of a cycle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bus::backoff::Jitter;
use bus::twin::Incarnation;
use bus::{Class, Mono, Name, Now};
use bytes::Bytes;

use crate::cursor::{Cursor, Next};
use crate::digest::Digest;
use crate::epoch;
pub use crate::inbox::Cause;
use crate::inbox::{Arrival, Inbox, Received, Refused};
use crate::key::{Key, Revision};
use crate::keyspace::Keyspace;
use crate::sync::{Base, Body, Entry, Hello, Lane, Misbehaviour, Position, Receipt, ToCloud, ToEdge, encode};
use crate::term::Terms;

/// Without an ack for this long the cursor goes back to where the edge was heard of last. The link repairs losses
/// itself and ends after 45 s of silence; this is for what got lost between link and core.
pub const STALL: Duration = Duration::from_secs(30);

/// How often an edge is told the digest of what it is to hold, and the revision with it: far more often than deletions
/// are forgotten, and rarely enough that its disk does not wear. A digest costs each side a hash an entry, some
/// milliseconds for 20,000.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(600);

/// Edges served in one cycle: with a full window each some 12 MB of outputs. The others are served in the next
/// cycles, in turn.
pub const TURNS_PER_CYCLE: usize = 256;

/// What the feed wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedOutput {
    /// Send on the edge's link, channel metadata.
    Send { edge: Name, class: Class, payload: Bytes, tells: Tells },
    /// The edge says this; it is handed out once. Store what comes of it in this same cycle.
    Up { edge: Name, incarnation: Incarnation, entry: UpEntry },
    /// The edge had no room for the entries `from..=to` of this class: telemetry that gave way, events that it refused.
    Gap { edge: Name, incarnation: Incarnation, class: Class, from: u64, to: u64 },
    /// The edge has another disk than last time (`was`), or is seen first: what was known of its reports is void.
    NewIncarnation { edge: Name, was: Option<Incarnation>, is: Incarnation, cause: Cause },
    /// The edge's copy was not what it is to be: its disk or memory lost something. What differs is sent again.
    Differed { edge: Name },
    /// This value is over [`crate::MAX_VALUE_LEN`]: the edge goes without it.
    Oversized { edge: Name, key: Key },
    /// Close the edge's link.
    Misbehaved { edge: Name, what: Misbehaviour },
    /// The edge followed another cloud, restored from a backup of this one, which is at this epoch. Close its link, and
    /// have this cloud stopped.
    Superseded { edge: Name, epoch: u64 },
}

/// What a message says that a crash of the cloud could undo. Where the disk refuses, it is left out and said again later:
/// an edge that misses it says its own part again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    /// It is about the session alone.
    Nothing,
    /// What edges follow.
    Shared,
    /// That what came up is stored, whereupon the edge forgets it.
    Stored,
}

/// One entry of an edge's outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpEntry {
    /// Grows within lane and incarnation.
    pub seq: u64,
    pub lane: Lane,
    pub key: String,
    pub payload: Bytes,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub parts: u64,
    /// Batches from nothing.
    pub snapshots: u64,
    pub nacks: u64,
    /// Copies that were found to differ, and mended.
    pub repairs: u64,
    pub stalls: u64,
    pub up_entries: u64,
    /// Messages whose entries were all stored already.
    pub up_repeated: u64,
    pub misbehaved: u64,
    /// Hellos of disks that must take a new incarnation.
    pub renewals: u64,
}

#[derive(Debug, Clone)]
struct Live {
    cursor: Cursor,
    inbox: Inbox,
    /// When to look after this edge without cause.
    due: Mono,
    /// When its copy was last to be checked.
    checked: Mono,
    /// In the queue for a turn.
    waiting: bool,
    /// `due` has come.
    overdue: bool,
}

#[derive(Debug, Clone)]
enum Session {
    Greeting {
        /// The edge was told on this link to renew, in answer to the hello of this session.
        refused: Option<(u32, Refused)>,
    },
    Live(Box<Live>),
}

impl Session {
    /// What the edge called it.
    fn name(&self) -> Option<u32> {
        match self {
            Self::Greeting { .. } => None,
            Self::Live(live) => Some(live.cursor.session()),
        }
    }

    /// Whether this link had a hello of `session` or a later one: an edge counts them.
    fn is_past(&self, session: u32) -> bool {
        let last = match self {
            Self::Greeting { refused } => refused.map(|(last, _)| last),
            Self::Live(live) => Some(live.cursor.session()),
        };
        last.is_some_and(|last| session.wrapping_sub(last).cast_signed() <= 0)
    }
}

/// The feed of one cloud, for all its edges.
#[derive(Debug, Clone)]
pub struct Feed {
    terms: Terms,
    /// Draws receipts.
    jitter: Jitter,
    /// The revision up to which edges were woken.
    woken: Revision,
    sessions: BTreeMap<Name, Session>,
    /// Live edges that have a turn, each once.
    turns: VecDeque<Name>,
    timers: BTreeSet<(Mono, Name)>,
    /// Drained after each handle; one handle adds at most what [`TURNS_PER_CYCLE`] says.
    outputs: VecDeque<FeedOutput>,
    stats: Stats,
}

impl Feed {
    /// The feed over the keyspace as it was loaded. Begins a term, so `seed` must differ between any two starts.
    pub fn load(ks: &mut Keyspace, seed: u64) -> Self {
        Self {
            terms: Terms::begin(ks, seed),
            jitter: Jitter::new(seed),
            woken: ks.revision(),
            sessions: BTreeMap::new(),
            turns: VecDeque::new(),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The edges that said hello, and whether each has applied all that concerns it.
    pub fn edges(&self, ks: &Keyspace) -> impl Iterator<Item = (&Name, bool)> {
        self.sessions.iter().filter_map(|(edge, session)| match session {
            Session::Greeting { .. } => None,
            Session::Live(live) => Some((edge, live.cursor.is_in_step(ks))),
        })
    }

    /// Whether this cloud, or one whose store it has, has ever heard the edge.
    pub fn has_heard(edge: &Name, ks: &Keyspace) -> bool {
        Inbox::is_known(edge, ks)
    }

    /// How many keys that concern an edge it has not acknowledged yet, counted up to `most`; `None` if it has not said
    /// hello.
    pub fn behind(&self, edge: &Name, most: usize, ks: &Keyspace) -> Option<usize> {
        match self.sessions.get(edge)? {
            Session::Greeting { .. } => None,
            Session::Live(live) => Some(live.cursor.behind(most, ks)),
        }
    }

    /// A link to this edge stands; an older one of the same edge is forgotten.
    pub fn handle_edge_up(&mut self, edge: &Name, now: Now) {
        self.handle_edge_down(edge, now);
        self.sessions.insert(edge.clone(), Session::Greeting { refused: None });
    }

    pub fn handle_edge_down(&mut self, edge: &Name, _now: Now) {
        if let Some(Session::Live(live)) = self.sessions.remove(edge) {
            self.timers.remove(&(live.due, edge.clone()));
            if live.waiting {
                self.turns.retain(|waiting| waiting != edge);
            }
        }
    }

    /// A frame of [`bus::Channel::Metadata`] arrived from this edge.
    pub fn handle_frame(&mut self, edge: &Name, payload: &[u8], ks: &mut Keyspace, now: Now) {
        let Some(session) = self.sessions.get(edge) else { return };
        let outcome = match minicbor::decode::<ToCloud>(payload) {
            Err(_) => Err(Misbehaviour::Malformed),
            // A repeated frame, or one that was overtaken: the edge does not listen to that session any more.
            Ok(ToCloud::Hello(hello)) if session.is_past(hello.session) => Ok(()),
            Ok(ToCloud::Hello(hello)) => {
                self.handle_hello(edge, &hello, ks, now);
                Ok(())
            }
            Ok(other) if session.name() != Some(other.session()) => Ok(()),
            Ok(ToCloud::Ack { batch, part, .. }) => self.handle_ack(edge, batch, part, ks, now),
            Ok(ToCloud::Nack { batch, applied, .. }) => self.handle_nack(edge, batch, applied, ks, now),
            Ok(ToCloud::Differs { batch, sums, .. }) => self.handle_differs(edge, batch, &sums, ks, now),
            Ok(ToCloud::Up { lane, after, entries, .. }) => self.handle_up(edge, lane, after, entries, ks),
        };
        if let Err(what) = outcome {
            self.stats.misbehaved += 1;
            self.outputs.push_back(FeedOutput::Misbehaved { edge: edge.clone(), what });
            self.handle_edge_down(edge, now);
        }
    }

    /// The keyspace was sealed: edges that the new revisions concern get their turn.
    pub fn handle_commit(&mut self, ks: &Keyspace, now: Now) {
        for scope in ks.scopes_touched_after(self.woken) {
            if scope == "/all/" {
                for (edge, session) in &mut self.sessions {
                    wake(edge, session, &mut self.turns);
                }
            } else if let Some((edge, session)) =
                edge_of(scope).and_then(|edge| Some((edge.clone(), self.sessions.get_mut(&edge)?)))
            {
                wake(&edge, session, &mut self.turns);
            }
        }
        self.woken = ks.revision();
        self.take_turns(ks, now);
    }

    pub fn handle_timeout(&mut self, ks: &Keyspace, now: Now) {
        while self.timers.first().is_some_and(|(due, _)| *due <= now.mono) {
            let Some((_, edge)) = self.timers.pop_first() else { break };
            self.call_overdue(&edge);
        }
        self.take_turns(ks, now);
    }

    /// The disk takes writes again: what was left out while it refused is said now and not at the next stall.
    pub fn handle_disk_back(&mut self, ks: &Keyspace, now: Now) {
        let edges: Vec<Name> = self.sessions.keys().cloned().collect();
        for edge in edges {
            let Some(Session::Live(live)) = self.sessions.get(&edge) else { continue };
            let session = live.cursor.session();
            for (lane, seq) in Lane::ALL.map(|lane| (lane, live.inbox.stored(lane))) {
                if seq > 0 {
                    self.send(&edge, &ToEdge::UpAck { lane, seq, session }, Tells::Stored);
                }
            }
            self.call_overdue(&edge);
        }
        self.take_turns(ks, now);
    }

    fn call_overdue(&mut self, edge: &Name) {
        let Some(session) = self.sessions.get_mut(edge) else { return };
        if let Session::Live(live) = session {
            live.overdue = true;
        }
        wake(edge, session, &mut self.turns);
    }

    pub fn poll_output(&mut self) -> Option<FeedOutput> {
        self.outputs.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        if !self.turns.is_empty() {
            return Some((Mono::ZERO, "edges wait for their turn"));
        }
        self.timers.first().map(|(due, _)| (*due, "look after an edge"))
    }

    fn handle_hello(&mut self, edge: &Name, hello: &Hello, ks: &mut Keyspace, now: Now) {
        let refused = match self.sessions.get(edge) {
            Some(Session::Greeting { refused }) => refused.map(|(_, refused)| refused),
            Some(Session::Live(_)) | None => None,
        };
        self.handle_edge_down(edge, now);
        let epoch = epoch::get(ks);
        if hello.epoch > epoch {
            let edge = edge.clone();
            return self.outputs.push_back(FeedOutput::Superseded { edge, epoch: hello.epoch });
        }
        // 0 stands for none.
        let receipt = Receipt(self.jitter.next_u64().max(1));
        let (inbox, arrival) = match Inbox::open(edge, hello, refused, receipt, ks) {
            Ok(opened) => opened,
            Err(refused) => {
                self.stats.renewals += 1;
                let refused = Some((hello.session, refused));
                self.sessions.insert(edge.clone(), Session::Greeting { refused });
                return self.send(edge, &ToEdge::Renew { session: hello.session }, Tells::Nothing);
            }
        };
        // Another disk's position is not believed, nor that in a state which this cloud has forgotten some of: resynced,
        // not guessed, and the edge says all again.
        let is_same = arrival.is_none() && !inbox.has_forgotten(hello);
        if let Some(Arrival { was, cause }) = arrival {
            let (edge, is) = (edge.clone(), hello.incarnation);
            self.outputs.push_back(FeedOutput::NewIncarnation { edge, was, is, cause });
        }
        // Tells nothing: a receipt that the disk loses costs the edge a new incarnation, and no entry.
        self.send(
            edge,
            &ToEdge::Welcome { session: hello.session, receipt, epoch, term: self.terms.present() },
            Tells::Nothing,
        );
        let mut cursor = Cursor::new(edge, hello.session);
        cursor.seek(self.known(hello.applied, ks).filter(|_| is_same));
        self.begin(edge, inbox, cursor, ks, now);
    }

    /// Answers hello with all there is, or a bookmark.
    fn begin(&mut self, edge: &Name, inbox: Inbox, cursor: Cursor, ks: &Keyspace, now: Now) {
        let (due, checked) = (Mono::ZERO, now.mono);
        let live = Live { cursor, inbox, due, checked, waiting: false, overdue: false };
        self.sessions.insert(edge.clone(), Session::Live(Box::new(live)));
        self.serve(edge, true, ks, now);
    }

    fn known(&self, position: Position, ks: &Keyspace) -> Option<Position> {
        self.terms.contains(position, ks.revision()).then_some(position)
    }

    fn handle_ack(
        &mut self,
        edge: &Name,
        batch: u32,
        part: u32,
        ks: &Keyspace,
        now: Now,
    ) -> Result<(), Misbehaviour> {
        let Some(live) = self.live(edge) else { return Ok(()) };
        if live.cursor.handle_ack(batch, part)? {
            self.serve(edge, false, ks, now);
        }
        Ok(())
    }

    fn handle_nack(
        &mut self,
        edge: &Name,
        batch: u32,
        applied: Position,
        ks: &Keyspace,
        now: Now,
    ) -> Result<(), Misbehaviour> {
        let position = self.known(applied, ks);
        let Some(live) = self.live(edge) else { return Ok(()) };
        if live.cursor.is_new_nack(batch)? {
            live.cursor.seek(position);
            self.stats.nacks += 1;
            self.serve(edge, true, ks, now);
        }
        Ok(())
    }

    fn handle_differs(
        &mut self,
        edge: &Name,
        batch: u32,
        sums: &Digest,
        ks: &Keyspace,
        now: Now,
    ) -> Result<(), Misbehaviour> {
        let Some(live) = self.live(edge) else { return Ok(()) };
        if live.cursor.handle_differs(batch, sums, ks)? {
            self.stats.repairs += 1;
            self.outputs.push_back(FeedOutput::Differed { edge: edge.clone() });
            self.serve(edge, false, ks, now);
        }
        Ok(())
    }

    fn handle_up(
        &mut self,
        edge: &Name,
        lane: Lane,
        after: Option<u64>,
        entries: Vec<Entry>,
        ks: &mut Keyspace,
    ) -> Result<(), Misbehaviour> {
        let Some(live) = self.live(edge) else { return Ok(()) };
        let received = live.inbox.receive(lane, after, entries, ks)?;
        let (incarnation, seq) = (live.inbox.incarnation(), live.inbox.stored(lane));
        let session = live.cursor.session();
        match received {
            Received::Gap => self.send(edge, &ToEdge::UpNack { lane, seq, session }, Tells::Nothing),
            Received::Taken(taken) => {
                self.stats.up_entries += taken.len() as u64;
                self.stats.up_repeated += u64::from(taken.is_empty());
                self.outputs.extend(taken.into_iter().map(|entry| hand_out(edge, incarnation, lane, entry)));
                self.send(edge, &ToEdge::UpAck { lane, seq, session }, Tells::Stored);
            }
        }
        Ok(())
    }

    fn live(&mut self, edge: &Name) -> Option<&mut Live> {
        match self.sessions.get_mut(edge)? {
            Session::Greeting { .. } => None,
            Session::Live(live) => Some(live),
        }
    }

    fn take_turns(&mut self, ks: &Keyspace, now: Now) {
        for _ in 0..TURNS_PER_CYCLE {
            let Some(edge) = self.turns.pop_front() else { return };
            let Some(live) = self.live(&edge) else { continue };
            live.waiting = false;
            let overdue = std::mem::take(&mut live.overdue);
            if overdue && live.cursor.has_unacked() {
                live.cursor.rewind();
                self.stats.stalls += 1;
            }
            self.serve(&edge, overdue, ks, now);
        }
    }

    /// Sends what the edge's window allows and sets its timer; with `check` also if nothing changed.
    fn serve(&mut self, edge: &Name, check: bool, ks: &Keyspace, now: Now) {
        let Some(Session::Live(live)) = self.sessions.get_mut(edge) else { return };
        if check || now.mono >= live.checked + BOOKMARK_INTERVAL {
            live.checked = now.mono;
            live.cursor.want_check();
        }
        while let Some(Next { part, oversized }) = live.cursor.next_part(ks, &self.terms) {
            self.stats.parts += 1;
            self.stats.snapshots += u64::from(part.base == Some(Base::Nothing));
            for key in oversized {
                self.outputs.push_back(FeedOutput::Oversized { edge: edge.clone(), key });
            }
            let payload = encode(&ToEdge::Part(part));
            let (edge, class) = (edge.clone(), Class::State);
            self.outputs.push_back(FeedOutput::Send { edge, class, payload, tells: Tells::Shared });
        }
        let wait = if live.cursor.has_unacked() { STALL } else { BOOKMARK_INTERVAL };
        self.timers.remove(&(live.due, edge.clone()));
        live.due = now.mono + wait;
        self.timers.insert((live.due, edge.clone()));
    }

    fn send(&mut self, edge: &Name, message: &ToEdge, tells: Tells) {
        let payload = encode(message);
        self.outputs.push_back(FeedOutput::Send { edge: edge.clone(), class: Class::State, payload, tells });
    }
}

fn wake(edge: &Name, session: &mut Session, turns: &mut VecDeque<Name>) {
    let Session::Live(live) = session else { return };
    if !live.waiting {
        live.waiting = true;
        turns.push_back(edge.clone());
    }
}

fn edge_of(scope: &str) -> Option<Name> {
    Name::new(scope.strip_prefix("/e/")?.strip_suffix('/')?).ok()
}

fn hand_out(edge: &Name, incarnation: Incarnation, lane: Lane, Entry { seq, body }: Entry) -> FeedOutput {
    let edge = edge.clone();
    match body {
        Body::Data { key, payload } => {
            FeedOutput::Up { edge, incarnation, entry: UpEntry { seq, lane, key, payload } }
        }
        Body::Gap { from } => FeedOutput::Gap { edge, incarnation, class: lane.class(), from, to: seq },
    }
}

#[cfg(test)]
mod tests;

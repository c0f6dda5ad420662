//! One cloud, some edges, and an oracle that looks after every event.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::{Feed, FeedOutput, Key, MemoryStore, Position, PushError, Replica, ReplicaOutput, Revision};
use bus::backoff::Jitter;
use bus::twin::Incarnation;
use bus::{Class, Mono, Name, Now, UnixMillis};
use bytes::Bytes;

use super::host::{Host, Link};

/// One entry that an edge accepted, and the edge's revision that holds it.
#[derive(Debug, Clone)]
pub(super) struct Pushed {
    revision: Revision,
    pub(super) class: Class,
    pub(super) key: String,
    pub(super) payload: Bytes,
}

/// A machine as it was: its memory, its disk, and what it had accepted.
#[derive(Clone)]
pub(super) struct Machine {
    host: Host<Replica, ReplicaOutput>,
    pushed: Vec<Pushed>,
}

pub(super) struct Edge {
    pub(super) name: Name,
    pub(super) host: Host<Replica, ReplicaOutput>,
    link: Option<Link>,
    pub(super) pushed: Vec<Pushed>,
    applied: Position,
    /// The disk takes nothing more; the process goes on without.
    dead_disk: bool,
    copy: Option<Machine>,
    /// Another machine under the same name; one of them runs at a time.
    twin: Option<Machine>,
    /// More than one disk was this edge's since it was last wiped.
    pub(super) branched: bool,
}

pub(super) struct World {
    seed: u64,
    pub(super) cloud: Host<Feed, FeedOutput>,
    pub(super) edges: Vec<Edge>,
    pub(super) now: Now,
    pub(super) rng: Jitter,
    /// Makes every value unlike any other.
    counter: u64,
    term: u64,
    /// What each edge was to see at each position of the cloud.
    history: BTreeMap<(u64, Revision), BTreeMap<Name, BTreeMap<String, Bytes>>>,
    pub(super) resyncs: u64,
    pub(super) incarnations: u64,
    /// How often the cloud refused an edge that had followed a later one.
    pub(super) superseded: u64,
    /// How often an edge's copy was mended. It must not be but where one was damaged.
    pub(super) repairs: u64,
    pub(super) damages: bool,
}

fn seeded(rng: &mut Jitter) -> u64 {
    rng.next_u64()
}

pub(super) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// A failure names what repeats it.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the world of seed {}", self.seed);
        }
    }
}

impl World {
    pub(super) fn new(seed: u64, edges: usize) -> Self {
        let mut rng = Jitter::new(seed);
        let term = seeded(&mut rng);
        let cloud = Host::start(MemoryStore::default(), |ks| Feed::load(ks, term));
        let names = (0..edges).map(|n| Name::new(&format!("edge-{n}")).unwrap());
        let edges = names.map(|name| Edge::new(name, MemoryStore::default(), seeded(&mut rng))).collect();
        let now = Now { mono: Mono(1), wall: UnixMillis(0) };
        let history = BTreeMap::new();
        let (counter, resyncs, incarnations, superseded, repairs, damages) = (0, 0, 0, 0, 0, false);
        let mut world = Self {
            seed,
            cloud,
            edges,
            now,
            rng,
            counter,
            term,
            history,
            resyncs,
            incarnations,
            superseded,
            repairs,
            damages,
        };
        world.remember();
        world
    }

    fn remember(&mut self) {
        let views = self.edges.iter().map(|edge| (edge.name.clone(), self.view(&edge.name))).collect();
        self.history.insert((self.term, self.cloud.ks.revision()), views);
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.rng.next_u64() % limit
    }

    fn fresh(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Some writes of the cloud's cores, in one cycle. `size` is the largest value's.
    pub(super) fn cloud_writes(&mut self, writes: u64, size: u64) {
        for _ in 0..writes {
            let at = self.below(self.edges.len() as u64 + 1) as usize;
            let scope = self.edges.get(at).map_or("/all".to_owned(), |edge| format!("/e/{}", edge.name));
            let name = key(&format!("{scope}/k{}", self.below(12)));
            if self.below(4) == 0 {
                self.cloud.ks.delete(&name);
            } else {
                let mut value = self.fresh().to_be_bytes().to_vec();
                value.resize(8 + self.below(size) as usize, 0);
                self.cloud.ks.put(name, value.into());
            }
        }
        self.end_cloud_cycle();
    }

    /// What a node does at the end of a cycle: outputs, seal, wake the feed, its outputs.
    pub(super) fn end_cloud_cycle(&mut self) {
        loop {
            while let Some(output) = self.cloud.core.poll_output() {
                self.heed(output);
            }
            if !self.cloud.seal() {
                break;
            }
            self.remember();
            self.cloud.core.handle_commit(&self.cloud.ks, self.now);
        }
    }

    fn heed(&mut self, output: FeedOutput) {
        match output {
            FeedOutput::Up { edge, incarnation, entry } => {
                let record = self.record(&edge, incarnation, entry.lane.class(), entry.seq);
                assert_eq!(self.cloud.ks.get(record.as_str()), None, "{record} was delivered twice");
                let mut value = format!("{} ", entry.key).into_bytes();
                value.extend_from_slice(&entry.payload);
                self.cloud.ks.put(record, value.into());
            }
            FeedOutput::Gap { edge, incarnation, from, to, .. } => {
                let record = self.record(&edge, incarnation, Class::Telemetry, to);
                assert_eq!(self.cloud.ks.get(record.as_str()), None, "{record} was delivered twice");
                self.cloud.ks.put(record, format!("gap {from}").into());
            }
            FeedOutput::NewIncarnation { was, .. } => self.incarnations += u64::from(was.is_some()),
            FeedOutput::Misbehaved { edge, what } => panic!("{edge}: {what}"),
            FeedOutput::Oversized { edge, key } => panic!("{edge}: {key} is oversized"),
            FeedOutput::Differed { edge } => assert!(self.damages, "{edge} differs"),
            FeedOutput::Superseded { edge, epoch } => {
                assert!(epoch > crate::epoch::get(&self.cloud.ks));
                self.superseded += 1;
                let at = self.edges.iter().position(|e| e.name == edge).unwrap();
                self.edges[at].link = None;
                self.edges[at].host.core.handle_link_down();
            }
            send @ FeedOutput::Send { .. } => self.cloud.hold(send),
        }
    }

    fn record(&self, edge: &Name, incarnation: Incarnation, class: Class, seq: u64) -> Key {
        key(&format!("/c/up/{edge}/{incarnation:?}/{}/{seq:020}", class as u8))
    }

    /// What is under way to an edge.
    pub(super) fn bytes_down(&self, at: usize) -> usize {
        self.edges[at].link.iter().flat_map(|link| &link.down).map(Bytes::len).sum()
    }

    pub(super) fn sync_cloud(&mut self) {
        for output in self.cloud.sync() {
            let FeedOutput::Send { edge, payload, .. } = output else { continue };
            assert!(payload.len() < bus::frame::MAX_FRAME_LEN);
            let edge = self.edges.iter_mut().find(|e| e.name == edge).unwrap();
            if let Some(link) = &mut edge.link {
                link.down.push_back(payload);
            }
        }
    }

    pub(super) fn push(&mut self, at: usize, class: Class) {
        let name = format!("k{}", self.below(5));
        let payload = Bytes::from(self.fresh().to_string());
        let Self { edges, now, .. } = self;
        let Edge { host, .. } = &mut edges[at];
        let outcome = host.core.push(class, &name, payload.clone(), &mut host.ks, *now);
        assert_eq!(outcome, Ok::<(), PushError>(()));
        self.end_edge_cycle(at);
        let revision = self.edges[at].host.ks.revision();
        self.edges[at].pushed.push(Pushed { revision, class, key: name, payload });
    }

    pub(super) fn end_edge_cycle(&mut self, at: usize) {
        let edge = &mut self.edges[at];
        while let Some(output) = edge.host.core.poll_output() {
            match output {
                ReplicaOutput::Misbehaved(what) => panic!("the cloud: {what}"),
                outdated @ ReplicaOutput::Outdated { .. } => panic!("the cloud went on: {outdated:?}"),
                ReplicaOutput::Resynced => self.resyncs += 1,
                ReplicaOutput::Repaired => self.repairs += 1,
                ReplicaOutput::Changed(keys) => assert!(!keys.is_empty()),
                send @ ReplicaOutput::Send { .. } => edge.host.hold(send),
            }
        }
        edge.host.seal();
        let applied = edge.host.core.applied();
        let back = applied.term == edge.applied.term && applied.revision < edge.applied.revision;
        assert!(!back, "{:?} after {:?}", applied, edge.applied);
        edge.applied = applied;
        // At any moment, not only at the end, the copy is one whole state of the cloud.
        if applied != Position::default() && !self.damages {
            let views = &self.history[&(applied.term, applied.revision)];
            assert_eq!(edge.copy(), views[&edge.name], "{} at {applied:?}", edge.name);
        }
    }

    pub(super) fn sync_edge(&mut self, at: usize) {
        let edge = &mut self.edges[at];
        let said = if edge.dead_disk { edge.host.release() } else { edge.host.sync() };
        for output in said {
            if let (ReplicaOutput::Send { payload, .. }, Some(link)) = (output, &mut edge.link) {
                assert!(payload.len() < bus::frame::MAX_FRAME_LEN);
                link.up.push_back(payload);
            }
        }
    }

    /// Something is lost of an edge's copy, or comes into it, that the sync knows nothing of.
    pub(super) fn damage(&mut self, at: usize) {
        self.damages = true;
        let (what, which) = (self.below(3), self.below(12));
        let key = key(&format!("/m/k{which}"));
        let ks = &mut self.edges[at].host.ks;
        match what {
            0 => ks.delete(&key),
            _ => ks.put(key, format!("damaged {what}").into()),
        }
        self.end_edge_cycle(at);
    }

    /// One frame arrives, if there is one.
    pub(super) fn deliver_up(&mut self, at: usize) -> bool {
        let edge = &mut self.edges[at];
        let Some(frame) = edge.link.as_mut().and_then(|link| link.up.pop_front()) else { return false };
        self.cloud.core.handle_frame(&edge.name, &frame, &mut self.cloud.ks, self.now);
        self.end_cloud_cycle();
        true
    }

    pub(super) fn deliver_down(&mut self, at: usize) -> bool {
        let edge = &mut self.edges[at];
        let Some(frame) = edge.link.as_mut().and_then(|link| link.down.pop_front()) else { return false };
        edge.host.core.handle_frame(&frame, &mut edge.host.ks, self.now);
        self.end_edge_cycle(at);
        true
    }

    /// One frame is lost between link and core.
    pub(super) fn lose(&mut self, at: usize) {
        let up = self.below(2) == 0;
        if let Some(link) = &mut self.edges[at].link {
            let queue: &mut VecDeque<Bytes> = if up { &mut link.up } else { &mut link.down };
            queue.pop_front();
        }
    }

    /// The link breaks; either side may learn of it only when the next one stands.
    pub(super) fn cut(&mut self, at: usize) {
        if self.edges[at].link.take().is_none() {
            return;
        }
        if self.below(2) == 0 {
            self.edges[at].host.core.handle_link_down();
        }
        if self.below(2) == 0 {
            self.cloud.core.handle_edge_down(&self.edges[at].name, self.now);
        }
    }

    pub(super) fn connect(&mut self, at: usize) {
        let edge = &mut self.edges[at];
        if edge.link.is_some() {
            return;
        }
        edge.link = Some(Link::default());
        self.cloud.core.handle_edge_up(&edge.name, self.now);
        edge.host.core.handle_link_up(&edge.host.ks, self.now);
        self.end_cloud_cycle();
        self.end_edge_cycle(at);
    }

    pub(super) fn crash_edge(&mut self, at: usize) {
        let unsynced = self.edges[at].host.store.unsynced() as u64;
        let landed = if self.edges[at].dead_disk { 0 } else { self.below(unsynced + 1) as usize };
        self.restart_edge(at, |host| host.crash(landed));
    }

    /// The disk is replaced by an empty one.
    pub(super) fn wipe_edge(&mut self, at: usize) {
        self.restart_edge(at, |_| MemoryStore::default());
        self.edges[at].pushed.clear();
        self.edges[at].branched = false;
    }

    /// From now on the process runs in memory, over a disk that stands still.
    pub(super) fn kill_disk(&mut self, at: usize) {
        self.edges[at].dead_disk = true;
        self.edges[at].branched = true;
    }

    pub(super) fn copy_edge(&mut self, at: usize) {
        let machine = self.edges[at].machine();
        self.edges[at].copy = Some(machine);
    }

    /// The machine is replaced by the copy made of it; with `running` in the middle of what it did, memory and all.
    pub(super) fn put_back_edge(&mut self, at: usize, running: bool) {
        if let Some(copy) = self.edges[at].copy.clone() {
            self.replace_edge(at, copy, running);
        }
    }

    /// Another machine, once a copy of this one, takes over its name.
    pub(super) fn take_turns(&mut self, at: usize, running: bool) {
        let present = self.edges[at].machine();
        let twin = self.edges[at].twin.replace(present.clone()).unwrap_or(present);
        self.replace_edge(at, twin, running);
    }

    fn replace_edge(&mut self, at: usize, by: Machine, running: bool) {
        self.cut(at);
        let Machine { host, pushed } = by;
        let edge = &mut self.edges[at];
        edge.pushed = pushed;
        edge.branched = true;
        edge.dead_disk = false;
        edge.applied = host.core.applied();
        edge.host = host;
        match running {
            true => edge.host.core.handle_link_down(),
            false => self.crash_edge(at),
        }
    }

    fn restart_edge(&mut self, at: usize, disk: impl FnOnce(Host<Replica, ReplicaOutput>) -> MemoryStore) {
        self.cut(at);
        let seed = seeded(&mut self.rng);
        let old = self.edges.remove(at);
        let mut edge = Edge::new(old.name, disk(old.host), seed);
        let landed = edge.host.ks.revision();
        edge.pushed = old.pushed.into_iter().filter(|pushed| pushed.revision <= landed).collect();
        (edge.copy, edge.twin, edge.branched) = (old.copy, old.twin, old.branched);
        self.edges.insert(at, edge);
    }

    pub(super) fn crash_cloud(&mut self) {
        let landed = self.below(self.cloud.store.unsynced() as u64 + 1) as usize;
        let host =
            std::mem::replace(&mut self.cloud, Host::start(MemoryStore::default(), |ks| Feed::load(ks, 1)));
        self.start_cloud(host.crash(landed));
    }

    /// The cloud runs on this disk from now on.
    pub(super) fn start_cloud(&mut self, disk: MemoryStore) {
        for edge in &mut self.edges {
            if edge.link.take().is_some() {
                edge.host.core.handle_link_down();
            }
        }
        self.term = seeded(&mut self.rng);
        self.cloud = Host::start(disk, |ks| Feed::load(ks, self.term));
        self.remember();
        self.end_cloud_cycle();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        if self.cloud.core.poll_timeout().is_some_and(|(at, _)| at <= self.now.mono) {
            self.cloud.core.handle_timeout(&self.cloud.ks, self.now);
            self.end_cloud_cycle();
        }
        for at in 0..self.edges.len() {
            let Edge { host, .. } = &mut self.edges[at];
            if host.core.poll_timeout().is_some_and(|(due, _)| due <= self.now.mono) {
                host.core.handle_timeout(&host.ks, self.now);
                self.end_edge_cycle(at);
            }
        }
    }

    /// No more faults: runs until nothing moves, then past the timers, and again.
    pub(super) fn settle(&mut self) {
        (0..self.edges.len()).for_each(|at| self.connect(at));
        self.run();
    }

    /// Runs what is connected until nothing moves.
    pub(super) fn run(&mut self) {
        for _ in 0..6 {
            while self.run_once() {}
            self.pass(Duration::from_secs(31));
        }
        while self.run_once() {}
    }

    /// Runs until nothing moves; returns how many bytes went down to one edge.
    pub(super) fn run_counting(&mut self, at: usize) -> usize {
        let mut bytes = 0;
        loop {
            self.sync_cloud();
            bytes += self.bytes_down(at);
            while self.deliver_down(at) {}
            if !self.run_once() {
                return bytes;
            }
        }
    }

    /// All that is under way arrives, one frame of each link; both disks catch up. Returns whether more is to come.
    pub(super) fn run_once(&mut self) -> bool {
        self.sync_cloud();
        let mut moved = false;
        for at in 0..self.edges.len() {
            self.sync_edge(at);
            moved |= self.deliver_down(at);
            moved |= self.deliver_up(at);
        }
        self.sync_cloud();
        (0..self.edges.len()).for_each(|at| self.sync_edge(at));
        moved
            || self
                .edges
                .iter()
                .any(|e| e.link.as_ref().is_some_and(|l| !l.up.is_empty() || !l.down.is_empty()))
    }
}

impl Edge {
    fn new(name: Name, disk: MemoryStore, seed: u64) -> Self {
        let host = Host::start(disk, |ks| Replica::load(ks, seed));
        let applied = host.core.applied();
        let (copy, twin) = (None, None);
        let pushed = Vec::new();
        Self { name, host, link: None, pushed, applied, dead_disk: false, copy, twin, branched: false }
    }

    fn machine(&self) -> Machine {
        Machine { host: self.host.clone(), pushed: self.pushed.clone() }
    }

    pub(super) fn copy(&self) -> BTreeMap<String, Bytes> {
        self.host.ks.range("/m/").map(|(k, v)| (k.as_str()["/m/".len()..].to_owned(), v.clone())).collect()
    }
}

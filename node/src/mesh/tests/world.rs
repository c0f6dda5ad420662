//! A cloud and its edges in virtual time, with brokers whose sessions outlive a crash: what a broker took counts as heard
//! if the commit of that cycle is on the disk.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bus::bus::LinkId;
use bus::token::CaHash;
use bus::{Filter, Frame, Identity, JoinToken, KeyHash, Mono, Name, NodeId, Now, Topic, UnixMillis};
use bytes::Bytes;
use controller::join::{JoinRequest, Signed};
use controller::{CloudSubnets, Cluster, Plan};
use device_twin::{Announcement, Receipt, Ticket};
use metadata::{Commit, Keyspace, MemoryStore, Revision, Store};

use crate::admin::{AdminRequest, TokenOrder};
use crate::cloud::CloudSettings;
use crate::edge::EdgeSettings;
use crate::seam::{Input, Node, Output};
use crate::{Cloud, Edge};

const SECRET: [u8; JoinToken::SECRET_LEN] = [1; JoinToken::SECRET_LEN];
const STRANGER: LinkId = LinkId(0);

pub(super) const CLOUD: &str = "cloud";

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn id(machine: &str) -> NodeId {
    if machine == CLOUD { NodeId::cloud(name(machine)) } else { NodeId::edge(name(machine)) }
}

fn start(machine: &str, keyspace: Keyspace, seed: u64, now: Now) -> Node {
    if machine != CLOUD {
        let identity = Identity { cluster: name("water"), node: id(machine) };
        let settings = EdgeSettings {
            identity,
            cloud: id(CLOUD),
            seed,
            direct: true,
            lans: Vec::new(),
            standby: true,
            damaged_stores: Vec::new(),
        };
        return Node::Edge(Box::new(Edge::new(settings, keyspace, now)));
    }
    let ca = CaHash::of_der(b"ca");
    let plan = Plan::new(Plan::DEFAULT_POOL, &name("water"), &ca).unwrap();
    let endpoints = vec!["cloud.example:10001".to_owned()];
    let cluster = Cluster { name: name("water"), cloud: name(CLOUD), ca_der: vec![1], endpoints, plan };
    let settings = CloudSettings { cluster, subnets: CloudSubnets::default(), ca, seed, term: None };
    let sign = |csr: &[u8], _: &Identity| {
        let public_key = KeyHash::of_spki(csr);
        Ok(Signed { certificate_der: vec![1], public_key, serial: vec![1], not_after: UnixMillis(u64::MAX) })
    };
    Node::Cloud(Box::new(Cloud::new(settings, Box::new(sign), keyspace, now).unwrap()))
}

/// What became of a client's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted,
    Full,
    Unkept,
}

/// A node with its disk and its broker.
pub(super) struct Machine {
    node: Node,
    store: MemoryStore,
    unsynced: Vec<Commit>,
    durable: Revision,
    /// Does not sync by itself.
    pub(super) is_slow: bool,
    /// What sessions that outlive everything ask for.
    filters: Vec<Filter>,
    handed: VecDeque<Announcement>,
    /// Takes what it is handed by itself.
    pub(super) takes: bool,
    /// With the commit that it rests on.
    heard: Vec<(Revision, Announcement)>,
    answers: BTreeMap<Ticket, Answer>,
    notes: Vec<String>,
}

impl Machine {
    fn new(node: Node) -> Self {
        Self {
            node,
            store: MemoryStore::default(),
            unsynced: Vec::new(),
            durable: Revision::ZERO,
            is_slow: false,
            filters: Vec::new(),
            handed: VecDeque::new(),
            takes: true,
            heard: Vec::new(),
            answers: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    fn keyspace(&self) -> &Keyspace {
        match &self.node {
            Node::Cloud(cloud) => cloud.keyspace(),
            Node::Edge(edge) => edge.keyspace(),
        }
    }

    fn record(&mut self, announcement: Announcement) {
        self.heard.push((self.keyspace().revision(), announcement));
    }
}

/// A link with the frames on it, up and down.
struct Link {
    id: LinkId,
    frames: [VecDeque<Frame>; 2],
}

pub(super) struct World {
    machines: BTreeMap<&'static str, Machine>,
    links: BTreeMap<&'static str, Link>,
    now: Now,
    /// Of the last link, seed and ticket.
    number: u64,
}

impl World {
    /// All edges have joined and are linked.
    pub(super) fn new(edges: &[&'static str]) -> Self {
        let now = Now { mono: Mono(1), wall: UnixMillis(1_000_000) };
        let mut world = Self { machines: BTreeMap::new(), links: BTreeMap::new(), now, number: 10 };
        for machine in edges.iter().copied().chain([CLOUD]) {
            let node = start(machine, Keyspace::new(), world.draw(), now);
            world.machines.insert(machine, Machine::new(node));
        }
        let uses = edges.len() as u32;
        let order = TokenOrder { site: name("plant"), lans: vec![], ttl_seconds: 60, uses };
        world.tell(
            CLOUD,
            Input::Admin { id: 1, request: AdminRequest::CreateToken { order, secret: SECRET } },
        );
        for edge in edges {
            world.join(edge);
            world.mend(edge);
            world.tell(edge, Input::Restored);
        }
        world.tell(CLOUD, Input::Restored);
        world.run();
        world
    }

    fn join(&mut self, edge: &str) {
        let csr_der = edge.as_bytes().to_vec();
        let request = JoinRequest { secret: SECRET.to_vec(), name: name(edge), csr_der };
        self.tell(CLOUD, Input::Join { link: STRANGER, request: request.to_bytes().into() });
    }

    fn draw(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    pub(super) fn machine(&mut self, name: &str) -> &mut Machine {
        self.machines.get_mut(name).unwrap()
    }

    pub(super) fn keyspace(&self, name: &str) -> &Keyspace {
        self.machines[name].keyspace()
    }

    pub(super) fn tell(&mut self, name: &'static str, input: Input) {
        let now = self.now;
        self.machine(name).node.handle(input, now);
        self.pump(name);
    }

    fn pump(&mut self, at: &'static str) {
        while let Some(output) = self.machine(at).node.poll_output() {
            match output {
                Output::Persist(commit) => self.machine(at).unsynced.push(commit),
                Output::Send { link, frame, .. } => self.send(at, link, frame),
                Output::Publish(announcement) if announcement.receipt.is_none() => {
                    self.machine(at).record(announcement);
                }
                Output::Publish(announcement) => self.machine(at).handed.push_back(announcement),
                Output::Accept(ticket) => drop(self.machine(at).answers.insert(ticket, Answer::Accepted)),
                Output::Full(ticket) => drop(self.machine(at).answers.insert(ticket, Answer::Full)),
                Output::Unkept(ticket) => drop(self.machine(at).answers.insert(ticket, Answer::Unkept)),
                Output::Note(text) => self.machine(at).notes.push(text),
                Output::Close { why, .. } => panic!("{at} closes a link: {why}"),
                Output::Dial { .. }
                | Output::DialNeighbour { .. }
                | Output::Knock { .. }
                | Output::Renew { .. }
                | Output::ShowOther
                | Output::Admit { .. }
                | Output::Endpoints(_)
                | Output::Reject(..)
                | Output::Overlay { .. }
                | Output::Policy(_)
                | Output::Names(_)
                | Output::Users(_)
                | Output::Wireguard(_)
                | Output::Admin { .. }
                | Output::Backup { .. }
                | Output::Measure
                | Output::Recall(_)
                | Output::Fleet { .. }
                | Output::Examine { .. }
                | Output::Call(_)
                | Output::Registered(..)
                | Output::Api { .. }
                | Output::Record(_) => {}
            }
        }
    }

    fn send(&mut self, from: &str, link: LinkId, frame: Frame) {
        let up = usize::from(from == CLOUD);
        if let Some(link) = self.links.values_mut().find(|found| found.id == link) {
            link.frames[up].push_back(frame);
        }
    }

    /// What waits for the disk is on it.
    pub(super) fn sync(&mut self, at: &'static str) -> bool {
        let machine = self.machine(at);
        let commits = std::mem::take(&mut machine.unsynced);
        let Some(last) = commits.last().map(|commit| commit.revision) else { return false };
        machine.store.commit(&commits).unwrap();
        machine.durable = last;
        self.tell(at, Input::Persisted(last));
        true
    }

    /// The broker takes the next message that it was handed.
    pub(super) fn take(&mut self, at: &'static str) -> bool {
        let Some(announcement) = self.machine(at).handed.pop_front() else { return false };
        let receipt = announcement.receipt.unwrap_or(Receipt(0));
        self.tell(at, Input::Keep { ticket: None, rows: vec![], receipt: Some(receipt) });
        self.machine(at).record(announcement);
        true
    }

    /// The next frame of a link arrives.
    pub(super) fn carry(&mut self, edge: &'static str, way: usize) -> bool {
        let Some(link) = self.links.get_mut(edge) else { return false };
        let (id, frame) = (link.id, link.frames[way].pop_front());
        let Some(frame) = frame else { return false };
        self.tell([CLOUD, edge][way], Input::Frame { link: id, frame });
        true
    }

    pub(super) fn names(&self) -> Vec<&'static str> {
        self.machines.keys().copied().collect()
    }

    /// Until all is silent, but for disks and brokers that are slow.
    pub(super) fn run(&mut self) {
        loop {
            let mut moved = false;
            for at in self.names() {
                moved |= !self.machine(at).is_slow && self.sync(at);
                moved |= self.machine(at).takes && self.take(at);
                moved |= self.carry(at, 0) | self.carry(at, 1);
            }
            if !moved {
                return;
            }
        }
    }

    pub(super) fn sleep(&mut self, time: Duration) {
        let mono = self.now.mono + time;
        let wall = UnixMillis(self.now.wall.0 + time.as_millis() as u64);
        self.now = Now { mono, wall };
        for at in self.names() {
            let due = self.machine(at).node.poll_timeout();
            if due.is_some_and(|(due, _)| due <= mono) {
                self.tell(at, Input::Timeout);
            }
        }
    }

    pub(super) fn is_cut(&self, edge: &str) -> bool {
        !self.links.contains_key(edge)
    }

    pub(super) fn cut(&mut self, edge: &'static str) {
        let Some(Link { id: link, .. }) = self.links.remove(edge) else { return };
        self.tell(CLOUD, Input::LinkDown { link });
        self.tell(edge, Input::LinkDown { link });
    }

    pub(super) fn mend(&mut self, edge: &'static str) {
        if !self.is_cut(edge) {
            return;
        }
        let link = LinkId(self.draw());
        self.links.insert(edge, Link { id: link, frames: Default::default() });
        let key = KeyHash::of_spki(edge.as_bytes());
        self.tell(CLOUD, Input::LinkUp { link, peer: id(edge), key, attempt: None });
        self.tell(edge, Input::LinkUp { link, peer: id(CLOUD), key, attempt: Some(1) });
    }

    /// kill -9, and back over what the disk holds.
    pub(super) fn crash(&mut self, at: &'static str) {
        let edges = if at == CLOUD { self.names() } else { vec![at] };
        edges.into_iter().filter(|name| *name != CLOUD).for_each(|edge| self.cut(edge));
        let (seed, now) = (self.draw(), self.now);
        let machine = self.machine(at);
        machine.unsynced.clear();
        machine.handed.clear();
        let durable = machine.durable;
        machine.heard.retain(|(revision, _)| *revision <= durable);
        machine.node = start(at, Keyspace::load(machine.store.load().unwrap()), seed, now);
        let filters = machine.filters.clone();
        for filter in filters {
            self.tell(at, Input::Interest { filter, wanted: true });
        }
        self.tell(at, Input::Restored);
    }

    /// What the disk holds.
    pub(super) fn copy(&mut self, at: &'static str) -> (MemoryStore, Revision) {
        let (mut copy, machine) = (MemoryStore::default(), self.machine(at));
        let rows = Keyspace::load(machine.store.load().unwrap());
        let by_revision = rows.rows().fold(BTreeMap::<_, Vec<_>>::new(), |mut all, (key, at, value)| {
            all.entry(at).or_default().push(metadata::Write { key, value });
            all
        });
        let commit = |(revision, writes)| Commit { revision, writes, forgotten: Vec::new() };
        copy.commit(&by_revision.into_iter().map(commit).collect::<Vec<_>>()).unwrap();
        (copy, machine.durable)
    }

    /// The machine gets a disk that was copied before.
    pub(super) fn put_back(&mut self, at: &'static str, (store, durable): (MemoryStore, Revision)) {
        let machine = self.machine(at);
        (machine.store, machine.durable) = (store, durable);
        self.crash(at);
    }

    /// The machine gets an empty disk.
    pub(super) fn wipe(&mut self, edge: &'static str) {
        let machine = self.machine(edge);
        (machine.store, machine.durable) = (MemoryStore::default(), Revision::ZERO);
        machine.filters.clear();
        machine.heard.clear();
        self.crash(edge);
    }

    pub(super) fn subscribe(&mut self, at: &'static str, filter: &str) {
        let filter = Filter::new(filter).unwrap();
        self.machine(at).filters.push(filter.clone());
        self.tell(at, Input::Interest { filter, wanted: true });
    }

    pub(super) fn unsubscribe(&mut self, at: &'static str, filter: &str) {
        let filter = Filter::new(filter).unwrap();
        self.machine(at).filters.retain(|held| *held != filter);
        self.tell(at, Input::Interest { filter, wanted: false });
    }

    /// A client publishes with QoS 1.
    pub(super) fn publish(&mut self, at: &'static str, topic: &str, payload: &str) -> Ticket {
        let ticket = Ticket(self.draw());
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        self.tell(at, Input::mqtt(Some(ticket), Topic::new(topic).unwrap(), payload, false));
        ticket
    }

    /// A client publishes with QoS 1, to be retained.
    pub(super) fn retain(&mut self, at: &'static str, topic: &str, text: &str) {
        let (ticket, payload) = (Ticket(self.draw()), Bytes::copy_from_slice(text.as_bytes()));
        self.tell(at, Input::mqtt(Some(ticket), Topic::new(topic).unwrap(), payload, true));
    }

    pub(super) fn answer(&self, at: &str, ticket: Ticket) -> Option<Answer> {
        self.machines[at].answers.get(&ticket).copied()
    }

    /// What the clients at a node heard of other sites, as `topic=payload`.
    pub(super) fn heard(&self, at: &str) -> Vec<String> {
        let text = |(_, a): &(Revision, Announcement)| {
            format!("{}={}", a.topic, std::str::from_utf8(&a.payload).unwrap())
        };
        self.announced(at).map(text).collect()
    }

    pub(super) fn announced(&self, at: &str) -> impl Iterator<Item = &(Revision, Announcement)> {
        self.machines[at].heard.iter().filter(|(_, a)| super::super::is_mesh(&a.topic))
    }

    /// What the broker of a node retains below `mesh/` of other sites.
    pub(super) fn retained(&self, at: &str) -> Vec<String> {
        let mut kept = BTreeMap::new();
        for (_, a) in self.announced(at).filter(|(_, a)| a.retain) {
            let text = std::str::from_utf8(&a.payload).unwrap();
            if text.is_empty() {
                kept.remove(&a.topic)
            } else {
                kept.insert(a.topic.clone(), text)
            };
        }
        kept.iter().map(|(topic, text)| format!("{topic}={text}")).collect()
    }

    pub(super) fn noted(&self, at: &str, words: &str) -> bool {
        self.machines[at].notes.iter().any(|note| note.contains(words))
    }
}

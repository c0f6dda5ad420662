//! The cloud's part of the mesh: takes each message once, and keeps it for each site that asked for it until it is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bus::backoff::Jitter;
use bus::{Filter, Message, Name, NodeId, UnixMillis};
use device_twin::{Announcement, Receipt};
use metadata::{Cause, Keyspace};
use serde_json::json;

use super::desk::Desk;
use super::leaf::{BlockId, Told, UP_POSITION, UP_WANT};
use super::log::{Log, Logged, Targets};
use super::parcel::{MAX_PARCEL, Parcel, Serial};
use super::retained::Retained;
use super::site::{self, PutBack, Site};
use super::wants::{MAX_WANTS, Want, concerns};
use super::{encode, hash, key};

const INTEREST: &str = "/c/interest/";
const HERE: &str = "/c/mesh/here";
const FROM: &str = "/c/mesh/from/";

/// Processes of one edge of which is known how far they were taken. What was taken and not acknowledged is little, and
/// was said by the last few of them.
const MAX_RUNS: usize = 8;

/// Messages handed to the cloud's own broker and not safe there yet; further ones wait in the log.
const HANDING_OUT: usize = 1024;

/// What the hub wants done.
#[derive(Debug)]
pub(crate) enum Output {
    /// To the broker here.
    Announce(Announcement),
    Note(String),
}

#[derive(Debug)]
pub(crate) struct Hub {
    me: NodeId,
    /// Draws streams.
    jitter: Jitter,
    log: Log,
    sites: BTreeMap<Name, Site>,
    /// Who asks for a filter; nobody is never stored.
    wanted: BTreeMap<Filter, BTreeSet<Name>>,
    retained: Retained,
    /// The last that was taken of each edge's processes, the newest process last. A replica that takes over does not know how
    /// far an edge's outbox was taken, and is told some of it again.
    from: BTreeMap<Name, Vec<Serial>>,
    desk: Desk<u64>,
    /// What waits for the broker here, by number in the log.
    here: VecDeque<u64>,
    /// What was handed to it.
    handed: VecDeque<u64>,
    /// Sites to which something may be sent.
    dirty: BTreeSet<Name>,
    /// Filters beyond [`MAX_WANTS`].
    refused: u64,
    /// Messages that came in.
    taken: u64,
    outputs: VecDeque<Output>,
}

impl Hub {
    pub(crate) fn load(me: NodeId, seed: u64, ks: &mut Keyspace) -> Self {
        let mut hub = Self {
            me,
            jitter: Jitter::new(seed),
            log: Log::default(),
            sites: BTreeMap::new(),
            wanted: BTreeMap::new(),
            retained: Retained::load(ks),
            from: load_from(ks),
            desk: Desk::load(ks),
            here: VecDeque::new(),
            handed: VecDeque::new(),
            dirty: BTreeSet::new(),
            refused: 0,
            taken: 0,
            outputs: VecDeque::new(),
        };
        hub.load_sites(ks);
        hub.load_log(ks);
        hub
    }

    fn load_sites(&mut self, ks: &Keyspace) {
        for (key, _) in ks.range(site::PREFIX) {
            if let Ok(edge) = Name::new(&key.as_str()[site::PREFIX.len()..]) {
                self.sites.insert(edge.clone(), Site::load(edge, ks));
            }
        }
        for (key, bytes) in ks.range(INTEREST) {
            let edge =
                key.as_str()[INTEREST.len()..].split_once('/').and_then(|(edge, _)| Name::new(edge).ok());
            let want = minicbor::decode::<Want>(bytes).ok();
            let site = edge.as_ref().and_then(|edge| self.sites.get_mut(edge));
            if let (Some(edge), Some(Want { filter, generation }), Some(site)) = (edge, want, site) {
                site.wants.insert(filter.clone(), generation);
                self.wanted.entry(filter).or_default().insert(edge);
            }
        }
    }

    fn load_log(&mut self, ks: &mut Keyspace) {
        let here: u64 = ks.get(HERE).and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default();
        let Self { log, sites, here: queue, .. } = self;
        log.load(ks, |number, Logged { targets, parcel }| {
            let mut waiting = 0;
            for edge in &targets.edges {
                if let Some(site) = sites.get_mut(edge).filter(|site| site.is_waiting_for(number)) {
                    site.restore(number, parcel.len());
                    waiting += 1;
                }
            }
            if targets.here && number > here {
                queue.push_back(number);
                waiting += 1;
            }
            waiting
        });
    }

    /// An app here said something to other sites.
    pub(crate) fn publish(&mut self, message: Message, ks: &mut Keyspace, wall: UnixMillis) {
        self.take(Parcel::new(message, wall), ks);
    }

    /// What an edge's outbox held; `theirs` is the time on its clock.
    pub(crate) fn handle_message(
        &mut self,
        edge: &Name,
        bytes: &[u8],
        ks: &mut Keyspace,
        theirs: UnixMillis,
        ours: UnixMillis,
    ) {
        let parcel = Parcel::decode(bytes).filter(|_| bytes.len() <= MAX_PARCEL);
        let Some(parcel) = parcel.filter(|parcel| parcel.message.origin == NodeId::edge(edge.clone())) else {
            return self
                .note(format!("edge/{edge} sent what is no message of its own to other sites: dropped"));
        };
        let from = self.from.entry(edge.clone()).or_default();
        if parcel.serial.is_some_and(|serial| !note(from, serial)) {
            return;
        }
        let row = encode(&*from);
        if let Some(parcel) = parcel.aged(theirs, ours)
            && self.take(Parcel { kept: None, replay: false, ..parcel }, ks)
        {
            ks.put(key(&format!("{FROM}{edge}")), row);
        }
    }

    /// Whether anything is kept of it.
    fn take(&mut self, mut parcel: Parcel, ks: &mut Keyspace) -> bool {
        self.taken += 1;
        let number = self.log.number(ks);
        if parcel.message.retain {
            parcel.kept = Some(number);
            self.retained.keep(&parcel, ks);
        }
        let message = &parcel.message;
        let matching = self.wanted.iter().filter(|(filter, _)| filter.matches(&message.topic));
        let mut edges: BTreeSet<Name> = matching.flat_map(|(_, edges)| edges.iter().cloned()).collect();
        edges.retain(|edge| NodeId::edge(edge.clone()) != message.origin);
        let here = message.origin != self.me && self.desk.wants.matches(&message.topic);
        let targets = Targets { edges, here };
        let is_kept = message.retain || targets != Targets::default();
        self.enqueue(number, targets, &parcel, ks);
        is_kept
    }

    fn enqueue(&mut self, number: u64, targets: Targets, parcel: &Parcel, ks: &mut Keyspace) {
        if targets == Targets::default() {
            return;
        }
        let bytes = parcel.encode();
        self.log.put(number, targets.clone(), &bytes, ks);
        if targets.here {
            self.here.push_back(number);
        }
        for edge in targets.edges {
            let Some(site) = self.sites.get_mut(&edge) else { continue };
            if site.enqueue(number, bytes.len(), &mut self.log, ks) {
                self.outputs.push_back(Output::Note(format!(
                    "edge/{edge} is away for so long that the oldest messages to it give way"
                )));
            }
            self.dirty.insert(edge);
        }
    }

    /// What an edge says under a key that begins with [`super::leaf::UP`].
    pub(crate) fn handle_told(
        &mut self,
        edge: &Name,
        told: &str,
        payload: &[u8],
        ks: &mut Keyspace,
        wall: UnixMillis,
    ) {
        if told == UP_POSITION {
            if let Ok(position) = minicbor::decode(payload) {
                self.handle_position(edge, position, ks);
            }
        } else if told.starts_with(UP_WANT)
            && let Ok(Told { want, wanted }) = minicbor::decode(payload)
            && concerns(&want.filter)
        {
            if wanted {
                self.handle_wanted(edge, want, ks, wall)
            } else {
                self.unwant(edge, &want.filter, ks)
            }
        }
    }

    fn handle_position(&mut self, edge: &Name, position: BlockId, ks: &mut Keyspace) {
        let stream = self.draw();
        let site = self.site(edge, ks);
        if site.handle_position(position, ks) == Err(PutBack) {
            site.begin_stream(stream, ks);
            self.note(format!(
                "edge/{edge} has had more messages than this cloud remembers: its disk was put back"
            ));
        }
        self.dirty.insert(edge.clone());
    }

    /// 0 stands for none.
    fn draw(&mut self) -> u64 {
        self.jitter.next_u64().max(1)
    }

    fn site(&mut self, edge: &Name, ks: &mut Keyspace) -> &mut Site {
        let stream = self.draw();
        let site = self.sites.entry(edge.clone()).or_insert_with(|| Site::load(edge.clone(), ks));
        if !site.has_stream() {
            site.begin_stream(stream, ks);
        }
        site
    }

    /// A filter that is newly asked for gets what is retained; one that is told again does not.
    fn handle_wanted(&mut self, edge: &Name, want: Want, ks: &mut Keyspace, wall: UnixMillis) {
        let site = self.site(edge, ks);
        if site.wants.len() >= MAX_WANTS && !site.wants.contains_key(&want.filter) {
            self.refused += 1;
            return;
        }
        let Want { filter, generation } = &want;
        if site.wants.insert(filter.clone(), *generation) == Some(*generation) {
            return;
        }
        ks.put(interest_key(edge, filter), encode(&want));
        self.wanted.entry(filter.clone()).or_default().insert(edge.clone());
        let targets = Targets { edges: BTreeSet::from([edge.clone()]), here: false };
        self.replay(filter, &NodeId::edge(edge.clone()), &targets, ks, wall);
    }

    fn replay(
        &mut self,
        filter: &Filter,
        to: &NodeId,
        targets: &Targets,
        ks: &mut Keyspace,
        wall: UnixMillis,
    ) {
        for parcel in self.retained.matching(filter, ks, wall) {
            if parcel.message.origin != *to {
                let number = self.log.number(ks);
                self.enqueue(number, targets.clone(), &Parcel { replay: true, ..parcel }, ks);
            }
        }
    }

    fn unwant(&mut self, edge: &Name, filter: &Filter, ks: &mut Keyspace) {
        let Some(site) = self.sites.get_mut(edge) else { return };
        if site.wants.remove(filter).is_none() {
            return;
        }
        ks.delete(&interest_key(edge, filter));
        if let Some(edges) = self.wanted.get_mut(filter) {
            edges.remove(edge);
            if edges.is_empty() {
                self.wanted.remove(filter);
            }
        }
    }

    /// The edge has another disk. A new one knows nothing of what was asked for and sent before; it says what it wants.
    pub(crate) fn handle_new_incarnation(&mut self, edge: &Name, cause: Cause, ks: &mut Keyspace) {
        let stream = self.draw();
        let Some(site) = self.sites.get_mut(edge) else { return };
        site.handle_other_disk();
        if cause != Cause::NewDisk {
            return;
        }
        let is_loss = site.is_behind();
        site.drop_all(&mut self.log, ks);
        site.begin_stream(stream, ks);
        let filters: Vec<Filter> = site.wants.keys().cloned().collect();
        filters.iter().for_each(|filter| self.unwant(edge, filter, ks));
        if is_loss {
            self.note(format!("edge/{edge} has a new store: messages that waited for the old one are lost"));
        }
    }

    /// Nodes may have gone.
    pub(crate) fn handle_membership(&mut self, is_member: impl Fn(&Name) -> bool, ks: &mut Keyspace) {
        self.from.retain(|edge, _| {
            let stays = is_member(edge);
            if !stays {
                ks.delete(&key(&format!("{FROM}{edge}")));
            }
            stays
        });
        let gone: Vec<Name> = self.sites.keys().filter(|edge| !is_member(edge)).cloned().collect();
        for edge in gone {
            let filters: Vec<Filter> =
                self.sites.get(&edge).into_iter().flat_map(|site| site.wants.keys().cloned()).collect();
            filters.iter().for_each(|filter| self.unwant(&edge, filter, ks));
            if let Some(site) = self.sites.remove(&edge) {
                site.forget(&mut self.log, ks);
            }
        }
    }

    /// The first subscriber of a filter came to the broker here, or its last one left.
    pub(crate) fn handle_interest(
        &mut self,
        filter: &Filter,
        wanted: bool,
        ks: &mut Keyspace,
        wall: UnixMillis,
    ) {
        if !wanted {
            self.desk.handle_unwanted(filter, ks);
        } else if self.desk.handle_wanted(filter, ks).is_some() {
            let targets = Targets { edges: BTreeSet::new(), here: true };
            let me = self.me.clone();
            self.replay(filter, &me, &targets, ks, wall);
        }
    }

    /// All that sessions of before the start ask for was said: the rest is asked for no more.
    pub(crate) fn handle_restored(&mut self, ks: &mut Keyspace) {
        for filter in self.desk.wants.unconfirmed() {
            self.desk.handle_unwanted(&filter, ks);
        }
    }

    /// The broker here has the message of this receipt safe.
    pub(crate) fn handle_taken(&mut self, receipt: Receipt) {
        self.desk.handle_taken(receipt);
    }

    /// At the end of a cycle: what came in goes on.
    pub(crate) fn settle(&mut self, ks: &mut Keyspace, wall: UnixMillis) {
        for edge in std::mem::take(&mut self.dirty) {
            if let Some(site) = self.sites.get_mut(&edge) {
                site.fill(&mut self.log, ks);
            }
        }
        while self.desk.len() < HANDING_OUT
            && let Some(number) = self.here.pop_front()
        {
            let parcel = Log::get(number, ks).and_then(|bytes| Parcel::decode(&bytes));
            self.desk.hand(parcel.and_then(|parcel| parcel.aged(wall, wall)), number);
            self.handed.push_back(number);
        }
        if let Some(consumed) = self.desk.consumed(ks) {
            ks.put(key(HERE), encode(&consumed));
            while let Some(number) = self.handed.pop_front_if(|number| *number <= consumed) {
                self.log.release(number, ks);
            }
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| self.desk.poll().map(Output::Announce))
    }

    fn note(&mut self, text: String) {
        self.outputs.push_back(Output::Note(text));
    }

    /// For `kubebus status`.
    pub(crate) fn status(&self) -> serde_json::Value {
        let sites = self.sites.values().map(|site| {
            json!({ "edge": site.edge(), "wants": site.wants.len(), "waiting": site.waiting(),
                    "dropped": site.dropped() })
        });
        let refused = self.refused + self.desk.wants.refused();
        json!({ "taken": self.taken, "waiting": self.log.len(), "retained": self.retained.len(),
                "retained_bytes": self.retained.bytes(),
                "retained_refused": self.retained.refused() + self.desk.unkept(),
                "wants_refused": refused, "sites": sites.collect::<Vec<_>>() })
    }
}

/// Whether it was not taken before.
fn note(from: &mut Vec<Serial>, serial: Serial) -> bool {
    if let Some(known) = from.iter_mut().find(|known| known.run == serial.run) {
        let is_new = known.number < serial.number;
        known.number = known.number.max(serial.number);
        return is_new;
    }
    from.push(serial);
    let former = from.len().saturating_sub(MAX_RUNS);
    from.drain(..former);
    true
}

fn load_from(ks: &Keyspace) -> BTreeMap<Name, Vec<Serial>> {
    let rows = ks.range(FROM);
    rows.filter_map(|(key, bytes)| {
        let edge = Name::new(&key.as_str()[FROM.len()..]).ok()?;
        Some((edge, minicbor::decode(bytes).ok()?))
    })
    .collect()
}

fn interest_key(edge: &Name, filter: &Filter) -> metadata::Key {
    key(&format!("{INTEREST}{edge}/{}", hash(filter.as_str())))
}

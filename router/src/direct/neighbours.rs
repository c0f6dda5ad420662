//! The edge's part: when to wish for a way, how it is made, and when it is given up.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bus::bus::LinkId;
use bus::{Backoff, KeyHash, Mono, NodeId};

use crate::dial::Attempts;

/// Seconds with packets in them after which two nodes talk enough; a gap of [`PAUSE`] starts over.
const TALKS_AFTER: u32 = 5;
const PAUSE: Duration = Duration::from_secs(3);

/// So many bytes in a second are enough at once.
const BULK: u64 = 64 << 10;

/// Between two wishes for the same node: the other side may not have wished yet.
const WISH_EVERY: Duration = Duration::from_secs(15);

/// How long two that were introduced try: as long as a dial takes at most, and what their words from the hub are apart.
const MEET_FOR: Duration = Duration::from_secs(12);

/// Between two bytes that keep a NAT open for a dial; and while the hub is away, when nobody says that one comes.
const KNOCK_EVERY: Duration = Duration::from_millis(500);
const KNOCK_SELDOM: Duration = Duration::from_secs(5);

/// The least wait after a try that failed, and the bounds of what is added to it.
const REST: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// The longest such wait while the hub is away: a dial costs little, and nothing else leads there.
const LONGEST_WAIT_ALONE: Duration = Duration::from_secs(10);

/// A link that held so long was a good one: the next wait is short again.
const PROVEN_AFTER: Duration = Duration::from_secs(60);

/// A link on which nobody talked for so long is closed: it costs keepalives on both sides.
const IDLE_AFTER: Duration = Duration::from_secs(10 * 60);

/// So long after they talked last two look for each other without the hub: later another may have their addresses.
const LOOKS_FOR: Duration = Duration::from_secs(60 * 60);

/// Links that one edge has to others at most: each is two connections (50 KiB) and their keepalives. Further pairs stay
/// with the hub.
const MAX_DIRECT: usize = 16;

/// Nodes whose talk is counted at most; those that stopped talking make room.
const MAX_KNOWN: usize = 256;

/// A connection of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LaneOf {
    Packets,
    Bus,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Tell the hub.
    Wish { peer: NodeId },
    /// Dial a neighbour; what became of it comes back with the attempt's number.
    Dial { attempt: u64, peer: NodeId, lane: LaneOf, address: SocketAddr },
    /// Send a byte to each, so that a NAT lets an answer in, and let the shard accept from there for a while.
    Knock { addresses: Vec<SocketAddr> },
    /// Packets of this link count from now on.
    Admit { link: LinkId },
    /// Close a link.
    Close { link: LinkId, why: &'static str },
    /// The neighbour's bus lane stands: it is a peer of the bus from now on.
    BusUp { link: LinkId, peer: NodeId },
    /// Tell the neighbour whether the hub is within reach.
    Upstream { link: LinkId, connected: bool },
    /// Whether the neighbour hears us by the hub.
    Reserve { peer: NodeId, in_reserve: bool },
    /// For the log.
    Note(String),
}

/// Whether a neighbour that dialled is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    Yes,
    No,
}

/// How packets get to a node, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathView {
    pub peer: NodeId,
    /// Where, if there is a link.
    pub direct: Option<SocketAddr>,
    /// Why there is none.
    pub because: Option<&'static str>,
    /// Tries that failed since the last link that held.
    pub failed: u32,
}

/// The neighbours of an edge. Where a link stands is for the shard to know: packets take it as soon as it does.
#[derive(Debug)]
pub struct Neighbours {
    attempts: Attempts,
    seed: u64,
    is_enabled: bool,
    hub_connected: bool,
    known: BTreeMap<NodeId, Neighbour>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Neighbour {
    talk: Talk,
    /// Where and how the hub introduced it last.
    met: Option<Met>,
    phase: Phase,
    backoff: Backoff,
    failed: u32,
    /// When we lost it, it did not reach the hub: nobody will introduce it again.
    is_cut_off: bool,
}

/// Seconds in which packets went to and fro.
#[derive(Debug, Default)]
struct Talk {
    seconds: u32,
    last: Mono,
}

#[derive(Debug, Clone)]
struct Met {
    key: KeyHash,
    addresses: Vec<SocketAddr>,
    dials: bool,
}

/// ```text
///            talks enough            introduced              a link stands
///   Apart ----------------> Wishing ------------> Meeting -----------------> Direct
///     ^                                             |                           |
///     +---------------- did not meet ---------------+        lost, idle         |
///     +-------------------------------------------------------------------------+
/// ```
#[derive(Debug)]
enum Phase {
    Apart {
        until: Mono,
    },
    Wishing {
        until: Mono,
    },
    /// With the dial that is on its way, and where to try next. One at a time: of two that arrive each side might keep
    /// another.
    Meeting {
        until: Mono,
        knock_at: Option<Mono>,
        dial: Option<(u64, SocketAddr)>,
        rest: VecDeque<SocketAddr>,
    },
    Direct(Direct),
}

#[derive(Debug)]
struct Direct {
    packets: LinkId,
    remote: SocketAddr,
    since: Mono,
    bus: BusLane,
    /// As it says; until then it is as good as we are.
    hub_connected: bool,
}

/// The second connection of a pair; the side that dialled the first dials it.
#[derive(Debug, PartialEq, Eq)]
enum BusLane {
    Awaited,
    Dialing(u64),
    Up(LinkId),
    Waiting(Mono),
}

impl Neighbours {
    /// `index` as in [`Dialer::new`](crate::Dialer::new); `seed` feeds the jitter.
    pub fn new(index: u32, seed: u64, is_enabled: bool) -> Self {
        Self {
            attempts: Attempts::new(index),
            seed,
            is_enabled,
            hub_connected: false,
            known: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Whether `attempt` was given out here.
    pub fn owns(&self, attempt: u64) -> bool {
        self.attempts.owns(attempt)
    }

    /// Bytes that went to or came from hosts behind `peer` since about a second.
    pub fn handle_talk(&mut self, peer: &NodeId, bytes: u64, now: Mono) {
        if !self.is_enabled || !self.make_room(peer, now) {
            return;
        }
        let busy = self.known.values().filter(|known| known.is_busy()).count();
        let (seed, hub_connected) = (self.seed, self.hub_connected);
        let known = self.known.entry(peer.clone()).or_insert_with(|| Neighbour::new(seed));
        known.talk.note(bytes, now);
        let is_due = match known.phase {
            Phase::Apart { until } | Phase::Wishing { until } => until <= now,
            Phase::Meeting { .. } | Phase::Direct(_) => false,
        };
        let has_place = busy < MAX_DIRECT || known.is_busy();
        if is_due && hub_connected && known.talk.is_enough() && has_place {
            known.phase = Phase::Wishing { until: now + WISH_EVERY };
            self.outputs.push_back(Output::Wish { peer: peer.clone() });
        }
    }

    /// Whether `peer` is known, or there is room to get to know it.
    fn make_room(&mut self, peer: &NodeId, now: Mono) -> bool {
        if self.known.len() < MAX_KNOWN || self.known.contains_key(peer) {
            return true;
        }
        self.known.retain(|_, known| !known.is_forgettable(now));
        self.known.len() < MAX_KNOWN
    }

    /// The hub introduces a node that we wished for.
    pub fn handle_meet(
        &mut self,
        peer: &NodeId,
        key: KeyHash,
        (addresses, dials): (Vec<SocketAddr>, bool),
        now: Mono,
    ) {
        let Some(known) = self.known.get_mut(peer).filter(|_| self.is_enabled) else { return };
        // It would not have wished for us if it still had that.
        if let Phase::Direct(direct) = &known.phase {
            direct.close("the neighbour begins anew", &mut self.outputs);
        }
        known.met = Some(Met { key, addresses, dials });
        self.meet(peer, now);
    }

    /// Tries to reach a node where it was introduced.
    fn meet(&mut self, peer: &NodeId, now: Mono) {
        let Some(known) = self.known.get_mut(peer) else { return };
        let Some(Met { addresses, dials, .. }) = known.met.clone() else { return };
        // The side that waits gives the other its time for each address.
        let tries = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let until = now + MEET_FOR.saturating_mul(tries);
        let knock_at = (!dials).then_some(now + KNOCK_EVERY);
        if dials {
            known.phase = Phase::Meeting { until, knock_at, dial: None, rest: addresses.into() };
            self.dial_next(peer, now);
        } else {
            known.phase = Phase::Meeting { until, knock_at, dial: None, rest: VecDeque::new() };
            self.outputs.push_back(Output::Knock { addresses });
        }
    }

    /// Tries the next of a node's addresses; after the last one they did not meet.
    fn dial_next(&mut self, peer: &NodeId, now: Mono) {
        let Some(Neighbour { phase: Phase::Meeting { dial, rest, .. }, .. }) = self.known.get_mut(peer)
        else {
            return;
        };
        let Some(address) = rest.pop_front() else { return self.did_not_meet(peer, now) };
        let attempt = self.attempts.next();
        *dial = Some((attempt, address));
        let lane = LaneOf::Packets;
        self.outputs.push_back(Output::Dial { attempt, peer: peer.clone(), lane, address });
    }

    /// A dial of ours stands; it proved to be `peer` with `key`.
    pub fn handle_dialled(&mut self, attempt: u64, link: LinkId, (peer, key): (&NodeId, KeyHash), now: Mono) {
        let Some(known) = self.known.get_mut(peer) else {
            return self.close(link, "nobody wishes for it any more");
        };
        if known.met.as_ref().is_none_or(|met| met.key != key) {
            return self.close(link, "another key than the one that the hub named");
        }
        match &mut known.phase {
            Phase::Meeting { dial: Some((dialled, remote)), .. } if *dialled == attempt => {
                let remote = *remote;
                self.outputs.push_back(Output::Admit { link });
                self.become_direct(peer, link, remote, now);
                self.dial_bus(peer);
            }
            Phase::Direct(direct) if direct.bus == BusLane::Dialing(attempt) => {
                direct.bus = BusLane::Up(link);
                self.outputs.push_back(Output::BusUp { link, peer: peer.clone() });
                self.tell_upstream(peer);
            }
            Phase::Apart { .. } | Phase::Wishing { .. } | Phase::Meeting { .. } | Phase::Direct(_) => {
                self.close(link, "nobody wishes for it any more");
            }
        }
    }

    /// A dial of ours came to nothing.
    pub fn handle_failed(&mut self, attempt: u64, now: Mono) {
        let is_its = |known: &Neighbour| match &known.phase {
            Phase::Meeting { dial: Some((dialled, _)), .. } => *dialled == attempt,
            Phase::Direct(direct) => direct.bus == BusLane::Dialing(attempt),
            Phase::Meeting { .. } | Phase::Apart { .. } | Phase::Wishing { .. } => false,
        };
        let Some((peer, known)) = self.known.iter_mut().find(|(_, known)| is_its(known)) else { return };
        let peer = peer.clone();
        if let Phase::Direct(direct) = &mut known.phase {
            direct.bus = BusLane::Waiting(now + REST);
        } else {
            self.dial_next(&peer, now);
        }
    }

    /// Somebody dialled our packets lane and proved to be `peer` with `key`.
    pub fn handle_packets_accepted(
        &mut self,
        link: LinkId,
        (peer, key): (&NodeId, KeyHash),
        remote: SocketAddr,
        now: Mono,
    ) -> Accepted {
        let Some(known) = self.known.get_mut(peer).filter(|known| known.awaits(key)) else {
            return Accepted::No;
        };
        match &known.phase {
            Phase::Meeting { .. } => {}
            // A neighbour that lost its link before we did comes back at once.
            Phase::Direct(direct) => {
                direct.close("replaced by a newer link of the same node", &mut self.outputs);
            }
            Phase::Apart { .. } | Phase::Wishing { .. } => return Accepted::No,
        }
        self.become_direct(peer, link, remote, now);
        Accepted::Yes
    }

    /// The same of our bus lane, which comes second.
    pub fn handle_bus_accepted(&mut self, link: LinkId, (peer, key): (&NodeId, KeyHash)) -> Accepted {
        let Some(known) = self.known.get_mut(peer).filter(|known| known.awaits(key)) else {
            return Accepted::No;
        };
        let Phase::Direct(direct) = &mut known.phase else { return Accepted::No };
        direct.bus = BusLane::Up(link);
        self.outputs.push_back(Output::BusUp { link, peer: peer.clone() });
        self.tell_upstream(peer);
        Accepted::Yes
    }

    fn become_direct(&mut self, peer: &NodeId, packets: LinkId, remote: SocketAddr, now: Mono) {
        let Some(known) = self.known.get_mut(peer) else { return };
        let (bus, hub_connected) = (BusLane::Awaited, true);
        known.failed = 0;
        known.is_cut_off = false;
        known.phase = Phase::Direct(Direct { packets, remote, since: now, bus, hub_connected });
        known.talk.last = now;
        self.outputs.push_back(Output::Note(format!("packets to {peer} go straight to {remote}")));
    }

    fn dial_bus(&mut self, peer: &NodeId) {
        let Some(Neighbour { phase: Phase::Direct(direct), .. }) = self.known.get_mut(peer) else { return };
        let attempt = self.attempts.next();
        direct.bus = BusLane::Dialing(attempt);
        let (lane, address) = (LaneOf::Bus, direct.remote);
        self.outputs.push_back(Output::Dial { attempt, peer: peer.clone(), lane, address });
    }

    /// A link is gone; does nothing about links that are no neighbour's.
    pub fn handle_down(&mut self, link: LinkId, now: Mono) {
        let of_link = |known: &Neighbour| match &known.phase {
            Phase::Direct(direct) => direct.packets == link || direct.bus == BusLane::Up(link),
            Phase::Apart { .. } | Phase::Wishing { .. } | Phase::Meeting { .. } => false,
        };
        let found = self.known.iter_mut().find(|(_, known)| of_link(known));
        let Some((peer, known)) = found else { return };
        let peer = peer.clone();
        let Phase::Direct(direct) = &mut known.phase else { return };
        if direct.packets != link {
            let dials = known.met.as_ref().is_some_and(|met| met.dials);
            direct.bus = if dials { BusLane::Waiting(now + REST) } else { BusLane::Awaited };
            return;
        }
        let held = now.since(direct.since) >= PROVEN_AFTER;
        known.is_cut_off = !direct.hub_connected;
        direct.close("the other lane is gone", &mut self.outputs);
        self.outputs.push_back(Output::Note(format!("packets to {peer} go by the cloud again")));
        if held {
            known.backoff.reset();
        } else {
            known.failed += 1;
        }
        self.rest(&peer, now);
    }

    fn did_not_meet(&mut self, peer: &NodeId, now: Mono) {
        if let Some(known) = self.known.get_mut(peer) {
            known.failed += 1;
        }
        self.rest(peer, now);
    }

    /// Rests before the next try. While one of the two does not reach the hub, the side that waits to be dialled goes on
    /// waiting.
    fn rest(&mut self, peer: &NodeId, now: Mono) {
        let hub_connected = self.hub_connected;
        let Some(known) = self.known.get_mut(peer) else { return };
        let waits = known.met.as_ref().is_some_and(|met| !met.dials);
        let alone = known.is_alone(hub_connected, now);
        known.phase = if waits && alone {
            Phase::Meeting { until: now + MEET_FOR, knock_at: Some(now), dial: None, rest: VecDeque::new() }
        } else {
            let wait = known.backoff.next_wait();
            Phase::Apart { until: now + REST + if alone { wait.min(LONGEST_WAIT_ALONE) } else { wait } }
        };
    }

    /// The hub is within reach, or no longer.
    pub fn handle_hub(&mut self, connected: bool, now: Mono) {
        if self.hub_connected == connected {
            return;
        }
        self.hub_connected = connected;
        let peers: Vec<NodeId> = self.known.keys().cloned().collect();
        for peer in peers {
            self.tell_upstream(&peer);
            let Some(known) = self.known.get_mut(&peer) else { continue };
            // What was lost just before is tried again as soon as it is clear that there is no other way, and nobody is left
            // who answers a wish.
            if let Phase::Apart { until } | Phase::Wishing { until } = known.phase
                && known.is_alone(connected, now)
            {
                known.phase = Phase::Apart { until: until.min(now + REST) };
            }
        }
    }

    /// A neighbour says whether the hub is within its reach.
    pub fn handle_upstream(&mut self, link: LinkId, connected: bool) {
        for (peer, known) in &mut self.known {
            if let Phase::Direct(direct) = &mut known.phase
                && direct.bus == BusLane::Up(link)
            {
                direct.hub_connected = connected;
                let in_reserve = connected && self.hub_connected;
                return self.outputs.push_back(Output::Reserve { peer: peer.clone(), in_reserve });
            }
        }
    }

    fn tell_upstream(&mut self, peer: &NodeId) {
        let Some(Neighbour { phase: Phase::Direct(direct), .. }) = self.known.get(peer) else { return };
        let BusLane::Up(link) = direct.bus else { return };
        let connected = self.hub_connected;
        self.outputs.push_back(Output::Upstream { link, connected });
        let in_reserve = connected && direct.hub_connected;
        self.outputs.push_back(Output::Reserve { peer: peer.clone(), in_reserve });
    }

    /// Who is no member any more is no neighbour either.
    pub fn retain(&mut self, is_member: impl Fn(&NodeId) -> bool) {
        let outputs = &mut self.outputs;
        self.known.retain(|peer, known| {
            if let (false, Phase::Direct(direct)) = (is_member(peer), &known.phase) {
                direct.close("not a member of this cluster any more", outputs);
            }
            is_member(peer)
        });
    }

    pub fn handle_timeout(&mut self, now: Mono) {
        let peers: Vec<NodeId> = self.known.keys().cloned().collect();
        for peer in peers {
            self.time_of(&peer, now);
        }
    }

    fn time_of(&mut self, peer: &NodeId, now: Mono) {
        let hub_connected = self.hub_connected;
        let Some(known) = self.known.get_mut(peer) else { return };
        let alone = known.is_alone(hub_connected, now);
        match &mut known.phase {
            // With a hub it is talk that begins it.
            Phase::Apart { until } if *until <= now && alone => self.meet(peer, now),
            Phase::Meeting { until, .. } if *until <= now => self.did_not_meet(peer, now),
            Phase::Meeting { knock_at: Some(at), .. } if *at <= now => {
                *at = now + if alone { KNOCK_SELDOM } else { KNOCK_EVERY };
                let addresses = known.met.as_ref().map(|met| met.addresses.clone()).unwrap_or_default();
                self.outputs.push_back(Output::Knock { addresses });
            }
            Phase::Direct(direct) => {
                if hub_connected && now.since(known.talk.last) >= IDLE_AFTER {
                    direct.close("nobody talks on it", &mut self.outputs);
                    known.phase = Phase::Apart { until: now };
                } else if matches!(direct.bus, BusLane::Waiting(until) if until <= now) {
                    self.dial_bus(peer);
                }
            }
            Phase::Apart { .. } | Phase::Wishing { .. } | Phase::Meeting { .. } => {}
        }
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let timeouts = self.known.values().filter_map(|known| known.timeout(self.hub_connected));
        timeouts.min().map(|at| (at, "neighbour"))
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The nodes to which packets go straight.
    pub fn direct(&self) -> impl Iterator<Item = &NodeId> {
        self.known.iter().filter(|(_, known)| known.is_direct()).map(|(peer, _)| peer)
    }

    /// Whether packets to `peer` go straight there.
    pub fn is_direct(&self, peer: &NodeId) -> bool {
        self.known.get(peer).is_some_and(Neighbour::is_direct)
    }

    /// The nodes that this edge talks or talked much to, for people.
    pub fn views(&self) -> Vec<PathView> {
        let view = |(peer, known): (&NodeId, &Neighbour)| {
            let (direct, because) = known.path(self.hub_connected)?;
            Some(PathView { peer: peer.clone(), direct, because, failed: known.failed })
        };
        self.known.iter().filter_map(view).collect()
    }

    fn close(&mut self, link: LinkId, why: &'static str) {
        self.outputs.push_back(Output::Close { link, why });
    }
}

impl Neighbour {
    fn new(seed: u64) -> Self {
        Self {
            talk: Talk::default(),
            met: None,
            phase: Phase::Apart { until: Mono::ZERO },
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed),
            failed: 0,
            is_cut_off: false,
        }
    }

    /// Whether it may dial us with this key.
    fn awaits(&self, key: KeyHash) -> bool {
        self.met.as_ref().is_some_and(|met| met.key == key && !met.dials)
    }

    fn is_direct(&self) -> bool {
        matches!(self.phase, Phase::Direct(_))
    }

    /// Whether it has, or may soon have, one of the few links.
    fn is_busy(&self) -> bool {
        !matches!(self.phase, Phase::Apart { .. })
    }

    /// Whether the two have to find each other without the hub, where they met, since they talked not long ago.
    fn is_alone(&self, hub_connected: bool, now: Mono) -> bool {
        let talked = now.since(self.talk.last) < LOOKS_FOR;
        talked && self.met.is_some() && (!hub_connected || self.is_cut_off)
    }

    /// Nobody talks to it, and nothing is under way.
    fn is_forgettable(&self, now: Mono) -> bool {
        let rests = match self.phase {
            Phase::Apart { until } | Phase::Wishing { until } => until <= now,
            Phase::Meeting { .. } | Phase::Direct(_) => false,
        };
        rests && now.since(self.talk.last) > PAUSE
    }

    fn timeout(&self, hub_connected: bool) -> Option<Mono> {
        match &self.phase {
            Phase::Apart { until } => self.is_alone(hub_connected, *until).then_some(*until),
            Phase::Wishing { .. } => None,
            Phase::Meeting { until, knock_at, .. } => Some(knock_at.map_or(*until, |at| at.min(*until))),
            Phase::Direct(direct) => {
                let idle = hub_connected.then_some(self.talk.last + IDLE_AFTER);
                let bus = if let BusLane::Waiting(until) = direct.bus { Some(until) } else { None };
                [idle, bus].into_iter().flatten().min()
            }
        }
    }

    /// Where a link is, or why there is none; nothing is said of who never talked enough.
    fn path(&self, hub_connected: bool) -> Option<(Option<SocketAddr>, Option<&'static str>)> {
        let because = match &self.phase {
            Phase::Direct(direct) => return Some((Some(direct.remote), None)),
            Phase::Meeting { .. } => "a way past the cloud is being tried",
            Phase::Wishing { .. } => "the other side has not wished for a way past the cloud yet",
            Phase::Apart { .. } if self.failed > 0 => {
                "no dial arrived: one of the two is behind a symmetric NAT or a firewall that lets nothing in"
            }
            Phase::Apart { .. } if self.talk.is_enough() && !hub_connected => {
                "the cloud, which introduces, is not within reach"
            }
            Phase::Apart { .. } => return None,
        };
        Some((None, Some(because)))
    }
}

impl Talk {
    fn note(&mut self, bytes: u64, now: Mono) {
        if now.since(self.last) > PAUSE {
            self.seconds = 0;
        }
        self.seconds = self.seconds.saturating_add(if bytes >= BULK { TALKS_AFTER } else { 1 });
        self.last = now;
    }

    fn is_enough(&self) -> bool {
        self.seconds >= TALKS_AFTER
    }
}

impl Direct {
    fn close(&self, why: &'static str, outputs: &mut VecDeque<Output>) {
        let bus = if let BusLane::Up(link) = self.bus { Some(link) } else { None };
        outputs
            .extend([Some(self.packets), bus].into_iter().flatten().map(|link| Output::Close { link, why }));
    }
}

#[cfg(test)]
mod tests;

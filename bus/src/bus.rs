//! The message bus between nodes: who is there, whose clock says what, and who gets to hear a message.
//!
//! A *hub* (cloud) passes messages on between its peers; a *leaf* (edge) does not, so a message can never run in a
//! circle. A message goes to a peer only while somebody there (or behind it) asked for it.
//!
//! Two leaves that have a link of their own are *neighbours*. It is a reserve: while both reach the hub, messages go by
//! the hub alone, and come once.
//!
//! A newer link of the same peer replaces the older one: after a half-open link the peer is back before we knew it
//! was gone. Delivery over a link that breaks is not repeated here; what must not be lost goes through the metadata
//! service's outbox.

mod clock;
mod packet;
#[cfg(test)]
mod tests;

pub use self::clock::{CLOCK_INTERVAL, ClockOffset};

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use thiserror::Error;

use self::clock::PeerClock;
use self::packet::{Packet, TAKES, TAKES_CHECKUPS, TAKES_HEALTH, TAKES_HISTORY};
use crate::{Channel, Class, Filter, Frame, Message, Mono, NodeId, NodeKind, Now, UnixMillis};

/// The bus protocol spoken here. A peer with another major version is refused with a clear reason.
pub const PROTOCOL_VERSION: u16 = 1;

/// Filters one edge may ask for; bounds the memory and the matching work an authenticated peer can cost. Further ones are
/// not held, and counted.
pub const MAX_FILTERS_PER_PEER: usize = 4096;

/// Filters told in one packet: at 1 KiB each it stays far below a frame's limit.
const FILTERS_PER_PACKET: usize = 256;

/// One connection's number, given by the shell; never reused in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Whether messages are passed on between peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Hub,
    Leaf,
}

/// What the peer did wrong; the link is to be closed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Misbehaviour {
    #[error("malformed bus packet")]
    Malformed,
    #[error("speaks another protocol version")]
    Version,
}

/// What the bus wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send on this link.
    Send { link: LinkId, class: Class, frame: Frame },
    /// Hand to the local broker.
    Deliver(Message),
    /// The peer is there: start syncing with it.
    PeerUp { peer: NodeId, link: LinkId },
    /// The peer is gone.
    PeerDown { peer: NodeId, link: LinkId },
    /// The peer newly asked for `filter`: replay what is retained for it.
    Wanted { peer: NodeId, filter: Filter },
    /// A peer published: a hub passes it on with [`Bus::relay`] if the peer may speak there; a leaf takes it from a
    /// neighbour with that, for itself alone.
    Offered { from: NodeId, message: Message },
    /// Close this link.
    Close { link: LinkId, why: CloseReason },
}

/// Why the bus closes a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CloseReason {
    #[error("replaced by a newer link of the same node")]
    Replaced,
    #[error("the peer said goodbye")]
    Goodbye,
    #[error("the peer {0}")]
    Misbehaved(Misbehaviour),
}

#[derive(Debug)]
struct Peer {
    link: LinkId,
    wants: BTreeSet<Filter>,
    clock: Option<PeerClock>,
    next_clock: Mono,
    /// A neighbour that hears us by the hub.
    in_reserve: bool,
    /// What else it takes, as it said; `None` before its hello.
    takes: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Local,
    Peer(NodeId),
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub delivered: u64,
    pub forwarded: u64,
    pub misbehaved: u64,
    /// Filters beyond [`MAX_FILTERS_PER_PEER`].
    pub filters_refused: u64,
}

/// The bus of one node.
#[derive(Debug)]
pub struct Bus {
    me: NodeId,
    role: Role,
    peers: BTreeMap<NodeId, Peer>,
    links: BTreeMap<LinkId, NodeId>,
    /// Who asked for a filter: nobody is never stored.
    holders: BTreeMap<Filter, BTreeSet<Holder>>,
    outputs: VecDeque<Output>,
    stats: Stats,
}

impl Bus {
    pub fn new(me: NodeId, role: Role) -> Self {
        Self {
            me,
            role,
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            holders: BTreeMap::new(),
            outputs: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The peers that are connected.
    pub fn peers(&self) -> impl Iterator<Item = &NodeId> {
        self.peers.keys()
    }

    pub fn link_of(&self, peer: &NodeId) -> Option<LinkId> {
        self.peers.get(peer).map(|peer| peer.link)
    }

    /// Whether the peer has said, on the present link, that it takes frames of [`Channel::Health`].
    pub fn takes_health(&self, peer: &NodeId) -> bool {
        self.takes(peer, TAKES_HEALTH) == Some(true)
    }

    /// The same of [`Channel::History`]; `None` before its hello.
    pub fn takes_history(&self, peer: &NodeId) -> Option<bool> {
        self.takes(peer, TAKES_HISTORY)
    }

    fn takes(&self, peer: &NodeId, what: u8) -> Option<bool> {
        Some(self.peers.get(peer)?.takes? & what != 0)
    }

    /// The same of frames of [`Channel::Checkup`].
    pub fn takes_checkups(&self, peer: &NodeId) -> bool {
        self.takes(peer, TAKES_CHECKUPS) == Some(true)
    }

    /// The peer at the other end of a link.
    pub fn peer_of(&self, link: LinkId) -> Option<&NodeId> {
        self.links.get(&link)
    }

    /// The best estimate of a peer's clock on the present link, against ours as it stands now.
    pub fn clock_of(&self, peer: &NodeId, now: Now) -> Option<ClockOffset> {
        Some(self.peer_clock(peer)?.against(now))
    }

    fn peer_clock(&self, peer: &NodeId) -> Option<PeerClock> {
        self.peers.get(peer)?.clock
    }

    /// A bus connection to an authenticated peer stands.
    pub fn handle_link_up(&mut self, link: LinkId, peer: NodeId, now: Now) {
        if let Some(old) = self.peers.get(&peer).map(|p| p.link) {
            self.outputs.push_back(Output::Close { link: old, why: CloseReason::Replaced });
            self.handle_link_down(old, now);
        }
        self.links.insert(link, peer.clone());
        let next_clock = now.mono + CLOCK_INTERVAL;
        let in_reserve = self.is_neighbour(&peer);
        self.peers.insert(
            peer.clone(),
            Peer { link, wants: BTreeSet::new(), clock: None, next_clock, in_reserve, takes: None },
        );
        self.greet(link, peer, now);
    }

    /// Whether `peer` is a leaf like us.
    fn is_neighbour(&self, peer: &NodeId) -> bool {
        self.role == Role::Leaf && peer.kind == NodeKind::Edge
    }

    /// Whether a neighbour hears us by the hub, as it does at first. Once it does not, it is asked for anew what it
    /// wants ([`Output::Wanted`]): some of it may have got lost with the hub.
    pub fn set_in_reserve(&mut self, peer: &NodeId, in_reserve: bool) {
        let is_neighbour = self.is_neighbour(peer);
        let Some(state) = self.peers.get_mut(peer).filter(|_| is_neighbour) else { return };
        if std::mem::replace(&mut state.in_reserve, in_reserve) && !in_reserve {
            let wanted = |filter: &Filter| Output::Wanted { peer: peer.clone(), filter: filter.clone() };
            self.outputs.extend(state.wants.iter().map(wanted));
        }
    }

    /// The connection is gone, for whatever reason. Unknown links are ignored: they were replaced.
    pub fn handle_link_down(&mut self, link: LinkId, _now: Now) {
        let Some(peer) = self.links.remove(&link) else { return };
        let Some(Peer { wants, .. }) = self.peers.remove(&peer) else { return };
        for filter in wants {
            self.release(&filter, &Holder::Peer(peer.clone()));
        }
        self.outputs.push_back(Output::PeerDown { peer, link });
    }

    /// A frame of [`Channel::Bus`] arrived.
    pub fn handle_frame(&mut self, link: LinkId, payload: &[u8], now: Now) {
        let Some(peer) = self.links.get(&link).cloned() else { return };
        let outcome = match minicbor::decode::<Packet>(payload) {
            Ok(packet) => self.handle_packet(link, &peer, packet, now),
            Err(_) => Err(CloseReason::Misbehaved(Misbehaviour::Malformed)),
        };
        if let Err(why) = outcome {
            self.stats.misbehaved += u64::from(matches!(why, CloseReason::Misbehaved(_)));
            self.outputs.push_back(Output::Close { link, why });
            self.handle_link_down(link, now);
        }
    }

    fn handle_packet(
        &mut self,
        link: LinkId,
        peer: &NodeId,
        packet: Packet,
        now: Now,
    ) -> Result<(), CloseReason> {
        match packet {
            Packet::Hello { version, .. } if version != PROTOCOL_VERSION => {
                return Err(CloseReason::Misbehaved(Misbehaviour::Version));
            }
            Packet::Hello { takes, .. } => {
                if let Some(peer) = self.peers.get_mut(peer) {
                    peer.takes = Some(takes);
                }
            }
            Packet::Goodbye => return Err(CloseReason::Goodbye),
            Packet::ClockAsk { asked_at } => {
                self.send(link, Class::Control, &Packet::ClockTell { asked_at, wall: now.wall });
            }
            Packet::ClockTell { asked_at, wall } => self.learn_clock(peer, Mono(asked_at), wall, now),
            Packet::Interest { add, remove } => self.learn_interest(peer, add, remove),
            Packet::Publish { message, sent } => self.take(peer, message, sent, now),
        }
        Ok(())
    }

    /// All at once: the classes of a link travel apart, so that nothing can wait for a hello to be there first.
    fn greet(&mut self, link: LinkId, peer: NodeId, now: Now) {
        self.send(link, Class::Control, &Packet::Hello { version: PROTOCOL_VERSION, takes: TAKES });
        self.send(link, Class::Control, &Packet::ClockAsk { asked_at: now.mono.0 });
        let wanted: Vec<Filter> = self
            .holders
            .iter()
            .filter(|(_, holders)| holders.iter().any(|h| self.speaks_for(h, &peer)))
            .map(|(filter, _)| filter.clone())
            .collect();
        for part in wanted.chunks(FILTERS_PER_PACKET) {
            self.send(link, Class::State, &Packet::Interest { add: part.to_vec(), remove: Vec::new() });
        }
        self.outputs.push_back(Output::PeerUp { peer, link });
    }

    /// Whether what `holder` asked for is told to `peer` as our wish.
    fn speaks_for(&self, holder: &Holder, peer: &NodeId) -> bool {
        match holder {
            Holder::Local => true,
            Holder::Peer(other) => self.role == Role::Hub && other != peer,
        }
    }

    fn learn_clock(&mut self, peer: &NodeId, asked_at: Mono, wall: UnixMillis, now: Now) {
        if let Some(Peer { clock, .. }) = self.peers.get_mut(peer) {
            *clock = Some(PeerClock::told(asked_at, wall, now.mono));
        }
    }

    fn take(&mut self, peer: &NodeId, mut message: Message, sent: UnixMillis, now: Now) {
        let hop = self.peer_clock(peer).and_then(|clock| clock.since(sent, now.mono));
        message.travelled = message.travelled.zip(hop).map(|(before, hop)| before.saturating_add(hop));
        if self.role == Role::Hub || self.is_neighbour(peer) {
            self.outputs.push_back(Output::Offered { from: peer.clone(), message });
        } else {
            self.pass_on(Some(peer), message, now);
        }
    }

    fn learn_interest(&mut self, peer: &NodeId, add: Vec<Filter>, remove: Vec<Filter>) {
        for filter in remove {
            let Some(Peer { wants, .. }) = self.peers.get_mut(peer) else { break };
            if wants.remove(&filter) {
                self.release(&filter, &Holder::Peer(peer.clone()));
            }
        }
        // A leaf's hub speaks for everybody.
        let is_bounded = self.role == Role::Hub || self.is_neighbour(peer);
        for filter in add {
            let Some(Peer { wants, in_reserve, .. }) = self.peers.get_mut(peer) else { break };
            if is_bounded && wants.len() >= MAX_FILTERS_PER_PEER && !wants.contains(&filter) {
                self.stats.filters_refused += 1;
                continue;
            }
            if !wants.insert(filter.clone()) {
                continue;
            }
            let is_served = !*in_reserve;
            self.hold(&filter, Holder::Peer(peer.clone()));
            if is_served {
                self.outputs.push_back(Output::Wanted { peer: peer.clone(), filter });
            }
        }
    }

    /// Somebody here subscribed. The caller counts: once per filter, however many subscribers.
    pub fn subscribe(&mut self, filter: &Filter) {
        self.hold(filter, Holder::Local);
    }

    /// The last subscriber here left.
    pub fn unsubscribe(&mut self, filter: &Filter) {
        self.release(filter, &Holder::Local);
    }

    fn hold(&mut self, filter: &Filter, holder: Holder) {
        let before = self.holders.get(filter).cloned().unwrap_or_default();
        let mut after = before.clone();
        after.insert(holder);
        self.tell_difference(filter, &before, &after);
        self.holders.insert(filter.clone(), after);
    }

    fn release(&mut self, filter: &Filter, holder: &Holder) {
        let Some(before) = self.holders.get(filter).cloned() else { return };
        let mut after = before.clone();
        after.remove(holder);
        self.tell_difference(filter, &before, &after);
        if after.is_empty() {
            self.holders.remove(filter);
        } else {
            self.holders.insert(filter.clone(), after);
        }
    }

    fn tell_difference(&mut self, filter: &Filter, before: &BTreeSet<Holder>, after: &BTreeSet<Holder>) {
        // With three holders or more on both sides every peer of a hub hears of the filter already.
        if self.role == Role::Hub && before.len() > 2 && after.len() > 2 {
            return;
        }
        let mut packets = Vec::new();
        for (id, peer) in &self.peers {
            let told = |holders: &BTreeSet<Holder>| holders.iter().any(|h| self.speaks_for(h, id));
            let (add, remove) = match (told(before), told(after)) {
                (false, true) => (vec![filter.clone()], vec![]),
                (true, false) => (vec![], vec![filter.clone()]),
                _ => continue,
            };
            packets.push((peer.link, Packet::Interest { add, remove }));
        }
        for (link, packet) in packets {
            self.send(link, Class::State, &packet);
        }
    }

    /// Somebody here published.
    pub fn publish(&mut self, message: Message, now: Now) {
        self.pass_on(None, message, now);
    }

    /// Passes on what `from` had [`Output::Offered`].
    pub fn relay(&mut self, from: &NodeId, message: Message, now: Now) {
        self.pass_on(Some(from), message, now);
    }

    /// Sends one message to one peer, whatever it asked for: the replay after [`Output::Wanted`].
    pub fn send_to(&mut self, peer: &NodeId, message: Message, now: Now) {
        if let Some(link) = self.link_of(peer) {
            self.send(link, Class::Event, &Packet::Publish { message, sent: now.wall });
        }
    }

    fn pass_on(&mut self, from: Option<&NodeId>, message: Message, now: Now) {
        let mut targets = BTreeSet::new();
        let mut local = false;
        for (_, holders) in self.holders.iter().filter(|(filter, _)| filter.matches(&message.topic)) {
            for holder in holders {
                match holder {
                    Holder::Local => local = from.is_some(),
                    Holder::Peer(peer) => {
                        let in_reserve = self.peers.get(peer).is_some_and(|peer| peer.in_reserve);
                        let may = !in_reserve && (from.is_none() || self.role == Role::Hub);
                        if may && Some(peer) != from && *peer != message.origin {
                            targets.insert(peer.clone());
                        }
                    }
                }
            }
        }
        for peer in targets {
            self.stats.forwarded += 1;
            self.send_to(&peer, message.clone(), now);
        }
        if local && message.origin != self.me {
            self.stats.delivered += 1;
            self.outputs.push_back(Output::Deliver(message));
        }
    }

    /// Says goodbye to everybody: step two of the shutdown.
    pub fn goodbye(&mut self) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.send(link, Class::Control, &Packet::Goodbye);
        }
    }

    pub fn handle_timeout(&mut self, now: Now) {
        let mut due = Vec::new();
        for peer in self.peers.values_mut() {
            if peer.next_clock <= now.mono {
                peer.next_clock = now.mono + CLOCK_INTERVAL;
                due.push(peer.link);
            }
        }
        for link in due {
            self.send(link, Class::Control, &Packet::ClockAsk { asked_at: now.mono.0 });
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        self.peers.values().map(|peer| (peer.next_clock, "ask a peer's clock")).min()
    }

    fn send(&mut self, link: LinkId, class: Class, packet: &Packet) {
        // Encoding into a Vec cannot fail: the writer is infallible and no type of ours refuses.
        let Ok(payload) = minicbor::to_vec(packet) else { return };
        self.outputs.push_back(Output::Send { link, class, frame: Frame::new(Channel::Bus, payload) });
    }
}

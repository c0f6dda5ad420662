//! A replica of a cloud that waits for its turn: it keeps the links that edges make to it, and watches the one that
//! leads.
//!
//! Who a member is it cannot know before it has the keyspace, so nobody is let in: it says [`PathMessage::Standby`] and
//! no more, hears nothing, and passes nothing on. When its turn has come, the links that stand are handed to the
//! [`Cloud`](crate::Cloud) as if they were new.
//!
//! The other replicas are at the endpoints that edges are told, and which of them leads it says itself: all are dialled
//! until one does. That link is then asked several times a second whether its other end lives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bus::bus::LinkId;
use bus::{Channel, Frame, KeyHash, Mono, NodeId, NodeKind, PathMessage};
use controller::join::{JoinReply, RefusalCode};
use controller::renew::{RenewRefusal, RenewReply};

use crate::seam::Input;

/// Between two tries to find the replica that leads: the dials of one round have an answer by then.
const ROUND: Duration = Duration::from_secs(2);

/// Keys of one edge whose links are kept, of each lane: that before a renewal and that after it. For another one the oldest
/// link goes: certificates are given out faster than they end.
const MAX_KEYS: usize = 2;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Of class control.
    Send {
        link: LinkId,
        frame: Frame,
    },
    Close {
        link: LinkId,
        why: &'static str,
    },
    /// Dial a replica, at the endpoint of this number; the attempt's number comes back with what became of it.
    Dial {
        attempt: u64,
        endpoint: usize,
    },
    /// The replica that leads, in this term, is silent.
    Lost {
        term: u64,
    },
}

/// A link that somebody made to this replica.
#[derive(Debug)]
struct Kept {
    peer: NodeId,
    key: KeyHash,
    lane: Lane,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Bus,
    Packets { remote: SocketAddr },
}

/// One waiting replica.
#[derive(Debug)]
pub struct Standby {
    me: NodeId,
    /// At most one a lane and key of each edge, and at most [`MAX_KEYS`]: which key is a member's is not known here.
    kept: BTreeMap<LinkId, Kept>,
    /// Where replicas are dialled, this one among them.
    endpoints: usize,
    attempts: u64,
    dialling: BTreeSet<u64>,
    /// Links to replicas that have not said that they lead.
    others: BTreeSet<LinkId>,
    leader: Option<Leader>,
    round: Mono,
    outputs: VecDeque<Output>,
}

#[derive(Debug, Clone, Copy)]
struct Leader {
    link: LinkId,
    term: u64,
}

impl Standby {
    /// With no endpoints nobody is watched.
    pub fn new(me: NodeId, endpoints: usize, now: Mono) -> Self {
        Self {
            me,
            kept: BTreeMap::new(),
            endpoints,
            attempts: 0,
            dialling: BTreeSet::new(),
            others: BTreeSet::new(),
            leader: None,
            round: now,
            outputs: VecDeque::new(),
        }
    }

    pub fn handle(&mut self, input: Input, now: Mono) {
        match input {
            Input::LinkUp { link, attempt: Some(attempt), .. } => {
                self.dialling.remove(&attempt);
                self.others.insert(link);
            }
            Input::LinkUp { link, peer, key, attempt: None } => self.keep(link, peer, key, Lane::Bus),
            Input::PeerPackets { link, peer, key, remote } => {
                self.keep(link, peer, key, Lane::Packets { remote });
            }
            Input::LinkDown { link } | Input::PacketsDown { link } => self.handle_down(link, now),
            Input::Moved { link, remote } => {
                if let Some(kept) = self.kept.get_mut(&link) {
                    kept.lane = Lane::Packets { remote };
                }
            }
            Input::DialFailed { attempt, .. } => drop(self.dialling.remove(&attempt)),
            Input::Frame { link, frame } => self.handle_frame(link, &frame),
            Input::Join { link, .. } => self.refuse_to_join(link),
            Input::Renew { link, .. } => self.refuse_to_renew(link),
            Input::Timeout => self.handle_timeout(now),
            // A replica that waits has neither broker, store nor console of a cloud.
            Input::PacketsUp { .. }
            | Input::Talk { .. }
            | Input::Local { .. }
            | Input::Mqtt { .. }
            | Input::Keep { .. }
            | Input::Dmi { .. }
            | Input::DmiAnswer { .. }
            | Input::Restored
            | Input::Interest { .. }
            | Input::Persisted(_)
            | Input::Degraded { .. }
            | Input::Admin { .. }
            | Input::Order { .. }
            | Input::Api { .. }
            | Input::Backup { .. }
            | Input::Measured(_)
            | Input::Fleet { .. }
            | Input::Examined { .. }
            | Input::Recalled(_)
            | Input::Wireguard(_)
            | Input::Certificate(_)
            | Input::RuleLog => {}
        }
    }

    fn keep(&mut self, link: LinkId, peer: NodeId, key: KeyHash, lane: Lane) {
        let is_edge = peer.kind == NodeKind::Edge;
        if !is_edge && (peer != self.me || lane != Lane::Bus) {
            return self.outputs.push_back(Output::Close { link, why: "edges and replicas alone come here" });
        }
        if let Some(older) = self.replaced(&peer, key, lane).filter(|_| is_edge) {
            self.kept.remove(&older);
            let why = "replaced by a newer link of the same node";
            self.outputs.push_back(Output::Close { link: older, why });
        }
        self.kept.insert(link, Kept { peer, key, lane });
        if lane == Lane::Bus {
            let frame = Frame::new(Channel::Path, PathMessage::Standby.to_bytes());
            self.outputs.push_back(Output::Send { link, frame });
        }
    }

    /// The link in whose place a new one of an edge comes.
    fn replaced(&self, peer: &NodeId, key: KeyHash, lane: Lane) -> Option<LinkId> {
        let is_of_lane = |kept: &Kept| (kept.lane == Lane::Bus) == (lane == Lane::Bus);
        let all = self.kept.iter().filter(|(_, kept)| kept.peer == *peer && is_of_lane(kept));
        let links: Vec<(LinkId, KeyHash)> = all.map(|(link, kept)| (*link, kept.key)).collect();
        let same = links.iter().find(|(_, other)| *other == key);
        // A shard numbers its links in their order.
        let oldest = links.first().filter(|_| links.len() >= MAX_KEYS);
        same.or(oldest).map(|(link, _)| *link)
    }

    fn handle_down(&mut self, link: LinkId, now: Mono) {
        self.kept.remove(&link);
        self.others.remove(&link);
        if let Some(Leader { term, .. }) = self.leader.take_if(|leader| leader.link == link) {
            self.round = now + ROUND;
            self.outputs.push_back(Output::Lost { term });
        }
    }

    /// Edges have nothing to say to a replica that waits; what they said to one that they took for the cloud is said
    /// again when it is.
    fn handle_frame(&mut self, link: LinkId, frame: &Frame) {
        if !self.others.contains(&link) {
            return;
        }
        match PathMessage::from_bytes(&frame.payload) {
            Some(PathMessage::Leads { term }) if self.leader.is_none_or(|leader| leader.term < term) => {
                self.others.remove(&link);
                if let Some(former) = self.leader.replace(Leader { link, term }) {
                    self.outputs.push_back(Output::Close { link: former.link, why: "another replica leads" });
                }
            }
            Some(_) | None => {
                self.others.remove(&link);
                self.outputs.push_back(Output::Close { link, why: "the replica that leads is looked for" });
            }
        }
    }

    fn refuse_to_join(&mut self, link: LinkId) {
        let message = "this replica of the cloud waits for its turn: join at another endpoint".to_owned();
        let reply = JoinReply::Refused { code: RefusalCode::Internal, message };
        let frame = Frame::new(Channel::Join, reply.to_bytes());
        self.outputs.push_back(Output::Send { link, frame });
    }

    /// Who asks for the next certificate is sent on.
    pub fn refuse_to_renew(&mut self, link: LinkId) {
        let message = "this replica of the cloud waits for its turn: ask another one".to_owned();
        let reply = RenewReply::Refused { code: RenewRefusal::Internal, message, retry_after_s: 0 };
        let frame = Frame::new(Channel::Join, reply.to_bytes());
        self.outputs.push_back(Output::Send { link, frame });
    }

    fn handle_timeout(&mut self, now: Mono) {
        if self.round > now || self.leader.is_some() {
            return;
        }
        self.round = now + ROUND;
        let silent = std::mem::take(&mut self.others).into_iter();
        let why = "the replica that leads is looked for";
        self.outputs.extend(silent.map(|link| Output::Close { link, why }));
        if self.dialling.is_empty() {
            for endpoint in 0..self.endpoints {
                self.attempts += 1;
                self.dialling.insert(self.attempts);
                self.outputs.push_back(Output::Dial { attempt: self.attempts, endpoint });
            }
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        (self.endpoints > 0 && self.leader.is_none())
            .then_some((self.round, "look for the replica that leads"))
    }

    /// Edges whose bus link is here.
    pub fn edges(&self) -> usize {
        let is_edges = |kept: &&Kept| kept.peer.kind == NodeKind::Edge && kept.lane == Lane::Bus;
        self.kept.values().filter(is_edges).count()
    }

    /// Whether the replica that leads is asked whether it lives.
    pub fn watches(&self) -> bool {
        self.leader.is_some()
    }

    /// The turn has come: what a cloud is to be told of links that stand, and links that lead nowhere any more.
    pub fn into_inputs(self) -> (Vec<Input>, Vec<LinkId>) {
        let inputs = self.kept.into_iter().map(|(link, Kept { peer, key, lane })| match lane {
            Lane::Bus => Input::LinkUp { link, peer, key, attempt: None },
            Lane::Packets { remote } => Input::PeerPackets { link, peer, key, remote },
        });
        let left = self.others.into_iter().chain(self.leader.map(|leader| leader.link));
        (inputs.collect(), left.collect())
    }
}

#[cfg(test)]
mod tests;

//! Links as a node measures them, and how fast they are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bus::bus::LinkId;
use bus::{Mono, NodeId, NodeKind};
use minicbor::{Decode, Encode};
use router::direct::PathView;

use super::report::UNKNOWN;
use super::series::LinkSeries;
use crate::seam::DialLane;

/// Links that a node tells of, at most: those to its cloud and, of the others, those with the most traffic. The cloud's
/// own view of a fleet has all of the cloud's.
pub const MAX_LINKS: usize = 7;

/// Below this, a share of lost packets says nothing.
const ENOUGH_PACKETS: u64 = 100;

/// Losses are looked at over this long.
const LOSS_WINDOW: Duration = Duration::from_secs(60);

/// Two looks at a link that are closer together than this are one.
const SHORTEST: Duration = Duration::from_millis(500);

/// One link that is up, as the shell sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuredLink {
    pub link: LinkId,
    pub peer: NodeId,
    pub lane: DialLane,
    /// Nothing goes over it yet.
    pub in_reserve: bool,
    pub remote: SocketAddr,
    pub rtt: Duration,
    /// The largest UDP payload, in bytes.
    pub mtu: u16,
    /// Packets that one system call sends.
    pub segments: usize,
    /// Bytes that wait.
    pub queued: u64,
    /// QUIC packets since the link came up, and how many of them were lost.
    pub sent: u64,
    pub lost: u64,
    /// Bytes of UDP payloads since then.
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

/// Which way the link goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode)]
#[cbor(index_only)]
pub enum Path {
    /// QUIC over UDP between an edge and its cloud.
    #[n(0)]
    Quic,
    /// QUIC over UDP between two edges, past the cloud.
    #[n(1)]
    Direct,
    /// Two edges whose packets go by the cloud: no link of their own.
    #[n(2)]
    Relayed,
    /// A way that only a later version knows.
    #[n(3)]
    Other,
}

impl<'b, C> Decode<'b, C> for Path {
    fn decode(from: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(match from.u32()? {
            0 => Self::Quic,
            1 => Self::Direct,
            2 => Self::Relayed,
            _ => Self::Other,
        })
    }
}

impl Path {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Direct => "direct",
            Self::Relayed => "relayed",
            Self::Other => "other",
        }
    }
}

/// What does not change while a link is up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct LinkHead {
    #[n(0)]
    pub path: Path,
    #[n(1)]
    pub peer: NodeId,
    #[n(2)]
    pub is_packets: bool,
    #[n(3)]
    pub in_reserve: bool,
    /// Of a relayed path there is none.
    #[n(4)]
    pub remote: Option<SocketAddr>,
}

/// One link, or way to another edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    pub head: LinkHead,
    pub numbers: [u64; LinkSeries::ALL.len()],
}

impl LinkState {
    pub fn get(&self, series: LinkSeries) -> Option<u64> {
        Some(self.numbers[series as usize]).filter(|value| *value != UNKNOWN)
    }

    /// Bytes a second, both ways.
    pub fn throughput(&self) -> u64 {
        let rate = |series| self.get(series).unwrap_or_default();
        rate(LinkSeries::SentRate) + rate(LinkSeries::ReceivedRate)
    }

    fn relayed(peer: NodeId) -> Self {
        let head = LinkHead { path: Path::Relayed, peer, is_packets: true, in_reserve: false, remote: None };
        Self { head, numbers: [UNKNOWN; LinkSeries::ALL.len()] }
    }
}

/// What a link had carried at an earlier look.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Mono,
    sent_bytes: u64,
    received_bytes: u64,
    rates: Option<(u64, u64)>,
    /// Where the present window of losses began, with packets sent and lost by then.
    window: (Mono, u64, u64),
    /// In millionths, of the window before.
    loss: u64,
}

impl Mark {
    fn first(link: &MeasuredLink, now: Mono) -> Self {
        Self {
            at: now,
            sent_bytes: link.sent_bytes,
            received_bytes: link.received_bytes,
            rates: None,
            window: (now, link.sent, link.lost),
            loss: millionths(link.lost, link.sent).unwrap_or_default(),
        }
    }

    fn advance(&mut self, link: &MeasuredLink, now: Mono) {
        let took = now.since(self.at);
        if took < SHORTEST {
            return;
        }
        let rate =
            |before: u64, after: u64| (after.saturating_sub(before) as f64 / took.as_secs_f64()) as u64;
        self.rates =
            Some((rate(self.sent_bytes, link.sent_bytes), rate(self.received_bytes, link.received_bytes)));
        (self.at, self.sent_bytes, self.received_bytes) = (now, link.sent_bytes, link.received_bytes);
        let (since, sent, lost) = self.window;
        if let Some(loss) = millionths(link.lost.saturating_sub(lost), link.sent.saturating_sub(sent)) {
            self.loss = loss;
            if now.since(since) >= LOSS_WINDOW {
                self.window = (now, link.sent, link.lost);
            }
        }
    }
}

/// `None` if too few were sent to tell.
fn millionths(lost: u64, sent: u64) -> Option<u64> {
    (sent >= ENOUGH_PACKETS).then(|| lost.saturating_mul(1_000_000) / sent)
}

/// Turns totals into rates. Knows one mark a link that is up.
#[derive(Debug)]
pub struct Meter {
    me: NodeKind,
    marks: BTreeMap<LinkId, Mark>,
}

impl Meter {
    /// Of a node of this kind.
    pub fn new(me: NodeKind) -> Self {
        Self { me, marks: BTreeMap::new() }
    }

    /// `links` are all that are up.
    pub fn handle_measured(&mut self, links: &[MeasuredLink], now: Mono) -> Vec<LinkState> {
        let mut before = std::mem::take(&mut self.marks);
        let me = self.me;
        let mut measure = |link: &MeasuredLink| {
            let mut mark = before.remove(&link.link).unwrap_or_else(|| Mark::first(link, now));
            mark.advance(link, now);
            self.marks.insert(link.link, mark);
            state(me, link, &mark)
        };
        let mut states: Vec<LinkState> = links.iter().map(&mut measure).collect();
        states.sort_by(|one, other| one.head.cmp(&other.head));
        states
    }
}

fn state(me: NodeKind, link: &MeasuredLink, mark: &Mark) -> LinkState {
    let MeasuredLink { peer, lane, in_reserve, remote, rtt, mtu, segments, queued, .. } = link;
    let are_edges = me == NodeKind::Edge && peer.kind == NodeKind::Edge;
    let path = if are_edges { Path::Direct } else { Path::Quic };
    let is_packets = *lane == DialLane::Packets;
    let head =
        LinkHead { path, peer: peer.clone(), is_packets, in_reserve: *in_reserve, remote: Some(*remote) };
    let mut numbers = [UNKNOWN; LinkSeries::ALL.len()];
    let mut set = |series: LinkSeries, value: u64| numbers[series as usize] = value;
    set(LinkSeries::Rtt, rtt.as_micros() as u64);
    set(LinkSeries::Loss, mark.loss);
    set(LinkSeries::Mtu, u64::from(*mtu));
    set(LinkSeries::Segments, *segments as u64);
    set(LinkSeries::QueueBytes, *queued);
    set(LinkSeries::Sent, link.sent_bytes);
    set(LinkSeries::Received, link.received_bytes);
    if let Some((sent, received)) = mark.rates {
        set(LinkSeries::SentRate, sent);
        set(LinkSeries::ReceivedRate, received);
    }
    LinkState { head, numbers }
}

/// The ways that packets take by the cloud are links without numbers.
pub fn with_relayed(mut links: Vec<LinkState>, paths: Vec<PathView>) -> Vec<LinkState> {
    let relayed = paths.into_iter().filter(|path| path.direct.is_none());
    links.extend(relayed.map(|path| LinkState::relayed(path.peer)));
    links
}

/// At most [`MAX_LINKS`] of them, in the order of their heads.
pub fn cut(mut links: Vec<LinkState>) -> Vec<LinkState> {
    links.sort_by_key(|link| (link.head.path, std::cmp::Reverse(link.throughput())));
    links.truncate(MAX_LINKS);
    links.sort_by(|one, other| one.head.cmp(&other.head));
    links
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::Name;

    fn edge(name: &str) -> NodeId {
        NodeId::edge(Name::new(name).unwrap())
    }

    fn link(number: u64, peer: NodeId, (packets, lost): (u64, u64), bytes: u64) -> MeasuredLink {
        MeasuredLink {
            link: LinkId(number),
            peer,
            lane: DialLane::Packets,
            in_reserve: false,
            remote: "192.0.2.1:1".parse().unwrap(),
            rtt: Duration::from_millis(20),
            mtu: 1452,
            segments: 44,
            queued: 0,
            sent: packets,
            lost,
            sent_bytes: bytes,
            received_bytes: 0,
        }
    }

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn rates_are_those_of_the_last_look_and_losses_of_the_last_minute() {
        let mut meter = Meter::new(NodeKind::Edge);
        let mut look = |seconds, packets, bytes| {
            let links = [link(1, edge("b"), packets, bytes)];
            let states = meter.handle_measured(&links, at(seconds));
            (states[0].get(LinkSeries::SentRate), states[0].get(LinkSeries::Loss))
        };
        assert_eq!(look(0, (1000, 100), 5_000), (None, Some(100_000)));
        assert_eq!(look(10, (1050, 100), 15_000), (Some(1_000), Some(100_000)));
        assert_eq!(look(20, (1200, 102), 15_000), (Some(0), Some(10_000)));
        assert_eq!(look(70, (2000, 110), 65_000), (Some(1_000), Some(10_000)));
        // Another minute, with no loss.
        assert_eq!(look(80, (2200, 110), 66_000), (Some(100), Some(0)));
    }

    #[test]
    fn a_link_that_is_gone_is_forgotten_and_two_looks_at_once_are_one() {
        let mut meter = Meter::new(NodeKind::Cloud);
        let first = [link(1, edge("b"), (0, 0), 0)];
        meter.handle_measured(&first, at(0));
        let again = [link(1, edge("b"), (0, 0), 900)];
        meter.handle_measured(&again, at(1));
        let states = meter.handle_measured(&again, Mono(at(1).0 + 1000));
        assert_eq!((states[0].get(LinkSeries::SentRate), states[0].head.path), (Some(900), Path::Quic));
        meter.handle_measured(&[], at(2));
        let states = meter.handle_measured(&again, at(3));
        assert_eq!(states[0].get(LinkSeries::SentRate), None);
    }

    #[test]
    fn of_many_links_the_busiest_are_told_and_the_clouds_always() {
        let mut meter = Meter::new(NodeKind::Edge);
        let cloud = NodeId::cloud(Name::new("hq").unwrap());
        let links = |bytes: u64| -> Vec<MeasuredLink> {
            let others = (0..20).map(|n| link(n + 2, edge(&format!("e{n}")), (0, 0), bytes * n));
            std::iter::once(link(1, cloud.clone(), (0, 0), 0)).chain(others).collect()
        };
        meter.handle_measured(&links(0), at(0));
        let states = meter.handle_measured(&links(1000), at(1));
        let told: Vec<String> = cut(states).iter().map(|link| link.head.peer.to_string()).collect();
        assert_eq!(told.len(), MAX_LINKS);
        assert_eq!((told[0].as_str(), told[1].as_str()), ("cloud/hq", "edge/e14"));
    }
}

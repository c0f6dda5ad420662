//! The network between the cloud and its edges: connections as QUIC gives them to a node.
//!
//! ```text
//!                  handshake gets through         idle 45 s, closed, reset, or its process crashed
//!   (dial) Shaking ----------------------> Up x 2 -------------------------------> Dead, each end by itself
//!              \-- not within 10 s: failed
//! ```
//! A connection carries ordered, reliable streams, one a class and direction: a loss delays a frame and those behind
//! it on its stream, and no others. A partition says nothing: frames wait, and are lost with the connection. The way
//! leads through the edge's [`Nat`]: when that forgets the flow, the cloud cannot reach the edge until the edge's next
//! packet comes from another port, which QUIC survives.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use bus::bus::LinkId;
use bus::{Class, Frame, Mono};
use lab::nat::{Flow, Nat, NatKind, Protocol};
use node::seam::DialLane;

use crate::dice::Dice;
use crate::machine::{PerSeat, Seat};

/// A dial that got no answer for this long has failed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a handshake and a blocked stream try again.
const PROBE: Duration = Duration::from_secs(1);
/// As `node::config::LinkConfig` has them by default.
const KEEPALIVE: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(45);
/// Losses of one frame in a row; the next copy gets through.
const MAX_LOSSES: u32 = 6;

const CLOUD: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 10_001);

/// One end of a connection, or the direction towards it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Edge = 0,
    Cloud = 1,
}

impl End {
    pub const BOTH: [Self; 2] = [Self::Edge, Self::Cloud];

    pub fn other(self) -> Self {
        match self {
            Self::Edge => Self::Cloud,
            Self::Cloud => Self::Edge,
        }
    }
}

/// What the network asks to be woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetEvent {
    Shake {
        link: LinkId,
    },
    Up {
        link: LinkId,
        end: End,
    },
    Arrive {
        link: LinkId,
        to: End,
        class: Class,
    },
    Keepalive {
        link: LinkId,
    },
    /// A close or reset reaches this end.
    Closed {
        link: LinkId,
        end: End,
    },
}

/// What a node gets to know.
#[derive(Debug, PartialEq)]
pub enum News {
    Up { link: LinkId, lane: DialLane, attempt: u64 },
    Failed { attempt: u64 },
    Frame { link: LinkId, frame: Frame },
    Down { link: LinkId, lane: DialLane },
}

/// What comes of an event: news for the node at one end of a site's connection, and when to wake the network again.
#[derive(Debug, Default)]
pub struct Effects {
    pub news: Vec<(Seat, End, News)>,
    pub wake: Vec<(Mono, NetEvent)>,
}

/// One edge's way to the cloud.
#[derive(Debug)]
pub struct Path {
    nat: Nat,
    kind: NatKind,
    one_way: Duration,
    pub loss_per_mille: u64,
    losses: u64,
    /// Outages that stop what goes towards an end.
    blocked: [u32; 2],
    /// Outages on the near side of the NAT, which then sees nothing of the edge.
    cut_inside: u32,
    next_port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndState {
    Coming,
    Up { heard: Mono },
    Dead,
}

#[derive(Debug)]
struct Connection {
    seat: Seat,
    lane: DialLane,
    attempt: u64,
    dialled: Mono,
    ends: [EndState; 2],
    /// Frames on their way towards an end, by class.
    streams: [[VecDeque<Sent>; 6]; 2],
    /// The last number given to a frame towards an end, and the highest that arrived there.
    sent: [u64; 2],
    arrived: [u64; 2],
    inside: SocketAddrV4,
    /// Where the cloud believes the edge to be.
    remote: Option<SocketAddrV4>,
    /// Whether an end that crashed answers what still comes with a reset.
    resets: bool,
}

/// A frame on its way.
#[derive(Debug)]
struct Sent {
    /// When it arrives, if the way is open then.
    at: Mono,
    /// Counts all classes.
    number: u64,
    frame: Frame,
}

/// What the network did, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetStats {
    pub frames: u64,
    pub frames_lost: u64,
    /// Packets that got lost on the way and were sent again.
    pub losses: u64,
    /// Frames that arrived after one of another class that was sent later.
    pub overtaken: u64,
    pub connections: u64,
    pub rebindings: u64,
    pub idle_timeouts: u64,
}

/// All connections of the world.
#[derive(Debug)]
pub struct Links {
    paths: PerSeat<Path>,
    connections: BTreeMap<LinkId, Connection>,
    seats: BTreeMap<LinkId, Seat>,
    next: u64,
    dice: Dice,
    /// Whether the process of the cloud, and of each edge, runs.
    pub cloud_runs: bool,
    stats: NetStats,
}

/// Where the cloud sees an edge; the port is the first that its NAT gave out.
pub fn outside(seat: Seat) -> SocketAddr {
    (public_address(seat), 1024).into()
}

/// What an edge's NAT calls itself outside.
fn public_address(seat: Seat) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, seat.site as u8 + if seat.is_clone { 101 } else { 1 })
}

impl Path {
    pub fn new(seat: Seat, dice: &mut Dice) -> Self {
        let kinds = [NatKind::FullCone, NatKind::RestrictedCone, NatKind::PortRestricted, NatKind::Symmetric];
        let kind = kinds[dice.between(0, 3) as usize];
        let mut path = Self {
            nat: Nat::new(kind, public_address(seat), dice.number()),
            kind,
            one_way: dice.skewed(Duration::from_millis(5), Duration::from_millis(300)),
            loss_per_mille: dice.between(0, 50),
            losses: 0,
            blocked: [0; 2],
            cut_inside: 0,
            next_port: 40_000,
        };
        path.restart_nat(seat, dice);
        path
    }

    /// The NAT forgets all flows.
    pub fn restart_nat(&mut self, seat: Seat, dice: &mut Dice) {
        self.nat = Nat::new(self.kind, public_address(seat), dice.number());
    }

    /// Begins (or ends) an outage towards `ends`; `inside`: between the edge and its NAT.
    pub fn cut(&mut self, ends: &[End], inside: bool, begins: bool) {
        let change = |count: &mut u32| {
            *count = if begins { *count + 1 } else { count.saturating_sub(1) };
        };
        ends.iter().for_each(|end| change(&mut self.blocked[*end as usize]));
        if inside {
            change(&mut self.cut_inside);
        }
    }

    fn delay(&mut self, dice: &mut Dice) -> Duration {
        let mut delay = self.one_way + dice.span(Duration::ZERO, self.one_way / 2);
        let mut timeout = self.one_way * 3 + Duration::from_millis(50);
        for _ in 0..MAX_LOSSES {
            if !dice.per_mille(self.loss_per_mille) {
                break;
            }
            self.losses += 1;
            delay += timeout;
            timeout *= 2;
        }
        delay
    }
}

impl Links {
    pub fn new(paths: PerSeat<Path>, dice: Dice) -> Self {
        Self {
            paths,
            connections: BTreeMap::new(),
            seats: BTreeMap::new(),
            next: 1,
            dice,
            cloud_runs: false,
            stats: NetStats::default(),
        }
    }

    pub fn path(&mut self, seat: Seat) -> (&mut Path, &mut Dice) {
        (&mut self.paths[seat], &mut self.dice)
    }

    pub fn stats(&self) -> NetStats {
        NetStats { losses: self.paths.iter().map(|path| path.losses).sum(), ..self.stats }
    }

    /// Whether nothing gets through to or from some edge.
    pub fn has_outage(&self) -> bool {
        self.paths.iter().any(|path| path.cut_inside > 0 || path.blocked.iter().any(|outages| *outages > 0))
    }

    /// Whose connection this is, or was.
    pub fn seat_of(&self, link: LinkId) -> Option<Seat> {
        self.seats.get(&link).copied()
    }

    /// A number that no connection has: for the join lane.
    pub fn fresh_link(&mut self) -> LinkId {
        self.next += 1;
        LinkId(self.next)
    }

    pub fn dial(&mut self, seat: Seat, lane: DialLane, attempt: u64, now: Mono) -> Effects {
        let link = self.fresh_link();
        self.seats.insert(link, seat);
        let path = &mut self.paths[seat];
        path.next_port = path.next_port.wrapping_add(1).max(20_000);
        let connection = Connection {
            seat,
            lane,
            attempt,
            dialled: now,
            ends: [EndState::Coming; 2],
            streams: Default::default(),
            sent: [0; 2],
            arrived: [0; 2],
            inside: SocketAddrV4::new(Ipv4Addr::new(192, 168, 0, 2), path.next_port),
            remote: None,
            resets: self.dice.one_in(2),
        };
        self.connections.insert(link, connection);
        let round_trip = path.delay(&mut self.dice) + path.delay(&mut self.dice);
        Effects { news: vec![], wake: vec![(now + round_trip, NetEvent::Shake { link })] }
    }

    pub fn send(&mut self, link: LinkId, from: End, class: Class, frame: Frame, now: Mono) -> Effects {
        let mut effects = Effects::default();
        let Some(connection) = self.connections.get_mut(&link) else { return effects };
        if !matches!(connection.ends[from as usize], EndState::Up { .. }) {
            return effects;
        }
        self.stats.frames += 1;
        let to = from.other();
        let stream = &mut connection.streams[to as usize][class as usize];
        let earliest = stream.back().map_or(Mono::ZERO, |before| before.at);
        let at = (now + self.paths[connection.seat].delay(&mut self.dice)).max(earliest);
        connection.sent[to as usize] += 1;
        stream.push_back(Sent { at, number: connection.sent[to as usize], frame });
        effects.wake.push((at, NetEvent::Arrive { link, to, class }));
        effects
    }

    /// The node at `end` closes; it hears of that like of any other end.
    pub fn close(&mut self, link: LinkId, end: End, now: Mono) -> Effects {
        let mut effects = Effects::default();
        let Some(connection) = self.connections.get(&link) else { return effects };
        let at = now + self.paths[connection.seat].delay(&mut self.dice);
        if self.kill(link, end, &mut effects) {
            effects.wake.push((at, NetEvent::Closed { link, end: end.other() }));
        }
        effects
    }

    /// The process at this end of all of a site's connections (of all sites', for the cloud) is gone without a word.
    pub fn crash(&mut self, end: End, seat: Option<Seat>) {
        for connection in self.connections.values_mut() {
            if seat.is_none_or(|seat| seat == connection.seat) {
                connection.ends[end as usize] = EndState::Dead;
                self.stats.frames_lost +=
                    connection.streams[end as usize].iter().map(|stream| stream.len() as u64).sum::<u64>();
                connection.streams[end as usize] = Default::default();
            }
        }
        self.connections.retain(|_, connection| connection.ends != [EndState::Dead; 2]);
    }

    pub fn handle(&mut self, event: NetEvent, now: Mono) -> Effects {
        let mut effects = Effects::default();
        match event {
            NetEvent::Shake { link } => self.shake(link, now, &mut effects),
            NetEvent::Up { link, end } => self.come_up(link, end, now, &mut effects),
            NetEvent::Arrive { link, to, class } => self.arrive(link, to, class, now, &mut effects),
            NetEvent::Keepalive { link } => self.keep_alive(link, now, &mut effects),
            NetEvent::Closed { link, end } => {
                if self.passes(link, end, now) {
                    self.kill(link, end, &mut effects);
                }
            }
        }
        effects
    }

    fn shake(&mut self, link: LinkId, now: Mono, effects: &mut Effects) {
        let through =
            self.passes(link, End::Cloud, now) && self.cloud_runs && self.passes(link, End::Edge, now);
        let Some(connection) = self.connections.get(&link) else { return };
        if connection.ends[End::Edge as usize] == EndState::Dead {
            // Whoever dialled is gone.
            self.connections.remove(&link);
        } else if through {
            self.stats.connections += 1;
            // The client has done its part first (RFC 9001 §4.1.1).
            let later = now + self.paths[connection.seat].delay(&mut self.dice);
            effects.wake.push((now, NetEvent::Up { link, end: End::Edge }));
            effects.wake.push((later, NetEvent::Up { link, end: End::Cloud }));
            effects.wake.push((now + self.dice.span(PROBE, KEEPALIVE), NetEvent::Keepalive { link }));
        } else if now.since(connection.dialled) >= HANDSHAKE_TIMEOUT {
            effects.news.push((connection.seat, End::Edge, News::Failed { attempt: connection.attempt }));
            self.connections.remove(&link);
        } else {
            effects.wake.push((now + PROBE, NetEvent::Shake { link }));
        }
    }

    fn come_up(&mut self, link: LinkId, end: End, now: Mono, effects: &mut Effects) {
        let runs = self.cloud_runs || end == End::Edge;
        let Some(connection) = self.connections.get_mut(&link) else { return };
        let state = &mut connection.ends[end as usize];
        if *state != EndState::Coming {
            return;
        }
        if !runs {
            *state = EndState::Dead;
            return;
        }
        *state = EndState::Up { heard: now };
        let news = News::Up { link, lane: connection.lane, attempt: connection.attempt };
        effects.news.push((connection.seat, end, news));
        for class in Class::ALL {
            effects.wake.push((now, NetEvent::Arrive { link, to: end, class }));
        }
    }

    /// Hands out what has arrived of one stream, in order.
    fn arrive(&mut self, link: LinkId, to: End, class: Class, now: Mono, effects: &mut Effects) {
        let passes = self.passes(link, to, now);
        let Some(connection) = self.connections.get_mut(&link) else { return };
        let stream = &mut connection.streams[to as usize][class as usize];
        let is_due = stream.front().is_some_and(|next| next.at <= now);
        let EndState::Up { heard } = &mut connection.ends[to as usize] else { return };
        if !is_due {
            return;
        }
        if !passes {
            let at = now + self.dice.span(PROBE / 2, PROBE * 2);
            stream.iter_mut().for_each(|waiting| waiting.at = at.max(waiting.at));
            effects.wake.push((at, NetEvent::Arrive { link, to, class }));
            return;
        }
        *heard = now;
        let highest = &mut connection.arrived[to as usize];
        while stream.front().is_some_and(|next| next.at <= now) {
            if let Some(Sent { number, frame, .. }) = stream.pop_front() {
                self.stats.overtaken += u64::from(number < *highest);
                *highest = number.max(*highest);
                effects.news.push((connection.seat, to, News::Frame { link, frame }));
            }
        }
        if let EndState::Up { heard } = &mut connection.ends[to.other() as usize] {
            *heard = now; // the acknowledgement
        }
    }

    /// Both ends probe each other; one that hears nothing for too long gives up.
    fn keep_alive(&mut self, link: LinkId, now: Mono, effects: &mut Effects) {
        for from in End::BOTH {
            let runs = |c: &Connection| matches!(c.ends[from as usize], EndState::Up { .. });
            if !self.connections.get(&link).is_some_and(runs) {
                continue;
            }
            let there = self.passes(link, from.other(), now);
            let back = there && self.passes(link, from, now);
            let Some(connection) = self.connections.get_mut(&link) else { return };
            let (mine, other) = (connection.ends[from as usize], connection.ends[from.other() as usize]);
            if let (EndState::Up { .. }, EndState::Up { .. }) = (mine, other) {
                if there {
                    connection.ends[from.other() as usize] = EndState::Up { heard: now };
                }
                if back {
                    connection.ends[from as usize] = EndState::Up { heard: now };
                }
            } else if other == EndState::Dead && mine != EndState::Dead && back && connection.resets {
                self.kill(link, from, effects);
            }
        }
        for end in End::BOTH {
            let Some(connection) = self.connections.get(&link) else { return };
            if let EndState::Up { heard } = connection.ends[end as usize]
                && now.since(heard) >= IDLE
            {
                self.stats.idle_timeouts += 1;
                self.kill(link, end, effects);
            }
        }
        if self.connections.contains_key(&link) {
            effects.wake.push((now + KEEPALIVE, NetEvent::Keepalive { link }));
        }
    }

    /// Ends a connection at one end; false if it had ended.
    fn kill(&mut self, link: LinkId, end: End, effects: &mut Effects) -> bool {
        let Some(connection) = self.connections.get_mut(&link) else { return false };
        let was = std::mem::replace(&mut connection.ends[end as usize], EndState::Dead);
        if let EndState::Up { .. } = was {
            let news = News::Down { link, lane: connection.lane };
            effects.news.push((connection.seat, end, news));
        }
        self.stats.frames_lost +=
            connection.streams.iter().flatten().map(|stream| stream.len() as u64).sum::<u64>();
        connection.streams = Default::default();
        if connection.ends == [EndState::Dead; 2] {
            self.connections.remove(&link);
        }
        was != EndState::Dead
    }

    /// Whether a packet of this connection gets to `to` now.
    fn passes(&mut self, link: LinkId, to: End, now: Mono) -> bool {
        let Some(connection) = self.connections.get_mut(&link) else { return false };
        let path = &mut self.paths[connection.seat];
        if path.cut_inside > 0 {
            return false;
        }
        let out = Flow { protocol: Protocol::Udp, source: connection.inside, destination: CLOUD };
        match to {
            End::Cloud => {
                let Ok(public) = path.nat.outbound(out, now) else { return false };
                if path.blocked[to as usize] > 0 {
                    return false;
                }
                let before = connection.remote.replace(public);
                self.stats.rebindings += u64::from(before.is_some_and(|before| before != public));
                true
            }
            End::Edge => {
                let Some(remote) = connection.remote else { return false };
                let back = Flow { protocol: Protocol::Udp, source: CLOUD, destination: remote };
                path.blocked[to as usize] == 0 && path.nat.inbound(back, now) == Ok(connection.inside)
            }
        }
    }
}

//! What a connection has that carries packets: what waits for it, and what is known of its path.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bus::Mono;
use bytes::{Bytes, BytesMut};
use quinn_proto::Connection;

use super::config::{Congestion, DATAGRAM_SEND_BUFFER, ShardConfig};
use super::congestion::{Acknowledged, acknowledged, lift_window};
use super::datagram::{Head, Maker, Parts};
use super::stats::PacketStats;
use crate::queue::{self, Mark, PathSample, Scheduler, set_congestion_experienced};
use crate::{DropReason, Packet};

/// A search for the MTU takes seven round trips, and three probes for each size that does not pass; what comes after that
/// is the path itself. Longer than a search over a satellite, and than most false alarms.
const MTU_SETTLES_AFTER: Duration = Duration::from_secs(10);

/// What a connection may have that has not left: a read of the TUN, and what comes on top if it was the last bit. The rest
/// of its buffer is for the second halves of datagrams.
const UNSENT: usize = 512 << 10;

/// The same while a congestion window holds it back: what waits is better where it has its order.
const UNSENT_IN_WINDOW: usize = 64 << 10;

/// The packets side of a link.
#[derive(Debug)]
pub(super) struct PacketLane {
    congestion: Congestion,
    /// Copies: what waits must not keep a whole receive buffer.
    waiting: Scheduler<BytesMut>,
    /// Halves of datagrams that were too long for the path.
    pub(super) parts: Parts,
    path: Option<Path>,
    /// Acknowledged on paths before, in bytes and packets.
    acknowledged: (u64, u64),
    /// The path's MTU, and since when it is so.
    mtu: (u16, Mono),
}

/// Where the peer was when its congestion window was lifted.
#[derive(Debug)]
struct Path {
    remote: SocketAddr,
    acknowledged: Arc<Acknowledged>,
    /// What that had counted before: a path that goes on at another port goes on counting.
    before: (u64, u64),
}

impl PacketLane {
    /// `seed` as in [`Scheduler::new`].
    pub(super) fn new(seed: u64, config: &ShardConfig, now: Mono) -> Self {
        Self {
            congestion: config.congestion,
            waiting: Scheduler::new(seed, config.rate, now),
            parts: Parts::default(),
            path: None,
            acknowledged: (0, 0),
            mtu: (0, now),
        }
    }

    /// Sends a whole datagram, which carries `packet`, at once if the link is free for it. Returns whether it is on its way.
    pub(super) fn send(
        &mut self,
        connection: &mut Connection,
        datagram: Bytes,
        maker: &mut Maker,
        stats: &mut PacketStats,
        now: Mono,
    ) -> bool {
        if self.waiting.is_idle() && self.room(connection) > datagram.len() {
            return queue(connection, datagram, maker, stats);
        }
        let Ok(packet) = Packet::parse(datagram.get(Head::LEN..).unwrap_or_default()) else {
            stats.count_drop(DropReason::Malformed);
            return false;
        };
        let waits = self.waiting.enqueue(&packet, BytesMut::from(&datagram[..]), now).is_ok();
        stats.queue_full += u64::from(!waits);
        waits
    }

    /// Hands over what may leave now; returns whether that was anything.
    pub(super) fn pump(
        &mut self,
        connection: &mut Connection,
        maker: &mut Maker,
        stats: &mut PacketStats,
        now: Mono,
    ) -> bool {
        if self.waiting.is_idle() {
            return false;
        }
        let mut any = false;
        while let Some((mut datagram, mark)) = self.waiting.dequeue(now, self.room(connection)) {
            if mark == Mark::CongestionExperienced
                && let Some(packet) = datagram.get_mut(Head::LEN..)
            {
                set_congestion_experienced(packet);
            }
            any |= queue(connection, datagram.freeze(), maker, stats);
        }
        any
    }

    /// When to pump again if nothing happens before.
    pub(super) fn poll_timeout(&self) -> Option<Mono> {
        self.waiting.poll_timeout()
    }

    /// How long a datagram the connection may be given now. What it has already is in nobody's order, and may keep whole
    /// receive buffers: so it gets no more than so much.
    fn room(&self, connection: &mut Connection) -> usize {
        let most = match self.congestion {
            Congestion::None => UNSENT,
            Congestion::Cubic => UNSENT_IN_WINDOW,
        };
        most.saturating_sub(DATAGRAM_SEND_BUFFER.saturating_sub(connection.datagrams().send_buffer_space()))
    }

    /// Lifts the congestion window of a path that is new, if it is not to be kept.
    pub(super) fn follow_path(&mut self, connection: &Connection) {
        let remote = connection.remote_address();
        if self.path.as_ref().is_some_and(|path| path.remote == remote) {
            return;
        }
        self.acknowledged = self.acknowledged();
        let counted = match self.congestion {
            Congestion::None => lift_window(connection),
            Congestion::Cubic => acknowledged(connection),
        };
        self.path = counted.map(|acknowledged| {
            let before = acknowledged.count();
            Path { remote, acknowledged, before }
        });
    }

    /// Notes what the turn brought.
    pub(super) fn observe(&mut self, connection: &Connection, now: Mono) {
        self.parts.handle_timeout(now);
        let mtu = connection.current_mtu();
        if mtu != self.mtu.0 {
            self.mtu = (mtu, now);
        }
        let (acked_bytes, acked_packets) = self.acknowledged();
        if acked_packets > 0 {
            self.waiting.observe(&PathSample { acked_bytes, acked_packets, rtt: connection.rtt() }, now);
        }
    }

    fn acknowledged(&self) -> (u64, u64) {
        let Some(Path { acknowledged, before, .. }) = &self.path else { return self.acknowledged };
        let (bytes, packets) = acknowledged.count();
        (self.acknowledged.0 + bytes - before.0, self.acknowledged.1 + packets - before.1)
    }

    /// Whether the path's MTU has not moved for so long that hosts may be told.
    pub(super) fn has_settled_mtu(&self, now: Mono) -> bool {
        now.since(self.mtu.1) >= MTU_SETTLES_AFTER
    }

    pub(super) fn stats(&self) -> queue::Stats {
        self.waiting.stats()
    }
}

/// Gives a datagram to the connection, in two parts if it does not fit.
fn queue(connection: &mut Connection, datagram: Bytes, maker: &mut Maker, stats: &mut PacketStats) -> bool {
    let Some(max) = connection.datagrams().max_size() else {
        stats.no_lane += 1;
        return false;
    };
    let (first, second) = if datagram.len() <= max {
        (datagram, None)
    } else if let Some((first, second)) = maker.in_parts(&datagram, max) {
        (first, Some(second))
    } else {
        stats.too_big += 1;
        return false;
    };
    let sent = [Some(first), second]
        .into_iter()
        .flatten()
        .all(|part| connection.datagrams().send(part, false).is_ok());
    stats.queue_full += u64::from(!sent);
    sent
}

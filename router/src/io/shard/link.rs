//! One connection: what it is for, how far it has come, and the words for its end.

use std::net::SocketAddr;
use std::time::Instant;

use bus::bus::LinkId;
use bus::{Class, Frame, Mono, NodeId};
use bytes::Bytes;
use quinn_proto::{
    ApplicationClose, Connection, ConnectionError, ConnectionHandle, TransportErrorCode, VarInt,
};

use super::congestion::lift_window;
use super::datagram::Maker;
use super::lane::PacketLane;
use super::silence::Silence;
use super::stats::PacketStats;
use super::streams::{Queued, Streams};
use super::watch::Watch;
use super::{DialError, EXPIRED, Lane};
use crate::io::tls::Verdict;

/// A peer's words in our logs and errors are cut here.
const MAX_WORDS: usize = 200;

/// Our codes in QUIC's application close; the reason says it in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum CloseCode {
    /// The owner closed the link, or the shard stops.
    Closed = 0,
    /// Not welcome on this lane.
    Refused = 1,
    /// What the peer sent is not the protocol.
    Fault = 2,
    /// Too slow a handshake, or a join that took too long.
    TooSlow = 3,
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        Self::from_u32(code as u32)
    }
}

/// ```text
///   Command::Dial          stranger's first packet
///        v                          v
///     Dialing                   Accepting
///        |  server's HANDSHAKE_DONE  |  certificate fits the lane
///        +-----------> Up <----------+
///        |             |             |
///        | failed      | closed,     | refused
///        | too slow    | lost        | too slow
///        +-----------> Gone <--------+
/// ```
/// A dial is up only with the server's HANDSHAKE_DONE: TLS 1.3 lets a client finish before the server has looked at
/// its certificate.
#[derive(Debug)]
pub(super) enum Phase {
    Dialing {
        attempt: u64,
        lane: Lane,
        verdict: Verdict,
        until: Instant,
        /// The server may speak as soon as it is content with us.
        streams: Streams,
    },
    Accepting {
        until: Instant,
    },
    Up(Up),
    /// Told to the owner; quinn still waits for late packets.
    Gone,
}

/// When a link ends, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    pub(super) at: Instant,
    pub(super) code: CloseCode,
    pub(super) words: &'static str,
}

/// A link in use.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) lane: Lane,
    /// `None` for a client that joins.
    pub(super) peer: Option<NodeId>,
    pub(super) streams: Streams,
    pub(super) until: Option<Until>,
    pub(super) silence: Silence,
    /// Where the owner believes an accepted peer to be.
    pub(super) told: SocketAddr,
}

/// One connection.
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) handle: ConnectionHandle,
    pub(super) connection: Connection,
    pub(super) phase: Phase,
    /// Whether the peer dialled us.
    pub(super) accepted: bool,
    /// Whether it counts as unproven until it is forgotten.
    pub(super) unproven: bool,
    /// Whether it is in the list of connections to turn to.
    pub(super) queued: bool,
    /// Whether its packets count: the owner admits those that dial.
    pub(super) admitted: bool,
    /// Of a neighbour's packets link.
    pub(super) watch: Option<Watch>,
    /// Of a link that is up and carries packets.
    pub(super) packets: Option<Box<PacketLane>>,
}

impl Link {
    pub(super) fn new(id: LinkId, handle: ConnectionHandle, connection: Connection, phase: Phase) -> Self {
        let accepted = matches!(phase, Phase::Accepting { .. });
        Self {
            id,
            handle,
            connection,
            phase,
            accepted,
            unproven: accepted,
            queued: false,
            admitted: !accepted,
            watch: None,
            packets: None,
        }
    }

    /// Queues a frame; `None` if this is no link for frames, or none yet.
    pub(super) fn queue(&mut self, class: Class, frame: &Frame) -> Option<Queued> {
        match &mut self.phase {
            Phase::Up(up) if up.lane != Lane::Packets => Some(up.streams.queue(class, frame)),
            Phase::Up(_) | Phase::Dialing { .. } | Phase::Accepting { .. } | Phase::Gone => None,
        }
    }

    /// Sends an overlay packet in its datagram; returns whether it is on its way.
    pub(super) fn send_packet(
        &mut self,
        datagram: Bytes,
        maker: &mut Maker,
        stats: &mut PacketStats,
        now: Mono,
    ) -> bool {
        let Some(lane) = &mut self.packets else {
            stats.no_lane += 1;
            return false;
        };
        lane.send(&mut self.connection, datagram, maker, stats, now)
    }

    /// [`PacketLane::has_settled_mtu`] of a link that carries packets.
    pub(super) fn has_settled_mtu(&self, now: Mono) -> bool {
        self.packets.as_ref().is_some_and(|lane| lane.has_settled_mtu(now))
    }

    /// Hands over packets that waited for their turn; returns whether there were any.
    pub(super) fn pump_packets(&mut self, maker: &mut Maker, stats: &mut PacketStats, now: Mono) -> bool {
        let Self { packets: Some(lane), connection, .. } = self else { return false };
        lane.pump(connection, maker, stats, now)
    }

    /// When something is to be done if nothing happens before; `started` is where [`Mono`] begins.
    pub(super) fn deadline(&mut self, started: Instant) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Dialing { until, .. } | Phase::Accepting { until } => Some(*until),
            Phase::Up(up) => {
                [up.until.map(|until| until.at), up.silence.deadline()].into_iter().flatten().min()
            }
            Phase::Gone => None,
        };
        let packets = self.packets.as_ref().and_then(|lane| lane.poll_timeout());
        let packets = packets.map(|at| started + at.since(Mono::ZERO));
        let is_up = matches!(self.phase, Phase::Up(_));
        let watch = self.watch.as_ref().filter(|_| is_up).and_then(Watch::deadline);
        [self.connection.poll_timeout(), own, packets, watch].into_iter().flatten().min()
    }

    /// Whether this phase has lasted too long.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        match &self.phase {
            Phase::Dialing { until, .. } | Phase::Accepting { until } => *until <= now,
            Phase::Up(up) => up.until.is_some_and(|until| until.at <= now),
            Phase::Gone => false,
        }
    }

    /// Whether it is time to knock at a silent peer.
    pub(super) fn is_time_to_knock(&mut self, now: Instant) -> bool {
        match &mut self.phase {
            Phase::Up(up) => up.silence.knock(now),
            Phase::Dialing { .. } | Phase::Accepting { .. } | Phase::Gone => false,
        }
    }

    /// Notes what the turn brought and sent.
    pub(super) fn observe(&mut self, now: Instant, mono: Mono) {
        if let Some(packets) = &mut self.packets {
            packets.observe(&self.connection, mono);
        }
        if let Phase::Up(up) = &mut self.phase
            && up.lane == Lane::Bus
        {
            up.silence.observe(&self.connection.stats(), now);
        }
    }

    /// Whether the server has accepted our certificate.
    pub(super) fn is_confirmed(&self) -> bool {
        !self.connection.is_handshaking() && self.connection.stats().frame_rx.handshake_done > 0
    }

    /// Ends the connection. Quinn would hold even this back while the congestion window is full of frames, and the peer
    /// would learn of the end only by silence.
    pub(super) fn close(&mut self, code: CloseCode, words: &str, now: Instant) {
        lift_window(&self.connection);
        self.connection.close(now, code.into(), words.to_owned().into());
    }

    /// The peer's address as people know it.
    pub(super) fn remote(&self) -> SocketAddr {
        let remote = self.connection.remote_address();
        SocketAddr::new(remote.ip().to_canonical(), remote.port())
    }

    /// The link's streams, from the moment that its lane is known.
    pub(super) fn streams(&mut self) -> Option<(&mut Streams, &mut Connection)> {
        match &mut self.phase {
            Phase::Dialing { streams, .. } | Phase::Up(Up { streams, .. }) => {
                Some((streams, &mut self.connection))
            }
            Phase::Accepting { .. } | Phase::Gone => None,
        }
    }
}

/// Why a dial failed, from quinn's reason and our own verdict on the server.
pub(super) fn dial_error(verdict: &Verdict, reason: &ConnectionError) -> DialError {
    if let Some(refused) = verdict.get() {
        return DialError::Server(refused.clone());
    }
    match reason {
        ConnectionError::TimedOut => DialError::NoAnswer,
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            DialError::Busy
        }
        ConnectionError::ConnectionClosed(close) => DialError::Refused(words(&close.reason)),
        ConnectionError::ApplicationClosed(close) => application_error(close),
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::Reset
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => DialError::Failed(reason.to_string()),
    }
}

/// Only a peer with the connection's last keys can say this; a close of the transport may be anybody's.
fn application_error(close: &ApplicationClose) -> DialError {
    let is_refused = close.error_code == CloseCode::Refused.into();
    if is_refused && close.reason == EXPIRED {
        return DialError::Expired;
    }
    DialError::Refused(words(&close.reason))
}

/// Why a link is down, for people.
pub(super) fn down_reason(reason: &ConnectionError) -> String {
    match reason {
        ConnectionError::TimedOut => "no sign of life from the peer".into(),
        ConnectionError::ApplicationClosed(close) => format!("closed by the peer: {}", words(&close.reason)),
        ConnectionError::ConnectionClosed(close) => format!("ended by the peer: {}", words(&close.reason)),
        ConnectionError::Reset => "the peer no longer knows this link: it was restarted".into(),
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => reason.to_string(),
    }
}

/// A peer's text made harmless: short, and no control characters.
fn words(reason: &[u8]) -> String {
    let text = String::from_utf8_lossy(reason);
    text.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use quinn_proto::ConnectionClose;

    use super::*;

    #[test]
    fn only_a_close_with_the_connections_own_keys_and_our_code_says_that_a_certificate_is_over() {
        let reason = Bytes::from_static(EXPIRED.as_bytes());
        let closed = |code: CloseCode| {
            let close = ApplicationClose { error_code: code.into(), reason: reason.clone() };
            dial_error(&Verdict::default(), &ConnectionError::ApplicationClosed(close))
        };
        assert!(closed(CloseCode::Refused).is_renewable());
        assert!(!closed(CloseCode::Closed).is_renewable());
        let error_code = TransportErrorCode::PROTOCOL_VIOLATION;
        let close = ConnectionClose { error_code, frame_type: None, reason: reason.clone() };
        let forged = dial_error(&Verdict::default(), &ConnectionError::ConnectionClosed(close));
        assert!(!forged.is_renewable(), "{forged}");
    }

    #[test]
    fn a_peers_words_are_cut_and_cleaned() {
        assert_eq!(words(b"go\x1b[2J away\n\xff"), "go[2J away\u{fffd}");
        assert_eq!(words(&[b'x'; 5000]).len(), MAX_WORDS);
    }
}

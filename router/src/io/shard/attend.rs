//! A connection's share of a turn.

use std::time::{Duration, Instant};

use bus::bus::LinkId;
use bus::{Identity, KeyHash, NodeId, NodeKind};
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{Connection, ConnectionError, ConnectionHandle, Dir, Event as QuicEvent, StreamEvent};
use rustls::pki_types::{CertificateDer, UnixTime};
use tracing::debug;

use super::config::{JOIN_LIFETIME, LINK_WINDOW, MAX_STREAMS};
use super::congestion::{lift_window, restore_window};
use super::event_loop::{EventLoop, random};
use super::lane::PacketLane;
use super::link::{CloseCode, Link, Phase, Until, Up, dial_error, down_reason};
use super::packets::Arrived;
use super::silence::Silence;
use super::streams::{PeerFault, Streams};
use super::watch::{Sign, Watch};
use super::{DialError, EXPIRED, Event, Lane, STOPPING};
use crate::io::tls::{identity_of, key_of, validity_of};

/// Why a link ends when its node has made another.
const REPLACED: &str = "replaced by a newer link of the same node";

/// Why a link ends that has stood for as long as the certificate behind it holds.
const OVER: &str = "the certificate that made this link is over";

impl EventLoop {
    /// Lets a connection act on what has happened to it. In this order: quinn's endpoint must hear of a connection's
    /// needs at once (else the peer runs out of connection ids), and what was read may give us something to send.
    pub(super) fn attend(&mut self, handle: ConnectionHandle, now: Instant) {
        let Some(mut link) = self.links.take(handle) else { return };
        link.queued = false;
        self.serve_endpoint(&mut link);
        while let Some(event) = link.connection.poll() {
            self.handle_quic(&mut link, event, now);
        }
        self.confirm(&mut link, now);
        if link.is_overdue(now) {
            self.give_up(&mut link, now);
        }
        self.follow(&mut link);
        self.take_packets(&mut link, now);
        self.exchange_frames(&mut link, now);
        self.say_goodbye(&mut link, now);
        self.break_silence(&mut link, now);
        self.watch_neighbour(&mut link, now);
        self.send_all(&mut link, now);
        link.observe(now, self.mono(now));
        self.serve_endpoint(&mut link);
        if link.connection.is_drained() {
            return self.forget(&link);
        }
        if let Some(deadline) = link.deadline(self.started) {
            self.timers.arm(handle, deadline);
        }
        self.links.put_back(link);
    }

    fn serve_endpoint(&mut self, link: &mut Link) {
        while let Some(event) = link.connection.poll_endpoint_events() {
            if let Some(answer) = self.endpoint.handle_event(link.handle, event) {
                link.connection.handle_event(answer);
            }
        }
    }

    fn handle_quic(&mut self, link: &mut Link, event: QuicEvent, now: Instant) {
        match event {
            QuicEvent::Connected => self.admit(link, now),
            QuicEvent::ConnectionLost { reason } => self.lose(link, &reason),
            QuicEvent::Stream(event) => self.handle_stream(link, &event, now),
            // Datagrams are asked for in every turn; the others tell nothing that is needed.
            QuicEvent::DatagramReceived | QuicEvent::DatagramsUnblocked | QuicEvent::HandshakeDataReady => {}
        }
    }

    fn handle_stream(&mut self, link: &mut Link, event: &StreamEvent, now: Instant) {
        let Some((streams, connection)) = link.streams() else { return };
        if let Err(fault) = streams.handle_event(event, connection) {
            self.blame(link, fault, now);
        }
    }

    /// TLS is content with a connection that we accepted: does its certificate fit its lane?
    fn admit(&mut self, link: &mut Link, now: Instant) {
        if !matches!(link.phase, Phase::Accepting { .. }) {
            return;
        }
        match (lane_of(&link.connection), peer_of(&link.connection)) {
            (Some(Lane::Join), None) if self.joining < self.config.limits.max_joining => {
                self.joining += 1;
                self.bring_up_briefly(link, Lane::Join, None, now);
            }
            (Some(Lane::Join), None) => self.refuse(link, "too many nodes join at once: try again", now),
            (Some(Lane::Join), Some(_)) => {
                self.refuse(link, "a node with a certificate has joined already", now)
            }
            (Some(Lane::Renew), Some(peer)) => self.admit_renewal(link, peer.node, now),
            (Some(Lane::Bus | Lane::Packets), Some(_)) if is_over(&link.connection) => {
                self.refuse(link, EXPIRED, now);
            }
            (Some(lane @ (Lane::Bus | Lane::Packets)), Some(peer)) => {
                self.admit_node(link, lane, peer.node, now)
            }
            (Some(Lane::Bus | Lane::Packets | Lane::Renew), None) => {
                self.refuse(link, "this lane needs a certificate", now)
            }
            (None, _) => self.refuse(link, "no protocol of ours", now),
        }
    }

    /// A node has one place of those that renew, whoever shows a certificate of it: one that is no member any more, which
    /// only the owner knows, keeps no other node out.
    fn admit_renewal(&mut self, link: &mut Link, node: NodeId, now: Instant) {
        if let Some(older) = self.links.handle_of_node(Lane::Renew, &node)
            && self.links.get_mut(older).is_some_and(|older| older.accepted)
        {
            self.close_linked(older, CloseCode::Closed, REPLACED, now);
        }
        if self.renewing >= self.config.limits.max_renewing {
            return self.refuse(link, "too many nodes renew at once: try again", now);
        }
        self.renewing += 1;
        self.bring_up_briefly(link, Lane::Renew, Some(node), now);
    }

    fn bring_up_briefly(&mut self, link: &mut Link, lane: Lane, peer: Option<NodeId>, now: Instant) {
        self.bring_up(link, None, lane, peer, Streams::new(lane), now);
        if let Phase::Up(up) = &mut link.phase {
            let words = if lane == Lane::Renew { "renewing took too long" } else { "joining took too long" };
            up.until = Some(Until { at: now + JOIN_LIFETIME, code: CloseCode::TooSlow, words });
        }
    }

    /// A newer link of a node takes the place of its older one: after a half-open link the node is back before we knew
    /// that it was gone. So no node has more than one link a lane and key here. One of another key does not: the node may
    /// have renewed its certificate, or the name may have been given anew, and it is the owner who knows. At a replica
    /// the owner also knows which link to keep.
    fn admit_node(&mut self, link: &mut Link, lane: Lane, node: NodeId, now: Instant) {
        link.unproven = false;
        self.stats.unproven = self.stats.unproven.saturating_sub(1);
        if let Some(older) = self.links.handle_of_node(lane, &node)
            && let Some(old_link) = self.links.get_mut(older)
            && old_link.accepted
            && peer_key(&old_link.connection) == peer_key(&link.connection)
            && (lane == Lane::Packets || self.config.replica.is_none())
        {
            self.close_linked(older, CloseCode::Closed, REPLACED, now);
        }
        if lane == Lane::Bus {
            link.connection.set_max_concurrent_streams(Dir::Uni, MAX_STREAMS.into());
            link.connection.set_receive_window(LINK_WINDOW.into());
        }
        self.bring_up(link, None, lane, Some(node), Streams::new(lane), now);
    }

    /// A dial is up once the server has said that it is content with our certificate.
    fn confirm(&mut self, link: &mut Link, now: Instant) {
        if !matches!(link.phase, Phase::Dialing { .. }) || !link.is_confirmed() {
            return;
        }
        if let Phase::Dialing { attempt, lane, streams, .. } = std::mem::replace(&mut link.phase, Phase::Gone)
        {
            let peer = peer_of(&link.connection).map(|identity| identity.node);
            self.bring_up(link, Some(attempt), lane, peer, streams, now);
        }
    }

    fn bring_up(
        &mut self,
        link: &mut Link,
        attempt: Option<u64>,
        lane: Lane,
        peer: Option<NodeId>,
        streams: Streams,
        now: Instant,
    ) {
        self.stats.links += 1;
        self.stats.links_up += 1;
        if lane == Lane::Packets {
            let lane = PacketLane::new(self.packets.seed(), &self.config, self.mono(now));
            link.packets = Some(Box::new(lane));
            let is_edge = peer.as_ref().is_some_and(|node| node.kind == NodeKind::Edge);
            let is_neighbour = is_edge && !self.config.accept;
            link.watch = is_neighbour.then(Watch::of_neighbour);
            // Whoever dialled: the owner knows the key that the hub named.
            link.admitted &= !is_neighbour;
        }
        if let Some(node) = peer.as_ref().filter(|_| link.admitted || lane != Lane::Packets) {
            self.links.name(lane, node.clone(), link.handle);
        }
        if let Some(replica) = self.config.replica.filter(|_| attempt.is_some()) {
            link.watch = Some(Watch::of_replica(replica.silence, now));
        }
        let remote = link.remote();
        // Replicas of one cloud are the authority themselves, and to lose such a link is to take over.
        let is_replica = peer.as_ref().is_some_and(|node| self.config.is_own(node));
        let until = ends(link, lane, now).filter(|_| !is_replica);
        let silence = Silence::default();
        link.phase = Phase::Up(Up { lane, peer: peer.clone(), streams, until, silence, told: remote });
        let peer = peer.zip(peer_key(&link.connection));
        self.owner.tell(Event::Up { link: link.id, attempt, peer, remote, lane });
    }

    /// The owner lets the packets of a node in.
    pub(super) fn admit_packets(&mut self, id: LinkId, now: Instant) {
        let handle = self.links.handle_of(id);
        let Some((handle, link)) = handle.and_then(|handle| Some((handle, self.links.get_mut(handle)?)))
        else {
            return;
        };
        let Phase::Up(Up { lane: Lane::Packets, peer: Some(node), .. }) = &link.phase else { return };
        let node = node.clone();
        link.admitted = true;
        let older = self.links.handle_of_node(Lane::Packets, &node).filter(|older| *older != handle);
        self.links.name(Lane::Packets, node, handle);
        self.links.enqueue(handle);
        if let Some(older) = older.filter(|older| self.links.get_mut(*older).is_some_and(|old| old.accepted))
        {
            self.close_linked(older, CloseCode::Closed, REPLACED, now);
        }
    }

    /// Tells the owner where a peer's packets lane is seen now.
    fn follow(&mut self, link: &mut Link) {
        let remote = link.remote();
        if let Phase::Up(up) = &mut link.phase
            && link.accepted
            && up.lane == Lane::Packets
            && up.told != remote
        {
            up.told = remote;
            self.owner.tell(Event::Moved { link: link.id, remote });
        }
    }

    fn watch_neighbour(&mut self, link: &mut Link, now: Instant) {
        let is_up = matches!(link.phase, Phase::Up(_));
        match link.watch.as_mut().filter(|_| is_up).map(|watch| watch.look(now)) {
            None | Some(Sign::Fine) => {}
            Some(Sign::Ask) => link.connection.ping(),
            Some(Sign::Lost) => self.close(link, CloseCode::Closed, "no answer from the peer", now),
        }
    }

    fn refuse(&mut self, link: &mut Link, words: &str, now: Instant) {
        self.close(link, CloseCode::Refused, words, now);
    }

    fn blame(&mut self, link: &mut Link, fault: PeerFault, now: Instant) {
        self.stats.peer_faults += 1;
        self.close(link, CloseCode::Fault, &format!("the peer {fault}"), now);
    }

    fn give_up(&mut self, link: &mut Link, now: Instant) {
        let (code, words) = match &link.phase {
            Phase::Up(Up { until: Some(Until { code, words, .. }), .. }) => (*code, *words),
            Phase::Dialing { .. } | Phase::Accepting { .. } | Phase::Up(_) | Phase::Gone => {
                (CloseCode::TooSlow, "the handshake took too long")
            }
        };
        link.close(code, words, now);
        self.end(link, DialError::NoAnswer, words.to_owned());
    }

    /// Closes a connection from our side.
    pub(super) fn close(&mut self, link: &mut Link, code: CloseCode, words: &str, now: Instant) {
        link.close(code, words, now);
        self.end(link, DialError::Failed(words.to_owned()), words.to_owned());
    }

    fn lose(&mut self, link: &mut Link, reason: &ConnectionError) {
        let error = match &link.phase {
            Phase::Dialing { verdict, .. } => dial_error(verdict, reason),
            Phase::Accepting { .. } | Phase::Up(_) | Phase::Gone => DialError::Failed(reason.to_string()),
        };
        self.end(link, error, down_reason(reason));
    }

    /// Tells the owner of a connection's end, once and in the words of its phase.
    fn end(&mut self, link: &mut Link, why_not: DialError, words: String) {
        match std::mem::replace(&mut link.phase, Phase::Gone) {
            Phase::Dialing { attempt, .. } => {
                self.stats.dials_failed += 1;
                self.owner.tell(Event::Failed { attempt, why: why_not });
            }
            Phase::Accepting { .. } => {
                self.stats.refused += 1;
                debug!(remote = %link.remote(), words, "a connection ended before it was a link");
            }
            Phase::Up(Up { lane, peer, .. }) => {
                self.stats.links = self.stats.links.saturating_sub(1);
                match lane {
                    Lane::Join if link.accepted => self.joining = self.joining.saturating_sub(1),
                    Lane::Renew if link.accepted => self.renewing = self.renewing.saturating_sub(1),
                    Lane::Bus | Lane::Packets | Lane::Join | Lane::Renew => {}
                }
                if let Some(node) = &peer {
                    self.links.unname(lane, node, link.handle);
                }
                self.owner.tell(Event::Down { link: link.id, peer, why: words });
            }
            Phase::Gone => {}
        }
    }

    fn take_packets(&mut self, link: &mut Link, now: Instant) {
        let mono = self.mono(now);
        let Link { phase, connection, handle, packets, admitted, .. } = link;
        let Phase::Up(up) = phase else { return };
        let (Some(lane), Some(peer)) = (packets, &up.peer) else {
            if connection.datagrams().recv().is_some() {
                self.blame(link, PeerFault::PacketOnStreams, now);
            }
            return;
        };
        lane.follow_path(connection);
        while let Some(datagram) = connection.datagrams().recv() {
            if !*admitted {
                self.packets.stats.not_admitted += 1;
                continue;
            }
            let datagram = Arrived { from: *handle, peer, datagram };
            self.packets.accept(datagram, &mut lane.parts, &mut self.links, mono);
        }
        self.packets.flush();
    }

    /// Reads while the owner has room, else leaves the bytes to flow control; then writes.
    fn exchange_frames(&mut self, link: &mut Link, now: Instant) {
        let Phase::Up(Up { streams, .. }) = &mut link.phase else { return };
        while streams.has_unread() {
            if !self.owner.has_room() {
                self.unread.insert(link.handle);
                break;
            }
            match streams.read(&mut link.connection) {
                Ok(Some(frame)) => {
                    self.stats.frames_received += 1;
                    self.owner.tell(Event::Frame { link: link.id, frame });
                }
                Ok(None) => break,
                Err(fault) => return self.blame(link, fault, now),
            }
        }
        if let Err(fault) = streams.write(&mut link.connection) {
            self.blame(link, fault, now);
        }
    }

    /// When stopping: closes a link as soon as the peer has all that was queued.
    fn say_goodbye(&mut self, link: &mut Link, now: Instant) {
        if self.stop_by.is_none() {
            return;
        }
        let done = match &mut link.phase {
            Phase::Up(up) => up.streams.finish(&mut link.connection),
            Phase::Dialing { .. } | Phase::Accepting { .. } => true,
            Phase::Gone => false,
        };
        if done {
            self.close(link, CloseCode::Closed, STOPPING, now);
        }
    }

    /// One packet to a peer that owes an answer, whatever the congestion window says: what is unanswered fills it, and
    /// QUIC's own probes come too rarely by then.
    fn break_silence(&mut self, link: &mut Link, now: Instant) {
        if !self.socket.is_blocked() && link.is_time_to_knock(now) {
            link.connection.ping();
            lift_window(&link.connection);
            self.transmit_once(link, 1, now);
            restore_window(&link.connection);
        }
    }

    /// What leaves makes room for packets that wait.
    fn send_all(&mut self, link: &mut Link, now: Instant) {
        loop {
            let more = self.packets.pump(link, self.mono(now));
            self.transmit(link, now);
            if !more || self.socket.is_blocked() {
                return;
            }
        }
    }

    fn transmit(&mut self, link: &mut Link, now: Instant) {
        while !self.socket.is_blocked() {
            let segments = self.socket.max_segments(link.connection.current_mtu());
            if !self.transmit_once(link, segments, now) {
                return;
            }
        }
        self.unsent.insert(link.handle);
    }

    /// Whether there was something to send.
    fn transmit_once(&mut self, link: &mut Link, segments: usize, now: Instant) -> bool {
        self.out.clear();
        let Some(transmit) = link.connection.poll_transmit(now, segments, &mut self.out) else {
            return false;
        };
        self.stats.udp_sent +=
            transmit.segment_size.map_or(1, |size| transmit.size.div_ceil(size.max(1)) as u64);
        self.socket.send(transmit, &mut self.out);
        if let Some(watch) = &mut link.watch {
            watch.handle_sent(now);
        }
        true
    }

    /// Quinn has forgotten the connection; its handle may be used again.
    fn forget(&mut self, link: &Link) {
        self.timers.cancel(link.handle);
        self.links.forget(link);
        if link.unproven {
            self.stats.unproven = self.stats.unproven.saturating_sub(1);
        }
    }
}

fn lane_of(connection: &Connection) -> Option<Lane> {
    let data = connection.crypto_session().handshake_data()?.downcast::<HandshakeData>().ok()?;
    Lane::from_alpn(data.protocol.as_deref()?)
}

/// How much of what is left of a server's certificate a dialled link may wait with its end, at most: half a fleet that
/// dialled one certificate does not come back in one second.
const SPREAD: u32 = 10;

/// In how many steps that is drawn.
const SPREAD_STEPS: u32 = 1000;

/// No link outlives the certificate that made it. One that we dialled ends a little earlier, each at its own time.
fn ends(link: &Link, lane: Lane, now: Instant) -> Option<Until> {
    if lane.is_brief() {
        return None;
    }
    let left = remaining(&link.connection)?;
    let early = if link.accepted { 0 } else { (random() % u64::from(SPREAD_STEPS)) as u32 };
    let left = left - left / SPREAD / SPREAD_STEPS * early;
    Some(Until { at: now.checked_add(left)?, code: CloseCode::Closed, words: OVER })
}

/// How long the peer's certificate still holds; a peer whose certificate begins later has the better clock.
fn remaining(connection: &Connection) -> Option<Duration> {
    let (from, until) = validity_of(&certificate_of(connection)?)?;
    Some(Duration::from_millis(until.saturating_sub(from.max(wall_ms()))))
}

fn is_over(connection: &Connection) -> bool {
    remaining(connection).is_some_and(|left| left.is_zero())
}

/// As TLS itself reads the time.
fn wall_ms() -> u64 {
    UnixTime::now().as_secs().saturating_mul(1000)
}

/// The peer's verified identity.
fn peer_of(connection: &Connection) -> Option<Identity> {
    identity_of(&certificate_of(connection)?).ok()
}

fn peer_key(connection: &Connection) -> Option<KeyHash> {
    key_of(&certificate_of(connection)?)
}

fn certificate_of(connection: &Connection) -> Option<CertificateDer<'static>> {
    let chain =
        connection.crypto_session().peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.into_iter().next()
}

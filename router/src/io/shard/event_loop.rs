//! The thread: one `epoll_wait`, then a turn in which everything that is ready gets its share.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bus::bus::LinkId;
use bus::{Frame, Mono, RENEWABLE_FOR};
use quinn_proto::{
    ClientConfig, ConnectionHandle, DatagramEvent, Endpoint, Incoming, ServerConfig, Transmit,
};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use tokio::sync::mpsc::Sender;
use tracing::{debug, error, warn};

use super::config::{COMMAND_QUEUE, FLUSH_TIME, HANDSHAKE_TIMEOUT};
use super::guests::Guests;
use super::link::{CloseCode, Link, Phase};
use super::links::Links;
use super::owner::{Bell, Owner};
use super::packets::Packets;
use super::report::LinkReport;
use super::reset::endpoint_config;
use super::streams::{Queued, Streams};
use super::timers::Timers;
use super::{Command, Credentials, DialError, Event, Expect, Lane, ShardConfig, SpawnError, Stats};
use crate::Gate;
use crate::io::tls::{self, ClientError};
use crate::io::udp::{Received, RecvBuffers, Socket};
use crate::policy::Flows;

/// Not looked at by our servers; QUIC's TLS wants one.
const SERVER_NAME: &str = "kubebus";

const BELL: u64 = 0;
const SOCKET: u64 = 1;
const TUN: u64 = 2;

/// The state of a shard. Its connections' part is in `attend`.
pub(super) struct EventLoop {
    pub(super) config: ShardConfig,
    pub(super) endpoint: Endpoint,
    pub(super) socket: Socket,
    pub(super) links: Links,
    pub(super) timers: Timers,
    pub(super) packets: Packets,
    pub(super) owner: Owner,
    pub(super) stats: Stats,
    /// Where quinn writes packets to be sent.
    pub(super) out: Vec<u8>,
    /// Connections that have packets to send once the socket has room.
    pub(super) unsent: BTreeSet<ConnectionHandle>,
    /// Connections that have frames to be read once the owner has room.
    pub(super) unread: BTreeSet<ConnectionHandle>,
    guests: Guests,
    /// How links are accepted, if anybody may make one.
    server: Option<Arc<ServerConfig>>,
    /// Clients that join now.
    pub(super) joining: usize,
    /// Nodes that ask for their next certificate now.
    pub(super) renewing: usize,
    /// Until when a stopping shard may go on.
    pub(super) stop_by: Option<Instant>,
    received: RecvBuffers,
    pub(super) started: Instant,
    commands: Receiver<Command>,
    bell: Arc<Bell>,
    published: Arc<Mutex<Stats>>,
    epoll: OwnedFd,
    /// What `epoll` was last told: whether the socket waits for room.
    waits_for_room: bool,
}

/// What `epoll_wait` found.
#[derive(Debug, Default)]
struct Ready {
    bell: bool,
    readable: bool,
    writable: bool,
    tun: bool,
}

impl EventLoop {
    pub(super) fn new(
        mut config: ShardConfig,
        commands: Receiver<Command>,
        events: Sender<Event>,
        bell: Arc<Bell>,
        published: Arc<Mutex<Stats>>,
    ) -> Result<Self, SpawnError> {
        config.check()?;
        let address = config.listen;
        let socket = Socket::bind(address).map_err(|source| SpawnError::Bind { address, source })?;
        let server = server_config(&config)?;
        let quic = Arc::new(endpoint_config(config.credentials.as_ref()));
        let counts_talk = config.neighbours;
        let packets = Packets::new(config.tun.take(), gate(config.accept), counts_talk, random());
        let open = server.clone().filter(|_| config.accept);
        let epoll = watch(&bell, &socket, &packets).map_err(SpawnError::Loop)?;
        Ok(Self {
            endpoint: Endpoint::new(quic, open, socket.may_discover_mtu(), None),
            guests: Guests::default(),
            server,
            config,
            socket,
            links: Links::default(),
            timers: Timers::default(),
            packets,
            owner: Owner::new(events, bell.clone()),
            stats: Stats::default(),
            out: Vec::new(),
            unsent: BTreeSet::new(),
            unread: BTreeSet::new(),
            joining: 0,
            renewing: 0,
            stop_by: None,
            received: RecvBuffers::new(),
            started: Instant::now(),
            commands,
            bell,
            published,
            epoll,
            waits_for_room: false,
        })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Runs until stopped.
    pub(super) fn run(mut self) {
        while !self.is_over() {
            match self.wait() {
                Ok(ready) => self.turn(&ready),
                Err(error) => {
                    error!(%error, "the data plane cannot wait for its sockets and ends");
                    return;
                }
            }
        }
    }

    /// One turn: take in all that is ready, then let every connection that was touched act on it once.
    fn turn(&mut self, ready: &Ready) {
        let now = Instant::now();
        if ready.bell {
            self.answer_bell(now);
        }
        if ready.writable {
            self.socket.flush();
        }
        if ready.readable {
            self.receive(now);
        }
        self.ring_timers(now);
        if ready.tun {
            self.read_tun(now);
        }
        if self.owner.is_gone() || self.stop_by.is_some_and(|by| by <= now) {
            self.stop_now(now);
        }
        if !self.socket.is_blocked() {
            self.resume_unsent();
        }
        while let Some(handle) = self.links.pop_queued() {
            self.attend(handle, now);
        }
        self.report_talk(now);
        self.owner.flush();
        self.publish();
    }

    /// Left for later while the owner is busy: nothing urgent follows from it.
    fn report_talk(&mut self, now: Instant) {
        let now = self.mono(now);
        let peers = self.packets.talk(now);
        if !peers.is_empty() && self.owner.has_room() {
            self.owner.tell(Event::Talk { peers });
        }
    }

    /// Frames first: there is little of them, and a full socket is the packets' doing.
    fn resume_unsent(&mut self) {
        let unsent = std::mem::take(&mut self.unsent);
        let (packets, frames): (Vec<_>, Vec<_>) =
            unsent.into_iter().partition(|handle| self.links.carries_packets(*handle));
        frames.into_iter().chain(packets).for_each(|handle| self.links.enqueue(handle));
    }

    fn wait(&mut self) -> io::Result<Ready> {
        self.watch_for_room()?;
        let deadline = [self.timers.next(), self.stop_by].into_iter().flatten().min();
        let timeout = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        let mut events = Vec::with_capacity(4);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(Ready::of(&events)),
            Err(error) => Err(error.into()),
        }
    }

    /// While the kernel has no room for our packets, waits for room and leaves the TUN unread: what nobody can send is
    /// better not taken from the sender.
    fn watch_for_room(&mut self) -> io::Result<()> {
        let blocked = self.socket.is_blocked();
        if blocked == self.waits_for_room {
            return Ok(());
        }
        let room = if blocked { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        let socket = epoll::EventData::new_u64(SOCKET);
        epoll::modify(&self.epoll, &self.socket, socket, epoll::EventFlags::IN | room)?;
        if let Some(tun) = self.packets.tun_fd() {
            let read = if blocked { epoll::EventFlags::empty() } else { epoll::EventFlags::IN };
            epoll::modify(&self.epoll, tun, epoll::EventData::new_u64(TUN), read)?;
        }
        self.waits_for_room = blocked;
        Ok(())
    }

    /// Commands have come, or the owner has room again.
    fn answer_bell(&mut self, now: Instant) {
        self.bell.silence();
        self.owner.stop_waiting();
        std::mem::take(&mut self.unread).into_iter().for_each(|handle| self.links.enqueue(handle));
        for _ in 0..COMMAND_QUEUE {
            match self.commands.try_recv() {
                Ok(command) => self.obey(command, now),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.stop(now),
            }
        }
        // There may be more: come back without letting the sockets wait.
        self.bell.ring();
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Dial { attempt, address, expect, lane, in_reserve } => {
                match self.dial(attempt, address, expect, lane, now) {
                    Ok(mut link) => {
                        link.admitted = !in_reserve;
                        self.links.insert(link);
                    }
                    Err(why) => {
                        self.stats.dials_failed += 1;
                        self.owner.tell(Event::Failed { attempt, why });
                    }
                }
            }
            Command::Send { link, class, frame } => self.send(link, class, &frame, now),
            Command::Close { link, reason } => {
                if let Some(handle) = self.links.handle_of(link) {
                    self.close_linked(handle, CloseCode::Closed, &reason, now);
                }
            }
            Command::Admit { link } => self.admit_packets(link, now),
            Command::Knock { addresses } => self.knock(&addresses, now),
            Command::SetTable(table) => self.packets.set_table(table),
            Command::SetPolicy(policy) => self.packets.set_policy(policy),
            Command::SetCredentials(credentials) => self.set_credentials(*credentials),
            Command::Report { id } => {
                let links = self.links.iter().filter_map(|link| LinkReport::of(link, &self.socket)).collect();
                self.owner.tell(Event::Report { id, links });
            }
            Command::Stop => self.stop(now),
        }
    }

    /// An edge shows them to others from its next knock on.
    fn set_credentials(&mut self, credentials: Credentials) {
        let before = self.config.credentials.replace(credentials);
        match server_config(&self.config) {
            Ok(server) => {
                self.server = server;
                if self.config.accept {
                    self.endpoint.set_server_config(self.server.clone());
                }
            }
            Err(error) => {
                error!(%error, "a new certificate cannot be used: the old one stays");
                self.config.credentials = before;
            }
        }
    }

    fn dial(
        &mut self,
        attempt: u64,
        address: SocketAddr,
        expect: Expect,
        lane: Lane,
        now: Instant,
    ) -> Result<Link, DialError> {
        if self.stop_by.is_some() {
            return Err(DialError::Failed("this node stops".into()));
        }
        let unreachable = |why: &str| DialError::Address { address, why: why.into() };
        let remote =
            self.socket.reachable(address).ok_or_else(|| unreachable("our socket is for IPv4 only"))?;
        let (crypto, verdict) = match tls::client(self.config.credentials.as_ref(), expect, lane) {
            Ok(client) => client,
            Err(ClientError::NoCredentials) => return Err(DialError::NoCredentials),
            Err(ClientError::Credentials(error)) => return Err(DialError::Failed(error.to_string())),
        };
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(self.config.transport(Some(lane))));
        let (handle, connection) = self
            .endpoint
            .connect(now, config, remote, SERVER_NAME)
            .map_err(|error| unreachable(&error.to_string()))?;
        let until = now + HANDSHAKE_TIMEOUT;
        let phase = Phase::Dialing { attempt, lane, verdict, until, streams: Streams::new(lane) };
        Ok(Link::new(self.links.next_id(), handle, connection, phase))
    }

    /// QUIC drops what is so short, without a word.
    fn knock(&mut self, addresses: &[SocketAddr], now: Instant) {
        if self.config.accept || self.server.is_none() {
            return;
        }
        self.endpoint.set_server_config(self.server.clone());
        for address in addresses {
            self.guests.expect(address.ip().to_canonical(), now);
            let Some(destination) = self.socket.reachable(*address) else { continue };
            self.out.clear();
            self.out.push(0);
            self.respond(Transmit { destination, ecn: None, size: 1, segment_size: None, src_ip: None });
        }
    }

    /// Whether this address may make links here.
    fn is_welcome(&self, remote: SocketAddr, now: Instant) -> bool {
        self.config.accept || self.guests.is_expected(remote.ip().to_canonical(), now)
    }

    fn send(&mut self, link: LinkId, class: bus::Class, frame: &Frame, now: Instant) {
        let Some(handle) = self.links.handle_of(link) else {
            self.stats.frames_without_link += 1;
            return;
        };
        let queued = self.links.get_mut(handle).and_then(|link| link.queue(class, frame));
        match queued {
            None => self.stats.frames_without_link += 1,
            Some(Queued::Yes) => {
                self.stats.frames_sent += 1;
                self.links.enqueue(handle);
            }
            Some(Queued::Dropped) => self.stats.frames_dropped += 1,
            Some(Queued::Overflow(class)) => {
                let words = format!("too slow: its {class:?} frames no longer fit the send queue");
                self.close_linked(handle, CloseCode::Closed, &words, now);
            }
            Some(Queued::TooLong(len)) => {
                let words = format!("cannot send a frame of {len} bytes");
                self.close_linked(handle, CloseCode::Closed, &words, now);
            }
        }
    }

    /// Closes a link that is in its place.
    pub(super) fn close_linked(
        &mut self,
        handle: ConnectionHandle,
        code: CloseCode,
        words: &str,
        now: Instant,
    ) {
        if let Some(mut link) = self.links.take(handle) {
            self.close(&mut link, code, words, now);
            self.links.put_back(link);
            self.links.enqueue(handle);
        }
    }

    fn receive(&mut self, now: Instant) {
        match self.socket.recv(&mut self.received) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                debug!(%error, "cannot receive");
                self.stats.udp_errors += 1;
                return;
            }
        }
        while let Some(datagram) = self.received.next_datagram() {
            self.stats.udp_received += 1;
            self.out.clear();
            let Received { remote, local_ip, ecn, bytes } = datagram;
            match self.endpoint.handle(now, remote, local_ip, ecn, bytes, &mut self.out) {
                None => {}
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    if let Some(link) = self.links.get_mut(handle) {
                        if let Some(watch) = &mut link.watch {
                            watch.handle_heard(now);
                        }
                        link.connection.handle_event(event);
                        self.links.enqueue(handle);
                    }
                }
                Some(DatagramEvent::NewConnection(incoming)) => self.greet(incoming, now),
                Some(DatagramEvent::Response(transmit)) => self.respond(transmit),
            }
        }
    }

    /// Lets a stranger in, asks for proof of its address, or refuses it.
    fn greet(&mut self, incoming: Incoming, now: Instant) {
        if !self.is_welcome(incoming.remote_address(), now) {
            self.stats.uninvited += 1;
            return self.endpoint.ignore(incoming);
        }
        let unproven = self.stats.unproven as usize;
        let full = unproven >= self.config.limits.max_unproven;
        self.out.clear();
        if full || self.owner.is_behind() || self.stop_by.is_some() {
            self.stats.refused_busy += 1;
            let transmit = self.endpoint.refuse(incoming, &mut self.out);
            return self.respond(transmit);
        }
        if unproven >= self.config.limits.retry_above && !incoming.remote_address_validated() {
            match self.endpoint.retry(incoming, &mut self.out) {
                Ok(transmit) => {
                    self.stats.retried += 1;
                    self.respond(transmit);
                }
                Err(error) => self.endpoint.ignore(error.into_incoming()),
            }
            return;
        }
        match self.endpoint.accept(incoming, now, &mut self.out, None) {
            Ok((handle, connection)) => {
                self.stats.unproven += 1;
                let phase = Phase::Accepting { until: now + HANDSHAKE_TIMEOUT };
                let id = self.links.next_id();
                self.links.insert(Link::new(id, handle, connection, phase));
            }
            Err(error) => {
                self.stats.refused += 1;
                error.response.into_iter().for_each(|transmit| self.respond(transmit));
            }
        }
    }

    /// Sends what the endpoint wrote to `out`. Without room it is lost: the peer asks again.
    fn respond(&mut self, transmit: Transmit) {
        if !self.socket.is_blocked() {
            self.stats.udp_sent += 1;
            self.socket.send(transmit, &mut self.out);
        }
    }

    fn ring_timers(&mut self, now: Instant) {
        while let Some(handle) = self.timers.pop_due(now) {
            let Some(link) = self.links.get_mut(handle) else { continue };
            match link.deadline(self.started) {
                Some(deadline) if deadline <= now => {
                    link.connection.handle_timeout(now);
                    self.links.enqueue(handle);
                }
                Some(later) => self.timers.arm(handle, later),
                None => {}
            }
        }
    }

    fn read_tun(&mut self, now: Instant) {
        let now = self.mono(now);
        if let Err(error) = self.packets.read_tun(&mut self.links, now) {
            warn!(%error, "the overlay's interface is gone: no more packets from it");
            if let Some(tun) = self.packets.tun_fd() {
                let _ = epoll::delete(&self.epoll, tun);
            }
            self.packets.close_tun();
        }
    }

    /// The clock of what decides without a clock of its own.
    pub(super) fn mono(&self, now: Instant) -> Mono {
        Mono::ZERO + now.saturating_duration_since(self.started)
    }

    /// Begins to stop: queued frames still leave.
    fn stop(&mut self, now: Instant) {
        if self.stop_by.is_none() {
            self.stop_by = Some(now + FLUSH_TIME);
            self.links.handles().into_iter().for_each(|handle| self.links.enqueue(handle));
        }
    }

    /// The time is up, or nobody listens.
    fn stop_now(&mut self, now: Instant) {
        self.stop_by.get_or_insert(now);
        for handle in self.links.handles() {
            self.close_linked(handle, CloseCode::Closed, super::STOPPING, now);
        }
    }

    fn is_over(&self) -> bool {
        let Some(by) = self.stop_by else { return false };
        self.links.are_gone() && (!self.socket.is_blocked() || by <= Instant::now())
    }

    fn publish(&mut self) {
        self.stats.packets = self.packets.stats;
        let stats = Stats { udp_errors: self.stats.udp_errors + self.socket.send_errors(), ..self.stats };
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }
}

impl Ready {
    fn of(events: &[epoll::Event]) -> Self {
        let mut ready = Self::default();
        for event in events {
            let (flags, out) = (event.flags, epoll::EventFlags::OUT);
            match event.data.u64() {
                BELL => ready.bell = true,
                SOCKET => {
                    ready.writable |= flags.contains(out);
                    ready.readable |= flags != out;
                }
                _ => ready.tun = true,
            }
        }
        ready
    }
}

/// Remembers as much as its kind of node has to. The seed is the randomness that the standard library's maps get.
fn gate(is_hub: bool) -> Gate {
    let capacity = if is_hub { Flows::AT_HUB } else { Flows::AT_EDGE };
    Gate::new(capacity, [random(), random()])
}

/// What nobody else knows: the keys of tables that strangers fill.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// The config of accepting, if we accept anybody.
fn server_config(config: &ShardConfig) -> Result<Option<Arc<ServerConfig>>, SpawnError> {
    let accepts = config.accept || config.neighbours;
    let Some(credentials) = config.credentials.as_ref().filter(|_| accepts) else { return Ok(None) };
    let late = if config.accept { RENEWABLE_FOR } else { Duration::ZERO };
    let crypto = tls::server(credentials, late)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(config.transport(None)));
    Ok(Some(Arc::new(server)))
}

fn watch(bell: &Bell, socket: &Socket, packets: &Packets) -> io::Result<OwnedFd> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, bell.as_fd(), epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
    epoll::add(&epoll, socket.as_fd(), epoll::EventData::new_u64(SOCKET), epoll::EventFlags::IN)?;
    if let Some(tun) = packets.tun_fd() {
        epoll::add(&epoll, tun, epoll::EventData::new_u64(TUN), epoll::EventFlags::IN)?;
    }
    Ok(epoll)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

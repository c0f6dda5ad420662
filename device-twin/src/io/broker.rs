//! The embedded MQTT broker.
//!
//! | task | owns | ends |
//! |---|---|---|
//! | `switchboard` | the hub, all sessions' queues | when all others have |
//! | `acceptor` | the listener, all client tasks | at [`BrokerHandle::shutdown`], when the last handle is dropped, or after the switchboard; then the events end |
//! | one per client | socket and session | with its connection; a panic there costs that connection alone |

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;
use std::time::Duration;

use bus::{Filter, Mono, Topic};
use bytes::Bytes;
use metadata::Key;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};

use super::client::{Client, Shared, Visitor};
use super::clock::Clock;
use super::counters::{Counters, Stats, count};
use super::door::{HANDSHAKE_PATIENCE, Known, Listener};
use super::external::Health;
use super::pass::Register;
use super::passwords::Doorkeeper;
use super::port::{Port, Shelf};
use super::stream::Stream;
use super::switchboard::{Asked, MAILBOX, ROOM, Request, Speaker, Switchboard, room_for};
use crate::gate::access::{Passwords, Rights, Who};
use crate::gate::hub::Left;
use crate::gate::properties::{self, qos_from_bus, qos_to_bus};
use crate::gate::session::Terms;
use crate::gate::{CloseReason, ConnId, Message, Refusal, Row};
use crate::{Announcement, Expiry, Receipt};

/// Events on their way to the node. When full, clients that publish to the node wait.
pub(super) const NODE_QUEUE: usize = 256;

/// How long clients get to be told that the broker stops.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);

/// How long accepting pauses after the system refused a connection (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the broker is to be.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Plain TCP.
    pub listen: SocketAddr,
    /// Whether clients that do not say who they are are let in there.
    pub anonymous: bool,
    /// Where else clients come in.
    pub listeners: Vec<Listener>,
    /// `None`: names are not asked for, and not believed.
    pub passwords: Option<Passwords>,
    pub rights: Rights,
    /// Most connections at a time, those in their handshake included; further ones are closed at once.
    pub max_clients: usize,
    /// Largest packet taken from a client, in bytes.
    pub max_packet: u32,
    /// Longest silence that a 5.0 client may ask for, in seconds; 0: as long as it likes.
    pub max_keep_alive: u16,
    /// What the node kept of the rows that the broker gave it ([`crate::gate::row::ROOT`]), in the order of their keys.
    pub kept: Vec<(Key, Bytes)>,
}

impl BrokerConfig {
    /// Users' certificates of the cluster count as the node says, at all listeners.
    pub fn with_register(mut self, register: &Register) -> Self {
        for listener in &mut self.listeners {
            listener.tls = listener.tls.take().map(|tls| tls.with_register(register.clone()));
        }
        self
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            anonymous: true,
            listeners: Vec::new(),
            passwords: None,
            rights: Rights::default(),
            max_clients: 1024,
            max_packet: 256 * 1024,
            max_keep_alive: 0,
            kept: Vec::new(),
        }
    }
}

/// What the node hears from the broker.
#[expect(clippy::large_enum_variant, reason = "most events are messages, and the queue is short")]
#[derive(Debug)]
pub enum BrokerEvent {
    /// A client published where the node listens. With a ticket, the client waits for
    /// [`BrokerHandle::accept`] or [`BrokerHandle::reject`]; unanswered for
    /// [`ANSWER_TIMEOUT`](crate::gate::session::ANSWER_TIMEOUT), it is sent away to come back with it.
    /// `expiry`: what is left of the message's own.
    Publish {
        ticket: Option<Ticket>,
        client: String,
        who: Who,
        topic: Topic,
        payload: Bytes,
        qos: bus::Qos,
        retain: bool,
        expiry: Option<Duration>,
        /// What MQTT 5 passes on.
        properties: bus::Properties,
        /// To be stored before the ticket is accepted.
        rows: Vec<Row>,
    },
    /// To be stored; with a ticket, it is accepted when that is done. `receipt`: what was published with it is safe here
    /// once the rows are, and not before. Receipts come in the order of publishing.
    Keep { ticket: Option<Ticket>, rows: Vec<Row>, receipt: Option<Receipt> },
    /// The first subscriber of a filter came, or the last left, that other sites or the node may have something for.
    Interest { filter: Filter, wanted: bool },
    /// Said once, when the interests of all sessions that outlived the last process have been said.
    Restored,
}

impl BrokerEvent {
    pub(super) fn of(
        message: Message,
        Speaker { client, who }: Speaker,
        ticket: Option<Ticket>,
        rows: Vec<Row>,
        now: Mono,
    ) -> Self {
        let Message { topic, payload, qos, retain, expires, properties, from: _ } = message;
        let (qos, properties) = (qos_to_bus(qos), properties::to_bus(&properties));
        let expiry = expires.map(|at| at.since(now));
        Self::Publish { ticket, client, who, topic, payload, qos, retain, expiry, properties, rows }
    }
}

/// What waits for the node: a client to be answered, messages to be let out to kept sessions.
#[derive(Debug)]
pub struct Ticket {
    asked: Option<Asked>,
    held: Vec<(Arc<Shelf>, u64)>,
}

impl Ticket {
    pub(super) fn new(asked: Option<Asked>, held: Vec<(Arc<Shelf>, u64)>) -> Self {
        Self { asked, held }
    }

    pub(super) fn settle(self, outcome: Result<(), Refusal>) {
        for (shelf, number) in self.held {
            match outcome {
                // What a disk does not keep a site works with all the same.
                Ok(()) | Err(Refusal::Disk) => shelf.release(number),
                Err(_) => shelf.discard(number),
            }
        }
        if let Some(Asked { port, answer }) = self.asked {
            port.answer(answer, outcome);
        }
    }
}

/// Why there is no broker.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("listen on {listen}")]
    Listen { listen: SocketAddr, source: io::Error },
}

/// The broker has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the broker has stopped")]
pub struct BrokerGone;

/// The node's side of the broker. The broker stops when the last handle is gone.
#[derive(Debug, Clone)]
pub struct BrokerHandle {
    requests: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    counters: Arc<Counters>,
    clock: Clock,
    addresses: Arc<[SocketAddr]>,
    stop: Arc<watch::Sender<bool>>,
    /// Of a broker that the site has.
    health: Option<Arc<Health>>,
}

impl BrokerHandle {
    /// Of a broker that the site has.
    pub(super) fn external(
        requests: mpsc::Sender<Request>,
        room: Arc<Semaphore>,
        counters: Arc<Counters>,
        clock: Clock,
        stop: watch::Sender<bool>,
        health: Arc<Health>,
    ) -> Self {
        let (addresses, stop, health) = (Arc::new([]), Arc::new(stop), Some(health));
        Self { requests, room, counters, clock, addresses, stop, health }
    }

    /// How the node stands with the broker that the site has, for people; `None`: the broker is embedded.
    pub fn external_state(&self) -> Option<String> {
        self.health.as_ref().map(|health| health.told())
    }

    /// Publishes as the node, to the subscribers here. Waits while the broker is full.
    pub async fn publish(&self, announcement: Announcement) -> Result<(), BrokerGone> {
        let Announcement { topic, payload, qos, retain, expiry, properties, receipt } = announcement;
        let message = Message {
            topic,
            payload,
            qos: qos_from_bus(qos),
            retain,
            expires: expiry.map(|Expiry(life)| self.clock.now().mono + life),
            properties: properties::from_bus(&properties),
            from: None,
        };
        let room = Arc::clone(&self.room).acquire_many_owned(room_for(&message)).await;
        let room = room.map_err(|_| BrokerGone)?;
        let request =
            Request::Publish { message, for_node: None, rows: Vec::new(), asked: None, receipt, room };
        self.requests.send(request).await.map_err(|_| BrokerGone)
    }

    /// What was said is safe: its client gets PUBACK or PUBREC, and kept sessions their messages.
    pub fn accept(&self, ticket: Ticket) {
        ticket.settle(Ok(()));
    }

    /// The message is not taken: a 5.0 client is told why, a 3.1.1 client gets the acknowledgement that its standard
    /// demands; both are counted.
    pub fn reject(&self, ticket: Ticket, why: Refusal) {
        ticket.settle(Err(why));
    }

    pub fn stats(&self) -> Stats {
        self.counters.stats()
    }

    /// Where the embedded one listens for plain TCP; the port is known even if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All of them, in the order of the configuration.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops accepting, tells all clients (0x8B in 5.0), closes their connections, and returns when that is done.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        self.stop.closed().await;
    }
}

/// Starts the broker; call it inside a tokio runtime.
pub async fn start(config: BrokerConfig) -> Result<(BrokerHandle, mpsc::Receiver<BrokerEvent>), StartError> {
    let BrokerConfig { listen, anonymous, listeners, passwords, rights, .. } = config;
    let BrokerConfig { max_clients, max_packet, max_keep_alive, kept, .. } = config;
    let mut doors = vec![Door::open(Listener { anonymous, ..Listener::plain(listen) }).await?];
    for listener in listeners {
        doors.push(Door::open(listener).await?);
    }
    let addresses = doors.iter().map(|door| door.address).collect();
    let clock = Clock::start();
    let counters = Arc::new(Counters::default());
    let keeps = Arc::new(AtomicBool::new(false));
    let (node, events) = mpsc::channel(NODE_QUEUE);
    let (requests, inbox) = mpsc::channel(MAILBOX);
    let room = Arc::new(Semaphore::new(ROOM));
    let switchboard = Switchboard::new(node.clone(), Arc::clone(&counters), Arc::clone(&keeps), clock, &kept);
    let (stop, stopped) = watch::channel(false);
    let handle = BrokerHandle {
        requests: requests.clone(),
        room: Arc::clone(&room),
        counters: Arc::clone(&counters),
        clock,
        addresses,
        stop: Arc::new(stop),
        health: None,
    };
    let doorkeeper = passwords.map(|passwords| Arc::new(Doorkeeper::new(passwords)));
    let rights = Arc::new(rights);
    let terms = Terms { max_packet, max_keep_alive, start: clock.now().wall.0 };
    let shared = Shared { requests, room, node, counters, keeps, clock, terms, doorkeeper, rights };
    let clients = JoinSet::new();
    let acceptor = Acceptor { doors, next: 0, max_clients, shared, clients, ports: BTreeMap::new() };
    spawn("mqtt switchboard", switchboard.run(inbox));
    spawn("mqtt acceptor", acceptor.run(stopped));
    Ok((handle, events))
}

#[expect(clippy::disallowed_methods, reason = "the tasks named in the tables here and in `external`")]
pub(super) fn spawn(name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    use tracing::Instrument;
    tokio::spawn(task.instrument(tracing::info_span!("task", name)));
}

/// A listener, listening.
struct Door {
    socket: TcpListener,
    address: SocketAddr,
    listener: Arc<Listener>,
}

impl Door {
    async fn open(listener: Listener) -> Result<Self, StartError> {
        let listen = listener.address;
        let fail = |source| StartError::Listen { listen, source };
        let socket = TcpListener::bind(listen).await.map_err(fail)?;
        let address = socket.local_addr().map_err(fail)?;
        Ok(Self { socket, address, listener: Arc::new(listener) })
    }
}

/// A socket that has just come in.
struct Arrival {
    socket: TcpStream,
    peer: IpAddr,
    door: Arc<Listener>,
}

struct Acceptor {
    doors: Vec<Door>,
    /// The door that is looked at first: each in turn, so that a crowd at one keeps nobody out at another.
    next: usize,
    max_clients: usize,
    shared: Shared,
    clients: JoinSet<()>,
    ports: BTreeMap<Id, (ConnId, Arc<Port>)>,
}

impl Acceptor {
    /// Until `stop` changes, or its sender goes with the last handle; it is held until all is closed.
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut last = 0;
        loop {
            tokio::select! {
                accepted = accept(&self.doors, &mut self.next) => match accepted {
                    Ok(arrival) => {
                        last += 1;
                        self.welcome(ConnId(last), arrival);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept MQTT connections");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(done) = self.clients.join_next_with_id() => self.bury(done).await,
                _ = stop.changed() => break,
                () = self.shared.requests.closed() => break,
            }
        }
        self.close_all().await;
    }

    fn welcome(&mut self, id: ConnId, arrival: Arrival) {
        if self.ports.len() >= self.max_clients {
            count(&self.shared.counters.turned_away);
            return;
        }
        count(&self.shared.counters.accepted);
        if let Err(error) = arrival.socket.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let port = Arc::new(Port::default());
        let task = self.clients.spawn(attend(id, arrival, Arc::clone(&port), self.shared.clone()));
        self.ports.insert(task.id(), (id, port));
    }

    async fn bury(&mut self, done: Result<(Id, ()), JoinError>) {
        let task = match &done {
            Ok((task, ())) => *task,
            Err(error) => {
                count(&self.shared.counters.panics);
                error.id()
            }
        };
        if let Some((conn, _)) = self.ports.remove(&task) {
            // Said already, unless the task panicked. Refused only when the switchboard has gone, and then nobody is
            // left to be told.
            let _ = self.shared.requests.send(Request::Left { conn, left: Left::default() }).await;
        }
    }

    /// 1. no more connections; 2. tell the clients; 3. wait for them; 4. cut those that do not listen.
    async fn close_all(mut self) {
        drop(self.doors);
        for (_, port) in self.ports.values() {
            port.close(CloseReason::Shutdown);
        }
        let all_gone = async { while self.clients.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_PATIENCE, all_gone).await.is_err() {
            self.clients.shutdown().await;
        }
    }
}

/// The next client at any door.
async fn accept(doors: &[Door], next: &mut usize) -> io::Result<Arrival> {
    std::future::poll_fn(|context| {
        for offset in 0..doors.len() {
            let index = (*next + offset) % doors.len();
            let Poll::Ready(accepted) = doors[index].socket.poll_accept(context) else { continue };
            *next = index + 1;
            let door = Arc::clone(&doors[index].listener);
            return Poll::Ready(accepted.map(|(socket, peer)| Arrival { socket, peer: peer.ip(), door }));
        }
        Poll::Pending
    })
    .await
}

/// One client, from its first byte.
async fn attend(id: ConnId, arrival: Arrival, port: Arc<Port>, shared: Shared) {
    let Arrival { socket, peer, door } = arrival;
    let anonymous = door.anonymous;
    let (stream, known) = if door.is_bare() {
        (Stream::Tcp(socket), None)
    } else {
        let Some(entered) = Box::pin(shake_hands(&door, socket, &port, &shared)).await else { return };
        entered
    };
    let visitor = Visitor { stream, peer, known, anonymous };
    Client::new(id, visitor, port, shared).run().await;
}

/// `None`: the client did not get through, or the broker stops.
async fn shake_hands(
    door: &Listener,
    socket: TcpStream,
    port: &Port,
    shared: &Shared,
) -> Option<(Stream, Option<Known>)> {
    let entered = tokio::select! {
        entered = tokio::time::timeout(HANDSHAKE_PATIENCE, door.enter(socket, shared.terms.max_packet)) => entered,
        () = port.woken() => return None,
    };
    let error = match entered {
        Ok(Ok(entered)) => return Some(entered),
        Ok(Err(error)) => error,
        Err(_) => io::ErrorKind::TimedOut.into(),
    };
    tracing::debug!(listener = %door.address, %error, "an MQTT client did not get through its handshake");
    count(&shared.counters.handshakes_failed);
    None
}

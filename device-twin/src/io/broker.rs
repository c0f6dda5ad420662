//! The embedded MQTT broker.
//!
//! | task | owns | ends |
//! |---|---|---|
//! | `switchboard` | the hub, the link to rumqttd's router | when all others have |
//! | `acceptor` | the listener, all client tasks | at [`BrokerHandle::shutdown`], when the last handle is dropped, or after the switchboard; then the events end |
//! | one per client | socket and session | with its connection; a panic there costs that connection alone |

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bus::{Filter, Mono, Topic};
use bytes::Bytes;
use rumqttd::local::LinkError;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::client::{Client, Shared};
use super::counters::{Counters, Stats, count};
use super::port::Port;
use super::switchboard::{MAILBOX, ROOM, Request, Switchboard, room_for};
use crate::gate::properties::{self, qos_from_bus};
use crate::gate::session::Answer;
use crate::gate::{CloseReason, ConnId, Message, Refusal};
use crate::{Announcement, Expiry, Receipt};

/// Events on their way to the node. When full, clients that publish to the node wait.
const NODE_QUEUE: usize = 256;

/// How long clients get to be told that the broker stops.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);

/// How long accepting pauses after the system refused a connection (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the broker is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerConfig {
    pub listen: SocketAddr,
    /// Most connections at a time; further ones are closed at once.
    pub max_clients: usize,
    /// Largest packet taken from a client, in bytes.
    pub max_packet: u32,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 1883)), max_clients: 1024, max_packet: 256 * 1024 }
    }
}

/// What the node hears from the broker.
#[derive(Debug)]
pub enum BrokerEvent {
    /// A client published where the node listens. With a ticket, the client waits for
    /// [`BrokerHandle::accept`] or [`BrokerHandle::reject`]; unanswered for
    /// [`ANSWER_TIMEOUT`](crate::gate::session::ANSWER_TIMEOUT), it is sent away to come back with it.
    /// `expiry`: what is left of the message's own.
    Publish {
        ticket: Option<Ticket>,
        client: String,
        topic: Topic,
        payload: Bytes,
        qos: bus::Qos,
        retain: bool,
        expiry: Option<Duration>,
        /// What MQTT 5 passes on.
        properties: bus::Properties,
    },
    /// The first subscriber of a filter came, or the last left, that other sites may have something for.
    Interest { filter: Filter, wanted: bool },
    /// Said once, when the interests of all sessions that outlived the last process have been said.
    Restored,
    /// What was published with this receipt is as safe here as its subscribers' sessions demand. Said in the order of
    /// publishing.
    Taken { receipt: Receipt },
}

/// A client's message that waits to be acknowledged.
#[derive(Debug)]
pub struct Ticket {
    port: Arc<Port>,
    answer: Answer,
}

impl Ticket {
    pub(super) fn new(port: Arc<Port>, answer: Answer) -> Self {
        Self { port, answer }
    }
}

/// Why there is no broker.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("listen on {listen}")]
    Listen { listen: SocketAddr, source: io::Error },
    #[error("start rumqttd's router")]
    Router(#[source] Box<LinkError>),
}

/// The broker has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the broker has stopped")]
pub struct BrokerGone;

/// Monotonic time since the broker's start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Mono {
        Mono::ZERO + self.0.elapsed()
    }

    pub(super) fn instant(self, at: Mono) -> Instant {
        self.0 + at.since(Mono::ZERO)
    }
}

/// The node's side of the broker. The broker stops when the last handle is gone.
#[derive(Debug, Clone)]
pub struct BrokerHandle {
    requests: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    counters: Arc<Counters>,
    clock: Clock,
    address: SocketAddr,
    stop: Arc<watch::Sender<bool>>,
}

impl BrokerHandle {
    /// Publishes as the node, to the subscribers here. Waits while the broker is full.
    pub async fn publish(&self, announcement: Announcement) -> Result<(), BrokerGone> {
        let Announcement { topic, payload, qos, retain, expiry, properties, receipt } = announcement;
        let message = Message {
            topic,
            payload,
            qos: qos_from_bus(qos),
            retain,
            expires: expiry.map(|Expiry(life)| self.clock.now() + life),
            properties: properties::from_bus(&properties),
            from: None,
        };
        let room = Arc::clone(&self.room).acquire_many_owned(room_for(&message)).await;
        let room = room.map_err(|_| BrokerGone)?;
        self.request(Request::Publish { message, room }).await?;
        match receipt {
            Some(receipt) => self.request(Request::Receipt(receipt)).await,
            None => Ok(()),
        }
    }

    async fn request(&self, request: Request) -> Result<(), BrokerGone> {
        self.requests.send(request).await.map_err(|_| BrokerGone)
    }

    /// The message is safe: its client gets PUBACK or PUBREC.
    pub fn accept(&self, ticket: Ticket) {
        ticket.port.answer(ticket.answer, Ok(()));
    }

    /// The message is not taken: a 5.0 client is told why, a 3.1.1 client gets the acknowledgement that its standard
    /// demands; both are counted.
    pub fn reject(&self, ticket: Ticket, why: Refusal) {
        ticket.port.answer(ticket.answer, Err(why));
    }

    pub fn stats(&self) -> Stats {
        self.counters.stats()
    }

    /// Where it listens; the port is known even if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, tells all clients (0x8B in 5.0), closes their connections, and returns when that is done.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        self.stop.closed().await;
    }
}

/// Starts the broker; call it inside a tokio runtime.
pub async fn start(config: BrokerConfig) -> Result<(BrokerHandle, mpsc::Receiver<BrokerEvent>), StartError> {
    let BrokerConfig { listen, max_clients, max_packet } = config;
    let listener = TcpListener::bind(listen).await.map_err(|source| StartError::Listen { listen, source })?;
    let address = listener.local_addr().map_err(|source| StartError::Listen { listen, source })?;
    let clock = Clock::start();
    let counters = Arc::new(Counters::default());
    let (node, events) = mpsc::channel(NODE_QUEUE);
    let (requests, inbox) = mpsc::channel(MAILBOX);
    let room = Arc::new(Semaphore::new(ROOM));
    let switchboard = Switchboard::new(node.clone(), Arc::clone(&counters), clock);
    let switchboard = switchboard.await.map_err(|error| StartError::Router(Box::new(error)))?;
    let (stop, stopped) = watch::channel(false);
    let handle = BrokerHandle {
        requests: requests.clone(),
        room: Arc::clone(&room),
        counters: Arc::clone(&counters),
        clock,
        address,
        stop: Arc::new(stop),
    };
    let shared = Shared { requests, room, node, counters, clock, max_packet };
    let acceptor =
        Acceptor { listener, max_clients, shared, clients: JoinSet::new(), ports: BTreeMap::new() };
    spawn("mqtt switchboard", async move {
        if let Err(error) = switchboard.run(inbox).await {
            tracing::error!(%error, "the MQTT broker has no router and stops");
        }
    });
    spawn("mqtt acceptor", acceptor.run(stopped));
    Ok((handle, events))
}

#[expect(clippy::disallowed_methods, reason = "the broker's own two tasks, named in the table above")]
fn spawn(name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    use tracing::Instrument;
    tokio::spawn(task.instrument(tracing::info_span!("task", name)));
}

struct Acceptor {
    listener: TcpListener,
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
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => {
                        last += 1;
                        self.welcome(ConnId(last), socket);
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

    fn welcome(&mut self, id: ConnId, socket: TcpStream) {
        if self.ports.len() >= self.max_clients {
            count(&self.shared.counters.turned_away);
            return;
        }
        count(&self.shared.counters.accepted);
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let port = Arc::new(Port::default());
        let client = Client::new(id, socket, Arc::clone(&port), self.shared.clone());
        let task = self.clients.spawn(client.run());
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
        if let Some((client, _)) = self.ports.remove(&task) {
            // Refused only when the switchboard has gone, and then nobody is left to be told.
            let _ = self.shared.requests.send(Request::Gone { client }).await;
        }
    }

    /// 1. no more connections; 2. tell the clients; 3. wait for them; 4. cut those that do not listen.
    async fn close_all(mut self) {
        drop(self.listener);
        for (_, port) in self.ports.values() {
            port.close(CloseReason::Shutdown);
        }
        let all_gone = async { while self.clients.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_PATIENCE, all_gone).await.is_err() {
            self.clients.shutdown().await;
        }
    }
}

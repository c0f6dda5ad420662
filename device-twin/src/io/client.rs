//! One client's task: a socket, a pure [`Session`], a [`Port`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

use super::broker::{BrokerEvent, Clock, Ticket};
use super::counters::{Counters, count};
use super::port::Port;
use super::switchboard::{Request, room_for};
use crate::gate::properties;
use crate::gate::session::{Answer, Output, Stats};
use crate::gate::{CloseReason, ConnId, Message, Qos, Route, Session};

/// Read at once: some dozens of small packets per system call.
const READ_CHUNK: usize = 16 * 1024;

/// Bytes not yet taken by the client above which it is not read from either.
const MAX_UNWRITTEN: usize = 1 << 20;

/// How long a client's task waits for room in the node's queue, before it drops a QoS 0 message or sends a client
/// with a QoS 1 or 2 message away to come back with it.
const NODE_PATIENCE: Duration = Duration::from_secs(10);

/// How long the last bytes may take to get out.
const FAREWELL: Duration = Duration::from_secs(1);

/// What every client's task has in common.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) room: Arc<Semaphore>,
    pub(super) node: mpsc::Sender<BrokerEvent>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
    pub(super) max_packet: u32,
}

/// The task's state.
pub(super) struct Client {
    id: ConnId,
    name: String,
    socket: TcpStream,
    session: Session,
    port: Arc<Port>,
    shared: Shared,
    unwritten: Vec<u8>,
    counted: Stats,
    closing: Option<CloseReason>,
}

impl Client {
    pub(super) fn new(id: ConnId, socket: TcpStream, port: Arc<Port>, shared: Shared) -> Self {
        let session = Session::new(id, shared.max_packet, shared.clock.now());
        Self {
            id,
            name: String::new(),
            socket,
            session,
            port,
            shared,
            unwritten: Vec::new(),
            counted: Stats::default(),
            closing: None,
        }
    }

    /// Runs until the connection is over.
    pub(super) async fn run(mut self) {
        let why = loop {
            self.pump().await;
            if let Some(why) = self.closing {
                break why;
            }
            if let Err(error) = self.wait().await {
                tracing::debug!(client = ?self.name, %error, "connection broke");
                self.session.handle_gone(self.shared.clock.now());
            }
        };
        tracing::debug!(client = ?self.name, %why, "connection closed");
        self.shared.counters.add_close(why);
        // What cannot be told to a client that does not listen is lost with it.
        let _ = tokio::time::timeout(FAREWELL, self.say_farewell()).await;
    }

    async fn say_farewell(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.unwritten).await?;
        self.socket.shutdown().await
    }

    /// Everything that can be done without waiting for the socket.
    async fn pump(&mut self) {
        let now = self.shared.clock.now();
        if let Some(why) = self.port.close_reason() {
            self.session.close(why, now);
        }
        for (answer, outcome) in self.port.take_answers() {
            self.session.handle_answer(answer, outcome, now);
        }
        self.unwritten.append(&mut self.session.take_bytes());
        while self.unwritten.len() < MAX_UNWRITTEN && self.session.wants_delivery() {
            let Some(delivery) = self.port.next_delivery() else { break };
            self.session.handle_delivery(&delivery, now);
            self.unwritten.append(&mut self.session.take_bytes());
        }
        while let Some(output) = self.session.poll_output() {
            self.do_output(output).await;
        }
        self.unwritten.append(&mut self.session.take_bytes());
        let stats = self.session.stats();
        self.shared.counters.add_session(stats, self.counted);
        self.counted = stats;
    }

    async fn do_output(&mut self, output: Output) {
        match output {
            Output::Opened { client } => {
                self.name.clone_from(&client);
                let port = Arc::clone(&self.port);
                self.request(Request::Opened { client: self.id, name: client, port }).await;
            }
            Output::Publish { message, route, answer } => self.publish(message, route, answer).await,
            Output::Subscribe(wish) => self.request(Request::Subscribe { client: self.id, wish }).await,
            Output::Unsubscribe(filter) => {
                self.request(Request::Unsubscribe { client: self.id, filter }).await;
            }
            Output::Close(why) => self.closing = Some(why),
        }
    }

    async fn request(&self, request: Request) {
        // Refused only when the broker stops, and then this task is about to be told.
        let _ = self.shared.requests.send(request).await;
    }

    async fn publish(&mut self, message: Message, route: Route, answer: Option<Answer>) {
        if route.reaches_node() && !self.tell_node(&message, answer).await {
            return;
        }
        if route.reaches_subscribers()
            && let Ok(room) = Arc::clone(&self.shared.room).acquire_many_owned(room_for(&message)).await
        {
            self.request(Request::Publish { message, room }).await;
        }
    }

    async fn tell_node(&mut self, message: &Message, answer: Option<Answer>) -> bool {
        let event = BrokerEvent::Publish {
            ticket: answer.map(|answer| Ticket::new(Arc::clone(&self.port), answer)),
            client: self.name.clone(),
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            qos: properties::qos_to_bus(message.qos),
            retain: message.retain,
            properties: properties::to_bus(&message.properties),
            expiry: message.expires.map(|at| at.since(self.shared.clock.now())),
        };
        if let Ok(Ok(())) = tokio::time::timeout(NODE_PATIENCE, self.shared.node.send(event)).await {
            return true;
        }
        if message.qos == Qos::AtMostOnce {
            count(&self.shared.counters.dropped_for_node);
        } else {
            self.port.close(CloseReason::NodeBusy);
        }
        false
    }

    /// Waits until there is something to do, and does the socket's part of it.
    async fn wait(&mut self) -> io::Result<()> {
        let reads = self.session.wants_bytes() && self.unwritten.len() < MAX_UNWRITTEN;
        let interest = match (reads, self.unwritten.is_empty()) {
            (true, true) => Interest::READABLE,
            (true, false) => Interest::READABLE | Interest::WRITABLE,
            (false, false) => Interest::WRITABLE,
            // Nothing to read or write for now, but a connection that breaks is to be noticed.
            (false, true) => Interest::ERROR,
        };
        let deadline = self.session.poll_timeout().map(|(at, _)| self.shared.clock.instant(at));
        tokio::select! {
            ready = self.socket.ready(interest) => {
                let ready = ready?;
                if ready.is_writable() {
                    self.write()?;
                }
                if ready.is_readable() && reads {
                    self.read()?;
                }
            }
            () = self.port.woken() => {}
            () = sleep_until(deadline) => self.session.handle_timeout(self.shared.clock.now()),
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if let Some(written) = unless_blocked(self.socket.try_write(&self.unwritten))? {
            self.unwritten.drain(..written);
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; READ_CHUNK];
        match unless_blocked(self.socket.try_read(&mut chunk))? {
            Some(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(length) => {
                self.session.handle_bytes(&chunk[..length], self.shared.clock.now());
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn unless_blocked(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

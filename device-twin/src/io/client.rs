//! One client's task: a socket, a pure [`Session`], a [`Port`].

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bus::{Mono, Now};
use tokio::io::Interest;
use tokio::sync::{Semaphore, mpsc};

use super::broker::{BrokerEvent, Ticket};
use super::clock::Clock;
use super::counters::{Counters, count};
use super::door::Known;
use super::pass::Pass;
use super::passwords::Doorkeeper;
use super::port::{Port, Seat, Shelf};
use super::stream::{Stream, unless_blocked};
use super::switchboard::{Asked, Request, Speaker, room_for};
use crate::gate::access::{Guard, NotAdmitted, Rights};
use crate::gate::session::{Answer, Output, Stats, Terms};
use crate::gate::{CloseReason, ConnId, Message, Qos, Route, Row, Session, SessionId, row};

/// Read at once: some dozens of small packets per system call.
const READ_CHUNK: usize = 16 * 1024;

/// Bytes not yet taken by the client above which it is not read from either.
const MAX_UNWRITTEN: usize = 1 << 20;

/// How long a client's task waits for room in the node's queue, before it drops a QoS 0 message or sends a client
/// with a QoS 1 or 2 message away to come back with it.
const NODE_PATIENCE: Duration = Duration::from_secs(10);

/// How long the last bytes may take to get out.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long a client's task whose connection is over waits for the node's word on QoS 2 messages: without it, they
/// would be taken a second time. A node whose disk is stuck says so after ten.
const LAST_WORD: Duration = Duration::from_secs(12);

/// What every client's task has in common.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) room: Arc<Semaphore>,
    pub(super) node: mpsc::Sender<BrokerEvent>,
    pub(super) counters: Arc<Counters>,
    /// Whether a message may have to be stored before it is acknowledged.
    pub(super) keeps: Arc<AtomicBool>,
    pub(super) clock: Clock,
    pub(super) terms: Terms,
    /// `None`: there are no names and passwords here.
    pub(super) doorkeeper: Option<Arc<Doorkeeper>>,
    pub(super) rights: Arc<Rights>,
}

impl Shared {
    fn now(&self) -> Now {
        self.clock.now()
    }
}

/// A connection that has come through its handshakes.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) stream: Stream,
    pub(super) peer: IpAddr,
    /// By its certificate.
    pub(super) known: Option<Known>,
    /// It came by a door where nobody needs to say who he is.
    pub(super) anonymous: bool,
}

/// Returns when a client with a certificate is to go.
async fn barred(pass: &mut Option<Pass>) {
    match pass {
        Some(pass) => pass.ended().await,
        None => std::future::pending().await,
    }
}

/// The task's state.
pub(super) struct Client {
    id: ConnId,
    name: String,
    socket: Stream,
    peer: IpAddr,
    session: Session,
    port: Arc<Port>,
    /// The session's messages, once it is open.
    seat: Option<(SessionId, Arc<Shelf>)>,
    /// The hub knows of this connection.
    announced: bool,
    shared: Shared,
    unwritten: Vec<u8>,
    counted: Stats,
    closing: Option<CloseReason>,
    /// How long its certificate lets it stay.
    pass: Option<Pass>,
}

impl Client {
    pub(super) fn new(id: ConnId, visitor: Visitor, port: Arc<Port>, shared: Shared) -> Self {
        let Visitor { stream: socket, peer, known, anonymous } = visitor;
        let (known, pass) = known.map(|Known { who, pass }| (who, pass)).unzip();
        let passwords = shared.doorkeeper.is_some();
        let guard = Guard { known, anonymous, passwords, rights: Arc::clone(&shared.rights) };
        let session = Session::guarded(id, guard, shared.terms, shared.now().mono);
        Self {
            id,
            name: String::new(),
            socket,
            peer,
            session,
            port,
            seat: None,
            announced: false,
            shared,
            unwritten: Vec::new(),
            counted: Stats::default(),
            closing: None,
            pass: pass.flatten(),
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
                self.session.handle_gone(self.shared.now().mono);
            }
        };
        tracing::debug!(client = ?self.name, %why, "connection closed");
        self.shared.counters.add_close(why);
        if self.announced {
            self.leave().await;
        }
        // What cannot be told to a client that does not listen is lost with it.
        let _ = tokio::time::timeout(FAREWELL, self.say_farewell()).await;
    }

    /// Whoever takes over waits for this, and not for the farewell.
    async fn leave(&mut self) {
        let decided = async {
            while self.session.is_undecided() {
                self.port.woken().await;
                self.take_answers();
            }
        };
        let _ = tokio::time::timeout(LAST_WORD, decided).await;
        self.tidy_up().await;
        let left = self.session.take_left();
        self.request(Request::Left { conn: self.id, left }).await;
    }

    /// A socket that is closed while bytes wait in it is reset, and the reset overtakes the last words: so they are read,
    /// as far as they come in time.
    async fn say_farewell(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.unwritten).await?;
        self.socket.shutdown().await?;
        let mut unheard = [0; 512];
        loop {
            self.socket.ready(Interest::READABLE).await?;
            if unless_blocked(self.socket.try_read(&mut unheard))? == Some(0) {
                return Ok(());
            }
        }
    }

    fn take_answers(&mut self) {
        let now = self.shared.now().mono;
        for (answer, outcome) in self.port.take_answers() {
            self.session.handle_answer(answer, outcome, now);
        }
    }

    /// Everything that can be done without waiting for the socket.
    async fn pump(&mut self) {
        let now = self.shared.now().mono;
        if let Some(why) = self.port.close_reason() {
            self.session.close(why, now);
        }
        if let Some(Seat { opened, released, shelf }) = self.port.take_seat() {
            self.seat = Some((opened.session, shelf));
            self.session.handle_opened(opened, &released, now);
        }
        self.take_answers();
        self.unwritten.append(&mut self.session.take_bytes());
        self.take_deliveries(now);
        while let Some(output) = self.session.poll_output() {
            self.do_output(output).await;
        }
        self.unwritten.append(&mut self.session.take_bytes());
        self.tidy_up().await;
        let stats = self.session.stats();
        self.shared.counters.add_session(stats, self.counted);
        self.counted = stats;
    }

    fn take_deliveries(&mut self, now: Mono) {
        let Some((_, shelf)) = &self.seat else { return };
        while self.unwritten.len() < MAX_UNWRITTEN && self.session.wants_delivery() {
            let Some(outgoing) = shelf.next(now) else { break };
            self.session.handle_outgoing(&outgoing, now);
            self.unwritten.append(&mut self.session.take_bytes());
        }
    }

    /// What the queue needs no more, and what it lost.
    async fn tidy_up(&mut self) {
        let Some((_, shelf)) = &self.seat else { return };
        let (rows, losses) = shelf.with(|queue| (queue.take_rows(), queue.take_losses()));
        self.shared.counters.add_losses(losses);
        if !rows.is_empty() {
            self.request(Request::Keep { rows, asked: None }).await;
        }
    }

    async fn do_output(&mut self, output: Output) {
        match output {
            Output::Check(claim) => {
                let outcome = match &self.shared.doorkeeper {
                    Some(doorkeeper) => doorkeeper.check(self.peer, claim).await,
                    None => Err(NotAdmitted::Credentials),
                };
                self.session.handle_checked(outcome, self.shared.now().mono);
            }
            Output::Open(open) => {
                self.name.clone_from(&open.name);
                self.announced = true;
                let port = Arc::clone(&self.port);
                self.request(Request::Open { open, port }).await;
            }
            Output::Publish { message, route, answer, packet } => {
                self.publish(message, route, answer, packet).await;
            }
            Output::Subscribe { wishes, answer } => {
                if let Some((session, asked)) = self.asks(answer) {
                    self.request(Request::Subscribe { session, wishes, asked }).await;
                }
            }
            Output::Unsubscribe { wanted, answer } => {
                if let Some((session, asked)) = self.asks(answer) {
                    self.request(Request::Unsubscribe { session, wanted, asked }).await;
                }
            }
            Output::Finished { packet } => {
                if let Some((_, shelf)) = &self.seat {
                    let now = self.shared.now().mono;
                    shelf.with(|queue| queue.finished(packet, now));
                }
            }
            Output::Received { packet, answer } => self.received(packet, answer).await,
            Output::Forget { packet, answer } => {
                if let Some((session, asked)) = self.asks(answer) {
                    let rows = vec![row::received_gone(session, packet)];
                    self.request(Request::Keep { rows, asked: Some(asked) }).await;
                }
            }
            Output::Close(why) => self.closing = Some(why),
        }
    }

    fn asks(&self, answer: Answer) -> Option<(SessionId, Asked)> {
        let (session, _) = self.seat.as_ref()?;
        Some((*session, self.asked(answer)))
    }

    fn asked(&self, answer: Answer) -> Asked {
        Asked { port: Arc::clone(&self.port), answer }
    }

    async fn received(&mut self, packet: u16, answer: Answer) {
        let Some((_, shelf)) = &self.seat else { return };
        let now = self.shared.now();
        match shelf.with(|queue| queue.received(packet, now)) {
            Some(row) => {
                let asked = Some(self.asked(answer));
                self.request(Request::Keep { rows: vec![row], asked }).await;
            }
            None => self.session.handle_answer(answer, Ok(()), now.mono),
        }
    }

    async fn request(&self, request: Request) {
        // Refused only when the broker stops, and then this task is about to be told.
        let _ = self.shared.requests.send(request).await;
    }

    async fn publish(&mut self, message: Message, route: Route, answer: Option<Answer>, packet: Option<u16>) {
        let received = self.seat.as_ref().zip(packet).map(|((id, _), packet)| row::received(*id, packet));
        let rows: Vec<Row> = received.into_iter().collect();
        let for_node = match route {
            Route::Node => return self.tell_node(message, answer, rows).await,
            Route::Both => Some(self.speaker()),
            Route::Local => None,
        };
        let at_once = for_node.is_none()
            && rows.is_empty()
            && !message.retain
            && !self.shared.keeps.load(std::sync::atomic::Ordering::Relaxed);
        let asked = match answer {
            Some(answer) if at_once => {
                self.session.handle_answer(answer, Ok(()), self.shared.now().mono);
                None
            }
            answer => answer.map(|answer| self.asked(answer)),
        };
        if let Ok(room) = Arc::clone(&self.shared.room).acquire_many_owned(room_for(&message)).await {
            self.request(Request::Publish { message, for_node, rows, asked, receipt: None, room }).await;
        }
    }

    fn speaker(&self) -> Speaker {
        Speaker { client: self.name.clone(), who: self.session.who().clone() }
    }

    async fn tell_node(&self, message: Message, answer: Option<Answer>, rows: Vec<Row>) {
        let ticket = answer.map(|answer| Ticket::new(Some(self.asked(answer)), Vec::new()));
        let (qos, now) = (message.qos, self.shared.now().mono);
        let event = BrokerEvent::of(message, self.speaker(), ticket, rows, now);
        if let Ok(Ok(())) = tokio::time::timeout(NODE_PATIENCE, self.shared.node.send(event)).await {
            return;
        }
        if qos == Qos::AtMostOnce {
            count(&self.shared.counters.dropped_for_node);
        } else {
            self.port.close(CloseReason::NodeBusy);
        }
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
        let clock = self.shared.clock;
        let deadline = self.session.poll_timeout().map(|(at, _)| at);
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
            () = barred(&mut self.pass) => return Err(io::Error::other("its user is let in no more")),
            () = clock.sleep_until(deadline) => self.session.handle_timeout(clock.now().mono),
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
        // What came while this process stood still is not of now: whoever was silent for too long, by our clock, is gone.
        let now = self.shared.now().mono;
        if self.session.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.session.handle_timeout(now);
            return Ok(());
        }
        let mut chunk = [0; READ_CHUNK];
        match unless_blocked(self.socket.try_read(&mut chunk))? {
            Some(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(length) => {
                self.session.handle_bytes(&chunk[..length], self.shared.now().mono);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

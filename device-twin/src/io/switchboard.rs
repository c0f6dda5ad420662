//! The broker's one task between clients and node: drives the pure [`Hub`].
//!
//! It waits for nobody: queues are bounded and never block, and what is meant for the node waits here with its part of
//! [`ROOM`]. So whoever sends to it makes progress, as long as the node does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bus::{Filter, Mono, Now};
use bytes::Bytes;
use metadata::Key;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::broker::{BrokerEvent, Ticket};
use super::clock::Clock;
use super::counters::{Counters, count};
use super::port::{Port, Seat, Shelf};
use crate::Receipt;
use crate::gate::access::Who;
use crate::gate::hub::{Left, Open, Opened, Output, Wish};
use crate::gate::queue::Pushed;
use crate::gate::session::Answer;
use crate::gate::subscriptions::Wanted;
use crate::gate::{CloseReason, ConnId, Delivery, Hub, Message, Queue, Route, Row, SessionId};

/// Requests on their way to the task. When full, clients and node wait.
pub(super) const MAILBOX: usize = 1024;

/// Bytes of messages between intake and node. When full, publishers wait: that is their back-pressure.
pub(super) const ROOM: usize = 8 << 20;

/// What even an empty message takes of [`ROOM`].
const OVERHEAD: usize = 256;

/// Requests handled before the node is looked after again.
const TURN: usize = 64;

/// How often it is looked whether what is parked may go on.
const TICK: Duration = Duration::from_millis(500);

/// Who asked, and for what.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) port: Arc<Port>,
    pub(super) answer: Answer,
}

/// Who speaks, for the node.
#[derive(Debug)]
pub(super) struct Speaker {
    pub(super) client: String,
    pub(super) who: Who,
}

/// What clients and the node ask for.
#[derive(Debug)]
pub(super) enum Request {
    Open {
        open: Open,
        port: Arc<Port>,
    },
    Left {
        conn: ConnId,
        left: Left,
    },
    Publish {
        message: Message,
        /// The client, if the node is to hear the message too.
        for_node: Option<Speaker>,
        rows: Vec<Row>,
        asked: Option<Asked>,
        receipt: Option<Receipt>,
        room: OwnedSemaphorePermit,
    },
    Subscribe {
        session: SessionId,
        wishes: Vec<Wish>,
        asked: Asked,
    },
    Unsubscribe {
        session: SessionId,
        wanted: Vec<Wanted>,
        asked: Asked,
    },
    /// What a client's task wants stored, or gone.
    Keep {
        rows: Vec<Row>,
        asked: Option<Asked>,
    },
}

/// What a message takes of [`ROOM`].
pub(super) fn room_for(message: &Message) -> u32 {
    u32::try_from((message.size() + OVERHEAD).min(ROOM)).unwrap_or(u32::MAX)
}

/// What a request came to.
#[derive(Default)]
struct Effects {
    rows: Vec<Row>,
    /// Messages that wait until the rows are stored.
    held: Vec<(Arc<Shelf>, u64)>,
    /// Wills whose time has come.
    wills: Vec<(Message, Route, Speaker)>,
}

/// Something for the node, with its part of [`ROOM`].
struct News {
    event: BrokerEvent,
    _room: Option<OwnedSemaphorePermit>,
}

/// The task's state.
pub(super) struct Switchboard {
    hub: Hub,
    ports: BTreeMap<ConnId, Arc<Port>>,
    shelves: BTreeMap<SessionId, Arc<Shelf>>,
    /// Bytes that kept sessions are owed.
    kept_in_all: Arc<AtomicUsize>,
    /// Whether a message may have to be stored before it is acknowledged: told to the clients' tasks.
    keeps: Arc<AtomicBool>,
    /// Bounded by [`ROOM`] and, for what carries no message, by what clients may have unanswered.
    news: VecDeque<News>,
    /// At most one per filter that is in use or that the node believes to be.
    interests: BTreeMap<Filter, bool>,
    /// Messages with a receipt that wait until kept sessions have room; bounded by what the node publishes before it
    /// has seen their receipts.
    parked: VecDeque<(Message, Receipt, OwnedSemaphorePermit)>,
    node: mpsc::Sender<BrokerEvent>,
    counters: Arc<Counters>,
    clock: Clock,
}

impl Switchboard {
    /// `kept`: what the node kept of the broker's rows, in the order of their keys.
    pub(super) fn new(
        node: mpsc::Sender<BrokerEvent>,
        counters: Arc<Counters>,
        keeps: Arc<AtomicBool>,
        clock: Clock,
        kept: &[(Key, Bytes)],
    ) -> Self {
        let mut board = Self {
            hub: Hub::default(),
            ports: BTreeMap::new(),
            shelves: BTreeMap::new(),
            kept_in_all: Arc::default(),
            keeps,
            news: VecDeque::new(),
            interests: BTreeMap::new(),
            parked: VecDeque::new(),
            node,
            counters,
            clock,
        };
        board.load(kept);
        board
    }

    fn load(&mut self, kept: &[(Key, Bytes)]) {
        let rows = kept.iter().map(|(key, value)| (key.as_str(), &value[..]));
        let owed = self.hub.load(rows, self.clock.now());
        for id in self.hub.sessions() {
            let queue = Queue::new(id, Some(Arc::clone(&self.kept_in_all)));
            self.shelves.insert(id, Arc::new(Shelf::new(queue)));
        }
        for (id, message) in owed {
            if let Some(shelf) = self.shelves.get(&id) {
                shelf.with(|queue| queue.restore(message));
            }
        }
        self.settle(Vec::new(), None);
        self.news.push_back(News { event: BrokerEvent::Restored, _room: None });
        self.publish_stats();
    }

    fn publish_stats(&self) {
        self.keeps.store(self.hub.has_kept(), Relaxed);
        self.counters.set_hub(self.hub.stats(), self.kept_in_all.load(Relaxed));
    }

    /// Runs until nobody can ask for anything any more.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let node = self.node.clone();
        loop {
            let look_again = (!self.parked.is_empty()).then(|| self.clock.now().mono + TICK);
            let due = self.hub.poll_timeout().into_iter().chain(look_again).min();
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.handle_requests(request, &mut requests),
                    None => return,
                },
                permit = node.reserve(), if !self.news.is_empty() || !self.interests.is_empty() => {
                    self.tell_node(permit.ok());
                }
                () = self.clock.sleep_until(due) => self.handle_timeout(),
            }
        }
    }

    fn handle_requests(&mut self, first: Request, requests: &mut mpsc::Receiver<Request>) {
        let more = std::iter::from_fn(|| requests.try_recv().ok()).take(TURN);
        let mut changes = false;
        for request in std::iter::once(first).chain(more) {
            changes |= !matches!(request, Request::Publish { .. } | Request::Keep { .. });
            self.handle_request(request);
        }
        if changes {
            self.publish_stats();
        }
        self.publish_parked(self.clock.now());
        // What there is room for goes at once; the rest when there is.
        while (!self.news.is_empty() || !self.interests.is_empty())
            && let Ok(permit) = self.node.clone().try_reserve()
        {
            self.tell_node(Some(permit));
        }
    }

    /// Interests first: what a subscriber is owed by other sites should be asked for before it is missed.
    fn tell_node(&mut self, permit: Option<mpsc::Permit<'_, BrokerEvent>>) {
        let Some(permit) = permit else {
            self.interests.clear();
            return self.news.clear();
        };
        if let Some((filter, wanted)) = self.interests.pop_first() {
            permit.send(BrokerEvent::Interest { filter, wanted });
        } else if let Some(News { event, _room }) = self.news.pop_front() {
            permit.send(event);
        }
    }

    fn handle_request(&mut self, request: Request) {
        let now = self.clock.now();
        match request {
            Request::Open { open, port } => {
                self.ports.insert(open.conn, port);
                self.hub.handle_open(open);
                self.settle(Vec::new(), None);
            }
            Request::Left { conn, left } => {
                self.ports.remove(&conn);
                if let Some(shelf) = self.hub.session_of(conn).and_then(|id| self.shelves.get(&id)) {
                    shelf.unseat();
                }
                self.hub.handle_left(conn, left, now);
                self.settle(Vec::new(), None);
            }
            Request::Publish { message, for_node: _, rows: _, asked: _, receipt: Some(receipt), room } => {
                self.parked.push_back((message, receipt, room));
                self.publish_parked(now);
            }
            Request::Publish { message, for_node, rows, asked, receipt: None, room } => {
                self.publish(message, for_node, rows, asked, Some(room), now);
            }
            Request::Subscribe { session, wishes, asked } => {
                self.hub.handle_subscribe(session, wishes, now);
                self.settle(Vec::new(), Some(asked));
            }
            Request::Unsubscribe { session, wanted, asked } => {
                self.hub.handle_unsubscribe(session, &wanted);
                self.settle(Vec::new(), Some(asked));
            }
            Request::Keep { rows, asked } => self.settle(rows, asked),
        }
    }

    fn publish(
        &mut self,
        message: Message,
        for_node: Option<Speaker>,
        rows: Vec<Row>,
        asked: Option<Asked>,
        room: Option<OwnedSemaphorePermit>,
        now: Now,
    ) {
        let event = for_node.map(|speaker| (speaker, message.clone()));
        self.hub.handle_publish(message, now);
        let mut effects = self.drain();
        effects.rows.extend(rows);
        self.conclude(effects, asked, event, room);
    }

    /// What waited on other sites for hours may come faster than a client takes it. It is not dropped for that: the node
    /// goes on when its receipts come.
    fn publish_parked(&mut self, now: Now) {
        while !self.parked.is_empty() && !self.is_crowded(now.mono) {
            let Some((message, receipt, room)) = self.parked.pop_front() else { return };
            self.hub.handle_publish(message, now);
            let Effects { rows, held, wills } = self.drain();
            debug_assert!(wills.is_empty(), "a message ends no session");
            let ticket = (!held.is_empty()).then(|| Ticket::new(None, held));
            let event = BrokerEvent::Keep { ticket, rows, receipt: Some(receipt) };
            self.news.push_back(News { event, _room: Some(room) });
        }
    }

    /// A kept session whose client is here is owed much.
    fn is_crowded(&self, now: Mono) -> bool {
        self.shelves.values().any(|shelf| shelf.is_crowded(now))
    }

    fn settle(&mut self, rows: Vec<Row>, asked: Option<Asked>) {
        let mut effects = self.drain();
        effects.rows.extend(rows);
        self.conclude(effects, asked, None, None);
    }

    fn handle_timeout(&mut self) {
        self.hub.handle_timeout(self.clock.now());
        self.settle(Vec::new(), None);
        self.publish_parked(self.clock.now());
        self.publish_stats();
    }

    /// Answers what nothing has to be stored for; the rest goes to the node.
    fn conclude(
        &mut self,
        effects: Effects,
        asked: Option<Asked>,
        message: Option<(Speaker, Message)>,
        room: Option<OwnedSemaphorePermit>,
    ) {
        let Effects { rows, held, wills } = effects;
        if message.is_none() && rows.is_empty() {
            if let Some(Asked { port, answer }) = asked {
                port.answer(answer, Ok(()));
            }
        } else {
            let is_awaited = asked.is_some() || !held.is_empty();
            let ticket = is_awaited.then(|| Ticket::new(asked, held));
            let event = match message {
                Some((speaker, message)) => {
                    BrokerEvent::of(message, speaker, ticket, rows, self.clock.now().mono)
                }
                None => BrokerEvent::Keep { ticket, rows, receipt: None },
            };
            self.news.push_back(News { event, _room: room });
        }
        for (message, route, speaker) in wills {
            if !route.reaches_subscribers() {
                self.conclude(Effects::default(), None, Some((speaker, message)), None);
                continue;
            }
            let for_node = route.reaches_node().then_some(speaker);
            self.publish(message, for_node, Vec::new(), None, None, self.clock.now());
        }
    }

    /// Does what the hub wants.
    fn drain(&mut self) -> Effects {
        let now = self.clock.now();
        let mut effects = Effects::default();
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Opened(opened) => self.open(opened),
                Output::Full { conn } => self.close(conn, CloseReason::Full),
                Output::TakeOver { old } => self.close(old, CloseReason::TakenOver),
                Output::Deliver { to, delivery } => self.deliver(to, delivery, &mut effects, now),
                Output::Replay { to, deliveries } => {
                    if let Some(shelf) = self.shelves.get(&to) {
                        shelf.replay(deliveries);
                    }
                }
                Output::Keep(row) => effects.rows.push(row),
                Output::Ended { session } => {
                    if let Some(shelf) = self.shelves.remove(&session) {
                        effects.rows.extend(shelf.clear());
                    }
                }
                Output::Publish { message, route, client, who } => {
                    effects.wills.push((message, route, Speaker { client, who }));
                }
                Output::Interest { filter, wanted } => self.note_interest(filter, wanted),
            }
        }
        effects
    }

    fn open(&mut self, opened: Opened) {
        let Some(port) = self.ports.get(&opened.conn) else { return };
        let Opened { session, kept, .. } = opened;
        let kept_in_all = kept.then(|| Arc::clone(&self.kept_in_all));
        let new = || Arc::new(Shelf::new(Queue::new(session, kept_in_all)));
        let shelf = Arc::clone(self.shelves.entry(session).or_insert_with(new));
        let released = shelf.seat(Arc::clone(port), self.clock.now().mono);
        port.open(Seat { opened, released, shelf });
    }

    fn close(&self, conn: ConnId, why: CloseReason) {
        if let Some(port) = self.ports.get(&conn) {
            port.close(why);
        }
    }

    fn deliver(&self, to: SessionId, delivery: Delivery, effects: &mut Effects, now: Now) {
        let Some(shelf) = self.shelves.get(&to) else { return };
        match shelf.push(delivery, now) {
            Pushed::Queued | Pushed::Overflow => {}
            Pushed::Held { number, rows } => {
                effects.rows.extend(rows);
                effects.held.push((Arc::clone(shelf), number));
                self.counters.add_losses(shelf.with(Queue::take_losses));
            }
            Pushed::Dropped => count(&self.counters.dropped),
        }
    }

    /// News that undoes what the node has not heard yet leaves nothing to tell.
    fn note_interest(&mut self, filter: Filter, wanted: bool) {
        if self.interests.remove(&filter).is_none() {
            self.interests.insert(filter, wanted);
        }
    }
}

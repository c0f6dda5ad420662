//! The broker's one task between clients, node and rumqttd's router: drives the pure [`Hub`].
//!
//! It waits for nobody: clients' ports are bounded and never block, news for the node waits here coalesced, and the
//! router never waits for us. So whoever sends to it makes progress.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bus::Filter;
use rumqttd::local::LinkError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::broker::{BrokerEvent, Clock};
use super::counters::{Counters, count};
use super::port::{Port, Queued};
use super::router_link::{MAX_BATCH, MAX_BATCH_BYTES, RouterLink, Said};
use crate::Receipt;
use crate::gate::hub::{Output, Wish};
use crate::gate::subscriptions::FilterId;
use crate::gate::{CloseReason, ConnId, Hub, Message, Numbered};

/// Requests on their way to the task. When full, clients and node wait.
pub(super) const MAILBOX: usize = 1024;

/// Bytes of messages between intake and fan-out. When full, publishers wait: that is their back-pressure.
pub(super) const ROOM: usize = 8 << 20;

/// What even an empty message takes of [`ROOM`].
const OVERHEAD: usize = 256;

/// Requests handled before the router is listened to again.
const TURN: usize = 64;

/// What clients and the node ask for.
#[derive(Debug)]
pub(super) enum Request {
    Opened {
        client: ConnId,
        name: String,
        port: Arc<Port>,
    },
    Gone {
        client: ConnId,
    },
    Publish {
        message: Message,
        room: OwnedSemaphorePermit,
    },
    Subscribe {
        client: ConnId,
        wish: Wish,
    },
    Unsubscribe {
        client: ConnId,
        filter: Filter,
    },
    /// Of the message that was published before it.
    Receipt(Receipt),
}

/// What a message takes of [`ROOM`].
pub(super) fn room_for(message: &Message) -> u32 {
    u32::try_from((message.size() + OVERHEAD).min(ROOM)).unwrap_or(u32::MAX)
}

/// A message on its way, with its part of [`ROOM`].
#[derive(Debug)]
struct Pending {
    carried: Numbered,
    _room: Option<OwnedSemaphorePermit>,
}

/// The task's state.
pub(super) struct Switchboard {
    hub: Hub,
    router: RouterLink,
    ports: BTreeMap<ConnId, Arc<Port>>,
    /// Bounded by [`ROOM`].
    pending: VecDeque<Pending>,
    /// What the router has in hand, at most [`MAX_BATCH`].
    batch: Vec<Pending>,
    /// News for the node, at most one per filter that is in use or that the node believes to be.
    interests: BTreeMap<Filter, bool>,
    /// The node has heard that no session outlived the last process.
    restored: bool,
    /// Receipts that the node is to be shown; bounded by what it publishes before it has seen them.
    taken: VecDeque<Receipt>,
    node: mpsc::Sender<BrokerEvent>,
    counters: Arc<Counters>,
    clock: Clock,
}

impl Switchboard {
    pub(super) async fn new(
        node: mpsc::Sender<BrokerEvent>,
        counters: Arc<Counters>,
        clock: Clock,
    ) -> Result<Self, LinkError> {
        Ok(Self {
            hub: Hub::default(),
            router: RouterLink::start().await?,
            ports: BTreeMap::new(),
            pending: VecDeque::new(),
            batch: Vec::new(),
            interests: BTreeMap::new(),
            restored: false,
            taken: VecDeque::new(),
            node,
            counters,
            clock,
        })
    }

    /// Runs until nobody can ask for anything any more.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) -> Result<(), LinkError> {
        let node = self.node.clone();
        loop {
            let turn = tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.handle_requests(request, &mut requests).await,
                    None => return Ok(()),
                },
                said = self.router.next() => self.handle_said(said).await,
                permit = node.reserve(), if self.has_news() => {
                    self.tell_news(permit.ok());
                    Ok(())
                }
            };
            if let Err(error) = turn {
                self.replace_router(&error).await?;
            }
            self.counters.set_hub(self.hub.stats());
        }
    }

    fn has_news(&self) -> bool {
        !self.restored || !self.interests.is_empty() || !self.taken.is_empty()
    }

    fn tell_news(&mut self, permit: Option<mpsc::Permit<'_, BrokerEvent>>) {
        let Some(permit) = permit else {
            self.restored = true;
            self.interests.clear();
            return self.taken.clear();
        };
        if !std::mem::replace(&mut self.restored, true) {
            permit.send(BrokerEvent::Restored);
        } else if let Some(receipt) = self.taken.pop_front() {
            permit.send(BrokerEvent::Taken { receipt });
        } else if let Some((filter, wanted)) = self.interests.pop_first() {
            permit.send(BrokerEvent::Interest { filter, wanted });
        }
    }

    async fn handle_requests(
        &mut self,
        first: Request,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<(), LinkError> {
        self.handle_request(first).await?;
        for _ in 1..TURN {
            let Ok(request) = requests.try_recv() else { break };
            self.handle_request(request).await?;
        }
        self.send_batch().await
    }

    async fn handle_request(&mut self, request: Request) -> Result<(), LinkError> {
        let now = self.clock.now();
        let mut room = None;
        match request {
            Request::Opened { client, name, port } => {
                self.ports.insert(client, port);
                self.hub.handle_opened(client, name);
            }
            Request::Gone { client } => {
                self.ports.remove(&client);
                self.hub.handle_gone(client);
            }
            Request::Publish { message, room: taken } => {
                room = Some(taken);
                self.hub.handle_publish(message, now);
            }
            Request::Subscribe { client, wish } => self.hub.handle_subscribe(client, wish, now),
            Request::Unsubscribe { client, filter } => self.hub.handle_unsubscribe(client, &filter),
            Request::Receipt(receipt) => self.taken.push_back(receipt),
        }
        self.drain(room).await
    }

    /// Does what the hub wants. `room` goes with the message that the request carried.
    async fn drain(&mut self, mut room: Option<OwnedSemaphorePermit>) -> Result<(), LinkError> {
        let mut outcome = Ok(());
        while let Some(output) = self.hub.poll_output() {
            let done = match output {
                Output::Watch { id, filter } => self.router.watch(id, &filter).await,
                Output::Unwatch { id, filter } => self.router.unwatch(id, &filter).await,
                Output::Carry(carried) => {
                    self.pending.push_back(Pending { carried, _room: room.take() });
                    Ok(())
                }
                Output::Deliver { to, delivery } => {
                    self.tell(to, |port| port.deliver(delivery));
                    Ok(())
                }
                Output::Replay { to, deliveries } => {
                    self.tell(to, |port| port.replay(deliveries));
                    Ok(())
                }
                Output::TakeOver { old } => {
                    self.take_over(old);
                    Ok(())
                }
                Output::Interest { filter, wanted } => {
                    self.note_interest(filter, wanted);
                    Ok(())
                }
            };
            outcome = outcome.and(done);
        }
        outcome
    }

    fn tell(&self, client: ConnId, what: impl FnOnce(&Port) -> Queued) {
        let Some(port) = self.ports.get(&client) else { return };
        match what(port) {
            Queued::Yes => {}
            Queued::Dropped => count(&self.counters.dropped),
            Queued::Overflow => port.close(CloseReason::TooSlow),
        }
    }

    /// News that undoes what the node has not heard yet leaves nothing to tell.
    fn note_interest(&mut self, filter: Filter, wanted: bool) {
        if self.interests.remove(&filter).is_none() {
            self.interests.insert(filter, wanted);
        }
    }

    fn take_over(&mut self, old: ConnId) {
        if let Some(port) = self.ports.remove(&old) {
            port.close(CloseReason::TakenOver);
        }
    }

    async fn handle_said(&mut self, said: Result<Said, LinkError>) -> Result<(), LinkError> {
        match said? {
            Said::Matched { filter, index } => {
                match self.batch.get(usize::from(index)) {
                    Some(pending) => self.hub.handle_carried(filter, &pending.carried, self.clock.now()),
                    None => count(&self.counters.out_of_turn),
                }
                self.drain(None).await
            }
            Said::Settled => {
                self.batch.clear();
                self.send_batch().await
            }
        }
    }

    /// The next messages to the router, if it has settled. What it has no room for is matched here, in its turn.
    async fn send_batch(&mut self) -> Result<(), LinkError> {
        if !self.router.is_settled() {
            return Ok(());
        }
        let mut bytes = 0;
        while self.batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
            let Some(next) = self.pending.front() else { break };
            let carries = self.router.carries(&next.carried.message.topic);
            if !carries && !self.batch.is_empty() {
                break;
            }
            let Some(next) = self.pending.pop_front() else { break };
            if !carries || self.router.has_direct() {
                self.match_here(&next.carried, !carries).await?;
            }
            if carries {
                bytes += next.carried.message.size();
                self.batch.push(next);
            }
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch: Vec<Numbered> = self.batch.iter().map(|p| p.carried.clone()).collect();
        self.router.send(&batch).await
    }

    /// Finds the subscribers without the router: of all filters, or of those that the router has no room for.
    async fn match_here(&mut self, carried: &Numbered, all: bool) -> Result<(), LinkError> {
        count(&self.counters.matched_here);
        let matching: Vec<FilterId> = self.hub.matching(&carried.message.topic);
        let now = self.clock.now();
        for id in matching.into_iter().filter(|id| all || self.router.is_direct(*id)) {
            self.hub.handle_carried(id, carried, now);
        }
        self.drain(None).await
    }

    /// The router is gone. What it had in hand is matched here (some of it perhaps a second time, never not at all),
    /// and a new one takes over.
    async fn replace_router(&mut self, error: &LinkError) -> Result<(), LinkError> {
        tracing::error!(%error, "rumqttd's router died; starting another");
        count(&self.counters.router_restarts);
        self.router = RouterLink::start().await?;
        let filters: Vec<(FilterId, Filter)> =
            self.hub.filters().map(|(id, filter)| (id, filter.clone())).collect();
        for (id, filter) in filters {
            self.router.watch(id, &filter).await?;
        }
        for pending in std::mem::take(&mut self.batch) {
            self.match_here(&pending.carried, true).await?;
        }
        self.send_batch().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bus::Topic;
    use bytes::Bytes;
    use mqtt_protocol_core::mqtt::packet::RetainHandling;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::gate::Qos;

    const CLIENT: ConnId = ConnId(1);

    async fn publish(requests: &mpsc::Sender<Request>, room: &Arc<Semaphore>, number: usize) {
        let message = Message {
            topic: Topic::new("numbers").unwrap(),
            payload: Bytes::from(number.to_string()),
            qos: Qos::AtLeastOnce,
            retain: false,
            expires: None,
            properties: vec![],
            from: None,
        };
        let room = Arc::clone(room).acquire_owned().await.unwrap();
        requests.send(Request::Publish { message, room }).await.unwrap();
    }

    #[tokio::test]
    async fn when_the_router_dies_another_takes_over_and_nothing_is_lost() {
        const MESSAGES: usize = 1000;
        let counters = Arc::new(Counters::default());
        let (node, _events) = mpsc::channel(8);
        let (requests, inbox) = mpsc::channel(MAILBOX);
        let room = Arc::new(Semaphore::new(ROOM));
        let mut board = Switchboard::new(node, Arc::clone(&counters), Clock::start()).await.unwrap();
        let port = Arc::new(Port::default());
        let wish = Wish {
            filter: Filter::new("#").unwrap(),
            qos: Qos::AtLeastOnce,
            no_local: false,
            as_published: false,
            retained: RetainHandling::SendRetained,
            identifier: None,
        };
        let opened = Request::Opened { client: CLIENT, name: "c".into(), port: Arc::clone(&port) };
        board.handle_request(opened).await.unwrap();
        board.handle_request(Request::Subscribe { client: CLIENT, wish }).await.unwrap();
        board.router.poison().await.unwrap();
        let hear = async {
            // What the dead router had in hand may come twice.
            let mut heard = std::collections::BTreeSet::new();
            while heard.len() < MESSAGES {
                port.woken().await;
                while let Some(delivery) = port.next_delivery() {
                    heard.insert(delivery.message.payload.clone());
                }
            }
        };
        let say = async {
            for number in 0..MESSAGES {
                publish(&requests, &room, number).await;
            }
            hear.await;
        };
        tokio::select! {
            ended = board.run(inbox) => panic!("{ended:?}"),
            () = say => {}
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("not all heard"),
        }
        assert_eq!(counters.stats().router_restarts, 1);
    }
}

//! The site's own broker in place of the embedded one: `mqtt.external`.
//!
//! | task | owns | ends |
//! |---|---|---|
//! | `mqtt external` | the [`Desk`], the news for the node | at [`BrokerHandle::shutdown`], or when the last handle is dropped |
//! | one per [`Side`] | its connection | with that task |

mod line;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bus::{Filter, Mono, Properties, Topic};
use bytes::Bytes;
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use self::line::LineEvent;
use super::broker::{BrokerEvent, BrokerHandle, NODE_QUEUE, Ticket, spawn};
use super::clock::Clock;
use super::counters::{Counters, count};
use super::port::Port;
use super::switchboard::{Asked, MAILBOX, ROOM, Request};
use crate::external::{Ack, Desk, Gone, Limits, Side};
use crate::gate::access::Who;
use crate::gate::properties::{qos_to_bus, to_bus};
use crate::gate::session::Answer;
use crate::gate::{Message, Qos, Refusal};

/// Events of the connections on their way to the task. When full, the broker is not read from.
const LINE_EVENTS: usize = 256;

/// News for the node above which the connections are not listened to.
const MAX_NEWS: usize = 256;

/// A wish, command or report that this node could not look at for so long is not of now.
const STALE: Duration = Duration::from_secs(15);

/// Answers to commands that may be asked for here: who may publish what is known to the broker alone.
const ANSWERS: &str = "answers/";

/// How long the last words may take to get out.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where the broker is, and how it knows this node.
#[derive(Debug, Clone)]
pub struct ExternalConfig {
    pub host: String,
    pub port: u16,
    /// The two sessions are this with `-twins` and `-mesh`: unique at that broker.
    pub client_id: String,
    /// Where it says `online`, retained, and its will `offline`.
    pub state: Topic,
    /// Name and password.
    pub credentials: Option<(String, String)>,
    /// What this site wants of other sites: the broker does not tell what its clients subscribe to.
    pub subscribe: Vec<Filter>,
    /// Largest packet taken from the broker, in bytes.
    pub max_packet: u32,
    pub seed: u64,
}

impl fmt::Display for ExternalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How the connections are, for people.
#[derive(Debug)]
pub(super) struct Health {
    broker: String,
    /// Why a side is not connected.
    lost: Mutex<BTreeMap<Side, String>>,
}

impl Health {
    pub(super) fn told(&self) -> String {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        match lost.values().next() {
            None => format!("connected to {}", self.broker),
            Some(why) => format!("not connected to {}: {why}", self.broker),
        }
    }

    /// Logs what changes.
    fn set(&self, side: Side, why: Option<String>) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        match why {
            Some(why) => {
                if lost.get(&side) != Some(&why) {
                    tracing::warn!(
                        broker = self.broker,
                        ?side,
                        why,
                        "not connected to the site's MQTT broker"
                    );
                }
                lost.insert(side, why);
            }
            None => {
                tracing::info!(broker = self.broker, ?side, "connected to the site's MQTT broker");
                lost.remove(&side);
            }
        }
    }
}

/// Starts to use the broker, there or not; call it inside a tokio runtime.
pub fn start(config: ExternalConfig) -> (BrokerHandle, mpsc::Receiver<BrokerEvent>) {
    let (node, events) = mpsc::channel(NODE_QUEUE);
    let (requests, inbox) = mpsc::channel(MAILBOX);
    let (stop, stopped) = watch::channel(false);
    let (clock, counters) = (Clock::start(), Arc::new(Counters::default()));
    let lost = Side::ALL.map(|side| (side, "no answer yet".to_owned()));
    let health = Arc::new(Health { broker: config.to_string(), lost: Mutex::new(lost.into()) });
    let room = Arc::new(Semaphore::new(ROOM));
    let handle =
        BrokerHandle::external(requests, room, Arc::clone(&counters), clock, stop, Arc::clone(&health));
    let config = Arc::new(config);
    let (told, lines) = mpsc::channel(LINE_EVENTS);
    let mut connections = JoinSet::new();
    for side in Side::ALL {
        let (config, told) = (Arc::clone(&config), told.clone());
        connections.spawn(async move { line::keep(side, &config, told).await });
    }
    let members = Filter::new("$hw/events/node/#").ok();
    let interests = config.subscribe.iter().cloned().chain(members);
    let interests = interests.map(|filter| BrokerEvent::Interest { filter, wanted: true });
    let news = interests.chain([BrokerEvent::Restored]).map(|event| News { event, read: None }).collect();
    let mut desk = Desk::default();
    desk.announce(state(&config.state, line::ONLINE), None);
    let task = External {
        config,
        desk,
        clients: BTreeMap::new(),
        limits: BTreeMap::new(),
        complaints: BTreeSet::new(),
        sleepless: bus::io::Clock::start(),
        connections,
        port: Arc::default(),
        asked: 0,
        unanswered: BTreeMap::new(),
        news,
        counters,
        clock,
        health,
    };
    spawn("mqtt external", task.run(node, inbox, lines, stopped));
    (handle, events)
}

fn state(topic: &Topic, state: &'static str) -> Message {
    Message {
        topic: topic.clone(),
        payload: Bytes::from_static(state.as_bytes()),
        qos: Qos::AtLeastOnce,
        retain: true,
        expires: None,
        properties: Vec::new(),
        from: None,
    }
}

/// Something for the node.
struct News {
    event: BrokerEvent,
    /// When it was read, if it must not get old.
    read: Option<Mono>,
}

/// The task's state.
struct External {
    config: Arc<ExternalConfig>,
    desk: Desk,
    clients: BTreeMap<Side, AsyncClient>,
    limits: BTreeMap<Side, Limits>,
    /// What was said of refused messages: each side and code once.
    complaints: BTreeSet<(Side, String)>,
    /// It goes on while the machine sleeps, as those of the connections do.
    sleepless: bus::io::Clock,
    connections: JoinSet<()>,
    /// Where the node's answers come.
    port: Arc<Port>,
    asked: u64,
    /// What the broker waits for, bounded by the receive maximum of both sessions.
    unanswered: BTreeMap<Answer, (Side, Publish)>,
    /// Bounded by [`MAX_NEWS`] and by what the node waits for a receipt of.
    news: VecDeque<News>,
    counters: Arc<Counters>,
    clock: Clock,
    health: Arc<Health>,
}

impl External {
    async fn run(
        mut self,
        node: mpsc::Sender<BrokerEvent>,
        mut inbox: mpsc::Receiver<Request>,
        mut lines: mpsc::Receiver<(Side, LineEvent)>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let port = Arc::clone(&self.port);
        loop {
            self.say_all();
            tokio::select! {
                request = inbox.recv() => match request {
                    Some(request) => self.handle_request(request),
                    None => return,
                },
                Some((side, event)) = lines.recv(), if self.news.len() < MAX_NEWS => {
                    self.handle_line(side, event);
                }
                permit = node.reserve(), if !self.news.is_empty() => match (permit, self.news.pop_front()) {
                    (Ok(permit), Some(news)) => {
                        if let Some(event) = self.fresh(news) {
                            permit.send(event);
                        }
                    }
                    (Ok(_), None) => {}
                    (Err(_), _) => return,
                },
                () = port.woken() => self.take_answers(),
                // They keep a connection for ever. Without one of them the node must not go on as if all were well.
                Some(_) = self.connections.join_next() => return,
                // That the last handle is gone shows at the inbox.
                Ok(_) = stopped.wait_for(|stop| *stop) => break,
            }
        }
        while let Ok(request) = inbox.try_recv() {
            self.handle_request(request);
        }
        self.take_answers();
        self.desk.announce(state(&self.config.state, line::OFFLINE), None);
        let _ = tokio::time::timeout(FAREWELL, self.say_farewell(&mut lines)).await;
        self.connections.shutdown().await;
    }

    /// What is on its way, and a goodbye behind it, so that the broker keeps nothing for the clean session.
    async fn say_farewell(&mut self, lines: &mut mpsc::Receiver<(Side, LineEvent)>) {
        let mut is_told = false;
        while !self.clients.is_empty() {
            self.say_all();
            if !is_told && Side::ALL.into_iter().all(|side| !self.desk.has_more(side)) {
                is_told = self.clients.values().all(|client| client.try_disconnect().is_ok());
            }
            match lines.recv().await {
                // The news is not for the node any more, but who goes is noted.
                Some((side, event)) => self.handle_line(side, event),
                None => return,
            }
        }
    }

    fn handle_request(&mut self, request: Request) {
        let Request::Publish { message, receipt, room: _, .. } = request else { return };
        self.desk.announce(message, receipt);
        self.tell_receipts();
    }

    fn handle_line(&mut self, side: Side, event: LineEvent) {
        match event {
            LineEvent::Connected(client, limits) => {
                // Nothing else was asked of this client yet.
                if let Err(error) = client.try_subscribe_many(line::filters(side)) {
                    tracing::error!(%error, "cannot subscribe");
                }
                self.clients.insert(side, client);
                match limits {
                    Ok(limits) => drop(self.limits.insert(side, limits)),
                    Err(why) => {
                        self.health.set(side, Some(why));
                        self.hang_up(side);
                    }
                }
            }
            LineEvent::Subscribed(Ok(())) => {
                if let Some(limits) = self.limits.remove(&side) {
                    self.desk.handle_up(side, limits);
                    self.health.set(side, None);
                }
            }
            LineEvent::Subscribed(Err(code)) => {
                let why = format!("it lets this node in, but not subscribe to all that it needs ({code})");
                self.health.set(side, Some(why));
                self.hang_up(side);
            }
            LineEvent::Handed(packet) => self.desk.handle_handed(side, packet),
            LineEvent::Acked(packet, ack, code) => {
                if ack != Ack::Taken {
                    count(&self.counters.refused);
                    if self.complaints.insert((side, code.clone())) {
                        tracing::warn!(
                            code,
                            ?side,
                            "the site's MQTT broker does not take what this node says"
                        );
                    }
                }
                self.desk.handle_acked(side, packet, ack);
                if ack == Ack::Later {
                    self.hang_up(side);
                }
            }
            LineEvent::Message(publish, read) => self.hear(side, publish, read),
            LineEvent::Lost(why) => self.lose(side, why),
        }
        self.tell_receipts();
    }

    fn hang_up(&mut self, side: Side) {
        if let Some(client) = self.clients.get(&side) {
            // Full only if the connection hangs, and then it breaks by itself.
            let _ = client.try_disconnect();
        }
    }

    fn lose(&mut self, side: Side, why: String) {
        // A refused subscription says more than the end of the connection that followed from it.
        if self.clients.remove(&side).is_none() || self.desk.is_up(side) {
            self.health.set(side, Some(why));
        }
        self.limits.remove(&side);
        self.unanswered.retain(|_, (asking, _)| *asking != side);
        let Gone { mappers, interests } = self.desk.handle_down(side);
        for mapper in mappers {
            let topic = bus::twin::MapperTopic::State { mapper }.topic();
            let payload = Bytes::from_static(line::OFFLINE.as_bytes());
            self.tell(heard(topic, payload, Qos::AtMostOnce, false));
        }
        for filter in interests {
            self.tell(BrokerEvent::Interest { filter, wanted: false });
        }
    }

    fn tell(&mut self, event: BrokerEvent) {
        self.news.push_back(News { event, read: None });
    }

    /// `None`: it is too old by now.
    fn fresh(&self, News { event, read }: News) -> Option<BrokerEvent> {
        if read.is_none_or(|read| self.sleepless.now().mono.since(read) <= STALE) {
            return Some(event);
        }
        count(&self.counters.expired);
        if let BrokerEvent::Publish { ticket: Some(ticket), .. } = event {
            ticket.settle(Ok(()));
        }
        None
    }

    fn tell_receipts(&mut self) {
        while let Some(receipt) = self.desk.poll_receipt() {
            self.tell(BrokerEvent::Keep { ticket: None, rows: Vec::new(), receipt: Some(receipt) });
        }
        let (dropped, too_large) =
            (std::mem::take(&mut self.desk.dropped), std::mem::take(&mut self.desk.too_large));
        self.counters.dropped.fetch_add(dropped, Relaxed);
        self.counters.too_large.fetch_add(too_large, Relaxed);
    }

    fn hear(&mut self, side: Side, publish: Publish, read: Mono) {
        count(&self.counters.received);
        let topic = str::from_utf8(&publish.topic).ok().and_then(|text| Topic::new(text).ok());
        let Some(topic) = topic else {
            count(&self.counters.malformed);
            return self.acknowledge(side, &publish);
        };
        match self.desk.hear(&topic, &publish.payload, publish.retain) {
            Ok(true) => {
                for filter in self.desk.listens(&topic, &publish.payload) {
                    self.tell(BrokerEvent::Interest { filter, wanted: true });
                }
                self.tell_node(side, topic, publish, read);
            }
            Ok(false) => self.acknowledge(side, &publish),
            Err(why) => {
                tracing::debug!(%topic, %why, "a message at the site's broker is not taken");
                count(&self.counters.refused);
                self.acknowledge(side, &publish);
            }
        }
    }

    fn tell_node(&mut self, side: Side, topic: Topic, publish: Publish, read: Mono) {
        let asks = publish.qos != QoS::AtMostOnce;
        let Publish { payload, retain, properties, .. } = publish.clone();
        let qos = if asks { Qos::AtLeastOnce } else { Qos::AtMostOnce };
        let mut event = heard(topic, payload, qos, retain);
        if let BrokerEvent::Publish { ticket, expiry, properties: kept, .. } = &mut event {
            *ticket = asks.then(|| self.ticket(side, publish));
            let properties = properties.unwrap_or_default();
            *expiry = properties.message_expiry_interval.map(|left| Duration::from_secs(left.into()));
            *kept = from_wire(properties);
            if side == Side::Twins {
                kept.response_topic = kept.response_topic.take().filter(|topic| topic.starts_with(ANSWERS));
            }
        }
        self.news.push_back(News { event, read: (side == Side::Twins).then_some(read) });
    }

    fn ticket(&mut self, side: Side, publish: Publish) -> Ticket {
        self.asked += 1;
        let answer = Answer::numbered(self.asked);
        self.unanswered
            .insert(answer, (side, Publish { payload: Bytes::new(), properties: None, ..publish }));
        Ticket::new(Some(Asked { port: Arc::clone(&self.port), answer }), Vec::new())
    }

    fn take_answers(&mut self) {
        for (answer, outcome) in self.port.take_answers() {
            let Some((side, publish)) = self.unanswered.remove(&answer) else { continue };
            match outcome {
                // The broker has it still, and hands it out again on the next connection. Waits grow from one to the next.
                Err(Refusal::Disk | Refusal::Quota) if side == Side::Mesh => self.hang_up(side),
                Err(_) => {
                    count(&self.counters.refused);
                    self.acknowledge(side, &publish);
                }
                Ok(()) => self.acknowledge(side, &publish),
            }
        }
    }

    fn acknowledge(&self, side: Side, publish: &Publish) {
        if let Some(client) = self.clients.get(&side)
            && let Err(error) = client.try_ack(publish)
        {
            tracing::debug!(%error, "a message is not acknowledged, and comes again");
        }
    }

    /// As much as the connections take.
    fn say_all(&mut self) {
        let now = self.clock.now().mono;
        for side in Side::ALL {
            let Some(client) = self.clients.get(&side) else { continue };
            while let Some(message) = self.desk.next(side, now) {
                let properties = PublishProperties {
                    message_expiry_interval: message.seconds_left(now),
                    ..to_wire(to_bus(&message.properties))
                };
                let Message { topic, payload, qos, retain, .. } = message;
                let qos = qos_to_wire(qos);
                let said =
                    client.try_publish_with_properties(topic.as_str(), qos, retain, payload, properties);
                match said {
                    Ok(()) => count(&self.counters.sent),
                    // The connection has just ended.
                    Err(error) => {
                        tracing::debug!(%error, %topic, "not published");
                        count(&self.counters.dropped);
                        break;
                    }
                }
            }
        }
    }
}

fn heard(topic: Topic, payload: Bytes, qos: Qos, retain: bool) -> BrokerEvent {
    BrokerEvent::Publish {
        ticket: None,
        client: "the site's broker".to_owned(),
        who: Who::Anonymous,
        topic,
        payload,
        qos: qos_to_bus(qos),
        retain,
        expiry: None,
        properties: Properties::default(),
        rows: Vec::new(),
    }
}

fn qos_to_wire(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn to_wire(properties: Properties) -> PublishProperties {
    let Properties { text, content_type, response_topic, correlation, user } = properties;
    PublishProperties {
        payload_format_indicator: text.map(u8::from),
        content_type,
        response_topic,
        correlation_data: correlation.map(Bytes::from),
        user_properties: user,
        ..PublishProperties::default()
    }
}

fn from_wire(properties: PublishProperties) -> Properties {
    let PublishProperties { payload_format_indicator, response_topic, correlation_data, .. } = properties;
    Properties {
        text: payload_format_indicator.map(|format| format == 1),
        content_type: properties.content_type,
        response_topic,
        correlation: correlation_data.map(Vec::from),
        user: properties.user_properties,
    }
}

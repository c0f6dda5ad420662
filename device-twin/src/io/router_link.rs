//! rumqttd's router as our fan-out engine, behind one in-process link.
//!
//! Messages go in in batches, each closed by a marker, and the next batch waits for the marker to come back. The
//! router reads each filter's log in turn and at most [`TURN`] messages at a time, and a batch is shorter than that:
//! when the marker is back, every match of the batch was told. So its logs, which drop the oldest silently, never
//! hold more than one batch that is unread, and no client is ever slow to the router.
//!
//! Its memory has no way back: it keeps a log per filter and an index entry per topic for ever. Both are bounded
//! here; what is beyond is matched by the hub ([`RouterLink::carries`], [`RouterLink::is_direct`]).

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bus::{Filter, Topic};
use bytes::Bytes;
use rumqttd::local::{LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{
    self, Packet, Publish, PublishProperties, QoS, RetainForwardRule, Subscribe, SubscribeProperties,
    Unsubscribe,
};
use rumqttd::{Broker, Config, Forward, Notification, RouterConfig};
use tokio::time::Instant;

use crate::gate::name;
use crate::gate::subscriptions::FilterId;
use crate::gate::{Message, Numbered};

/// Most messages of a batch: the router's fair share of a turn, and it fits the byte in which its index travels.
pub(super) const MAX_BATCH: usize = 100;

/// A batch ends with the message that makes it this large.
pub(super) const MAX_BATCH_BYTES: usize = 64 * 1024;

/// Messages that the router reads of one filter at a time: more than a batch and its marker.
const TURN: u64 = 200;

/// Three segments of this hold a batch whatever it begins in; a filter pins that much for good.
const SEGMENT: usize = 64 * 1024;
const SEGMENTS: usize = 3;

/// Filters the router ever hears of; an idle one costs 6 KiB, a busy one up to its three segments.
const MAX_FILTERS: usize = 1024;

/// Topics the router ever hears of, about 200 bytes each.
const MAX_TOPICS: usize = 100_000;

/// A batch takes the router well under a millisecond. One that is silent for this long is given up for dead.
const PATIENCE: Duration = Duration::from_secs(5);

/// The router's number for the marker's filter; clients' filters count up from 1.
const MARKER_ID: usize = (1 << 28) - 1;

/// What the router says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// The message of the batch with this index matches this filter.
    Matched { filter: FilterId, index: u8 },
    /// All matches of the batch were told.
    Settled,
}

/// The link.
pub(super) struct RouterLink {
    tx: LinkTx,
    rx: LinkRx,
    /// The router paused since the last marker went out: what it held back comes behind that marker.
    paused: bool,
    /// By when the batch in hand is to be done with; `None`: there is none.
    unsettled_until: Option<Instant>,
    known_filters: BTreeSet<Filter>,
    direct: BTreeSet<FilterId>,
    known_topics: BTreeSet<u64>,
    _broker: Broker,
}

impl RouterLink {
    /// Starts a router. Its thread ends with the process: rumqttd has no way to stop it.
    pub(super) async fn start() -> Result<Self, LinkError> {
        let broker = Broker::new(config());
        let (tx, rx) = broker.link("kubebus")?;
        let mut link = Self {
            tx,
            rx,
            paused: false,
            unsettled_until: None,
            known_filters: BTreeSet::new(),
            direct: BTreeSet::new(),
            known_topics: BTreeSet::new(),
            _broker: broker,
        };
        link.subscribe(MARKER_ID, name::MARKER.to_owned()).await?;
        // The first batch waits as well: a marker's filter that the router has not looked at yet would be in turn
        // before the filters that come after it.
        link.mark().await?;
        Ok(link)
    }

    /// Whether a batch may be sent.
    pub(super) fn is_settled(&self) -> bool {
        self.unsettled_until.is_none()
    }

    /// Whether the hub has to match this filter itself.
    pub(super) fn is_direct(&self, id: FilterId) -> bool {
        self.direct.contains(&id)
    }

    /// Whether any filter is to be matched by the hub.
    pub(super) fn has_direct(&self) -> bool {
        !self.direct.is_empty()
    }

    /// Whether the router has room for the topic's name; if so it is reserved.
    pub(super) fn carries(&mut self, topic: &Topic) -> bool {
        let mut hasher = DefaultHasher::new();
        topic.hash(&mut hasher);
        let hash = hasher.finish();
        if self.known_topics.len() >= MAX_TOPICS {
            return self.known_topics.contains(&hash);
        }
        self.known_topics.insert(hash);
        true
    }

    pub(super) async fn watch(&mut self, id: FilterId, filter: &Filter) -> Result<(), LinkError> {
        if self.known_filters.len() >= MAX_FILTERS && !self.known_filters.contains(filter) {
            self.direct.insert(id);
            return Ok(());
        }
        self.known_filters.insert(filter.clone());
        self.subscribe(id.0, name::of_filter(filter)).await
    }

    async fn subscribe(&mut self, id: usize, path: String) -> Result<(), LinkError> {
        let filter = protocol::Filter {
            path,
            qos: QoS::AtMostOnce,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::Never,
        };
        let properties = SubscribeProperties { id: Some(id), user_properties: vec![] };
        let subscribe = Subscribe { pkid: 1, filters: vec![filter] };
        self.tx.send(Packet::Subscribe(subscribe, Some(properties))).await?;
        Ok(())
    }

    pub(super) async fn unwatch(&mut self, id: FilterId, filter: &Filter) -> Result<(), LinkError> {
        if self.direct.remove(&id) {
            return Ok(());
        }
        let unsubscribe = Unsubscribe { pkid: 1, filters: vec![name::of_filter(filter)] };
        self.tx.send(Packet::Unsubscribe(unsubscribe, None)).await?;
        Ok(())
    }

    /// Sends a batch of at most [`MAX_BATCH`]; the router must be settled.
    pub(super) async fn send(&mut self, batch: &[Numbered]) -> Result<(), LinkError> {
        debug_assert!(self.is_settled() && batch.len() <= MAX_BATCH);
        self.tx.buffer().extend((0..).zip(batch).map(|(index, carried)| publish(&carried.message, index)));
        self.mark().await
    }

    async fn mark(&mut self) -> Result<(), LinkError> {
        self.paused = false;
        self.unsettled_until = Some(Instant::now() + PATIENCE);
        let marker =
            Publish::new(Bytes::from_static(name::MARKER.as_bytes()), Bytes::from_static(b"."), false);
        self.tx.send(Packet::Publish(marker, None)).await?;
        Ok(())
    }

    /// Kills the router the way a client of rumqttd's own front can: with a topic that begins outside ASCII.
    #[cfg(test)]
    pub(super) async fn poison(&mut self) -> Result<(), LinkError> {
        let topic = Bytes::from_static("ä".as_bytes());
        self.tx.send(Packet::Publish(Publish::new(topic, Bytes::from_static(b"x"), false), None)).await?;
        Ok(())
    }

    /// Waits for the router; may be dropped while waiting.
    pub(super) async fn next(&mut self) -> Result<Said, LinkError> {
        loop {
            let notification = match self.unsettled_until {
                Some(until) => tokio::time::timeout_at(until, self.rx.next()).await??,
                None => self.rx.next().await?,
            };
            if let Some(notification) = notification
                && let Some(said) = self.handle(notification).await?
            {
                return Ok(said);
            }
        }
    }

    async fn handle(&mut self, notification: Notification) -> Result<Option<Said>, LinkError> {
        match notification {
            Notification::Forward(forward) => self.handle_forward(&forward).await,
            Notification::Unschedule => {
                self.paused = true;
                self.rx.ready()?;
                Ok(None)
            }
            Notification::Disconnect(..) => Err(LinkError::NotConnectionAck),
            Notification::DeviceAck(_)
            | Notification::ReplicaData { .. }
            | Notification::ReplicaAcks { .. }
            | Notification::Shadow(_) => Ok(None),
        }
    }

    async fn handle_forward(&mut self, forward: &Forward) -> Result<Option<Said>, LinkError> {
        let Some(properties) = &forward.properties else { return Ok(None) };
        match (properties.subscription_identifiers.first(), properties.payload_format_indicator) {
            (Some(&MARKER_ID), _) if self.paused => {
                self.mark().await?;
                Ok(None)
            }
            (Some(&MARKER_ID), _) => {
                self.unsettled_until = None;
                Ok(Some(Said::Settled))
            }
            (Some(&id), Some(index)) => Ok(Some(Said::Matched { filter: FilterId(id), index })),
            _ => Ok(None),
        }
    }
}

/// The message's place in its batch rides in a property that rumqttd passes on unread.
fn publish(message: &Message, index: u8) -> Packet {
    let topic = Bytes::from(name::of_topic(&message.topic));
    let properties = PublishProperties { payload_format_indicator: Some(index), ..Default::default() };
    Packet::Publish(Publish::new(topic, message.payload.clone(), false), Some(properties))
}

fn config() -> Config {
    Config {
        router: RouterConfig {
            max_connections: 1,
            max_outgoing_packet_count: TURN,
            max_segment_size: SEGMENT,
            max_segment_count: SEGMENTS,
            ..Default::default()
        },
        ..Default::default()
    }
}

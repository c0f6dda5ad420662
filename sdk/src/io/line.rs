//! The connection to the broker: MQTT 5, clean session, a client of its own per connection, so that nothing of an old
//! connection can leak into a new one.

use std::convert::Infallible;
use std::time::Duration;

use bus::Backoff;
use bus::twin::MapperTopic;
use bytes::Bytes;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc;

use super::Options;
use crate::desk::WINDOW;

/// Largest message from the node: the configuration of thousands of devices, sent whole.
const MAX_PACKET: u32 = 8 * 1024 * 1024;

/// How soon a dead broker is noticed: after two of these at most.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// First and longest wait before the next try to connect. The broker is on the same machine or next to it.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Packet ids in use: well above the window, so that a broker that acknowledges out of order (it may hold one message
/// until its disk has it) does not block the others.
const MAX_IN_FLIGHT: u16 = 1024;

/// What happens on the connection.
pub(super) enum LineEvent {
    Connected(AsyncClient),
    /// The broker's answer to our subscriptions.
    Subscribed {
        granted: bool,
    },
    /// A message on one of the topics that this mapper listens to.
    Message {
        topic: Bytes,
        payload: Bytes,
        retained: bool,
    },
    Acked,
    Lost,
    /// Closed because we said goodbye.
    Closed,
}

/// Keeps a connection for ever.
pub(super) async fn keep(options: &Options, events: mpsc::Sender<LineEvent>) -> Infallible {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, options.seed);
    let mut told = false;
    loop {
        // Requests: a full window, the subscriptions, the state, the goodbye.
        let (client, connection) = AsyncClient::new(mqtt_options(options), WINDOW + 8);
        let mut attempt = Attempt { client: Some(client), connection, events: &events };
        let end = attempt.run().await;
        if attempt.client.is_none() {
            backoff.reset();
            told = false;
            drop(events.send(LineEvent::Lost).await);
        }
        let wait = backoff.next_wait();
        if !told {
            tracing::warn!(broker = %format_args!("{}:{}", options.host, options.port), why = %end, "not connected");
            told = true;
        }
        drop(attempt);
        tokio::time::sleep(wait).await;
    }
}

fn mqtt_options(options: &Options) -> MqttOptions {
    let id = format!("mapper-{}", options.name);
    let mut mqtt = MqttOptions::new(id, options.host.clone(), options.port);
    let state = MapperTopic::State { mapper: options.name.clone() }.topic();
    mqtt.set_last_will(LastWill::new(state.as_str(), "offline", QoS::AtLeastOnce, true, None))
        .set_clean_start(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_max_packet_size(Some(MAX_PACKET))
        .set_outgoing_inflight_upper_limit(MAX_IN_FLIGHT);
    if let Some((user, password)) = &options.credentials {
        mqtt.set_credentials(user, password);
    }
    mqtt
}

/// One connection, from dialling to its end.
struct Attempt<'a> {
    /// Handed over when the broker has accepted us.
    client: Option<AsyncClient>,
    connection: EventLoop,
    events: &'a mpsc::Sender<LineEvent>,
}

impl Attempt<'_> {
    /// Returns why it ended.
    async fn run(&mut self) -> String {
        loop {
            let event = match self.connection.poll().await {
                Ok(event) => event,
                Err(error) => return error.to_string(),
            };
            let Some(event) = self.understand(event) else { continue };
            if self.events.send(event).await.is_err() {
                return "the mapper has ended".to_owned();
            }
        }
    }

    fn understand(&mut self, event: Event) -> Option<LineEvent> {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => self.client.take().map(LineEvent::Connected),
            Event::Incoming(Packet::SubAck(ack)) => {
                let granted = ack.return_codes.iter().all(|c| matches!(c, SubscribeReasonCode::Success(_)));
                Some(LineEvent::Subscribed { granted })
            }
            Event::Incoming(Packet::PubAck(_)) => Some(LineEvent::Acked),
            Event::Incoming(Packet::Publish(publish)) => {
                let retained = publish.retain;
                Some(LineEvent::Message { topic: publish.topic, payload: publish.payload, retained })
            }
            Event::Outgoing(Outgoing::Disconnect) => Some(LineEvent::Closed),
            Event::Incoming(_) | Event::Outgoing(_) => None,
        }
    }
}

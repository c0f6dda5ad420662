//! One session at the site's broker: a connection after another, each with a client of its own, so that nothing that was
//! on its way when one broke is sent late on the next.

use std::time::Duration;

use bus::Backoff;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, Packet, PubAckReason, PubRecReason, Publish, RetainForwardRule, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc;

use super::ExternalConfig;
use crate::external::{Side, WINDOW};

/// How soon a dead broker is noticed: after two of these at most.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// First and longest wait before the next try to connect.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Messages that this node may owe an acknowledgement for.
const RECEIVE_MAXIMUM: u16 = 256;

/// Requests of a client: a full window, all acknowledgements, the subscription, the goodbye.
const REQUESTS: usize = WINDOW + RECEIVE_MAXIMUM as usize + 8;

/// Packet ids in use: above the window, so that a broker that acknowledges out of order does not block the others.
const MAX_IN_FLIGHT: u16 = 256;

/// How long the broker is to keep the mesh's session and its messages, in seconds: a week.
const SESSION_EXPIRY: u32 = 7 * 24 * 3600;

/// What happens on a connection.
pub(super) enum LineEvent {
    /// The broker has let us in.
    Connected(AsyncClient),
    /// Its answer to our subscriptions: a reason if it does not grant all.
    Subscribed(Result<(), String>),
    /// The oldest message that was handed over has gone out; 0: at QoS 0.
    Handed(u16),
    /// With the reason, if it does not take the message.
    Acked(u16, Result<(), String>),
    Message(Publish),
    Lost(String),
}

/// What a side subscribes to. No topic is heard that this node says itself.
pub(super) fn filters(side: Side, config: &ExternalConfig) -> Vec<Filter> {
    let (texts, rule): (Vec<&str>, _) = match side {
        // What was retained some time ago is no wish and no reading of now.
        Side::Twins => (
            vec![
                "twin/+/+/set/+",
                "twin/+/+/report",
                "twin/+/+/report/+",
                "twin/+/+/command/+",
                "mapper/+/result",
                "$hw/events/#",
            ],
            RetainForwardRule::Never,
        ),
        Side::Mesh => {
            let all = config.subscribe.iter().map(bus::Filter::as_str);
            (all.filter(|filter| filter.starts_with("mesh/")).collect(), RetainForwardRule::OnNewSubscribe)
        }
    };
    let filter = |text: &str, rule| Filter {
        path: text.to_owned(),
        qos: QoS::AtLeastOnce,
        nolocal: true,
        preserve_retain: true,
        retain_forward_rule: rule,
    };
    let states = (side == Side::Twins).then(|| filter("mapper/+/state", RetainForwardRule::OnEverySubscribe));
    texts.into_iter().map(|text| filter(text, rule.clone())).chain(states).collect()
}

fn options(side: Side, config: &ExternalConfig) -> MqttOptions {
    let id = match side {
        Side::Twins => format!("{}-twins", config.client_id),
        Side::Mesh => format!("{}-mesh", config.client_id),
    };
    let mut options = MqttOptions::new(id, config.host.clone(), config.port);
    options
        .set_clean_start(side == Side::Twins)
        .set_session_expiry_interval(Some(if side == Side::Mesh { SESSION_EXPIRY } else { 0 }))
        .set_keep_alive(KEEP_ALIVE)
        .set_manual_acks(true)
        .set_receive_maximum(Some(RECEIVE_MAXIMUM))
        .set_max_packet_size(Some(config.max_packet))
        .set_outgoing_inflight_upper_limit(MAX_IN_FLIGHT);
    if let Some((user, password)) = &config.credentials {
        options.set_credentials(user, password);
    }
    options
}

/// Keeps a connection for ever.
pub(super) async fn keep(side: Side, config: &ExternalConfig, events: mpsc::Sender<(Side, LineEvent)>) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, config.seed ^ u64::from(side == Side::Mesh));
    loop {
        let (client, connection) = AsyncClient::new(options(side, config), REQUESTS);
        let mut attempt = Attempt { side, client: Some(client), connection, events: &events };
        let Some(why) = attempt.run().await else { return };
        if attempt.client.is_none() {
            backoff.reset();
        }
        drop(attempt);
        if events.send((side, LineEvent::Lost(why))).await.is_err() {
            return;
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

/// One connection, from dialling to its end.
struct Attempt<'a> {
    side: Side,
    /// Handed over when the broker has accepted us.
    client: Option<AsyncClient>,
    connection: EventLoop,
    events: &'a mpsc::Sender<(Side, LineEvent)>,
}

impl Attempt<'_> {
    /// Returns why it ended; `None` if nobody wants to know.
    async fn run(&mut self) -> Option<String> {
        loop {
            let event = match self.connection.poll().await {
                Ok(event) => event,
                Err(error) => return Some(explain(&error)),
            };
            if let Some(event) = self.understand(event) {
                self.events.send((self.side, event)).await.ok()?;
            }
        }
    }

    fn understand(&mut self, event: Event) -> Option<LineEvent> {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => self.client.take().map(LineEvent::Connected),
            Event::Incoming(Packet::SubAck(ack)) => {
                Some(LineEvent::Subscribed(refused(&ack).map_or(Ok(()), Err)))
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                let is_taken =
                    matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
                let outcome = if is_taken { Ok(()) } else { Err(format!("{:?}", ack.reason)) };
                Some(LineEvent::Acked(ack.pkid, outcome))
            }
            Event::Incoming(Packet::PubRec(ack)) => {
                let is_taken =
                    matches!(ack.reason, PubRecReason::Success | PubRecReason::NoMatchingSubscribers);
                (!is_taken).then(|| LineEvent::Acked(ack.pkid, Err(format!("{:?}", ack.reason))))
            }
            Event::Incoming(Packet::PubComp(complete)) => Some(LineEvent::Acked(complete.pkid, Ok(()))),
            Event::Incoming(Packet::Publish(publish)) => Some(LineEvent::Message(publish)),
            Event::Outgoing(Outgoing::Publish(packet)) => Some(LineEvent::Handed(packet)),
            Event::Incoming(_) | Event::Outgoing(_) => None,
        }
    }
}

/// The codes by which the broker does not grant what was asked for, in words.
fn refused(ack: &SubAck) -> Option<String> {
    let mut codes = ack.return_codes.iter().filter(|code| !matches!(code, SubscribeReasonCode::Success(_)));
    codes.next().map(|code| format!("{code:?}"))
}

/// For people, with what they can do.
fn explain(error: &ConnectionError) -> String {
    use rumqttc::v5::mqttbytes::v5::ConnectReturnCode as Code;
    let ConnectionError::ConnectionRefused(code) = error else { return bus::with_causes(error) };
    if matches!(code, Code::BadUserNamePassword | Code::NotAuthorized) {
        "it does not accept this node's name and password: see mqtt.external.username and password-file"
            .to_owned()
    } else if matches!(code, Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion) {
        "it does not speak MQTT 5, which this node needs to tell stale messages from fresh ones".to_owned()
    } else {
        format!("it refuses this node: {code:?}")
    }
}

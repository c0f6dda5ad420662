//! One session at the site's broker: a connection after another, each with a client of its own, so that nothing that was
//! on its way when one broke is sent late on the next.

use std::time::Duration;

use bus::io::Clock;
use bus::{Backoff, Mono};
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Filter, LastWill, Packet, PubAckReason, Publish, RetainForwardRule, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc;

use super::ExternalConfig;
use crate::external::{Ack, Limits, Side, WINDOW};
use crate::gate::Qos;

/// How soon a dead broker is noticed: after two of these at most.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A connection that was not looked at for so long is given up: what came meanwhile is not of now. Pings alone wake it
/// more often, so this node, or its machine, stood still.
const STOOD_STILL: Duration = Duration::from_secs(15);

/// A connection that held for so long was a good one: the next try comes soon again.
const GOOD: Duration = Duration::from_secs(10);

/// First and longest wait before the next try to connect.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Messages that this node may owe an acknowledgement for.
const RECEIVE_MAXIMUM: u16 = 256;

/// Requests of a client: a full window, all acknowledgements, the subscription, the goodbye.
const REQUESTS: usize = WINDOW + RECEIVE_MAXIMUM as usize + 8;

/// Messages that are not acknowledged; fewer if the broker says so.
const MAX_IN_FLIGHT: u16 = 256;

/// How long the broker is to keep the mesh's session and its messages, in seconds: a week.
const SESSION_EXPIRY: u32 = 7 * 24 * 3600;

/// What happens on a connection.
pub(super) enum LineEvent {
    /// The broker has let us in.
    Connected(AsyncClient, Result<Limits, String>),
    /// Its answer to our subscriptions: a reason if it does not grant all.
    Subscribed(Result<(), String>),
    /// The oldest message that was handed over has gone out; 0: at QoS 0.
    Handed(u16),
    /// With the reason, if it does not take the message.
    Acked(u16, Ack, String),
    /// And when it was read.
    Message(Publish, Mono),
    Lost(String),
}

/// What a side subscribes to: at QoS 1, and no topic is heard that this node says itself. What was retained some time ago
/// is no wish and no reading of now, and may have come from another site; who is online is.
pub(super) fn filters(side: Side) -> Vec<Filter> {
    let (fresh, states): (&[&str], &[&str]) = match side {
        Side::Twins => (
            &[
                "twin/+/+/set/+",
                "twin/+/+/report",
                "twin/+/+/report/+",
                "twin/+/+/command/+",
                "mapper/+/result",
                "$hw/events/#",
            ],
            &["mapper/+/state"],
        ),
        Side::Mesh => (&["mesh/#"], &[]),
    };
    let filter = |text: &&str, rule| Filter {
        path: (*text).to_owned(),
        qos: QoS::AtLeastOnce,
        nolocal: true,
        preserve_retain: true,
        retain_forward_rule: rule,
    };
    let fresh = fresh.iter().map(|text| filter(text, RetainForwardRule::Never));
    fresh.chain(states.iter().map(|text| filter(text, RetainForwardRule::OnEverySubscribe))).collect()
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
    if side == Side::Twins {
        let will = LastWill::new(config.state.as_str(), OFFLINE, QoS::AtLeastOnce, true, None);
        options.set_last_will(will);
    }
    if let Some((user, password)) = &config.credentials {
        options.set_credentials(user, password);
    }
    options
}

/// Keeps a connection for ever.
pub(super) async fn keep(side: Side, config: &ExternalConfig, events: mpsc::Sender<(Side, LineEvent)>) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, config.seed ^ u64::from(side == Side::Mesh));
    let clock = Clock::start();
    loop {
        let (client, connection) = AsyncClient::new(options(side, config), REQUESTS);
        let mut attempt = Attempt { side, client: Some(client), connection, events: &events, clock };
        let started = clock.now().mono;
        let Some(why) = attempt.run().await else { return };
        if attempt.client.is_none() && clock.now().mono.since(started) > GOOD {
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
    /// It goes on while the machine sleeps.
    clock: Clock,
}

impl Attempt<'_> {
    /// Returns why it ended; `None` if nobody wants to know.
    async fn run(&mut self) -> Option<String> {
        let mut looked = self.clock.now().mono;
        loop {
            let event = match self.connection.poll().await {
                Ok(event) => event,
                Err(error) => return Some(explain(&error)),
            };
            let now = self.clock.now().mono;
            if self.side == Side::Twins && now.since(looked) > STOOD_STILL {
                return Some("this node stood still, and does not act on what came meanwhile".to_owned());
            }
            looked = now;
            if let Some(event) = self.understand(event, now) {
                self.events.send((self.side, event)).await.ok()?;
            }
        }
    }

    fn understand(&mut self, event: Event, now: Mono) -> Option<LineEvent> {
        match event {
            Event::Incoming(Packet::ConnAck(ack)) => {
                self.client.take().map(|client| LineEvent::Connected(client, limits(&ack)))
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                Some(LineEvent::Subscribed(refused(&ack).map_or(Ok(()), Err)))
            }
            Event::Incoming(Packet::PubAck(packet)) => {
                let ack = match packet.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ack::Taken,
                    PubAckReason::NotAuthorized
                    | PubAckReason::TopicNameInvalid
                    | PubAckReason::PayloadFormatInvalid => Ack::Refused,
                    PubAckReason::UnspecifiedError
                    | PubAckReason::ImplementationSpecificError
                    | PubAckReason::PacketIdentifierInUse
                    | PubAckReason::QuotaExceeded => Ack::Later,
                };
                Some(LineEvent::Acked(packet.pkid, ack, format!("{:?}", packet.reason)))
            }
            Event::Incoming(Packet::Publish(publish)) => Some(LineEvent::Message(publish, now)),
            Event::Outgoing(Outgoing::Publish(packet)) => Some(LineEvent::Handed(packet)),
            Event::Incoming(_) | Event::Outgoing(_) => None,
        }
    }
}

/// What the broker takes; or why it is of no use (MQTT 5.0 §3.2.2.3).
fn limits(ack: &ConnAck) -> Result<Limits, String> {
    let Some(said) = &ack.properties else { return Ok(Limits::default()) };
    if said.retain_available == Some(0) {
        return Err("it keeps no retained messages, which twins need".to_owned());
    }
    let max_qos = if said.max_qos == Some(0) { Qos::AtMostOnce } else { Qos::AtLeastOnce };
    let max_packet =
        said.max_packet_size.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    Ok(Limits { max_packet, max_qos })
}

/// Said of this node when it is gone, on [`ExternalConfig::state`].
pub(super) const OFFLINE: &str = "offline";
pub(super) const ONLINE: &str = "online";

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

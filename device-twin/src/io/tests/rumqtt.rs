//! rumqttc as client, both versions behind one face.

use std::net::SocketAddr;

use rumqttc::mqttbytes as v4;
use rumqttc::v5::mqttbytes as v5;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Got, QUIET, within};
use crate::gate::Qos;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Three,
    Five,
}

pub(super) const BOTH: [Version; 2] = [Version::Three, Version::Five];

/// What a client noticed, apart from messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    Connected,
    Subscribed(String),
    Unsubscribed,
    /// PUBACK or PUBCOMP, with its reason.
    Acknowledged(String),
    Down(String),
}

pub(super) enum Handle {
    Three(rumqttc::AsyncClient),
    Five(rumqttc::v5::AsyncClient),
}

pub(super) struct Client {
    pub(super) handle: Handle,
    messages: mpsc::Receiver<Got>,
    notices: mpsc::Receiver<Notice>,
    /// Aborted with the client: to the broker, a crash.
    _task: JoinSet<()>,
}

#[derive(Clone)]
struct Ears {
    messages: mpsc::Sender<Got>,
    notices: mpsc::Sender<Notice>,
}

pub(super) struct Options {
    pub(super) version: Version,
    pub(super) name: &'static str,
    pub(super) will: Option<(&'static str, &'static str, bool)>,
    pub(super) keep_alive_s: u64,
}

impl Options {
    pub(super) fn new(version: Version, name: &'static str) -> Self {
        Self { version, name, will: None, keep_alive_s: 60 }
    }
}

fn qos_4(qos: Qos) -> v4::QoS {
    match qos {
        Qos::AtMostOnce => v4::QoS::AtMostOnce,
        Qos::AtLeastOnce => v4::QoS::AtLeastOnce,
        Qos::ExactlyOnce => v4::QoS::ExactlyOnce,
    }
}

fn qos_5(qos: Qos) -> v5::QoS {
    match qos {
        Qos::AtMostOnce => v5::QoS::AtMostOnce,
        Qos::AtLeastOnce => v5::QoS::AtLeastOnce,
        Qos::ExactlyOnce => v5::QoS::ExactlyOnce,
    }
}

impl Client {
    pub(super) async fn new(address: SocketAddr, version: Version, name: &'static str) -> Self {
        Self::with(address, Options::new(version, name)).await
    }

    pub(super) async fn with(address: SocketAddr, options: Options) -> Self {
        let (messages_tx, messages) = mpsc::channel(100_000);
        let (notices_tx, notices) = mpsc::channel(100_000);
        let ears = Ears { messages: messages_tx, notices: notices_tx };
        let mut task = JoinSet::new();
        let handle = match options.version {
            Version::Three => {
                let (handle, eventloop) = rumqttc::AsyncClient::new(options_4(address, &options), 100);
                task.spawn(run_4(eventloop, ears));
                Handle::Three(handle)
            }
            Version::Five => {
                let (handle, eventloop) = rumqttc::v5::AsyncClient::new(options_5(address, &options), 100);
                task.spawn(run_5(eventloop, ears));
                Handle::Five(handle)
            }
        };
        let mut client = Self { handle, messages, notices, _task: task };
        assert_eq!(client.notice().await, Notice::Connected);
        client
    }

    pub(super) async fn notice(&mut self) -> Notice {
        within("a notice", self.notices.recv()).await.unwrap()
    }

    pub(super) async fn message(&mut self) -> Got {
        within("a message", self.messages.recv()).await.unwrap()
    }

    pub(super) async fn messages(&mut self, count: usize) -> Vec<Got> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            all.push(self.message().await);
        }
        all
    }

    pub(super) async fn hears_nothing(&mut self) {
        let next = tokio::time::timeout(QUIET, self.messages.recv()).await;
        assert!(next.is_err(), "heard {next:?}");
    }

    pub(super) async fn is_told_nothing(&mut self) {
        let next = tokio::time::timeout(QUIET, self.notices.recv()).await;
        assert!(next.is_err(), "told {next:?}");
    }

    pub(super) async fn subscribe(&mut self, filter: &str, qos: Qos) {
        let granted = self.try_subscribe(filter, qos).await;
        assert!(granted.contains("Success"), "{filter}: {granted}");
    }

    /// What SUBACK says.
    pub(super) async fn try_subscribe(&mut self, filter: &str, qos: Qos) -> String {
        match &self.handle {
            Handle::Three(handle) => handle.subscribe(filter, qos_4(qos)).await.unwrap(),
            Handle::Five(handle) => handle.subscribe(filter, qos_5(qos)).await.unwrap(),
        }
        let notice = self.notice().await;
        let Notice::Subscribed(granted) = notice else { panic!("{notice:?} instead of SUBACK") };
        granted
    }

    pub(super) async fn unsubscribe(&mut self, filter: &str) {
        match &self.handle {
            Handle::Three(handle) => handle.unsubscribe(filter).await.unwrap(),
            Handle::Five(handle) => handle.unsubscribe(filter).await.unwrap(),
        }
        assert_eq!(self.notice().await, Notice::Unsubscribed);
    }

    pub(super) async fn publish(&self, topic: &str, payload: &str, qos: Qos, retain: bool) {
        match &self.handle {
            Handle::Three(handle) => handle.publish(topic, qos_4(qos), retain, payload).await.unwrap(),
            Handle::Five(handle) => {
                handle.publish(topic, qos_5(qos), retain, payload.to_owned()).await.unwrap();
            }
        }
    }

    /// Publishes and waits for PUBACK or PUBCOMP; says its reason.
    pub(super) async fn publish_and_wait(&mut self, topic: &str, payload: &str, qos: Qos) -> String {
        self.publish(topic, payload, qos, false).await;
        let notice = self.notice().await;
        let Notice::Acknowledged(reason) = notice else { panic!("{notice:?} instead of PUBACK") };
        reason
    }

    pub(super) async fn disconnect(&self) {
        match &self.handle {
            Handle::Three(handle) => handle.disconnect().await.unwrap(),
            Handle::Five(handle) => handle.disconnect().await.unwrap(),
        }
    }
}

fn options_4(address: SocketAddr, options: &Options) -> rumqttc::MqttOptions {
    let mut mqtt = rumqttc::MqttOptions::new(options.name, address.ip().to_string(), address.port());
    mqtt.set_keep_alive(std::time::Duration::from_secs(options.keep_alive_s));
    mqtt.set_max_packet_size(300_000, 300_000);
    if let Some((topic, payload, retain)) = options.will {
        mqtt.set_last_will(v4::v4::LastWill::new(topic, payload, v4::QoS::AtLeastOnce, retain));
    }
    mqtt
}

fn options_5(address: SocketAddr, options: &Options) -> rumqttc::v5::MqttOptions {
    let mut mqtt = rumqttc::v5::MqttOptions::new(options.name, address.ip().to_string(), address.port());
    mqtt.set_keep_alive(std::time::Duration::from_secs(options.keep_alive_s));
    if let Some((topic, payload, retain)) = options.will {
        mqtt.set_last_will(v5::v5::LastWill::new(topic, payload, v5::QoS::AtLeastOnce, retain, None));
    }
    mqtt
}

async fn run_4(mut eventloop: rumqttc::EventLoop, ears: Ears) {
    use rumqttc::{Event, Packet};
    loop {
        let notice = match eventloop.poll().await {
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let message = Got {
                    topic: publish.topic,
                    payload: String::from_utf8_lossy(&publish.payload).into_owned(),
                    qos: Qos::try_from(publish.qos as u8).unwrap(),
                    retain: publish.retain,
                };
                ears.messages.send(message).await.unwrap();
                continue;
            }
            Ok(Event::Incoming(Packet::ConnAck(_))) => Notice::Connected,
            Ok(Event::Incoming(Packet::SubAck(ack))) => Notice::Subscribed(format!("{:?}", ack.return_codes)),
            Ok(Event::Incoming(Packet::UnsubAck(_))) => Notice::Unsubscribed,
            Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))) => {
                Notice::Acknowledged("Success".into())
            }
            Ok(_) => continue,
            Err(error) => Notice::Down(error.to_string()),
        };
        let over = matches!(notice, Notice::Down(_));
        if ears.notices.send(notice).await.is_err() || over {
            return;
        }
    }
}

async fn run_5(mut eventloop: rumqttc::v5::EventLoop, ears: Ears) {
    use rumqttc::v5::Event;
    use v5::v5::{Packet, PubRecReason};
    loop {
        let notice = match eventloop.poll().await {
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let message = Got {
                    topic: String::from_utf8(publish.topic.to_vec()).unwrap(),
                    payload: String::from_utf8_lossy(&publish.payload).into_owned(),
                    qos: Qos::try_from(publish.qos as u8).unwrap(),
                    retain: publish.retain,
                };
                ears.messages.send(message).await.unwrap();
                continue;
            }
            Ok(Event::Incoming(Packet::ConnAck(_))) => Notice::Connected,
            Ok(Event::Incoming(Packet::SubAck(ack))) => Notice::Subscribed(format!("{:?}", ack.return_codes)),
            Ok(Event::Incoming(Packet::UnsubAck(_))) => Notice::Unsubscribed,
            Ok(Event::Incoming(Packet::PubAck(ack))) => Notice::Acknowledged(format!("{:?}", ack.reason)),
            Ok(Event::Incoming(Packet::PubComp(ack))) => Notice::Acknowledged(format!("{:?}", ack.reason)),
            Ok(Event::Incoming(Packet::PubRec(ack))) if ack.reason != PubRecReason::Success => {
                Notice::Acknowledged(format!("{:?}", ack.reason))
            }
            Ok(Event::Incoming(Packet::Disconnect(bye))) => Notice::Down(format!("{:?}", bye.reason_code)),
            Ok(_) => continue,
            Err(error) => Notice::Down(error.to_string()),
        };
        let over = matches!(notice, Notice::Down(_));
        if ears.notices.send(notice).await.is_err() || over {
            return;
        }
    }
}

//! The broker with real clients over real sockets on loopback.

mod authority;
mod exchange;
mod hostile;
mod kept;
mod login;
mod node;
mod rumqtt;
mod schemas;
mod tls;
mod tools;
mod websocket;

use std::net::SocketAddr;
use std::time::Duration;

use bus::Topic;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::broker::{BrokerConfig, BrokerEvent, BrokerHandle, Ticket, start};
use crate::Publish;
use crate::gate::Qos;

/// Long for a loaded machine, short for a person.
const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough that what should not come would have come.
const QUIET: Duration = Duration::from_millis(300);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// A broker on a free port, and the node's end of it.
struct World {
    broker: BrokerHandle,
    events: mpsc::Receiver<BrokerEvent>,
}

impl World {
    async fn new() -> Self {
        Self::with(BrokerConfig::default()).await
    }

    /// As configured, on free ports.
    async fn with(config: BrokerConfig) -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let (broker, mut events) = start(BrokerConfig { listen, ..config }).await.unwrap();
        let first = within("the end of what is restored", events.recv()).await;
        assert!(matches!(first, Some(BrokerEvent::Restored)), "{first:?}");
        Self { broker, events }
    }

    fn address(&self) -> SocketAddr {
        self.broker.local_addr()
    }

    async fn publish(&self, topic: &str, payload: &str, retain: bool) {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let topic = Topic::new(topic).unwrap();
        let said = Publish { topic, payload, retain, expiry: None };
        self.broker.publish(said.into()).await.unwrap();
    }

    /// The next publication that the node hears of, as text, with its ticket.
    async fn heard(&mut self) -> (String, Option<Ticket>) {
        loop {
            let event = within("an event for the node", self.events.recv()).await.unwrap();
            if let BrokerEvent::Publish { ticket, client, topic, payload, retain, .. } = event {
                let payload = String::from_utf8(payload.to_vec()).unwrap();
                let retained = if retain { " retained" } else { "" };
                return (format!("{client}: {topic} = {payload}{retained}"), ticket);
            }
        }
    }

    /// Who said the next thing that the node hears, which it takes.
    async fn speaker(&mut self) -> String {
        loop {
            let event = within("an event for the node", self.events.recv()).await.unwrap();
            if let BrokerEvent::Publish { ticket, who, .. } = event {
                ticket.into_iter().for_each(|ticket| self.broker.accept(ticket));
                return who.to_string();
            }
        }
    }

    async fn interest(&mut self) -> (String, bool) {
        loop {
            let event = within("an interest for the node", self.events.recv()).await.unwrap();
            if let BrokerEvent::Interest { filter, wanted } = event {
                return (filter.to_string(), wanted);
            }
        }
    }
}

/// A message as a client got it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    topic: String,
    payload: String,
    qos: Qos,
    retain: bool,
}

fn got(topic: &str, payload: &str, qos: Qos, retain: bool) -> Got {
    Got { topic: topic.into(), payload: payload.into(), qos, retain }
}

/// A client that speaks raw bytes.
struct Raw(TcpStream);

/// CONNECT of a 3.1.1 client with a clean session and no keep-alive.
fn connect_bytes(name: &str) -> Vec<u8> {
    let length = u8::try_from(12 + name.len()).unwrap();
    let mut bytes = vec![0x10, length, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, length - 12];
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

impl Raw {
    async fn new(address: SocketAddr) -> Self {
        Self(within("a connection", TcpStream::connect(address)).await.unwrap())
    }

    async fn connected(address: SocketAddr, name: &str) -> Self {
        let mut raw = Self::new(address).await;
        raw.say(&connect_bytes(name)).await;
        assert_eq!(raw.hear(4).await, [0x20, 2, 0, 0]);
        raw
    }

    /// As a 5.0 client, without properties.
    async fn connected_5(address: SocketAddr, name: &str) -> Self {
        let mut raw = Self::new(address).await;
        let mut connect = connect_bytes(name);
        connect[1] += 1;
        connect[8] = 5;
        connect.insert(12, 0);
        raw.say(&connect).await;
        let head = raw.hear(2).await;
        let connack = raw.hear(head[1].into()).await;
        assert_eq!((head[0], connack[0], connack[1]), (0x20, 0, 0));
        raw
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn hear(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        within("an answer", self.0.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// What comes until the broker closes.
    async fn hear_the_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset instead of an orderly end is an end as well.
        let _ = within("the end", self.0.read_to_end(&mut bytes)).await;
        bytes
    }
}

//! A client of a node's broker.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rumqttc::{Client, Event, Incoming, MqttOptions, Outgoing, QoS};

/// Messages under way to the broker.
const IN_FLIGHT: u16 = 100;

/// What was seen and not looked at: more than any benchmark publishes before it settles.
const SEEN: usize = 1 << 16;

/// How long the broker may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the connection's thread saw.
#[derive(Debug)]
enum Seen {
    Message(Heard),
    Acknowledged,
}

/// A message that came, and when.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) at: Instant,
}

/// One connection.
pub(crate) struct Mqtt {
    client: Client,
    seen: Receiver<Seen>,
    unacknowledged: usize,
}

impl Mqtt {
    pub(crate) fn connect(broker: SocketAddr, id: &str) -> Self {
        let mut options = MqttOptions::new(id, broker.ip().to_string(), broker.port());
        options.set_max_packet_size(1 << 20, 1 << 20).set_inflight(IN_FLIGHT);
        options.set_keep_alive(Duration::from_secs(60));
        let (client, mut connection) = Client::new(options, usize::from(IN_FLIGHT));
        let (tell, seen) = sync_channel(SEEN);
        // Ends with the connection, or with the listener.
        std::thread::spawn(move || {
            for event in connection.iter() {
                let said = match event {
                    Ok(Event::Incoming(Incoming::Publish(message))) => {
                        let heard = Heard {
                            topic: message.topic.clone(),
                            payload: message.payload.to_vec(),
                            at: Instant::now(),
                        };
                        tell.send(Seen::Message(heard))
                    }
                    Ok(Event::Incoming(Incoming::PubAck(_) | Incoming::SubAck(_))) => {
                        tell.send(Seen::Acknowledged)
                    }
                    Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(_) => return,
                    Ok(_) => Ok(()),
                };
                if said.is_err() {
                    return;
                }
            }
        });
        Self { client, seen, unacknowledged: 0 }
    }

    pub(crate) fn publish(&mut self, topic: &str, payload: String) -> Result<()> {
        self.send(topic, payload, false)
    }

    /// Publishes what the broker keeps.
    pub(crate) fn retain(&mut self, topic: &str, payload: String) -> Result<()> {
        self.send(topic, payload, true)
    }

    fn send(&mut self, topic: &str, payload: String, retain: bool) -> Result<()> {
        self.client.publish(topic, QoS::AtLeastOnce, retain, payload).context("publish")?;
        self.unacknowledged += 1;
        Ok(())
    }

    /// Waits for the broker's word on everything that was published.
    pub(crate) fn settle(&mut self) -> Result<()> {
        while self.unacknowledged > 0 {
            if let Seen::Acknowledged = self.seen.recv_timeout(PATIENCE).context("an acknowledgement")? {
                self.unacknowledged -= 1;
            }
        }
        Ok(())
    }

    pub(crate) fn subscribe(&mut self, filter: &str) -> Result<()> {
        self.client.subscribe(filter, QoS::AtMostOnce).context("subscribe")?;
        self.unacknowledged += 1;
        self.settle()
    }

    /// The next message, if one comes within `wait`.
    pub(crate) fn hear(&self, wait: Duration) -> Option<Heard> {
        match self.seen.recv_timeout(wait) {
            Ok(Seen::Message(heard)) => Some(heard),
            Ok(Seen::Acknowledged) | Err(_) => None,
        }
    }
}

//! The node's end of the contract, small enough to live in a test: an MQTT 5 broker for one mapper.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::twin::{
    DeviceConfig, DeviceId, MapperConfig, MapperTopic, ReportMany, TwinTopic, WriteRequest, WriteResult,
};
use bus::{Name, Topic};
use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, Packet, PingResp, PubAck, Publish, SubAck, Subscribe, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error as Malformed, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::hearing::Hearing;

/// Largest packet from a mapper, in bytes.
const MAX_PACKET: u32 = 1024 * 1024;

/// Writes that wait for the mapper to connect; a case sends a handful.
const MAX_WRITES: usize = 256;

/// Loopback answers at once: this much silence means that the other end has gone.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// Plays the node for one mapper: one connection at a time, one after the other.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    config: watch::Sender<Vec<u8>>,
    writes: mpsc::Sender<Outgoing>,
    heard: Arc<Heard>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Heard {
    hearing: Mutex<Hearing>,
    news: Notify,
}

impl Heard {
    fn hearing(&self) -> MutexGuard<'_, Hearing> {
        self.hearing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Outgoing {
    payload: Vec<u8>,
    retained: bool,
}

impl Node {
    /// Listens on loopback for the mapper of this name.
    pub async fn start(mapper: Name) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (config, configs) = watch::channel(Vec::new());
        let (writes, writes_rx) = mpsc::channel(MAX_WRITES);
        let heard = Arc::<Heard>::default();
        let broker = Broker { mapper, configs, writes: writes_rx, heard: Arc::clone(&heard) };
        let mut tasks = JoinSet::new();
        tasks.spawn(broker.serve(listener));
        Ok(Self { address, config, writes, heard, _tasks: tasks })
    }

    /// `host:port`, as [`Options::new`](kubebus_sdk::Options::new) takes it.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Sets the retained configuration; the mapper hears of it now, or when it connects.
    pub fn configure(&self, devices: Vec<DeviceConfig>) {
        self.config.send_replace(json(&MapperConfig { devices }));
    }

    /// Sends a write to the mapper.
    pub async fn write(&self, request: &WriteRequest) {
        self.send(request, false).await;
    }

    /// Sends a write as one that the broker had kept, which no mapper may carry out.
    pub async fn write_retained(&self, request: &WriteRequest) {
        self.send(request, true).await;
    }

    async fn send(&self, request: &WriteRequest, retained: bool) {
        drop(self.writes.send(Outgoing { payload: json(request), retained }).await);
    }

    /// Waits until `what` finds something among what was heard; `None` when `limit` is over.
    pub async fn until<T>(&self, limit: Duration, mut what: impl FnMut(&Hearing) -> Option<T>) -> Option<T> {
        let end = Instant::now() + limit;
        loop {
            let news = self.heard.news.notified();
            if let Some(found) = what(&self.heard.hearing()) {
                return Some(found);
            }
            timeout_at(end, news).await.ok()?;
        }
    }

    /// What the mapper has said last of its own state.
    pub async fn state(&self, wanted: &str, limit: Duration) -> bool {
        self.until(limit, |hearing| (hearing.state() == Some(wanted)).then_some(())).await.is_some()
    }

    /// The result of a write.
    pub async fn result(&self, id: &str, limit: Duration) -> Option<WriteResult> {
        self.until(limit, |hearing| hearing.result(id).cloned()).await
    }

    /// A look at everything heard.
    pub fn look<T>(&self, what: impl FnOnce(&Hearing) -> T) -> T {
        what(&self.heard.hearing())
    }

    /// Forgets the reports of a device, so that what comes is new.
    pub fn forget(&self, device: &DeviceId) {
        self.heard.hearing().forget(device);
    }
}

struct Broker {
    mapper: Name,
    configs: watch::Receiver<Vec<u8>>,
    writes: mpsc::Receiver<Outgoing>,
    heard: Arc<Heard>,
}

impl Broker {
    async fn serve(mut self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let mut line = Line { stream, received: BytesMut::new(), next_id: 0 };
            self.converse(&mut line).await;
            self.hear(|hearing| hearing.handle_gone());
        }
    }

    fn hear(&self, change: impl FnOnce(&mut Hearing)) {
        change(&mut self.heard.hearing());
        self.heard.news.notify_waiters();
    }

    /// Until the connection ends, by either side.
    async fn converse(&mut self, line: &mut Line) -> Option<()> {
        let mut subscribed = false;
        loop {
            tokio::select! {
                packet = line.next() => subscribed |= self.handle(packet?, line).await?,
                changed = self.configs.changed(), if subscribed => {
                    changed.ok()?;
                    self.send_config(line).await?;
                }
                Some(write) = self.writes.recv(), if subscribed => {
                    let topic = MapperTopic::Write { mapper: self.mapper.clone() }.topic();
                    line.publish(&topic, write.payload, write.retained).await?;
                }
            }
        }
    }

    /// Returns whether the mapper has just subscribed.
    async fn handle(&mut self, packet: Packet, line: &mut Line) -> Option<bool> {
        match packet {
            Packet::Connect(..) => {
                let code = ConnectReturnCode::Success;
                line.send(&Packet::ConnAck(ConnAck { session_present: false, code, properties: None }))
                    .await?;
            }
            Packet::Subscribe(subscribe) => {
                line.send(&granted(&subscribe)).await?;
                self.configs.mark_unchanged();
                self.send_config(line).await?;
                return Some(true);
            }
            Packet::Publish(publish) => {
                let ack = PubAck::new(publish.pkid, None);
                self.understand(&publish);
                if publish.qos == QoS::AtLeastOnce {
                    line.send(&Packet::PubAck(ack)).await?;
                }
            }
            Packet::PingReq(_) => line.send(&Packet::PingResp(PingResp)).await?,
            Packet::Disconnect(_) => return None,
            Packet::Auth(_)
            | Packet::ConnAck(_)
            | Packet::PubAck(_)
            | Packet::PingResp(_)
            | Packet::SubAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::Unsubscribe(_)
            | Packet::UnsubAck(_) => {}
        }
        Some(false)
    }

    async fn send_config(&mut self, line: &mut Line) -> Option<()> {
        let topic = MapperTopic::Config { mapper: self.mapper.clone() }.topic();
        let config = self.configs.borrow_and_update().clone();
        if config.is_empty() { Some(()) } else { line.publish(&topic, config, true).await }
    }

    fn understand(&self, publish: &Publish) {
        let text = String::from_utf8_lossy(&publish.topic);
        let Ok(topic) = Topic::new(&text) else { return };
        let payload = &publish.payload;
        match (MapperTopic::parse(&topic), TwinTopic::parse(&topic)) {
            (Some(MapperTopic::State { .. }), _) => {
                self.hear(|hearing| hearing.handle_state(&String::from_utf8_lossy(payload)));
            }
            (Some(MapperTopic::Result { .. }), _) => {
                if let Ok(result) = serde_json::from_slice::<WriteResult>(payload) {
                    self.hear(|hearing| hearing.handle_result(result));
                }
            }
            (_, Some(TwinTopic::ReportMany { device })) => {
                if let Ok(report) = serde_json::from_slice::<ReportMany>(payload) {
                    self.hear(|hearing| hearing.handle_report(&device, report));
                }
            }
            _ => {}
        }
    }
}

fn granted(subscribe: &Subscribe) -> Packet {
    let return_codes = subscribe.filters.iter().map(|f| SubscribeReasonCode::Success(f.qos)).collect();
    Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None })
}

/// The connection to the mapper. Its methods say `None` when it has ended.
struct Line {
    stream: TcpStream,
    received: BytesMut,
    next_id: u16,
}

impl Line {
    async fn next(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.received, Some(MAX_PACKET)) {
                Ok(packet) => return Some(packet),
                Err(Malformed::InsufficientBytes(_)) => {}
                Err(_) => return None,
            }
            if self.stream.read_buf(&mut self.received).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn send(&mut self, packet: &Packet) -> Option<()> {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).ok()?;
        timeout(SEND_LIMIT, self.stream.write_all(&bytes)).await.ok()?.ok()
    }

    async fn publish(&mut self, topic: &Topic, payload: Vec<u8>, retain: bool) -> Option<()> {
        self.next_id = self.next_id % u16::MAX + 1;
        let mut publish = Publish::new(topic.as_str(), QoS::AtLeastOnce, payload, None);
        (publish.pkid, publish.retain) = (self.next_id, retain);
        self.send(&Packet::Publish(publish)).await
    }
}

#[expect(clippy::expect_used, reason = "maps with text keys and finite numbers always have a JSON form")]
fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON of a configuration or write")
}

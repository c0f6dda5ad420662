//! A real broker, a node's end of it, and devices played in Python.

pub(crate) mod broker;
pub(crate) mod fixture;
pub(crate) mod script;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::twin::{DeviceConfig, MapperConfig, PropertyConfig, ReportBody, WriteRequest, WriteResult};
use kubebus_sdk::{Name, Options, Quality, UnixMillis, Value};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::{Value as Json, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub(crate) use broker::Broker;
pub(crate) use script::Script;

/// Longest wait of a test for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What the node hears and says, and the mapper under test.
pub(crate) struct Node {
    client: AsyncClient,
    heard: tokio::sync::mpsc::Receiver<(String, Vec<u8>)>,
    stop: Option<oneshot::Sender<()>>,
    mapper: JoinSet<()>,
    _connection: JoinSet<()>,
}

impl Node {
    /// A node at this broker with the mapper running.
    pub(crate) async fn start(broker: &Broker) -> Self {
        let (client, mut connection) =
            AsyncClient::new(MqttOptions::new("node", "127.0.0.1", broker.port), 32);
        client.subscribe("twin/#", QoS::AtLeastOnce).await.unwrap();
        client.subscribe("mapper/http/result", QoS::AtLeastOnce).await.unwrap();
        client.subscribe("mapper/http/state", QoS::AtLeastOnce).await.unwrap();
        let (tx, heard) = tokio::sync::mpsc::channel(4096);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok(event) = connection.poll().await {
                if let Event::Incoming(Packet::Publish(publish)) = event {
                    let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                    drop(tx.try_send((topic, publish.payload.to_vec())));
                }
            }
        });
        let options = Options::new(Name::new("http").unwrap(), &broker.address()).unwrap();
        let (stop, stopped) = oneshot::channel();
        let mut mapper = JoinSet::new();
        mapper.spawn(kubebus_sdk::run::<mapper_http::HttpMapper>(options, async { drop(stopped.await) }));
        let mut node = Self { client, heard, stop: Some(stop), mapper, _connection: tasks };
        node.until(|topic, payload| (topic == "mapper/http/state" && payload == b"online").then_some(()))
            .await;
        node
    }

    pub(crate) async fn configure(&self, devices: &[DeviceConfig]) {
        let payload = serde_json::to_vec(&MapperConfig { devices: devices.to_vec() }).unwrap();
        self.client.publish("mapper/http/config", QoS::AtLeastOnce, true, payload).await.unwrap();
    }

    /// The next message that `wanted` makes something of.
    async fn until<T>(&mut self, wanted: impl Fn(&str, &[u8]) -> Option<T>) -> T {
        let end = tokio::time::Instant::now() + PATIENCE;
        let mut last = String::new();
        loop {
            let heard = tokio::time::timeout_at(end, self.heard.recv()).await;
            let (topic, payload) =
                heard.unwrap_or_else(|_| panic!("it was not said; the last was {last}")).unwrap();
            if let Some(found) = wanted(&topic, &payload) {
                return found;
            }
            last = format!("{topic} {}", String::from_utf8_lossy(&payload));
        }
    }

    /// Waits until the device's property is reported so.
    pub(crate) async fn reports(&mut self, property: &str, value: Value, quality: Quality) {
        let wanted = (value, quality);
        self.report(property, |value, quality, _| ((value, quality) == (&wanted.0, wanted.1)).then_some(()))
            .await;
    }

    /// The first report of the property that `wanted` makes something of.
    pub(crate) async fn report<T>(
        &mut self,
        property: &str,
        wanted: impl Fn(&Value, Quality, Option<UnixMillis>) -> Option<T>,
    ) -> T {
        self.until(|topic, payload| {
            if topic != "twin/test/device/report" {
                return None;
            }
            let report: bus::twin::ReportMany = serde_json::from_slice(payload).unwrap();
            match report.get(property)? {
                ReportBody::Full { value, quality, time, unit: _ } => wanted(value, *quality, *time),
                ReportBody::Bare(value) => wanted(value, Quality::Good, None),
            }
        })
        .await
    }

    /// Writes, and waits for what becomes of it.
    pub(crate) async fn write(&mut self, property: &str, value: Value) -> WriteResult {
        let id = format!("{property}-{}", unix_now().0);
        let request = WriteRequest {
            id: id.clone(),
            device: "test/device".parse().unwrap(),
            property: property.into(),
            value,
            sent: unix_now(),
            ttl_ms: 10_000,
            cause: "test".into(),
        };
        let payload = serde_json::to_vec(&request).unwrap();
        self.client.publish("mapper/http/write", QoS::AtLeastOnce, false, payload).await.unwrap();
        self.until(|topic, payload| {
            let result = || serde_json::from_slice::<WriteResult>(payload).unwrap();
            (topic == "mapper/http/result").then(result).filter(|result| result.id == id)
        })
        .await
    }

    /// Writes again and again until it ends so.
    pub(crate) async fn write_until(
        &mut self,
        property: &str,
        value: Value,
        so: impl Fn(&WriteResult) -> bool,
    ) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let result = self.write(property, value.clone()).await;
            if so(&result) {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "{result:?}");
            sleep(Duration::from_millis(200)).await;
        }
    }

    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        timeout(PATIENCE, self.mapper.join_next()).await.expect("it does not stop").unwrap().unwrap();
    }
}

pub(crate) fn unix_now() -> UnixMillis {
    UnixMillis(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

/// `test/device` with these connection settings.
pub(crate) fn device(connection: Json, properties: Vec<PropertyConfig>) -> DeviceConfig {
    let connection = serde_json::from_value(connection).unwrap();
    DeviceConfig { device: "test/device".parse().unwrap(), connection, properties }
}

/// A writable property that the device pushes.
pub(crate) fn property(name: &str, value_type: &str, address: Json) -> PropertyConfig {
    let json = json!({"name": name, "type": value_type, "writable": true, "address": address, "poll_ms": 0});
    serde_json::from_value(json).unwrap()
}

pub(crate) fn polled(name: &str, value_type: &str, address: Json) -> PropertyConfig {
    PropertyConfig { poll_ms: 200, ..property(name, value_type, address) }
}

//! A broker, the node's end of it, and the mapper between that and real devices.

pub(crate) mod device;

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bus::twin::{DeviceConfig, DeviceId, MapperConfig, WriteRequest, WriteResult};
use kubebus_sdk::{Options, UnixMillis, Value};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use device::free_port;

/// Longest wait for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Mosquitto on a loopback port; ended with the test.
struct Broker {
    port: u16,
    process: Child,
}

impl Broker {
    fn start() -> Self {
        let port = free_port();
        let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("mosquitto");
        command.env("PATH", path).args(["-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("these tests need mosquitto: apt-get install mosquitto");
        let broker = Self { port, process };
        let given_up = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < given_up, "mosquitto does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
        broker
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The mapper, and what a node hears from it.
pub(crate) struct Site {
    client: AsyncClient,
    heard: mpsc::Receiver<(String, Vec<u8>)>,
    /// The last word on each property of each device, and whether it is good.
    values: BTreeMap<(String, String), (Value, bool)>,
    /// Every good value ever told.
    told: Vec<(String, String, Value)>,
    results: Vec<WriteResult>,
    _tasks: JoinSet<()>,
    _broker: Broker,
}

impl Site {
    /// A mapper that serves these devices; each is a name, its connection and its properties.
    pub(crate) async fn serve(devices: &[(&str, Json, &[Json])]) -> Self {
        let broker = Broker::start();
        let (client, mut connection) =
            AsyncClient::new(MqttOptions::new("node", "127.0.0.1", broker.port), 64);
        let devices =
            devices.iter().map(|(name, connection, properties)| device(name, connection, properties));
        let config = serde_json::to_vec(&MapperConfig { devices: devices.collect() }).unwrap();
        client.publish("mapper/modbus/config", QoS::AtLeastOnce, true, config).await.unwrap();
        client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
        let (tx, heard) = mpsc::channel(4096);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok(event) = connection.poll().await {
                if let Event::Incoming(Packet::Publish(publish)) = event {
                    let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                    tx.send((topic, publish.payload.to_vec())).await.unwrap();
                }
            }
        });
        let options = Options::new("modbus".parse().unwrap(), &format!("127.0.0.1:{}", broker.port)).unwrap();
        tasks.spawn(kubebus_sdk::run::<mapper_modbus::ModbusMapper>(options, std::future::pending()));
        Self {
            client,
            heard,
            values: BTreeMap::new(),
            told: Vec::new(),
            results: Vec::new(),
            _tasks: tasks,
            _broker: broker,
        }
    }

    /// Waits until `what` is so.
    #[track_caller]
    pub(crate) fn until<'a>(
        &'a mut self,
        what: impl Fn(&Self) -> bool + 'a,
    ) -> impl Future<Output = ()> + 'a {
        let asker = std::panic::Location::caller();
        async move {
            let end = Instant::now() + PATIENCE;
            while !what(self) {
                let left = end.saturating_duration_since(Instant::now());
                let Ok(heard) = timeout(left, self.heard.recv()).await else {
                    panic!("{asker}: it did not come to that; {:?} {:?}", self.values, self.results)
                };
                let (topic, payload) = heard.expect("the broker is gone");
                self.hear(&topic, &payload);
            }
        }
    }

    /// Hears for some time.
    pub(crate) async fn listen(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(heard) = timeout(end.saturating_duration_since(Instant::now()), self.heard.recv()).await
        {
            let (topic, payload) = heard.expect("the broker is gone");
            self.hear(&topic, &payload);
        }
    }

    fn hear(&mut self, topic: &str, payload: &[u8]) {
        let levels: Vec<&str> = topic.split('/').collect();
        match levels[..] {
            ["mapper", "modbus", "result"] => self.results.push(serde_json::from_slice(payload).unwrap()),
            ["twin", "test", device, "report"] => {
                let report: BTreeMap<String, Json> = serde_json::from_slice(payload).unwrap();
                for (property, body) in report {
                    let value: Value = serde_json::from_value(body["value"].clone()).unwrap();
                    let good = body["quality"] == "good";
                    if good {
                        self.told.push((device.to_owned(), property.clone(), value.clone()));
                    }
                    self.values.insert((device.to_owned(), property), (value, good));
                }
            }
            _ => {}
        }
    }

    pub(crate) fn holds(&self, device: &str, property: &str, value: &Value) -> bool {
        let last = self.values.get(&(device.to_owned(), property.to_owned()));
        last.is_some_and(|(last, good)| *good && last == value)
    }

    pub(crate) fn value(&self, device: &str, property: &str) -> Option<&Value> {
        self.values.get(&(device.to_owned(), property.to_owned())).filter(|(_, good)| *good).map(|(v, _)| v)
    }

    /// Every good value that a property was told to have.
    pub(crate) fn told(&self, device: &str, property: &str) -> Vec<&Value> {
        let of_it = self.told.iter().filter(|(d, p, _)| d == device && p == property);
        of_it.map(|(_, _, value)| value).collect()
    }

    pub(crate) fn forget(&mut self) {
        while let Ok((topic, payload)) = self.heard.try_recv() {
            self.hear(&topic, &payload);
        }
        self.values.clear();
    }

    pub(crate) async fn send(&self, id: &str, device: &str, property: &str, value: Value, ttl: Duration) {
        let request = WriteRequest {
            id: id.to_owned(),
            device: device_id(device),
            property: property.to_owned(),
            value,
            sent: now(),
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap(),
            cause: "test".to_owned(),
        };
        let payload = serde_json::to_vec(&request).unwrap();
        self.client.publish("mapper/modbus/write", QoS::AtLeastOnce, false, payload).await.unwrap();
    }

    pub(crate) async fn result(&mut self, id: &str) -> WriteResult {
        let is_it = |result: &WriteResult| result.id == id;
        self.until(|site| site.results.iter().any(is_it)).await;
        self.results.iter().find(|result| is_it(result)).unwrap().clone()
    }

    /// Writes and waits for the result.
    pub(crate) async fn write(&mut self, device: &str, property: &str, value: Value) -> WriteResult {
        let id = format!("w{}", self.results.len());
        self.send(&id, device, property, value, Duration::from_secs(10)).await;
        self.result(&id).await
    }
}

fn device(name: &str, connection: &Json, properties: &[Json]) -> DeviceConfig {
    let json = json!({ "device": device_id(name), "connection": connection, "properties": properties });
    serde_json::from_value(json).unwrap()
}

fn device_id(name: &str) -> DeviceId {
    format!("test/{name}").parse().unwrap()
}

/// A property that is read every 100 ms.
pub(crate) fn property(name: &str, value_type: &str, address: Json) -> Json {
    json!({ "name": name, "type": value_type, "writable": true, "address": address, "poll_ms": 100 })
}

fn now() -> UnixMillis {
    UnixMillis(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

//! A real broker and a node's end of it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::twin::{
    DeviceConfig, DeviceId, Json, MapperConfig, MapperHealth, PropertyConfig, ReportBody, ReportMany,
    WriteRequest, WriteResult,
};
use kubebus_sdk::{Name, Options, UnixMillis, Value, ValueType};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::bench::BenchMapper;

/// Longest wait of a test for anything that should happen.
const PATIENCE: Duration = Duration::from_secs(15);

/// Mosquitto on a loopback port; ended with the test.
pub(crate) struct Broker {
    pub(crate) port: u16,
    dir: tempfile::TempDir,
    process: Child,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let config = format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n");
        std::fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
        let process = spawn(&dir);
        let broker = Self { port, dir, process };
        broker.wait().await;
        broker
    }

    async fn wait(&self) {
        let up = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, up).await.expect("mosquitto does not come up");
    }

    /// A broker that forgets everything, as after a power cut.
    pub(crate) async fn restart(&mut self) {
        self.end();
        sleep(Duration::from_millis(200)).await;
        self.process = spawn(&self.dir);
        self.wait().await;
    }

    fn end(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(dir: &tempfile::TempDir) -> Child {
    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("mosquitto");
    command.env("PATH", path).arg("-c").arg(dir.path().join("mosquitto.conf"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("these tests need mosquitto: apt-get install mosquitto")
}

/// What the node hears and says.
pub(crate) struct Node {
    client: AsyncClient,
    heard: mpsc::Receiver<(String, Vec<u8>)>,
    _connection: JoinSet<()>,
}

impl Node {
    pub(crate) async fn connect(broker: &Broker) -> Self {
        let (client, mut connection) =
            AsyncClient::new(MqttOptions::new("node", "127.0.0.1", broker.port), 32);
        client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
        let (tx, heard) = mpsc::channel(1024);
        let (ready_tx, ready) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut ready_tx = Some(ready_tx);
            while let Ok(event) = connection.poll().await {
                if let Event::Incoming(Packet::Publish(publish)) = event {
                    let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                    drop(tx.try_send((topic, publish.payload.to_vec())));
                } else if let Event::Incoming(Packet::SubAck(_)) = event
                    && let Some(ready) = ready_tx.take()
                {
                    ready.send(()).unwrap();
                }
            }
        });
        timeout(PATIENCE, ready).await.unwrap().unwrap();
        Self { client, heard, _connection: tasks }
    }

    pub(crate) async fn configure(&self, devices: &[DeviceConfig]) {
        let payload = serde_json::to_vec(&MapperConfig { devices: devices.to_vec() }).unwrap();
        self.client.publish("mapper/bench/config", QoS::AtLeastOnce, true, payload).await.unwrap();
    }

    pub(crate) async fn write(&self, request: &WriteRequest) {
        let payload = serde_json::to_vec(request).unwrap();
        self.client.publish("mapper/bench/write", QoS::AtLeastOnce, false, payload).await.unwrap();
    }

    /// The next message that `wanted` makes something of.
    pub(crate) async fn until<T>(&mut self, wanted: impl Fn(&str, &[u8]) -> Option<T>) -> T {
        let found = async {
            loop {
                let (topic, payload) = self.heard.recv().await.expect("the broker is gone");
                if let Some(found) = wanted(&topic, &payload) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("it was not said")
    }

    pub(crate) async fn state(&mut self) -> String {
        self.until(|topic, payload| {
            (topic == "mapper/bench/state").then(|| String::from_utf8(payload.to_vec()).unwrap())
        })
        .await
    }

    pub(crate) async fn result(&mut self) -> WriteResult {
        self.until(|topic, payload| {
            (topic == "mapper/bench/result").then(|| serde_json::from_slice(payload).unwrap())
        })
        .await
    }

    /// The next word about all devices that `wanted` makes something of.
    pub(crate) async fn health_of<T>(&mut self, wanted: impl Fn(&MapperHealth) -> Option<T>) -> T {
        self.until(|topic, payload| {
            let health = (topic == "mapper/bench/health").then(|| serde_json::from_slice(payload).ok());
            wanted(&health??)
        })
        .await
    }

    /// Waits until a number of a device is reported.
    pub(crate) async fn reports(&mut self, device: &str, property: &str, number: f64) {
        self.report_of(device, |report| match report.get(property) {
            Some(ReportBody::Full { value, .. }) => value.as_f64() == Some(number),
            _ => false,
        })
        .await;
    }

    pub(crate) async fn report(&mut self, device: &str) -> ReportMany {
        self.report_of(device, |_| true).await
    }

    pub(crate) async fn report_of(
        &mut self,
        device: &str,
        wanted: impl Fn(&ReportMany) -> bool,
    ) -> ReportMany {
        let its_topic = format!("twin/test/{device}/report");
        self.until(|topic, payload| {
            let report = (topic == its_topic).then(|| serde_json::from_slice(payload).unwrap());
            report.filter(&wanted)
        })
        .await
    }
}

/// The mapper, running.
pub(crate) struct Running {
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
}

impl Running {
    pub(crate) fn start(broker: &Broker) -> Self {
        let address = format!("127.0.0.1:{}", broker.port);
        let options = Options::new(Name::new("bench").unwrap(), &address).unwrap();
        let (stop, stopped) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            kubebus_sdk::run::<BenchMapper>(options, async { drop(stopped.await) }).await;
        });
        Self { stop: Some(stop), tasks }
    }

    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        timeout(PATIENCE, self.tasks.join_next()).await.expect("it does not stop").unwrap().unwrap();
    }

    /// Ends it in the middle of whatever it does, as `kill -9` would.
    pub(crate) async fn kill(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Broker, node and mapper, connected.
pub(crate) async fn world() -> (Broker, Node, Running) {
    let broker = Broker::start().await;
    let mut node = Node::connect(&broker).await;
    let running = Running::start(&broker);
    assert_eq!(node.state().await, "online");
    (broker, node, running)
}

/// Waits for a device to have been treated so.
pub(crate) async fn eventually(what: impl Fn() -> bool) {
    let come = async {
        while !what() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, come).await.expect("it did not come to that");
}

/// A device `test/<name>` with one writable property `position`, read every 100 ms.
pub(crate) fn config(name: &str) -> DeviceConfig {
    DeviceConfig {
        device: device(name),
        connection: object([("bench", Json::Text(name.into()))]),
        properties: vec![property("position", 0)],
    }
}

/// A float from 0 to 100 in a register, read every 100 ms.
pub(crate) fn property(name: &str, register: i64) -> PropertyConfig {
    PropertyConfig {
        name: name.into(),
        value_type: ValueType::Float,
        writable: true,
        address: object([("register", Json::Int(register))]),
        poll_ms: 100,
        minimum: Some(0.0),
        maximum: Some(100.0),
        unit: None,
        deadband: None,
        max_age_ms: None,
    }
}

pub(crate) fn object<const N: usize>(fields: [(&str, Json); N]) -> Json {
    Json::Object(fields.into_iter().map(|(key, json)| (key.to_owned(), json)).collect())
}

pub(crate) fn device(name: &str) -> DeviceId {
    format!("test/{name}").parse().unwrap()
}

pub(crate) fn unix_now() -> UnixMillis {
    UnixMillis(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

/// A write of 40.0, sent now.
pub(crate) fn write(id: &str, device_name: &str, ttl_ms: u64) -> WriteRequest {
    WriteRequest {
        id: id.into(),
        device: device(device_name),
        property: "position".into(),
        value: Value::Float(40.0),
        sent: unix_now(),
        ttl_ms,
        cause: "test".into(),
    }
}

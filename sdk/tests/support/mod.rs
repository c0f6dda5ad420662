//! A real broker, a node's end of it, and devices that count what is done to them.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::twin::{
    DeviceConfig, DeviceId, Json, MapperConfig, PropertyConfig, ReportMany, WriteRequest, WriteResult,
};
use kubebus_sdk::{
    Batch, Context, Error, JsonSchema, Manifest, Mapper, Name, Options, Point, Samples, Session, UnixMillis,
    Value, ValueType, WriteOutcome, WritePermit,
};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

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

/// A device that does as it is told and counts.
#[derive(Default)]
pub(crate) struct Bench {
    pub(crate) opened: AtomicU64,
    pub(crate) closed: AtomicU64,
    /// Writes that the device has heard of.
    pub(crate) written: AtomicU64,
    /// Writes that its driver was given.
    pub(crate) offered: AtomicU64,
    pub(crate) refuse_to_open: AtomicBool,
    pub(crate) panic_on_write: AtomicBool,
    /// How long the driver waits before it consumes the permit, in ms.
    pub(crate) wait_before_write: AtomicU64,
    /// How long the device takes after that, in ms.
    pub(crate) wait_in_write: AtomicU64,
    pub(crate) wait_in_read: AtomicU64,
    value: Mutex<f64>,
}

static BENCHES: LazyLock<Mutex<BTreeMap<String, Arc<Bench>>>> = LazyLock::new(Mutex::default);

/// The device of this name, which is the test's own.
pub(crate) fn bench(name: &str) -> Arc<Bench> {
    Arc::clone(BENCHES.lock().unwrap().entry(name.to_owned()).or_default())
}

impl Bench {
    pub(crate) fn value(&self) -> f64 {
        *self.value.lock().unwrap()
    }

    async fn pause(duration: &AtomicU64) {
        sleep(Duration::from_millis(duration.load(SeqCst))).await;
    }
}

/// The mapper under test.
pub(crate) struct BenchMapper;

pub(crate) struct BenchSession(Arc<Bench>);

#[derive(serde::Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub(crate) struct BenchConfig {
    bench: String,
}

impl Mapper for BenchMapper {
    type Config = BenchConfig;
    type Address = String;
    type Session = BenchSession;

    fn manifest() -> Manifest {
        Manifest::new("bench", env!("CARGO_PKG_VERSION"))
    }

    async fn open(config: &BenchConfig, _: &Context<BenchSession>) -> Result<BenchSession, Error> {
        let bench = bench(&config.bench);
        bench.opened.fetch_add(1, SeqCst);
        if bench.refuse_to_open.load(SeqCst) {
            return Err(Error::transient("nobody there"));
        }
        Ok(BenchSession(bench))
    }
}

impl Session for BenchSession {
    type Address = String;
    type Bus = ();

    async fn read(&mut self, batch: &Batch<'_, String>, out: &mut Samples) -> Result<(), Error> {
        Bench::pause(&self.0.wait_in_read).await;
        for point in batch {
            out.good(point, Value::Float(self.0.value()));
        }
        Ok(())
    }

    async fn write(
        &mut self,
        _: &Point<String>,
        value: Value,
        permit: WritePermit,
    ) -> Result<WriteOutcome, Error> {
        self.0.offered.fetch_add(1, SeqCst);
        assert!(!self.0.panic_on_write.load(SeqCst), "a bug in the driver");
        Bench::pause(&self.0.wait_before_write).await;
        let consumed = permit.consume()?;
        self.0.written.fetch_add(1, SeqCst);
        Bench::pause(&self.0.wait_in_write).await;
        *self.0.value.lock().unwrap() = value.as_f64().unwrap();
        Ok(consumed.applied())
    }

    async fn close(self) {
        self.0.closed.fetch_add(1, SeqCst);
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
    let position = PropertyConfig {
        name: "position".into(),
        value_type: ValueType::Float,
        writable: true,
        address: Json::Text("register".into()),
        poll_ms: 100,
        minimum: Some(0.0),
        maximum: Some(100.0),
        unit: None,
        deadband: None,
        max_age_ms: None,
    };
    let connection = Json::Object([("bench".to_owned(), Json::Text(name.into()))].into());
    DeviceConfig { device: device(name), connection, properties: vec![position] }
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

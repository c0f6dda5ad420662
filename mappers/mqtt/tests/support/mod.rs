//! A real broker, a node's end of it, and devices played in Python.

use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
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

/// Longest wait of a test for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Mosquitto on a loopback port, with one user; ended with the test.
pub(crate) struct Broker {
    pub(crate) port: u16,
    dir: tempfile::TempDir,
    process: Child,
}

impl Broker {
    pub(crate) async fn start(more: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let config =
            format!("listener {port} 127.0.0.1\npersistence false\nmax_queued_messages 10000\n{more}");
        let config = config.replace("DIR", &dir.path().display().to_string());
        std::fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
        std::fs::write(dir.path().join("passwords"), PASSWORDS).unwrap();
        let process = spawn(&dir);
        let broker = Self { port, dir, process };
        broker.wait().await;
        broker
    }

    pub(crate) async fn open() -> Self {
        Self::start("allow_anonymous true\n").await
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
        self.process = spawn(&self.dir);
        self.wait().await;
    }

    pub(crate) fn end(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// The user `mapper` with the password `right`, as `mosquitto_passwd` writes it.
const PASSWORDS: &str = include_str!("passwords");

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
        client.subscribe("mapper/mqtt/result", QoS::AtLeastOnce).await.unwrap();
        client.subscribe("mapper/mqtt/state", QoS::AtLeastOnce).await.unwrap();
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
        let options = Options::new(Name::new("mqtt").unwrap(), &broker.address()).unwrap();
        let (stop, stopped) = oneshot::channel();
        let mut mapper = JoinSet::new();
        mapper.spawn(mapper_mqtt::run(options, async { drop(stopped.await) }));
        let mut node = Self { client, heard, stop: Some(stop), mapper, _connection: tasks };
        node.until(|topic, payload| (topic == "mapper/mqtt/state" && payload == b"online").then_some(()))
            .await;
        node
    }

    pub(crate) async fn configure(&self, devices: &[DeviceConfig]) {
        let payload = serde_json::to_vec(&MapperConfig { devices: devices.to_vec() }).unwrap();
        self.client.publish("mapper/mqtt/config", QoS::AtLeastOnce, true, payload).await.unwrap();
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

    /// The last of the reports that have come within half a second.
    pub(crate) async fn hears(&mut self, property: &str) -> Option<(Value, Quality)> {
        let mut last = None;
        let end = tokio::time::Instant::now() + Duration::from_millis(500);
        while let Ok(Some((topic, payload))) = tokio::time::timeout_at(end, self.heard.recv()).await {
            if topic == "twin/test/device/report" {
                let report: bus::twin::ReportMany = serde_json::from_slice(&payload).unwrap();
                let sample = report.get(property).map(|body| body.clone().into_sample(unix_now()));
                last = sample.map(|sample| (sample.value, sample.quality)).or(last);
            }
        }
        last
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
        self.client.publish("mapper/mqtt/write", QoS::AtLeastOnce, false, payload).await.unwrap();
        self.until(|topic, payload| {
            let result = || serde_json::from_slice::<WriteResult>(payload).unwrap();
            (topic == "mapper/mqtt/result").then(result).filter(|result| result.id == id)
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

    /// Says something as a device would.
    pub(crate) async fn say(&self, topic: &str, payload: impl Into<Vec<u8>>, retained: bool) {
        self.client.publish(topic, QoS::AtLeastOnce, retained, payload.into()).await.unwrap();
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

/// A script beside the tests, told what to do line by line, and heard.
pub(crate) struct Script {
    process: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/venv/bin/python");
    assert!(python.is_file(), "{} is not there: run `cargo xtask python`", python.display());
    python
}

impl Script {
    pub(crate) async fn start(name: &str, args: &[&str]) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
        let mut command = Command::new(python());
        command.arg("-Bu").arg(here).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (tx, lines) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if tx.send(line).is_err() {
                    return;
                }
            }
        });
        let script = Self { process, input, lines };
        script.says("ready").await;
        script
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
        self.input.flush().unwrap();
    }

    /// Waits for a line that begins so, and passes over others.
    pub(crate) async fn says(&self, beginning: &str) -> String {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            match self.lines.try_recv() {
                Ok(line) if line.starts_with(beginning) => return line,
                Ok(_) => {}
                Err(_) => {
                    assert!(tokio::time::Instant::now() < end, "it does not say '{beginning}'");
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Everything that it has said and nobody has heard.
    pub(crate) fn said(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

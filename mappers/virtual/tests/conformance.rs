//! The conformance kit against a simulator that speaks JSON lines. It listens on TCP, so that the kit's proxy can stand
//! before it; the mapper's Unix socket leads there.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kubebus_sdk::{Value, ValueType};
use kubebus_sdk_testing::{Endpoint, Fixture, Property, Write, conformance};
use mapper_virtual::VirtualMapper;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;

struct Simulator {
    address: SocketAddr,
    device: Arc<Mutex<Device>>,
    dir: tempfile::TempDir,
    /// The simulator itself, while it is switched on.
    power: Mutex<JoinSet<()>>,
    relays: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Device {
    registers: BTreeMap<String, Value>,
    writes: Vec<Write>,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// As `mapper_virtual`'s page has it.
    fn answer(&mut self, line: &str) -> Option<Json> {
        let request: Json = serde_json::from_str(line).ok()?;
        if let Some(names) = request["read"].as_array() {
            let names = names.iter().filter_map(Json::as_str);
            let values: BTreeMap<_, _> =
                names.filter_map(|name| Some((name, self.registers.get(name)?))).collect();
            return Some(json!({ "values": values }));
        }
        for (name, value) in request["write"].as_object()? {
            let Some(register) = self.registers.get_mut(name) else {
                return Some(json!({ "error": format!("no register {name}") }));
            };
            let value: Value = serde_json::from_value(value.clone()).ok()?;
            *register = value.clone();
            self.writes.push(Write { property: name.clone(), value });
        }
        Some(json!({ "ok": true }))
    }
}

async fn serve(listener: TcpListener, device: Arc<Mutex<Device>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let device = Arc::clone(&device);
        connections.spawn(async move {
            let (mut stream, mut line) = (BufStream::new(stream), String::new());
            while stream.read_line(&mut line).await.is_ok_and(|n| n > 0) {
                let Some(answer) = hold(&device).answer(&line) else { return };
                if stream.write_all(format!("{answer}\n").as_bytes()).await.is_err()
                    || stream.flush().await.is_err()
                {
                    return;
                }
                line.clear();
            }
        });
    }
}

/// Leads each connection on a Unix socket to a TCP address.
async fn relay(listener: UnixListener, to: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut far) = TcpStream::connect(to).await {
                drop(copy_bidirectional(&mut near, &mut far).await);
            }
        });
    }
}

impl Simulator {
    async fn switch_on(&self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        hold(&self.power).spawn(serve(listener, Arc::clone(&self.device)));
    }
}

impl Fixture for Simulator {
    async fn start() -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|e| e.to_string())?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        let registers = [
            ("level".to_owned(), Value::Float(3.25)),
            ("position".to_owned(), Value::Float(40.0)),
            ("mode".to_owned(), Value::Text("auto".to_owned())),
        ];
        let device = Arc::new(Mutex::new(Device { registers: registers.into(), writes: Vec::new() }));
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let simulator = Self { address, device, dir, power: Mutex::default(), relays: Mutex::default() };
        hold(&simulator.power).spawn(serve(listener, Arc::clone(&simulator.device)));
        Ok(simulator)
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(self.address)
    }

    fn connection(&self, at: &Endpoint) -> Json {
        let Endpoint::Tcp(at) = *at else { panic!("the simulator listens on TCP") };
        let path = self.dir.path().join(format!("{}.sock", at.port()));
        if !Path::new(&path).exists() {
            hold(&self.relays).spawn(relay(UnixListener::bind(&path).unwrap(), at));
        }
        json!({ "socket": path })
    }

    fn properties(&self) -> Vec<Property> {
        vec![
            Property::new("position", ValueType::Float, json!({"register": "position"}))
                .writable()
                .range(0.0, 100.0),
            Property::new("level", ValueType::Float, json!({"register": "level"})),
            Property::new("mode", ValueType::String, json!({"register": "mode"})).writable(),
        ]
    }

    async fn value(&self, property: &str) -> Option<Value> {
        hold(&self.device).registers.get(property).cloned()
    }

    async fn set(&self, property: &str, value: Value) -> bool {
        hold(&self.device).registers.insert(property.to_owned(), value);
        true
    }

    async fn writes(&self) -> Vec<Write> {
        hold(&self.device).writes.clone()
    }

    fn missing_address(&self) -> Option<Json> {
        Some(json!({"register": "nowhere"}))
    }

    async fn stop(&self) -> bool {
        let mut power = std::mem::take(&mut *hold(&self.power));
        power.shutdown().await;
        true
    }

    async fn restart(&self) {
        self.switch_on().await;
    }
}

conformance!(VirtualMapper, Simulator);

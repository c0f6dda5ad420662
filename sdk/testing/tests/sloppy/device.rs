//! A device with registers. A frame is its length (two bytes), a transaction's number (two bytes) and JSON:
//!
//! ```text
//! > {"read":[0,4]}       < {"values":[1.0,2.0,null,3.0]}     null: there is no such register
//! > {"write":[3,40.0]}   < {"ok":true}
//! > {"watch":[5]}        < {"ok":true}, and under number 0: {"pushed":[5,7.0]} now and whenever it changes
//! > {"list":null}        < {"registers":[0,1,3,5]}
//! ```

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use kubebus_sdk::{Value, ValueType};
use kubebus_sdk_testing::{Endpoint, Fixture, Port, Property, SimulatedDevice, Write};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Its properties: `pressed` is pushed, the others are polled; register 2 does not exist.
pub(crate) fn properties() -> Vec<Property> {
    let at = |register: u64| json!({ "register": register });
    vec![
        Property::new("level", ValueType::Float, at(0)).range(1.0, 90.0),
        Property::new("count", ValueType::Int, at(1)).range(1.0, 90.0),
        Property::new("valve", ValueType::Float, at(3)).writable().range(1.0, 90.0),
        Property::new("far", ValueType::Float, at(40)).range(1.0, 90.0),
        Property::new("pressed", ValueType::Float, at(5)).pushed().range(1.0, 90.0),
    ]
}

fn register(property: &Property) -> u64 {
    property.address["register"].as_u64().unwrap()
}

/// The device, and how the mapper before it is to fail.
pub(crate) struct Device {
    inside: Arc<Inside>,
    port: Port,
    power: Mutex<Option<JoinSet<()>>>,
    fault: &'static str,
}

struct Inside {
    device: Mutex<SimulatedDevice>,
    changes: watch::Sender<u64>,
}

impl Inside {
    fn device(&self) -> MutexGuard<'_, SimulatedDevice> {
        self.device.lock().unwrap()
    }

    fn value(&self, wanted: u64) -> Option<Json> {
        let property = properties().into_iter().find(|p| register(p) == wanted)?;
        let value = self.device().value(&property.name, Duration::ZERO)?;
        Some(serde_json::to_value(value).unwrap())
    }

    fn answer(&self, request: &Json) -> Json {
        if let Some([start, len]) = numbers(&request["read"]) {
            let values: Vec<_> = (start..start + len.min(100)).map(|r| self.value(r)).collect();
            return json!({ "values": values });
        }
        if let (Some(at), Some(value)) = (request["write"][0].as_u64(), request["write"][1].as_f64()) {
            let property = properties().into_iter().find(|p| register(p) == at);
            let written =
                self.device().write(&property.map(|p| p.name).unwrap_or_default(), Value::Float(value));
            self.changes.send_modify(|changes| *changes += 1);
            return written.map_or_else(|why| json!({ "error": why }), |()| json!({ "ok": true }));
        }
        match request.get("list") {
            Some(_) => json!({ "registers": properties().iter().map(register).collect::<Vec<_>>() }),
            None => json!({ "ok": true }),
        }
    }

    async fn serve(self: Arc<Self>, mut line: TcpStream) -> std::io::Result<()> {
        let mut watched: Vec<u64> = Vec::new();
        let mut changes = self.changes.subscribe();
        loop {
            let mut push = false;
            tokio::select! {
                length = line.read_u16() => {
                    let mut frame = vec![0; usize::from(length?)];
                    line.read_exact(&mut frame).await?;
                    let (number, json) = frame.split_at_checked(2).ok_or(std::io::ErrorKind::InvalidData)?;
                    let request: Json = serde_json::from_slice(json)?;
                    if let Some(list) = request["watch"].as_array() {
                        watched.extend(list.iter().filter_map(Json::as_u64));
                        push = true;
                    }
                    send(&mut line, [number[0], number[1]], &self.answer(&request)).await?;
                }
                _ = changes.changed() => push = true,
            }
            for register in watched.iter().filter(|_| push) {
                send(&mut line, [0, 0], &json!({ "pushed": [register, self.value(*register)] })).await?;
            }
        }
    }
}

async fn send(line: &mut TcpStream, number: [u8; 2], json: &Json) -> std::io::Result<()> {
    line.write_all(&frame(number, json)).await
}

pub(crate) fn frame(number: [u8; 2], json: &Json) -> Vec<u8> {
    let json = json.to_string();
    let length = u16::try_from(json.len() + 2).unwrap();
    [&length.to_be_bytes()[..], &number[..], json.as_bytes()].concat()
}

fn numbers(json: &Json) -> Option<[u64; 2]> {
    Some([json[0].as_u64()?, json[1].as_u64()?])
}

impl Device {
    /// A device before which the mapper has this fault.
    pub(crate) fn with(fault: &'static str) -> Result<Self, String> {
        let inside = Arc::new(Inside {
            device: Mutex::new(SimulatedDevice::from_properties(&properties(), 1)),
            changes: watch::Sender::new(0),
        });
        let port = Port::reserve().map_err(|e| e.to_string())?;
        let device = Self { inside, port, power: Mutex::default(), fault };
        device.switch_on();
        Ok(device)
    }

    fn switch_on(&self) {
        let listener = self.port.listen().unwrap();
        let inside = Arc::clone(&self.inside);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((line, _)) = listener.accept().await {
                drop(line.set_nodelay(true));
                lines.spawn(Arc::clone(&inside).serve(line));
            }
        });
        *self.power.lock().unwrap() = Some(tasks);
    }

    fn address(&self) -> SocketAddr {
        self.port.address().unwrap()
    }
}

impl Fixture for Device {
    async fn start() -> Result<Self, String> {
        Self::with("none")
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(self.address())
    }

    fn connection(&self, at: &Endpoint) -> Json {
        let Endpoint::Tcp(at) = at else { panic!("it speaks TCP, not {at:?}") };
        json!({ "address": at.to_string(), "fault": self.fault })
    }

    fn properties(&self) -> Vec<Property> {
        properties()
    }

    async fn value(&self, property: &str) -> Option<Value> {
        self.inside.device().value(property, Duration::ZERO)
    }

    async fn set(&self, property: &str, value: Value) -> bool {
        let set = self.inside.device().set(property, value);
        self.inside.changes.send_modify(|changes| *changes += 1);
        set
    }

    async fn writes(&self) -> Vec<Write> {
        self.inside.device().writes().to_vec()
    }

    fn missing_address(&self) -> Option<Json> {
        Some(json!({ "register": 2 }))
    }

    async fn stop(&self) -> bool {
        self.power.lock().unwrap().take();
        true
    }

    async fn restart(&self) {
        self.switch_on();
    }
}

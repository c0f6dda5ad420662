//! The conformance kit, with a device by pymodbus.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

#[expect(dead_code, reason = "the kit brings its own lines")]
#[path = "support/device.rs"]
mod device;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use kubebus_sdk::{Value, ValueType};
use kubebus_sdk_testing::{Endpoint, Fixture, Property, Write, conformance};
use serde_json::{Value as Json, json};

use device::{Asked, Device};

const PATIENCE: Duration = Duration::from_secs(30);

const UNIT: u8 = 1;

/// A device whose process may be frozen or gone; what it held and was asked until then is known.
struct Plc {
    device: Device,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    is_asleep: bool,
    values: BTreeMap<String, Value>,
    writes: Vec<Write>,
}

/// Table, first address and number of words of each property.
const PLACES: [(&str, &str, u16, usize); 5] = [
    ("level", "holding", 0, 2),
    ("setpoint", "holding", 2, 2),
    ("count", "holding", 4, 1),
    ("far", "input", 40, 1),
    ("pump", "coil", 3, 1),
];

fn value(name: &str, words: &[u16]) -> Value {
    match (name, words) {
        ("pump", [on]) => Value::Bool(*on != 0),
        (_, [high, low]) => Value::Float(f32::from_bits(u32::from(*high) << 16 | u32::from(*low)).into()),
        (_, words) => Value::Int(words[0].into()),
    }
}

fn words(value: &Value) -> Vec<u16> {
    match value {
        Value::Bool(on) => vec![u16::from(*on)],
        Value::Int(n) => vec![u16::try_from(*n).unwrap()],
        Value::Float(_) | Value::Text(_) | Value::Struct(_) => {
            let bits = (value.as_f64().unwrap() as f32).to_bits();
            vec![(bits >> 16) as u16, bits as u16]
        }
    }
}

impl Plc {
    /// Looks at the device once more, unless it cannot answer.
    fn look<T>(&self, of: impl FnOnce(&Known) -> T) -> T {
        let mut known = self.known.lock().unwrap();
        if !known.is_asleep {
            for (name, table, at, len) in PLACES {
                known.values.insert(name.to_owned(), value(name, &self.device.get(UNIT, table, at, len)));
            }
            let writes = self.device.asked().into_iter().filter(Asked::is_write).filter_map(written);
            known.writes.extend(writes);
        }
        of(&known)
    }

    fn sleep(&self, is_asleep: bool) {
        self.look(|_| ());
        self.known.lock().unwrap().is_asleep = is_asleep;
    }
}

fn written(Asked(_, function, at, _, words): Asked) -> Option<Write> {
    let table = if matches!(function, 5 | 15) { "coil" } else { "holding" };
    let (name, ..) = PLACES.into_iter().find(|(_, t, start, _)| (*t, *start) == (table, at))?;
    Some(Write { property: name.to_owned(), value: value(name, &words) })
}

impl Fixture for Plc {
    async fn start() -> Result<Self, String> {
        let plc = Self { device: Device::tcp(&[UNIT]), known: Mutex::default() };
        for (name, table, at, len) in PLACES {
            let words = if len == 2 { words(&Value::Float(f64::from(at) + 1.5)) } else { vec![at + 1] };
            let words = if name == "pump" { vec![1] } else { words };
            plc.device.set(UNIT, table, at, &words);
        }
        Ok(plc)
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(self.device.address().parse().unwrap())
    }

    fn connection(&self, at: &Endpoint) -> Json {
        let Endpoint::Tcp(address) = at else { panic!("a device on TCP") };
        json!({ "tcp": address.to_string(), "unit": UNIT })
    }

    fn properties(&self) -> Vec<Property> {
        vec![
            Property::new("level", ValueType::Float, json!({"holding": 0, "type": "f32"})),
            Property::new("setpoint", ValueType::Float, json!({"holding": 2, "type": "f32"}))
                .writable()
                .range(1.0, 90.0),
            Property::new("count", ValueType::Int, json!({"holding": 4})).writable().range(0.0, 1000.0),
            Property::new("far", ValueType::Int, json!({"input": 40})),
            Property::new("pump", ValueType::Bool, json!({"coil": 3})).writable(),
        ]
    }

    async fn value(&self, property: &str) -> Option<Value> {
        self.look(|known| known.values.get(property).cloned())
    }

    async fn set(&self, property: &str, value: Value) -> bool {
        if self.known.lock().unwrap().is_asleep {
            return false;
        }
        let (_, table, at, _) = PLACES.into_iter().find(|(name, ..)| *name == property).unwrap();
        self.device.set(UNIT, table, at, &words(&value));
        true
    }

    async fn writes(&self) -> Vec<Write> {
        self.look(|known| known.writes.clone())
    }

    fn missing_address(&self) -> Option<Json> {
        Some(json!({"holding": 205}))
    }

    async fn freeze(&self) -> bool {
        self.sleep(true);
        self.device.freeze();
        true
    }

    async fn resume(&self) {
        self.device.thaw();
        self.sleep(false);
    }

    async fn stop(&self) -> bool {
        self.sleep(true);
        self.device.kill();
        true
    }

    async fn restart(&self) {
        self.device.restart();
        self.sleep(false);
    }
}

conformance!(mapper_modbus::ModbusMapper, Plc);

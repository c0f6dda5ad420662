//! What a vendor tells the kit: how to start a device, and what it is like.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;

use bus::twin::PropertyConfig;
use kubebus_sdk::{Value, ValueType};
use serde_json::Value as Json;

/// Where a device is reached; the proxy opens one of the same kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    /// A serial port, such as one end of a pair of pseudo-terminals.
    Serial(PathBuf),
    /// Nothing that a proxy can stand before: cases that break the line do not apply.
    Direct,
}

/// A real device or a simulator that somebody else wrote, for one case.
///
/// Every case starts its own and drops it, several at a time: use free ports and temporary directories, and end child
/// processes on drop. Errors are texts for whoever runs the tests ("needs snmpd: apt-get install snmpd").
pub trait Fixture: Send + Sync + Sized + 'static {
    /// Starts a device, ready to answer, that nobody has written to.
    fn start() -> impl Future<Output = Result<Self, String>> + Send;

    fn endpoint(&self) -> Endpoint;

    /// The device's connection settings (`spec.protocol.configData`) for a mapper that reaches it `at` this endpoint:
    /// the device's own, or a proxy's.
    fn connection(&self, at: &Endpoint) -> Json;

    /// What the device offers: two points at least, of different values, and a writable one if the protocol writes.
    fn properties(&self) -> Vec<Property>;

    /// The value that the device holds now; `None` if it has none to tell.
    fn value(&self, property: &str) -> impl Future<Output = Option<Value>> + Send;

    /// Changes a value in the device, past the mapper; it does not count as a write. `false` if this value cannot be
    /// changed. Between two calls values hold still.
    fn set(&self, property: &str, value: Value) -> impl Future<Output = bool> + Send;

    /// Every write that the device has carried out, in order, counted at the device. One that sets what is there
    /// already counts too.
    fn writes(&self) -> impl Future<Output = Vec<Write>> + Send;

    /// An address that is well formed and that the device does not have.
    fn missing_address(&self) -> Option<Json> {
        None
    }

    /// Stops answering without closing anything, as a hung controller does. `false` if it cannot.
    fn freeze(&self) -> impl Future<Output = bool> + Send {
        async { false }
    }

    fn resume(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Ends the device with all its connections, as a power cut does. `false` if it cannot.
    fn stop(&self) -> impl Future<Output = bool> + Send {
        async { false }
    }

    /// Starts it again on the same address. Its values may be those of its start.
    fn restart(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// The protocol connects anew for each request.
    const CONNECTS_PER_REQUEST: bool = false;
}

/// A write that a device has carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    pub property: String,
    pub value: Value,
}

/// One property of a fixture's device.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    pub name: String,
    pub value_type: ValueType,
    /// As the mapper's `Address` reads it.
    pub address: Json,
    pub writable: bool,
    /// The device pushes it; it is never polled.
    pub pushed: bool,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
}

impl Property {
    /// A property that can be read.
    pub fn new(name: &str, value_type: ValueType, address: Json) -> Self {
        Self {
            name: name.to_owned(),
            value_type,
            address,
            writable: false,
            pushed: false,
            minimum: None,
            maximum: None,
        }
    }

    #[must_use]
    pub fn writable(mut self) -> Self {
        self.writable = true;
        self
    }

    #[must_use]
    pub fn pushed(mut self) -> Self {
        self.pushed = true;
        self
    }

    /// What may be written, inclusive.
    #[must_use]
    pub fn range(mut self, minimum: f64, maximum: f64) -> Self {
        (self.minimum, self.maximum) = (Some(minimum), Some(maximum));
        self
    }

    /// A valid value that is another for each `n` below some ten (a bool has but two): whole numbers from the range's
    /// lower end, which every number format holds exactly.
    pub fn value(&self, n: u32) -> Value {
        let lowest = self.minimum.unwrap_or(1.0).ceil();
        let room = self.maximum.map_or(100.0, |maximum| (maximum - lowest).floor() + 1.0).max(1.0);
        let number = lowest + f64::from(n) % room;
        match self.value_type {
            ValueType::Bool => Value::Bool(n % 2 == 1),
            ValueType::Int => Value::Int(number as i64),
            ValueType::Float => Value::Float(number),
            ValueType::String => Value::Text(format!("kit{n}")),
            ValueType::Bytes => Value::Text(["a2l0", "a2l1", "a2l2"][n as usize % 3].to_owned()),
            ValueType::Struct => Value::Struct([("kit".to_owned(), Value::Int(n.into()))].into()),
        }
    }

    /// A number that must not be written; `None` without a range.
    pub(crate) fn too_large(&self) -> Option<Value> {
        let above = self.maximum? + 1.0;
        Some(if self.value_type == ValueType::Int { Value::Int(above as i64) } else { Value::Float(above) })
    }

    /// As the node sends it. By way of JSON, so that what the contract adds takes its default.
    pub(crate) fn config(&self, poll_ms: u64) -> PropertyConfig {
        let Self { name, value_type, address, writable, pushed, minimum, maximum } = self;
        let json = serde_json::json!({
            "name": name, "type": value_type, "writable": writable, "address": address,
            "poll_ms": if *pushed { 0 } else { poll_ms }, "minimum": minimum, "maximum": maximum,
        });
        #[expect(clippy::expect_used, reason = "it has the contract's form: a test reads one back")]
        serde_json::from_value(json).expect("a property as the contract has it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_reaches_the_mapper_as_it_was_meant() {
        let level = Property::new("level", ValueType::Float, serde_json::json!({"register": 4}));
        let config = level.clone().writable().range(0.5, 3.0).config(100);
        assert_eq!((config.name.as_str(), config.writable, config.poll_ms), ("level", true, 100));
        assert_eq!((config.minimum, config.maximum), (Some(0.5), Some(3.0)));
        assert_eq!(level.pushed().config(100).poll_ms, 0);
    }

    #[test]
    fn values_differ_and_stay_within_the_range() {
        let valve = Property::new("valve", ValueType::Int, Json::Null).range(0.0, 100.0);
        assert_eq!([valve.value(0), valve.value(1)], [Value::Int(0), Value::Int(1)]);
        assert_eq!(valve.too_large(), Some(Value::Int(101)));
        let narrow = Property::new("valve", ValueType::Float, Json::Null).range(0.5, 2.5);
        assert_eq!(
            [narrow.value(0), narrow.value(1), narrow.value(2)].map(|v| v.as_f64()),
            [Some(1.0), Some(2.0), Some(1.0)]
        );
    }
}

//! The conformance kit against Debian's snmpd.

use crate::agent::{Snmpd, at};
use kubebus_sdk::{Value, ValueType};
use kubebus_sdk_testing::{Endpoint, Fixture, Property, Write, conformance};
use mapper_snmp::SnmpMapper;
use serde_json::{Value as Json, json};

struct Agent(Snmpd);

/// Property, object, type as `pass_persist` names it.
const POINTS: [(&str, &str, &str); 4] = [
    ("level", "1.0", "integer"),
    ("name", "2.0", "string"),
    ("flow", "3.0", "gauge"),
    ("energy", "8.0", "counter"),
];

fn point(property: &str) -> (&'static str, &'static str) {
    let (_, object, kind) = POINTS.into_iter().find(|(name, ..)| *name == property).unwrap();
    (object, kind)
}

fn value(property: &str, text: &str) -> Value {
    match property {
        "name" => Value::Text(text.to_owned()),
        "flow" => Value::Float(text.parse().unwrap()),
        _ => Value::Int(text.parse().unwrap()),
    }
}

impl Fixture for Agent {
    async fn start() -> Result<Self, String> {
        Snmpd::start().await.map(Self)
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Udp(self.0.address)
    }

    fn connection(&self, at: &Endpoint) -> Json {
        let Endpoint::Udp(at) = at else { panic!("SNMP is asked by UDP") };
        json!({ "agent": at.to_string(), "community": "plant", "timeout_ms": 3500, "retries": 1 })
    }

    fn properties(&self) -> Vec<Property> {
        vec![
            Property::new("level", ValueType::Int, at("1.0")).writable().range(0.0, 100.0),
            Property::new("name", ValueType::String, at("2.0")).writable(),
            Property::new("flow", ValueType::Float, at("3.0")),
            Property::new("energy", ValueType::Int, at("8.0")),
        ]
    }

    async fn value(&self, property: &str) -> Option<Value> {
        Some(value(property, &self.0.get(point(property).0)))
    }

    async fn set(&self, property: &str, value: Value) -> bool {
        let (object, kind) = point(property);
        self.0.put(object, kind, &value.to_string());
        true
    }

    async fn writes(&self) -> Vec<Write> {
        let property = |object: &str| POINTS.into_iter().find(|(_, known, _)| *known == object).unwrap().0;
        let writes = self.0.writes().into_iter();
        writes
            .map(|(object, text)| (property(&object), text))
            .map(|(p, text)| Write { property: p.to_owned(), value: value(p, &text) })
            .collect()
    }

    fn missing_address(&self) -> Option<Json> {
        Some(at("99.0"))
    }

    async fn freeze(&self) -> bool {
        self.0.freeze();
        true
    }

    async fn resume(&self) {
        self.0.thaw();
    }

    async fn stop(&self) -> bool {
        self.0.down();
        true
    }

    async fn restart(&self) {
        self.0.up().await.unwrap();
    }
}

conformance!(SnmpMapper, Agent);

//! A device at a mosquitto of its own, played with paho-mqtt, as the conformance kit's device.

use kubebus_sdk::{Value, ValueType};
use kubebus_sdk_testing::{Endpoint, Fixture, Property, Write};
use serde_json::{Value as Json, json};
use tokio::sync::Mutex;

use super::{Broker, Script};

pub(crate) struct Boiler {
    port: u16,
    state: Mutex<State>,
}

struct State {
    broker: Broker,
    script: Script,
}

impl State {
    async fn told(&mut self) -> Json {
        self.script.tell("tell");
        let told = self.script.says("told").await;
        serde_json::from_str(told.strip_prefix("told ").unwrap()).unwrap()
    }
}

impl Fixture for Boiler {
    async fn start() -> Result<Self, String> {
        let broker = Broker::open().await;
        let script = Script::start("boiler.py", &[&broker.port.to_string()]).await;
        Ok(Self { port: broker.port, state: Mutex::new(State { broker, script }) })
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(([127, 0, 0, 1], self.port).into())
    }

    fn connection(&self, at: &Endpoint) -> Json {
        let Endpoint::Tcp(address) = at else { panic!("a TCP endpoint") };
        json!({"broker": address.to_string()})
    }

    fn properties(&self) -> Vec<Property> {
        let address = |name: &str| {
            json!({"topic": "boiler/state", "pointer": format!("/{name}"), "time": "/at",
            "write": {"topic": format!("boiler/set/{name}"), "payload": "${value}"}})
        };
        vec![
            Property::new("speed", ValueType::Float, address("speed")).writable().range(0.0, 50.0),
            Property::new("level", ValueType::Int, address("level")).writable(),
            Property::new("mode", ValueType::String, address("mode")).writable(),
            Property::new("relay", ValueType::Bool, address("relay")).writable(),
            Property::new("flow", ValueType::Float, address("flow")).pushed(),
        ]
    }

    async fn value(&self, property: &str) -> Option<Value> {
        let told = self.state.lock().await.told().await;
        serde_json::from_value(told["state"][property].clone()).ok()
    }

    async fn set(&self, property: &str, value: Value) -> bool {
        let mut state = self.state.lock().await;
        state.script.tell(&format!("set {property} {}", serde_json::to_string(&value).unwrap()));
        state.script.says("done").await;
        true
    }

    async fn writes(&self) -> Vec<Write> {
        let told = self.state.lock().await.told().await;
        let write = |write: &Json| Write {
            property: write[0].as_str().unwrap().to_owned(),
            value: serde_json::from_value(write[1].clone()).unwrap(),
        };
        told["writes"].as_array().unwrap().iter().map(write).collect()
    }

    async fn freeze(&self) -> bool {
        self.state.lock().await.broker.signal("STOP");
        true
    }

    async fn resume(&self) {
        self.state.lock().await.broker.signal("CONT");
    }

    async fn stop(&self) -> bool {
        self.state.lock().await.broker.end();
        true
    }

    async fn restart(&self) {
        let mut state = self.state.lock().await;
        state.broker.again().await;
        state.script.says("back").await;
    }
}

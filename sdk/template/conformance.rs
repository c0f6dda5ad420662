//! What every driver has to pass, on the simulated device; see kubebus-sdk-testing.

mod simulated;

use std::net::SocketAddr;
use std::sync::Mutex;

use __library__::__Type__;
use kubebus_sdk::{Value, ValueType};
use kubebus_sdk_testing::{Endpoint, Fixture, Property, Write, conformance};
use serde_json::json;
use simulated::Simulated;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A simulated device, and where it listens.
struct Device {
    simulated: Simulated,
    address: SocketAddr,
    serving: Mutex<JoinSet<()>>,
}

conformance!(__Type__, Device);

impl Fixture for Device {
    async fn start() -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let device = Self {
            simulated: Simulated::new(),
            address,
            serving: Mutex::default(),
        };
        device.serve(listener);
        Ok(device)
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(self.address)
    }

    fn connection(&self, at: &Endpoint) -> serde_json::Value {
        match at {
            Endpoint::Tcp(address) => json!({ "address": address.to_string() }),
            other => panic!("a TCP device at {other:?}"),
        }
    }

    fn properties(&self) -> Vec<Property> {
        vec![
            Property::new("speed", ValueType::Float, json!({ "register": "speed" }))
                .writable()
                .range(0.0, 3000.0),
            Property::new(
                "temperature",
                ValueType::Float,
                json!({ "register": "temperature" }),
            ),
            Property::new("running", ValueType::Bool, json!({ "register": "running" })),
        ]
    }

    async fn value(&self, property: &str) -> Option<Value> {
        self.simulated
            .value(property)
            .map(|text| value(property, &text))
    }

    async fn set(&self, property: &str, value: Value) -> bool {
        self.simulated.set(property, &value.to_string());
        true
    }

    async fn writes(&self) -> Vec<Write> {
        let write = |(property, text): (String, String)| Write {
            value: value(&property, &text),
            property,
        };
        self.simulated.writes().into_iter().map(write).collect()
    }

    fn missing_address(&self) -> Option<serde_json::Value> {
        Some(json!({ "register": "nowhere" }))
    }

    async fn freeze(&self) -> bool {
        self.simulated.freeze(true);
        true
    }

    async fn resume(&self) {
        self.simulated.freeze(false);
    }

    async fn stop(&self) -> bool {
        let mut serving = std::mem::take(&mut *self.serving.lock().unwrap());
        serving.shutdown().await;
        true
    }

    async fn restart(&self) {
        self.serve(TcpListener::bind(self.address).await.unwrap());
    }
}

impl Device {
    fn serve(&self, listener: TcpListener) {
        self.serving
            .lock()
            .unwrap()
            .spawn(self.simulated.clone().serve(listener));
    }
}

fn value(property: &str, text: &str) -> Value {
    match property {
        "running" => Value::Bool(text == "true"),
        _ => Value::Float(text.parse().unwrap()),
    }
}

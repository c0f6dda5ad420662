//! Python's HTTP server as the conformance kit's device.

use kubebus_sdk::{Value, ValueType};
use kubebus_sdk_testing::{Endpoint, Fixture, Property, Write};
use serde_json::{Value as Json, json};
use tokio::sync::Mutex;

use super::Script;

pub(crate) struct Machine {
    port: u16,
    state: Mutex<State>,
}

struct State {
    script: Option<Script>,
    /// Carried out before its last end.
    before: Vec<Write>,
}

impl State {
    async fn told(&mut self) -> Option<Json> {
        let script = self.script.as_mut()?;
        script.tell("tell");
        let told = script.says("told").await;
        serde_json::from_str(told.strip_prefix("told ")?).ok()
    }

    async fn writes(&mut self) -> Vec<Write> {
        let told = self.told().await.unwrap_or_default();
        let now = told["writes"].as_array().into_iter().flatten().filter_map(Json::as_object).flatten();
        let now = now.map(|(property, value)| Write {
            property: property.clone(),
            value: serde_json::from_value(value.clone()).unwrap(),
        });
        self.before.iter().cloned().chain(now).collect()
    }
}

impl Fixture for Machine {
    async fn start() -> Result<Self, String> {
        let (script, ready) = Script::start("device.py", &["0"]).await;
        let port = ready.rsplit(' ').next().unwrap().parse().unwrap();
        Ok(Self { port, state: Mutex::new(State { script: Some(script), before: Vec::new() }) })
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(([127, 0, 0, 1], self.port).into())
    }

    fn connection(&self, at: &Endpoint) -> Json {
        let Endpoint::Tcp(address) = at else { panic!("a TCP endpoint") };
        json!({"url": format!("http://{address}/api"), "timeout_ms": 2000})
    }

    fn properties(&self) -> Vec<Property> {
        let address = |name: &str| {
            json!({"path": "/status", "pointer": format!("/{name}"),
            "write": {"path": "/state", "body": format!(r#"{{"{name}": ${{value}}}}"#)}})
        };
        vec![
            Property::new("speed", ValueType::Float, address("speed")).writable().range(0.0, 50.0),
            Property::new("level", ValueType::Int, address("level")).writable(),
            Property::new("mode", ValueType::String, address("mode")).writable(),
            Property::new("relay", ValueType::Bool, address("relay")).writable(),
        ]
    }

    async fn value(&self, property: &str) -> Option<Value> {
        let told = self.state.lock().await.told().await?;
        serde_json::from_value(told["state"][property].clone()).ok()
    }

    async fn set(&self, property: &str, value: Value) -> bool {
        let mut state = self.state.lock().await;
        let Some(script) = &mut state.script else { return false };
        script.tell(&format!("set {property} {}", serde_json::to_string(&value).unwrap()));
        script.says("done set").await;
        true
    }

    async fn writes(&self) -> Vec<Write> {
        self.state.lock().await.writes().await
    }

    fn missing_address(&self) -> Option<Json> {
        Some(json!({"path": "/missing"}))
    }

    async fn freeze(&self) -> bool {
        self.state.lock().await.script.as_ref().inspect(|script| script.signal("STOP")).is_some()
    }

    async fn resume(&self) {
        self.state.lock().await.script.iter().for_each(|script| script.signal("CONT"));
    }

    async fn stop(&self) -> bool {
        let mut state = self.state.lock().await;
        state.before = state.writes().await;
        state.script = None;
        true
    }

    async fn restart(&self) {
        let (script, _) = Script::start("device.py", &[&self.port.to_string()]).await;
        self.state.lock().await.script = Some(script);
    }
}

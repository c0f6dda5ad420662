//! The conformance kit's view of a server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use kubebus_sdk::{Value, ValueType};
use kubebus_sdk_testing::{Endpoint, Fixture, Property, Write};
use mapper_opcua::OpcUaMapper;
use serde_json::{Value as Json, json};

use crate::server::Server;

kubebus_sdk_testing::conformance!(OpcUaMapper, AsyncUa);

/// How long a server that may be frozen is asked for a value.
const GLANCE: Duration = Duration::from_secs(5);

pub(crate) struct AsyncUa(Server);

fn id(property: &str) -> String {
    format!("ns=2;s={property}")
}

impl Fixture for AsyncUa {
    async fn start() -> Result<Self, String> {
        let nodes = json!([
            { "node": "ns=2;s=level", "type": "Double", "value": 3.5 },
            { "node": "ns=2;s=running", "type": "Boolean", "value": true },
            { "node": "ns=2;s=position", "type": "Int16", "value": 40, "writable": true },
            { "node": "ns=2;s=batch", "type": "String", "value": "A7", "writable": true },
            { "node": "ns=2;s=pressure", "type": "Float", "value": 1.25 },
        ]);
        Ok(Self(Server::start(nodes, json!({})).await))
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, self.0.port)))
    }

    fn connection(&self, at: &Endpoint) -> Json {
        let port = if let Endpoint::Tcp(at) = at { at.port() } else { self.0.port };
        json!({ "url": format!("opc.tcp://127.0.0.1:{port}"), "timeout": 2 })
    }

    fn properties(&self) -> Vec<Property> {
        let property =
            |name: &str, value_type| Property::new(name, value_type, json!({ "nodeID": id(name) }));
        vec![
            property("level", ValueType::Float),
            property("running", ValueType::Bool),
            property("position", ValueType::Int).writable().range(0.0, 100.0),
            property("batch", ValueType::String).writable(),
            property("pressure", ValueType::Float).pushed(),
        ]
    }

    async fn value(&self, property: &str) -> Option<Value> {
        let answer = tokio::time::timeout(GLANCE, self.0.try_ask(json!({ "get": id(property) })));
        let answer = answer.await.ok()?.ok()?;
        value(&answer["value"])
    }

    async fn set(&self, property: &str, value: Value) -> bool {
        self.0.ask(json!({ "set": id(property), "value": value })).await;
        true
    }

    async fn writes(&self) -> Vec<Write> {
        let write = |write: Json| {
            let property = write["node"].as_str()?.rsplit('=').next()?.to_owned();
            Some(Write { property, value: value(&write["value"])? })
        };
        self.0.writes().into_iter().filter_map(write).collect()
    }

    fn missing_address(&self) -> Option<Json> {
        Some(json!({ "nodeID": "ns=2;s=nothing" }))
    }

    async fn freeze(&self) -> bool {
        self.0.freeze();
        true
    }

    async fn resume(&self) {
        self.0.resume();
    }

    async fn stop(&self) -> bool {
        self.0.end();
        true
    }

    async fn restart(&self) {
        self.0.begin().await;
    }
}

fn value(json: &Json) -> Option<Value> {
    serde_json::from_value(json.clone()).ok()
}

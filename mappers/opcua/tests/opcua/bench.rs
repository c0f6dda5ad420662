//! A driver at work, called as the SDK calls it.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bus::twin::{DeviceConfig, Outcome};
use bus::{Mono, Now, UnixMillis};
use kubebus_sdk::testing::{Consumption, Driven, permit};
use kubebus_sdk::{Error, Value, WriteOutcome, WritePermit};
use mapper_opcua::{OpcUaMapper, OpcUaSession};
use serde_json::{Value as Json, json};

use crate::server::Server;

static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap();
    Now {
        mono: Mono(micros(BEGINNING.elapsed())),
        wall: UnixMillis(u64::try_from(wall.as_millis()).unwrap()),
    }
}

/// The device `test/press` with these settings and properties `(name, type, node)`.
pub(crate) fn driven(connection: Json, properties: &[(&str, &str, &str)]) -> Driven<OpcUaMapper> {
    let property = |(name, kind, node): &(&str, &str, &str)| json!({ "name": name, "type": kind, "writable": true, "poll_ms": 0, "address": { "nodeID": node } });
    let properties: Vec<Json> = properties.iter().map(property).collect();
    let config = json!({ "device": { "namespace": "test", "name": "press" }, "connection": connection, "properties": properties });
    let config: DeviceConfig = serde_json::from_value(config).unwrap();
    Driven::new(&config).unwrap()
}

/// With no settings but the server's address.
pub(crate) fn plain(server: &Server, properties: &[(&str, &str, &str)]) -> Driven<OpcUaMapper> {
    driven(json!({ "url": server.url(), "timeout": 9 }), properties)
}

pub(crate) fn fresh_permit() -> (WritePermit, Consumption) {
    permit(Duration::from_secs(60), now)
}

/// A write, and what the node would be told of its failure.
pub(crate) async fn write(
    driven: &Driven<OpcUaMapper>,
    session: &mut OpcUaSession,
    property: &str,
    value: Value,
) -> Result<WriteOutcome, (Outcome, Error)> {
    let (permit, consumption) = fresh_permit();
    let written = driven.write(session, property, value, permit).await;
    written.map_err(|error| (consumption.outcome(&error), error))
}

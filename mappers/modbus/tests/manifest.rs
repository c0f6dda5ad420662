//! The example manifest, as `kubebus apply -f` checks it and as the mapper reads it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

use bus::twin::{DeviceConfig, DeviceId};
use device_twin::model::check::check;
use device_twin::model::{Catalog, DeviceInfo, Kind};
use kubebus_sdk::testing::Driven;
use mapper_modbus::ModbusMapper;
use serde_json::{Value, json};

#[test]
fn the_example_is_taken_by_the_node_and_understood_by_the_mapper() {
    let mut catalog = Catalog::default();
    for document in serde_saphyr::from_multiple::<Value>(include_str!("../device.yaml")).unwrap() {
        let kind = if document["kind"] == "Device" { Kind::Device } else { Kind::Model };
        let id = format!("default/{}", document["metadata"]["name"].as_str().unwrap()).parse().unwrap();
        let text = document.to_string().into();
        assert_eq!(check(kind, &id, &text, &catalog), [], "{document}");
        catalog.put(kind, &id, Some(&text));
    }
    assert_eq!((catalog.unreadable().count(), catalog.devices().count()), (0, 2));
    for (id, device) in catalog.devices() {
        assert_eq!((&device.problem, device.mapper.as_ref().unwrap().as_str()), (&None, "modbus"), "{id}");
        let driven = Driven::<ModbusMapper>::new(&config(id, device)).unwrap();
        assert_eq!(driven.faults().collect::<Vec<_>>(), Vec::<&kubebus_sdk::Error>::new(), "{id}");
    }
}

/// As the node would send it.
fn config(id: &DeviceId, device: &DeviceInfo) -> DeviceConfig {
    let property = |(name, property): (
        &std::sync::Arc<str>,
        &std::sync::Arc<device_twin::model::Property>,
    )| {
        json!({
            "name": **name, "type": property.value_type, "writable": property.writable, "address": property.address,
            "poll_ms": property.poll.as_millis() as u64,
        })
    };
    let properties: Vec<Value> = device.properties.iter().map(property).collect();
    serde_json::from_value(json!({ "device": id, "connection": device.connection, "properties": properties }))
        .unwrap()
}

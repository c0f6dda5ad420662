//! What is read, and what is refused.

use kubebus_sdk::{Error, FoundProperty, Mapper, Quality, Session, Value, ValueType};
use mapper_opcua::OpcUaMapper;
use serde_json::json;

use crate::bench::plain;
use crate::server::Server;

#[tokio::test]
async fn every_scalar_type_is_read_with_one_call_for_all() {
    let table = [
        ("Boolean", json!(true), "bool", Value::Bool(true)),
        ("SByte", json!(-7), "int", Value::Int(-7)),
        ("Byte", json!(200), "int", Value::Int(200)),
        ("Int16", json!(-300), "int", Value::Int(-300)),
        ("UInt16", json!(60000), "int", Value::Int(60000)),
        ("Int32", json!(-70000), "int", Value::Int(-70000)),
        ("UInt32", json!(4_000_000_000u32), "int", Value::Int(4_000_000_000)),
        ("Int64", json!(i64::MIN), "int", Value::Int(i64::MIN)),
        ("UInt64", json!(i64::MAX), "int", Value::Int(i64::MAX)),
        ("Float", json!(1.5), "float", Value::Float(1.5)),
        ("Double", json!(0.1), "float", Value::Float(0.1)),
        ("String", json!("on"), "string", Value::Text("on".into())),
        ("ByteString", json!("6b6974"), "bytes", Value::Text("a2l0".into())),
        ("LocalizedText", json!("an"), "string", Value::Text("an".into())),
        ("DateTime", json!("2026-01-02T03:04:05"), "string", Value::Text("2026-01-02T03:04:05.000Z".into())),
    ];
    let node = |kind: &str| format!("ns=2;s={kind}");
    let nodes =
        table.iter().map(|(kind, value, ..)| json!({ "node": node(kind), "type": kind, "value": value }));
    let server = Server::start(nodes.collect(), json!({})).await;
    let names: Vec<String> = table.iter().map(|(kind, ..)| node(kind)).collect();
    let properties: Vec<_> =
        table.iter().zip(&names).map(|((name, _, kind, _), id)| (*name, *kind, id.as_str())).collect();
    let driven = plain(&server, &properties);
    let mut session = driven.open().await.unwrap();
    let readings = driven.read(&mut session).await.unwrap();
    for (name, .., value) in &table {
        assert_eq!(readings[*name], Ok((value.clone(), Quality::Good)), "{name}");
    }
    assert_eq!(server.ask(json!({ "reads": true })).await, json!({ "reads": [table.len()] }));
    session.close().await;
    assert_eq!(server.ask(json!({ "sessions": true })).await, json!({ "sessions": 0 }), "it said goodbye");
}

#[tokio::test]
async fn what_cannot_be_a_value_costs_its_point_and_says_why() {
    let nodes = json!([
        { "node": "ns=2;s=array", "type": "Double", "value": [1.0, 2.0] },
        { "node": "ns=2;s=text", "type": "String", "value": "full" },
        { "node": "ns=2;s=huge", "type": "UInt64", "value": u64::MAX },
        { "node": "ns=2;s=level", "type": "Double", "value": 3.5 },
    ]);
    let server = Server::start(nodes, json!({})).await;
    let properties = [
        ("array", "float", "ns=2;s=array"),
        ("text", "float", "ns=2;s=text"),
        ("huge", "int", "ns=2;s=huge"),
        ("nothing", "float", "ns=2;s=nothing"),
        ("elsewhere", "float", "nsu=urn:nobody;s=level"),
        ("level", "float", "nsu=urn:kubebus:test;s=level"),
    ];
    let driven = plain(&server, &properties);
    let readings = driven.read(&mut driven.open().await.unwrap()).await.unwrap();
    for (name, why) in [
        ("array", "is an array of 2 values"),
        ("text", "holds a String, which is no Float"),
        ("nothing", "BadNodeIdUnknown"),
        ("elsewhere", "the server has no namespace urn:nobody"),
    ] {
        let Err(error @ Error::BadAddress { .. }) = &readings[name] else {
            panic!("{name}: {:?}", readings[name])
        };
        assert!(error.to_string().contains(why), "{error}");
    }
    assert!(matches!(&readings["huge"], Err(Error::Device(_))), "{:?}", readings["huge"]);
    assert_eq!(readings["level"], Ok((Value::Float(3.5), Quality::Good)));
}

#[tokio::test]
async fn a_values_status_is_its_quality() {
    let nodes = json!([{ "node": "ns=2;s=level", "type": "Double", "value": 3.5 }]);
    let server = Server::start(nodes, json!({})).await;
    let driven = plain(&server, &[("level", "float", "ns=2;s=level")]);
    let mut session = driven.open().await.unwrap();
    for (status, quality) in [("Good", Quality::Good), ("UncertainLastUsableValue", Quality::Uncertain)] {
        server.ask(json!({ "set": "ns=2;s=level", "value": 2.5, "status": status })).await;
        let readings = driven.read(&mut session).await.unwrap();
        assert_eq!(readings["level"], Ok((Value::Float(2.5), quality)), "{status}");
    }
    // asyncua sends no value with a bad status.
    server.ask(json!({ "set": "ns=2;s=level", "value": 2.5, "status": "BadSensorFailure" })).await;
    let readings = driven.read(&mut session).await.unwrap();
    assert!(
        matches!(&readings["level"], Err(Error::Device(why)) if why.contains("BadSensorFailure")),
        "{readings:?}"
    );
}

#[tokio::test]
async fn a_node_that_vanishes_costs_its_point_until_it_is_back() {
    let level = json!({ "node": "ns=2;s=level", "type": "Double", "value": 3.5 });
    let flow = json!({ "node": "ns=2;s=flow", "type": "Double", "value": 7.5 });
    let server = Server::start(json!([level, flow]), json!({})).await;
    let driven = plain(&server, &[("level", "float", "ns=2;s=level"), ("flow", "float", "ns=2;s=flow")]);
    let mut session = driven.open().await.unwrap();
    let good = |value| Ok((Value::Float(value), Quality::Good));
    assert_eq!(driven.read(&mut session).await.unwrap()["level"], good(3.5));
    server.ask(json!({ "delete": "ns=2;s=level" })).await;
    let readings = driven.read(&mut session).await.unwrap();
    assert!(
        matches!(&readings["level"], Err(Error::Device(why)) if why.contains("BadNodeIdUnknown")),
        "{readings:?}"
    );
    assert_eq!(readings["flow"], good(7.5));
    server.ask(json!({ "add": level })).await;
    assert_eq!(driven.read(&mut session).await.unwrap()["level"], good(3.5));
}

#[tokio::test]
async fn discovery_tells_what_a_property_can_be() {
    let nodes = json!([
        { "node": "ns=2;s=level", "type": "Double", "value": 3.5 },
        { "node": "ns=2;s=array", "type": "Double", "value": [1.0, 2.0] },
        { "node": "ns=2;s=valve", "type": "Int16", "value": 4, "writable": true },
    ]);
    let server = Server::start(nodes, json!({})).await;
    let connection = json!({ "url": server.url() });
    let config = serde_json::from_value(connection.clone()).unwrap();
    let found = OpcUaMapper::discover(&config).await.unwrap();
    let [device] = &found[..] else { panic!("{found:?}") };
    assert_eq!((device.name.as_str(), &device.connection), ("acme-press", &connection));
    let property = |name: &str, value_type, writable| FoundProperty {
        name: format!("Plant.{name}"),
        value_type,
        writable,
        address: json!({ "nodeID": format!("ns=2;s={name}") }),
    };
    let expected = [property("level", ValueType::Float, false), property("valve", ValueType::Int, true)];
    assert_eq!(device.properties, expected);
}

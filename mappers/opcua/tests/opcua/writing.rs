//! What is written, in which type, and what is not.

use bus::twin::Outcome;
use kubebus_sdk::{Error, Value};
use serde_json::json;

use crate::bench::{fresh_permit, plain, write};
use crate::server::Server;

#[tokio::test]
async fn a_value_goes_out_in_the_nodes_own_type() {
    let table = [
        ("Boolean", json!(false), "bool", Value::Bool(true), json!(true)),
        ("Byte", json!(0), "int", Value::Int(200), json!(200)),
        ("Int16", json!(0), "int", Value::Int(-300), json!(-300)),
        ("UInt32", json!(0), "int", Value::Int(4_000_000_000), json!(4_000_000_000u32)),
        ("Int64", json!(0), "int", Value::Int(i64::MIN), json!(i64::MIN)),
        ("Float", json!(0.0), "float", Value::Float(1.5), json!(1.5)),
        ("Double", json!(0.0), "float", Value::Float(0.1), json!(0.1)),
        ("String", json!(""), "string", Value::Text("on".into()), json!("on")),
        ("ByteString", json!(""), "bytes", Value::Text("a2l0".into()), json!("6b6974")),
    ];
    let node = |kind: &str| format!("ns=2;s={kind}");
    let nodes = table.iter().map(
        |(kind, value, ..)| json!({ "node": node(kind), "type": kind, "value": value, "writable": true }),
    );
    let server = Server::start(nodes.collect(), json!({})).await;
    let names: Vec<String> = table.iter().map(|(kind, ..)| node(kind)).collect();
    let properties: Vec<_> =
        table.iter().zip(&names).map(|((name, _, kind, ..), id)| (*name, *kind, id.as_str())).collect();
    let driven = plain(&server, &properties);
    let mut session = driven.open().await.unwrap();
    for (name, _, _, value, there) in &table {
        write(&driven, &mut session, name, value.clone()).await.unwrap();
        assert_eq!(server.ask(json!({ "get": node(name) })).await, json!({ "value": there, "type": name }));
    }
    assert_eq!(server.writes().len(), table.len(), "each of them once");
}

#[tokio::test]
async fn what_the_node_cannot_hold_or_does_not_take_moves_nothing() {
    let nodes = json!([
        { "node": "ns=2;s=byte", "type": "Byte", "value": 7, "writable": true },
        { "node": "ns=2;s=fixed", "type": "Double", "value": 3.5 },
        { "node": "ns=2;s=array", "type": "Double", "value": [1.0], "writable": true },
    ]);
    let server = Server::start(nodes, json!({})).await;
    let properties = [
        ("byte", "int", "ns=2;s=byte"),
        ("fixed", "float", "ns=2;s=fixed"),
        ("array", "float", "ns=2;s=array"),
        ("nothing", "float", "ns=2;s=nothing"),
    ];
    let driven = plain(&server, &properties);
    let mut session = driven.open().await.unwrap();
    for (name, value, outcome, why) in [
        ("byte", Value::Int(256), Outcome::Rejected, "256 does not fit the node, which holds a Byte"),
        ("array", Value::Float(1.0), Outcome::Rejected, "it is an array"),
        ("nothing", Value::Float(1.0), Outcome::Rejected, "BadNodeIdUnknown"),
        ("fixed", Value::Float(1.0), Outcome::Failed, "Bad"),
    ] {
        let (told, error) = write(&driven, &mut session, name, value).await.unwrap_err();
        assert_eq!(told, outcome, "{name}: {error}");
        assert!(error.to_string().contains(why), "{name}: {error}");
    }
    assert_eq!(server.writes(), Vec::<serde_json::Value>::new());
}

#[tokio::test]
async fn a_write_to_a_frozen_server_is_unknown_and_its_permit_used() {
    let nodes = json!([{ "node": "ns=2;s=valve", "type": "Double", "value": 0.0, "writable": true }]);
    let server = Server::start(nodes, json!({})).await;
    let driven = crate::bench::driven(
        json!({ "url": server.url(), "timeout": 3 }),
        &[("valve", "float", "ns=2;s=valve")],
    );
    let mut session = driven.open().await.unwrap();
    write(&driven, &mut session, "valve", Value::Float(1.0)).await.unwrap();
    server.freeze();
    let (permit, consumption) = fresh_permit();
    let error = tokio::time::timeout(
        std::time::Duration::from_secs(2),
        driven.write(&mut session, "valve", Value::Float(2.0), permit),
    )
    .await
    .map_or(Error::Timeout("write".into()), |written| written.unwrap_err());
    assert!(consumption.is_consumed());
    assert_eq!(consumption.outcome(&error), Outcome::Unknown);
    drop(session); // as the SDK does
    server.resume();
    // Whether the server did it or not: never twice.
    let mut session = driven.open().await.unwrap();
    write(&driven, &mut session, "valve", Value::Float(3.0)).await.unwrap();
    let twos = server.writes().iter().filter(|w| w["value"] == json!(2.0)).count();
    assert!(twos <= 1, "{:?}", server.writes());
}

//! Values that come by themselves, and how their end is noticed.

use std::collections::BTreeMap;

use kubebus_sdk::testing::Pushes;
use kubebus_sdk::{Error, Value};
use mapper_opcua::OpcUaMapper;
use serde_json::json;
use tokio::time::timeout;

use crate::bench::{driven, plain};
use crate::server::{PATIENCE, Server};

async fn two_nodes() -> Server {
    let nodes = json!([
        { "node": "ns=2;s=level", "type": "Double", "value": 3.5 },
        { "node": "ns=2;s=flow", "type": "Double", "value": 7.5 },
    ]);
    Server::start(nodes, json!({})).await
}

const POINTS: [(&str, &str, &str); 2] =
    [("level", "float", "ns=2;s=level"), ("flow", "float", "ns=2;s=flow")];

/// What came, newest of each, until `wanted` is among it.
async fn until(pushes: &mut Pushes<'_, OpcUaMapper>, name: &str, wanted: f64) -> BTreeMap<String, Value> {
    let mut came = BTreeMap::new();
    while came.get(name) != Some(&Value::Float(wanted)) {
        let (point, value) = timeout(PATIENCE, pushes.next()).await.expect("nothing came").unwrap();
        came.insert(point, value.unwrap());
    }
    came
}

async fn ended(pushes: &mut Pushes<'_, OpcUaMapper>) -> Error {
    let end = async {
        loop {
            if let Err(error) = pushes.next().await {
                return error;
            }
        }
    };
    timeout(PATIENCE, end).await.expect("the end was not told")
}

#[tokio::test]
async fn the_present_value_comes_first_and_then_each_change() {
    let server = two_nodes().await;
    let driven = plain(&server, &POINTS);
    let mut session = driven.open().await.unwrap();
    let mut pushes = driven.subscribe(&mut session).await.unwrap();
    until(&mut pushes, "level", 3.5).await;
    for value in [4.5, 5.5] {
        server.ask(json!({ "set": "ns=2;s=level", "value": value })).await;
        until(&mut pushes, "level", value).await;
    }
    // Subscribed anew, as after a change of the points: everything is told again.
    let mut again = driven.subscribe(&mut session).await.unwrap();
    until(&mut again, "level", 5.5).await;
    server.ask(json!({ "set": "ns=2;s=flow", "value": 8.5 })).await;
    until(&mut again, "flow", 8.5).await;
}

#[tokio::test]
async fn a_node_that_is_not_there_is_told_and_costs_no_other() {
    let server = two_nodes().await;
    let driven =
        plain(&server, &[("level", "float", "ns=2;s=level"), ("nothing", "float", "ns=2;s=nothing")]);
    let mut session = driven.open().await.unwrap();
    let mut pushes = driven.subscribe(&mut session).await.unwrap();
    let mut came = BTreeMap::new();
    while came.len() < 2 {
        let (point, value) = timeout(PATIENCE, pushes.next()).await.expect("nothing came").unwrap();
        came.insert(point, value);
    }
    assert_eq!(came["level"], Ok(Value::Float(3.5)));
    assert!(
        matches!(&came["nothing"], Err(Error::BadAddress { point, .. }) if point == "nothing"),
        "{came:?}"
    );
}

#[tokio::test]
async fn a_server_that_ends_or_freezes_ends_the_session() {
    for freeze in [false, true] {
        let server = two_nodes().await;
        let driven = driven(json!({ "url": server.url(), "timeout": 2 }), &POINTS);
        let mut session = driven.open().await.unwrap();
        let mut pushes = driven.subscribe(&mut session).await.unwrap();
        until(&mut pushes, "level", 3.5).await;
        if freeze {
            server.freeze()
        } else {
            server.end()
        }
        let error = ended(&mut pushes).await;
        assert!(matches!(error, Error::Transient { .. } | Error::Timeout(_)), "{error}");
    }
}

#[tokio::test]
async fn a_subscription_that_the_server_has_forgotten_ends_the_session() {
    let server = two_nodes().await;
    let driven = plain(&server, &POINTS);
    let mut session = driven.open().await.unwrap();
    let mut pushes = driven.subscribe(&mut session).await.unwrap();
    until(&mut pushes, "level", 3.5).await;
    server.ask(json!({ "forget": true })).await;
    let error = ended(&mut pushes).await;
    assert!(matches!(error, Error::Transient { .. } | Error::Timeout(_)), "{error}");
}

//! The mapper between a node and devices, at real brokers (mosquitto), with devices that others' clients play.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

mod support;

use bus::twin::Outcome;
use kubebus_sdk::{Quality, Value};
use serde_json::json;
use support::{Broker, Node, Script, device, polled, property};

kubebus_sdk_testing::conformance!(mapper_mqtt::MqttMapper, support::fixture::Boiler);

const GOOD: Quality = Quality::Good;
const BAD: Quality = Quality::Bad;

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[tokio::test]
async fn plain_topics_are_read_and_written() {
    let broker = Broker::open().await;
    let mut node = Node::start(&broker).await;
    node.say("boiler/state", r#"{"temp": 21.5, "mode": "eco"}"#, true).await;
    let availability = json!({"topic": "boiler/alive", "online": "yes", "offline": "no"});
    let temp = json!({"topic": "boiler/state", "pointer": "/temp"});
    let mode = json!({"topic": "boiler/state", "pointer": "mode",
        "write": {"topic": "boiler/set", "payload": "{\"mode\": ${value}}"}});
    let properties = vec![polled("temp", "float", temp), polled("mode", "string", mode)];
    node.configure(&[device(json!({"broker": broker.address(), "availability": availability}), properties)])
        .await;

    node.reports("temp", Value::Float(21.5), Quality::Uncertain).await;
    node.say("boiler/state", r#"{"temp": 22.5, "mode": "eco"}"#, false).await;
    node.reports("temp", Value::Float(22.5), GOOD).await;
    for nonsense in ["nonsense", r#"{"temp": "warm"}"#, r#"{"temp": null}"#, "[", ""] {
        node.say("boiler/state", nonsense, false).await;
    }
    node.say("boiler/state", [0xff_u8, 0xfe], false).await;
    node.say("boiler/state", "x".repeat(2_000_000), false).await;
    node.say("boiler/state", r#"{"temp": 23.5, "mode": "eco"}"#, false).await;
    node.reports("temp", Value::Float(23.5), GOOD).await;

    let nobody = node.write("mode", text("comfort")).await;
    assert_eq!(nobody.outcome, Outcome::Failed, "nobody listens there: {}", nobody.detail);
    let mut boiler =
        Script::start("listener.py", &[&broker.port.to_string(), "boiler/set", "boiler/state"]).await;
    boiler.tell("answer");
    let done = node.write("mode", text("comfort")).await;
    assert_eq!((done.outcome, done.detail.as_str()), (Outcome::Succeeded, ""), "it has said so itself");
    assert_eq!(boiler.says("heard").await, r#"heard fresh 1 {"mode": "comfort"}"#);
    node.reports("mode", text("comfort"), GOOD).await;
    boiler.tell("mute");
    let accepted = node.write("mode", text("eco")).await;
    assert_eq!((accepted.outcome, accepted.detail.as_str()), (Outcome::Succeeded, "accepted, under way"));

    node.say("boiler/alive", "no", true).await;
    node.reports("mode", text("comfort"), BAD).await;
    let offline = node.write("mode", text("eco")).await;
    assert_eq!(
        (offline.outcome, offline.detail.as_str()),
        (Outcome::Failed, "device: the device is offline")
    );
    assert_eq!(
        boiler.said().iter().filter(|line| line.starts_with("heard")).count(),
        1,
        "only the accepted one"
    );
    node.stop().await;
}

#[tokio::test]
async fn a_tasmota_plug_is_read_written_and_missed() {
    let broker = Broker::open().await;
    let plug = Script::start("devices.py", &[&broker.port.to_string()]).await;
    let mut node = Node::start(&broker).await;
    let properties = vec![
        polled("power", "bool", json!({"pointer": "/POWER"})),
        polled("watts", "int", json!({"pointer": "/ENERGY/Power"})),
        polled("dimmer", "int", json!({"pointer": "/Dimmer"})),
    ];
    let connection = json!({"broker": broker.address(), "shape": "tasmota", "topic": "plug"});
    node.configure(&[device(connection, properties)]).await;

    // It was asked, for it had said all this before we came.
    node.reports("watts", Value::Int(96), GOOD).await;
    node.reports("power", Value::Bool(false), GOOD).await;
    let done = node.write("power", Value::Bool(true)).await;
    assert_eq!((done.outcome, done.detail.as_str()), (Outcome::Succeeded, ""));
    assert_eq!(plug.says("command cmnd/plug/POWER").await, "command cmnd/plug/POWER ON fresh qos 1");
    node.reports("power", Value::Bool(true), GOOD).await;
    let unknown = node.write("dimmer", Value::Int(5)).await;
    assert_eq!(
        (unknown.outcome, unknown.detail.as_str()),
        (Outcome::Failed, "device: it refuses the command Dimmer")
    );

    drop(plug); // killed: the broker publishes its will
    node.reports("power", Value::Bool(true), BAD).await;
    assert_eq!(node.write("power", Value::Bool(false)).await.outcome, Outcome::Failed);
    let plug = Script::start("devices.py", &[&broker.port.to_string()]).await;
    node.reports("power", Value::Bool(false), GOOD).await;
    assert!(!plug.said().iter().any(|line| line.contains("POWER")), "nothing is made up for");
    node.stop().await;
}

#[tokio::test]
async fn a_zigbee2mqtt_lamp_is_read_written_and_mute() {
    let broker = Broker::open().await;
    let mut lamp = Script::start("devices.py", &[&broker.port.to_string()]).await;
    let mut node = Node::start(&broker).await;
    let properties = vec![
        polled("state", "bool", json!({"pointer": "/state", "get": true})),
        polled("brightness", "int", json!({"pointer": "/brightness"})),
        polled("x", "float", json!({"pointer": "/color/x"})),
    ];
    let connection = json!({"broker": broker.address(), "shape": "zigbee2mqtt", "topic": "attic/lamp"});
    node.configure(&[device(connection, properties)]).await;

    node.reports("brightness", Value::Int(215), GOOD).await;
    let asked = lamp.says("command zigbee2mqtt/attic/lamp/get").await;
    assert_eq!(asked, r#"command zigbee2mqtt/attic/lamp/get {"state":""} fresh qos 0"#);
    let done = node.write("state", Value::Bool(true)).await;
    assert_eq!((done.outcome, done.detail.as_str()), (Outcome::Succeeded, ""));
    let set = lamp.says("command zigbee2mqtt/attic/lamp/set").await;
    assert_eq!(set, r#"command zigbee2mqtt/attic/lamp/set {"state":"ON"} fresh qos 1"#);
    assert_eq!(node.write("x", Value::Float(0.25)).await.outcome, Outcome::Succeeded);
    let set = lamp.says("command zigbee2mqtt/attic/lamp/set").await;
    assert_eq!(set, r#"command zigbee2mqtt/attic/lamp/set {"color":{"x":0.25}} fresh qos 1"#);
    node.reports("x", Value::Float(0.25), GOOD).await;

    lamp.tell("mute");
    lamp.says("done mute").await;
    let accepted = node.write("brightness", Value::Int(10)).await;
    assert_eq!((accepted.outcome, accepted.detail.as_str()), (Outcome::Succeeded, "accepted, under way"));
    node.say("zigbee2mqtt/bridge/state", r#"{"state":"offline"}"#, false).await;
    node.reports("brightness", Value::Int(215), BAD).await;
    node.stop().await;
}

#[tokio::test]
async fn a_sparkplug_device_is_born_followed_written_and_dies() {
    let broker = Broker::open().await;
    let mut gateway = Script::start("edge_node.py", &[&broker.port.to_string()]).await;
    let mut node = Node::start(&broker).await;
    let metric = |name| json!({"metric": name});
    let properties = vec![
        polled("speed", "int", metric("speed")),
        polled("temp", "float", metric("temp")),
        polled("label", "string", metric("label")),
    ];
    let connection = json!({"broker": broker.address(), "shape": "sparkplug", "group": "plant", "node": "gw",
        "device": "pump", "host_id": "kubebus"});
    node.configure(&[device(connection, properties)]).await;

    // It was born before we came: we ask.
    assert_eq!(gateway.says("command").await, "command Node Control/Rebirth True");
    node.reports("speed", Value::Int(-10), GOOD).await;
    gateway.tell("say temp 22.5");
    node.reports("temp", Value::Float(22.5), GOOD).await;

    let done = node.write("speed", Value::Int(-3)).await;
    assert_eq!((done.outcome, done.detail.as_str()), (Outcome::Succeeded, ""));
    assert_eq!(gateway.says("command").await, "command speed -3 fresh qos 0");
    assert_eq!(node.write("label", text("spare")).await.outcome, Outcome::Succeeded);
    assert_eq!(gateway.says("command").await, "command label spare fresh qos 0");
    node.reports("label", text("spare"), GOOD).await;

    gateway.tell("again speed 999"); // a repeated sequence number: not taken in
    gateway.tell("past speed 998");
    gateway.tell("garbage");
    gateway.tell("say speed 5");
    node.report("speed", |value, _, _| {
        assert!(![Value::Int(999), Value::Int(998)].contains(value), "{value}");
        (*value == Value::Int(5)).then_some(())
    })
    .await;

    gateway.tell("skip"); // one message is lost: what else it said is uncertain, and asked for
    gateway.tell("say speed 6");
    node.reports("temp", Value::Float(22.5), Quality::Uncertain).await;
    gateway.says("command Node Control/Rebirth True").await;
    node.reports("temp", Value::Float(22.5), GOOD).await;

    gateway.tell("old-death");
    gateway.tell("leave");
    node.reports("speed", Value::Int(6), BAD).await;
    assert_eq!(node.write("speed", Value::Int(1)).await.outcome, Outcome::Failed);
    gateway.tell("return");
    node.reports("speed", Value::Int(6), GOOD).await;
    gateway.tell("die");
    node.reports("speed", Value::Int(6), BAD).await;
    assert!(
        !gateway.said().iter().any(|line| line.contains("command speed")),
        "nothing was sent to the dead"
    );
    node.stop().await;
}

#[tokio::test]
async fn a_host_application_says_that_it_is_there_and_that_it_is_gone() {
    let broker = Broker::open().await;
    let port = broker.port.to_string();
    let listener = Script::start("listener.py", &[&port, "spBv1.0/STATE/kubebus", "nowhere"]).await;
    let node = Node::start(&broker).await;
    let connection = json!({"broker": broker.address(), "shape": "sparkplug", "group": "g", "node": "n", "host_id": "kubebus"});
    node.configure(&[device(connection, vec![property("x", "int", json!({"metric": "x"}))])]).await;
    assert!(listener.says("heard").await.contains(r#""online":true"#));
    node.stop().await;
    assert!(listener.says("heard").await.contains(r#""online":false"#), "its will");
}

/// What the sensor says is reported, sooner or later: whether we listen, only a report tells.
async fn heard_from(node: &mut Node, sensor: &mut Script, first: i64) {
    for value in first..first + 100 {
        sensor.tell(&format!("say {value}"));
        if node.hears("temp").await == Some((Value::Float(value as f64), GOOD)) {
            return;
        }
    }
    panic!("it is not heard from");
}

#[tokio::test]
async fn a_brokers_restart_costs_no_more_than_its_time() {
    let (home, mut away) = (Broker::open().await, Broker::open().await);
    let mut node = Node::start(&home).await;
    let temp = polled("temp", "float", json!({"topic": "t", "write": {"topic": "t/set"}}));
    node.configure(&[device(json!({"broker": away.address()}), vec![temp])]).await;
    let mut sensor = Script::start("listener.py", &[&away.port.to_string(), "t/set", "t"]).await;
    heard_from(&mut node, &mut sensor, 0).await;
    away.restart().await;
    sensor.says("connected").await;
    heard_from(&mut node, &mut sensor, 1000).await;
    assert!(!sensor.said().iter().any(|line| line.starts_with("heard")), "a restart writes nothing");
    node.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_said_and_a_right_one_lets_in() {
    let home = Broker::open().await;
    let guarded = Broker::start("allow_anonymous false\npassword_file DIR/passwords\n").await;
    let mut node = Node::start(&home).await;
    let temp = || vec![polled("temp", "float", json!({"topic": "t", "write": {"topic": "t"}}))];
    let with = |password: &str| json!({"broker": guarded.address(), "user": "mapper", "password": password});
    node.configure(&[device(with("wrong"), temp())]).await;
    node.write_until("temp", Value::Float(1.0), |result| result.detail.contains("not let in")).await;
    node.configure(&[device(with("right"), temp())]).await;
    // It listens to its own topic, and so hears what it is told.
    node.write_until("temp", Value::Float(1.5), |result| result.outcome == Outcome::Succeeded).await;
    node.reports("temp", Value::Float(1.5), GOOD).await;
    node.stop().await;
}

#[tokio::test]
async fn what_a_device_says_by_itself_is_passed_on() {
    let broker = Broker::open().await;
    let mut node = Node::start(&broker).await;
    let properties = vec![
        property("temp", "float", json!({"topic": "t", "pointer": "v", "time": "at"})),
        property("wild", "float", json!({"topic": "t/#"})),
    ];
    node.configure(&[device(json!({"broker": broker.address()}), properties)]).await;
    let mut value = 0.0;
    let mut seen = None;
    while seen.is_none() && value < 100.0 {
        value += 1.0;
        node.say("t", format!(r#"{{"v": {value}, "at": 1709208000}}"#), false).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        seen = node.hears("temp").await;
    }
    assert_eq!(seen.unwrap().1, GOOD);
    node.say("t", r#"{"v": 500, "at": 1709208000}"#, false).await;
    let time = node.report("temp", |value, _, time| (*value == Value::Float(500.0)).then_some(time)).await;
    assert_eq!(time, Some(kubebus_sdk::UnixMillis(1_709_208_000_000)));
    node.stop().await;
}

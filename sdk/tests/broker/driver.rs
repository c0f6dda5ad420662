//! What the SDK does for a driver: batches, buses, scales, pushes, probes, health.

use std::sync::atomic::Ordering::SeqCst;

use bus::twin::{DeviceCondition, DeviceConfig, Json, Outcome, PropertyConfig, WriteRequest};
use kubebus_sdk::{Error, Value};

use crate::bench::{bench, wire};
use crate::support::{config, eventually, object, property, world, write};

const HOUR_MS: u64 = 3_600_000;

/// A device that hangs on a bus with others.
fn on_bus(name: &str, bus: &str) -> DeviceConfig {
    let connection = object([("bench", Json::Text(name.into())), ("bus", Json::Text(bus.into()))]);
    DeviceConfig { connection, ..config(name) }
}

/// `position` in a register of tenths, read or pushed.
fn scaled(name: &str, scale: f64, poll_ms: u64) -> DeviceConfig {
    let address = object([("register", Json::Int(0)), ("scale", Json::Float(scale))]);
    DeviceConfig {
        properties: vec![PropertyConfig { address, poll_ms, ..property("position", 0) }],
        ..config(name)
    }
}

#[tokio::test]
async fn neighbours_are_read_in_one_request() {
    let (_broker, mut node, _running) = world().await;
    let registers = [2, 0, 50, 1, 51].map(|register| property(&format!("p{register}"), register));
    node.configure(&[DeviceConfig { properties: registers.into(), ..config("neighbours") }]).await;
    node.report_of("neighbours", |report| report.contains_key("p51")).await;
    eventually(|| bench("neighbours").readings().len() >= 6).await;
    for pair in bench("neighbours").readings().chunks_exact(2) {
        assert_eq!(pair, ["read 0 1 2", "read 50 51"]);
    }
}

#[tokio::test]
async fn on_a_bus_there_is_one_call_at_a_time() {
    let (_broker, node, _running) = world().await;
    let names = ["bus-a", "bus-b", "bus-c"];
    for name in names {
        bench(name).wait_in_read.store(20, SeqCst);
    }
    node.configure(&names.map(|name| on_bus(name, "line"))).await;
    for (number, name) in names.into_iter().enumerate() {
        node.write(&write(&format!("w{number}"), name, 15_000)).await;
    }
    eventually(|| names.iter().all(|name| bench(name).readings().len() >= 5 && bench(name).value() == 40.0))
        .await;
    assert_eq!(wire("line").most.load(SeqCst), 1);
}

#[tokio::test]
async fn a_dead_device_on_a_bus_does_not_starve_the_others() {
    let (_broker, mut node, _running) = world().await;
    bench("line-dead").hold_reading.store(true, SeqCst);
    let names = ["line-a", "line-b", "line-dead"];
    node.configure(&names.map(|name| on_bus(name, "line-with-a-dead-one"))).await;
    eventually(|| bench("line-dead").readings().len() == 1).await;
    // It holds the bus for one timeout, then waits longer and longer before it tries again.
    node.health_of(|health| {
        let state = |name: &str| health.devices.get(&format!("test/{name}")).map(|device| device.state);
        let dead = health.devices.get("test/line-dead")?;
        let told = dead.state == DeviceCondition::Offline && dead.error == "no answer in time: read";
        (told && state("line-a") == Some(DeviceCondition::Online)).then_some(())
    })
    .await;
    let before = names.map(|name| bench(name).readings().len());
    eventually(|| {
        let now = names.map(|name| bench(name).readings().len());
        now[0] >= before[0] + 10 && now[1] >= before[1] + 10
    })
    .await;
    assert_eq!(wire("line-with-a-dead-one").most.load(SeqCst), 1);
    assert_eq!(bench("line-a").opened.load(SeqCst), 1);
}

#[tokio::test]
async fn a_write_comes_between_two_requests_of_a_long_reading() {
    let (_broker, mut node, _running) = world().await;
    let apart = [property("position", 0), property("far", 50)];
    bench("long").hold_reading.store(true, SeqCst);
    node.configure(&[DeviceConfig { properties: apart.into(), ..config("long") }]).await;
    eventually(|| bench("long").readings().len() == 1).await;
    node.write(&write("w", "long", 15_000)).await;
    // What comes after it on the same way is refused at once: by then the write waits for the device.
    node.write(&WriteRequest { property: "nonsense".into(), ..write("after", "long", 15_000) }).await;
    assert_eq!(node.result().await.id, "after");
    bench("long").hold_reading.store(false, SeqCst);
    assert_eq!(node.result().await.outcome, Outcome::Succeeded);
    eventually(|| bench("long").calls.lock().unwrap().len() >= 3).await;
    assert_eq!(bench("long").calls.lock().unwrap()[..3], ["read 0", "write", "read 50"]);
}

#[tokio::test]
async fn a_driver_deals_in_raw_numbers_only() {
    let (_broker, mut node, _running) = world().await;
    *bench("scaled").value.lock().unwrap() = 231.0;
    node.configure(&[scaled("scaled", 0.1, 100)]).await;
    node.reports("scaled", "position", 23.1).await;
    node.configure(&[scaled("scaled", 0.01, 100)]).await;
    node.reports("scaled", "position", 2.31).await;

    node.configure(&[scaled("scaled", 0.1, HOUR_MS)]).await;
    node.reports("scaled", "position", 23.1).await;
    bench("scaled").read_back.store(true, SeqCst);
    node.write(&write("w", "scaled", 5000)).await;
    assert_eq!(node.result().await.outcome, Outcome::Succeeded);
    assert_eq!(bench("scaled").value(), 400.0);
    node.reports("scaled", "position", 40.0).await;
    let too_much = WriteRequest { value: Value::Float(101.0), ..write("w2", "scaled", 5000) };
    node.write(&too_much).await;
    assert_eq!(
        node.result().await.outcome,
        Outcome::Rejected,
        "the range is the property's, not the register's"
    );
    assert_eq!((bench("scaled").opened.load(SeqCst), bench("scaled").offered.load(SeqCst)), (1, 1));
}

#[tokio::test]
async fn what_a_device_pushes_is_scaled_and_reported_while_its_session_lasts() {
    let (_broker, mut node, _running) = world().await;
    let device = bench("pushes");
    node.configure(&[scaled("pushes", 0.1, 0)]).await;
    eventually(|| device.sink(0).is_some()).await;
    let first = device.sink(0).unwrap();
    first.good("position", Value::Int(231)).await;
    node.reports("pushes", "position", 23.1).await;

    let mut wider = scaled("pushes", 0.1, 0);
    wider.properties.push(PropertyConfig { poll_ms: 0, ..property("other", 1) });
    node.configure(&[wider]).await;
    eventually(|| device.sink(1).is_some() && first.is_closed()).await;
    let second = device.sink(1).unwrap();
    second.good("nonsense", Value::Int(1)).await;
    second.good("other", Value::Int(7)).await;
    node.reports("pushes", "other", 7.0).await;

    second.lost(Error::transient("cut")).await;
    eventually(|| device.sink(2).is_some() && second.is_closed()).await;
    device.sink(2).unwrap().good("position", Value::Int(50)).await;
    node.reports("pushes", "position", 5.0).await;
    let asked: Vec<_> =
        device.subscriptions.lock().unwrap().iter().map(|(points, _)| points.clone()).collect();
    assert_eq!(asked[..3], [vec!["position"], vec!["other", "position"], vec!["other", "position"]]);
    assert!(device.readings().is_empty(), "what is pushed is not polled");
    assert_eq!(device.opened.load(SeqCst), 2);
}

#[tokio::test]
async fn a_silent_device_is_asked_whether_it_is_there() {
    let (_broker, mut node, _running) = world().await;
    node.configure(&[scaled("silent", 1.0, HOUR_MS)]).await;
    node.report("silent").await;
    eventually(|| bench("silent").probed.load(SeqCst) >= 2).await;
    assert_eq!(bench("silent").opened.load(SeqCst), 1);
    bench("silent").fail_probes.store(true, SeqCst);
    node.health_of(|health| {
        let silent = health.devices.get("test/silent")?;
        (silent.state == DeviceCondition::Offline && silent.error == "it is gone").then_some(())
    })
    .await;
    bench("silent").fail_probes.store(false, SeqCst);
    eventually(|| bench("silent").opened.load(SeqCst) >= 2).await;
}

#[tokio::test]
async fn people_are_told_how_each_device_is_and_why() {
    let (_broker, mut node, running) = world().await;
    let lost = DeviceConfig { connection: object([("bench", Json::Int(7))]), ..config("wrong-settings") };
    let mut partly = config("partly");
    let address = object([("register", Json::Text("seven".into()))]);
    partly.properties.push(PropertyConfig { address, ..property("wrong", 0) });
    let empty = DeviceConfig { properties: vec![], ..config("empty") };
    node.configure(&[config("well"), lost, partly, empty]).await;
    let told = node.health_of(|health| {
        let is = |name: &str| health.devices.get(&format!("test/{name}")).cloned();
        let all = [is("well")?, is("wrong-settings")?, is("partly")?, is("empty")?];
        (all[2].state == DeviceCondition::Degraded && all[0].last_read.is_some()).then_some(all)
    });
    let [well, lost, partly, empty] = told.await;
    assert_eq!((well.state, well.error.as_str(), well.failures), (DeviceCondition::Online, "", 0));
    assert_eq!((lost.state, lost.failures), (DeviceCondition::Offline, 1));
    let field = "configuration: connection.bench: invalid type: integer `7`";
    assert!(lost.error.starts_with(field), "{}", lost.error);
    let field = "properties.wrong.address.register: invalid type: string \"seven\"";
    assert!(partly.error.starts_with(field), "{}", partly.error);
    assert_eq!(empty.state, DeviceCondition::Unconfigured);
    node.health_of(|health| (health.counts.reads >= 4 && health.counts.requests >= 4).then_some(())).await;
    running.stop().await;
    node.until(|topic, payload| (topic == "mapper/bench/health" && payload.is_empty()).then_some(())).await;
}

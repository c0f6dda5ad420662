//! The example of a complete mapper, `sdk/examples/registers.rs`: how long it is, and that it works with a Modbus server
//! that somebody else wrote (pymodbus). `cargo xtask python` installs it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

#[path = "../broker/bench.rs"]
#[allow(dead_code, reason = "it comes with the support")]
mod bench;
#[path = "../../examples/registers.rs"]
#[expect(dead_code, reason = "its fn main is not called here")]
mod registers;
mod server;
#[path = "../broker/support.rs"]
#[allow(dead_code, reason = "the SDK's own tests need more of it")]
mod support;

use std::time::Duration;

use bus::twin::{DeviceConfig, Json, Outcome, PropertyConfig, ReportBody, ReportMany, WriteRequest};
use kubebus_sdk::{Name, Options, Quality, Value, ValueType};
use registers::Registers;
use server::Server;
use support::{Broker, Node, device, write};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What a vendor has to write, at most.
const MOST_LINES: usize = 150;

#[test]
fn a_complete_mapper_takes_150_lines() {
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    let lines = include_str!("../../examples/registers.rs").lines().filter(is_code).count();
    assert!(lines <= MOST_LINES, "{lines} lines");
}

#[tokio::test]
async fn it_reads_neighbours_at_once_and_writes_once() {
    let broker = Broker::start().await;
    let mut server = Server::start();
    let mut node = Node::connect(&broker).await;
    let _mapper = run(&broker);
    assert_eq!(node.state().await, "online");
    node.configure(&[config("one", &server, 1), config("two", &server, 2)]).await;
    for (name, level) in [("one", 215.0), ("two", 7.0)] {
        let report = node.report_of(name, |report| report.len() == 3).await;
        let values = ["level", "flow", "pressure"].map(|property| good(&report, property));
        assert_eq!(values, [Some(level), Some(-5.0), Some(1.5)], "{name}");
    }
    let asked = server.asked();
    assert!(asked.len() >= 2 && asked.iter().all(|line| line.ends_with(";3;0;4;None")), "{asked:?}");

    for (id, property, value) in [("a", "level", 30.0), ("b", "pressure", 2.5)] {
        node.write(&WriteRequest {
            property: property.into(),
            value: Value::Float(value),
            ..write(id, "one", 5000)
        })
        .await;
        let result = node.result().await;
        assert_eq!((result.id.as_str(), result.outcome), (id, Outcome::Succeeded), "{}", result.detail);
        node.report_of("one", |report| good(report, property) == Some(value)).await;
    }
    let written = |server: &mut Server| -> Vec<String> {
        server.asked().into_iter().filter(|line| !line.ends_with(";None")).collect()
    };
    assert_eq!(written(&mut server), ["1;6;0;1;[30]", "1;16;2;2;[16416, 0]"]);

    let too_much =
        WriteRequest { property: "level".into(), value: Value::Float(70_000.0), ..write("c", "one", 5000) };
    node.write(&too_much).await;
    assert_eq!(node.result().await.outcome, Outcome::Rejected);
    assert_eq!(written(&mut server), [""; 0]);

    // A write into a server that hangs may have happened; it is not repeated when that goes on.
    server.freeze();
    let lost =
        WriteRequest { property: "level".into(), value: Value::Float(99.0), ..write("d", "two", 10_000) };
    node.write(&lost).await;
    let outcome = node.result().await.outcome;
    assert_ne!(outcome, Outcome::Succeeded);
    server.resume();
    let mut after = Vec::new();
    let goes_on = async {
        while after.iter().filter(|line| *line == "2;3;0;4;None").count() < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            after.extend(server.asked());
        }
    };
    timeout(Duration::from_secs(60), goes_on).await.expect("it reads again");
    after.retain(|line| !line.ends_with(";None"));
    assert!(after.len() <= usize::from(outcome == Outcome::Unknown), "{outcome:?}: {after:?}");
}

fn run(broker: &Broker) -> JoinSet<()> {
    let address = format!("127.0.0.1:{}", broker.port);
    let options = Options::new(Name::new("bench").unwrap(), &address).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(kubebus_sdk::run::<Registers>(options, std::future::pending()));
    tasks
}

fn config(name: &str, server: &Server, unit: i64) -> DeviceConfig {
    let property = |name: &str, register: i64, format: &str| PropertyConfig {
        name: name.into(),
        value_type: ValueType::Float,
        writable: true,
        address: object(&[("register", Json::Int(register)), ("format", Json::Text(format.into()))]),
        poll_ms: 200,
        minimum: None,
        maximum: None,
        unit: None,
        deadband: None,
        max_age_ms: None,
    };
    let properties =
        vec![property("level", 0, "u16"), property("flow", 1, "i16"), property("pressure", 2, "f32")];
    let tcp = Json::Text(format!("127.0.0.1:{}", server.port));
    DeviceConfig {
        device: device(name),
        connection: object(&[("tcp", tcp), ("unit", Json::Int(unit))]),
        properties,
    }
}

fn object(fields: &[(&str, Json)]) -> Json {
    Json::Object(fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

fn good(report: &ReportMany, property: &str) -> Option<f64> {
    match report.get(property) {
        Some(ReportBody::Full { value, quality: Quality::Good, .. }) => value.as_f64(),
        _ => None,
    }
}

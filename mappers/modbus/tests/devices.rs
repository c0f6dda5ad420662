//! The mapper with devices by pymodbus, which know nothing of it: over TCP, over serial lines, frozen, restarted.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

mod support;

use std::time::{Duration, Instant};

use bus::twin::Outcome;
use kubebus_sdk::{Mapper, Value};
use serde_json::{Value as Json, json};

use support::device::{Asked, Device};
use support::{Site, property};

/// A property, what it holds and its words in the device, and another value and its words.
type Row = (Json, Value, Vec<u16>, Value, Vec<u16>);

/// One of each type and order.
fn all_kinds() -> Vec<Row> {
    let row = |name: &str, value_type: &str, address: Json, value, words: &[u16], other, others: &[u16]| {
        (property(name, value_type, address), value, words.to_vec(), other, others.to_vec())
    };
    let (int, float, text) = (Value::Int, Value::Float, |t: &str| Value::Text(t.into()));
    vec![
        row("u16", "int", json!({"holding": 0}), int(40_000), &[40_000], int(7), &[7]),
        row("i16", "int", json!({"holding": 1, "type": "i16"}), int(-2), &[0xfffe], int(-3), &[0xfffd]),
        row(
            "u32",
            "int",
            json!({"holding": 2, "type": "u32"}),
            int(0x1_0002),
            &[1, 2],
            int(0x3_0004),
            &[3, 4],
        ),
        row(
            "i32",
            "int",
            json!({"holding": 4, "type": "i32", "order": "cdab"}),
            int(-2),
            &[0xfffe, 0xffff],
            int(0x1_0002),
            &[2, 1],
        ),
        row(
            "i64",
            "int",
            json!({"holding": 6, "type": "i64"}),
            int(-1),
            &[0xffff; 4],
            int(0x1_0002_0003_0004),
            &[1, 2, 3, 4],
        ),
        row(
            "u64",
            "int",
            json!({"holding": 10, "type": "u64", "order": "dcba"}),
            int(0x0102_0304_0506_0708),
            &[0x0807, 0x0605, 0x0403, 0x0201],
            int(1),
            &[0x0100, 0, 0, 0],
        ),
        row(
            "f32",
            "float",
            json!({"holding": 14, "type": "f32"}),
            float(12.5),
            &[0x4148, 0],
            float(-2.0),
            &[0xc000, 0],
        ),
        row(
            "f32_badc",
            "float",
            json!({"holding": 16, "type": "f32", "order": "badc"}),
            float(12.5),
            &[0x4841, 0],
            float(-2.0),
            &[0x00c0, 0],
        ),
        row(
            "f64",
            "float",
            json!({"holding": 18, "type": "f64"}),
            float(12.5),
            &[0x4029, 0, 0, 0],
            float(1.0),
            &[0x3ff0, 0, 0, 0],
        ),
        row(
            "text",
            "string",
            json!({"holding": 22, "type": "string", "registers": 3}),
            text("pump"),
            &[0x7075, 0x6d70, 0],
            text("valve1"),
            &[0x7661, 0x6c76, 0x6531],
        ),
        row("coil", "bool", json!({"coil": 3}), Value::Bool(true), &[1], Value::Bool(false), &[0]),
        row(
            "coils",
            "int",
            json!({"register": "CoilRegister", "offset": 8, "limit": 4}),
            int(0b1010),
            &[0, 1, 0, 1],
            int(0b0110),
            &[0, 1, 1, 0],
        ),
        row(
            "kubeedge",
            "float",
            json!({"register": "HoldingRegister", "offset": 30, "limit": 2, "isRegisterSwap": true, "isSwap": false}),
            float(12.5),
            &[0, 0x4148],
            float(-2.0),
            &[0, 0xc000],
        ),
    ]
}

/// Table and first address of a property of [`all_kinds`].
fn place(property: &Json) -> (&'static str, u16) {
    let address = &property["address"];
    let number = |key: &str| address[key].as_u64().map(|n| u16::try_from(n).unwrap());
    match (number("holding"), number("coil"), number("offset")) {
        (Some(at), ..) => ("holding", at),
        (_, Some(at), _) => ("coil", at),
        (.., Some(at)) if address["register"] == "CoilRegister" => ("coil", at),
        (.., at) => ("holding", at.unwrap()),
    }
}

#[tokio::test]
async fn every_type_and_order_is_read_and_written() {
    let device = Device::tcp(&[7]);
    for (property, _, words, ..) in all_kinds() {
        let (table, at) = place(&property);
        device.set(7, table, at, &words);
    }
    let properties: Vec<Json> = all_kinds().into_iter().map(|(property, ..)| property).collect();
    let mut site = Site::serve(&[("plc", json!({"tcp": device.address(), "unit": 7}), &properties)]).await;
    for (property, value, ..) in all_kinds() {
        let name = property["name"].as_str().unwrap();
        site.until(|site| site.holds("plc", name, &value)).await;
    }
    for (property, _, _, other, words) in all_kinds() {
        let name = property["name"].as_str().unwrap();
        let result = site.write("plc", name, other.clone()).await;
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
        let (table, at) = place(&property);
        assert_eq!(device.get(7, table, at, words.len()), words, "{name}");
        site.until(|site| site.holds("plc", name, &other)).await;
    }
    let written: Vec<u8> = device.asked().into_iter().filter(Asked::is_write).map(|asked| asked.1).collect();
    assert_eq!(written, [6, 6, 16, 16, 16, 16, 16, 16, 16, 16, 5, 15, 16], "one request for each write");
}

#[tokio::test]
async fn read_only_tables_and_single_bits_are_read_and_not_written() {
    let device = Device::tcp(&[1]);
    device.set(1, "discrete", 2, &[1]);
    device.set(1, "input", 2, &[1234]);
    device.set(1, "holding", 2, &[0b100]);
    let properties = [
        property("discrete", "bool", json!({"discrete": 2})),
        property("input", "int", json!({"input": 2})),
        property("bit", "bool", json!({"holding": 2, "bit": 2})),
    ];
    let mut site = Site::serve(&[("plc", json!({"tcp": device.address()}), &properties)]).await;
    let values = [("discrete", Value::Bool(true)), ("input", Value::Int(1234)), ("bit", Value::Bool(true))];
    for (name, value) in values {
        site.until(|site| site.holds("plc", name, &value)).await;
        let result = site.write("plc", name, value).await;
        assert_eq!(result.outcome, Outcome::Rejected, "{result:?}");
    }
    assert_eq!(device.asked().into_iter().find(Asked::is_write), None);
}

#[tokio::test]
async fn neighbours_are_one_request_and_a_hole_costs_only_what_is_in_it() {
    let device = Device::tcp(&[1]);
    // 200 to 209 do not exist: 199 and 210 are near enough for one request.
    let at = [190, 195, 199, 205, 210, 215];
    at.iter().for_each(|at| {
        if *at != 205 {
            device.set(1, "holding", *at, &[*at])
        }
    });
    let properties = at.map(|at| property(&format!("p{at}"), "int", json!({ "holding": at })));
    let mut site = Site::serve(&[("plc", json!({"tcp": device.address()}), &properties)]).await;
    for at in at.into_iter().filter(|at| *at != 205) {
        site.until(|site| site.holds("plc", &format!("p{at}"), &Value::Int(at.into()))).await;
    }
    site.listen(Duration::from_millis(500)).await;
    drop(device.asked());
    site.listen(Duration::from_secs(1)).await;
    let asked = device.asked();
    let runs: Vec<_> = asked.iter().map(|asked| (asked.2, asked.3)).collect();
    assert!(!runs.is_empty() && runs.iter().all(|run| [(190, 10), (210, 6)].contains(run)), "{runs:?}");
    assert!(site.value("plc", "p205").is_none());
}

#[tokio::test]
async fn refusals_say_what_they_are() {
    let device = Device::tcp(&[1]);
    device.set(1, "holding", 5, &[55]);
    let names =
        [("busy", 300), ("broken", 301), ("slow", 302), ("locked", 303), ("nowhere", 204), ("fine", 5)];
    let mut properties = names.map(|(name, at)| property(name, "int", json!({ "holding": at }))).to_vec();
    // Only written, never read.
    properties[..3].iter_mut().for_each(|property| property["poll_ms"] = json!(0));
    let mut site = Site::serve(&[("plc", json!({"tcp": device.address()}), &properties)]).await;
    site.until(|site| site.holds("plc", "fine", &Value::Int(55))).await;
    let table = [
        ("busy", Outcome::Failed, "busy"),
        ("broken", Outcome::Unknown, "server device failure"),
        ("fine", Outcome::Succeeded, ""),
        ("slow", Outcome::Succeeded, "under way"),
        ("locked", Outcome::Failed, "illegal data address"),
        ("nowhere", Outcome::Failed, "illegal data address"),
    ];
    for (name, outcome, detail) in table {
        // After the failure the session is opened anew, within a second.
        site.forget();
        site.until(|site| site.value("plc", "fine").is_some()).await;
        let result = site.write("plc", name, Value::Int(1)).await;
        assert!(result.outcome == outcome && result.detail.contains(detail), "{name}: {result:?}");
    }
    let written: Vec<u16> = device.asked().into_iter().filter(Asked::is_write).map(|asked| asked.2).collect();
    assert_eq!(written, [300, 301, 5, 302, 303, 204], "each once");
    let result = site.write("plc", "fine", Value::Int(70_000)).await;
    assert!(result.outcome == Outcome::Rejected && result.detail.contains("does not fit"), "{result:?}");
}

/// Two places that are asked for by requests of one shape, and how they are told apart: the first holds odd numbers,
/// the second even ones.
fn twins() -> [Json; 2] {
    [property("odd", "int", json!({"holding": 10})), property("even", "int", json!({"holding": 100}))]
}

fn is_mixed_up(site: &Site) -> bool {
    let wrong =
        |name, rest| site.told("plc", name).into_iter().any(|v| !matches!(v, Value::Int(n) if n % 2 == rest));
    wrong("odd", 1) || wrong("even", 0)
}

/// Freezes, thaws and restarts a device again and again, with writes meanwhile.
async fn survives(device: Device, connection: Json, what: &str) {
    device.set(1, "holding", 10, &[1]);
    device.set(1, "holding", 100, &[2]);
    let mut site = Site::serve(&[("plc", connection, &twins())]).await;
    let mut sent = 0;
    for round in 0..2u16 {
        site.until(|site| site.value("plc", "odd").is_some() && site.value("plc", "even").is_some()).await;
        device.freeze();
        site.send(&format!("frozen{round}"), "plc", "even", Value::Int(500), Duration::from_secs(4)).await;
        let result = site.result(&format!("frozen{round}")).await;
        assert_ne!(result.outcome, Outcome::Succeeded, "nobody can have answered");
        sent += u16::from(result.outcome == Outcome::Unknown);
        site.listen(Duration::from_millis(1500)).await;
        let begin = Instant::now();
        device.thaw();
        site.forget();
        let next = 1001 + 2 * round;
        device.set(1, "holding", 10, &[next]);
        site.until(|site| site.holds("plc", "odd", &Value::Int(next.into()))).await;
        eprintln!("{what}, thawed: a good value after {} ms", begin.elapsed().as_millis());
        assert!(!is_mixed_up(&site));
        site.listen(Duration::from_millis(500)).await;
        let written = device.asked().into_iter().filter(Asked::is_write).count();
        assert!(written <= usize::from(sent), "{written} writes carried out of {sent} that left");
        sent = 0;
    }
    device.kill();
    site.listen(Duration::from_millis(500)).await;
    device.restart();
    device.set(1, "holding", 10, &[4001]);
    site.forget();
    let begin = Instant::now();
    site.until(|site| site.holds("plc", "odd", &Value::Int(4001))).await;
    eprintln!("{what}, restarted: a good value after {} ms", begin.elapsed().as_millis());
    assert!(!is_mixed_up(&site));
    let result = site.write("plc", "odd", Value::Int(4003)).await;
    assert_eq!((result.outcome, device.get(1, "holding", 10, 1)), (Outcome::Succeeded, vec![4003]));
}

#[tokio::test]
async fn a_frozen_and_restarted_device_on_tcp_costs_time_and_nothing_else() {
    let device = Device::tcp(&[1]);
    let connection = json!({"tcp": device.address(), "timeout_ms": 500});
    survives(device, connection, "TCP").await;
}

#[tokio::test]
async fn a_frozen_and_restarted_device_on_a_serial_line_costs_time_and_nothing_else() {
    let (device, port) = Device::rtu(&[1]);
    let connection = json!({"communicateMode": "RTU", "serialPort": port, "baudRate": 115_200, "slaveID": 1, "timeout": 500});
    survives(device, connection, "RTU").await;
}

#[tokio::test]
async fn a_frozen_and_restarted_device_behind_a_gateway_costs_time_and_nothing_else() {
    let device = Device::rtu_over_tcp(&[1]);
    let connection = json!({"rtu_over_tcp": device.address(), "timeout_ms": 500});
    survives(device, connection, "RTU over TCP").await;
}

#[tokio::test]
async fn a_dead_unit_does_not_silence_its_line() {
    let (device, port) = Device::rtu(&[1, 2]);
    for unit in [1, 2] {
        device.set(unit, "holding", 0, &[unit.into()]);
    }
    let on = |unit: u8| json!({"serial": port, "baud": 115_200, "unit": unit, "timeout_ms": 300});
    let level = [property("level", "int", json!({"holding": 0}))];
    let mut site =
        Site::serve(&[("one", on(1), &level), ("two", on(2), &level), ("dead", on(3), &level)]).await;
    site.until(|site| site.value("one", "level").is_some() && site.value("two", "level").is_some()).await;
    site.listen(Duration::from_secs(5)).await;
    let seen =
        |name, value: i64| site.told(name, "level").iter().filter(|v| ***v == Value::Int(value)).count();
    let (one, two) = (seen("one", 1), seen("two", 2));
    assert!(
        one > 10 && two > 10,
        "{one} and {two} readings in 5 s at 10 a second, less the dead unit's time"
    );
    assert_eq!(
        (site.told("one", "level").len(), site.told("two", "level").len()),
        (one, two),
        "no other values"
    );
    assert!(site.value("dead", "level").is_none());
}

#[tokio::test]
async fn units_that_answer_are_found() {
    let device = Device::tcp(&[1, 17]);
    let config = serde_json::from_value(json!({"tcp": device.address()})).unwrap();
    let found = mapper_modbus::ModbusMapper::discover(&config).await.unwrap();
    let names: Vec<_> = found.iter().map(|found| (found.name.as_str(), found.about.as_str())).collect();
    assert_eq!(names, [("modbus-1", "Test device.py 1.0"), ("modbus-17", "Test device.py 1.0")]);
    let asked = device.asked();
    assert_eq!(asked.iter().find(|asked| asked.is_write()), None);
    device.set(17, "holding", 0, &[99]);
    let property = found[1].properties.iter().find(|property| property.name == "holding0").unwrap();
    let level = [support::property("level", "int", property.address.clone())];
    let mut site = Site::serve(&[("found", found[1].connection.clone(), &level)]).await;
    site.until(|site| site.holds("found", "level", &Value::Int(99))).await;
}

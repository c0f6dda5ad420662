//! Writing: once, in time, and only what the agent takes.

use std::time::Duration;

use bus::twin::Outcome;
use kubebus_sdk::{Error, Value, ValueType};
use kubebus_sdk_testing::{Mode, Property};
use serde_json::json;

use crate::agent::{BASE, Snmpd, at, plain, secure};
use crate::driver::{Device, all, device, good, now, proxied, sorted};

async fn write(device: &Device, property: &str, value: Value) -> (Result<(), Error>, Outcome) {
    let mut session = device.open().await.unwrap();
    let (permit, consumption) = now(Duration::from_secs(20));
    match device.write(&mut session, property, value, permit).await {
        Ok(_) => (Ok(()), Outcome::Succeeded),
        Err(error) => {
            let outcome = consumption.outcome(&error);
            (Err(error), outcome)
        }
    }
}

#[tokio::test]
async fn each_type_is_written_as_the_agent_has_it() {
    let snmpd = Snmpd::start().await.unwrap();
    let text = |text: &str| Value::Text(text.to_owned());
    let table = [
        ("integer", Value::Int(-3), "1.0 -3"),
        ("string", text("big hall"), "2.0 big hall"),
        ("gauge", Value::Float(60.0), "3.0 60"),
        ("octets", text("AQD/"), "4.0 01 00 ff"),
        ("ticks", Value::Int(1), "5.0 1"),
        ("address", text("10.0.0.2"), "6.0 10.0.0.2"),
        ("oid", text("1.3.6.1.4"), "7.0 .1.3.6.1.4"),
    ];
    for connection in [plain(snmpd.address), secure(snmpd.address)] {
        let before = snmpd.writes().len();
        let device = device(connection, all());
        for (property, value, _) in &table {
            assert_eq!(
                write(&device, property, value.clone()).await,
                (Ok(()), Outcome::Succeeded),
                "{property}"
            );
        }
        let written: Vec<_> =
            snmpd.writes().split_off(before).into_iter().map(|(o, v)| format!("{o} {}", v.trim())).collect();
        assert_eq!(written, table.each_ref().map(|(_, _, line)| (*line).to_owned()));
        let mut session = device.open().await.unwrap();
        let values = sorted(table.iter().map(|(name, value, _)| (*name, value.clone())).collect());
        let readings = device.read(&mut session).await.unwrap();
        assert_eq!(
            good(&readings).into_iter().filter(|(name, _)| *name != "counter").collect::<Vec<_>>(),
            values
        );
    }
}

#[tokio::test]
async fn what_the_agent_refuses_has_moved_nothing() {
    let snmpd = Snmpd::start().await.unwrap();
    let wrong_type = json!({"oid": format!("{}.1.0", BASE), "type": "octets"});
    let mut properties = all();
    properties.push(Property::new("mistyped", ValueType::String, wrong_type));
    properties.push(Property::new("missing", ValueType::Int, at("99.0")));
    let writer = device(plain(snmpd.address), properties);
    let text = |text: &str| Value::Text(text.to_owned());
    let refused = [("string", text("refused"), "wrongValue"), ("mistyped", text("x"), "wrong")];
    for (property, value, expected) in refused {
        let (result, outcome) = write(&writer, property, value).await;
        assert!(
            matches!(&result, Err(Error::Device(why)) if why.contains(expected)),
            "{property}: {result:?}"
        );
        assert_eq!(outcome, Outcome::Failed);
    }
    let impossible = [
        ("counter", Value::Int(1)),
        ("missing", Value::Int(1)),
        ("integer", Value::Int(3_000_000_000)),
        ("gauge", Value::Float(1.5)),
        ("address", text("nowhere")),
    ];
    for (property, value) in impossible {
        let (result, outcome) = write(&writer, property, value).await;
        assert_eq!(outcome, Outcome::Rejected, "{property}: {result:?}");
    }
    let mut watching = plain(snmpd.address);
    watching["community"] = "watch".into();
    let (result, outcome) = write(&device(watching, all()), "integer", Value::Int(1)).await;
    assert_eq!(outcome, Outcome::Failed, "{result:?}");
    assert_eq!(snmpd.writes(), []);
}

#[tokio::test]
async fn a_reading_is_asked_again_and_a_write_never() {
    let snmpd = Snmpd::start().await.unwrap();
    let (proxy, through) = proxied(&snmpd).await;
    for mut connection in [plain(through), secure(through)] {
        (connection["timeout_ms"], connection["retries"]) = (700.into(), 3.into());
        let device = device(connection, all());
        let mut session = device.open().await.unwrap();

        proxy.set(Mode::Mute);
        let before = proxy.counts().requests;
        assert!(matches!(device.read(&mut session).await, Err(Error::Timeout(_))));
        assert_eq!(proxy.counts().requests - before, 4);
        proxy.set(Mode::Pass);
        device.read(&mut session).await.unwrap();

        proxy.set(Mode::Mute);
        let (before, written) = (proxy.counts().requests, snmpd.writes().len());
        let (permit, consumption) = now(Duration::from_secs(20));
        let error = device.write(&mut session, "integer", Value::Int(5), permit).await.unwrap_err();
        assert_eq!(consumption.outcome(&error), Outcome::Unknown, "{error:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(proxy.counts().requests - before, 1, "the write went out once");
        assert_eq!(snmpd.writes().len() - written, 1, "and was carried out");
        proxy.set(Mode::Pass);
    }
}

#[tokio::test]
async fn a_write_that_is_too_late_does_not_leave() {
    let snmpd = Snmpd::start().await.unwrap();
    let (proxy, through) = proxied(&snmpd).await;
    for connection in [plain(through), secure(through)] {
        let device = device(connection, all());
        let mut session = device.open().await.unwrap();
        device.read(&mut session).await.unwrap();
        let before = proxy.counts().requests;
        let (permit, consumption) = now(Duration::ZERO);
        let error = device.write(&mut session, "integer", Value::Int(5), permit).await.unwrap_err();
        assert_eq!((error, consumption.is_consumed()), (Error::Expired, false));
        assert_eq!(proxy.counts().requests, before, "nothing has left");
        device.read(&mut session).await.unwrap();
    }
    // Its time runs out while the agent is asked what it has there.
    let device = device(plain(through), all());
    let mut session = device.open().await.unwrap();
    proxy.set(Mode::Delay(Duration::from_millis(800)));
    let (permit, consumption) = now(Duration::from_millis(300));
    let error = device.write(&mut session, "integer", Value::Int(5), permit).await.unwrap_err();
    assert_eq!((error, consumption.is_consumed()), (Error::Expired, false));
    assert_eq!(snmpd.writes(), []);
}

/// A restarted agent has another clock, and says so to the first message: the library would send a write again.
#[tokio::test]
async fn a_write_right_after_a_restart_is_not_sent_again() {
    let snmpd = Snmpd::start().await.unwrap();
    let (proxy, through) = proxied(&snmpd).await;
    let device = device(secure(through), all());
    let mut session = device.open().await.unwrap();
    device.read(&mut session).await.unwrap();
    snmpd.down();
    snmpd.up().await.unwrap();
    let before = proxy.counts().requests;
    let (permit, consumption) = now(Duration::from_secs(20));
    let error = device.write(&mut session, "integer", Value::Int(5), permit).await.unwrap_err();
    assert_eq!(proxy.counts().requests - before, 1);
    assert!(matches!(&error, Error::Device(why) if why.contains("clock")), "{error:?}");
    assert_eq!(consumption.outcome(&error), Outcome::Failed);
    assert_eq!(snmpd.writes(), []);
    let (permit, _) = now(Duration::from_secs(20));
    device.write(&mut session, "integer", Value::Int(6), permit).await.unwrap();
    assert_eq!(snmpd.writes(), [("1.0".to_owned(), "6".to_owned())]);
}

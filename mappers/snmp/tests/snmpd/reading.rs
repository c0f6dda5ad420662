//! Reading, looking around, and who is let in.

use kubebus_sdk::{Error, Mapper, Quality, Value, ValueType};
use kubebus_sdk_testing::{Fault, Mode, Property};
use mapper_snmp::SnmpMapper;
use serde_json::{Value as Json, json};

use crate::agent::{Snmpd, at, plain, secure};
use crate::driver::{all, device, expected, good, proxied, sorted};

#[tokio::test]
async fn values_of_every_type_are_read() {
    let snmpd = Snmpd::start().await.unwrap();
    let old =
        json!({"agent": snmpd.address.to_string(), "version": "1", "community": "watch", "timeout_ms": 3000});
    for connection in [plain(snmpd.address), secure(snmpd.address), old] {
        let device = device(connection, all());
        let mut session = device.open().await.unwrap();
        let readings = device.read(&mut session).await.unwrap();
        assert_eq!(good(&readings), sorted(expected()), "{readings:?}");
    }
    assert_eq!(snmpd.writes(), [], "a reading has written");
}

#[tokio::test]
async fn only_who_knows_the_password_is_let_in() {
    let snmpd = Snmpd::start().await.unwrap();
    let user = |changes: Json| {
        let mut settings = secure(snmpd.address);
        settings["timeout_ms"] = 1500.into();
        for (key, value) in changes.as_object().unwrap() {
            settings[key] = value.clone();
        }
        if let Some(settings) = settings.as_object_mut() {
            settings.retain(|_, value| !value.is_null());
        }
        device(settings, all())
    };
    let unencrypted = json!({"privacy": null, "privacy_password": null});
    let open = json!({"user": "open", "auth": null, "auth_password": null, "privacy": null, "privacy_password": null});
    let older = json!({"user": "older", "auth": "md5", "privacy": null, "privacy_password": null});
    for settings in [json!({}), json!({"user": "old", "auth": "sha1"}), older, open] {
        let device = user(settings.clone());
        let mut session = device.open().await.unwrap_or_else(|e| panic!("{settings}: {e}"));
        assert_eq!(good(&device.read(&mut session).await.unwrap()).len(), all().len(), "{settings}");
    }
    let table = [
        (json!({"user": "nobody"}), "user"),
        (json!({"auth_password": "auth-passw0rd"}), "auth_password"),
        (json!({"auth": "sha512"}), "auth_password"),
    ];
    for (settings, expected) in table {
        let error = user(settings.clone()).open().await.unwrap_err();
        assert!(matches!(&error, Error::Auth(why) if why.contains(expected)), "{settings}: {error:?}");
    }
    let error = user(json!({"privacy_password": "privacy-passw0rd"})).open().await.unwrap_err();
    assert!(matches!(&error, Error::Timeout(why) if why.contains("privacy_password")), "{error:?}");
    let device = user(unencrypted);
    let mut session = device.open().await.unwrap();
    let readings = device.read(&mut session).await;
    assert!(readings.is_err() || good(&readings.unwrap()).is_empty(), "this user is let in encrypted only");
}

#[tokio::test]
async fn an_agent_that_does_not_know_us_is_silent() {
    let snmpd = Snmpd::start().await.unwrap();
    let mut stranger = plain(snmpd.address);
    (stranger["community"], stranger["timeout_ms"]) = ("nobody".into(), 500.into());
    let error = device(stranger, all()).open().await.unwrap_err();
    assert!(matches!(&error, Error::Timeout(why) if why.contains("community")), "{error:?}");
}

#[tokio::test]
async fn an_object_that_is_not_there_costs_only_its_own_property() {
    let snmpd = Snmpd::start().await.unwrap();
    let mut properties = all();
    properties.insert(2, Property::new("missing", ValueType::Int, at("99.0")));
    properties.insert(5, Property::new("scalar", ValueType::Int, json!({"oid": "1.3.6.1.2.1.1.3"})));
    let old =
        json!({"agent": snmpd.address.to_string(), "version": "1", "community": "plant", "timeout_ms": 3000});
    for connection in [plain(snmpd.address), old] {
        let device = device(connection, properties.clone());
        let mut session = device.open().await.unwrap();
        let readings = device.read(&mut session).await.unwrap();
        assert_eq!(good(&readings), sorted(expected()));
        for missing in ["missing", "scalar"] {
            assert!(
                matches!(&readings[missing], Err(Error::BadAddress { point, .. }) if point == missing),
                "{readings:?}"
            );
        }
        // What has been there may come back.
        snmpd.take_away("5.0");
        let readings = device.read(&mut session).await.unwrap();
        assert!(matches!(readings["ticks"], Err(Error::Device(_))), "{readings:?}");
        snmpd.put("5.0", "timeticks", "4200");
        assert_eq!(good(&device.read(&mut session).await.unwrap()), sorted(expected()));
    }
}

#[tokio::test]
async fn many_objects_are_read_in_few_requests_and_in_more_if_the_agent_says_so() {
    let snmpd = Snmpd::start().await.unwrap();
    let (proxy, through) = proxied(&snmpd).await;
    let properties: Vec<Property> = (0..100)
        .map(|i| {
            snmpd.put(&format!("20.{i}"), "integer", &i.to_string());
            Property::new(&format!("p{i}"), ValueType::Int, at(&format!("20.{i}")))
        })
        .collect();
    let few = device(plain(through), properties);
    let mut session = few.open().await.unwrap();
    let before = proxy.counts().requests;
    let readings = few.read(&mut session).await.unwrap();
    assert_eq!(proxy.counts().requests - before, 4, "of 32 objects each");
    assert!(
        (0..100).all(|i| readings[&format!("p{i}")] == Ok((Value::Int(i), Quality::Good))),
        "{readings:?}"
    );

    let long = "x".repeat(200);
    let properties: Vec<Property> = (0..20)
        .map(|i| {
            snmpd.put(&format!("21.{i}"), "string", &format!("{i}{long}"));
            Property::new(&format!("p{i}"), ValueType::String, at(&format!("21.{i}")))
        })
        .collect();
    let large = device(plain(through), properties);
    let mut session = large.open().await.unwrap();
    for round in 0..2 {
        let before = proxy.counts().requests;
        let readings = large.read(&mut session).await.unwrap();
        let all = (0..20)
            .all(|i| readings[&format!("p{i}")] == Ok((Value::Text(format!("{i}{long}")), Quality::Good)));
        assert!(all, "{readings:?}");
        let requests = proxy.counts().requests - before;
        let most = if round == 0 { 20 } else { 5 };
        assert!(
            (4..=most).contains(&requests),
            "{requests} requests in round {round}: it has learnt nothing"
        );
    }
}

#[tokio::test]
async fn a_late_answer_is_never_taken_for_another_ones() {
    let snmpd = Snmpd::start().await.unwrap();
    let (proxy, through) = proxied(&snmpd).await;
    for mut connection in [plain(through), secure(through)] {
        (connection["timeout_ms"], connection["retries"]) = (1000.into(), 0.into());
        let device = device(connection, all());
        let mut session = device.open().await.unwrap();
        for round in 0..4 {
            snmpd.put("1.0", "integer", &format!("{}", 100 + round));
            proxy.arm(Fault::LateAnswer);
            let late = device.read(&mut session).await;
            assert!(matches!(late, Err(Error::Timeout(_))), "{late:?}");
            snmpd.put("1.0", "integer", &format!("{}", 200 + round));
            let readings = device.read(&mut session).await.unwrap();
            assert_eq!(readings["integer"], Ok((Value::Int(200 + round), Quality::Good)));
        }
        // Every answer twice: the second one belongs to nobody.
        proxy.set(Mode::Double);
        for round in 0..4 {
            snmpd.put("1.0", "integer", &format!("{}", 300 + round));
            let readings = device.read(&mut session).await.unwrap();
            assert_eq!(readings["integer"], Ok((Value::Int(300 + round), Quality::Good)));
        }
        proxy.set(Mode::Pass);
    }
}

#[tokio::test]
async fn an_agent_that_hangs_or_restarts_is_read_again() {
    let snmpd = Snmpd::start().await.unwrap();
    for connection in [plain(snmpd.address), secure(snmpd.address)] {
        let mut impatient = connection;
        impatient["timeout_ms"] = 1000.into();
        let device = device(impatient, all());
        let mut session = device.open().await.unwrap();
        snmpd.freeze();
        assert!(matches!(device.read(&mut session).await, Err(Error::Timeout(_))));
        snmpd.thaw();
        snmpd.down();
        assert!(device.open().await.is_err());
        snmpd.up().await.unwrap();
        let mut session = device.open().await.unwrap();
        assert_eq!(good(&device.read(&mut session).await.unwrap()), sorted(expected()));
    }
    assert_eq!(snmpd.writes(), []);
}

#[tokio::test]
async fn an_agent_tells_what_it_has_and_that_can_be_read() {
    let snmpd = Snmpd::start().await.unwrap();
    let mut network = plain(snmpd.address);
    network["agent"] = format!("127.0.0.0/30:{}", snmpd.address.port()).into();
    network["timeout_ms"] = 1000.into();
    for (connection, expected) in [(secure(snmpd.address), 1), (network, 1)] {
        let found = SnmpMapper::discover(&serde_json::from_value(connection).unwrap()).await.unwrap();
        assert_eq!(found.len(), expected, "{found:?}");
        let properties: Vec<Property> = found[0]
            .properties
            .iter()
            .map(|p| Property::new(&p.name, p.value_type, p.address.clone()))
            .collect();
        assert!(found[0].about.contains("Linux"), "{found:?}");
        assert!(properties.iter().any(|p| p.name == "if1-in-octets"), "{properties:?}");
        assert!(found[0].properties.iter().all(|p| !p.writable));
        let device = device(found[0].connection.clone(), properties.clone());
        let mut session = device.open().await.unwrap();
        assert_eq!(good(&device.read(&mut session).await.unwrap()).len(), properties.len());
    }
    assert_eq!(snmpd.writes(), []);
}

use bus::Topic as MqttTopic;
use device_twin::history::audit::Ended;
use device_twin::rule::Decided;

use super::*;

fn at(seconds: u64) -> Now {
    Now { mono: Mono::ZERO + Duration::from_secs(seconds), wall: UnixMillis(seconds * 1000) }
}

fn ended(outcome: Outcome, detail: &str) -> AuditEntry {
    let event = AuditEvent::Outcome(Ended { id: "2.7".to_owned(), outcome, detail: detail.to_owned() });
    let device = "plant/valve".parse().unwrap();
    AuditEntry { at: UnixMillis(1), device, property: Some("position".to_owned()), event }
}

fn state(device: &str, state: Availability) -> Publish {
    let state = DeviceState { state, reason: String::new(), last_seen: None };
    publish(&format!("twin/{device}/state"), &serde_json::to_vec(&state).unwrap())
}

fn publish(topic: &str, payload: &[u8]) -> Publish {
    Publish {
        topic: MqttTopic::new(topic).unwrap(),
        payload: payload.to_vec().into(),
        retain: false,
        expiry: None,
    }
}

/// What is kept, as `reason object xcount: message`, in the order in which it was said last.
fn kept(layout: Layout, ks: &Keyspace) -> Vec<String> {
    let text = |kept: event::Kept| {
        let object = kept.object(ks);
        let (reason, message) = (object["reason"].as_str().unwrap(), object["message"].as_str().unwrap());
        let about = object["involvedObject"]["name"].as_str().unwrap();
        format!("{reason} {about} x{}: {message}", object["count"])
    };
    event::list(layout, ks).into_iter().map(text).collect()
}

/// One device with one property.
fn plant() -> Catalog {
    use device_twin::model::Kind::{Device, Model};
    let mut catalog = Catalog::default();
    for (kind, word, spec) in [
        (
            Model,
            "DeviceModel",
            r#"{"properties":[{"name":"position","type":"INT","accessMode":"ReadWrite"}]}"#,
        ),
        (Device, "Device", r#"{"deviceModelRef":{"name":"valve"},"nodeName":"a"}"#),
    ] {
        let json = format!(
            r#"{{"apiVersion":"devices.kubeedge.io/v1beta1","kind":"{word}","metadata":{{"name":"valve","namespace":"plant"}},"spec":{spec}}}"#
        );
        catalog.put(kind, &"plant/valve".parse().unwrap(), Some(&json.into()));
    }
    catalog
}

#[test]
fn what_fails_all_the_time_is_written_at_once_and_then_once_a_minute() {
    let (mut herald, mut ks) = (Herald::new(Layout::Cloud), Keyspace::new());
    for second in 0..60 {
        herald.handle_audit(&ended(Outcome::Expired, &format!("{second}h old")), &mut ks, at(second));
        herald.handle_timeout(&mut ks, at(second));
        assert_eq!(kept(Layout::Cloud, &ks), ["Expired valve x1: position 2.7: 0h old"]);
    }
    assert_eq!(herald.poll_timeout().map(|(at, _)| at), Some(at(60).mono));
    herald.handle_timeout(&mut ks, at(60));
    assert_eq!(kept(Layout::Cloud, &ks), ["Expired valve x60: position 2.7: 59h old"]);
    herald.handle_timeout(&mut ks, at(120));
    assert_eq!(herald.poll_timeout(), None, "nothing waits");
}

#[test]
fn what_succeeds_or_is_overtaken_is_no_event() {
    let (mut herald, mut ks) = (Herald::new(Layout::Edge), Keyspace::new());
    herald.handle_audit(&ended(Outcome::Succeeded, ""), &mut ks, at(1));
    herald.handle_audit(&ended(Outcome::Superseded, "a newer write took its place"), &mut ks, at(1));
    assert_eq!(kept(Layout::Edge, &ks), [""; 0]);
    herald.handle_audit(&ended(Outcome::Superseded, "slot 2 holds it"), &mut ks, at(1));
    assert_eq!(kept(Layout::Edge, &ks), ["Superseded valve x1: position 2.7: slot 2 holds it"]);
}

#[test]
fn a_refused_wish_is_an_event_and_a_refused_reading_is_none() {
    let (mut herald, mut ks) = (Herald::new(Layout::Edge), Keyspace::new());
    let refused =
        ResultBody { detail: "is no number".to_owned(), ..ResultBody::of("position", Outcome::Rejected) };
    let refused = publish("twin/plant/valve/result", &serde_json::to_vec(&refused).unwrap());
    let catalog = plant();
    let said = |herald: &mut Herald, ks: &mut Keyspace, topic: &str| {
        herald.handle_client(&MqttTopic::new(topic).unwrap());
        herald.handle_publish(&refused, &catalog, ks, at(1));
        herald.handle_settled();
        herald.handle_publish(&refused, &catalog, ks, at(1));
    };
    said(&mut herald, &mut ks, "twin/plant/valve/report/position");
    assert_eq!(kept(Layout::Edge, &ks), [""; 0]);
    said(&mut herald, &mut ks, "twin/plant/valve/set/position");
    assert_eq!(kept(Layout::Edge, &ks), ["Refused valve x1: position: is no number"]);
}

#[test]
fn devices_that_come_and_go_are_told_of_and_an_edge_that_is_away_says_nothing_of_them() {
    use Availability::{Offline, Online, Unknown};
    let (mut herald, mut ks) = (Herald::new(Layout::Cloud), Keyspace::new());
    let none = Catalog::default();
    herald.load([("plant/valve".parse().unwrap(), Online)].into_iter(), std::iter::empty());
    for state_now in [Unknown, Online, Offline, Offline] {
        herald.handle_publish(&state("plant/valve", state_now), &none, &mut ks, at(1));
    }
    assert_eq!(kept(Layout::Cloud, &ks), ["Offline valve x1: offline"]);
    for n in 0..150 {
        herald.handle_publish(&state(&format!("plant/d{n}"), Offline), &none, &mut ks, at(2));
    }
    assert_eq!((event::list(Layout::Cloud, &ks).len(), herald.take_left_out(at(59))), (100, None));
    assert_eq!(herald.poll_timeout().map(|(at, _)| at), Some(at(60).mono));
    assert_eq!((herald.take_left_out(at(60)), herald.take_left_out(at(60))), (Some(51), None));
    herald.handle_publish(&state("plant/late", Offline), &none, &mut ks, at(63));
    assert_eq!(event::list(Layout::Cloud, &ks).len(), 101);
    let (mut edge, mut ks) = (Herald::new(Layout::Edge), Keyspace::new());
    edge.handle_publish(&state("plant/valve", Offline), &none, &mut ks, at(1));
    assert_eq!(kept(Layout::Edge, &ks), [""; 0], "it learns at its start who is there");
}

fn view(slot: u8, because: Because) -> RuleView {
    RuleView {
        rule: "plant/close".to_owned(),
        output: "plant/valve/position".to_owned(),
        slot,
        decision: Some(Decided {
            does: if because == Because::Nothing { Does::Relinquish } else { Does::Set },
            value: Some(bus::Value::Int(0)).filter(|_| because != Because::Nothing),
            case: Some("too much".to_owned()),
            because,
        }),
        latched: if because == Because::Latched { vec!["too much".to_owned()] } else { vec![] },
        tripped: None,
        unknown: vec![],
        since: None,
    }
}

#[test]
fn an_interlock_that_trips_says_so_of_its_device_too_and_a_control_rule_says_nothing() {
    let (mut herald, mut ks) = (Herald::new(Layout::Edge), Keyspace::new());
    herald.handle_rule(&view(10, Because::True), &mut ks, at(1));
    herald.handle_rule(&view(2, Because::Latched), &mut ks, at(1));
    assert_eq!(kept(Layout::Edge, &ks), [""; 0], "latched before this process");
    herald.handle_rule(&view(2, Because::Nothing), &mut ks, at(2));
    herald.handle_rule(&view(2, Because::Nothing), &mut ks, at(3));
    herald.handle_rule(&view(2, Because::True), &mut ks, at(4));
    let mut all = kept(Layout::Edge, &ks);
    all.sort();
    let (released, tripped) = (
        "rule plant/close lets plant/valve/position go",
        "rule plant/close, case too much holds plant/valve/position at 0",
    );
    let mut expected: Vec<String> = Vec::new();
    for name in ["close", "valve"] {
        expected.push(format!("InterlockReleased {name} x1: {released}"));
        expected.push(format!("InterlockTripped {name} x1: {tripped}"));
    }
    expected.sort();
    assert_eq!(all, expected);
}

/// Devices come and go, each of them every 20 s.
fn flap(herald: &mut Herald, ks: &mut Keyspace, devices: usize, second: u64) {
    let is = if second.is_multiple_of(40) { Availability::Online } else { Availability::Offline };
    for n in (0..devices).filter(|_| second.is_multiple_of(20)) {
        herald.handle_publish(&state(&format!("plant/d{n:04}"), is), &Catalog::default(), ks, at(second));
    }
    herald.handle_timeout(ks, at(second));
}

#[test]
fn a_plant_that_flaps_for_minutes_writes_and_waits_within_bounds_and_an_interlock_is_heard() {
    let (mut herald, mut ks) = (Herald::new(Layout::Cloud), Keyspace::new());
    let mut left_out = 0;
    for second in 0..600 {
        flap(&mut herald, &mut ks, 1000, second);
        left_out += herald.take_left_out(at(second)).unwrap_or_default();
        assert!(herald.waiting.len() <= 400, "{} wait at {second} s", herald.waiting.len());
    }
    assert!(left_out > 20_000, "{left_out}");
    herald.handle_rule(&view(2, Because::True), &mut ks, at(600));
    assert_eq!(
        kept(Layout::Cloud, &ks).iter().filter(|text| text.starts_with("InterlockTripped")).count(),
        2
    );
}

#[test]
fn names_that_clients_make_up_are_no_events_and_push_none_out() {
    let (mut herald, mut ks, catalog) = (Herald::new(Layout::Cloud), Keyspace::new(), plant());
    let mut refuse = |herald: &mut Herald, device: &str, property: &str| {
        let body = ResultBody { detail: "no".to_owned(), ..ResultBody::of(property, Outcome::Rejected) };
        let body = publish(&format!("twin/{device}/result"), &serde_json::to_vec(&body).unwrap());
        herald.handle_publish(&body, &catalog, &mut ks, at(1));
    };
    for n in 0..500 {
        refuse(&mut herald, &format!("plant/y{n}"), "p");
        refuse(&mut herald, "plant/valve", &format!("p{n}"));
    }
    refuse(&mut herald, "plant/valve", "position");
    let mut all = kept(Layout::Cloud, &ks);
    all.sort();
    assert_eq!(all, ["Refused valve x1: p0: no", "Refused valve x1: position: no"]);
    herald.handle_timeout(&mut ks, at(61));
    assert!(kept(Layout::Cloud, &ks).contains(&"Refused valve x500: p499: no".to_owned()));
}

#[test]
fn when_too_many_are_known_all_are_forgotten_and_nothing_is_news_for_that() {
    use Availability::{Offline, Online};
    let (mut herald, mut ks, none) = (Herald::new(Layout::Cloud), Keyspace::new(), Catalog::default());
    let device = |n: usize| format!("plant/d{n}");
    herald.load((0..MAX_KNOWN).map(|n| (device(n).parse().unwrap(), Online)), std::iter::empty());
    for n in [MAX_KNOWN, 0, 1] {
        herald.handle_publish(&state(&device(n), Online), &none, &mut ks, at(1));
    }
    assert_eq!(kept(Layout::Cloud, &ks), [""; 0]);
    herald.handle_publish(&state(&device(1), Offline), &none, &mut ks, at(1));
    assert_eq!(kept(Layout::Cloud, &ks), ["Offline d1 x1: offline"]);
}

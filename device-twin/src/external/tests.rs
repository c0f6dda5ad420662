use bytes::Bytes;

use super::*;

fn message(topic: &str, payload: &str, retain: bool) -> Message {
    Message {
        topic: Topic::new(topic).unwrap(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: Qos::ExactlyOnce,
        retain,
        expires: None,
        properties: Vec::new(),
        from: None,
    }
}

fn at(seconds: u64) -> Mono {
    Mono::ZERO + std::time::Duration::from_secs(seconds)
}

/// All that a connection is given, `topic=payload`; each goes out as the next packet id.
fn said(desk: &mut Desk, side: Side, first: u16) -> Vec<String> {
    let next = std::iter::from_fn(|| desk.next(side, at(0)));
    let all: Vec<Message> = next.collect();
    (first..).zip(&all).for_each(|(packet, _)| desk.handle_handed(side, packet));
    let text = |m: &Message| format!("{}={}", m.topic, String::from_utf8_lossy(&m.payload));
    all.iter().map(text).collect()
}

#[test]
fn each_connection_hears_the_newest_of_what_is_retained_and_nothing_of_what_has_passed() {
    let mut desk = Desk::default();
    desk.announce(message("twin/a/b/reported/x", "1", true), None);
    desk.announce(message("mapper/m/write", "go", false), None);
    assert_eq!(said(&mut desk, Side::Twins, 1), [""; 0], "nobody is there");
    desk.handle_up(Side::Twins, Limits::default());
    desk.announce(message("twin/a/b/reported/x", "2", true), None);
    desk.announce(message("mapper/m/write", "now", false), None);
    assert_eq!(said(&mut desk, Side::Twins, 1), ["twin/a/b/reported/x=2", "mapper/m/write=now"]);
    desk.announce(message("mapper/m/write", "late", false), None);
    desk.handle_down(Side::Twins);
    desk.handle_up(Side::Twins, Limits::default());
    assert_eq!(said(&mut desk, Side::Twins, 1), ["twin/a/b/reported/x=2"]);
    assert_eq!(desk.dropped, 2, "one while nobody was there, one on its way when the connection broke");
}

#[test]
fn the_end_of_a_retained_topic_is_said_until_the_broker_has_it() {
    let mut desk = Desk::default();
    desk.announce(message("twin/a/b/reported/x", "1", true), None);
    desk.announce(message("twin/a/b/reported/x", "", true), None);
    for acknowledged in [false, true] {
        desk.handle_up(Side::Twins, Limits::default());
        assert_eq!(said(&mut desk, Side::Twins, 1), ["twin/a/b/reported/x="]);
        if acknowledged {
            desk.handle_acked(Side::Twins, 1, Ack::Taken);
        }
        desk.handle_down(Side::Twins);
    }
    desk.handle_up(Side::Twins, Limits::default());
    assert_eq!(said(&mut desk, Side::Twins, 1), [""; 0]);
    // Its value of later is not taken away by an acknowledgement of the end before it.
    desk.announce(message("twin/a/b/reported/x", "", true), None);
    assert_eq!(said(&mut desk, Side::Twins, 1), ["twin/a/b/reported/x="]);
    desk.announce(message("twin/a/b/reported/x", "3", true), None);
    desk.handle_acked(Side::Twins, 1, Ack::Taken);
    desk.handle_up(Side::Twins, Limits::default());
    assert_eq!(said(&mut desk, Side::Twins, 1), ["twin/a/b/reported/x=3"]);
}

#[test]
fn receipts_come_in_order_and_what_was_not_acknowledged_is_said_again() {
    let mut desk = Desk::default();
    for number in 1..=3 {
        desk.announce(message("mesh/x", &number.to_string(), false), Some(Receipt(number)));
    }
    desk.handle_up(Side::Mesh, Limits::default());
    assert_eq!(said(&mut desk, Side::Mesh, 1), ["mesh/x=1", "mesh/x=2", "mesh/x=3"]);
    desk.handle_acked(Side::Mesh, 2, Ack::Taken);
    assert_eq!(desk.poll_receipt(), None, "the first is not there yet");
    desk.handle_down(Side::Mesh);
    desk.handle_up(Side::Mesh, Limits::default());
    assert_eq!(said(&mut desk, Side::Mesh, 1), ["mesh/x=1", "mesh/x=3"]);
    desk.handle_acked(Side::Mesh, 1, Ack::Taken);
    assert_eq!([desk.poll_receipt(), desk.poll_receipt()], [Some(Receipt(1)), Some(Receipt(2))]);
    assert_eq!(desk.poll_receipt(), None);
    desk.handle_acked(Side::Mesh, 2, Ack::Taken);
    assert_eq!(desk.poll_receipt(), Some(Receipt(3)));
}

#[test]
fn what_expired_on_its_way_is_not_said_and_keeps_nobody_waiting() {
    let mut desk = Desk::default();
    let expired = |topic| Message { expires: Some(at(0)), ..message(topic, "old", false) };
    for side in Side::ALL {
        desk.handle_up(side, Limits::default());
    }
    desk.announce(expired("mesh/x"), Some(Receipt(7)));
    desk.announce(expired("mapper/m/write"), None);
    for side in Side::ALL {
        assert_eq!(said(&mut desk, side, 1), [""; 0]);
    }
    assert_eq!((desk.poll_receipt(), desk.dropped), (Some(Receipt(7)), 2));
}

#[test]
fn a_connection_is_given_a_window_and_what_passes_is_bounded() {
    let mut desk = Desk::default();
    desk.handle_up(Side::Twins, Limits::default());
    let payload = "x".repeat(64 << 10);
    for _ in 0..100 {
        desk.announce(message("twin/a/b/result", &payload, false), None);
    }
    let taken = std::iter::from_fn(|| desk.next(Side::Twins, at(0))).count();
    assert!((50..=63).contains(&taken), "{taken} of 64 KiB and more in 4 MiB");
    assert_eq!(desk.dropped, 100 - taken as u64);
    for _ in 0..100 {
        desk.announce(message("twin/a/b/result", "", false), None);
    }
    let more = std::iter::from_fn(|| desk.next(Side::Twins, at(0))).count();
    assert_eq!(taken + more, WINDOW);
}

fn hear(desk: &mut Desk, topic: &str, payload: &str) -> Result<bool, Refusal> {
    desk.hear(&Topic::new(topic).unwrap(), payload.as_bytes(), false)
}

#[test]
fn mappers_that_cannot_be_reached_are_named_and_names_are_bounded() {
    let mut desk = Desk::default();
    for (mapper, state) in [("modbus", "online"), ("opcua", "online"), ("opcua", "offline"), ("snmp", "?")] {
        assert_eq!(hear(&mut desk, &format!("mapper/{mapper}/state"), state), Ok(true));
    }
    assert_eq!(desk.handle_down(Side::Twins).mappers, BTreeSet::from([Name::new("modbus").unwrap()]));
    assert_eq!(desk.handle_down(Side::Twins), Gone::default());
    for n in 0..2 * MAX_SPEAKERS {
        hear(&mut desk, &format!("mapper/m{n}/state"), "online").unwrap();
    }
    assert_eq!(desk.handle_down(Side::Twins).mappers.len(), MAX_SPEAKERS);
}

#[test]
fn who_reports_as_kubeedges_mappers_do_listens_to_its_delta() {
    let mut desk = Desk::default();
    let update = Topic::new("$hw/events/device/plant/pump/twin/update").unwrap();
    let report = br#"{"twin": {"speed": {"actual": {"value": "1"}}}}"#;
    let filters = ["delta", "document"].map(|what| Filter::new(&format!("{update}/{what}")).unwrap());
    assert_eq!(desk.listens(&update, br#"{"twin": {"speed": {"expected": {"value": "1"}}}}"#), []);
    assert_eq!(desk.listens(&update, report), filters);
    assert_eq!(desk.listens(&update, report), [], "that is known");
    assert_eq!(desk.listens(&Topic::new("twin/plant/pump/report").unwrap(), report), []);
    assert_eq!(desk.handle_down(Side::Twins).interests, BTreeSet::from(filters));
}

#[test]
fn what_the_broker_does_not_take_ends_there_and_what_it_may_take_later_is_said_again() {
    let mut desk = Desk::default();
    for number in 1..=2 {
        desk.announce(message("mesh/x", &number.to_string(), false), Some(Receipt(number)));
    }
    desk.handle_up(Side::Mesh, Limits::default());
    said(&mut desk, Side::Mesh, 1);
    desk.handle_acked(Side::Mesh, 1, Ack::Later);
    desk.handle_acked(Side::Mesh, 2, Ack::Refused);
    assert_eq!(desk.poll_receipt(), None);
    desk.handle_down(Side::Mesh);
    desk.handle_up(Side::Mesh, Limits::default());
    assert_eq!(said(&mut desk, Side::Mesh, 1), ["mesh/x=1"]);
    desk.handle_acked(Side::Mesh, 1, Ack::Taken);
    assert_eq!([desk.poll_receipt(), desk.poll_receipt()], [Some(Receipt(1)), Some(Receipt(2))]);
}

#[test]
fn what_is_larger_than_the_broker_takes_is_not_said_and_keeps_nobody_waiting() {
    let mut desk = Desk::default();
    desk.handle_up(Side::Mesh, Limits { max_packet: 100, max_qos: Qos::AtMostOnce });
    desk.announce(message("mesh/x", &"x".repeat(100), false), Some(Receipt(1)));
    desk.announce(message("mesh/x", "small", false), Some(Receipt(2)));
    let next = desk.next(Side::Mesh, at(0)).unwrap();
    assert_eq!((&next.payload[..], next.qos, desk.too_large), (&b"small"[..], Qos::AtMostOnce, 1));
    assert_eq!(desk.poll_receipt(), Some(Receipt(1)));
}

#[test]
fn a_side_that_is_slow_takes_no_room_from_the_other() {
    let mut desk = Desk::default();
    for side in Side::ALL {
        desk.handle_up(side, Limits::default());
    }
    for _ in 0..100 {
        desk.announce(message("mesh/x", &"x".repeat(64 << 10), false), None);
    }
    assert!(desk.dropped > 0);
    desk.announce(message("mapper/m/write", "go", false), None);
    assert_eq!(said(&mut desk, Side::Twins, 1), ["mapper/m/write=go"]);
}

#[test]
fn what_is_heard_obeys_the_embedded_brokers_rules() {
    let mut desk = Desk::default();
    let table = [
        ("twin/a/b/set/x", false, Ok(true)),
        ("twin/a/b/set/x", true, Err(Refusal::RetainedWish)),
        ("twin/a/b/reported/x", false, Err(Refusal::NodesOnly)),
        ("$hw/events/device/d/twin/update", false, Ok(true)),
        ("mesh/x", true, Ok(true)),
        ("elsewhere", false, Ok(false)),
    ];
    for (topic, retain, expected) in table {
        assert_eq!(desk.hear(&Topic::new(topic).unwrap(), b"", retain), expected, "{topic}");
    }
}

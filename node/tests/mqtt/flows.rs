//! Flows that a library does not show: what goes on where it was cut, how much is under way, and who is cut off.

use std::io::Write;

use crate::wire::{
    BOTH, CLEAN, CONNACK, DISCONNECT, GOODBYE, PING, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL,
    Pair, SUBACK, UNSUBACK, V3, V5, Wire, acknowledge, connect, publish, subscribe, unsubscribe,
};
use crate::{Cluster, Node};

#[test]
fn who_sends_the_same_message_twice_is_heard_once() {
    let cluster = Cluster::start();
    for version in BOTH {
        let mut listener = Wire::connect(&cluster.cloud, version, "once-listener");
        listener.say(&subscribe(version, 1, format!("once/{version}"), 0));
        listener.hears(SUBACK);
        let expiry: &[u8] = &[0x11, 0, 0, 0, 60];
        let mut wire = Wire::connect_with(&cluster.cloud, version, "once", 0, 0, expiry).0;
        let said = |dup: u8, n: &[u8]| publish(version, 0b100 | dup, format!("once/{version}"), 7, &[], n);
        wire.say(&said(0, b"1"));
        assert_eq!(wire.hears(PUBREC).id(), 7);
        wire.say(&said(0b1000, b"1"));
        assert_eq!(wire.hears(PUBREC).id(), 7);
        // The session knows it on the next connection too (§4.3.3 of both).
        let (mut wire, present) = Wire::connect_with(&cluster.cloud, version, "once", 0, 0, expiry);
        assert!(present, "{version}");
        wire.say(&said(0b1000, b"1"));
        assert_eq!(wire.hears(PUBREC).id(), 7);
        wire.say(&acknowledge(PUBREL, 7));
        assert_eq!(wire.hears(PUBCOMP).id(), 7);
        wire.say(&said(0, b"2"));
        wire.hears(PUBREC);
        wire.say(&acknowledge(PUBREL, 7));
        let heard = [0; 2].map(|_| *listener.hears(PUBLISH).body.last().unwrap());
        assert_eq!(heard, *b"12", "{version}");
    }
}

#[test]
fn a_qos_2_delivery_goes_on_where_it_was_cut() {
    let cluster = Cluster::start();
    for version in BOTH {
        let expiry: &[u8] = &[0x11, 0, 0, 0, 60];
        let topic = format!("cut/{version}");
        let again = || Wire::connect_with(&cluster.cloud, version, "cut", 0, 0, expiry);
        let (mut wire, _) = again();
        wire.say(&subscribe(version, 1, &topic, 2));
        wire.hears(SUBACK);
        let mut speaker = Wire::connect(&cluster.cloud, version, "cut-speaker");
        speaker.say(&publish(version, 0b100, &topic, 1, &[], b"1"));
        speaker.hears(PUBREC);
        speaker.say(&acknowledge(PUBREL, 1));
        speaker.hears(PUBCOMP);
        let first = wire.hears(PUBLISH);
        assert!(!first.is_duplicate());
        // Nothing was answered: it comes again.
        let (mut wire, present) = again();
        assert!(present);
        let second = wire.hears(PUBLISH);
        assert_eq!((second.is_duplicate(), second.id()), (true, first.id()));
        wire.say(&acknowledge(PUBREC, first.id()));
        assert_eq!(wire.hears(PUBREL).id(), first.id());
        // It was taken: only its PUBREL comes again.
        let (mut wire, _) = again();
        assert_eq!(wire.hears(PUBREL).id(), first.id());
        wire.say(&acknowledge(PUBCOMP, first.id()));
        wire.say(&PING);
        wire.hears(PINGRESP);
        let (mut wire, _) = again();
        wire.say(&PING);
        wire.hears(PINGRESP);
    }
}

#[test]
fn acknowledgements_out_of_order_and_for_nothing_cost_nobody_the_connection() {
    let cluster = Cluster::start();
    for version in BOTH {
        let mut wire = Wire::connect(&cluster.cloud, version, "order");
        wire.say(&subscribe(version, 1, "order", 1));
        wire.hears(SUBACK);
        for id in 1..=3 {
            wire.say(&publish(version, 0b010, "order", id, &[], b"x"));
        }
        let mut ids: Vec<u16> = Vec::new();
        let mut acknowledged = 0;
        while ids.len() < 3 || acknowledged < 3 {
            let packet = wire.next().unwrap();
            if packet.kind() == PUBLISH { ids.push(packet.id()) } else { acknowledged += 1 }
        }
        for id in ids.into_iter().rev() {
            wire.say(&acknowledge(PUBACK, id));
        }
        wire.say(&acknowledge(PUBREL, 4711));
        let pubcomp = wire.hears(PUBCOMP);
        assert_eq!(pubcomp.reason(), if version == V5 { 0x92 } else { 0 }, "5.0 §3.7.2.1: unknown id");
        wire.say(&PING);
        wire.hears(PINGRESP);
    }
}

#[test]
fn more_under_way_than_the_broker_takes_ends_the_connection() {
    let cluster = Cluster::start();
    let mut wire = Wire::open(&cluster.cloud);
    wire.say(&connect(V5, "greedy", CLEAN, 0, &[]));
    let connack = wire.hears(CONNACK);
    let at = connack.body.iter().position(|byte| *byte == 0x21).expect("a receive maximum");
    let most = u16::from_be_bytes([connack.body[at + 1], connack.body[at + 2]]);
    // QoS 2 without a PUBREL: each counts until then (§4.9).
    let reader = wire.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        let answers = scope.spawn(move || Wire { stream: reader }.rest());
        for id in 1..=most + 1 {
            wire.say(&publish(V5, 0b100, "greedy", id, &[], b"x"));
        }
        let answers = answers.join().unwrap();
        let last = answers.last().unwrap();
        assert_eq!((last.kind(), last.reason()), (DISCONNECT, 0x93), "after {} answers", answers.len());
    });
}

#[test]
fn no_more_qos_2_is_under_way_to_a_client_than_it_takes() {
    let cluster = Cluster::start();
    let mut wire = Wire::connect_with(&cluster.cloud, V5, "two", CLEAN, 0, &[0x21, 0, 2]).0;
    wire.say(&subscribe(V5, 1, "two", 2));
    wire.hears(SUBACK);
    let mut speaker = Wire::connect(&cluster.cloud, V5, "two-speaker");
    for id in 1..=4 {
        speaker.say(&publish(V5, 0b100, "two", id, &[], b"x"));
        speaker.hears(PUBREC);
        speaker.say(&acknowledge(PUBREL, id));
        speaker.hears(PUBCOMP);
    }
    let first = [wire.hears(PUBLISH), wire.hears(PUBLISH)];
    // PUBREC frees nothing, PUBCOMP does (§4.9).
    wire.say(&acknowledge(PUBREC, first[0].id()));
    wire.hears(PUBREL);
    wire.say(&PING);
    wire.hears(PINGRESP);
    wire.say(&acknowledge(PUBCOMP, first[0].id()));
    wire.hears(PUBLISH);
}

#[test]
fn who_is_silent_beyond_its_keep_alive_is_cut_off_also_while_it_is_sent_to() {
    let cluster = Cluster::start();
    for version in BOTH {
        let name = format!("silent-{version}");
        let mut wire = Wire::connect_with(&cluster.cloud, version, &name, CLEAN, 1, &[]).0;
        wire.say(&subscribe(version, 1, &name, 0));
        wire.hears(SUBACK);
        let start = std::time::Instant::now();
        let mut speaker = Wire::connect(&cluster.cloud, version, &format!("speaker-{version}"));
        let stream = wire.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            let rest = scope.spawn(move || Wire { stream }.rest());
            while !rest.is_finished() && start.elapsed() < std::time::Duration::from_secs(20) {
                speaker.say(&publish(version, 0, &name, 0, &[], b"x"));
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            let last = rest.join().unwrap().pop().unwrap();
            let told = if version == V5 { (DISCONNECT, 0x8d) } else { (PUBLISH, last.reason()) };
            assert_eq!((last.kind(), last.reason()), told);
        });
        assert!(start.elapsed() >= std::time::Duration::from_millis(1400), "one and a half of it: {start:?}");
    }
}

#[test]
fn who_has_no_name_and_wants_a_session_is_refused_by_3() {
    let cluster = Cluster::start();
    let mut wire = Wire::open(&cluster.cloud);
    wire.say(&connect(V3, "", 0, 0, &[]));
    assert_eq!(wire.hears(CONNACK).reason(), 2, "§3.1.3.1");
    assert_eq!(wire.rest(), []);
}

#[test]
fn what_is_legal_and_rare_is_taken() {
    let cluster = Cluster::start();
    let node = &cluster.cloud;
    for props in [
        // No aliases, spelled out.
        &[0x22, 0, 0][..],
        &[0x22, 0xff, 0xff],
        &[0x21, 0xff, 0xff],
        &[0x27, 0xff, 0xff, 0xff, 0xff],
        &[0x11, 0xff, 0xff, 0xff, 0xff],
        &[0x19, 0, 0x17, 0],
    ] {
        let mut wire = Wire::connect_with(node, V5, "rare", CLEAN, 0, props).0;
        wire.say(&PING);
        wire.hears(PINGRESP);
    }
    // Names of all kinds.
    for (name, version) in
        ["größe", "a/b", "a+b#", "{\"a\":1}", &"x".repeat(200)].into_iter().zip([V3, V5, V3, V5, V3])
    {
        let mut wire = Wire::connect(node, version, name);
        wire.say(&PING);
        wire.hears(PINGRESP);
        wire.say(&GOODBYE);
        assert_eq!(wire.rest(), []);
    }
    // A packet that comes byte by byte, and many in one go.
    let mut wire = Wire::connect(node, V5, "pieces");
    for byte in subscribe(V5, 1, "pieces", 1) {
        wire.say(&[byte]);
    }
    wire.hears(SUBACK);
    wire.say(&PING.repeat(100));
    assert!((0..100).all(|_| wire.next().unwrap().kind() == PINGRESP));
}

#[test]
fn deep_topics_and_many_filters_delay_nobody_for_long() {
    let cluster = Cluster::start();
    let mut pair = Pair::connect(&cluster.cloud, "deep");
    for version in BOTH {
        let mut wire = Wire::connect(&cluster.cloud, version, "deep");
        let deep = "/".repeat(60_000);
        let mut said =
            [subscribe(version, 1, &deep, 1), subscribe(version, 2, "+/".repeat(30_000), 1)].concat();
        for id in 1..=20 {
            said.extend(publish(version, 0b010, &deep, id, &[], b"x"));
        }
        // It may be taken, or end the connection on the way.
        let _ = wire.stream.write_all(&said);
        pair.exchange();
        let mut many = Wire::connect(&cluster.cloud, version, "many");
        for id in 1..=2000 {
            many.say(&subscribe(version, id, format!("+/{id}/#"), 1));
            many.hears(SUBACK);
            many.say(&unsubscribe(version, id, &format!("+/{id}/#")));
            many.hears(UNSUBACK);
        }
        pair.exchange();
    }
}

/// A subscriber that does not read costs only itself.
#[test]
fn who_does_not_read_delays_nobody() {
    let cluster = Cluster::start();
    let node: &Node = &cluster.cloud;
    let mut pair = Pair::connect(node, "reading");
    let mut slow = Wire::connect(node, V5, "slow");
    slow.say(&subscribe(V5, 1, "flood", 1));
    slow.hears(SUBACK);
    let mut fast = Wire::connect(node, V3, "fast");
    fast.say(&subscribe(V3, 1, "flood", 0));
    fast.hears(SUBACK);
    let mut speaker = Wire::connect(node, V5, "speaker");
    let payload = [0; 4096];
    for round in 0..100 {
        for id in 1..=50 {
            speaker.say(&publish(V5, 0b010, "flood", id, &[], &payload));
        }
        for _ in 0..50 {
            assert!(speaker.hears(PUBACK).reason() < 0x80, "round {round}");
        }
        pair.exchange();
        // Each of 20 MB reaches who reads.
        for _ in 0..50 {
            assert_eq!(fast.hears(PUBLISH).body.len(), 4096 + 7);
        }
    }
}

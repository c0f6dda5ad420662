//! What no client should send, each on a connection of its own: how it is answered, and that nobody else notices.

use crate::wire::{
    BOTH, CLEAN, CONNACK, DISCONNECT, PING, Pair, SUBACK, UNSUBACK, V3, V5, Wire, connect, number, packet,
    properties, publish, subscribe, text, unsubscribe,
};
use crate::{Cluster, no_panic};

/// One thing said, and reason codes of which MQTT 5 is told one before the connection ends; none: it may be told any
/// (§4.13.2), or nothing.
type Case = (&'static str, Vec<u8>, &'static [u8]);

const MALFORMED: &[u8] = &[0x81, 0x82];
const PROTOCOL: &[u8] = &[0x82, 0x81];

/// Instead of a CONNECT. CONNACK with an error, or nothing, then the end.
fn greetings() -> Vec<(&'static str, Vec<u8>)> {
    let v5 = |flags: u8, rest: &[u8]| {
        let head = [text("MQTT"), vec![V5, flags, 0, 0, 0], text("greeting"), rest.to_vec()];
        packet(0x10, &head.concat())
    };
    let v3 = |flags: u8, rest: &[u8]| {
        packet(0x10, &[text("MQTT"), vec![V3, flags, 0, 0], text("greeting"), rest.to_vec()].concat())
    };
    let with = |props: &[u8]| connect(V5, "greeting", CLEAN, 0, props);
    let will = [text("will/x"), text("gone")].concat();
    let will_5 = [vec![0], will.clone()].concat();
    vec![
        ("no CONNECT at all", publish(V3, 0, "x", 0, &[], b"x")),
        ("PINGREQ first", PING.to_vec()),
        ("AUTH first", packet(0xf0, &[])),
        ("packet type 0", vec![0, 0]),
        ("HTTP", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("TLS", vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]),
        ("a length of five bytes", vec![0x10, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("a CONNECT of 256 MB", vec![0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4]),
        ("another protocol", packet(0x10, &[text("HTTP"), vec![4, 2, 0, 0], text("x")].concat())),
        ("version 6", packet(0x10, &[text("MQTT"), vec![6, 2, 0, 0, 0], text("x")].concat())),
        ("an empty CONNECT", packet(0x10, &[])),
        (
            "CONNECT that ends in its name",
            packet(0x10, &[text("MQTT"), vec![4, 2, 0, 0, 0, 9, b'x']].concat()),
        ),
        ("CONNECT with bytes behind", v3(CLEAN, b"more")),
        (
            "CONNECT with flags in its header",
            [&[0x12], &connect(V3, "greeting", CLEAN, 0, &[])[1..]].concat(),
        ),
        ("3.1.1 reserved flag", v3(CLEAN | 1, &[])),
        ("5 reserved flag", v5(CLEAN | 1, &[])),
        ("3.1.1 will QoS 3", v3(CLEAN | 0b11100, &will)),
        ("5 will QoS 3", v5(CLEAN | 0b11100, &will_5)),
        ("3.1.1 will QoS without a will", v3(CLEAN | 0b01000, &[])),
        ("5 will QoS without a will", v5(CLEAN | 0b01000, &[])),
        ("3.1.1 will retain without a will", v3(CLEAN | 0b100000, &[])),
        ("5 will retain without a will", v5(CLEAN | 0b100000, &[])),
        ("3.1.1 a password without a user", v3(CLEAN | 0b0100_0000, &text("secret"))),
        ("3.1.1 a will for a filter", v3(CLEAN | 0b100, &[text("a/+"), text("gone")].concat())),
        ("5 a will for a filter", v5(CLEAN | 0b100, &[vec![0], text("a/#"), text("gone")].concat())),
        ("5 a will without a topic", v5(CLEAN | 0b100, &[vec![0], text(""), text("gone")].concat())),
        (
            "a name that is no UTF-8",
            packet(0x10, &[text("MQTT"), vec![4, 2, 0, 0], text([0xc3, 0x28])].concat()),
        ),
        (
            "a name with a surrogate",
            packet(0x10, &[text("MQTT"), vec![4, 2, 0, 0], text([0xed, 0xa0, 0x80])].concat()),
        ),
        ("a name with a zero", packet(0x10, &[text("MQTT"), vec![4, 2, 0, 0], text([b'a', 0])].concat())),
        ("receive maximum 0", with(&[0x21, 0, 0])),
        ("maximum packet size 0", with(&[0x27, 0, 0, 0, 0])),
        ("a property twice", with(&[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1])),
        ("a property of another packet", with(&[0x23, 0, 1])),
        ("an unknown property", with(&[0x7f, 0])),
        ("a flag of 2", with(&[0x19, 2])),
        ("authentication data without a method", with(&[&[0x16][..], &text("x")].concat())),
        (
            "properties longer than the packet",
            packet(0x10, &[text("MQTT"), vec![5, 2, 0, 0, 200, 1]].concat()),
        ),
    ]
}

/// After a CONNECT of this version.
fn conversations(version: u8) -> Vec<Case> {
    let props = properties(version, &[]);
    let mut cases = vec![
        ("a second CONNECT", connect(version, "again", CLEAN, 0, &[]), PROTOCOL),
        ("a CONNACK", packet(0x20, &[0, 0]), &[]),
        ("a PINGRESP", vec![0xd0, 0], &[]),
        ("packet type 0", vec![0x00, 0], MALFORMED),
        ("PINGREQ with flags", vec![0xc1, 0], MALFORMED),
        ("SUBSCRIBE with wrong flags", [&[0x80], &subscribe(version, 1, "x", 0)[1..]].concat(), MALFORMED),
        ("UNSUBSCRIBE with wrong flags", [&[0xa0], &unsubscribe(version, 1, "x")[1..]].concat(), MALFORMED),
        ("PUBREL with wrong flags", vec![0x60, 2, 0, 1], MALFORMED),
        ("QoS 3", publish(version, 0b110, "x", 1, &[], b"x"), MALFORMED),
        ("QoS 1 with id 0", publish(version, 0b010, "x", 0, &[], b"x"), MALFORMED),
        ("QoS 2 with id 0, twice", publish(version, 0b100, "x", 0, &[], b"x").repeat(2), MALFORMED),
        ("SUBSCRIBE with id 0", subscribe(version, 0, "x", 0), MALFORMED),
        ("SUBSCRIBE without filters", packet(0x82, &[vec![0, 1], props.clone()].concat()), PROTOCOL),
        ("UNSUBSCRIBE without filters", packet(0xa2, &[vec![0, 1], props].concat()), PROTOCOL),
        ("SUBSCRIBE for QoS 3", subscribe(version, 1, "x", 3), MALFORMED),
        ("SUBSCRIBE with reserved bits", subscribe(version, 1, "x", 0b1100_0000), MALFORMED),
        ("PUBLISH to a+", publish(version, 0, "a+", 0, &[], b"x"), &[0x90, 0x81, 0x82]),
        ("PUBLISH to a/+", publish(version, 0b010, "a/+", 1, &[], b"x"), &[0x90, 0x81, 0x82]),
        ("PUBLISH to #", publish(version, 0b100, "#", 1, &[], b"x"), &[0x90, 0x81, 0x82]),
        ("PUBLISH to nothing", publish(version, 0, "", 0, &[], b"x"), &[0x82, 0x90, 0x94]),
        ("PUBLISH to no UTF-8", publish(version, 0, [0xff, 0xfe], 0, &[], b"x"), MALFORMED),
        (
            "PUBLISH with a zero in its topic",
            publish(version, 0, [b'a', 0], 0, &[], b"x"),
            &[0x90, 0x81, 0x82],
        ),
        ("SUBSCRIBE to no UTF-8", subscribe(version, 1, [0xc0, 0x80], 0), MALFORMED),
        ("PUBLISH that ends in its topic", packet(0x30, &[0, 9, b'x']), MALFORMED),
        ("PUBACK of one byte", packet(0x40, &[0]), MALFORMED),
        ("a packet of 256 MB", [vec![0x30], number(268_435_455), vec![0, 1, b'x']].concat(), &[0x95]),
        ("a length of five bytes", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01], MALFORMED),
    ];
    if version == V5 {
        cases.extend(conversations_5());
    }
    cases
}

fn conversations_5() -> Vec<Case> {
    let with = |props: &[u8]| publish(V5, 0b010, "x", 1, props, b"x");
    let subscribe_with = |props: &[u8], filter: &str, options: u8| {
        packet(0x82, &[vec![0, 1], properties(V5, props), text(filter), vec![options]].concat())
    };
    vec![
        ("alias 0", with(&[0x23, 0, 0]), &[0x94, 0x82]),
        ("alias 65535", with(&[0x23, 0xff, 0xff]), &[0x94]),
        ("an alias never told", publish(V5, 0, "", 0, &[0x23, 0, 1], b"x"), &[0x82, 0x94]),
        ("an alias twice", with(&[0x23, 0, 1, 0x23, 0, 1]), PROTOCOL),
        ("a subscription id in a client's PUBLISH", with(&[0x0b, 1]), PROTOCOL),
        (
            "a response topic with a wildcard",
            with(&[&[0x08][..], &text("a/#")].concat()),
            &[0x82, 0x81, 0x90],
        ),
        ("a payload format of 2", with(&[0x01, 2]), PROTOCOL),
        ("a property of CONNECT in PUBLISH", with(&[0x21, 0, 9]), MALFORMED),
        (
            "properties longer than the packet",
            packet(0x32, &[&text("x")[..], &[0, 1, 99, 1]].concat()),
            MALFORMED,
        ),
        ("a user property cut off", with(&[0x26, 0, 1, b'a', 0, 9, b'b']), MALFORMED),
        ("subscription id 0", subscribe_with(&[0x0b, 0], "x", 0), PROTOCOL),
        ("retain handling 3", subscribe_with(&[], "x", 0b0011_0000), &[0x82, 0x81]),
        ("no local in a group", subscribe_with(&[], "$share/g/x", 0b100), PROTOCOL),
        ("AUTH without a method", packet(0xf0, &[0x18, 0]), &[0x82, 0x8c]),
        ("a DISCONNECT with a wrong reason", packet(0xe0, &[0x8e]), &[]),
        ("a DISCONNECT that keeps a clean session", packet(0xe0, &[0, 5, 0x11, 0, 0, 0, 9]), &[0x82]),
    ]
}

#[test]
fn what_is_no_connect_is_refused() {
    let cluster = Cluster::start();
    let mut pair = Pair::connect(&cluster.cloud, "greetings");
    let mut wrong = Vec::new();
    for (name, said) in greetings() {
        let mut wire = Wire::open(&cluster.cloud);
        wire.say(&said);
        // What waits for more bytes than come learns that none will.
        let _ = wire.stream.shutdown(std::net::Shutdown::Write);
        let answers = wire.rest();
        let refused =
            |p: &crate::wire::Packet| p.kind() == CONNACK && p.reason() != 0 || p.kind() == DISCONNECT;
        if !answers.iter().all(refused) {
            wrong.push((name, answers));
        }
        pair.exchange();
    }
    assert_eq!(wrong, [], "let in");
    no_panic(&cluster.cloud);
}

#[test]
fn what_breaks_the_rules_ends_the_connection() {
    let cluster = Cluster::start();
    let mut pair = Pair::connect(&cluster.cloud, "rules");
    let mut wrong = Vec::new();
    for (version, (name, said, reasons)) in BOTH
        .into_iter()
        .flat_map(|version| conversations(version).into_iter().map(move |case| (version, case)))
    {
        let mut wire = Wire::connect(&cluster.cloud, version, "rules");
        wire.say(&[said, PING.to_vec()].concat());
        let answers = wire.rest_or_ping();
        let told = |p: &crate::wire::Packet| {
            version == V5 && p.kind() == DISCONNECT && (reasons.is_empty() || reasons.contains(&p.reason()))
        };
        if !answers.iter().all(told) {
            wrong.push(format!("{version}: {name}: {answers:?}"));
        }
        pair.exchange();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    no_panic(&cluster.cloud);
}

/// Filters that are none, and filters that are.
const FILTERS: [(&str, bool); 13] = [
    ("#/a", false),
    ("a#", false),
    ("a/#/b", false),
    ("+a", false),
    ("a+/b", false),
    ("a/b+", false),
    ("", false),
    ("#", true),
    ("/", true),
    ("+/+", true),
    ("/#", true),
    ("größe/+", true),
    ("a//b", true),
];

#[test]
fn a_filter_that_is_none_is_refused_and_the_others_are_taken() {
    let cluster = Cluster::start();
    for version in BOTH {
        let mut wire = Wire::connect(&cluster.cloud, version, "filters");
        for (id, (filter, is_one)) in (1..).zip(FILTERS) {
            wire.say(&subscribe(version, id, filter, 1));
            // §4.7.1 of both: a filter MUST be so; the connection may end, the answer is better.
            let suback = wire.hears(SUBACK);
            let refusal = if version == V5 { 0x8f } else { 0x80 };
            let reason = *suback.body.last().unwrap();
            assert_eq!(reason, if is_one { 1 } else { refusal }, "{version}: '{filter}'");
        }
        wire.say(&unsubscribe(version, 99, "never/subscribed"));
        assert_eq!(wire.hears(UNSUBACK).id(), 99);
    }
}

/// By SUBACK, or with the connection (§4.8.2).
#[test]
fn a_group_that_is_none_is_refused() {
    let cluster = Cluster::start();
    for filter in
        ["$share/g", "$share/", "$share//x", "$share/g/", "$share/+/x", "$share/g#/x", "$share/g/a#"]
    {
        let mut wire = Wire::connect(&cluster.cloud, V5, "groups");
        wire.say(&subscribe(V5, 1, filter, 1));
        let answer = wire.next().unwrap();
        let refused = [(SUBACK, Some(&0x8f)), (DISCONNECT, Some(&0x81)), (DISCONNECT, Some(&0x82))];
        assert!(refused.contains(&(answer.kind(), answer.body.last())), "{filter}: {answer:?}");
    }
}

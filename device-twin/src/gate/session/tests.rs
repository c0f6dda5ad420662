//! Sessions in virtual time, spoken to in bytes.

use bus::Topic;
use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::{
    MaximumPacketSize, Property, ReceiveMaximum, RequestProblemInformation, SessionExpiryInterval,
    TopicAliasMaximum, UserProperty, WillDelayInterval, v3_1_1,
};
use std::sync::Arc;

use super::*;
use crate::gate::hub::Opened;
use crate::gate::{Delivery, Outgoing, Refusal};

const MAX_PACKET: u32 = 1024;
const SECOND: u64 = 1_000_000;

fn at(seconds: u64) -> Mono {
    Mono(seconds * SECOND)
}

/// What the session wants done, and the bytes it sends.
fn drain(session: &mut Session) -> (Vec<Output>, Vec<u8>) {
    (std::iter::from_fn(|| session.poll_output()).collect(), session.take_bytes())
}

fn new() -> Session {
    Session::new(ConnId(7), Terms { max_packet: MAX_PACKET, max_keep_alive: 0, start: 0 }, Mono::ZERO)
}

/// Its session, as the hub would open it.
fn opened(kept: bool) -> Opened {
    let (received, filters) = (BTreeSet::new(), BTreeSet::new());
    Opened { conn: ConnId(7), session: SessionId(1), kept, present: false, received, filters }
}

fn connect_3(keep_alive: u16) -> Vec<u8> {
    let connect = v3_1_1::Connect::builder().client_id("c").unwrap().clean_session(true);
    connect.keep_alive(keep_alive).build().unwrap().to_continuous_buffer()
}

fn connect_5(properties: Vec<Property>) -> Vec<u8> {
    let connect = v5_0::Connect::builder().client_id("c").unwrap().clean_start(true);
    connect.props(properties).build().unwrap().to_continuous_buffer()
}

/// With a will at QoS 1 that is to wait for a session that does not outlive its connection.
fn connect_with_will(topic: &str) -> Vec<u8> {
    let delay = Property::WillDelayInterval(WillDelayInterval::new(60).unwrap());
    let connect = v5_0::Connect::builder().client_id("c").unwrap().clean_start(true);
    let connect = connect.will_message(topic, b"gone", Qos::AtLeastOnce, true).unwrap();
    connect.will_props(vec![delay]).build().unwrap().to_continuous_buffer()
}

/// A session that has let its client in.
fn open(connect: &[u8]) -> Session {
    let mut session = new();
    session.handle_bytes(connect, Mono::ZERO);
    let (outputs, bytes) = drain(&mut session);
    assert!(matches!(&outputs[..], [Output::Open(open)] if open.client == "c"), "{outputs:?}");
    assert_eq!(bytes, [0; 0], "let in too early");
    session.handle_opened(opened(false), &[], Mono::ZERO);
    let (outputs, bytes) = drain(&mut session);
    assert_eq!((outputs, bytes[0], bytes[2], bytes[3]), (vec![], 0x20, 0, 0));
    session
}

fn open_3() -> Session {
    open(&connect_3(0))
}

fn open_5(properties: Vec<Property>) -> Session {
    open(&connect_5(properties))
}

fn delivery(payload: &str, qos: Qos, expires: Option<Mono>) -> Delivery {
    let message = Message {
        topic: Topic::new("t").unwrap(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos,
        retain: false,
        expires,
        properties: vec![],
        from: None,
    };
    Delivery { message: Arc::new(message), qos, retain: false, subscriptions: vec![] }
}

/// A message for the client, under any number.
fn send(session: &mut Session, delivery: &Delivery, now: Mono) {
    session.handle_outgoing(&Outgoing { delivery: delivery.clone(), packet: None, again: false }, now);
}

/// PUBLISH of `x` to `mesh/a` at QoS 1 and 2.
const PUBLISH_1: [u8; 13] = *b"\x32\x0b\x00\x06mesh/a\x00\x09x";
const PUBLISH_2: [u8; 13] = *b"\x34\x0b\x00\x06mesh/a\x00\x09x";

fn take_answer(session: &mut Session) -> Answer {
    let (outputs, bytes) = drain(session);
    assert_eq!(bytes, [0; 0], "acknowledged too early");
    let [Output::Publish { answer: Some(answer), route: Route::Both, packet: None, .. }] = outputs[..] else {
        panic!("{outputs:?}")
    };
    answer
}

#[test]
fn who_does_not_connect_in_time_is_closed() {
    let mut session = new();
    assert_eq!(session.poll_timeout(), Some((Mono::ZERO + CONNECT_TIMEOUT, "connect timeout")));
    session.handle_timeout(Mono(1));
    assert_eq!(drain(&mut session), (vec![], vec![]));
    session.handle_timeout(Mono::ZERO + CONNECT_TIMEOUT);
    assert_eq!(drain(&mut session), (vec![Output::Close(CloseReason::ConnectTimeout)], vec![]));
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn silence_for_one_and_a_half_keep_alives_ends_the_session() {
    let mut session = open(&connect_3(10));
    assert_eq!(session.poll_timeout(), Some((at(15), "keep-alive")));
    session.handle_bytes(&[0xc0, 0], at(14));
    assert_eq!(drain(&mut session), (vec![], vec![0xd0, 0]));
    assert_eq!(session.poll_timeout(), Some((at(29), "keep-alive")));
    session.handle_timeout(at(29));
    assert_eq!(drain(&mut session).0, [Output::Close(CloseReason::KeepAlive)]);
}

#[test]
fn a_keep_alive_of_zero_is_for_ever() {
    assert_eq!(open_3().poll_timeout(), None);
    assert_eq!(open_5(vec![]).poll_timeout(), None);
}

#[test]
fn a_packet_in_single_bytes_is_the_same_packet() {
    let mut session = new();
    for byte in connect_3(0).into_iter().chain(PUBLISH_1) {
        session.handle_bytes(&[byte], Mono::ZERO);
    }
    let (outputs, _) = drain(&mut session);
    assert!(matches!(outputs[..], [Output::Open(_)]), "{outputs:?}");
    session.handle_opened(opened(false), &[], Mono::ZERO);
    let (outputs, _) = drain(&mut session);
    assert!(matches!(outputs[..], [Output::Publish { .. }]), "{outputs:?}");
}

#[test]
fn a_message_for_the_node_is_acknowledged_when_it_answers() {
    for (publish, acknowledged) in [(PUBLISH_1, 0x40), (PUBLISH_2, 0x50)] {
        let mut session = open_3();
        session.handle_bytes(&publish, at(1));
        let answer = take_answer(&mut session);
        session.handle_answer(answer, Ok(()), at(2));
        assert_eq!(drain(&mut session), (vec![], vec![acknowledged, 2, 0, 9]));
        session.handle_answer(answer, Ok(()), at(2));
        assert_eq!(drain(&mut session), (vec![], vec![]), "answered twice");
    }
}

/// PUBLISH_1 as version 5.0 writes it, without properties.
fn publish_5() -> Vec<u8> {
    let publish = v5_0::Publish::builder().topic_name("mesh/a").unwrap();
    publish.qos(Qos::AtLeastOnce).packet_id(9).payload(b"1").build().unwrap().to_continuous_buffer()
}

#[test]
fn what_a_disk_does_not_keep_is_refused_in_words() {
    let text = Refusal::Disk.to_string();
    let silent = Property::RequestProblemInformation(RequestProblemInformation::new(0).unwrap());
    for (properties, told) in [(vec![], true), (vec![silent], false)] {
        let mut session = open_5(properties);
        session.handle_bytes(&publish_5(), at(1));
        let answer = take_answer(&mut session);
        session.handle_answer(answer, Err(Refusal::Disk), at(2));
        let (outputs, bytes) = drain(&mut session);
        assert_eq!((outputs, bytes[0], &bytes[2..5]), (vec![], 0x40, &[0, 9, 0x83][..]));
        assert_eq!(bytes.ends_with(text.as_bytes()), told, "{bytes:?}");
    }
}

#[test]
fn what_is_not_kept_is_not_acknowledged_in_3_1_1() {
    let refusals = [Refusal::Disk, Refusal::Quota];
    for (publish, refusal) in [PUBLISH_1, PUBLISH_2].into_iter().flat_map(|p| refusals.map(|r| (p, r))) {
        let mut session = open_3();
        session.handle_bytes(&publish, at(1));
        let answer = take_answer(&mut session);
        session.handle_answer(answer, Err(refusal), at(2));
        assert_eq!(drain(&mut session), (vec![Output::Close(CloseReason::Unkept)], vec![]));
    }
}

#[test]
fn a_message_that_the_node_does_not_answer_ends_the_session() {
    let mut session = open_3();
    session.handle_bytes(&PUBLISH_1, at(1));
    let answer = take_answer(&mut session);
    assert_eq!(session.poll_timeout(), Some((at(1) + ANSWER_TIMEOUT, "answer of the node")));
    session.handle_timeout(at(1) + ANSWER_TIMEOUT);
    assert_eq!(drain(&mut session), (vec![Output::Close(CloseReason::NodeBusy)], vec![]));
    session.handle_answer(answer, Ok(()), at(40));
    assert_eq!(drain(&mut session), (vec![], vec![]));
}

#[test]
fn who_waits_for_the_node_too_often_is_not_read_from() {
    let mut session = open_3();
    let mut answers = Vec::new();
    for id in 1..=u16::try_from(MAX_UNANSWERED).unwrap() {
        assert!(session.wants_bytes());
        let mut publish = PUBLISH_1;
        publish[10..12].copy_from_slice(&id.to_be_bytes());
        session.handle_bytes(&publish, Mono::ZERO);
        answers.push(take_answer(&mut session));
    }
    assert!(!session.wants_bytes());
    session.handle_answer(answers[500], Ok(()), Mono::ZERO);
    assert!(session.wants_bytes());
}

#[test]
fn a_qos_2_message_is_told_once_however_often_it_is_sent() {
    let mut session = open_3();
    session.handle_bytes(&PUBLISH_2, Mono::ZERO);
    let answer = take_answer(&mut session);
    session.handle_answer(answer, Ok(()), Mono::ZERO);
    session.handle_bytes(&[&[0x3c], &PUBLISH_2[1..]].concat(), Mono::ZERO);
    session.handle_bytes(&[0x62, 2, 0, 9], Mono::ZERO);
    let acknowledgements = [[0x50, 2, 0, 9], [0x50, 2, 0, 9], [0x70, 2, 0, 9]].concat();
    assert_eq!(drain(&mut session), (vec![], acknowledgements));
    session.handle_bytes(&PUBLISH_2, Mono::ZERO);
    take_answer(&mut session);
}

#[test]
fn the_clients_receive_maximum_is_honoured() {
    let mut session = open_5(vec![Property::ReceiveMaximum(ReceiveMaximum::new(2).unwrap())]);
    for id in [1, 2] {
        assert!(session.wants_delivery());
        send(&mut session, &delivery("x", Qos::AtLeastOnce, None), Mono::ZERO);
        assert_eq!(session.take_bytes(), [0x32, 7, 0, 1, b't', 0, id, 0, b'x']);
    }
    assert!(!session.wants_delivery());
    session.handle_bytes(&[0x40, 2, 0, 1], Mono::ZERO);
    assert!(session.wants_delivery());
}

#[test]
fn who_acknowledges_nothing_gets_so_many_bytes() {
    let mut session = open_3();
    let large = "x".repeat(100 << 10);
    let mut sent = 0;
    while session.wants_delivery() {
        send(&mut session, &delivery(&large, Qos::AtLeastOnce, None), Mono::ZERO);
        session.take_bytes();
        sent += 1;
    }
    assert_eq!(sent, 11, "the first that passes 1 MiB is the last");
    session.handle_bytes(&[0x40, 2, 0, 1], Mono::ZERO);
    assert!(session.wants_delivery());
}

#[test]
fn what_a_message_says_of_itself_counts_as_well() {
    let mut session = open_5(vec![]);
    let mut large = delivery("", Qos::AtLeastOnce, None);
    let said = vec![Property::UserProperty(UserProperty::new("k", "x".repeat(60 << 10)).unwrap()); 4];
    Arc::make_mut(&mut large.message).properties = said;
    let mut sent = 0;
    while session.wants_delivery() {
        send(&mut session, &large, Mono::ZERO);
        session.take_bytes();
        sent += 1;
    }
    assert_eq!(sent, 5, "240 KiB each");
}

#[test]
fn a_3_1_1_client_gets_so_many_at_a_time() {
    let mut session = open_3();
    for _ in 0..MAX_IN_FLIGHT {
        assert!(session.wants_delivery());
        send(&mut session, &delivery("x", Qos::ExactlyOnce, None), Mono::ZERO);
        session.take_bytes();
    }
    assert!(!session.wants_delivery());
    session.handle_bytes(&[0x50, 2, 0, 1], Mono::ZERO);
    assert_eq!(session.take_bytes(), [0x62, 2, 0, 1]);
    assert!(!session.wants_delivery());
    session.handle_bytes(&[0x70, 2, 0, 1], Mono::ZERO);
    assert!(session.wants_delivery());
}

#[test]
fn a_message_larger_than_the_client_takes_is_left_out() {
    let mut session = open_5(vec![Property::MaximumPacketSize(MaximumPacketSize::new(20).unwrap())]);
    send(&mut session, &delivery(&"x".repeat(20), Qos::AtLeastOnce, None), Mono::ZERO);
    assert_eq!(session.take_bytes(), [0; 0]);
    send(&mut session, &delivery("x", Qos::AtLeastOnce, None), Mono::ZERO);
    assert_eq!(session.take_bytes().len(), 9);
    assert_eq!(session.stats(), Stats { sent: 1, too_large: 1, ..Default::default() });
}

#[test]
fn a_packet_larger_than_we_take_ends_the_session() {
    let mut session = open_5(vec![]);
    session.handle_bytes(&[0x30, 0x80, 0x08], Mono::ZERO);
    assert_eq!(drain(&mut session), (vec![Output::Close(CloseReason::Malformed)], vec![0xe0, 1, 0x95]));
}

#[test]
fn a_message_tells_how_long_it_has_to_live_and_an_old_one_is_left_out() {
    let mut session = open_5(vec![]);
    let message = delivery("x", Qos::AtMostOnce, Some(at(10)));
    send(&mut session, &message, at(7));
    assert_eq!(session.take_bytes(), [0x30, 10, 0, 1, b't', 5, 2, 0, 0, 0, 3, b'x']);
    send(&mut session, &message, at(10));
    assert_eq!(session.take_bytes(), [0; 0]);
    assert_eq!(session.stats(), Stats { sent: 1, expired: 1, ..Default::default() });
}

#[test]
fn a_will_is_published_on_every_way_out_but_a_goodbye() {
    type WayOut = fn(&mut Session);
    let ways: [(WayOut, bool, CloseReason); 6] = [
        (|s| s.handle_gone(at(1)), true, CloseReason::Gone),
        (|s| s.handle_bytes(&[0x00, 0x00], at(1)), true, CloseReason::Malformed),
        (|s| s.close(CloseReason::TakenOver, at(1)), true, CloseReason::TakenOver),
        (|s| s.handle_bytes(&[0xe0, 1, 4], at(1)), true, CloseReason::Disconnected),
        (|s| s.handle_bytes(&[0xe0, 0], at(1)), false, CloseReason::Disconnected),
        (|s| s.close(CloseReason::Shutdown, at(1)), false, CloseReason::Shutdown),
    ];
    for (way, willed, why) in ways {
        let mut session = open(&connect_with_will("w"));
        way(&mut session);
        session.handle_gone(at(2));
        let (outputs, _) = drain(&mut session);
        match (&outputs[..], willed) {
            (
                [
                    Output::Publish { message, route: Route::Local, answer: None, packet: None },
                    Output::Close(said),
                ],
                true,
            ) => {
                assert_eq!((message.topic.as_str(), &message.payload[..], *said), ("w", &b"gone"[..], why));
            }
            ([Output::Close(said)], false) => assert_eq!(*said, why),
            _ => panic!("{why}: {outputs:?}"),
        }
    }
}

#[test]
fn a_will_that_would_be_refused_is_refused_at_connect() {
    let mut session = new();
    session.handle_bytes(&connect_with_will("mapper/m/config"), Mono::ZERO);
    assert_eq!(
        drain(&mut session),
        (vec![Output::Close(CloseReason::Refused)], vec![0x20, 3, 0, Refusal::NodesOnly.connack() as u8, 0])
    );
}

#[test]
fn a_client_may_have_so_many_filters() {
    let mut session = open_3();
    let subscribe = |n: usize| {
        let filter = format!("f/{n:03}");
        [&[0x82, 10, 0, 1, 0, 5][..], filter.as_bytes(), &[0]].concat()
    };
    let mut code = |n| {
        session.handle_bytes(&subscribe(n), Mono::ZERO);
        let (outputs, bytes) = drain(&mut session);
        let [Output::Subscribe { answer, .. }] = outputs[..] else { panic!("{outputs:?}") };
        assert_eq!(bytes, [0; 0], "answered before it stands");
        session.handle_answer(answer, Ok(()), Mono::ZERO);
        let bytes = session.take_bytes();
        assert_eq!(bytes[..4], [0x90, 3, 0, 1]);
        bytes[4]
    };
    assert!((0..MAX_FILTERS).all(|n| code(n) == 0));
    assert_eq!(code(MAX_FILTERS), 0x80);
    assert_eq!(code(0), 0, "one that it has already");
}

#[test]
fn nothing_is_taken_from_a_closed_session() {
    let mut session = open_3();
    session.handle_bytes(&[0xe0, 0, 0xc0, 0], Mono::ZERO);
    assert_eq!(drain(&mut session), (vec![Output::Close(CloseReason::Disconnected)], vec![]));
    session.handle_bytes(&PUBLISH_1, Mono::ZERO);
    send(&mut session, &delivery("x", Qos::AtLeastOnce, None), Mono::ZERO);
    assert_eq!(drain(&mut session), (vec![], vec![]));
    assert!(!session.wants_bytes() && !session.wants_delivery());
}

/// A 3.1.1 session that outlives its connection, with messages that were sent on one before.
fn resume(released: &[u16]) -> Session {
    let connect = v3_1_1::Connect::builder().client_id("c").unwrap().clean_session(false);
    let mut session = new();
    session.handle_bytes(&connect.build().unwrap().to_continuous_buffer(), Mono::ZERO);
    let (outputs, _) = drain(&mut session);
    let [Output::Open(open)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((open.clean, open.expiry), (false, Expiry::Never));
    let opened = Opened { present: true, received: [5].into(), ..opened(true) };
    session.handle_opened(opened, released, Mono::ZERO);
    session
}

#[test]
fn what_was_sent_before_is_sent_again_under_its_number_and_what_was_received_is_released() {
    let mut session = resume(&[77]);
    assert_eq!(session.take_bytes(), [0x20, 2, 1, 0, 0x62, 2, 0, 77]);
    let delivery = delivery("x", Qos::ExactlyOnce, None);
    session.handle_outgoing(&Outgoing { delivery, packet: Some(78), again: true }, Mono::ZERO);
    assert_eq!(session.take_bytes(), [0x3c, 6, 0, 1, b't', 0, 78, b'x']);
    session.handle_bytes(&[0x70, 2, 0, 77, 0x50, 2, 0, 78], Mono::ZERO);
    let (outputs, bytes) = drain(&mut session);
    let [Output::Finished { packet: 77 }, Output::Received { packet: 78, answer }] = outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(bytes, [0; 0], "released before it is safe");
    session.handle_answer(answer, Ok(()), Mono::ZERO);
    assert_eq!(session.take_bytes(), [0x62, 2, 0, 78]);
}

#[test]
fn a_resumed_release_counts_against_the_receive_maximum_once() {
    let properties = vec![
        Property::ReceiveMaximum(ReceiveMaximum::new(1).unwrap()),
        Property::SessionExpiryInterval(SessionExpiryInterval::new(9).unwrap()),
    ];
    let connect = v5_0::Connect::builder().client_id("c").unwrap().clean_start(false);
    let mut session = new();
    let connect = connect.props(properties).build().unwrap();
    session.handle_bytes(&connect.to_continuous_buffer(), Mono::ZERO);
    session.handle_opened(opened(true), &[7], Mono::ZERO);
    assert!(!session.wants_delivery());
    session.handle_bytes(&[0x70, 2, 0, 7], Mono::ZERO);
    assert!(session.wants_delivery());
}

#[test]
fn a_message_that_was_taken_before_is_acknowledged_and_not_told_again() {
    let mut session = resume(&[]);
    session.take_bytes();
    session.handle_bytes(&[&[0x3c], &PUBLISH_2[1..11], &[5], &PUBLISH_2[12..]].concat(), Mono::ZERO);
    assert_eq!(drain(&mut session), (vec![], vec![0x50, 2, 0, 5]));
    session.handle_bytes(&[0x62, 2, 0, 5], Mono::ZERO);
    let (outputs, bytes) = drain(&mut session);
    let [Output::Forget { packet: 5, answer }] = outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(bytes, [0; 0], "told to forget before that is safe");
    session.handle_answer(answer, Ok(()), Mono::ZERO);
    assert_eq!(session.take_bytes(), [0x70, 2, 0, 5]);
}

#[test]
fn what_the_node_had_not_decided_when_the_connection_broke_is_decided_later() {
    for (outcome, received) in [(Ok(()), vec![5, 9]), (Err(Refusal::Disk), vec![5])] {
        let mut session = resume(&[]);
        session.handle_bytes(&PUBLISH_2, Mono::ZERO);
        let (outputs, _) = drain(&mut session);
        let [Output::Publish { answer: Some(answer), packet: Some(9), .. }] = outputs[..] else { panic!() };
        session.handle_gone(Mono::ZERO);
        assert!(session.is_undecided());
        session.handle_answer(answer, outcome, Mono::ZERO);
        assert!(!session.is_undecided());
        let left = session.take_left();
        assert_eq!(left.received.unwrap().into_iter().collect::<Vec<_>>(), received);
        assert_eq!(left.not_taken.contains(&9), outcome.is_err());
    }
}

#[test]
fn a_will_with_a_delay_is_left_to_wait_where_the_session_outlives_its_connection() {
    let delay = Property::WillDelayInterval(WillDelayInterval::new(60).unwrap());
    let expiry = Property::SessionExpiryInterval(SessionExpiryInterval::new(9).unwrap());
    let connect = v5_0::Connect::builder().client_id("c").unwrap().clean_start(true).props(vec![expiry]);
    let connect = connect.will_message("w", b"gone", Qos::AtLeastOnce, true).unwrap();
    let connect = connect.will_props(vec![delay]).build().unwrap();
    let mut session = open(&connect.to_continuous_buffer());
    session.handle_gone(at(1));
    assert_eq!(drain(&mut session).0, [Output::Close(CloseReason::Gone)]);
    let (delay, message, route) = session.take_left().will.unwrap();
    assert_eq!((delay.as_secs(), message.topic.as_str(), route), (60, "w", Route::Local));
}

#[test]
fn topics_get_numbers_where_the_client_takes_them() {
    let aliases = Property::TopicAliasMaximum(TopicAliasMaximum::new(1).unwrap());
    let mut session = open_5(vec![aliases]);
    let message = delivery("x", Qos::AtMostOnce, None);
    send(&mut session, &message, Mono::ZERO);
    assert_eq!(session.take_bytes(), [0x30, 8, 0, 1, b't', 3, 0x23, 0, 1, b'x']);
    send(&mut session, &message, Mono::ZERO);
    assert_eq!(session.take_bytes(), [0x30, 7, 0, 0, 3, 0x23, 0, 1, b'x']);
}

#[test]
fn a_topic_whose_message_was_too_large_to_send_is_not_known_by_its_number() {
    let properties = vec![
        Property::TopicAliasMaximum(TopicAliasMaximum::new(1).unwrap()),
        Property::MaximumPacketSize(MaximumPacketSize::new(30).unwrap()),
    ];
    let mut session = open_5(properties);
    let on = |topic: &str, payload: &str| {
        let delivery = delivery(payload, Qos::AtMostOnce, None);
        let message = Message { topic: Topic::new(topic).unwrap(), ..Message::clone(&delivery.message) };
        Delivery { message: Arc::new(message), ..delivery }
    };
    send(&mut session, &on("a", "1"), Mono::ZERO);
    send(&mut session, &on("b", &"x".repeat(40)), Mono::ZERO);
    session.take_bytes();
    send(&mut session, &on("b", "2"), Mono::ZERO);
    assert_eq!(session.take_bytes(), [0x30, 8, 0, 1, b'b', 3, 0x23, 0, 1, b'2']);
}

#[test]
fn what_the_node_refuses_of_a_kept_session_is_not_kept_as_received() {
    let mut session = resume(&[]);
    session.take_bytes();
    session.handle_bytes(&PUBLISH_2, Mono::ZERO);
    let (outputs, _) = drain(&mut session);
    let [Output::Publish { answer: Some(answer), packet: Some(9), .. }] = outputs[..] else { panic!() };
    session.handle_answer(answer, Err(Refusal::Disk), Mono::ZERO);
    let (outputs, _) = drain(&mut session);
    assert!(matches!(outputs[..], [Output::Forget { packet: 9, .. }, Output::Close(CloseReason::Unkept)]));
    assert_eq!(session.take_left().received, Some([5].into()));
}

#[test]
fn releases_of_an_older_connection_keep_to_the_receive_maximum() {
    let properties = vec![
        Property::ReceiveMaximum(ReceiveMaximum::new(1).unwrap()),
        Property::SessionExpiryInterval(SessionExpiryInterval::new(9).unwrap()),
    ];
    let connect = v5_0::Connect::builder().client_id("c").unwrap().clean_start(false);
    let connect = connect.props(properties).build().unwrap();
    let mut session = new();
    session.handle_bytes(&connect.to_continuous_buffer(), Mono::ZERO);
    session.handle_opened(opened(true), &[7, 8], Mono::ZERO);
    assert!(session.take_bytes().ends_with(&[0x62, 2, 0, 7]) && !session.wants_delivery());
    session.handle_bytes(&[0x70, 2, 0, 7], Mono::ZERO);
    assert_eq!((session.take_bytes(), session.wants_delivery()), (vec![0x62, 2, 0, 8], false));
    session.handle_bytes(&[0x70, 2, 0, 8], Mono::ZERO);
    assert!(session.wants_delivery());
}

#[test]
fn a_client_that_takes_no_topic_numbers_may_say_so() {
    let mut connect = connect_5(vec![Property::TopicAliasMaximum(TopicAliasMaximum::new(7).unwrap())]);
    let at = connect.windows(3).position(|bytes| bytes == [0x22, 0, 7]).unwrap();
    connect[at + 2] = 0;
    let mut session = open(&connect);
    send(&mut session, &delivery("x", Qos::AtMostOnce, None), Mono::ZERO);
    assert_eq!(session.take_bytes(), [0x30, 5, 0, 1, b't', 0, b'x']);
}

#[test]
fn a_keep_alive_over_the_terms_is_shortened() {
    let connect = v5_0::Connect::builder().client_id("c").unwrap().clean_start(true).keep_alive(120);
    let terms = Terms { max_packet: MAX_PACKET, max_keep_alive: 60, start: 0 };
    let mut session = Session::new(ConnId(7), terms, Mono::ZERO);
    session.handle_bytes(&connect.build().unwrap().to_continuous_buffer(), Mono::ZERO);
    session.handle_opened(opened(false), &[], Mono::ZERO);
    assert!(session.take_bytes().windows(3).any(|bytes| bytes == [0x13, 0, 60]));
    assert_eq!(session.poll_timeout(), Some((at(90), "keep-alive")));
}

mod any_bytes {
    use proptest::prelude::*;

    use super::*;

    /// Packets that begin rightly and go on at random.
    fn packet() -> impl Strategy<Value = Vec<u8>> {
        (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(first, body)| {
            let flags = if matches!(first >> 4, 6 | 8 | 10) { 2 } else { 0 };
            let first = if first >> 4 == 3 { first } else { first & 0xf0 | flags };
            [&[first, u8::try_from(body.len()).unwrap()], &body[..]].concat()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_bytes_make_a_session_panic_or_go_on_after_its_end(
            five in any::<bool>(),
            packets in proptest::collection::vec(packet(), 1..20),
            chunk in 1..64usize,
        ) {
            let mut session = if five { open_5(vec![]) } else { open_3() };
            for bytes in packets.concat().chunks(chunk) {
                if session.wants_delivery() {
                    send(&mut session, &delivery("x", Qos::ExactlyOnce, None), Mono::ZERO);
                }
                session.handle_bytes(bytes, Mono::ZERO);
            }
            session.handle_gone(Mono::ZERO);
            let (outputs, _) = drain(&mut session);
            let closes = outputs.iter().filter(|o| matches!(o, Output::Close(_))).count();
            prop_assert_eq!(closes, 1);
            prop_assert!(matches!(outputs.last(), Some(Output::Close(_))));
        }
    }
}

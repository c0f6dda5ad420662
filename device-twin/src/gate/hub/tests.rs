//! Clients in virtual time.

use bus::Topic;
use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::RetainHandling;

use super::*;
use crate::gate::Qos;

const NOW: Now = Now { mono: Mono(0), wall: UnixMillis(1_700_000_000_000) };

fn at(seconds: u64) -> Now {
    Now { mono: Mono(seconds * 1_000_000), wall: UnixMillis(NOW.wall.0 + seconds * 1000) }
}

fn wish(filter: &str) -> Wish {
    let (group, filter) = match filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
        Some((group, filter)) => (Some(group.into()), filter),
        None => (None, filter),
    };
    Wish {
        wanted: Wanted { group, filter: Filter::new(filter).unwrap() },
        how: Subscription { qos: Qos::AtLeastOnce, no_local: false, as_published: false, identifier: None },
        retained: RetainHandling::SendRetained,
    }
}

fn message(topic: &str, payload: &'static str, retain: bool, from: Option<SessionId>) -> Message {
    Message {
        topic: Topic::new(topic).unwrap(),
        payload: Bytes::from_static(payload.as_bytes()),
        qos: Qos::ExactlyOnce,
        retain,
        expires: None,
        properties: vec![],
        from,
    }
}

fn open(conn: u64, client: &str, clean: bool, seconds: u32) -> Open {
    let (name, client, who) = (client.into(), client.into(), Who::Anonymous);
    Open { conn: ConnId(conn), name, client, who, clean, expiry: Expiry::of(seconds) }
}

fn show(delivery: &Delivery) -> String {
    let Delivery { message, qos, retain, .. } = delivery;
    let text = std::str::from_utf8(&message.payload).unwrap();
    format!("{}={text}/{}{}", message.topic, *qos as u8, if *retain { "r" } else { "" })
}

/// Outputs as text, short enough to read.
fn drain(hub: &mut Hub) -> Vec<String> {
    let said = std::iter::from_fn(|| hub.poll_output());
    said.map(|output| match output {
        Output::Opened(Opened { conn, session, present, .. }) => {
            format!("open {} as {}{}", conn.0, session.0, if present { " again" } else { "" })
        }
        Output::Full { conn } => format!("full {}", conn.0),
        Output::TakeOver { old } => format!("take over {}", old.0),
        Output::Deliver { to, delivery } => format!("deliver {} {}", to.0, show(&delivery)),
        Output::Replay { to, deliveries } => {
            let all: Vec<_> = deliveries.iter().map(show).collect();
            format!("replay {} {}", to.0, all.join(" "))
        }
        Output::Keep(Row { key, value }) => {
            format!("{} {key}", if value.is_some() { "keep" } else { "drop" })
        }
        Output::Ended { session } => format!("end {}", session.0),
        Output::Publish { message, .. } => format!("will {}", message.topic),
        Output::Interest { filter, wanted } => format!("interest {filter} {wanted}"),
    })
    .collect()
}

/// A hub with clean clients on connections 1, 2, .. that subscribed to one filter each.
fn with(filters: &[&str]) -> Hub {
    let mut hub = Hub::default();
    for (conn, filter) in (1..).zip(filters) {
        hub.handle_open(open(conn, &format!("c{conn}"), true, 0));
        hub.handle_subscribe(SessionId(conn), vec![wish(filter)], NOW);
    }
    drain(&mut hub);
    hub
}

const KEPT_1: &str = "keep /mqtt/session/0000000000000001";
const GONE_1: &str = "drop /mqtt/session/0000000000000001";

#[test]
fn a_subscriber_hears_what_is_retained_and_then_what_is_new() {
    let mut hub = with(&["other"]);
    hub.handle_publish(message("t/1", "old", true, None), NOW);
    hub.handle_subscribe(SessionId(1), vec![wish("t/#")], NOW);
    hub.handle_publish(message("t/1", "new", true, None), NOW);
    assert_eq!(drain(&mut hub), ["replay 1 t/1=old/1r", "deliver 1 t/1=new/1"]);
}

#[test]
fn the_first_subscriber_of_a_filter_is_an_interest_and_the_last_ends_it() {
    let mut hub = with(&["own", "own"]);
    for id in [1, 2] {
        hub.handle_subscribe(SessionId(id), vec![wish("mesh/x")], NOW);
    }
    assert_eq!(drain(&mut hub), ["interest mesh/x true"]);
    hub.handle_unsubscribe(SessionId(1), &[wish("mesh/x").wanted]);
    assert_eq!(drain(&mut hub), [""; 0]);
    hub.handle_left(ConnId(2), Left::default(), NOW);
    assert_eq!(drain(&mut hub), ["interest mesh/x false", "end 2"]);
}

#[test]
fn a_client_that_comes_back_waits_until_its_old_connection_has_left() {
    let mut hub = with(&["x"]);
    hub.handle_open(open(7, "c1", true, 0));
    hub.handle_open(open(8, "c1", true, 0));
    assert_eq!(drain(&mut hub), ["take over 1", "take over 1", "take over 7"]);
    hub.handle_left(ConnId(7), Left::default(), NOW);
    assert_eq!(drain(&mut hub), [""; 0]);
    hub.handle_left(ConnId(1), Left::default(), NOW);
    assert_eq!(drain(&mut hub), ["end 1", "open 8 as 2"]);
    assert_eq!((hub.stats().clients, hub.stats().sessions), (1, 1));
    hub.handle_left(ConnId(8), Left::default(), NOW);
    assert_eq!((hub.stats().clients, hub.stats().sessions), (0, 0));
}

#[test]
fn a_session_lasts_as_long_as_its_expiry_says() {
    let mut hub = Hub::default();
    hub.handle_open(open(1, "a", true, 60));
    hub.handle_subscribe(SessionId(1), vec![wish("t")], NOW);
    assert_eq!(drain(&mut hub), [KEPT_1, "open 1 as 1", KEPT_1]);
    hub.handle_left(ConnId(1), Left { received: Some([3].into()), ..Left::default() }, at(10));
    hub.handle_publish(message("t", "x", false, None), at(11));
    assert_eq!(drain(&mut hub), [KEPT_1, "deliver 1 t=x/1"]);
    assert_eq!(hub.poll_timeout(), Some(at(70).mono));
    hub.handle_open(open(2, "a", false, 60));
    let said: Vec<_> = std::iter::from_fn(|| hub.poll_output()).collect();
    let [Output::Keep(_), Output::Opened(opened)] = &said[..] else { panic!("{said:?}") };
    assert!(opened.present && opened.received.contains(&3));
    assert_eq!(opened.filters, [wish("t").wanted].into());
    assert_eq!(hub.poll_timeout(), None);
    hub.handle_left(ConnId(2), Left { received: Some([4].into()), ..Left::default() }, at(80));
    hub.handle_timeout(at(140));
    let gone = ["drop /mqtt/received/0000000000000001/0004", GONE_1, "end 1"];
    assert_eq!(drain(&mut hub)[1..], gone);
    hub.handle_open(open(3, "a", false, 60));
    assert_eq!(drain(&mut hub)[1..], ["open 3 as 2"]);
}

#[test]
fn a_clean_start_ends_what_was_and_a_goodbye_may_change_the_expiry() {
    let mut hub = Hub::default();
    hub.handle_open(open(1, "a", false, 60));
    hub.handle_left(ConnId(1), Left::default(), NOW);
    drain(&mut hub);
    hub.handle_open(open(2, "a", true, 60));
    let kept_2 = "keep /mqtt/session/0000000000000002";
    assert_eq!(drain(&mut hub), [GONE_1, "end 1", kept_2, "open 2 as 2"]);
    hub.handle_left(ConnId(2), Left { expiry: Some(Expiry::AtOnce), ..Left::default() }, NOW);
    assert_eq!(drain(&mut hub), ["drop /mqtt/session/0000000000000002", "end 2"]);
}

#[test]
fn a_will_waits_for_its_client_but_not_longer_than_its_session() {
    let will = |seconds| {
        let message = message("w", "gone", false, None);
        Left { will: Some((Duration::from_secs(seconds), message, Route::Local)), ..Left::default() }
    };
    let mut hub = Hub::default();
    hub.handle_open(open(1, "a", false, 60));
    hub.handle_left(ConnId(1), will(10), NOW);
    assert_eq!(hub.poll_timeout(), Some(at(10).mono));
    hub.handle_open(open(2, "a", false, 60));
    hub.handle_timeout(at(11));
    assert!(!drain(&mut hub).contains(&"will w".to_owned()), "the client came back");
    hub.handle_left(ConnId(2), will(10), at(20));
    hub.handle_timeout(at(30));
    assert_eq!(drain(&mut hub)[1..], ["will w"]);
    assert_eq!(hub.poll_timeout(), Some(at(80).mono));
    hub.handle_open(open(3, "a", false, 5));
    hub.handle_left(ConnId(3), will(10), at(40));
    hub.handle_timeout(at(45));
    assert!(drain(&mut hub).contains(&"will w".to_owned()), "the session ended");
}

#[test]
fn what_a_node_kept_is_there_after_a_restart() {
    let mut before = Hub::default();
    before.handle_open(open(1, "a", false, 60));
    before.handle_subscribe(SessionId(1), vec![wish("mesh/#"), wish("$share/g/t")], NOW);
    before.handle_open(open(2, "b", true, 0));
    before.handle_publish(message("t", "kept", true, Some(SessionId(2))), NOW);
    before.handle_publish(message("mapper/m/state", "online", true, Some(SessionId(2))), NOW);
    before.handle_publish(message("twin/w/d/state", "x", true, None), NOW);
    let mut store = BTreeMap::new();
    while let Some(output) = before.poll_output() {
        if let Output::Keep(Row { key, value }) = output {
            store.insert(key, value.unwrap());
        }
    }
    store.insert(row::received(SessionId(1), 9).key, row::received(SessionId(1), 9).value.unwrap());
    let mut after = Hub::default();
    let owed = after.load(store.iter().map(|(key, value)| (key.as_str(), &value[..])), at(30));
    assert_eq!(owed, []);
    assert_eq!(drain(&mut after), ["interest mesh/# true", KEPT_1]);
    let stats = after.stats();
    assert_eq!((stats.sessions, stats.clients, stats.filters, stats.retained), (1, 0, 2, 1));
    // It was here when the node ended: away since the start.
    assert_eq!(after.poll_timeout(), Some(at(90).mono));
    after.handle_publish(message("t", "x", false, None), at(31));
    after.handle_open(open(5, "a", false, 60));
    let said = drain(&mut after);
    assert_eq!(said, ["deliver 1 t=x/1", KEPT_1, "open 5 as 1 again"]);
    after.handle_open(open(6, "new", true, 0));
    assert_eq!(drain(&mut after), ["open 6 as 2"], "numbers are not given twice");
}

#[test]
fn the_session_that_was_away_the_longest_makes_room() {
    let mut hub = Hub::default();
    let most = u64::try_from(MAX_KEPT_SESSIONS).unwrap();
    for n in 1..=most {
        hub.handle_open(open(n, &format!("c{n}"), true, 60));
    }
    drain(&mut hub);
    hub.handle_open(open(most + 1, "more", true, 60));
    assert_eq!(drain(&mut hub), [format!("full {}", most + 1)]);
    hub.handle_left(ConnId(5), Left::default(), at(1));
    hub.handle_left(ConnId(4), Left::default(), at(2));
    drain(&mut hub);
    hub.handle_open(open(most + 2, "more", true, 60));
    assert_eq!(drain(&mut hub)[1], "end 5");
}

#[test]
fn options_of_a_subscription_are_kept() {
    let mut hub = with(&["other"]);
    let no_local = Subscription { no_local: true, ..wish("t").how };
    hub.handle_subscribe(SessionId(1), vec![Wish { how: no_local, ..wish("t") }], NOW);
    hub.handle_publish(message("t", "own", false, Some(SessionId(1))), NOW);
    hub.handle_publish(message("t", "other", true, Some(SessionId(2))), NOW);
    assert_eq!(drain(&mut hub)[1..], ["deliver 1 t=other/1"]);
    let how = Subscription { as_published: true, qos: Qos::AtMostOnce, ..wish("t").how };
    let again = Wish { how, retained: RetainHandling::SendRetainedIfNotExists, ..wish("t") };
    hub.handle_subscribe(SessionId(1), vec![again], NOW);
    hub.handle_publish(message("t", "kept", true, None), NOW);
    assert_eq!(drain(&mut hub), ["deliver 1 t=kept/0r"]);
}

#[test]
fn a_group_hears_nothing_retained() {
    let mut hub = with(&["other"]);
    hub.handle_publish(message("t", "kept", true, None), NOW);
    hub.handle_subscribe(SessionId(1), vec![wish("$share/g/t")], NOW);
    assert_eq!(drain(&mut hub), [""; 0]);
}

#[test]
fn an_expired_message_reaches_nobody() {
    let mut hub = with(&["t"]);
    let stale = Message { expires: Some(Mono(5)), ..message("t", "x", true, None) };
    hub.handle_publish(stale, at(1));
    assert_eq!((drain(&mut hub), hub.stats().retained), (vec![], 0));
}

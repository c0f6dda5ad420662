use super::*;
use crate::board::Source;
use kubebus_sdk::{Value, ValueType};
use mapper_payload::Sought;

const NOW: UnixMillis = UnixMillis(1_709_208_000_000);

fn voice(json: &str) -> Arc<Voice> {
    Arc::new(Voice::new(&serde_json::from_str(json).unwrap()).unwrap())
}

fn plain() -> Arc<Voice> {
    voice(r#"{"broker":"b"}"#)
}

fn pump() -> Arc<Voice> {
    voice(r#"{"broker":"b","shape":"sparkplug","group":"g","node":"n","device":"pump"}"#)
}

fn gateway() -> NodeId {
    NodeId { group: "g".into(), node: "n".into() }
}

fn watch(exchange: &mut Exchange, id: MemberId, topic: &str) {
    exchange.want(id, topic.to_owned());
    let source = Source::Topic(topic.to_owned(), Sought::default());
    exchange.board(id).unwrap().watch(topic, source, ValueType::Int, true);
}

fn requests(exchange: &mut Exchange, at: Instant) -> Vec<Request> {
    std::iter::from_fn(|| exchange.poll_request(at, NOW)).collect()
}

fn subscribe(filters: &[&str]) -> Request {
    Request::Subscribe(filters.iter().map(|f| (*f).to_owned()).collect())
}

#[test]
fn a_message_goes_to_those_who_listen() {
    let mut exchange = Exchange::default();
    let (a, _) = exchange.join(plain());
    let (b, _) = exchange.join(plain());
    watch(&mut exchange, a, "x/1");
    watch(&mut exchange, b, "x/2");
    exchange.handle_message("x/1", b"7", false, NOW);
    exchange.handle_message("x", b"8", false, NOW);
    assert_eq!(exchange.take_changed(a).len(), 1);
    assert_eq!(exchange.take_changed(b), []);
}

#[test]
fn a_filter_lives_as_long_as_somebody_wants_it() {
    let (mut exchange, now) = (Exchange::default(), Instant::now());
    let (a, _) = exchange.join(plain());
    let (b, _) = exchange.join(plain());
    watch(&mut exchange, a, "x");
    watch(&mut exchange, a, "x");
    assert_eq!(requests(&mut exchange, now), [subscribe(&["x"])]);
    watch(&mut exchange, b, "x");
    assert_eq!(requests(&mut exchange, now), [subscribe(&["x"])], "for what is retained");
    assert_eq!(exchange.grant("x"), Grant::Asked);
    exchange.handle_granted("x", None);
    assert_eq!(exchange.grant("x"), Grant::Asked, "one answer is still open");
    exchange.handle_granted("x", None);
    assert_eq!(exchange.grant("x"), Grant::Granted);
    exchange.leave(a);
    assert_eq!(requests(&mut exchange, now), []);
    exchange.leave(b);
    assert_eq!(requests(&mut exchange, now), [Request::Unsubscribe("x".into())]);
}

#[test]
fn somebody_new_on_an_old_topic_gets_what_is_retained() {
    let (mut exchange, now) = (Exchange::default(), Instant::now());
    let (a, _) = exchange.join(plain());
    watch(&mut exchange, a, "x");
    exchange.renew("x");
    assert_eq!(requests(&mut exchange, now), [subscribe(&["x"])], "once is enough");
    exchange.handle_granted("x", None);
    exchange.renew("x");
    assert_eq!((requests(&mut exchange, now), exchange.grant("x")), (vec![subscribe(&["x"])], Grant::Asked));
}

#[test]
fn a_refused_filter_says_why() {
    let mut exchange = Exchange::default();
    let (a, _) = exchange.join(plain());
    watch(&mut exchange, a, "secret");
    exchange.handle_granted("secret", Some("NotAuthorized".into()));
    assert_eq!(exchange.grant("secret"), Grant::Refused("NotAuthorized".into()));
}

#[test]
fn a_node_is_asked_for_a_rebirth_at_once_and_then_not_too_often() {
    let (mut exchange, start) = (Exchange::default(), Instant::now());
    let (_, _) = exchange.join(pump());
    let (_, _) = exchange.join(pump());
    exchange.want_rebirth(&gateway());
    let first = requests(&mut exchange, start);
    assert_eq!(first[0], subscribe(&["spBv1.0/g/+/n/#", "spBv1.0/g/+/n/#"]));
    assert!(matches!(&first[1..], [Request::Publish { topic, .. }] if topic == "spBv1.0/g/NCMD/n"));
    for _ in 0..100 {
        exchange.handle_message("spBv1.0/g/DDATA/n/pump", b"nonsense", false, NOW);
    }
    assert_eq!(requests(&mut exchange, start), []);
    assert_eq!(exchange.next_request(), Some(start + REBIRTH_PAUSE));
    assert_eq!(requests(&mut exchange, start + REBIRTH_PAUSE).len(), 1);
    assert_eq!(exchange.next_request(), None);
}

#[test]
fn the_end_of_a_connection_makes_everything_bad_and_is_said() {
    let mut exchange = Exchange::default();
    let (a, _) = exchange.join(plain());
    watch(&mut exchange, a, "x");
    exchange.handle_message("x", b"7", false, NOW);
    exchange.take_changed(a);
    exchange.end(Error::transient("gone"));
    exchange.end(Error::transient("gone again"));
    let bad = crate::board::Known { value: Value::Int(7), quality: Quality::Bad, time: NOW };
    assert_eq!(exchange.take_changed(a), [("x".to_owned(), Ok(bad))]);
    assert_eq!(exchange.board(a).unwrap_err(), Error::transient("gone"));
}

#[test]
fn what_the_broker_has_retained_of_a_node_is_from_another_life() {
    let mut exchange = Exchange::default();
    let (_, _) = exchange.join(pump());
    requests(&mut exchange, Instant::now());
    exchange.handle_message("spBv1.0/g/NBIRTH/n", &node::rebirth(NOW), true, NOW);
    let unknown = exchange.node(&gateway()).unwrap();
    assert!(unknown.command(None, "Node Control/Rebirth", &Value::Bool(true), NOW).is_err());
}

#[test]
fn a_bridge_that_comes_back_brings_its_devices_back_unless_they_are_gone_themselves() {
    let mut exchange = Exchange::default();
    let (lamp, _) = exchange.join(voice(r#"{"broker":"b","shape":"zigbee2mqtt","topic":"lamp"}"#));
    let steps = [
        ("bridge/state", "offline", false, true),
        ("lamp", "{}", false, true),
        ("bridge/state", "online", false, false),
        ("lamp/availability", "offline", false, true),
        ("bridge/state", "offline", false, true),
        ("bridge/state", "online", false, true),
        ("lamp", "{}", true, true),
        ("lamp", "{}", false, false),
    ];
    for (i, (topic, payload, retained, offline)) in steps.into_iter().enumerate() {
        exchange.handle_message(&format!("zigbee2mqtt/{topic}"), payload.as_bytes(), retained, NOW);
        assert_eq!(exchange.board(lamp).unwrap().is_offline(), offline, "step {i}: {topic} {payload}");
    }
}

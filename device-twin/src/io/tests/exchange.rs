//! Clients among themselves.

use super::rumqtt::{BOTH, Client, Options, Version};
use super::{QUIET, Raw, World, got};
use crate::gate::Qos::{self, AtLeastOnce, AtMostOnce, ExactlyOnce};

const ALL_QOS: [Qos; 3] = [AtMostOnce, AtLeastOnce, ExactlyOnce];

#[tokio::test]
async fn every_pair_of_qos_and_version_is_served_at_the_lower_qos() {
    let world = World::new().await;
    for (from, to) in BOTH.into_iter().flat_map(|a| BOTH.map(|b| (a, b))) {
        let publisher = Client::new(world.address(), from, "publisher").await;
        let mut subscriber = Client::new(world.address(), to, "subscriber").await;
        for (said, wished) in ALL_QOS.into_iter().flat_map(|a| ALL_QOS.map(|b| (a, b))) {
            subscriber.subscribe("plain/topic", wished).await;
            publisher.publish("plain/topic", "hello", said, false).await;
            assert_eq!(
                subscriber.message().await,
                got("plain/topic", "hello", said.min(wished), false),
                "{from:?} {said:?} to {to:?} {wished:?}"
            );
        }
        subscriber.hears_nothing().await;
    }
}

#[tokio::test]
async fn wildcards_match_as_the_standard_says_and_unsubscribing_ends_it() {
    let world = World::new().await;
    let mut subscriber = Client::new(world.address(), Version::Five, "subscriber").await;
    for filter in ["a/+/c", "b/#", "+"] {
        subscriber.subscribe(filter, AtMostOnce).await;
    }
    for topic in ["a/b/c", "a/b/d", "b", "b/x/y", "z", "z/z", "a//c"] {
        world.publish(topic, "x", false).await;
    }
    let heard: Vec<String> = subscriber.messages(5).await.into_iter().map(|m| m.topic).collect();
    // `b` matches two filters, and is heard once.
    assert_eq!(sorted(heard), ["a//c", "a/b/c", "b", "b/x/y", "z"]);
    subscriber.unsubscribe("b/#").await;
    world.publish("b/x/y", "x", false).await;
    subscriber.hears_nothing().await;
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

#[tokio::test]
async fn topics_of_any_language_work() {
    let world = World::new().await;
    for version in BOTH {
        let mut client = Client::new(world.address(), version, "größe").await;
        client.subscribe("größe/+/水", AtLeastOnce).await;
        client.publish("größe/100%/水", "ä", AtLeastOnce, false).await;
        assert_eq!(client.message().await, got("größe/100%/水", "ä", AtLeastOnce, false));
    }
}

#[tokio::test]
async fn a_new_subscriber_gets_all_of_1000_retained_messages() {
    let world = World::new().await;
    for n in 0..1000 {
        world.publish(&format!("twin/w/tank-{n}/reported/level"), &n.to_string(), true).await;
    }
    for (version, qos) in BOTH.into_iter().flat_map(|v| ALL_QOS.map(|q| (v, q))) {
        let mut subscriber = Client::new(world.address(), version, "subscriber").await;
        subscriber.subscribe("#", qos).await;
        let messages = subscriber.messages(1000).await;
        assert!(messages.iter().all(|m| m.retain && m.qos == qos), "{version:?} {qos:?}");
        let topics: std::collections::BTreeSet<_> = messages.into_iter().map(|m| m.topic).collect();
        assert_eq!(topics.len(), 1000);
        subscriber.hears_nothing().await;
    }
}

#[tokio::test]
async fn an_empty_retained_message_clears_the_topic() {
    let world = super::kept::World::new().await;
    let mut publisher = Client::new(world.address(), Version::Three, "publisher").await;
    publisher.publish("a/kept", "1", AtLeastOnce, true).await;
    publisher.publish("a/cleared", "1", AtLeastOnce, true).await;
    publisher.publish("a/cleared", "", AtLeastOnce, true).await;
    for _ in 0..3 {
        publisher.notice().await;
    }
    let mut subscriber = Client::new(world.address(), Version::Five, "subscriber").await;
    subscriber.subscribe("a/#", ExactlyOnce).await;
    assert_eq!(subscriber.message().await, got("a/kept", "1", AtLeastOnce, true));
    subscriber.hears_nothing().await;
    // To who was there before, a retained message is as any other.
    publisher.publish("a/kept", "2", AtLeastOnce, true).await;
    assert_eq!(subscriber.message().await, got("a/kept", "2", AtLeastOnce, false));
}

#[tokio::test]
async fn a_will_is_heard_after_a_crash_and_not_after_a_goodbye() {
    let world = World::new().await;
    let mut watcher = Client::new(world.address(), Version::Three, "watcher").await;
    watcher.subscribe("wills/#", AtLeastOnce).await;
    for version in BOTH {
        let with_will =
            || Options { will: Some(("wills/a", "gone", true)), ..Options::new(version, "mortal") };
        let crashing = Client::with(world.address(), with_will()).await;
        drop(crashing);
        assert_eq!(watcher.message().await, got("wills/a", "gone", AtLeastOnce, false), "{version:?}");
        let leaving = Client::with(world.address(), with_will()).await;
        leaving.disconnect().await;
        watcher.hears_nothing().await;
    }
    let mut late = Client::new(world.address(), Version::Five, "late").await;
    late.subscribe("wills/#", AtMostOnce).await;
    assert_eq!(late.message().await, got("wills/a", "gone", AtMostOnce, true));
}

#[tokio::test]
async fn a_client_that_comes_back_takes_over_and_its_will_is_heard() {
    let world = World::new().await;
    let mut watcher = Client::new(world.address(), Version::Five, "watcher").await;
    watcher.subscribe("wills", AtMostOnce).await;
    let options =
        Options { will: Some(("wills", "replaced", false)), ..Options::new(Version::Five, "twice") };
    let _old = Client::with(world.address(), options).await;
    let mut new = Client::new(world.address(), Version::Five, "twice").await;
    assert_eq!(watcher.message().await.payload, "replaced");
    new.subscribe("still/there", AtMostOnce).await;
    world.publish("still/there", "yes", false).await;
    assert_eq!(new.message().await.payload, "yes");
    assert_eq!(world.broker.stats().taken_over, 1);
}

#[tokio::test]
async fn a_replaced_client_is_told_in_5_and_just_closed_in_3() {
    let world = World::new().await;
    let mut five = Raw::connected_5(world.address(), "twice").await;
    let mut three = Raw::connected(world.address(), "twice").await;
    assert_eq!(five.hear_the_end().await, [0xe0, 2, 0x8e, 0]);
    let _five = Raw::connected_5(world.address(), "twice").await;
    assert_eq!(three.hear_the_end().await, [0; 0]);
}

#[tokio::test]
async fn bad_filters_are_answered_with_a_failure_and_the_client_stays() {
    let world = World::new().await;
    for (version, reasons) in
        [(Version::Three, ["Failure"; 2]), (Version::Five, ["NotAuthorized", "NotAuthorized"])]
    {
        let mut client = Client::new(world.address(), version, "client").await;
        // rumqttc checks the form of filters itself; `raw_bad_filters_get_0x80` does without it.
        for (filter, reason) in ["$other/#", "$hwx"].into_iter().zip(reasons) {
            let granted = client.try_subscribe(filter, AtLeastOnce).await;
            assert_eq!(granted, format!("[{reason}]"), "{version:?} {filter}");
        }
        client.subscribe("good", AtLeastOnce).await;
    }
}

#[tokio::test]
async fn nothing_is_lost_or_reordered_under_load() {
    // A burst is shorter than a client's queue: who is slower than that is sent away.
    const BURST: usize = 2000;
    const BURSTS: usize = 10;
    let world = World::new().await;
    let publisher = Client::new(world.address(), Version::Three, "publisher").await;
    let mut subscribers = Vec::new();
    for (name, filter) in [("all", "#"), ("some", "load/+"), ("other", "load/topic"), ("more", "+/topic")] {
        let mut subscriber = Client::new(world.address(), Version::Five, name).await;
        subscriber.subscribe(filter, AtLeastOnce).await;
        subscribers.push(subscriber);
    }
    for burst in 0..BURSTS {
        let numbers: Vec<String> = (0..BURST).map(|n| (burst * BURST + n).to_string()).collect();
        for number in &numbers {
            publisher.publish("load/topic", number, AtLeastOnce, false).await;
        }
        for subscriber in &mut subscribers {
            let heard: Vec<String> =
                subscriber.messages(BURST).await.into_iter().map(|m| m.payload).collect();
            assert_eq!(heard, numbers);
        }
    }
    let stats = world.broker.stats();
    assert_eq!((stats.dropped, stats.too_slow), (0, 0));
}

#[tokio::test]
async fn large_messages_do_not_push_small_ones_out() {
    // Less than a client's queue (8 MiB).
    const ROUNDS: usize = 20;
    let world = World::new().await;
    let mut subscriber = Client::new(world.address(), Version::Three, "subscriber").await;
    for filter in ["#", "+/size"] {
        subscriber.subscribe(filter, AtLeastOnce).await;
    }
    let large = "x".repeat(100_000);
    for round in 0..ROUNDS {
        for payload in [&large, "", &round.to_string(), &large[..60_000]] {
            world.publish("any/size", payload, false).await;
        }
    }
    let mut lengths: Vec<usize> =
        subscriber.messages(4 * ROUNDS).await.iter().map(|m| m.payload.len()).collect();
    lengths.sort_unstable();
    let count = |length: usize| lengths.iter().filter(|l| **l == length).count();
    assert_eq!([0, 60_000, 100_000].map(count), [ROUNDS; 3]);
}

#[tokio::test]
async fn shutdown_tells_the_clients_and_frees_the_port() {
    let world = World::new().await;
    let mut five = Raw::connected_5(world.address(), "five").await;
    let mut three = Raw::connected(world.address(), "three").await;
    world.broker.shutdown().await;
    assert_eq!(five.hear_the_end().await, [0xe0, 2, 0x8b, 0]);
    assert_eq!(three.hear_the_end().await, [0; 0]);
    let again = tokio::net::TcpListener::bind(world.address()).await;
    assert!(again.is_ok(), "{again:?}");
    let World { broker, mut events } = world;
    drop(broker);
    assert!(super::within("the end of events", events.recv()).await.is_none());
}

#[tokio::test]
async fn a_message_dies_of_its_age() {
    use std::time::Duration;
    let world = World::new().await;
    let topic = bus::Topic::new("mapper/m/write").unwrap();
    let expiry = Some(crate::Expiry(Duration::from_millis(200)));
    let said = crate::Publish { topic, payload: bytes::Bytes::from_static(b"open"), retain: true, expiry };
    world.broker.publish(said.into()).await.unwrap();
    tokio::time::sleep(QUIET).await;
    let mut client = Client::new(world.address(), Version::Five, "m").await;
    client.subscribe("mapper/m/write", AtLeastOnce).await;
    client.hears_nothing().await;
}

#[tokio::test]
async fn receipts_are_shown_in_their_order_once_the_broker_has_the_messages() {
    use crate::io::BrokerEvent;
    use crate::{Announcement, Publish, Receipt};
    let mut world = World::new().await;
    let mut client = Client::new(world.address(), Version::Five, "m").await;
    client.subscribe("mesh/#", AtLeastOnce).await;
    for number in 1..=3 {
        let topic = bus::Topic::new("mesh/x").unwrap();
        let said = Publish { topic, payload: number.to_string().into(), retain: false, expiry: None };
        let receipt = Some(Receipt(number));
        let said = Announcement { receipt, qos: bus::Qos::AtLeastOnce, ..said.into() };
        world.broker.publish(said).await.unwrap();
    }
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let event = super::within("a receipt", world.events.recv()).await.unwrap();
        if let BrokerEvent::Keep { receipt: Some(receipt), .. } = event {
            heard.push(receipt);
        }
    }
    assert_eq!(heard, [1, 2, 3].map(Receipt));
    let payloads: Vec<String> = client.messages(3).await.into_iter().map(|m| m.payload).collect();
    assert_eq!(payloads, ["1", "2", "3"]);
}

//! Clients and the node.

use super::rumqtt::{BOTH, Client, Notice, Options, Version};
use super::{Raw, World, got};
use crate::gate::Qos::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use crate::gate::Refusal;

#[tokio::test]
async fn a_report_is_acknowledged_only_when_the_node_has_it_safe() {
    let mut world = World::new().await;
    for (version, qos) in BOTH.into_iter().flat_map(|v| [(v, AtLeastOnce), (v, ExactlyOnce)]) {
        let mut mapper = Client::new(world.address(), version, "mapper").await;
        mapper.publish("twin/w/tank/report/level", "1.5", qos, false).await;
        let (heard, ticket) = world.heard().await;
        assert_eq!(heard, "mapper: twin/w/tank/report/level = 1.5");
        mapper.is_told_nothing().await;
        world.broker.accept(ticket.expect("a ticket"));
        assert_eq!(mapper.notice().await, Notice::Acknowledged("Success".into()), "{version:?} {qos:?}");
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_when_the_client_does() {
    let mut world = World::new().await;
    let publish = [0x32, 15, 0, 10, b'm', b'e', b's', b'h', b'/', b's', b'h', b'i', b'f', b't', 0, 7, b'x'];
    let mut client = Raw::connected(world.address(), "c").await;
    client.say(&publish).await;
    let (heard, ticket) = world.heard().await;
    assert_eq!(heard, "c: mesh/shift = x");
    drop(client);
    let mut client = Raw::connected(world.address(), "c").await;
    // The answer to the lost connection's message acknowledges nothing on the new one.
    world.broker.accept(ticket.unwrap());
    let mut again = publish;
    again[0] |= 0x08;
    client.say(&again).await;
    let (heard, ticket) = world.heard().await;
    assert_eq!(heard, "c: mesh/shift = x");
    world.broker.accept(ticket.unwrap());
    assert_eq!(client.hear(4).await, [0x40, 2, 0, 7]);
}

#[tokio::test]
async fn a_rejected_message_is_answered_with_its_reason() {
    let mut world = World::new().await;
    for (version, reason) in [(Version::Three, "Success"), (Version::Five, "PayloadFormatInvalid")] {
        let mut app = Client::new(world.address(), version, "app").await;
        for qos in [AtLeastOnce, ExactlyOnce] {
            app.publish("twin/w/valve/set/position", "{", qos, false).await;
            let (_, ticket) = world.heard().await;
            world.broker.reject(ticket.unwrap(), Refusal::Payload);
            assert_eq!(app.notice().await, Notice::Acknowledged(reason.into()), "{version:?} {qos:?}");
        }
    }
    assert_eq!(world.broker.stats().refused, 4);
}

#[tokio::test]
async fn topics_of_the_node_are_refused_to_clients() {
    let mut world = World::new().await;
    let mut watcher = Client::new(world.address(), Version::Three, "watcher").await;
    watcher.subscribe("#", AtLeastOnce).await;
    let topics = [
        ("twin/w/tank/reported/level", "NotAuthorized"),
        ("twin/w/tank/desired/level", "NotAuthorized"),
        ("twin/w/tank/state", "NotAuthorized"),
        ("mapper/m/config", "NotAuthorized"),
        ("mapper/m/write", "NotAuthorized"),
        ("$hw/events/device/w/tank/twin/update/delta", "NotAuthorized"),
        ("$SYS/broker/uptime", "NotAuthorized"),
        ("$hw/events/device/a", "TopicNameInvalid"),
        ("$hw/events/upload/x", "TopicNameInvalid"),
        ("twin/w/tank/nonsense", "TopicNameInvalid"),
    ];
    for version in BOTH {
        let mut client = Client::new(world.address(), version, "client").await;
        for (topic, reason) in topics {
            let reason = if version == Version::Three { "Success" } else { reason };
            assert_eq!(client.publish_and_wait(topic, "x", AtLeastOnce).await, reason, "{version:?} {topic}");
        }
        assert_eq!(client.publish_and_wait("plain", "x", AtLeastOnce).await, "Success");
        assert_eq!(watcher.message().await.topic, "plain");
    }
    watcher.hears_nothing().await;
    assert!(world.interest().await.1);
    assert!(world.events.try_recv().is_err());
    assert_eq!(world.broker.stats().refused, 20);
}

#[tokio::test]
async fn wildcards_at_the_start_do_not_hear_what_begins_with_a_dollar() {
    let mut world = World::new().await;
    for version in BOTH {
        let mut all = Client::new(world.address(), version, "all").await;
        all.subscribe("#", AtLeastOnce).await;
        all.subscribe("+/events/device/+/+/data/update", AtLeastOnce).await;
        let mut apps = Client::new(world.address(), version, "apps").await;
        for filter in ["$ke/events/device/+/+/data/update", "$hw/#", "$SYS/#"] {
            apps.subscribe(filter, AtLeastOnce).await;
        }
        let mapper = Client::new(world.address(), version, "mapper").await;
        mapper.publish("$ke/events/device/w/tank/data/update", "1", AtMostOnce, false).await;
        assert_eq!(apps.message().await.topic, "$ke/events/device/w/tank/data/update");
        world.publish("$hw/events/device/w/tank/twin/update/delta", "2", false).await;
        assert_eq!(apps.message().await.topic, "$hw/events/device/w/tank/twin/update/delta");
        all.hears_nothing().await;
        apps.hears_nothing().await;
    }
    assert!(world.interest().await.1, "of #");
}

#[tokio::test]
async fn the_node_hears_of_kubeedges_topics_what_is_said_and_what_is_listened_to() {
    let mut world = World::new().await;
    let mut client = Client::new(world.address(), Version::Three, "client").await;
    client.subscribe("$hw/events/device/tank/twin/update/delta", AtLeastOnce).await;
    let (filter, wanted) = world.interest().await;
    assert_eq!((filter.as_str(), wanted), ("$hw/events/device/tank/twin/update/delta", true));
    client.publish("$hw/events/device/tank/twin/get", "{}", AtMostOnce, false).await;
    assert_eq!(world.heard().await.0, "client: $hw/events/device/tank/twin/get = {}");
}

#[tokio::test]
async fn a_retained_wish_is_refused() {
    let mut world = World::new().await;
    let mut app = Client::new(world.address(), Version::Five, "app").await;
    app.publish("twin/w/valve/set/position", "1", AtLeastOnce, true).await;
    assert_eq!(app.notice().await, Notice::Acknowledged("ImplementationSpecificError".into()));
    assert!(world.events.try_recv().is_err());
}

#[tokio::test]
async fn the_node_alone_hears_wishes_and_both_hear_the_mesh() {
    let mut world = World::new().await;
    let mut watcher = Client::new(world.address(), Version::Five, "watcher").await;
    for filter in ["twin/#", "mapper/#", "mesh/#"] {
        watcher.subscribe(filter, AtLeastOnce).await;
    }
    let client = Client::new(world.address(), Version::Three, "client").await;
    client.publish("twin/w/valve/set/position", "1", AtMostOnce, false).await;
    client.publish("mapper/m/result", "2", AtMostOnce, false).await;
    client.publish("mesh/a", "3", AtMostOnce, true).await;
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(world.heard().await.0);
    }
    assert_eq!(
        heard,
        [
            "client: twin/w/valve/set/position = 1",
            "client: mapper/m/result = 2",
            "client: mesh/a = 3 retained"
        ]
    );
    assert_eq!(watcher.message().await, got("mesh/a", "3", AtMostOnce, false));
    watcher.hears_nothing().await;
}

#[tokio::test]
async fn a_mappers_will_reaches_node_and_subscribers() {
    let mut world = World::new().await;
    let mut watcher = Client::new(world.address(), Version::Three, "watcher").await;
    watcher.subscribe("mapper/+/state", AtLeastOnce).await;
    let options =
        Options { will: Some(("mapper/m/state", "offline", true)), ..Options::new(Version::Five, "m") };
    drop(Client::with(world.address(), options).await);
    assert_eq!(world.heard().await.0, "m: mapper/m/state = offline retained");
    assert_eq!(watcher.message().await.payload, "offline");
}

#[tokio::test]
async fn the_node_learns_which_filters_other_sites_can_serve() {
    let mut world = World::new().await;
    let mut a = Client::new(world.address(), Version::Five, "a").await;
    let mut b = Client::new(world.address(), Version::Three, "b").await;
    for client in [&mut a, &mut b] {
        client.subscribe("mesh/weather", AtMostOnce).await;
        client.subscribe("own/things", AtMostOnce).await;
    }
    a.unsubscribe("mesh/weather").await;
    b.subscribe("twin/other/#", AtMostOnce).await;
    drop(b);
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(world.interest().await);
    }
    let expected =
        [("mesh/weather", true), ("twin/other/#", true), ("mesh/weather", false), ("twin/other/#", false)];
    assert_eq!(heard, expected.map(|(filter, wanted)| (filter.to_owned(), wanted)));
}

#[tokio::test]
async fn a_node_that_does_not_read_holds_publishers_up_and_loses_nothing() {
    const MESSAGES: usize = 2000;
    let mut world = World::new().await;
    let client = Client::new(world.address(), Version::Three, "client").await;
    let publish = async {
        for n in 0..MESSAGES {
            client.publish("twin/w/tank/report/level", &n.to_string(), AtLeastOnce, false).await;
        }
    };
    let read = async {
        tokio::time::sleep(super::QUIET).await;
        for n in 0..MESSAGES {
            let (heard, ticket) = world.heard().await;
            assert_eq!(heard, format!("client: twin/w/tank/report/level = {n}"));
            world.broker.accept(ticket.unwrap());
        }
    };
    tokio::join!(publish, read);
    assert_eq!(world.broker.stats().node_busy, 0);
}

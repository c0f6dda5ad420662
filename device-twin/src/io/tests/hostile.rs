//! Clients that mean ill, or know no better. Whatever one does, the others do not notice.

use std::net::SocketAddr;
use std::time::Duration;

use bus::backoff::Jitter;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::rumqtt::{BOTH, Client, Version};
use super::{Raw, World, connect_bytes, within};
use crate::gate::Qos::{AtLeastOnce, AtMostOnce};
use crate::io::broker::{BrokerConfig, start};

/// A pair of good clients that exchange a message.
pub(super) struct Bystanders {
    publisher: Client,
    subscriber: Client,
    round: u32,
}

impl Bystanders {
    pub(super) async fn new(address: SocketAddr) -> Self {
        let publisher = Client::new(address, Version::Three, "good publisher").await;
        let mut subscriber = Client::new(address, Version::Five, "good subscriber").await;
        subscriber.subscribe("good/+", AtLeastOnce).await;
        Self { publisher, subscriber, round: 0 }
    }

    pub(super) async fn are_well(&mut self) {
        self.round += 1;
        let text = self.round.to_string();
        assert_eq!(self.publisher.publish_and_wait("good/topic", &text, AtLeastOnce).await, "Success");
        assert_eq!(self.subscriber.message().await.payload, text);
    }
}

/// SUBSCRIBE of one filter at QoS 1, packet id 1, 3.1.1.
fn subscribe_bytes(filter: &[u8]) -> Vec<u8> {
    let length = u8::try_from(filter.len()).unwrap();
    let mut bytes = vec![0x82, length + 5, 0, 1, 0, length];
    bytes.extend_from_slice(filter);
    bytes.push(1);
    bytes
}

/// PUBLISH at QoS 0.
fn publish_bytes(topic: &[u8]) -> Vec<u8> {
    let length = u8::try_from(topic.len()).unwrap();
    let mut bytes = vec![0x30, length + 2, 0, length];
    bytes.extend_from_slice(topic);
    bytes
}

#[tokio::test]
async fn malformed_packets_close_their_connection_and_no_other() {
    let world = World::new().await;
    let mut bystanders = Bystanders::new(world.address()).await;
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("second CONNECT", connect_bytes("again")),
        ("endless remaining length", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ("packet larger than allowed", vec![0x30, 0xff, 0xff, 0xff, 0x7f]),
        ("reserved packet type 0", vec![0x00, 0x00]),
        ("reserved packet type 15", vec![0xf0, 0x00]),
        ("server's packet", vec![0x20, 0x02, 0x00, 0x00]),
        ("PUBLISH at QoS 3", vec![0x36, 5, 0, 1, b'a', 0, 1]),
        ("PUBLISH with packet id 0", vec![0x32, 5, 0, 1, b'a', 0, 0]),
        ("PUBLISH to a wildcard", publish_bytes(b"a/+")),
        ("PUBLISH to no topic", publish_bytes(b"")),
        ("topic that is no UTF-8", publish_bytes(&[0xff, 0xfe])),
        ("topic with a NUL", publish_bytes(b"a\0b")),
        ("topic longer than the packet", vec![0x30, 3, 0, 200, b'a']),
        ("SUBSCRIBE without filters", vec![0x82, 2, 0, 1]),
        ("SUBSCRIBE with wrong flags", vec![0x80, 6, 0, 1, 0, 1, b'a', 0]),
        ("SUBSCRIBE at QoS 3", vec![0x82, 6, 0, 1, 0, 1, b'a', 3]),
        ("unasked PUBACK", vec![0x40, 2, 0, 9]),
        ("unasked PUBREC", vec![0x50, 2, 0, 9]),
        ("AUTH in 3.1.1", vec![0xf0, 0]),
    ];
    for (what, bytes) in &hostile {
        let mut raw = Raw::connected(world.address(), "bad").await;
        raw.say(bytes).await;
        assert_eq!(raw.hear_the_end().await, [0; 0], "{what}");
        bystanders.are_well().await;
    }
    assert_eq!(world.broker.stats().malformed, hostile.len() as u64);
    assert_eq!(world.broker.stats().panics, 0);
}

#[tokio::test]
async fn what_is_no_mqtt_is_turned_away() {
    let world = World::new().await;
    let mut bystanders = Bystanders::new(world.address()).await;
    for (what, bytes, answer) in [
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![]),
        ("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], vec![]),
        ("PUBLISH first", publish_bytes(b"a"), vec![]),
        ("PINGREQ first", vec![0xc0, 0], vec![]),
        ("MQTT 3.1", b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01a".to_vec(), vec![0x20, 2, 0, 1]),
        ("MQTT 9", b"\x10\x0d\x00\x04MQTT\x09\x02\x00\x00\x00\x01a".to_vec(), vec![0x20, 3, 0, 0x84, 0]),
        (
            "no id, no clean session",
            b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x00\x00\x00".to_vec(),
            vec![0x20, 2, 0, 2],
        ),
    ] {
        let mut raw = Raw::new(world.address()).await;
        raw.say(&bytes).await;
        assert_eq!(raw.hear_the_end().await, answer, "{what}");
        bystanders.are_well().await;
    }
}

#[tokio::test]
async fn bad_filters_get_0x80_and_good_ones_in_the_same_connection_work() {
    let world = World::new().await;
    let mut raw = Raw::connected(world.address(), "raw").await;
    for filter in ["#/a", "a#", "+a", "", "a/b+", "$other/#", "$share/g", "$share/+/a"] {
        raw.say(&subscribe_bytes(filter.as_bytes())).await;
        assert_eq!(raw.hear(5).await, [0x90, 3, 0, 1, 0x80], "{filter}");
    }
    raw.say(&subscribe_bytes(b"good/#")).await;
    assert_eq!(raw.hear(5).await, [0x90, 3, 0, 1, 1]);
    world.publish("good/x", "y", false).await;
    assert_eq!(raw.hear(13).await, b"\x32\x0b\x00\x06good/x\x00\x01y");
}

#[tokio::test]
async fn an_empty_client_id_gets_a_name_of_its_own() {
    let world = World::new().await;
    let _a = Raw::connected(world.address(), "").await;
    let _b = Raw::connected(world.address(), "").await;
    let mut five = Raw::new(world.address()).await;
    five.say(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00").await;
    let head = five.hear(2).await;
    let connack = five.hear(head[1].into()).await;
    assert!(String::from_utf8_lossy(&connack).contains("kubebus-"), "{connack:?}");
    within("three clients", async {
        while world.broker.stats().hub.clients != 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn only_so_many_clients_are_let_in() {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = BrokerConfig { listen, max_clients: 2, ..Default::default() };
    let (broker, _events) = start(config).await.unwrap();
    let _a = Raw::connected(broker.local_addr(), "a").await;
    let b = Raw::connected(broker.local_addr(), "b").await;
    assert_eq!(Raw::new(broker.local_addr()).await.hear_the_end().await, [0; 0]);
    assert_eq!(broker.stats().turned_away, 1);
    drop(b);
    within("room for another", async {
        while broker.stats().hub.clients != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    Raw::connected(broker.local_addr(), "c").await;
}

#[tokio::test]
async fn a_slow_client_hurts_only_itself() {
    const MESSAGES: usize = 3000;
    let world = World::new().await;
    let payload = "x".repeat(8192);
    for (name, qos_byte) in [("slow 0", 0u8), ("slow 1", 1)] {
        let mut slow = Raw::connected(world.address(), name).await;
        let mut subscribe = subscribe_bytes(b"flood");
        *subscribe.last_mut().unwrap() = qos_byte;
        slow.say(&subscribe).await;
        assert_eq!(slow.hear(5).await, [0x90, 3, 0, 1, qos_byte]);
        let mut fast = Client::new(world.address(), Version::Five, "fast").await;
        fast.subscribe("flood", AtLeastOnce).await;
        for _ in 0..MESSAGES {
            world.publish("flood", &payload, false).await;
            assert_eq!(fast.message().await.payload.len(), payload.len());
        }
        let stats = world.broker.stats();
        match qos_byte {
            0 => assert!(stats.dropped > 0 && stats.too_slow == 0, "{stats:?}"),
            _ => assert_eq!(stats.too_slow, 1, "{stats:?}"),
        }
    }
}

/// Valid sessions, to be mutated.
fn seeds() -> Vec<Vec<u8>> {
    let session = |parts: &[&[u8]]| parts.concat();
    let connect_5 = b"\x10\x19\x00\x04MQTT\x05\x02\x00\x3c\x08\x21\x00\x05\x27\x00\x00\x10\x00\x00\x04fuzz";
    let publish_5 = b"\x33\x1b\x00\x06mesh/x\x00\x05\x0d\x02\x00\x00\x00\x3c\x26\x00\x01k\x00\x01v\x00hi";
    let with_will = b"\x10\x19\x00\x04MQTT\x04\x26\x00\x00\x00\x04fuzz\x00\x02w/\x00\x03bye";
    vec![
        session(&[
            &connect_bytes("fuzz"),
            &subscribe_bytes(b"a/+/#"),
            &publish_bytes(b"a/b"),
            &[0xc0, 0, 0xe0, 0],
        ]),
        session(&[connect_5, b"\x82\x0c\x00\x01\x02\x0b\x07\x00\x03a/#\x2d", publish_5, &[0xc0, 0]]),
        session(&[
            with_will,
            b"\x34\x07\x00\x01q\x00\x02hi",
            b"\x62\x02\x00\x02",
            b"\xa2\x07\x00\x03\x00\x03a/#",
        ]),
    ]
}

fn mutate(bytes: &mut Vec<u8>, chance: &mut Jitter) {
    for _ in 0..=chance.next_u64() % 4 {
        let at = usize::try_from(chance.next_u64()).unwrap() % bytes.len();
        let byte = chance.next_u64().to_le_bytes()[0];
        match chance.next_u64() % 5 {
            0 => bytes[at] = byte,
            1 => bytes[at] ^= 1 << (byte % 8),
            2 => bytes.insert(at, byte),
            3 if bytes.len() > 1 => drop(bytes.remove(at)),
            _ => bytes.extend_from_within(at..),
        }
    }
}

#[tokio::test]
async fn three_thousand_mutated_sessions_harm_nobody() {
    const SESSIONS: u64 = 3000;
    const AT_ONCE: usize = 50;
    let mut world = World::new().await;
    let address = world.address();
    let mut bystanders = Bystanders::new(address).await;
    let mut node = JoinSet::new();
    let broker = world.broker.clone();
    node.spawn(async move {
        while let Some(event) = world.events.recv().await {
            if let crate::io::broker::BrokerEvent::Publish { ticket: Some(ticket), .. } = event {
                broker.accept(ticket);
            }
        }
    });
    let mut sessions = JoinSet::new();
    for seed in 0..SESSIONS {
        sessions.spawn(async move {
            let mut chance = Jitter::new(seed);
            let seeds = seeds();
            let mut bytes = seeds[usize::try_from(seed).unwrap() % seeds.len()].clone();
            mutate(&mut bytes, &mut chance);
            let mut raw = Raw::new(address).await;
            // The broker may close in the middle of it.
            let _ = raw.0.write_all(&bytes).await;
            let _ = raw.0.shutdown().await;
            raw.hear_the_end().await;
        });
        if sessions.len() >= AT_ONCE {
            sessions.join_next().await.unwrap().unwrap();
        }
        if seed % 100 == 0 {
            bystanders.are_well().await;
        }
    }
    while let Some(ended) = sessions.join_next().await {
        ended.unwrap();
    }
    bystanders.are_well().await;
    let stats = world.broker.stats();
    assert_eq!(stats.panics, 0, "{stats:?}");
    assert!(stats.malformed > SESSIONS / 4, "{stats:?}");
}

#[tokio::test]
async fn a_flood_of_topics_and_filters_stays_bounded_and_all_are_served() {
    let world = World::new().await;
    let mut watcher = Client::new(world.address(), Version::Five, "watcher").await;
    watcher.subscribe("names/#", AtMostOnce).await;
    let mut names = Vec::new();
    for client in 0..5 {
        let mut raw = Raw::connected(world.address(), &format!("many-{client}")).await;
        for n in 0..250 {
            raw.say(&subscribe_bytes(format!("f/{client}/{n}").as_bytes())).await;
            assert_eq!(raw.hear(5).await[4], 1);
        }
        names.push(raw);
    }
    let last = names.last_mut().unwrap();
    world.publish("f/4/249", "x", false).await;
    assert_eq!(last.hear(14).await, b"\x32\x0c\x00\x07f/4/249\x00\x01x");
    for version in BOTH {
        let client = Client::new(world.address(), version, "client").await;
        client.publish("names/a", "still", AtMostOnce, false).await;
        assert_eq!(watcher.message().await.payload, "still");
    }
}

//! Sessions that outlive their connection, and the broker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bus::Topic;
use bytes::Bytes;
use metadata::Key;
use tokio::task::JoinSet;

use super::{Raw, within};
use crate::Publish;
use crate::gate::Row;
use crate::io::broker::{BrokerConfig, BrokerEvent, BrokerHandle, Ticket, start};

type Store = Arc<Mutex<BTreeMap<Key, Bytes>>>;

/// A broker whose node stores what it is given, and can be killed.
pub(super) struct World {
    pub(super) broker: BrokerHandle,
    store: Store,
    node: JoinSet<()>,
}

fn write(store: &Store, rows: Vec<Row>) {
    let mut store = store.lock().unwrap();
    for Row { key, value } in rows {
        match value {
            Some(value) => drop(store.insert(key, value)),
            None => drop(store.remove(&key)),
        }
    }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(Store::default()).await
    }

    async fn with(store: Store) -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let kept = store.lock().unwrap().clone().into_iter().collect();
        let (broker, mut events) = start(BrokerConfig { listen, kept, ..Default::default() }).await.unwrap();
        let mut node = JoinSet::new();
        let (own, handle) = (Arc::clone(&store), broker.clone());
        node.spawn(async move {
            let accept = |ticket: Option<Ticket>| ticket.into_iter().for_each(|ticket| handle.accept(ticket));
            while let Some(event) = events.recv().await {
                match event {
                    BrokerEvent::Publish { ticket, rows, .. } | BrokerEvent::Keep { ticket, rows, .. } => {
                        write(&own, rows);
                        accept(ticket);
                    }
                    BrokerEvent::Interest { .. } | BrokerEvent::Restored => {}
                }
            }
        });
        Self { broker, store, node }
    }

    /// As by kill -9: what the store has is what there is.
    async fn restart(mut self) -> Self {
        self.node.shutdown().await;
        let store = Arc::new(Mutex::new(self.store.lock().unwrap().clone()));
        self.broker.shutdown().await;
        Self::with(store).await
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.broker.local_addr()
    }

    fn rows(&self, prefix: &str) -> usize {
        self.store.lock().unwrap().keys().filter(|key| key.as_str().starts_with(prefix)).count()
    }

    async fn rows_become(&self, prefix: &str, count: usize) {
        within("rows", async {
            while self.rows(prefix) != count {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// A 3.1.1 client whose session is to be kept, and whether there was one.
async fn connect(world: &World, name: &str) -> (Raw, bool) {
    let mut connect = super::connect_bytes(name);
    connect[9] = 0;
    let mut raw = Raw::new(world.address()).await;
    raw.say(&connect).await;
    let connack = raw.hear(4).await;
    assert_eq!((connack[0], connack[1], connack[3]), (0x20, 2, 0));
    (raw, connack[2] == 1)
}

async fn subscribe(raw: &mut Raw, qos: u8) {
    raw.say(&[0x82, 6, 0, 1, 0, 1, b't', qos]).await;
    assert_eq!(raw.hear(5).await, [0x90, 3, 0, 1, qos]);
}

/// PUBLISH of one byte to `t`; its PUBACK or whole QoS 2 flow.
async fn publish(raw: &mut Raw, qos: u8, packet: u8, payload: u8) {
    raw.say(&[0x30 | qos << 1, 6, 0, 1, b't', 0, packet, payload]).await;
    match qos {
        1 => assert_eq!(raw.hear(4).await, [0x40, 2, 0, packet]),
        _ => {
            assert_eq!(raw.hear(4).await, [0x50, 2, 0, packet]);
            raw.say(&[0x62, 2, 0, packet]).await;
            assert_eq!(raw.hear(4).await, [0x70, 2, 0, packet]);
        }
    }
}

#[tokio::test]
async fn what_an_absent_client_is_owed_survives_the_broker() {
    let mut world = World::new().await;
    for (restarts, qos) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
        let (mut subscriber, present) = connect(&world, "sub").await;
        assert_eq!(present, (restarts, qos) != (false, 1));
        subscribe(&mut subscriber, qos).await;
        drop(subscriber);
        let mut publisher = Raw::connected(world.address(), "pub").await;
        for n in 1..=3 {
            publish(&mut publisher, qos, n, b'0' + n).await;
        }
        assert_eq!(world.rows("/mqtt/queue/"), 3);
        if restarts {
            world = world.restart().await;
        }
        let (mut subscriber, present) = connect(&world, "sub").await;
        assert!(present);
        let heard = subscriber.hear(3 * 8).await;
        for (n, publish) in (1..).zip(heard.chunks(8)) {
            // After a restart nobody knows whether it was sent before.
            let dup = u8::from(restarts) << 3;
            assert_eq!((publish[0], publish[7]), (0x30 | dup | qos << 1, b'0' + n));
        }
        for publish in heard.chunks(8) {
            acknowledge(&mut subscriber, qos, &publish[5..7]).await;
        }
        drop(subscriber);
        world.rows_become("/mqtt/queue/", 0).await;
    }
}

async fn acknowledge(raw: &mut Raw, qos: u8, packet: &[u8]) {
    let [high, low] = *packet else { panic!() };
    if qos == 1 {
        return raw.say(&[0x40, 2, high, low]).await;
    }
    raw.say(&[0x50, 2, high, low]).await;
    assert_eq!(raw.hear(4).await, [0x62, 2, high, low]);
    raw.say(&[0x70, 2, high, low]).await;
}

#[tokio::test]
async fn a_qos_2_message_is_heard_once_however_the_broker_dies() {
    let world = World::new().await;
    let (mut subscriber, _) = connect(&world, "sub").await;
    subscribe(&mut subscriber, 2).await;
    let (mut publisher, _) = connect(&world, "pub").await;
    publisher.say(&[0x34, 6, 0, 1, b't', 0, 9, b'x']).await;
    assert_eq!(publisher.hear(4).await, [0x50, 2, 0, 9]);
    let publish = subscriber.hear(8).await;
    subscriber.say(&[0x50, 2, publish[5], publish[6]]).await;
    assert_eq!(subscriber.hear(4).await, [0x62, 2, publish[5], publish[6]]);
    let world = world.restart().await;
    // Neither side knows how far the other came.
    let (mut publisher, _) = connect(&world, "pub").await;
    publisher.say(&[0x3c, 6, 0, 1, b't', 0, 9, b'x']).await;
    assert_eq!(publisher.hear(4).await, [0x50, 2, 0, 9]);
    publisher.say(&[0x62, 2, 0, 9]).await;
    assert_eq!(publisher.hear(4).await, [0x70, 2, 0, 9]);
    let (mut subscriber, _) = connect(&world, "sub").await;
    assert_eq!(subscriber.hear(4).await, [0x62, 2, publish[5], publish[6]]);
    subscriber.say(&[0x70, 2, publish[5], publish[6]]).await;
    self::publish(&mut publisher, 1, 3, b'y').await;
    assert_eq!(subscriber.hear(8).await[7], b'y', "the first one came again");
    world.rows_become("/mqtt/received/", 0).await;
}

#[tokio::test]
async fn a_client_that_is_taken_over_loses_nothing() {
    let world = World::new().await;
    let (mut old, _) = connect(&world, "sub").await;
    subscribe(&mut old, 1).await;
    let mut publisher = Raw::connected(world.address(), "pub").await;
    publish(&mut publisher, 1, 1, b'x').await;
    let first = old.hear(8).await;
    let (mut new, present) = connect(&world, "sub").await;
    assert!(present);
    let again = new.hear(8).await;
    assert_eq!((again[0], &again[1..]), (first[0] | 0x08, &first[1..]));
}

#[tokio::test]
async fn a_clean_session_leaves_nothing_behind() {
    let world = World::new().await;
    let (mut client, _) = connect(&world, "c").await;
    subscribe(&mut client, 1).await;
    drop(client);
    let mut publisher = Raw::connected(world.address(), "pub").await;
    publish(&mut publisher, 1, 1, b'x').await;
    assert_eq!(world.rows("/mqtt/"), 2);
    let _clean = Raw::connected(world.address(), "c").await;
    world.rows_become("/mqtt/", 0).await;
    assert_eq!(world.broker.stats().kept_bytes, 0);
}

#[tokio::test]
async fn what_clients_retained_survives_the_broker() {
    let world = World::new().await;
    let mut publisher = Raw::connected(world.address(), "pub").await;
    publisher.say(&[0x33, 6, 0, 1, b't', 0, 1, b'x', 0x33, 6, 0, 1, b'u', 0, 2, b'y']).await;
    assert_eq!(publisher.hear(8).await, [0x40, 2, 0, 1, 0x40, 2, 0, 2]);
    publisher.say(&[0x33, 5, 0, 1, b'u', 0, 3]).await;
    assert_eq!(publisher.hear(4).await, [0x40, 2, 0, 3]);
    let topic = Topic::new("twin/of/node/state").unwrap();
    let own = Publish { topic, payload: "z".into(), retain: true, expiry: None };
    world.broker.publish(own.into()).await.unwrap();
    let world = world.restart().await;
    let mut subscriber = Raw::connected(world.address(), "sub").await;
    subscriber.say(&[0x82, 6, 0, 1, 0, 1, b'#', 0]).await;
    let heard = subscriber.hear(5 + 6).await;
    assert!(heard.windows(6).any(|bytes| bytes == [0x31, 4, 0, 1, b't', b'x']), "{heard:?}");
    assert_eq!(world.broker.stats().hub.retained, 1);
}

#[tokio::test]
async fn a_group_shares_the_messages_and_each_is_heard_once() {
    let world = World::new().await;
    let mut members = Vec::new();
    for name in ["a", "b"] {
        let mut raw = Raw::connected(world.address(), name).await;
        raw.say(b"\x82\x0f\x00\x01\x00\x0a$share/g/t\x00").await;
        assert_eq!(raw.hear(5).await, [0x90, 3, 0, 1, 0]);
        members.push(raw);
    }
    let mut publisher = Raw::connected(world.address(), "pub").await;
    for n in 0..4 {
        publish(&mut publisher, 1, n + 1, b'0' + n).await;
    }
    assert_eq!(members[0].hear(12).await, b"\x30\x04\x00\x01t0\x30\x04\x00\x01t2");
    assert_eq!(members[1].hear(12).await, b"\x30\x04\x00\x01t1\x30\x04\x00\x01t3");
}

//! A cloud and its edges with apps at their brokers: cuts, crashes, lost disks, bounds, and any order of all of it.

mod any_order;
mod world;

use std::time::Duration;

use bus::{Filter, Message, Name, NodeId, Properties, Qos, Topic, UnixMillis};
use bytes::Bytes;
use device_twin::Expiry;
use device_twin::gate::access::Who;
use metadata::Keyspace;
use metadata::outbox::MAX_MESSAGE_BYTES;

use self::world::{Answer, CLOUD, World};
use super::leaf::Told;
use super::site::MAX_WAITING_BYTES;
use super::wants::Want;
use super::{Hub, Leaf, encode};
use crate::Input;

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("mesh/n={n}")).collect()
}

fn publish_all(world: &mut World, at: &'static str, range: std::ops::Range<usize>) {
    for n in range {
        let ticket = world.publish(at, "mesh/n", &n.to_string());
        world.run();
        assert_eq!(world.answer(at, ticket), Some(Answer::Accepted), "{n}");
    }
}

#[test]
fn a_message_comes_once_to_each_site_that_asked_and_not_back() {
    let mut world = World::new(&["a", "b", "c"]);
    for at in ["a", "b", CLOUD] {
        world.subscribe(at, "mesh/#");
    }
    world.subscribe("c", "other/#");
    world.run();
    for at in ["a", "b", CLOUD] {
        let ticket = world.publish(at, "mesh/from", at);
        world.run();
        assert_eq!(world.answer(at, ticket), Some(Answer::Accepted));
    }
    let heard = |at| world.heard(at);
    assert_eq!(heard("a"), ["mesh/from=b", "mesh/from=cloud"]);
    assert_eq!(heard("b"), ["mesh/from=a", "mesh/from=cloud"]);
    assert_eq!(heard(CLOUD), ["mesh/from=a", "mesh/from=b"]);
    assert_eq!(heard("c"), [""; 0]);
    let left = |at: &str, prefix: &str| world.keyspace(at).range(prefix).count();
    assert_eq!((left("a", "/o/"), left(CLOUD, "/c/mesh/log/")), (0, 0), "nothing waits");
}

#[test]
fn a_message_is_acknowledged_when_it_is_on_the_disk() {
    let mut world = World::new(&["a", "b"]);
    world.subscribe("b", "mesh/#");
    world.run();
    world.machine("a").is_slow = true;
    let ticket = world.publish("a", "mesh/n", "1");
    world.run();
    assert_eq!((world.answer("a", ticket), world.heard("b").len()), (None, 0));
    world.sync("a");
    assert_eq!(world.answer("a", ticket), Some(Answer::Accepted));
    world.run();
    assert_eq!(world.heard("b"), ["mesh/n=1"]);
}

#[test]
fn messages_wait_for_a_site_that_is_away_and_come_in_order() {
    let mut world = World::new(&["a", "b"]);
    world.subscribe("b", "mesh/+");
    world.run();
    world.cut("b");
    publish_all(&mut world, "a", 0..300);
    world.crash(CLOUD);
    world.mend("a");
    world.cut("a");
    publish_all(&mut world, "a", 300..600);
    world.crash("a");
    world.crash("b");
    for edge in ["b", "a"] {
        world.mend(edge);
    }
    world.run();
    assert_eq!(world.heard("b"), numbers(0..600));
    assert_eq!(world.keyspace(CLOUD).range("/c/mesh/log/").count(), 0);
}

#[test]
fn what_the_broker_has_safe_is_not_handed_to_it_again_and_the_rest_is() {
    for is_one_block in [false, true] {
        let mut world = World::new(&["a", "b"]);
        world.subscribe("b", "mesh/#");
        world.run();
        world.machine("b").takes = false;
        if is_one_block {
            world.cut("a");
        }
        publish_all(&mut world, "a", 0..50);
        world.mend("a");
        world.run();
        world.machine("b").is_slow = true;
        for _ in 0..10 {
            assert!(world.take("b"));
            world.sync("b");
        }
        assert!(world.take("b"));
        world.crash("b");
        assert_eq!(world.heard("b"), numbers(0..10), "the commit of the last one is lost");
        (world.machine("b").takes, world.machine("b").is_slow) = (true, false);
        world.mend("b");
        world.run();
        assert_eq!(world.heard("b"), numbers(0..50));
    }
}

#[test]
fn a_cloud_that_dies_before_its_broker_has_a_message_hands_it_out_again() {
    let mut world = World::new(&["a"]);
    world.subscribe(CLOUD, "mesh/#");
    world.run();
    world.machine(CLOUD).takes = false;
    publish_all(&mut world, "a", 0..5);
    world.take(CLOUD);
    world.sync(CLOUD);
    world.take(CLOUD);
    world.crash(CLOUD);
    world.machine(CLOUD).takes = true;
    world.run();
    assert_eq!(world.heard(CLOUD), numbers(0..5));
    assert_eq!(world.keyspace(CLOUD).range("/c/mesh/log/").count(), 0);
}

#[test]
fn a_slow_broker_holds_up_its_site_alone_and_no_more_than_the_slots() {
    let mut world = World::new(&["a", "b", "c"]);
    for at in ["b", "c"] {
        world.subscribe(at, "mesh/#");
    }
    world.run();
    world.machine("b").takes = false;
    publish_all(&mut world, "a", 0..100);
    assert_eq!(world.heard("c"), numbers(0..100));
    assert_eq!(world.keyspace("b").range("/m/mesh/").count() as u64, super::SLOTS);
    assert_eq!(world.keyspace(CLOUD).range("/c/mesh/log/").count() as u64, 100 - super::SLOTS);
    world.machine("b").takes = true;
    world.run();
    assert_eq!(world.heard("b"), numbers(0..100));
}

#[test]
fn nothing_waits_for_a_site_whose_last_subscriber_left_and_a_session_of_before_is_asked_for_until_it_is_not_restored()
 {
    let mut world = World::new(&["a", "b"]);
    world.subscribe("b", "mesh/#");
    world.subscribe("b", "mesh/x");
    world.run();
    world.unsubscribe("b", "mesh/#");
    world.run();
    world.cut("b");
    world.publish("a", "mesh/n", "1");
    world.publish("a", "mesh/x", "2");
    world.run();
    world.crash("b");
    world.mend("b");
    world.run();
    assert_eq!(world.heard("b"), ["mesh/x=2"]);
    let interests = |world: &World| world.keyspace(CLOUD).range("/c/interest/").count();
    assert_eq!(interests(&world), 1);
    world.unsubscribe("b", "mesh/x");
    world.crash("b");
    world.mend("b");
    world.run();
    assert_eq!((interests(&world), world.keyspace("b").range("/mesh/want/").count()), (0, 0));
}

#[test]
fn a_wiped_site_is_sent_what_comes_after_it_asked_again() {
    let mut world = World::new(&["a", "b"]);
    world.subscribe("b", "mesh/#");
    world.run();
    publish_all(&mut world, "a", 0..3);
    world.cut("b");
    publish_all(&mut world, "a", 3..6);
    world.wipe("b");
    world.mend("b");
    world.run();
    assert_eq!(world.heard("b"), [""; 0]);
    assert!(world.noted(CLOUD, "edge/b has a new store: messages that waited for the old one are lost"));
    world.subscribe("b", "mesh/#");
    world.run();
    publish_all(&mut world, "a", 6..9);
    assert_eq!(world.heard("b"), numbers(6..9));
}

#[test]
fn a_node_that_is_deleted_leaves_nothing_behind() {
    let mut world = World::new(&["a", "b"]);
    for at in ["a", "b"] {
        world.subscribe(at, "mesh/#");
    }
    world.run();
    publish_all(&mut world, "b", 0..1);
    world.cut("b");
    publish_all(&mut world, "a", 0..20);
    let name = "b".parse().unwrap();
    world.tell(CLOUD, Input::Admin { id: 2, request: crate::admin::AdminRequest::DeleteNode { name } });
    world.run();
    for prefix in ["/c/mesh/log/", "/c/mesh/site/b", "/c/mesh/from/b", "/c/interest/b/", "/e/b/mesh/"] {
        assert_eq!(world.keyspace(CLOUD).range(prefix).count(), 0, "{prefix}");
    }
}

#[test]
fn whoever_asks_later_gets_what_is_retained_once_and_what_nobody_asks_for_is_forgotten() {
    let mut world = World::new(&["a", "b"]);
    for (topic, text) in [("mesh/r/1", "old"), ("mesh/r/1", "new"), ("mesh/r/2", "x"), ("mesh/other", "y")] {
        world.retain("a", topic, text);
    }
    world.run();
    world.subscribe("b", "mesh/r/+");
    world.subscribe(CLOUD, "mesh/other");
    world.run();
    let both = ["mesh/r/1=new", "mesh/r/2=x"];
    assert_eq!(
        (world.heard("b"), world.retained("b")),
        (both.map(String::from).into(), both.map(String::from).into())
    );
    assert_eq!(world.retained(CLOUD), ["mesh/other=y"]);
    world.subscribe("b", "mesh/r/1");
    world.crash("b");
    world.mend("b");
    world.run();
    assert_eq!(world.heard("b"), both, "it has them already");
    world.unsubscribe("b", "mesh/r/+");
    world.run();
    assert_eq!(world.retained("b"), ["mesh/r/1=new"]);
    world.retain("a", "mesh/r/1", "");
    world.run();
    assert_eq!(world.retained("b"), [""; 0]);
    assert_eq!(world.keyspace(CLOUD).range("/c/mesh/retained/").count(), 2);
    world.subscribe("a", "mesh/#");
    world.run();
    assert_eq!(world.heard("a"), [""; 0], "its own are not sent back");
    world.unsubscribe(CLOUD, "mesh/other");
    world.run();
    assert_eq!(world.retained(CLOUD), [""; 0]);
}

#[test]
fn a_filter_that_left_and_came_back_unheard_gets_what_is_retained_again() {
    let mut world = World::new(&["a", "b"]);
    world.retain("a", "mesh/r", "1");
    world.subscribe("b", "mesh/r");
    world.run();
    world.cut("b");
    world.unsubscribe("b", "mesh/r");
    world.run();
    assert_eq!(world.retained("b"), [""; 0]);
    world.subscribe("b", "mesh/r");
    world.mend("b");
    world.run();
    assert_eq!(world.retained("b"), ["mesh/r=1"]);
}

#[test]
fn what_is_retained_without_a_promise_reaches_those_who_ask_later_too() {
    let mut world = World::new(&["a", "b"]);
    let (topic, payload, properties) = (Topic::new("mesh/r").unwrap(), "1".into(), Properties::default());
    let (ticket, qos, retain, expiry) = (None, Qos::AtMostOnce, true, None);
    world.tell(
        "a",
        Input::Mqtt {
            ticket,
            who: Who::Anonymous,
            topic,
            payload,
            qos,
            retain,
            expiry,
            properties,
            rows: vec![],
        },
    );
    world.run();
    world.subscribe("b", "mesh/#");
    world.run();
    assert_eq!(world.retained("b"), ["mesh/r=1"]);
}

#[test]
fn a_request_and_its_answer_keep_what_mqtt_5_says_of_them() {
    let mut world = World::new(&["a", "b"]);
    world.subscribe("b", "mesh/#");
    world.run();
    world.cut("b");
    let sent = Properties {
        text: Some(true),
        content_type: Some("text/plain".into()),
        response_topic: Some("mesh/answers".into()),
        correlation: Some(vec![7]),
        user: vec![("k".into(), "v".into())],
    };
    let (topic, properties) = (Topic::new("mesh/ask").unwrap(), sent.clone());
    let expiry = Some(Expiry(Duration::from_secs(60)));
    let (ticket, payload, qos, retain) = (None, "?".into(), Qos::ExactlyOnce, false);
    world.tell(
        "a",
        Input::Mqtt {
            ticket,
            who: Who::Anonymous,
            topic,
            payload,
            qos,
            retain,
            expiry,
            properties,
            rows: vec![],
        },
    );
    world.run();
    world.sleep(Duration::from_secs(20));
    world.mend("b");
    world.run();
    let all: Vec<_> = world.announced("b").map(|(_, a)| (a.qos, a.properties.clone(), a.expiry)).collect();
    assert_eq!(all, [(Qos::ExactlyOnce, sent, Some(Expiry(Duration::from_secs(40))))]);
}

#[test]
fn a_message_whose_life_ends_on_the_way_is_not_delivered_and_holds_up_nothing() {
    let mut world = World::new(&["a", "b", "c"]);
    for at in ["b", CLOUD] {
        world.subscribe(at, "mesh/#");
    }
    world.run();
    world.cut("b");
    world.cut("a");
    let expiry = Some(Expiry(Duration::from_secs(60)));
    let (topic, payload, properties) = (Topic::new("mesh/n").unwrap(), "old".into(), Properties::default());
    let (ticket, qos, retain) = (None, Qos::AtLeastOnce, false);
    world.tell(
        "a",
        Input::Mqtt {
            ticket,
            who: Who::Anonymous,
            topic,
            payload,
            qos,
            retain,
            expiry,
            properties,
            rows: vec![],
        },
    );
    world.run();
    world.sleep(Duration::from_secs(61));
    world.mend("a");
    world.run();
    publish_all(&mut world, "a", 0..1);
    world.mend("b");
    world.run();
    assert_eq!((world.heard(CLOUD), world.heard("b")), (numbers(0..1), numbers(0..1)));
}

/// Few of these fill any bound in bytes.
const LARGE: usize = 200 << 10;

fn publish_large(world: &mut World, at: &'static str, n: usize) -> Option<Answer> {
    let ticket = world.publish(at, "mesh/n", &format!("{n}{}", " ".repeat(LARGE)));
    world.run();
    world.answer(at, ticket)
}

fn heard_large(world: &World, at: &str) -> Vec<String> {
    world.heard(at).iter().map(|text| text.trim_end().to_owned()).collect()
}

#[test]
fn what_an_edge_has_no_room_for_is_refused_and_what_it_took_arrives() {
    let mut world = World::new(&["a", "b"]);
    world.subscribe("b", "mesh/#");
    world.run();
    world.cut("a");
    let is_accepted = |n: &usize| publish_large(&mut world, "a", *n) == Some(Answer::Accepted);
    let accepted = (0..).take_while(is_accepted).count();
    assert!(accepted > MAX_MESSAGE_BYTES / LARGE - 2, "{accepted}");
    assert_eq!(publish_large(&mut world, "a", accepted), Some(Answer::Full));
    assert!(world.noted("a", "no room for more messages to other sites"));
    world.mend("a");
    world.run();
    assert_eq!(heard_large(&world, "b"), numbers(0..accepted));
    assert_eq!(publish_large(&mut world, "a", accepted), Some(Answer::Accepted), "there is room again");
}

#[test]
fn of_what_a_site_that_is_away_for_too_long_misses_the_oldest_gives_way() {
    let mut world = World::new(&["a", "b", "c"]);
    for at in ["b", "c"] {
        world.subscribe(at, "mesh/#");
    }
    world.run();
    world.cut("b");
    let fits = MAX_WAITING_BYTES / LARGE;
    let all = fits + 20;
    for n in 0..all {
        assert_eq!(publish_large(&mut world, "a", n), Some(Answer::Accepted));
    }
    assert!(world.noted(CLOUD, "edge/b is away for so long"));
    assert_eq!(heard_large(&world, "c"), numbers(0..all));
    world.crash(CLOUD);
    world.mend("b");
    world.run();
    let heard = heard_large(&world, "b");
    // Some blocks were under way already, and what came last is there.
    let under_way = heard.iter().zip(numbers(0..all)).take_while(|(a, b)| *a == b).count();
    let first_kept = all - (heard.len() - under_way);
    assert!(under_way > 0 && first_kept > under_way && all - first_kept <= fits, "{under_way} {first_kept}");
    assert_eq!(heard, [numbers(0..under_way), numbers(first_kept..all)].concat());
}

#[test]
fn a_cloud_put_back_to_a_copy_of_its_disk_loses_no_message_that_comes_later() {
    let mut world = World::new(&["a", "b"]);
    world.subscribe("b", "mesh/#");
    world.run();
    publish_all(&mut world, "a", 0..3);
    let copy = world.copy(CLOUD);
    publish_all(&mut world, "a", 3..30);
    world.put_back(CLOUD, copy);
    for edge in ["a", "b"] {
        world.mend(edge);
    }
    world.run();
    world.sleep(Duration::from_secs(31));
    world.run();
    publish_all(&mut world, "a", 30..40);
    assert_eq!(world.heard("b"), numbers(0..40));
    assert!(world.noted(CLOUD, "its disk was put back"));
}

#[test]
fn a_replica_that_takes_over_takes_nothing_twice_and_nothing_new_for_known() {
    let [a, b] = ["a", "b"].map(|name| Name::new(name).unwrap());
    let cloud = NodeId::cloud(Name::new(CLOUD).unwrap());
    let (wall, mut ks) = (UnixMillis(1), Keyspace::new());
    let mut hub = Hub::load(cloud.clone(), 1, &mut ks);
    let want = Want { filter: Filter::new("mesh/#").unwrap(), generation: 1 };
    hub.handle_told(&b, "mesh/want/1", &encode(&Told { want, wanted: true }), &mut ks, wall);
    let say = |run: u64, count: u64| -> Vec<Bytes> {
        let mut leaf = Leaf::load(&Keyspace::new(), run);
        let message = |n: u64| {
            let topic = Topic::new("mesh/n").unwrap();
            Message::new(topic, n.to_string().into(), false, NodeId::edge(a.clone()))
        };
        (0..count).map(|n| leaf.pack(message(n), wall).unwrap()).collect()
    };
    let said = say(7, 4);
    for bytes in &said[..3] {
        hub.handle_message(&a, bytes, &mut ks, wall, wall);
    }
    ks.seal();
    let mut next = Hub::load(cloud, 2, &mut ks);
    // All that was not acknowledged, and what another process of the edge said since.
    for bytes in said.iter().chain(&say(8, 2)) {
        next.handle_message(&a, bytes, &mut ks, wall, wall);
    }
    assert_eq!(next.status()["taken"], 3);
    assert_eq!(next.status()["waiting"], 6);
    next.handle_membership(|edge| *edge != a, &mut ks);
    assert_eq!(ks.range("/c/mesh/from/").count(), 0);
}

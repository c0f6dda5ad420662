//! Apps' messages between sites with QoS 1, over cuts and kills.

use crate::harness::{Cluster, Node};
use crate::mqtt::{self, Subscriber, V5, VERSIONS};
use crate::process::{becomes, eventually};

/// Published while the other side is away.
const MANY: u64 = 500;

fn say_numbers(at: &Node, topic: &str, numbers: std::ops::RangeInclusive<u64>) {
    let lines: String = numbers.map(|number| format!("{number}\n")).collect();
    mqtt::say_lines(at, topic, &lines);
}

fn heard(subscriber: &Subscriber, topic: &str) -> Vec<u64> {
    let of_topic = subscriber.messages().into_iter().filter(|message| message.topic == topic);
    of_topic.filter_map(|message| message.payload.parse().ok()).collect()
}

#[track_caller]
fn hears(subscriber: &Subscriber, topic: &str, last: u64) {
    let all: Vec<u64> = (1..=last).collect();
    becomes(&format!("{topic} up to {last}, each once and in order"), &all, || heard(subscriber, topic));
}

#[test]
fn what_was_acknowledged_while_the_cloud_was_dead_comes_once_and_in_order_to_the_other_site() {
    let mut cluster = Cluster::start();
    let (mut a, b) = (cluster.edge("a"), cluster.edge("b"));
    let [at_a, at_b] = [&a, &b].map(|node| Subscriber::start(node, V5, "mesh/#"));
    let at_cloud = Subscriber::start(&cluster.cloud, V5, "mesh/from-b");
    for (node, topic) in [(&a, "mesh/from-a"), (&b, "mesh/from-b")] {
        say_numbers(node, topic, 1..=10);
    }
    hears(&at_b, "mesh/from-a", 10);
    hears(&at_a, "mesh/from-b", 10);
    hears(&at_cloud, "mesh/from-b", 10);

    cluster.cloud.kill();
    say_numbers(&a, "mesh/from-a", 11..=MANY);
    say_numbers(&b, "mesh/from-b", 11..=MANY);
    a.kill();
    a.start();
    // Its subscriber comes back by itself.
    eventually("the subscriber at a is back", || {
        mqtt::say(&a, V5, "mesh/again", "1");
        if heard(&at_a, "mesh/again").is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
    });
    cluster.cloud.start();
    hears(&at_b, "mesh/from-a", MANY);
    hears(&at_a, "mesh/from-b", MANY);
    assert_eq!(
        heard(&at_b, "mesh/from-b"),
        (1..=MANY).collect::<Vec<u64>>(),
        "its own come from its broker, once"
    );
}

#[test]
fn a_site_that_asks_late_gets_what_is_retained() {
    let cluster = Cluster::start();
    let (a, b) = (cluster.edge("a"), cluster.edge("b"));
    for version in VERSIONS {
        mqtt::publish_with(&a, version, "mesh/setting", version, &["-r"]);
        for node in [&b, &cluster.cloud] {
            let late = Subscriber::start(node, V5, "mesh/setting");
            becomes(&format!("{version} at {}", node.name), &Some(version.to_owned()), || {
                late.messages().last().map(|message| message.payload.clone())
            });
        }
    }
}

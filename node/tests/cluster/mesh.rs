//! Apps' messages between sites with QoS 1, over cuts and kills.
//!
//! The cut of ten minutes under load: `cargo test -p node --test cluster -- --ignored cut_of_ten_minutes`.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Node};
use crate::mqtt::{self, Subscriber, V5, VERSIONS, tool};
use crate::process::{PATIENCE, becomes, eventually};

/// Published while the other side is away.
const MANY: u64 = 500;

fn say_numbers(at: &Node, topic: &str, numbers: std::ops::RangeInclusive<u64>) {
    let lines: String = numbers.map(|number| format!("{number}\n")).collect();
    mqtt::say_lines(at, topic, &lines);
}

pub(crate) fn heard(subscriber: &Subscriber, topic: &str) -> Vec<u64> {
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

/// Messages a second from each site.
const RATE: u32 = 200;

/// How long a publisher waits for its last PUBACKs.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What a publisher said: every number up to `said`, of which these were acknowledged.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) said: u64,
    pub(crate) acknowledged: Vec<u64>,
}

/// Counts on a topic at [`RATE`] until it is told to stop or the node dies, going on behind what was said before.
pub(crate) fn count_at_a_rate(at: &Node, topic: &str, before: Published, stop: &AtomicBool) -> Published {
    let mut command = tool("mosquitto_pub", at, V5);
    command.args(["-d", "-q", "1", "-t", topic, "-l"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.spawn().unwrap();
    let (mut stdin, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
    let first = before.said;
    let said = std::thread::scope(|scope| {
        let heard = scope.spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // The tool numbers its messages from 1 on.
            let acknowledged = lines.filter_map(|line| {
                let (number, code) = line.split_once("received PUBACK (Mid: ")?.1.split_once(", RC:")?;
                // From 128 on it is a refusal (MQTT 5.0 §3.4.2.1).
                let is_taken = code.trim_end_matches(')').parse::<u8>().ok()? < 128;
                is_taken.then(|| number.parse::<u64>().ok()).flatten()
            });
            unwrapped(acknowledged).map(|number| first + number).collect::<Vec<u64>>()
        });
        let (start, mut said) = (Instant::now(), 0);
        while !stop.load(Ordering::Relaxed) {
            let due = start.elapsed().as_secs_f64() * f64::from(RATE);
            while (said as f64) < due {
                if writeln!(stdin, "{}", first + said + 1).is_err() {
                    stop.store(true, Ordering::Relaxed);
                    break;
                }
                said += 1;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // It ends when it has all PUBACKs. If its node is gone, it must not say again what it does not know the end of.
        drop(stdin);
        let stopped = Instant::now();
        while process.try_wait().unwrap().is_none() && stopped.elapsed() < LAST_WORDS {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = process.kill();
        process.wait().unwrap();
        (said, heard.join().unwrap())
    });
    let (said, mut heard) = said;
    let mut acknowledged = before.acknowledged;
    acknowledged.append(&mut heard);
    Published { said: first + said, acknowledged }
}

/// Packet ids go round after 65,535.
fn unwrapped(ids: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
    let mut newest = 0_u64;
    ids.map(move |id| {
        let round = newest / 65_535 * 65_535;
        let candidates = [round.saturating_sub(65_535) + id, round + id, round + 65_535 + id];
        let near = candidates.into_iter().min_by_key(|number| number.abs_diff(newest)).unwrap_or(id);
        newest = newest.max(near);
        near
    })
}

/// Each acknowledged number once, none twice, in order.
#[track_caller]
pub(crate) fn all_came(subscriber: &Subscriber, topic: &str, published: &Published) {
    let missing = |heard: &[u64]| -> usize {
        published.acknowledged.iter().filter(|number| heard.binary_search(number).is_err()).count()
    };
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let heard = heard(subscriber, topic);
        assert!(heard.windows(2).all(|pair| pair[0] < pair[1]), "{topic}: twice, or out of order");
        let missing = missing(&heard);
        if missing == 0 {
            return;
        }
        if heard.len() > last {
            (last, moved) = (heard.len(), Instant::now());
        }
        let all = published.acknowledged.len();
        assert!(moved.elapsed() < PATIENCE, "{topic}: {missing} of {all} missing, and no more comes");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Both sites publish all the time. The cloud is dead for `cut`, and one edge is killed in the middle.
fn a_cut_under_load(cut: Duration) {
    let mut cluster = Cluster::start();
    let (mut a, b) = (cluster.edge("a"), cluster.edge("b"));
    let kept = ["-c", "-i", "kept", "-x", "3600"];
    let at_a = Subscriber::start_with(&a, V5, "mesh/from-b", &kept);
    let at_b = Subscriber::start_with(&b, V5, "mesh/from-a", &kept);
    let warm_up = Duration::from_secs(2);
    let (stop_a, stop_b) = (AtomicBool::new(false), AtomicBool::new(false));
    let (from_a, from_b) = std::thread::scope(|scope| {
        let from_b = scope.spawn(|| count_at_a_rate(&b, "mesh/from-b", Published::default(), &stop_b));
        let first = std::thread::scope(|scope| {
            let first = scope.spawn(|| count_at_a_rate(&a, "mesh/from-a", Published::default(), &stop_a));
            std::thread::sleep(warm_up);
            cluster.cloud.kill();
            std::thread::sleep(cut / 2);
            // kill -9 without asking the one who holds the node.
            let pid = rustix::process::Pid::from_raw(a.pid().try_into().unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            stop_a.store(true, Ordering::Relaxed);
            first.join().unwrap()
        });
        a.ended();
        a.start();
        stop_a.store(false, Ordering::Relaxed);
        let from_a = std::thread::scope(|scope| {
            let second = scope.spawn(|| count_at_a_rate(&a, "mesh/from-a", first, &stop_a));
            std::thread::sleep(cut / 2);
            cluster.cloud.start();
            std::thread::sleep(warm_up);
            stop_a.store(true, Ordering::Relaxed);
            second.join().unwrap()
        });
        stop_b.store(true, Ordering::Relaxed);
        (from_a, from_b.join().unwrap())
    });
    for published in [&from_a, &from_b] {
        let least = cut.as_secs() * u64::from(RATE) * 9 / 10;
        let acknowledged = published.acknowledged.len() as u64;
        assert!(acknowledged > least, "{acknowledged} of {} acknowledged", published.said);
    }
    all_came(&at_b, "mesh/from-a", &from_a);
    all_came(&at_a, "mesh/from-b", &from_b);
    let counts = [&from_a, &from_b].map(|published| (published.said, published.acknowledged.len()));
    eprintln!("said and acknowledged at a and b: {counts:?}");
    let dropped = |node: &Node| node.ask(&["status"])["counters"]["mqtt_dropped_kept"].clone();
    assert_eq!([dropped(&a), dropped(&b)], [0, 0]);
}

#[test]
fn a_cut_under_load_and_a_killed_edge_lose_nothing_and_double_nothing() {
    a_cut_under_load(Duration::from_secs(8));
}

#[test]
#[ignore = "ten minutes"]
fn a_cut_of_ten_minutes_under_load_and_a_killed_edge_lose_nothing_and_double_nothing() {
    a_cut_under_load(Duration::from_secs(600));
}

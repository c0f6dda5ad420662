//! Edges that hold a link to a replica that stands by, and go on there when the one that leads is gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::etcd::members::EtcdCluster;
use crate::etcd::replicas::{leads, moved_into_with};
use crate::harness::Node;
use crate::mesh::{Published, all_came, count_at_a_rate, heard};
use crate::mqtt::{self, Subscriber, V5};
use crate::process::{becomes, eventually};
use crate::twins::Plant;

const COUNT: (&str, &str) = ("water/meter", "count");
const REPORT: &str = "twin/water/meter/report/count";
const MARKER: &str = "mesh/marker";

/// Many times what a takeover takes on an idle machine, and less than without a standby: a lease of 10 s, and the link's
/// idle time of 5 s, whatever the machine does besides.
const BOUND: Duration = Duration::from_secs(10);

/// A plant with two edges, and a cloud of two replicas that took over from each other at once.
struct Stage {
    etcd: EtcdCluster,
    plant: Plant,
    b: Node,
    other: Node,
}

impl Stage {
    fn build() -> Self {
        let etcd = EtcdCluster::start();
        let (plant, other) = moved_into_with(&etcd, "600ms");
        let b = plant.cluster.edge("b");
        let stage = Self { etcd, plant, b, other };
        stage.is_ready();
        stage
    }

    /// Both edges have a link to the replica that waits, and that one takes over at once.
    #[track_caller]
    fn is_ready(&self) {
        for edge in [&self.plant.a, &self.b] {
            becomes(&format!("{} has a standby", edge.name), &json!("ready"), || {
                edge.ask(&["status"])["standby"]["state"].clone()
            });
        }
        let expected = json!([2, "at once"]);
        becomes("the other replica is ready", &expected, || {
            let replica = &self.other.ask(&["status"])["replica"];
            json!([replica["edges_standing_by"], replica["takes_over"]])
        });
    }

    fn leader(&self) -> &Node {
        &self.plant.cluster.cloud
    }

    /// The one that waited is the cloud from here on.
    fn swap(&mut self) {
        std::mem::swap(&mut self.plant.cluster.cloud, &mut self.other);
    }

    /// Something that is said at `a` now is heard at `b`: by the replica that leads.
    #[track_caller]
    fn passes(&self, at_b: &Subscriber, number: u64) {
        mqtt::say(&self.plant.a, V5, MARKER, &number.to_string());
        eventually(&format!("{number} comes to b"), || match heard(at_b, MARKER).contains(&number) {
            true => Ok(()),
            false => Err("it has not".to_owned()),
        });
    }
}

fn signal(node: &Node, signal: Signal) {
    kill_process(Pid::from_raw(node.pid().cast_signed()).unwrap(), signal).unwrap();
}

/// Both sites publish and report all the time while the replica that leads gets a signal. Returns how long after that the
/// first message went by the other replica, which is the cloud then.
fn under_load(stage: &mut Stage, how: Signal) -> Duration {
    let kept = ["-c", "-i", "kept", "-x", "3600"];
    let at_a = Subscriber::start_with(&stage.plant.a, V5, "mesh/from-b", &kept);
    let at_b = Subscriber::start_with(&stage.b, V5, "mesh/#", &kept);
    stage.passes(&at_b, 1);
    let stop = AtomicBool::new(false);
    let (from_a, from_b, reported, took) = std::thread::scope(|scope| {
        let Stage { plant, b, .. } = &*stage;
        let edge = &plant.a;
        let from_a = scope.spawn(|| count_at_a_rate(edge, "mesh/from-a", Published::default(), &stop));
        let from_b = scope.spawn(|| count_at_a_rate(b, "mesh/from-b", Published::default(), &stop));
        let reported = scope.spawn(|| {
            let mut last = 0;
            while !stop.load(Ordering::Relaxed) {
                last += 1;
                mqtt::say(edge, V5, REPORT, &last.to_string());
            }
            last
        });
        std::thread::sleep(Duration::from_secs(2));
        let start = Instant::now();
        signal(stage.leader(), how);
        stage.passes(&at_b, 2);
        let took = start.elapsed();
        std::thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
        (from_a.join().unwrap(), from_b.join().unwrap(), reported.join().unwrap(), took)
    });
    stage.swap();
    leads(stage.leader());
    all_came(&at_b, "mesh/from-a", &from_a);
    all_came(&at_a, "mesh/from-b", &from_b);
    ["a", "b"].iter().for_each(|edge| stage.plant.cluster.in_step(edge));
    stage.leader().twin_becomes(COUNT, "/reported/value", json!(reported));
    let counts = [&from_a, &from_b].map(|published| (published.said, published.acknowledged.len()));
    eprintln!(
        "{how:?}: the first message went by the other replica after {took:?}; said, acknowledged: {counts:?}"
    );
    took
}

#[test]
fn a_replica_that_is_killed_under_load_loses_nothing_that_was_acknowledged() {
    let mut stage = Stage::build();
    let took = under_load(&mut stage, Signal::KILL);
    assert!(took < BOUND, "{took:?}");
    // It comes back, and takes over in its turn.
    stage.other.kill();
    stage.other.launch(&[]);
    stage.is_ready();
    let start = Instant::now();
    stage.plant.cluster.cloud.kill();
    stage.swap();
    assert!(leads(stage.leader()) < BOUND);
    ["a", "b"].iter().for_each(|edge| stage.plant.cluster.in_step(edge));
    eprintln!("and back after {:?}", start.elapsed());
}

#[test]
fn a_replica_that_stood_still_is_fenced_and_does_no_harm() {
    let mut stage = Stage::build();
    let took = under_load(&mut stage, Signal::STOP);
    assert!(took < BOUND, "{took:?}");
    stage.leader().say(&["twin", "set", "water/valve", "setpoint", "4"]);
    signal(&stage.other, Signal::CONT);
    assert_eq!(stage.other.ended().code(), Some(1));
    assert_eq!(stage.other.logged("another cloud took over (cloud/cloud on"), 1);
    stage.leader().twin_becomes(("water/valve", "setpoint"), "/reported/value", json!(4.0));
    let connected = ["a", "b"].map(|edge| stage.plant.cluster.is_connected(edge));
    assert_eq!(connected, [true; 2]);
}

#[test]
fn a_replica_that_is_stopped_in_good_order_hands_over() {
    let mut stage = Stage::build();
    under_load(&mut stage, Signal::TERM);
    assert!(stage.other.ended().success());
}

#[test]
fn both_replicas_come_back_and_edges_find_the_one_that_leads() {
    let mut stage = Stage::build();
    let at_b = Subscriber::start(&stage.b, V5, MARKER);
    stage.plant.cluster.cloud.kill();
    stage.other.kill();
    mqtt::say(&stage.plant.a, V5, MARKER, "1");
    stage.plant.cluster.cloud.launch(&[]);
    stage.other.launch(&[]);
    // Either may be first.
    let is_other = eventually("one of them leads", || {
        let state = |node: &Node| node.run(&["status", "-o", "json"]).stdout.contains("\"leads\"");
        match (state(stage.leader()), state(&stage.other)) {
            (false, false) => Err("both wait".to_owned()),
            (_, other) => Ok(other),
        }
    });
    if is_other {
        stage.swap();
    }
    becomes("what was said meanwhile comes", &vec![1], || heard(&at_b, MARKER));
    stage.passes(&at_b, 2);
    stage.is_ready();
    assert_eq!(heard(&at_b, MARKER), [1, 2]);
}

#[test]
fn nobody_is_taken_over_from_while_etcd_is_away() {
    let mut stage = Stage::build();
    let at_b = Subscriber::start(&stage.b, V5, MARKER);
    let members = [0, 1].map(|n| (stage.etcd.leader() + n) % 3);
    members.iter().for_each(|n| stage.etcd.kill(*n));
    eventually("the one that waits says that etcd is away", || {
        match stage.other.ask(&["status"])["replica"]["for"].as_str() {
            Some(text) if text.contains("waiting for etcd") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // Something to be stored shows it to the one that leads.
    mqtt::say(&stage.plant.a, V5, MARKER, "1");
    stage.leader().disk_becomes("degraded");
    assert_eq!(stage.other.ask(&["status"])["replica"]["state"], "waits");
    assert_eq!(["a", "b"].map(|edge| stage.plant.cluster.is_connected(edge)), [true; 2]);
    members.iter().for_each(|n| stage.etcd.run(*n));
    becomes("what was said meanwhile comes", &vec![1], || heard(&at_b, MARKER));
    stage.passes(&at_b, 2);
}

#[test]
fn a_replica_that_waits_renews_its_certificate_and_takes_nothing_over_for_that() {
    let mut stage = Stage::build();
    stage.other.kill();
    let config = std::fs::read_to_string(stage.other.config()).unwrap();
    let config = config.replace("cloud: {", "cloud: {certificate-validity: 12s, ");
    std::fs::write(stage.other.config(), config).unwrap();
    stage.other.launch(&[]);
    stage.is_ready();
    let term = |stage: &Stage| stage.leader().ask(&["status"])["replica"]["term"].clone();
    let before = term(&stage);
    eventually("the replica that waits renews twice", || {
        match stage.other.logged("this replica has its next certificate") {
            0 | 1 => Err("not yet".to_owned()),
            _ => Ok(()),
        }
    });
    // By the first certificate's end: links of edges are made anew, the one between replicas stands.
    stage.is_ready();
    assert_eq!((term(&stage), stage.other.logged("is silent")), (before, 0));
}

//! One waterworks: a cloud, an edge and its mapper as processes, the link between them, the plant, and their time.

use std::path::Path;
use std::time::Duration;

use bus::io::virtual_clock;
use serde_json::{Value, json};
use tempfile::TempDir;
use water::UtilityConfig;

use crate::harness::process::{eventually, run};
use crate::harness::{Cluster, Node, QUICK_LINK};
use crate::mapper::Mapper;
use crate::plant::Plant;
use crate::relay::Relay;
use crate::time::{Time, seconds};

/// The valve's position, as twins name it.
pub(crate) const POSITION: (&str, &str) = ("water/valve", "position");

/// What a rule commands when its inputs are unknown, in %; in `rule.yaml`.
pub(crate) const UNKNOWN_PERCENT: f64 = 30.0;

/// How far a reported position may be from the true one, in %: its deadband, and a step of the sensor.
const TOLERANCE: f64 = 1.1;

/// How fast time runs while a cut link comes back: the edge may wait up to a minute before it dials again.
const RETURN_FACTOR: f64 = 20.0;

/// How fast time runs while the valve travels, which takes it up to a minute.
const TRAVEL_FACTOR: f64 = 5.0;

const MANIFESTS: &str =
    concat!(include_str!("manifests/models.yaml"), "---\n", include_str!("manifests/devices.yaml"));
const POLICIES: &str = include_str!("manifests/policies.yaml");
const RULE: &str = include_str!("manifests/rule.yaml");

/// What one works is like. `..Setup::default()` for the rest.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) utility: UtilityConfig,
    /// Whether `rule.yaml` moves the valve, or people alone.
    pub(crate) has_rule: bool,
    pub(crate) limits: Limits,
    /// How far the site's wall clock is ahead, in seconds.
    pub(crate) clock_error_s: i64,
    /// Further manifests.
    pub(crate) more: String,
}

impl Default for Setup {
    fn default() -> Self {
        let utility = UtilityConfig::default();
        Self { utility, has_rule: false, limits: Limits::LIVE, clock_error_s: 0, more: String::new() }
    }
}

/// How often sensors are read, how old readings may be, and how long a rule's word holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) cycle: Duration,
    pub(crate) max_age: Duration,
    pub(crate) ttl: Duration,
}

impl Limits {
    /// For a works that is watched as time goes.
    pub(crate) const LIVE: Self = Self { cycle: seconds(1), max_age: seconds(5), ttl: seconds(10) };

    /// For one whose hours pass in a minute: what machines and disks do takes its real time, which is minutes there.
    pub(crate) const HOURS: Self = Self { cycle: seconds(10), max_age: seconds(600), ttl: seconds(600) };
}

/// A running works. Its processes end with it.
pub(crate) struct Works {
    pub(crate) mapper: Mapper,
    pub(crate) edge: Node,
    pub(crate) plant: Plant,
    pub(crate) relay: Relay,
    pub(crate) cluster: Cluster,
    pub(crate) time: Time,
    // Last, so that the processes are gone before their files.
    _room: TempDir,
}

impl Works {
    /// Everything runs, and the cloud knows a good reading of each sensor.
    #[track_caller]
    pub(crate) fn start(setup: &Setup) -> Self {
        let (room, time) = (tempfile::tempdir().unwrap(), Time::start());
        let cloud_clock = time.machine(room.path(), "cloud", 0);
        let cluster = Cluster::start_cloud(QUICK_LINK, |cloud| on(&cloud_clock, cloud));
        let relay = Relay::start(cluster.cloud.endpoint().parse().unwrap());
        let clock = time.machine(room.path(), "site", setup.clock_error_s);
        let edge = join(&cluster, &relay, on(&clock, cluster.stranger("a")));
        let plant = Plant::start(room.path(), setup.utility.clone(), time.clone());
        cluster.apply(&manifests(setup, &plant));
        let mapper = Mapper::start(edge.mqtt(), &clock, room.path().join("mapper.log"));
        let works = Self { mapper, edge, plant, relay, cluster, time, _room: room };
        works.all_readings_are("good");
        works
    }

    pub(crate) fn cloud(&self) -> &Node {
        &self.cluster.cloud
    }

    /// An operator at the cloud wishes a position of the valve; returns what the answer says its version is.
    #[track_caller]
    pub(crate) fn wish(&self, percent: f64) -> String {
        let said = self.cloud().say(&["twin", "set", POSITION.0, POSITION.1, &percent.to_string()]);
        said.rsplit(' ').next().unwrap().to_owned()
    }

    /// Waits until the cloud shows how a wish of this version ended; returns what was told with it.
    #[track_caller]
    pub(crate) fn wish_ends(&self, version: &str, outcome: &str) -> String {
        let ack = eventually(&format!("wish {version} ends {outcome}"), || {
            let ack = self.cloud().twin(POSITION.0, POSITION.1)["ack"].clone();
            if (&ack["version"], &ack["outcome"]) == (&json!(version), &json!(outcome)) {
                Ok(ack)
            } else {
                Err(ack.to_string())
            }
        });
        ack["detail"].as_str().unwrap_or_default().to_owned()
    }

    /// A wish that is fresh moves the valve, and the cloud sees it arrive.
    #[track_caller]
    pub(crate) fn wish_acts(&self, percent: f64) {
        let version = self.wish(percent);
        self.wish_ends(&version, "succeeded");
        assert_eq!(self.plant.positions().last(), Some(&percent));
        self.valve_is_seen_at(percent);
    }

    /// Waits until the cloud shows a good reading of the valve at this position.
    #[track_caller]
    pub(crate) fn valve_is_seen_at(&self, percent: f64) {
        self.time.run(TRAVEL_FACTOR);
        eventually(&format!("the cloud sees the valve at {percent} %"), || {
            let reported = self.cloud().twin(POSITION.0, POSITION.1)["reported"].clone();
            let is_near = reported["value"].as_f64().is_some_and(|seen| (seen - percent).abs() <= TOLERANCE);
            if is_near && reported["quality"] == "good" { Ok(()) } else { Err(reported.to_string()) }
        });
        self.time.run(1.0);
    }

    /// Starts the edge after a kill, and waits until its mapper is back.
    #[track_caller]
    pub(crate) fn start_edge(&mut self) {
        self.edge.start();
        eventually("the mapper is back at its edge", || {
            let age = self.edge.twin(POSITION.0, POSITION.1)["age_ms"].clone();
            if age.is_null() { Err("not heard of since the start".to_owned()) } else { Ok(()) }
        });
    }

    /// Waits until the cloud shows this quality of every reading.
    #[track_caller]
    pub(crate) fn all_readings_are(&self, quality: &str) {
        let expected = Value::from(quality);
        for (device, property) in [("tank", "level"), ("valve", "position"), ("gauge", "pressure")] {
            let id = (format!("water/{device}"), property);
            self.cloud().twin_becomes((&id.0, id.1), "/reported/quality", expected.clone());
        }
    }

    /// Cuts the link, and waits until both sides have given it up.
    #[track_caller]
    pub(crate) fn cut_off(&self) {
        self.relay.cut();
        eventually("both sides give the link up", || {
            if self.is_cut_off() { Ok(()) } else { Err("a side still counts on it".to_owned()) }
        });
    }

    /// Whether both sides say so.
    #[track_caller]
    pub(crate) fn is_cut_off(&self) -> bool {
        let edges_word = self.edge.ask(&["status"])["cloud"]["connected"].clone();
        edges_word == false && !self.cluster.is_connected("a")
    }

    /// Mends the link, and waits until it stands.
    #[track_caller]
    pub(crate) fn mend(&self) {
        self.relay.mend();
        self.time.run(RETURN_FACTOR);
        self.cluster.in_step("a");
        self.time.run(1.0);
    }
}

/// A node on a machine with this clock.
fn on(clock: &Path, mut node: Node) -> Node {
    node.env.push((virtual_clock::FILE, clock.to_owned()));
    node
}

/// The edge joins through the relay, and so dials through it ever after.
#[track_caller]
fn join(cluster: &Cluster, relay: &Relay, mut edge: Node) -> Node {
    let at = relay.address().to_string();
    run(edge.command(&["join", &at, "--token", &cluster.token(), "--name", &edge.name])).expect(0);
    edge.start();
    cluster.in_step(&edge.name);
    edge
}

fn manifests(setup: &Setup, plant: &Plant) -> String {
    let Setup { has_rule, limits, more, .. } = setup;
    let Limits { cycle, max_age, ttl } = limits;
    let path = |device: &str| plant.socket(device).display().to_string();
    let rule = if *has_rule { RULE } else { "" };
    let text = [MANIFESTS, POLICIES, rule, more].map(str::trim_end);
    let text: Vec<&str> = text.into_iter().filter(|part| !part.is_empty()).collect();
    text.join("\n---\n")
        .replace("$TANK", &path("tank"))
        .replace("$VALVE", &path("valve"))
        .replace("$GAUGE", &path("gauge"))
        .replace("$SECOND", &path("valve2"))
        .replace("$CYCLE", &cycle.as_millis().to_string())
        .replace("$MAX_AGE", &format!("{}s", max_age.as_secs()))
        .replace("$TTL", &format!("{}s", ttl.as_secs()))
}

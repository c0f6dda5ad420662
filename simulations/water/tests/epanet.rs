//! The network solver against EPANET 2.3, the reference of the trade, over a day and three networks: a single tank
//! with pump and valve, loops of Net1's kind, and EPANET's own example Net3. Tank levels and heads of all nodes at each
//! hour, the moments at which links open and close, and what happened to the water.
//!
//! EPANET comes from PyPI and Net3 out of a wheel, with the versions in `xtask/python.txt`. `cargo xtask test`
//! puts both under `<target>/python`, or `cargo xtask python` alone; another place can be named by `WATER_EPANET`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a reference that cannot be read has failed; figures that pass are of interest too"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use water::network::{Run, inp};

const HOURS: u64 = 24;

/// What the issue asks for: a level or head is within this, or within this share.
const NEAR_M: f64 = 0.05;
const NEAR_SHARE: f64 = 0.01;

/// What the networks hold to, in truth: heads that mean something are closer than this. A tighter net for mistakes.
const NEARER_M: f64 = 0.002;

/// EPANET counts whole seconds and iterates until flows change by less than 0.1 %: a level gets to its limit that much
/// earlier or later, in seconds.
const SWITCH_S: f64 = 2.0;

const MASS_BALANCE: f64 = 1e-6;

/// Heads beyond this, in metres, are what either solver makes of a street that is cut off: there is no water.
const ABSURD_M: f64 = 1e4;

/// What was found at one hour, in metres.
#[derive(Debug, Default)]
struct Hour {
    heads: BTreeMap<String, f64>,
    levels: BTreeMap<String, f64>,
}

/// A link opened or closed.
#[derive(Debug, Clone, PartialEq)]
struct Switch {
    time_s: f64,
    link: String,
    open: bool,
}

/// A day of a network.
#[derive(Debug, Default)]
struct Day {
    hours: Vec<Hour>,
    switches: Vec<Switch>,
}

#[test]
fn a_tank_with_pump_and_valve_is_as_epanet_has_it() {
    // It runs empty a quarter of an hour before the next step finds water in it, at the evening's 63 m³/h.
    compare("tank", &here().join("tank.inp"), 8, 16.2);
}

#[test]
fn loops_with_a_pump_and_two_tanks_are_as_epanet_has_them() {
    compare("loops", &here().join("loops.inp"), 10, 0.0);
}

#[test]
fn net3_is_as_epanet_has_it() {
    compare("Net3", &epanet().join("wntr/library/networks/Net3.inp"), 4, 0.0);
}

/// `at_least` switches must have been there to compare, and the town have gone without `dry_m3`.
fn compare(name: &str, path: &Path, at_least: usize, dry_m3: f64) {
    let theirs = reference(path);
    let (ours, balance) = simulate(path);
    let error = balance.relative_error();
    let (level, head) = (worst(&ours, &theirs, |h| &h.levels), worst(&ours, &theirs, |h| &h.heads));
    let late = worst_switch(&ours, &theirs);
    println!(
        "{name}: {} hours, {} nodes; worst level {level}; worst head {head}; {} switches, worst {late:.1} s apart; \
         mass balance {error:.1e} of {:.0} m3, unserved {:.2e} m3",
        ours.hours.len(),
        ours.hours[0].heads.len(),
        ours.switches.len(),
        balance.demanded_m3,
        balance.unserved_m3,
    );
    assert!(level.metres <= NEARER_M && head.metres <= NEARER_M, "{name}: {level}; {head}");
    assert!(ours.switches.len() >= at_least, "{name}: {:#?}", ours.switches);
    assert!(late <= SWITCH_S, "{name}: {late}");
    assert!(error < MASS_BALANCE, "{name}: {balance:?}");
    // To a second of the town's demand, or to the share that water may be out of balance.
    let (dry, slack) = (balance.unserved_m3, dry_m3 / 500.0 + MASS_BALANCE * balance.demanded_m3);
    assert!((dry - dry_m3).abs() < slack, "{name}: {balance:?}");
}

/// The largest difference of one kind of value, where it was.
struct Worst {
    metres: f64,
    hour: usize,
    node: String,
}

impl std::fmt::Display for Worst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} mm ({} at {}:00)", self.metres * 1000.0, self.node, self.hour)
    }
}

fn worst(ours: &Day, theirs: &Day, of: impl Fn(&Hour) -> &BTreeMap<String, f64>) -> Worst {
    let mut worst = Worst { metres: 0.0, hour: 0, node: String::new() };
    assert_eq!(ours.hours.len(), theirs.hours.len());
    for (hour, (our, their)) in ours.hours.iter().zip(&theirs.hours).enumerate() {
        let (our, their) = (of(our), of(their));
        assert_eq!(our.keys().collect::<Vec<_>>(), their.keys().collect::<Vec<_>>());
        for ((node, a), b) in our.iter().zip(their.values()) {
            let apart = (a - b).abs();
            assert!(apart <= NEAR_M || apart <= NEAR_SHARE * b.abs(), "{node} at {hour}:00: {a}, EPANET {b}");
            if apart > worst.metres && b.abs() < ABSURD_M {
                worst = Worst { metres: apart, hour, node: node.clone() };
            }
        }
    }
    worst
}

/// The same links open and close in the same order; how many seconds apart at most.
fn worst_switch(ours: &Day, theirs: &Day) -> f64 {
    let by_link = |day: &Day| {
        let mut links: BTreeMap<String, Vec<(bool, f64)>> = BTreeMap::new();
        for switch in &day.switches {
            links.entry(switch.link.clone()).or_default().push((switch.open, switch.time_s));
        }
        links
    };
    let (ours, theirs) = (by_link(ours), by_link(theirs));
    let order = |links: &BTreeMap<String, Vec<(bool, f64)>>| -> Vec<(String, Vec<bool>)> {
        links.iter().map(|(link, all)| (link.clone(), all.iter().map(|s| s.0).collect())).collect()
    };
    assert_eq!(order(&ours), order(&theirs), "{ours:#?} {theirs:#?}");
    let pairs = ours.values().flatten().zip(theirs.values().flatten());
    pairs.map(|(a, b)| (a.1 - b.1).abs()).fold(0.0, f64::max)
}

/// The day by the solver under test.
fn simulate(path: &Path) -> (Day, water::network::run::Balance) {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}\n{}", path.display(), advice()));
    let mut network = inp::read(&text).unwrap();
    network.times.duration_s = HOURS * 3600;
    let mut run = Run::start(network).unwrap();
    let mut day = Day::default();
    let mut before = statuses(&run);
    loop {
        let now = statuses(&run);
        for (link, (was, is)) in before.iter().zip(&now).enumerate() {
            if was != is {
                let link = run.network().links[link].id.clone();
                day.switches.push(Switch { time_s: run.time_s(), link, open: *is });
            }
        }
        before = now;
        if run.time_s() % 3600.0 == 0.0 {
            day.hours.push(hour(&run));
        }
        if run.advance().unwrap().is_none() {
            return (day, run.balance());
        }
    }
}

fn statuses(run: &Run) -> Vec<bool> {
    (0..run.network().links.len()).map(|link| run.is_open(link)).collect()
}

fn hour(run: &Run) -> Hour {
    let nodes = run.network().nodes.iter().enumerate();
    let heads = nodes.clone().map(|(index, node)| (node.id.clone(), run.head_m(index)));
    let tanks = nodes.filter(|(_, node)| node.tank().is_some());
    let levels = tanks.map(|(index, node)| (node.id.clone(), run.level_m(index)));
    Hour { heads: heads.collect(), levels: levels.collect() }
}

/// The day by EPANET.
fn reference(path: &Path) -> Day {
    let python = epanet().join("venv/bin/python");
    let mut command = Command::new(&python);
    command.arg(here().join("reference.py")).arg(path).arg(HOURS.to_string());
    let done = command.output().unwrap_or_else(|e| panic!("{}: {e}\n{}", python.display(), advice()));
    assert!(done.status.success(), "{}\n{}", String::from_utf8_lossy(&done.stderr), advice());
    let found: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(found["version"], 20305, "the EPANET that this was compared with");
    let metres = |value: &Value| -> BTreeMap<String, f64> {
        let values = value.as_object().unwrap().iter();
        values.map(|(id, v)| (id.clone(), v.as_f64().unwrap())).collect()
    };
    let hours = found["hours"].as_array().unwrap().iter();
    let switches = found["switches"].as_array().unwrap().iter();
    Day {
        hours: hours.map(|h| Hour { heads: metres(&h["heads"]), levels: metres(&h["levels"]) }).collect(),
        switches: switches
            .map(|s| Switch {
                time_s: s["time_s"].as_f64().unwrap(),
                link: s["link"].as_str().unwrap().to_owned(),
                open: s["open"].as_bool().unwrap(),
            })
            .collect(),
    }
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/epanet")
}

/// `<target>/python`, unless `WATER_EPANET` names another place.
fn epanet() -> PathBuf {
    let default = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python");
    std::env::var_os("WATER_EPANET").map_or_else(default, PathBuf::from)
}

fn advice() -> String {
    format!("EPANET is not in {}: run `cargo xtask python`", epanet().display())
}

//! Sensors that fail.

use std::time::Duration;

use serde_json::json;

use crate::harness::kubebus;
use crate::harness::mqtt::{Subscriber, V5};
use crate::harness::process::{eventually, run};
use crate::plant::Plant;
use crate::time::seconds;
use crate::works::{Limits, Setup, UNKNOWN_PERCENT, Works};
use water::{Device, Fault, Register};

const PRESSURE: (&str, &str) = ("water/gauge", "pressure");

/// A reading's own period, the rule's tick, and what the way from sensor to valve takes on a busy machine.
const SLACK: Duration = seconds(10);

#[test]
fn when_the_pressure_sensor_falls_silent_its_value_turns_bad_and_the_rule_takes_its_unknown_position() {
    let works = Works::start(&Setup { has_rule: true, ..Setup::default() });
    works.rule_moves_the_valve();
    let silences: [fn(&Plant); 2] = [|plant| plant.unplug("gauge/pressure"), |plant| plant.mute("gauge")];
    for silence in silences {
        let state = Subscriber::start(works.cloud(), V5, "twin/water/gauge/state");
        state.gets("twin/water/gauge/state", "/state", &json!("online"));
        let before = works.plant.commands().len();
        let begin = works.time.now();
        silence(&works.plant);
        works.cloud().twin_becomes(PRESSURE, "/reported/quality", json!("bad"));
        let degraded = state.gets("twin/water/gauge/state", "/state", &json!("degraded"));
        assert_eq!(degraded.json()["reason"], "not heard of: pressure");
        let tripped = eventually("the valve is told the unknown position", || {
            let commands = works.plant.commands().split_off(before);
            let tripped = commands.iter().find(|command| command.percent == UNKNOWN_PERCENT);
            tripped.map(|command| command.at_s).ok_or(format!("{commands:?}"))
        });
        let limit = begin + Limits::LIVE.max_age + SLACK;
        assert!(tripped <= limit.as_secs_f64(), "silent since {begin:?}, told at {tripped} s");
        assert_eq!(works.plant.snapshot().target_percent, UNKNOWN_PERCENT, "and nothing moves it away again");

        works.plant.heal();
        works.cloud().twin_becomes(PRESSURE, "/reported/quality", json!("good"));
        works.rule_moves_the_valve();
    }
}

/// What the valve goes to when nothing is wished of it any more, in %.
const FAIL_SAFE_PERCENT: f64 = 50.0;
/// Where the interlock takes the valve, in %.
const TRIPPED_PERCENT: f64 = 50.0;

/// The pressure does not change although the valve travels: the sensor is frozen, whatever it says.
const INTERLOCK: &str = "\
apiVersion: kubebus.io/v1alpha1
kind: TwinPolicy
metadata: {name: valve-safe, namespace: water}
spec: {model: valve, property: position, failSafe: 50}
---
apiVersion: kubebus.io/v1alpha1
kind: Rule
metadata: {name: frozen-gauge, namespace: water}
spec:
  inputs:
    pressure: {device: gauge, property: pressure, maxAge: $MAX_AGE}
    position: {device: valve, property: position, maxAge: $MAX_AGE}
  output: {device: valve, property: position, slot: 2, ttl: 10s}
  onUnknown: hold
  cases:
    - name: the pressure stands still while the valve moves
      latch: true
      when:
        all:
          - {input: pressure, spreadIn: 10s, op: at-most, value: 0}
          - {input: position, spreadIn: 10s, op: above, value: 10}
      then: {value: 50}
";

#[test]
fn a_sensor_that_is_frozen_trips_the_interlock_which_holds_until_somebody_resets_it() {
    let works = Works::start(&Setup { more: INTERLOCK.to_owned(), ..Setup::default() });
    works.time.pass(seconds(15), 1.0);
    works.wish_acts(90.0);
    assert_eq!(works.plant.positions(), [90.0], "a sound sensor trips nothing");
    works.time.pass(seconds(30), 10.0);

    let frozen = Fault::Frozen { device: Device::Valve, register: Register::Pressure };
    works.plant.inject(frozen);
    works.time.pass(seconds(15), 1.0);
    let version = works.wish(30.0);
    works.wish_ends(&version, "succeeded");
    eventually("the interlock moves the valve", || {
        let positions = works.plant.positions();
        if positions.last() == Some(&TRIPPED_PERCENT) { Ok(()) } else { Err(format!("{positions:?}")) }
    });
    assert_eq!(works.cloud().twin(PRESSURE.0, PRESSURE.1)["reported"]["quality"], "good", "it looked sound");
    let rules = || works.cloud().ask(&["rule", "list"]);
    eventually("the cloud shows what tripped", || {
        let seen = rules();
        let is_tripped = seen[0]["latched"][0] == "the pressure stands still while the valve moves";
        if is_tripped { Ok(()) } else { Err(seen.to_string()) }
    });

    // The sensor is mended, and the interlock holds all the same.
    works.plant.repair(frozen);
    works.time.pass(seconds(30), 5.0);
    let version = works.wish(80.0);
    let why = works.wish_ends(&version, "superseded");
    assert!(why.starts_with("slot 2 (rule water/frozen-gauge"), "{why}");
    let reset = ["twin", "command", "water/valve", "reset-rule", "rule=frozen-gauge", "--expires", "30s"];
    works.cloud().say(&reset);
    works.wish_acts(60.0);
    let commanded = works.plant.positions();
    // The first wish held for as long as a wish of an actuator does, and the fail-safe value after it.
    assert_eq!(commanded, [90.0, FAIL_SAFE_PERCENT, 30.0, TRIPPED_PERCENT, 60.0]);

    // What the rule did can be done again from its log, byte for byte.
    let log = works.cluster.file("rules.log", &works.edge.say(&["rule", "log"]));
    let replayed = run(kubebus(&["rule", "replay", log.to_str().unwrap()]));
    assert!(replayed.stdout.contains("0 diverge") && replayed.code == Some(0), "{replayed:?}");
}

impl Works {
    /// Waits until the rule knows its inputs and commands by them.
    #[track_caller]
    fn rule_moves_the_valve(&self) {
        eventually("the rule commands by level and set point", || {
            let positions = self.plant.positions();
            let last = positions.last().filter(|percent| **percent != UNKNOWN_PERCENT);
            last.map(|_| ()).ok_or(format!("{positions:?}"))
        });
    }
}

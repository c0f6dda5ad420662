//! Sensors that fail.

use std::time::Duration;

use serde_json::json;

use crate::harness::mqtt::{Subscriber, V5};
use crate::harness::process::eventually;
use crate::plant::Plant;
use crate::time::seconds;
use crate::works::{Limits, Setup, UNKNOWN_PERCENT, Works};

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

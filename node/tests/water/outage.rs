//! Hours without a cloud.

use std::time::Duration;

use serde_json::json;
use water::{Device, Fault, Register, Utility, UtilityConfig};

use crate::harness::mqtt::{Subscriber, V5};
use crate::plant::{Levels, SEED};
use crate::time::{hours, seconds};
use crate::works::{Limits, POSITION, Setup, Works};

/// What the tank must never fall below, in metres: water to fight a fire with.
const MINIMUM_M: f64 = 2.0;

/// The hours of the outage pass this much faster: a minute and some.
const FACTOR: f64 = 300.0;

/// A pipe in the town bursts: some 5 m³/h at the tank's pressure.
const BURST: Fault = Fault::TownBurst { c: 3.0 };

/// From the small hours into the morning's peak, in a town that takes more than usual.
fn morning() -> UtilityConfig {
    let mut utility = UtilityConfig { start_hour: 3.0, ..UtilityConfig::default() };
    utility.demand.mean = 55.0;
    utility.valve.start_setpoint_m = 3.0;
    utility
}

/// The same hours with a valve that stands still.
fn left_alone(percent: f64) -> (Levels, f64) {
    let mut utility = Utility::new(morning(), SEED);
    utility.write(Device::Valve, Register::Position, percent).unwrap();
    let mut levels = Levels::NONE;
    for _ in 0..hours(6).as_secs() {
        utility.step(1.0);
        levels.see(utility.snapshot().level_m);
    }
    (levels, utility.snapshot().spilled_m3)
}

#[test]
fn a_site_without_its_cloud_keeps_its_tank_between_the_limits_through_six_hours_a_peak_and_a_burst() {
    let (where_it_was, wide_open) = (left_alone(75.0), left_alone(95.0));
    assert!(where_it_was.0.lowest < MINIMUM_M, "these hours are hard: {where_it_was:?}");
    assert!(wide_open.1 > 0.0, "and a valve that is merely open is no answer: {wide_open:?}");

    let setup = Setup { utility: morning(), has_rule: true, limits: Limits::HOURS, ..Setup::default() };
    let works = Works::start(&setup);
    works.cut_off();
    let panel = Subscriber::start(&works.edge, V5, "twin/water/valve/reported/position");
    let begin = works.time.now();
    works.plant.take_levels();
    works.time.pass(hours(2), FACTOR);
    works.plant.inject(BURST);
    works.time.pass(hours(4), FACTOR);

    let (levels, end) = (works.plant.take_levels(), works.plant.snapshot());
    assert!(levels.lowest >= MINIMUM_M, "{levels:?}");
    assert_eq!((end.spilled_m3, end.unserved_m3), (0.0, 0.0), "{levels:?}");
    assert!(end.burst_m3 > 10.0, "the burst was one: {}", end.burst_m3);
    // In the last hours the valve may have found where it can stay.
    let (before, after) = (begin + hours(2), begin + hours(6));
    for (from, until) in [(begin, before), (before, after)] {
        let told = told_between(&works, from, until);
        assert!(steps(&told) > 2, "the valve follows the tank: {told:?}");
    }
    assert!(works.is_cut_off(), "all of it without a cloud");
    let seen: Vec<f64> = panel.messages().iter().filter_map(|m| m.json()["value"].as_f64()).collect();
    assert!(steps(&seen) > 6, "the panel at the site showed it move: {seen:?}");

    works.mend();
    let stands = works.plant.snapshot().position_percent;
    works.valve_is_seen_at(stands);
}

/// The positions that the valve was told in this time.
fn told_between(works: &Works, from: Duration, to: Duration) -> Vec<f64> {
    let span = from.as_secs_f64()..to.as_secs_f64();
    let commands = works.plant.commands().into_iter();
    commands.filter(|command| span.contains(&command.at_s)).map(|command| command.percent).collect()
}

/// How often a position differs from the one before it.
fn steps(positions: &[f64]) -> usize {
    positions.windows(2).filter(|two| (two[0] - two[1]).abs() >= 0.5).count()
}

#[test]
fn a_wish_that_arrives_five_hours_late_expires_moves_nothing_and_its_operator_is_told() {
    let works = Works::start(&Setup { limits: Limits::HOURS, ..Setup::default() });
    let told = Subscriber::start(works.cloud(), V5, "twin/water/valve/result");
    let stands = works.plant.snapshot().position_percent;
    works.cut_off();
    let version = works.wish(100.0);
    works.time.pass(hours(5), 600.0);
    assert!(works.is_cut_off());
    assert_eq!(works.cloud().twin(POSITION.0, POSITION.1)["ack"], json!(null), "nobody answered yet");

    works.mend();
    let detail = works.wish_ends(&version, "expired");
    assert!(detail.starts_with("5h") && detail.contains("set it again"), "{detail}");
    let message = told.gets("twin/water/valve/result", "/outcome", &json!("expired")).json();
    assert_eq!((&message["property"], &message["version"]), (&json!("position"), &json!(version)));

    works.time.pass(seconds(120), 20.0);
    assert_eq!(works.plant.positions(), [0.0; 0]);
    assert_eq!(works.plant.snapshot().position_percent, stands);
    assert_eq!(works.cloud().twin(POSITION.0, POSITION.1)["converged"], json!(false));
    // Meant again, it is done.
    works.wish_acts(100.0);
    assert_eq!(works.plant.positions(), [100.0]);
}

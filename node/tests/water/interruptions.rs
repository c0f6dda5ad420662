//! Processes that are killed in the middle of a write.

use serde_json::json;

use crate::harness::mqtt::{Subscriber, V5};
use crate::harness::process::eventually;
use crate::time::seconds;
use crate::works::{POSITION, Setup, Works};

/// Where the valve stands at first and where it is sent, in %: half a minute's travel.
const FROM: f64 = 75.0;
const TO: f64 = 20.0;

const RESULT: &str = "twin/water/valve/result";
const STATE: &str = "twin/water/valve/state";

impl Works {
    /// The valve was sent on its way, but has not said so: the write is under way at edge and mapper.
    #[track_caller]
    fn send_the_valve_without_an_answer(&self) -> String {
        self.plant.mute_to_writes("valve");
        let version = self.wish(TO);
        eventually("the valve moves", || {
            let position = self.plant.snapshot().position_percent;
            if position < FROM { Ok(()) } else { Err(position.to_string()) }
        });
        version
    }

    /// It was told once, it is on its way, and nobody knows the end yet.
    #[track_caller]
    fn is_in_mid_travel(&self) {
        let position = self.plant.snapshot().position_percent;
        assert!(TO < position && position < FROM, "{position}");
        assert_eq!(self.plant.positions(), [TO]);
        assert_eq!(self.cloud().twin(POSITION.0, POSITION.1)["ack"], json!(null));
    }
}

#[test]
fn an_edge_that_loses_power_in_mid_write_says_unknown_reads_the_valve_back_and_does_not_act_twice() {
    let mut works = Works::start(&Setup::default());
    let told = Subscriber::start(works.cloud(), V5, RESULT);
    let version = works.send_the_valve_without_an_answer();
    works.is_in_mid_travel();
    works.edge.kill();

    works.edge.start();
    works.wish_ends(&version, "unknown");
    let message = told.gets(RESULT, "/outcome", &json!("unknown")).json();
    assert_eq!((&message["property"], &message["version"]), (&json!("position"), &json!(version)));
    works.valve_is_seen_at(TO);
    works.time.pass(seconds(120), 10.0);
    assert_eq!(works.plant.positions(), [TO], "once, and not again after the start");
    assert_eq!(works.cloud().twin(POSITION.0, POSITION.1)["converged"], json!(false));

    // Somebody looks, and decides.
    works.plant.heal();
    works.wish_acts(60.0);
    assert_eq!(works.plant.positions(), [TO, 60.0]);
}

#[test]
fn when_the_mapper_is_killed_operators_see_it_and_nothing_moves_at_its_return_until_somebody_decides() {
    let mut works = Works::start(&Setup::default());
    let [told, state] = [RESULT, STATE].map(|topic| Subscriber::start(works.cloud(), V5, topic));
    let version = works.send_the_valve_without_an_answer();
    works.is_in_mid_travel();
    works.mapper.kill();

    works.wish_ends(&version, "unknown");
    told.gets(RESULT, "/outcome", &json!("unknown"));
    let offline = state.gets(STATE, "/state", &json!("offline")).json();
    assert_eq!(offline["reason"], "mapper virtual is not connected");
    works.all_readings_are("bad");
    // What is wished meanwhile is refused, not kept for later.
    let refused = works.wish(90.0);
    let detail = works.wish_ends(&refused, "failed");
    assert!(detail.contains("offline") && detail.contains("set it again"), "{detail}");

    works.plant.heal();
    works.mapper.start_again();
    works.all_readings_are("good");
    works.valve_is_seen_at(TO);
    works.time.pass(seconds(120), 10.0);
    assert_eq!(works.plant.positions(), [TO], "a mapper's start moves nothing");

    works.wish_acts(60.0);
    assert_eq!(works.plant.positions(), [TO, 60.0]);
}

/// Where the valve's own controller takes it when nobody speaks to it any more, in %.
const SAFE: f64 = 15.0;

#[test]
fn when_the_mapper_dies_the_valves_own_watchdog_takes_it_to_its_safe_position_and_operators_see_where_it_stands()
 {
    let mut setup = Setup::default();
    setup.utility.valve.watchdog_s = Some(20.0);
    setup.utility.valve.safe_percent = SAFE;
    let mut works = Works::start(&setup);
    works.wish_acts(60.0);
    assert_eq!(works.plant.snapshot().watchdog_trips, 0, "reading it is enough of a heartbeat");
    works.mapper.kill();
    works.all_readings_are("bad");
    works.time.run(10.0);
    eventually("the watchdog has closed the valve", || {
        let now = works.plant.snapshot();
        let is_safe = now.watchdog_trips == 1 && (now.position_percent - SAFE).abs() < 0.1;
        if is_safe { Ok(()) } else { Err(format!("{now:?}")) }
    });
    works.time.run(1.0);

    works.mapper.start_again();
    works.all_readings_are("good");
    works.valve_is_seen_at(SAFE);
    works.time.pass(seconds(120), 10.0);
    assert_eq!(works.plant.positions(), [60.0], "what was wished before is not done again");
    works.wish_acts(40.0);
}

mod interlocks;
mod log;

use bus::{Filter, Value};

use super::*;
use crate::rule::{Because, Kept, RuleView};

const FILL: &str = "{apiVersion: kubebus.io/v1alpha1, kind: Rule, metadata: {name: fill, namespace: water}, spec: {
    inputs: {
        level: {device: tank, property: pressure, maxAge: 10s},
        setPoint: {device: valve, property: setPoint, from: desired},
        position: {device: valve, property: position, maxAge: 30s},
        pressure: {device: junction, property: pressure, maxAge: 10s}},
    output: {device: valve, property: position, ttl: 20s},
    onUnknown: hold,
    cases: [
        {name: pressure is high, when: {input: pressure, op: above, value: 6, hysteresis: 0.5},
         then: {value: {input: level, minus: setPoint, gain: -40, offset: 50, min: position, max: 100}}},
        {name: adjust, then: {value: {input: level, minus: setPoint, gain: -40, offset: 50, min: 0, max: 100}}}]}}";

const NONE: [f64; 0] = [];

const KEY: &str = "/m/rule/water/fill";

fn watched() -> Filter {
    Filter::new("twin/water/tank/reported/pressure").unwrap()
}

impl World {
    fn ruled() -> Self {
        let mut world = Self::new();
        world.put(KEY, json(FILL));
        world.desire("valve/setPoint", 3.0, 1, 0);
        for write in world.writes() {
            world.answer(&write, Outcome::Succeeded);
        }
        world
    }

    /// The tank's edge says so, `age_ms` after it was read.
    fn level(&mut self, level: f64, age_ms: u64) {
        let body =
            format!(r#"{{"value": {level}, "time": 0, "quality": "good", "rev": 1, "age_ms": {age_ms}}}"#);
        self.hear("twin/water/tank/reported/pressure", &body);
    }

    fn hear(&mut self, topic: &str, body: &str) {
        self.hear_after(topic, body, Some(Duration::ZERO));
    }

    /// It was `travelled` on its way, if that is known.
    fn hear_after(&mut self, topic: &str, body: &str, travelled: Option<Duration>) {
        let (topic, now) = (Topic::new(topic).unwrap(), self.now());
        self.twins.handle_remote(&topic, body.as_bytes(), travelled, &mut self.ks, now);
        self.drain();
    }

    fn here(&mut self, position: f64, pressure: f64) {
        self.say("twin/water/valve/report/position", &position.to_string());
        self.say("twin/water/junction/report/pressure", &pressure.to_string());
    }

    fn positions(&mut self) -> Vec<f64> {
        let writes = self.writes();
        writes.iter().for_each(|write| self.answer(write, Outcome::Succeeded));
        writes.into_iter().filter(|w| w.property == "position").map(|w| w.value.as_f64().unwrap()).collect()
    }
}

#[test]
fn the_valve_follows_the_tank_of_another_site_but_spares_the_pipe() {
    let mut world = World::ruled();
    world.here(50.0, 4.0);
    world.level(2.5, 0);
    assert_eq!(world.positions(), [70.0]);
    world.here(70.0, 6.2);
    world.level(3.5, 0);
    assert_eq!(world.positions(), NONE, "it would close to 30; the pressure is high, so it stays at 70");
    world.here(70.0, 4.0);
    assert_eq!(world.positions(), [30.0], "the pressure has gone");
    let cause = "cloud desired 0.2 by ann";
    world.desire("valve/setPoint", 4.0, 2, 0);
    let writes = world.writes();
    assert_eq!(
        writes.iter().map(|w| (w.value.clone(), w.cause.as_str())).collect::<Vec<_>>(),
        [(Value::Float(4.0), cause), (Value::Float(70.0), "rule water/fill: adjust")],
        "a new set point moves the valve"
    );
}

#[test]
fn a_rule_asks_for_the_twins_of_other_sites_and_lets_go_of_them() {
    let mut world = World::new();
    world.put(KEY, json(FILL));
    assert!(world.seen.contains(&Output::Watch(watched())));
    assert_eq!(world.seen.iter().filter(|o| matches!(o, Output::Watch(_))).count(), 1);
    world.take_back(KEY);
    assert!(world.seen.contains(&Output::Unwatch(watched())));
}

#[test]
fn a_silent_site_holds_the_valve_for_as_long_as_the_document_says() {
    let mut world = World::ruled();
    world.here(50.0, 4.0);
    world.level(2.5, 4000);
    assert_eq!(world.positions(), [70.0]);
    for _ in 0..30 {
        world.seconds(3);
        world.here(70.0, 4.0);
    }
    assert_eq!(world.positions(), NONE, "unknown: hold, renewed every second");
    world.level(2.0, 11_000);
    assert_eq!(world.positions(), NONE, "too old when it came");
    let fresh = r#"{"value": 2.0, "time": 0, "quality": "good", "rev": 1, "age_ms": 0}"#;
    for travelled in [Some(Duration::from_secs(11)), None] {
        world.hear_after("twin/water/tank/reported/pressure", fresh, travelled);
        assert_eq!(world.positions(), NONE, "fresh when it was sent, but {travelled:?} on its way");
    }
    world.level(2.0, 0);
    assert_eq!(world.positions(), [90.0]);
}

#[test]
fn a_copy_kept_by_the_cloud_neither_replaces_nor_makes_up_a_fresh_reading() {
    let mut world = World::ruled();
    let copy = r#"{"value": 2.0, "time": 0, "quality": "good", "rev": 7}"#;
    world.here(50.0, 4.0);
    world.hear("twin/water/tank/reported/pressure", copy);
    assert_eq!(world.positions(), NONE, "its age is not known");
    world.level(2.5, 0);
    world.hear("twin/water/tank/reported/pressure", copy);
    world.seconds(2);
    assert_eq!(world.positions(), [70.0]);
}

#[test]
fn a_rule_that_is_taken_away_lets_go_and_the_fail_safe_holds() {
    let mut world = World::ruled();
    world.here(50.0, 4.0);
    world.level(2.5, 0);
    assert_eq!(world.positions(), [70.0]);
    world.take_back(KEY);
    assert_eq!(world.positions(), [100.0]);
    assert!(world.ks.get("/t/rule/water/fill").is_none());
}

#[test]
fn a_write_that_failed_is_tried_again_by_the_rule_but_not_at_once() {
    let mut world = World::ruled();
    world.here(50.0, 4.0);
    world.level(2.5, 0);
    let writes = world.writes();
    world.answer(&writes[0], Outcome::Failed);
    world.seconds(4);
    world.level(2.5, 0);
    assert_eq!(world.positions(), NONE);
    world.seconds(2);
    assert_eq!(world.positions(), [70.0]);
}

#[test]
fn after_a_restart_a_rule_waits_for_fresh_inputs() {
    let mut world = World::ruled();
    world.here(50.0, 4.0);
    world.level(2.5, 0);
    assert_eq!(world.positions(), [70.0]);
    world.restart();
    world.mapper("online");
    world.level(2.5, 0);
    world.seconds(5);
    assert_eq!(world.positions(), NONE, "the pressure is not known yet");
    world.here(70.0, 4.0);
    assert_eq!(world.positions(), [70.0]);
}

#[test]
fn on_unknown_fail_safe_moves_the_valve_to_safety() {
    let mut world = World::ruled();
    world.put(KEY, json(&FILL.replace("onUnknown: hold", "onUnknown: failSafe")));
    world.here(50.0, 4.0);
    world.level(2.5, 0);
    assert_eq!(world.positions(), [70.0], "the level had its time to come");
    world.seconds(11);
    assert_eq!(world.positions(), [100.0]);
}

#[test]
fn neither_node_nor_mapper_moves_the_valve_by_starting_while_inputs_are_on_their_way() {
    let mut world = World::ruled();
    world.put(KEY, json(&FILL.replace("onUnknown: hold", "onUnknown: {value: 5}")));
    world.here(50.0, 4.0);
    world.level(2.5, 0);
    assert_eq!(world.positions(), [70.0]);
    world.mapper("offline");
    world.seconds(3);
    world.mapper("online");
    world.seconds(2);
    world.here(70.0, 4.0);
    world.level(2.5, 0);
    world.seconds(1);
    assert_eq!(world.positions(), [70.0], "the mapper may have lost it; never 5");
    world.restart();
    world.mapper("online");
    world.seconds(5);
    world.here(70.0, 4.0);
    world.level(2.0, 0);
    assert_eq!(world.positions(), [90.0]);
    world.seconds(12);
    assert_eq!(world.positions(), [5.0], "all are silent");
}

#[test]
fn a_mapper_that_comes_back_after_long_gives_its_inputs_their_time_again() {
    let mut world = World::ruled();
    world.put(KEY, json(&FILL.replace("onUnknown: hold", "onUnknown: {value: 5}")));
    for _ in 0..8 {
        world.here(50.0, 4.0);
        world.level(2.5, 0);
        world.positions();
        world.seconds(5);
    }
    world.mapper("offline");
    world.seconds(3);
    world.mapper("online");
    world.seconds(9);
    assert_eq!(world.positions(), NONE, "never 5");
    world.level(2.5, 0);
    world.here(70.0, 4.0);
    world.seconds(1);
    assert_eq!(world.positions(), [70.0], "the mapper may have lost it");
}

#[test]
fn the_latch_of_a_rule_is_stored() {
    let mut world = World::ruled();
    world.here(50.0, 6.2);
    world.level(2.5, 0);
    let kept = Kept { held: vec![true], trips: vec![] };
    assert_eq!(Kept::read(world.ks.get("/t/rule/water/fill").unwrap()), Some(kept));
    world.restart();
    world.mapper("online");
    world.here(50.0, 5.8);
    world.level(3.5, 0);
    assert_eq!(world.positions().last(), Some(&50.0), "still latched above 5.5: it closes no further");
}

#[test]
fn the_latch_that_an_earlier_version_stored_holds() {
    let mut world = World::ruled();
    world.ks.put(Key::new("/t/rule/water/fill").unwrap(), crate::twin::cbor(&vec![true]));
    world.restart();
    world.mapper("online");
    world.here(50.0, 5.8);
    world.level(3.5, 0);
    assert_eq!(world.positions().last(), Some(&50.0), "latched above 5.5: it closes no further");
    let kept = Kept { held: vec![true], trips: vec![] };
    assert_eq!(Kept::read(world.ks.get("/t/rule/water/fill").unwrap()), Some(kept));
}

#[test]
fn a_rule_that_moves_to_another_slot_leaves_the_first_one() {
    let mut world = World::ruled();
    world.here(50.0, 4.0);
    world.level(2.5, 0);
    assert_eq!(world.positions(), [70.0]);
    world.put(KEY, json(&FILL.replace("ttl: 20s", "ttl: 20s, slot: 13").replace("gain: -40", "gain: -20")));
    assert_eq!(world.positions(), [100.0], "nobody says anything: the fail-safe holds");
    world.level(2.5, 0);
    assert_eq!(world.positions(), [60.0]);
}

#[test]
fn a_rule_that_counts_in_another_unit_waits_until_it_is_known() {
    let mut world = World::ruled();
    let counted =
        FILL.replace("property: pressure, maxAge: 10s},\n", "property: pressure, maxAge: 10s, unit: bar},\n");
    assert_ne!(counted, FILL);
    world.put(KEY, json(&counted));
    for _ in 0..4 {
        world.here(50.0, 4.0);
        world.level(2.5, 0);
        world.seconds(5);
    }
    assert_eq!(world.positions(), NONE, "nobody says in what unit the other site counts");
    world.put("/m/unit/water/tank/pressure", "furlong".into());
    world.level(2.5, 0);
    assert_eq!(world.positions(), NONE, "that is none of pressure");
    world.put("/m/unit/water/tank/pressure", "bar".into());
    world.here(50.0, 4.0);
    world.level(2.5, 0);
    assert_eq!(world.positions(), [70.0]);
    world.put(KEY, json(&FILL.replace("value: 6,", "value: 3, unit: bar,")));
    world.here(50.0, 3.2);
    world.level(3.5, 0);
    assert_eq!(world.positions(), [50.0], "above 3 bar");
}

#[test]
fn the_cloud_is_told_when_another_case_decides_and_not_of_every_value() {
    let mut world = World::new();
    world.put(KEY, json(FILL));
    world.here(50.0, 4.0);
    let told = |world: &mut World| {
        let views = views(&world.seen);
        world.seen.clear();
        let because = |view: RuleView| {
            let decided = view.decision.unwrap();
            (decided.case, decided.because, view.unknown)
        };
        views.into_iter().map(because).collect::<Vec<_>>()
    };
    let high = Some("pressure is high".to_owned());
    let unheard = ["level", "pressure", "setPoint"].map(str::to_owned).to_vec();
    assert_eq!(told(&mut world), [(high.clone(), Because::Waiting, unheard)]);
    world.desire("valve/setPoint", 3.0, 1, 0);
    world.seconds(2);
    world.level(2.5, 0);
    let adjust = |because, unknown| (Some("adjust".to_owned()), because, unknown);
    let level = vec!["level".to_owned()];
    assert_eq!(told(&mut world), [adjust(Because::Waiting, level), adjust(Because::True, vec![])]);
    for level in [2.6, 2.7, 2.8] {
        world.level(level, 0);
    }
    assert_eq!(told(&mut world), []);
    world.here(50.0, 6.2);
    assert_eq!(told(&mut world), [], "it was told in this second");
    world.seconds(1);
    assert_eq!(told(&mut world), [(high, Because::True, vec![])]);
    world.twins.tell_again(|key| key == "rule/water/fill", &world.ks);
    world.drain();
    assert_eq!(told(&mut world).len(), 1);
    world.twins.tell_again(|key| key == "rule/water/other", &world.ks);
    world.twins.handle_resynced(Incarnation(9), &mut world.ks, Now { mono: Mono(0), wall: UnixMillis(0) });
    world.drain();
    assert_eq!(told(&mut world).len(), 1, "all that the cloud may have forgotten");
}

/// What the cloud was told of rules.
fn views(seen: &[Output]) -> Vec<RuleView> {
    let view = |output: &Output| {
        let Output::Up { class: bus::Class::State, key, payload } = output else { return None };
        key.starts_with("rule/").then(|| crate::twin::decode(payload).unwrap())
    };
    seen.iter().filter_map(view).collect()
}

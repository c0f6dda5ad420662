//! What happened to somebody, or might.

use super::*;
use crate::command::State;
use crate::twin::Availability;

impl World {
    fn works(&mut self) {
        self.mapper_works(Outcome::Succeeded);
    }

    fn position(&self) -> Option<f64> {
        self.device.get(&id("valve/position")).and_then(Value::as_f64)
    }

    /// What was told of a version or a command, in order.
    fn told_of(&self, about: &str) -> Vec<Outcome> {
        let is_it = |body: &&ResultBody| {
            body.version.is_some_and(|version| version.to_string() == about)
                || body.command.as_deref() == Some(about)
        };
        self.told.iter().filter(is_it).map(|body| body.outcome).collect()
    }

    fn command(&self, id: &str) -> (State, Option<Outcome>) {
        let command = self.commands().into_iter().find(|view| view.command.id.to_string() == id).unwrap();
        (command.state, command.outcome)
    }
}

#[test]
fn a_command_given_during_an_outage_does_not_move_the_valve_hours_later() {
    let mut world = World::running("");
    world.set("position", 30.0);
    world.works();
    assert_eq!(world.position(), Some(30.0));
    world.cut();
    world.set("position", 100.0);
    world.set("setPoint", 3.5);
    world.order(true, "open", 100.0, 60_000);
    world.pass(Duration::from_secs(5 * 3600));
    assert_eq!(
        world.command("open"),
        (State::Ended, Some(Outcome::Expired)),
        "known before the link is back"
    );
    heal(&mut world);
    assert_eq!(world.position(), Some(30.0), "unmoved");
    assert_eq!(world.device[&id("valve/setPoint")], Value::Float(3.5), "a setting arrives late");
    let ack = world.view("valve/position").ack.unwrap();
    assert_eq!((ack.outcome, ack.detail.as_str()), (Outcome::Expired, "5h old; rearm: set it again"));
    world.set("position", 100.0);
    world.works();
    assert_eq!(world.position(), Some(100.0));
    assert!(world.view("valve/position").converged && world.view("valve/setPoint").converged);
}

#[test]
fn what_the_cloud_wishes_while_the_site_has_taken_over_comes_back_superseded_and_moves_nothing() {
    let mut world = World::running("");
    world.set("setPoint", 3.0);
    world.works();
    world.cut();
    world.take(None);
    assert_eq!(world.set_here("valve/position", 60.0), Some(DesiredVersion { epoch: 1, seq: 1 }));
    world.works();
    world.set("position", 10.0);
    world.set("setPoint", 9.0);
    for _ in 0..3 {
        world.link();
        world.restart_edge();
        world.say("mapper/virtual/state", "online");
        world.link();
        world.works();
    }
    assert_eq!(
        (world.position(), world.view("valve/position").desired),
        (Some(60.0), Some(Value::Float(60.0)))
    );
    assert_eq!(world.view("valve/setPoint").desired, Some(Value::Float(3.0)), "still in force");
    assert_eq!(world.told_of("0.2"), [Outcome::Superseded], "the set point's second wish, once");
    assert_eq!(
        world.told_of("0.1"),
        [Outcome::Succeeded, Outcome::Superseded],
        "the set point's first, the position's"
    );
    assert!(world.wish(&[("valve/position", Some(5.0))]).is_err(), "the cloud knows by now");
    world.hand_back();
    assert!(world.wish(&[("valve/position", Some(5.0))]).is_ok());
    world.works();
    assert_eq!(world.position(), Some(5.0));
}

#[test]
fn a_refused_wish_stays_refused_when_the_edge_copies_its_metadata_anew() {
    let mut world = World::running("");
    world.cut();
    world.take(None);
    world.set("position", 10.0);
    world.compact();
    world.link();
    world.works();
    assert_eq!(world.told_of("0.1"), [Outcome::Superseded]);
    assert_eq!((world.position(), world.view("valve/position").desired), (None, None));
}

#[test]
fn both_take_over_during_a_partition_and_the_later_epoch_holds() {
    for edge_takes_twice in [false, true] {
        let mut world = World::running("");
        world.take(None);
        world.cut();
        world.set_here("valve/setPoint", 4.0);
        world.works();
        world.take_at_cloud();
        world.set("setPoint", 7.0);
        if edge_takes_twice {
            world.hand_back();
            world.take(None);
        }
        world.link();
        world.works();
        let (epoch, value) = if edge_takes_twice { (3, 4.0) } else { (2, 7.0) };
        let view = world.view("valve/setPoint");
        assert_eq!(
            (view.authority.epoch, view.desired),
            (epoch, Some(Value::Float(value))),
            "{edge_takes_twice}"
        );
        assert_eq!(world.device[&id("valve/setPoint")], Value::Float(value));
        let told = if edge_takes_twice { Outcome::Superseded } else { Outcome::Succeeded };
        assert_eq!(world.told_of("2.1"), [told]);
    }
}

#[test]
fn an_authority_for_an_hour_ends_by_itself_while_the_cloud_is_away() {
    let mut world = World::running("");
    world.cut();
    world.take(Some(Duration::from_secs(3600)));
    world.pass(Duration::from_secs(1800));
    world.restart_edge();
    world.pass(Duration::from_secs(1801));
    world.link();
    let authority = world.view("valve/position").authority;
    assert_eq!((authority.epoch, authority.reason.as_str()), (2, "its time is over"));
    assert!(world.wish(&[("valve/position", Some(5.0))]).is_ok());
}

#[test]
fn an_edge_with_a_new_disk_learns_of_its_authority_and_begins_without_wishes() {
    let mut world = World::running("");
    world.set("setPoint", 3.0);
    world.works();
    world.take(None);
    world.set_here("valve/position", 60.0);
    world.works();
    world.wipe_edge();
    heal(&mut world);
    world.say("twin/water/valve/report", r#"{"position": 60, "setPoint": 0}"#);
    for property in ["valve/position", "valve/setPoint"] {
        let view = world.view(property);
        assert_eq!(
            (view.authority.epoch, view.desired),
            (3, None),
            "who has the say takes it anew and wishes anew"
        );
    }
    assert!(world.set_here("valve/position", 70.0).is_some());
    world.works();
    assert_eq!(world.view("valve/position").desired, Some(Value::Float(70.0)));
}

#[test]
fn settings_outlive_a_change_of_hands_and_a_new_disk() {
    let mut world = World::running("");
    world.set("setPoint", 3.0);
    world.works();
    world.take(None);
    world.hand_back();
    world.device.clear();
    world.wipe_edge();
    heal(&mut world);
    assert_eq!(world.device.get(&id("valve/setPoint")), Some(&Value::Float(3.0)));
    assert!(world.view("valve/setPoint").converged);
}

#[test]
fn a_command_ends_as_the_edge_says_however_late_its_word_comes() {
    let mut world = World::running("");
    world.order(true, "c1", 40.0, 60_000);
    world.cut();
    world.works();
    assert_eq!(world.position(), Some(40.0));
    assert_eq!(world.command("c1").0, State::Executing);
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.command("c1"), (State::Unconfirmed, None));
    world.link();
    assert_eq!(world.command("c1"), (State::Ended, Some(Outcome::Succeeded)));
    assert_eq!(world.told_of("c1"), [Outcome::Succeeded]);
    assert_eq!(world.edge.commands(None, world.edge_now()), [], "nobody needs to remember it there");
}

#[test]
fn a_command_is_not_carried_out_again_by_an_edge_that_restarts_in_the_middle_of_it() {
    let mut world = World::running("");
    world.order(true, "c1", 40.0, 3_600_000);
    world.restart_edge();
    world.say("mapper/virtual/state", "online");
    heal(&mut world);
    assert_eq!(world.command("c1"), (State::Ended, Some(Outcome::Unknown)));
    assert_eq!(world.writes.len(), 1);
}

#[test]
fn a_command_that_comes_before_the_clock_and_too_late_after_it_ends_as_expired_on_both_sides() {
    let mut world = World::running("");
    world.cut();
    world.restart_edge();
    world.say("mapper/virtual/state", "online");
    world.order(true, "c1", 40.0, 5_000);
    world.pass(Duration::from_secs(4));
    world.link();
    world.works();
    assert_eq!(world.command("c1"), (State::Ended, Some(Outcome::Succeeded)), "in time");
    world.cut();
    world.order(true, "c2", 50.0, 5_000);
    world.pass(Duration::from_secs(5));
    world.link();
    world.works();
    assert_eq!(world.command("c2"), (State::Ended, Some(Outcome::Expired)));
    assert_eq!(world.position(), Some(40.0));
}

#[test]
fn two_valves_that_are_wished_as_one_move_together_or_not_at_all() {
    let mut world = World::running("");
    world.wish(&[("valve/position", Some(0.0)), ("drain/position", Some(100.0))]).unwrap();
    world.works();
    assert!(world.view("valve/position").converged && world.view("drain/position").converged);
    world.cut();
    world.wish(&[("valve/position", Some(50.0)), ("drain/position", Some(50.0))]).unwrap();
    world.set_here("drain/position", 70.0);
    world.works();
    world.pass(Duration::from_secs(5));
    world.link();
    world.works();
    assert_eq!(world.position(), Some(0.0), "the drain is held by an operator, so the valve stays too");
    for property in ["valve/position", "drain/position"] {
        let ack = world.view(property).ack.unwrap();
        assert_eq!((ack.version.seq, ack.outcome), (2, Outcome::Superseded), "{property}");
    }
    world.cut();
    world.wish(&[("valve/position", Some(60.0)), ("drain/position", Some(60.0))]).unwrap();
    world.wish(&[("drain/position", Some(61.0))]).unwrap();
    world.pass(Duration::from_secs(5));
    world.link();
    world.works();
    assert_eq!(world.position(), Some(0.0), "the drain was wished otherwise before the edge heard of both");
}

#[test]
fn a_device_is_unknown_to_the_cloud_while_its_edge_is_away() {
    let mut world = World::running("");
    let state = |world: &World| world.cloud.state(&valve()).map(|state| state.state);
    assert_eq!(state(&world), Some(Availability::Online));
    world.cut();
    assert_eq!(state(&world), Some(Availability::Unknown));
    world.link();
    assert_eq!(state(&world), Some(Availability::Online));
}

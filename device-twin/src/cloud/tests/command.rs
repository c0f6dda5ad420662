//! Commands as the cloud keeps them.

use serde_json::json;

use super::*;
use crate::command::{Account, MAX_ENDED, MAX_OPEN, MAX_REMEMBERED, Order, Progress, State};
use crate::twin::{Expiry, Said};

fn valve() -> DeviceId {
    position().device
}

fn row(id: &str) -> String {
    format!("/e/pump-house/command/water/valve/{id}")
}

impl World {
    fn order(&mut self, order: serde_json::Value) -> Result<String, String> {
        let order: Order = serde_json::from_value(order).unwrap();
        let taken = self.twins.order(&valve(), "set", order, "ann", &mut self.ks, self.now);
        self.drain();
        taken.map(|view| view.command.id.to_string()).map_err(|why| why.to_string())
    }

    /// A command for the position that is good for ten seconds.
    fn command(&mut self, id: &str) {
        self.order(json!({"id": id, "args": {"position": 40}, "ttlMs": 10_000})).unwrap();
    }

    fn account(&mut self, from: &str, id: &str, progress: Progress) {
        let account = Account { progress, detail: String::new(), at: UnixMillis(1) };
        self.up(from, LIFE, &format!("command/water/valve/{id}"), &cbor(&account));
    }

    fn state(&self, id: &str) -> Option<(State, Option<Outcome>)> {
        let views = self.twins.commands(Some(&valve()), self.now);
        let view = views.into_iter().find(|view| view.command.id.to_string() == id)?;
        Some((view.state, view.outcome))
    }

    fn has_row(&self, id: &str) -> bool {
        self.ks.get(&row(id)).is_some()
    }
}

#[test]
fn a_command_lies_where_its_edge_will_find_it_until_the_edge_tells_its_end() {
    let mut world = World::new();
    world.edge_up("pump-house");
    world.command("c1");
    assert_eq!((world.state("c1"), world.has_row("c1")), (Some((State::Accepted, None)), true));
    world.account("pump-house", "c1", Progress::Executing);
    assert_eq!(world.state("c1"), Some((State::Executing, None)));
    world.restart();
    assert_eq!(world.state("c1"), Some((State::Executing, None)));
    world.account("hill", "c1", Progress::Ended(Outcome::Failed));
    assert_eq!(world.state("c1"), Some((State::Executing, None)), "not another edge's affair");
    world.account("pump-house", "c1", Progress::Ended(Outcome::Succeeded));
    assert_eq!(
        (world.state("c1"), world.has_row("c1")),
        (Some((State::Ended, Some(Outcome::Succeeded))), false)
    );
    assert_eq!(world.results(), ["c1 Succeeded"]);
    world.account("pump-house", "c1", Progress::Ended(Outcome::Unknown));
    assert_eq!(world.state("c1"), Some((State::Ended, Some(Outcome::Succeeded))), "an end is an end");
    assert_eq!(world.results().len(), 1);
    world.restart();
    assert_eq!(world.state("c1"), Some((State::Ended, Some(Outcome::Succeeded))));
}

#[test]
fn what_is_no_command_is_refused() {
    let mut world = World::new();
    let before = world.ks.revision();
    let args = json!({"position": 40});
    for (order, why) in [
        (
            json!({"args": args}),
            "a command needs an expiry (ttlMs, or the message expiry of MQTT 5.0): without one it might act at any later time",
        ),
        (json!({"args": args, "ttlMs": 86_400_001}), "a command is good for at most 86400 s"),
        (json!({"ttlMs": 5}), "command 'set' names no property: give args"),
        (json!({"args": {"position": 101}, "ttlMs": 5}), "position: 101 is outside 0 to 100"),
        (json!({"args": {"flow": 1}, "ttlMs": 5}), "flow: the property is read-only"),
        (json!({"args": {"colour": 1}, "ttlMs": 5}), "'colour' is no property of 'set'"),
    ] {
        assert_eq!(world.order(order), Err(why.to_owned()));
    }
    let order: Order = serde_json::from_value(json!({"args": args, "ttlMs": 5})).unwrap();
    let spare: DeviceId = "water/spare".parse().unwrap();
    let unbound = world.twins.order(&spare, "set", order.clone(), "ann", &mut world.ks, NOW);
    assert_eq!(unbound, Err(OrderError::Unbound(spare)));
    let pump: DeviceId = "water/pump".parse().unwrap();
    assert!(matches!(
        world.twins.order(&pump, "set", order, "ann", &mut world.ks, NOW),
        Err(OrderError::Lookup(_))
    ));
    world.drain();
    assert_eq!((world.ks.revision(), world.seen.len()), (before, 0));
}

#[test]
fn a_command_whose_edge_was_away_all_the_time_ends_here() {
    let mut world = World::new();
    world.command("c1");
    world.pass(9);
    assert_eq!(world.state("c1"), Some((State::Accepted, None)));
    world.pass(1);
    assert_eq!(
        (world.state("c1"), world.has_row("c1")),
        (Some((State::Ended, Some(Outcome::Expired))), false)
    );
    assert_eq!(world.results(), ["c1 Expired: its edge was away until its time was over"]);
    world.command("c2");
    world.now.mono = world.now.mono + Duration::from_secs(10);
    world.now.wall = UnixMillis(world.now.wall.0 + 10_000);
    world.edge_up("pump-house");
    assert!(!world.has_row("c2"), "looked at before it is handed out");
}

#[test]
fn a_command_that_may_have_been_done_is_unconfirmed_until_its_edge_tells() {
    for (before, restarts) in [(true, false), (false, false), (true, true)] {
        let mut world = World::new();
        if before {
            world.edge_up("pump-house");
        }
        world.command("c1");
        if !before {
            world.edge_up("pump-house");
        }
        world.edge_down("pump-house");
        if restarts {
            world.restart();
        }
        world.pass(3_600);
        assert_eq!((world.state("c1"), world.has_row("c1")), (Some((State::Unconfirmed, None)), true));
        world.edge_up("pump-house");
        world.account("pump-house", "c1", Progress::Ended(Outcome::Succeeded));
        assert_eq!(world.state("c1"), Some((State::Ended, Some(Outcome::Succeeded))));
    }
}

#[test]
fn the_same_order_again_is_the_same_command_and_another_one_is_refused() {
    let mut world = World::new();
    world.edge_up("pump-house");
    world.command("c1");
    world.command("c1");
    world.account("pump-house", "c1", Progress::Ended(Outcome::Succeeded));
    world.pass(5);
    world.seen.clear();
    world.command("c1");
    assert_eq!(
        (world.has_row("c1"), world.results()),
        (false, vec!["c1 Succeeded".to_owned()]),
        "answered again"
    );
    let other = json!({"id": "c1", "args": {"position": 41}, "ttlMs": 10_000});
    assert_eq!(world.order(other), Err("id c1 was another command; ids are given once".to_owned()));
}

#[test]
fn so_many_are_on_their_way_and_so_many_are_remembered() {
    let mut world = World::new();
    world.edge_up("pump-house");
    for n in 0..MAX_OPEN {
        world.command(&format!("o{n}"));
    }
    let order = |id: &str| json!({"id": id, "args": {"position": 40}, "ttlMs": 10_000});
    assert_eq!(
        world.order(order("x")),
        Err("64 commands are on their way to water/valve already".to_owned())
    );
    for n in 0..MAX_OPEN {
        world.account("pump-house", &format!("o{n}"), Progress::Ended(Outcome::Succeeded));
    }
    for n in MAX_OPEN..MAX_REMEMBERED {
        world.command(&format!("o{n}"));
        world.account("pump-house", &format!("o{n}"), Progress::Ended(Outcome::Succeeded));
    }
    world.command("o0");
    assert!(!world.has_row("o0"), "known as long as it might come again, among a thousand");
    let full = "1024 commands of water/valve are remembered already; send it again later";
    assert_eq!(world.order(order("x")), Err(full.to_owned()));
    world.pass(10);
    world.command("x");
    world.account("pump-house", "x", Progress::Ended(Outcome::Succeeded));
    assert_eq!(world.twins.commands(None, world.now).len(), MAX_ENDED);
    assert_eq!(world.ks.range("/c/command/").count(), MAX_ENDED);
}

#[test]
fn commands_do_not_move_with_their_device() {
    let mut world = World::new();
    world.edge_up("pump-house");
    world.command("c1");
    world.edge_down("pump-house");
    world.command("c2");
    world.apply(VALVE, &MANIFESTS[1].1.replace("pump-house", "hill"));
    assert_eq!(
        world.results(),
        [
            "c1 Unknown: the device moved to another edge",
            "c2 Superseded: the device moved to another edge before it was handed out"
        ]
    );
    assert_eq!(world.ks.range("/e/").filter(|(key, _)| key.as_str().contains("/command/")).count(), 0);
    world.account("pump-house", "c1", Progress::Ended(Outcome::Succeeded));
    assert_eq!(world.state("c1"), Some((State::Ended, Some(Outcome::Unknown))));
    world.pass(60);
    assert_eq!(world.results().len(), 2);
}

#[test]
fn commands_are_forgotten_with_their_device() {
    let mut world = World::new();
    world.command("c1");
    world.delete(VALVE);
    assert_eq!(world.twins.commands(None, world.now), []);
    assert_eq!(world.ks.range("/c/command/").count(), 0);
    assert!(!world.has_row("c1"));
    world.pass(60);
    assert_eq!(world.results(), Vec::<String>::new());
}

#[test]
fn the_end_of_a_command_that_was_given_at_the_edge_is_told_and_not_kept() {
    let mut world = World::new();
    world.account("pump-house", "c1", Progress::Ended(Outcome::Succeeded));
    assert_eq!((world.results(), world.state("c1")), (vec!["c1 Succeeded".to_owned()], None));
}

#[test]
fn an_app_orders_over_mqtt_and_its_messages_expiry_will_do() {
    let mut world = World::new();
    let mut say = |payload: &str, expiry: Option<u64>| {
        let topic = Topic::new("twin/water/valve/command/set").unwrap();
        let expiry = expiry.map(|s| Expiry(Duration::from_secs(s)));
        world.twins.handle_mqtt(
            Some(Ticket(3)),
            &Who::Anonymous,
            &topic,
            Said { expiry, ..Said::plain(payload.as_bytes()) },
            &mut world.ks,
            world.now,
        );
        world.drain();
        world.seen.pop()
    };
    assert_eq!(say(r#"{"id": "c1", "args": {"position": 40}}"#, Some(5)), Some(Output::Accept(Ticket(3))));
    assert!(matches!(say(r#"{"id": "c2", "args": {"position": 40}}"#, None), Some(Output::Reject(..))));
    assert!(matches!(say("{", Some(5)), Some(Output::Reject(..))));
    assert_eq!(world.twins.commands(None, world.now).len(), 1);
    assert_eq!(world.results().len(), 2, "refusals are told to whoever watches");
}

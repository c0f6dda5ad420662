//! What is said of a device while its edge is away.

use super::*;

const TOPIC: &str = "twin/water/valve/state";

impl World {
    fn tell_state(&mut self, from: &str, state: Availability) {
        let state = DeviceState { state, reason: String::new(), last_seen: Some(UnixMillis(1)) };
        self.up(from, LIFE, "state/water/valve", &cbor(&state));
    }

    fn retained_state(&self) -> Option<(String, u64)> {
        let state = self.retained(TOPIC)?;
        Some((state["state"].as_str()?.to_owned(), state["last_seen"].as_u64()?))
    }
}

#[test]
fn a_device_is_unknown_while_its_edge_is_away_and_was_seen_last_when_it_was_read() {
    let mut world = World::new();
    assert_eq!(world.twins.state(&position().device), None, "its edge never said anything");
    world.edge_up("pump-house");
    world.tell_state("pump-house", Availability::Online);
    assert_eq!(world.retained_state(), Some(("online".to_owned(), 1)));
    world.report(9, 1, 40.0, None);
    world.edge_down("pump-house");
    assert_eq!(world.retained_state(), Some(("unknown".to_owned(), 3)));
    assert_eq!(world.retained(TOPIC).unwrap()["reason"], "edge/pump-house is not connected");
    assert_eq!(world.view().state, world.twins.state(&position().device));
    world.edge_up("pump-house");
    assert_eq!(world.retained_state(), Some(("online".to_owned(), 3)));
    world.restart();
    assert_eq!(world.retained_state(), Some(("unknown".to_owned(), 3)), "nobody is connected yet");
    let told = topics(&world.seen).into_iter().filter(|topic| topic == TOPIC).count();
    assert_eq!(told, 4, "once a change, and once at the start");
}

#[test]
fn what_one_edge_says_of_its_devices_has_nothing_to_do_with_another() {
    let mut world = World::new();
    world.edge_up("pump-house");
    world.tell_state("pump-house", Availability::Online);
    world.seen.clear();
    world.edge_up("hill");
    world.edge_down("hill");
    assert_eq!(world.seen, []);
}

#[test]
fn a_device_that_moves_to_an_edge_that_is_away_is_unknown() {
    let mut world = World::new();
    world.edge_up("pump-house");
    world.tell_state("pump-house", Availability::Online);
    world.apply(VALVE, &MANIFESTS[1].1.replace("pump-house", "hill"));
    assert_eq!(world.retained_state(), Some(("unknown".to_owned(), 1)));
    world.edge_up("hill");
    world.tell_state("hill", Availability::Degraded);
    assert_eq!(world.retained_state(), Some(("degraded".to_owned(), 1)));
}

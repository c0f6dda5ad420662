//! The world repeats itself, honest nodes pass, and bugs that are built in are found.

use simulations::{Bug, RunReport, World, fleet};

fn play(seed: u64, bug: Bug) -> RunReport {
    World::new(seed, bug, false).run()
}

/// The invariants that this bug violates in some worlds.
fn found(bug: Bug, seeds: u64) -> Vec<&'static str> {
    let mut found: Vec<_> = (1..=seeds)
        .filter_map(|seed| play(seed, bug).violation.map(|violation| violation.invariant))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let (one, other) = (fleet::play(5, true), fleet::play(5, true));
    assert_eq!(one, other);
    assert_ne!(one.hash, play(6, Bug::None).hash);
}

#[test]
fn honest_nodes_violate_nothing() {
    let total = fleet::play_all(1000, 4);
    assert_eq!(total.failures, []);
    let asked_in_the_end = total.asked.keys().filter(|what| what.starts_with("in the end")).count();
    assert_eq!(asked_in_the_end, 12, "{:?}", total.asked);
}

#[test]
fn a_node_that_speaks_before_its_disk_is_found() {
    assert_eq!(found(Bug::SpeaksBeforeDurable, 3), ["nothing is said before it is durable"]);
}

#[test]
fn old_wishes_that_look_fresh_are_found() {
    assert_eq!(found(Bug::StopsCloudTime, 16), ["only a fresh decision moves an actuator"]);
}

#[test]
fn a_batch_that_arrives_in_part_is_found() {
    assert_eq!(found(Bug::TearsBatches, 3), ["a batch is visible whole or not at all"]);
}

#[test]
fn numbers_that_are_given_out_twice_are_found() {
    let found = found(Bug::ForgetsNumbers, 8);
    let known =
        ["a write id is carried out once", "no version goes back", "nothing is said before it is durable"];
    assert!(!found.is_empty() && found.iter().all(|what| known.contains(what)), "{found:?}");
}

#[test]
fn commands_that_an_edge_forgets_are_found() {
    let found = found(Bug::ForgetsCommands, 12);
    let known = ["an ended command keeps its outcome", "a command is carried out once"];
    assert!(!found.is_empty() && found.iter().all(|what| known.contains(what)), "{found:?}");
}

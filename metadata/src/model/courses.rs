//! Which faults are tried together, and how many of each.

use std::collections::BTreeSet;

use bus::Class;
use stateright::{Checker as _, HasDiscoveries, Model as _};

use super::action::{Action, Budget, Side, Wish};
use super::plant::Plant;
use super::{AGREE, FORWARD, KEPT, Sync, WHOLE, check};

/// One set of events to try in every order. `near` is explored whole with every test run; of `far` the nearest
/// [`FAR_LIMIT`] states, by the slow suite.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) name: &'static str,
    pub(super) wishes: &'static [Wish],
    pub(super) classes: &'static [Class],
    /// Transactions that a disk may have under way before the next cycle waits.
    pub(super) pipeline: usize,
    near: Budget,
    far: Budget,
}

/// Half a minute each and 1 GB.
const FAR_LIMIT: usize = 300_000;

const NONE: Budget = Budget {
    writes: 0,
    pushes: 0,
    reorders: 0,
    duplicates: 0,
    drops: 0,
    cuts: 0,
    cloud_crashes: 0,
    edge_crashes: 0,
    wipes: 0,
    copies: 0,
    exchanges: 0,
    backups: 0,
    restores: 0,
    returns: 0,
    compactions: 0,
    waits: 0,
};

const REORDER: Course = Course {
    name: "reorder and duplicate",
    wishes: &[Wish::Pair],
    classes: &[Class::Event],
    pipeline: 1,
    near: Budget { writes: 2, pushes: 1, reorders: 1, duplicates: 1, ..NONE },
    far: Budget { writes: 3, pushes: 2, reorders: 2, duplicates: 2, ..NONE },
};

const HELLOS: Course = Course {
    name: "hellos said again",
    wishes: &[Wish::Pair],
    classes: &[Class::Event],
    pipeline: 1,
    near: Budget { pushes: 1, reorders: 1, duplicates: 1, waits: 1, ..NONE },
    far: Budget { writes: 1, pushes: 1, reorders: 2, duplicates: 2, waits: 2, ..NONE },
};

const LOSS: Course = Course {
    name: "loss",
    wishes: &[Wish::Pair],
    classes: &[Class::State],
    pipeline: 1,
    near: Budget { writes: 1, pushes: 1, drops: 1, waits: 1, ..NONE },
    far: Budget { writes: 3, pushes: 2, drops: 3, waits: 2, ..NONE },
};

const CRASH: Course = Course {
    name: "crashes",
    wishes: &[Wish::Pair],
    classes: &[Class::Event],
    pipeline: 1,
    near: Budget { pushes: 1, cloud_crashes: 1, edge_crashes: 1, ..NONE },
    far: Budget { writes: 2, pushes: 2, cuts: 1, cloud_crashes: 2, edge_crashes: 2, ..NONE },
};

const WIPE: Course = Course {
    name: "crash and wipe",
    wishes: &[Wish::Pair],
    classes: &[Class::State, Class::Event],
    pipeline: 1,
    near: Budget { writes: 1, pushes: 1, edge_crashes: 1, wipes: 1, ..NONE },
    far: Budget { writes: 2, pushes: 2, cuts: 1, cloud_crashes: 1, edge_crashes: 1, wipes: 1, ..NONE },
};

const COMPACTION: Course = Course {
    name: "compaction during a partition",
    wishes: &[Wish::Pair, Wish::NoPair],
    classes: &[],
    pipeline: 1,
    near: Budget { writes: 2, cuts: 1, compactions: 1, ..NONE },
    far: Budget { writes: 4, cuts: 2, compactions: 2, ..NONE },
};

const SCOPES: Course = Course {
    name: "one edge and all edges",
    wishes: &[Wish::Pair, Wish::NoPair, Wish::ForAll, Wish::NoneForAll],
    classes: &[],
    pipeline: 1,
    near: Budget { writes: 3, drops: 1, ..NONE },
    far: Budget { writes: 4, cuts: 1, compactions: 1, ..NONE },
};

const PARTS: Course = Course {
    name: "parts",
    wishes: &[Wish::LargePair, Wish::NoPair],
    classes: &[],
    pipeline: 1,
    near: Budget { writes: 2, drops: 1, ..NONE },
    far: Budget { writes: 2, drops: 1, duplicates: 1, cuts: 1, ..NONE },
};

const PIPELINE: Course = Course {
    name: "cycles while the disk writes",
    wishes: &[Wish::Pair],
    classes: &[Class::Event],
    pipeline: 2,
    near: Budget { writes: 1, pushes: 1, cloud_crashes: 1, ..NONE },
    far: Budget { writes: 2, pushes: 2, cuts: 1, cloud_crashes: 1, edge_crashes: 1, ..NONE },
};

const OLD_DISK: Course = Course {
    name: "old and exchanged disks",
    wishes: &[Wish::Pair],
    classes: &[Class::Event],
    pipeline: 1,
    near: Budget { pushes: 2, copies: 1, exchanges: 1, ..NONE },
    far: Budget { writes: 1, pushes: 3, copies: 1, exchanges: 2, ..NONE },
};

const RESTORE: Course = Course {
    name: "restore",
    wishes: &[Wish::Pair],
    classes: &[Class::Event],
    pipeline: 1,
    near: Budget { writes: 1, pushes: 1, backups: 1, restores: 1, ..NONE },
    far: Budget { writes: 2, pushes: 2, cuts: 1, backups: 1, restores: 1, ..NONE },
};

const RETURN: Course = Course {
    name: "return of the cloud before the restore",
    wishes: &[Wish::Pair],
    classes: &[Class::Event],
    pipeline: 1,
    near: Budget { writes: 1, backups: 1, restores: 1, returns: 1, ..NONE },
    far: Budget { writes: 2, pushes: 1, cuts: 1, backups: 1, restores: 1, returns: 1, ..NONE },
};

fn near(course: &Course) {
    check(course, course.near, usize::MAX);
}

#[test]
fn messages_may_overtake_each_other_and_come_twice() {
    near(&REORDER);
}

#[test]
fn a_hello_may_be_said_again_before_the_first_arrives() {
    near(&HELLOS);
}

#[test]
fn messages_may_be_lost() {
    near(&LOSS);
}

#[test]
fn both_sides_may_lose_power() {
    near(&CRASH);
}

#[test]
fn the_edge_may_lose_its_disk() {
    near(&WIPE);
}

#[test]
fn deletions_may_be_forgotten_while_the_edge_is_away() {
    near(&COMPACTION);
}

#[test]
fn one_name_may_be_told_to_one_edge_and_to_all() {
    near(&SCOPES);
}

#[test]
fn a_batch_may_come_in_parts() {
    near(&PARTS);
}

#[test]
fn cycles_may_run_while_the_disk_writes() {
    near(&PIPELINE);
}

#[test]
fn disks_may_be_exchanged_for_old_copies() {
    near(&OLD_DISK);
}

#[test]
fn a_cloud_may_be_put_back_to_a_backup() {
    near(&RESTORE);
}

#[test]
fn a_cloud_may_come_again_after_another_took_over() {
    near(&RETURN);
}

#[test]
#[ignore = "ten minutes: for the slow suite"]
fn further_off_all_holds_too() {
    for course in
        [REORDER, HELLOS, LOSS, CRASH, WIPE, COMPACTION, SCOPES, PARTS, PIPELINE, OLD_DISK, RESTORE, RETURN]
    {
        check(&course, course.far, FAR_LIMIT);
    }
}

/// The events that lead to where this property is not held, with this bug planted.
fn finds(course: &Course, plant: Plant, property: &'static str) -> Option<Vec<Action>> {
    let found = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = Sync::new(course, course.near, Some(plant)).checker().finish_when(found).spawn_bfs().join();
    Some(checker.discovery(property)?.into_actions())
}

#[test]
fn an_edge_that_applies_parts_alone_is_found() {
    let trace = finds(&PARTS, Plant::AppliesParts, WHOLE).unwrap();
    assert_eq!(trace.last(), Some(&Action::Deliver { to: Side::Edge, at: 0 }));
}

#[test]
fn a_node_that_speaks_before_its_disk_is_found() {
    let trace = finds(&PIPELINE, Plant::SpeaksEarly, FORWARD).unwrap();
    assert!(trace.contains(&Action::Crash { side: Side::Cloud, landed: 0 }));
}

#[test]
fn a_cloud_that_forgets_what_it_took_is_found() {
    let trace = finds(&PIPELINE, Plant::ForgetsInbox, KEPT).unwrap();
    assert!(
        trace.iter().any(|action| matches!(action, Action::Crash { side: Side::Cloud, .. })),
        "{trace:?}"
    );
}

#[test]
fn stopped_clocks_are_found() {
    let trace = finds(&LOSS, Plant::StopsClocks, AGREE).unwrap();
    assert!(trace.iter().any(|action| matches!(action, Action::Drop { .. })));
}

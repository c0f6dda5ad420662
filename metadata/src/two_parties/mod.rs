//! Cloud and edges joined by links that break, on disks that lose what was not synced: after all faults end, both
//! sides agree.

mod check;
pub(crate) mod host;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use self::world::{World, key};
use crate::Revision;
use crate::outbox::MAX_TELEMETRY_ENTRIES;
use bus::Class;

#[derive(Clone, Copy)]
struct Faults {
    cuts: u64,
    crashes: u64,
    wipes: u64,
    losses: u64,
    /// Damages to an edge's copy.
    damages: u64,
    /// Time passes while frames wait.
    waits: u64,
    /// Edges put back to a copy, memory and all or the disk alone; machines that take turns under one name; disks
    /// that die under a process that goes on.
    copies: u64,
    /// The largest value written at the cloud, in bytes.
    size: u64,
}

/// Nothing fails, and time stands still while frames are under way.
const CALM: Faults =
    Faults { cuts: 0, crashes: 0, wipes: 0, losses: 0, damages: 0, waits: 0, copies: 0, size: 64 };

fn run(seed: u64, steps: u64, faults: Faults) -> World {
    let mut world = World::new(seed, 3);
    for _ in 0..steps {
        step(&mut world, faults);
    }
    world.settle();
    world.check_quiet();
    world
}

/// One event, drawn by weight.
fn step(world: &mut World, faults: Faults) {
    let at = world.below(3) as usize;
    let Faults { cuts, crashes, wipes, losses, damages, waits, copies, size } = faults;
    let often = [8, 4, 4, 4, 30, 30, 12, 12, 20, 1, 8];
    let faulty =
        [waits, cuts, crashes, crashes, wipes, losses, copies.min(1), copies, copies, copies, damages];
    let weights = [often, faulty].concat();
    let mut draw = world.below(weights.iter().sum());
    let event = weights.iter().position(|weight| {
        let hit = draw < *weight;
        draw = draw.saturating_sub(*weight);
        hit
    });
    match event.unwrap() {
        0 => {
            let writes = 1 + world.below(6);
            world.cloud_writes(writes, size);
        }
        1 => world.push(at, Class::State),
        2 => world.push(at, Class::Event),
        3 => world.push(at, Class::Telemetry),
        4 => drop(world.deliver_up(at)),
        5 => drop(world.deliver_down(at)),
        6 => world.sync_cloud(),
        7 => world.sync_edge(at),
        8 => world.connect(at),
        9 => {
            let before = Revision(world.below(world.cloud.ks.revision().0 + 2));
            world.cloud.ks.compact(before);
            world.end_cloud_cycle();
        }
        10 => drop(world.run_once()),
        11 => world.pass(Duration::from_secs(13)),
        12 => world.cut(at),
        13 => world.crash_edge(at),
        14 => world.crash_cloud(),
        15 => world.wipe_edge(at),
        16 => world.lose(at),
        17 => world.copy_edge(at),
        18 => {
            let running = world.below(2) == 0;
            world.put_back_edge(at, running);
        }
        19 => {
            let running = world.below(2) == 0;
            world.take_turns(at, running);
        }
        20 => world.kill_disk(at),
        _ => world.damage(at),
    }
}

#[test]
fn without_faults_all_is_streamed_and_nothing_nacked() {
    for seed in 0..20 {
        let world = run(seed, 600, CALM);
        let stats = world.cloud.core.stats();
        assert_eq!((stats.nacks, stats.stalls, stats.misbehaved), (0, 0, 0), "seed {seed}");
        assert_eq!(world.incarnations, 0);
    }
}

#[test]
fn breaking_links_lose_nothing() {
    for seed in 0..60 {
        let world = run(1000 + seed, 600, Faults { waits: 2, cuts: 12, ..CALM });
        assert_eq!(world.incarnations, 0);
    }
}

#[test]
fn crashes_on_both_sides_lose_nothing_that_was_durable() {
    for seed in 0..100 {
        run(2000 + seed, 800, Faults { waits: 2, cuts: 6, crashes: 5, ..CALM });
    }
}

#[test]
fn large_values_go_in_parts_while_all_breaks() {
    for seed in 0..40 {
        run(3000 + seed, 800, Faults { waits: 2, cuts: 5, crashes: 3, size: 30_000, ..CALM });
    }
}

#[test]
fn frames_lost_between_link_and_core_are_found() {
    for seed in 0..60 {
        run(4000 + seed, 800, Faults { waits: 2, cuts: 3, losses: 25, size: 8_000, ..CALM });
    }
}

#[test]
fn wiped_disks_are_seen_and_resynced() {
    let mut seen = 0;
    for seed in 0..40 {
        let world = run(
            5000 + seed,
            800,
            Faults { waits: 2, cuts: 6, crashes: 3, wipes: 3, losses: 3, size: 3_000, ..CALM },
        );
        seen += world.incarnations;
    }
    assert!(seen > 20, "{seen} wiped disks seen");
}

#[test]
fn a_cloud_restored_from_a_backup_is_not_mistaken_for_the_one_before() {
    for seed in 0..20 {
        let mut world = World::new(6000 + seed, 3);
        world.cloud_writes(20, 64);
        world.settle();
        let backup = world.cloud.store.clone();
        world.cloud.ks.put(key("/all/after-the-backup"), "1".into());
        world.end_cloud_cycle();
        world.settle();
        let ahead = world.edges[0].host.core.applied();
        world.start_cloud(backup);
        // Past the edges' revision, so that the number alone would look fine.
        while world.cloud.ks.revision() <= ahead.revision {
            world.cloud_writes(1, 64);
        }
        let before = world.resyncs;
        world.settle();
        world.check_quiet();
        assert_eq!(world.resyncs - before, 3, "seed {seed}");
    }
}

#[test]
fn an_edge_put_back_to_a_copy_of_its_disk_loses_nothing_it_says_from_then_on() {
    for seed in 0..4 {
        let mut world = World::new(8000 + seed, 3);
        world.push(0, Class::Event);
        world.cloud_writes(5, 64);
        world.settle();
        world.copy_edge(0);
        // Past the numbers reserved on the copy.
        (0..2000).for_each(|_| world.push(0, Class::Event));
        world.settle();
        world.put_back_edge(0, false);
        (0..10).for_each(|_| world.push(0, Class::Event));
        world.settle();
        world.check_quiet();
        assert_eq!((world.incarnations, world.resyncs), (1, 4), "seed {seed}");
    }
}

#[test]
fn copies_clones_and_dead_disks_lose_nothing_that_is_said_from_then_on() {
    let mut seen = 0;
    for seed in 0..200 {
        let faults = Faults { waits: 2, cuts: 6, crashes: 3, losses: 3, copies: 3, ..CALM };
        seen += run(10_000 + seed, 800, faults).incarnations;
    }
    assert!(seen > 100, "{seen} other disks seen");
}

/// The copy has the last receipt, and numbers on past what the original said before anybody hears of it.
#[test]
fn a_copy_made_within_a_session_is_found_though_it_numbered_past_the_original() {
    for running in [false, true] {
        let mut world = World::new(13, 1);
        world.settle();
        world.copy_edge(0);
        (0..5).for_each(|_| world.push(0, Class::Event));
        world.settle();
        world.put_back_edge(0, running);
        (0..2000).for_each(|_| world.push(0, Class::Event));
        world.settle();
        world.check_quiet();
        assert_eq!(world.incarnations, 1);
    }
}

#[test]
fn damaged_copies_are_mended_while_all_breaks() {
    let mut repairs = 0;
    for seed in 0..60 {
        let faults = Faults { waits: 2, cuts: 8, crashes: 1, losses: 2, damages: 8, size: 3_000, ..CALM };
        let mut world = World::new(17_000 + seed, 3);
        (0..600).for_each(|_| step(&mut world, faults));
        world.settle();
        world.pass(crate::feed::BOOKMARK_INTERVAL);
        world.settle();
        world.check_quiet();
        repairs += world.repairs;
    }
    assert!(repairs > 100, "{repairs} repairs");
}

#[test]
fn a_damaged_copy_is_noticed_at_the_next_bookmark_or_hello_and_what_is_sound_does_not_travel() {
    for (relinks, damage) in (0..6).map(|n| (n % 2 == 0, n / 2)) {
        let mut world = World::new(18, 2);
        for n in 0..2000 {
            world.cloud.ks.put(key(&format!("/e/edge-0/k{n}")), vec![1; 50].into());
        }
        world.end_cloud_cycle();
        world.settle();
        world.damages = true;
        let ks = &mut world.edges[0].host.ks;
        match damage {
            0 => ks.put(key("/m/k7"), "other".into()),
            1 => ks.delete(&key("/m/k7")),
            _ => ks.put(key("/m/foreign"), "1".into()),
        }
        world.end_edge_cycle(0);
        world.settle();
        assert_eq!(world.repairs, 0, "nobody looked");
        let resyncs = world.resyncs;
        if relinks {
            world.cut(0);
            world.connect(0);
        } else {
            world.pass(crate::feed::BOOKMARK_INTERVAL);
        }
        let bytes = world.run_counting(0);
        world.check_quiet();
        assert_eq!((world.repairs, world.resyncs - resyncs), (1, 0));
        assert_eq!(world.cloud.core.stats().repairs, 1);
        assert!(bytes < 2000, "{bytes} bytes of 120,000");
    }
}

#[test]
fn a_busy_edge_is_checked_too() {
    let mut world = World::new(19, 1);
    world.settle();
    world.damage(0);
    for n in 0..25_u8 {
        world.cloud.ks.put(key("/e/edge-0/busy"), vec![n].into());
        world.end_cloud_cycle();
        world.run_counting(0);
        world.pass(Duration::from_secs(29));
    }
    world.check_quiet();
    assert_eq!(world.repairs, 1);
}

#[test]
fn two_machines_that_take_turns_under_one_name_both_are_heard() {
    let mut world = World::new(14, 1);
    world.push(0, Class::Event);
    world.settle();
    for _ in 0..10 {
        (0..3).for_each(|_| world.push(0, Class::Event));
        world.settle();
        world.check_quiet();
        world.take_turns(0, true);
    }
    assert_eq!(world.cloud.core.stats().renewals, 1);
}

/// A welcome is durable at the cloud first, then at the edge: wherever power is lost in between, the disk stays known.
#[test]
fn a_crash_while_a_receipt_is_given_costs_no_new_incarnation() {
    for (seed, crash) in (0..60).flat_map(|seed| [(seed, false), (seed, true)]) {
        let mut world = World::new(15_000 + seed, 1);
        world.push(0, Class::Event);
        world.settle();
        for _ in 0..4 {
            world.push(0, Class::Event);
            world.cut(0);
            world.connect(0);
            for _ in 0..seed % 12 {
                match world.below(4) {
                    0 => world.sync_edge(0),
                    1 => world.sync_cloud(),
                    2 => drop(world.deliver_up(0)),
                    _ => drop(world.deliver_down(0)),
                }
            }
            if crash { world.crash_edge(0) } else { world.crash_cloud() }
        }
        world.settle();
        world.check_quiet();
        assert_eq!((world.incarnations, world.cloud.core.stats().renewals), (0, 0), "seed {seed}");
    }
}

#[test]
fn an_outlived_cloud_is_not_followed_any_more() {
    let mut world = World::new(16, 2);
    world.cloud_writes(20, 64);
    world.settle();
    let old = world.cloud.store.clone();
    world.start_cloud(old.clone());
    crate::epoch::set(&mut world.cloud.ks, 2);
    world.cloud_writes(5, 64);
    world.settle();
    world.check_quiet();
    let followed: Vec<_> = world.edges.iter().map(|edge| edge.host.core.applied()).collect();
    world.start_cloud(old);
    world.cloud_writes(50, 64);
    world.settle();
    assert_eq!(world.superseded, 2);
    let now: Vec<_> = world.edges.iter().map(|edge| edge.host.core.applied()).collect();
    assert_eq!(now, followed);
}

#[test]
fn what_is_meant_for_one_edge_goes_before_what_is_meant_for_all() {
    let mut world = World::new(1, 3);
    world.cloud.ks.put(key("/all/x"), "all".into());
    world.cloud.ks.put(key("/e/edge-0/x"), "own".into());
    world.end_cloud_cycle();
    world.settle();
    world.check_quiet();
    assert_eq!(world.edges[0].copy()["x"], "own");
    world.cloud.ks.delete(&key("/e/edge-0/x"));
    world.end_cloud_cycle();
    world.settle();
    world.check_quiet();
    assert_eq!(world.edges[0].copy()["x"], "all");
}

#[test]
fn the_same_seed_makes_the_same_history() {
    let faults =
        Faults { waits: 2, cuts: 6, crashes: 3, wipes: 1, losses: 5, damages: 1, copies: 1, size: 2_000 };
    let (one, two) = (run(7, 1500, faults), run(7, 1500, faults));
    let rows = |world: &World| world.cloud.ks.rows().collect::<Vec<_>>();
    assert_eq!(rows(&one), rows(&two));
}

#[test]
fn an_edge_that_slept_past_compaction_gets_one_snapshot() {
    let mut world = World::new(9, 3);
    world.cloud_writes(10, 64);
    world.settle();
    world.cut(0);
    for _ in 0..30 {
        world.cloud_writes(3, 64);
    }
    world.run();
    let before = world.cloud.ks.revision();
    world.cloud.ks.compact(before);
    world.end_cloud_cycle();
    let resyncs = world.resyncs;
    world.settle();
    world.check_quiet();
    assert_eq!(world.resyncs - resyncs, 1);
}

#[test]
fn a_far_behind_edge_is_caught_up_in_one_commit_without_flooding_the_link() {
    let mut world = World::new(10, 1);
    world.settle();
    for n in 0..200 {
        // Does not compress.
        let value: Vec<u8> = (0..3000).map(|_| world.below(256) as u8).collect();
        world.cloud.ks.put(key(&format!("/e/edge-0/{n}")), value.into());
        world.end_cloud_cycle();
    }
    world.sync_cloud();
    let before = world.edges[0].host.ks.revision();
    let (mut most, mut seen) = (0, BTreeSet::new());
    loop {
        most = most.max(world.bytes_down(0));
        if !world.deliver_down(0) {
            break;
        }
        seen.insert(world.edges[0].copy().len());
        world.sync_edge(0);
        while world.deliver_up(0) {}
        world.sync_cloud();
    }
    world.check_quiet();
    assert!(
        (33 << 10..60 << 10).contains(&most),
        "{most} bytes under way: more takes over 160 ms of 3 Mbit/s"
    );
    // Eight revisions went as they came, until the window was full; all others as one.
    assert_eq!(seen, BTreeSet::from([1, 2, 3, 4, 5, 6, 7, 8, 200]));
    assert_eq!(world.edges[0].host.ks.revision().0 - before.0, 9);
}

#[test]
fn a_ring_that_overflowed_names_exactly_what_is_missing() {
    let mut world = World::new(12, 1);
    world.settle();
    let push = |world: &mut World, times: usize| (0..times).for_each(|_| world.push(0, Class::Telemetry));
    push(&mut world, 200);
    world.sync_edge(0);
    // Some arrive, but the edge does not get to know.
    (0..2).for_each(|_| assert!(world.deliver_up(0)));
    world.cut(0);
    push(&mut world, MAX_TELEMETRY_ENTRIES);
    world.crash_edge(0);
    push(&mut world, 50);
    world.settle();
    world.check_quiet();
}

#[test]
fn a_quiet_edge_is_moved_on_by_bookmarks() {
    let mut world = World::new(11, 2);
    world.settle();
    let other = key("/e/edge-1/x");
    world.cloud.ks.put(other, "1".into());
    world.end_cloud_cycle();
    world.settle();
    let applied = world.edges[0].host.core.applied().revision;
    assert!(applied < world.cloud.ks.revision());
    world.pass(Duration::from_secs(600));
    world.settle();
    assert_eq!(world.edges[0].host.core.applied().revision, world.cloud.ks.revision());
}

//! Run with `--nocapture` to see the figures.

use super::figures::Part;
use super::*;

/// How long an interactive packet may wait, 99 of 100.
const BOUND: Duration = Duration::from_millis(30);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Runs and shows what is left after the first 15 seconds.
fn settled(name: &str, scenario: &Scenario) -> (Figures, Part) {
    let figures = run(scenario);
    let part = figures.part(15..scenario.length.as_secs() as usize);
    println!("{name}: {part}; first 5 s {}", figures.part(0..5));
    (figures, part)
}

fn assert_good(name: &str, part: &Part, figures: &Figures) {
    assert!(part.share >= 0.92 && part.p99 < BOUND, "{name}: {part}\n{}", figures.trace());
}

#[test]
fn bulk_fills_a_thin_link_and_a_ping_hardly_waits() {
    for (rtt, loss, flows) in [(20, 0, 4), (100, 0, 1), (100, 0, 4), (100, 10, 8), (300, 0, 1), (300, 10, 8)]
    {
        let name = format!("3 Mbit/s, {rtt} ms, {} % loss, {flows} flows", loss / 10);
        let (figures, part) = settled(&name, &Scenario { loss, flows, ..Scenario::thin(rtt) });
        assert_good(&name, &part, &figures);
        let lost = figures.pings_sent as f64 * loss as f64 / 1000.0;
        assert!(part.pongs as f64 >= 900.0 - 3.0 * lost, "a ping is lost on the way alone: {part}");
    }
}

#[test]
fn without_the_queue_a_ping_waits_a_second() {
    let (_, part) =
        settled("bare link, 3 Mbit/s, 100 ms, 1 flow", &Scenario { scheduler: None, ..Scenario::thin(100) });
    assert!(part.median > Duration::from_millis(500), "{part}");
}

#[test]
fn the_estimator_does_as_well_with_each_round_trip_as_with_the_smoothed() {
    let (figures, part) = settled("each round trip", &Scenario { smoothed: false, ..Scenario::thin(100) });
    assert_good("each round trip", &part, &figures);
}

#[test]
fn a_configured_rate_is_kept_from_the_first_second_on() {
    for rtt in [100, 300] {
        let scheduler = Some(LinkRate::Configured(BitRate::from_mbit(3)));
        let (figures, part) =
            settled(&format!("configured, {rtt} ms"), &Scenario { scheduler, ..Scenario::thin(rtt) });
        assert_good("configured", &part, &figures);
        assert!(figures.part(0..5).max < BOUND, "{}", figures.part(0..5));
    }
}

#[test]
fn a_link_that_changes_its_rate_is_followed() {
    let mbit = BitRate::from_mbit;
    let link = vec![(seconds(0), mbit(3)), (seconds(20), mbit(1)), (seconds(40), mbit(10))];
    let figures = run(&Scenario { link, flows: 4, ..Scenario::thin(100) });
    let parts = [figures.part(5..20), figures.part(25..40), figures.part(50..60)];
    for (part, name) in parts.iter().zip(["3", "1", "10"]) {
        println!("3, then 1, then 10 Mbit/s, 100 ms, 4 flows; at {name}: {part}");
        assert!(part.share >= 0.92, "{part}\n{}", figures.trace());
    }
    println!("the 5 s after 3 to 1: {}; after 1 to 10: {}", figures.part(20..25), figures.part(40..45));
    assert!(parts[0].p99 < BOUND && parts[2].p99 < BOUND, "{}", figures.trace());
    // A full packet takes 12.6 ms of 1 Mbit/s: five of them.
    assert!(parts[1].p99 < Duration::from_millis(65), "{}", parts[1]);
    for (second, expected) in [(19, 3.0), (39, 1.0), (59, 10.0)] {
        let found = figures.rate_at(second).unwrap().bits_per_s() as f64 / 1e6;
        assert!((found / expected - 1.0).abs() < 0.1, "{found} for {expected} Mbit/s");
    }
}

#[test]
fn jitter_costs_delay_but_not_the_rate() {
    let jitter = Duration::from_millis(20);
    for smoothed in [true, false] {
        let scenario = Scenario { jitter, smoothed, flows: 4, ..Scenario::thin(100) };
        let (figures, part) = settled("20 ms of jitter", &scenario);
        assert!(part.share >= 0.92 && part.p99 < BOUND + jitter * 2, "{part}\n{}", figures.trace());
    }
}

#[test]
fn a_longer_way_is_taken_for_what_it_is() {
    let detour = Duration::from_millis(60);
    let figures = run(&Scenario { detour, flows: 4, ..Scenario::thin(100) });
    let (before, after) = (figures.part(15..30), figures.part(40..60));
    println!("60 ms longer from the middle on: before {before}; after {after} (60 of them the way)");
    assert!(before.share >= 0.92 && after.share >= 0.92, "{}", figures.trace());
    // What stood when it was learned is now a part of the way.
    assert!(after.p99 < BOUND + detour + Duration::from_millis(10), "{after}");
}

#[test]
fn flows_that_understand_marks_lose_nothing_once_the_rate_is_known() {
    let scheduler = Some(LinkRate::Configured(BitRate::from_mbit(3)));
    let (figures, part) = settled("ECN", &Scenario { ecn: true, scheduler, ..Scenario::thin(100) });
    let stats = figures.stats.unwrap().classes[crate::queue::Class::Default.index()];
    assert!(stats.marked > 0 && stats.dropped_codel == 0 && stats.dropped_full == 0, "{stats:?}");
    assert_good("ECN", &part, &figures);
}

#[test]
fn a_flood_marked_as_bulk_gets_its_share_and_no_more() {
    let flood = Some(BitRate::from_mbit(6));
    let (figures, part) =
        settled("a flood of 6 Mbit/s and 4 flows", &Scenario { flood, flows: 4, ..Scenario::thin(100) });
    println!("   the flood has {:.1} % of the link", part.flood_share * 100.0);
    assert!(part.p99 < BOUND, "{part}\n{}", figures.trace());
    assert!(part.share > 0.7 && part.flood_share > 0.15 && part.flood_share < 0.3, "{part}");
    assert_eq!(figures.overflowed, 0, "the modem's buffer never fills");
}

#[test]
fn a_link_that_is_fast_or_never_full_is_not_held() {
    let fast = Scenario {
        link: vec![(seconds(0), BitRate::from_mbit(400))],
        buffer: Duration::from_millis(50),
        flows: 2,
        length: seconds(4),
        ..Scenario::thin(10)
    };
    let figures = run(&fast);
    println!("400 Mbit/s, 10 ms, 50 ms of buffer: {}", figures.part(2..4));
    assert_eq!([1, 2, 3].map(|second| figures.rate_at(second)), [None; 3]);
    let quiet = run(&Scenario { flows: 0, ..Scenario::thin(100) });
    assert_eq!(quiet.rate_at(59), None);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let scenario = Scenario { loss: 10, flows: 2, length: seconds(10), ..Scenario::thin(100) };
    assert_eq!(run(&scenario).trace(), run(&scenario).trace());
    let other = Scenario { seed: 8, ..scenario.clone() };
    assert_ne!(run(&scenario).trace(), run(&other).trace());
}

use super::Surge;
use crate::actuator::Motion;
use crate::{Device, Register, Snapshot, Utility, UtilityConfig};

/// A utility whose open valve takes `travel_s` to shut.
fn open(travel_s: f64) -> Utility {
    let mut config = UtilityConfig::default();
    config.valve.travel_s = travel_s;
    config.valve.start_percent = 100.0;
    Utility::new(config, 1)
}

/// Shuts in one command; what two minutes later has been.
fn shut(travel_s: f64, dt: f64) -> Snapshot {
    let mut u = open(travel_s);
    u.write(Device::Valve, Register::Position, 0.0).unwrap();
    for _ in 0..(120.0 / dt) as usize {
        u.step(dt);
    }
    u.snapshot()
}

/// Shuts a valve that needs no time by commands, one a second, each `slew` percent further.
fn shut_by_ramp(slew: f64, dt: f64) -> Snapshot {
    let mut u = open(0.0);
    let mut percent: f64 = 100.0;
    while percent > 0.0 {
        percent = (percent - slew).max(0.0);
        u.write(Device::Valve, Register::Position, percent).unwrap();
        for _ in 0..(1.0 / dt).round() as usize {
            u.step(dt);
        }
    }
    u.snapshot()
}

#[test]
fn shutting_at_once_bursts_the_limit_and_shutting_over_a_minute_does_not() {
    for dt in [0.1, 1.0, 5.0] {
        let (naive, slow) = (shut(0.0, dt), shut(60.0, dt));
        assert_eq!((naive.surge_trips, slow.surge_trips), (1, 0), "{dt}");
        assert!(naive.peak_pressure_bar > 8.0, "{dt}: {}", naive.peak_pressure_bar);
        assert!(
            slow.peak_pressure_bar < 6.0 && slow.peak_pressure_bar > 5.0,
            "{dt}: {}",
            slow.peak_pressure_bar
        );
        for end in [naive, slow] {
            assert!((end.pressure_bar - 5.0).abs() < 0.01, "and then the source's pressure stands: {end:?}");
        }
    }
}

#[test]
fn shutting_at_once_raises_the_pressure_by_joukowskys_and_no_more() {
    let u = open(0.0);
    let (before, main) = (u.snapshot(), UtilityConfig::default().main);
    let velocity = before.inflow / 3600.0 / main.section_m2;
    let peak = shut(0.0, 1.0).peak_pressure_bar;
    assert!((peak - main.source_bar - 998.0 * 1200.0 * velocity / 1e5).abs() < 1e-6, "{peak}");
}

#[test]
fn a_valve_that_needs_no_time_is_safe_in_small_steps_and_not_in_large_ones() {
    for dt in [0.1, 1.0] {
        for slew in [0.5, 1.0, 2.0, 4.0] {
            let end = shut_by_ramp(slew, dt);
            assert_eq!((end.position_percent, end.inflow, end.surge_trips), (0.0, 0.0, 0), "{slew}: {end:?}");
        }
        for slew in [10.0, 25.0, 100.0] {
            let end = shut_by_ramp(slew, dt);
            assert!(end.surge_trips >= 1, "{slew}: {end:?}");
        }
    }
    let peaks = [0.5, 1.0, 2.0, 5.0, 10.0, 100.0].map(|slew| shut_by_ramp(slew, 1.0).peak_pressure_bar);
    assert!(peaks.is_sorted(), "the faster, the higher: {peaks:?}");
}

#[test]
fn small_steps_in_one_second_are_one_large_step() {
    let mut u = open(0.0);
    for percent in (0..100).rev() {
        u.write(Device::Valve, Register::Position, f64::from(percent)).unwrap();
        u.step(0.01);
    }
    assert_eq!(u.snapshot().surge_trips, 1, "{:?}", u.snapshot());
}

#[test]
fn each_time_over_the_limit_is_counted_once() {
    let mut u = open(0.0);
    for _ in 0..3 {
        for percent in [0.0, 100.0] {
            u.write(Device::Valve, Register::Position, percent).unwrap();
            for _ in 0..60 {
                u.step(1.0);
            }
        }
    }
    assert_eq!(u.snapshot().surge_trips, 3);
}

#[test]
fn a_steady_train_of_jumps_comes_to_michauds_bound_for_that_rate() {
    let main = UtilityConfig::default().main;
    let mut surge = Surge::default();
    for _ in 0..1000 {
        // 0.02 m/s slower each second.
        surge.feel(-0.000_2, Motion::Jumped, 0.01, &main);
    }
    let michaud = 2.0 * 998.0 * main.length_m * 0.02 / 1e5;
    let after_ten_seconds = michaud * (1.0 - (-10.0_f64 / 3.333_333).exp());
    assert!((surge.bar() / after_ten_seconds - 1.0).abs() < 0.005, "{} {michaud}", surge.bar());
}

use super::*;
use crate::actuator::MAX_COMMANDS_KEPT;

const DAY_S: usize = 24 * 3600;

fn utility() -> Utility {
    Utility::new(UtilityConfig::default(), 11)
}

fn run(utility: &mut Utility, seconds: usize) {
    for _ in 0..seconds {
        utility.step(1.0);
    }
}

#[test]
fn no_water_is_invented_or_lost_over_a_day_that_overflows_and_runs_dry() {
    let mut u = utility();
    u.write(Device::Valve, Register::Position, 100.0).unwrap();
    run(&mut u, DAY_S / 2);
    u.write(Device::Valve, Register::Position, 0.0).unwrap();
    run(&mut u, DAY_S / 2);
    let end = u.snapshot();
    assert!(end.spilled_m3 > 1.0, "the run has overflowed: {end:?}");
    assert!(end.unserved_m3 > 1.0, "and run dry: {end:?}");
    assert!(end.mass_balance_error_m3.abs() < 1e-6, "{end:?}");
    assert_eq!(end.level_m, 0.0);
}

#[test]
fn the_level_stays_between_floor_and_rim() {
    let mut u = utility();
    for percent in [100.0, 0.0, 100.0, 0.0] {
        u.write(Device::Valve, Register::Position, percent).unwrap();
        for _ in 0..6 * 3600 {
            u.step(1.0);
            let level = u.snapshot().level_m;
            assert!((0.0..=6.0 + 1e-12).contains(&level), "{level}");
        }
    }
}

#[test]
fn the_valve_takes_its_travel_time_whatever_the_step() {
    for dt in [0.1, 1.0, 7.0] {
        let mut u = utility();
        u.write(Device::Valve, Register::Position, 25.0).unwrap();
        let mut seconds = 0.0;
        while u.snapshot().position_percent > 25.0 + 1e-9 {
            u.step(dt);
            seconds += dt;
        }
        assert!(
            (30.0 - 1e-6..=30.0 + dt).contains(&seconds),
            "half the way in half the time: {seconds} by {dt}"
        );
        assert!((u.snapshot().position_percent - 25.0).abs() < 1e-9);
    }
}

#[test]
fn a_shut_valve_lets_nothing_in() {
    let mut u = utility();
    u.write(Device::Valve, Register::Position, 0.0).unwrap();
    run(&mut u, 60);
    assert_eq!(u.snapshot().inflow, 0.0);
    let level = u.snapshot().level_m;
    run(&mut u, 1800);
    assert!(u.snapshot().level_m < level - 0.2, "the town goes on drinking");
}

#[test]
fn closing_raises_the_pressure_nearby_and_opening_lowers_it() {
    let mut u = utility();
    run(&mut u, 10);
    let steady = u.snapshot().pressure_bar;
    u.write(Device::Valve, Register::Position, 50.0).unwrap();
    run(&mut u, 5);
    let closing = u.snapshot().pressure_bar;
    u.write(Device::Valve, Register::Position, 100.0).unwrap();
    run(&mut u, 10);
    assert!(closing > steady + 0.2, "{closing} {steady}");
    assert!(u.snapshot().pressure_bar < steady - 0.2, "{} {steady}", u.snapshot().pressure_bar);
}

#[test]
fn at_sixty_times_the_level_moves_by_half_a_metre_within_a_demo_of_ninety_seconds() {
    for (percent, sign) in [(100.0, 1.0), (0.0, -1.0)] {
        let mut u = utility();
        u.write(Device::Valve, Register::Position, percent).unwrap();
        let before = u.snapshot().level_m;
        run(&mut u, 60 * 90);
        assert!(sign * (u.snapshot().level_m - before) > 0.5, "{percent}: {}", u.snapshot().level_m);
    }
}

#[test]
fn the_level_sensor_is_near_the_truth_and_in_whole_millimetres() {
    let mut u = utility();
    for _ in 0..1000 {
        u.step(1.0);
        let seen = u.read(Device::Tank, Register::Level).unwrap();
        assert!((seen - u.snapshot().level_m).abs() < 0.02);
        assert!(((seen * 1000.0).round() / 1000.0 - seen).abs() < 1e-9);
    }
}

#[test]
fn accepted_commands_are_counted_and_logged_and_refused_ones_are_not() {
    let mut u = utility();
    run(&mut u, 5);
    u.write(Device::Valve, Register::Position, 10.0).unwrap();
    for bad in [-1.0, 100.1, f64::NAN, f64::INFINITY] {
        assert!(u.write(Device::Valve, Register::Position, bad).is_err());
    }
    u.write(Device::Valve, Register::Setpoint, 3.5).unwrap();
    assert_eq!(
        u.write(Device::Valve, Register::Pressure, 1.0),
        Err(RegisterError::ReadOnly(Register::Pressure))
    );
    assert_eq!(u.commands().copied().collect::<Vec<_>>(), [Command { at_s: 5.0, percent: 10.0 }]);
    assert_eq!((u.snapshot().commands, u.snapshot().setpoint_m), (1, 3.5));
}

#[test]
fn the_log_of_commands_is_bounded_and_the_count_is_not_lost() {
    let mut u = utility();
    for i in 0..MAX_COMMANDS_KEPT + 10 {
        u.write(Device::Valve, Register::Position, (i % 100) as f64).unwrap();
    }
    assert_eq!(u.commands().count(), MAX_COMMANDS_KEPT);
    assert_eq!(u.snapshot().commands as usize, MAX_COMMANDS_KEPT + 10);
}

#[test]
fn one_seed_is_one_run() {
    let end = |seed| {
        let mut u = Utility::new(UtilityConfig::default(), seed);
        run(&mut u, 3600);
        (u.snapshot(), u.read(Device::Tank, Register::Level).unwrap())
    };
    assert_eq!(end(1), end(1));
    assert_ne!(end(1), end(2));
}

#[test]
fn the_mixer_is_an_actuator_of_the_tank_and_its_commands_are_kept() {
    let mut utility = Utility::new(UtilityConfig::default(), 1);
    utility.write(Device::Tank, Register::Mixer, 60.0).unwrap();
    assert!(utility.write(Device::Tank, Register::Mixer, 101.0).is_err());
    assert_eq!(utility.read(Device::Tank, Register::Mixer), Ok(60.0));
    assert_eq!(utility.mixer_commands().map(|c| c.percent).collect::<Vec<_>>(), [60.0]);
    assert_eq!(utility.commands().count(), 0);
}

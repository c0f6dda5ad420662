//! What goes wrong with the plant, and what is then to be seen.

use super::*;
use crate::config::ValveConfig;
use crate::handle_line;

fn utility() -> Utility {
    Utility::new(UtilityConfig::default(), 11)
}

fn run(utility: &mut Utility, seconds: usize) {
    for _ in 0..seconds {
        utility.step(1.0);
    }
}

fn silent(device: Device, register: Register) -> Fault {
    Fault::Silent { device, register }
}

fn frozen(device: Device, register: Register) -> Fault {
    Fault::Frozen { device, register }
}

#[test]
fn a_burst_main_loses_water_pressure_and_what_the_tank_should_get() {
    let (mut whole, mut torn) = (utility(), utility());
    torn.inject(Fault::MainBurst { c: 30.0 }).unwrap();
    run(&mut whole, 3600);
    run(&mut torn, 3600);
    let (whole, torn) = (whole.snapshot(), torn.snapshot());
    let lost = 30.0 * torn.pressure_bar.sqrt();
    assert!((torn.burst_m3 / lost - 1.0).abs() < 0.05, "{} in an hour, now {lost}", torn.burst_m3);
    assert!(torn.pressure_bar < whole.pressure_bar - 0.2, "{torn:?} {whole:?}");
    assert!(torn.inflow < whole.inflow - 10.0 && torn.level_m < whole.level_m - 0.2, "{torn:?} {whole:?}");
    assert!(torn.mass_balance_error_m3.abs() < 1e-6 && torn.outflow == whole.outflow, "{torn:?}");
}

#[test]
fn a_burst_in_the_town_drains_the_tank_by_its_pressure() {
    let (mut whole, mut torn) = (utility(), utility());
    torn.inject(Fault::TownBurst { c: 20.0 }).unwrap();
    run(&mut whole, 1);
    run(&mut torn, 1);
    let more = torn.snapshot().outflow - whole.snapshot().outflow;
    assert!((more - 20.0 * (27.5 * BAR_PER_M).sqrt()).abs() < 0.01, "27.5 m of water over the town: {more}");
    torn.write(Device::Valve, Register::Position, 0.0).unwrap();
    run(&mut torn, 4 * 3600);
    let end = torn.snapshot();
    assert!(end.level_m == 0.0 && end.unserved_m3 > 1.0, "{end:?}");
    assert!(end.mass_balance_error_m3.abs() < 1e-6, "{end:?}");
    torn.repair(Fault::TownBurst { c: 0.0 });
    let lost = torn.snapshot().burst_m3;
    run(&mut torn, 60);
    assert_eq!(torn.snapshot().burst_m3, lost, "mended");
}

#[test]
fn a_demand_peak_multiplies_what_the_town_takes_and_passes() {
    let (mut quiet, mut peak) = (utility(), utility());
    peak.inject(Fault::DemandPeak { factor: 1.8, hours: 0.5 }).unwrap();
    for second in 0..3600 {
        quiet.step(1.0);
        peak.step(1.0);
        let factor = peak.snapshot().outflow / quiet.snapshot().outflow;
        let expected = if second < 1800 { 1.8 } else { 1.0 };
        assert!((factor - expected).abs() < 1e-9, "{second}: {factor}");
    }
}

#[test]
fn a_silent_sensor_is_left_out_of_the_answer_and_the_others_are_not() {
    let mut u = utility();
    u.inject(silent(Device::Valve, Register::Pressure)).unwrap();
    let silent_error = Err(RegisterError::Silent { device: Device::Valve, register: Register::Pressure });
    assert_eq!(u.read(Device::Valve, Register::Pressure), silent_error);
    let ask = r#"{"read":["pressure","position"]}"#;
    assert_eq!(handle_line(&mut u, Device::Valve, ask), r#"{"values":{"position":75.0}}"#);
    u.repair(silent(Device::Valve, Register::Pressure));
    assert!(u.read(Device::Valve, Register::Pressure).unwrap() > 3.0);
}

#[test]
fn a_frozen_sensor_answers_its_last_value_whatever_happens() {
    let mut u = utility();
    run(&mut u, 10);
    let last = u.read(Device::Valve, Register::Pressure).unwrap();
    u.inject(frozen(Device::Valve, Register::Pressure)).unwrap();
    u.write(Device::Valve, Register::Position, 0.0).unwrap();
    run(&mut u, 600);
    assert_eq!(u.read(Device::Valve, Register::Pressure), Ok(last));
    assert!((u.snapshot().pressure_bar - last).abs() > 0.2, "while the truth has moved: {:?}", u.snapshot());
    u.repair_all();
    assert_eq!(u.read(Device::Valve, Register::Pressure), Ok(5.0));
}

#[test]
fn a_noisy_level_sensor_strays_as_far_as_it_is_told() {
    let mut u = utility();
    u.inject(Fault::LevelNoise { deviation_m: 0.1 }).unwrap();
    let mut squares = 0.0;
    for _ in 0..5000 {
        u.step(1.0);
        squares += (u.read(Device::Tank, Register::Level).unwrap() - u.snapshot().level_m).powi(2);
    }
    let deviation = (squares / 5000.0_f64).sqrt();
    assert!((deviation - 0.1).abs() < 0.01, "{deviation}");
}

#[test]
fn faults_that_cannot_be_are_refused() {
    let mut u = utility();
    let negative = Err(RegisterError::OutOfRange { value: -1.0, minimum: 0.0, maximum: 2000.0 });
    assert_eq!(u.inject(Fault::MainBurst { c: -1.0 }), negative);
    assert!(u.inject(Fault::DemandPeak { factor: f64::NAN, hours: 1.0 }).is_err());
    assert!(u.inject(Fault::DemandPeak { factor: 1.0, hours: f64::INFINITY }).is_err());
    assert_eq!(
        u.inject(silent(Device::Valve2, Register::Pressure)),
        Err(RegisterError::NoDevice(Device::Valve2))
    );
    let elsewhere = RegisterError::Elsewhere { device: Device::Tank, register: Register::Pressure };
    assert_eq!(u.inject(frozen(Device::Tank, Register::Pressure)), Err(elsewhere));
    let mut sound = utility();
    run(&mut u, 100);
    run(&mut sound, 100);
    assert_eq!(u.snapshot(), sound.snapshot());
}

fn watched(watchdog_s: Option<f64>) -> Utility {
    let mut config = UtilityConfig::default();
    config.valve.watchdog_s = watchdog_s;
    config.valve.safe_percent = 20.0;
    Utility::new(config, 1)
}

#[test]
fn a_valve_that_nobody_asks_drives_itself_to_its_safe_position_once() {
    let mut u = watched(Some(30.0));
    run(&mut u, 29);
    handle_line(&mut u, Device::Tank, r#"{"read":["level"]}"#);
    assert_eq!(u.snapshot().watchdog_trips, 0, "another device's requests are none");
    run(&mut u, 1);
    assert_eq!((u.snapshot().watchdog_trips, u.snapshot().target_percent), (1, 20.0));
    run(&mut u, 3600);
    let end = u.snapshot();
    assert_eq!((end.watchdog_trips, end.position_percent, end.commands), (1, 20.0, 0));
}

#[test]
fn whoever_asks_keeps_the_watchdog_quiet_and_gets_the_valve_back() {
    let mut u = watched(Some(30.0));
    for _ in 0..20 {
        run(&mut u, 25);
        handle_line(&mut u, Device::Valve, r#"{"read":["position"]}"#);
    }
    assert_eq!((u.snapshot().watchdog_trips, u.snapshot().position_percent), (0, 75.0));
    run(&mut u, 100);
    assert_eq!(u.snapshot().watchdog_trips, 1);
    handle_line(&mut u, Device::Valve, r#"{"read":["position"]}"#);
    assert_eq!(u.snapshot().target_percent, 20.0, "a question moves nothing");
    handle_line(&mut u, Device::Valve, r#"{"write":{"position":60}}"#);
    assert_eq!(u.snapshot().target_percent, 60.0);
    run(&mut u, 100);
    assert_eq!((u.snapshot().watchdog_trips, u.snapshot().target_percent), (2, 20.0));
}

#[test]
fn without_a_watchdog_a_valve_stays_where_it_was_told_to() {
    let mut u = watched(None);
    run(&mut u, 24 * 3600);
    assert_eq!((u.snapshot().watchdog_trips, u.snapshot().position_percent), (0, 75.0));
}

fn twins() -> Utility {
    let mut config = UtilityConfig::default();
    config.valve2 = Some(ValveConfig { start_percent: 0.0, ..config.valve.clone() });
    Utility::new(config, 1)
}

#[test]
fn a_second_valve_answers_under_its_own_name_and_moves_by_itself() {
    let mut u = twins();
    assert_eq!(
        handle_line(&mut u, Device::Valve2, r#"{"read":["position","setpoint","inflow","level"]}"#),
        r#"{"values":{"inflow":0.0,"position":0.0,"setpoint":4.0}}"#
    );
    assert_eq!(handle_line(&mut u, Device::Valve2, r#"{"write":{"position":50}}"#), r#"{"ok":true}"#);
    run(&mut u, 60);
    assert_eq!((u.snapshot().position_percent, u.snapshot().position2_percent), (75.0, Some(50.0)));
    assert_eq!((u.commands().count(), u.commands2().count()), (0, 1));
    let flow = |device| u.read(device, Register::Inflow).unwrap();
    assert!(flow(Device::Valve) > flow(Device::Valve2) && flow(Device::Valve2) > 5.0);
    let sum = flow(Device::Valve) + flow(Device::Valve2);
    assert!((sum - u.snapshot().inflow).abs() <= 0.1, "{sum} {:?}", u.snapshot());
}

#[test]
fn closing_one_valve_while_the_other_opens_keeps_the_flow() {
    let mut u = twins();
    run(&mut u, 10);
    let before = u.snapshot().inflow;
    u.write(Device::Valve, Register::Position, 0.0).unwrap();
    u.write(Device::Valve2, Register::Position, 75.0).unwrap();
    run(&mut u, 60);
    let after = u.snapshot();
    assert_eq!((after.position_percent, after.position2_percent), (0.0, Some(75.0)));
    assert!((after.inflow - before).abs() < 1.0, "{before} {after:?}");
    assert_eq!(u.read(Device::Valve, Register::Inflow), Ok(0.0));
}

#[test]
fn a_utility_without_a_second_valve_says_so() {
    let mut u = utility();
    for line in [r#"{"read":["position"]}"#, r#"{"write":{"position":5}}"#] {
        assert_eq!(handle_line(&mut u, Device::Valve2, line), r#"{"error":"there is no valve2"}"#);
    }
    assert_eq!(u.snapshot().position2_percent, None);
}

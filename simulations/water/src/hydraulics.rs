//! The equations, one function each.

use crate::config::{MainConfig, ValveConfig};

/// Density of water, kg/m³.
const DENSITY: f64 = 998.0;

/// Pressure of one metre of water, in bar.
pub const BAR_PER_M: f64 = DENSITY * 9.81 / 1e5;

/// Flow in m³/h per unit of Cv at 1 bar.
const FLOW_PER_CV: f64 = 0.865;

/// Below this opening the trim's curve is replaced by a straight line to zero, so that a shut valve is tight: the
/// equal-percentage curve alone would still let `1/R` through.
const TIGHT_BELOW: f64 = 0.05;

/// Share of the full Cv at an opening `x` of 0 to 1: equal percentage, `f(x) = R^(x-1)`.
pub fn trim(x: f64, rangeability: f64) -> f64 {
    let x = x.clamp(0.0, 1.0);
    if x < TIGHT_BELOW {
        return x / TIGHT_BELOW * rangeability.powf(TIGHT_BELOW - 1.0);
    }
    rangeability.powf(x - 1.0)
}

/// Flow through main and valve in series, in m³/h: `head` bar are left over for both, the main takes `k·Q²`, the
/// valve `(Q / (0.865·Cv·f(x)))²` (specific gravity 1). Never backwards: a check valve sits at the tank.
pub fn flow(head: f64, opening: f64, main: &MainConfig, valve: &ValveConfig) -> f64 {
    let conductance = FLOW_PER_CV * valve.cv * trim(opening, valve.rangeability);
    if head <= 0.0 || conductance <= 0.0 {
        return 0.0;
    }
    (head / (main.friction + conductance.powi(-2))).sqrt()
}

/// Velocity in the main in m/s at a flow in m³/h.
pub fn velocity(flow: f64, main: &MainConfig) -> f64 {
    flow / 3600.0 / main.section_m2
}

/// Pressure rise in bar ahead of the valve when the velocity changes by `change` m/s within `seconds` (negative: it
/// slows down, the pressure rises). A change slower than the wave's way there and back, `2L/a`, lets the column act as
/// one rigid body, `ρ·L·Δv/T`; a faster one cannot raise more than Joukowsky's `ρ·a·Δv`.
pub fn surge(change: f64, seconds: f64, main: &MainConfig) -> f64 {
    let rigid = DENSITY * main.length_m / seconds.max(f64::MIN_POSITIVE);
    let wave = DENSITY * main.wave_speed;
    -change * rigid.min(wave) / 1e5
}

/// How long a surge stays, in seconds: some times the wave's way there and back.
pub fn surge_memory(main: &MainConfig) -> f64 {
    4.0 * main.length_m / main.wave_speed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UtilityConfig;

    fn config() -> UtilityConfig {
        UtilityConfig::default()
    }

    #[test]
    fn a_valve_without_a_main_follows_its_cv() {
        let mut c = config();
        c.main.friction = 0.0;
        c.valve.cv = 100.0;
        assert!((flow(1.0, 1.0, &c.main, &c.valve) - 86.5).abs() < 1e-9);
        assert!((flow(4.0, 1.0, &c.main, &c.valve) - 173.0).abs() < 1e-9);
    }

    #[test]
    fn a_shut_valve_is_tight_and_the_curve_has_no_jump() {
        let c = config();
        assert_eq!(flow(5.0, 0.0, &c.main, &c.valve), 0.0);
        assert_eq!(flow(-1.0, 1.0, &c.main, &c.valve), 0.0);
        assert!((trim(1.0, 50.0) - 1.0).abs() < 1e-12);
        let (below, above) = (trim(TIGHT_BELOW - 1e-9, 50.0), trim(TIGHT_BELOW + 1e-9, 50.0));
        assert!((below - above).abs() < 1e-8);
    }

    #[test]
    fn one_metre_per_second_stopped_at_once_is_twelve_bar_and_over_a_minute_a_third() {
        let main = config().main;
        assert!((surge(-1.0, 0.0, &main) - 11.976).abs() < 1e-9);
        assert!((surge(-1.0, 60.0, &main) - 0.332_666_666).abs() < 1e-6);
        assert!(surge(1.0, 60.0, &main) < 0.0);
    }
}

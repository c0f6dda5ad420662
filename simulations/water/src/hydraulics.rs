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

/// Flow in m³/h per √bar that a valve lets through at an opening: `0.865·Cv·f(x)` (specific gravity 1).
pub fn conductance(opening: f64, valve: &ValveConfig) -> f64 {
    FLOW_PER_CV * valve.cv * trim(opening, valve.rangeability)
}

/// Where the main ends, at the valves. Flows in m³/h.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MainEnd {
    /// Steady, without surges.
    pub pressure_bar: f64,
    /// Through the valves, into the tank.
    pub through: f64,
    /// Out of a hole ahead of them.
    pub burst: f64,
}

/// The main's end when valves of this conductance lead up to the tank, `lift` bar above, and a hole loses `hole·√p`.
pub fn main_end(lift: f64, conductance: f64, hole: f64, main: &MainConfig) -> MainEnd {
    let (through, burst) = if hole > 0.0 {
        flows_at(torn_pressure(lift, conductance, hole, main), lift, conductance, hole)
    } else {
        (flow(main.source_bar - lift, conductance, main), 0.0)
    };
    MainEnd { pressure_bar: main.source_bar - main.friction * (through + burst).powi(2), through, burst }
}

/// Flow through main and valves in series, in m³/h: `head` bar are left over for both, the main takes `k·Q²`, the
/// valves `(Q / conductance)²`. Never backwards: a check valve sits at the tank.
pub fn flow(head: f64, conductance: f64, main: &MainConfig) -> f64 {
    if head <= 0.0 || conductance <= 0.0 {
        return 0.0;
    }
    (head / (main.friction + conductance.powi(-2))).sqrt()
}

/// The pressure at which what the main brings is what valves and hole take, by bisection: the main brings less the
/// higher it is, the others take more. Fifty halvings leave less than 1e-14 bar.
fn torn_pressure(lift: f64, conductance: f64, hole: f64, main: &MainConfig) -> f64 {
    let (mut low, mut high) = (0.0, main.source_bar);
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        let (through, burst) = flows_at(middle, lift, conductance, hole);
        if middle + main.friction * (through + burst).powi(2) > main.source_bar {
            high = middle;
        } else {
            low = middle;
        }
    }
    low
}

/// Through the valves and out of the hole, at a pressure.
fn flows_at(pressure: f64, lift: f64, conductance: f64, hole: f64) -> (f64, f64) {
    (conductance * (pressure - lift).max(0.0).sqrt(), orifice(hole, pressure))
}

/// What a hole loses in m³/h: `C·√p`, with `C` in m³/h per √bar.
pub fn orifice(c: f64, pressure_bar: f64) -> f64 {
    c * pressure_bar.max(0.0).sqrt()
}

/// Velocity in the main in m/s at a flow in m³/h.
pub fn velocity(flow: f64, main: &MainConfig) -> f64 {
    flow / 3600.0 / main.section_m2
}

/// Time in seconds in which a pressure wave runs to the source and back, `2L/a`: a valve that shuts within it might as
/// well shut at once.
pub fn return_time(main: &MainConfig) -> f64 {
    2.0 * main.length_m / main.wave_speed
}

/// Pressure rise in bar ahead of the valve when the velocity changes by `change` m/s within `seconds` (negative: it
/// slows down, the pressure rises). A change much slower than the wave's [way there and back](return_time) lets the column
/// act as one rigid body, `ρ·L·Δv/T`; a faster one cannot raise more than Joukowsky's `ρ·a·Δv`.
pub fn surge(change: f64, seconds: f64, main: &MainConfig) -> f64 {
    let rigid = DENSITY * main.length_m / seconds.max(f64::MIN_POSITIVE);
    let wave = DENSITY * main.wave_speed;
    -change * rigid.min(wave) / 1e5
}

/// How long a surge stays, in seconds: some times the wave's way there and back.
pub fn surge_memory(main: &MainConfig) -> f64 {
    2.0 * return_time(main)
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
        let open = conductance(1.0, &c.valve);
        assert!((flow(1.0, open, &c.main) - 86.5).abs() < 1e-9);
        assert!((flow(4.0, open, &c.main) - 173.0).abs() < 1e-9);
    }

    #[test]
    fn a_shut_valve_is_tight_and_the_curve_has_no_jump() {
        let c = config();
        assert_eq!(flow(5.0, conductance(0.0, &c.valve), &c.main), 0.0);
        assert_eq!(flow(-1.0, conductance(1.0, &c.valve), &c.main), 0.0);
        assert!((trim(1.0, 50.0) - 1.0).abs() < 1e-12);
        let (below, above) = (trim(TIGHT_BELOW - 1e-9, 50.0), trim(TIGHT_BELOW + 1e-9, 50.0));
        assert!((below - above).abs() < 1e-8);
    }

    #[test]
    fn a_torn_main_gives_to_hole_and_tank_what_it_brings() {
        let main = config().main;
        for (conductance, hole) in [(0.0, 20.0), (60.0, 1e-9), (60.0, 20.0), (100.0, 500.0)] {
            let end = main_end(2.7, conductance, hole, &main);
            let brought = ((main.source_bar - end.pressure_bar) / main.friction).sqrt();
            assert!((brought - end.through - end.burst).abs() < 1e-6, "{end:?}");
            assert!((end.burst - hole * end.pressure_bar.sqrt()).abs() < 1e-6, "{end:?}");
            let through = conductance * (end.pressure_bar - 2.7).max(0.0).sqrt();
            assert!((end.through - through).abs() < 1e-6, "{end:?}");
        }
        let (whole, torn) = (main_end(2.7, 60.0, 0.0, &main), main_end(2.7, 60.0, 1e-9, &main));
        assert!((whole.through - torn.through).abs() < 1e-6, "no hole and the smallest one are the same");
        assert_eq!(
            main_end(2.7, 100.0, 500.0, &main).through,
            0.0,
            "a large hole leaves nothing for the tank"
        );
    }

    #[test]
    fn one_metre_per_second_stopped_at_once_is_twelve_bar_and_over_a_minute_a_third() {
        let main = config().main;
        assert!((surge(-1.0, 0.0, &main) - 11.976).abs() < 1e-9);
        assert!((surge(-1.0, 60.0, &main) - 0.332_666_666).abs() < 1e-6);
        assert!(surge(1.0, 60.0, &main) < 0.0);
        assert!((return_time(&main) - 3.333_333).abs() < 1e-5);
    }

    #[test]
    fn a_slow_closure_is_a_rigid_column_and_none_is_worse_than_joukowsky() {
        let main = config().main;
        let joukowsky = 998.0 * 1200.0 * 0.7 / 1e5;
        for seconds in [0.0, 0.1, 1.0] {
            assert!((surge(-0.7, seconds, &main) - joukowsky).abs() < 1e-9, "{seconds}");
        }
        for seconds in [3.4, 10.0, 60.0] {
            let rigid = 998.0 * 2000.0 * 0.7 / seconds / 1e5;
            assert!((surge(-0.7, seconds, &main) - rigid).abs() < 1e-9 && rigid < joukowsky, "{seconds}");
        }
    }

    /// The demo's main as EPANET would have it: the one equation here against the network's solver. The square law is
    /// not Hazen and Williams': they agree where the coefficient was taken, at 95 m³/h, and nearly elsewhere.
    #[test]
    fn the_main_is_nearly_a_hazen_williams_pipe_of_the_network() {
        let c = config();
        let (source_m, lift_m) = (c.main.source_bar / BAR_PER_M, 27.5);
        for opening in [0.4, 0.6, 0.8, 1.0] {
            let conductance = conductance(opening, &c.valve);
            let here = flow(c.main.source_bar - lift_m * BAR_PER_M, conductance, &c.main);
            // K of h = 0.08258·K·Q²/d⁴, for the valve's h = (Q / conductance)² bar, on a diameter of 180 mm.
            let k = (3600.0 / conductance).powi(2) / BAR_PER_M * 0.18_f64.powi(4) / 0.082_58;
            let text = format!(
                "[JUNCTIONS]\n p 0\n[RESERVOIRS]\n source {source_m}\n tank {lift_m}\n\
                 [PIPES]\n main source p 2000 179.83 126\n[VALVES]\n valve p tank 180 TCV {k}\n\
                 [OPTIONS]\n Units CMH\n Headloss H-W\n"
            );
            let run = crate::network::Run::start(crate::network::inp::read(&text).unwrap()).unwrap();
            let there = run.flow(0) * 3600.0;
            assert!((here / there - 1.0).abs() < 0.03, "{opening}: {here} m³/h, network {there}");
        }
    }
}

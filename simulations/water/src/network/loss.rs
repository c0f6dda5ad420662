//! Head lost along a link, and how steeply it grows with flow: one equation a kind of link.
//!
//! Constants are EPANET's, which are for feet and cubic feet a second, brought to metres.

use super::model::{LinkKind, Pipe, PumpCurve, Setting};

/// A foot in metres.
const FOOT_M: f64 = 0.3048;

/// Hazen-Williams: `h = 4.727·L·Q^1.852 / (C^1.852·d^4.871)` in feet and ft³/s.
const HAZEN_WILLIAMS: f64 = 4.727;
const FLOW_EXPONENT: f64 = 1.852;
const DIAMETER_EXPONENT: f64 = 4.871;

/// Minor losses: `h = 0.02517·K·Q²/d⁴` in feet and ft³/s.
const VELOCITY_HEAD: f64 = 0.02517;

/// Where the gradient is flatter than this (1e-7 ft per ft³/s), the loss is a straight line: a power law has no slope
/// at no flow, and Newton's method would divide by it.
const FLATTEST: f64 = 1e-7 / (FOOT_M * FOOT_M);

/// Gradient of a link that is closed, in m per m³/s (EPANET's 1e8 ft per ft³/s): it leaks 0.1 ml a second at a
/// hundred metres. The leak keeps every node's head defined, its sign tells which way a shut link would flow, and it
/// is counted like any flow, so that it takes nothing from the balance.
const CLOSED: f64 = 1e8 / (FOOT_M * FOOT_M);

/// Gradient of an open valve without losses (EPANET's 1e-6 ft per ft³/s).
const OPEN: f64 = 1e-6 / (FOOT_M * FOOT_M);

/// Head lost in metres (negative: gained) and its derivative in m per m³/s, above 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    pub head_m: f64,
    pub gradient: f64,
}

impl Loss {
    fn linear(gradient: f64, flow: f64) -> Self {
        Self { head_m: gradient * flow, gradient }
    }

    /// `factor·|Q|^exponent` against the flow, straight where that is too flat.
    fn power(factor: f64, exponent: f64, flow: f64) -> Self {
        let gradient = exponent * factor * flow.abs().powf(exponent - 1.0);
        if gradient < FLATTEST {
            return Self::linear(FLATTEST / exponent, flow);
        }
        Self { head_m: gradient * flow / exponent, gradient }
    }
}

/// Of a link that is shut.
pub fn closed(flow: f64) -> Loss {
    Loss::linear(CLOSED, flow)
}

/// Of a link that is open, at its setting.
pub fn open(kind: &LinkKind, setting: Setting, flow: f64) -> Loss {
    match (kind, setting) {
        (LinkKind::Pipe(pipe), _) => of_pipe(pipe, flow),
        (LinkKind::Pump(curve), Setting::Value(speed)) => of_pump(curve, speed, flow),
        (LinkKind::Pump(curve), Setting::Open | Setting::Closed) => of_pump(curve, 1.0, flow),
        (LinkKind::Throttle { diameter_m, .. }, Setting::Value(k)) => of_valve(k, *diameter_m, flow),
        (LinkKind::Throttle { diameter_m, minor }, Setting::Open | Setting::Closed) => {
            of_valve(*minor, *diameter_m, flow)
        }
    }
}

fn of_pipe(pipe: &Pipe, flow: f64) -> Loss {
    let friction = Loss::power(resistance(pipe), FLOW_EXPONENT, flow);
    let minor = velocity_head(pipe.minor, pipe.diameter_m);
    Loss {
        head_m: friction.head_m + minor * flow * flow.abs(),
        gradient: friction.gradient + 2.0 * minor * flow.abs(),
    }
}

/// `r` of `h = r·Q^1.852` in SI units.
fn resistance(pipe: &Pipe) -> f64 {
    // Feet to metres: one power of length for h against one for L, what is left for d and Q.
    let si = HAZEN_WILLIAMS * FOOT_M.powf(DIAMETER_EXPONENT - 3.0 * FLOW_EXPONENT);
    si * pipe.length_m / pipe.roughness.powf(FLOW_EXPONENT) / pipe.diameter_m.powf(DIAMETER_EXPONENT)
}

/// `m` of `h = m·Q²` for a coefficient `K` in velocity heads.
fn velocity_head(k: f64, diameter_m: f64) -> f64 {
    VELOCITY_HEAD / FOOT_M * k / diameter_m.powi(4)
}

/// By the affinity laws: head with the square of speed, flow in proportion.
fn of_pump(curve: &PumpCurve, speed: f64, flow: f64) -> Loss {
    let friction = Loss::power(curve.r * speed.powf(2.0 - curve.n), curve.n, flow);
    Loss { head_m: friction.head_m - speed * speed * curve.shutoff_m, ..friction }
}

fn of_valve(k: f64, diameter_m: f64, flow: f64) -> Loss {
    if k <= 0.0 {
        return Loss::linear(OPEN, flow);
    }
    Loss::power(velocity_head(k, diameter_m), 2.0, flow)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Pipe =
        Pipe { length_m: 1000.0, diameter_m: 0.3, roughness: 130.0, minor: 0.0, check_valve: false };

    #[test]
    fn a_kilometre_of_300_mm_pipe_loses_what_hazen_and_williams_say() {
        // 10.667·L·Q^1.852/(C^1.852·d^4.871) at 100 l/s, by hand: 6.42 m.
        assert!((of_pipe(&PIPE, 0.1).head_m - 6.42).abs() < 0.01, "{:?}", of_pipe(&PIPE, 0.1));
        assert_eq!(of_pipe(&PIPE, -0.1).head_m, -of_pipe(&PIPE, 0.1).head_m);
    }

    #[test]
    fn minor_losses_are_velocity_heads() {
        let v: f64 = 0.1 / (std::f64::consts::FRAC_PI_4 * 0.3 * 0.3);
        let expected = 5.0 * v * v / (2.0 * 9.81);
        assert!((of_valve(5.0, 0.3, 0.1).head_m / expected - 1.0).abs() < 1e-3);
        let rough = Pipe { minor: 5.0, ..PIPE };
        let more = of_pipe(&rough, 0.1).head_m - of_pipe(&PIPE, 0.1).head_m;
        assert!((more / expected - 1.0).abs() < 1e-3);
    }

    #[test]
    fn a_pump_at_half_speed_gives_a_quarter_of_the_head_at_half_the_flow() {
        let curve = PumpCurve::through_point(0.1, 60.0).unwrap();
        let (full, half) = (of_pump(&curve, 1.0, 0.1), of_pump(&curve, 0.5, 0.05));
        assert!((half.head_m - full.head_m / 4.0).abs() < 1e-9 && (full.head_m + 60.0).abs() < 1e-9);
    }

    #[test]
    fn every_loss_is_steady_and_its_gradient_is_its_slope() {
        let pump = LinkKind::Pump(PumpCurve::through_point(0.1, 60.0).unwrap());
        let valve = LinkKind::Throttle { diameter_m: 0.3, minor: 0.2 };
        for (kind, setting) in [
            (LinkKind::Pipe(Pipe { minor: 2.0, ..PIPE }), Setting::Open),
            (pump, Setting::Value(0.8)),
            (valve.clone(), Setting::Value(12.0)),
            (valve, Setting::Open),
        ] {
            for flow in [-0.2, -1e-3, 1e-3, 0.05, 0.2] {
                let at = |q| open(&kind, setting, q);
                let slope = (at(flow + 1e-7).head_m - at(flow - 1e-7).head_m) / 2e-7;
                assert!((slope / at(flow).gradient - 1.0).abs() < 1e-3, "{kind:?} {flow}: {slope}");
            }
            assert!(open(&kind, setting, 0.0).gradient > 0.0);
        }
    }

    #[test]
    fn the_straight_line_meets_the_power_law() {
        let r = resistance(&PIPE);
        let meeting = (FLATTEST / (FLOW_EXPONENT * r)).powf(1.0 / (FLOW_EXPONENT - 1.0));
        let (below, above) = (of_pipe(&PIPE, meeting * 0.999_999), of_pipe(&PIPE, meeting * 1.000_001));
        assert!((above.head_m / below.head_m - 1.0).abs() < 1e-5, "{below:?} {above:?}");
    }
}

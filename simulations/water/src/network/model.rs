//! What a network is made of. Metres, m³ and m³/s throughout; names are for people, indices for the solver.

/// A network. Whoever builds one by hand keeps the indices right; [`inp::read`](super::inp::read) does.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Network {
    pub nodes: Vec<Node>,
    pub links: Vec<Link>,
    pub patterns: Vec<Pattern>,
    /// In the order in which they act: where two contradict each other, the later one counts.
    pub controls: Vec<Control>,
    pub times: Times,
}

impl Network {
    pub fn node(&self, id: &str) -> Option<usize> {
        self.nodes.iter().position(|n| n.id == id)
    }

    pub fn link(&self, id: &str) -> Option<usize> {
        self.links.iter().position(|l| l.id == id)
    }

    /// The multiplier of a pattern at a time; 1 without a pattern.
    pub fn multiplier(&self, pattern: Option<usize>, time_s: f64) -> f64 {
        let Some(factors) = pattern.and_then(|p| self.patterns.get(p)) else { return 1.0 };
        let period = self.times.pattern_period(time_s) as usize;
        factors.0.get(period % factors.0.len().max(1)).copied().unwrap_or(1.0)
    }
}

/// Where links meet.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub id: String,
    pub kind: NodeKind,
}

impl Node {
    /// Its tank, if it is one.
    pub fn tank(&self) -> Option<&Tank> {
        match &self.kind {
            NodeKind::Tank(tank) => Some(tank),
            NodeKind::Junction { .. } | NodeKind::Reservoir { .. } => None,
        }
    }

    pub fn is_junction(&self) -> bool {
        matches!(self.kind, NodeKind::Junction { .. })
    }
}

/// What a node does.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKind {
    /// Takes its demand whatever the pressure.
    Junction {
        elevation_m: f64,
        demand: f64,
        pattern: Option<usize>,
    },
    /// Gives or takes any amount at its head.
    Reservoir {
        head_m: f64,
        pattern: Option<usize>,
    },
    Tank(Tank),
}

/// An upright cylinder. Levels are above its elevation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tank {
    pub elevation_m: f64,
    pub start_level_m: f64,
    /// Below it nothing flows out.
    pub min_level_m: f64,
    /// At it nothing flows in.
    pub max_level_m: f64,
    pub area_m2: f64,
}

impl Tank {
    pub fn volume_m3(&self, level_m: f64) -> f64 {
        level_m * self.area_m2
    }

    pub fn head_m(&self, volume_m3: f64) -> f64 {
        self.elevation_m + volume_m3 / self.area_m2
    }
}

/// What joins two nodes; flow counts from `from` to `to`.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    pub id: String,
    pub from: usize,
    pub to: usize,
    pub kind: LinkKind,
    pub start: Setting,
}

/// What a link does to the water.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkKind {
    Pipe(Pipe),
    Pump(PumpCurve),
    /// A throttle valve: its setting is a loss coefficient, fully open it has `minor`.
    Throttle {
        diameter_m: f64,
        minor: f64,
    },
}

/// A pipe with Hazen-Williams friction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pipe {
    pub length_m: f64,
    pub diameter_m: f64,
    /// Hazen-Williams `C`: about 140 for new pipes, 100 for old ones.
    pub roughness: f64,
    /// Coefficient of minor losses, in velocity heads.
    pub minor: f64,
    /// Lets nothing flow backwards.
    pub check_valve: bool,
}

/// Head that a pump adds at full speed: `shutoff - r·Q^n`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PumpCurve {
    pub shutoff_m: f64,
    pub r: f64,
    pub n: f64,
    /// Flow from which the iteration starts.
    pub design: f64,
}

impl PumpCurve {
    /// Of one point EPANET makes a curve: a third more head at no flow, no head at twice the flow. Its constant.
    const SHUTOFF_PER_DESIGN_HEAD: f64 = 1.33334;

    /// From the one point that the pump is made for. `None` unless both are above 0.
    pub fn through_point(flow: f64, head_m: f64) -> Option<Self> {
        Self::through([(0.0, Self::SHUTOFF_PER_DESIGN_HEAD * head_m), (flow, head_m), (2.0 * flow, 0.0)])
    }

    /// Through three points `(flow, head)`, the first at no flow. `None` unless head falls as flow rises.
    pub fn through(points: [(f64, f64); 3]) -> Option<Self> {
        let [(q0, h0), (q1, h1), (q2, h2)] = points;
        if q0 != 0.0 || q1 <= 0.0 || q2 <= q1 || h1 >= h0 || h2 >= h1 || h2 < 0.0 {
            return None;
        }
        let n = ((h0 - h2) / (h0 - h1)).ln() / (q2 / q1).ln();
        Some(Self { shutoff_m: h0, r: (h0 - h1) / q1.powf(n), n, design: q1 })
    }
}

/// What somebody, or a control, has told a link to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Setting {
    Open,
    Closed,
    /// A pump's speed as a share of full speed (full speed itself is `Open`, none is `Closed`), or a throttle valve's
    /// loss coefficient.
    Value(f64),
}

/// A simple control: sets a link when its condition comes true.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Control {
    pub link: usize,
    pub setting: Setting,
    pub when: Condition,
}

/// When a control acts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition {
    /// A tank's level is at or above this many metres.
    Above { tank: usize, level_m: f64 },
    /// A tank's level is at or below this many metres.
    Below { tank: usize, level_m: f64 },
    /// Seconds since the start.
    At { time_s: u64 },
}

/// One multiplier a period, over and over.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern(pub Vec<f64>);

/// When things happen, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub duration_s: u64,
    /// Longest step over which flows are held.
    pub hydraulic_step_s: u64,
    pub pattern_step_s: u64,
    /// How far into the patterns the run starts.
    pub pattern_start_s: u64,
    pub report_step_s: u64,
}

impl Times {
    pub fn pattern_period(&self, time_s: f64) -> u64 {
        (time_s + self.pattern_start_s as f64) as u64 / self.pattern_step_s.max(1)
    }

    /// When the next period of the patterns begins.
    pub fn next_pattern_s(&self, time_s: f64) -> f64 {
        let next = (self.pattern_period(time_s) + 1) * self.pattern_step_s.max(1);
        next as f64 - self.pattern_start_s as f64
    }

    /// When the next report is due.
    pub fn next_report_s(&self, time_s: f64) -> f64 {
        let step = self.report_step_s.max(1);
        ((time_s as u64 / step + 1) * step) as f64
    }
}

impl Default for Times {
    /// EPANET's.
    fn default() -> Self {
        Self {
            duration_s: 0,
            hydraulic_step_s: 3600,
            pattern_step_s: 3600,
            pattern_start_s: 0,
            report_step_s: 3600,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pump_of_one_point_is_a_parabola_through_it() {
        let curve = PumpCurve::through_point(0.1, 60.0).unwrap();
        let head = |q: f64| curve.shutoff_m - curve.r * q.powf(curve.n);
        assert!((curve.n - 2.0).abs() < 1e-4, "{}", curve.n);
        assert!((head(0.1) - 60.0).abs() < 1e-9 && head(0.2).abs() < 1e-9 && (head(0.0) - 80.0).abs() < 1e-3);
    }

    #[test]
    fn a_pump_of_three_points_goes_through_them_and_must_fall() {
        let points = [(0.0, 104.0), (2.0, 92.0), (4.0, 63.0)];
        let curve = PumpCurve::through(points).unwrap();
        for (q, h) in points {
            assert!((curve.shutoff_m - curve.r * q.powf(curve.n) - h).abs() < 1e-9, "{q}");
        }
        assert_eq!(PumpCurve::through([(0.0, 50.0), (1.0, 60.0), (2.0, 10.0)]), None);
        assert_eq!(PumpCurve::through([(0.5, 50.0), (1.0, 40.0), (2.0, 10.0)]), None);
        assert_eq!(PumpCurve::through_point(0.0, 10.0), None);
    }

    #[test]
    fn patterns_repeat_and_may_start_late() {
        let times = Times { pattern_step_s: 7200, pattern_start_s: 3600, ..Times::default() };
        let network = Network { patterns: vec![Pattern(vec![1.0, 2.0])], times, ..Network::default() };
        let at = |time| network.multiplier(Some(0), time);
        assert_eq!([at(0.0), at(3599.0), at(3600.0), at(10_799.0), at(10_800.0)], [1.0, 1.0, 2.0, 2.0, 1.0]);
        assert_eq!(network.multiplier(None, 5.0), 1.0);
        assert_eq!([times.next_pattern_s(0.0), times.next_pattern_s(3600.0)], [3600.0, 10_800.0]);
        assert_eq!([times.next_report_s(0.0), times.next_report_s(3600.5)], [3600.0, 7200.0]);
    }
}

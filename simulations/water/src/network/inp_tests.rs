use super::*;
use crate::network::model::{
    Condition, Control, Link, LinkKind, Node, NodeKind, Pattern, Pipe, Setting, Tank, Times,
};

const SMALL: &str = "\
[TITLE]
 Anything at all; in any form
[JUNCTIONS]
;id  elevation  demand  pattern
 j   10         36      p       ; a comment
[RESERVOIRS]
 r   50
[TANKS]
 t   20  3  1  5  2  0
[PIPES]
 a   r  j  1000  150  120  0.5  CV
 b   j  t  500   100  130
[PUMPS]
 u   r  t  HEAD c  SPEED 0.9
[VALVES]
 v   j  t  100  TCV  12  0.2
[CURVES]
 c   0    40
 c   18   30
 c   36   10
[PATTERNS]
 p   1.0  2.0
 p   0.5
[STATUS]
 b   Closed
[CONTROLS]
 LINK u 1.0 IF NODE t BELOW 2
 link v OPEN AT TIME 6:30
[TIMES]
 Duration  24:00
 Hydraulic Timestep  15 min
 Pattern Timestep  2
 Pattern Start  1:00
 Report Timestep  0:30
 Start ClockTime  12 am
[OPTIONS]
 Units  CMH
 Headloss  H-W
 Demand Multiplier  0.5
 Quality  None mg/L
[COORDINATES]
 j  1  2
";

#[test]
fn a_small_file_is_read_whole() {
    let node = |id: &str, kind| Node { id: id.to_owned(), kind };
    let link = |id: &str, from, to, kind, start| Link { id: id.to_owned(), from, to, kind, start };
    let pipe = |length_m, diameter_m, roughness, minor, check_valve| {
        LinkKind::Pipe(Pipe { length_m, diameter_m, roughness, minor, check_valve })
    };
    let tank = Tank {
        elevation_m: 20.0,
        start_level_m: 3.0,
        min_level_m: 1.0,
        max_level_m: 5.0,
        area_m2: std::f64::consts::PI,
    };
    let curve =
        crate::network::model::PumpCurve::through([(0.0, 40.0), (0.005, 30.0), (0.01, 10.0)]).unwrap();
    let expected = Network {
        nodes: vec![
            node("j", NodeKind::Junction { elevation_m: 10.0, demand: 0.005, pattern: Some(0) }),
            node("r", NodeKind::Reservoir { head_m: 50.0, pattern: None }),
            node("t", NodeKind::Tank(tank)),
        ],
        links: vec![
            link("a", 1, 0, pipe(1000.0, 0.15, 120.0, 0.5, true), Setting::Open),
            link("b", 0, 2, pipe(500.0, 0.1, 130.0, 0.0, false), Setting::Closed),
            link("u", 1, 2, LinkKind::Pump(curve), Setting::Value(0.9)),
            link("v", 0, 2, LinkKind::Throttle { diameter_m: 0.1, minor: 0.2 }, Setting::Value(12.0)),
        ],
        patterns: vec![Pattern(vec![1.0, 2.0, 0.5])],
        controls: vec![
            Control { link: 2, setting: Setting::Open, when: Condition::Below { tank: 2, level_m: 2.0 } },
            Control { link: 3, setting: Setting::Open, when: Condition::At { time_s: 23_400 } },
        ],
        times: Times {
            duration_s: 86_400,
            hydraulic_step_s: 900,
            pattern_step_s: 7200,
            pattern_start_s: 3600,
            report_step_s: 1800,
        },
    };
    assert_eq!(read(SMALL), Ok(expected));
}

#[test]
fn american_units_become_metres() {
    let text = SMALL.replace("Units  CMH", "Units  GPM");
    let network = read(&text).unwrap();
    let NodeKind::Junction { elevation_m, demand, .. } = network.nodes[0].kind else { panic!("a junction") };
    assert!((elevation_m - 3.048).abs() < 1e-12);
    // 18 US gallons a minute are 1.1356 l/s.
    assert!((demand - 1.1356e-3).abs() < 1e-6, "{demand}");
    let LinkKind::Pipe(pipe) = &network.links[0].kind else { panic!("a pipe") };
    assert!((pipe.diameter_m - 3.81).abs() < 1e-12, "150 inches");
}

/// Replaces `from` by `to` in the small file and tells how reading fails.
fn failure(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from}");
    read(&SMALL.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn errors_name_line_and_section() {
    let table = [
        ("10         36      p", "ten  36  p", r#"line 5 in [JUNCTIONS]: "ten" is not a number"#),
        ("36      p ", "36  q ", r#"line 5 in [JUNCTIONS]: pattern "q" is not defined"#),
        (" r   50", " r", "line 7 in [RESERVOIRS]: the head is missing"),
        (" r   50", " j   50", r#"line 7 in [RESERVOIRS]: "j" is defined twice"#),
        (
            "3  1  5  2",
            "6  1  5  2",
            r#"line 9 in [TANKS]: "6" is not between the lowest and the highest level"#,
        ),
        ("5  2  0", "5  2  0  curve", "line 9 in [TANKS]: a volume curve is not supported"),
        ("a   r  j", "a   r  x", r#"line 11 in [PIPES]: node "x" is not defined"#),
        ("1000  150", "1000  0", r#"line 11 in [PIPES]: "0" is not above 0"#),
        ("0.5  CV", "0.5  Ajar", r#"line 11 in [PIPES]: "Ajar" is not Open, Closed or CV"#),
        ("HEAD c  SPEED 0.9", "POWER 5", "line 14 in [PUMPS]: a pump by POWER is not supported"),
        (
            "c   18   30",
            "c   18   45",
            r#"line 14 in [PUMPS]: "c" is not a curve that falls from no flow on"#,
        ),
        ("TCV  12", "PRV  12", "line 16 in [VALVES]: a valve PRV is not supported"),
        ("b   Closed", "a   Closed", "line 25 in [STATUS]: setting a check valve is not supported"),
        ("b   Closed", "b   0.5", r#"line 25 in [STATUS]: "0.5" is not Open or Closed"#),
        ("LINK u", "LINK x", r#"line 27 in [CONTROLS]: link "x" is not defined"#),
        (
            "NODE t BELOW",
            "NODE j BELOW",
            "line 27 in [CONTROLS]: a control by a node that is no tank is not supported",
        ),
        ("t BELOW 2", "t UNDER 2", r#"line 27 in [CONTROLS]: "UNDER" is not ABOVE or BELOW"#),
        (
            "AT TIME 6:30",
            "AT CLOCKTIME 6:30",
            "line 28 in [CONTROLS]: a control other than IF NODE .. or AT TIME .. is not supported",
        ),
        ("TIME 6:30", "TIME 6:3x", r#"line 28 in [CONTROLS]: "6:3x" is not a time"#),
        ("15 min", "15 moons", r#"line 31 in [TIMES]: "moons" is not a unit of time"#),
        ("15 min", "0", r#"line 31 in [TIMES]: "0" is not above 0"#),
        ("Units  CMH", "Units  XYZ", "line 37 in [OPTIONS]: flow unit XYZ is not supported"),
        ("Headloss  H-W", "Headloss  D-W", "line 38 in [OPTIONS]: headloss D-W is not supported"),
        ("[COORDINATES]", "[RULES]", "line 42 in [RULES]: [RULES] is not supported"),
    ];
    for (from, to, error) in table {
        assert_eq!(failure(from, to), error, "{from} -> {to}");
    }
}

use super::*;
use crate::network::inp;

/// A source above a tank above a town, in m and m³/h; the tank holds 40 m² · 5 m.
const CHAIN: &str = "
[JUNCTIONS]
 town  0  36
[RESERVOIRS]
 hill  60
[TANKS]
 tank  30  2.0  0.5  5.0  7.1365
[PIPES]
 main    hill  tank  1000  150  120  0  Open
 street  tank  town  500   200  120  0  Open
[OPTIONS]
 Units  CMH
 Headloss  H-W
[TIMES]
 Duration  24
";

fn start(text: &str) -> Run {
    Run::start(inp::read(text).unwrap()).unwrap()
}

/// To the end; the time and the level of the node `tank` at each change.
fn run_out(run: &mut Run) -> Vec<(f64, f64)> {
    let tank = run.network.node("tank").unwrap();
    let mut seen = vec![(run.time_s(), run.level_m(tank))];
    while run.advance().unwrap().is_some() {
        seen.push((run.time_s(), run.level_m(tank)));
    }
    seen
}

#[test]
fn a_tank_fills_to_its_brim_and_not_further() {
    let mut run = start(CHAIN);
    let main = run.network.link("main").unwrap();
    assert!(run.flow(main) * 3600.0 > 60.0, "more comes in than the town takes: {}", run.flow(main) * 3600.0);
    let seen = run_out(&mut run);
    let full = seen.iter().position(|(_, level)| *level >= 5.0 - AT_LEVEL_M).unwrap();
    assert!(seen[full].0 % 3600.0 > 1.0, "between two reports, when it is full: {:?}", seen[full]);
    assert!(seen.iter().all(|(_, level)| *level <= 5.0 + AT_LEVEL_M));
    assert!(run.balance().relative_error() < 1e-12, "{:?}", run.balance());
    assert!(run.balance().unserved_m3.abs() < 1e-3, "{:?}", run.balance());
}

#[test]
fn a_tank_that_is_empty_gives_nothing_and_what_it_does_not_give_is_counted() {
    let mut run = start(&CHAIN.replace("120  0  Open\n street", "120  0  Closed\n street"));
    let seen = run_out(&mut run);
    let (_, last) = seen.last().unwrap();
    assert!((last - 0.5).abs() < 1e-5, "{last}");
    let emptied_s = 1.5 * 40.0 / 36.0 * 3600.0;
    assert!(seen.iter().any(|(at, _)| (at - emptied_s).abs() < 1.0), "{seen:?}");
    let balance = run.balance();
    assert!((balance.demanded_m3 - 36.0 * 24.0).abs() < 1e-6, "{balance:?}");
    assert!((balance.unserved_m3 - (36.0 * 24.0 - 60.0)).abs() < 0.01, "{balance:?}");
    assert!(balance.relative_error() < 1e-9, "{balance:?}");
}

#[test]
fn a_level_control_acts_at_its_level_to_the_micrometre() {
    let controls = "
[CONTROLS]
 LINK main CLOSED IF NODE tank ABOVE 4.25
 LINK main OPEN IF NODE tank BELOW 1.5
";
    let mut run = start(&format!("{CHAIN}{controls}"));
    let (main, tank) = (run.network.link("main").unwrap(), run.network.node("tank").unwrap());
    let (mut open, mut switches) = (run.is_open(main), Vec::new());
    while run.advance().unwrap().is_some() {
        if run.is_open(main) != open {
            open = !open;
            switches.push((open, run.level_m(tank)));
        }
    }
    assert!(switches.len() >= 4, "{switches:?}");
    for (opened, level) in switches {
        let wanted = if opened { 1.5 } else { 4.25 };
        assert!((level - wanted).abs() < AT_LEVEL_M, "{opened} {level}");
    }
}

#[test]
fn steps_end_at_reports_patterns_and_timed_controls() {
    let more = "
[PATTERNS]
 1  1.0  0.5
[CONTROLS]
 LINK main CLOSED AT TIME 0:20
 LINK main OPEN AT TIME 7
[TIMES]
 Duration  2:00
 Hydraulic Timestep  1:00
 Pattern Timestep  0:45
 Report Timestep  1:00
";
    let seen = run_out(&mut start(&format!("{CHAIN}{more}")));
    let minutes: Vec<f64> = seen.iter().map(|(at, _)| at / 60.0).collect();
    assert_eq!(minutes, [0.0, 20.0, 45.0, 60.0, 90.0, 120.0]);
}

#[test]
fn a_check_valve_keeps_a_tank_from_running_back() {
    let low = CHAIN.replace(" hill  60", " hill  20");
    let back = start(&low);
    let main = back.network.link("main").unwrap();
    assert!(back.is_open(main) && back.flow(main) < -0.001, "without one it runs back: {}", back.flow(main));
    let kept = start(&low.replace("1000  150  120  0  Open", "1000  150  120  0  CV"));
    assert!(!kept.is_open(main) && kept.flow(main).abs() < 1e-6, "{}", kept.flow(main));
}

#[test]
fn a_pump_against_more_head_than_it_has_gives_nothing() {
    let pump = |head: f64| {
        format!(
            "{}\n[PUMPS]\n lift  well  top  HEAD c\n[CURVES]\n c  40  {head}\n[RESERVOIRS]\n well  0\n",
            CHAIN
                .replace(" main    hill  tank", " main    top  tank")
                .replace(" town  0  36", " town  0  36\n top  0")
        )
    };
    let weak = start(&pump(20.0));
    let lift = weak.network.link("lift").unwrap();
    assert!(!weak.is_open(lift) && weak.flow(lift).abs() < 1e-6, "shutoff 27 m, tank at 32 m");
    let strong = start(&pump(40.0));
    assert!(strong.is_open(lift) && strong.flow(lift) * 3600.0 > 20.0, "{}", strong.flow(lift) * 3600.0);
}

#[test]
fn continuity_and_energy_hold_at_every_node_and_link_of_the_loops() {
    let mut run = start(include_str!("../../tests/epanet/loops.inp"));
    loop {
        let mut left: Vec<f64> = run.state.demands.iter().map(|d| -d).collect();
        for (index, link) in run.network.links.iter().enumerate() {
            let flow = run.flow(index);
            left[link.from] -= flow;
            left[link.to] += flow;
            let lost = run.head_m(link.from) - run.head_m(link.to);
            if run.is_open(index) {
                let law = crate::network::loss::open(&link.kind, run.state.settings[index], flow);
                assert!((law.head_m - lost).abs() < 1e-6, "{} at {}", link.id, run.time_s());
            }
        }
        for (node, error) in run.network.nodes.iter().zip(left) {
            assert!(!node.is_junction() || error.abs() < 1e-9, "{} {error}", node.id);
        }
        if run.advance().unwrap().is_none() {
            return;
        }
    }
}

#[test]
fn a_node_without_links_is_named() {
    let alone = inp::read(&CHAIN.replace(" town  0  36", " town  0  36\n far  0  1")).unwrap();
    let error = Run::start(alone).unwrap_err();
    assert_eq!(error.to_string(), "at 0 s: node far is joined to no tank or reservoir");
}

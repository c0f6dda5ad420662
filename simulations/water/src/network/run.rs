//! An extended period: an instant is solved, its flows hold until something changes, tanks take what they brought.
//!
//! A step ends, as EPANET's does, at the earliest of: the hydraulic time step, the next period of the patterns, the
//! next report, a tank that is full or empty, a level or a time at which a control would change something. Tanks are
//! integrated by Euler's explicit rule, which is exact for flows that hold. Flows do not truly hold while a level
//! moves: that error is the hydraulic step's, and the same as EPANET's.

use super::model::{Condition, Control, Network, NodeKind, Tank};
use super::solver::{self, Exchange, SolveError, State};
use super::status::{AT_LEVEL_M, Status};

/// A tank's flow below this changes nothing worth a step, in m³/s (EPANET's 1e-6 ft³/s).
const NO_FLOW: f64 = 2.8e-8;

/// A network under way. It is in balance at its time, always.
#[derive(Debug, Clone)]
pub struct Run {
    network: Network,
    state: State,
    balance: Balance,
}

/// Volumes in m³ since the start.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Balance {
    /// What reservoirs gave, less what they took.
    pub supplied_m3: f64,
    /// What junctions asked for.
    pub demanded_m3: f64,
    /// What they did not get, because everything between them and a source was shut or empty. A trace of it is the
    /// leak of shut links, which the solver needs.
    pub unserved_m3: f64,
    /// What tanks hold more than at the start.
    pub stored_m3: f64,
}

impl Balance {
    /// Water invented or lost: in, less out, less stored; as a share of what came in or went out.
    pub fn relative_error(&self) -> f64 {
        let out = self.demanded_m3 - self.unserved_m3;
        let through = self.supplied_m3.abs().max(out.abs()).max(f64::MIN_POSITIVE);
        (self.supplied_m3 - out - self.stored_m3).abs() / through
    }
}

impl Run {
    /// In balance at time 0.
    pub fn start(network: Network) -> Result<Self, SolveError> {
        let state = State::new(&network);
        let mut run = Self { network, state, balance: Balance::default() };
        run.settle()?;
        Ok(run)
    }

    /// Goes to the next change and into balance there; how many seconds that took, `None` at the end of the duration.
    pub fn advance(&mut self) -> Result<Option<f64>, SolveError> {
        let Some(until) = self.next_change() else { return Ok(None) };
        let seconds = until - self.state.time_s;
        self.integrate(seconds);
        self.state.time_s = until;
        self.settle()?;
        Ok(Some(seconds))
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn time_s(&self) -> f64 {
        self.state.time_s
    }

    pub fn head_m(&self, node: usize) -> f64 {
        self.state.heads[node]
    }

    /// Of a tank, above its elevation; 0 for other nodes.
    pub fn level_m(&self, node: usize) -> f64 {
        self.network.nodes[node].tank().map_or(0.0, |tank| self.state.volumes[node] / tank.area_m2)
    }

    /// In m³/s, from `from` to `to`.
    pub fn flow(&self, link: usize) -> f64 {
        self.state.flows[link]
    }

    pub fn is_open(&self, link: usize) -> bool {
        self.state.statuses[link] == Status::Open
    }

    /// Of the time since the start.
    pub fn balance(&self) -> Balance {
        let gained =
            |(node, tank): (usize, &Tank)| self.state.volumes[node] - tank.volume_m3(tank.start_level_m);
        Balance { stored_m3: self.tanks().map(gained).sum(), ..self.balance }
    }

    fn settle(&mut self) -> Result<(), SolveError> {
        solver::set_boundaries(&self.network, &mut self.state);
        self.obey_controls();
        solver::solve(&self.network, &mut self.state)
    }

    fn obey_controls(&mut self) {
        let due = |c: &&Control| self.is_due(c);
        let due: Vec<Control> = self.network.controls.iter().filter(due).copied().collect();
        for control in due {
            if self.would_change(&control) {
                self.state.set(&self.network, control.link, control.setting);
            }
        }
    }

    fn is_due(&self, control: &Control) -> bool {
        match control.when {
            Condition::Above { tank, level_m } => self.level_m(tank) >= level_m - AT_LEVEL_M,
            Condition::Below { tank, level_m } => self.level_m(tank) <= level_m + AT_LEVEL_M,
            Condition::At { time_s } => self.state.time_s == time_s as f64,
        }
    }

    /// A pump without head and a link at a full tank are open as far as a control can tell.
    fn would_change(&self, control: &Control) -> bool {
        let shut = |setting| Status::of(&self.network.links[control.link], setting) == Status::Closed;
        let is_shut = self.state.statuses[control.link] == Status::Closed;
        is_shut != shut(control.setting) || self.state.settings[control.link] != control.setting
    }

    /// The earliest time after now at which flows may change.
    fn next_change(&self) -> Option<f64> {
        let (now, times) = (self.state.time_s, &self.network.times);
        let end = times.duration_s as f64;
        if now >= end {
            return None;
        }
        let inflow = self.state.exchange(&self.network).into;
        let clock =
            [end, now + times.hydraulic_step_s as f64, times.next_pattern_s(now), times.next_report_s(now)];
        let tanks = self.tanks().filter_map(|(node, tank)| {
            let limit = if inflow[node] > 0.0 { tank.max_level_m } else { tank.min_level_m };
            self.reaches(node, tank, limit, inflow[node])
        });
        let controls = self.network.controls.iter().filter_map(|c| self.comes_true(c, &inflow));
        let all = clock.into_iter().chain(tanks).chain(controls);
        all.filter(|&at| at > now).min_by(f64::total_cmp)
    }

    /// When a control's condition comes true, if that changes anything.
    fn comes_true(&self, control: &Control, inflow: &[f64]) -> Option<f64> {
        let level = |node: usize, level_m: f64, rising: bool| {
            let tank = self.network.nodes[node].tank()?;
            if (inflow[node] > 0.0) != rising {
                return None;
            }
            self.reaches(node, tank, level_m, inflow[node])
        };
        let at = match control.when {
            Condition::Above { tank, level_m } => level(tank, level_m, true),
            Condition::Below { tank, level_m } => level(tank, level_m, false),
            Condition::At { time_s } => Some(time_s as f64),
        };
        at.filter(|_| self.would_change(control))
    }

    /// When a tank's level is at `level_m`, if it moves there and is not there yet.
    fn reaches(&self, node: usize, tank: &Tank, level_m: f64, inflow: f64) -> Option<f64> {
        let way = level_m - self.level_m(node);
        let moves_there = inflow.abs() > NO_FLOW && way.signum() == inflow.signum();
        (moves_there && way.abs() > AT_LEVEL_M).then(|| self.state.time_s + tank.volume_m3(way) / inflow)
    }

    fn integrate(&mut self, seconds: f64) {
        let Exchange { into, unserved } = self.state.exchange(&self.network);
        for (index, node) in self.network.nodes.iter().enumerate() {
            let net = into[index] * seconds;
            match &node.kind {
                NodeKind::Tank(_) => self.state.volumes[index] += net,
                NodeKind::Reservoir { .. } => self.balance.supplied_m3 -= net,
                NodeKind::Junction { .. } => self.balance.demanded_m3 += self.state.demands[index] * seconds,
            }
        }
        self.balance.unserved_m3 += unserved * seconds;
    }

    fn tanks(&self) -> impl Iterator<Item = (usize, &Tank)> {
        self.network.nodes.iter().enumerate().filter_map(|(index, node)| Some((index, node.tank()?)))
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;

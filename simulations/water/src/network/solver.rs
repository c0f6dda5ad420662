//! One instant: heads at all nodes and flows in all links that satisfy continuity and energy at once.
//!
//! The Global Gradient Algorithm (E. Todini and S. Pilati, 1988): with loss `h(Q)` and gradient `g` of each link at
//! the last flows, the new heads `H` solve a linear system, one row a junction, and each flow follows by
//! `Q - (h(Q) - (H_from - H_to)) / g`. Continuity then holds after every step, whatever is left of the energy error.

use thiserror::Error;

use super::loss::{self, Loss};
use super::matrix::{Singular, Symmetric};
use super::model::{LinkKind, Network, NodeKind, Setting};
use super::status::{self, Status};

/// Sum of the last flow changes against the sum of flows: EPANET stops at 1e-3 by default.
const FLOW_ACCURACY: f64 = 1e-7;

/// Largest energy error of a link that is accepted, in metres.
const HEAD_ACCURACY_M: f64 = 1e-6;

/// Newton takes about ten steps, and as many again after a link changed its status. A network that needs more
/// than these has links that open and close each other for ever: an error.
const MAX_TRIALS: u32 = 200;

/// Statuses are looked at every second trial of the first ten, as EPANET does, and after that only when the flows
/// stand: early enough to save trials, and not so often that a passing flow closes something.
const STATUS_EVERY: u32 = 2;
const STATUS_UNTIL: u32 = 10;

/// Velocity from which the iteration starts in all links but pumps, in m/s (EPANET's 1 ft/s).
const FIRST_VELOCITY: f64 = 0.3048;

/// Flow from which it starts in a closed link, in m³/s.
const FIRST_CLOSED: f64 = 1e-8;

/// Why an instant has no solution.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SolveError {
    #[error("at {time_s} s: node {node} is joined to no tank or reservoir")]
    Alone { time_s: f64, node: String },
    #[error(
        "at {time_s} s: no balance after {MAX_TRIALS} trials, the last changed flows by {change:e} of their sum"
    )]
    NoBalance { time_s: f64, change: f64 },
}

/// Heads in m by node, flows in m³/s by link, and what they rest on.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub time_s: f64,
    pub heads: Vec<f64>,
    pub flows: Vec<f64>,
    pub settings: Vec<Setting>,
    pub statuses: Vec<Status>,
    /// What each tank holds in m³; 0 for other nodes.
    pub volumes: Vec<f64>,
    /// What each junction takes; 0 for other nodes.
    pub demands: Vec<f64>,
}

impl State {
    pub(super) fn new(network: &Network) -> Self {
        let settings: Vec<_> = network.links.iter().map(|l| l.start).collect();
        let statuses = network.links.iter().map(|l| Status::of(l, l.start)).collect();
        let volume = |n: &super::model::Node| n.tank().map_or(0.0, |t| t.volume_m3(t.start_level_m));
        let mut state = Self {
            time_s: 0.0,
            heads: vec![0.0; network.nodes.len()],
            flows: vec![0.0; network.links.len()],
            settings,
            statuses,
            volumes: network.nodes.iter().map(volume).collect(),
            demands: vec![0.0; network.nodes.len()],
        };
        for index in 0..network.links.len() {
            state.reset_flow(network, index);
        }
        state
    }

    /// Tells a link something. A pump that starts iterates from the flow it is made for.
    pub(super) fn set(&mut self, network: &Network, link: usize, setting: Setting) {
        let next = Status::of(&network.links[link], setting);
        let starts = self.statuses[link] == Status::Closed && next == Status::Open;
        self.settings[link] = setting;
        self.statuses[link] = next;
        if starts && matches!(network.links[link].kind, LinkKind::Pump(_)) {
            self.reset_flow(network, link);
        }
    }

    fn reset_flow(&mut self, network: &Network, index: usize) {
        let circle = |d: f64| std::f64::consts::FRAC_PI_4 * d * d;
        self.flows[index] = match (&network.links[index].kind, self.statuses[index]) {
            (_, Status::Closed) => FIRST_CLOSED,
            (LinkKind::Pump(curve), _) => curve.design,
            (LinkKind::Pipe(pipe), _) => FIRST_VELOCITY * circle(pipe.diameter_m),
            (LinkKind::Throttle { diameter_m, .. }, _) => FIRST_VELOCITY * circle(*diameter_m),
        };
    }

    /// What each tank gains and each reservoir takes (below 0: gives), and what junctions asked for and got through
    /// links that are shut: the solver lets a cut-off demand through the leak, at an absurd head, but no tank loses it.
    pub(super) fn exchange(&self, network: &Network) -> Exchange {
        let mut exchange = Exchange { into: vec![0.0; self.heads.len()], unserved: 0.0 };
        for ((link, flow), status) in network.links.iter().zip(&self.flows).zip(&self.statuses) {
            for (node, out) in [(link.from, *flow), (link.to, -flow)] {
                if network.nodes[node].is_junction() {
                    continue;
                }
                match status {
                    Status::Open => exchange.into[node] -= out,
                    Status::Closed | Status::OutOfHead | Status::AtTank => exchange.unserved += out,
                }
            }
        }
        exchange
    }
}

/// Flows in m³/s between the network and what is not a junction.
#[derive(Debug)]
pub(super) struct Exchange {
    /// By node; 0 for junctions.
    pub(super) into: Vec<f64>,
    pub(super) unserved: f64,
}

/// Brings heads, flows and statuses into balance with demands, volumes and settings.
pub(super) fn solve(network: &Network, state: &mut State) -> Result<(), SolveError> {
    let system = System::new(network);
    let mut change = f64::INFINITY;
    for trial in 1..=MAX_TRIALS {
        change = system.step(state)?;
        let balanced = change <= FLOW_ACCURACY && system.energy_error(state) <= HEAD_ACCURACY_M;
        if balanced && !status::update(network, state) {
            return Ok(());
        }
        if !balanced && trial <= STATUS_UNTIL && trial % STATUS_EVERY == 0 {
            status::update(network, state);
        }
    }
    Err(SolveError::NoBalance { time_s: state.time_s, change })
}

/// The linear system's shape: which node has which row.
#[derive(Debug)]
struct System<'a> {
    network: &'a Network,
    /// By node; tanks and reservoirs have none.
    rows: Vec<Option<usize>>,
    /// By row.
    junctions: Vec<usize>,
}

impl<'a> System<'a> {
    fn new(network: &'a Network) -> Self {
        let mut system = Self { network, rows: vec![None; network.nodes.len()], junctions: Vec::new() };
        for (index, node) in network.nodes.iter().enumerate() {
            if node.is_junction() {
                system.rows[index] = Some(system.junctions.len());
                system.junctions.push(index);
            }
        }
        system
    }

    /// One step of Newton's method; how far flows moved, as a share of their sum.
    fn step(&self, state: &mut State) -> Result<f64, SolveError> {
        let losses = self.losses(state);
        self.heads(state, &losses)?;
        let (mut moved, mut sum) = (0.0, f64::MIN_POSITIVE);
        for (index, (link, loss)) in self.network.links.iter().zip(&losses).enumerate() {
            let error = loss.head_m - (state.heads[link.from] - state.heads[link.to]);
            state.flows[index] -= error / loss.gradient;
            moved += (error / loss.gradient).abs();
            sum += state.flows[index].abs();
        }
        Ok(moved / sum)
    }

    /// Solves for the heads that continuity needs if every link follows its tangent.
    fn heads(&self, state: &mut State, losses: &[Loss]) -> Result<(), SolveError> {
        let mut matrix = Symmetric::zero(self.junctions.len());
        let mut right: Vec<f64> = self.junctions.iter().map(|&node| -state.demands[node]).collect();
        for ((link, loss), flow) in self.network.links.iter().zip(losses).zip(&state.flows) {
            let conductance = 1.0 / loss.gradient;
            let tangent = flow - loss.head_m * conductance;
            for (here, there, out) in [(link.from, link.to, tangent), (link.to, link.from, -tangent)] {
                let Some(row) = self.rows[here] else { continue };
                right[row] -= out;
                matrix.add(row, row, conductance);
                match self.rows[there] {
                    // Each pair of junctions once.
                    Some(other) if other < row => matrix.add(row, other, -conductance),
                    Some(_) => {}
                    None => right[row] += conductance * state.heads[there],
                }
            }
        }
        matrix.solve(&mut right).map_err(|Singular { row }| SolveError::Alone {
            time_s: state.time_s,
            node: self.network.nodes[self.junctions[row]].id.clone(),
        })?;
        for (&node, head) in self.junctions.iter().zip(right) {
            state.heads[node] = head;
        }
        Ok(())
    }

    fn losses(&self, state: &State) -> Vec<Loss> {
        let of = |index: usize| match state.statuses[index] {
            Status::Open => {
                loss::open(&self.network.links[index].kind, state.settings[index], state.flows[index])
            }
            Status::Closed | Status::OutOfHead | Status::AtTank => loss::closed(state.flows[index]),
        };
        (0..self.network.links.len()).map(of).collect()
    }

    /// The largest difference between a link's loss and its ends' heads, of the open ones.
    fn energy_error(&self, state: &State) -> f64 {
        let losses = self.losses(state);
        let error = |index: usize| {
            let link = &self.network.links[index];
            (losses[index].head_m - (state.heads[link.from] - state.heads[link.to])).abs()
        };
        let open = (0..losses.len()).filter(|&index| state.statuses[index] == Status::Open);
        open.map(error).fold(0.0, f64::max)
    }
}

/// Demands and fixed heads of this instant.
pub(super) fn set_boundaries(network: &Network, state: &mut State) {
    for (index, node) in network.nodes.iter().enumerate() {
        match &node.kind {
            NodeKind::Junction { demand, pattern, .. } => {
                state.demands[index] = demand * network.multiplier(*pattern, state.time_s);
            }
            NodeKind::Reservoir { head_m, pattern } => {
                state.heads[index] = head_m * network.multiplier(*pattern, state.time_s);
            }
            NodeKind::Tank(tank) => state.heads[index] = tank.head_m(state.volumes[index]),
        }
    }
}

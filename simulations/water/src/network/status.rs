//! Which links take part. A link that somebody closed stays closed; others close by themselves and open again.
//!
//! ```text
//!            flow would turn          flow may run forward
//!   check:   Open ----------> Closed -------------------> Open
//!            network above shutoff head              below it
//!   pump:    Open ----------> OutOfHead ----------------> Open
//!            into a full, out of an empty tank      the other way
//!   any:     Open ----------> AtTank -------------------> Open
//! ```
//!
//! The rules are EPANET's (user manual, section 12.1). They are asked between the steps of the iteration, so that a
//! link may close and open some times before a solution stands.

use super::model::{Link, LinkKind, Network, Pipe, Setting};
use super::solver::State;

/// Heads nearer than this are the same, in metres (EPANET's 0.0005 ft): a valve does not flutter over rounding.
const HEAD_TOLERANCE_M: f64 = 0.000_15;

/// Flows nearer than this to 0 are none, in m³/s (EPANET's 0.0001 ft³/s).
const FLOW_TOLERANCE: f64 = 2.8e-6;

/// Levels nearer than this to a limit or a control's threshold are at it, in metres: more than rounding leaves after a
/// step that ends there, and than a leak brings in a minute. (EPANET takes what flows in a second.)
pub(super) const AT_LEVEL_M: f64 = 1e-6;

/// How a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Open,
    /// Told to be closed, or a check valve that holds.
    Closed,
    /// A pump that cannot reach the head behind it.
    OutOfHead,
    /// Would fill a full tank or drain an empty one.
    AtTank,
}

impl Status {
    /// Of a link that was told something, before the network has its say.
    pub fn of(link: &Link, setting: Setting) -> Self {
        match (&link.kind, setting) {
            (_, Setting::Closed) => Self::Closed,
            (LinkKind::Pump(_), Setting::Value(speed)) if speed <= 0.0 => Self::Closed,
            (_, Setting::Open | Setting::Value(_)) => Self::Open,
        }
    }
}

/// Brings all statuses in line with heads and flows; whether any changed.
pub(super) fn update(network: &Network, state: &mut State) -> bool {
    let mut changed = false;
    for index in 0..network.links.len() {
        let next = next_status(network, state, index);
        changed |= next != state.statuses[index];
        state.statuses[index] = next;
    }
    changed
}

/// The first that holds: a check valve or pump closes by its own rule; a tank at its limit closes what is open; what
/// was held without a reason any more opens.
fn next_status(network: &Network, state: &State, index: usize) -> Status {
    let link = &network.links[index];
    let (now, flow) = (state.statuses[index], state.flows[index]);
    let lost = state.heads[link.from] - state.heads[link.to];
    let own = match &link.kind {
        LinkKind::Pipe(Pipe { check_valve: true, .. }) => check_valve(now, lost, flow),
        LinkKind::Pump(curve) if now != Status::Closed => {
            let speed = if let Setting::Value(speed) = state.settings[index] { speed } else { 1.0 };
            if -lost > speed * speed * curve.shutoff_m + HEAD_TOLERANCE_M {
                Status::OutOfHead
            } else {
                Status::Open
            }
        }
        LinkKind::Pipe(_) | LinkKind::Pump(_) | LinkKind::Throttle { .. } if now == Status::Closed => now,
        LinkKind::Pipe(_) | LinkKind::Pump(_) | LinkKind::Throttle { .. } => Status::Open,
    };
    let refused = refuses(network, state, link.from, flow) || refuses(network, state, link.to, -flow);
    if own == Status::Open && refused { Status::AtTank } else { own }
}

fn check_valve(now: Status, lost: f64, flow: f64) -> Status {
    if lost < -HEAD_TOLERANCE_M || flow < -FLOW_TOLERANCE {
        return Status::Closed;
    }
    if lost > HEAD_TOLERANCE_M { Status::Open } else { now }
}

/// Whether a node is a tank that cannot give (`out` above 0) or take (below 0) this flow.
fn refuses(network: &Network, state: &State, node: usize, out: f64) -> bool {
    let Some(tank) = network.nodes[node].tank() else { return false };
    let level_m = state.volumes[node] / tank.area_m2;
    let full = level_m >= tank.max_level_m - AT_LEVEL_M && out < 0.0;
    let empty = level_m <= tank.min_level_m + AT_LEVEL_M && out > 0.0;
    full || empty
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_valve_closes_on_backflow_and_opens_on_head() {
        let table = [
            (Status::Open, 1.0, 0.1, Status::Open),
            (Status::Open, -1.0, 0.1, Status::Closed),
            (Status::Open, 1.0, -0.1, Status::Closed),
            (Status::Open, 0.0, 0.0, Status::Open),
            (Status::Closed, 0.0, 0.0, Status::Closed),
            (Status::Closed, 1.0, 0.0, Status::Open),
        ];
        for (now, lost, flow, next) in table {
            assert_eq!(check_valve(now, lost, flow), next, "{now:?} {lost} {flow}");
        }
    }
}

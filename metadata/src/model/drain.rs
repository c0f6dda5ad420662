//! Liveness, asked in each state: once faults and writes end, do both sides agree, and soon?

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::action::{Action, Side};
use super::state::State;

/// Steps in which both sides must agree: disks that catch up, messages that arrive, timers.
pub(super) const STEPS: u16 = 80;

/// How many steps it takes from each state that was asked for; [`u16::MAX`]: more than [`STEPS`]. What a way passes
/// is known from then on, so that each state is passed once.
#[derive(Debug, Default)]
pub(super) struct Ways(Mutex<BTreeMap<u64, u16>>);

impl Ways {
    /// Whether both sides agree within [`STEPS`] from here.
    pub(super) fn ends(&self, state: &State) -> bool {
        let mut passed = vec![state.print().end()];
        let mut state = state.clone();
        let ahead = loop {
            if let Some(known) = self.known(passed[passed.len() - 1]) {
                break known;
            }
            let Some(action) = next(&state) else { break 0 };
            if state.broken.is_some() || passed.len() > usize::from(STEPS) {
                break u16::MAX;
            }
            state = state.after(action);
            passed.push(state.print().end());
        };
        self.learn(&passed, ahead)
    }

    fn known(&self, print: u64) -> Option<u16> {
        self.0.lock().unwrap().get(&print).copied()
    }

    fn learn(&self, passed: &[u64], ahead: u16) -> bool {
        let mut known = self.0.lock().unwrap();
        let mut steps = ahead;
        for print in passed.iter().rev() {
            known.insert(*print, steps);
            steps = steps.saturating_add(1);
        }
        steps.saturating_sub(1) <= STEPS
    }

    pub(super) fn longest(&self) -> u16 {
        self.0.lock().unwrap().values().copied().max().unwrap_or(0)
    }
}

/// What happens next where nothing fails and nobody writes; `None`: both sides agree.
fn next(state: &State) -> Option<Action> {
    let quiet = [
        Action::Persist(Side::Cloud),
        Action::Persist(Side::Edge),
        Action::Connect,
        Action::Deliver { to: Side::Edge, at: 0 },
        Action::Deliver { to: Side::Cloud, at: 0 },
    ];
    let moves = quiet.into_iter().find(|action| state.can(*action) && !state.is_refused());
    moves.or_else(|| (!state.agrees()).then_some(Action::Wait))
}

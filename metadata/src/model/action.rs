//! What may happen next, and how often it still may.

use bus::Class;

use super::state::State;

/// One of the two parties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    Cloud,
    Edge,
}

/// What the cloud's cores write in one cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Wish {
    /// Two keys of the edge, the same value in both.
    Pair,
    /// The same, and the first fills a part, so that they travel apart.
    LargePair,
    /// Both deleted.
    NoPair,
    /// What all edges are told under the first name; seen where the edge has none of its own.
    ForAll,
    NoneForAll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Write(Wish),
    /// The edge's cores put an entry of this class into the outbox.
    Push(Class),
    /// The disk has made durable what was under way; what waited for it is said.
    Persist(Side),
    /// The message with this many before it arrives.
    Deliver {
        to: Side,
        at: usize,
    },
    /// The first message will arrive twice.
    Duplicate {
        to: Side,
    },
    /// The first message is lost.
    Drop {
        to: Side,
    },
    Connect,
    /// The link breaks; `noticed`: both sides are told now, else when the next one stands.
    Cut {
        noticed: bool,
    },
    /// Loses power and starts again; this many of the transactions under way had reached the disk.
    Crash {
        side: Side,
        landed: usize,
    },
    /// The edge starts again on an empty disk.
    Wipe,
    /// Somebody copies the edge's disk ..
    CopyDisk,
    /// .. and exchanges disk and copy.
    ExchangeDisks,
    Backup,
    /// A new cloud starts from the backup, under the next epoch ..
    Restore,
    /// .. and the one that it took over from comes again.
    ReturnCloud,
    /// The cloud forgets all deletions so far.
    Compact,
    /// Time passes to the next timer.
    Wait,
}

/// How often each kind of event may happen yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Budget {
    pub(super) writes: u8,
    pub(super) pushes: u8,
    pub(super) reorders: u8,
    pub(super) duplicates: u8,
    pub(super) drops: u8,
    pub(super) cuts: u8,
    pub(super) cloud_crashes: u8,
    pub(super) edge_crashes: u8,
    pub(super) wipes: u8,
    pub(super) copies: u8,
    pub(super) exchanges: u8,
    pub(super) backups: u8,
    pub(super) restores: u8,
    pub(super) returns: u8,
    pub(super) compactions: u8,
    pub(super) waits: u8,
}

impl Budget {
    /// What `action` uses up; `None`: it is free.
    fn purse(&mut self, action: Action) -> Option<&mut u8> {
        match action {
            Action::Persist(_) | Action::Connect | Action::Deliver { at: 0, .. } => None,
            Action::Write(_) => Some(&mut self.writes),
            Action::Push(_) => Some(&mut self.pushes),
            Action::Deliver { .. } => Some(&mut self.reorders),
            Action::Duplicate { .. } => Some(&mut self.duplicates),
            Action::Drop { .. } => Some(&mut self.drops),
            Action::Cut { .. } => Some(&mut self.cuts),
            Action::Crash { side: Side::Cloud, .. } => Some(&mut self.cloud_crashes),
            Action::Crash { side: Side::Edge, .. } => Some(&mut self.edge_crashes),
            Action::Wipe => Some(&mut self.wipes),
            Action::CopyDisk => Some(&mut self.copies),
            Action::ExchangeDisks => Some(&mut self.exchanges),
            Action::Backup => Some(&mut self.backups),
            Action::Restore => Some(&mut self.restores),
            Action::ReturnCloud => Some(&mut self.returns),
            Action::Compact => Some(&mut self.compactions),
            Action::Wait => Some(&mut self.waits),
        }
    }

    fn allows(mut self, action: Action) -> bool {
        self.purse(action).is_none_or(|left| *left > 0)
    }

    /// Whether links and nodes may still go down.
    fn may_break(self) -> bool {
        let Self { cuts, cloud_crashes, edge_crashes, wipes, exchanges, restores, returns, .. } = self;
        cuts + cloud_crashes + edge_crashes + wipes + exchanges + restores + returns > 0
    }

    pub(super) fn spend(&mut self, action: Action) {
        if let Some(left) = self.purse(action) {
            *left = left.saturating_sub(1);
        }
    }
}

/// How far a message may overtake others.
const OVERTAKES: usize = 2;

/// All that may happen in `state`. Once nothing can break any more, disks catch up at once: that they are late does
/// nothing then that messages, being late, do not.
pub(super) fn possible(state: &State, wishes: &[Wish], classes: &[Class]) -> Vec<Action> {
    let mut actions: Vec<Action> = wishes.iter().map(|wish| Action::Write(*wish)).collect();
    actions.extend(classes.iter().map(|class| Action::Push(*class)));
    actions.extend([Action::Compact, Action::Wait, Action::Connect, Action::Wipe]);
    actions.extend([
        Action::CopyDisk,
        Action::ExchangeDisks,
        Action::Backup,
        Action::Restore,
        Action::ReturnCloud,
    ]);
    actions.extend([true, false].map(|noticed| Action::Cut { noticed }));
    for side in [Side::Cloud, Side::Edge] {
        actions.extend([Action::Persist(side), Action::Duplicate { to: side }, Action::Drop { to: side }]);
        actions.extend((0..=OVERTAKES).map(|at| Action::Deliver { to: side, at }));
        actions.extend((0..=state.under_way(side)).map(|landed| Action::Crash { side, landed }));
    }
    actions.retain(|action| state.left.allows(*action) && state.can(*action));
    match actions.iter().find(|action| matches!(action, Action::Persist(_))) {
        Some(persist) if !state.left.may_break() => vec![*persist],
        _ => actions,
    }
}

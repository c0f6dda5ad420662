//! One machine: its disk, its clock, and while it runs its node.

use std::collections::VecDeque;
use std::time::Duration;

use bus::{Mono, Now, UnixMillis};
use bytes::Bytes;
use device_twin::PropertyId;
use node::{Input, Node};

use crate::disk::Disk;
use crate::faults::Moment;
use crate::machine::Seat;

/// 2026-01-01: where all wall clocks begin, give or take what is wrong with them.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// What the world wants to know about an input once it was handled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum About {
    Nothing,
    Report { ticket: u64, id: PropertyId },
    Wish { question: Question, ids: Vec<PropertyId>, valid: bool },
    Operator { seat: Seat, id: PropertyId, value: f64 },
}

/// How an answer to a wish will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Question {
    Ticket(u64),
    Admin(u64),
}

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) node: Node,
    /// The timer that is set.
    pub(crate) timer: Option<Mono>,
    /// Inputs that wait for the disk.
    pub(crate) deferred: VecDeque<(Input, About)>,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) disk: Disk,
    /// The disk as it was when the process last started.
    pub(crate) copy: Disk,
    pub(crate) running: Option<Running>,
    /// Counts the processes: what was meant for an earlier one is void.
    pub(crate) life: u32,
    pub(crate) wall_offset_ms: i64,
    /// The disk does nothing before this.
    pub(crate) stuck_until: Mono,
    /// The disk refuses writes before this.
    pub(crate) full_until: Mono,
    /// It refused, and is tried again soon.
    pub(crate) refused: bool,
    /// Crash at this moment of the next commit, and come back after this.
    pub(crate) armed: Option<(Moment, Duration)>,
    /// The fault that made this machine of another one's disk, while it is there.
    pub(crate) made_by: Option<usize>,
    /// What the broker here keeps for the mapper.
    pub(crate) mapper_config: Option<Bytes>,
    /// Messages to the mapper arrive in order.
    pub(crate) last_to_mapper: Mono,
}

impl Host {
    pub(crate) fn new(wall_offset_ms: i64) -> Self {
        Self {
            disk: Disk::default(),
            copy: Disk::default(),
            running: None,
            life: 0,
            wall_offset_ms,
            stuck_until: Mono::ZERO,
            full_until: Mono::ZERO,
            refused: false,
            armed: None,
            made_by: None,
            mapper_config: None,
            last_to_mapper: Mono::ZERO,
        }
    }

    pub(crate) fn now(&self, mono: Mono) -> Now {
        let wall = UnixMillis(EPOCH_MS + mono.0 / 1000).shifted(self.wall_offset_ms);
        Now { mono, wall }
    }
}

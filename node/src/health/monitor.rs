//! A node's own condition, from what its shell measures and its parts know.

use std::sync::Arc;
use std::time::Duration;

use bus::{Mono, NodeKind, Now, UnixMillis};

use super::links::{self, MeasuredLink, Meter};
use super::report::{About, Condition, brief};
use super::series::{Series, Values};
use super::trouble::{Trouble, TroubleKind};

/// Between two looks of a node at itself, if nothing hurries it.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// A change is looked at after this long, when the new link has been measured.
const SETTLED: Duration = Duration::from_secs(1);

/// A link costs its shard about a microsecond to look at; a thousandth of its time may go there.
const PER_LINK: Duration = Duration::from_millis(1);

/// What a shell measures, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    pub values: Values,
    /// All bus and packets lanes that are up.
    pub links: Vec<MeasuredLink>,
    /// What went wrong last, as far as the shell saw it.
    pub trouble: Option<Trouble>,
    /// Whether the overlay interface joins and cuts packets of TCP and of UDP; `None` without one.
    pub offload: Option<(bool, bool)>,
}

/// When a node looks at itself, and what it saw last.
#[derive(Debug)]
pub struct Monitor {
    me: NodeKind,
    meter: Meter,
    condition: Arc<Condition>,
    /// When `condition` was seen.
    seen: Option<Mono>,
    next: Mono,
    wants: bool,
}

impl Monitor {
    pub fn new(me: NodeKind, now: Now) -> Self {
        let about =
            About { version: env!("CARGO_PKG_VERSION").to_owned(), started: now.wall, ..About::default() };
        let condition = Arc::new(Condition { about, ..Condition::default() });
        Self { me, meter: Meter::new(me), condition, seen: None, next: now.mono + SETTLED, wants: false }
    }

    pub fn condition(&self) -> &Arc<Condition> {
        &self.condition
    }

    pub fn started(&self) -> UnixMillis {
        self.condition.about.started
    }

    /// How old the condition is.
    pub fn age(&self, now: Mono) -> Option<Duration> {
        Some(now.since(self.seen?))
    }

    /// A link came or went: a look is due soon.
    pub fn handle_change(&mut self, now: Mono) {
        self.next = self.next.min(now + SETTLED);
    }

    /// Something went wrong that the shell does not see.
    pub fn handle_trouble(&mut self, kind: TroubleKind, detail: &str, at: UnixMillis) {
        let trouble = Trouble { kind, detail: brief(detail), at };
        let is_repeated = self.condition.about.trouble.as_ref().is_some_and(|last| last.is_same(&trouble));
        if !is_repeated {
            Arc::make_mut(&mut self.condition).about.trouble = Some(trouble);
        }
    }

    /// The shell's figures, and those of the node's parts in `own`; `disk` says why it refuses writes.
    pub fn handle_measured(&mut self, measured: Measured, own: &Values, disk: Option<&str>, now: Mono) {
        let Measured { values, links, trouble, offload } = measured;
        let condition = Arc::make_mut(&mut self.condition);
        condition.links = self.meter.handle_measured(&links, now);
        condition.values = values;
        condition.values.merge(own);
        condition.values.set(Series::DiskDegraded, u64::from(disk.is_some()));
        let about = &mut condition.about;
        about.disk = disk.map(brief);
        about.offload = offload;
        let is_newer = |trouble: &Trouble| about.trouble.as_ref().is_none_or(|last| last.at <= trouble.at);
        if let Some(trouble) = trouble.filter(is_newer) {
            about.trouble = Some(trouble.brief());
        }
        self.seen = Some(now);
        self.wants = false;
        let by_links = PER_LINK * u32::try_from(links.len()).unwrap_or(u32::MAX);
        self.next = now + INTERVAL.max(by_links);
    }

    /// An edge's links are few, and ways to other edges count among them.
    pub fn set_paths(&mut self, paths: Vec<router::direct::PathView>) {
        debug_assert!(self.me == NodeKind::Edge, "a cloud has links, and no ways around them");
        let condition = Arc::make_mut(&mut self.condition);
        let links = std::mem::take(&mut condition.links);
        condition.links = links::cut(links::with_relayed(links, paths));
    }

    pub fn handle_timeout(&mut self, now: Mono) {
        if self.next <= now {
            self.wants = true;
            self.next = now + INTERVAL;
        }
    }

    /// Whether the shell is to measure.
    pub fn poll_measure(&mut self) -> bool {
        std::mem::take(&mut self.wants)
    }

    pub fn poll_timeout(&self) -> (Mono, &'static str) {
        (self.next, "health")
    }
}

//! One property's twin at its edge.

use std::fmt;
use std::time::Duration;

use bus::twin::{DesiredVersion, DeviceId, Outcome};
use bus::{Mono, Quality, Value};
use metadata::Keyspace;

use crate::arbiter::{Effective, PriorityArray, Slot};
use crate::model::Property;
use crate::twin::{self, Desired, Handled, PropertyId, Reported, WriteRecord};

/// Who fills a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    Operator,
    Rule(DeviceId),
    Cloud(DesiredVersion),
}

/// Who fills a slot and why.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Owner {
    pub(super) who: Who,
    pub(super) cause: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Operator => f.write_str("local operator"),
            Who::Rule(rule) => write!(f, "rule {rule}: {}", self.cause),
            Who::Cloud(version) => write!(f, "cloud desired {version} by {}", self.cause),
        }
    }
}

/// A write that the mapper has not answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outstanding {
    pub(super) record: WriteRecord,
    /// Who wanted it, `None` for the fail-safe value.
    pub(super) who: Option<Who>,
    /// From then on it is unknown what became of it.
    pub(super) deadline: Mono,
}

/// What the device shall be set to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    pub(super) value: Value,
    pub(super) who: Option<Who>,
    pub(super) cause: String,
    pub(super) expires: Option<Mono>,
}

/// All that an edge keeps of one property. What few properties have at a time is boxed: an edge has thousands of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Twin {
    pub(super) reported: Option<Reported>,
    /// When the last report came; `None`: not in this process's life.
    pub(super) seen: Option<Mono>,
    /// When subscribers last got the reported value.
    pub(super) published: Option<Mono>,
    pub(super) slots: PriorityArray<Owner>,
    /// The newest that the cloud said.
    pub(super) desired: Option<Box<Desired>>,
    pub(super) handled: Option<Box<Handled>>,
    /// `desired` is not decided on before the cloud's time is known, or this is over.
    pub(super) waiting: Option<Mono>,
    pub(super) write: Option<Box<Outstanding>>,
    /// What the device was last asked for, unless that failed.
    pub(super) spoken: Option<Value>,
    /// After a failure nothing is written again before this.
    pub(super) retry: Option<Mono>,
    /// The moment under which the twin stands in the list of timers.
    pub(super) due: Option<Mono>,
}

impl Twin {
    /// What outlived the last process. Slots did not: a decision about an actuator does not outlive the node that
    /// took it, and a setting is read from the desired value again.
    pub(super) fn load(id: &PropertyId, ks: &Keyspace) -> Self {
        fn read<'k, T: minicbor::Decode<'k, ()>>(
            ks: &'k Keyspace,
            prefix: &str,
            id: &PropertyId,
        ) -> Option<T> {
            twin::decode(ks.get(&format!("{prefix}{id}"))?)
        }
        Self {
            reported: read(ks, "/t/reported/", id),
            handled: read(ks, "/t/desired/", id).map(Box::new),
            ..Self::default()
        }
    }

    /// The winner of the slots, or the fail-safe value.
    pub(super) fn wanted(&self, property: &Property, now: Mono) -> Option<Wanted> {
        Some(match self.slots.effective(property.policy.fail_safe.as_ref(), now)? {
            Effective::Slot(_, entry) => Wanted {
                value: entry.value.clone(),
                who: Some(entry.owner.who.clone()),
                cause: entry.owner.to_string(),
                expires: entry.expires,
            },
            Effective::FailSafe(value) => {
                Wanted { value: value.clone(), who: None, cause: "fail-safe".to_owned(), expires: None }
            }
        })
    }

    /// The slot above `slot` that would keep it from having an effect, with its owner.
    pub(super) fn masked_by(&self, slot: Slot, now: Mono) -> Option<(Slot, String)> {
        match self.slots.effective(None, now)? {
            Effective::Slot(holder, entry) if holder < slot => Some((holder, entry.owner.to_string())),
            Effective::Slot(..) | Effective::FailSafe(_) => None,
        }
    }

    /// Whether the device must be asked for `wanted`: each new desired version once, everything else when it differs
    /// from what was asked for last.
    pub(super) fn needs_write(&self, property: &Property, wanted: &Wanted) -> bool {
        let under_way =
            self.write.as_ref().is_some_and(|w| w.who == wanted.who && w.record.value == wanted.value);
        if under_way {
            return false;
        }
        if let Some(Who::Cloud(version)) = wanted.who
            && !self.is_done(version)
        {
            return true;
        }
        self.spoken.as_ref().is_none_or(|spoken| !property.is_unchanged(spoken, &wanted.value))
    }

    /// Whether `version` came to an end that asks for no further try.
    pub(super) fn is_done(&self, version: DesiredVersion) -> bool {
        let ack = self.handled.as_ref().filter(|h| h.version == version).and_then(|h| h.ack.as_ref());
        ack.is_some_and(|ack| matches!(ack.outcome, Outcome::Succeeded | Outcome::Rejected))
    }

    /// When the reported value turns bad if nothing is heard.
    fn stale_at(&self, property: &Property, start: Mono) -> Option<Mono> {
        let sample = self.reported.as_ref()?.sample.as_ref()?;
        let max_age = property.policy.max_age?;
        (sample.quality > Quality::Bad).then(|| self.seen.unwrap_or(start) + max_age)
    }

    pub(super) fn is_stale(&self, property: &Property, start: Mono, now: Mono) -> bool {
        self.stale_at(property, start).is_some_and(|at| at <= now)
    }

    /// The next moment at which something happens without an input. `start`: when the process began.
    pub(super) fn next_due(&self, property: &Property, start: Mono) -> Option<Mono> {
        let deadline = self.write.as_ref().map(|w| w.deadline);
        let all =
            [self.waiting, deadline, self.slots.next_expiry(), self.retry, self.stale_at(property, start)];
        all.into_iter().flatten().min()
    }

    pub(super) fn is_bad(&self) -> bool {
        let sample = self.reported.as_ref().and_then(|reported| reported.sample.as_ref());
        sample.is_some_and(|sample| sample.quality == Quality::Bad)
    }

    pub(super) fn age(&self, now: Mono) -> Option<Duration> {
        self.seen.map(|at| now.since(at))
    }
}

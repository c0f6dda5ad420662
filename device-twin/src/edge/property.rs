//! One property's twin at its edge.

use std::fmt;
use std::time::Duration;

use bus::twin::{DesiredVersion, DeviceId, Outcome};
use bus::{Mono, Quality, Sample, UnixMillis, Value};
use metadata::Keyspace;

use super::pace::Pace;
use crate::arbiter::{Effective, PriorityArray, Slot};
use crate::authority::Holder;
use crate::command::CommandId;
use crate::model::Property;
use crate::twin::{self, Ack, Desired, Handled, PropertyId, Reported, WriteRecord};

/// Who fills a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    Operator,
    Rule(DeviceId),
    Command(CommandId),
    Desired(DesiredVersion),
}

/// Who fills a slot and why.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Owner {
    pub(super) who: Who,
    pub(super) cause: String,
    /// When it was wished, by the clock of whoever did. A rule says the same again and again, so there is none of it.
    pub(super) since: Option<UnixMillis>,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Operator if self.cause.is_empty() => f.write_str("local operator"),
            Who::Operator => write!(f, "local operator: {}", self.cause),
            Who::Rule(rule) => write!(f, "rule {rule}: {}", self.cause),
            Who::Command(id) => write!(f, "command {id} by {}", self.cause),
            Who::Desired(version) => match Holder::of(version.epoch) {
                Holder::Cloud => write!(f, "cloud desired {version} by {}", self.cause),
                Holder::Edge => write!(f, "local desired {version} by {}", self.cause),
            },
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
    /// Further steps follow: see [`super::pace`].
    pub(super) is_step: bool,
}

/// What the device shall be set to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    pub(super) value: Value,
    /// `None`: the fail-safe value.
    pub(super) slot: Option<Slot>,
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
    /// The newest wish that was not refused for its authority.
    pub(super) desired: Option<Box<Desired>>,
    /// It is kept under `/t/own/`: the cloud has no row of it.
    pub(super) is_own: bool,
    pub(super) handled: Option<Box<Handled>>,
    /// Wishes up to this one are over, or were answered for having been made under an authority that is.
    pub(super) outranked: Option<DesiredVersion>,
    /// `desired` is not decided on before the cloud's time is known, or this is over.
    pub(super) waiting: Option<Mono>,
    pub(super) write: Option<Box<Outstanding>>,
    /// Something was wanted of it in this process's life.
    pub(super) was_asked: bool,
    /// What the device was last asked for, unless that failed.
    pub(super) spoken: Option<Value>,
    /// After a failure nothing is written again before this.
    pub(super) retry: Option<Mono>,
    /// The command that has set the property and waits for the write's end.
    pub(super) command: Option<Box<CommandId>>,
    /// A reading that is not told yet, for the sake of `reportInterval`.
    pub(super) pending: Option<Box<Sample>>,
    pub(super) pace: Option<Box<Pace>>,
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
            outranked: read(ks, "/t/outranked/", id),
            ..Self::default()
        }
    }

    /// The winner of the slots, or the fail-safe value.
    pub(super) fn wanted(&self, property: &Property, now: Mono) -> Option<Wanted> {
        Some(match self.slots.effective(property.policy.fail_safe.as_ref(), now)? {
            Effective::Slot(slot, entry) => Wanted {
                value: entry.value.clone(),
                slot: Some(slot),
                who: Some(entry.owner.who.clone()),
                cause: entry.owner.to_string(),
                expires: entry.expires,
            },
            Effective::FailSafe(value) => Wanted {
                value: value.clone(),
                slot: None,
                who: None,
                cause: "fail-safe".to_owned(),
                expires: None,
            },
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
        let is_it = |w: &Outstanding| w.who == wanted.who && (w.is_step || w.record.value == wanted.value);
        let under_way = self.write.as_deref().is_some_and(is_it);
        if under_way {
            return false;
        }
        match &wanted.who {
            Some(Who::Desired(version)) if !self.is_done(*version) => return true,
            // Once, and not again when somebody else has had his way in between.
            Some(Who::Command(id)) => return self.command.as_deref() == Some(id),
            Some(Who::Desired(_) | Who::Operator | Who::Rule(_)) | None => {}
        }
        self.spoken.as_ref().is_none_or(|spoken| !property.is_unchanged(spoken, &wanted.value))
    }

    /// Whether `slot` is filled by `who`.
    pub(super) fn holds(&self, slot: Slot, who: &Who) -> bool {
        self.slots.get(slot).is_some_and(|entry| entry.owner.who == *who)
    }

    pub(super) fn ack_of(&self, version: DesiredVersion) -> Option<&Ack> {
        self.handled.as_ref().filter(|h| h.version == version)?.ack.as_ref()
    }

    /// Whether `version` came to an end that asks for no further try.
    pub(super) fn is_done(&self, version: DesiredVersion) -> bool {
        self.ack_of(version).is_some_and(|ack| matches!(ack.outcome, Outcome::Succeeded | Outcome::Rejected))
    }

    /// The last reading, told or not.
    pub(super) fn latest(&self) -> Option<&Sample> {
        let told = || self.reported.as_ref().and_then(|reported| reported.sample.as_ref());
        self.pending.as_deref().or_else(told)
    }

    /// When a reading that waits is to be told.
    pub(super) fn tell_at(&self, property: &Property) -> Option<Mono> {
        self.pending.as_ref()?;
        Some(self.published.unwrap_or_default() + property.policy.report_interval.unwrap_or_default())
    }

    /// When the reported value turns bad if nothing is heard.
    fn stale_at(&self, property: &Property, start: Mono) -> Option<Mono> {
        let sample = self.latest()?;
        let max_age = property.policy.max_age?;
        (sample.quality > Quality::Bad).then(|| self.seen.unwrap_or(start) + max_age)
    }

    pub(super) fn is_stale(&self, property: &Property, start: Mono, now: Mono) -> bool {
        self.stale_at(property, start).is_some_and(|at| at <= now)
    }

    /// The next moment at which something happens without an input. `start`: when the process began.
    pub(super) fn next_due(&self, property: &Property, start: Mono) -> Option<Mono> {
        let deadline = self.write.as_ref().map(|w| w.deadline);
        let all = [
            self.waiting,
            deadline,
            self.slots.next_expiry(),
            self.retry,
            self.stale_at(property, start),
            self.tell_at(property),
            self.pace.as_ref().and_then(|pace| pace.resume),
        ];
        all.into_iter().flatten().min()
    }

    pub(super) fn is_bad(&self) -> bool {
        self.latest().is_some_and(|sample| sample.quality == Quality::Bad)
    }

    pub(super) fn age(&self, now: Mono) -> Option<Duration> {
        self.seen.map(|at| now.since(at))
    }
}

//! One device at one mapper: what the mapper was told of it, and what is to be written.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use bus::twin::DeviceId;
use bus::{Mono, Value};

use super::describe::{Digest, OPEN, Wishes};
use super::mapper::{GAP, MAX_BACKOFF, MIN_BACKOFF};

/// A value that the mapper is to write, or has just been told to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Write {
    /// The twins' name for it.
    pub(super) id: String,
    pub(super) value: Value,
    /// Nothing moves because of it from here on.
    pub(super) expires: Mono,
}

/// By property: a newer write of one takes the older one's place.
pub(super) type Writes = BTreeMap<String, Write>;

#[derive(Debug, Default)]
pub(super) struct Device {
    /// Whether the mapper is to serve it; else it is to forget it.
    pub(super) wanted: bool,
    pub(super) model: Option<DeviceId>,
    /// What the mapper has; `None`: it does not know the device.
    pub(super) told: Option<Digest>,
    /// Whether the mapper may have to be told something.
    pub(super) dirty: bool,
    pub(super) waiting: Writes,
    /// Told to the mapper and still good: said again with every other write, since each makes the mapper begin anew with
    /// the device and may cut off the one before.
    open: Writes,
    /// The mapper is busy with what it was told last.
    quiet_until: Mono,
    retry_at: Mono,
    refusals: u32,
}

impl Device {
    /// Whether anything is left to do.
    pub(super) fn is_busy(&self) -> bool {
        self.dirty || !self.waiting.is_empty() || !self.open.is_empty()
    }

    /// When what waits can be written, if nothing else is in the way.
    pub(super) fn write_at(&self) -> Option<Mono> {
        let can = self.wanted && self.told.is_some() && !self.waiting.is_empty();
        can.then_some(self.quiet_until)
    }

    /// When the mapper can be told how the device is at rest: not before what it writes had its time.
    pub(super) fn tell_at(&self) -> Option<Mono> {
        let shut = self.open.values().map(|write| write.expires).max();
        let at = shut.unwrap_or_default().max(self.quiet_until).max(self.retry_at);
        (self.dirty || shut.is_some()).then_some(at)
    }

    pub(super) fn next_expiry(&self) -> Option<Mono> {
        self.waiting.values().map(|write| write.expires).min()
    }

    /// Takes out what waited too long.
    pub(super) fn take_expired(&mut self, now: Mono) -> Vec<(String, Write)> {
        self.waiting.extract_if(.., |_, write| write.expires <= now).collect()
    }

    /// What is to be written now: what waits, with what was told a moment ago, and until when all of it is good.
    pub(super) fn take_wishes(&mut self, now: Mono) -> (Writes, Wishes, Mono) {
        self.open.retain(|property, write| write.expires > now && !self.waiting.contains_key(property));
        let waiting = std::mem::take(&mut self.waiting);
        let all = self.open.iter().chain(&waiting);
        let expires = all.clone().map(|(_, write)| write.expires).min().unwrap_or(now);
        let wishes = all.map(|(property, write)| (property.clone(), write.value.to_string())).collect();
        (waiting, wishes, expires)
    }

    /// What could not be said waits again; what a newer one took the place of meanwhile is returned.
    pub(super) fn put_back(&mut self, writes: Writes) -> Vec<(String, Write)> {
        let mut replaced = Vec::new();
        for (property, write) in writes {
            match self.waiting.entry(property) {
                Entry::Occupied(newer) => replaced.push((newer.key().clone(), write)),
                Entry::Vacant(place) => {
                    place.insert(write);
                }
            }
        }
        replaced
    }

    /// The mapper has been asked to write, or may have been: until it is told otherwise it may write that again.
    pub(super) fn opened(&mut self, writes: Writes, now: Mono) {
        self.open.extend(writes);
        self.told = Some(OPEN);
        self.was_told(now);
    }

    /// What the mapper was told to write had its time.
    pub(super) fn open_is_over(&mut self) {
        self.open.clear();
    }

    pub(super) fn at_rest(&mut self, digest: Digest, now: Mono) {
        self.open_is_over();
        self.told = Some(digest);
        self.was_told(now);
    }

    fn was_told(&mut self, now: Mono) {
        self.quiet_until = now + GAP;
        self.refusals = 0;
    }

    /// The mapper took the device at its registration, and begins with it.
    pub(super) fn registered(&mut self, digest: Digest, now: Mono) {
        self.dirty = false;
        self.at_rest(digest, now);
    }

    /// The mapper refused: said again later, since what is in the way may be gone by then.
    pub(super) fn refused(&mut self, now: Mono) {
        self.dirty = true;
        self.retry_at = now + backoff(self.refusals);
        self.refusals = self.refusals.saturating_add(1);
    }
}

/// After so many failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    MIN_BACKOFF.saturating_mul(1 << failures.min(16)).min(MAX_BACKOFF)
}

//! The properties of one device: their last values, what of them is to be reported, and which fail.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::twin::PropertyConfig;
use bus::{Mono, Sample, UnixMillis};

use crate::Error;
use crate::freshness::Freshness;
use crate::pushing::Source;
use crate::telling::Telling;

#[derive(Debug)]
struct Entry {
    source: Source,
    freshness: Freshness,
    telling: Telling,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Points {
    entries: BTreeMap<String, Entry>,
    report: BTreeMap<String, Sample>,
    /// Points that had no value at their last reading, or are left out, and why.
    failing: BTreeMap<String, Error>,
    last_read: Option<UnixMillis>,
}

impl Points {
    /// Takes new properties; one that stays as it was keeps its value. Returns the names that are gone, or mean something
    /// else by now.
    pub(crate) fn configure(&mut self, properties: &[PropertyConfig]) -> Vec<String> {
        let mut before = std::mem::take(&mut self.entries);
        self.failing.clear();
        for property in properties {
            let (period, source) = (Duration::from_millis(property.poll_ms), Source::of(property));
            let same = before.get(&property.name).is_some_and(|entry| entry.source == source);
            let kept = if same { before.remove(&property.name) } else { None };
            let mut entry = kept.unwrap_or_else(|| Entry {
                source,
                freshness: Freshness::new(period),
                telling: Telling::new(property),
            });
            entry.freshness.set_period(period);
            entry.telling.configure(property);
            self.entries.insert(property.name.clone(), entry);
        }
        self.report.retain(|name, _| !before.contains_key(name));
        before.into_keys().collect()
    }

    pub(crate) fn keep(&mut self, name: &str, sample: Sample, now: Mono) {
        self.last_read = Some(sample.time);
        self.failing.remove(name);
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.freshness.read(sample.clone(), now);
        if entry.telling.tells(&sample, now) {
            self.report.insert(name.to_owned(), sample);
        }
    }

    /// Returns whether it is news that the point fails.
    pub(crate) fn fail(&mut self, name: &str, error: &Error) -> bool {
        self.failing.insert(name.to_owned(), error.clone()).is_none()
    }

    /// The session that these points came from has ended.
    pub(crate) fn orphan<'a>(&mut self, names: impl Iterator<Item = &'a String>, now: Mono) {
        for name in names {
            if let Some(entry) = self.entries.get_mut(name) {
                entry.freshness.orphan(now);
            }
        }
    }

    /// Reports what has become too old, as bad.
    pub(crate) fn expire(&mut self, now: Mono) {
        for (name, entry) in &mut self.entries {
            if let Some(sample) = entry.freshness.expire(now) {
                entry.telling.tells(&sample, now);
                self.report.insert(name.clone(), sample);
            }
        }
    }

    pub(crate) fn next_expiry(&self) -> Option<Mono> {
        self.entries.values().filter_map(|entry| entry.freshness.ends()).min()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn failing(&self) -> &BTreeMap<String, Error> {
        &self.failing
    }

    pub(crate) fn last_read(&self) -> Option<UnixMillis> {
        self.last_read
    }

    /// What there is to report, bounded by the number of properties.
    pub(crate) fn take_report(&mut self) -> BTreeMap<String, Sample> {
        std::mem::take(&mut self.report)
    }
}

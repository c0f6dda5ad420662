//! What to do next for one device: the decisions, without the driver and the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus::backoff::Jitter;
use bus::twin::PropertyConfig;
use bus::{Backoff, Mono, Now, Sample, Value};

use crate::freshness::Freshness;
use crate::samples::Reading;
use crate::schedule::Schedule;
use crate::{Error, Samples};

/// First and longest wait before a lost session is opened again.
pub(crate) const FIRST_WAIT: Duration = Duration::from_secs(1);
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The first reading comes within this time, at a moment of each device's own, so that a mapper with many devices
/// does not read all of them in step.
const START_SPREAD: Duration = Duration::from_secs(1);

/// ```text
///   Closed ---opened---> Open ---session lost---> Waiting ---time---> Closed
///     |  \                |                          ^
///     |   `---failed------|--------------------------'
///     `---settings wrong--+--> Stopped ---configuration changes---> Closed
/// ```
#[derive(Debug, PartialEq)]
enum State {
    /// To be opened now.
    Closed,
    Open,
    Waiting {
        until: Mono,
        why: String,
    },
    Stopped {
        why: String,
    },
}

/// What the device's task does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Open,
    Read(Vec<String>),
    /// Nothing before this time; with `None` nothing at all until somebody writes or configures.
    Wait(Option<Mono>),
}

/// One device: when to open, read, wait; what to report.
#[derive(Debug)]
pub(crate) struct Device {
    state: State,
    backoff: Backoff,
    schedule: Schedule,
    properties: BTreeMap<String, (PropertyConfig, Freshness)>,
    report: BTreeMap<String, Sample>,
    /// Points whose failure the log has been told of.
    failing: BTreeSet<String>,
}

impl Device {
    /// A device that is opened `after` some time: at once, unless its driver has just crashed.
    pub(crate) fn new(after: Duration, now: Mono, seed: u64) -> Self {
        let spread = Jitter::new(seed).up_to(START_SPREAD);
        let state = if after.is_zero() {
            State::Closed
        } else {
            State::Waiting { until: now + after, why: "the driver crashed".to_owned() }
        };
        Self {
            state,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed),
            schedule: Schedule::new(now + spread),
            properties: BTreeMap::new(),
            report: BTreeMap::new(),
            failing: BTreeSet::new(),
        }
    }

    /// Takes the properties of a new configuration. A property that stays as it was keeps its value and its place in
    /// the schedule.
    pub(crate) fn configure(&mut self, properties: &[PropertyConfig], now: Mono) {
        let mut before = std::mem::take(&mut self.properties);
        self.failing.clear();
        for property in properties {
            let period = Duration::from_millis(property.poll_ms);
            let mut freshness = match before.remove(&property.name) {
                Some((old, freshness)) if is_same_source(&old, property) => freshness,
                _ => Freshness::new(period),
            };
            freshness.set_period(period);
            self.schedule.set(&property.name, period, now);
            self.properties.insert(property.name.clone(), (property.clone(), freshness));
        }
        before.keys().for_each(|gone| self.schedule.remove(gone));
    }

    /// The connection settings changed, or a session that was given up gets a new chance.
    pub(crate) fn reopen(&mut self) {
        self.state = State::Closed;
        self.backoff.reset();
    }

    /// Leaves a property out until the configuration changes.
    pub(crate) fn quarantine(&mut self, property: &str) {
        self.schedule.remove(property);
    }

    pub(crate) fn handle_opened(&mut self) {
        self.state = State::Open;
    }

    /// The session is gone, or could not be opened.
    pub(crate) fn handle_lost(&mut self, error: &Error, now: Mono) {
        let why = error.to_string();
        self.state = match self.wait_after(error) {
            Some(wait) => State::Waiting { until: now + wait, why },
            None => State::Stopped { why },
        };
    }

    fn wait_after(&mut self, error: &Error) -> Option<Duration> {
        match error {
            Error::Config(_) => None,
            Error::Auth(_) | Error::Bug(_) => Some(LONGEST_WAIT),
            Error::Transient { retry_after: Some(least), .. } => Some(self.backoff.next_wait().max(*least)),
            Error::Transient { retry_after: None, .. }
            | Error::Timeout(_)
            | Error::BadAddress { .. }
            | Error::Device(_)
            | Error::Unsupported(_)
            | Error::Expired => Some(self.backoff.next_wait()),
        }
    }

    /// A batch was read, as far as it was; `missing` is what became of points that are not among the samples, unless
    /// the session is lost anyway. Returns the points that fail for the first time since they had a value, for the log.
    /// A value, not an open session, is what ends a series of failures.
    pub(crate) fn handle_read(
        &mut self,
        batch: &[String],
        mut samples: Samples,
        missing: Option<&Error>,
        now: Now,
    ) -> Vec<(String, Error)> {
        let mut complaints = Vec::new();
        for name in batch {
            let error = match (samples.take(name), missing) {
                (Some(Reading::Value { value, quality, time }), _) => {
                    self.backoff.reset();
                    self.failing.remove(name);
                    self.keep(name, Sample { value, time: time.unwrap_or(now.wall), quality }, now.mono);
                    continue;
                }
                (Some(Reading::Failed(error)), _) => error,
                (None, Some(error)) => error.clone(),
                (None, None) => continue,
            };
            if self.handle_failed(name, &error) {
                complaints.push((name.clone(), error));
            }
        }
        complaints
    }

    /// One point could not be read: its last value grows old, that is all that is known. Returns whether that is news.
    fn handle_failed(&mut self, name: &str, error: &Error) -> bool {
        match error {
            Error::BadAddress { point, .. } if point != name => return false, // another point's fault
            Error::BadAddress { .. } | Error::Unsupported(_) => self.quarantine(name),
            Error::Device(_)
            | Error::Expired
            | Error::Transient { .. }
            | Error::Timeout(_)
            | Error::Auth(_)
            | Error::Config(_)
            | Error::Bug(_) => {}
        }
        self.failing.insert(name.to_owned())
    }

    /// A write went well: what the device read back is reported, and the property is read soon.
    pub(crate) fn handle_written(&mut self, property: &str, readback: Option<Value>, now: Now) {
        self.schedule.hurry(property, now.mono);
        let Some((config, _)) = self.properties.get(property) else { return };
        if let Some(Ok(value)) = readback.map(|value| value.coerce(config.value_type)) {
            let sample = Sample { value, time: now.wall, quality: bus::Quality::Good };
            self.keep(property, sample, now.mono);
        }
    }

    fn keep(&mut self, property: &str, sample: Sample, now: Mono) {
        let Some((_, freshness)) = self.properties.get_mut(property) else { return };
        freshness.read(sample.clone(), now);
        self.report.insert(property.to_owned(), sample);
    }

    pub(crate) fn step(&mut self, now: Mono) -> Step {
        self.expire(now);
        if matches!(&self.state, State::Waiting { until, .. } if *until <= now) {
            self.state = State::Closed;
        }
        match &self.state {
            State::Closed => Step::Open,
            State::Waiting { until, .. } => Step::Wait(earlier(Some(*until), self.next_expiry())),
            State::Stopped { .. } => Step::Wait(self.next_expiry()),
            State::Open => match self.schedule.take_due(now) {
                due if due.is_empty() => Step::Wait(earlier(self.schedule.next(), self.next_expiry())),
                due => Step::Read(due),
            },
        }
    }

    fn expire(&mut self, now: Mono) {
        for (name, (_, freshness)) in &mut self.properties {
            if let Some(sample) = freshness.expire(now) {
                self.report.insert(name.clone(), sample);
            }
        }
    }

    fn next_expiry(&self) -> Option<Mono> {
        self.properties.values().filter_map(|(_, freshness)| freshness.ends()).min()
    }

    /// What there is to report, bounded by the number of properties.
    pub(crate) fn take_report(&mut self) -> BTreeMap<String, Sample> {
        std::mem::take(&mut self.report)
    }

    /// Why nothing can be written at present; a write is done now or not at all, it does not wait for a device to
    /// come back.
    pub(crate) fn unreachable(&self) -> Option<&str> {
        match &self.state {
            State::Closed | State::Open => None,
            State::Waiting { why, .. } | State::Stopped { why } => Some(why),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether it is about to be opened: a write waits for that, as long as it may.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Until when the device is left alone, for the log.
    pub(crate) fn pause(&self, now: Mono) -> Option<Duration> {
        if let State::Waiting { until, .. } = &self.state { Some(until.since(now)) } else { None }
    }
}

/// Whether the old value still tells something about the new property.
fn is_same_source(old: &PropertyConfig, new: &PropertyConfig) -> bool {
    old.address == new.address && old.value_type == new.value_type
}

fn earlier(a: Option<Mono>, b: Option<Mono>) -> Option<Mono> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;

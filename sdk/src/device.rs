//! What to do next for one device: the decisions, without the driver and the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::backoff::Jitter;
use bus::twin::{DeviceHealth, MapperCounts, PropertyConfig};
use bus::{Backoff, Mono, Now, Sample, UnixMillis, Value};

use crate::points::Points;
use crate::pushing::{Pushing, Source};
use crate::samples::Reading;
use crate::schedule::Schedule;
use crate::standing::Standing;
use crate::{Error, Manifest, Samples};

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
    },
    Stopped,
}

/// What the device's task does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Open,
    /// Ask for the points that are wanted to be pushed.
    Subscribe,
    Read(Vec<String>),
    Probe,
    /// Nothing before this time; with `None` nothing at all until somebody writes or configures.
    Wait(Option<Mono>),
}

/// One device: when to open, read, wait; what to report.
#[derive(Debug)]
pub(crate) struct Device {
    state: State,
    backoff: Backoff,
    schedule: Schedule,
    points: Points,
    pushing: Pushing,
    /// When it last answered anything, and after how long a silence it is asked whether it is there.
    heard: Mono,
    probe_after: Duration,
    standing: Standing,
    counts: MapperCounts,
}

impl Device {
    /// A device that is opened `after` some time: at once, unless its driver has just crashed.
    pub(crate) fn new(after: Duration, now: Now, seed: u64, manifest: &Manifest) -> Self {
        let spread = Jitter::new(seed).up_to(START_SPREAD);
        let (mut state, mut standing) = (State::Closed, Standing::new(now));
        if !after.is_zero() {
            state = State::Waiting { until: now.mono + after };
            standing.handle_lost("the driver crashed".to_owned());
        }
        Self {
            state,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed),
            schedule: Schedule::new(now.mono + spread),
            points: Points::default(),
            pushing: Pushing::new(manifest.pushes),
            heard: now.mono,
            probe_after: manifest.probe_after,
            standing,
            counts: MapperCounts::default(),
        }
    }

    /// Takes the properties of a new configuration. A property that stays as it was keeps its value and its place in
    /// the schedule.
    pub(crate) fn configure(&mut self, properties: &[PropertyConfig], now: Mono) {
        for gone in self.points.configure(properties) {
            self.schedule.remove(&gone);
        }
        for property in properties {
            self.schedule.set(&property.name, Duration::from_millis(property.poll_ms), now);
        }
        self.pushing.configure(properties);
    }

    /// The connection settings changed, or a session that was given up gets a new chance.
    pub(crate) fn reopen(&mut self, now: Mono) {
        self.end_session(now);
        self.state = State::Closed;
        self.backoff.reset();
    }

    /// Leaves a property out until the configuration changes. Returns whether it is news that it fails.
    pub(crate) fn leave_out(&mut self, property: &str, error: &Error) -> bool {
        self.schedule.remove(property);
        self.pushing.leave_out(property);
        self.points.fail(property, error)
    }

    pub(crate) fn handle_opened(&mut self, now: Mono) {
        self.state = State::Open;
        self.heard = now;
        self.schedule.resume(now);
    }

    /// The session is gone, or could not be opened.
    pub(crate) fn handle_lost(&mut self, error: &Error, now: Mono) {
        self.end_session(now);
        self.standing.handle_lost(error.to_string());
        self.state = match self.wait_after(error) {
            Some(wait) => State::Waiting { until: now + wait },
            None => State::Stopped,
        };
    }

    /// Reads a point soon whose turn had come when something else came between.
    pub(crate) fn hurry(&mut self, point: &str, now: Mono) {
        self.schedule.hurry(point, now);
    }

    /// Turns bad what has become too old.
    pub(crate) fn expire(&mut self, now: Mono) {
        self.points.expire(now);
    }

    fn end_session(&mut self, now: Mono) {
        self.points.orphan(self.pushing.wanted().keys(), now);
        self.pushing.handle_lost();
    }

    /// The device, not only its session, is there.
    pub(crate) fn handle_answered(&mut self, now: Mono) {
        self.heard = now;
        self.standing.handle_answered();
        self.backoff.reset();
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
        self.counts.requests += 1;
        if missing.is_some() {
            self.heard = now.mono;
        }
        let mut complaints = Vec::new();
        for name in batch {
            let missing = || missing.cloned().map(Reading::Failed);
            let Some(reading) = samples.take(name).or_else(missing) else { continue };
            if let Some(error) = self.handle_reading(name, reading, now) {
                complaints.push((name.clone(), error));
            }
        }
        complaints
    }

    /// One point was read or pushed, or could not be. Returns the error if it is news that the point fails.
    pub(crate) fn handle_reading(&mut self, name: &str, reading: Reading, now: Now) -> Option<Error> {
        match reading {
            Reading::Value { value, quality, time } => {
                self.counts.reads += 1;
                self.handle_answered(now.mono);
                self.points.keep(name, Sample { value, time: time.unwrap_or(now.wall), quality }, now.mono);
                None
            }
            Reading::Failed(error) => {
                // Nobody asks again for what is pushed.
                if let Some((pushed, _)) = self.pushing.wanted().get_key_value(name) {
                    self.points.orphan([pushed].into_iter(), now.mono);
                }
                self.handle_failed(name, &error).then_some(error)
            }
        }
    }

    /// One point could not be read: its last value grows old, that is all that is known. Returns whether that is news.
    fn handle_failed(&mut self, name: &str, error: &Error) -> bool {
        match error {
            Error::BadAddress { point, .. } if point != name => false, // another point's fault
            Error::BadAddress { .. } | Error::Unsupported(_) => self.leave_out(name, error),
            Error::Device(_)
            | Error::Expired
            | Error::Transient { .. }
            | Error::Timeout(_)
            | Error::Auth(_)
            | Error::Config(_)
            | Error::Bug(_) => self.points.fail(name, error),
        }
    }

    /// The device was asked for what is wanted, and pushes it from now on.
    pub(crate) fn handle_subscribed(&mut self, now: Mono) {
        self.pushing.handle_asked(self.pushing.wanted().clone());
        self.heard = now;
    }

    /// The device was asked for what is wanted and said no.
    pub(crate) fn handle_unsubscribed(&mut self, error: &Error, now: Mono) {
        self.heard = now;
        if let Error::BadAddress { point, .. } = error
            && self.pushing.wanted().contains_key(point)
        {
            self.leave_out(point, error);
        } else {
            self.pushing.handle_refused(error, now);
        }
    }

    /// What is to be pushed, and where it comes from.
    pub(crate) fn pushed(&self) -> &BTreeMap<String, Source> {
        self.pushing.wanted()
    }

    /// A write is handed to the driver.
    pub(crate) fn handle_write(&mut self) {
        self.counts.writes += 1;
    }

    /// A write went well: what the device read back is reported, and the property is read soon.
    pub(crate) fn handle_written(&mut self, property: &str, readback: Option<Value>, now: Now) {
        self.handle_answered(now.mono);
        self.schedule.hurry(property, now.mono);
        if let Some(value) = readback {
            let sample = Sample { value, time: now.wall, quality: bus::Quality::Good };
            self.points.keep(property, sample, now.mono);
        }
    }

    pub(crate) fn step(&mut self, now: Mono) -> Step {
        self.points.expire(now);
        if matches!(&self.state, State::Waiting { until } if *until <= now) {
            self.state = State::Closed;
        }
        match &self.state {
            State::Closed => Step::Open,
            State::Waiting { until } => Step::Wait(earliest([Some(*until), self.points.next_expiry()])),
            State::Stopped => Step::Wait(self.points.next_expiry()),
            State::Open => self.step_open(now),
        }
    }

    fn step_open(&mut self, now: Mono) -> Step {
        let (subscription, probe) = (self.pushing.due(), self.heard + self.probe_after);
        if subscription.is_some_and(|at| at <= now) {
            return Step::Subscribe;
        }
        let due = self.schedule.take_due(now);
        if !due.is_empty() {
            return Step::Read(due);
        }
        if probe <= now {
            return Step::Probe;
        }
        let next = [self.schedule.next(), self.points.next_expiry(), subscription, Some(probe)];
        Step::Wait(earliest(next))
    }

    /// What there is to report, bounded by the number of properties.
    pub(crate) fn take_report(&mut self) -> BTreeMap<String, Sample> {
        self.points.take_report()
    }

    /// What was done since the last time.
    pub(crate) fn take_counts(&mut self) -> MapperCounts {
        MapperCounts { missed: self.schedule.take_missed(), ..std::mem::take(&mut self.counts) }
    }

    /// How the device is, for people.
    pub(crate) fn health(&mut self, now: UnixMillis) -> DeviceHealth {
        self.standing.health(self.state == State::Open, &self.points, now)
    }

    /// Why nothing can be written at present; a write is done now or not at all, it does not wait for a device to
    /// come back.
    pub(crate) fn unreachable(&self) -> Option<&str> {
        match &self.state {
            State::Closed | State::Open => None,
            State::Waiting { .. } | State::Stopped => Some(self.standing.why()),
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
        if let State::Waiting { until } = &self.state { Some(until.since(now)) } else { None }
    }
}

fn earliest<const N: usize>(times: [Option<Mono>; N]) -> Option<Mono> {
    times.into_iter().flatten().min()
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;

//! Events about devices and rules: what of all that twins say tells people why something did not move, and how often that
//! may be written down.
//!
//! | reason | said of | when |
//! |---|---|---|
//! | `Expired`, `Rejected`, `Failed`, `Superseded`, `OutcomeUnknown` | the device | a wish or command ended so; what a newer one replaced is no event |
//! | `Refused` | the device | a client of MQTT wished what is not taken |
//! | `Online`, `Degraded`, `Offline` | the device | its state is another one |
//! | `InterlockTripped`, `InterlockReleased` | the device and the rule | a rule in a slot for safety or protection began, or ended, to decide |
//!
//! What a mapper reads is never one. The first time is written at once; what is said of the same thing within a minute
//! after that is counted in memory, and written when the minute is over. Of new things there are at most [`NEW_A_MINUTE`].

use std::collections::BTreeMap;
use std::time::Duration;

use bus::twin::{DeviceId, Outcome, ResultBody, TwinTopic};
use bus::{Mono, Now, UnixMillis};
use controller::api::{Id, Kind, Layout};
use controller::event::{self, Event, Severity};
use device_twin::Publish;
use device_twin::arbiter::Slot;
use device_twin::history::audit::{AuditEntry, AuditEvent};
use device_twin::rule::{Because, Does, RuleView};
use device_twin::twin::{Availability, DeviceState};
use metadata::Keyspace;

/// How often one event is written at most.
const EVERY: Duration = Duration::from_secs(60);

/// Events that are written for the first time in a minute: a site that falls over says so in a hundred lines, 50 KB. More
/// are counted, and left out.
const NEW_A_MINUTE: u32 = 100;

/// Devices and rules of which the last word is remembered, 100 bytes each. When full, all are forgotten: the next change of
/// each is not noticed.
const MAX_KNOWN: usize = 65_536;

/// What is said of one thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Topic {
    kind: Kind,
    about: Id,
    reason: &'static str,
    /// A property; empty: the whole.
    subject: String,
}

/// Said since it was written last.
#[derive(Debug)]
struct Waiting {
    until: Mono,
    severity: Severity,
    message: String,
    at: UnixMillis,
    count: u64,
}

/// Writes events of devices and rules.
#[derive(Debug)]
pub(crate) struct Herald {
    layout: Layout,
    states: BTreeMap<DeviceId, Availability>,
    /// Whether a rule that may stop a device does.
    tripped: BTreeMap<DeviceId, bool>,
    /// Whatever was written within [`EVERY`]; bounded by [`NEW_A_MINUTE`] for each of the last two minutes.
    waiting: BTreeMap<Topic, Waiting>,
    minute: Mono,
    new: u32,
    left_out: u64,
    /// Whether somebody wishes in the present input, so that a refusal is one of a wish and not of a reading.
    hears_wish: bool,
}

impl Herald {
    pub(crate) fn new(layout: Layout) -> Self {
        Self {
            layout,
            states: BTreeMap::new(),
            tripped: BTreeMap::new(),
            waiting: BTreeMap::new(),
            minute: Mono::ZERO,
            new: 0,
            left_out: 0,
            hears_wish: layout == Layout::Cloud,
        }
    }

    /// What was known before this process, so that the first change is noticed, and nothing is said again.
    pub(crate) fn load<'a>(
        &mut self,
        states: impl Iterator<Item = (DeviceId, Availability)>,
        rules: impl Iterator<Item = &'a RuleView>,
    ) {
        self.states.extend(states);
        let rules = rules.filter_map(|view| Some((view.rule.parse().ok()?, is_tripped(view)?)));
        self.tripped.extend(rules);
    }

    /// A client publishes: at an edge what is refused of it is told on one topic, reading or wish.
    pub(crate) fn handle_client(&mut self, topic: &bus::Topic) {
        let wish = matches!(TwinTopic::parse(topic), Some(TwinTopic::Set { .. } | TwinTopic::Command { .. }));
        self.hears_wish = wish || self.layout == Layout::Cloud;
    }

    /// All that the present input caused was said.
    pub(crate) fn handle_settled(&mut self) {
        self.hears_wish = self.layout == Layout::Cloud;
    }

    /// How a decision ended.
    pub(crate) fn handle_audit(&mut self, entry: &AuditEntry, ks: &mut Keyspace, now: Now) {
        let AuditEvent::Outcome(ended) = &entry.event else { return };
        let (reason, severity) = match ended.outcome {
            Outcome::Succeeded => return,
            Outcome::Superseded if ended.detail.starts_with("a newer") => return,
            Outcome::Superseded => ("Superseded", Severity::Warning),
            Outcome::Rejected => ("Rejected", Severity::Warning),
            Outcome::Failed => ("Failed", Severity::Warning),
            Outcome::Expired => ("Expired", Severity::Warning),
            Outcome::Unknown => ("OutcomeUnknown", Severity::Warning),
        };
        let what = entry.property.clone().unwrap_or_else(|| "command".to_owned());
        let message = said(&format!("{what} {}", ended.id), &ended.detail);
        self.say(Kind::Device, &entry.device, (reason, severity), (what, message), ks, now);
    }

    /// What everybody is told: states, and refusals of wishes.
    pub(crate) fn handle_publish(&mut self, publish: &Publish, ks: &mut Keyspace, now: Now) {
        // Readings come by the thousand, and are not looked into.
        if !["/state", "/result"].iter().any(|end| publish.topic.as_str().ends_with(end)) {
            return;
        }
        match TwinTopic::parse(&publish.topic) {
            Some(TwinTopic::State { device }) => {
                if let Ok(state) = serde_json::from_slice::<DeviceState>(&publish.payload) {
                    self.handle_state(&device, &state, ks, now);
                }
            }
            Some(TwinTopic::Result { device }) if self.hears_wish => {
                if let Ok(body) = serde_json::from_slice::<ResultBody>(&publish.payload) {
                    self.handle_refusal(&device, &body, ks, now);
                }
            }
            _ => {}
        }
    }

    /// Of a wish that was taken another output tells the end.
    fn handle_refusal(&mut self, device: &DeviceId, body: &ResultBody, ks: &mut Keyspace, now: Now) {
        if body.outcome != Outcome::Rejected || body.version.is_some() || body.command.is_some() {
            return;
        }
        let what = if body.property.is_empty() { "command" } else { &body.property };
        let message = said(what, &body.detail);
        let reason = ("Refused", Severity::Warning);
        self.say(Kind::Device, device, reason, (what.to_owned(), message), ks, now);
    }

    /// That an edge is away says the event of the edge, and not one of each of its devices.
    fn handle_state(&mut self, device: &DeviceId, state: &DeviceState, ks: &mut Keyspace, now: Now) {
        let (reason, severity) = match state.state {
            Availability::Unknown => return,
            Availability::Online => ("Online", Severity::Normal),
            Availability::Degraded => ("Degraded", Severity::Warning),
            Availability::Offline => ("Offline", Severity::Warning),
        };
        let before = remember(&mut self.states, device, state.state);
        // An edge learns at its start who is there.
        let is_first = before.is_none() && self.layout == Layout::Edge;
        if before != Some(state.state) && !is_first {
            let message = said(&reason.to_ascii_lowercase(), &state.reason);
            self.say(Kind::Device, device, (reason, severity), (String::new(), message), ks, now);
        }
    }

    /// How a rule stands now.
    pub(crate) fn handle_rule(&mut self, view: &RuleView, ks: &mut Keyspace, now: Now) {
        let (Ok(rule), Some(is)) = (view.rule.parse::<DeviceId>(), is_tripped(view)) else { return };
        let was = remember(&mut self.tripped, &rule, is);
        // What was latched before this process is no news.
        let is_old = was.is_none() && !view.latched.is_empty();
        if was.unwrap_or(false) == is || is_old {
            return;
        }
        let reason = match is {
            true => ("InterlockTripped", Severity::Warning),
            false => ("InterlockReleased", Severity::Normal),
        };
        let message = told(view, is);
        let about = (view.rule.clone(), message.clone());
        self.say(Kind::Rule, &rule, reason, (String::new(), message), ks, now);
        if let Some(device) = view.output.rsplit_once('/').and_then(|(device, _)| device.parse().ok()) {
            self.say(Kind::Device, &device, reason, about, ks, now);
        }
    }

    fn say(
        &mut self,
        kind: Kind,
        about: &DeviceId,
        (reason, severity): (&'static str, Severity),
        (subject, message): (String, String),
        ks: &mut Keyspace,
        now: Now,
    ) {
        let topic = Topic { kind, about: Id::from(about), reason, subject };
        if let Some(waiting) = self.waiting.get_mut(&topic) {
            (waiting.message, waiting.at, waiting.severity) = (message, now.wall, severity);
            waiting.count += 1;
            return;
        }
        // What was left out is told before the next minute's is counted.
        if now.mono >= self.minute + EVERY && self.left_out == 0 {
            (self.minute, self.new) = (now.mono, 0);
        }
        if self.new >= NEW_A_MINUTE {
            self.left_out += 1;
            return;
        }
        self.new += 1;
        let said = Waiting { until: now.mono + EVERY, severity, message, at: now.wall, count: 1 };
        write(self.layout, &topic, &said, ks);
        self.waiting.insert(topic, Waiting { count: 0, ..said });
    }

    /// Writes what was counted, of each whose minute is over.
    pub(crate) fn handle_timeout(&mut self, ks: &mut Keyspace, now: Now) {
        let layout = self.layout;
        self.waiting.retain(|topic, waiting| {
            if waiting.until > now.mono {
                return true;
            }
            if waiting.count == 0 {
                return false;
            }
            write(layout, topic, waiting, ks);
            (waiting.until, waiting.count) = (now.mono + EVERY, 0);
            true
        });
    }

    /// How many events there was no room for: once a minute, if any.
    pub(crate) fn take_left_out(&mut self, now: Now) -> Option<u64> {
        let is_due = self.left_out > 0 && now.mono >= self.minute + EVERY;
        is_due.then(|| std::mem::take(&mut self.left_out))
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let waiting = self.waiting.values().map(|waiting| waiting.until);
        let left_out = (self.left_out > 0).then(|| self.minute + EVERY);
        waiting.chain(left_out).min().map(|at| (at, "events"))
    }
}

fn write(layout: Layout, topic: &Topic, said: &Waiting, ks: &mut Keyspace) {
    let Topic { kind, about, reason, subject } = topic.clone();
    let Waiting { severity, message, at, count, until: _ } = said;
    let (severity, at, count, message) = (*severity, *at, *count, message.clone());
    event::record(
        layout,
        Event { kind, about, severity, reason, subject: Some(subject), message, at, count },
        ks,
    );
}

fn said(what: &str, detail: &str) -> String {
    if detail.is_empty() { what.to_owned() } else { format!("{what}: {detail}") }
}

/// Whether a rule that may stop a device does; `None`: it is no such rule, or nobody can tell.
fn is_tripped(view: &RuleView) -> Option<bool> {
    if Slot::new(view.slot).is_ok_and(|slot| slot > Slot::PROTECTION) {
        return None;
    }
    let decided = view.decision.as_ref()?;
    match decided.because {
        Because::Waiting => None,
        Because::Nothing => Some(false),
        Because::True | Because::Latched | Because::Unknown => {
            Some(matches!(decided.does, Does::Set | Does::FailSafe | Does::Hold))
        }
    }
}

fn told(view: &RuleView, is_tripped: bool) -> String {
    let decided = view.decision.as_ref();
    let case = decided.and_then(|decided| decided.case.as_ref()).map(|case| format!(", case {case}"));
    let value = decided.and_then(|decided| decided.value.as_ref()).map(|value| format!(" at {value}"));
    let (case, value) = (case.unwrap_or_default(), value.unwrap_or_default());
    match is_tripped {
        true if !view.latched.is_empty() => {
            format!("rule {}{case} holds {}{value} until it is reset", view.rule, view.output)
        }
        true => format!("rule {}{case} holds {}{value}", view.rule, view.output),
        false => format!("rule {} lets {} go", view.rule, view.output),
    }
}

fn remember<T>(known: &mut BTreeMap<DeviceId, T>, id: &DeviceId, value: T) -> Option<T> {
    if known.len() >= MAX_KNOWN && !known.contains_key(id) {
        known.clear();
    }
    known.insert(id.clone(), value)
}

#[cfg(test)]
mod tests;

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
//! after that is counted in memory, and written when the minute is over. Each [`Class`] of events has so many writes a
//! minute, so that none drowns another: what anybody who may publish can make a node say least of all.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::twin::{DeviceId, Outcome, ResultBody, TwinTopic};
use bus::{Mono, Now, UnixMillis};
use controller::api::{Id, Kind, Layout};
use controller::event::{self, Event, Severity};
use device_twin::Publish;
use device_twin::arbiter::Slot;
use device_twin::history::audit::{AuditEntry, AuditEvent};
use device_twin::model::Catalog;
use device_twin::rule::{Because, Does, RuleView};
use device_twin::twin::{Availability, DeviceState};
use metadata::Keyspace;

/// How often one event is written at most.
const EVERY: Duration = Duration::from_secs(60);

const TRIPPED: &str = "InterlockTripped";
const RELEASED: &str = "InterlockReleased";
const REFUSED: &str = "Refused";

/// Devices and rules of which the last word is remembered, 100 bytes each. When full, all are forgotten: the next change of
/// each is not noticed.
const MAX_KNOWN: usize = 65_536;

/// Events that share a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Interlocks,
    /// States, and how wishes and commands ended.
    Devices,
    /// What clients of MQTT are told; any of them can cause some.
    Refusals,
}

impl Class {
    const ALL: [Self; 3] = [Self::Interlocks, Self::Devices, Self::Refusals];

    /// Events that are written for the first time in a minute, and as many that are written again. More of new ones are
    /// left out; of what is said again the count is left out, and the next time is new. A site that falls over says so
    /// in a hundred lines, 50 KB.
    fn a_minute(self) -> u32 {
        match self {
            Self::Interlocks | Self::Devices => 100,
            Self::Refusals => 20,
        }
    }
}

/// What was written in this minute.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    new: u32,
    again: u32,
}

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
    states: Known<Availability>,
    /// Whether a rule that may stop a device does.
    tripped: Known<bool>,
    /// Whatever was written within [`EVERY`]: what two minutes have, which [`Class::a_minute`] bounds.
    waiting: BTreeMap<Topic, Waiting>,
    /// When the first of it is over; what is written later is over later.
    due: Option<Mono>,
    minute: Mono,
    spent: [Spent; Class::ALL.len()],
    /// In this minute, and in those before it.
    left_out: u64,
    untold: u64,
    /// Whether somebody wishes in the present input, so that a refusal is one of a wish and not of a reading.
    hears_wish: bool,
}

impl Herald {
    pub(crate) fn new(layout: Layout) -> Self {
        Self {
            layout,
            states: Known::default(),
            tripped: Known::default(),
            waiting: BTreeMap::new(),
            due: None,
            minute: Mono::ZERO,
            spent: Default::default(),
            left_out: 0,
            untold: 0,
            hears_wish: layout == Layout::Cloud,
        }
    }

    /// What was known before this process, so that the first change is noticed, and nothing is said again.
    pub(crate) fn load<'a>(
        &mut self,
        states: impl Iterator<Item = (DeviceId, Availability)>,
        rules: impl Iterator<Item = &'a RuleView>,
    ) {
        self.states.last.extend(states);
        let rules = rules.filter_map(|view| Some((view.rule.parse().ok()?, is_tripped(view)?)));
        self.tripped.last.extend(rules);
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
    pub(crate) fn handle_publish(
        &mut self,
        publish: &Publish,
        catalog: &Catalog,
        ks: &mut Keyspace,
        now: Now,
    ) {
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
                    self.handle_refusal(&device, &body, catalog, ks, now);
                }
            }
            _ => {}
        }
    }

    /// Of a wish that was taken another output tells the end. Clients make up names: of a device that is not there nothing
    /// is said, and what a device does not have is one topic.
    fn handle_refusal(
        &mut self,
        device: &DeviceId,
        body: &ResultBody,
        catalog: &Catalog,
        ks: &mut Keyspace,
        now: Now,
    ) {
        let is_another =
            body.outcome != Outcome::Rejected || body.version.is_some() || body.command.is_some();
        if is_another || catalog.device(device).is_none() {
            return;
        }
        let what = if body.property.is_empty() { "command" } else { &body.property };
        let is_there = body.property.is_empty() || catalog.property(device, what).is_ok();
        let subject = if is_there { what.to_owned() } else { String::new() };
        let message = said(what, &body.detail);
        self.say(Kind::Device, device, (REFUSED, Severity::Warning), (subject, message), ks, now);
    }

    /// That an edge is away says the event of the edge, and not one of each of its devices.
    fn handle_state(&mut self, device: &DeviceId, state: &DeviceState, ks: &mut Keyspace, now: Now) {
        let (reason, severity) = match state.state {
            Availability::Unknown => return,
            Availability::Online => ("Online", Severity::Normal),
            Availability::Degraded => ("Degraded", Severity::Warning),
            Availability::Offline => ("Offline", Severity::Warning),
        };
        let (before, is_forgotten) = self.states.remember(device, state.state);
        // An edge learns at its start who is there.
        let is_first = before.is_none() && self.layout == Layout::Edge;
        if before != Some(state.state) && !is_first && !is_forgotten {
            let message = said(&reason.to_ascii_lowercase(), &state.reason);
            self.say(Kind::Device, device, (reason, severity), (String::new(), message), ks, now);
        }
    }

    /// How a rule stands now.
    pub(crate) fn handle_rule(&mut self, view: &RuleView, ks: &mut Keyspace, now: Now) {
        let (Ok(rule), Some(is)) = (view.rule.parse::<DeviceId>(), is_tripped(view)) else { return };
        let (was, is_forgotten) = self.tripped.remember(&rule, is);
        // What was latched before this process is no news.
        let is_old = was.is_none() && !view.latched.is_empty();
        if was.unwrap_or(false) == is || is_old || is_forgotten {
            return;
        }
        let reason = match is {
            true => (TRIPPED, Severity::Warning),
            false => (RELEASED, Severity::Normal),
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
        self.begin_minute(now.mono);
        let class = topic.class();
        let spent = &mut self.spent[class as usize];
        if spent.new >= class.a_minute() {
            self.left_out += 1;
            return;
        }
        spent.new += 1;
        let said = Waiting { until: now.mono + EVERY, severity, message, at: now.wall, count: 1 };
        write(self.layout, &topic, &said, ks);
        self.due.get_or_insert(said.until);
        self.waiting.insert(topic, Waiting { count: 0, ..said });
    }

    fn begin_minute(&mut self, now: Mono) {
        if now >= self.minute + EVERY {
            (self.minute, self.spent) = (now, Default::default());
            self.untold += std::mem::take(&mut self.left_out);
        }
    }

    /// Writes what was counted, of each whose minute is over.
    pub(crate) fn handle_timeout(&mut self, ks: &mut Keyspace, now: Now) {
        if self.due.is_none_or(|due| due > now.mono) {
            return;
        }
        self.begin_minute(now.mono);
        let Self { layout, waiting, spent, left_out, .. } = self;
        waiting.retain(|topic, waiting| {
            if waiting.until > now.mono {
                return true;
            }
            if waiting.count == 0 {
                return false;
            }
            let class = topic.class();
            let again = &mut spent[class as usize].again;
            if *again >= class.a_minute() {
                *left_out += waiting.count;
                return false;
            }
            *again += 1;
            write(*layout, topic, waiting, ks);
            (waiting.until, waiting.count) = (now.mono + EVERY, 0);
            true
        });
        self.due = self.waiting.values().map(|waiting| waiting.until).min();
    }

    /// How many events there was no room for: once a minute, if any.
    pub(crate) fn take_left_out(&mut self, now: Now) -> Option<u64> {
        self.begin_minute(now.mono);
        Some(std::mem::take(&mut self.untold)).filter(|count| *count > 0)
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let left_out = (self.left_out > 0).then(|| self.minute + EVERY);
        self.due.into_iter().chain(left_out).min().map(|at| (at, "events"))
    }
}

impl Topic {
    fn class(&self) -> Class {
        match self.reason {
            TRIPPED | RELEASED => Class::Interlocks,
            REFUSED => Class::Refusals,
            _ => Class::Devices,
        }
    }
}

/// What was said last of devices or rules.
#[derive(Debug)]
struct Known<T> {
    last: BTreeMap<DeviceId, T>,
    /// Who is not there may have been.
    has_forgotten: bool,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { last: BTreeMap::new(), has_forgotten: false }
    }
}

impl<T> Known<T> {
    /// What it was before, and whether that may be forgotten.
    fn remember(&mut self, id: &DeviceId, value: T) -> (Option<T>, bool) {
        if self.last.len() >= MAX_KNOWN && !self.last.contains_key(id) {
            self.last.clear();
            self.has_forgotten = true;
        }
        let before = self.last.insert(id.clone(), value);
        let is_forgotten = before.is_none() && self.has_forgotten;
        (before, is_forgotten)
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

#[cfg(test)]
mod tests;

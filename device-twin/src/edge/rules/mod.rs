//! The rules whose output is a device of this edge.

mod act;
mod reads;
mod remote;
mod running;
mod shown;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus::twin::DeviceId;
use bus::{Mono, Now};
use metadata::{Key, Keyspace};

use super::output::Output;
use super::{EdgeTwins, RULE_INTERVAL};
use crate::rule::{Counting, From, RuleSpec, Scale, Scribe, Window, evaluate};
use crate::twin::{self, PropertyId, key};
use crate::unit::Unit;
use act::Place;
use remote::{Remote, filter};
use running::{Running, place, source};
use shown::log_whole;

pub use shown::ResetError;

/// Of properties of other sites, as text.
pub(super) const UNITS: &str = "/m/unit/";

type Source = (From, PropertyId);

/// All rules of this edge, what they read from other sites, and over what history.
#[derive(Debug, Default)]
pub(super) struct Rules {
    running: BTreeMap<DeviceId, Running>,
    readers: BTreeMap<Source, Vec<DeviceId>>,
    remote: BTreeMap<Source, Option<Remote>>,
    /// One for each span over which some rule looks at the property.
    windows: BTreeMap<PropertyId, Vec<Window>>,
    next_tick: Option<Mono>,
    /// Whether somebody keeps a log.
    is_logged: bool,
}

impl Rules {
    pub(super) fn next_tick(&self) -> Option<Mono> {
        self.next_tick.filter(|_| !self.running.is_empty())
    }

    /// All rules, if it is time to look.
    pub(super) fn due(&mut self, now: Mono) -> Vec<DeviceId> {
        if self.next_tick().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.next_tick = Some(now + RULE_INTERVAL);
        self.running.keys().cloned().collect()
    }

    fn reading(&self, source: &Source) -> Vec<DeviceId> {
        self.readers.get(source).cloned().unwrap_or_default()
    }

    /// Whether a rule looks at the readings of a property.
    pub(super) fn read_reported(&self, id: &PropertyId) -> bool {
        self.readers.contains_key(&(From::Reported, id.clone()))
    }

    /// The mapper of `device` came: what is read from it and through it begins anew.
    pub(super) fn settle(&mut self, device: &DeviceId) {
        for rule in self.running.values_mut() {
            rule.anew |= rule.concerns(device);
        }
    }

    /// Notes again who reads what.
    fn index(&mut self) {
        self.readers.clear();
        let mut before = std::mem::take(&mut self.windows);
        for (id, rule) in &self.running {
            for source in rule.sources.iter().collect::<BTreeSet<_>>() {
                self.readers.entry(source.clone()).or_default().push(id.clone());
            }
            for (property, span, max_age) in rule.windows() {
                let of_property = self.windows.entry(property.clone()).or_default();
                if !of_property.iter().any(|window| window.is(span, max_age)) {
                    let known = before.get_mut(property).and_then(|known| take(known, span, max_age));
                    of_property.push(known.unwrap_or_else(|| Window::new(span, max_age)));
                }
            }
        }
    }

    fn watch(&mut self, sources: BTreeSet<Source>) -> Vec<Output> {
        let gone: Vec<Source> = self.remote.keys().filter(|s| !sources.contains(s)).cloned().collect();
        let mut outputs = Vec::new();
        for source in gone {
            self.remote.remove(&source);
            outputs.extend(filter(&source).map(Output::Unwatch));
        }
        for source in sources {
            let watch = filter(&source).map(Output::Watch);
            if let Entry::Vacant(place) = self.remote.entry(source) {
                place.insert(None);
                outputs.extend(watch);
            }
        }
        outputs
    }
}

fn take(windows: &mut Vec<Window>, span: Duration, max_age: Duration) -> Option<Window> {
    let at = windows.iter().position(|window| window.is(span, max_age))?;
    Some(windows.swap_remove(at))
}

impl EdgeTwins {
    /// Starts and ends rules as the catalog says. A rule that did not change keeps its memory; what outlives a restart
    /// is kept also by one that did, as long as it has a manifest.
    pub(super) fn rules_changed(&mut self, ks: &mut Keyspace, now: Now) {
        let (started, ended) = self.exchange_rules(ks);
        for (id, place) in &ended {
            self.release(id, place, ks, now);
        }
        forget_rules(ks);
        self.rules.next_tick.get_or_insert(now.mono + RULE_INTERVAL);
        self.rules.index();
        self.configs_changed(now);
        let inputs = self.rules.readers.keys();
        let remote = inputs.filter(|(_, id)| !self.devices.contains_key(&id.device)).cloned().collect();
        let watches = self.rules.watch(remote);
        watches.into_iter().for_each(|watch| self.outputs.push(watch));
        for id in &started {
            self.rule_started(id, ks, now);
        }
    }

    /// The rules that began or changed, and the slots that nobody fills any more.
    fn exchange_rules(&mut self, ks: &Keyspace) -> (Vec<DeviceId>, Vec<(DeviceId, Place)>) {
        let (mut started, mut ended) = (Vec::new(), Vec::new());
        let mut before = std::mem::take(&mut self.rules.running);
        for (id, spec) in self.catalog.rules() {
            let Some(place) = place(id, spec).filter(|p| self.devices.contains_key(&p.output.device)) else {
                continue;
            };
            let counting = self.counting(id, spec, ks);
            let kept = match before.remove(id) {
                Some(old) if old.is_of(spec, &counting) => Some(old),
                Some(old) => {
                    let moved = (&old.place.output, old.place.slot) != (&place.output, place.slot);
                    ended.extend(moved.then_some((id.clone(), old.place)));
                    None
                }
                None => None,
            };
            let rule = kept.or_else(|| {
                started.push(id.clone());
                Running::new(id, spec, counting, ks)
            });
            self.rules.running.extend(rule.map(|rule| (id.clone(), rule)));
        }
        ended.extend(before.into_iter().map(|(id, old)| (id, old.place)));
        (started, ended)
    }

    /// How the values of a rule's inputs become what its document counts.
    fn counting(&self, id: &DeviceId, spec: &RuleSpec, ks: &Keyspace) -> Counting {
        Counting::new(spec, |input| self.unit_of(&source(id, input)?.1, ks), convert)
    }

    /// Of a property here by its model, of another site's by what the cloud says of it.
    fn unit_of(&self, id: &PropertyId, ks: &Keyspace) -> Option<String> {
        if self.devices.contains_key(&id.device) {
            return self.property(id)?.unit.clone();
        }
        String::from_utf8(ks.get(&format!("{UNITS}{id}"))?.to_vec()).ok()
    }

    /// What is latched holds from the beginning; other rules wait for their inputs.
    fn rule_started(&mut self, id: &DeviceId, ks: &mut Keyspace, now: Now) {
        let Some(rule) = self.rules.running.get_mut(id) else { return };
        if self.rules.is_logged {
            self.outputs.push(log_whole(id, rule, now));
        }
        // A changed document may keep less than it found.
        keep(id, rule, ks);
        if !rule.state.trips().is_empty() {
            self.run_rule(id, ks, now);
        }
    }

    /// Evaluates the rules that read this property of this edge.
    pub(super) fn run_rules_reading(&mut self, from: From, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        for rule in self.rules.reading(&(from, id.clone())) {
            self.run_rule(&rule, ks, now);
        }
    }

    pub(super) fn run_rule(&mut self, id: &DeviceId, ks: &mut Keyspace, now: Now) {
        let Some(mut seen) = self.seen_by(id, now.mono) else { return };
        let Some(rule) = self.rules.running.get_mut(id) else { return };
        seen.anew = std::mem::take(&mut rule.anew);
        let before = rule.state.clone();
        let evaluation = evaluate(&rule.program, &seen, now, &mut rule.state);
        let (decision, place) = (evaluation.decision.clone(), rule.place.clone());
        let is_new = rule.note(evaluation, now.wall);
        if !rule.state.keeps_as(&before) {
            keep(id, rule, ks);
        }
        if self.rules.is_logged
            && (is_new || rule.state != before)
            && let Some(said) = &rule.said
        {
            let scribe = Scribe { rule: &id.to_string(), program: &rule.program, now };
            let line = scribe.evaluated(&seen, &said.evaluation, &before, &rule.state);
            self.outputs.push(Output::RuleLog(line));
        }
        self.tell_changed_rule(id, &seen, now);
        self.carry_out(id, decision, &place, ks, now);
    }
}

/// Units as models and rules write them; `None` if one is not understood, or they measure different things.
fn convert(from: &str, to: &str) -> Option<Scale> {
    let conversion = Unit::of_text(from)?.to(&Unit::of_text(to)?).ok()?;
    Some(Scale { factor: conversion.factor(), offset: conversion.offset() })
}

/// Stores what outlives a restart, if that is something and another than what is stored.
fn keep(id: &DeviceId, rule: &Running, ks: &mut Keyspace) {
    let (key, kept) = (key("/t/rule/", id), rule.state.kept());
    let bytes = twin::cbor(&kept);
    if ks.get(key.as_str()).map_or(!kept.is_empty(), |stored| *stored != bytes) {
        ks.put(key, bytes);
    }
}

/// The memory of a rule goes with its manifest, not with a device that is away for a while.
fn forget_rules(ks: &mut Keyspace) {
    let gone = |key: &Key| {
        let id = key.as_str().strip_prefix("/t/rule/").unwrap_or_default();
        ks.get(&format!("/m/rule/{id}")).is_none()
    };
    let keys: Vec<Key> = ks.range("/t/rule/").map(|(key, _)| key).filter(|key| gone(key)).cloned().collect();
    keys.iter().for_each(|key| ks.delete(key));
}

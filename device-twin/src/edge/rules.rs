//! The rules whose output is a device of this edge.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus::twin::{DeviceId, Outcome, TwinTopic};
use bus::{Filter, Mono, Now, Quality, Topic, Value, ValueType};
use metadata::Keyspace;

use super::output::Output;
use super::property::{Owner, Twin, Who};
use super::write::Decision as Writing;
use super::{EdgeTwins, RULE_INTERVAL};
use crate::arbiter::{self, Slot};
use crate::model::{Catalog, Property};
use crate::rule::{Decision, From, Reading, RuleSpec, RuleState, evaluate};
use crate::twin::{self, DesiredBody, PropertyId, ReportedBody, key};

type Source = (From, PropertyId);

/// One rule at work.
#[derive(Debug)]
struct Running {
    spec: RuleSpec,
    state: RuleState,
    output: PropertyId,
    inputs: BTreeMap<String, Source>,
}

/// What another site said last.
#[derive(Debug, Clone, PartialEq)]
struct Remote {
    value: Value,
    quality: Quality,
    /// When it came, and how old it was then.
    heard: Mono,
    age: Option<Duration>,
}

/// All rules of this edge, and what they read from other sites.
#[derive(Debug, Default)]
pub(super) struct Rules {
    running: BTreeMap<DeviceId, Running>,
    remote: BTreeMap<Source, Option<Remote>>,
    next_tick: Option<Mono>,
}

impl Running {
    fn new(id: &DeviceId, spec: &RuleSpec, ks: &Keyspace) -> Option<Self> {
        let output = PropertyId {
            device: RuleSpec::device(id, &spec.output.device)?,
            property: spec.output.property.as_str().into(),
        };
        let inputs = spec.inputs.iter().map(|(name, input)| {
            let device = RuleSpec::device(id, &input.device)?;
            Some((name.clone(), (input.from, PropertyId::new(&device, &input.property))))
        });
        let latches: Option<Vec<bool>> =
            ks.get(&format!("/t/rule/{id}")).and_then(|bytes| twin::decode(bytes));
        Some(Self {
            spec: spec.clone(),
            state: RuleState::from_latches(latches.unwrap_or_default()),
            output,
            inputs: inputs.collect::<Option<_>>()?,
        })
    }

    fn reads(&self, source: &Source) -> bool {
        self.inputs.values().any(|input| input == source)
    }
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
        let readers = self.running.iter().filter(|(_, rule)| rule.reads(source));
        readers.map(|(id, _)| id.clone()).collect()
    }

    /// Notes what another site said; the rules that read it.
    pub(super) fn take_remote(
        &mut self,
        topic: &Topic,
        payload: &[u8],
        travelled: Option<Duration>,
        now: Now,
    ) -> Vec<DeviceId> {
        let Some((source, remote)) = remote(topic, payload, travelled, now) else { return Vec::new() };
        let Some(known) = self.remote.get_mut(&source) else { return Vec::new() };
        // A copy kept by the cloud says nothing about age: it must not make a reading old that came first hand.
        let is_copy = remote.as_ref().is_some_and(|new| new.age.is_none());
        if is_copy && known.as_ref().is_some_and(|old| old.age.is_some()) {
            return Vec::new();
        }
        *known = remote;
        self.reading(&source)
    }

    /// The mapper of `device` came: what is read from it and through it begins anew.
    pub(super) fn settle(&mut self, device: &DeviceId) {
        for rule in self.running.values_mut() {
            let reads = rule.inputs.values().any(|(_, id)| id.device == *device);
            if reads || rule.output.device == *device {
                rule.state.settle();
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

/// `None` if the message is no twin's; an empty one takes back what was said.
fn remote(
    topic: &Topic,
    payload: &[u8],
    travelled: Option<Duration>,
    now: Now,
) -> Option<(Source, Option<Remote>)> {
    let heard = now.mono;
    match TwinTopic::parse(topic)? {
        TwinTopic::Reported { device, property } => {
            let body: Option<ReportedBody> = serde_json::from_slice(payload).ok();
            let remote = body.map(|body| Remote {
                value: body.value,
                quality: body.quality,
                heard,
                age: body.age_ms.map(Duration::from_millis).zip(travelled).map(|(age, way)| age + way),
            });
            Some(((From::Reported, PropertyId::new(&device, &property)), remote))
        }
        TwinTopic::Desired { device, property } => {
            let body: Option<DesiredBody> = serde_json::from_slice(payload).ok();
            let remote =
                body.map(|body| Remote { value: body.value, quality: Quality::Good, heard, age: None });
            Some(((From::Desired, PropertyId::new(&device, &property)), remote))
        }
        TwinTopic::Set { .. }
        | TwinTopic::Report { .. }
        | TwinTopic::ReportMany { .. }
        | TwinTopic::Result { .. }
        | TwinTopic::Command { .. }
        | TwinTopic::State { .. } => None,
    }
}

fn filter((from, id): &Source) -> Option<Filter> {
    let topic = match from {
        From::Reported => id.reported_topic(),
        From::Desired => id.desired_topic(),
    };
    Filter::new(topic.topic().as_str()).ok()
}

impl EdgeTwins {
    /// Starts and ends rules as the catalog says. A rule that did not change keeps its memory.
    pub(super) fn rules_changed(&mut self, ks: &mut Keyspace, now: Now) {
        let wanted = running(&self.catalog, &self.devices.keys().cloned().collect(), ks);
        let mut before = std::mem::take(&mut self.rules.running);
        for (id, fresh) in wanted {
            let kept = before.remove(&id).filter(|old| old.spec == fresh.spec);
            self.rules.running.insert(id, kept.unwrap_or(fresh));
        }
        for (id, old) in before {
            ks.delete(&key("/t/rule/", &id));
            self.release(&id, &old.output, old.spec.output.slot, ks, now);
        }
        self.rules.next_tick.get_or_insert(now.mono + RULE_INTERVAL);
        let inputs = self.rules.running.values().flat_map(|rule| rule.inputs.values());
        let remote = inputs.filter(|(_, id)| !self.devices.contains_key(&id.device)).cloned().collect();
        let watches = self.rules.watch(remote);
        watches.into_iter().for_each(|watch| self.outputs.push(watch));
    }

    /// Evaluates the rules that read this property of this edge.
    pub(super) fn run_rules_reading(&mut self, from: From, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        for rule in self.rules.reading(&(from, id.clone())) {
            self.run_rule(&rule, ks, now);
        }
    }

    pub(super) fn run_rule(&mut self, id: &DeviceId, ks: &mut Keyspace, now: Now) {
        let Some(rule) = self.rules.running.get_mut(id) else { return };
        let twins = &self.twins;
        let remote = &self.rules.remote;
        let read =
            |source: &Source| local(twins, source, now.mono).or_else(|| distant(remote, source, now.mono));
        let readings = rule.inputs.iter().filter_map(|(name, source)| Some((name.as_str(), read(source)?)));
        let readings: BTreeMap<&str, Reading> = readings.collect();
        let before = rule.state.latches();
        let decision = evaluate(&rule.spec, &readings, now.mono, &mut rule.state);
        let latches = rule.state.latches();
        if latches != before {
            ks.put(key("/t/rule/", id), twin::cbor(&latches));
        }
        let (output, spec) = (rule.output.clone(), rule.spec.output.clone());
        self.carry_out(id, decision, &output, &spec, ks, now);
    }

    fn carry_out(
        &mut self,
        rule: &DeviceId,
        decision: Decision,
        output: &PropertyId,
        spec: &crate::rule::Output,
        ks: &mut Keyspace,
        now: Now,
    ) {
        let expires = now.mono + spec.ttl.0;
        let property = self.catalog.property(&output.device, &output.property).ok();
        let fail_safe = property.and_then(|property| property.policy.fail_safe.clone());
        match decision {
            Decision::Set { value, cause } => self.fill(rule, output, spec, (value, cause), ks, now),
            Decision::FailSafe => match fail_safe {
                Some(value) => self.fill(rule, output, spec, (value, "inputs unknown".to_owned()), ks, now),
                None => self.release(rule, output, spec.slot, ks, now),
            },
            Decision::Hold => {
                let Some(twin) = self.twins.get_mut(output) else { return };
                if let Some(mut entry) = twin.slots.get(spec.slot).filter(|e| is_of(e, rule)).cloned() {
                    entry.expires = Some(expires);
                    twin.slots.set(spec.slot, entry);
                    self.reschedule(output);
                }
            }
            Decision::Relinquish => self.release(rule, output, spec.slot, ks, now),
        }
    }

    fn fill(
        &mut self,
        rule: &DeviceId,
        output: &PropertyId,
        spec: &crate::rule::Output,
        (value, cause): (Value, String),
        ks: &mut Keyspace,
        now: Now,
    ) {
        let Ok(property) = self.catalog.property(&output.device, &output.property) else { return };
        let Ok(value) = property.check_desired(fitted(property, value)) else {
            self.stats.unfit_decisions += 1;
            self.release(rule, output, spec.slot, ks, now);
            return;
        };
        let Some(twin) = self.twins.get_mut(output) else { return };
        let owner = Owner { who: Who::Rule(rule.clone()), cause };
        let decision = renewal(twin, spec.slot, &owner.who, &value);
        twin.slots.set(spec.slot, arbiter::Entry { value, owner, expires: Some(now.mono + spec.ttl.0) });
        self.arbitrate(output, decision, ks, now);
        self.reschedule(output);
    }

    /// Lets a latched rule of the device go.
    pub(super) fn reset_rule_named(
        &mut self,
        _: &DeviceId,
        rule: &str,
        _: &str,
        _: &mut Keyspace,
        _: Now,
    ) -> Result<(), String> {
        Err(format!("rule '{rule}' has nothing that is latched"))
    }

    /// The rule has nothing to say.
    fn release(&mut self, rule: &DeviceId, output: &PropertyId, slot: Slot, ks: &mut Keyspace, now: Now) {
        let Some(twin) = self.twins.get_mut(output) else { return };
        if twin.slots.get(slot).is_some_and(|entry| is_of(entry, rule)) {
            twin.slots.relinquish(slot);
            self.arbitrate(output, Writing::Fresh, ks, now);
            self.reschedule(output);
        }
    }
}

fn is_of(entry: &arbiter::Entry<Owner>, rule: &DeviceId) -> bool {
    entry.owner.who == Who::Rule(rule.clone())
}

fn renewal(twin: &Twin, slot: Slot, who: &Who, value: &Value) -> Writing {
    let same = twin.slots.get(slot).is_some_and(|old| old.owner.who == *who && old.value == *value);
    if same { Writing::Renewed } else { Writing::Fresh }
}

/// A number that a rule computed, as near as its output can hold it.
fn fitted(property: &Property, value: Value) -> Value {
    let Value::Float(number) = value else { return value };
    let number = number.max(property.minimum.unwrap_or(f64::MIN)).min(property.maximum.unwrap_or(f64::MAX));
    Value::Float(if property.value_type == ValueType::Int { number.round() } else { number })
}

/// Rules whose output is bound here.
fn running(catalog: &Catalog, here: &BTreeSet<DeviceId>, ks: &Keyspace) -> BTreeMap<DeviceId, Running> {
    let all = catalog.rules().filter_map(|(id, spec)| Some((id.clone(), Running::new(id, spec, ks)?)));
    all.filter(|(_, rule)| here.contains(&rule.output.device)).collect()
}

fn local(twins: &BTreeMap<PropertyId, Box<Twin>>, (from, id): &Source, now: Mono) -> Option<Reading> {
    let twin = twins.get(id)?;
    match from {
        From::Reported => {
            let sample = twin.latest()?;
            Some(Reading { value: sample.value.clone(), quality: sample.quality, age: twin.age(now) })
        }
        From::Desired => {
            let desired = twin.desired.as_ref()?;
            let ack = twin.handled.as_ref().and_then(|handled| handled.ack.as_ref());
            let refused = ack.is_some_and(|ack| {
                ack.version == desired.version && matches!(ack.outcome, Outcome::Rejected | Outcome::Expired)
            });
            let quality = if refused { Quality::Bad } else { Quality::Good };
            Some(Reading { value: desired.value.clone(), quality, age: None })
        }
    }
}

fn distant(remote: &BTreeMap<Source, Option<Remote>>, source: &Source, now: Mono) -> Option<Reading> {
    let Remote { value, quality, heard, age } = remote.get(source)?.clone()?;
    Some(Reading { value, quality, age: age.map(|age| age + now.since(heard)) })
}

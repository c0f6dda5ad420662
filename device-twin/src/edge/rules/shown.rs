//! Rules for people: views, resets, the log, and what the cloud is told.

use bus::twin::DeviceId;
use bus::{Now, Value};
use bytes::Bytes;
use metadata::Keyspace;
use thiserror::Error;

use super::super::output::Output;
use super::super::{EdgeTwins, RULE_INTERVAL};
use super::keep;
use super::running::{Running, Told};
use crate::history::audit::{AuditEvent, Decision};
use crate::rule::{Decided, Refusal, RuleSpec, RuleView, Scribe, Seen, reset};
use crate::twin::{brief, explain};

/// Why a rule was not reset.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ResetError {
    #[error("rule {0} does not run here")]
    NotHere(DeviceId),
    #[error("rule {rule} was not reset")]
    Refused {
        rule: DeviceId,
        #[source]
        why: Refusal,
    },
}

impl EdgeTwins {
    /// Every rule of this edge, for people.
    pub fn rule_views(&self, now: Now) -> Vec<RuleView> {
        let ids = self.rules.running.iter();
        ids.filter_map(|(id, rule)| Some(view(id, rule, &self.seen_by(id, now.mono)?))).collect()
    }

    /// The first `most` of them, and how many there are: those that tripped before those that miss an input, those before
    /// the rest. Views are made of no more than that.
    pub fn first_rule_views(&self, most: usize, now: Now) -> (Vec<RuleView>, usize) {
        let ranked = self.rules.running.iter().filter_map(|(id, rule)| {
            let seen = self.seen_by(id, now.mono)?;
            let rank = (rule.state.trips().is_empty(), rule.program.unknown(&seen).is_empty());
            Some((rank, id, rule, seen))
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_by_key(|(rank, ..)| *rank);
        let views = ranked.iter().take(most).map(|(_, id, rule, seen)| view(id, rule, seen));
        (views.collect(), ranked.len())
    }

    /// How many rules run here, and how many of them have latched.
    pub(in crate::edge) fn count_rules(&self) -> (usize, usize) {
        let running = &self.rules.running;
        (running.len(), running.values().filter(|rule| !rule.state.trips().is_empty()).count())
    }

    /// Opens the latches of a rule, and lets it decide again.
    ///
    /// # Errors
    /// Says why they stay: a condition holds or cannot be told, or nothing is latched.
    pub fn reset_rule(&mut self, id: &DeviceId, ks: &mut Keyspace, now: Now) -> Result<(), ResetError> {
        let not_here = || ResetError::NotHere(id.clone());
        let seen = self.seen_by(id, now.mono).ok_or_else(not_here)?;
        let rule = self.rules.running.get_mut(id).ok_or_else(not_here)?;
        let before = rule.state.clone();
        reset(&rule.program, &seen, now, &mut rule.state)
            .map_err(|why| ResetError::Refused { rule: id.clone(), why })?;
        keep(id, rule, ks);
        if self.rules.is_logged {
            let scribe = Scribe { rule: &id.to_string(), program: &rule.program, now };
            self.outputs.push(Output::RuleLog(scribe.reset(&seen, &before, &rule.state)));
        }
        self.run_rule(id, ks, now);
        Ok(())
    }

    /// A file of the rule log begins: says every rule in full, and from then on, as [`Output::RuleLog`], each
    /// evaluation that changes something. Call it again for each new file.
    pub fn begin_rule_log(&mut self, now: Now) {
        self.rules.is_logged = true;
        let heads = self.rules.running.iter_mut().map(|(id, rule)| whole(id, rule, now)).collect();
        self.outputs.push(Output::RuleHeads(heads));
    }

    /// Lets a latched rule of the device go, by the name that a person gave.
    pub(in crate::edge) fn reset_rule_of(
        &mut self,
        device: &DeviceId,
        (rule, by): (&str, &str),
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), String> {
        let named = RuleSpec::device(device, rule);
        let is_its =
            |rule: &DeviceId| self.rules.running.get(rule).is_some_and(|r| r.place.output.device == *device);
        let rule = named.filter(is_its).ok_or_else(|| format!("no rule '{}' sets {device}", brief(rule)))?;
        self.reset_rule(&rule, ks, now).map_err(|why| explain(&why))?;
        let (value, by) = (Some(Value::Text(rule.to_string())), by.to_owned());
        let reset = AuditEvent::Reset(Decision { value, by, ..Decision::default() });
        self.audit(device, None, reset, now);
        Ok(())
    }

    /// Nobody keeps a log any more.
    pub fn end_rule_log(&mut self) {
        self.rules.is_logged = false;
    }

    /// Tells the cloud what became of the last evaluation, at most once a tick unless something was latched or reset.
    pub(super) fn tell_changed_rule(&mut self, id: &DeviceId, seen: &Seen, now: Now) {
        let Some(rule) = self.rules.running.get_mut(id) else { return };
        let gist = rule.gist();
        let is_due = rule.told.as_ref().is_none_or(|told| {
            let may_come = now.mono.since(told.at) >= RULE_INTERVAL;
            told.gist != gist && (may_come || gist.is_urgent_after(&told.gist))
        });
        if is_due {
            let view = view(id, rule, seen);
            self.outputs.tell(rule_key(id), &view);
            rule.told = Some(Told { gist, view, at: now.mono });
        }
    }

    /// Tells the cloud again what it was told last of the rules under keys that are `wanted`.
    pub(in crate::edge) fn tell_rules(&mut self, wanted: impl Fn(&str) -> bool) {
        for (id, rule) in &self.rules.running {
            let key = rule_key(id);
            if let Some(told) = rule.told.as_ref().filter(|_| wanted(&key)) {
                self.outputs.tell(key, &told.view);
            }
        }
    }
}

/// What the outbox knows a rule's state by.
fn rule_key(id: &DeviceId) -> String {
    format!("rule/{id}")
}

/// The whole rule, as it begins or, if it stands in the log already, for a new file.
pub(super) fn log_whole(id: &DeviceId, rule: &mut Running, now: Now) -> Output {
    Output::RuleLog(whole(id, rule, now))
}

fn whole(id: &DeviceId, rule: &mut Running, now: Now) -> Bytes {
    let is_known = std::mem::replace(&mut rule.is_logged, true);
    let scribe = Scribe { rule: &id.to_string(), program: &rule.program, now };
    if is_known { scribe.again(&rule.state) } else { scribe.load(&rule.state) }
}

fn view(id: &DeviceId, rule: &Running, seen: &Seen) -> RuleView {
    let (place, said) = (&rule.place, rule.said.as_ref());
    let trips = rule.state.trips();
    RuleView {
        rule: id.to_string(),
        output: place.output.to_string(),
        slot: place.slot.into(),
        decision: said.map(|said| Decided::new(&rule.program, &rule.state, &said.evaluation)),
        latched: trips.iter().map(|trip| trip.case.clone()).collect(),
        tripped: trips.first().cloned(),
        unknown: rule.program.unknown(seen),
        since: said.map(|said| said.since),
    }
}

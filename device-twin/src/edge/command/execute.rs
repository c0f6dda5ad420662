//! A command at work: its properties' slots, and how each part of it ends.

use std::sync::Arc;
use std::time::Duration;

use bus::twin::Outcome;
use bus::{Mono, Now, Value};
use metadata::Keyspace;

use super::super::EdgeTwins;
use super::super::property::{Owner, Wanted, Who};
use super::super::write::{Decision, REPLACED};
use super::{ACCOUNTS, Origin, Part, account};
use crate::arbiter::{Entry, Slot};
use crate::command::{Account, Command, CommandId, CommandPlace, Progress, worst};
use crate::history::audit::AuditEvent;
use crate::twin::{self, PropertyId, brief, key};

impl EdgeTwins {
    /// All its properties' slots are filled before any is written, so that one write's end finds them all.
    pub(super) fn execute(
        &mut self,
        place: &CommandPlace,
        command: &Command,
        deadline: Mono,
        ks: &mut Keyspace,
        now: Now,
    ) {
        let ids: Vec<PropertyId> =
            command.args.keys().map(|name| PropertyId::new(&place.device, name)).collect();
        if let Some(running) = self.commands.running.get_mut(place) {
            running.progress = Progress::Executing;
            running.parts = ids.iter().map(|id| (Arc::clone(&id.property), Part::default())).collect();
            running.deadline = deadline;
        }
        self.commands.set_timer(place, Some(deadline));
        let account = account(Progress::Executing, now);
        ks.put(key(ACCOUNTS, place), twin::cbor(&account));
        self.outputs.command(&place.to_string(), &account);
        for id in &ids {
            let value = command.args.get(&*id.property).cloned();
            self.command_property(id, command, value, ks, now);
        }
        for id in &ids {
            self.arbitrate(id, Decision::Fresh, ks, now);
            self.reschedule(id);
        }
    }

    fn command_property(
        &mut self,
        id: &PropertyId,
        command: &Command,
        value: Option<Value>,
        ks: &mut Keyspace,
        now: Now,
    ) {
        let Ok(property) = self.catalog.property(&id.device, &id.property) else { return };
        let meant = property.policy.desired_max_age.filter(|_| property.policy.actuator);
        let hold = command.hold_ms.map(Duration::from_millis).or(meant);
        let Some(Ok(value)) = value.map(|value| property.check_desired(value)) else { return };
        let Some(twin) = self.twins.get_mut(id) else { return };
        let owner =
            Owner { who: Who::Command(command.id.clone()), cause: command.by.clone(), since: Some(now.wall) };
        twin.slots.set(Slot::COMMAND, Entry { value, owner, expires: hold.map(|hold| now.mono + hold) });
        let before = twin.command.replace(Box::new(command.id.clone()));
        if let Some(before) = before {
            self.part_replaced(id, &before, ks, now);
        }
    }

    /// A part for which no write is under way is superseded. One that is under way ends by itself.
    fn part_replaced(&mut self, id: &PropertyId, command: &CommandId, ks: &mut Keyspace, now: Now) {
        let who = Who::Command(command.clone());
        if self.twins.get(id).is_some_and(|twin| !twin.is_written_for(&who)) {
            self.part_ended(id, command, Outcome::Superseded, REPLACED, ks, now);
        }
    }

    /// Somebody stronger has his way: the command is over, and does not come back when he lets go.
    pub(in crate::edge) fn overrule_command(
        &mut self,
        id: &PropertyId,
        wanted: &Wanted,
        ks: &mut Keyspace,
        now: Now,
    ) {
        if wanted.slot.is_some_and(|slot| slot < Slot::COMMAND) {
            self.relinquish_command(id, ks, now);
        }
    }

    /// A command holds a setting until somebody wishes otherwise.
    pub(in crate::edge) fn newer_than_command(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let held = self.twins.get(id).and_then(|twin| twin.slots.get(Slot::COMMAND));
        if held.is_some_and(|entry| entry.expires.is_none()) {
            self.relinquish_command(id, ks, now);
        }
    }

    fn relinquish_command(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let Some(twin) = self.twins.get_mut(id) else { return };
        if let Some(Entry { owner: Owner { who: Who::Command(command), .. }, .. }) =
            twin.slots.relinquish(Slot::COMMAND)
        {
            self.part_replaced(id, &command, ks, now);
        }
    }

    /// The device is asked for what `who` wants.
    pub(in crate::edge) fn part_begun(&mut self, id: &PropertyId, who: Option<&Who>) {
        let Some(Who::Command(command)) = who else { return };
        if let Some(part) = self.part_mut(id, command) {
            part.has_begun = true;
        }
    }

    fn part_mut(&mut self, id: &PropertyId, command: &CommandId) -> Option<&mut Part> {
        let place = CommandPlace::new(&id.device, command);
        self.commands.running.get_mut(&place)?.parts.get_mut(&id.property)
    }

    /// Nothing is written for the command from now on. What is under way ends by itself.
    pub(super) fn command_out_of_time(&mut self, place: &CommandPlace, ks: &mut Keyspace, now: Now) {
        let Some(running) = self.commands.running.get(place) else { return };
        let open = running.parts.iter().filter(|(_, part)| part.end.is_none());
        let names: Vec<Arc<str>> = open.map(|(name, _)| Arc::clone(name)).collect();
        let who = Who::Command(place.id.clone());
        for property in names {
            let id = PropertyId { device: place.device.clone(), property };
            match self.twins.get(&id).map(|twin| twin.is_written_for(&who)) {
                Some(true) => {}
                Some(false) => {
                    self.let_go(&id, Some(&who));
                    self.part_out_of_time(&id, &place.id, "its time was over before its turn came", ks, now);
                }
                None => {
                    let why = "the property is not known here any more";
                    self.part_ended(&id, &place.id, Outcome::Unknown, why, ks, now);
                }
            }
        }
    }

    /// There will be no further write. `why`: if there was none.
    pub(in crate::edge) fn part_out_of_time(
        &mut self,
        id: &PropertyId,
        command: &CommandId,
        why: &str,
        ks: &mut Keyspace,
        now: Now,
    ) {
        if self.part_mut(id, command).is_some_and(|part| part.has_begun) {
            let why = "its time was over in the middle of the change";
            self.part_ended(id, command, Outcome::Unknown, why, ks, now);
        } else {
            self.part_ended(id, command, Outcome::Expired, why, ks, now);
        }
    }

    /// The write of one property came to an end, or there will be none.
    pub(in crate::edge) fn part_ended(
        &mut self,
        id: &PropertyId,
        command: &CommandId,
        outcome: Outcome,
        detail: &str,
        ks: &mut Keyspace,
        now: Now,
    ) {
        if let Some(twin) = self.twins.get_mut(id) {
            twin.command.take_if(|open| **open == *command);
        }
        let place = CommandPlace::new(&id.device, command);
        let Some(running) = self.commands.running.get_mut(&place) else { return };
        let Some(part) = running.parts.get_mut(&id.property).filter(|part| part.end.is_none()) else {
            return;
        };
        part.end = Some(outcome);
        if outcome != Outcome::Succeeded {
            let more =
                if detail.is_empty() { format!("{outcome:?}").to_lowercase() } else { detail.to_owned() };
            let before =
                if running.detail.is_empty() { String::new() } else { format!("{}; ", running.detail) };
            running.detail = brief(&format!("{before}{}: {more}", id.property));
        }
        let ends: Option<Vec<Outcome>> = running.parts.values().map(|part| part.end).collect();
        if let Some(ends) = ends {
            let detail = running.detail.clone();
            self.end_command(&place, worst(ends), &detail, ks, now);
        }
    }

    pub(super) fn end_command(
        &mut self,
        place: &CommandPlace,
        outcome: Outcome,
        detail: &str,
        ks: &mut Keyspace,
        now: Now,
    ) {
        let Some(running) = self.commands.running.get_mut(place) else { return };
        running.progress = Progress::Ended(outcome);
        running.detail = detail.to_owned();
        let (origin, deadline) = (running.origin, running.deadline);
        let account = Account { detail: detail.to_owned(), ..account(Progress::Ended(outcome), now) };
        ks.put(key(ACCOUNTS, place), twin::cbor(&account));
        // It is remembered until it can come again no more: till the cloud takes it away, or its time is over.
        let forget = (origin == Origin::Here).then(|| deadline.max(now.mono));
        self.commands.set_timer(place, forget);
        self.outputs.command(&place.to_string(), &account);
        self.tell_command_end(place, outcome, detail);
        let event = AuditEvent::ended(place.id.to_string(), (outcome, detail));
        self.audit(&place.device, None, event, now);
    }

    pub(super) fn reset_by(&mut self, place: &CommandPlace, command: &Command, ks: &mut Keyspace, now: Now) {
        let done = match command.args.get("rule") {
            Some(Value::Text(rule)) => self.reset_rule_of(&place.device, (rule, &command.by), ks, now),
            _ => Err("give the rule: {\"rule\": \"name\"}".to_owned()),
        };
        match done {
            Ok(()) => self.end_command(place, Outcome::Succeeded, "", ks, now),
            Err(why) => self.end_command(place, Outcome::Rejected, &why, ks, now),
        }
    }
}

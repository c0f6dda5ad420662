//! Commands at their edge: see [`crate::command`] for the states.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bus::twin::{DeviceId, Outcome, ResultBody};
use bus::{Mono, Now, Value};
use metadata::Keyspace;

use super::property::{Owner, Who};
use super::write::Decision;
use super::{CLOCK_GRACE, EdgeTwins};
use crate::arbiter::{Entry, Slot};
use crate::command::{
    Account, Command, CommandId, CommandPlace, CommandView, Order, Progress, RESET_RULE, State, worst,
};
use crate::condition::unmet;
use crate::history::audit::AuditEvent;
use crate::twin::{self, PropertyId, brief, explain, key};

/// Commands that an edge remembers at a time: those on their way, and those that ended and may come again. Some 17 a
/// second for a minute. When full a further one is rejected: it would run without being remembered.
const MAX_COMMANDS: usize = 1024;

/// Commands of the cloud, those given here, and how far each is.
const CLOUDS: &str = "/m/command/";
const LOCAL: &str = "/t/order/";
const ACCOUNTS: &str = "/t/command/";

/// Who gave a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Its row stays until the cloud knows the end.
    Cloud,
    /// Remembered until it expires.
    Here,
}

#[derive(Debug)]
struct Running {
    command: Command,
    origin: Origin,
    progress: Progress,
    detail: String,
    /// When it is decided on at the latest, or forgotten once it has ended.
    due: Option<Mono>,
    /// Nothing is written for it from then on.
    deadline: Mono,
    /// What became of each property's write; `None`: not known yet.
    parts: BTreeMap<Arc<str>, Option<Outcome>>,
}

impl Running {
    fn view(&self, place: &CommandPlace, now: Now) -> CommandView {
        let (state, outcome) = match self.progress {
            Progress::Ended(outcome) => (State::Ended, Some(outcome)),
            Progress::Received | Progress::Executing if self.deadline <= now.mono => {
                (State::Unconfirmed, None)
            }
            Progress::Received => (State::Accepted, None),
            Progress::Executing => (State::Executing, None),
        };
        let (command, detail) = (self.command.clone(), self.detail.clone());
        CommandView { device: place.device.to_string(), command, state, outcome, detail }
    }
}

/// All commands of this edge.
#[derive(Debug, Default)]
pub(super) struct Commands {
    running: BTreeMap<CommandPlace, Running>,
    timers: BTreeSet<(Mono, CommandPlace)>,
}

impl Commands {
    pub(super) fn next_timeout(&self) -> Option<Mono> {
        self.timers.first().map(|(at, _)| *at)
    }

    fn set_timer(&mut self, place: &CommandPlace, due: Option<Mono>) {
        let Some(running) = self.running.get_mut(place) else { return };
        let before = std::mem::replace(&mut running.due, due);
        if let Some(at) = before {
            self.timers.remove(&(at, place.clone()));
        }
        self.timers.extend(due.map(|at| (at, place.clone())));
    }

    fn remove(&mut self, place: &CommandPlace) {
        self.set_timer(place, None);
        self.running.remove(place);
    }
}

/// What is to become of a command.
enum Verdict {
    Wait,
    End(Outcome, String),
    Go,
}

impl EdgeTwins {
    /// What outlived the last process: a command that was under way may have been carried out, so it is not again.
    pub(super) fn load_commands(&mut self, ks: &mut Keyspace, now: Now) {
        for place in places(ks, CLOUDS) {
            self.command_changed(&place, ks, now);
        }
        for place in places(ks, LOCAL) {
            match read_command(LOCAL, &place, ks).filter(|_| self.devices.contains_key(&place.device)) {
                Some(command) => {
                    let left = command.ttl().saturating_sub(now.wall.since(command.issued));
                    self.admit(&place, command, Origin::Here, now.mono + left);
                    self.resume(&place, ks, now);
                }
                None => ks.delete(&key(LOCAL, &place)),
            }
        }
        for place in places(ks, ACCOUNTS) {
            if !self.commands.running.contains_key(&place) {
                ks.delete(&key(ACCOUNTS, &place));
            }
        }
    }

    /// The cloud gave a command, or knows its end and takes it away.
    pub(super) fn command_changed(&mut self, place: &CommandPlace, ks: &mut Keyspace, now: Now) {
        let Some(command) = read_command(CLOUDS, place, ks) else {
            let is_clouds = |running: &Running| running.origin == Origin::Cloud;
            if self.commands.running.get(place).is_some_and(is_clouds) {
                self.forget_command(place, ks);
            }
            return;
        };
        if self.devices.contains_key(&place.device) && !self.commands.running.contains_key(place) {
            let deadline = now.mono + command.ttl();
            self.admit(place, command, Origin::Cloud, deadline);
            self.commands.set_timer(place, Some(now.mono + CLOCK_GRACE));
            self.resume(place, ks, now);
        }
    }

    /// Goes on where the last process was.
    fn resume(&mut self, place: &CommandPlace, ks: &mut Keyspace, now: Now) {
        let account = ks.get(&format!("{ACCOUNTS}{place}")).and_then(|bytes| twin::decode::<Account>(bytes));
        if let (None, Some(running)) = (&account, self.commands.running.get(place)) {
            let event = AuditEvent::command(&running.command);
            self.audit(&place.device, None, event, now);
        }
        match account.map(|account| (account.progress, account.detail)) {
            Some((Progress::Executing, _)) => {
                let why = "the node restarted in the middle of it";
                self.end_command(place, Outcome::Unknown, why, ks, now);
            }
            // Told again: the cloud does not know it yet, or would have taken the row away.
            Some((Progress::Ended(outcome), detail)) => self.end_command(place, outcome, &detail, ks, now),
            Some((Progress::Received, _)) | None => self.decide_command(place, ks, now),
        }
    }

    fn forget_command(&mut self, place: &CommandPlace, ks: &mut Keyspace) {
        self.commands.remove(place);
        ks.delete(&key(ACCOUNTS, place));
        ks.delete(&key(LOCAL, place));
    }

    fn admit(&mut self, place: &CommandPlace, command: Command, origin: Origin, deadline: Mono) {
        let (progress, detail, parts) = (Progress::Received, String::new(), BTreeMap::new());
        let running = Running { command, origin, progress, detail, due: None, deadline, parts };
        self.commands.running.insert(place.clone(), running);
    }

    /// Somebody here orders something. Its answer: whether it is taken; what becomes of it is told as a result.
    pub fn order(
        &mut self,
        device: &DeviceId,
        name: &str,
        order: Order,
        by: &str,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<CommandId, String> {
        if !self.devices.contains_key(device) {
            return Err(format!("device {device} is not of this edge"));
        }
        let fallback = self.fresh_id(ks);
        let fallback = CommandId::new(&fallback).map_err(|why| explain(&why))?;
        let command = Command::new(name, order, fallback, by, now.wall).map_err(|why| explain(&why))?;
        let place = CommandPlace { device: device.clone(), id: command.id.clone() };
        if let Some(known) = self.commands.running.get(&place) {
            let same = known.command.is_same_order(&command);
            return if same {
                self.answer_again(&place)
            } else {
                Err(format!("id {} was another command", place.id))
            };
        }
        if self.commands.running.len() >= MAX_COMMANDS {
            return Err(format!("{MAX_COMMANDS} commands are remembered already; send it again later"));
        }
        ks.put(key(LOCAL, &place), twin::json(&command));
        self.audit(device, None, AuditEvent::command(&command), now);
        let deadline = now.mono + command.ttl();
        self.admit(&place, command, Origin::Here, deadline);
        self.decide_command(&place, ks, now);
        Ok(place.id)
    }

    /// The same order again: it is not carried out again; if it has ended its end is told again.
    fn answer_again(&mut self, place: &CommandPlace) -> Result<CommandId, String> {
        let Some(running) = self.commands.running.get(place) else { return Ok(place.id.clone()) };
        if let Progress::Ended(outcome) = running.progress {
            let detail = running.detail.clone();
            self.tell_command(place, outcome, &detail);
        }
        Ok(place.id.clone())
    }

    /// The cloud's time is known now.
    pub(super) fn decide_commands(&mut self, ks: &mut Keyspace, now: Now) {
        let waits = |(_, running): &(&CommandPlace, &Running)| running.progress == Progress::Received;
        let waiting: Vec<CommandPlace> =
            self.commands.running.iter().filter(waits).map(|(place, _)| place.clone()).collect();
        waiting.iter().for_each(|place| self.decide_command(place, ks, now));
    }

    pub(super) fn commands_due(&mut self, ks: &mut Keyspace, now: Now) {
        while let Some((_, place)) = self.commands.timers.first().filter(|(at, _)| *at <= now.mono).cloned() {
            self.commands.set_timer(&place, None);
            match self.commands.running.get(&place).map(|running| running.progress) {
                Some(Progress::Received) => self.decide_command(&place, ks, now),
                Some(Progress::Ended(_)) => self.forget_command(&place, ks),
                Some(Progress::Executing) | None => {}
            }
        }
    }

    fn decide_command(&mut self, place: &CommandPlace, ks: &mut Keyspace, now: Now) {
        let Some(running) = self.commands.running.get(place) else { return };
        let command = running.command.clone();
        match self.judge_command(place, &command, now) {
            Verdict::Wait => ks.put(key(ACCOUNTS, place), twin::cbor(&account(Progress::Received, now))),
            Verdict::End(outcome, why) => {
                self.stats.expired_commands += u64::from(outcome == Outcome::Expired);
                self.end_command(place, outcome, &why, ks, now);
            }
            Verdict::Go if command.name == RESET_RULE => self.reset_by(place, &command, ks, now),
            Verdict::Go => self.execute(place, &command, ks, now),
        }
    }

    /// The rules, in order: too old, or of an age that cannot be told, is expired; what cannot be done is rejected; a
    /// device that is away fails it; what does not hold, or cannot be told to hold, rejects it; a stronger slot
    /// supersedes it.
    fn judge_command(&self, place: &CommandPlace, command: &Command, now: Now) -> Verdict {
        let end = |outcome, why: &str| Verdict::End(outcome, why.to_owned());
        let Some(running) = self.commands.running.get(place) else { return Verdict::Wait };
        let age = match running.origin {
            Origin::Here => Some(Duration::ZERO),
            Origin::Cloud => self.clock.age_of(command.issued, now),
        };
        match age {
            None if running.due.is_some() => return Verdict::Wait,
            None => return end(Outcome::Expired, "its age cannot be told without the cloud's clock"),
            Some(age) if age >= command.ttl() || running.deadline <= now.mono => {
                let age = Duration::from_secs(age.as_secs());
                return Verdict::End(Outcome::Expired, format!("{} old", humantime::format_duration(age)));
            }
            Some(_) => {}
        }
        if command.name == RESET_RULE {
            return Verdict::Go;
        }
        if let Err(why) = self.catalog.check_command(&place.device, command) {
            return Verdict::End(Outcome::Rejected, explain(&why));
        }
        if !self.is_online(&place.device) {
            return end(Outcome::Failed, "the device is offline; send it again");
        }
        if let Some(why) = self.unmet(&place.device, command, now) {
            return Verdict::End(Outcome::Rejected, why);
        }
        let mut ids = command.args.keys().map(|name| PropertyId::new(&place.device, name));
        let masked = ids.find_map(|id| {
            let (slot, owner) = self.twins.get(&id)?.masked_by(Slot::COMMAND, now.mono)?;
            Some(format!("{}: {slot} ({owner}) holds it", id.property))
        });
        masked.map_or(Verdict::Go, |why| Verdict::End(Outcome::Superseded, why))
    }

    fn unmet(&self, device: &DeviceId, command: &Command, now: Now) -> Option<String> {
        unmet(&command.when, |condition| {
            let twin = self.twins.get(&condition.source(device));
            let sample = twin.and_then(|twin| twin.latest());
            let reading = sample.map(|sample| (sample, twin.and_then(|twin| twin.age(now.mono))));
            (condition.holds(reading), sample.map(|sample| sample.value.clone()))
        })
    }

    /// All its properties' slots are filled before any is written, so that one write's end finds them all.
    fn execute(&mut self, place: &CommandPlace, command: &Command, ks: &mut Keyspace, now: Now) {
        let ids: Vec<PropertyId> =
            command.args.keys().map(|name| PropertyId::new(&place.device, name)).collect();
        if let Some(running) = self.commands.running.get_mut(place) {
            running.progress = Progress::Executing;
            running.parts = ids.iter().map(|id| (Arc::clone(&id.property), None)).collect();
            let age = self.clock.age_of(command.issued, now).filter(|_| running.origin == Origin::Cloud);
            running.deadline = now.mono + command.ttl().saturating_sub(age.unwrap_or_default());
        }
        self.commands.set_timer(place, None);
        let account = account(Progress::Executing, now);
        ks.put(key(ACCOUNTS, place), twin::cbor(&account));
        self.outputs.command(&place.to_string(), &account);
        for id in &ids {
            self.supersede_command(id, ks, now);
            let value = command.args.get(&*id.property).cloned();
            self.command_property(id, command, value, now);
        }
        for id in &ids {
            self.arbitrate(id, Decision::Fresh, ks, now);
            self.reschedule(id);
        }
    }

    /// An earlier command whose write has not gone out yet: the next one takes its place.
    fn supersede_command(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let Some(twin) = self.twins.get(id) else { return };
        let Some(before) = twin.command.as_deref().cloned() else { return };
        let is_its = |who: &Who| matches!(who, Who::Command(of) if *of == before);
        if !twin.write.as_ref().is_some_and(|write| write.who.as_ref().is_some_and(is_its)) {
            self.part_ended(id, &before, Outcome::Superseded, "a newer command took its place", ks, now);
        }
    }

    fn command_property(&mut self, id: &PropertyId, command: &Command, value: Option<Value>, now: Now) {
        let Ok(property) = self.catalog.property(&id.device, &id.property) else { return };
        let meant = property.policy.desired_max_age.filter(|_| property.policy.actuator);
        let hold = command.hold_ms.map(Duration::from_millis).or(meant);
        let Some(Ok(value)) = value.map(|value| property.check_desired(value)) else { return };
        let Some(twin) = self.twins.get_mut(id) else { return };
        let owner = Owner { who: Who::Command(command.id.clone()), cause: command.by.clone() };
        twin.slots.set(Slot::COMMAND, Entry { value, owner, expires: hold.map(|hold| now.mono + hold) });
        twin.command = Some(Box::new(command.id.clone()));
    }

    fn reset_by(&mut self, place: &CommandPlace, command: &Command, ks: &mut Keyspace, now: Now) {
        let done = match command.args.get("rule") {
            Some(Value::Text(rule)) => self.reset_rule_of(&place.device, (rule, &command.by), ks, now),
            _ => Err("give the rule: {\"rule\": \"name\"}".to_owned()),
        };
        match done {
            Ok(()) => self.end_command(place, Outcome::Succeeded, "", ks, now),
            Err(why) => self.end_command(place, Outcome::Rejected, &why, ks, now),
        }
    }

    /// The commands of one device of this edge, or of all, oldest first.
    pub fn commands(&self, device: Option<&DeviceId>, now: Now) -> Vec<CommandView> {
        let all = self.commands.running.iter();
        let wanted = all.filter(|(place, _)| device.is_none_or(|device| *device == place.device));
        let mut views: Vec<CommandView> = wanted.map(|(place, running)| running.view(place, now)).collect();
        views.sort_by_key(|view| view.command.issued);
        views
    }

    /// Until when a command may be written.
    pub(super) fn deadline_of(&self, device: &DeviceId, command: &CommandId) -> Option<Mono> {
        let place = CommandPlace { device: device.clone(), id: command.clone() };
        self.commands.running.get(&place).map(|running| running.deadline)
    }

    pub(super) fn deadline_of_who(&self, id: &PropertyId, who: Option<&Who>) -> Option<Mono> {
        match who {
            Some(Who::Command(command)) => self.deadline_of(&id.device, command),
            Some(Who::Desired(_) | Who::Operator | Who::Rule(_)) | None => None,
        }
    }

    /// The write of one property came to an end, or there will be none.
    pub(super) fn part_ended(
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
        let place = CommandPlace { device: id.device.clone(), id: command.clone() };
        let Some(running) = self.commands.running.get_mut(&place) else { return };
        let Some(part) = running.parts.get_mut(&id.property).filter(|part| part.is_none()) else { return };
        *part = Some(outcome);
        if outcome != Outcome::Succeeded {
            let more =
                if detail.is_empty() { format!("{outcome:?}").to_lowercase() } else { detail.to_owned() };
            let before =
                if running.detail.is_empty() { String::new() } else { format!("{}; ", running.detail) };
            running.detail = brief(&format!("{before}{}: {more}", id.property));
        }
        let ends: Option<Vec<Outcome>> = running.parts.values().copied().collect();
        if let Some(ends) = ends {
            let detail = running.detail.clone();
            self.end_command(&place, worst(ends), &detail, ks, now);
        }
    }

    fn end_command(
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
        self.tell_command(place, outcome, detail);
        let event = AuditEvent::ended(place.id.to_string(), (outcome, detail));
        self.audit(&place.device, None, event, now);
    }

    fn tell_command(&mut self, place: &CommandPlace, outcome: Outcome, detail: &str) {
        let body = ResultBody {
            command: Some(place.id.to_string()),
            detail: detail.to_owned(),
            ..ResultBody::of("", outcome)
        };
        self.outputs.result(&place.device, &body);
    }

    pub(super) fn drop_commands(&mut self, device: &DeviceId, ks: &mut Keyspace) {
        let places: Vec<CommandPlace> =
            self.commands.running.keys().filter(|place| place.device == *device).cloned().collect();
        places.iter().for_each(|place| self.forget_command(place, ks));
    }
}

fn places(ks: &Keyspace, prefix: &str) -> BTreeSet<CommandPlace> {
    let names = ks.range(prefix).filter_map(|(key, _)| key.as_str().strip_prefix(prefix));
    names.filter_map(CommandPlace::parse).collect()
}

fn read_command(prefix: &str, place: &CommandPlace, ks: &Keyspace) -> Option<Command> {
    serde_json::from_slice(ks.get(&format!("{prefix}{place}"))?).ok()
}

fn account(progress: Progress, now: Now) -> Account {
    Account { progress, detail: String::new(), at: now.wall }
}

//! Commands at their edge: which are taken, and how long each is remembered. See [`crate::command`] for the states.

mod execute;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bus::twin::{DeviceId, Outcome, ResultBody};
use bus::{Mono, Now, UnixMillis};
use metadata::Keyspace;

use super::property::Who;
use super::{CLOCK_GRACE, EdgeTwins};
use crate::command::{Account, Command, CommandId, CommandPlace, CommandView, Order, Progress, State};
use crate::history::audit::AuditEvent;
use crate::reply::ReplyTo;
use crate::twin::{self, PropertyId, explain, key, millis};

/// Commands that an edge remembers at a time: those on their way, and those that ended and may come again. Some 17 a
/// second for a minute. When full a further one is rejected: it would run without being remembered.
pub(super) const MAX_COMMANDS: usize = 1024;

/// Commands of the cloud, those given here, and how far each is.
const CLOUDS: &str = "/m/command/";
const LOCAL: &str = "/t/order/";
const ACCOUNTS: &str = "/t/command/";

/// Who gave a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Its row stays until the cloud knows the end.
    Cloud,
    /// Somebody here, or the cloud has no row of it any more. Remembered until its time is over.
    Here,
}

/// One property of a command.
#[derive(Debug, Default)]
struct Part {
    /// The device was asked for it.
    has_begun: bool,
    /// What became of it; `None`: not known yet.
    end: Option<Outcome>,
}

#[derive(Debug)]
struct Running {
    command: Command,
    origin: Origin,
    progress: Progress,
    detail: String,
    /// When it is decided on at the latest, or is out of time, or is forgotten once it has ended.
    due: Option<Mono>,
    /// Nothing is written for it from then on.
    deadline: Mono,
    parts: BTreeMap<Arc<str>, Part>,
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

impl EdgeTwins {
    /// What outlived the last process: a command that was under way may have been carried out, so it is not again.
    pub(super) fn load_commands(&mut self, ks: &mut Keyspace, now: Now) {
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
        let rows = places(ks, CLOUDS);
        for place in &rows {
            self.command_changed(place, ks, now);
        }
        for place in places(ks, ACCOUNTS) {
            if !self.commands.running.contains_key(&place) && !rows.contains(&place) {
                ks.delete(&key(ACCOUNTS, &place));
            }
        }
    }

    /// The cloud gave a command, or knows its end and takes it away.
    pub(super) fn command_changed(&mut self, place: &CommandPlace, ks: &mut Keyspace, now: Now) {
        let Some(command) = read_command(CLOUDS, place, ks) else { return self.row_gone(place, ks, now) };
        if !self.devices.contains_key(&place.device) {
            return;
        }
        if self.commands.running.contains_key(place) {
            return self.row_again(place, &command, ks, now);
        }
        if self.commands.running.len() >= MAX_COMMANDS {
            return self.turn_away(place, ks, now);
        }
        let deadline = now.mono + command.ttl();
        self.admit(place, command, Origin::Cloud, deadline);
        self.commands.set_timer(place, Some(deadline.min(now.mono + CLOCK_GRACE)));
        self.resume(place, ks, now);
    }

    /// A command that is known comes again: from a cloud that was restored and has forgotten its end, or after one that
    /// was given here under the same id.
    fn row_again(&mut self, place: &CommandPlace, command: &Command, ks: &mut Keyspace, now: Now) {
        let Some(running) = self.commands.running.get_mut(place) else { return };
        if !running.command.is_same_order(command) {
            let why = another(&place.id);
            self.outputs.command(&place.to_string(), &refusal(&why, now.wall));
            return self.tell_command(place, Outcome::Rejected, &why);
        }
        if running.origin == Origin::Here {
            running.origin = Origin::Cloud;
            let has_ended = matches!(running.progress, Progress::Ended(_));
            ks.delete(&key(LOCAL, place));
            if has_ended {
                self.commands.set_timer(place, None);
            }
        }
        self.tell_account(place, ks);
    }

    /// The cloud knows its end, or has forgotten it. It is remembered here as long as it might come again.
    fn row_gone(&mut self, place: &CommandPlace, ks: &mut Keyspace, now: Now) {
        let Some(running) = self.commands.running.get_mut(place) else {
            return ks.delete(&key(ACCOUNTS, place));
        };
        let has_ended = matches!(running.progress, Progress::Ended(_));
        let is_over = has_ended && running.deadline <= now.mono;
        if running.origin == Origin::Here {
            return;
        }
        if is_over || running.progress == Progress::Received {
            return self.forget_command(place, ks);
        }
        running.origin = Origin::Here;
        // Its age by this node's own clock, which is the one that is looked at after a restart.
        let age = running.command.ttl().saturating_sub(running.deadline.since(now.mono));
        running.command.issued = UnixMillis(now.wall.0.saturating_sub(millis(age)));
        let deadline = running.deadline;
        ks.put(key(LOCAL, place), twin::json(&running.command));
        if has_ended {
            self.commands.set_timer(place, Some(deadline));
        }
    }

    /// There is no room to remember a command of the cloud: it ends, and that is on the disk as long as its row is.
    fn turn_away(&mut self, place: &CommandPlace, ks: &mut Keyspace, now: Now) {
        let stored = read_account(place, ks);
        let ended =
            |outcome, detail: String| (outcome, Account { detail, ..account(Progress::Ended(outcome), now) });
        let (outcome, account) = match stored.map(|account| (account.progress, account)) {
            Some((Progress::Ended(outcome), account)) => (outcome, account),
            Some((Progress::Executing, _)) => ended(Outcome::Unknown, RESTARTED.to_owned()),
            Some((Progress::Received, _)) | None => ended(Outcome::Rejected, full()),
        };
        ks.put(key(ACCOUNTS, place), twin::cbor(&account));
        self.outputs.command(&place.to_string(), &account);
        self.tell_command(place, outcome, &account.detail);
    }

    /// Goes on where the last process was.
    fn resume(&mut self, place: &CommandPlace, ks: &mut Keyspace, now: Now) {
        let account = read_account(place, ks);
        if let (None, Some(running)) = (&account, self.commands.running.get(place)) {
            let event = AuditEvent::command(&running.command);
            self.audit(&place.device, None, event, now);
        }
        match account.map(|account| (account.progress, account.detail)) {
            Some((Progress::Executing, _)) => self.end_command(place, Outcome::Unknown, RESTARTED, ks, now),
            Some((Progress::Ended(outcome), detail)) => self.recall_end(place, outcome, detail, ks, now),
            Some((Progress::Received, _)) | None => self.decide_command(place, ks, now),
        }
    }

    /// It ended in the last process. To the cloud it is told again: it does not know it yet, or would have taken the row
    /// away. Of one that was given here everybody has heard.
    fn recall_end(
        &mut self,
        place: &CommandPlace,
        outcome: Outcome,
        detail: String,
        ks: &mut Keyspace,
        now: Now,
    ) {
        let Some(running) = self.commands.running.get_mut(place) else { return };
        if running.origin == Origin::Cloud {
            return self.end_command(place, outcome, &detail, ks, now);
        }
        (running.progress, running.detail) = (Progress::Ended(outcome), detail);
        let forget = running.deadline.max(now.mono);
        self.commands.set_timer(place, Some(forget));
    }

    fn forget_command(&mut self, place: &CommandPlace, ks: &mut Keyspace) {
        self.commands.remove(place);
        ks.delete(&key(ACCOUNTS, place));
        ks.delete(&key(LOCAL, place));
    }

    /// A command that was given here is forgotten while the cloud still has another under its id, which was refused for
    /// that: it stays refused as long as its row is here, also over a restart.
    fn keep_refusal(&mut self, place: &CommandPlace, ks: &mut Keyspace, now: Now) {
        if read_command(CLOUDS, place, ks).is_some() {
            ks.put(key(ACCOUNTS, place), twin::cbor(&refusal(&another(&place.id), now.wall)));
        }
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
        let place = CommandPlace::new(device, &command.id);
        if let Some(known) = self.commands.running.get(&place) {
            if !known.command.is_same_order(&command) {
                return Err(another(&place.id));
            }
            self.answer_again(&place, command.reply, ks);
            return Ok(place.id);
        }
        if self.commands.running.len() >= MAX_COMMANDS {
            return Err(full());
        }
        ks.put(key(LOCAL, &place), twin::json(&command));
        self.audit(device, None, AuditEvent::command(&command), now);
        let left = command.ttl().saturating_sub(now.wall.since(command.issued));
        self.admit(&place, command, Origin::Here, now.mono + left);
        self.decide_command(&place, ks, now);
        Ok(place.id)
    }

    /// The same order again: it is not carried out again. Its end is told to who asked last; if it has ended, again.
    fn answer_again(&mut self, place: &CommandPlace, reply: Option<ReplyTo>, ks: &mut Keyspace) {
        let Some(running) = self.commands.running.get_mut(place) else { return };
        if reply.is_some() {
            running.command.reply = reply;
            if running.origin == Origin::Here {
                ks.put(key(LOCAL, place), twin::json(&running.command));
            }
        }
        if let Progress::Ended(outcome) = running.progress {
            let detail = running.detail.clone();
            self.tell_command_end(place, outcome, &detail);
        }
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
                Some(Progress::Executing) => self.command_out_of_time(&place, ks, now),
                Some(Progress::Ended(_)) => {
                    self.forget_command(&place, ks);
                    self.keep_refusal(&place, ks, now);
                }
                None => {}
            }
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
        let place = CommandPlace::new(device, command);
        self.commands.running.get(&place).map(|running| running.deadline)
    }

    pub(super) fn deadline_of_who(&self, id: &PropertyId, who: Option<&Who>) -> Option<Mono> {
        match who {
            Some(Who::Command(command)) => self.deadline_of(&id.device, command),
            Some(Who::Desired(_) | Who::Operator | Who::Rule(_)) | None => None,
        }
    }

    /// To a cloud that may have forgotten: how far its commands are.
    pub(super) fn tell_commands(&mut self, ks: &Keyspace) {
        for place in places(ks, CLOUDS) {
            match self.commands.running.get(&place) {
                // Another one, or it would be the cloud's by now.
                Some(Running { origin: Origin::Here, command, .. }) => {
                    let account = refusal(&another(&place.id), command.issued);
                    self.outputs.command(&place.to_string(), &account);
                }
                Some(_) | None => self.tell_account(&place, ks),
            }
        }
    }

    fn tell_account(&mut self, place: &CommandPlace, ks: &Keyspace) {
        if let Some(account) = read_account(place, ks) {
            self.outputs.command(&place.to_string(), &account);
        }
    }

    fn tell_command(&mut self, place: &CommandPlace, outcome: Outcome, detail: &str) {
        self.outputs.result(&place.device, &end_body(place, outcome, detail));
    }

    /// To whoever watches the device, and to who asked.
    fn tell_command_end(&mut self, place: &CommandPlace, outcome: Outcome, detail: &str) {
        self.tell_command(place, outcome, detail);
        let reply = self.commands.running.get(place).and_then(|running| running.command.reply.as_ref());
        self.outputs.reply(reply, &end_body(place, outcome, detail));
    }

    pub(super) fn drop_commands(&mut self, device: &DeviceId, ks: &mut Keyspace) {
        let places: Vec<CommandPlace> =
            self.commands.running.keys().filter(|place| place.device == *device).cloned().collect();
        places.iter().for_each(|place| self.forget_command(place, ks));
    }
}

const RESTARTED: &str = "the node restarted in the middle of it";

fn end_body(place: &CommandPlace, outcome: Outcome, detail: &str) -> ResultBody {
    let command = Some(place.id.to_string());
    ResultBody { command, detail: detail.to_owned(), ..ResultBody::of("", outcome) }
}

fn another(id: &CommandId) -> String {
    format!("id {id} was another command")
}

fn full() -> String {
    format!("{MAX_COMMANDS} commands are remembered already; send it again later")
}

fn read_account(place: &CommandPlace, ks: &Keyspace) -> Option<Account> {
    twin::decode(ks.get(&format!("{ACCOUNTS}{place}"))?)
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

fn refusal(why: &str, at: UnixMillis) -> Account {
    Account { progress: Progress::Ended(Outcome::Rejected), detail: why.to_owned(), at }
}

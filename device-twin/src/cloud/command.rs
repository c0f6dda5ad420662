//! Commands as the cloud knows them: see [`crate::command`].

use std::collections::{BTreeMap, BTreeSet};

use bus::twin::{DeviceId, Outcome, ResultBody, TwinTopic};
use bus::{Mono, Name, Now};
use metadata::{Key, Keyspace, epoch};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{APP, CloudTwins};
use crate::command::{
    Account, Command, CommandId, CommandPlace, CommandView, InvalidOrder, MAX_ENDED, MAX_OPEN,
    MAX_REMEMBERED, Order, Progress, RESET_RULE, State,
};
use crate::gate::access::Who;
use crate::history::audit::AuditEvent;
use crate::model::{InvalidCommand, Lookup};
use crate::reply::ReplyTo;
use crate::twin::{self, Publish, Said, brief, explain, key};

/// Why a command is not taken.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum OrderError {
    #[error(transparent)]
    Lookup(#[from] Lookup),
    #[error("device {0} is bound to no edge: its manifest needs spec.nodeName")]
    Unbound(DeviceId),
    #[error(transparent)]
    Order(#[from] InvalidOrder),
    #[error("{0}")]
    Unfit(String),
    #[error("id {0} was another command; ids are given once")]
    Known(CommandId),
    #[error("{MAX_OPEN} commands are on their way to {0} already")]
    Busy(DeviceId),
    #[error("{MAX_REMEMBERED} commands of {0} are remembered already; send it again later")]
    Full(DeviceId),
}

/// What is stored of a command (JSON).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    edge: Name,
    command: Command,
    #[serde(default)]
    executing: bool,
    #[serde(default)]
    outcome: Option<Outcome>,
    #[serde(default)]
    detail: String,
}

impl Kept {
    /// Whether it ended, and its id will not come again: its time is over, or it was given by a clock that was set
    /// back since.
    fn may_go(&self, now: Now) -> bool {
        let Self { command, outcome, .. } = self;
        let is_over = now.wall.since(command.issued) >= command.ttl() || command.issued > now.wall;
        outcome.is_some() && is_over
    }
}

/// All commands that the cloud remembers.
#[derive(Debug, Default)]
pub(super) struct Commands {
    kept: BTreeMap<CommandPlace, Kept>,
    /// Those whose edge was away ever since they were given, by when their time is over: they are surely not
    /// handed out. Of this process's life.
    unsent: BTreeSet<(Mono, CommandPlace)>,
    given: u64,
}

const KEPT: &str = "/c/command/";

fn kept_key(place: &CommandPlace) -> Key {
    key(KEPT, place)
}

fn row_key(edge: &Name, place: &CommandPlace) -> Key {
    key(&format!("/e/{edge}/command/"), place)
}

impl From<InvalidCommand> for OrderError {
    fn from(why: InvalidCommand) -> Self {
        match why {
            InvalidCommand::Lookup(lookup) => Self::Lookup(lookup),
            InvalidCommand::Unfit(why) => Self::Unfit(why),
        }
    }
}

impl CloudTwins {
    pub(super) fn load_commands(&mut self, ks: &Keyspace) {
        for (key, json) in ks.range(KEPT) {
            let place = key.as_str().strip_prefix(KEPT).and_then(CommandPlace::parse);
            self.commands.kept.extend(place.zip(serde_json::from_slice(json).ok()));
        }
    }

    /// Takes a command for a device: stored, and on its way to the device's edge. The same order under the same id
    /// again changes nothing; if it has ended its end is told again.
    ///
    /// # Errors
    /// Nothing is stored if it has no expiry, cannot be carried out by what is known here, or its id was another one.
    pub fn order(
        &mut self,
        device: &DeviceId,
        name: &str,
        order: Order,
        by: &str,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<CommandView, OrderError> {
        let info = self.catalog.device(device).ok_or_else(|| Lookup::Device(device.clone()))?;
        let edge = info.node.clone().ok_or_else(|| OrderError::Unbound(device.clone()))?;
        let fallback = self.next_id(ks)?;
        let command = Command::new(name, order, fallback, by, now.wall)?;
        let place = CommandPlace::new(device, &command.id);
        if let Some(known) = self.commands.kept.get(&place) {
            if !known.command.is_same_order(&command) {
                return Err(OrderError::Known(place.id));
            }
            let mut known = known.clone();
            if command.reply.is_some() {
                known.command.reply = command.reply;
                self.keep(place.clone(), known.clone(), ks);
            }
            let view = view(&place, &known, now);
            if let Some(outcome) = view.outcome {
                self.tell_end(&place, (outcome, &view.detail), known.command.reply.as_ref());
            }
            return Ok(view);
        }
        if command.name != RESET_RULE {
            self.catalog.check_command(device, &command)?;
        }
        self.check_room(device, now)?;
        let kept =
            Kept { edge: edge.clone(), command, executing: false, outcome: None, detail: String::new() };
        // Who asked is answered here.
        ks.put(row_key(&edge, &place), twin::json(&Command { reply: None, ..kept.command.clone() }));
        if !self.present.contains(&edge) {
            self.commands.unsent.insert((now.mono + kept.command.ttl(), place.clone()));
        }
        let view = view(&place, &kept, now);
        self.audit(device, None, AuditEvent::command(&kept.command), now);
        self.keep(place, kept, ks);
        Ok(view)
    }

    fn check_room(&self, device: &DeviceId, now: Now) -> Result<(), OrderError> {
        if self.of_device(device).filter(|(_, kept)| kept.outcome.is_none()).count() >= MAX_OPEN {
            return Err(OrderError::Busy(device.clone()));
        }
        if self.of_device(device).filter(|(_, kept)| !kept.may_go(now)).count() >= MAX_REMEMBERED {
            return Err(OrderError::Full(device.clone()));
        }
        Ok(())
    }

    fn next_id(&mut self, ks: &Keyspace) -> Result<CommandId, OrderError> {
        self.commands.given += 1;
        let (epoch, revision) = (epoch::get(ks), ks.revision().0);
        let id = format!("c{epoch}-{revision}-{}", self.commands.given);
        CommandId::new(&id).map_err(|why| OrderError::Unfit(why.to_string()))
    }

    pub(super) fn order_from_app(
        &mut self,
        device: &DeviceId,
        name: &str,
        who: &Who,
        Said { payload, expiry, reply }: Said<'_>,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), String> {
        let checked = reply.as_ref().map_or(Ok(()), ReplyTo::check).map_err(|why| explain(&why));
        // Nobody is answered where nobody may speak.
        let reply = reply.filter(|_| checked.is_ok());
        let order: Result<Order, String> =
            serde_json::from_slice(payload).map_err(|why| brief(&format!("malformed: {why}")));
        let by = who.told(APP);
        let taken = checked.and(order).and_then(|order| {
            let order = order.expiring(expiry).replying(reply.clone());
            self.order(device, name, order, &by, ks, now).map_err(|why| explain(&why))
        });
        taken.map(drop).inspect_err(|why| {
            let body = ResultBody { detail: why.clone(), ..ResultBody::of("", Outcome::Rejected) };
            self.publish(Publish::once(&TwinTopic::Result { device: device.clone() }, &body));
            self.reply(reply.as_ref(), &body);
        })
    }

    fn of_device<'a>(&'a self, device: &'a DeviceId) -> impl Iterator<Item = (&'a CommandPlace, &'a Kept)> {
        self.commands.kept.iter().filter(move |(place, _)| place.device == *device)
    }

    /// The commands of one device or of all, oldest first.
    pub fn commands(&self, device: Option<&DeviceId>, now: Now) -> Vec<CommandView> {
        let wanted = |place: &CommandPlace| device.is_none_or(|device| *device == place.device);
        let all = self.commands.kept.iter().filter(|(place, _)| wanted(place));
        let mut views: Vec<CommandView> = all.map(|(place, kept)| view(place, kept, now)).collect();
        views.sort_by_key(|view| view.command.issued);
        views
    }

    fn keep(&mut self, place: CommandPlace, kept: Kept, ks: &mut Keyspace) {
        ks.put(kept_key(&place), twin::json(&kept));
        self.commands.kept.insert(place, kept);
    }

    /// `None` if it is malformed.
    pub(super) fn command_up(
        &mut self,
        edge: &Name,
        rest: &str,
        payload: &[u8],
        ks: &mut Keyspace,
        now: Now,
    ) -> Option<()> {
        let place = CommandPlace::parse(rest)?;
        let account: Account = twin::decode(payload)?;
        if !self.speaks_for(edge, &place.device) {
            return Some(());
        }
        match account.progress {
            Progress::Received => {}
            Progress::Executing => {
                let known = self.commands.kept.get(&place).filter(|kept| !kept.executing);
                if let Some(kept) = known.cloned() {
                    self.keep(place, Kept { executing: true, ..kept }, ks);
                }
            }
            Progress::Ended(outcome) => self.end_command(&place, (outcome, &account.detail), ks, now),
        }
        Some(())
    }

    /// The edge's word counts, also when it comes late, and once; of a command that was given at the edge itself
    /// nothing is kept here.
    fn end_command(&mut self, place: &CommandPlace, end: (Outcome, &str), ks: &mut Keyspace, now: Now) {
        let kept = self.commands.kept.get(place).cloned();
        if let Some(kept) = &kept {
            ks.delete(&row_key(&kept.edge, place));
            if kept.outcome.is_some() {
                return;
            }
        }
        self.audit(&place.device, None, AuditEvent::ended(place.id.to_string(), end), now);
        let reply = kept.as_ref().and_then(|kept| kept.command.reply.as_ref());
        self.tell_end(place, end, reply);
        let (outcome, detail) = end;
        if let Some(kept) = kept {
            let ended = Kept { outcome: Some(outcome), detail: brief(detail), ..kept };
            self.keep(place.clone(), ended, ks);
            self.forget_oldest(&place.device, ks, now);
        }
    }

    fn tell_end(
        &mut self,
        place: &CommandPlace,
        (outcome, detail): (Outcome, &str),
        reply: Option<&ReplyTo>,
    ) {
        let command = Some(place.id.to_string());
        let body = ResultBody { command, detail: detail.to_owned(), ..ResultBody::of("", outcome) };
        self.publish(Publish::once(&TwinTopic::Result { device: place.device.clone() }, &body));
        self.reply(reply, &body);
    }

    /// Of the commands that ended; one that may come again is kept.
    fn forget_oldest(&mut self, device: &DeviceId, ks: &mut Keyspace, now: Now) {
        let ended = self.of_device(device).filter(|(_, kept)| kept.outcome.is_some());
        let surplus = ended.count().saturating_sub(MAX_ENDED);
        let may_go = self.of_device(device).filter(|(_, kept)| kept.may_go(now));
        let mut oldest: Vec<_> = may_go.map(|(place, kept)| (kept.command.issued, place.clone())).collect();
        oldest.sort();
        for (_, place) in oldest.into_iter().take(surplus) {
            ks.delete(&kept_key(&place));
            self.commands.kept.remove(&place);
        }
    }

    /// An edge comes that was away: what is too old by now is not handed out.
    pub(super) fn hand_out_commands(&mut self, edge: &Name, ks: &mut Keyspace, now: Now) {
        self.commands_due(ks, now);
        let kept = &self.commands.kept;
        self.commands.unsent.retain(|(_, place)| kept.get(place).is_some_and(|kept| kept.edge != *edge));
    }

    /// The time of commands that were never handed out is over.
    pub(super) fn commands_due(&mut self, ks: &mut Keyspace, now: Now) {
        while let Some((_, place)) = self.commands.unsent.first().filter(|(at, _)| *at <= now.mono).cloned() {
            self.commands.unsent.pop_first();
            let end = (Outcome::Expired, "its edge was away until its time was over");
            self.end_command(&place, end, ks, now);
        }
    }

    pub fn handle_timeout(&mut self, ks: &mut Keyspace, now: Now) {
        self.commands_due(ks, now);
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        self.commands.unsent.first().map(|(at, _)| (*at, "command"))
    }

    /// Commands do not move with a device: what the old edge did of those that it was handed is not known.
    pub(super) fn follow_commands(&mut self, device: &DeviceId, ks: &mut Keyspace, now: Now) {
        let node = self.catalog.device(device).and_then(|info| info.node.clone());
        let left: Vec<CommandPlace> = self
            .of_device(device)
            .filter(|(_, kept)| kept.outcome.is_none() && Some(&kept.edge) != node.as_ref())
            .map(|(place, _)| place.clone())
            .collect();
        for place in left {
            let before = self.commands.unsent.len();
            self.commands.unsent.retain(|(_, unsent)| *unsent != place);
            let end = if self.commands.unsent.len() == before {
                (Outcome::Unknown, "the device moved to another edge")
            } else {
                (Outcome::Superseded, "the device moved to another edge before it was handed out")
            };
            self.end_command(&place, end, ks, now);
        }
    }

    pub(super) fn forget_commands(&mut self, device: &DeviceId, ks: &mut Keyspace) {
        let all: Vec<(CommandPlace, Name)> =
            self.of_device(device).map(|(place, kept)| (place.clone(), kept.edge.clone())).collect();
        for (place, edge) in all {
            ks.delete(&kept_key(&place));
            ks.delete(&row_key(&edge, &place));
            self.commands.unsent.retain(|(_, unsent)| *unsent != place);
            self.commands.kept.remove(&place);
        }
    }
}

fn view(place: &CommandPlace, kept: &Kept, now: Now) -> CommandView {
    let Kept { edge: _, command, executing, outcome, detail } = kept.clone();
    let is_over = now.wall.since(command.issued) >= command.ttl();
    let state = match (outcome, is_over, executing) {
        (Some(_), ..) => State::Ended,
        (None, true, _) => State::Unconfirmed,
        (None, false, true) => State::Executing,
        (None, false, false) => State::Accepted,
    };
    CommandView { device: place.device.to_string(), command, state, outcome, detail }
}

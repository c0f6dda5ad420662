//! Whether a command is carried out.

use std::time::Duration;

use bus::twin::{DeviceId, Outcome};
use bus::{Mono, Now};
use metadata::Keyspace;

use super::super::EdgeTwins;
use super::{ACCOUNTS, Origin, account, read_account};
use crate::arbiter::Slot;
use crate::command::{Command, CommandPlace, Progress, RESET_RULE};
use crate::condition::unmet;
use crate::twin::{self, PropertyId, explain, key};

/// What is to become of a command.
enum Verdict {
    Wait,
    End(Outcome, String),
    /// Nothing is written for it from then on.
    Go(Mono),
}

impl EdgeTwins {
    pub(super) fn decide_command(&mut self, place: &CommandPlace, ks: &mut Keyspace, now: Now) {
        let Some(running) = self.commands.running.get(place) else { return };
        let command = running.command.clone();
        match self.judge_command(place, &command, now) {
            Verdict::Wait if read_account(place, ks).is_some() => {}
            Verdict::Wait => ks.put(key(ACCOUNTS, place), twin::cbor(&account(Progress::Received, now))),
            Verdict::End(outcome, why) => {
                self.stats.expired_commands += u64::from(outcome == Outcome::Expired);
                self.end_command(place, outcome, &why, ks, now);
            }
            Verdict::Go(_) if command.name == RESET_RULE => self.reset_by(place, &command, ks, now),
            Verdict::Go(deadline) => self.execute(place, &command, deadline, ks, now),
        }
    }

    /// The rules, in order: too old, or of an age that cannot be told, is expired; what another disk of this edge may
    /// have carried out is unknown; what cannot be done is rejected; a device that is away fails it; what does not hold,
    /// or cannot be told to hold, rejects it; a stronger slot supersedes it; what cannot be moved there in its time
    /// expires.
    fn judge_command(&self, place: &CommandPlace, command: &Command, now: Now) -> Verdict {
        let end = |outcome, why: &str| Verdict::End(outcome, why.to_owned());
        let Some(running) = self.commands.running.get(place) else { return Verdict::Wait };
        let left = running.deadline.since(now.mono);
        let age = match running.origin {
            Origin::Here => Some(command.ttl().saturating_sub(left)),
            Origin::Cloud => self.clock.age_of(command.issued, now),
        };
        let Some(age) = age else {
            let can_wait = running.due.is_some() && !left.is_zero();
            let why = "its age cannot be told without the cloud's clock";
            return if can_wait { Verdict::Wait } else { end(Outcome::Expired, why) };
        };
        let left = left.min(command.ttl().saturating_sub(age));
        if left.is_zero() {
            let age = Duration::from_secs(age.as_secs());
            return Verdict::End(Outcome::Expired, format!("{} old", humantime::format_duration(age)));
        }
        let was_here = self.life_since.is_none_or(|since| age < now.wall.since(since));
        if running.origin == Origin::Cloud && !was_here {
            let why = "it was given before the present life of the edge's disk, and may have been carried out; \
                       send it again";
            return end(Outcome::Unknown, why);
        }
        if command.name == RESET_RULE {
            return Verdict::Go(now.mono + left);
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
        let obstacle = command.args.keys().find_map(|name| {
            let id = PropertyId::new(&place.device, name);
            self.masked(&id, now).or_else(|| self.too_slow(&id, command, left, now))
        });
        obstacle.map_or(Verdict::Go(now.mono + left), |(outcome, why)| Verdict::End(outcome, why))
    }

    fn unmet(&self, device: &DeviceId, command: &Command, now: Now) -> Option<String> {
        unmet(&command.when, |condition| {
            let twin = self.twins.get(&condition.source(device));
            let sample = twin.and_then(|twin| twin.latest());
            let reading = sample.map(|sample| (sample, twin.and_then(|twin| twin.age(now.mono))));
            (condition.holds(reading), sample.map(|sample| sample.value.clone()))
        })
    }

    fn masked(&self, id: &PropertyId, now: Now) -> Option<(Outcome, String)> {
        let (slot, owner) = self.twins.get(id)?.masked_by(Slot::COMMAND, now.mono)?;
        Some((Outcome::Superseded, format!("{}: {slot} ({owner}) holds it", id.property)))
    }

    fn too_slow(
        &self,
        id: &PropertyId,
        command: &Command,
        left: Duration,
        now: Now,
    ) -> Option<(Outcome, String)> {
        let (property, twin, value) =
            (self.property(id)?, self.twins.get(id)?, command.args.get(&*id.property)?);
        let is_too_slow = twin.takes(property, value, Slot::COMMAND, now.mono) >= left;
        let why = || format!("{}: it cannot be moved there within the command's time", id.property);
        is_too_slow.then(|| (Outcome::Expired, why()))
    }
}

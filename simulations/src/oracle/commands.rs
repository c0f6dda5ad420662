//! A command is carried out once and in its time, or not at all; how it ended is known in the end and does not change.

use std::collections::{BTreeMap, BTreeSet};

use bus::Mono;
use bus::twin::{Incarnation, WriteRequest};
use device_twin::command::{Account, Command, MAX_ENDED, Progress};
use metadata::{Commit, Revision, Write};

use super::writes::{ESTIMATE, ROUNDING};
use super::{Oracle, decode, life_of};
use crate::disk::Image;
use crate::machine::{Machine, Seat};
use crate::manifests;

const ONCE: &str = "a command is carried out once";
const IN_TIME: &str = "no command after its time";
const ONE_END: &str = "an ended command keeps its outcome";

/// `<namespace>/<device>/<id>`.
type Place = String;
/// A command in one life of a disk.
type Life = (Seat, Incarnation, Place);

/// What is known of commands.
#[derive(Debug, Default)]
pub(super) struct Commands {
    /// When and where each was really given.
    given: BTreeMap<Place, (Mono, Machine, Command)>,
    /// Decided on to be carried out, and the commit that says so.
    begun: BTreeMap<Life, Revision>,
    /// Devices that moved, by property.
    moved: BTreeSet<(Life, String)>,
    /// Taken by the cloud, as their authors know.
    accepted: BTreeSet<Place>,
}

impl Commands {
    fn note_given(&mut self, machine: Machine, place: &str, command: Command, now: Mono) {
        // An id whose time is over is free again.
        if self.given.get(place).is_some_and(|(at, _, old)| now.since(*at) >= old.ttl()) {
            self.begun.retain(|(.., of), _| of != place);
            self.moved.retain(|((.., of), _)| of != place);
        }
        self.given.insert(place.to_owned(), (now, machine, command));
    }

    /// What was not durable never was.
    pub(super) fn on_edge_disk(&mut self, seat: Seat, durable: Revision) {
        self.begun.retain(|(whose, ..), revision| *whose != seat || *revision <= durable);
    }

    pub(super) fn on_cloud_put_back(&mut self, durable: &Image) {
        self.accepted.retain(|place| durable.get(&format!("/c/command/{place}")).is_some());
    }
}

/// The outcome in what the cloud keeps of a command.
fn outcome_in(kept: Option<&bytes::Bytes>) -> Option<String> {
    let kept: serde_json::Value = serde_json::from_slice(kept?).ok()?;
    kept.get("outcome")?.as_str().map(str::to_owned)
}

fn progress(bytes: Option<&bytes::Bytes>) -> Option<Progress> {
    decode::<Account>(bytes).map(|account| account.progress)
}

/// The command in a row that gives one.
fn order(machine: Machine, Write { key, value }: &Write) -> Option<(&str, Command)> {
    let key = key.as_str();
    let place = match machine {
        Machine::Cloud => key.strip_prefix("/e/")?.split_once("/command/")?.1,
        Machine::Edge(_) => key.strip_prefix("/t/order/")?,
    };
    Some((place, serde_json::from_slice(value.as_ref()?).ok()?))
}

impl Oracle {
    /// Before `commit` is counted as held.
    pub(super) fn check_commands(&mut self, machine: Machine, commit: &Commit, now: Mono) {
        self.note_given(machine, commit, now);
        let life = self.held.get(&machine).and_then(life_of);
        for write in commit.writes.iter().filter(|write| write.key.as_str().contains("/command/")) {
            let known = self.held.get(&machine).and_then(|held| held.get(write.key.as_str())).cloned();
            match (machine, write.key.as_str()) {
                (Machine::Edge(seat), key) if key.starts_with("/t/command/") => {
                    self.check_account(seat, life, (known.as_ref(), write), commit.revision, now);
                }
                (Machine::Cloud, key) if key.starts_with("/c/command/") => {
                    self.check_kept_command(known.as_ref(), write, now);
                }
                _ => {}
            }
        }
    }

    fn note_given(&mut self, machine: Machine, commit: &Commit, now: Mono) {
        let held = self.held.get(&machine);
        for write in &commit.writes {
            let Some((place, command)) = order(machine, write) else { continue };
            // An edge keeps a command of its own that the cloud gave and took away before its time was over.
            let keys = [write.key.as_str().to_owned(), format!("/t/command/{place}")];
            let is_known = held.is_some_and(|held| keys.iter().any(|key| held.get(key).is_some()));
            if !is_known {
                self.commands.note_given(machine, place, command, now);
            }
        }
    }

    fn check_account(
        &mut self,
        seat: Seat,
        life: Option<Incarnation>,
        (known, write): (Option<&bytes::Bytes>, &Write),
        revision: Revision,
        now: Mono,
    ) {
        let place = write.key.as_str().trim_start_matches("/t/command/");
        let (was, is) = (progress(known), progress(write.value.as_ref()));
        if let (Some(Progress::Ended(_)), Some(_)) = (was, is) {
            self.verdict.ask(now, ONE_END, was == is, || format!("{seat} {place}: {was:?} became {is:?}"));
        }
        let (Some(life), Some(Progress::Executing)) = (life, is) else { return };
        if was == is {
            return;
        }
        let again = self.commands.begun.insert((seat, life, place.to_owned()), revision).is_some();
        self.ask_once(seat, again, now, || format!("{seat} decides to carry out {place} again"));
    }

    fn ask_once(&mut self, seat: Seat, again: bool, now: Mono, what: impl FnOnce() -> String) {
        if again && (self.aged.contains_key(&seat) || self.put_back) {
            return self
                .verdict
                .excuse("(a command again, after an older disk of its edge or the cloud was put back)");
        }
        self.verdict.ask(now, ONCE, !again, what);
    }

    fn check_kept_command(&mut self, known: Option<&bytes::Bytes>, write: &Write, now: Mono) {
        let (was, is) = (outcome_in(known), outcome_in(write.value.as_ref()));
        let (Some(was), Some(is)) = (was, is) else { return };
        let place = write.key.as_str().trim_start_matches("/c/command/");
        let site = manifests::site_of_place(place);
        if was != is && site.is_some_and(|site| self.wiped.contains(&site) || self.cloned.contains(&site)) {
            return self.verdict.excuse("(two ends of a command, told by two disks of its edge)");
        }
        self.verdict.ask(now, ONE_END, was == is, || format!("cloud {place}: {was} became {is}"));
    }

    /// The author of a command was told that the cloud has taken it.
    pub fn on_order_accepted(&mut self, place: &str, durable: &Image, now: Mono) {
        let kept = durable.get(&format!("/c/command/{place}")).is_some();
        self.verdict.ask(now, "nothing is said before it is durable", kept, || {
            format!("command {place} was accepted, and the disk does not hold it")
        });
        self.commands.accepted.insert(place.to_owned());
    }

    /// The command that a write names as its cause. While the disk refuses writes no commit tells of a new one under an
    /// id that is free again.
    fn command_of(
        &self,
        seat: Seat,
        request: &WriteRequest,
        now: Mono,
    ) -> Option<(Place, Mono, Machine, Command)> {
        let id = request.cause.strip_prefix("command ")?.split(' ').next()?;
        let place = format!("{}/{id}", request.device);
        let (at, machine, command) = self.commands.given.get(&place)?.clone();
        let is_free = now.since(at) >= command.ttl();
        let is_known = !(is_free && self.refused.contains(&seat));
        is_known.then_some((place, at, machine, command))
    }

    /// Whether a command wants what a write asks for. A disk that hangs holds the word back: whether it comes in time
    /// shows when the device moves.
    pub(super) fn is_ordered(&mut self, seat: Seat, request: &WriteRequest, now: Mono) -> bool {
        let Some((_, _, _, command)) = self.command_of(seat, request, now) else {
            return self.is_unwritten(seat);
        };
        command.args.get(&request.property).and_then(bus::Value::as_f64) == request.value.as_f64()
    }

    /// A command that was given while the disk refuses writes stands in no commit yet.
    fn is_unwritten(&mut self, seat: Seat) -> bool {
        let refused = self.refused.contains(&seat);
        if refused {
            self.verdict.excuse("(a command that was given while the disk refused writes)");
        }
        refused
    }

    fn is_in_time(
        &mut self,
        seat: Seat,
        place: &str,
        (at, machine, command): (Mono, Machine, &Command),
        now: Mono,
    ) {
        let age = now.since(at);
        let estimated = Mono(at.0.saturating_sub(ESTIMATE.as_micros() as u64 * 2));
        let excused = self.was_set(machine, estimated, now);
        let late = age > command.ttl() + ROUNDING;
        self.excuse(excused && late);
        self.verdict.ask(now, IN_TIME, !late || excused, || {
            format!("{seat} carries {place} out {age:?} after it was given, ttl {:?}", command.ttl())
        });
    }

    /// A device moved, and a command is the cause.
    pub(super) fn check_commanded(&mut self, seat: Seat, request: &WriteRequest, now: Mono) {
        if !request.cause.starts_with("command ") {
            return;
        }
        let Some((place, at, machine, command)) = self.command_of(seat, request, now) else {
            if self.is_unwritten(seat) {
                return;
            }
            return self.accuse(
                now,
                ONCE,
                format!("{seat} moves {} for what nobody gave: {}", request.device, request.cause),
            );
        };
        self.is_in_time(seat, &place, (at, machine, &command), now);
        let life = self.held.get(&Machine::Edge(seat)).and_then(life_of).unwrap_or(Incarnation(0));
        let again = !self.commands.moved.insert(((seat, life, place.clone()), request.property.clone()));
        self.ask_once(seat, again, now, || format!("{seat} moves {} for {place} again", request.property));
    }

    pub(super) fn check_ended(&mut self, site: usize, cloud: &Image, edge: &Image, now: Mono) {
        let of_edge = format!("/e/{}/command/", manifests::edge_name(site));
        let rows =
            ["/m/command/", "/t/command/", "/t/order/"].into_iter().flat_map(|prefix| edge.under(prefix));
        let left: Vec<&str> = rows.chain(cloud.under(&of_edge)).map(|(rest, _)| rest).collect();
        self.verdict.ask(now, "in the end no command is under way", left.is_empty(), || {
            format!("edge-{site}: {left:?}")
        });
        let of_site = |place: &&Place| manifests::site_of_place(place) == Some(site);
        for place in self.commands.accepted.iter().filter(of_site) {
            let kept = cloud.get(&format!("/c/command/{place}"));
            let device = place.rsplit_once('/').map_or("", |(device, _)| device);
            let others = cloud.under("/c/command/").filter(|(rest, _)| rest.starts_with(device)).count();
            if kept.is_none() && others >= MAX_ENDED {
                self.verdict.excuse("(an ended command that newer ones took the place of)");
                continue;
            }
            let ended = outcome_in(kept);
            self.verdict.ask(now, "in the end each command has ended", ended.is_some(), || {
                format!("{place}: {kept:?}")
            });
        }
    }
}

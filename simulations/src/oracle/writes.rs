//! A device moves by a fresh decision alone: not by an old wish, a restart or a read; each write once, and in its
//! time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus::Mono;
use bus::twin::{DesiredVersion, DeviceId, WriteRequest};
use device_twin::PropertyId;
use device_twin::authority::Holder;
use device_twin::edge::OPERATOR_HOLD;
use device_twin::twin::{Desired, WriteRecord};
use metadata::Commit;

use super::{Oracle, authority, decode, interlocks, versions};
use crate::disk::Image;
use crate::machine::{Machine, Seat};
use crate::manifests::{self, ACTUATOR, FAIL_SAFE, MEANT_FOR, TRIP_VALUE};

const FRESH: &str = "only a fresh decision moves an actuator";
const ONCE: &str = "a write id is carried out once";
const IN_TIME: &str = "no write after its time";

/// Clocks are read in milliseconds and once a minute.
pub(super) const ROUNDING: Duration = Duration::from_millis(20);
/// How long somebody's set at an edge may be spoken of, with some time to write it.
const HELD: Duration = OPERATOR_HOLD.saturating_add(Duration::from_secs(120));
/// How long an edge goes by one estimate of the cloud's clock.
pub(super) const ESTIMATE: Duration = bus::bus::CLOCK_INTERVAL;

/// What is known of writes and of who wanted them.
#[derive(Debug, Default)]
pub(super) struct Writes {
    records: BTreeMap<(Seat, String), WriteRecord>,
    /// The last number that a property's writes got.
    last: BTreeMap<(Seat, PropertyId), u64>,
    published: BTreeMap<(Seat, String), Mono>,
    executed: BTreeSet<(Seat, String)>,
    /// When a wish was really made.
    issued: BTreeMap<(PropertyId, DesiredVersion), Mono>,
    /// The last sets by somebody at the edge itself, in this life of its node: the latest may have been refused.
    operators: BTreeMap<(Seat, PropertyId), Vec<(Mono, f64)>>,
    /// Actuators that somebody decided over in this life of the edge's node: when the last decision ends they go to
    /// their fail-safe value.
    decided: BTreeSet<(Seat, PropertyId)>,
    /// The newest wish that each device carried out.
    newest: BTreeMap<(Seat, PropertyId), DesiredVersion>,
    /// The newest of those that the cloud made: it knows them still when the edge's disk is lost.
    newest_of_cloud: BTreeMap<(Seat, PropertyId), DesiredVersion>,
}

/// The number at the end of a write's id.
fn number_of(write: &str) -> u64 {
    write.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(u64::MAX)
}

/// The device over which an edge decides when it writes `key`: a wish or a command that goes on or ends, or an
/// interlock that comes, goes or trips.
fn decided_by(key: &str) -> Option<DeviceId> {
    if let Some(place) = key.strip_prefix("/t/command/").or_else(|| key.strip_prefix("/t/desired/")) {
        return place.rsplit_once('/')?.0.parse().ok();
    }
    let rule: DeviceId =
        key.strip_prefix("/m/rule/").or_else(|| key.strip_prefix("/t/rule/"))?.parse().ok()?;
    manifests::guarded(&rule)
}

impl Writes {
    pub(super) fn on_edge_commit(&mut self, seat: Seat, commit: &Commit) {
        let keys = commit.writes.iter().map(|write| &write.key).chain(&commit.forgotten);
        let touched = keys.filter_map(|key| decided_by(key.as_str()));
        self.decided.extend(touched.map(|device| (seat, manifests::property(&device, ACTUATOR))));
        for write in commit.writes.iter().filter(|write| write.key.as_str().starts_with("/t/write/")) {
            let record = write.value.as_ref().and_then(|bytes| minicbor::decode::<WriteRecord>(bytes).ok());
            let Some(record) = record else { continue };
            let id = write.key.as_str().strip_prefix("/t/write/").and_then(PropertyId::parse);
            self.last.extend(id.map(|id| ((seat, id), number_of(&record.id))));
            self.records.insert((seat, record.id.clone()), record);
        }
    }

    /// Its node begins again from what it once knew.
    pub(super) fn forget(&mut self, seat: Seat) {
        self.newest.retain(|(whose, _), _| *whose != seat);
        self.newest_of_cloud.retain(|(whose, _), _| *whose != seat);
    }

    /// What was wished at the edge is lost with its disk.
    pub(super) fn on_wipe(&mut self, seat: Seat) {
        self.newest.retain(|(whose, _), _| *whose != seat);
        let of_seat = self.newest_of_cloud.iter().filter(|((whose, _), _)| *whose == seat);
        self.newest.extend(of_seat.map(|(whose, version)| (whose.clone(), *version)));
    }

    /// A decision of an operator does not outlive the node that took it.
    pub(super) fn on_edge_crash(&mut self, seat: Seat) {
        self.operators.retain(|(whose, _), _| *whose != seat);
        self.decided.retain(|(whose, _)| *whose != seat);
    }
}

impl Oracle {
    /// Before `commit` is counted as held: who wishes what by it. The last word on a version is the true one, those before
    /// were lost unheard.
    pub(super) fn note_wishes(&mut self, machine: Machine, commit: &Commit, now: Mono) {
        let before = self.held.get(&machine);
        for write in &commit.writes {
            let key = write.key.as_str();
            let rest = match machine {
                Machine::Cloud => {
                    key.strip_prefix("/e/").and_then(|rest| Some(rest.split_once("/desired/")?.1))
                }
                Machine::Edge(_) => key.strip_prefix("/t/own/"),
            };
            let version = write.value.as_ref().and_then(versions::desired);
            let known = before.and_then(|held| held.get(key)).and_then(versions::desired);
            // An edge keeps the cloud's last wish among its own when it refuses the next one.
            let is_its = |version: DesiredVersion| match machine {
                Machine::Cloud => true,
                Machine::Edge(_) => Holder::of(version.epoch) == Holder::Edge,
            };
            let new = version.filter(|version| Some(*version) != known && is_its(*version));
            let Some(wish) = rest.and_then(PropertyId::parse).zip(new) else { continue };
            if decode::<Desired>(write.value.as_ref()).is_some_and(|desired| desired.group.is_some()) {
                self.grouped.insert(wish.clone());
            }
            self.writes.issued.insert(wish, now);
        }
    }

    pub fn on_operator(&mut self, seat: Seat, id: &PropertyId, value: f64, now: Mono) {
        self.writes.decided.insert((seat, id.clone()));
        // Where the edge holds the authority it is a wish; while its disk refuses writes nobody can tell from outside.
        let held = self.held.get(&Machine::Edge(seat)).filter(|_| !self.refused.contains(&seat));
        if held.is_none_or(|held| Holder::of(authority::epoch_at(held, &id.device)) == Holder::Cloud) {
            let sets = self.writes.operators.entry((seat, id.clone())).or_default();
            sets.retain(|(at, _)| now.since(*at) <= HELD);
            sets.push((now, value));
        }
    }

    /// A node asks a mapper to write.
    pub fn on_published(&mut self, seat: Seat, request: &WriteRequest, durable: &Image, now: Mono) {
        let again = self.writes.published.insert((seat, request.id.clone()), now).is_some();
        let again = again && !self.aged.contains_key(&seat);
        self.verdict.ask(now, ONCE, !again, || format!("{seat} asks for write {} again", request.id));
        if self.refused.contains(&seat) {
            return;
        }
        let number = number_of(&request.id);
        let reserved =
            durable.get("/t/rev").and_then(|bytes| minicbor::decode::<u64>(bytes).ok()).unwrap_or(0);
        self.verdict.ask(now, "nothing is said before it is durable", number < reserved, || {
            format!("{seat} asks for write {}; its disk reserves numbers below {reserved}", request.id)
        });
        let record = self.writes.records.get(&(seat, request.id.clone())).cloned();
        let id = manifests::property(&request.device, &request.property);
        if record.is_none() && self.writes.last.get(&(seat, id)).is_some_and(|last| number < *last) {
            return self.verdict.excuse("(a write that a later one of the same commit took the place of)");
        }
        let matches = record.as_ref().is_some_and(|record| record.value == request.value);
        self.verdict.ask(now, "a write is recorded before it is asked for", matches, || {
            format!("{seat} asks for {request:?}; recorded is {record:?}")
        });
        if request.property == ACTUATOR && record.is_some_and(|record| record.version.is_none()) {
            self.check_operator(seat, request, now);
        }
    }

    /// Who may move an actuator without a wish: an operator, a command, an interlock; the end of any of these.
    fn check_operator(&mut self, seat: Seat, request: &WriteRequest, now: Mono) {
        if request.cause.starts_with("command ") {
            let ordered = self.is_ordered(seat, request, now);
            return self
                .verdict
                .ask(now, FRESH, ordered, || format!("{seat} moves what no command says: {request:?}"));
        }
        if request.cause.starts_with(&format!("rule {}", manifests::guard(&request.device))) {
            let trips = request.value.as_f64() == Some(TRIP_VALUE);
            return self.verdict.ask(now, FRESH, trips, || format!("{seat}: no interlock says {request:?}"));
        }
        let id = manifests::property(&request.device, &request.property);
        if request.cause == "fail-safe" {
            let guard = interlocks::rule_key(&request.device);
            let is_guarded =
                self.held.get(&Machine::Edge(seat)).is_some_and(|held| held.get(&guard).is_some());
            let was_decided = is_guarded || self.writes.decided.contains(&(seat, id));
            let ended = was_decided && request.value.as_f64() == Some(FAIL_SAFE);
            return self.verdict.ask(now, FRESH, ended, || format!("{seat}: no decision ended: {request:?}"));
        }
        let operator = self.writes.operators.get(&(seat, id.clone())).cloned().unwrap_or_default();
        let meant =
            |(at, value): &(Mono, f64)| now.since(*at) <= HELD && request.value.as_f64() == Some(*value);
        let holds = operator.iter().any(meant);
        self.verdict.ask(now, FRESH, holds, || {
            format!(
                "{seat} moves {id} to {:?} for '{}'; nobody wants that: {operator:?}",
                request.value, request.cause
            )
        });
    }

    /// A device really moved.
    pub fn on_executed(&mut self, seat: Seat, request: &WriteRequest, now: Mono) {
        let first = self.writes.executed.insert((seat, request.id.clone()));
        let first = first || self.aged.contains_key(&seat);
        self.verdict.ask(now, ONCE, first, || format!("{seat} carried out {} twice", request.id));
        let ttl = Duration::from_millis(request.ttl_ms);
        let asked = self.writes.published.get(&(seat, request.id.clone())).copied().unwrap_or_default();
        let spent = now.since(asked);
        let excused = spent <= ttl * 2 && self.was_set(Machine::Edge(seat), asked, now);
        self.excuse(excused && spent > ttl + ROUNDING);
        self.verdict.ask(now, IN_TIME, spent <= ttl + ROUNDING || excused, || {
            format!("{seat} carried out {} {spent:?} after it was asked for, ttl {ttl:?}", request.id)
        });
        let version = self.writes.records.get(&(seat, request.id.clone())).and_then(|record| record.version);
        match version {
            Some(version) => self.check_wish(seat, request, version, now),
            None => self.check_commanded(seat, request, now),
        }
    }

    fn check_wish(&mut self, seat: Seat, request: &WriteRequest, version: DesiredVersion, now: Mono) {
        let id = manifests::property(&request.device, &request.property);
        let newest = self.writes.newest.entry((seat, id.clone())).or_default();
        let before = std::mem::replace(newest, version.max(*newest));
        if Holder::of(version.epoch) == Holder::Cloud {
            let newest = self.writes.newest_of_cloud.entry((seat, id.clone())).or_default();
            *newest = version.max(*newest);
        }
        let holds = before <= version || self.put_back;
        self.verdict.ask(now, "no device goes back to an older wish", holds, || {
            format!("{seat} carried out {id} {version} after {before}")
        });
        if request.property != ACTUATOR {
            return;
        }
        let Some(issued) = self.writes.issued.get(&(id.clone(), version)).copied() else {
            return self.accuse(
                now,
                FRESH,
                format!("{seat} moved {id} for {version}, which was never issued"),
            );
        };
        let age = now.since(issued);
        let estimated = Mono(issued.0.saturating_sub(ESTIMATE.as_micros() as u64 * 2));
        let excused = self.was_set(Machine::Cloud, estimated, now);
        self.excuse(excused && age > MEANT_FOR + ROUNDING);
        self.verdict.ask(now, FRESH, age <= MEANT_FOR + ROUNDING || excused, || {
            format!("{seat} moved {id} for {version}, {age:?} after it was wished")
        });
    }
}

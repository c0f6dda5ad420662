//! A device moves by a fresh decision alone: not by an old wish, a restart or a read; each write once, and in its
//! time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus::Mono;
use bus::twin::{DesiredVersion, WriteRequest};
use device_twin::PropertyId;
use device_twin::edge::OPERATOR_HOLD;
use device_twin::twin::WriteRecord;
use metadata::Commit;

use super::Oracle;
use crate::disk::Image;
use crate::machine::{Machine, Seat};
use crate::manifests::{self, ACTUATOR, MEANT_FOR};

const FRESH: &str = "only a fresh decision moves an actuator";
const ONCE: &str = "a write id is carried out once";
const IN_TIME: &str = "no write after its time";

/// Clocks are read in milliseconds and once a minute.
const ROUNDING: Duration = Duration::from_millis(20);
/// How long an edge goes by one estimate of the cloud's clock.
const ESTIMATE: Duration = bus::bus::CLOCK_INTERVAL;

/// What is known of writes and of who wanted them.
#[derive(Debug, Default)]
pub(super) struct Writes {
    records: BTreeMap<(Seat, String), WriteRecord>,
    published: BTreeMap<(Seat, String), Mono>,
    executed: BTreeSet<(Seat, String)>,
    /// When a wish was really made.
    issued: BTreeMap<(PropertyId, DesiredVersion), Mono>,
    /// The last set by somebody at the edge itself, in this life of its node.
    operators: BTreeMap<(Seat, PropertyId), (Mono, f64)>,
    /// The newest wish of the cloud that each device carried out.
    newest: BTreeMap<(Seat, PropertyId), DesiredVersion>,
}

impl Writes {
    pub(super) fn on_edge_commit(&mut self, seat: Seat, commit: &Commit) {
        for write in commit.writes.iter().filter(|write| write.key.as_str().starts_with("/t/write/")) {
            let record = write.value.as_ref().and_then(|bytes| minicbor::decode::<WriteRecord>(bytes).ok());
            self.records.extend(record.map(|record| ((seat, record.id.clone()), record)));
        }
    }

    /// Its node begins again from what it once knew.
    pub(super) fn forget(&mut self, seat: Seat) {
        self.newest.retain(|(whose, _), _| *whose != seat);
    }

    /// A decision of an operator does not outlive the node that took it.
    pub(super) fn on_edge_crash(&mut self, seat: Seat) {
        self.operators.retain(|(whose, _), _| *whose != seat);
    }
}

impl Oracle {
    /// The cloud has taken a wish; the last word on a version is the true one, those before were lost unheard.
    pub fn on_issued(&mut self, id: &PropertyId, version: DesiredVersion, now: Mono) {
        self.writes.issued.insert((id.clone(), version), now);
    }

    pub fn on_operator(&mut self, seat: Seat, id: &PropertyId, value: f64, now: Mono) {
        self.writes.operators.insert((seat, id.clone()), (now, value));
    }

    /// A node asks a mapper to write.
    pub fn on_published(&mut self, seat: Seat, request: &WriteRequest, durable: &Image, now: Mono) {
        let again = self.writes.published.insert((seat, request.id.clone()), now).is_some();
        let again = again && !self.aged.contains_key(&seat);
        self.verdict.ask(now, ONCE, !again, || format!("{seat} asks for write {} again", request.id));
        if self.refused.contains(&seat) {
            return;
        }
        let number = request.id.rsplit('-').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(u64::MAX);
        let reserved =
            durable.get("/t/rev").and_then(|bytes| minicbor::decode::<u64>(bytes).ok()).unwrap_or(0);
        self.verdict.ask(now, "nothing is said before it is durable", number < reserved, || {
            format!("{seat} asks for write {}; its disk reserves numbers below {reserved}", request.id)
        });
        let record = self.writes.records.get(&(seat, request.id.clone())).cloned();
        let matches = record.as_ref().is_some_and(|record| record.value == request.value);
        self.verdict.ask(now, "a write is recorded before it is asked for", matches, || {
            format!("{seat} asks for {request:?}; recorded is {record:?}")
        });
        if request.property == ACTUATOR && record.is_some_and(|record| record.version.is_none()) {
            self.check_operator(seat, request, now);
        }
    }

    fn check_operator(&mut self, seat: Seat, request: &WriteRequest, now: Mono) {
        let id = manifests::property(&request.device, &request.property);
        let operator = self.writes.operators.get(&(seat, id.clone())).copied();
        let holds = operator.is_some_and(|(at, value)| {
            now.since(at) <= OPERATOR_HOLD + Duration::from_secs(120) && request.value.as_f64() == Some(value)
        });
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
        if let Some(version) = version {
            self.check_wish(seat, request, version, now);
        }
    }

    fn check_wish(&mut self, seat: Seat, request: &WriteRequest, version: DesiredVersion, now: Mono) {
        let id = manifests::property(&request.device, &request.property);
        let newest = self.writes.newest.entry((seat, id.clone())).or_default();
        let before = std::mem::replace(newest, version.max(*newest));
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

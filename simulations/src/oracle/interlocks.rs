//! While an interlock is tripped its actuator is set to the trip value and to nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::twin::DeviceId;
use bus::{Mono, Quality, Sample};
use device_twin::PropertyId;
use device_twin::edge::RULE_INTERVAL;
use device_twin::twin::{Reported, WriteRecord};
use metadata::Commit;

use super::{Oracle, Settled, decode};
use crate::disk::Image;
use crate::machine::{Machine, Seat};
use crate::manifests::{self, ACTUATOR, SENSOR, TRIP_ABOVE, TRIP_VALUE};

/// Within this an interlock that came, or whose node began, has been looked at: rules are, at the latest, with their
/// tick.
const LOOKED_AT: Duration = RULE_INTERVAL.saturating_add(Duration::from_millis(50));

/// Since when interlocks could be looked at.
#[derive(Debug, Default)]
pub(super) struct Interlocks {
    began: BTreeMap<Seat, Mono>,
    came: BTreeMap<(Seat, String), Mono>,
}

pub(super) fn rule_key(device: &DeviceId) -> String {
    format!("/m/rule/{}", manifests::guard(device))
}

fn sensor(edge: &Image, device: &DeviceId) -> Option<Sample> {
    decode::<Reported>(edge.get(&format!("/t/reported/{device}/{SENSOR}")))?.sample
}

fn is_tripped(sample: &Sample) -> bool {
    sample.quality == Quality::Good && sample.value.as_f64().is_some_and(|value| value > TRIP_ABOVE)
}

/// Writes of actuators that begin with `commit`.
pub(super) fn begun(before: Option<&Image>, commit: &Commit) -> Vec<(PropertyId, WriteRecord)> {
    let put = commit.writes.iter().filter_map(|write| {
        let key = write.key.as_str();
        let id = PropertyId::parse(key.strip_prefix("/t/write/")?).filter(|id| *id.property == *ACTUATOR)?;
        let record = decode::<WriteRecord>(write.value.as_ref()).filter(|record| record.outcome.is_none())?;
        let known = decode::<WriteRecord>(before.and_then(|held| held.get(key)));
        known.is_none_or(|known| known.id != record.id).then_some((id, record))
    });
    put.collect()
}

impl Oracle {
    /// An edge's node begins.
    pub fn on_edge_start(&mut self, seat: Seat, now: Mono) {
        self.interlocks.began.insert(seat, now);
    }

    /// Interlocks come with `commit`.
    pub(super) fn note_interlocks(&mut self, seat: Seat, commit: &Commit, now: Mono) {
        for write in commit.writes.iter().filter(|write| write.key.as_str().starts_with("/m/rule/")) {
            self.interlocks.came.insert((seat, write.key.as_str().to_owned()), now);
        }
    }

    /// With the commit counted as held by which these writes are begun.
    pub(super) fn check_interlocks(&mut self, seat: Seat, begun: &[(PropertyId, WriteRecord)], now: Mono) {
        let Some(held) = self.held.get(&Machine::Edge(seat)) else { return };
        for (id, record) in begun {
            let key = rule_key(&id.device);
            let tripped = sensor(held, &id.device).filter(is_tripped);
            let Some(sample) = tripped.filter(|_| held.get(&key).is_some()) else { continue };
            let came = self.interlocks.came.get(&(seat, key)).copied();
            let since = came.max(self.interlocks.began.get(&seat).copied()).unwrap_or_default();
            let is_trip = record.value.as_f64() == Some(TRIP_VALUE);
            if !is_trip && now.since(since) < LOOKED_AT {
                self.verdict.excuse("(a write before an interlock that just came was looked at)");
                continue;
            }
            self.verdict.ask(now, "a tripped interlock lets nothing else through", is_trip, || {
                format!("{seat} {id}: the sensor says {sample:?}, and asked for is {record:?}")
            });
        }
    }

    /// Sensors fall silent before the end: an interlock that cannot tell is tripped too.
    pub(super) fn check_tripped(&mut self, settled: &Settled, edge: &Image, now: Mono) {
        for (id, stands) in settled.positions.iter().filter(|(id, _)| &*id.property == ACTUATOR) {
            let sample = sensor(edge, &id.device);
            let is_fine =
                sample.as_ref().is_some_and(|sample| sample.quality == Quality::Good && !is_tripped(sample));
            if edge.get(&rule_key(&id.device)).is_none() || is_fine || settled.lied {
                continue;
            }
            self.verdict.ask(
                now,
                "in the end tripped interlocks have their way",
                *stands == TRIP_VALUE,
                || format!("{id} stands at {stands}; the sensor says {sample:?}"),
            );
        }
    }
}

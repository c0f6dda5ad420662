//! Reports of mappers, and what silence means.

use bus::twin::ReportBody;
use bus::{Mono, Now, Quality, Sample};
use metadata::Keyspace;
use std::time::Duration;

use super::EdgeTwins;
use crate::rule::From;
use crate::twin::{self, PropertyId, Reported, explain, key};

/// A property without `maxAge` that is reported again unchanged is published again this often, so that whoever reads
/// it from afar can tell silence from constancy.
const REFRESH: Duration = Duration::from_secs(5);

impl EdgeTwins {
    /// Takes one reading. An unchanged one costs no write to the store.
    pub(super) fn report(
        &mut self,
        id: &PropertyId,
        body: ReportBody,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), String> {
        let property = self.catalog.property(&id.device, &id.property).map_err(|why| explain(&why))?;
        let twin =
            self.twins.get_mut(id).ok_or_else(|| format!("device {} is not of this edge", id.device))?;
        let Sample { value, time, quality } = body.into_sample(now.wall);
        let (value, trust) = property.check_reported(value).map_err(|why| explain(&why))?;
        let sample = Sample { value, time, quality: quality.min(trust) };
        // A mapper that reconnects says its last reading again, however old it is.
        let age = now.wall.since(time);
        let read_at = Mono(now.mono.0.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX)));
        self.rules.observe(id, &sample.value, sample.quality, read_at);
        let is_first = twin.seen.replace(twin.seen.map_or(read_at, |seen| seen.max(read_at))).is_none();
        let old = twin.reported.as_ref().and_then(|reported| reported.sample.as_ref());
        let unchanged = old.is_some_and(|old| {
            old.quality == sample.quality && property.is_unchanged(&old.value, &sample.value)
        });
        if unchanged {
            self.stats.unchanged += 1;
            self.refresh(id, time, now);
            if is_first {
                self.run_rules_reading(From::Reported, id, ks, now);
            }
        } else {
            self.store_sample(id, sample, ks, now);
        }
        self.reschedule(id);
        Ok(())
    }

    /// Tells subscribers, now and then, that an unchanged value is still so.
    fn refresh(&mut self, id: &PropertyId, time: bus::UnixMillis, now: Now) {
        let max_age = self.property(id).and_then(|property| property.policy.max_age);
        let interval = max_age.map_or(REFRESH, |max_age| max_age / 3);
        let Some(twin) = self.twins.get_mut(id) else { return };
        if twin.published.is_some_and(|at| now.mono.since(at) < interval) {
            return;
        }
        twin.published = Some(now.mono);
        if let Some(mut reported) = twin.reported.clone() {
            reported.sample.iter_mut().for_each(|sample| sample.time = time);
            let age = twin.age(now.mono);
            self.outputs.seen(id, &reported, age);
        }
    }

    fn store_sample(&mut self, id: &PropertyId, sample: Sample, ks: &mut Keyspace, now: Now) {
        let ack = self.twins.get(id).and_then(|twin| twin.reported.as_ref()?.ack.clone());
        self.store_reported(id, Some(sample), ack, ks, now);
        self.update_state(&id.device);
        self.run_rules_reading(From::Reported, id, ks, now);
    }

    /// Gives the reported half of the twin a new version, stores and tells it.
    pub(super) fn store_reported(
        &mut self,
        id: &PropertyId,
        sample: Option<Sample>,
        ack: Option<twin::Ack>,
        ks: &mut Keyspace,
        now: Now,
    ) {
        let version = self.next_version(ks);
        let Some(twin) = self.twins.get_mut(id) else { return };
        let reported = Reported { version, sample, ack };
        ks.put(key("/t/reported/", id), twin::cbor(&reported));
        self.outputs.reported(id, &reported, twin.age(now.mono));
        twin.published = Some(now.mono);
        twin.reported = Some(reported);
    }

    /// What is known is not to be used any more.
    pub(super) fn mark_bad(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let sample = self.twins.get(id).and_then(|twin| twin.reported.as_ref()?.sample.clone());
        if let Some(sample) = sample.filter(|sample| sample.quality > Quality::Bad) {
            self.store_sample(id, Sample { quality: Quality::Bad, ..sample }, ks, now);
        }
    }

    /// A moment has come that [`super::property::Twin::next_due`] named.
    pub(super) fn property_due(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        self.decide_desired(id, ks, now);
        self.write_due(id, ks, now);
        self.slots_due(id, ks, now);
        let stale = match (self.property(id), self.twins.get(id)) {
            (Some(property), Some(twin)) => twin.is_stale(property, self.start, now.mono),
            _ => false,
        };
        if stale {
            self.mark_bad(id, ks, now);
        }
    }
}

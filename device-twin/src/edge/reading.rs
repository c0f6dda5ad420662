//! Reports of mappers, and what silence means.

use bus::twin::ReportBody;
use bus::{Mono, Now, Quality, Sample};
use metadata::Keyspace;
use std::time::Duration;

use super::EdgeTwins;
use super::property::Twin;
use crate::model::Property;
use crate::rule::From;
use crate::twin::{self, PropertyId, Reported, explain, key};

/// A property without `maxAge` that is reported again unchanged is published again this often, so that whoever reads
/// it from afar can tell silence from constancy.
pub(super) const REFRESH: Duration = Duration::from_secs(5);

/// What a report is to those who only watch. Rules see each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// Within the deadband of what was told.
    None,
    /// Something was told a moment ago: `reportInterval`.
    Later,
    Now,
}

impl Twin {
    /// The rules, in order: another quality is told at once; what is within the deadband is no news; what comes too soon
    /// after the last change waits. A reading that goes back to what was told takes the place of one that waits.
    fn news(&self, property: &Property, sample: &Sample, now: Mono) -> News {
        let told = self.reported.as_ref().and_then(|reported| reported.sample.as_ref());
        let Some(told) = told.filter(|told| told.quality == sample.quality) else { return News::Now };
        if property.is_unchanged(&told.value, &sample.value) && self.pending.is_none() {
            return News::None;
        }
        let interval = property.policy.report_interval.unwrap_or_default();
        match self.published {
            Some(at) if now < at + interval => News::Later,
            _ => News::Now,
        }
    }
}

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
        let sample = property.check_report(body, now.wall).map_err(|why| explain(&why))?;
        let time = sample.time;
        // A mapper that reconnects says its last reading again, however old it is.
        let age = now.wall.since(time);
        let read_at = Mono(now.mono.0.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX)));
        self.rules.observe(id, &sample.value, sample.quality, read_at);
        let is_first = twin.seen.replace(twin.seen.map_or(read_at, |seen| seen.max(read_at))).is_none();
        match twin.news(property, &sample, now.mono) {
            News::None => {
                self.stats.unchanged += 1;
                self.refresh(id, time, now);
                if is_first {
                    self.run_rules_reading(From::Reported, id, ks, now);
                }
            }
            News::Later => {
                twin.pending = Some(Box::new(sample));
                self.run_rules_reading(From::Reported, id, ks, now);
            }
            News::Now => self.store_sample(id, sample, ks, now),
        }
        self.reschedule(id);
        Ok(())
    }

    /// A reading that waited for `reportInterval` is told.
    fn tell_due(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let (Some(property), Some(twin)) = (self.property(id), self.twins.get(id)) else { return };
        let sample = twin.pending.as_deref().filter(|_| twin.tell_at(property) <= Some(now.mono));
        if let Some(sample) = sample.cloned() {
            self.store_sample(id, sample, ks, now);
        }
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
        if let Some(twin) = self.twins.get_mut(id) {
            twin.pending = None;
        }
        let ack = self.twins.get(id).and_then(|twin| twin.reported.as_ref()?.ack.clone());
        self.store_reported(id, Some(sample.clone()), ack, ks, now);
        self.outputs.sample(id, sample);
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
        self.kubeedge.touch(&id.device, now);
        let Some(twin) = self.twins.get_mut(id) else { return };
        let reported = Reported { version, sample, ack };
        ks.put(key("/t/reported/", id), twin::cbor(&reported));
        self.outputs.reported(id, &reported, twin.age(now.mono));
        twin.published = Some(now.mono);
        twin.reported = Some(reported);
    }

    /// What is known is not to be used any more.
    pub(super) fn mark_bad(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let sample = self.twins.get(id).and_then(|twin| twin.latest().cloned());
        if let Some(sample) = sample.filter(|sample| sample.quality > Quality::Bad) {
            self.store_sample(id, Sample { quality: Quality::Bad, ..sample }, ks, now);
        }
    }

    /// A moment has come that [`super::property::Twin::next_due`] named.
    pub(super) fn property_due(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        self.decide_desired(id, ks, now);
        self.write_due(id, ks, now);
        self.slots_due(id, ks, now);
        self.pace_due(id, ks, now);
        self.tell_due(id, ks, now);
        let stale = match (self.property(id), self.twins.get(id)) {
            (Some(property), Some(twin)) => twin.is_stale(property, self.start, now.mono),
            _ => false,
        };
        if stale {
            self.mark_bad(id, ks, now);
        }
    }
}

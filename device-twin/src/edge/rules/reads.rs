//! What a rule sees: twins of this edge, those of other sites, and their history.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::twin::{DeviceId, Outcome};
use bus::{Mono, Now, Quality, Topic, Value};

use super::super::EdgeTwins;
use super::super::property::Twin;
use super::remote::{Remote, remote};
use super::{Rules, Source};
use crate::rule::{From, Reading, Seen, Through};
use crate::twin::PropertyId;

impl Rules {
    /// Takes a report, stored or not, into the windows over its property. `read_at`: when it was read.
    pub(in crate::edge) fn observe(
        &mut self,
        id: &PropertyId,
        value: &Value,
        quality: Quality,
        read_at: Mono,
    ) {
        if let Some(windows) = self.windows.get_mut(id) {
            let number = value.as_f64().filter(|_| quality > Quality::Bad);
            windows.iter_mut().for_each(|window| window.observe(number, read_at));
        }
    }

    /// Notes what another site said; the rules that read it.
    pub(in crate::edge) fn take_remote(
        &mut self,
        topic: &Topic,
        payload: &[u8],
        travelled: Option<Duration>,
        now: Now,
    ) -> Vec<DeviceId> {
        let Some((source, remote)) = remote(topic, payload, travelled, now) else { return Vec::new() };
        let Some(known) = self.remote.get_mut(&source) else { return Vec::new() };
        // A copy kept by the cloud says nothing about age: it must not make a reading old that came first hand.
        let is_copy = remote.as_ref().is_some_and(|new| new.age.is_none());
        if is_copy && known.as_ref().is_some_and(|old| old.age.is_some()) {
            return Vec::new();
        }
        *known = remote.clone();
        if source.0 == From::Reported {
            self.observe_remote(&source.1, remote.as_ref());
        }
        self.reading(&source)
    }

    /// What is taken back ends a span; what is of unknown age covers none.
    fn observe_remote(&mut self, id: &PropertyId, remote: Option<&Remote>) {
        match remote.map(|remote| (remote, remote.read_at())) {
            Some((Remote { value, quality, .. }, Some(read_at))) => {
                self.observe(id, value, *quality, read_at);
            }
            Some((_, None)) => {}
            None => self.observe(id, &Value::Bool(false), Quality::Bad, Mono::ZERO),
        }
    }

    /// What a window says now.
    fn through(&self, sources: &[Source], through: &Through, now: Mono) -> Option<f64> {
        let (_, id) = sources.get(through.input)?;
        let windows = self.windows.get(id)?;
        let window = windows.iter().find(|window| window.is(through.over.span().0, through.max_age))?;
        window.read(through.over, now)
    }
}

impl EdgeTwins {
    /// All that a rule sees now.
    pub(super) fn seen_by(&self, rule: &DeviceId, now: Mono) -> Option<Seen> {
        let rule = self.rules.running.get(rule)?;
        let read = |source: &Source| {
            local(&self.twins, source, now)
                .or_else(|| Some(self.rules.remote.get(source)?.as_ref()?.reading(now)))
        };
        let windows = rule.program.windows().iter();
        Some(Seen {
            readings: rule.sources.iter().map(read).collect(),
            windows: windows.map(|through| self.rules.through(&rule.sources, through, now)).collect(),
            anew: false,
        })
    }
}

fn local(twins: &BTreeMap<PropertyId, Box<Twin>>, (from, id): &Source, now: Mono) -> Option<Reading> {
    let twin = twins.get(id)?;
    match from {
        From::Reported => {
            let sample = twin.latest()?;
            Some(Reading { value: sample.value.clone(), quality: sample.quality, age: twin.age(now) })
        }
        From::Desired => {
            let desired = twin.desired.as_ref()?;
            let ack = twin.handled.as_ref().and_then(|handled| handled.ack.as_ref());
            let refused = ack.is_some_and(|ack| {
                ack.version == desired.version && matches!(ack.outcome, Outcome::Rejected | Outcome::Expired)
            });
            let quality = if refused { Quality::Bad } else { Quality::Good };
            Some(Reading { value: desired.value.clone(), quality, age: None })
        }
    }
}

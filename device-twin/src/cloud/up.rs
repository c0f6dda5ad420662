//! What edges tell.

use bus::twin::{DeviceId, Incarnation, ResultBody, TwinTopic};
use bus::{Name, Now};
use metadata::Keyspace;

use super::{CloudTwins, RESULTS_KEPT, Told};
use crate::history::audit::AuditEvent;
use crate::twin::{
    self, Desired, DeviceState, Outranked, PropertyId, Publish, Reported, ReportedBody, TwinResult, key,
};

impl CloudTwins {
    /// One entry of an edge's outbox: `reported/<ns>/<device>/<property>`, `result/..`, `desired/..`, `outranked/..`,
    /// `state/<ns>/<device>`, `authority/..`, `rule/<ns>/<rule>` or `command/<ns>/<device>/<id>`.
    /// Others are not ours and ignored. An entry may come again; it then changes nothing but the results' list.
    pub fn handle_up(
        &mut self,
        edge: &Name,
        incarnation: Incarnation,
        key: &str,
        payload: &[u8],
        ks: &mut Keyspace,
        now: Now,
    ) {
        let Some((kind, rest)) = key.split_once('/') else { return };
        let taken = match kind {
            "reported" => self.reported_up(edge, incarnation, rest, payload, ks, now),
            "result" => self.result_up(edge, rest, payload, ks, now),
            "desired" => self.desired_up((edge, incarnation), rest, payload, ks),
            "outranked" => self.outranked_up(edge, rest, payload, ks),
            "state" => self.state_up(edge, rest, payload, ks),
            "authority" => self.authority_up(edge, rest, payload, ks, now),
            "rule" => self.rule_up(edge, rest, payload, ks),
            "command" => self.command_up(edge, rest, payload, ks, now),
            _ => return,
        };
        if taken.is_none() {
            self.stats.malformed += 1;
        }
    }

    /// Whether `edge` may speak about `device`.
    pub fn speaks_for(&mut self, edge: &Name, device: &DeviceId) -> bool {
        let bound = self.is_bound(device, edge);
        self.stats.foreign += u64::from(!bound);
        bound
    }

    /// Whether the device is this edge's.
    pub fn is_bound(&self, device: &DeviceId, edge: &Name) -> bool {
        self.catalog.device(device).is_some_and(|info| info.node.as_ref() == Some(edge))
    }

    /// `None` if it is malformed, here and below.
    fn reported_up(
        &mut self,
        edge: &Name,
        incarnation: Incarnation,
        rest: &str,
        payload: &[u8],
        ks: &mut Keyspace,
        now: Now,
    ) -> Option<()> {
        let id = PropertyId::parse(rest)?;
        let reported: Reported = twin::decode(payload)?;
        if !self.speaks_for(edge, &id.device) {
            return Some(());
        }
        let known = self.twins.get(&id).and_then(|twin| twin.reported.as_ref()).map(|known| known.version);
        let older =
            known.is_some_and(|known| known.incarnation == incarnation && reported.version.rev <= known.rev);
        if older || reported.version.incarnation != incarnation {
            self.stats.repeated += 1;
            return Some(());
        }
        ks.put(key("/c/reported/", &id), twin::cbor(&reported));
        if let Some(body) = ReportedBody::of(&reported, None) {
            self.publish(Publish::retained(&id.reported_topic(), &body));
        }
        let twin = self.twins.entry(id.clone()).or_default();
        twin.reported = Some(reported);
        twin.heard = Some(now.mono);
        if twin.told.as_ref().is_some_and(|told| told.life != incarnation) {
            self.forget_told(&id, ks);
            self.publish_desired(&id);
        }
        Some(())
    }

    fn result_up(
        &mut self,
        edge: &Name,
        rest: &str,
        payload: &[u8],
        ks: &mut Keyspace,
        now: Now,
    ) -> Option<()> {
        let id = PropertyId::parse(rest)?;
        let result: TwinResult = twin::decode(payload)?;
        if !self.speaks_for(edge, &id.device) {
            return Some(());
        }
        let TwinResult { outcome, version, detail, at: _ } = result.clone();
        if let Some(version) = version {
            let event = AuditEvent::ended(version.to_string(), (outcome, &detail));
            self.audit(&id.device, Some(&id.property), event, now);
        }
        let body = ResultBody { version, detail, ..ResultBody::of(&id.property, outcome) };
        self.publish(Publish::once(&TwinTopic::Result { device: id.device.clone() }, &body));
        let results = &mut self.twins.entry(id.clone()).or_default().results;
        if results.len() >= RESULTS_KEPT {
            results.pop_front();
        }
        results.push_back(result);
        let all: Vec<&TwinResult> = results.iter().collect();
        ks.put(key("/c/result/", &id), twin::cbor(&all));
        Some(())
    }

    fn state_up(&mut self, edge: &Name, rest: &str, payload: &[u8], ks: &mut Keyspace) -> Option<()> {
        let device = twin::parse_device(rest)?;
        let state: DeviceState = twin::decode(payload)?;
        if !self.speaks_for(edge, &device) {
            return Some(());
        }
        ks.put(key("/c/state/", &device), twin::cbor(&state));
        self.states.insert(device.clone(), state);
        self.publish_state(&device);
        Some(())
    }

    /// What is in force at the edge and lies in no keyspace here, if anything is. A wish of the cloud before it is left
    /// where it is: the edge may not have seen it yet, and will refuse it.
    fn desired_up(
        &mut self,
        (edge, life): (&Name, Incarnation),
        rest: &str,
        payload: &[u8],
        ks: &mut Keyspace,
    ) -> Option<()> {
        let id = PropertyId::parse(rest)?;
        let desired: Option<Desired> = twin::decode(payload)?;
        if !self.speaks_for(edge, &id.device) {
            return Some(());
        }
        let Some(desired) = desired else {
            self.forget_told(&id, ks);
            self.publish_desired(&id);
            return Some(());
        };
        if self.is_nonsense(&id.device, desired.version.epoch, ks) {
            return None;
        }
        let twin = self.twins.entry(id.clone()).or_default();
        let told = Told { edge: edge.clone(), life, desired };
        if twin.told.as_ref() == Some(&told) {
            self.stats.repeated += 1;
            return Some(());
        }
        ks.put(key("/c/desired/", &id), twin::cbor(&told));
        twin.told = Some(told);
        self.publish_desired(&id);
        Some(())
    }

    /// Wishes are over at the edge, and are taken away here. One that an edge carried out once, and of which a new disk
    /// knows nothing, is wished again, unless the edge has the say.
    fn outranked_up(&mut self, edge: &Name, rest: &str, payload: &[u8], ks: &mut Keyspace) -> Option<()> {
        let id = PropertyId::parse(rest)?;
        let Outranked { version, fresh } = twin::decode(payload)?;
        if !self.speaks_for(edge, &id.device) {
            return Some(());
        }
        if self.is_nonsense(&id.device, version.epoch, ks) {
            return None;
        }
        let may_wish = self.held_by_edge(&id.device).is_none();
        let Some(twin) = self.twins.get(&id) else { return Some(()) };
        let placed = twin.desired.as_ref().map(|placed| placed.desired.version);
        let withdrawn = twin.withdrawn.as_ref().map(|(_, version)| *version);
        match placed.filter(|placed| *placed <= version) {
            Some(placed) if fresh && may_wish && twin.was_carried_out(placed) => self.wish_again(&id, ks),
            Some(_) => {
                self.remove_row(&id, ks);
                self.publish_desired(&id);
            }
            None => {}
        }
        if withdrawn.is_some_and(|withdrawn| withdrawn <= version) {
            self.forget_withdrawn(&id, ks);
            self.publish_desired(&id);
        }
        Some(())
    }
}

//! What edges tell.

use bus::twin::{DeviceId, Incarnation, ResultBody, TwinTopic};
use bus::{Name, Now};
use metadata::Keyspace;

use super::{CloudTwins, RESULTS_KEPT};
use crate::authority::Holder;
use crate::history::audit::AuditEvent;
use crate::twin::{
    self, Desired, DesiredBody, DeviceState, PropertyId, Publish, Reported, ReportedBody, TwinResult, key,
};

impl CloudTwins {
    /// One entry of an edge's outbox: `reported/<ns>/<device>/<property>`, `result/..`, `desired/..`,
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
            "desired" => self.desired_up(edge, rest, payload, ks),
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
        let twin = self.twins.entry(id).or_default();
        twin.reported = Some(reported);
        twin.heard = Some(now.mono);
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

    /// Somebody at the edge wished something, with the authority to do so. A wish of the cloud before it is over.
    fn desired_up(&mut self, edge: &Name, rest: &str, payload: &[u8], ks: &mut Keyspace) -> Option<()> {
        let id = PropertyId::parse(rest)?;
        let told: Desired = twin::decode(payload)?;
        if Holder::of(told.version.epoch) == Holder::Cloud {
            return None;
        }
        if !self.speaks_for(edge, &id.device) {
            return Some(());
        }
        let twin = self.twins.entry(id.clone()).or_default();
        if twin.told.as_ref().is_some_and(|known| known.version >= told.version) {
            self.stats.repeated += 1;
            return Some(());
        }
        ks.put(key("/c/desired/", &id), twin::cbor(&told));
        let outranks = twin.desired.as_ref().is_some_and(|placed| placed.desired.version < told.version);
        twin.told = Some(told);
        if outranks {
            self.take_back(&id, ks);
        }
        let desired = self.twins.get(&id).and_then(|twin| twin.desired()).map(DesiredBody::from);
        if let Some(body) = desired {
            self.publish(Publish::retained(&id.desired_topic(), &body));
        }
        Some(())
    }
}

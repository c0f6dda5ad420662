//! Saying everything again to a cloud that may have forgotten it.

use bus::Now;
use bus::twin::Incarnation;
use metadata::Keyspace;

use super::EdgeTwins;
use super::output::{outranked_key, own_key, reported_key, state_key};
use super::property::Twin;
use crate::twin::{self, Outranked, PropertyId, key};

impl EdgeTwins {
    /// The metadata copy was made anew: the cloud may have been restored from a backup, and not know what it was told
    /// since. What it does know is not repeated there: the versions are the same. After the store has taken a new
    /// incarnation (an old copy of the disk was put back) they start over, or the cloud would take them for old ones.
    pub fn handle_resynced(&mut self, incarnation: Incarnation, ks: &mut Keyspace, now: Now) {
        if std::mem::replace(&mut self.incarnation, incarnation) != incarnation {
            self.begin_life(ks, now);
        }
        self.renumber(ks);
        for (id, twin) in &self.twins {
            if let Some(reported) = &twin.reported {
                self.outputs.reported(id, reported, twin.age(now.mono));
            }
        }
        for (device, bound) in &self.devices {
            if let Some(state) = &bound.state {
                self.outputs.state(device, state);
            }
        }
        self.tell_local(|_| true);
        self.tell_rules(|_| true);
        self.tell_commands(ks);
    }

    /// What somebody here wished and took, each under a key that is `wanted`.
    fn tell_local(&mut self, wanted: impl Fn(&str) -> bool) {
        for (device, bound) in self.devices.iter().filter(|(_, bound)| bound.authority.epoch > 0) {
            let key = format!("authority/{device}");
            if wanted(&key) {
                self.outputs.tell(key, &bound.authority);
            }
        }
        for (id, twin) in &self.twins {
            let key = own_key(id);
            if (twin.is_own || twin.outranked.is_some()) && wanted(&key) {
                let own = twin.desired.as_deref().filter(|_| twin.is_own);
                self.outputs.tell(key, &own);
            }
        }
        let outranked: Vec<PropertyId> =
            self.twins.keys().filter(|id| wanted(&outranked_key(id))).cloned().collect();
        outranked.iter().for_each(|id| self.tell_outranked(id));
    }

    /// Which wishes are over here, so that the cloud takes their rows away.
    pub(super) fn tell_outranked(&mut self, id: &PropertyId) {
        let Some(twin) = self.twins.get(id) else { return };
        if let Some(version) = twin.outranked {
            let fresh = twin.handled.is_none();
            self.outputs.tell(outranked_key(id), &Outranked { version, fresh });
        }
    }

    /// Tells the cloud again what the outbox had no room for: each value, as it is now, under a key that is `wanted`, and
    /// how far its commands are, of which there are few.
    pub fn tell_again(&mut self, wanted: impl Fn(&str) -> bool, ks: &Keyspace) {
        for (id, twin) in &self.twins {
            let key = reported_key(id);
            if let Some(reported) = twin.reported.as_ref().filter(|_| wanted(&key)) {
                self.outputs.tell(key, reported);
            }
        }
        for (device, bound) in &self.devices {
            let key = state_key(device);
            if let Some(state) = bound.state.as_ref().filter(|_| wanted(&key)) {
                self.outputs.tell(key, state);
            }
        }
        self.tell_local(&wanted);
        self.tell_commands(ks);
        self.tell_rules(wanted);
    }

    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Gives what carries another incarnation's number one of the present.
    pub(super) fn renumber(&mut self, ks: &mut Keyspace) {
        let present = self.incarnation;
        let foreign = |twin: &Twin| twin.reported.as_ref().is_some_and(|r| r.version.incarnation != present);
        let ids: Vec<PropertyId> =
            self.twins.iter().filter(|(_, twin)| foreign(twin)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            let version = self.next_version(ks);
            let reported = self.twins.get_mut(&id).and_then(|twin| twin.reported.as_mut());
            if let Some(reported) = reported {
                reported.version = version;
                ks.put(key("/t/reported/", &id), twin::cbor(reported));
            }
        }
    }
}

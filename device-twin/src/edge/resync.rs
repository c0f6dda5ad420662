//! Saying everything again to a cloud that may have forgotten it.

use bus::Now;
use bus::twin::Incarnation;
use metadata::Keyspace;

use super::EdgeTwins;
use super::output::{reported_key, state_key};
use super::property::Twin;
use crate::authority::Holder;
use crate::twin::{self, PropertyId, key};

impl EdgeTwins {
    /// The metadata copy was made anew: the cloud may have been restored from a backup, and not know what it was told
    /// since. What it does know is not repeated there: the versions are the same. After the store has taken a new
    /// incarnation (an old copy of the disk was put back) they start over, or the cloud would take them for old ones.
    pub fn handle_resynced(&mut self, incarnation: Incarnation, ks: &mut Keyspace, now: Now) {
        self.incarnation = incarnation;
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
            let own = twin.desired.as_ref().filter(|d| Holder::of(d.version.epoch) == Holder::Edge);
            let key = format!("desired/{id}");
            if let Some(own) = own.filter(|_| wanted(&key)) {
                self.outputs.tell(key, &**own);
            }
        }
    }

    /// Tells the cloud again what the outbox had no room for: each value, as it is now, under a key that is `wanted`.
    pub fn tell_again(&mut self, wanted: impl Fn(&str) -> bool) {
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

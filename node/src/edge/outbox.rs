//! What an edge tells its cloud and gets from it, and what waits while the outbox is full.

use std::collections::BTreeSet;

use bus::{Channel, Class, Frame, Now};
use bytes::Bytes;
use controller::{advert, wireguard};
use metadata::{PushError, ReplicaOutput};

use super::Edge;
use crate::seam::Output;

/// What the outbox had no room for.
#[derive(Debug, Default)]
pub(super) enum Untold {
    #[default]
    Nothing,
    /// These values; bounded by the properties of this edge's devices and the filters that its clients ask for.
    Values(BTreeSet<String>),
    /// Nobody knows which: the process before this one ended while the outbox was full.
    AnyValue,
}

impl Edge {
    pub(super) fn on_replica(&mut self, output: ReplicaOutput, now: Now) {
        match output {
            ReplicaOutput::Send { class, payload } => {
                if let Some(link) = self.bus.link_of(&self.cloud) {
                    self.say_to_cloud(Output::Send {
                        link,
                        class,
                        frame: Frame::new(Channel::Metadata, payload),
                    });
                }
            }
            ReplicaOutput::Changed(keys) => self.on_metadata(&keys, now),
            ReplicaOutput::Resynced => {
                let had_metadata = std::mem::replace(&mut self.has_metadata, true);
                self.note(match had_metadata {
                    false => "the first metadata has come from the cloud",
                    true => "metadata copied anew from the cloud, which is told everything again",
                });
                self.handle_resynced(now);
            }
            ReplicaOutput::Repaired => self.note(
                "the metadata here was not what the cloud had sent, and was repaired: the disk or memory may be failing",
            ),
            ReplicaOutput::Misbehaved(why) => {
                if let Some(link) = self.bus.link_of(&self.cloud) {
                    self.close(link, &format!("the cloud {why}"));
                }
            }
            ReplicaOutput::Outdated { epoch, followed } => {
                self.note(&format!(
                    "the cloud is at epoch {epoch}, and this edge has followed another, restored from its backup, at \
                     epoch {followed}: not followed"
                ));
                for link in self.bus.link_of(&self.cloud).into_iter().chain(self.lines.packets()) {
                    self.close(link, "an outdated cloud");
                }
            }
        }
    }

    /// What rests on the disk in this session is not said once it refuses: [`Self::handle_degraded`] begins another.
    fn say_to_cloud(&mut self, output: Output) {
        match self.journal.degraded() {
            None => self.said.promise(output, None),
            Some(_) => self.said.push_back(output),
        }
    }

    /// The cloud is told everything again.
    pub(super) fn handle_resynced(&mut self, now: Now) {
        self.twins.handle_resynced(self.replica.incarnation(), &mut self.keyspace, now);
        self.mesh.tell_again(|_| true);
        self.tell_lans(true, now);
        self.tell_gateway(now);
    }

    pub(super) fn tell_cloud(&mut self, class: Class, key: String, payload: Bytes, now: Now) {
        match self.replica.push(class, &key, payload, &mut self.keyspace, now) {
            Ok(()) => {}
            Err(PushError::Full) => self.on_full(class, key),
            Err(why) => self.note(&format!("{key} is not told to the cloud: {why}")),
        }
    }

    /// The cloud writes it into clients' configurations.
    pub(super) fn tell_gateway(&mut self, now: Now) {
        let Some(gateway) = &self.gateway else { return };
        if let Ok(payload) = minicbor::to_vec(gateway) {
            self.tell_cloud(Class::State, wireguard::UP.to_owned(), payload.into(), now);
        }
    }

    /// Values wait for room; the outbox itself names the events that it refused.
    fn on_full(&mut self, class: Class, key: String) {
        if let Untold::Nothing = self.untold {
            self.note(
                "the outbox is full: the cloud hears of newer values when there is room, and of newer events how many \
                 there were",
            );
            self.untold = Untold::Values(BTreeSet::new());
        }
        if let (Untold::Values(keys), Class::State) = (&mut self.untold, class) {
            keys.insert(key);
        }
    }

    /// Whether there was room to tell something again.
    pub(super) fn tell_untold(&mut self, now: Now) -> bool {
        if matches!(self.untold, Untold::Nothing) || !self.replica.has_room() {
            return false;
        }
        match std::mem::take(&mut self.untold) {
            Untold::Nothing => {}
            Untold::Values(keys) => {
                self.twins.tell_again(|key| keys.contains(key), &self.keyspace);
                self.mesh.tell_again(|key| keys.contains(key));
                if keys.contains(advert::UP) {
                    self.tell_lans(true, now);
                }
            }
            Untold::AnyValue => {
                self.twins.tell_again(|_| true, &self.keyspace);
                self.mesh.tell_again(|_| true);
                self.tell_lans(true, now);
            }
        }
        true
    }
}

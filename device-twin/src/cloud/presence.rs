//! Which edges are heard of, and what that says of their devices.

use bus::twin::{DeviceId, TwinTopic};
use bus::{Name, Now};
use metadata::Keyspace;

use super::CloudTwins;
use crate::twin::{Availability, DeviceState, Publish};

impl CloudTwins {
    /// An edge is connected, and was sent nothing yet.
    pub fn handle_edge_up(&mut self, edge: &Name, ks: &mut Keyspace, now: Now) {
        if self.present.insert(edge.clone()) {
            self.hand_out_commands(edge, ks, now);
            self.publish_states_of(edge);
        }
    }

    /// An edge is gone: what it said last of its devices may be wrong by now.
    pub fn handle_edge_down(&mut self, edge: &Name) {
        if self.present.remove(edge) {
            self.publish_states_of(edge);
        }
    }

    fn publish_states_of(&mut self, edge: &Name) {
        let devices: Vec<DeviceId> =
            self.states.keys().filter(|device| self.is_bound(device, edge)).cloned().collect();
        devices.iter().for_each(|device| self.publish_state(device));
    }

    pub(super) fn publish_state(&mut self, device: &DeviceId) {
        if let Some(state) = self.state(device) {
            self.publish(Publish::retained(&TwinTopic::State { device: device.clone() }, &state));
        }
    }

    /// Whether the device can be worked with: as its edge says, and unknown while the edge is away; `None` before it
    /// said anything.
    pub fn state(&self, device: &DeviceId) -> Option<DeviceState> {
        let said = self.states.get(device)?;
        let node = self.catalog.device(device).and_then(|info| info.node.as_ref());
        Some(match node {
            Some(edge) if !self.present.contains(edge) => DeviceState {
                state: Availability::Unknown,
                reason: format!("edge/{edge} is not connected"),
                last_seen: self.last_seen(device).or(said.last_seen),
            },
            _ => DeviceState { last_seen: self.last_seen(device).or(said.last_seen), ..said.clone() },
        })
    }

    /// Whether [`Self::state`] says so.
    pub(super) fn is_online(&self, device: &DeviceId) -> bool {
        let node = self.catalog.device(device).and_then(|info| info.node.as_ref());
        self.states.get(device).is_some_and(|said| said.state == Availability::Online)
            && node.is_none_or(|edge| self.present.contains(edge))
    }

    fn last_seen(&self, device: &DeviceId) -> Option<bus::UnixMillis> {
        let times = self.ids_of(device).into_iter().filter_map(|id| {
            let reported = self.twins.get(&id)?.reported.as_ref()?;
            Some(reported.sample.as_ref()?.time)
        });
        times.max()
    }
}

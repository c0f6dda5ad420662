//! What a cloud tells of edges and devices as events, for `kubectl describe`.

use bus::twin::DeviceId;
use bus::{Name, Now};
use controller::api::{Id, Kind, Layout};
use controller::event::{self, Event, Severity};
use device_twin::rule::RuleView;
use device_twin::twin::{Availability, DeviceState};
use metadata::Keyspace;

use super::Cloud;

impl Cloud {
    /// Nobody is connected yet. Who watches an edge would else see it as the last process left it, until it comes back.
    pub(super) fn tell_of_restart(&mut self, now: Now) {
        for edge in event::connected(Layout::Cloud, &self.keyspace) {
            self.tell_of_node(&edge, Severity::Warning, event::DISCONNECTED, "the cloud was restarted", now);
        }
    }

    /// A rule stands otherwise, at the edge that speaks for its device.
    pub(super) fn tell_of_rule(&mut self, edge: &Name, key: &str, payload: &[u8], now: Now) {
        let Some(rule) = key.strip_prefix("rule/") else { return };
        let Ok(view) = minicbor::decode::<RuleView>(payload) else { return };
        let output = view.output.rsplit_once('/').and_then(|(device, _)| device.parse().ok());
        let is_its = output.is_some_and(|device: DeviceId| self.twins.is_bound(&device, edge));
        if view.rule == rule && is_its {
            self.herald.handle_rule(&view, &mut self.keyspace, now);
        }
    }

    /// An event about an edge, for `kubectl describe`.
    pub(super) fn tell_of_node(
        &mut self,
        edge: &Name,
        severity: Severity,
        reason: &'static str,
        message: &str,
        now: Now,
    ) {
        let about = Id::from(edge.as_str());
        let message = message.to_owned();
        let kind = Kind::EdgeNode;
        let (at, subject, count) = (now.wall, None, 1);
        let event = Event { kind, about, severity, reason, subject, message, at, count };
        event::record(Layout::Cloud, event, &mut self.keyspace);
    }
}

/// As their edges said last.
pub(super) fn states(keyspace: &Keyspace) -> impl Iterator<Item = (DeviceId, Availability)> {
    keyspace.range("/c/state/").filter_map(|(key, bytes)| {
        let state: DeviceState = minicbor::decode(bytes).ok()?;
        Some((key.as_str().strip_prefix("/c/state/")?.parse().ok()?, state.state))
    })
}

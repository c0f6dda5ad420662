//! Nodes that come, change and go.

use std::collections::BTreeMap;

use bus::bus::LinkId;
use bus::{Channel, Class, Frame, Name, Now, Route};
use bytes::Bytes;
use controller::join::{JoinReply, RefusalCode};
use controller::{access, nodes, route};
use metadata::{Key, Keyspace};

use super::Cloud;
use crate::admin::describe;
use crate::seam::Output;

/// The register's records by key.
type Members = BTreeMap<Key, Bytes>;

impl Cloud {
    pub(super) fn handle_join(&mut self, link: LinkId, request: &[u8], now: Now) {
        let refusal = |message: &str| {
            let reply = JoinReply::Refused { code: RefusalCode::Internal, message: message.to_owned() };
            let frame = Frame::new(Channel::Join, reply.to_bytes());
            Output::Send { link, class: Class::Control, frame }
        };
        if let Some(why) = self.journal.degraded() {
            return self.said.push_back(refusal(&format!("the cloud's disk refuses writes: {why}")));
        }
        let before = nodes_of(&self.keyspace);
        let known = route::translated(&self.keyspace).unwrap_or_default();
        let reply =
            controller::handle_join(&self.cluster, request, &mut self.keyspace, now, &mut self.signer);
        self.on_membership(&before);
        self.note_translated(&known);
        let frame = Frame::new(Channel::Join, reply);
        let otherwise = refusal("the cloud's disk refuses writes: join again once it takes them");
        self.said.promise(Output::Send { link, class: Class::Control, frame }, Some(otherwise));
    }

    /// Says of which LANs the overlay's prefix has changed: hosts elsewhere may still use the old one.
    pub(super) fn note_translated(&mut self, before: &[Route]) {
        let now = route::translated(&self.keyspace).unwrap_or_default();
        for route in now.iter().filter(|route| !before.contains(route)) {
            let (lan, owner, prefix) = (route.behind(), &route.owner, route.prefix);
            self.note(format!("{lan} behind {owner} is known as {prefix}: another LAN overlaps it"));
        }
    }

    /// Nodes came, changed or went: devices that waited for them are bound, and their sites and routes count.
    pub(super) fn on_membership(&mut self, before: &Members) {
        let after = nodes_of(&self.keyspace);
        let mut changed: Vec<&Key> = before.keys().chain(after.keys()).collect();
        changed.retain(|key| before.get(*key) != after.get(*key));
        if changed.is_empty() {
            return; // A refused stranger costs no more than this look.
        }
        let edges =
            changed.iter().filter_map(|key| Name::new(key.as_str().strip_prefix(nodes::PREFIX)?).ok());
        let here: Vec<Name> = edges.filter(|edge| nodes::exists(edge, &self.keyspace)).collect();
        self.binder.handle_changes(changed, &mut self.keyspace);
        let is_member = |edge: &Name| after.contains_key(format!("{}{edge}", nodes::PREFIX).as_str());
        self.mesh.handle_membership(is_member, &mut self.keyspace);
        self.ledger.retain(is_member);
        if let Err(damaged) = access::tell_changed(here, &mut self.keyspace) {
            self.note(format!("edges are not told of access policies: {}", describe(&damaged)));
        }
        self.say_policy();
        self.say_overlay();
        self.say_names();
    }
}

pub(super) fn nodes_of(keyspace: &Keyspace) -> Members {
    keyspace.range(nodes::PREFIX).map(|(key, record)| (key.clone(), record.clone())).collect()
}

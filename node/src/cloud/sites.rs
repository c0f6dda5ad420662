//! Messages between sites: what one of them is told, and by which of two ways first.

use std::ops::Bound;

use bus::twin::{DeviceId, TwinTopic};
use bus::{Filter, Message, NodeId, Now, Qos, Topic};
use bytes::Bytes;
use device_twin::{Publish, Ticket};

use super::Cloud;
use crate::mesh::hub::Output as FromMesh;
use crate::mesh::is_mesh;
use crate::seam::Output;

/// What other sites were last told of a reported value.
#[derive(Debug)]
pub(super) struct Told {
    rev: u64,
    payload: Bytes,
}

impl Cloud {
    /// An app's message; what is neither promised nor retained is worth no disk.
    pub(super) fn say_to_sites(&mut self, ticket: Option<Ticket>, message: Message, now: Now) {
        if message.qos == Qos::AtMostOnce && !message.retain {
            self.bus.publish(message, now);
            return self.said.extend(ticket.map(Output::Accept));
        }
        self.mesh.publish(message, &mut self.keyspace, now.wall);
        if let Some(ticket) = ticket {
            self.said.promise(Output::Accept(ticket), Some(Output::Unkept(ticket)));
        }
    }

    /// What is retained, to a site that newly asks for it; what went straight from site to site may be newer than the
    /// copy here.
    pub(super) fn replay(&mut self, peer: &NodeId, filter: &Filter, now: Now) {
        for Publish { topic, payload, retain, .. } in self.twins.retained(filter) {
            let told =
                self.relayed.get(&topic).filter(|told| rev_of(&payload).is_some_and(|rev| rev < told.rev));
            let payload = told.map_or(payload, |told| told.payload.clone());
            // How long it has been here nobody counts.
            let message = Message::new(topic.clone(), payload, retain, self.origin_of(&topic));
            self.bus.send_to(peer, Message { travelled: None, ..message }, now);
        }
    }

    /// A copy of what an edge reported is that edge's word: so others know whose the device is, and it gets no echo.
    pub(super) fn origin_of(&self, topic: &Topic) -> NodeId {
        let device = match TwinTopic::parse(topic) {
            Some(TwinTopic::Reported { device, .. }) => self.twins.catalog().device(&device),
            Some(_) | None => None,
        };
        let edge = device.and_then(|device| device.node.clone());
        edge.map_or_else(|| self.me.clone(), NodeId::edge)
    }

    /// What a peer says to other sites. Messages of apps pass as they are. A report straight from its edge is fresher
    /// than the copy that comes through the outbox, and says its age; only the edge that has a device speaks for it.
    pub(super) fn on_offer(&mut self, from: &NodeId, message: Message, now: Now) {
        if message.origin != *from {
            return self.note(format!("{from} spoke for {}: not passed on", message.origin));
        }
        if is_mesh(&message.topic) {
            return self.bus.relay(from, message, now);
        }
        let Some(TwinTopic::Reported { device, property }) = TwinTopic::parse(&message.topic) else { return };
        if !self.twins.speaks_for(&from.name, &device)
            || self.twins.catalog().property(&device, &property).is_err()
        {
            return self.note(format!("{from} spoke for {device}, which is not its own: not passed on"));
        }
        // The same version as the copy's is passed on all the same: it alone says its age.
        let Some(rev) = rev_of(&message.payload) else { return };
        if self.relayed.get(&message.topic).is_none_or(|newest| newest.rev <= rev) {
            self.relayed.insert(message.topic.clone(), Told { rev, payload: message.payload.clone() });
            self.bus.relay(from, message, now);
        }
    }

    /// Whether other sites have not heard this yet; only reported values take two ways.
    pub(super) fn is_news(&mut self, topic: &Topic, payload: &Bytes) -> bool {
        let Some(TwinTopic::Reported { .. }) = TwinTopic::parse(topic) else { return true };
        // An empty payload takes the value back.
        let Some(rev) = rev_of(payload) else { return true };
        let is_newer = self.relayed.get(topic).is_none_or(|newest| newest.rev < rev);
        if is_newer {
            self.relayed.insert(topic.clone(), Told { rev, payload: payload.clone() });
        }
        is_newer
    }

    /// A device that moved to another edge is numbered anew: what other sites were told of it counts no more.
    pub(super) fn forget_relayed(&mut self, device: &DeviceId) {
        let prefix = format!("twin/{device}/");
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let its = self.relayed.range::<str, _>(from).map(|(topic, _)| topic);
        let its: Vec<Topic> = its.take_while(|topic| topic.as_str().starts_with(&prefix)).cloned().collect();
        for topic in &its {
            self.relayed.remove(topic);
        }
    }

    pub(super) fn on_mesh(&mut self, output: FromMesh) {
        match output {
            FromMesh::Announce(announcement) => self.said.push_back(Output::Publish(announcement)),
            FromMesh::Note(text) => self.note(text),
        }
    }
}

/// The version within its edge's incarnation; what is no reported value has none.
fn rev_of(payload: &[u8]) -> Option<u64> {
    serde_json::from_slice::<device_twin::twin::ReportedBody>(payload).ok().map(|body| body.rev)
}

//! Messages between an edge's clients and other sites.

use bus::twin::TwinTopic;
use bus::{Class, Filter, Message, NodeId, Now, Qos, Topic};
use device_twin::{Publish, Ticket};
use metadata::PushError;
use metadata::outbox::MAX_MESSAGES;

use super::Edge;
use crate::interest::{announced, is_for_other_sites};
use crate::mesh::is_mesh;
use crate::mesh::leaf::Output as FromMesh;
use crate::seam::Output;

impl Edge {
    /// An app's message. What is neither promised nor retained is worth no disk; what is retained must reach the sites
    /// that ask later, so it takes the same way as what is promised.
    pub(super) fn say_to_sites(&mut self, ticket: Option<Ticket>, message: Message, now: Now) {
        let is_promised = message.qos != Qos::AtMostOnce;
        if !is_promised && !message.retain {
            self.bus.publish(message, now);
            return self.said.extend(ticket.map(Output::Accept));
        }
        let has_room = is_promised || self.replica.messages_len() < MAX_MESSAGES / 2;
        let pushed = match self.mesh.pack(message, now.wall) {
            Ok(packed) if has_room => self.replica.push_message(&packed, &mut self.keyspace, now),
            Ok(_) => Err(PushError::Full),
            Err(why) => {
                return self.said.extend(ticket.map(|ticket| Output::Reject(ticket, why.to_string())));
            }
        };
        if pushed.is_ok() {
            self.mesh_is_full &= self.replica.messages_len() > MAX_MESSAGES / 2;
            if let Some(ticket) = ticket {
                self.said.promise(Output::Accept(ticket), Some(Output::Unkept(ticket)));
            }
            return;
        }
        if !std::mem::replace(&mut self.mesh_is_full, true) {
            self.note("the cloud is away for so long that there is no room for more messages to other sites");
        }
        self.said.extend(ticket.map(Output::Full));
    }

    /// A message from elsewhere: for the clients here and, if it is a twin, for the rules. What only clients here may
    /// say (`set`, `report`, a mapper's topics) does not come in by this door.
    pub(super) fn deliver(&mut self, message: Message, now: Now) {
        let twin = TwinTopic::parse(&message.topic);
        if !self.firsthand.handle_passed_on(&message) || !is_for_other_sites(&message.topic, twin.as_ref()) {
            return;
        }
        if let Some(twin) = twin {
            if self.twins.catalog().device(twin.device()).is_some() {
                return; // The cloud's echo of what this edge itself reported.
            }
            let Message { topic, payload, travelled, .. } = &message;
            self.twins.handle_remote(topic, payload, *travelled, &mut self.keyspace, now);
        }
        self.said.extend(announced(message).map(Output::Publish));
    }

    /// What a neighbour asks for while one of the two does not reach the cloud: the newest of what is read here.
    pub(super) fn replay(&mut self, peer: &NodeId, filter: &Filter, now: Now) {
        let is_reported = |topic: &Topic| matches!(TwinTopic::parse(topic), Some(TwinTopic::Reported { .. }));
        let retained = self.twins.retained(filter, now).into_iter();
        for Publish { topic, payload, retain, .. } in retained.filter(|publish| is_reported(&publish.topic)) {
            let message = Message::new(topic, payload, retain, self.identity.node.clone());
            self.bus.send_to(peer, message, now);
        }
    }

    /// A neighbour says something straight.
    pub(super) fn on_offer(&mut self, from: &NodeId, message: Message, now: Now) {
        let is_of_apps = is_mesh(&message.topic) && message.origin == *from;
        if is_of_apps || self.firsthand.handle_told(from, &message) {
            self.bus.relay(from, message, now);
        }
    }

    pub(super) fn on_mesh(&mut self, output: FromMesh, now: Now) {
        match output {
            FromMesh::Up { key, payload } => self.tell_cloud(Class::State, key, payload, now),
            FromMesh::Announce(announcement) => self.said.push_back(Output::Publish(announcement)),
        }
    }
}

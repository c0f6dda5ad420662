//! What edges are fed, and what they say by the same way.

use bus::twin::TwinTopic;
use bus::{Channel, Class, Frame, Name, NodeId, Now, Topic};
use controller::event::Severity;
use controller::{advert, wireguard};
use metadata::sync::Lane;
use metadata::{Cause, FeedOutput, Tells};

use super::Cloud;
use crate::mesh::leaf;
use crate::seam::Output;

impl Cloud {
    pub(super) fn on_feed(&mut self, output: FeedOutput, now: Now) {
        match output {
            FeedOutput::Send { edge, class, payload, tells } => {
                if let Some(link) = self.bus.link_of(&NodeId::edge(edge)) {
                    let frame = Frame::new(Channel::Metadata, payload);
                    self.say_to_edge(Output::Send { link, class, frame }, tells);
                }
            }
            FeedOutput::Up { edge, entry, .. } if entry.lane == Lane::Mesh => {
                let clock = self.bus.clock_of(&NodeId::edge(edge.clone()), now);
                let theirs = clock.map_or(now.wall, |clock| now.wall.shifted(clock.offset_ms));
                self.mesh.handle_message(&edge, &entry.payload, &mut self.keyspace, theirs, now.wall);
            }
            FeedOutput::Up { edge, entry, .. } if entry.key.starts_with(leaf::UP) => {
                self.mesh.handle_told(&edge, &entry.key, &entry.payload, &mut self.keyspace, now.wall);
            }
            FeedOutput::Up { edge, entry, .. } if entry.key == advert::UP => {
                for lan in advert::handle_told(&edge, &entry.payload, &mut self.keyspace) {
                    let why = format!("nobody has granted it {lan}: kubebus route approve {edge} {lan}");
                    self.tell_of_node(&edge, Severity::Warning, "LanPending", &why, now);
                    self.note(format!(
                        "edge/{edge} names {lan}, which nobody has granted it: kubebus route approve {edge} {lan}"
                    ));
                }
            }
            FeedOutput::Up { edge, entry, .. } if entry.key == wireguard::UP => {
                match minicbor::decode(&entry.payload) {
                    Ok(gateway) => {
                        let node = NodeId::edge(edge);
                        if !wireguard::handle_gateway(&node, Some(&gateway), &mut self.keyspace) {
                            self.note(format!("{node} says that WireGuard clients dial what is no address: not taken"));
                        }
                    }
                    Err(why) => self.note(format!("what edge/{edge} says of its WireGuard gateway cannot be read: {why}")),
                }
            }
            FeedOutput::Up { edge, incarnation, entry } => {
                self.twins.handle_up(&edge, incarnation, &entry.key, &entry.payload, &mut self.keyspace, now);
                self.tell_of_rule(&edge, &entry.key, &entry.payload, now);
            }
            FeedOutput::NewIncarnation { edge, cause, .. } => self.on_new_incarnation(&edge, cause),
            FeedOutput::Gap { edge, class, from, to, .. } => {
                let what = if class == Class::Telemetry { "samples" } else { "events" };
                self.note(format!("edge/{edge} had no room for its {what} {from} to {to}: they are lost"));
            }
            FeedOutput::Differed { edge } => self.note(format!(
                "edge/{edge} held other metadata than it was sent, and is sent it again: its disk or memory may be failing"
            )),
            FeedOutput::Oversized { edge, key } => {
                self.note(format!("{key} is too large for edge/{edge}, which goes without it"));
            }
            FeedOutput::Misbehaved { edge, what } => {
                if let Some(link) = self.bus.link_of(&NodeId::edge(edge)) {
                    self.close(link, &format!("the peer {what}"));
                }
            }
            FeedOutput::Superseded { edge, epoch } => {
                self.superseded = self.superseded.max(Some(epoch));
                self.note(format!(
                    "another cloud, restored from a backup of this one, has taken over (edge/{edge} followed it at \
                     epoch {epoch}): stop this one"
                ));
                let node = NodeId::edge(edge);
                let packets = self.packets.remove(&node);
                for link in self.bus.link_of(&node).into_iter().chain(packets) {
                    self.close(link, "another cloud has taken over from this one");
                }
            }
        }
    }

    /// Its versions start over: what other sites were told of its devices counts no more.
    fn on_new_incarnation(&mut self, edge: &Name, cause: Cause) {
        self.mesh.handle_new_incarnation(edge, cause, &mut self.keyspace);
        let is_its_own = |topic: &Topic| {
            TwinTopic::parse(topic).is_some_and(|twin| self.twins.is_bound(twin.device(), edge))
        };
        self.relayed.retain(|topic, _| !is_its_own(topic));
        self.note(match cause {
                Cause::NewDisk => {
                    format!("edge/{edge} has a new store, first seen, wiped or replaced; it is sent everything")
                }
                Cause::Renewed => format!(
                    "edge/{edge} runs on another store than the one heard last, an old copy or a clone: it goes on as a \
                     new one and is sent everything"
                ),
                Cause::Returned => format!(
                    "two machines take turns as edge/{edge}: stop one, or join it under another name; it is sent \
                     everything"
                ),
            });
    }

    /// Edges must not act on a wish that a crash here could undo: its number would be given to another one. While the
    /// disk refuses, what edges follow does not change, so they are served, unless something was just being written.
    /// What is left out the feed says again.
    fn say_to_edge(&mut self, output: Output, tells: Tells) {
        let may_be_undone = match (tells, self.journal.degraded()) {
            (Tells::Nothing, _) => false,
            (Tells::Shared, Some(_)) => self.keyspace.is_followed_after(self.journal.durable()),
            (Tells::Shared, None) | (Tells::Stored, _) => true,
        };
        match may_be_undone {
            true => self.said.promise(output, None),
            false => self.said.push_back(output),
        }
    }
}

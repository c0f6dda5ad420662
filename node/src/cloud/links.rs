//! Links to a cloud: whose they are, and who is introduced to whom over them.

use std::net::SocketAddr;

use bus::bus::LinkId;
use bus::{Channel, Class, Frame, KeyHash, NodeId, NodeKind, Now, PathMessage};
use controller::{access, nodes};

use super::Cloud;
use crate::seam::Output;

impl Cloud {
    /// A certificate lives longer than a membership, and a name may have been given to another key since: who is not
    /// in the register as it stands now is turned away here.
    ///
    /// One that shows its next key for the first time has no other one from then on.
    fn is_member(&mut self, peer: &NodeId, key: KeyHash) -> bool {
        let known = nodes::get(&peer.name, &self.keyspace).ok().flatten();
        if peer.kind != NodeKind::Edge || known.is_none_or(|node| node.until(key).is_none()) {
            return false;
        }
        if let Ok(Some(_)) = nodes::promote(&peer.name, key, &mut self.keyspace) {
            self.note(format!("{peer} uses its next certificate: the one before counts no more"));
        }
        true
    }

    fn turn_away(&mut self, link: LinkId, peer: &NodeId) {
        self.note(format!("turned {peer} away: not a member, or with another key"));
        self.close(link, "not a member of this cluster any more: join again");
    }

    pub(super) fn handle_link_up(&mut self, link: LinkId, peer: NodeId, key: KeyHash, now: Now) {
        if let Some(term) = self.term.filter(|_| peer == self.me) {
            self.standbys.insert(link);
            return self.say_leads(link, term);
        }
        if !self.is_member(&peer, key) {
            return self.turn_away(link, &peer);
        }
        match self.term {
            Some(term) => {
                let older = self.offered.iter().find(|(_, (offered, _))| *offered == peer);
                if let Some(older) = older.map(|(link, _)| *link) {
                    self.offered.remove(&older);
                    self.close(older, "replaced by a newer link of the same node");
                }
                self.offered.insert(link, (peer, key));
                self.say_leads(link, term);
            }
            None => self.bus.handle_link_up(link, peer, now),
        }
    }

    /// Nothing else before the other side has answered: it may follow another replica.
    fn say_leads(&mut self, link: LinkId, term: u64) {
        let frame = Frame::new(Channel::Path, PathMessage::Leads { term }.to_bytes());
        self.said.push_back(Output::Send { link, class: Class::Control, frame });
    }

    /// An edge speaks: it follows this replica.
    pub(super) fn handle_followed(&mut self, link: LinkId, now: Now) {
        let Some((peer, key)) = self.offered.remove(&link) else { return };
        if self.is_member(&peer, key) {
            self.bus.handle_link_up(link, peer, now);
        } else {
            self.turn_away(link, &peer);
        }
    }

    pub(super) fn handle_peer_packets(
        &mut self,
        link: LinkId,
        peer: NodeId,
        key: KeyHash,
        remote: SocketAddr,
    ) {
        if self.is_member(&peer, key) {
            self.introducer.handle_seen(peer.clone(), key, remote);
            self.packets.insert(peer, link);
            self.said.push_back(Output::Admit { link });
        } else {
            self.turn_away(link, &peer);
        }
    }

    pub(super) fn handle_packets_down(&mut self, link: LinkId) {
        let gone: Vec<NodeId> =
            self.packets.iter().filter(|(_, kept)| **kept == link).map(|(node, _)| node.clone()).collect();
        for node in gone {
            self.packets.remove(&node);
            self.introducer.handle_unseen(&node);
        }
    }

    /// Two edges that wish for each other are introduced.
    pub(super) fn handle_path(&mut self, link: LinkId, payload: &[u8], now: Now) {
        let Some(peer) = self.bus.peer_of(link).cloned() else { return };
        match PathMessage::from_bytes(payload) {
            Some(PathMessage::Here { addresses }) => self.introducer.handle_here(peer, addresses),
            Some(PathMessage::Wish { peer: wished }) => {
                let Some(met) = self.introducer.handle_wish(&peer, &wished, now.mono) else { return };
                // Where others are is nobody else's business.
                if !access::may_talk(&peer, &wished, &self.keyspace).unwrap_or(false) {
                    return;
                }
                for (node, message) in met {
                    if let Some(link) = self.bus.link_of(&node) {
                        let frame = Frame::new(Channel::Path, message.to_bytes());
                        self.said.push_back(Output::Send { link, class: Class::Control, frame });
                    }
                }
            }
            Some(
                PathMessage::Meet { .. }
                | PathMessage::Upstream { .. }
                | PathMessage::Standby
                | PathMessage::Leads { .. },
            )
            | None => {
                self.close(link, "the peer sent a message about paths that makes no sense here");
            }
        }
    }
}

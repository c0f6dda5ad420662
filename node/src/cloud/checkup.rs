//! Edges look at themselves when this cloud asks, and hear what it sees of them.

use std::sync::Arc;

use bus::bus::LinkId;
use bus::{Channel, Class, Frame, Name, NodeId, Now};
use controller::nodes::{self, NodeRecord};

use super::Cloud;
use crate::admin::{self, AdminError};
use crate::checkup::asking::Output as FromAsking;
use crate::checkup::{Outcome, Seen};
use crate::health::fleet::MAX_BEHIND;
use crate::health::ledger::Member;
use crate::seam::Output;

impl Cloud {
    /// Asks an edge to look at itself: the answer comes when it was heard, or was waited for long enough.
    pub(super) fn examine(&mut self, id: u64, node: &Name, now: Now) {
        if !nodes::exists(node, &self.keyspace) {
            let why = format!("no node '{node}'; see 'kubebus get nodes'");
            return self.said.push_back(Output::Admin { id, response: Err(AdminError::NotFound(why)) });
        }
        let peer = NodeId::edge(node.clone());
        let link = match self.bus.link_of(&peer) {
            None => Err(Outcome::NotConnected),
            Some(_) if !self.bus.takes_checkups(&peer) => Err(Outcome::Cannot),
            Some(link) => Ok(link),
        };
        self.asking.ask(id, node, link, now.mono);
    }

    pub(super) fn handle_checkup(&mut self, link: LinkId, payload: &[u8], now: Now) {
        // A frame that crossed with a close finds no peer.
        let Some(edge) = self.bus.peer_of(link).map(|peer| peer.name.clone()) else { return };
        let mut asking = std::mem::take(&mut self.asking);
        asking.handle_frame((&edge, link), payload, || self.sees(&edge, now), now.mono);
        self.asking = asking;
    }

    /// This end of the link to an edge.
    fn sees(&self, edge: &Name, now: Now) -> Seen {
        let peer = NodeId::edge(edge.clone());
        let member = nodes::get(edge, &self.keyspace).ok().flatten();
        let newest =
            |member: &NodeRecord| member.next.as_ref().map_or(member.not_after, |next| next.not_after);
        let certificate_ends = member.as_ref().map(newest);
        let heard = member.and_then(|member| {
            let (name, site) = (member.name, member.site);
            let known = Member { name, site, is_known: true, clock_offset_ms: None, behind: None };
            self.ledger.facts(known, now.mono).condition
        });
        let trouble = heard.as_ref().and_then(|condition| condition.about.trouble.as_ref());
        let condition = Arc::clone(self.monitor.condition());
        Seen {
            time: now.wall,
            links: crate::checkup::wire::links_to(&condition, &peer),
            measured_ms_ago: self.monitor.age(now.mono).map(|age| age.as_millis() as u64),
            certificate_ends,
            clock_offset_ms: self.bus.clock_of(&peer, now).map(|clock| clock.offset_ms),
            behind: self.feed.behind(edge, MAX_BEHIND, &self.keyspace).map(|keys| keys as u64),
            last_error: trouble.map(|trouble| trouble.detail.clone()),
            version: condition.about.version.clone(),
        }
    }

    pub(super) fn on_asking(&mut self, output: FromAsking) {
        match output {
            FromAsking::Send { link, message } => {
                let frame = Frame::new(Channel::Checkup, message.to_bytes());
                self.said.push_back(Output::Send { link, class: Class::Event, frame });
            }
            FromAsking::Tell { id, examined } => {
                self.said.push_back(Output::Admin { id, response: admin::document(&examined) });
            }
        }
    }
}

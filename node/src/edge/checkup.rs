//! This edge looks at itself when its cloud asks, and asks what its cloud sees of it.

use bus::bus::LinkId;
use bus::{Channel, Class, Frame, Now};

use super::Edge;
use crate::admin;
use crate::checkup::asked::{Answer, Output as FromAsked};
use crate::seam::Output;

impl Edge {
    /// Only the cloud that is followed is heard: who is at the other end is known by his certificate.
    pub(super) fn handle_checkup(&mut self, link: LinkId, payload: &[u8], now: Now) {
        if self.bus.link_of(&self.cloud) == Some(link) {
            self.asked.handle_frame(link, payload, now.mono);
        } else {
            self.asked.handle_stranger();
        }
    }

    /// What the cloud sees of this edge: the answer comes when it was heard, or was waited for long enough.
    pub(super) fn look(&mut self, id: u64, now: Now) {
        let link = match self.bus.link_of(&self.cloud) {
            None => Err(Answer::NotConnected),
            Some(_) if !self.bus.takes_checkups(&self.cloud) => Err(Answer::Cannot),
            Some(link) => Ok(link),
        };
        self.asked.look(id, link, now.mono);
    }

    pub(super) fn on_asked(&mut self, output: FromAsked) {
        match output {
            FromAsked::Send { link, message } => {
                let frame = Frame::new(Channel::Checkup, message.to_bytes());
                self.said.push_back(Output::Send { link, class: Class::Event, frame });
            }
            FromAsked::Examine { id } => self.said.push_back(Output::Examine { id }),
            FromAsked::Tell { id, looked } => {
                self.said.push_back(Output::Admin { id, response: admin::document(&looked) });
            }
        }
    }
}

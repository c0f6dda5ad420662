//! What the cloud asks of the history that is kept here.

use bus::bus::LinkId;
use bus::{Channel, Class, Frame};

use super::Edge;
use crate::history::telling::Output as FromTelling;
use crate::seam::Output;

impl Edge {
    /// Nobody but the cloud is answered: a frame that crossed with a close, or a neighbour's, is left alone.
    pub(super) fn handle_history(&mut self, link: LinkId, payload: &[u8]) {
        if self.bus.link_of(&self.cloud) == Some(link) {
            self.telling.handle_frame(link, payload);
        }
    }

    /// Of class telemetry: whatever twins have to say goes first.
    pub(super) fn on_telling(&mut self, output: FromTelling) {
        match output {
            FromTelling::Recall(question) => self.said.push_back(Output::Recall(question)),
            FromTelling::Send { link, payload } if self.bus.link_of(&self.cloud) == Some(link) => {
                let frame = Frame::new(Channel::History, payload);
                self.said.push_back(Output::Send { link, class: Class::Telemetry, frame });
            }
            // The link on which it was asked is gone, and who asked knows.
            FromTelling::Send { .. } => {}
        }
    }
}

//! The history of devices, which their edges keep.

use bus::bus::LinkId;
use bus::{Channel, Class, Frame, Name, NodeId, Now};
use controller::{Placement, nodes};

use super::Cloud;
use crate::admin::{self, AdminError};
use crate::health::fleet::Known;
use crate::history::inquiries::Output as FromInquiries;
use crate::history::{Question, shown};
use crate::seam::Output;

impl Cloud {
    pub(super) fn ask_for_history(&mut self, id: u64, question: Question, now: Now) {
        match self.keeper(&question, now) {
            Ok(edge) => self.inquiries.handle_question(&edge, id, question, now.mono),
            Err(error) => self.said.push_back(Output::Admin { id, response: Err(error) }),
        }
    }

    /// The edge that can be asked.
    fn keeper(&self, question: &Question, now: Now) -> Result<Name, AdminError> {
        let device = question.device().ok_or_else(|| {
            AdminError::Invalid("history: name a device; each edge keeps that of its own".to_owned())
        })?;
        let edge = match self.binder.device(device) {
            Some(Placement::At(edge)) => edge,
            Some(waits) => return Err(AdminError::Away(format!("{device} has no history yet: {waits}"))),
            None => return Err(admin::unknown_device(device)),
        };
        let node = NodeId::edge(edge.clone());
        match self.bus.takes_history(&node) {
            Some(true) => Ok(edge),
            None if self.bus.link_of(&node).is_some() => {
                Err(AdminError::Away(format!("{node} has just come: ask again in a second")))
            }
            Some(false) => Err(AdminError::Away(format!(
                "{node} is of a version that cannot be asked for its history: update it, or ask at {node} itself"
            ))),
            None => Err(AdminError::Away(self.is_away(&edge, now))),
        }
    }

    fn is_away(&self, edge: &Name, now: Now) -> String {
        let Ok(Some(record)) = nodes::get(edge, &self.keyspace) else {
            return format!("edge/{edge} is no member any more");
        };
        let Known { site, since, .. } = self.ledger.facts(self.member(record, now), now.mono).known;
        let site = site.map_or_else(String::new, |site| format!(" of site {site}"));
        let since = since.map_or("this cloud's start".to_owned(), shown::time);
        format!("edge/{edge}{site} is away since {since}; its history is there: ask again when it is back")
    }

    /// A frame that crossed with a close finds no peer.
    pub(super) fn handle_history(&mut self, link: LinkId, payload: &[u8]) {
        if let Some(edge) = self.bus.peer_of(link).map(|peer| peer.name.clone()) {
            self.inquiries.handle_frame(&edge, payload);
        }
    }

    pub(super) fn on_inquiries(&mut self, output: FromInquiries) {
        match output {
            FromInquiries::Send { edge, payload } => {
                if let Some(link) = self.bus.link_of(&NodeId::edge(edge)) {
                    let frame = Frame::new(Channel::History, payload);
                    self.said.push_back(Output::Send { link, class: Class::Telemetry, frame });
                }
            }
            FromInquiries::Answer { id, edge, told } => {
                let response = told
                    .map(shown::document)
                    .map_err(|why| AdminError::Away(format!("edge/{edge} does not tell its history: {why}")));
                self.said.push_back(Output::Admin { id, response });
            }
        }
    }
}

//! An edge's links to its cloud and its neighbours.

use bus::bus::LinkId;
use bus::{Channel, Class, Frame, Now, PathMessage};
use router::direct::{self, LaneOf};

use super::Edge;
use super::lines::Output as FromLines;
use crate::seam::{DialLane, Output};

impl Edge {
    /// The cloud introduces a neighbour, or one of them says how it is.
    pub(super) fn handle_path(&mut self, link: LinkId, payload: &[u8], now: Now) {
        let is_cloud = self.bus.link_of(&self.cloud) == Some(link);
        match PathMessage::from_bytes(payload) {
            Some(PathMessage::Standby) => self.lines.handle_standby(link),
            Some(PathMessage::Leads { term }) => self.lines.handle_leads(link, Some(term)),
            Some(PathMessage::Meet { peer, key, addresses, dials }) if is_cloud => {
                self.neighbours.handle_meet(&peer, key, (addresses, dials), now.mono);
            }
            Some(PathMessage::Upstream { connected }) if !is_cloud => {
                self.neighbours.handle_upstream(link, connected);
            }
            // A frame that crossed with a close.
            Some(_) if self.bus.peer_of(link).is_none() => {}
            Some(_) | None => {
                self.close(link, "the peer sent a message about paths that makes no sense here")
            }
        }
    }

    /// Tells the cloud where others of the same network may reach this edge.
    pub(super) fn say_where(&mut self) {
        let addresses = self.local.clone();
        self.say_path(&PathMessage::Here { addresses });
    }

    fn say_path(&mut self, message: &PathMessage) {
        if let Some(link) = self.bus.link_of(&self.cloud) {
            let frame = Frame::new(Channel::Path, message.to_bytes());
            self.said.push_back(Output::Send { link, class: Class::Control, frame });
        }
    }

    pub(super) fn drain_lines(&mut self, now: Now) {
        while let Some(output) = self.lines.poll_output() {
            self.on_lines(output, now);
        }
    }

    pub(super) fn on_lines(&mut self, output: FromLines, now: Now) {
        match output {
            FromLines::Dial { line, lane, attempt } => {
                self.said.push_back(Output::Dial { line, lane, attempt });
            }
            FromLines::Follow(link) => self.bus.handle_link_up(link, self.cloud.clone(), now),
            FromLines::Admit(link) => self.said.push_back(Output::Admit { link }),
            FromLines::Close(link, why) => self.close(link, why),
        }
    }

    pub(super) fn on_neighbours(&mut self, output: direct::Output, now: Now) {
        use direct::Output as FromNeighbours;
        match output {
            FromNeighbours::Wish { peer } => self.say_path(&PathMessage::Wish { peer }),
            FromNeighbours::Dial { attempt, peer, lane, address } => {
                let lane = match lane {
                    LaneOf::Bus => DialLane::Bus,
                    LaneOf::Packets => DialLane::Packets,
                };
                self.said.push_back(Output::DialNeighbour { lane, attempt, peer, address });
            }
            FromNeighbours::Knock { addresses } => self.said.push_back(Output::Knock { addresses }),
            FromNeighbours::Admit { link } => self.said.push_back(Output::Admit { link }),
            FromNeighbours::Close { link, why } => self.close(link, why),
            FromNeighbours::BusUp { link, peer } => self.bus.handle_link_up(link, peer, now),
            FromNeighbours::Upstream { link, connected } => {
                let frame = Frame::new(Channel::Path, PathMessage::Upstream { connected }.to_bytes());
                self.said.push_back(Output::Send { link, class: Class::Control, frame });
            }
            FromNeighbours::Reserve { peer, in_reserve } => self.bus.set_in_reserve(&peer, in_reserve),
            FromNeighbours::Note(text) => self.note(&text),
        }
    }
}

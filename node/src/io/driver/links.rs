//! What the shard says of links.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use bus::Channel;
use bus::bus::LinkId;
use router::io::shard::{Command, DialError, Event, Lane};
use tracing::{debug, info};

use super::Driver;
use crate::health::{Trouble, TroubleKind};
use crate::io::debug::dials;
use crate::io::metrics;
use crate::renewal::News;
use crate::seam::{DialLane, Input, Line};

impl Driver {
    pub(super) fn on_shard(&mut self, event: Event) {
        match event {
            Event::Up { link, attempt, peer, remote, lane } => {
                debug!(link = link.0, %lane, %remote, "link up");
                self.state.lanes.insert(link, lane);
                if let (Lane::Renew, Some(asker)) = (lane, &peer) {
                    self.state.renewing.insert(link, asker.clone());
                }
                attempt.map(|attempt| self.state.neighbours.remove(&attempt));
                if let Some((line, _)) = attempt.and_then(|attempt| self.state.dials.remove(&attempt)) {
                    self.on_upstream(line, link, lane, remote);
                }
                match (lane, peer, attempt) {
                    (Lane::Bus, Some((peer, key)), attempt) => {
                        self.handle(Input::LinkUp { link, peer, key, attempt });
                    }
                    (Lane::Packets, Some((peer, key)), Some(attempt)) => {
                        self.handle(Input::PacketsUp { link, peer, key, attempt });
                    }
                    (Lane::Packets, Some((peer, key)), None) => {
                        self.handle(Input::PeerPackets { link, peer, key, remote });
                    }
                    // A join says what it wants in its first frame.
                    (Lane::Join | Lane::Renew, ..) | (Lane::Bus | Lane::Packets, None, _) => {}
                }
            }
            Event::Failed { attempt, why } => {
                if self.state.neighbours.remove(&attempt) {
                    debug!(%why, "cannot reach a neighbour");
                } else if self.on_dial_failed(attempt, &why) {
                    self.handle(Input::Certificate(News::Over));
                }
                self.handle(Input::DialFailed { attempt, retry_after: why.retry_after() });
            }
            Event::Down { link, why, .. } => {
                debug!(link = link.0, why, "link down");
                let now = self.clock.now();
                let at = self.upstream.as_ref().and_then(|upstream| upstream.address_of(link));
                if let Some(at) = at {
                    dials::record_end(&mut self.state.failures, at.to_string(), &why, now.wall);
                }
                let is_bus = self.state.lanes.get(&link) == Some(&Lane::Bus);
                if at.is_some() && is_bus && dials::is_turned_away(&why) {
                    self.handle(Input::Certificate(News::TurnedAway));
                }
                if self.upstream.as_mut().is_some_and(|upstream| upstream.handle_down(link, now.mono)) {
                    self.on_trouble(TroubleKind::LinkLost, format!("the link to the cloud ended: {why}"));
                }
                match self.state.lanes.remove(&link) {
                    Some(Lane::Bus) => self.handle(Input::LinkDown { link }),
                    Some(Lane::Packets) => self.handle(Input::PacketsDown { link }),
                    Some(Lane::Join | Lane::Renew) | None => {}
                }
                self.state.renewing.remove(&link);
            }
            Event::Frame { link, frame } if self.state.renewing.contains_key(&link) => {
                // One request a connection, as for those that join.
                self.state.lanes.remove(&link);
                if let Some((peer, key)) = self.state.renewing.remove(&link) {
                    self.handle(Input::Renew { link, peer, key, request: frame.payload });
                }
            }
            Event::Frame { link, frame } if self.state.lanes.get(&link) == Some(&Lane::Join) => {
                // One request a connection: strangers get no more of our time.
                self.state.lanes.remove(&link);
                if frame.channel == Channel::Join {
                    self.handle(Input::Join { link, request: frame.payload });
                }
            }
            Event::Frame { link, .. } if !self.state.lanes.contains_key(&link) => {
                self.command(Command::Close { link, reason: "one request is enough".into() });
            }
            Event::Frame { link, frame } => self.handle(Input::Frame { link, frame }),
            Event::Moved { link, remote } => self.handle(Input::Moved { link, remote }),
            Event::Talk { peers } => self.handle(Input::Talk { peers }),
            Event::Report { id, links } => self.on_report(id, &links),
        }
    }

    /// Whether the cloud would take our next certificate: nobody else's word counts for that.
    fn on_dial_failed(&mut self, attempt: u64, why: &DialError) -> bool {
        let dialled = self.state.dials.remove(&attempt);
        let is_over = dialled.is_some() && why.is_renewable();
        if let Some((Line::Second, _)) = dialled {
            debug!(%why, "cannot reach a replica of the cloud that stands by");
            return is_over;
        }
        info!(%why, "cannot reach the cloud");
        self.state.trouble = Some(metrics::trouble_of_dial(why, self.clock.now().wall));
        let at = dialled.map_or_else(String::new, |(_, address)| address.to_string());
        dials::record(&mut self.state.failures, at, why, self.clock.now().wall);
        is_over
    }

    fn on_upstream(&mut self, line: Line, link: LinkId, lane: Lane, remote: SocketAddr) {
        if lane == Lane::Bus {
            let port = self.shard.local_addr().port();
            let addresses = local_address(remote).map(|ip| SocketAddr::new(ip, port)).into_iter().collect();
            self.handle(Input::Local { addresses });
        }
        let Some(upstream) = &mut self.upstream else { return };
        let lane = match lane {
            Lane::Bus => DialLane::Bus,
            Lane::Packets => DialLane::Packets,
            Lane::Join | Lane::Renew => return,
        };
        if let Some(stale) = upstream.handle_up((line, lane), link, remote, self.clock.now().mono) {
            self.command(Command::Close { link: stale, reason: "the cloud is elsewhere now".into() });
        }
    }

    pub(super) fn on_trouble(&mut self, kind: TroubleKind, detail: String) {
        self.state.trouble = Some(Trouble { kind, detail, at: self.clock.now().wall });
    }
}

/// The address from which this machine sends towards `remote`. Nothing is sent.
fn local_address(remote: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

//! Whom an edge dials, and where: the endpoints that it joined by and those that the cloud told it since.

use std::net::SocketAddr;

use bus::bus::LinkId;
use bus::{Identity, Mono};
use router::dial::PROVEN_AFTER;

use super::cli::host_and_port;
use crate::seam::DialLane;

/// A host and its UDP port.
pub type Endpoint = (String, u16);

/// Where to dial next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To be looked up at each dial: names move.
    Endpoint(Endpoint),
    Address(SocketAddr),
}

/// One cloud at several endpoints.
///
/// 1. The bus lane takes the endpoints in turn: those told by the cloud first, then those of the joining, which stay
///    the last resort. A dead endpoint costs one try a round.
/// 2. An endpoint that held a link for [`PROVEN_AFTER`] has the next turn too: a cut is no move.
/// 3. The packets lane goes where the bus lane stands; if that is elsewhere than where it stood, it is closed.
#[derive(Debug)]
pub struct Upstream {
    pub cloud: Identity,
    joined: Vec<Endpoint>,
    told: Vec<Endpoint>,
    turn: usize,
    /// The endpoint in turn is to be dialled (again), and not the one after it.
    stays: bool,
    bus: Option<Standing>,
    packets: Option<Standing>,
}

/// A link that is up.
#[derive(Debug, Clone, Copy)]
struct Standing {
    link: LinkId,
    remote: SocketAddr,
    since: Mono,
}

/// Why an endpoint that the cloud tells is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an endpoint that the cloud tells is not used: {0}")]
pub struct InvalidEndpoint(String);

impl Upstream {
    /// `joined` is what `kubebus join` stored.
    pub fn new(cloud: Identity, joined: Vec<Endpoint>) -> Self {
        Self { cloud, joined, told: Vec::new(), turn: 0, stays: true, bus: None, packets: None }
    }

    /// The cloud says where it can be dialled; the link that stands is kept. Returns what makes no sense.
    pub fn handle_told(&mut self, endpoints: &[String]) -> Vec<InvalidEndpoint> {
        let (mut told, mut invalid) = (Vec::new(), Vec::new());
        for text in endpoints {
            match host_and_port(text) {
                Ok(endpoint) => told.push(endpoint),
                Err(why) => invalid.push(InvalidEndpoint(why)),
            }
        }
        if told != self.told {
            self.told = told;
            (self.turn, self.stays) = (0, true);
        }
        invalid
    }

    /// Where `lane` is dialled now.
    pub fn next(&mut self, lane: DialLane) -> Option<Target> {
        let endpoints = self.endpoints();
        let stays = match lane {
            DialLane::Bus => std::mem::replace(&mut self.stays, false),
            DialLane::Packets => true,
        };
        self.turn = (self.turn + usize::from(!stays)) % endpoints.len().max(1);
        match (lane, self.bus) {
            (DialLane::Packets, Some(bus)) => Some(Target::Address(bus.remote)),
            (DialLane::Bus | DialLane::Packets, _) => {
                endpoints.into_iter().nth(self.turn).map(Target::Endpoint)
            }
        }
    }

    /// A dialled link stands. Returns the packets link that leads elsewhere now and is to be closed.
    pub fn handle_up(
        &mut self,
        lane: DialLane,
        link: LinkId,
        remote: SocketAddr,
        now: Mono,
    ) -> Option<LinkId> {
        let standing = Some(Standing { link, remote, since: now });
        match lane {
            DialLane::Bus => self.bus = standing,
            DialLane::Packets => self.packets = standing,
        }
        let (bus, packets) = (self.bus?, self.packets?);
        (packets.remote != bus.remote).then_some(packets.link)
    }

    pub fn handle_down(&mut self, link: LinkId, now: Mono) {
        if let Some(bus) = self.bus.take_if(|bus| bus.link == link) {
            self.stays |= now.since(bus.since) >= PROVEN_AFTER;
        }
        self.packets.take_if(|packets| packets.link == link);
    }

    /// Told, then joined, each once.
    fn endpoints(&self) -> Vec<Endpoint> {
        let joined = self.joined.iter().filter(|endpoint| !self.told.contains(endpoint));
        self.told.iter().chain(joined).cloned().collect()
    }
}

/// Resolves nothing, parses only: `host:port` as it is configured, or as `kubebus join` stored it.
pub fn parse_endpoints(endpoints: &[String]) -> Result<Vec<Endpoint>, String> {
    endpoints.iter().map(|text| host_and_port(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LONG: Duration = PROVEN_AFTER;

    fn endpoint(host: &str) -> Endpoint {
        (host.to_owned(), 1)
    }

    fn upstream(joined: &[&str], told: &[&str]) -> Upstream {
        let cloud = "spiffe://water/cloud/hub".parse().unwrap();
        let mut upstream = Upstream::new(cloud, joined.iter().map(|host| endpoint(host)).collect());
        tell(&mut upstream, told);
        upstream
    }

    fn tell(upstream: &mut Upstream, told: &[&str]) {
        let told: Vec<String> = told.iter().map(|host| format!("{host}:1")).collect();
        assert_eq!(upstream.handle_told(&told), []);
    }

    fn bus(upstream: &mut Upstream) -> String {
        match upstream.next(DialLane::Bus) {
            Some(Target::Endpoint((host, _))) => host,
            other => panic!("{other:?}"),
        }
    }

    fn up(upstream: &mut Upstream, lane: DialLane, link: u64, remote: &str) -> Option<LinkId> {
        upstream.handle_up(lane, LinkId(link), remote.parse().unwrap(), Mono::ZERO)
    }

    #[test]
    fn what_the_cloud_tells_comes_before_where_it_was_joined_and_all_take_turns() {
        let mut upstream = upstream(&["old", "shared"], &["new", "shared"]);
        let dialled: Vec<String> = (0..4).map(|_| bus(&mut upstream)).collect();
        assert_eq!(dialled, ["new", "shared", "old", "new"]);
    }

    #[test]
    fn an_endpoint_that_held_its_link_is_dialled_again_and_one_that_lost_it_at_once_is_not() {
        let mut upstream = upstream(&["a", "b"], &[]);
        assert_eq!(bus(&mut upstream), "a");
        up(&mut upstream, DialLane::Bus, 1, "192.0.2.1:1");
        upstream.handle_down(LinkId(1), Mono::ZERO + LONG);
        assert_eq!(bus(&mut upstream), "a");
        up(&mut upstream, DialLane::Bus, 2, "192.0.2.1:1");
        upstream.handle_down(LinkId(2), Mono::ZERO);
        assert_eq!(bus(&mut upstream), "b");
    }

    #[test]
    fn a_new_address_has_the_next_turn_and_the_link_that_stands_is_kept() {
        let mut upstream = upstream(&["old"], &[]);
        assert_eq!(bus(&mut upstream), "old");
        up(&mut upstream, DialLane::Bus, 1, "192.0.2.1:1");
        tell(&mut upstream, &["new"]);
        upstream.handle_down(LinkId(1), Mono::ZERO);
        assert_eq!(bus(&mut upstream), "new");
        assert_eq!(bus(&mut upstream), "old");
        // The same again is no news.
        tell(&mut upstream, &["new"]);
        assert_eq!(bus(&mut upstream), "new");
    }

    #[test]
    fn packets_go_where_the_bus_lane_stands() {
        let mut upstream = upstream(&["old", "new"], &[]);
        assert_eq!(bus(&mut upstream), "old");
        assert_eq!(upstream.next(DialLane::Packets), Some(Target::Endpoint(endpoint("old"))));
        assert_eq!(up(&mut upstream, DialLane::Packets, 2, "192.0.2.1:1"), None);
        assert_eq!(up(&mut upstream, DialLane::Bus, 1, "192.0.2.1:1"), None);
        upstream.handle_down(LinkId(1), Mono::ZERO);
        assert_eq!(bus(&mut upstream), "new");
        assert_eq!(up(&mut upstream, DialLane::Bus, 3, "192.0.2.9:1"), Some(LinkId(2)));
        upstream.handle_down(LinkId(2), Mono::ZERO);
        let there = Target::Address("192.0.2.9:1".parse().unwrap());
        assert_eq!(upstream.next(DialLane::Packets), Some(there));
    }

    #[test]
    fn an_endpoint_that_makes_no_sense_is_left_out() {
        let mut upstream = upstream(&["old"], &[]);
        let invalid = upstream.handle_told(&["new:port".to_owned(), "new:1".to_owned()]);
        assert_eq!(invalid, [InvalidEndpoint("'port' is no port".to_owned())]);
        assert_eq!((bus(&mut upstream), bus(&mut upstream)), ("new".to_owned(), "old".to_owned()));
    }
}

//! Whom an edge dials, and where: the endpoints that it joined by and those that the cloud told it since.

use std::net::SocketAddr;

use bus::bus::LinkId;
use bus::{Identity, Mono};
use router::dial::PROVEN_AFTER;

use super::cli::host_and_port;
use crate::seam::{DialLane, Line};

/// A host and its UDP port.
pub type Endpoint = (String, u16);

/// Where to dial next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To be looked up at each dial: names move.
    Endpoint(Endpoint),
    Address(SocketAddr),
}

/// One cloud at several endpoints, and the two lines to it.
///
/// 1. A line's bus lane takes the endpoints in turn: those told by the cloud first, then those of the joining, which stay
///    the last resort. A dead endpoint costs one try a round.
/// 2. An endpoint that held a link for [`PROVEN_AFTER`] has the next turn too: a cut is no move.
/// 3. The packets lane goes where the bus lane stands; if that is elsewhere than where it stood, it is closed.
/// 4. A lane that is made anew while it stands goes where it stands.
/// 5. Where one line stands the other has no turn.
#[derive(Debug)]
pub struct Upstream {
    pub cloud: Identity,
    joined: Vec<Endpoint>,
    told: Vec<Endpoint>,
    lines: [Way; 2],
    /// Whose turn it is to be asked for a certificate where no link stands.
    asked: usize,
}

/// Where one line leads.
#[derive(Debug)]
struct Way {
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

impl Way {
    fn new(turn: usize) -> Self {
        Self { turn, stays: true, bus: None, packets: None }
    }
}

/// Why an endpoint that the cloud tells is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an endpoint that the cloud tells is not used: {0}")]
pub struct InvalidEndpoint(String);

impl Upstream {
    /// `joined` is what `kubebus join` stored.
    pub fn new(cloud: Identity, joined: Vec<Endpoint>) -> Self {
        Self { cloud, joined, told: Vec::new(), lines: [Way::new(0), Way::new(1)], asked: 0 }
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
            for (turn, line) in self.lines.iter_mut().enumerate() {
                (line.turn, line.stays) = (turn, true);
            }
        }
        invalid
    }

    fn line(&self, line: Line) -> &Way {
        match line {
            Line::First => &self.lines[0],
            Line::Second => &self.lines[1],
        }
    }

    fn line_mut(&mut self, line: Line) -> &mut Way {
        match line {
            Line::First => &mut self.lines[0],
            Line::Second => &mut self.lines[1],
        }
    }

    /// Where a lane is dialled now; `None` if the other line has the only endpoint there is.
    pub fn next(&mut self, line: Line, lane: DialLane) -> Option<Target> {
        let endpoints = self.endpoints();
        let taken = Some(self.line(line.other())).filter(|other| other.bus.is_some()).map(|other| other.turn);
        let way = self.line_mut(line);
        if let Some(bus) = way.bus {
            return Some(Target::Address(bus.remote));
        }
        let stays = match lane {
            DialLane::Bus => std::mem::replace(&mut way.stays, false),
            DialLane::Packets => true,
        };
        let count = endpoints.len().max(1);
        let first = way.turn + usize::from(!stays);
        way.turn = (first..first + count).map(|turn| turn % count).find(|turn| Some(*turn) != taken)?;
        endpoints.into_iter().nth(way.turn).map(Target::Endpoint)
    }

    /// Where the next certificate is asked for: at the end of this line, or at all endpoints in turn.
    pub fn to_renew(&mut self, line: Line) -> Option<Target> {
        if let Some(bus) = self.line(line).bus {
            return Some(Target::Address(bus.remote));
        }
        let endpoints = self.endpoints();
        let turn = self.asked % endpoints.len().max(1);
        self.asked = turn + 1;
        endpoints.into_iter().nth(turn).map(Target::Endpoint)
    }

    /// Whether the other line stands at this address: names may lead to one.
    pub fn is_taken(&self, line: Line, remote: SocketAddr) -> bool {
        self.line(line.other()).bus.is_some_and(|bus| bus.remote == remote)
    }

    /// A dialled link stands. Returns the packets link that leads elsewhere now and is to be closed.
    pub fn handle_up(
        &mut self,
        (line, lane): (Line, DialLane),
        link: LinkId,
        remote: SocketAddr,
        now: Mono,
    ) -> Option<LinkId> {
        let standing = Some(Standing { link, remote, since: now });
        let way = self.line_mut(line);
        match lane {
            DialLane::Bus => way.bus = standing,
            DialLane::Packets => way.packets = standing,
        }
        let (bus, packets) = (way.bus?, way.packets?);
        (packets.remote != bus.remote).then_some(packets.link)
    }

    /// Whether it was a bus lane to the cloud.
    pub fn handle_down(&mut self, link: LinkId, now: Mono) -> bool {
        let mut was_bus = false;
        for way in &mut self.lines {
            if let Some(bus) = way.bus.take_if(|bus| bus.link == link) {
                was_bus = true;
                way.stays |= now.since(bus.since) >= PROVEN_AFTER;
            }
            way.packets.take_if(|packets| packets.link == link);
        }
        was_bus
    }

    /// Where a link of ours to the cloud leads.
    pub fn address_of(&self, link: LinkId) -> Option<SocketAddr> {
        let standing = self.lines.iter().flat_map(|way| [way.bus, way.packets]).flatten();
        standing.into_iter().find(|standing| standing.link == link).map(|standing| standing.remote)
    }

    /// Told, then joined, each once.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let joined = self.joined.iter().filter(|endpoint| !self.told.contains(endpoint));
        self.told.iter().chain(joined).cloned().collect()
    }
}

/// `host:port`, as [`parse_endpoints`] reads it.
pub fn format((host, port): &Endpoint) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
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
        match upstream.next(Line::First, DialLane::Bus) {
            Some(Target::Endpoint((host, _))) => host,
            other => panic!("{other:?}"),
        }
    }

    fn up(upstream: &mut Upstream, lane: DialLane, link: u64, remote: &str) -> Option<LinkId> {
        upstream.handle_up((Line::First, lane), LinkId(link), remote.parse().unwrap(), Mono::ZERO)
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
        assert_eq!(upstream.next(Line::First, DialLane::Packets), Some(Target::Endpoint(endpoint("old"))));
        assert_eq!(up(&mut upstream, DialLane::Packets, 2, "192.0.2.1:1"), None);
        assert_eq!(up(&mut upstream, DialLane::Bus, 1, "192.0.2.1:1"), None);
        upstream.handle_down(LinkId(1), Mono::ZERO);
        assert_eq!(bus(&mut upstream), "new");
        assert_eq!(up(&mut upstream, DialLane::Bus, 3, "192.0.2.9:1"), Some(LinkId(2)));
        upstream.handle_down(LinkId(2), Mono::ZERO);
        let there = Target::Address("192.0.2.9:1".parse().unwrap());
        assert_eq!(upstream.next(Line::First, DialLane::Packets), Some(there));
    }

    #[test]
    fn a_certificate_is_asked_for_where_the_link_stands_or_at_all_endpoints_in_turn() {
        let mut upstream = upstream(&["a", "b"], &[]);
        let asked = |upstream: &mut Upstream| upstream.to_renew(Line::First).unwrap();
        let turns = ["a", "b", "a"].map(|host| Target::Endpoint(endpoint(host)));
        assert_eq!([asked(&mut upstream), asked(&mut upstream), asked(&mut upstream)], turns);
        bus(&mut upstream);
        up(&mut upstream, DialLane::Bus, 1, "192.0.2.1:1");
        let there = Target::Address("192.0.2.1:1".parse().unwrap());
        assert_eq!(asked(&mut upstream), there);
        assert_eq!(upstream.next(Line::First, DialLane::Bus), Some(there), "made anew where it stands");
    }

    #[test]
    fn an_endpoint_that_makes_no_sense_is_left_out() {
        let mut upstream = upstream(&["old"], &[]);
        let invalid = upstream.handle_told(&["new:port".to_owned(), "new:1".to_owned()]);
        assert_eq!(invalid, [InvalidEndpoint("'port' is no port".to_owned())]);
        assert_eq!((bus(&mut upstream), bus(&mut upstream)), ("new".to_owned(), "old".to_owned()));
    }

    #[test]
    fn the_second_line_goes_where_the_first_does_not_stand() {
        let mut upstream = upstream(&["a", "b", "c"], &[]);
        assert_eq!(bus(&mut upstream), "a");
        up(&mut upstream, DialLane::Bus, 1, "192.0.2.1:1");
        let mut second = || upstream.next(Line::Second, DialLane::Bus);
        let expected = ["b", "c", "b"].map(|host| Some(Target::Endpoint(endpoint(host))));
        assert_eq!([second(), second(), second()], expected);
        assert!(upstream.is_taken(Line::Second, "192.0.2.1:1".parse().unwrap()));
        assert!(!upstream.is_taken(Line::First, "192.0.2.1:1".parse().unwrap()));
    }

    #[test]
    fn where_there_is_one_endpoint_the_second_line_has_none() {
        let mut upstream = upstream(&["a"], &[]);
        assert_eq!(bus(&mut upstream), "a");
        up(&mut upstream, DialLane::Bus, 1, "192.0.2.1:1");
        assert_eq!(upstream.next(Line::Second, DialLane::Bus), None);
    }
}

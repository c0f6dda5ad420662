//! Who wishes for whom, at the hub.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bus::path::MAX_ADDRESSES;
use bus::{KeyHash, Mono, NodeId, PathMessage};

/// How long a wish waits for the other side's.
const WISH_HOLDS: Duration = Duration::from_secs(60);

/// Nodes that one node may wish for at a time; further ones are not noted.
const MAX_WISHES: usize = 64;

/// Knows where each edge is seen, and introduces two that wish for each other.
#[derive(Debug, Default)]
pub struct Introducer {
    nodes: BTreeMap<NodeId, Known>,
    /// Which of two dials next: from behind a symmetric NAT only one of the two ways may work, and a pair that did not
    /// meet is introduced again.
    turned: bool,
}

/// What is known of an edge that is connected.
#[derive(Debug, Default)]
struct Known {
    /// Of its packets lane: its key, and its address outside.
    seen: Option<(KeyHash, SocketAddr)>,
    /// On its own network, as it says.
    local: Vec<SocketAddr>,
    wishes: BTreeMap<NodeId, Mono>,
}

impl Introducer {
    /// The packets lane of an edge stands, or has moved to another address.
    pub fn handle_seen(&mut self, node: NodeId, key: KeyHash, address: SocketAddr) {
        self.nodes.entry(node).or_default().seen = Some((key, address));
    }

    /// An edge has moved: its NAT gave it another port, or it is in another network.
    pub fn handle_moved(&mut self, node: &NodeId, address: SocketAddr) {
        if let Some((_, seen)) = self.nodes.get_mut(node).and_then(|known| known.seen.as_mut()) {
            *seen = address;
        }
    }

    /// The packets lane of an edge is gone.
    pub fn handle_unseen(&mut self, node: &NodeId) {
        if let Some(known) = self.nodes.get_mut(node) {
            known.seen = None;
            if known.local.is_empty() && known.wishes.is_empty() {
                self.nodes.remove(node);
            }
        }
    }

    /// An edge is gone, with what it told.
    pub fn handle_gone(&mut self, node: &NodeId) {
        if let Some(Known { seen: Some(_), local, wishes }) = self.nodes.get_mut(node) {
            local.clear();
            wishes.clear();
        } else {
            self.nodes.remove(node);
        }
    }

    /// Where an edge says that it is on its own network. What no LAN has is left out: an edge must not point others at
    /// strangers.
    pub fn handle_here(&mut self, node: NodeId, addresses: Vec<SocketAddr>) {
        let private = addresses.into_iter().filter(|address| is_private(address.ip()) && address.port() != 0);
        self.nodes.entry(node).or_default().local = private.take(MAX_ADDRESSES - 1).collect();
    }

    /// `from` wishes for a way to `peer`. Returns what both are to be told, once both do.
    pub fn handle_wish(
        &mut self,
        from: &NodeId,
        peer: &NodeId,
        now: Mono,
    ) -> Option<[(NodeId, PathMessage); 2]> {
        self.note(from, peer, now);
        let is_mutual = |from, to| self.wishes(from, to, now);
        if from == peer || !is_mutual(from, peer) || !is_mutual(peer, from) {
            return None;
        }
        let met = [self.introduce(from, peer, self.turned)?, self.introduce(peer, from, !self.turned)?];
        self.turned = !self.turned;
        for (one, other) in [(from, peer), (peer, from)] {
            if let Some(known) = self.nodes.get_mut(one) {
                known.wishes.remove(other);
            }
        }
        Some(met)
    }

    fn note(&mut self, from: &NodeId, peer: &NodeId, now: Mono) {
        let wishes = &mut self.nodes.entry(from.clone()).or_default().wishes;
        wishes.retain(|_, until| *until > now);
        if wishes.len() < MAX_WISHES || wishes.contains_key(peer) {
            wishes.insert(peer.clone(), now + WISH_HOLDS);
        }
    }

    fn wishes(&self, from: &NodeId, to: &NodeId, now: Mono) -> bool {
        let until = self.nodes.get(from).and_then(|known| known.wishes.get(to));
        until.is_some_and(|until| *until > now)
    }

    /// What `to` is told of `peer`.
    fn introduce(&self, to: &NodeId, peer: &NodeId, dials: bool) -> Option<(NodeId, PathMessage)> {
        let ((_, from_here), known) = (self.nodes.get(to)?.seen?, self.nodes.get(peer)?);
        let (key, address) = known.seen?;
        // Behind one NAT the way between them is shorter, and many NATs do not lead back inside. Elsewhere these would
        // be addresses of somebody else.
        let share_network = address.ip() == from_here.ip();
        let local = known.local.iter().filter(|local| share_network && **local != address);
        let addresses = local.copied().chain([address]).collect();
        Some((to.clone(), PathMessage::Meet { peer: peer.clone(), key, addresses, dials }))
    }
}

/// RFC 1918, RFC 4193, and what a carrier keeps for itself (RFC 6598).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::Name;

    fn edge(name: &str) -> NodeId {
        NodeId::edge(Name::new(name).unwrap())
    }

    fn key(name: &str) -> KeyHash {
        KeyHash::of_spki(name.as_bytes())
    }

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000)
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// a and b behind two NATs, c behind a's.
    fn hub() -> Introducer {
        let mut hub = Introducer::default();
        for (name, seen, local) in [
            ("a", "192.0.2.1:1001", "192.168.1.2:4000"),
            ("b", "192.0.2.2:1002", "192.168.1.2:4000"),
            ("c", "192.0.2.1:1003", "192.168.1.3:4000"),
        ] {
            hub.handle_seen(edge(name), key(name), address(seen));
            hub.handle_here(edge(name), vec![address(local)]);
        }
        hub
    }

    fn meet(told: &(NodeId, PathMessage)) -> (String, String, Vec<String>, bool) {
        let (to, PathMessage::Meet { peer, key: shown, addresses, dials }) = told else { panic!("{told:?}") };
        assert_eq!(*shown, key(peer.name.as_str()));
        let addresses = addresses.iter().map(ToString::to_string).collect();
        (to.name.to_string(), peer.name.to_string(), addresses, *dials)
    }

    #[test]
    fn two_that_wish_for_each_other_are_told_where_the_other_is_and_take_turns_to_dial() {
        let mut hub = hub();
        assert_eq!(hub.handle_wish(&edge("a"), &edge("b"), at(0)), None, "b has not asked");
        let met = hub.handle_wish(&edge("b"), &edge("a"), at(1)).unwrap();
        let (for_b, for_a) = (meet(&met[0]), meet(&met[1]));
        assert_eq!(for_a, ("a".into(), "b".into(), vec!["192.0.2.2:1002".into()], true));
        assert_eq!(for_b, ("b".into(), "a".into(), vec!["192.0.2.1:1001".into()], false));
        assert_eq!(hub.handle_wish(&edge("b"), &edge("a"), at(2)), None, "each wish counts once");
        let met = hub.handle_wish(&edge("a"), &edge("b"), at(3)).unwrap();
        assert_eq!((meet(&met[0]).3, meet(&met[1]).3), (true, false), "this time it was told a first");
        hub.handle_wish(&edge("a"), &edge("b"), at(4));
        let met = hub.handle_wish(&edge("b"), &edge("a"), at(4)).unwrap();
        assert_eq!((meet(&met[0]).3, meet(&met[1]).3), (false, true));
    }

    #[test]
    fn behind_one_nat_the_way_inside_comes_first() {
        let mut hub = hub();
        hub.handle_wish(&edge("a"), &edge("c"), at(0));
        let met = hub.handle_wish(&edge("c"), &edge("a"), at(0)).unwrap();
        assert_eq!(meet(&met[0]).2, ["192.168.1.2:4000", "192.0.2.1:1001"]);
        assert_eq!(meet(&met[1]).2, ["192.168.1.3:4000", "192.0.2.1:1003"]);
    }

    #[test]
    fn a_wish_does_not_wait_for_ever_and_who_is_away_meets_nobody() {
        let mut hub = hub();
        hub.handle_wish(&edge("a"), &edge("b"), at(0));
        assert_eq!(hub.handle_wish(&edge("b"), &edge("a"), at(61)), None);
        hub.handle_moved(&edge("b"), address("192.0.2.2:7"));
        let met = hub.handle_wish(&edge("a"), &edge("b"), at(62)).unwrap();
        assert_eq!(meet(&met[0]).2, ["192.0.2.2:7"]);
        hub.handle_unseen(&edge("b"));
        hub.handle_wish(&edge("a"), &edge("b"), at(63));
        assert_eq!(hub.handle_wish(&edge("b"), &edge("a"), at(63)), None);
        hub.handle_gone(&edge("b"));
        assert!(!hub.nodes.contains_key(&edge("b")));
        hub.handle_gone(&edge("c"));
        hub.handle_unseen(&edge("c"));
        assert!(!hub.nodes.contains_key(&edge("c")), "in either order");
        assert_eq!(hub.handle_wish(&edge("a"), &edge("b"), at(63)), None);
        assert_eq!(hub.handle_wish(&edge("a"), &edge("a"), at(63)), None, "with itself");
    }

    #[test]
    fn an_edge_points_nobody_at_strangers_and_its_wishes_are_bounded() {
        let mut hub = hub();
        let told =
            ["203.0.113.5:80", "127.0.0.1:80", "10.0.0.1:0", "10.0.0.1:1", "100.64.0.1:1", "[fd00::1]:1"];
        hub.handle_here(edge("c"), told.map(address).into());
        hub.handle_wish(&edge("a"), &edge("c"), at(0));
        let met = hub.handle_wish(&edge("c"), &edge("a"), at(0)).unwrap();
        assert_eq!(meet(&met[1]).2, ["10.0.0.1:1", "100.64.0.1:1", "[fd00::1]:1", "192.0.2.1:1003"]);
        for number in 0..2 * MAX_WISHES {
            hub.handle_wish(&edge("a"), &edge(&format!("n{number}")), at(0));
        }
        assert_eq!(hub.nodes[&edge("a")].wishes.len(), MAX_WISHES);
    }
}

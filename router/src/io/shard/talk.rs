//! With whom the hosts behind this edge talk: what decides whether two edges get a way of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::{Mono, NodeId};

/// Between two reports.
const EVERY: Duration = Duration::from_secs(1);

/// Nodes counted at a time; what goes to others is not.
const MAX_PEERS: usize = 1024;

/// A peer's place in the count. It holds until [`Talk::forget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u16);

/// Bytes to and from each node, since the last report.
#[derive(Debug, Default)]
pub(super) struct Talk {
    places: BTreeMap<NodeId, Place>,
    bytes: Vec<u64>,
    reported: Mono,
}

impl Talk {
    /// Where to count what goes to and comes from `node`; `None`: nowhere.
    pub(super) fn place(&mut self, node: &NodeId) -> Option<Place> {
        if let Some(place) = self.places.get(node) {
            return Some(*place);
        }
        let place = Place(u16::try_from(self.bytes.len()).ok()?);
        if self.bytes.len() >= MAX_PEERS {
            return None;
        }
        self.bytes.push(0);
        self.places.insert(node.clone(), place);
        Some(place)
    }

    pub(super) fn count(&mut self, place: Option<Place>, bytes: usize) {
        if let Some(count) = place.and_then(|Place(place)| self.bytes.get_mut(usize::from(place))) {
            *count += bytes as u64;
        }
    }

    /// All places are given out anew.
    pub(super) fn forget(&mut self) {
        self.places.clear();
        self.bytes.clear();
    }

    /// With whom there was any, once a second.
    pub(super) fn report(&mut self, now: Mono) -> Vec<(NodeId, u64)> {
        if now.since(self.reported) < EVERY || self.bytes.iter().all(|bytes| *bytes == 0) {
            return Vec::new();
        }
        self.reported = now;
        let Self { places, bytes, .. } = self;
        let mut take = |place: Place| bytes.get_mut(usize::from(place.0)).map(std::mem::take);
        let counted = places.iter().filter_map(|(node, place)| Some((node.clone(), take(*place)?)));
        counted.filter(|(_, bytes)| *bytes > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::Name;

    fn edge(number: usize) -> NodeId {
        NodeId::edge(Name::new(&format!("n{number}")).unwrap())
    }

    #[test]
    fn talk_is_reported_once_a_second_and_only_where_there_was_any() {
        let mut talk = Talk::default();
        let (a, b) = (talk.place(&edge(1)), talk.place(&edge(2)));
        assert_ne!(a, b);
        assert_eq!(talk.place(&edge(1)), a);
        let at = |millis: u64| Mono(millis * 1000);
        talk.count(a, 10);
        talk.count(a, 20);
        talk.count(None, 99);
        assert_eq!(talk.report(at(999)), []);
        assert_eq!(talk.report(at(1000)), [(edge(1), 30)]);
        talk.count(b, 1);
        assert_eq!(talk.report(at(1500)), []);
        assert_eq!(talk.report(at(2000)), [(edge(2), 1)]);
        assert_eq!(talk.report(at(9000)), []);
    }

    #[test]
    fn so_many_nodes_are_counted_and_no_more() {
        let mut talk = Talk::default();
        assert!((0..MAX_PEERS).all(|number| talk.place(&edge(number)).is_some()));
        assert_eq!(talk.place(&edge(MAX_PEERS)), None);
        talk.forget();
        assert!(talk.place(&edge(MAX_PEERS)).is_some());
    }
}

//! What an edge takes from another one without the cloud in between.

use std::collections::BTreeMap;

use bus::twin::{DeviceId, TwinTopic};
use bus::{Message, NodeId, NodeKind, Topic};
use device_twin::twin::ReportedBody;

/// Devices whose edge is remembered; of further ones nothing is taken first-hand.
const MAX_DEVICES: usize = 4096;

/// Topics of which a newer value came first-hand than the cloud may have.
const MAX_TOPICS: usize = 4096;

/// The cloud lets an edge speak for its own devices alone, and marks what it passes on with the edge that said it. So an
/// edge that heard another speak for a device through the cloud knows whose it is, and takes as much from it straight.
#[derive(Debug, Default)]
pub(super) struct Firsthand {
    speakers: BTreeMap<DeviceId, NodeId>,
    /// The newest version that a neighbour told: when the cloud is back, it first repeats what it had heard last.
    newest: BTreeMap<Topic, Newest>,
}

#[derive(Debug)]
struct Newest {
    from: NodeId,
    rev: u64,
    /// It is no neighbour any more. If it has a new disk by now, its versions have started over.
    is_gone: bool,
    /// An older version that the cloud told since: once is a copy of before, another one is a start over.
    repeated: Option<u64>,
}

impl Firsthand {
    /// Takes note of a message that the cloud passed on. False: a neighbour has told something newer.
    pub(super) fn handle_passed_on(&mut self, message: &Message) -> bool {
        let Some(TwinTopic::Reported { device, .. }) = TwinTopic::parse(&message.topic) else { return true };
        self.note_speaker(device, &message.origin);
        let Some((newest, rev)) = self.newest.get_mut(&message.topic).zip(rev_of(message)) else {
            return true;
        };
        if rev < newest.rev {
            let is_copy = !newest.is_gone || *newest.repeated.get_or_insert(rev) == rev;
            if is_copy {
                return false;
            }
        } else if !newest.is_gone {
            return true;
        }
        self.newest.remove(&message.topic);
        true
    }

    /// Versions are each edge's own: of a device that moved none counts any more.
    fn note_speaker(&mut self, device: DeviceId, origin: &NodeId) {
        let has_room = self.speakers.len() < MAX_DEVICES || self.speakers.contains_key(&device);
        if origin.kind != NodeKind::Edge || !has_room || self.speakers.get(&device) == Some(origin) {
            return;
        }
        self.newest.retain(|topic, _| TwinTopic::parse(topic).is_none_or(|twin| *twin.device() != device));
        self.speakers.insert(device, origin.clone());
    }

    /// Whether a neighbour may say this: a reported value of a device that is its own.
    pub(super) fn handle_told(&mut self, from: &NodeId, message: &Message) -> bool {
        let Some(TwinTopic::Reported { device, .. }) = TwinTopic::parse(&message.topic) else { return false };
        if message.origin != *from || self.speakers.get(&device) != Some(from) {
            return false;
        }
        let Some(rev) = rev_of(message) else { return false };
        if let Some(newest) = self.newest.get_mut(&message.topic).filter(|newest| !newest.is_gone) {
            let is_news = newest.rev <= rev;
            newest.rev = rev.max(newest.rev);
            return is_news;
        }
        if self.newest.len() < MAX_TOPICS || self.newest.contains_key(&message.topic) {
            let newest = Newest { from: from.clone(), rev, is_gone: false, repeated: None };
            self.newest.insert(message.topic.clone(), newest);
        }
        true
    }

    /// A neighbour is gone. It may come back with a new disk, whose versions start over.
    pub(super) fn handle_gone(&mut self, neighbour: &NodeId) {
        self.newest
            .values_mut()
            .filter(|newest| newest.from == *neighbour)
            .for_each(|newest| newest.is_gone = true);
    }
}

fn rev_of(message: &Message) -> Option<u64> {
    serde_json::from_slice::<ReportedBody>(&message.payload).ok().map(|body| body.rev)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::Name;
    use serde_json::json;

    fn node(text: &str) -> NodeId {
        NodeId::edge(Name::new(text).unwrap())
    }

    fn report(device: &str, origin: &NodeId, rev: u64) -> Message {
        let topic = Topic::new(&format!("twin/water/{device}/reported/pressure")).unwrap();
        let body = json!({ "value": 1.0, "time": 1, "quality": "good", "rev": rev });
        Message::new(topic, body.to_string().into(), true, origin.clone())
    }

    #[test]
    fn an_edge_speaks_straight_for_the_devices_that_the_cloud_let_it_speak_for() {
        let (a, b) = (node("a"), node("b"));
        let mut firsthand = Firsthand::default();
        assert!(!firsthand.handle_told(&a, &report("pump", &a, 1)), "nobody vouched for it");
        assert!(firsthand.handle_passed_on(&report("pump", &a, 1)));
        assert!(firsthand.handle_told(&a, &report("pump", &a, 2)));
        assert!(!firsthand.handle_told(&b, &report("pump", &b, 9)));
        assert!(!firsthand.handle_told(&b, &report("pump", &a, 9)), "in somebody else's name");
        assert!(!firsthand.handle_told(&a, &report("valve", &a, 1)));
        assert!(!firsthand.handle_told(&a, &Message { payload: "x".into(), ..report("pump", &a, 3) }));
        let order = Topic::new("twin/water/pump/set/pressure").unwrap();
        assert!(!firsthand.handle_told(&a, &Message { topic: order, ..report("pump", &a, 3) }));
        // The device moves.
        assert!(firsthand.handle_passed_on(&report("pump", &b, 9)));
        assert!(
            firsthand.handle_told(&b, &report("pump", &b, 10))
                && !firsthand.handle_told(&a, &report("pump", &a, 11))
        );
    }

    #[test]
    fn what_the_cloud_knew_last_does_not_take_the_place_of_what_a_neighbour_told_since() {
        let (a, cloud) = (node("a"), NodeId::cloud(Name::new("hub").unwrap()));
        let mut firsthand = Firsthand::default();
        firsthand.handle_passed_on(&report("pump", &a, 5));
        assert!(firsthand.handle_told(&a, &report("pump", &a, 8)));
        assert!(!firsthand.handle_told(&a, &report("pump", &a, 7)), "overtaken on the way");
        assert!(!firsthand.handle_passed_on(&report("pump", &cloud, 5)));
        assert!(firsthand.handle_passed_on(&report("pump", &a, 8)));
        firsthand.handle_told(&a, &report("pump", &a, 9));
        firsthand.handle_gone(&a);
        for _ in 0..2 {
            assert!(!firsthand.handle_passed_on(&report("pump", &a, 5)), "an old copy, as often as it comes");
        }
        assert!(firsthand.handle_passed_on(&report("pump", &a, 6)), "a new disk starts over");
        assert!(firsthand.handle_passed_on(&report("pump", &a, 1)));
    }
}

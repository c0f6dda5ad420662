//! What must hold when all is quiet.

use std::collections::{BTreeMap, BTreeSet};

use bus::{Class, Name};
use bytes::Bytes;

use super::world::{Edge, Pushed, World};

impl World {
    pub(super) fn check_quiet(&self) {
        for edge in &self.edges {
            assert_eq!(edge.copy(), self.view(&edge.name), "{}", edge.name);
            assert_eq!(edge.host.core.outbox_len(), 0, "{}: the outbox is empty", edge.name);
            self.check_no_life_repeats_itself(edge);
            match edge.branched {
                true => self.check_nothing_is_taken_for_repeated(edge),
                false => self.check_exactly_once(edge),
            }
        }
        assert!(self.cloud.core.edges(&self.cloud.ks).all(|(_, in_step)| in_step));
    }

    pub(super) fn view(&self, edge: &Name) -> BTreeMap<String, Bytes> {
        let mut view = BTreeMap::new();
        for scope in ["/all/".to_owned(), format!("/e/{edge}/")] {
            view.extend(
                self.cloud.ks.range(&scope).map(|(k, v)| (k.as_str()[scope.len()..].to_owned(), v.clone())),
            );
        }
        view
    }

    /// Payloads are numbered as they are pushed: within a life and a class they come in that order, none twice.
    fn check_no_life_repeats_itself(&self, edge: &Edge) {
        let mut last = BTreeMap::new();
        for (record, text) in self.records(&format!("/c/up/{}/", edge.name)) {
            let Some((_, number)) = text.split_once(' ').filter(|(key, _)| *key != "gap") else { continue };
            let (lane, number) =
                (record.rsplit_once('/').unwrap().0.to_owned(), number.parse::<u64>().unwrap());
            let before = last.insert(lane, number);
            assert!(before.is_none_or(|before| before < number), "{record}: {number} after {before:?}");
        }
    }

    /// Whichever lives its disk had: the cloud has each event and sample, and the latest of each state.
    fn check_nothing_is_taken_for_repeated(&self, edge: &Edge) {
        let told: BTreeSet<String> =
            self.records(&format!("/c/up/{}/", edge.name)).map(|(_, text)| text).collect();
        let states: Vec<String> = pushed(edge, Class::State).collect();
        let states = latest(&states).into_iter().map(|(key, payload)| format!("{key} {payload}"));
        for text in states.chain(pushed(edge, Class::Event)).chain(pushed(edge, Class::Telemetry)) {
            assert!(told.contains(&text), "{}: {text} was accepted and is nowhere", edge.name);
        }
    }

    fn check_exactly_once(&self, edge: &Edge) {
        for class in [Class::State, Class::Event, Class::Telemetry] {
            let (delivered, gaps) = self.delivered(edge, class);
            let texts: Vec<String> = pushed(edge, class).collect();
            match class {
                Class::State => assert_eq!(latest(&delivered), latest(&texts), "{}", edge.name),
                Class::Event => assert_eq!(delivered, texts, "{}", edge.name),
                Class::Telemetry | Class::Control | Class::Command | Class::Bulk => {
                    let known: BTreeSet<&String> = texts.iter().collect();
                    assert!(delivered.iter().all(|text| known.contains(text)));
                    assert_eq!(delivered.len() as u64 + gaps, texts.len() as u64, "{}", edge.name);
                }
            }
        }
    }

    /// What the cloud has of an edge's present incarnation, in order, and how many the gaps name.
    fn delivered(&self, edge: &Edge, class: Class) -> (Vec<String>, u64) {
        let incarnation = edge.host.core.incarnation();
        let prefix = format!("/c/up/{}/{incarnation:?}/{}/", edge.name, class as u8);
        let (mut texts, mut gaps) = (Vec::new(), 0);
        for (record, text) in self.records(&prefix) {
            let to: u64 = record[prefix.len()..].parse().unwrap();
            match text.strip_prefix("gap ") {
                Some(from) => gaps += to + 1 - from.parse::<u64>().unwrap(),
                None => texts.push(text),
            }
        }
        (texts, gaps)
    }

    fn records(&self, prefix: &str) -> impl Iterator<Item = (&str, String)> {
        let text = |value: &Bytes| String::from_utf8(value.to_vec()).unwrap();
        self.cloud.ks.range(prefix).map(move |(record, value)| (record.as_str(), text(value)))
    }
}

fn pushed(edge: &Edge, class: Class) -> impl Iterator<Item = String> {
    edge.pushed.iter().filter(move |pushed| pushed.class == class).map(Pushed::text)
}

/// The last text of each key.
fn latest(texts: &[String]) -> BTreeMap<&str, &str> {
    texts.iter().filter_map(|text| text.split_once(' ')).collect()
}

impl Pushed {
    fn text(&self) -> String {
        format!("{} {}", self.key, String::from_utf8_lossy(&self.payload))
    }
}

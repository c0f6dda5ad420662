//! What one page asks its node for, look by look: a search goes through all devices, so what it found is good for a while.

use std::collections::BTreeSet;
use std::time::Duration;

use bus::Mono;
use bus::twin::DeviceId;
use serde_json::{Map, Value};

use super::Query;

/// A search is made anew after this long. In between the page shows those that were found, as they are by now.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// What a search tells beside the devices.
const ABOUT: [&str; 3] = ["found", "looked_into", "total"];

/// One page's looks.
#[derive(Debug)]
pub(crate) struct Look {
    query: Query,
    found: Option<Found>,
}

#[derive(Debug)]
struct Found {
    at: Mono,
    devices: Vec<DeviceId>,
    about: Map<String, Value>,
}

impl Look {
    pub(crate) fn new(query: Query) -> Self {
        Self { query, found: None }
    }

    /// What to ask now.
    pub(crate) fn poll_query(&mut self, now: Mono) -> Query {
        self.found.take_if(|found| now.since(found.at) >= GOOD_FOR);
        match &self.found {
            Some(found) => Query::Named(found.devices.clone()),
            None => self.query.clone(),
        }
    }

    /// The answer to it.
    pub(crate) fn handle_answer(&mut self, shown: &mut Value, now: Mono) {
        if let Some(found) = &self.found {
            found.about.iter().for_each(|(field, value)| shown[field] = value.clone());
        } else if matches!(self.query, Query::Search(_)) {
            let devices = rows(shown).filter_map(|device| device["device"].as_str()?.parse().ok()).collect();
            let about = ABOUT.map(|field| (field.to_owned(), shown[field].clone())).into_iter().collect();
            self.found = Some(Found { at: now, devices, about });
        }
    }

    /// Nodes that the page tells more of than others: those of its devices, and one that it looks for by its name.
    pub(crate) fn nodes(&self, shown: &Value) -> BTreeSet<String> {
        let words = if let Query::Search(search) = &self.query { &search.words[..] } else { &[] };
        let of_devices = rows(shown).filter_map(|device| Some(device["node"].as_str()?.to_owned()));
        of_devices.chain(words.iter().cloned()).collect()
    }
}

fn rows(shown: &Value) -> impl Iterator<Item = &Value> {
    shown["devices"].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_search_is_made_once_in_a_while_and_its_count_stays_with_it() {
        let query = Query::parse("q=pump+edge/e").unwrap();
        let mut look = Look::new(query.clone());
        let at = |seconds| Mono::ZERO + Duration::from_secs(seconds);
        assert_eq!(look.poll_query(at(0)), query);
        let devices = json!([{"device": "plant/pump", "node": "edge/a"}]);
        let mut shown = json!({"devices": devices, "found": 7_000, "looked_into": 9_000, "total": 9_000});
        look.handle_answer(&mut shown, at(0));
        assert_eq!(look.poll_query(at(4)), Query::Named(vec!["plant/pump".parse().unwrap()]));
        let mut shown = json!({"devices": devices, "found": 1, "looked_into": 1, "total": 9_001});
        look.handle_answer(&mut shown, at(4));
        assert_eq!((&shown["found"], &shown["looked_into"]), (&json!(7_000), &json!(9_000)));
        let nodes = ["edge/a", "edge/e", "pump"].map(str::to_owned);
        assert_eq!(look.nodes(&shown), BTreeSet::from(nodes));
        assert_eq!(look.poll_query(at(5)), query);
    }

    #[test]
    fn what_is_named_is_asked_for_each_time() {
        let query = Query::parse("device=plant/pump").unwrap();
        let mut look = Look::new(query.clone());
        look.handle_answer(&mut json!({"devices": []}), Mono::ZERO);
        assert_eq!(look.poll_query(Mono::ZERO), query);
    }
}

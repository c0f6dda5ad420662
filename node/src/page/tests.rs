//! A page of a small fleet, and of a large one.

use std::cell::Cell;
use std::collections::BTreeMap;

use bus::{Mono, UnixMillis};

use super::*;

const NOW: Now = Now { mono: Mono(0), wall: UnixMillis(1) };

/// Devices without properties, at nodes; counts how often somebody looks into one.
#[derive(Default)]
struct Names {
    devices: BTreeMap<DeviceId, Place>,
    views: Cell<usize>,
    gists: Cell<usize>,
}

impl Names {
    fn of(count: usize) -> Self {
        let device = |n: usize| {
            let node = NodeId::edge(format!("edge-{}", n % 3).parse().unwrap());
            (format!("plant/pump-{n:05}").parse().unwrap(), Place::At(node))
        };
        Self { devices: (0..count).map(device).collect(), ..Self::default() }
    }

    fn ask(&self, query: &str) -> Value {
        answer(&Query::parse(query).unwrap(), self, NOW).unwrap()
    }

    fn shown(&self, query: &str) -> Vec<String> {
        let answer = self.ask(query);
        let devices = answer["devices"].as_array().unwrap();
        devices.iter().map(|device| device["device"].as_str().unwrap().to_owned()).collect()
    }
}

impl Fleet for Names {
    fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.devices.keys()
    }

    fn views(&self, _: &DeviceId, _: Now) -> Vec<TwinView> {
        self.views.set(self.views.get() + 1);
        Vec::new()
    }

    fn gist(&self, _: &DeviceId) -> Gist {
        self.gists.set(self.gists.get() + 1);
        Gist::default()
    }

    fn place(&self, device: &DeviceId) -> Place {
        self.devices.get(device).cloned().unwrap_or(Place::Waits("nobody knows it".to_owned()))
    }

    fn rules(&self, _: usize, _: Now) -> (Vec<RuleView>, usize) {
        (Vec::new(), 0)
    }
}

#[test]
fn a_page_of_a_large_fleet_looks_into_no_more_devices_than_it_shows() {
    let fleet = Names::of(10_000);
    let answer = fleet.ask("q=pump&from=200");
    assert_eq!((&answer["found"], &answer["total"]), (&json!(10_000), &json!(10_000)));
    assert_eq!(answer["devices"].as_array().unwrap().len(), MAX_DEVICES);
    assert_eq!(answer["devices"][0]["device"], "plant/pump-00200");
    assert_eq!(fleet.views.get(), MAX_DEVICES);
}

#[test]
fn a_search_by_state_looks_into_a_bounded_number_of_devices_and_says_so() {
    let fleet = Names::of(MAX_LOOKED_INTO + 10);
    let answer = fleet.ask("q=is:offline");
    assert_eq!(
        (&answer["found"], &answer["looked_into"]),
        (&json!(MAX_LOOKED_INTO), &json!(MAX_LOOKED_INTO))
    );
    assert_eq!((fleet.gists.get(), fleet.views.get()), (MAX_LOOKED_INTO, MAX_DEVICES));
    let narrower = fleet.ask("q=is:offline+edge-1");
    let third = (0..MAX_LOOKED_INTO + 10).filter(|n| n % 3 == 1).count();
    assert_eq!((&narrower["looked_into"], &narrower["found"]), (&Value::Null, &json!(third)));
}

#[test]
fn each_word_of_a_search_is_found_in_a_device_or_its_node() {
    let fleet = Names::of(12);
    assert_eq!(fleet.shown("q=PUMP-0000%34"), ["plant/pump-00004"]);
    assert_eq!(
        fleet.shown("q=plant/+edge-2"),
        ["plant/pump-00002", "plant/pump-00005", "plant/pump-00008", "plant/pump-00011"]
    );
    assert_eq!(fleet.shown("q=edge-2&from=3"), ["plant/pump-00011"]);
    assert_eq!(fleet.shown("q=is:online"), Vec::<String>::new());
    assert_eq!(fleet.shown("q=is:offline").len(), 12);
    assert_eq!(fleet.shown(""), Vec::<String>::new());
}

#[test]
fn named_devices_come_in_the_order_in_which_they_were_named() {
    let fleet = Names::of(3);
    let answer = fleet.ask("device=plant/pump-00002&device=plant/none");
    assert_eq!(answer["devices"][0]["node"], "edge/edge-2");
    assert_eq!(answer["devices"][1]["waits"], "nobody knows it");
}

#[test]
fn what_is_no_query_is_refused_with_the_name_of_the_field() {
    let refused = |query: &str| Query::parse(query).unwrap_err().to_string();
    assert!(refused("device=<script>").starts_with("device: "), "{}", refused("device=<script>"));
    assert_eq!(refused("q=&from=-1"), "from: no number");
    let many = "device=a/b&".repeat(MAX_DEVICES + 1);
    assert_eq!(refused(&many), "device: at most 100 of them");
    assert_eq!(decoded("%zz%2%"), "%zz%2%");
    assert_eq!(decoded("%ff"), "\u{fffd}");
}

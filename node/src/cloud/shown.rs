//! The cloud, as a page sees it.

use bus::twin::DeviceId;
use bus::{NodeId, Now};
use controller::Placement;
use device_twin::rule::RuleView;
use device_twin::{Gist, TwinView};

use super::Cloud;
use crate::page::{Fleet, Place, rank};

impl Fleet for Cloud {
    fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.twins.catalog().devices().map(|(id, _)| id)
    }

    fn views(&self, device: &DeviceId, now: Now) -> Vec<TwinView> {
        self.twins.view(device, now)
    }

    fn gist(&self, device: &DeviceId) -> Gist {
        self.twins.gist(device)
    }

    fn place(&self, device: &DeviceId) -> Place {
        match self.binder.device(device) {
            Some(Placement::At(edge)) => Place::At(NodeId::edge(edge)),
            Some(waits) => Place::Waits(waits.to_string()),
            None => Place::Waits("there is no such device".to_owned()),
        }
    }

    fn rules(&self, most: usize, _: Now) -> (Vec<RuleView>, usize) {
        let mut rules: Vec<&RuleView> = self.twins.rules_told().collect();
        rules.sort_by_key(|rule| rank(rule));
        (rules.iter().take(most).map(|rule| (*rule).clone()).collect(), rules.len())
    }
}

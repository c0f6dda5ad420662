//! An edge, as a page sees it.

use bus::Now;
use bus::twin::DeviceId;
use device_twin::TwinView;
use device_twin::rule::RuleView;

use super::Edge;
use crate::page::{Fleet, Place, rank};

impl Fleet for Edge {
    fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.twins.catalog().devices().map(|(id, _)| id)
    }

    fn views(&self, device: &DeviceId, now: Now) -> Vec<TwinView> {
        self.twins.view(device, now)
    }

    fn place(&self, _: &DeviceId) -> Place {
        Place::At(self.identity.node.clone())
    }

    fn rules(&self, most: usize, now: Now) -> (Vec<RuleView>, usize) {
        let mut rules = self.twins.rule_views(now);
        rules.sort_by_key(rank);
        let total = rules.len();
        rules.truncate(most);
        (rules, total)
    }
}

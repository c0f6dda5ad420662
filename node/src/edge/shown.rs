//! An edge, as a page sees it.

use bus::Now;
use bus::twin::DeviceId;
use device_twin::rule::RuleView;
use device_twin::{Gist, TwinView};

use super::Edge;
use crate::page::{Fleet, Place};

impl Fleet for Edge {
    fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.twins.catalog().devices().map(|(id, _)| id)
    }

    fn views(&self, device: &DeviceId, now: Now) -> Vec<TwinView> {
        self.twins.view(device, now)
    }

    fn gist(&self, device: &DeviceId) -> Gist {
        self.twins.gist(device)
    }

    fn place(&self, _: &DeviceId) -> Place {
        Place::At(self.identity.node.clone())
    }

    fn rules(&self, most: usize, now: Now) -> (Vec<RuleView>, usize) {
        self.twins.first_rule_views(most, now)
    }
}

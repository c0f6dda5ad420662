//! Who on this node wants a filter: broker clients and rules count alike.

use std::collections::BTreeMap;

use bus::twin::TwinTopic;
use bus::{Bus, Filter, Topic};

/// Counts per filter, so that the bus hears of the first and the last only.
#[derive(Debug, Default)]
pub(crate) struct Interest(BTreeMap<Filter, u32>);

impl Interest {
    pub(crate) fn change(&mut self, filter: &Filter, wanted: bool, bus: &mut Bus) {
        let count = self.0.entry(filter.clone()).or_default();
        match (wanted, *count) {
            (true, 0) => bus.subscribe(filter),
            (false, 1) => bus.unsubscribe(filter),
            _ => {}
        }
        *count = if wanted { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.0.remove(filter);
        }
    }
}

/// What may travel between sites: apps' own messages, and what nodes say of twins.
pub(crate) fn is_for_other_sites(topic: &Topic, twin: Option<&TwinTopic>) -> bool {
    topic.as_str().starts_with("mesh/") || twin.is_some_and(TwinTopic::is_nodes_only)
}

//! Who on this node wants a filter: broker clients and rules count alike.

use std::collections::BTreeMap;

use bus::twin::TwinTopic;
use bus::{Bus, Filter, Message, Properties, Topic};
use device_twin::{Announcement, Expiry, Publish};

use crate::mesh::is_mesh;

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
    is_mesh(topic) || twin.is_some_and(TwinTopic::is_nodes_only)
}

/// A message that came straight over the bus, for the clients here; `None`: it is too old by now. What nodes say of
/// twins comes with each subscriber's own QoS.
pub(crate) fn announced(message: Message) -> Option<Announcement> {
    let life = message.life_left();
    if life.is_some_and(|life| life.is_zero()) {
        return None;
    }
    let Message { topic, payload, retain, qos, properties, .. } = message;
    let is_of_apps = is_mesh(&topic);
    let plain = Announcement::from(Publish { topic, payload, retain, expiry: life.map(Expiry) });
    let properties = if is_of_apps { properties } else { Properties::default() };
    Some(Announcement { qos: if is_of_apps { qos } else { plain.qos }, properties, ..plain })
}

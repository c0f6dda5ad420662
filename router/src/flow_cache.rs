//! What was decided about a flow, so that the next packet of it costs one look.
//!
//! A direct-mapped table: a flow has one place, and a newer one that falls on it takes it over. Nothing is lost by that
//! but time, so nobody who makes up flows can do more than slow down others whose place they guess, and the places are
//! seeded.

use crate::packet::Flow;

/// Decisions about flows, all of which end with [`Self::clear`].
#[derive(Debug)]
pub struct FlowCache<V> {
    slots: Box<[Option<Slot<V>>]>,
    seed: u64,
    epoch: u32,
}

#[derive(Debug, Clone, Copy)]
struct Slot<V> {
    from: usize,
    epoch: u32,
    flow: Flow,
    value: V,
}

impl<V: Copy> FlowCache<V> {
    /// Room for `flows`, rounded up to a power of two; about 100 bytes each.
    pub fn new(flows: usize, seed: u64) -> Self {
        Self { slots: vec![None; flows.next_power_of_two()].into_boxed_slice(), seed, epoch: 0 }
    }

    /// What was decided about `flow` when it came in at `from`.
    pub fn get(&self, from: usize, flow: &Flow) -> Option<V> {
        let slot = self.slots.get(self.place(from, flow))?.as_ref()?;
        (slot.epoch == self.epoch && slot.from == from && slot.flow == *flow).then_some(slot.value)
    }

    pub fn insert(&mut self, from: usize, flow: Flow, value: V) {
        let place = self.place(from, &flow);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Some(Slot { from, epoch: self.epoch, flow, value });
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            // Entries of four billion epochs ago would be valid again.
            self.slots.fill(None);
        }
    }

    fn place(&self, from: usize, flow: &Flow) -> usize {
        let hash = flow.seeded_hash(self.seed.wrapping_add(from as u64));
        hash as usize & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Ports, UDP};
    use std::net::IpAddr;

    fn flow(host: u32, port: u16) -> Flow {
        Flow {
            source: IpAddr::V4(host.into()),
            destination: "10.86.0.1".parse().unwrap(),
            protocol: UDP,
            ports: Ports::Pair { source: port, destination: 53 },
        }
    }

    #[test]
    fn a_decision_is_found_for_the_same_flow_from_the_same_side_until_all_are_forgotten() {
        let mut cache = FlowCache::new(100, 7);
        cache.insert(1, flow(1, 1), "out");
        assert_eq!(cache.get(1, &flow(1, 1)), Some("out"));
        assert_eq!(cache.get(2, &flow(1, 1)), None);
        assert_eq!(cache.get(1, &flow(1, 1).reversed()), None);
        cache.insert(1, flow(1, 1), "in");
        assert_eq!(cache.get(1, &flow(1, 1)), Some("in"));
        cache.clear();
        assert_eq!(cache.get(1, &flow(1, 1)), None);
    }

    #[test]
    fn what_is_found_is_never_of_another_flow_and_most_of_a_full_table_is_there() {
        let mut cache = FlowCache::new(1024, 99);
        let flows: Vec<Flow> = (0..32).flat_map(|host| (0..32).map(move |port| flow(host, port))).collect();
        flows.iter().enumerate().for_each(|(number, flow)| cache.insert(0, *flow, number));
        let found: Vec<usize> = flows.iter().filter_map(|flow| cache.get(0, flow)).collect();
        assert!(found.iter().all(|number| cache.get(0, &flows[*number]) == Some(*number)));
        // 1 - 1/e of the places are hit by chance.
        assert!((550..750).contains(&found.len()), "{}", found.len());
    }
}

//! Packets of all sub-queues in one vector, as linked lists: memory grows to the queue's bound once, and a packet then
//! costs no allocation.

use bus::Mono;

/// No slot.
const NONE: u32 = u32::MAX;

/// A packet that waits.
#[derive(Debug)]
pub(super) struct Held<T> {
    pub(super) payload: T,
    /// Bytes on the wire.
    pub(super) cost: u64,
    pub(super) since: Mono,
    pub(super) ecn_capable: bool,
}

#[derive(Debug)]
struct Slot<T> {
    held: Option<Held<T>>,
    next: u32,
}

#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: u32,
}

/// First in, first out.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    head: u32,
    tail: u32,
    /// Of its packets on the wire.
    pub(super) bytes: u64,
}

impl List {
    pub(super) const EMPTY: Self = Self { head: NONE, tail: NONE, bytes: 0 };
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: NONE }
    }

    pub(super) fn push(&mut self, list: &mut List, held: Held<T>) {
        list.bytes += held.cost;
        let place = self.place(held);
        match self.slots.get_mut(list.tail as usize) {
            Some(last) => last.next = place,
            None => list.head = place,
        }
        list.tail = place;
    }

    pub(super) fn head(&self, list: &List) -> Option<&Held<T>> {
        self.slots.get(list.head as usize)?.held.as_ref()
    }

    pub(super) fn pop(&mut self, list: &mut List) -> Option<Held<T>> {
        let place = list.head;
        let slot = self.slots.get_mut(place as usize)?;
        let held = slot.held.take()?;
        list.head = std::mem::replace(&mut slot.next, self.free);
        self.free = place;
        if list.head == NONE {
            list.tail = NONE;
        }
        list.bytes -= held.cost;
        Some(held)
    }

    fn place(&mut self, held: Held<T>) -> u32 {
        let place = self.free;
        if let Some(slot) = self.slots.get_mut(place as usize) {
            self.free = std::mem::replace(&mut slot.next, NONE);
            slot.held = Some(held);
            return place;
        }
        self.slots.push(Slot { held: Some(held), next: NONE });
        // The queue's bound in bytes is far below 2^32 packets.
        (self.slots.len() - 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn lists_in_one_slab_are_as_separate_queues(
            steps in proptest::collection::vec((0usize..4, any::<bool>(), 1u64..2000), 0..300),
        ) {
            let mut slab = Slab::new();
            let mut lists = [List::EMPTY; 4];
            let mut model: [VecDeque<(usize, u64)>; 4] = Default::default();
            for (n, (which, push, cost)) in steps.into_iter().enumerate() {
                let (list, queue) = (&mut lists[which], &mut model[which]);
                if push {
                    slab.push(list, Held { payload: n, cost, since: Mono::ZERO, ecn_capable: false });
                    queue.push_back((n, cost));
                } else {
                    prop_assert_eq!(slab.head(list).map(|held| held.payload), queue.front().map(|one| one.0));
                    prop_assert_eq!(slab.pop(list).map(|held| (held.payload, held.cost)), queue.pop_front());
                }
                prop_assert_eq!(list.bytes, queue.iter().map(|one| one.1).sum::<u64>());
            }
            prop_assert!(slab.slots.len() <= 300);
        }
    }
}

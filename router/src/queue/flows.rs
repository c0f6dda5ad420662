//! The flows of one class, each with its turn: FQ-CoDel (RFC 8290).

use std::collections::VecDeque;

use bus::Mono;

use super::codel::{Aged, Aim, Codel, ONE_PACKET};
use super::ecn::Mark;
use super::slab::{Held, List, Slab};
use super::stats::ClassStats;

/// What a flow may send in its turn, in bytes on the wire: one full packet (RFC 8290 §5.2.3), so that a flow of small
/// packets has as many bytes as one of large ones.
const QUANTUM: i64 = ONE_PACKET as i64;

/// There is no room beyond for the next packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// One sub-queue: a flow, or several whose hashes collide.
#[derive(Debug, Clone)]
struct Flow {
    packets: List,
    codel: Codel,
    /// What it may still send in its turn, in bytes on the wire.
    credit: i64,
    listed: bool,
}

impl Flow {
    const EMPTY: Self = Self { packets: List::EMPTY, codel: Codel::NEW, credit: 0, listed: false };
}

/// The sub-queues of one class. Those that have just begun to send go first: a flow that sends less than its share is
/// always one of them, and waits for nobody (RFC 8290 §4.2).
#[derive(Debug)]
pub(super) struct Flows {
    /// Made with the class's first packet: most peers never send in all classes.
    flows: Vec<Flow>,
    fresh: VecDeque<u16>,
    others: VecDeque<u16>,
    number: u16,
    pub(super) stats: ClassStats,
}

impl Flows {
    pub(super) fn new(number: u16) -> Self {
        Self {
            flows: Vec::new(),
            fresh: VecDeque::new(),
            others: VecDeque::new(),
            number: number.max(1),
            stats: ClassStats::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stats.packets == 0
    }

    pub(super) fn enqueue<T>(&mut self, slab: &mut Slab<T>, hash: u64, held: Held<T>) {
        if self.flows.is_empty() {
            self.flows.resize(self.number.into(), Flow::EMPTY);
        }
        let index = (hash % u64::from(self.number)) as u16;
        let Some(flow) = self.flows.get_mut(usize::from(index)) else { return };
        self.stats.enqueued += 1;
        self.stats.packets += 1;
        self.stats.bytes += held.cost;
        slab.push(&mut flow.packets, held);
        if !flow.listed {
            (flow.listed, flow.credit) = (true, QUANTUM);
            self.fresh.push_back(index);
        }
    }

    /// The next packet of the flow whose turn it is, if it has at most `room` bytes.
    pub(super) fn dequeue<T: AsRef<[u8]>>(
        &mut self,
        slab: &mut Slab<T>,
        aim: Aim,
        now: Mono,
        room: usize,
    ) -> Result<Option<(Held<T>, Mark)>, NoRoom> {
        loop {
            let is_fresh = !self.fresh.is_empty();
            let list = if is_fresh { &self.fresh } else { &self.others };
            let Some(index) = list.front().copied() else { return Ok(None) };
            let Some(flow) = self.flows.get_mut(usize::from(index)) else { return Ok(None) };
            if flow.credit <= 0 {
                flow.credit += QUANTUM;
                self.move_back(is_fresh, index);
                continue;
            }
            if let Some((held, mark)) = flow.dequeue(slab, &mut self.stats, aim, now, room)? {
                flow.credit -= held.cost as i64;
                return Ok(Some((held, mark)));
            }
            // From the list of new flows it goes through the other one: else one that sends a packet whenever it is
            // empty would starve those (RFC 8290 §4.2).
            if is_fresh && !self.others.is_empty() {
                self.move_back(is_fresh, index);
            } else {
                flow.listed = false;
                self.unlist(is_fresh);
            }
        }
    }

    fn move_back(&mut self, is_fresh: bool, index: u16) {
        self.unlist(is_fresh);
        self.others.push_back(index);
    }

    fn unlist(&mut self, is_fresh: bool) {
        if is_fresh {
            self.fresh.pop_front()
        } else {
            self.others.pop_front()
        };
    }

    /// The bytes that the longest sub-queue has waiting.
    pub(super) fn fattest(&self) -> u64 {
        self.flows.iter().map(|flow| flow.packets.bytes).max().unwrap_or_default()
    }

    /// Drops the oldest packet of the longest sub-queue: its sender hears of it soonest.
    pub(super) fn drop_fattest<T>(&mut self, slab: &mut Slab<T>) -> Option<Held<T>> {
        let flow = self.flows.iter_mut().max_by_key(|flow| flow.packets.bytes)?;
        let held = slab.pop(&mut flow.packets)?;
        self.stats.dropped_full += 1;
        self.stats.left(held.cost);
        Some(held)
    }
}

impl Flow {
    fn dequeue<T: AsRef<[u8]>>(
        &mut self,
        slab: &mut Slab<T>,
        stats: &mut ClassStats,
        aim: Aim,
        now: Mono,
        room: usize,
    ) -> Result<Option<(Held<T>, Mark)>, NoRoom> {
        let Self { packets, codel, .. } = self;
        let mut dropped = 0;
        let taken = codel.dequeue(
            aim,
            now,
            || {
                if slab.head(packets).is_some_and(|held| held.payload.as_ref().len() > room) {
                    return Err(NoRoom);
                }
                let Some(held) = slab.pop(packets) else { return Ok(None) };
                stats.left(held.cost);
                let sojourn = now.since(held.since);
                Ok(Some(Aged { packet: held, sojourn, left: packets.bytes }))
            },
            |held| {
                dropped += u64::from(!held.ecn_capable);
                held.ecn_capable.then_some(held)
            },
        );
        stats.dropped_codel += dropped;
        if let Ok(Some((held, mark))) = &taken {
            stats.sent(now.since(held.since), *mark);
        }
        taken
    }
}

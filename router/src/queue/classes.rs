//! Four classes above one link.

use bus::Mono;

use super::OVERHEAD;
use super::class::Class;
use super::codel::{Aim, LEAST_INTERVAL, LEAST_TARGET, ONE_PACKET};
use super::ecn::{Mark, is_ecn_capable};
use super::flows::Flows;
use super::slab::{Held, Slab};
use super::stats::ClassStats;
use crate::packet::{Flow, Fragment, Packet, Ports};

/// Why a packet was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// Also an empty queue has no place for it.
    #[error("packet larger than the whole queue")]
    TooLarge,
}

/// Packets that wait for a link, and whose turn it is.
///
/// Among classes a deficit round robin in which the higher goes first: a class may send [`Class::weight`] full packets
/// in a round, and the round ends when no class that has packets may send more. So a class that keeps to its share
/// waits for one packet of those below, a class that does not loses its precedence until the round's end, and no class
/// starves. Within a class, FQ-CoDel (RFC 8290).
///
/// It holds at most as many bytes as it is told, counted on the wire, so that also the number of packets is bounded.
/// When full it loses the oldest packet of the flow that has most waiting, whatever its class: who fills it pays.
#[derive(Debug)]
pub struct Queue<T> {
    slab: Slab<T>,
    classes: [Share; Class::ALL.len()],
    bytes: u64,
    bound: u64,
    aim: Aim,
    seed: u64,
}

#[derive(Debug)]
struct Share {
    flows: Flows,
    /// What one round gives, in bytes on the wire.
    quantum: i64,
    /// What is left of it.
    credit: i64,
}

impl<T: AsRef<[u8]>> Queue<T> {
    /// `bound` in bytes on the wire. `seed` keeps outsiders from choosing whom they collide with.
    pub fn new(seed: u64, bound: u64) -> Self {
        let classes = Class::ALL.map(|class| {
            let quantum = i64::from(class.weight()) * ONE_PACKET as i64;
            Share { flows: Flows::new(class.flows()), quantum, credit: quantum }
        });
        let aim = Aim { target: LEAST_TARGET, interval: LEAST_INTERVAL };
        Self { slab: Slab::new(), classes, bytes: 0, bound, aim, seed }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes on the wire that wait.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn bound(&self) -> u64 {
        self.bound
    }

    /// By [`Class::index`].
    pub fn stats(&self) -> [ClassStats; Class::ALL.len()] {
        self.classes.each_ref().map(|share| share.flows.stats)
    }

    /// Changes the bound; what is above it is dropped.
    pub fn set_bound(&mut self, bound: u64) {
        self.bound = bound;
        self.shrink();
    }

    pub fn set_aim(&mut self, aim: Aim) {
        self.aim = aim;
    }

    /// Queues `payload`, which is, or stands for, `packet`.
    pub fn enqueue(&mut self, packet: &Packet<'_>, payload: T, now: Mono) -> Result<(), Dropped> {
        let cost = payload.as_ref().len() as u64 + OVERHEAD;
        if cost > self.bound {
            return Err(Dropped::TooLarge);
        }
        let upper = packet.upper();
        let class = Class::with(packet, &upper);
        // Fragments have no ports after the first, so none counts.
        let ports = if upper.fragment == Fragment::Whole { upper.ports } else { Ports::None };
        let hash = Flow { ports, ..packet.flow_of(&upper) }.seeded_hash(self.seed);
        let held = Held { payload, cost, since: now, ecn_capable: is_ecn_capable(packet) };
        if let Some(share) = self.classes.get_mut(class.index()) {
            share.flows.enqueue(&mut self.slab, hash, held);
            self.bytes += cost;
        }
        self.shrink();
        Ok(())
    }

    /// The next packet to send, if it has at most `room` bytes.
    pub fn dequeue(&mut self, now: Mono, room: usize) -> Option<(T, Mark)> {
        while !self.is_empty() {
            let Some(share) = self.classes.iter_mut().find(|share| share.may_send()) else {
                self.begin_round();
                continue;
            };
            let before = share.flows.stats.bytes;
            let taken = share.flows.dequeue(&mut self.slab, self.aim, now, room);
            self.bytes -= before - share.flows.stats.bytes;
            if let Some((held, mark)) = taken.ok()? {
                share.credit -= held.cost as i64;
                return Some((held.payload, mark));
            }
        }
        None
    }

    /// What a class did not use is lost, so that it cannot save up a burst; what it overdrew it pays back.
    fn begin_round(&mut self) {
        for share in &mut self.classes {
            share.credit = (share.credit + share.quantum).min(share.quantum);
        }
    }

    fn shrink(&mut self) {
        while self.bytes > self.bound {
            let fattest = self.classes.iter_mut().max_by_key(|share| share.flows.fattest());
            let Some(held) = fattest.and_then(|share| share.flows.drop_fattest(&mut self.slab)) else {
                return;
            };
            self.bytes -= held.cost;
        }
    }
}

impl Share {
    fn may_send(&self) -> bool {
        self.credit > 0 && !self.flows.is_empty()
    }
}

#[cfg(test)]
mod tests;

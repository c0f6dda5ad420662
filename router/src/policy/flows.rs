//! The conversations that were allowed lately, in one table of fixed size.
//!
//! Both ends of a conversation are put in order before they are hashed, so that a packet and its answer find the same
//! entry in the same one look. An entry may be in any of the [`WAYS`] places of its set. A new one takes the place of,
//! in this order: one that is forgotten; one that has ended; one that nobody has answered; and of several the one that
//! would be forgotten first. So who begins conversations with addresses that do not answer, to fill the table, pushes
//! out his own.

use std::net::IpAddr;

use bus::Mono;

use super::hash::HashKey;
use super::stage::{Progress, Signal, Stage, lifetime};
use crate::packet::{Flow, ICMP, ICMPV6, Ports, TCP, UDP};

/// Places of one entry: enough that a table three quarters full seldom loses an entry, and few enough to look at.
const WAYS: usize = 8;

/// One end: its address as IPv6 (IPv4-mapped; a mapped address itself never travels), and its port.
type Side = (u128, u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    low: u128,
    high: u128,
    low_port: u16,
    high_port: u16,
    protocol: u8,
}

/// One conversation. 64 bytes: one line of the processor's cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    key: Key,
    /// Second of our clock from which on it is forgotten. Zero: nothing here.
    until: u32,
    /// The policy under which it was last found allowed.
    pub(super) epoch: u32,
    begun_by_low: bool,
    /// Began behind this edge: no rule of ours is about it.
    pub(super) noted: bool,
    progress: Progress,
}

const _: () = assert!(size_of::<Entry>() == 64);

const NOTHING: Entry = Entry {
    key: Key { low: 0, high: 0, low_port: 0, high_port: 0, protocol: 0 },
    until: 0,
    epoch: 0,
    begun_by_low: false,
    noted: false,
    progress: Progress::BEGUN,
};

/// The table.
#[derive(Debug)]
pub struct Flows {
    /// A power of two of them.
    sets: Box<[[Entry; WAYS]]>,
    hash: HashKey,
}

impl Flows {
    /// Of a hub, per shard: 4 MiB. A site with 1000 devices that are polled by 10 hosts each has 10 000.
    pub const AT_HUB: usize = 1 << 16;

    /// Of an edge: 256 KiB, for one site's share.
    pub const AT_EDGE: usize = 1 << 12;

    /// With room for about `capacity` conversations. `seed` differs from process to process, and nobody else knows it.
    pub fn new(capacity: usize, seed: [u64; 2]) -> Self {
        let sets = (capacity / WAYS).next_power_of_two();
        Self { sets: vec![[NOTHING; WAYS]; sets].into(), hash: HashKey::from_seed(seed) }
    }

    /// The entry of `key`, if it is not forgotten.
    pub(super) fn find(&mut self, key: &Key, now: Mono) -> Option<&mut Entry> {
        let now = seconds(now);
        self.set(key).iter_mut().find(|entry| entry.until > now && entry.key == *key)
    }

    /// A conversation begins: `flow` is of its first packet.
    pub(super) fn begin(&mut self, begun: Begun, signal: Signal, epoch: u32, now: Mono) {
        let Begun { key, by_low, noted } = begun;
        let second = seconds(now);
        let place = self.set(&key).iter_mut().min_by_key(|entry| entry.worth(&key, second));
        if let Some(place) = place {
            *place = Entry { key, until: 0, epoch, begun_by_low: by_low, noted, progress: Progress::BEGUN };
            place.advance(signal, by_low, now);
        }
    }

    /// How many are not forgotten. Looks at all of them.
    pub fn count(&self, now: Mono) -> usize {
        let now = seconds(now);
        self.sets.iter().flatten().filter(|entry| entry.until > now).count()
    }

    #[expect(clippy::indexing_slicing, reason = "the index is below the length, which is no zero")]
    fn set(&mut self, key: &Key) -> &mut [Entry; WAYS] {
        let Key { low, high, low_port, high_port, protocol } = *key;
        let rest = u64::from(low_port) << 32 | u64::from(high_port) << 16 | u64::from(protocol);
        let [low, high] = [low, high].map(|bits| [(bits >> 64) as u64, bits as u64]);
        let hash = self.hash.hash([low[0], low[1], high[0], high[1], rest]);
        let mask = self.sets.len() - 1;
        &mut self.sets[hash as usize & mask]
    }
}

/// What begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) key: Key,
    pub(super) by_low: bool,
    pub(super) noted: bool,
}

impl Entry {
    pub(super) fn is_answer(&self, from_low: bool) -> bool {
        self.begun_by_low != from_low
    }

    /// Whether a packet belongs to this conversation as it is: opening segments and questions are nobody's answer.
    pub(super) fn goes_on(&self, signal: Signal, from_low: bool) -> bool {
        !self.is_answer(from_low) || signal.may_answer()
    }

    /// After a packet of this conversation.
    pub(super) fn advance(&mut self, signal: Signal, from_low: bool, now: Mono) {
        self.progress = self.progress.after(signal, self.is_answer(from_low));
        self.until = seconds(now).saturating_add(lifetime(self.key.protocol, self.progress.stage));
    }

    /// The least is replaced: by one of the same key its own place is taken.
    fn worth(&self, key: &Key, now: u32) -> (bool, bool, Stage, u32) {
        let is_live = self.until > now;
        (!(is_live && self.key == *key), is_live, self.progress.stage, self.until)
    }
}

impl Key {
    /// The key of a flow, and whether its source is the lower end. `None`: nothing can answer it, or it has not the
    /// ports by which an answer would be known.
    pub(super) fn of(flow: &Flow) -> Option<(Self, bool)> {
        let (source_port, destination_port) = match (flow.ports, flow.protocol) {
            (Ports::Pair { source, destination }, _) => (source, destination),
            (Ports::Echo { id }, _) => (id, id),
            (Ports::IcmpError, _) | (Ports::None, TCP | UDP | ICMP | ICMPV6) => return None,
            (Ports::None, _) => (0, 0),
        };
        let source: Side = (bits(flow.source), source_port);
        let destination: Side = (bits(flow.destination), destination_port);
        let from_low = source <= destination;
        let ((low, low_port), (high, high_port)) =
            if from_low { (source, destination) } else { (destination, source) };
        Some((Self { low, high, low_port, high_port, protocol: flow.protocol }, from_low))
    }
}

pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// One after the clock's zero, so that zero is always past.
pub(super) fn seconds(now: Mono) -> u32 {
    u32::try_from(now.0 / 1_000_000).unwrap_or(u32::MAX - 1)
}

#[cfg(test)]
mod tests;
